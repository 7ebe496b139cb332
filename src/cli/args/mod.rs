//! Owns what a person typed: flags, commands, their help and their usage errors (exit code 2).
//!
//! It touches nothing: no file, no environment, no clock. What the flags mean together with the environment and
//! the configuration file is decided in [`crate::config`].

mod flags;
pub mod help;
pub(crate) mod queries;
pub(crate) mod rfc3339;

use clap::{Parser, Subcommand};

pub use crate::config::GlobalArguments;
pub use flags::{Dialect, ExportArguments, Output, RunArguments};
pub use queries::{
    DeadLettersAction, DeadLettersArguments, ExplainArguments, PlanArguments, RetryArguments,
    ShowArguments, StatusArguments, stream,
};
pub use rfc3339::rfc3339;

/// The whole command line.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(
    name = "distilld",
    version,
    about = "Turns scored model runs into training samples while they are written",
    long_about = "Follows the scored runs of a lakehouse and appends a supervised fine-tuning sample to \
                  ROOT/data/distilled/sft/sft_export.jsonl for each accepted one: exactly once, and never for a \
                  rejected one.",
    after_help = help::short("distilld"),
    after_long_help = help::of_program(),
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Arguments {
    /// Flags that go before or after any command.
    #[command(flatten)]
    pub global: GlobalArguments,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Follow the lake and append samples as runs are scored
    ///
    /// Starts where it stopped, whatever stopped it. A first SIGTERM or SIGINT finishes the batch in hand; a second
    /// one ends at once, which is safe. A second daemon on the same root stops with an error that names the first.
    #[command(after_help = help::short("run"), after_long_help = help::long("run"))]
    Run(RunArguments),
    /// Export the whole history as one batch, without the daemon
    ///
    /// Reads everything, keeps no state, and prints one JSON object with what it counted. Where a daemon keeps
    /// the root's export, that file is not replaced: give --output.
    #[command(after_help = help::short("export"), after_long_help = help::long("export"))]
    Export(ExportArguments),
    /// Prove that the export is what a batch would give
    ///
    /// Compares the daemon's export with the sources, row by row, stamps aside. Reads only, also while the daemon
    /// runs. Exit code 1 and the first difference if they do not agree.
    #[command(after_help = help::short("verify"), after_long_help = help::long("verify"))]
    Verify,
    /// Write a fresh export and a state that fits it
    ///
    /// The export is written anew from today's sources, in batch order, and swapped in atomically. Rows of lines and
    /// evidence that were rewritten or deleted since are dropped; a run that was accepted and later rejected keeps
    /// its row while the accepting line stands, as in a batch. Rows get new stamps, and offsets that consumers hold
    /// into the old export end here. The daemon must be stopped. Prints one JSON object with what changed.
    #[command(after_help = help::short("rebuild"), after_long_help = help::long("rebuild"))]
    Rebuild,
    /// Show what is fresh, waiting, dead or wrong
    ///
    /// Works with the daemon running or not.
    #[command(after_help = help::short("status"), after_long_help = help::long("status"))]
    Status(StatusArguments),
    /// Say what became of a run, and why
    ///
    /// Each line that concerns it, its verdict with the rule and the value that decided it, its row in the export, or
    /// what it waits for. Works with the daemon running or not. Exit code 1 for a run that no line concerns. With
    /// --contradicted: which runs were rejected too late for their rows.
    #[command(after_help = help::short("explain"), after_long_help = help::long("explain"))]
    Explain(ExplainArguments),
    /// List lines that are no records, show one, try again
    ///
    /// Works with the daemon running or not.
    #[command(after_help = help::short("dead-letters"), after_long_help = help::long("dead-letters"))]
    DeadLetters(DeadLettersArguments),
    /// Say what a run now would do, and do nothing
    ///
    /// What would be exported, refused and waited for, from where the state ends: it costs what is new. Works with
    /// the daemon running or not, and writes nothing.
    #[command(after_help = help::short("plan"), after_long_help = help::long("plan"))]
    Plan(PlanArguments),
    /// Find out what would fail before it does
    ///
    /// Looks at configuration, permissions, file systems, inotify limits and free disk. Changes nothing; exit code 1
    /// if something would fail.
    #[command(after_help = help::short("check"), after_long_help = help::long("check"))]
    Check,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;
    use clap::CommandFactory as _;
    use std::path::PathBuf;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_flags_go_before_and_after_the_command() {
        let flags = "--root /r --config c --state-dir s --log-format kv --log debug";
        let before = parse(&format!("distilld {flags} run --once")).unwrap();
        let after = parse(&format!("distilld run --once {flags}")).unwrap();
        assert_eq!(before, after);
        assert_eq!(before.global.root, Some(PathBuf::from("/r")));
        assert_eq!(before.global.log_format, Some(LogFormat::Kv));
    }

    #[test]
    fn every_command_is_understood() {
        let check = |line: &str, command: Command| {
            assert_eq!(parse(line).unwrap().command, command, "{line}")
        };
        check("distilld run", Command::Run(RunArguments::default()));
        check("distilld verify", Command::Verify);
        check("distilld rebuild", Command::Rebuild);
        check(
            "distilld status --json",
            Command::Status(StatusArguments {
                json: true,
                watch: false,
            }),
        );
        check("distilld check", Command::Check);
        check(
            "distilld export",
            Command::Export(ExportArguments::default()),
        );
        check(
            "distilld export --dry-run --include-partial --recorded-at 2026-05-02T03:04:05.678Z --dialect go --output -",
            Command::Export(ExportArguments {
                dry_run: true,
                include_partial: true,
                recorded_at: Some("2026-05-02T03:04:05.678Z".to_owned()),
                dialect: Dialect::Go,
                output: Some(Output::Stdout),
            }),
        );
    }

    #[test]
    fn a_usage_error_exits_with_2() {
        let lines = [
            "distilld",
            "distilld walk",
            "distilld --rot /r run",
            "distilld export --recorded-at now",
        ];
        for line in lines {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(parse("distilld --help").unwrap_err().exit_code(), 0);
    }

    #[test]
    fn an_empty_root_is_left_to_the_configuration() {
        let typed = Arguments::try_parse_from(["distilld", "--root", "", "run"]).unwrap();
        assert_eq!(typed.global.root, Some(PathBuf::new()));
    }

    #[test]
    fn each_short_help_is_there_and_under_79_columns() {
        let mut commands = vec![Arguments::command()];
        commands.extend(Arguments::command().get_subcommands().cloned());
        for command in commands {
            for argument in command.get_arguments() {
                let short = argument
                    .get_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(
                    !short.is_empty() && short.len() < 79,
                    "{}: {short}",
                    argument.get_id()
                );
            }
            assert!(
                command
                    .get_about()
                    .is_some_and(|about| about.to_string().len() < 79)
            );
        }
    }
}
