//! Owns the answer to how changes are noticed: by events, or by polling beside them and why. It polls nothing
//! itself.

use std::fmt;
use std::path::Path;

use crate::daemon::watch::{Watch, filesystem};

/// How an operator wants changes to be noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WatchSetting {
    /// Events, and polling where they cannot be relied on.
    #[default]
    Auto,
    /// Events, whatever the file system is said to be.
    Events,
    /// Polling alone.
    Poll,
}

/// How changes are noticed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Every directory met so far reports its changes.
    Events,
    /// Some changes are not reported: the engine has to look by itself, often. What can be watched is watched
    /// all the same.
    Polling {
        /// The cause, for a person.
        why: String,
    },
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Events => out.write_str("events"),
            Mode::Polling { why } => write!(out, "polling: {why}"),
        }
    }
}

impl Watch {
    /// How changes are noticed now.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.polling_why.as_ref().or(self.unwatched_why.as_ref()) {
            None => Mode::Events,
            Some(why) => Mode::Polling { why: why.clone() },
        }
    }

    /// Polling is needed where the file system is known to keep changes to itself.
    pub(super) fn note_file_system(&mut self, path: &Path, device: u64) {
        if self.setting != WatchSetting::Auto {
            return;
        }
        let deaf = *self
            .devices
            .entry(device)
            .or_insert_with(|| filesystem::lacks_change_events(path));
        if let Some(name) = deaf {
            self.poll_because(|| {
                format!(
                    "{} is on {name}, which does not report every change",
                    path.display()
                )
            });
        }
    }

    /// Polling until the next reset.
    pub(super) fn poll_because(&mut self, why: impl FnOnce() -> String) {
        if self.polling_why.is_none() {
            self.polling_why = Some(why());
        }
    }

    /// Polling until a round of [`Watch::rearm_changed`] without failure.
    pub(super) fn unwatched_because(&mut self, why: impl FnOnce() -> String) {
        self.failed = true;
        if self.unwatched_why.is_none() {
            self.unwatched_why = Some(why());
        }
    }

    /// One line for each change of mode.
    pub(super) fn say_mode(&mut self) {
        let mode = self.mode();
        // While directories wait to be armed it is too early to say that every one of them reports.
        if mode == self.said || (mode == Mode::Events && self.has_unarmed()) {
            return;
        }
        match &mode {
            Mode::Events => tracing::info!("every directory reports its changes again"),
            Mode::Polling { why } if self.setting == WatchSetting::Poll => {
                tracing::info!(why, "polling")
            }
            Mode::Polling { why } => tracing::warn!(why, "polling beside events"),
        }
        self.said = mode;
    }
}
