//! The files and names of a simulated disk: their live and durable content, and the changes in between that survive a
//! power cut. Counting calls and injecting faults is done by the disk's handle.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path};

use distilld::platform::storage::{FileKind, FileStat, ListedEntry};

use super::content::{Change, Content, NameChange, Names, SyncStatus, apply, rename_in};

/// Key of a file or directory inside the simulation; unlike an inode number it is never reused.
pub type NodeId = u64;

/// The root directory.
pub const ROOT: NodeId = 1;

#[derive(Debug, Clone)]
pub enum Body {
    File(Content),
    Directory(Names),
    /// A link, FIFO or similar entry.
    Odd(FileKind),
}

#[derive(Debug, Clone)]
pub struct Node {
    pub device: u64,
    pub inode: u64,
    pub modified_ns: i128,
    pub changed_ns: i128,
    pub body: Body,
    pub linked: bool,
    pub denied: bool,
}

/// All files and names of a disk.
#[derive(Debug, Clone)]
pub struct Tree {
    pub(super) nodes: HashMap<NodeId, Node>,
    pub(super) next_node: NodeId,
    pub(super) next_inode: u64,
    pub(super) free_inodes: Vec<u64>,
    /// The number of the device of what is created.
    pub(super) device: u64,
    /// Whether the inode number of a removed file is given to the next one created.
    pub reuse_inodes: bool,
    /// Sum of the lengths of all files that have a name.
    pub used_bytes: u64,
    pub(super) clock_ns: i128,
}

impl Tree {
    /// Creates an empty disk: the root directory, durable.
    pub fn new() -> Self {
        let mut tree = Self {
            nodes: HashMap::new(),
            next_node: ROOT,
            next_inode: 1000,
            free_inodes: Vec::new(),
            device: 1,
            reuse_inodes: false,
            used_bytes: 0,
            clock_ns: 1_700_000_000_000_000_000,
        };
        tree.add_node(Body::Directory(Names::default()));
        tree
    }

