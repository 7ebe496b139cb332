//! Owns how a day-file that was moved to another day is told from a new one: it has the inode, the beginning and the last
//! bytes of one that was read under another path and does not lie there any more. Its name is the same: with
//! another name its rows are other rows.

use std::io::ErrorKind;
use std::path::Path;

use crate::lake::identity::Rewritten;
use crate::lake::identity::{SourceIdentity, SourceState};
use crate::lake::path::{PairPath, Stream};
use crate::lake::source::Source;
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::PairId;
use crate::platform::storage::{FileStat, Storage};

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
pub fn scope_of_claims(why: Rewritten, id: PairId) -> PairId {
    match why {
        Rewritten::Replaced | Rewritten::Moved => PairId::ANY,
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
    has_left(storage, &from.path(root, Stream::Scored), here)
        && here.inode == identity.inode
        && matches!(source.rewritten(&read_of(known, identity, here)), Ok(None))
}

fn has_left(storage: &dyn Storage, path: &Path, file: &FileStat) -> bool {
    match storage.stat(path) {
        Ok(there) => (there.device, there.inode) != (file.device, file.inode),
        Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

/// What was read, as if nobody had noted yet that it is gone.
fn read_of(known: &PairCheckpoint, identity: SourceIdentity, here: &FileStat) -> SourceState {
    SourceState {
        identity: Some(SourceIdentity {
            device: here.device,
            ..identity
        }),
        ..known.scored
    }
}
