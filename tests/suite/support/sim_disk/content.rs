//! The content of one simulated file and the names in one simulated directory: live, durable, and the changes in
//! between, of which a power cut leaves some.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};

use fastrand::Rng;

use super::fault::{Fate, NameOrder};
use super::tree::NodeId;

/// The unit that a disk writes atomically.
const SECTOR_BYTES: u64 = 512;

/// A change of a file's content.
#[derive(Debug, Clone)]
pub enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

/// The progress of a change towards the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncStatus {
    /// No sync since.
    Unsynced,
    /// A sync of it failed: no later sync makes it durable, because the kernel considers its pages clean.
    Doomed,
    /// Synced, but kept in the list after a doomed one, to be replayed in order.
    Synced,
}

#[derive(Debug, Clone, Default)]
pub struct Content {
    pub live: Vec<u8>,
    pub durable: Vec<u8>,
    pub changes: Vec<(Change, SyncStatus)>,
}

/// One atomic change of a directory: names set to a node or removed, all or none of them.
pub type NameChange = Vec<(OsString, Option<NodeId>)>;

#[derive(Debug, Clone, Default)]
pub struct Names {
    pub live: BTreeMap<OsString, NodeId>,
    pub durable: BTreeMap<OsString, NodeId>,
    pub changes: Vec<NameChange>,
}

impl Content {
    pub fn reclassify(&mut self, from: SyncStatus, to: SyncStatus) {
        for (_, status) in &mut self.changes {
            if *status == from {
                *status = to;
            }
        }
    }

    /// Drops the changes that did not reach the disk; returns whether readers may notice.
    pub fn cut(&mut self, rng: &mut Rng, fate: Fate) -> bool {
        let changes = std::mem::take(&mut self.changes);
        for (change, status) in &changes {
            match (status, fate) {
                (SyncStatus::Synced, _) => apply(&mut self.durable, change),
                (_, Fate::Torn) => apply_torn(&mut self.durable, change, rng),
                (_, Fate::Lost | Fate::Kept) => {}
            }
        }
        self.live = self.durable.clone();
        !changes.is_empty()
    }
}

impl Names {
    /// Makes one name durable, with the changes of all names that are atomic with it.
    pub fn settle(&mut self, name: &OsStr) {
        let mut together = HashSet::from([name.to_owned()]);
        loop {
            let known = together.len();
            for change in &self.changes {
                if change.iter().any(|(name, _)| together.contains(name)) {
                    together.extend(change.iter().map(|(name, _)| name.clone()));
                }
            }
            if together.len() == known {
                break;
            }
        }
        let concerned =
            |change: &NameChange| change.iter().any(|(name, _)| together.contains(name));
        for change in self.changes.iter().filter(|change| concerned(change)) {
            rename_in(&mut self.durable, change);
        }
        self.changes.retain(|change| !concerned(change));
    }

    pub fn cut(&mut self, rng: &mut Rng, fate: Fate, order: NameOrder) -> bool {
        let changes = std::mem::take(&mut self.changes);
        let prefix = rng.usize(0..=changes.len());
        for (index, change) in changes.iter().enumerate() {
            let survives = match order {
                NameOrder::Prefix => index < prefix,
                NameOrder::Any => rng.bool(),
            };
            if survives && fate == Fate::Torn {
                rename_in(&mut self.durable, change);
            }
        }
        self.live = self.durable.clone();
        !changes.is_empty()
    }
}

pub fn rename_in(names: &mut BTreeMap<OsString, NodeId>, change: &NameChange) {
    for (name, to) in change {
        match to {
            Some(id) => names.insert(name.clone(), *id),
            None => names.remove(name),
        };
    }
}

pub fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write {
            offset,
            bytes: written,
        } => overwrite(bytes, *offset, written),
        Change::SetLen(len_bytes) => resize(bytes, to_index(*len_bytes)),
    }
}

fn apply_torn(bytes: &mut Vec<u8>, change: &Change, rng: &mut Rng) {
    // Complete and lost writes remain likely, so that long lists of changes also result in nearly intact files.
    match (rng.u8(0..4), change) {
        (0, _) => {}
        (
            2..,
            Change::Write {
                offset,
                bytes: written,
            },
        ) => {
            for (at, sector) in sectors(*offset, written) {
                if rng.bool() {
                    overwrite(bytes, at, sector);
                }
            }
        }
        (2, Change::SetLen(_)) => {}
        _ => apply(bytes, change),
    }
}

/// Returns the pieces of a write by sectors of the file.
fn sectors(mut offset: u64, mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let room = to_index(SECTOR_BYTES - offset % SECTOR_BYTES).min(bytes.len());
        let (piece, rest) = bytes.split_at(room);
        pieces.push((offset, piece));
        (bytes, offset) = (rest, offset + room as u64);
    }
    pieces
}

fn overwrite(bytes: &mut Vec<u8>, offset: u64, written: &[u8]) {
    if written.is_empty() {
        return;
    }
    let start = to_index(offset);
    if bytes.len() < start {
        resize(bytes, start);
    }
    let (inside, appended) = written.split_at(written.len().min(bytes.len() - start));
    bytes[start..start + inside.len()].copy_from_slice(inside);
    bytes.extend_from_slice(appended);
}

/// Resizes like `Vec::resize` with zeros, but by block copies: tests are built without optimization.
fn resize(bytes: &mut Vec<u8>, len: usize) {
    bytes.truncate(len);
    bytes.extend_from_slice(&vec![0; len - bytes.len()]);
}

/// Returns the start of the first sector with data at or after an offset, or the offset if its own sector has data.
pub fn next_data(bytes: &[u8], offset: u64) -> Option<u64> {
    let data = bytes
        .get(to_index(offset)..)?
        .iter()
        .position(|byte| *byte != 0)?;
    let data = offset + data as u64;
    Some(offset.max(data - data % SECTOR_BYTES))
}

/// Converts an offset to an index.
pub fn to_index(offset: u64) -> usize {
    usize::try_from(offset).expect("a simulated file fits into memory")
}
