//! Owns what a person typed: flags, commands, their help and their usage errors (exit code 2).
//!
//! It touches nothing: no file, no environment, no clock. What the flags mean together with the environment and
//! the configuration file is decided in [`crate::config`].

mod questions;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::LogFormat;
pub use questions::{
    DeadLettersAction, DeadLettersArguments, ExplainArguments, PlanArguments, RetryArguments,
    ShowArguments, StatusArguments, stream,
};

const AFTER_HELP: &str = "\
Examples:
  distilld --root /srv/lakehouse run
  distilld --root /srv/lakehouse status
  distilld --root /srv/lakehouse export --dry-run
  distilld --config /etc/distilld.toml verify

Exit codes: 0 done, 1 failed or differences found, 2 usage, 78 configuration.";

const AFTER_LONG_HELP: &str = "\
Examples:
  distilld --root /srv/lakehouse run
      follow the lake until a signal comes
  distilld --root /srv/lakehouse run --once
      catch up with all that is there, then exit
  distilld --root /srv/lakehouse status --json
      the state of things, for a program
  distilld --root /srv/lakehouse export --output - --recorded-at 2026-01-01T00:00:00Z
      the whole history as one batch, to stdout
  distilld --config /etc/distilld.toml verify
      prove that the export is what the sources say

Settings are taken from flags, then from the environment, then from the file of --config, then from defaults.
Data goes to stdout, all else to stderr.

Exit codes:
  0   done
  1   failed, or differences found
  2   usage: the command line could not be understood
  78  configuration: the root, a variable or the file has to be changed first";

/// The whole command line.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(
    name = "distilld",
    version,
    about = "Turns scored model runs into training samples while they are written",
    long_about = "Follows the scored runs of a lakehouse and appends a supervised fine-tuning sample to \
                  ROOT/data/distilled/sft/sft_export.jsonl for each accepted one: exactly once, and never for a \
                  rejected one.",
    after_help = AFTER_HELP,
    after_long_help = AFTER_LONG_HELP,
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

/// Flags that go before or after any command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct GlobalArguments {
    /// Root of the lake, the directory that holds data/
    ///
    /// Scored runs are read below ROOT/data/scored-runs, evidence below ROOT/data/evidence; the export is
    /// ROOT/data/distilled/sft/sft_export.jsonl. Without this flag the variable LH_DISTILL_ROOT counts, then the
    /// key `root` of the configuration file. There is no default.
    // clap's own parser of paths would call an empty root a usage error; it is one of configuration, like all others.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        value_parser = OsStringValueParser::new().map(PathBuf::from),
        help_heading = "Global options"
    )]
    pub root: Option<PathBuf>,

    /// Configuration file, in TOML
    ///
    /// No file is read without this flag. Each key may also be given by a flag or an environment variable, which
    /// win over the file: DISTILLD_SETTLE_MS for `settle_ms` and so on, but LH_DISTILL_ROOT for `root` and RUST_LOG
    /// for `log`. A key that is not known is an error.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub config: Option<PathBuf>,

    /// Directory of the daemon's state
    ///
    /// Default: the variable DISTILLD_STATE_DIR, then the key `state_dir`, then the first entry of STATE_DIRECTORY
    /// (set by systemd), then ROOT/data/distilled/.distilld. It may be lost: the daemon then builds it again from
    /// the sources and the export. All commands on one root must be given the same one.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub state_dir: Option<PathBuf>,

    /// How log lines look: auto, human, kv, json [default: auto]
    ///
    /// `auto` is `human` where stderr is a terminal and `kv` elsewhere: one line of key=value per event. In the
    /// systemd journal `kv` lines carry no time of their own. Colours only on a terminal, and never with NO_COLOR.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        hide_possible_values = true,
        help_heading = "Global options"
    )]
    pub log_format: Option<LogFormat>,

    /// What to log, such as debug or distilld::tail=trace [default: info]
    ///
    /// A comma-separated list of levels (off, error, warn, info, debug, trace) and of TARGET=LEVEL. Without this flag
    /// the variable RUST_LOG counts, then the key `log` of the configuration file, then `info`.
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        help_heading = "Global options"
    )]
    pub log: Option<String>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Follow the lake and append samples as runs are scored
    ///
    /// Starts where it stopped, whatever stopped it. A first SIGTERM or SIGINT finishes the batch in hand; a second
    /// one ends at once, which is safe. A second daemon on the same root stops with an error that names the first.
    Run(RunArguments),
    /// Export the whole history as one batch, without the daemon
    ///
    /// Reads everything, keeps no state, and prints one JSON object with what it counted. Where a daemon keeps
    /// the root's export, that file is not replaced: give --output.
    Export(ExportArguments),
    /// Prove that the export is what a batch would give
    ///
    /// Compares the daemon's export with the sources, row by row, stamps aside. Reads only, also while the daemon
    /// runs. Exit code 1 and the first difference if they do not agree.
    Verify,
    /// Write a fresh export and a state that fits it
    ///
    /// The export is written anew from today's sources, in batch order, and swapped in atomically. Rows of lines and
    /// evidence that were rewritten or deleted since are dropped; a run that was accepted and later rejected keeps
    /// its row while the accepting line stands, as in a batch. Rows get new stamps, and offsets that consumers hold
    /// into the old export end here. The daemon must be stopped. Prints one JSON object with what changed.
    Rebuild,
    /// Show what is fresh, waiting, dead or wrong
    ///
    /// Works with the daemon running or not.
    Status(StatusArguments),
    /// Say what became of a run, and why
    ///
    /// Each line that concerns it, its verdict with the rule and the value that decided it, its row in the export, or
    /// what it waits for. Works with the daemon running or not. Exit code 1 for a run that no line concerns.
    Explain(ExplainArguments),
    /// List lines that are no records, show one, try again
    ///
    /// Works with the daemon running or not.
    DeadLetters(DeadLettersArguments),
    /// Say what a run now would do, and do nothing
    ///
    /// What would be exported, refused and waited for, from where the state ends: it costs what is new. Works with
    /// the daemon running or not, and writes nothing.
    Plan(PlanArguments),
    /// Find out what would fail before it does
    ///
    /// Looks at configuration, permissions, file systems, inotify limits and free disk. Changes nothing; exit code 1
    /// if something would fail.
    Check,
}

