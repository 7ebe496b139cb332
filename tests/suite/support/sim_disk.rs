//! A simulated disk: the engine's `Storage`, in memory, that counts its calls, fails or crashes at a chosen one, and
//! can lose power. A test has a side door for the actions of scorers and readers. Never accesses the host's disk;
//! random only by a seed.
//!
//! Strict rules: a new file's name is durable only after `sync_dir` of its directory, regardless of its content; a
//! repeated sync after a failed one makes nothing durable; after a `kill -9` ([`Fate::Kept`]) everything is still
//! readable and still not durable.
//!
//! A crash test counts the calls of a whole run once, then for every `n` below that: forks the disk before the run,
//! calls [`SimDisk::crash_at`] with `n`, runs until an error is returned, calls [`SimDisk::power_cut`], and opens the
//! engine on the remaining disk.

mod content;
mod durability;
pub mod fault;
mod side_door;
#[cfg(test)]
mod tests;
mod tree;
mod world;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use distilld::platform::storage::{FileStat, ListedEntry, Storage, StorageFile, retry_interrupted};
use fastrand::Rng;

pub use fault::{EIO, ENOSPC, Fate, Fault, NameOrder};

use content::{next_data, to_index};
use tree::{NodeId, Tree};
use world::{Call, World};

/// The error number of a write through a read-only handle.
const EBADF: i32 = 9;

/// The disk. Clones are handles of the same one.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<World>>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.world();
        write!(f, "SimDisk(calls {}, dead {})", world.calls, world.dead)
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

/// Faults, crashes and recorded calls.
impl SimDisk {
    /// Creates an empty disk.
    pub fn new() -> Self {
        Self::with_world(World::new(Tree::new()))
    }

    fn with_world(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the others act before a call of the engine.
    fn called(&self) -> MutexGuard<'_, World> {
        let hook = self.world().hook.clone();
        if let Some(hook) = hook {
            hook.0();
        }
        self.world()
    }

    /// Crashes the process at the `n`-th mutating call from now (0: the next one), which has no effect, or, for a
    /// write, a partial one. It and all later calls on this disk fail with "crashed".
    pub fn crash_at(&self, n: u64) {
        let mut world = self.world();
        world.crash_at = Some(world.calls + n);
    }

    /// Fails the `n`-th mutating call from now (0: the next one).
    pub fn fail_at(&self, n: u64, fault: Fault) {
        let mut world = self.world();
        world.fault = Some((world.calls + n, fault));
    }

    /// Fails the `n`-th read-only call from now (0: the next one): opening, stat, listing, reading, resolving a path.
    pub fn fail_read_call_at(&self, n: u64, fault: Fault) {
        let mut world = self.world();
        world.read_call_fault = Some((world.read_calls + n, fault));
    }

    /// Removes the injected faults.
    pub fn heal(&self) {
        let mut world = self.world();
        world.fault = None;
        world.read_call_fault = None;
    }

    /// Bounds the sum of all files' lengths.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.world().capacity_bytes = capacity_bytes;
    }

    /// Returns the sum of all files' lengths.
    pub fn used_bytes(&self) -> u64 {
        self.world().tree.used_bytes
    }

    /// Sets which names survive a torn power cut; the default is [`NameOrder::Prefix`].
    pub fn set_name_order(&self, order: NameOrder) {
        self.world().name_order = order;
    }

    /// Sets whether the next created file gets the inode number of a removed one.
    pub fn set_inode_reuse(&self, reuse: bool) {
        self.world().tree.reuse_inodes = reuse;
    }

    /// Sets whether the data of a failed sync remains doomed for the next process, when this one is killed and the
    /// host continues. Linux behaves so; without this option the next process can sync it again.
    pub fn set_doom_outlives_kill(&self, outlives: bool) {
        self.world().doom_outlives_kill = outlives;
    }

    /// Whether files have holes where whole sectors are zero; otherwise they have none.
    pub fn set_knows_holes(&self, knows: bool) {
        self.world().knows_holes = knows;
    }

    /// Refuses second names of files from now on, like vfat.
    pub fn refuse_links(&self) {
        self.world().refuses_links = true;
    }

    /// Interrupts every other call from now on, and shortens reads and writes, at random by this seed.
    pub fn set_signals(&self, seed: Option<u64>) {
        self.world().signals = seed.map(Rng::with_seed);
    }

    /// Returns whether the process on this disk has crashed.
    pub fn is_dead(&self) -> bool {
        self.world().dead
    }

    /// Returns the number of mutating calls so far, without those of the side door.
    pub fn calls(&self) -> u64 {
        self.world().calls
    }

    /// Returns the number of read-only calls so far, without those of the side door.
    pub fn read_calls(&self) -> u64 {
        self.world().read_calls
    }

    /// Returns the last read-only call that failed by an injected fault, like `open_read /lake/a`.
    pub fn failed_read_call(&self) -> Option<String> {
        self.world().read_call_failed.as_ref().map(Call::to_string)
    }

    /// Returns the mutating calls that failed by an injected fault, like `sync_data /lake/a`.
    pub fn failed_calls(&self) -> Vec<String> {
        self.world().failed.iter().map(Call::to_string).collect()
    }

    /// Returns the names of the mutating calls from number `from` on, like `write /export 0+4096`.
    pub fn call_log(&self, from: u64) -> Vec<String> {
        let world = self.world();
        world
            .log
            .iter()
            .skip(to_index(from))
            .map(Call::to_string)
            .collect()
    }

    /// Kills the process on this disk and returns the disk that the next one finds. Can be called again, for another
    /// fate of the same moment. Limits and options are copied, faults and counts are not.
    pub fn power_cut(&self, seed: u64, fate: Fate) -> SimDisk {
        let mut world = self.world();
        world.dead = true;
        let mut tree = world
            .tree
            .cut(&mut Rng::with_seed(seed), fate, world.name_order);
        if !world.doom_outlives_kill {
            tree.forgive();
        }
        Self::with_world(World {
            capacity_bytes: world.capacity_bytes,
            name_order: world.name_order,
            doom_outlives_kill: world.doom_outlives_kill,
            knows_holes: world.knows_holes,
            refuses_links: world.refuses_links,
            signals: world.signals.clone(),
            ..World::new(tree)
        })
    }

    /// Returns a deep copy, unsynced changes and counts included; faults are not copied.
    pub fn fork(&self) -> SimDisk {
        let copy = self.world().clone();
        Self::with_world(World {
            crash_at: None,
            fault: None,
            read_call_fault: None,
            dead: false,
            ..copy
        })
    }
}

