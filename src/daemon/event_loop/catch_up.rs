//! `run --once`: reads all day-files once, until no more progress is possible.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::console::progress::OnStep;
use crate::daemon::event_loop::directories::{UnreadableDirectories, is_empty, record_listing};
use crate::daemon::event_loop::reload::report_within_limit;
use crate::daemon::event_loop::report::log_caught_up;
use crate::daemon::event_loop::resume_recent;
use crate::daemon::inbox::Inbox;
use crate::engine::{Engine, EngineError};
use crate::lake::identity::seen;
use crate::lake::path::Stream;
use crate::lake::walk::{Level, list_level, stat_day_files};
use crate::platform::clock::Clock;
use crate::query::health::Unreadable;
use crate::query::status::{RecentFile, unreadable};

/// Reads all day-files, takes settled last lines, and writes a checkpoint. Returns the paths that could not be read.
///
/// # Errors
/// Those of the engine; a transient error ends the work too.
pub fn catch_up(
    engine: &mut Engine,
    root: &Path,
    clock: &dyn Clock,
    stop: &Inbox,
    on_step: OnStep<'_>,
) -> Result<Unreadable, EngineError> {
    engine.set_interrupt_flag(stop.interrupt_flag());
    let mut recent_file = RecentFile::new(Arc::clone(&engine.ctx.storage), &engine.ctx.state_dir);
    resume_recent(engine, &recent_file);
    report_within_limit(engine, engine.ctx.limits.line_bytes_max);
    engine.scrub_export()?;
    let mut directories = UnreadableDirectories::default();
    let mut total_bytes = 0;
    for stream in Stream::ALL {
        total_bytes += enqueue_stream(engine, root, stream, &mut directories)?;
    }
    directories.log(root);
    let mut done_bytes = 0;
    while !stop.stopping() {
        if engine.is_dirty() {
            done_bytes += engine.pass()?.source_bytes;
            on_step("catching up", done_bytes, total_bytes);
        } else if engine.may_settle() {
            let due_ms = engine.due_ms().unwrap_or(0);
            // Hints are ignored here; the loop's condition checks for a stop.
            let _hints = stop.wait_until(Some(clock.instant(due_ms)));
            engine.tick()?;
        } else {
            break;
        }
    }
    engine.checkpoint()?;
    if !stop.stopping() {
        engine.compact_if_long()?;
    }
    engine.flush_log_now();
    if !stop.stopping() {
        engine.settle_recent();
    }
    recent_file.write(engine);
    let unreadable = unreadable(engine, &directories.skipped());
    if !stop.stopping() {
        log_caught_up(engine, &unreadable);
    }
    Ok(unreadable)
}

/// Queues the changed day-files of a stream, and returns the number of their unread bytes.
fn enqueue_stream(
    engine: &mut Engine,
    root: &Path,
    stream: Stream,
    directories: &mut UnreadableDirectories,
) -> Result<u64, EngineError> {
    let mut unread_bytes = 0;
    let mut dirs = vec![PathBuf::new()];
    let storage = Arc::clone(&engine.ctx.storage);
    while let Some(dir) = dirs.pop() {
        let level = list_level(&*storage, root, stream, &dir);
        record_listing(engine, directories, root, stream, &dir, is_empty(&level));
        match level {
            Ok(Level::Directories(below)) => dirs.extend(below),
            Ok(Level::DayFiles(day_files)) => {
                let stats = stat_day_files(&*storage, root, stream, &dir, &day_files);
                for (path, stat) in day_files.into_iter().zip(stats) {
                    let stat = stat.ok();
                    let seen = stat.as_ref().map(seen);
                    if seen.map_or(Ok(true), |seen| engine.has_changed(&path, stream, seen))? {
                        let len_bytes = stat.map_or(0, |stat| stat.len_bytes);
                        unread_bytes += engine.unread_bytes(&path, stream, len_bytes)?;
                        engine.enqueue_backlog(path);
                    }
                }
            }
            Err(_) => {}
        }
    }
    Ok(unread_bytes)
}
