//! A daemon whose export is not the one that was committed: it appends nothing and keeps running, so that every surface
//! shows the error and the ways out, and the service manager does not restart it in a loop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::hints::remedy;
use crate::config::{Settings, as_typed};
use crate::daemon::event_loop::Shared;
use crate::daemon::status_line::{self, UnitStatus};
use crate::daemon::watchdog::{Watchdog, Watched};
use crate::engine::EngineError;
use crate::http::StatusCache;
use crate::pair::verdict::VerdictKind;
use crate::platform::message_ids;
use crate::platform::sd_notify::watchdog_interval;
use crate::query::status::{Fault, Status};
use crate::record::timestamp::stamp;

/// The maximum time between two checks for a stop. A stop wakes the wait, so this is not a delay.
const WAIT: Duration = Duration::from_secs(3_600);

/// Shows the error of an ended engine on every surface until a stop is requested.
///
/// # Errors
/// The kernel refuses the thread of the watchdog.
pub(super) fn wait_for_operator(
    settings: &Settings,
    root: &Path,
    shared: &Shared,
    cache: &StatusCache,
    error: &EngineError,
) -> std::io::Result<()> {
    let fix = remedy(error).map(|fix| as_typed(&fix));
    let wall_ms = shared.clock.wall_ms();
    let fault = Fault {
        at: stamp(wall_ms),
        what: error.to_string(),
        resolved: false,
        fix: fix.clone(),
    };
    let ways_out = fix.unwrap_or_default();
    tracing::error!(
        message_id = message_ids::READING_STOPPED,
        %error,
        "stopped: {error}; appending nothing until an operator decides: {ways_out}"
    );
    let status = Status::of_stopped(root, &settings.state_dir, fault, wall_ms);
    let verdicts = &status.scored.verdicts;
    let line = status_line::of(&UnitStatus {
        health: status.health.clone(),
        rows: status.export.rows,
        waiting: verdicts[VerdictKind::Waiting],
        ..UnitStatus::default()
    });
    cache.stop(status);
    let _watchdog = watchdog_interval()
        .map(|interval| {
            let watched = Watched {
                engine: Arc::clone(&shared.heartbeat),
                // Nothing is watched any more.
                watcher: Arc::default(),
            };
            let (manager, clock) = (Arc::clone(&shared.manager), Arc::clone(&shared.clock));
            Watchdog::start(interval, watched, manager, clock)
        })
        .transpose()?;
    shared.manager.ready();
    shared.manager.status(&line);
    loop {
        let deadline_ms = shared.clock.monotonic_ms() + WAIT.as_millis() as u64;
        shared.heartbeat.idle_until(deadline_ms);
        let pending = shared
            .inbox
            .wait_until(Some(shared.clock.instant(deadline_ms)));
        if pending.stop {
            shared.manager.stopping();
            return Ok(());
        }
        if pending.reload {
            // The settings matter at the next start.
            shared.manager.reloading();
            shared.manager.ready();
        }
        if pending.report {
            tracing::info!(message_id = message_ids::STATUS, status = line, "status");
        }
    }
}
