//! Whether an empty directory hides day-files that were read below it, because their file system is not mounted. A day-file
//! is known with the number of the device that held it. Many file systems (btrfs, LVM, disks without a fixed name) get
//! another number with each boot, so that a difference alone proves nothing: a day-file that was on that device and is on
//! the directory's now shows that it is the same device.

use std::collections::BTreeMap;
use std::path::Path;

use crate::engine::pairs::PairCache;
use crate::engine::read::{forget_device, is_gone, last_device};
use crate::engine::{Engine, EngineError};
use crate::lake::identity::SourceState;
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::stat_day_file;
use crate::pair::checkpoint::PairCheckpoint;
use crate::platform::storage::FileKind;
use crate::store::snapshot::pair_path;
use crate::store::state::error::StateError;

/// Maximum pairs of the state that are examined below a directory, and before and after it.
const DEVICE_PAIRS_MAX: usize = 64;

impl PairCache {
    /// Returns the device that held the day-files below a directory of a stream when they were last read. Checks the first
    /// [`DEVICE_PAIRS_MAX`] pairs in the state, after those in memory.
    fn device_below(&self, stream: Stream, dir: &Path) -> Result<Option<u64>, StateError> {
        let in_memory = self.iter().find_map(|(path, slot)| {
            let is_below = path.as_path().starts_with(dir);
            is_below.then(|| last_device(slot.pair.checkpoint.source(stream)))?
        });
        if in_memory.is_some() {
            return Ok(in_memory);
        }
        for id in self.view().pairs_below(&prefix(dir), DEVICE_PAIRS_MAX)? {
            let device = last_device(self.view().checkpoint(id)?.source(stream));
            if device.is_some() {
                return Ok(device);
            }
        }
        Ok(None)
    }

    /// Returns the pairs in memory, and those of the state below a directory and next to it by name, which were probably read
    /// at the same time.
    fn pairs_around(&self, dir: &Path) -> Result<Vec<(PairPath, PairCheckpoint)>, StateError> {
        let in_memory = self.iter();
        let in_memory = in_memory.map(|(path, slot)| (path.clone(), slot.pair.checkpoint.clone()));
        let mut pairs: BTreeMap<_, _> = in_memory.collect();
        let below = self.view().pairs_below(&prefix(dir), DEVICE_PAIRS_MAX)?;
        let dir = dir.as_os_str().as_encoded_bytes();
        let next_to = self.view().pairs_next_to(dir, DEVICE_PAIRS_MAX)?;
        for id in below.into_iter().chain(next_to) {
            let checkpoint = self.view().checkpoint(id)?;
            if let Some(path) = pair_path(&checkpoint) {
                pairs.entry(path).or_insert(checkpoint);
            }
        }
        Ok(pairs.into_iter().collect())
    }
}

impl Engine {
    /// Returns whether an empty directory of a stream, which is on the device with this number now, may hide day-files that
    /// were read below it. Where it certainly does not, they were deleted, which is remembered: no later number of its
    /// device is a reason to ask again.
    ///
    /// # Errors
    /// [`EngineError::State`] if the state cannot be read.
    pub fn hides_day_files(
        &mut self,
        stream: Stream,
        dir: &Path,
        device: u64,
    ) -> Result<bool, EngineError> {
        let hides = self.hides_any(stream, dir, device);
        self.commits
            .mark_state_failed(hides.map_err(EngineError::from))
    }

    fn hides_any(&mut self, stream: Stream, dir: &Path, device: u64) -> Result<bool, StateError> {
        let Some(read_device) = self.pairs.device_below(stream, dir)? else {
            return Ok(false);
        };
        // It is empty because its day-files were deleted or moved; what is known of them stays as it is.
        if read_device == device {
            return Ok(false);
        }
        let around = self.pairs.pairs_around(dir)?;
        if !self.is_device_now(&around, read_device, device) {
            return Ok(true);
        }
        let is_below = |path: &PairPath| path.as_path().starts_with(dir);
        let below = around.into_iter().filter(|(path, _)| is_below(path));
        for (path, pair) in below {
            let state = pair.source(stream);
            match last_device(state) == Some(read_device) {
                true if is_gone(state) => self.pairs.change_source(&path, stream, forget_device)?,
                // It was deleted while no process ran. Its next read notes that.
                true => self.enqueue_backlog(path),
                false => {}
            }
        }
        Ok(false)
    }

    /// Returns whether one of these pairs has a day-file that was read on the device which then had the number `before`, and
    /// is on the device which has the number `now`.
    fn is_device_now(&self, pairs: &[(PairPath, PairCheckpoint)], before: u64, now: u64) -> bool {
        let (storage, root) = (&*self.ctx.storage, &self.ctx.root);
        let is_witness = |path: &PairPath, stream: Stream, state: &SourceState| {
            let Some(identity) = state.identity.filter(|identity| identity.device == before) else {
                return false;
            };
            stat_day_file(storage, root, stream, path).is_ok_and(|stat| {
                stat.kind == FileKind::Regular
                    && (stat.device, stat.inode) == (now, identity.inode)
                    && stat.len_bytes >= state.offset
            })
        };
        Stream::ALL.into_iter().any(|stream| {
            let mut pairs = pairs.iter();
            pairs.any(|(path, pair)| is_witness(path, stream, pair.source(stream)))
        })
    }
}

/// Returns the beginning of the paths below a directory.
fn prefix(dir: &Path) -> Vec<u8> {
    let mut prefix = dir.as_os_str().as_encoded_bytes().to_vec();
    if !prefix.is_empty() {
        prefix.push(b'/');
    }
    prefix
}
