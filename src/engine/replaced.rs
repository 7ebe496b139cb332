//! Day-files that other files have replaced at their paths. One of them may be found at another path later: a day-file is
//! renamed, a new one begins at its old path, and that one is read first. The rows of the old file's lines, and the orders
//! that are limited to it, then follow it to its new path.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::engine::relocate::{MoveCheck, check_move};
use crate::engine::reset::ResetRequest;
use crate::engine::{Engine, EngineError};
use crate::lake::identity::SourceState;
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::stat_day_file;

/// Maximum number of files that are remembered, 250 bytes each.
const REMEMBERED_MAX: usize = 1_024;

/// The scored day-files that were replaced last, by inode.
#[derive(Debug, Default)]
pub(super) struct Replaced {
    files: BTreeMap<u64, (PairPath, SourceState)>,
    /// Their inodes, the oldest first.
    order: VecDeque<u64>,
}

impl Replaced {
    /// Remembers a day-file as it was read at a path.
    pub(super) fn insert(&mut self, path: &PairPath, known: SourceState) {
        let Some(identity) = known.identity else {
            return;
        };
        let file = (path.clone(), known);
        if self.files.insert(identity.inode, file).is_none() {
            self.order.push_back(identity.inode);
        }
        while self.order.len() > REMEMBERED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.files.remove(&oldest);
            }
        }
    }

    fn take(&mut self, inode: u64) -> Option<(PairPath, SourceState)> {
        self.order.retain(|known| *known != inode);
        self.files.remove(&inode)
    }
}

impl Engine {
    /// Returns the path at which the file that is at `to` now was replaced.
    pub(super) fn replaced_at(&self, inode: u64, to: &PairPath) -> Option<PairPath> {
        let (from, known) = self.replaced.files.get(&inode)?;
        let (storage, root) = (&*self.ctx.storage, &self.ctx.root);
        let is_moved = check_move(storage, root, from, known, to) == MoveCheck::Moved;
        is_moved.then(|| from.clone())
    }

    /// Returns requests that reset nothing and give the rows and orders of replaced day-files to the pairs where these files
    /// are now. Each is made once.
    pub(super) fn late_moves(
        &mut self,
        relocations: &BTreeSet<(PairPath, PairPath)>,
    ) -> Result<BTreeMap<PairPath, ResetRequest>, EngineError> {
        let mut moves = BTreeMap::new();
        if self.replaced.files.is_empty() {
            return Ok(moves);
        }
        for (from, to) in relocations {
            let stat = stat_day_file(&*self.ctx.storage, &self.ctx.root, Stream::Scored, to);
            let Ok(inode) = stat.map(|stat| stat.inode) else {
                continue;
            };
            let is_late = self.replaced_at(inode, to).as_ref() == Some(from);
            if self.replaced.take(inode).is_some() && is_late {
                let heir = Some((to.clone(), self.pairs.keep_id(to)?));
                let changes = BTreeMap::new();
                moves.insert(from.clone(), ResetRequest { changes, heir });
            }
        }
        Ok(moves)
    }
}
