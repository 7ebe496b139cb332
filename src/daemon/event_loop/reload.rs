//! Owns what follows when the configuration is to be read again: what can change does, what cannot is said by name, and
//! one that cannot be used leaves the running settings in force. The service manager always hears the end of it.

use crate::config::{self, Change, ConfigError, Settings};
use crate::console::logging::LogFilter;
use crate::daemon::event_loop::{EventLoop, millis};
use crate::daemon::watch::WatchSetting;
use crate::engine::Reconfigure;
use crate::lake::chunk::LineLimits;
use crate::platform::clock::Clock as _;
use crate::platform::message_ids;

/// How the configuration is read again, and whom of its changes the follower does not own.
pub struct Reloader {
    /// Reads the same flags, environment and file as the start did.
    pub read: Box<dyn Fn() -> Result<Settings, ConfigError> + Send>,
    /// The log.
    pub log: LogFilter,
}

impl EventLoop {
    pub(super) fn reload(&mut self) {
        self.shared.manager.reloading();
        match (self.reloader.read)() {
            Ok(fresh) => self.take_up(self.settings.change_to(fresh)),
            Err(error) => {
                tracing::error!(
                    message_id = message_ids::RELOAD_REFUSED,
                    %error,
                    "reload refused, the old settings stay in force"
                );
                self.reload_refused = Some(error.to_string());
            }
        }
        // Before ready: whoever waits for the reload reads the status next.
        self.say_status_now();
        self.shared.manager.ready();
    }

    fn take_up(&mut self, change: Change) {
        self.reload_refused = None;
        self.settings = change.settings;
        self.reloader.log.set(&self.settings.log);
        self.engine.reconfigure(tuning(&self.settings));
        let setting = watch_setting(self.settings.watch);
        self.looking_through |= self.watch.change_setting(setting);
        let now_ms = self.shared.clock.monotonic_ms();
        self.recent_scan_at_ms = self
            .recent_scan_at_ms
            .min(now_ms + self.recent_scan_pause_ms());
        self.full_scan_at_ms = self.full_scan_at_ms.min(now_ms + self.full_scan_pause_ms());
        tracing::info!(
            message_id = message_ids::RELOADED,
            changed = change.applied.join(","),
            "configuration reloaded"
        );
        if !change.needs_restart.is_empty() {
            tracing::warn!(
                message_id = message_ids::RELOAD_REFUSED,
                needs_restart = change.needs_restart.join(","),
                "changed keys that only a restart takes up"
            );
        }
    }
}

/// What of the settings the engine works by.
fn tuning(settings: &Settings) -> Reconfigure {
    Reconfigure {
        limits: LineLimits {
            line_bytes_max: settings.max_line_bytes,
        },
        settle_ms: millis(settings.settle),
        checkpoint_bytes: settings.checkpoint_bytes,
    }
}

pub(super) fn watch_setting(setting: config::Watch) -> WatchSetting {
    match setting {
        config::Watch::Auto => WatchSetting::Auto,
        config::Watch::Events => WatchSetting::Events,
        config::Watch::Poll => WatchSetting::Poll,
    }
}
