//! Owns which directories of the lake report their changes, and turns these reports into hints for the engine.
//! It never reads a day-file, never decides what a change means, and never lets an event stand for the truth.
//!
//! Each directory has a watch of its own. inotify's recursion is done here, because a watch that is placed by
//! somebody else after a directory appeared says nothing of the files created in between. The rule that closes
//! this gap: **a directory is watched before it is listed**. What comes before the listing is in it, what comes
//! after the watch is reported; what falls between is both, which costs one look too many.
//!
//! The other rule: **after a hint about a directory its watch, and all those below it, are placed again**, even if
//! the directory looks the same. The event source drops its watches by path when it reads that something vanished
//! there, and by then another directory may have that name, and our watch.
//!
//! Watches are placed newest first and in slices ([`Watch::arm_next`]), so that today's day-files are heard
//! before a history of thousands of directories, and new records do not wait for it. Where watches run out the
//! oldest days lose theirs. [`Watch::mode`] says whether the engine has to poll beside the events.

mod arm;
mod events;
pub(crate) mod filesystem;
mod mode;
mod queue;
mod self_test;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{RecommendedWatcher, Watcher as _};

use crate::daemon::inbox::{Inbox, PendingWork};
use crate::lake::path::Stream;
use crate::platform::storage::{FileKind, FileStat, Storage};
use arm::{DAY_DEPTH, Placed};
use events::HintSender;
pub use mode::{Mode, WatchSetting};
use queue::{ArmQueue, Directory, Urgency, directory};
pub use self_test::SelfTest;

/// What one slice of arming found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The day-files in the directories that were listed, by stream and path below its base: anything may have
    /// happened to them while nobody listened.
    pub day_files: Vec<(Stream, PathBuf)>,
    /// Whether no directory waits to be armed any more.
    pub done: bool,
}

/// A directory as it was when its watch was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(stat: &FileStat) -> Identity {
        Identity {
            device: stat.device,
            inode: stat.inode,
        }
    }
}

/// The watches of one lake.
#[derive(Debug)]
pub struct Watch {
    root: PathBuf,
    setting: WatchSetting,
    storage: Arc<dyn Storage>,
    wake: Arc<Inbox>,
    /// `None` when polling was asked for or the kernel gave no event source.
    watcher: Option<RecommendedWatcher>,
    /// Hears what every event source of this watch hears.
    self_test: Arc<SelfTest>,
    /// The root and `<root>/data`, where they are there.
    above: [Option<Identity>; 2],
    armed: BTreeMap<Directory, Identity>,
    queue: ArmQueue,
    /// Directories that could not be watched or listed; tried again by [`Watch::rearm_changed`].
    refused: BTreeSet<Directory>,
    /// The last directory that [`Watch::rearm_changed`] looked at.
    cursor: Option<Directory>,
    /// By device: the name of its file system, if its events cannot be relied on.
    devices: BTreeMap<u64, Option<&'static str>>,
    /// Watches ran out in this round, so that history need not even try.
    exhausted: bool,
    /// A watch could not be placed in this round of [`Watch::rearm_changed`].
    failed: bool,
    /// Why there is polling until the next reset, the first cause.
    polling_why: Option<String>,
    /// Why there is polling until a round without failure, the first cause.
    unwatched_why: Option<String>,
    /// The mode that was last logged.
    said: Mode,
}

impl Watch {
    /// Places the watches above the streams and queues their bases. Nothing below is armed yet: call
    /// [`Watch::arm_next`] until it is done. `root` should exist; while it does not, nothing is reported and
    /// [`Watch::rearm_changed`] goes on looking for it.
    ///
    /// # Errors
    /// The working directory cannot be found, which a relative `root` needs.
    pub fn new(
        root: &Path,
        setting: WatchSetting,
        storage: Arc<dyn Storage>,
        wake: Arc<Inbox>,
    ) -> io::Result<Watch> {
        let mut watch = Watch {
            root: std::path::absolute(root)?,
            setting,
            storage,
            wake,
            watcher: None,
            self_test: Arc::default(),
            above: [None; 2],
            armed: BTreeMap::new(),
            queue: ArmQueue::default(),
            refused: BTreeSet::new(),
            cursor: None,
            devices: BTreeMap::new(),
            exhausted: false,
            failed: false,
            polling_why: None,
            unwatched_why: None,
            said: Mode::Events,
        };
        watch.reset();
        Ok(watch)
    }

    /// Has the event source, and those that follow it, be testable by a file in the state directory.
    pub fn enable_self_test(&mut self, state_dir: &Path) -> Arc<SelfTest> {
        self.self_test.place(state_dir);
        self.self_test.arm(self.watcher.as_mut());
        Arc::clone(&self.self_test)
    }

    /// Another way to notice changes, from now on; if it is another one everything is armed anew, and that is said.
    pub fn change_setting(&mut self, setting: WatchSetting) -> bool {
        let changed = setting != self.setting;
        if changed {
            self.setting = setting;
            self.reset();
        }
        changed
    }

    /// Directories that wait for [`Watch::arm_next`].
    #[must_use]
    pub fn unarmed(&self) -> usize {
        self.queue.len()
    }

    /// How many directories below the bases, the bases among them, are watched.
    #[must_use]
    pub fn armed(&self) -> usize {
        self.armed.len()
    }

