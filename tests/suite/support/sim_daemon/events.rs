//! A simulated source of change events: the queue and the watches of inotify, and the two tables of the `notify` crate,
//! which has its own idea of what is at a path. Events are delivered at moments of the simulation; some are lost.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use distilld::daemon::watch::{EventSource, OpenEvents};
use fastrand::Rng;
use notify::event::{
    AccessKind, AccessMode, CreateKind, DataChange, Event, EventKind, Flag, MetadataKind,
    ModifyKind, RemoveKind, RenameMode,
};
use notify::{Config, Error, ErrorKind, EventHandler, RecursiveMode, Watcher, WatcherKind};

use crate::support::sim_disk::SimDisk;

/// What others do before a call of the daemon.
pub type BeforeCall = Arc<dyn Fn() + Send + Sync>;

/// Which events are lost without a notice, and the limits of the kernel.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// One event of this number is lost; 0: none.
    pub lost_of: u32,
    /// Whether it is known that events may be lost, as on a network file system.
    pub is_known_to_lose: bool,
    /// Length of the queue, beyond which events become one of an overflow.
    pub queue_max: usize,
    pub watches_max: usize,
    /// Whether no source can be opened.
    pub opening_fails: bool,
    /// Whether each event is delivered twice.
    pub twice: bool,
}

/// What happened to a name in a directory, or to the directory itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Created,
    Deleted,
    Modified,
    Closed,
    MovedFrom(usize),
    MovedTo(usize),
    Rights,
    SelfDeleted,
    SelfMoved,
    /// The watch was removed.
    Ignored,
    Overflow,
}

type Descriptor = u64;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Queued {
    descriptor: Descriptor,
    kind: Kind,
    name: Option<String>,
    is_dir: bool,
}

struct Instance {
    handler: Box<dyn EventHandler>,
    queue: VecDeque<Queued>,
    /// The watches of the kernel, by inode.
    kernel: BTreeMap<u64, Descriptor>,
    /// The tables of the crate.
    watches: BTreeMap<PathBuf, Descriptor>,
    paths: BTreeMap<Descriptor, PathBuf>,
    renamed: Option<(usize, PathBuf)>,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} watches, {:?}", self.watches.len(), self.queue)
    }
}

/// The kernel's side.
#[derive(Debug)]
pub struct Kernel {
    pub disk: SimDisk,
    pub limits: Limits,
    rng: Rng,
    instance: Option<Instance>,
    next_descriptor: Descriptor,
    /// Number of times that a source was opened or closed.
    pub generation: u64,
    /// Number of events that were queued, and delivered, since then.
    pub queued: u64,
    pub delivered: u64,
    /// Whether a watch was refused since then.
    pub refused: bool,
}

/// A handle for the daemon.
#[derive(Clone)]
pub struct SimEvents {
    pub kernel: Arc<Mutex<Kernel>>,
    pub before_call: BeforeCall,
}

impl fmt::Debug for SimEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimEvents")
    }
}

impl Kernel {
    pub fn new(disk: SimDisk, limits: Limits, seed: u64) -> Self {
        Self {
            disk,
            limits,
            rng: Rng::with_seed(seed),
            instance: None,
            next_descriptor: 1,
            generation: 0,
            queued: 0,
            delivered: 0,
            refused: false,
        }
    }

    /// Returns whether each change is reported: a source is open, watches everything that it was asked to, and loses
    /// nothing silently.
    pub fn is_reliable(&self) -> bool {
        self.instance.is_some() && self.limits.lost_of == 0 && !self.refused
    }

    /// Returns whether events wait for their delivery.
    pub fn has_queued(&self) -> bool {
        let queue = self.instance.as_ref().map(|instance| &instance.queue);
        queue.is_some_and(|queue| !queue.is_empty())
    }

    /// Something happened to a name in a directory.
    pub fn emit(&mut self, dir: &Path, kind: Kind, name: &str, is_dir: bool) {
        if let Some(stat) = self.disk.stat_of(dir) {
            self.emit_at(stat.inode, kind, Some(name), is_dir);
        }
    }

