//! Owns a simulated disk: the engine's `Storage`, in memory, that counts its calls, fails or dies at a chosen
//! one, and is cut off from power. A test has a side door to play the scorers and readers of other processes.
//! Never touches the host's disk, and is never random but by a seed.
//!
//! What it is strict about: a new file's name is durable only after `sync_dir` of its directory, whatever its
//! content; a sync that is tried again after it failed makes nothing durable; after a `kill -9`
//! ([`Fate::Kept`]) all is still there to be read and still not durable.
//!
//! A crash test counts the calls of a whole run once, then for every `n` below that: forks the disk before the
//! run, [`SimDisk::crash_at`] `n`, runs until an error comes back, [`SimDisk::power_cut`], opens the engine on
//! what is left.

mod content;
mod durability;
mod fault;
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

pub use fault::{EIO, ENOSPC, Fate, Fault, NameOrder, Partly};

use content::{next_data, to_index};
use tree::{NodeId, Tree};
use world::{Call, World};

/// The error number of a write through a handle for reading.
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

/// Faults, crashes and what was called.
impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::with_world(World::new(Tree::new()))
    }

    fn with_world(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process dies at the `n`-th mutating call from now (0: the next one), which does not happen, or, a
    /// write, happens in part. It and all later calls on this disk fail with "crashed".
    pub fn crash_at(&self, n: u64) {
        let mut world = self.world();
        world.crash_at = Some(world.calls + n);
    }

    /// The `n`-th mutating call from now (0: the next one) fails.
    pub fn fail_at(&self, n: u64, fault: Fault) {
        let mut world = self.world();
        world.fault = Some((world.calls + n, fault));
    }

    /// The `n`-th call from now (0: the next one) of those that change nothing fails: opening, stat, listing, reading,
    /// resolving a path.
    pub fn fail_look_at(&self, n: u64, fault: Fault) {
        let mut world = self.world();
        world.look_fault = Some((world.looks + n, fault));
    }

    /// Takes back the injected faults.
    pub fn heal(&self) {
        let mut world = self.world();
        world.fault = None;
        world.look_fault = None;
    }

    /// Bounds the sum of all files' lengths.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.world().capacity_bytes = capacity_bytes;
    }

    /// The sum of all files' lengths.
    pub fn used_bytes(&self) -> u64 {
        self.world().tree.used_bytes
    }

    /// Which names survive a torn power cut; [`NameOrder::Prefix`] unless said otherwise.
    pub fn set_name_order(&self, order: NameOrder) {
        self.world().name_order = order;
    }

    /// Whether removed files leave their inode number to the next one created.
    pub fn set_inode_reuse(&self, reuse: bool) {
        self.world().tree.reuse_inodes = reuse;
    }

    /// Whether what a failed sync has doomed stays doomed for the next process too, when this one is killed
    /// and the host lives. Linux behaves so; without this option the next process can sync it again.
    pub fn set_doom_outlives_kill(&self, outlives: bool) {
        self.world().doom_outlives_kill = outlives;
    }

    /// Whether files have holes where whole sectors are zero; otherwise they have none.
    pub fn set_knows_holes(&self, knows: bool) {
        self.world().knows_holes = knows;
    }

    /// From now on every other call is interrupted, and reads and writes are short, at random by this seed.
    pub fn set_signals(&self, seed: Option<u64>) {
        self.world().signals = seed.map(Rng::with_seed);
    }

    /// Whether the process on this disk has died.
    pub fn is_dead(&self) -> bool {
        self.world().dead
    }

    /// The mutating calls so far; those of the side door are not counted.
    pub fn calls(&self) -> u64 {
        self.world().calls
    }

    /// The calls so far that change nothing; those of the side door are not counted.
    pub fn looks(&self) -> u64 {
        self.world().looks
    }

    /// The last of them that failed by an injected fault, like `open_read /lake/a`.
    pub fn failed_look(&self) -> Option<String> {
        self.world().look_failed.as_ref().map(Call::to_string)
    }

    /// The mutating calls that failed by an injected fault, like `sync_data /lake/a`.
    pub fn failed_calls(&self) -> Vec<String> {
        self.world().failed.iter().map(Call::to_string).collect()
    }

    /// The names of the mutating calls from number `from` on, like `write /export 0+4096`.
    pub fn call_log(&self, from: u64) -> Vec<String> {
        let world = self.world();
        world
            .log
            .iter()
            .skip(to_index(from))
            .map(Call::to_string)
            .collect()
    }

    /// Kills the process on this disk and gives the disk the next one finds. May be asked again, for another
    /// fate of the same moment. Limits and options carry over, faults and counts do not.
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
            signals: world.signals.clone(),
            ..World::new(tree)
        })
    }

    /// A deep copy, un-synced changes and counts included; faults are not copied.
    pub fn fork(&self) -> SimDisk {
        let copy = self.world().clone();
        Self::with_world(World {
            crash_at: None,
            fault: None,
            look_fault: None,
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
        let mut world = self.disk.world();
        world.look("read_at", &self.path)?;
        let bytes = world.tree.bytes(self.node)?;
        let rest = &bytes[to_index(offset).min(bytes.len())..];
        let wanted = rest.len().min(buf.len());
        buf[..wanted].copy_from_slice(&rest[..wanted]);
        Ok(world.before_a_signal(wanted))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.check_writable()?;
        self.disk.world().write(self, offset, buf)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.check_writable()?;
        retry_interrupted(|| self.disk.world().set_len(self, len_bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        retry_interrupted(|| self.disk.world().sync_data(self))
    }

    fn stat(&self) -> io::Result<FileStat> {
        let mut world = self.disk.world();
        retry_interrupted(|| world.look("stat open", &self.path))?;
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
            let mut world = self.world();
            let verb = if writable { "open_write" } else { "open_read" };
            retry_interrupted(|| world.look(verb, path))?;
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

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.open(path, true)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let create = || {
            let call = Call::on("create", path);
            self.world().act(call, |tree| tree.create_file(path))
        };
        let node = retry_interrupted(create)?;
        Ok(self.handle(node, path, true))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let mut world = self.world();
        retry_interrupted(|| world.look("stat", path))?;
        world.tree.stat(world.tree.find(path)?)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<ListedEntry>> {
        let mut world = self.world();
        retry_interrupted(|| world.look("list", dir))?;
        world.tree.list(world.tree.find(dir)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let call = Call {
            to: Some(to.into()),
            ..Call::on("rename", from)
        };
        retry_interrupted(|| self.world().act(call.clone(), |tree| tree.rename(from, to)))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        retry_interrupted(|| {
            self.world()
                .act(Call::on("remove", path), |tree| tree.remove(path))
        })
    }

    /// Everything is everybody's here.
    fn copy_ownership(&self, from: &Path, to: &Path) -> io::Result<()> {
        let call = Call::on("take_rights", to);
        retry_interrupted(|| {
            let both = |tree: &mut Tree| tree.find(from).and(tree.find(to)).map(drop);
            self.world().act(call.clone(), both)
        })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        retry_interrupted(|| self.world().create_dir_all(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        retry_interrupted(|| self.world().sync_dir(dir))
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        let mut world = self.world();
        retry_interrupted(|| world.look("canonicalize", path))?;
        world.tree.find(path)?;
        Ok(Path::new("/")
            .components()
            .chain(path.components())
            .collect())
    }
}
