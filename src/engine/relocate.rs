//! Relocation of day-files: when one was moved to another day, the rows that the pair it left has in the export are
//! released, and its lines claim them at the new path.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::engine::read::PairRead;
use crate::engine::reset::ResetRequest;
use crate::engine::{Engine, EngineError};
use crate::lake::identity::{SourceChange, SourceIdentity, SourceState};
use crate::lake::path::{PairPath, Stream};
use crate::lake::source::Source;
use crate::lake::walk::stat_day_file;
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::PairId;
use crate::platform::storage::{FileStat, Storage};

/// Pairs by the inode of their scored day-file, as far as the state does not know it yet. An outdated entry is harmless,
/// because each candidate is verified.
#[derive(Debug, Default)]
pub(super) struct Inodes(BTreeMap<u64, BTreeSet<PairPath>>);

impl Inodes {
    /// Adds the scored day-file of a pair.
    pub(super) fn insert(&mut self, path: &PairPath, checkpoint: &PairCheckpoint) {
        let Some(inode) = checkpoint.scored_inode() else {
            return;
        };
        let paths = self.0.entry(inode).or_default();
        if !paths.contains(path) {
            paths.insert(path.clone());
        }
    }

    /// Removes all entries, once the state knows them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the pairs with this inode.
    pub(super) fn paths(&self, inode: u64) -> Vec<PairPath> {
        let paths = self.0.get(&inode).into_iter().flatten();
        paths.cloned().collect()
    }
}

impl Engine {
    /// Returns whether a read is to be discarded: it found a day-file that was moved to `path`, which is recorded, or that
    /// is there no more. It knew of no rows to claim; the next pass releases them and reads again.
    pub(super) fn is_relocated(
        &mut self,
        path: &PairPath,
        read: &PairRead,
    ) -> Result<bool, EngineError> {
        let Some(outcome) = &read.outcome else {
            return Ok(false);
        };
        let before = &self.pairs.slot(path)?.pair.checkpoint;
        let Some(inode) = first_inode(before, &outcome.checkpoint) else {
            return Ok(false);
        };
        let mut moves_on = false;
        for from in self.pairs.paths_with_inode(inode)? {
            match self.check_move(&from, inode, path)? {
                MoveCheck::Moved => {
                    self.queue.push_relocation(from, path.clone());
                    return Ok(true);
                }
                MoveCheck::MovesOn => {
                    // It may be back.
                    self.queue.push(from);
                    moves_on = true;
                }
                MoveCheck::NotMoved => {}
            }
        }
        if let Some(from) = self.replaced_at(inode, path) {
            self.queue.push_relocation(from, path.clone());
            return Ok(true);
        }
        Ok(moves_on)
    }

    /// Returns the pair whose scored day-file, which has this inode, was moved to `to`.
    fn moved_from(&mut self, inode: u64, to: &PairPath) -> Result<Option<PairPath>, EngineError> {
        for from in self.pairs.paths_with_inode(inode)? {
            if self.check_move(&from, inode, to)? == MoveCheck::Moved {
                return Ok(Some(from));
            }
        }
        Ok(None)
    }

    fn check_move(
        &mut self,
        from: &PairPath,
        inode: u64,
        to: &PairPath,
    ) -> Result<MoveCheck, EngineError> {
        let known = self.known_checkpoint(from)?;
        let known = known.filter(|known| known.scored_inode() == Some(inode));
        let (storage, root) = (&*self.ctx.storage, &self.ctx.root);
        Ok(known.map_or(MoveCheck::NotMoved, |known| {
            check_move(storage, root, from, &known.scored, to)
        }))
    }

    /// Returns the pairs whose scored day-file is at another path now, to be reset: those that reads found, and those whose
    /// day-files are where another one was. `rewritten` are the pairs of which reads found another day-file than before, in
    /// either stream: days that were exchanged are found by that alone.
    pub(super) fn moved_pairs(
        &mut self,
        relocations: &BTreeSet<(PairPath, PairPath)>,
        rewritten: Vec<PairPath>,
    ) -> Result<BTreeMap<PairPath, ResetRequest>, EngineError> {
        let mut moved = BTreeMap::new();
        let mut taken = rewritten;
        for (from, to) in relocations {
            // It may have been moved back since.
            if !moved.contains_key(from) && self.origin_of(to)?.as_ref() == Some(from) {
                moved.insert(from.clone(), self.move_request(from, to)?);
                taken.push(from.clone());
            }
        }
        while let Some(to) = taken.pop() {
            if let Some(from) = self.origin_of(&to)?
                && !moved.contains_key(&from)
            {
                moved.insert(from.clone(), self.move_request(&from, &to)?);
                taken.push(from);
            }
        }
        for from in moved.keys() {
            self.books.partial_lines.forget(from);
        }
        Ok(moved)
    }

    /// Returns the pair whose scored day-file is at `to` now.
    fn origin_of(&mut self, to: &PairPath) -> Result<Option<PairPath>, EngineError> {
        match stat_day_file(&*self.ctx.storage, &self.ctx.root, Stream::Scored, to) {
            Ok(stat) => self.moved_from(stat.inode, to),
            Err(_) => Ok(None),
        }
    }

