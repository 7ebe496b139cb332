//! The capabilities of the terminal at stderr or stdout, and the form of an error on it: the error with its location,
//! then the fix on its own line.

use std::error::Error;
use std::io::{self, IsTerminal as _};

use crate::config::{Environment, as_typed};
use crate::console::output;
use crate::platform::escape::Printable;

/// The capabilities of stderr or stdout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terminal {
    /// It is a terminal.
    pub attended: bool,
    /// It supports cursor control, so that a line can be redrawn.
    pub draws: bool,
    /// Colours are supported and not disabled.
    pub colours: bool,
    /// It is the systemd journal, which reads a line's level from its prefix.
    pub journal: bool,
}

impl Terminal {
    /// Returns the capabilities of stderr.
    #[must_use]
    pub fn for_stderr(environment: &Environment) -> Self {
        Self {
            journal: stderr_is_journal(environment),
            ..Self::decide(io::stderr().is_terminal(), environment)
        }
    }

    /// Returns the capabilities of stdout.
    #[must_use]
    pub fn for_stdout(environment: &Environment) -> Self {
        Self::decide(io::stdout().is_terminal(), environment)
    }

    fn decide(attended: bool, environment: &Environment) -> Self {
        let term = environment.get_non_empty("TERM");
        let draws = attended && term.is_some_and(|term| term != "dumb");
        let no_color = environment.get_non_empty("NO_COLOR").is_some()
            || environment
                .get("CLICOLOR")
                .is_some_and(|value| value == "0");
        Self {
            attended,
            draws,
            colours: draws && !no_color,
            journal: false,
        }
    }

    /// Prints an error and its fix to stderr. A failure to print is ignored.
    pub fn report(self, error: &dyn Error, fix: Option<&str>) {
        output::print(self.format_error(error, fix).as_bytes());
    }

    fn format_error(self, error: &dyn Error, fix: Option<&str>) -> String {
        let (red, bold, end) = match self.colours {
            true => ("\x1b[1;31m", "\x1b[1m", "\x1b[0m"),
            false => ("", "", ""),
        };
        let level = if self.journal { "<3>" } else { "" };
        let mut text = format!(
            "{level}{red}distilld:{end} {}\n",
            printable(&as_typed(&error.to_string()), level)
        );
        if let Some(fix) = fix {
            text += &format!(
                "{level}{bold}fix:{end} {}\n",
                printable(&as_typed(fix), level)
            );
        }
        text
    }
}

/// Returns a text with everything escaped that a terminal would act on. Its own lines stay; those after the first are
/// indented, so that a name with a line end in it cannot pass for a fix, and have the level of the first.
fn printable(text: &str, level: &str) -> String {
    let mut lines = text.split('\n');
    let mut shown = Printable(lines.next().unwrap_or_default()).to_string();
    for line in lines {
        let indent = if line.starts_with(' ') { "" } else { "  " };
        shown += &format!("\n{level}{indent}{}", Printable(line));
    }
    shown
}

/// Returns whether stderr is the systemd journal. `JOURNAL_STREAM` is `device:inode` and is inherited by every process
/// of a session, also by those with a redirected stderr, so only a match counts.
pub(crate) fn stderr_is_journal(environment: &Environment) -> bool {
    let Some(stream) = environment.get_non_empty("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino).as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(attended: bool, variables: &[(&str, &str)], draws: bool, colours: bool) {
        let terminal = Terminal::decide(attended, &variables.iter().copied().collect());
        let expected = Terminal {
            attended,
            draws,
            colours,
            journal: false,
        };
        assert_eq!(terminal, expected, "{variables:?}");
    }

    #[test]
    fn colours_and_bars_need_a_capable_terminal_and_no_opt_out() {
        check(true, &[("TERM", "xterm")], true, true);
        check(false, &[("TERM", "xterm")], false, false);
        check(true, &[], false, false);
        check(true, &[("TERM", "dumb")], false, false);
        check(true, &[("TERM", "xterm"), ("NO_COLOR", "1")], true, false);
        check(true, &[("TERM", "xterm"), ("NO_COLOR", "")], true, true);
        check(true, &[("TERM", "xterm"), ("CLICOLOR", "0")], true, false);
        check(true, &[("TERM", "xterm"), ("CLICOLOR", "1")], true, true);
    }

    #[test]
    fn a_name_with_a_line_end_passes_for_no_fix() {
        let error = std::io::Error::other("cannot read a\nfix: run it\n  of its own");
        let journal = Terminal {
            journal: true,
            ..Terminal::default()
        };
        let expected = "<3>distilld: cannot read a\n<3>  fix: run it\n<3>  of its own\n";
        assert_eq!(journal.format_error(&error, None), expected);
    }

    #[test]
    fn an_error_is_printed_with_its_fix_on_its_own_line() {
        let error = std::io::Error::other("the lake is dry");
        let fix = Some("wait for rain");
        let plain = Terminal::default().format_error(&error, fix);
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(lines, ["distilld: the lake is dry", "fix: wait for rain"]);
        assert_eq!(
            Terminal::default().format_error(&error, None),
            "distilld: the lake is dry\n"
        );
        let coloured = Terminal {
            attended: true,
            draws: true,
            colours: true,
            journal: false,
        };
        assert!(coloured.format_error(&error, fix).contains("\x1b[0m"));
        assert!(!plain.contains('\x1b'));
        let journal = Terminal {
            journal: true,
            ..Terminal::default()
        };
        let text = journal.format_error(&error, fix);
        assert!(text.lines().all(|line| line.starts_with("<3>")), "{text}");
    }
}
