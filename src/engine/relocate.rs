//! Owns what follows when a day-file was moved to another day: the rows that the pair it left has in the export are
//! claimed by its lines where they are now.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::read::Look;
use crate::engine::read_task::Job;
use crate::engine::{Engine, EngineError};
use crate::lake::identity::Rewritten;
use crate::lake::path::{PairPath, Stream};
use crate::moved::{first_inode, is_moved};
use crate::pair::checkpoint::PairCheckpoint;
use crate::store::snapshot::pair_path;

/// Pairs by the inode of their scored day-file, where the state does not know it yet. One that is outdated does no harm.
#[derive(Debug, Default)]
pub(crate) struct Inodes(BTreeMap<u64, BTreeSet<PairPath>>);

impl Inodes {
    /// What a pair is read of now.
    pub(crate) fn note(&mut self, path: &PairPath, checkpoint: &PairCheckpoint) {
        let Some(inode) = checkpoint.scored_inode() else {
            return;
        };
        let paths = self.0.entry(inode).or_default();
        if !paths.contains(path) {
            paths.insert(path.clone());
        }
    }

    /// The state knows all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn paths(&self, inode: u64) -> Vec<PairPath> {
        let paths = self.0.get(&inode).into_iter().flatten();
        paths.cloned().collect()
    }
}

impl Engine {
    /// Whether a look found a day-file that was moved there. Then nothing may follow from that look: it knew of no rows to
    /// claim. The next pass looks again, when they are released.
    pub(super) fn came_from_elsewhere(
        &mut self,
        job: &Job,
        look: &Look,
    ) -> Result<bool, EngineError> {
        let Some(outcome) = &look.outcome else {
            return Ok(false);
        };
        let before = &self.slot(&job.path)?.pair.checkpoint;
        let Some(inode) = first_inode(before, &outcome.checkpoint) else {
            return Ok(false);
        };
        for from in self.paths_with_inode(inode)? {
            if self.has_moved(&from, &job.path)? {
                self.moves.insert((from, job.path.clone()));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where day-files with this inode were read, as far as state and memory know.
    fn paths_with_inode(&self, inode: u64) -> Result<Vec<PairPath>, EngineError> {
        let mut paths = self.inodes.paths(inode);
        for id in self.view.pairs_with_inode(inode)? {
            paths.extend(pair_path(&self.view.checkpoint(id)?));
        }
        Ok(paths)
    }

    fn has_moved(&mut self, from: &PairPath, to: &PairPath) -> Result<bool, EngineError> {
        let known = self.known_checkpoint(from)?;
        let (storage, root) = (&*self.setup.storage, &self.setup.root);
        Ok(known.is_some_and(|known| is_moved(storage, root, from, &known, to)))
    }

    /// Before a pass looks at anything: pairs whose day-file was found elsewhere give their rows free.
    pub(super) fn release_moved(&mut self) -> Result<(), EngineError> {
        let Some((from, to)) = self.moves.first().cloned() else {
            return Ok(());
        };
        let (mut day_files, claimable) = (0, self.claimable);
        while let Some((from, to)) = self.moves.first().cloned() {
            // It may have been moved back meanwhile.
            if self.has_moved(&from, &to)? {
                self.torn.forget(&from);
                self.read_again(&from, Stream::Scored, Rewritten::Moved)?;
                day_files += 1;
            }
            self.moves.pop_first();
        }
        if day_files > 0 {
            tracing::info!(
                day_files,
                rows = self.claimable.saturating_sub(claimable),
                from = %from,
                to = %to,
                "day-files were moved to another day, the first one named: their lines claim their rows there"
            );
        }
        Ok(())
    }
}