    /// Returns the request to reset the pair that a day-file has left. Its evidence goes too if that is not there any more:
    /// no line is left for it.
    fn move_request(
        &mut self,
        from: &PairPath,
        to: &PairPath,
    ) -> Result<ResetRequest, EngineError> {
        let mut changes = BTreeMap::from([(Stream::Scored, SourceChange::Moved)]);
        let known = self.known_checkpoint(from)?;
        let (storage, root) = (&*self.ctx.storage, &self.ctx.root);
        if known.is_some_and(|known| has_no_evidence_left(storage, root, from, &known)) {
            changes.insert(Stream::Evidence, SourceChange::Moved);
        }
        Ok(ResetRequest {
            changes,
            heir: Some((to.clone(), self.pairs.keep_id(to)?)),
        })
    }
}

/// Returns the requests in groups, each of which is one transaction. A pair comes after the one to which its day-file was
/// moved, and a circle is one group: otherwise the rows that one transaction releases for a pair would be met by the next
/// one as rows that this pair leaves.
pub(super) fn in_order(
    requests: &BTreeMap<PairPath, ResetRequest>,
) -> Vec<Vec<(&PairPath, &ResetRequest)>> {
    let mut groups = Vec::new();
    let mut done = BTreeSet::new();
    for first in requests.keys() {
        let mut way = Vec::new();
        let mut next = Some(first);
        while let Some((path, request)) = next.and_then(|path| requests.get_key_value(path))
            && done.insert(path)
        {
            way.push((path, request));
            next = request.heir.as_ref().map(|(to, _)| to);
        }
        let circle = next.and_then(|next| way.iter().position(|(path, _)| *path == next));
        groups.extend(circle.map(|at| way.split_off(at)));
        groups.extend(way.into_iter().rev().map(|request| vec![request]));
    }
    groups
}

/// Returns the inode of a pair's scored day-file if it was read for the first time between the two checkpoints.
#[must_use]
pub fn first_inode(before: &PairCheckpoint, after: &PairCheckpoint) -> Option<u64> {
    after
        .scored_inode()
        .filter(|_| before.scored.identity.is_none())
}

/// Returns the pair whose lines may claim the rows of pair `id` in any case after a change of its scored day-file: `heir`,
/// the pair at the new path, if it was moved.
#[must_use]
pub fn scope_of_claims(why: SourceChange, id: PairId, heir: Option<PairId>) -> PairId {
    match (why, heir) {
        (SourceChange::Moved, Some(heir)) => heir,
        _ => id,
    }
}

/// Returns whether the evidence that was read of a pair is not there any more.
#[must_use]
pub fn has_no_evidence_left(
    storage: &dyn Storage,
    root: &Path,
    pair: &PairPath,
    known: &PairCheckpoint,
) -> bool {
    known.evidence.identity.is_some()
        && is_absent(&stat_day_file(storage, root, Stream::Evidence, pair))
}

/// Whether a day-file was moved from one path to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveCheck {
    /// It was.
    Moved,
    /// It was not, or cannot be examined.
    NotMoved,
    /// The file that was at the other path is not there any more: it may have been moved on, or back.
    MovesOn,
}

/// Checks whether the scored day-file of `to` is the one that was read at `from` as far as `known`.
#[must_use]
pub fn check_move(
    storage: &dyn Storage,
    root: &Path,
    from: &PairPath,
    known: &SourceState,
    to: &PairPath,
) -> MoveCheck {
    if from == to || !from.has_name_of(to) {
        return MoveCheck::NotMoved;
    }
    let Some(identity) = known.identity else {
        return MoveCheck::NotMoved;
    };
    let source = match Source::open(storage, root, Stream::Scored, to) {
        Ok(Some(source)) if source.stat().inode == identity.inode => source,
        Ok(_) => return MoveCheck::MovesOn,
        Err(_) => return MoveCheck::NotMoved,
    };
    let stat = source.stat();
    let there = stat_day_file(storage, root, Stream::Scored, from);
    if is_file(&there, stat) {
        // A file with two names is two day-files.
        let has_two_names = is_file(&stat_day_file(storage, root, Stream::Scored, to), stat);
        return match has_two_names {
            true => MoveCheck::NotMoved,
            false => MoveCheck::MovesOn,
        };
    }
    let is_same = matches!(source.rewritten(&as_read(known, identity, stat)), Ok(None));
    match is_same && (there.is_ok() || is_absent(&there)) {
        true => MoveCheck::Moved,
        false => MoveCheck::NotMoved,
    }
}

fn is_file(there: &io::Result<FileStat>, file: &FileStat) -> bool {
    matches!(there, Ok(stat) if (stat.device, stat.inode) == (file.device, file.inode))
}

fn is_absent(there: &io::Result<FileStat>) -> bool {
    let kind = there.as_ref().err().map(io::Error::kind);
    matches!(kind, Some(ErrorKind::NotFound | ErrorKind::NotADirectory))
}

/// Returns the state of the scored source as it was read, even if it was marked as gone since.
fn as_read(known: &SourceState, identity: SourceIdentity, stat: &FileStat) -> SourceState {
    SourceState {
        identity: Some(SourceIdentity {
            device: stat.device,
            ..identity
        }),
        ..*known
    }
}
