//! Owns what help says behind the flags: examples that work as they stand, and exit codes. The manual pages are made
//! of the same table. A command without an entry does not pass the tests.

/// A command line, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Example {
    /// As typed.
    pub line: &'static str,
    /// In a few words.
    pub does: &'static str,
}

/// An exit code, and when it is given.
pub type Exit = (&'static str, &'static str);

/// What help says of a command behind its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Help {
    /// The command; of the program itself its name.
    pub command: &'static str,
    /// The most common first.
    pub examples: &'static [Example],
    /// In ascending order.
    pub exits: &'static [Exit],
}

const DONE: Exit = ("0", "done");
const USAGE: Exit = ("2", "usage: the command line could not be understood");
const CONFIGURATION: Exit = (
    "78",
    "configuration: the root, a variable or the file has to be changed first",
);

const fn example(line: &'static str, does: &'static str) -> Example {
    Example { line, does }
}

/// The program's own, then each command's in the order of the help.
pub const HELP: &[Help] = &[
    Help {
        command: "distilld",
        examples: &[
            example(
                "distilld --root /srv/lake run",
                "follow the lake until a signal comes",
            ),
            example(
                "distilld --root /srv/lake status",
                "is the set fresh, and what waits?",
            ),
            example(
                "distilld --root /srv/lake export --dry-run",
                "count what a batch over the history would give",
            ),
            example(
                "distilld --config /etc/distilld/distilld.toml verify",
                "prove that the export is what the sources say",
            ),
        ],
        exits: &[
            DONE,
            ("1", "failed, or differences found"),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "run",
        examples: &[
            example(
                "distilld --root /srv/lake run",
                "follow the lake until a signal comes",
            ),
            example(
                "distilld --root /srv/lake run --once",
                "catch up with all that is there, then exit",
            ),
            example(
                "distilld --root /srv/lake --log debug run",
                "say of each pass what it did",
            ),
        ],
        exits: &[
            ("0", "stopped by a signal, or with --once: caught up"),
            ("1", "failed; the message says what to do"),
            USAGE,
            CONFIGURATION,
            (
                "130, 143",
                "ended at once by a second SIGINT or SIGTERM, which is safe",
            ),
        ],
    },
    Help {
        command: "export",
        examples: &[
            example(
                "distilld --root /srv/lake export --dry-run",
                "count, write nothing",
            ),
            example(
                "distilld --root /srv/lake export --output - | wc -l",
                "rows to stdout, the result to stderr",
            ),
            example(
                "distilld --root /srv/lake export --output all.jsonl --include-partial",
                "a file of one's own, runs of every role in it",
            ),
            example(
                "distilld --root /srv/lake export --output - --recorded-at 2026-01-01T00:00:00Z",
                "the same bytes each time",
            ),
        ],
        exits: &[
            DONE,
            ("1", "failed; what was there before is untouched"),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "verify",
        examples: &[
            example(
                "distilld --root /srv/lake verify",
                "prove it, also while the daemon runs",
            ),
            example(
                "distilld --root /srv/lake verify | jq .days",
                "what differs, day by day",
            ),
        ],
        exits: &[
            ("0", "the export is what a batch would give"),
            ("1", "it is not, or nothing can be said"),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "rebuild",
        examples: &[
            example("systemctl stop distilld", "only one may write"),
            example(
                "distilld --root /srv/lake rebuild",
                "a fresh export, swapped in at once",
            ),
            example("distilld --root /srv/lake verify", "prove that it is equal"),
        ],
        exits: &[
            DONE,
            (
                "1",
                "failed or interrupted; the old export and state are untouched",
            ),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "status",
        examples: &[
            example("distilld --root /srv/lake status", "a page for a person"),
            example(
                "distilld --root /srv/lake status --watch",
                "the same, live, until q or Ctrl-C",
            ),
            example(
                "distilld --root /srv/lake status --json | jq .lag",
                "one number for a program",
            ),
        ],
        exits: &[
            DONE,
            ("1", "there is nothing to be told, or it cannot be read"),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "explain",
        examples: &[
            example(
                "distilld --root /srv/lake explain run-4711",
                "each line of the run, its verdict and why",
            ),
            example(
                "distilld --root /srv/lake explain run-4711 --json",
                "the same for a program",
            ),
            example(
                "distilld --root /srv/lake explain --contradicted",
                "runs that were rejected after their rows were written",
            ),
        ],
        exits: &[
            (
                "0",
                "some line concerns the run; with --contradicted: listed",
            ),
            ("1", "none does, or it cannot be found out"),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "dead-letters",
        examples: &[
            example(
                "distilld --root /srv/lake dead-letters",
                "the first hundred",
            ),
            example(
                "distilld --root /srv/lake dead-letters show 2026/05/02/audits.jsonl 4096",
                "the bytes of one",
            ),
            example(
                "distilld --root /srv/lake dead-letters retry 2026/05/02/audits.jsonl",
                "the day-file was mended",
            ),
        ],
        exits: &[
            DONE,
            (
                "1",
                "there is no such letter or day-file, or it cannot be read",
            ),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "plan",
        examples: &[
            example(
                "distilld --root /srv/lake plan",
                "what a run now would export, refuse and wait for",
            ),
            example(
                "distilld --root /srv/lake plan --json | jq .total.rows",
                "one number for a program",
            ),
        ],
        exits: &[
            DONE,
            ("1", "there is no state to plan from, or it cannot be read"),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "check",
        examples: &[
            example("distilld --root /srv/lake check", "before the first start"),
            example(
                "distilld --config /etc/distilld/distilld.toml check",
                "after the configuration was changed",
            ),
        ],
        exits: &[
            ("0", "nothing would fail"),
            ("1", "something would; each line says what"),
            USAGE,
            CONFIGURATION,
        ],
    },
];

/// The entry of a command.
#[must_use]
pub fn of(command: &str) -> Option<&'static Help> {
    HELP.iter().find(|help| help.command == command)
}

/// Behind the flags of `-h`.
pub(super) fn short(command: &str) -> String {
    let Some(help) = of(command) else {
        return String::new();
    };
    let mut text = String::from("Examples:\n");
    for example in help.examples {
        text.extend(["  ", example.line, "\n"]);
    }
    text + "\nExit codes and more: --help"
}

/// Behind the flags of `--help`.
pub(super) fn long(command: &str) -> String {
    let Some(help) = of(command) else {
        return String::new();
    };
    let mut text = String::from("Examples:\n");
    for example in help.examples {
        text.extend(["  ", example.line, "\n      ", example.does, "\n"]);
    }
    text += "\nExit codes:\n";
    for (code, when) in help.exits {
        text += &format!("  {code:<8}  {when}\n");
    }
    text
}

/// Behind the flags of the program's own `--help`: where settings come from, too.
pub(super) fn of_program() -> String {
    let order = "\nSettings are taken from flags, then from the environment, then from the file of --config, \
                 then from defaults.\nData goes to stdout, all else to stderr. Colours and bars only on a \
                 terminal, and no colours with NO_COLOR.";
    long("distilld") + order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Arguments;
    use clap::CommandFactory as _;

    #[test]
    fn every_command_has_examples_and_exit_codes_and_nothing_else_has() {
        let program = Arguments::command();
        let mut names = vec!["distilld".to_owned()];
        names.extend(
            program
                .get_subcommands()
                .map(|command| command.get_name().to_owned()),
        );
        let known: Vec<&str> = HELP.iter().map(|help| help.command).collect();
        assert_eq!(names, known);
        for help in HELP {
            assert!(
                !help.examples.is_empty() && help.exits.len() >= 4,
                "{}",
                help.command
            );
        }
    }

    #[test]
    fn every_example_is_a_command_line_that_is_understood() {
        for example in HELP.iter().flat_map(|help| help.examples) {
            let words = example
                .line
                .split('|')
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
