//! The part of the help after the flags, and the manual pages and completions, which are generated from the same
//! definitions.

use std::io;

use clap::CommandFactory as _;
use clap_mangen::roff::{Roff, roman};

use crate::cli::args::help::{DONE, Exit, Help, USAGE, example};
use crate::cli::generate::keys::FilePage;
use crate::cli::generate::man::{Manual, write_environment};
use crate::cli::generate::{Page, built, completions};
use crate::publish::args::Arguments;
use crate::publish::settings::KEYS;

const CONFIGURATION: Exit = ("78", "configuration: the file must be corrected");
const FAILED: Exit = ("1", "failed; the message names the command that mends it");

const HELP: &[Help] = &[
    Help {
        command: "distilld-publish",
        examples: &[
            example("distilld-publish once", "commit all that the table lacks"),
            example("distilld-publish status", "show how much it lacks"),
            example(
                "distilld-publish --config publish.toml verify",
                "compare the rows of this host with its export",
            ),
        ],
        exits: &[DONE, FAILED, USAGE, CONFIGURATION],
    },
    Help {
        command: "run",
        examples: &[example(
            "distilld-publish run",
            "follow the export of this host, as the unit does",
        )],
        exits: &[
            ("0", "ended by SIGTERM or SIGINT"),
            ("1", "the process cannot start or work"),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "once",
        examples: &[
            example("distilld-publish once", "commit all that the table lacks"),
            example(
                "distilld wait --fresh && distilld-publish once",
                "publish everything that is in the lake now",
            ),
        ],
        exits: &[DONE, FAILED, USAGE, CONFIGURATION],
    },
    Help {
        command: "status",
        examples: &[example(
            "distilld-publish status | jq .lag_bytes",
            "print how many bytes of the export the table lacks",
        )],
        exits: &[DONE, FAILED, USAGE, CONFIGURATION],
    },
    Help {
        command: "verify",
        examples: &[example(
            "distilld-publish verify",
            "compare what is published",
        )],
        exits: &[
            ("0", "the rows are the same"),
            ("1", "failed, or the rows differ"),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "replace",
        examples: &[
            example(
                "distilld-publish replace --dry-run",
                "count the rows that would be removed and added",
            ),
            example("distilld-publish replace", "publish a rebuilt export"),
        ],
        exits: &[DONE, FAILED, USAGE, CONFIGURATION],
    },
    Help {
        command: "generate",
        examples: &[example(
            "distilld-publish generate target/package-publish",
            "write what a package includes",
        )],
        exits: &[DONE, ("1", "a file cannot be written"), USAGE],
    },
];

/// Variables of a table in S3, and their meaning.
const VARIABLES: [(&str, &str); 4] = [
    (
        "AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
        "The region and the credentials of a table in S3.",
    ),
    (
        "AWS_ENDPOINT_URL",
        "The address of another service with the interface of S3; with AWS_ALLOW_HTTP=true also one without TLS.",
    ),
    ("RUST_LOG", "The filter of the log."),
    (
        "NO_COLOR, CLICOLOR=0, TERM=dumb",
        "No colours in help, log and errors.",
    ),
];

fn find(command: &str) -> Option<&'static Help> {
    HELP.iter().find(|help| help.command == command)
}

/// Returns the text after the flags of `-h`.
pub(super) fn short(command: &str) -> String {
    find(command).map(Help::short).unwrap_or_default()
}

/// Returns the text after the flags of `--help`.
pub(super) fn long(command: &str) -> String {
    find(command).map(Help::long).unwrap_or_default()
}

/// Generates the manual pages and the completions.
///
/// # Errors
/// None that a caller can cause: a page is written to memory.
pub fn pages() -> io::Result<Vec<Page>> {
    let manual = Manual {
        program: built(Arguments::command()),
        help: find,
        environment,
        files: &[
            (
                "/etc/distilld/publish.toml",
                "the configuration; see distilld-publish.toml(5)",
            ),
            (
                "/etc/default/distilld-publish",
                "the environment of the service, with the credentials of a table in S3",
            ),
        ],
        see_also: &[
            ("distilld-publish.toml", "5"),
            ("distilld", "1"),
            ("distilld-rows", "1"),
        ],
    };
    let file = FilePage {
        name: "distilld-publish.toml",
        program: "distilld-publish",
        description: "A TOML file of keys and values; without --config it is /etc/distilld/publish.toml. A key that is not \
                      known, or a value that does not fit, is an error with exit status 78, and nothing is published.",
        annotated: include_str!("../../examples/lakehouse/publish.toml"),
        example: &[
            "export = \"/srv/lakehouse/data/distilled/sft/sft_export.jsonl\"",
            "table = \"s3://lake/tables/sft\"",
            "host = \"lake-07\"",
        ],
        see_also: &[("distilld-publish", "1"), ("distilld", "1")],
    };
    let mut pages = manual.pages()?;
    pages.push(file.page(KEYS.iter().map(|key| key.entry()))?);
    pages.extend(completions(&manual.program));
    Ok(pages)
}

fn environment(roff: &mut Roff) {
    let variables = VARIABLES.map(|(variable, what)| (variable, vec![roman(what)]));
    write_environment(roff, &variables);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_commands_have_help_and_each_example_is_a_valid_command_line() {
        let program = built(Arguments::command());
        let mut names = vec![program.get_name()];
        names.extend(program.get_subcommands().map(clap::Command::get_name));
        let known: Vec<&str> = HELP.iter().map(|help| help.command).collect();
        assert_eq!(names, known);
        for example in HELP.iter().flat_map(|help| help.examples) {
            let line = example.line.rsplit("&& ").next().unwrap();
            let words = line.split(" | ").next().unwrap().split_whitespace();
            let parsed = Arguments::command().try_get_matches_from(words);
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
        }
    }

    #[test]
    fn no_line_of_any_help_is_wider_than_its_terminal() {
        let program = built(Arguments::command().term_width(80));
        let mut commands = vec![program.clone()];
        commands.extend(program.get_subcommands().cloned());
        for command in commands {
            let mut command = command.term_width(80);
            assert!(command.get_long_about().is_some(), "{}", command.get_name());
            for text in [command.render_help(), command.render_long_help()] {
                let text = text.to_string();
                let widest = text.lines().max_by_key(|line| line.chars().count());
                let width = widest.map_or(0, |line| line.chars().count());
                assert!(width <= 80, "{}: {widest:?}", command.get_name());
            }
        }
    }
}
