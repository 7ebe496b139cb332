//! The mode of change detection: events alone, or events and polling with the reason for it.

use std::fmt;
use std::path::Path;

use crate::daemon::watch::Watch;

/// The configured way to detect changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WatchSetting {
    /// Events, and polling where they are not reliable.
    #[default]
    Auto,
    /// Events, regardless of the file system.
    Events,
    /// Polling only.
    Poll,
}

/// The current way to detect changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Every known directory reports its changes.
    Events,
    /// Some changes are not reported, so the engine has to poll. Directories that can be watched are watched
    /// nevertheless.
    Polling {
        /// The reason, as readable text.
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
    /// The current way to detect changes.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.polling_why.as_ref().or(self.unwatched_why.as_ref()) {
            None => Mode::Events,
            Some(why) => Mode::Polling { why: why.clone() },
        }
    }

    /// Starts polling if the file system is known not to report all changes.
    pub(super) fn check_file_system(&mut self, path: &Path, device: u64) {
        if self.setting != WatchSetting::Auto {
            return;
        }
        let file_system = *self
            .devices
            .entry(device)
            .or_insert_with(|| self.source.lacks_change_events(path));
        if let Some(name) = file_system {
            self.poll_because(|| {
                format!(
                    "{} is on {name}, which does not report every change",
                    path.display()
                )
            });
        }
    }

    /// Polls until the next reset.
    pub(super) fn poll_because(&mut self, why: impl FnOnce() -> String) {
        if self.polling_why.is_none() {
            self.polling_why = Some(why());
        }
    }

    /// Polls until a round of [`Watch::rearm_changed`] without failure.
    pub(super) fn unwatched_because(&mut self, why: impl FnOnce() -> String) {
        self.failed = true;
        if self.unwatched_why.is_none() {
            self.unwatched_why = Some(why());
        }
    }

    /// Logs each change of the mode.
    pub(super) fn log_mode(&mut self) {
        let mode = self.mode();
        // While directories wait to be armed, it is not yet known that all of them report changes.
        if mode == self.logged_mode || (mode == Mode::Events && self.has_unarmed()) {
            return;
        }
        match &mode {
            Mode::Events => {
                tracing::info!("every directory reports its changes again, polling stopped")
            }
            Mode::Polling { why } if self.setting == WatchSetting::Poll => {
                tracing::info!(why, "polling: {why}")
            }
            Mode::Polling { why } => tracing::warn!(why, "polling in addition to events: {why}"),
        }
        self.logged_mode = mode;
    }
}