    /// Something happened to what has this inode, which ends its watch if it is gone.
    pub fn emit_at(&mut self, inode: u64, kind: Kind, name: Option<&str>, is_dir: bool) {
        let Some(descriptor) = self.descriptor_of(inode) else {
            return;
        };
        let is_lost = self.limits.lost_of > 0 && self.rng.u32(..self.limits.lost_of) == 0;
        if !is_lost {
            self.push(Queued {
                descriptor,
                kind,
                name: name.map(str::to_owned),
                is_dir,
            });
        }
        if kind == Kind::SelfDeleted {
            self.remove_descriptor(descriptor);
        }
    }

    fn descriptor_of(&self, inode: u64) -> Option<Descriptor> {
        self.instance.as_ref()?.kernel.get(&inode).copied()
    }

    fn push(&mut self, event: Queued) {
        let Some(instance) = &mut self.instance else {
            return;
        };
        let queue = &mut instance.queue;
        // The kernel queues no event that equals the last one.
        if queue.back() == Some(&event) || is_overflow(queue.back()) {
            return;
        }
        let is_full = queue.len() >= self.limits.queue_max;
        queue.push_back(match is_full {
            false => event,
            true => Queued {
                descriptor: 0,
                kind: Kind::Overflow,
                name: None,
                is_dir: false,
            },
        });
        self.queued += 1;
    }

    fn remove_descriptor(&mut self, descriptor: Descriptor) {
        if let Some(instance) = &mut self.instance {
            instance.kernel.retain(|_, kept| *kept != descriptor);
        }
        self.push(Queued {
            descriptor,
            kind: Kind::Ignored,
            name: None,
            is_dir: false,
        });
    }

    /// Delivers the first events, at most `max`, as one read of the crate's thread.
    pub fn deliver(&mut self, max: usize) {
        let mut vanished = Vec::new();
        for _ in 0..max {
            let Some(instance) = &mut self.instance else {
                return;
            };
            let Some(event) = instance.queue.pop_front() else {
                break;
            };
            self.delivered += 1;
            for _ in 0..=u8::from(self.limits.twice) {
                instance.handle(&event, &mut vanished);
            }
        }
        for path in vanished {
            self.unwatch(&path, true);
        }
    }

    fn watch(&mut self, path: &Path) -> Result<(), ErrorKind> {
        let stat = self.disk.stat_of(path).ok_or(ErrorKind::PathNotFound)?;
        if self.disk.is_denied(path) {
            return Err(ErrorKind::Io(io::ErrorKind::PermissionDenied.into()));
        }
        let known = self.descriptor_of(stat.inode);
        let instance = self.instance.as_mut().expect("a watcher has its instance");
        if known.is_none() && instance.kernel.len() >= self.limits.watches_max {
            self.refused = true;
            return Err(ErrorKind::MaxFilesWatch);
        }
        let descriptor = known.unwrap_or(self.next_descriptor);
        self.next_descriptor += 1;
        instance.kernel.insert(stat.inode, descriptor);
        instance.watches.insert(path.to_owned(), descriptor);
        instance.paths.insert(descriptor, path.to_owned());
        Ok(())
    }

    fn unwatch(&mut self, path: &Path, with_those_below: bool) -> bool {
        let Some(instance) = &mut self.instance else {
            return false;
        };
        let Some(descriptor) = instance.watches.remove(path) else {
            return false;
        };
        instance.paths.remove(&descriptor);
        let mut removed = vec![descriptor];
        if with_those_below {
            let below = instance.paths.iter();
            let below = below.filter(|(_, other)| other.starts_with(path));
            let below: Vec<_> = below.map(|(id, other)| (*id, other.clone())).collect();
            for (descriptor, other) in below {
                instance.watches.remove(&other);
                instance.paths.remove(&descriptor);
                removed.push(descriptor);
            }
        }
        for descriptor in removed {
            self.remove_descriptor(descriptor);
        }
        true
    }

    fn reopen(&mut self, instance: Option<Instance>) {
        self.instance = instance;
        self.generation += 1;
        (self.queued, self.delivered, self.refused) = (0, 0, false);
    }
}

fn is_overflow(event: Option<&Queued>) -> bool {
    event.is_some_and(|event| event.kind == Kind::Overflow)
}

