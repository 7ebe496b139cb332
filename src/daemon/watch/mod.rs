//! The inotify watches of a lake. They turn change events into hints for the engine. No day-file is read here, and an
//! event is never treated as the truth.
//!
//! Each directory has its own watch. Recursion is done here, because a recursive watch that the library places after a
//! directory appeared misses the files created in between. The rule that closes this gap: **a directory is watched
//! before it is listed**. A file created before the listing is in it, and one created after the watch is reported. A
//! file created between the two is both, which costs one extra read.
//!
//! The second rule: **after a hint about a directory its watch, and all watches below it, are placed again**, even if
//! the directory looks unchanged. The event source drops its watches by path when it reads that a name vanished, and by
//! that time another directory may have this name, and our watch.
//!
//! Watches are placed newest first and in slices ([`Watch::arm_next`]), so that events of today's day-files arrive
//! before a history of thousands of directories is armed, and new records do not wait for it. When the kernel's watches
//! run out, the oldest days lose theirs. [`Watch::mode`] returns whether the engine has to poll in addition.

mod arm;
mod events;
pub(crate) mod filesystem;
mod linked;
mod mode;
mod queue;
mod round;
mod self_test;
mod source;
mod unwatched;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::daemon::inbox::{Inbox, PendingWork};
use crate::lake::path::Stream;
use crate::platform::storage::{FileKind, FileStat, ListedEntry, Storage};
pub(crate) use arm::DAY_DEPTH;
use arm::Placed;
pub use arm::{Listing, Progress};
use events::HintSender;
pub use mode::{Mode, WatchSetting};
use queue::{ArmQueue, Directory, Urgency, directory};
pub use round::Round;
pub use self_test::SelfTest;
pub use source::{EventSource, Inotify, OpenEvents};
use unwatched::Unwatched;

/// The identity of a directory when its watch was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn from_stat(stat: &FileStat) -> Identity {
        Identity {
            device: stat.device,
            inode: stat.inode,
        }
    }
}

/// The watches of one lake.
pub struct Watch {
    root: PathBuf,
    setting: WatchSetting,
    storage: Arc<dyn Storage>,
    source: Arc<dyn EventSource>,
    wake: Arc<Inbox>,
    /// `None` when polling is configured, or when the event source cannot be opened.
    watcher: Option<OpenEvents>,
    /// Receives the events of every event source of this watch.
    self_test: Arc<SelfTest>,
    /// The root and `<root>/data`, if they exist.
    above: [Option<Identity>; 2],
    armed: BTreeMap<Directory, Identity>,
    /// Day-files with a watch of their own, and the file that it is on.
    linked: BTreeMap<Directory, Identity>,
    /// Day-files whose growth no event reports.
    unwatched: Unwatched,
    queue: ArmQueue,
    /// Directories that could not be watched or listed; [`Watch::rearm_changed`] retries them.
    refused: BTreeSet<Directory>,
    /// The last directory that [`Watch::rearm_changed`] checked.
    cursor: Option<Directory>,
    /// The name of the file system of each device, if it does not report all changes.
    devices: BTreeMap<u64, Option<&'static str>>,
    /// Watches ran out in this round; directories of the history are not tried.
    exhausted: bool,
    /// A watch could not be placed in this round of [`Watch::rearm_changed`].
    failed: bool,
    /// The first reason for polling until the next reset.
    polling_why: Option<String>,
    /// The first reason for polling until a round without failure.
    unwatched_why: Option<String>,
    /// The mode that was logged last.
    logged_mode: Mode,
}

impl Watch {
    /// Places the watches above the streams and queues their bases. Nothing below is armed yet: call
    /// [`Watch::arm_next`] until it is done. `root` should exist; until it does, nothing is reported, and
    /// [`Watch::rearm_changed`] checks for it.
    ///
    /// # Errors
    /// The working directory, which a relative `root` needs, cannot be determined.
    pub fn new(
        root: &Path,
        setting: WatchSetting,
        storage: Arc<dyn Storage>,
        source: Arc<dyn EventSource>,
        wake: Arc<Inbox>,
    ) -> io::Result<Watch> {
        let mut watch = Watch {
            root: std::path::absolute(root)?,
            setting,
            storage,
            source,
            wake,
            watcher: None,
            self_test: Arc::default(),
            above: [None; 2],
            armed: BTreeMap::new(),
            linked: BTreeMap::new(),
            unwatched: Unwatched::default(),
            queue: ArmQueue::default(),
            refused: BTreeSet::new(),
            cursor: None,
            devices: BTreeMap::new(),
            exhausted: false,
            failed: false,
            polling_why: None,
            unwatched_why: None,
            logged_mode: Mode::Events,
        };
        watch.reset();
        Ok(watch)
    }

    /// Enables the self-test of this event source and of its successors, by a file in the state directory.
    pub fn enable_self_test(&mut self, state_dir: &Path) -> Arc<SelfTest> {
        self.self_test.place(state_dir);
        self.self_test.arm(self.watcher.as_deref_mut());
        Arc::clone(&self.self_test)
    }

    /// Changes how changes are detected, and returns whether the setting is a different one. All directories are then
    /// armed again.
    pub fn change_setting(&mut self, setting: WatchSetting) -> bool {
        let changed = setting != self.setting;
        if changed {
            self.setting = setting;
            self.reset();
        }
        changed
    }

    /// Returns the number of directories that wait for [`Watch::arm_next`].
    #[must_use]
    pub fn unarmed(&self) -> usize {
        self.queue.len()
    }

    /// Returns how many of these were named by a hint, or are below one that was: a new record may be in them.
    #[must_use]
    pub fn unarmed_fresh(&self) -> usize {
        self.queue.fresh_len()
    }

