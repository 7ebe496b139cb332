//! Lookups of the join during a read: in the state, in lines that were read before, and in the export.

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

/// A failed lookup.
pub(super) enum ReadError {
    State(StateError),
    Source(Stream, io::Error),
}

/// The view of the state without the rows that were claimed since.
pub(super) struct LiveIndex<'a> {
    pub(super) id: PairId,
    pub(super) ctx: &'a ReadContext<'a>,
}

impl StateLookup<ReadError> for LiveIndex<'_> {
    fn evidence(&self, run: RunKey) -> Result<Option<EvidenceLocation>, ReadError> {
        self.ctx
            .view
            .evidence(self.id, run)
            .map_err(ReadError::State)
    }

    fn entries(&self, run: RunKey) -> Result<Vec<ScoredLine>, ReadError> {
        self.ctx
            .view
            .entries(self.id, run)
            .map_err(ReadError::State)
    }

    fn claimable(&self, row: RowKey) -> Result<Vec<UnclaimedRow>, ReadError> {
        let mut claims = self.ctx.view.claimable(row).map_err(ReadError::State)?;
        let first = UnclaimedRow {
            row,
            scope: PairId(0),
            row_offset: 0,
        };
        let released = self.ctx.released.range(first..);
        claims.extend(released.take_while(|claim| claim.row == row));
        claims.retain(|claim| !self.ctx.claimed.contains(claim));
        Ok(claims)
    }
}

/// Lines of the day-files of the pair, and rows of the export.
pub(super) struct SourceBodies<'a> {
    pub(super) scored: Option<&'a Source>,
    pub(super) evidence: Option<&'a Source>,
    /// Opened at the first lookup of a row, which most reads do not need.
    pub(super) export: OnceCell<Option<Arc<dyn StorageFile>>>,
    pub(super) ctx: &'a ReadContext<'a>,
}

impl LineLookup<ReadError> for SourceBodies<'_> {
    fn scored(&self, offset: u64, len_bytes: u32) -> Result<Option<Vec<u8>>, ReadError> {
        line_of(self.scored, offset, len_bytes)
            .map_err(|error| ReadError::Source(Stream::Scored, error))
    }

    fn evidence(&self, place: EvidenceLocation) -> Result<Option<Vec<u8>>, ReadError> {
        line_of(self.evidence, place.offset, place.len_bytes)
            .map_err(|error| ReadError::Source(Stream::Evidence, error))
    }

    fn row(
        &self,
        offset: u64,
        len_likely: usize,
        len_max: usize,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let ReadContext {
            storage,
            export_path,
            ..
        } = self.ctx;
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