/// Flags of `run`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct RunArguments {
    /// Catch up with all that is there, then exit
    ///
    /// Also takes a last line without its newline where its day-file has been still for `settle_ms`. Runs that
    /// still lack evidence stay in the state, waiting. Default: follow until a signal.
    #[arg(long)]
    pub once: bool,
}

/// Flags of `export`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ExportArguments {
    /// Count, write nothing
    ///
    /// Prints the same result as without it. --output then only names the path in the result. Default: write.
    #[arg(long)]
    pub dry_run: bool,

    /// Let runs of every model role through
    ///
    /// Lifts the rule that model_role is executor, reviewer or applier, and that rule alone: never the
    /// firewall, missing evidence or a blank text. Default: off.
    #[arg(long)]
    pub include_partial: bool,

    /// Stamp of all rows, RFC 3339 [default: now]
    ///
    /// Written as given into `created_at` and `provenance.recorded_at` of every row, so that two exports can be
    /// compared byte for byte: 2026-05-02T03:04:05.678Z, or with an offset such as +02:00. Default: the time of the
    /// start, UTC, in milliseconds.
    #[arg(long, value_name = "TIME", value_parser = rfc3339)]
    pub recorded_at: Option<String>,

    /// Bytes as distilld or as the Go program writes them
    ///
    /// `go` is for comparing with the batch program that distilld replaces: <, >, &, U+2028 and U+2029 escaped, the
    /// contractor passed over, an unknown category let through.
    #[arg(long, value_name = "DIALECT", value_enum, default_value_t = Dialect::Native)]
    pub dialect: Dialect,

    /// Where rows go: a file, or - for stdout [default: the root's export]
    ///
    /// A file is replaced atomically, and only once all is written. With `-` the rows go to stdout and the result to
    /// stderr. Default: ROOT/data/distilled/sft/sft_export.jsonl, refused where a daemon's state keeps that export.
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().map(Output::from))]
    pub output: Option<Output>,
}

/// Whose bytes a batch writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// distilld's own, the daemon's
    #[default]
    Native,
    /// The Go program's, for a comparison
    Go,
}

