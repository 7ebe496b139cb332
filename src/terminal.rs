//! Owns what may be shown on the terminal at stderr or stdout, and how an error is told there: what happened and where, then
//! on a line of its own what to do next. It decides nothing of what an error means.

use std::error::Error;
use std::io::{self, IsTerminal as _, Write as _};

use crate::config::Environment;
use crate::logging::stderr_is_journal;
use crate::progress;
use crate::remedy::remedy;

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
    pub fn of_stderr(environment: &Environment) -> Self {
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

    /// Tells of an error. One that cannot be told is no reason to fail once more.
    pub fn tell(self, error: &(dyn Error + 'static)) {
        progress::around(|| {
            let _ = io::stderr().write_all(self.told(error).as_bytes());
        });
    }

    fn told(self, error: &(dyn Error + 'static)) -> String {
        let (red, bold, end) = match self.colours {
            true => ("\x1b[1;31m", "\x1b[1m", "\x1b[0m"),
            false => ("", "", ""),
        };
        let level = if self.journal { "<3>" } else { "" };
        let mut told = format!("{level}{red}distilld:{end} {error}\n");
        if let Some(fix) = remedy(error) {
            told += &format!("{level}{bold}fix:{end} {fix}\n");
        }
        told
    }
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
        let error = crate::lock::LockError::HeldByUnknown("/r/lock".into());
        let plain = Terminal::default().told(&error);
        let lines: Vec<&str> = plain.lines().collect();
        assert!(
            lines.len() == 2 && lines[0].starts_with("distilld: ") && lines[1].starts_with("fix: "),
            "{plain}"
        );
        let coloured = Terminal {
            attended: true,
            draws: true,
            colours: true,
            journal: false,
        };
        assert!(coloured.told(&error).contains("\x1b[0m"));
        assert!(!plain.contains('\x1b'));
        let journal = Terminal {
            journal: true,
            ..Terminal::default()
        };
        let told = journal.told(&error);
        assert!(told.lines().all(|line| line.starts_with("<3>")), "{told}");
    }
}
