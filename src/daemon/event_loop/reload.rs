//! Reloads the configuration: applies the changed keys that can change at run time, logs those that need a restart, and
//! keeps the running settings if the new configuration is invalid. The service manager is notified of readiness in each
//! case.

use crate::config::{self, Change, ConfigError, Settings};
use crate::console::logging::LogFilter;
use crate::daemon::event_loop::{EventLoop, millis};
use crate::daemon::watch::WatchSetting;
use crate::engine::{Engine, Reconfigure};
use crate::lake::chunk::LineLimits;
use crate::platform::message_ids;
use crate::query::dead_letters::WithinLimit;

/// The source of a new configuration, and the log filter, which the event loop does not own.
pub struct Reloader {
    /// Reads the same flags, environment and file as at the start.
    pub read: Box<dyn Fn() -> Result<Settings, ConfigError> + Send>,
    /// The filter of the running log.
    pub log: LogFilter,
}

impl EventLoop {
    /// Reads the configuration again and applies it.
    pub(super) fn reload(&mut self) {
        self.shared.manager.reloading();
        match (self.reloader.read)() {
            Ok(fresh) => self.apply_change(self.settings.change_to(fresh)),
            Err(error) => {
                tracing::error!(
                    message_id = message_ids::RELOAD_REFUSED,
                    %error,
                    "configuration reload rejected ({error}), keeping the running settings"
                );
                self.reload_refused = Some(error.to_string());
            }
        }
        // Before ready: a caller that waits for the reload reads the status next.
        self.notify_status_now();
        self.shared.manager.ready();
    }

    /// Puts a change into force, and logs which keys need a restart.
    fn apply_change(&mut self, change: Change) {
        self.reload_refused = None;
        let limit_before = self.settings.max_line_bytes;
        self.settings = change.settings;
        self.reloader.log.set(&self.settings.log);
        self.engine.reconfigure(reconfigure(&self.settings));
        let setting = watch_setting(self.settings.watch);
        self.is_rearming |= self.watch.change_setting(setting);
        let changed = change.applied.join(",");
        let keys = if changed.is_empty() { "none" } else { &changed };
        tracing::info!(
            message_id = message_ids::RELOADED,
            changed,
            "configuration reloaded, changed keys: {keys}"
        );
        if !change.needs_restart.is_empty() {
            let needs_restart = change.needs_restart.join(",");
            tracing::warn!(
                message_id = message_ids::RELOAD_REFUSED,
                needs_restart,
                "some changed keys require a restart: {needs_restart}"
            );
        }
        if limit_before != self.settings.max_line_bytes {
            let limit = self.settings.max_line_bytes;
            self.within_limit = report_within_limit(&self.engine, limit);
            self.within_limit_as_of = malformed(&self.engine);
        }
    }

    /// Counts the lines again that were too long and are within the limit, once some of them may have been read again.
    pub(super) fn recount_within_limit(&mut self) {
        let malformed = malformed(&self.engine);
        if self.within_limit.lines == 0 || self.within_limit_as_of == malformed {
            return;
        }
        self.within_limit_as_of = malformed;
        self.within_limit = within_limit(&self.engine, self.settings.max_line_bytes);
    }
}

/// Returns the number of malformed lines.
pub(super) fn malformed(engine: &Engine) -> u64 {
    let totals = engine.totals();
    totals.scored_malformed + totals.evidence_malformed
}

/// Returns the lines that were too long and are within the limit. They keep their verdict until their day-files are read
/// again.
fn within_limit(engine: &Engine, max_line_bytes: u64) -> WithinLimit {
    // An error of the state ends the next pass, with its message.
    WithinLimit::count(&engine.state_snapshot(), max_line_bytes).unwrap_or_default()
}

/// Logs, and returns, the lines that were too long and are within the limit.
pub(super) fn report_within_limit(engine: &Engine, max_line_bytes: u64) -> WithinLimit {
    let found = within_limit(engine, max_line_bytes);
    if let Some(text) = found.describe() {
        let (lines, day_files) = (found.lines, found.day_files);
        tracing::warn!(lines, day_files, "{text}");
    }
    found
}

/// Returns the engine's part of the settings.
fn reconfigure(settings: &Settings) -> Reconfigure {
    Reconfigure {
        limits: LineLimits {
            line_bytes_max: settings.max_line_bytes,
        },
        settle_ms: millis(settings.settle),
        checkpoint_bytes: settings.checkpoint_bytes,
    }
}

/// Converts the configured watch mode to that of the watches.
pub(super) fn watch_setting(setting: config::Watch) -> WatchSetting {
    match setting {
        config::Watch::Auto => WatchSetting::Auto,
        config::Watch::Events => WatchSetting::Events,
        config::Watch::Poll => WatchSetting::Poll,
    }
}