/// Where a batch goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// `-`
    Stdout,
    /// Any other name. A file called `-` is `./-`.
    File(PathBuf),
}

impl From<OsString> for Output {
    fn from(typed: OsString) -> Self {
        if typed == "-" {
            Self::Stdout
        } else {
            Self::File(typed.into())
        }
    }
}

/// Takes an RFC 3339 time as it stands, if it is one: `T` and `Z` in capitals, seconds given, a real date.
///
/// # Errors
/// Says which form is expected.
pub fn rfc3339(text: &str) -> Result<String, String> {
    if is_rfc3339(text.as_bytes()) {
        return Ok(text.to_owned());
    }
    Err(
        "not an RFC 3339 time, such as 2026-05-02T03:04:05.678Z or 2026-05-02T03:04:05+02:00"
            .to_owned(),
    )
}

fn is_rfc3339(text: &[u8]) -> bool {
    let Some((date_time, rest)) = text.split_at_checked("2026-05-02T03:04:05".len()) else {
        return false;
    };
    is_date_time(date_time) && is_offset(without_fraction(rest))
}

fn is_date_time(text: &[u8]) -> bool {
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| text[at] != byte) {
        return false;
    }
    let field = |from, to| number(&text[from..to]);
    let (Some(year), Some(month), Some(day)) = (field(0, 4), field(5, 7), field(8, 10)) else {
        return false;
    };
    let (Some(hour), Some(minute), Some(second)) = (field(11, 13), field(14, 16), field(17, 19))
    else {
        return false;
    };
    // 60 is a leap second.
    (1..=days_in(year, month)).contains(&day) && hour < 24 && minute < 60 && second <= 60
}

/// Days of a month; 0 for a month that does not exist.
fn days_in(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    }
}

/// What follows the fraction of a second; a dot without digits stays, and is no offset.
fn without_fraction(text: &[u8]) -> &[u8] {
    let Some(digits) = text.strip_prefix(b".") else {
        return text;
    };
    let count = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if count == 0 { text } else { &digits[count..] }
}

fn is_offset(text: &[u8]) -> bool {
    match text {
        b"Z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            number(&[*h1, *h2]).is_some_and(|hour| hour < 24)
                && number(&[*m1, *m2]).is_some_and(|minute| minute < 60)
        }
        _ => false,
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, byte| {
        byte.is_ascii_digit()
            .then(|| sum * 10 + u32::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

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
        check("distilld run", Command::Run(RunArguments { once: false }));
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
    fn only_a_dash_is_stdout() {
        assert_eq!(Output::from(OsString::from("-")), Output::Stdout);
        assert_eq!(
            Output::from(OsString::from("./-")),
            Output::File("./-".into())
        );
    }

    #[test]
    fn a_stamp_is_a_real_time_in_one_form_and_stays_as_given() {
        let check = |text: &str, valid: bool| {
            assert_eq!(rfc3339(text).ok(), valid.then(|| text.to_owned()), "{text}")
        };
        for text in [
            "2026-05-02T03:04:05Z",
            "2026-05-02T03:04:05.6Z",
            "2026-05-02T03:04:05.678901234+02:00",
            "2024-02-29T23:59:60-11:30",
        ] {
            check(text, true);
        }
        for text in [
            "",
            "now",
            "2026-05-02",
            "2026-05-02T03:04Z",
            "2026-05-02T03:04:05",
            "2026-05-02 03:04:05Z",
            "2026-05-02t03:04:05Z",
            "2026-05-02T03:04:05z",
            "2026-05-02T03:04:05.Z",
            "2026-05-02T03:04:05+0200",
            "2026-05-02T24:00:00Z",
            "2026-13-02T03:04:05Z",
            "2026-00-02T03:04:05Z",
            "2025-02-29T03:04:05Z",
            "2026-05-32T03:04:05Z",
            "2026-05-00T03:04:05Z",
            "2026-05-02T03:60:05Z",
            "2026-05-02T03:04:05+24:00",
            "2026-05-02T03:04:05Zé",
            "２026-05-02T03:04:05Z",
            "2026-05-02T03:04:05Z ",
        ] {
            check(text, false);
        }
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
