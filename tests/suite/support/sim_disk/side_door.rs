//! The side door of a simulated disk: the actions of scorers, operators and readers in other processes. Never counted,
//! never failed, never stopped by a crash of the engine.

use std::io;
use std::path::Path;
use std::sync::Arc;

use distilld::platform::storage::{FileKind, FileStat};

use super::SimDisk;
use super::tree::{NodeId, Tree};
use super::world::Hook;

/// The side door: other processes, unaffected by faults and crashes of the engine. An invalid path is a mistake in the
/// test and panics.
impl SimDisk {
    fn side_door<T>(&self, path: &Path, act: impl FnOnce(&mut Tree, &Path) -> io::Result<T>) -> T {
        act(&mut self.world().tree, path)
            .unwrap_or_else(|error| panic!("side door: {}: {error}", path.display()))
    }

    /// Appends, creating file and directories if they are missing; not durable.
    pub fn append(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        self.side_door(path.as_ref(), |tree, path| {
            let node = find_or_create(tree, path)?;
            let end = tree.stat(node)?.len_bytes;
            tree.write(node, end, bytes)
        });
    }

    /// Appends, and makes the file and the names that lead to it durable.
    pub fn append_durable(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        self.append(&path, bytes);
        self.settle(path);
    }

    /// Replaces the content of a file in place, creating it if it is missing; not durable.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        self.side_door(path.as_ref(), |tree, path| {
            let node = find_or_create(tree, path)?;
            tree.set_len(node, 0)?;
            tree.write(node, 0, bytes)
        });
    }

    /// Writes into a file at an offset; not durable.
    pub fn overwrite(&self, path: impl AsRef<Path>, offset: u64, bytes: &[u8]) {
        self.side_door(path.as_ref(), |tree, path| {
            let node = tree.find(path)?;
            tree.write(node, offset, bytes)
        });
    }

    /// Truncates or extends a file; not durable.
    pub fn truncate(&self, path: impl AsRef<Path>, len_bytes: u64) {
        self.side_door(path.as_ref(), |tree, path| {
            let node = tree.find(path)?;
            tree.set_len(node, len_bytes)
        });
    }

    /// Makes a file and the names that lead to it durable, and nothing else.
    pub fn settle(&self, path: impl AsRef<Path>) {
        self.side_door(path.as_ref(), |tree, path| tree.settle(path));
    }

    /// Renames a file or directory; not durable.
    pub fn move_file(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) {
        self.side_door(from.as_ref(), |tree, from| {
            make_dirs(tree, to.as_ref().parent().unwrap_or(Path::new("/")))?;
            tree.rename(from, to.as_ref())
        });
    }

    /// Creates a directory and those above it; not durable.
    pub fn make_dir(&self, path: impl AsRef<Path>) {
        self.side_door(path.as_ref(), make_dirs);
    }

    /// Removes a directory that is empty; not durable.
    pub fn remove_dir(&self, path: impl AsRef<Path>) {
        self.side_door(path.as_ref(), Tree::remove_directory);
    }

    /// Makes all names in a directory durable.
    pub fn settle_names(&self, dir: impl AsRef<Path>) {
        self.side_door(dir.as_ref(), |tree, dir| {
            let dir = tree.find(dir)?;
            tree.sync_names(dir)
        });
    }

    /// Returns the metadata of what is at a path; `None` if nothing is.
    pub fn stat_of(&self, path: impl AsRef<Path>) -> Option<FileStat> {
        let world = self.world();
        let node = world.tree.find(path.as_ref()).ok()?;
        world.tree.stat(node).ok()
    }

    /// Returns the names in a directory in byte order; none if it does not exist.
    pub fn names_in(&self, dir: impl AsRef<Path>) -> Vec<String> {
        let world = self.world();
        let names = world
            .tree
            .find(dir.as_ref())
            .and_then(|dir| world.tree.names(dir));
        let names = names.map(|names| names.live.keys());
        names.map_or(Vec::new(), |names| {
            names
                .map(|name| name.to_string_lossy().into_owned())
                .collect()
        })
    }

    /// Calls `hook` before each call of the engine from now on: what others do at that moment.
    pub fn before_each_call(&self, hook: Arc<dyn Fn() + Send + Sync>) {
        self.world().hook = Some(Hook(hook));
    }

    /// Removes a file; not durable.
    pub fn remove(&self, path: impl AsRef<Path>) {
        self.side_door(path.as_ref(), |tree, path| tree.remove(path));
    }

    /// Creates an entry that is neither file nor directory.
    pub fn plant(&self, path: impl AsRef<Path>, kind: FileKind) {
        self.side_door(path.as_ref(), |tree, path| {
            make_dirs(tree, path.parent().unwrap_or(Path::new("/")))?;
            tree.create_odd(path, kind).map(|_| ())
        });
    }

    /// Removes or restores the permission to open a file, or to list a directory.
    pub fn deny(&self, path: impl AsRef<Path>, denied: bool) {
        self.side_door(path.as_ref(), |tree, path| {
            let node = tree.find(path)?;
            tree.set_denied(node, denied)
        });
    }

    /// Gives what is at a path, and below it, another device number, as a file system has after a boot.
    pub fn set_device(&self, path: impl AsRef<Path>, device: u64) {
        self.side_door(path.as_ref(), |tree, path| tree.set_device(path, device));
    }

    /// Returns whether the permission was removed.
    pub fn is_denied(&self, path: impl AsRef<Path>) -> bool {
        let world = self.world();
        let node = world.tree.find(path.as_ref());
        node.is_ok_and(|node| world.tree.is_denied(node))
    }

    /// Returns the content of a file as readers see it; `None` if there is none.
    pub fn read(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let world = self.world();
        let node = world.tree.find(path.as_ref()).ok()?;
        world.tree.bytes(node).ok().map(<[u8]>::to_vec)
    }

    /// Returns whether a power cut now would leave a file, content and names, as readers see it.
    pub fn is_durable(&self, path: impl AsRef<Path>) -> bool {
        self.world().tree.is_durable(path.as_ref()).unwrap_or(false)
    }
}

fn make_dirs(tree: &mut Tree, dir: &Path) -> io::Result<()> {
    if tree.find(dir).is_ok() {
        return Ok(());
    }
    make_dirs(tree, dir.parent().unwrap_or(Path::new("/")))?;
    tree.create_directory(dir).map(|_| ())
}

fn find_or_create(tree: &mut Tree, path: &Path) -> io::Result<NodeId> {
    make_dirs(tree, path.parent().unwrap_or(Path::new("/")))?;
    match tree.find(path) {
        Ok(node) => Ok(node),
        Err(_) => tree.create_file(path),
    }
}
