//! Where change events come from. The watches decide what is watched, and take every event as a hint.

use std::fmt::Debug;
use std::path::Path;

use notify::{Config, EventHandler, RecommendedWatcher, Watcher};

use crate::daemon::watch::filesystem;

/// An open source of change events.
pub type OpenEvents = Box<dyn Watcher + Send>;

/// A source of change events.
pub trait EventSource: Debug + Send + Sync {
    /// Opens the source. It passes each event to `handler`, on a thread of its own.
    ///
    /// # Errors
    /// The reason why changes have to be polled.
    fn open(&self, handler: Box<dyn EventHandler>) -> Result<OpenEvents, String>;
    /// Returns the name of the file system that holds `path` if it does not report every change.
    fn lacks_change_events(&self, path: &Path) -> Option<&'static str>;
}

/// The events of the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inotify;

impl EventSource for Inotify {
    fn open(&self, mut handler: Box<dyn EventHandler>) -> Result<OpenEvents, String> {
        let handler = move |event| handler.handle_event(event);
        let mut watcher = RecommendedWatcher::new(handler, Config::default()).map_err(|error| {
            format!("no inotify instance ({error}), see fs.inotify.max_user_instances")
        })?;
        if watcher.configure(Config::default()).is_err() {
            // Without its thread every further call panics, the drop too. The thread held all its resources.
            std::mem::forget(watcher);
            return Err("no thread for events, see `TasksMax=` of the unit and `ulimit -u`".into());
        }
        Ok(Box::new(watcher))
    }

    fn lacks_change_events(&self, path: &Path) -> Option<&'static str> {
        filesystem::lacks_change_events(path)
    }
}
