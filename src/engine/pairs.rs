//! Owns what the engine knows of a pair before it looks: from memory, else from the state. It opens no day-file.

use crate::engine::read::is_gone;
use crate::engine::{Engine, EngineError, Slot};
use crate::lake::identity::StatFingerprint;
use crate::lake::path::{PairPath, Stream};
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::PairId;
use crate::pair::{ActivePair, Overlay};

impl Engine {
    /// Whether a day-file may have bytes that were not looked at, by what the file system says of it.
    ///
    /// # Errors
    /// The state's.
    pub fn has_changed(
        &mut self,
        path: &PairPath,
        stream: Stream,
        seen: StatFingerprint,
    ) -> Result<bool, EngineError> {
        let known = |checkpoint: &PairCheckpoint| checkpoint.source(stream).seen == seen;
        let checkpoint = self.known_checkpoint(path)?;
        if checkpoint.as_ref().is_some_and(known) {
            return Ok(false);
        }
        let offset = checkpoint.map_or(0, |checkpoint| checkpoint.source(stream).offset);
        let now_ms = self.setup.clock.monotonic_ms();
        let bytes = seen.len_bytes.saturating_sub(offset);
        self.unread.measured(path, stream, bytes, now_ms);
        Ok(true)
    }

    /// How much of a day-file that is `len_bytes` long was not read yet.
    ///
    /// # Errors
    /// The state's.
    pub fn unread_bytes(
        &mut self,
        path: &PairPath,
        stream: Stream,
        len_bytes: u64,
    ) -> Result<u64, EngineError> {
        let checkpoint = self.known_checkpoint(path)?;
        let read_bytes = checkpoint.map_or(0, |checkpoint| checkpoint.source(stream).offset);
        Ok(len_bytes.saturating_sub(read_bytes))
    }

    /// Whether a day-file that is not there was there when it was last looked at.
    ///
    /// # Errors
    /// The state's.
    pub fn has_disappeared(
        &mut self,
        path: &PairPath,
        stream: Stream,
    ) -> Result<bool, EngineError> {
        // Of one that has nothing but a torn line no state knows.
        if self.torn.is_in(path, stream) {
            return Ok(true);
        }
        let checkpoint = self.known_checkpoint(path)?;
        Ok(checkpoint.is_some_and(|checkpoint| {
            let source = checkpoint.source(stream);
            source.identity.is_some() && !is_gone(source)
        }))
    }

    pub(crate) fn known_checkpoint(
        &mut self,
        path: &PairPath,
    ) -> Result<Option<PairCheckpoint>, EngineError> {
        if let Some(slot) = self.slots.get(path) {
            return Ok(Some(slot.pair.checkpoint.clone()));
        }
        let found = self
            .view
            .pair_id(path.as_bytes())
            .and_then(|id| id.map(|id| self.view.checkpoint(id)).transpose());
        self.mark_state_failed(found.map_err(EngineError::from))
    }

    /// The pair at a path, loaded or new.
    pub(crate) fn slot(&mut self, path: &PairPath) -> Result<&mut Slot, EngineError> {
        if !self.slots.contains_key(path) {
            let pair = match self.view.pair_id(path.as_bytes())? {
                Some(id) => ActivePair {
                    id,
                    checkpoint: self.view.checkpoint(id)?,
                    overlay: Overlay::default(),
                    persisted: true,
                },
                None => {
                    let id = PairId(self.pair_next);
                    self.pair_next += 1;
                    let checkpoint = PairCheckpoint::new(path.as_bytes().to_vec());
                    ActivePair {
                        id,
                        checkpoint,
                        overlay: Overlay::default(),
                        persisted: false,
                    }
                }
            };
            self.slots.insert(path.clone(), Slot::new(pair));
        }
        Ok(self.slots.get_mut(path).expect("it was just put there"))
    }
}