impl Instance {
    /// Passes an event on as the crate does.
    fn handle(&mut self, event: &Queued, vanished: &mut Vec<PathBuf>) {
        if event.kind == Kind::Overflow {
            let lost = Event::new(EventKind::Other).set_flag(Flag::Rescan);
            return self.handler.handle_event(Ok(lost));
        }
        let Some(dir) = self.paths.get(&event.descriptor) else {
            return;
        };
        let path = event
            .name
            .as_ref()
            .map_or_else(|| dir.clone(), |name| dir.join(name));
        let kind = match event.kind {
            Kind::Created if event.is_dir => EventKind::Create(CreateKind::Folder),
            Kind::Created => EventKind::Create(CreateKind::File),
            Kind::Deleted if event.is_dir => EventKind::Remove(RemoveKind::Folder),
            Kind::Deleted => EventKind::Remove(RemoveKind::File),
            Kind::Modified => EventKind::Modify(ModifyKind::Data(DataChange::Any)),
            Kind::Closed => EventKind::Access(AccessKind::Close(AccessMode::Write)),
            Kind::MovedFrom(_) | Kind::SelfMoved => {
                EventKind::Modify(ModifyKind::Name(RenameMode::From))
            }
            Kind::MovedTo(_) => EventKind::Modify(ModifyKind::Name(RenameMode::To)),
            Kind::Rights => EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)),
            Kind::SelfDeleted => EventKind::Remove(RemoveKind::Folder),
            Kind::Ignored | Kind::Overflow => return,
        };
        let is_gone = matches!(
            event.kind,
            Kind::MovedFrom(_) | Kind::Deleted | Kind::SelfDeleted
        );
        if is_gone && self.watches.contains_key(&path) {
            vanished.push(path.clone());
        }
        let whole = Event::new(kind).add_path(path.clone());
        self.handler.handle_event(Ok(whole));
        match (event.kind, self.renamed.take()) {
            (Kind::MovedFrom(cookie), _) => self.renamed = Some((cookie, path)),
            (Kind::MovedTo(cookie), Some((of, from))) if of == cookie => {
                let both = EventKind::Modify(ModifyKind::Name(RenameMode::Both));
                let both = Event::new(both).add_path(from).add_path(path);
                self.handler.handle_event(Ok(both));
            }
            (_, renamed) => self.renamed = renamed,
        }
    }
}

impl SimEvents {
    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSource for SimEvents {
    fn open(&self, handler: Box<dyn EventHandler>) -> Result<OpenEvents, String> {
        let mut kernel = self.kernel();
        if kernel.limits.opening_fails {
            return Err("no instance".to_owned());
        }
        kernel.reopen(Some(Instance {
            handler,
            queue: VecDeque::new(),
            kernel: BTreeMap::new(),
            watches: BTreeMap::new(),
            paths: BTreeMap::new(),
            renamed: None,
        }));
        let generation = kernel.generation;
        Ok(Box::new(SimWatcher {
            events: self.clone(),
            generation,
        }))
    }

    fn lacks_change_events(&self, _path: &Path) -> Option<&'static str> {
        self.kernel().limits.is_known_to_lose.then_some("simfs")
    }
}

/// The crate's handle of an open source.
#[derive(Debug)]
struct SimWatcher {
    events: SimEvents,
    generation: u64,
}

impl SimWatcher {
    fn called(&self) -> MutexGuard<'_, Kernel> {
        (self.events.before_call)();
        self.events.kernel()
    }
}

impl Watcher for SimWatcher {
    fn new<F: EventHandler>(_handler: F, _config: Config) -> notify::Result<Self> {
        Err(Error::generic("made by its source"))
    }

    fn watch(&mut self, path: &Path, _mode: RecursiveMode) -> notify::Result<()> {
        self.called().watch(path).map_err(Error::new)
    }

    fn unwatch(&mut self, path: &Path) -> notify::Result<()> {
        match self.called().unwatch(path, false) {
            true => Ok(()),
            false => Err(Error::watch_not_found()),
        }
    }

    fn kind() -> WatcherKind {
        WatcherKind::Inotify
    }
}

impl Drop for SimWatcher {
    fn drop(&mut self) {
        let mut kernel = self.events.kernel();
        if kernel.generation == self.generation {
            kernel.reopen(None);
        }
    }
}
