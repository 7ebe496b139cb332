//! The command line: flags, commands, their help and their usage errors (exit code 2).
//!
//! No file, environment or clock is used here. [`crate::config`] merges the flags with the environment and the
//! configuration file.

mod dataset;
mod flags;
mod generate;
pub mod help;
mod pair;
pub(crate) mod queries;
mod retract;
pub(crate) mod rfc3339;
mod wait;

use clap::{Parser, Subcommand};

pub use crate::config::GlobalArguments;
pub use dataset::{CiteArguments, Range, RowsArguments, VerifyArguments};
pub use flags::{
    CheckArguments, ConfigArguments, Dialect, ExportArguments, InstancesArguments, Output,
    RebuildArguments, RunArguments,
};
pub use generate::GenerateArguments;
pub use pair::{GivenArguments, Lengths, PairArguments};
pub use queries::{
    DeadLettersAction, DeadLettersArguments, ExplainArguments, PlanArguments, QueryCommand,
    RetryArguments, ShowArguments, StatusArguments, stream,
};
pub use retract::RetractArguments;
pub use rfc3339::rfc3339;
pub use wait::WaitArguments;

/// The whole command line.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(
    name = "distilld",
    version,
    about = "Turns scored model runs into training samples while they are written",
    long_about = "Follows the scored runs of a lakehouse and appends a supervised fine-tuning sample to \
                  ROOT/data/distilled/sft/sft_export.jsonl for each accepted one: exactly once, and never for a \
                  rejected one.\n\nWithout a command: prints the health verdict in one line and exits with the code of \
                  `status --check`.",
    after_help = help::short("distilld"),
    after_long_help = help::program(),
    max_term_width = 100
)]
pub struct Arguments {
    /// The flags that are accepted before or after any command.
    #[command(flatten)]
    pub global: GlobalArguments,
    /// The command; without one the health verdict is printed.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The command.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Follow the lake and append samples as runs are scored
    ///
    /// Resumes where it stopped, also after a crash. A first SIGTERM or SIGINT finishes the batch in hand; a second one
    /// exits at once, which is safe. A second daemon on the same root stops with an error that names the first.
    #[command(after_help = help::short("run"), after_long_help = help::long("run"))]
    Run(RunArguments),
    /// Export the whole history as one batch, without the daemon
    ///
    /// Reads everything, keeps no state, and prints one JSON object with the counts. If the root's export belongs to a
    /// daemon, it is not replaced: use --output.
    #[command(
        after_help = help::short("export"),
        after_long_help = help::long("export"),
        mut_arg("pair", |pair| pair.requires("recorded_at"))
    )]
    Export(ExportArguments),
    /// Verify that the export equals what a batch would write
    ///
    /// Compares the daemon's export with the sources, row by row, ignoring timestamps. Reads only, also while the
    /// daemon runs. Exits with 1 and prints the first difference if they do not agree.
    #[command(after_help = help::short("verify"), after_long_help = help::long("verify"))]
    Verify(VerifyArguments),
    /// Write the rows that are not retracted to stdout
    ///
    /// Reads the export and its ledger of retractions, sft_retractions.jsonl, and nothing else: it needs no daemon, no
    /// state, and only the right to read the two files. A row is never written if it may be retracted: a ledger that is
    /// missing, damaged or of another export is an error.
    #[command(after_help = help::short("rows"), after_long_help = help::long("rows"))]
    Rows(RowsArguments),
    /// Name a version of the dataset, and count its rows
    ///
    /// The version names the bytes of export and ledger: distilld:1:EXPORT:EXPORT_LEN:LEDGER_LEN:DIGEST. `rows --at`
    /// reproduces its rows as long as no `rebuild` replaces the export, and `verify --at` proves it. Also prints a shell
    /// command that checks the version without distilld.
    #[command(after_help = help::short("cite"), after_long_help = help::long("cite"))]
    Cite(CiteArguments),
    /// Write a new export and a state that matches it
    ///
    /// Writes a new export from the current sources, in batch order, and replaces the old one atomically. Refuses, and
    /// changes nothing, if the source of a row is gone or cannot be read now; --dry-run shows which, and --drop-missing
    /// drops rows whose source is gone. A row that stays keeps its timestamps, and a run that was accepted and later
    /// rejected keeps its row while the accepting line exists, as in a batch; --effective leaves such rows out. Byte
    /// offsets of consumers into the old export become invalid; --state-only avoids that. The old export is kept next to
    /// the new one, with the suffix `.before-rebuild`, until it is removed. The daemon must be stopped. Prints one JSON
    /// object with the changes.
    #[command(after_help = help::short("rebuild"), after_long_help = help::long("rebuild"))]
    Rebuild(RebuildArguments),
    /// The commands that query.
    #[command(flatten)]
    Query(QueryCommand),
    /// Wait until what is in the lake is exported or refused
    ///
    /// Returns once every line that was in the lake when the command began has a row or a verdict that refuses it, and
    /// its row and its retractions can be read: `distilld wait --fresh && train`. A run without evidence in the lake
    /// does not prolong the wait, nor does what is written meanwhile. A last line without a newline is waited for as
    /// long as it may settle.
    #[command(after_help = help::short("wait"), after_long_help = help::long("wait"))]
    Wait(WaitArguments),
    /// Take runs out of the effective set by a standing order
    ///
    /// The rows of these runs are retracted in the ledger, and later lines of the runs earn no row, until the order is
    /// revoked. Orders survive a lost state and a rebuild. Works whether or not the daemon runs, for its user and root
    /// alone. The orders are durable when the command ends; repeating it changes nothing. Exits with 1 if no line has
    /// one of the runs.
    #[command(after_help = help::short("retract"), after_long_help = help::long("retract"))]
    Retract(RetractArguments),
    /// Check configuration, permissions and limits
    ///
    /// Checks configuration, permissions, file systems, inotify limits and free disk space. Root checks with the user,
    /// the groups and the sandbox of the systemd unit that has this configuration. Each line is ok, warn or fail, with the
    /// command that mends it. Changes nothing; exits with 1 if the daemon would fail.
    #[command(after_help = help::short("check"), after_long_help = help::long("check"))]
    Check(CheckArguments),
    /// Show the settings in force and the source of each
    ///
    /// Prints each key with its value and whether a flag, an environment variable, a line of the configuration file or
    /// the default gave it. These are the settings of a daemon that starts now with the same flags and environment.
    #[command(after_help = help::short("config"), after_long_help = help::long("config"))]
    Config(ConfigArguments),
    /// List the lakes of this host with their health verdicts
    ///
    /// Lists each configuration in /etc/distilld, and each unit distilld@NAME, with its verdict, the state of its unit and
    /// its root; below the table what each verdict needs. `--instance NAME` chooses one of them for other commands.
    #[command(after_help = help::short("instances"), after_long_help = help::long("instances"))]
    Instances(InstancesArguments),
    /// Write the manual pages and the shell completions
    ///
    /// Writes OUTDIR/man and OUTDIR/completions (bash, zsh, fish), for a package to include. Needs no lake and no
    /// configuration.
    #[command(after_help = help::short("generate"), after_long_help = help::long("generate"))]
    Generate(GenerateArguments),
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
    fn the_definition_is_consistent() {
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
    fn every_command_is_parsed() {
        let check = |line: &str, command: Command| {
            assert_eq!(parse(line).unwrap().command, Some(command), "{line}")
        };
        check("distilld run", Command::Run(RunArguments::default()));
        check(
            "distilld verify",
            Command::Verify(VerifyArguments::default()),
        );
        check(
            "distilld rebuild",
            Command::Rebuild(RebuildArguments::default()),
        );
        check(
            "distilld status --json",
            Command::Query(QueryCommand::Status(StatusArguments {
                check: false,
                json: true,
                watch: false,
            })),
        );
        check("distilld check", Command::Check(CheckArguments::default()));
        check(
            "distilld export",
            Command::Export(ExportArguments::default()),
        );
        check(
            "distilld export --dry-run --include-partial --recorded-at 2026-05-02T03:04:05.678Z --dialect go --output -",
            Command::Export(ExportArguments {
                dry_run: true,
                include_partial: true,
                effective: false,
                recorded_at: Some("2026-05-02T03:04:05.678Z".to_owned()),
                dialect: Dialect::Go,
                output: Some(Output::Stdout),
                pair: PairArguments::default(),
            }),
        );
    }

    #[test]
    fn a_usage_error_exits_with_2() {
        assert_eq!(parse("distilld").unwrap().command, None);
        let lines = [
            "distilld walk",
            "distilld --instance a/b status",
            "distilld --instance a --config b status",
            "distilld config --json --check",
            "distilld --rot /r run",
            "distilld export --recorded-at now",
            "distilld rebuild --state-only --drop-missing",
            "distilld rebuild --state-only --dry-run",
            "distilld rebuild --state-only --effective",
            "distilld rows --follow --all",
            "distilld rows --at yesterday",
            "distilld cite distilld:1:..",
            "distilld verify --export e",
            "distilld export --pair s.jsonl --recorded-at 2026-05-02T03:04:05Z",
            "distilld export --pair s.jsonl -",
            "distilld export --lengths 1,2",
            "distilld export --pair s.jsonl - --recorded-at 2026-05-02T03:04:05Z --lengths 1",
            "distilld export --pair s.jsonl - --recorded-at 2026-05-02T03:04:05Z --name a/b.jsonl",
            "distilld verify --pair s.jsonl - --rejected-elsewhere",
            "distilld verify --rows r",
            "distilld verify --effective",
        ];
        for line in lines {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(parse("distilld --help").unwrap_err().exit_code(), 0);
    }

    #[test]
    fn an_empty_root_is_an_error_of_the_configuration() {
        let typed = Arguments::try_parse_from(["distilld", "--root", "", "run"]).unwrap();
        assert_eq!(typed.global.root, Some(PathBuf::new()));
    }

    #[test]
    fn each_short_help_exists_and_is_under_79_columns() {
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