struct SimFile {
    disk: SimDisk,
    node: NodeId,
    path: Arc<Path>,
    writable: bool,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.path.display())
    }
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(EBADF))
        }
    }
}

impl StorageFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.disk.called();
        world.read_call("read_at", &self.path)?;
        let bytes = world.tree.bytes(self.node)?;
        let rest = &bytes[to_index(offset).min(bytes.len())..];
        let wanted = rest.len().min(buf.len());
        buf[..wanted].copy_from_slice(&rest[..wanted]);
        Ok(world.before_a_signal(wanted))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.check_writable()?;
        self.disk.called().write(self, offset, buf)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        retry_interrupted(|| self.disk.called().set_len(self, len_bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        retry_interrupted(|| self.disk.called().sync_data(self))
    }

    fn stat(&self) -> io::Result<FileStat> {
        let mut world = self.disk.called();
        retry_interrupted(|| world.read_call("stat open", &self.path))?;
        world.tree.stat(self.node)
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        let world = self.disk.world();
        if !world.knows_holes {
            return Some(offset);
        }
        next_data(world.tree.bytes(self.node).ok()?, offset)
    }
}

impl SimDisk {
    fn handle(&self, node: NodeId, path: &Path, writable: bool) -> Arc<dyn StorageFile> {
        let (disk, path) = (self.clone(), Arc::from(path));
        Arc::new(SimFile {
            disk,
            node,
            path,
            writable,
        })
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn StorageFile>> {
        let node = {
            let mut world = self.called();
            let verb = if writable { "open_write" } else { "open_read" };
            retry_interrupted(|| world.read_call(verb, path))?;
            let node = world.tree.find(path)?;
            world.tree.check_openable(node)?;
            node
        };
        Ok(self.handle(node, path, writable))
    }
}

impl Storage for SimDisk {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.open(path, false)
    }

    fn open_read_below(&self, base: &Path, below: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.open_read(&base.join(below))
    }

    fn stat_below(&self, base: &Path, below: &Path) -> io::Result<FileStat> {
        self.stat(&base.join(below))
    }

    fn list_below(&self, base: &Path, below: &Path) -> io::Result<Vec<ListedEntry>> {
        self.list(&base.join(below))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.open(path, true)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let create = || {
            let call = Call::on("create", path);
            self.called().act(call, |tree| tree.create_file(path))
        };
        let node = retry_interrupted(create)?;
        Ok(self.handle(node, path, true))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let mut world = self.called();
        retry_interrupted(|| world.read_call("stat", path))?;
        world.tree.stat(world.tree.find(path)?)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<ListedEntry>> {
        let mut world = self.called();
        retry_interrupted(|| world.read_call("list", dir))?;
        world.tree.list(world.tree.find(dir)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let call = Call {
            to: Some(to.into()),
            ..Call::on("rename", from)
        };
        retry_interrupted(|| {
            self.called()
                .act(call.clone(), |tree| tree.rename(from, to))
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        retry_interrupted(|| {
            self.called()
                .act(Call::on("remove", path), |tree| tree.remove(path))
        })
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let call = Call {
            to: Some(to.into()),
            ..Call::on("hard_link", from)
        };
        if self.world().refuses_links {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        retry_interrupted(|| self.called().act(call.clone(), |tree| tree.link(from, to)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        retry_interrupted(|| self.called().create_dir_all(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        retry_interrupted(|| self.called().sync_dir(dir))
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        let mut world = self.called();
        retry_interrupted(|| world.read_call("canonicalize", path))?;
        world.tree.find(path)?;
        Ok(Path::new("/")
            .components()
            .chain(path.components())
            .collect())
    }
}