    /// Whether directories wait for [`Watch::arm_next`].
    #[must_use]
    pub fn has_unarmed(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Queues what the hints name: single directories before all history, or everything where the bases changed or
    /// events were lost (with thousands of directories that is most of a second of work, in slices). Call it with
    /// every [`PendingWork`], then [`Watch::arm_next`].
    pub fn apply(&mut self, pending: &PendingWork) {
        if pending.root || pending.rearm {
            self.reset();
            return;
        }
        // All watches of vanished names go first: a directory moved within the lake has the same watch under its
        // old and its new name, and dropping the old one later would take it away.
        for (stream, relative) in &pending.directories {
            self.forget(&directory(*stream, relative));
        }
        for (stream, relative) in &pending.directories {
            self.queue
                .push(Urgency::Fresh, directory(*stream, relative));
        }
    }

    /// Queues a directory that a scan met, unless it is watched or was found unwatchable. `relative` is its path
    /// below the stream's base, three names at most.
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
    #[must_use = "the day-files found may have changed unheard"]
    pub fn arm_next(&mut self, directories_max: usize) -> Progress {
        let mut day_files = Vec::new();
        for _ in 0..directories_max {
            let Some((urgency, place)) = self.queue.pop() else {
                break;
            };
            self.arm(urgency, &place, &mut day_files);
        }
        let done = self.queue.is_empty();
        if done && !self.failed {
            self.unwatched_why = None;
        }
        self.say_mode();
        Progress { day_files, done }
    }

    /// Looks whether up to `directories_max` watched directories are still the ones that were armed, going on
    /// where the last call ended; queues what has to be armed again. True when a round is complete. The slow scan
    /// calls it, because a mount, or a root that is renamed from above, makes no event.
    pub fn rearm_changed(&mut self, directories_max: usize) -> bool {
        if self.setting == WatchSetting::Poll {
            return true;
        }
        if self.cursor.is_none() && self.begin_round() {
            return true;
        }
        let from = self.cursor.take().map_or(Bound::Unbounded, Bound::Excluded);
        let slice_len = directories_max.max(1);
        let slice = self.armed.range((from, Bound::Unbounded)).take(slice_len);
        let looked_at: Vec<_> = slice
            .map(|(place, identity)| (place.clone(), *identity))
            .collect();
        for (place, identity) in &looked_at {
            if self.stat(place).ok().as_ref().map(Identity::of) != Some(*identity) {
                self.forget(place);
                self.queue.push(Urgency::Fresh, place.clone());
            }
        }
        if looked_at.len() == slice_len {
            self.cursor = looked_at.into_iter().next_back().map(|(place, _)| place);
        }
        self.cursor.is_none()
    }

    /// True when everything was queued anew and there is nothing left to compare.
    fn begin_round(&mut self) -> bool {
        let above = [self.identity_above(0), self.identity_above(1)];
        if self.watcher.is_none() || above != self.above {
            self.reset();
            return true;
        }
        self.exhausted = false;
        self.failed = false;
        for place in &self.refused {
            self.queue.push(Urgency::History, place.clone());
        }
        for stream in Stream::ALL {
            let base = directory(stream, "");
            if !self.armed.contains_key(&base) {
                self.queue.push(Urgency::Fresh, base);
            }
        }
        false
    }

    /// Begins anew with a fresh event source: whatever the old one had lost or mixed up is gone with it.
    fn reset(&mut self) {
        self.armed.clear();
        self.refused.clear();
        self.queue.clear();
        self.devices.clear();
        self.cursor = None;
        self.exhausted = false;
        self.failed = false;
        self.polling_why = None;
        self.unwatched_why = None;
        self.watcher = self.event_source();
        self.self_test.arm(self.watcher.as_mut());
        // The upper one first: what appears in it afterwards is a hint, what was there before is seen here.
        for level in 0..self.above.len() {
            self.above[level] = self.arm_above(level);
        }
        for stream in Stream::ALL {
            self.queue.push(Urgency::History, directory(stream, ""));
        }
        self.say_mode();
    }

    fn event_source(&mut self) -> Option<RecommendedWatcher> {
        if self.setting == WatchSetting::Poll {
            self.poll_because(|| "asked for by the configuration".into());
            return None;
        }
        // The old one is told to end first. It does so on its own thread: where watches are nearly used up, the new
        // one may fall short of some, which the next round of `rearm_changed` makes good.
        drop(self.watcher.take());
        let sender = HintSender::new(
            self.root.clone(),
            Arc::clone(&self.wake),
            Arc::clone(&self.self_test),
        );
        match RecommendedWatcher::new(sender, notify::Config::default()) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                self.poll_because(|| {
                    format!("no event source, see fs.inotify.max_user_instances: {error}")
                });
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
        (stat.kind == FileKind::Directory).then(|| Identity::of(&stat))
    }

    fn arm_above(&mut self, level: usize) -> Option<Identity> {
        let path = self.path_above(level);
        // The identity is taken first: where another directory comes in between, the next round sees it.
        let identity = self.identity_above(level);
        if identity.is_none() && level == 0 {
            tracing::warn!(root = %path.display(), "root is not there, looking for it at each slow scan");
        }
        if let Some(identity) = identity {
            self.note_file_system(&path, identity.device);
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
        // Pushing an empty path would leave a slash behind the base.
        if !relative.as_os_str().is_empty() {
            path.push(relative);
        }
        path
    }

    /// What a directory is; below a base links are not followed, the base itself may be one.
    fn stat(&self, place: &Directory) -> io::Result<FileStat> {
        let path = self.path(place);
        if place.1.as_os_str().is_empty() {
            self.stat_followed(&path)
        } else {
            self.storage.stat(&path)
        }
    }

    fn stat_followed(&self, path: &Path) -> io::Result<FileStat> {
        self.storage.stat(&self.storage.canonicalize(path)?)
    }
}

#[cfg(test)]
mod tests;