    /// Returns the node at `path`; the empty path and `/` are the root.
    pub fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut node = ROOT;
        for component in path.components() {
            match component {
                Component::Normal(name) => node = self.child(node, name)?,
                Component::ParentDir => return Err(io::ErrorKind::InvalidInput.into()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(node)
    }

    /// Returns the directory that contains `path`, which need not exist itself, and the last component.
    pub fn find_parent<'p>(&self, path: &'p Path) -> io::Result<(NodeId, &'p OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.find(path.parent().unwrap_or(Path::new("/")))?;
        self.names(dir)?;
        Ok((dir, name))
    }

    pub(super) fn child(&self, dir: NodeId, name: &OsStr) -> io::Result<NodeId> {
        let found = self.names(dir)?.live.get(name);
        found.copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Returns the metadata of a node.
    pub fn stat(&self, id: NodeId) -> io::Result<FileStat> {
        let node = self.node(id)?;
        let (kind, len_bytes) = match &node.body {
            Body::File(content) => (FileKind::Regular, content.live.len() as u64),
            Body::Directory(_) => (FileKind::Directory, 0),
            Body::Odd(kind) => (*kind, 0),
        };
        Ok(FileStat {
            kind,
            len_bytes,
            allocated_bytes: len_bytes,
            device: node.device,
            inode: node.inode,
            links: 1,
            modified_ns: node.modified_ns,
            changed_ns: node.changed_ns,
        })
    }

    /// Fails unless `id` is a regular file with the permission to open it.
    pub fn check_openable(&self, id: NodeId) -> io::Result<()> {
        let node = self.node(id)?;
        match &node.body {
            Body::File(_) if node.denied => Err(io::ErrorKind::PermissionDenied.into()),
            Body::File(_) => Ok(()),
            Body::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
            Body::Odd(_) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Removes or restores the permission to open a file, or to list a directory.
    pub fn set_denied(&mut self, id: NodeId, denied: bool) -> io::Result<()> {
        let now_ns = self.tick();
        let node = self.node_mut(id)?;
        node.denied = denied;
        node.changed_ns = now_ns;
        Ok(())
    }

    /// Returns whether the permission was removed.
    pub fn is_denied(&self, id: NodeId) -> bool {
        self.node(id).is_ok_and(|node| node.denied)
    }

    /// Gives what is at a path, and below it, another device number; at the root also what is created later.
    pub fn set_device(&mut self, path: &Path, device: u64) -> io::Result<()> {
        let id = self.find(path)?;
        if id == ROOT {
            self.device = device;
        }
        let mut left = vec![id];
        while let Some(id) = left.pop() {
            let node = self.node_mut(id)?;
            node.device = device;
            if let Body::Directory(names) = &node.body {
                left.extend(names.live.values());
            }
        }
        Ok(())
    }

    /// Returns the entries of a directory in byte order.
    pub fn list(&self, dir: NodeId) -> io::Result<Vec<ListedEntry>> {
        if self.node(dir)?.denied {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let entry = |(name, id): (&OsString, &NodeId)| {
            let kind = self.stat(*id)?.kind;
            let name = name.clone();
            Ok(ListedEntry { name, kind })
        };
        self.names(dir)?.live.iter().map(entry).collect()
    }

    /// Returns the bytes that readers see.
    pub fn bytes(&self, id: NodeId) -> io::Result<&[u8]> {
        Ok(&self.content(id)?.live)
    }

    /// Writes into the live content; durable after [`Tree::sync`].
    pub fn write(&mut self, id: NodeId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let bytes = bytes.to_vec();
        self.change_content(id, Change::Write { offset, bytes })
    }

    /// Truncates or extends the live content; durable after [`Tree::sync`].
    pub fn set_len(&mut self, id: NodeId, len_bytes: u64) -> io::Result<()> {
        self.change_content(id, Change::SetLen(len_bytes))
    }

    fn change_content(&mut self, id: NodeId, change: Change) -> io::Result<()> {
        let now_ns = self.tick();
        let node = self.node_mut(id)?;
        (node.modified_ns, node.changed_ns) = (now_ns, now_ns);
        let linked = node.linked;
        let content = self.content_mut(id)?;
        let len_before = content.live.len() as u64;
        apply(&mut content.live, &change);
        let len_after = content.live.len() as u64;
        content.changes.push((change, SyncStatus::Unsynced));
        if linked {
            self.used_bytes = self.used_bytes + len_after - len_before;
        }
        Ok(())
    }

    /// Makes the content durable, except what an earlier failed sync has doomed.
    pub fn sync(&mut self, id: NodeId) -> io::Result<()> {
        let content = self.content_mut(id)?;
        let doomed = |(_, status): &(Change, SyncStatus)| *status == SyncStatus::Doomed;
        if content.changes.iter().any(doomed) {
            content.reclassify(SyncStatus::Unsynced, SyncStatus::Synced);
            return Ok(());
        }
        for (change, _) in std::mem::take(&mut content.changes) {
            apply(&mut content.durable, &change);
        }
        Ok(())
    }

    /// Applies a failed sync: the changes so far may never reach the disk, regardless of later syncs.
    pub fn doom(&mut self, id: NodeId) -> io::Result<()> {
        self.content_mut(id)?
            .reclassify(SyncStatus::Unsynced, SyncStatus::Doomed);
        Ok(())
    }

    /// Makes doomed changes syncable, as if their pages were dirty again.
    pub fn forgive(&mut self) {
        for node in self.nodes.values_mut() {
            if let Body::File(content) = &mut node.body {
                content.reclassify(SyncStatus::Doomed, SyncStatus::Unsynced);
            }
        }
    }

    /// Creates an empty file under a name that is free.
    pub fn create_file(&mut self, path: &Path) -> io::Result<NodeId> {
        self.create_node(path, Body::File(Content::default()))
    }

    /// Creates a directory under a name that is free.
    pub fn create_directory(&mut self, path: &Path) -> io::Result<NodeId> {
        self.create_node(path, Body::Directory(Names::default()))
    }

    /// Creates an entry that is neither file nor directory.
    pub fn create_odd(&mut self, path: &Path, kind: FileKind) -> io::Result<NodeId> {
        self.create_node(path, Body::Odd(kind))
    }

    fn create_node(&mut self, path: &Path, body: Body) -> io::Result<NodeId> {
        let (dir, name) = self.find_parent(path)?;
        if self.child(dir, name).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.add_node(body);
        self.change_names(dir, vec![(name.to_owned(), Some(id))])?;
        Ok(id)
    }

    /// Gives a file a second name, which must be free.
    pub fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.find(from)?;
        self.content(id)?;
        let (dir, name) = self.find_parent(to)?;
        if self.child(dir, name).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change_names(dir, vec![(name.to_owned(), Some(id))])
    }

    /// Removes the name of a file; open handles keep it.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.find_parent(path)?;
        let id = self.child(dir, name)?;
        if self.names(id).is_ok() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.change_names(dir, vec![(name.to_owned(), None)])?;
        self.unlink(id)
    }

    /// Removes an empty directory.
    pub fn remove_directory(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.find_parent(path)?;
        let id = self.child(dir, name)?;
        if !self.names(id)?.live.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.change_names(dir, vec![(name.to_owned(), None)])?;
        self.unlink(id)
    }

    /// Renames `from` to `to`. Within one directory it is one change; across two, each directory has its half, and a
    /// power cut may leave any combination.
    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from_name) = self.find_parent(from)?;
        let (to_dir, to_name) = self.find_parent(to)?;
        let id = self.child(from_dir, from_name)?;
        let replaced = self.child(to_dir, to_name).ok();
        if replaced == Some(id) {
            return Ok(());
        }
        if replaced.is_some_and(|replaced| self.names(replaced).is_ok()) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (leave, arrive) = ((from_name.to_owned(), None), (to_name.to_owned(), Some(id)));
        if from_dir == to_dir {
            self.change_names(from_dir, vec![leave, arrive])?;
        } else {
            self.change_names(to_dir, vec![arrive])?;
            self.change_names(from_dir, vec![leave])?;
        }
        let now_ns = self.tick();
        self.node_mut(id)?.changed_ns = now_ns;
        replaced.map_or(Ok(()), |replaced| self.unlink(replaced))
    }

    fn change_names(&mut self, dir: NodeId, change: NameChange) -> io::Result<()> {
        let now_ns = self.tick();
        let node = self.node_mut(dir)?;
        (node.modified_ns, node.changed_ns) = (now_ns, now_ns);
        let names = self.names_mut(dir)?;
        rename_in(&mut names.live, &change);
        names.changes.push(change);
        Ok(())
    }

    fn unlink(&mut self, id: NodeId) -> io::Result<()> {
        let now_ns = self.tick();
        let has_name = self.nodes.values().any(|node| match &node.body {
            Body::Directory(names) => names.live.values().any(|named| *named == id),
            Body::File(_) | Body::Odd(_) => false,
        });
        let node = self.node_mut(id)?;
        node.changed_ns = now_ns;
        if has_name {
            return Ok(());
        }
        node.linked = false;
        let inode = node.inode;
        if let Ok(len_bytes) = self.bytes(id).map(|bytes| bytes.len() as u64) {
            self.used_bytes -= len_bytes;
        }
        self.free_inodes.push(inode);
        Ok(())
    }

    /// Makes the names in a directory durable.
    pub fn sync_names(&mut self, dir: NodeId) -> io::Result<()> {
        let names = self.names_mut(dir)?;
        for change in std::mem::take(&mut names.changes) {
            rename_in(&mut names.durable, &change);
        }
        Ok(())
    }

    fn add_node(&mut self, body: Body) -> NodeId {
        let id = self.next_node;
        self.next_node += 1;
        let reused = self.reuse_inodes.then(|| self.free_inodes.pop()).flatten();
        let inode = reused.unwrap_or_else(|| {
            self.next_inode += 1;
            self.next_inode
        });
        let now_ns = self.tick();
        let node = Node {
            device: self.device,
            inode,
            modified_ns: now_ns,
            changed_ns: now_ns,
            body,
            linked: true,
            denied: false,
        };
        self.nodes.insert(id, node);
        id
    }

    pub(super) fn tick(&mut self) -> i128 {
        self.clock_ns += 1_000;
        self.clock_ns
    }

    fn node(&self, id: NodeId) -> io::Result<&Node> {
        self.nodes
            .get(&id)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn node_mut(&mut self, id: NodeId) -> io::Result<&mut Node> {
        self.nodes
            .get_mut(&id)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn content(&self, id: NodeId) -> io::Result<&Content> {
        match &self.node(id)?.body {
            Body::File(content) => Ok(content),
            Body::Directory(_) | Body::Odd(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn content_mut(&mut self, id: NodeId) -> io::Result<&mut Content> {
        match &mut self.node_mut(id)?.body {
            Body::File(content) => Ok(content),
            Body::Directory(_) | Body::Odd(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn names(&self, id: NodeId) -> io::Result<&Names> {
        match &self.node(id)?.body {
            Body::Directory(names) => Ok(names),
            Body::File(_) | Body::Odd(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn names_mut(&mut self, id: NodeId) -> io::Result<&mut Names> {
        match &mut self.node_mut(id)?.body {
            Body::Directory(names) => Ok(names),
            Body::File(_) | Body::Odd(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }
}