    /// Returns the number of watched directories, bases included.
    #[must_use]
    pub fn armed(&self) -> usize {
        self.armed.len()
    }

    /// Returns whether directories wait for [`Watch::arm_next`].
    #[must_use]
    pub fn has_unarmed(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Queues the directories that hints name ahead of all history, or everything when the bases changed or events were
    /// lost (with thousands of directories that is most of a second of work, in slices). Must be called with every
    /// [`PendingWork`], before [`Watch::arm_next`].
    pub fn apply(&mut self, pending: &PendingWork) {
        if pending.root || pending.rearm {
            self.reset();
            return;
        }
        // All watches of vanished names are dropped first: a directory moved within the lake has the same watch under
        // its old and its new name, and dropping the old one later would remove it.
        for (stream, relative) in &pending.directories {
            self.forget(&directory(*stream, relative));
        }
        for (stream, relative) in &pending.directories {
            self.queue
                .push(Urgency::Fresh, directory(*stream, relative));
        }
    }

    /// Queues a directory that a scan listed, unless it is watched or cannot be watched. `relative` is its path below
    /// the stream's base, at most three names.
    pub fn ensure(&mut self, stream: Stream, relative: &Path) {
        let place = directory(stream, relative);
        if self.watcher.is_some()
            && relative.components().count() <= DAY_DEPTH
            && !self.armed.contains_key(&place)
            && !self.refused.contains(&place)
        {
            self.queue.push(Urgency::Fresh, place);
        }
    }

    /// Arms and lists up to `directories_max` directories, newest first, and returns the day-files in them.
    #[must_use = "the listed day-files may have changed while they were not watched"]
    pub fn arm_next(&mut self, directories_max: usize) -> Progress {
        let mut progress = Progress::default();
        for _ in 0..directories_max {
            let Some((urgency, place)) = self.queue.pop() else {
                break;
            };
            self.arm(urgency, &place, &mut progress);
        }
        progress.done = self.queue.is_empty();
        if progress.done && !self.failed {
            self.unwatched_why = None;
        }
        self.log_mode();
        progress
    }

    /// Starts over with a new event source; this discards any event or watch that the old one lost or confused.
    fn reset(&mut self) {
        self.armed.clear();
        self.linked.clear();
        self.unwatched = Unwatched::default();
        self.refused.clear();
        self.queue.clear();
        self.devices.clear();
        self.cursor = None;
        self.exhausted = false;
        self.failed = false;
        self.polling_why = None;
        self.unwatched_why = None;
        self.watcher = self.event_source();
        self.self_test.arm(self.watcher.as_deref_mut());
        // The upper one first: later changes in it are hints, and earlier ones are found here.
        for level in 0..self.above.len() {
            self.above[level] = self.arm_above(level);
        }
        for stream in Stream::ALL {
            self.queue.push(Urgency::History, directory(stream, ""));
        }
        self.log_mode();
    }

    fn event_source(&mut self) -> Option<OpenEvents> {
        if self.setting == WatchSetting::Poll {
            self.poll_because(|| "configured".into());
            return None;
        }
        // The old event source is dropped first. It ends on its own thread: when watches are nearly used up, the new
        // one may lack some, which the next round of `rearm_changed` repairs.
        drop(self.watcher.take());
        let sender = HintSender::new(
            self.root.clone(),
            Arc::clone(&self.wake),
            Arc::clone(&self.self_test),
        );
        match self.source.open(Box::new(sender)) {
            Ok(watcher) => Some(watcher),
            Err(why) => {
                self.poll_because(|| why);
                None
            }
        }
    }

    fn path_above(&self, level: usize) -> PathBuf {
        if level == 0 {
            self.root.clone()
        } else {
            self.root.join("data")
        }
    }

    fn identity_above(&self, level: usize) -> Option<Identity> {
        let stat = self.stat_followed(&self.path_above(level)).ok()?;
        (stat.kind == FileKind::Directory).then(|| Identity::from_stat(&stat))
    }

    fn arm_above(&mut self, level: usize) -> Option<Identity> {
        let path = self.path_above(level);
        // The identity is taken first: if another directory takes its place in between, the next round detects it.
        let identity = self.identity_above(level);
        if identity.is_none() && level == 0 {
            let root = path.display();
            tracing::warn!(%root, "root {root} does not exist, checking again with each scan");
        }
        if let Some(identity) = identity {
            self.check_file_system(&path, identity.device);
        }
        let identity = identity?;
        match self.place_watch(&path) {
            Placed::Armed => Some(identity),
            Placed::Gone => None,
            Placed::Unwatched => {
                self.poll_because(|| format!("cannot watch {}", path.display()));
                Some(identity)
            }
        }
    }

    fn path(&self, (stream, relative): &Directory) -> PathBuf {
        let mut path = self.root.join("data");
        path.push(stream.dir_name());
        // Pushing an empty path would append a slash to the base.
        if !relative.as_os_str().is_empty() {
            path.push(relative);
        }
        path
    }

    /// Returns the stat of a directory. Below a base links are not followed; the base itself may be one.
    fn stat(&self, place: &Directory) -> io::Result<FileStat> {
        if place.1.as_os_str().is_empty() {
            self.stat_followed(&self.path(place))
        } else {
            self.storage.stat_below(&place.0.base(&self.root), &place.1)
        }
    }

    /// Lists a directory, links not followed in the same way.
    fn list_directory(&self, (stream, relative): &Directory) -> io::Result<Vec<ListedEntry>> {
        self.storage.list_below(&stream.base(&self.root), relative)
    }

    fn stat_followed(&self, path: &Path) -> io::Result<FileStat> {
        self.storage.stat(&self.storage.canonicalize(path)?)
    }
}

#[cfg(test)]
mod tests;
