//! Durability on a simulated disk: of one file, and of everything at a power cut.

use std::collections::HashSet;
use std::io;
use std::path::{Component, Path};

use fastrand::Rng;

use super::content::{Change, NameChange, SyncStatus};
use super::fault::{Fate, NameOrder};
use super::tree::{Body, NodeId, ROOT, Tree};

impl Tree {
    /// Makes one file and the names that lead to it durable, and nothing else.
    pub fn settle(&mut self, path: &Path) -> io::Result<()> {
        let mut node = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            let child = self.child(node, name)?;
            self.names_mut(node)?.settle(name);
            node = child;
        }
        if self.content(node).is_ok() {
            self.sync(node)?;
        }
        Ok(())
    }

    /// Returns whether a power cut now would leave the file at `path` as readers see it.
    pub fn is_durable(&self, path: &Path) -> io::Result<bool> {
        let mut node = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            let child = self.child(node, name)?;
            let names = self.names(node)?;
            let touched = |change: &NameChange| change.iter().any(|(changed, _)| changed == name);
            if names.durable.get(name) != Some(&child) || names.changes.iter().any(touched) {
                return Ok(false);
            }
            node = child;
        }
        let synced = |(_, status): &(Change, SyncStatus)| *status == SyncStatus::Synced;
        Ok(self
            .content(node)
            .is_ok_and(|content| content.changes.iter().all(synced)))
    }

    /// Returns the disk that the next process finds. `Kept` is the same disk, whose unsynced data is still not
    /// durable: the kernel outlives a killed process. After the other two everything that exists is durable.
    pub fn cut(&self, rng: &mut Rng, fate: Fate, order: NameOrder) -> Self {
        let mut after = self.clone();
        if fate == Fate::Kept {
            return after;
        }
        let now_ns = after.tick();
        // In the order of node numbers, so that a seed has the same result in every run.
        let mut ids: Vec<NodeId> = after.nodes.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let Some(node) = after.nodes.get_mut(&id) else {
                continue;
            };
            let changed = match &mut node.body {
                Body::File(content) => content.cut(rng, fate),
                Body::Directory(names) => names.cut(rng, fate, order),
                Body::Odd(_) => false,
            };
            if changed {
                (node.modified_ns, node.changed_ns) = (now_ns, now_ns);
            }
        }
        after.forget_unreachable();
        after
    }

    fn forget_unreachable(&mut self) {
        let mut reached = HashSet::from([ROOT]);
        let mut to_visit = vec![ROOT];
        while let Some(id) = to_visit.pop() {
            let children = self.names(id).map(|names| names.live.values().copied());
            to_visit.extend(
                children
                    .into_iter()
                    .flatten()
                    .filter(|id| reached.insert(*id)),
            );
        }
        self.nodes.retain(|id, _| reached.contains(id));
        self.used_bytes = 0;
        for node in self.nodes.values_mut() {
            node.linked = true;
            if let Body::File(content) = &node.body {
                self.used_bytes += content.live.len() as u64;
            }
        }
        let taken: HashSet<u64> = self.nodes.values().map(|node| node.inode).collect();
        self.free_inodes.retain(|inode| !taken.contains(inode));
    }
}
