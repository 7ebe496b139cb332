//! The part of the help after the flags: examples and exit codes. The manual pages are generated from the same table. A
//! test requires an entry for each command.

use crate::cli::args::{dataset, queries};

/// A command line and its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Example {
    /// The command line.
    pub line: &'static str,
    /// The effect, in a few words.
    pub does: &'static str,
}

/// An exit code and its meaning.
pub type Exit = (&'static str, &'static str);

/// The help of a command after its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Help {
    /// The command, or the name of the program itself.
    pub command: &'static str,
    /// Examples, the most common first.
    pub examples: &'static [Example],
    /// Exit codes, in ascending order.
    pub exits: &'static [Exit],
}

pub(crate) const DONE: Exit = ("0", "done");
pub(crate) const USAGE: Exit = ("2", "usage: invalid command line");
pub(super) const CONFIGURATION: Exit = (
    "78",
    "configuration: the root, a variable or the file must be corrected",
);

pub(crate) const fn example(line: &'static str, does: &'static str) -> Example {
    Example { line, does }
}

/// The help of the program, and of each command except those that query or read the dataset.
const HELP: &[Help] = &[
    Help {
        command: "distilld",
        examples: &[
            example("distilld", "print the health verdict in one line"),
            example("distilld status", "show lag and waiting runs"),
            example(
                "distilld --instance second verify",
                "verify the export of /etc/distilld/second.toml",
            ),
            example(
                "distilld --root /srv/lake run",
                "follow a lake without a configuration file",
            ),
            example(
                "distilld --root /srv/lake export --dry-run",
                "count the rows of a batch over the history",
            ),
        ],
        exits: &[
            ("0", "done; without a command: fresh or no_sources"),
            ("1", "failed, or differences found"),
            (
                "3",
                "without a command: starting, recovering or catching_up",
            ),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "config",
        examples: &[
            example("distilld config", "show the settings of a packaged host"),
            example(
                "distilld --instance second config",
                "show those of /etc/distilld/second.toml",
            ),
            example("distilld config --check", "validate a changed file"),
            example(
                "distilld config --json | jq .settings",
                "print them for a script",
            ),
        ],
        exits: &[
            DONE,
            ("1", "the root cannot be accessed now"),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "run",
        examples: &[
            example(
                "distilld --root /srv/lake run",
                "follow the lake until a signal",
            ),
            example(
                "distilld --root /srv/lake run --once",
                "read everything once, then exit",
            ),
            example("distilld --root /srv/lake --log debug run", "log each pass"),
        ],
        exits: &[
            ("0", "stopped by a signal, or with --once: caught up"),
            ("1", "failed; the message contains the fix"),
            USAGE,
            CONFIGURATION,
            (
                "130, 143",
                "exited at once after a second SIGINT or SIGTERM, which is safe",
            ),
        ],
    },
    Help {
        command: "export",
        examples: &[
            example(
                "distilld --root /srv/lake export --dry-run",
                "count the rows without writing them",
            ),
            example(
                "distilld --root /srv/lake export --output - | wc -l",
                "write rows to stdout, the result to stderr",
            ),
            example(
                "distilld --root /srv/lake export --output all.jsonl --include-partial",
                "write another file, with runs of every role",
            ),
            example(
                "distilld --root /srv/lake export --output - --recorded-at 2026-01-01T00:00:00Z",
                "write reproducible bytes",
            ),
            example(
                "distilld export --pair s/n.jsonl e/n.jsonl --recorded-at 2026-01-01T00:00:00Z",
                "write the rows of one pair of day-files, without a lake",
            ),
        ],
        exits: &[
            DONE,
            (
                "1",
                "failed; the previous output is unchanged; rows on stdout are no result",
            ),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "verify",
        examples: &[
            example(
                "distilld --root /srv/lake verify",
                "verify, also while the daemon runs",
            ),
            example(
                "distilld --root /srv/lake verify | jq .days",
                "show the differences by day",
            ),
            example(
                "distilld verify --pair s/n.jsonl e/n.jsonl --rows rows.jsonl",
                "compare rows with those of one pair of day-files",
            ),
        ],
        exits: &[
            ("0", "the export equals a batch"),
            ("1", "it differs, or could not be verified"),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "rebuild",
        examples: &[
            example("systemctl stop distilld", "stop the other writer"),
            example(
                "distilld --root /srv/lake rebuild --state-only",
                "make a new state of the export, whose rows and offsets stay",
            ),
            example(
                "distilld --root /srv/lake rebuild --dry-run",
                "show which rows a new export would lack, and why",
            ),
            example(
                "distilld --root /srv/lake rebuild",
                "replace the export atomically, and keep the old one next to it",
            ),
            example(
                "distilld --root /srv/lake rebuild --effective",
                "the same without the rows that the ledger retracts",
            ),
            example("distilld --root /srv/lake verify", "verify the new export"),
        ],
        exits: &[
            DONE,
            (
                "1",
                "failed, refused or interrupted; the old export and state are unchanged",
            ),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "instances",
        examples: &[
            example("distilld instances", "list the lakes of this host"),
            example(
                "distilld instances --json | jq '.[].health.verdict'",
                "print the verdicts for a script",
            ),
        ],
        exits: &[
            ("0", "every verdict is fresh or no_sources"),
            ("1", "a verdict needs an action, or is not known"),
            USAGE,
            ("3", "a verdict is starting, recovering or catching_up"),
        ],
    },
    Help {
        command: "wait",
        examples: &[
            example(
                "distilld wait --fresh && train",
                "train on everything that is in the lake now",
            ),
            example(
                "distilld wait --fresh --timeout 10m --json",
                "give up after ten minutes, print the end as JSON",
            ),
        ],
        exits: &[
            (
                "0",
                "everything that was in the lake is exported or refused",
            ),
            ("1", "the daemon cannot be asked"),
            USAGE,
            ("3", "the timeout ended before"),
            ("4", "no daemon runs"),
            ("5", "the daemon is stopped by a fault, or unresponsive"),
            (
                "6",
                "everything that can be read is exported or refused, but not everything can be read",
            ),
            CONFIGURATION,
        ],
    },
    Help {
        command: "retract",
        examples: &[
            example(
                "distilld --root /srv/lake retract run-4711 --reason 'consent withdrawn'",
                "take the rows of a run out",
            ),
            example(
                "distilld --root /srv/lake retract --from runs.txt --reason 'ticket 12'",
                "read run IDs from a file, one a line",
            ),
            example(
                "distilld --root /srv/lake retract run-4711 --revoke",
                "end the order",
            ),
            example(
                "distilld --root /srv/lake retract --list",
                "list the orders in force",
            ),
        ],
        exits: &[
            DONE,
            ("1", "no line has one of the runs, or an error occurred"),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "check",
        examples: &[
            example("distilld check", "check before the first start"),
            example(
                "distilld check --bundle report.json",
                "write a report for others, without data of the lake",
            ),
            example(
                "distilld --instance second check",
                "check another instance, with its unit",
            ),
        ],
        exits: &[
            ("0", "no check failed"),
            ("1", "a check failed; its line contains the fix"),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "generate",
        examples: &[example(
            "distilld generate target/package",
            "write what a package includes",
        )],
        exits: &[DONE, ("1", "a file cannot be written"), USAGE],
    },
];

fn all() -> impl Iterator<Item = &'static Help> {
    HELP.iter().chain(queries::HELP).chain(dataset::HELP)
}

/// Returns the entry of a command.
#[must_use]
pub fn find(command: &str) -> Option<&'static Help> {
    all().find(|help| help.command == command)
}

/// Returns the text after the flags of `-h`.
pub(super) fn short(command: &str) -> String {
    find(command).map(Help::short).unwrap_or_default()
}

/// Returns the text after the flags of `--help`.
pub(super) fn long(command: &str) -> String {
    find(command).map(Help::long).unwrap_or_default()
}

impl Help {
    /// Returns the text after the flags of `-h`.
    pub(crate) fn short(&self) -> String {
        let mut text = String::from("Examples:\n");
        for example in self.examples {
            text.extend(["  ", example.line, "\n"]);
        }
        text + "\nExit codes and more: --help"
    }

    /// Returns the text after the flags of `--help`.
    pub(crate) fn long(&self) -> String {
        let mut text = String::from("Examples:\n");
        for example in self.examples {
            text.extend(["  ", example.line, "\n      ", example.does, "\n"]);
        }
        text += "\nExit codes:\n";
        for (code, when) in self.exits {
            text += &format!("  {code:<8}  {when}\n");
        }
        text
    }
}

/// Returns the text after the flags of the program's own `--help`, with the precedence of settings.
pub(super) fn program() -> String {
    let order = "\nSettings are taken from flags, then from the environment, then from the configuration file, then \
                 from defaults.\nThe file is that of --config, else of --instance, else of DISTILLD_CONFIG, else \
                 /etc/distilld/distilld.toml where it exists.\nData goes to stdout, everything else to stderr. Colours and bars are used only on a \
                 terminal, and no colours with NO_COLOR.";
    long("distilld") + order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Arguments;
    use clap::CommandFactory as _;

    #[test]
    fn exactly_the_commands_have_examples_and_exit_codes() {
        let program = Arguments::command();
        let mut names = vec!["distilld".to_owned()];
        names.extend(
            program
                .get_subcommands()
                .map(|command| command.get_name().to_owned()),
        );
        let mut known: Vec<&str> = all().map(|help| help.command).collect();
        names.sort();
        known.sort();
        assert_eq!(names, known);
        for help in all() {
            // `generate` alone reads no configuration, and has no exit code for one.
            let exits_min = if help.command == "generate" { 3 } else { 4 };
            assert!(
                !help.examples.is_empty() && help.exits.len() >= exits_min,
                "{}",
                help.command
            );
        }
    }

    #[test]
    fn every_example_is_a_valid_command_line() {
        for example in all().flat_map(|help| help.examples) {
            let words = example
                .line
                .split(['|', '&'])
                .next()
                .unwrap_or_default()
                .split_whitespace();
            if !example.line.starts_with("distilld ") {
                continue;
            }
            let parsed = Arguments::command().try_get_matches_from(words);
            assert!(parsed.is_ok(), "{}: {:?}", example.line, parsed.err());
        }
    }

    #[test]
    fn no_line_of_any_help_is_wider_than_its_terminal() {
        for width in [80, 100] {
            let mut program = Arguments::command().term_width(width);
            program.build();
            let mut commands = vec![program.clone()];
            commands.extend(program.get_subcommands().cloned());
            for mut command in commands {
                command = command.term_width(width);
                for text in [command.render_help(), command.render_long_help()] {
                    let text = text.to_string();
                    let widest = text.lines().max_by_key(|line| line.chars().count());
                    assert!(
                        widest.is_none_or(|line| line.chars().count() <= width),
                        "{}: {widest:?}",
                        command.get_name()
                    );
                }
            }
        }
    }

    #[test]
    fn every_flag_and_command_has_a_short_and_a_long_help() {
        let mut program = Arguments::command();
        program.build();
        let mut commands = vec![&program];
        commands.extend(
            program
                .get_subcommands()
                .filter(|command| command.get_name() != "help"),
        );
        for command in commands {
            assert!(command.get_long_about().is_some(), "{}", command.get_name());
            assert!(
                command.get_after_long_help().is_some(),
                "{}",
                command.get_name()
            );
            let own = |id: &str| !["help", "version"].contains(&id);
            for argument in command
                .get_arguments()
                .filter(|argument| own(argument.get_id().as_str()))
            {
                assert!(argument.get_long_help().is_some(), "{}", argument.get_id());
            }
        }
    }
}
