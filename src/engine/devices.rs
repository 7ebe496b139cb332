//! The devices that held the day-files when they were last read, by which a directory that is not mounted is recognized.

use std::path::Path;

use crate::engine::pairs::PairCache;
use crate::engine::read::last_device;
use crate::engine::{Engine, EngineError};
use crate::lake::path::Stream;
use crate::store::state::error::StateError;

/// Maximum pairs of the state that are examined for the device of their day-files.
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
        let mut prefix = dir.as_os_str().as_encoded_bytes().to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        for id in self.view().pairs_below(&prefix, DEVICE_PAIRS_MAX)? {
            let device = last_device(self.view().checkpoint(id)?.source(stream));
            if device.is_some() {
                return Ok(device);
            }
        }
        Ok(None)
    }
}

impl Engine {
    /// Returns the device that held the day-files below a directory of a stream when they were last read; `None` if none
    /// was read.
    ///
    /// # Errors
    /// [`EngineError::State`] if the state cannot be read.
    pub fn device_below(&mut self, stream: Stream, dir: &Path) -> Result<Option<u64>, EngineError> {
        let device = self.pairs.device_below(stream, dir);
        self.commits
            .mark_state_failed(device.map_err(EngineError::from))
    }
}
