//! Owns what may be shown on the terminal at stderr or stdout, and how an error is told there: what happened and where, then
//! on a line of its own what to do next. It decides nothing of what an error means.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};

use crate::config::Environment;
use crate::console::progress;

/// What stderr or stdout is, and what it may show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terminal {
    /// It is a terminal at all.
    pub attended: bool,
    /// It understands more than lines of text, so that a line may be drawn again.
    pub draws: bool,
    /// Nobody asked for no colours.
    pub colours: bool,
    /// It is the journal, which takes a line's level from its head.
    pub journal: bool,
}

impl Terminal {
    /// The terminal at stderr, if it is one.
    #[must_use]
    pub fn for_stderr(environment: &Environment) -> Self {
        Self {
            journal: stderr_is_journal(environment),
            ..Self::decide(io::stderr().is_terminal(), environment)
        }
    }

    /// The terminal at stdout, if it is one.
    #[must_use]
    pub fn of_stdout(environment: &Environment) -> Self {
        Self::decide(io::stdout().is_terminal(), environment)
    }

    fn decide(attended: bool, environment: &Environment) -> Self {
        let term = environment.get_non_empty("TERM");
        let draws = attended && term.is_some_and(|term| term != "dumb");
        let refused = environment.get_non_empty("NO_COLOR").is_some()
            || environment
                .get("CLICOLOR")
                .is_some_and(|value| value == "0");
        Self {
            attended,
            draws,
            colours: draws && !refused,
            journal: false,
        }
    }

    /// Tells of an error and of what to do about it. One that cannot be told is no reason to fail once more.
    pub fn tell(self, error: &dyn Error, fix: Option<&str>) {
        progress::around(|| {
            let _ = io::stderr().write_all(self.told(error, fix).as_bytes());
        });
    }

    fn told(self, error: &dyn Error, fix: Option<&str>) -> String {
        let (red, bold, end) = match self.colours {
            true => ("\x1b[1;31m", "\x1b[1m", "\x1b[0m"),
            false => ("", "", ""),
        };
        let level = if self.journal { "<3>" } else { "" };
        let mut told = format!("{level}{red}distilld:{end} {error}\n");
        if let Some(fix) = fix {
            told += &format!("{level}{bold}fix:{end} {fix}\n");
        }
        told
    }
}

/// `JOURNAL_STREAM` is `device:inode`. It is inherited by every process of a session, also by those whose stderr was
/// sent elsewhere, so only a match counts.
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
        let wanted = Terminal {
            attended,
            draws,
            colours,
            journal: false,
        };
        assert_eq!(terminal, wanted, "{variables:?}");
    }

    #[test]
    fn colours_and_bars_need_a_terminal_that_can_and_nobody_who_refuses() {
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
    fn an_error_is_told_with_its_fix_on_a_line_of_its_own() {
        let error = std::io::Error::other("the lake is dry");
        let fix = Some("wait for rain");
        let plain = Terminal::default().told(&error, fix);
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(lines, ["distilld: the lake is dry", "fix: wait for rain"]);
        assert_eq!(
            Terminal::default().told(&error, None),
            "distilld: the lake is dry\n"
        );
        let coloured = Terminal {
            attended: true,
            draws: true,
            colours: true,
            journal: false,
        };
        assert!(coloured.told(&error, fix).contains("\x1b[0m"));
        assert!(!plain.contains('\x1b'));
        let journal = Terminal {
            journal: true,
            ..Terminal::default()
        };
        let told = journal.told(&error, fix);
        assert!(told.lines().all(|line| line.starts_with("<3>")), "{told}");
    }
}
