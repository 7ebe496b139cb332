//! The malformed lines that were longer than an earlier `max_line_bytes` and are within the current one. A line that is
//! longer than the limit in force is never among them, so that none means that the limit was not raised.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use serde::{Deserialize, Serialize};

use crate::config::as_typed;
use crate::platform::escape::shell_word;
use crate::record::parse::ParseError;
use crate::store::snapshot::StateSnapshot;
use crate::store::state::error::StateError;

/// Malformed lines that were too long and would be read with the current limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WithinLimit {
    /// The number of lines.
    pub lines: u64,
    /// The number of their day-files.
    pub day_files: u64,
    /// The command that reads the first of these day-files again; `None` if there are none.
    pub fix: Option<String>,
}

impl WithinLimit {
    /// Counts the lines in the table of the dead letters; the cost is that of the table.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn count(state: &StateSnapshot, max_line_bytes: u64) -> Result<Self, StateError> {
        let too_long = ParseError::TooLong { max_line_bytes }.code();
        let (mut lines, mut day_files) = (0, BTreeSet::new());
        state.dead_letters(|pair, letter| {
            if letter.reason == too_long && letter.len_bytes <= max_line_bytes {
                lines += 1;
                day_files.insert((pair, letter.in_evidence));
            }
            true
        })?;
        let fix = match day_files.first() {
            None => None,
            Some((id, in_evidence)) => {
                let changed = state.changed.iter().find(|(_, pair)| pair.id == *id);
                let path = match changed {
                    Some((path, _)) => shell_word(path.as_path()),
                    None => shell_word(OsStr::from_bytes(&state.view.checkpoint(*id)?.path)),
                };
                let flag = if *in_evidence { "--evidence " } else { "" };
                let command = as_typed(&format!("`distilld dead-letters retry {flag}{path}`"));
                Some(command.trim_matches('`').to_owned())
            }
        };
        Ok(Self {
            lines,
            day_files: day_files.len() as u64,
            fix,
        })
    }

    /// Returns the figures and the command, as one phrase; `None` if there are no such lines.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        let fix = self.fix.as_ref().filter(|_| self.lines > 0)?;
        let noun = |count, one, many| if count == 1 { one } else { many };
        Some(format!(
            "{} {} of {} {} {} within max_line_bytes now; `{fix}` reads the first day-file again, \
             {} lists all",
            self.lines,
            noun(self.lines, "malformed line", "malformed lines"),
            self.day_files,
            noun(self.day_files, "day-file", "day-files"),
            noun(self.lines, "was too long and is", "were too long and are"),
            as_typed("`distilld dead-letters`"),
        ))
    }
}
