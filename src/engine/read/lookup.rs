//! Owns what the core is told when it asks, in the middle of a look, for what lies elsewhere: in the state, in lines that
//! were read before, in the export. It decides nothing.

use std::cell::OnceCell;
use std::io;
use std::sync::Arc;

use crate::engine::read::ReadContext;
use crate::lake::path::Stream;
use crate::lake::source::Source;
use crate::pair::index::{EvidenceLocation, PairId, ScoredLine, UnclaimedRow};
use crate::pair::{LineLookup, StateLookup};
use crate::platform::storage::StorageFile;
use crate::record::keys::{RowKey, RunKey};
use crate::store::export::short_row_at;
use crate::store::state::error::StateError;

/// What the state, or a line that was read before, could not be asked for.
pub(super) enum LookError {
    State(StateError),
    Body(Stream, io::Error),
}

/// The state, less what was claimed since.
pub(super) struct LiveIndex<'a> {
    pub(super) id: PairId,
    pub(super) looking: &'a ReadContext<'a>,
}

impl StateLookup<LookError> for LiveIndex<'_> {
    fn evidence(&self, run: RunKey) -> Result<Option<EvidenceLocation>, LookError> {
        self.looking
            .view
            .evidence(self.id, run)
            .map_err(LookError::State)
    }

    fn entries(&self, run: RunKey) -> Result<Vec<ScoredLine>, LookError> {
        self.looking
            .view
            .entries(self.id, run)
            .map_err(LookError::State)
    }

    fn claimable(&self, row: RowKey) -> Result<Vec<UnclaimedRow>, LookError> {
        let mut claims = self
            .looking
            .view
            .claimable(row, self.id)
            .map_err(LookError::State)?;
        let first = UnclaimedRow {
            row,
            scope: PairId(0),
            row_offset: 0,
        };
        let released = self.looking.released.range(first..);
        claims.extend(released.take_while(|claim| claim.row == row));
        claims.retain(|claim| !self.looking.claimed.contains(claim));
        Ok(claims)
    }
}

/// The day-files of the pair, and the export.
pub(super) struct SourceBodies<'a> {
    pub(super) scored: Option<&'a Source>,
    pub(super) evidence: Option<&'a Source>,
    /// Opened where a row of it is asked for: seldom.
    pub(super) export: OnceCell<Option<Arc<dyn StorageFile>>>,
    pub(super) looking: &'a ReadContext<'a>,
}

impl LineLookup<LookError> for SourceBodies<'_> {
    fn scored(&self, offset: u64, len_bytes: u32) -> Result<Option<Vec<u8>>, LookError> {
        line_of(self.scored, offset, len_bytes)
            .map_err(|error| LookError::Body(Stream::Scored, error))
    }

    fn evidence(&self, place: EvidenceLocation) -> Result<Option<Vec<u8>>, LookError> {
        line_of(self.evidence, place.offset, place.len_bytes)
            .map_err(|error| LookError::Body(Stream::Evidence, error))
    }

    fn row(
        &self,
        offset: u64,
        len_likely: usize,
        len_max: usize,
    ) -> Result<Option<Vec<u8>>, LookError> {
        let ReadContext {
            storage,
            export_path,
            ..
        } = self.looking;
        let export = self
            .export
            .get_or_init(|| storage.open_read(export_path).ok());
        Ok(export
            .as_deref()
            .and_then(|export| short_row_at(export, offset, len_likely, len_max)))
    }
}

fn line_of(source: Option<&Source>, offset: u64, len_bytes: u32) -> io::Result<Option<Vec<u8>>> {
    let Some(source) = source else {
        return Ok(None);
    };
    let line = source.line(offset, len_bytes)?;
    Ok((line.len() == len_bytes as usize).then_some(line))
}
