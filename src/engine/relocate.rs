//! Owns what follows when a day-file was moved to another day: the rows that the pair it left has in the export are
//! claimed by its lines where they are now.

use crate::engine::read::PairRead;
use crate::engine::read_task::ReadRequest;
use crate::engine::{Engine, EngineError};
use crate::lake::identity::{SourceChange, SourceIdentity, SourceState};
use crate::lake::path::{PairPath, Stream};
use crate::lake::source::Source;
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::PairId;
use crate::platform::storage::{FileStat, Storage};
use crate::store::snapshot::pair_path;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;

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
    pub(super) fn is_relocated(
        &mut self,
        job: &ReadRequest,
        look: &PairRead,
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
    pub(super) fn release_relocated_rows(&mut self) -> Result<(), EngineError> {
        let Some((from, to)) = self.moves.first().cloned() else {
            return Ok(());
        };
        let (mut day_files, claimable) = (0, self.claimable);
        while let Some((from, to)) = self.moves.first().cloned() {
            // It may have been moved back meanwhile.
            if self.has_moved(&from, &to)? {
                self.torn.forget(&from);
                self.read_again(&from, Stream::Scored, SourceChange::Moved)?;
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

/// The inode of a pair's scored day-file, where it was read for the first time between the two.
#[must_use]
pub fn first_inode(before: &PairCheckpoint, after: &PairCheckpoint) -> Option<u64> {
    after
        .scored_inode()
        .filter(|_| before.scored.identity.is_none())
}

/// The pair whose lines may claim the rows of `id`, whose scored day-file is not what was read of it: any, where the lines
/// that were read may lie elsewhere now.
#[must_use]
pub fn scope_of_claims(why: SourceChange, id: PairId) -> PairId {
    match why {
        SourceChange::Replaced | SourceChange::Moved => PairId::ANY,
        _ => id,
    }
}

/// Whether the scored day-file of `to` is the one that was read as that of `known`, the pair at `from`. What cannot be looked
/// at was not moved.
#[must_use]
pub fn is_moved(
    storage: &dyn Storage,
    root: &Path,
    from: &PairPath,
    known: &PairCheckpoint,
    to: &PairPath,
) -> bool {
    if from == to || !from.has_name_of(to) {
        return false;
    }
    let Some(identity) = known.scored.identity else {
        return false;
    };
    let Ok(Some(source)) = Source::open(storage, root, Stream::Scored, to) else {
        return false;
    };
    let here = source.stat();
    // A second name of the file is a second day-file.
    is_no_longer_at(storage, &from.path(root, Stream::Scored), here)
        && here.inode == identity.inode
        && matches!(source.rewritten(&as_read(known, identity, here)), Ok(None))
}

fn is_no_longer_at(storage: &dyn Storage, path: &Path, file: &FileStat) -> bool {
    match storage.stat(path) {
        Ok(there) => (there.device, there.inode) != (file.device, file.inode),
        Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

/// What was read, as if nobody had noted yet that it is gone.
fn as_read(known: &PairCheckpoint, identity: SourceIdentity, here: &FileStat) -> SourceState {
    SourceState {
        identity: Some(SourceIdentity {
            device: here.device,
            ..identity
        }),
        ..known.scored
    }
}
