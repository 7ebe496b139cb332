//! Follows a dataset: after the rows that are there, those that are appended, and what happens to rows that were written.

use std::io::Write;
use std::ops::ControlFlow;

use serde::Serialize;

use crate::dataset::error::DatasetError;
use crate::dataset::files::Files;
use crate::dataset::ledger_reader::LedgerReader;
use crate::dataset::rows::{for_each_row, write_shaped};
use crate::dataset::shape::Shape;
use crate::dataset::snapshot::{Snapshot, identity};
use crate::platform::storage::Storage;
use crate::record::ledger::{LedgerLine, Op, RowSpan};

/// What happened to a row that was written. Serialized as one line, which no row can be: no row has its first key.
#[derive(Debug, Serialize)]
struct Event<'e> {
    #[serde(rename = "_retracted", skip_serializing_if = "Option::is_none")]
    retracted: Option<u64>,
    #[serde(rename = "_restored", skip_serializing_if = "Option::is_none")]
    restored: Option<u64>,
    #[serde(rename = "_seq")]
    seq: u64,
    id: &'e str,
    source_run_id: &'e str,
    cause: &'e str,
    at: &'e str,
}

/// A follower of a dataset.
#[derive(Debug)]
pub struct Follower<'s> {
    storage: &'s dyn Storage,
    files: Files,
    ledger: LedgerReader,
    /// Rows before it are not asked for.
    from: u64,
    /// End of the rows that were written or skipped.
    written_to: u64,
    shape: Shape,
}

impl<'s> Follower<'s> {
    /// Continues after the rows of a snapshot, which are written from `from` on.
    #[must_use]
    pub fn new(
        storage: &'s dyn Storage,
        snapshot: Snapshot,
        from: u64,
        shape: Shape,
    ) -> Follower<'s> {
        Follower {
            storage,
            from,
            written_to: snapshot.export_len.max(from),
            shape,
            files: snapshot.files,
            ledger: snapshot.ledger,
        }
    }

    /// Writes what is new: first the events of rows that were written before, then the rows that were appended and are
    /// not retracted. A restored row follows its event, because it may be one that was never written.
    ///
    /// # Errors
    /// The files were replaced, contradict each other, or cannot be read; or the output cannot be written.
    pub fn write_news(&mut self, out: &mut dyn Write) -> Result<(), DatasetError> {
        if let Some(path) = self.files.replaced(self.storage)? {
            let path = path.to_owned();
            return Err(self.replaced_error(path));
        }
        // The length first, the ledger afterwards: each retraction of these rows is in it.
        let rows_len = self.files.rows_len()?;
        if rows_len < self.written_to {
            return Err(DatasetError::Cut {
                path: self.files.export_path.clone(),
                at_byte: rows_len,
            });
        }
        let mut news = Vec::new();
        let written = self.from..self.written_to;
        self.ledger.read_to(u64::MAX, &mut |_offset, event| {
            if event.row.is_some_and(|row| written.contains(&row.offset)) {
                news.push(event.clone());
            }
        })?;
        let mut lines = Vec::new();
        for event in &news {
            self.write_event(event, &mut lines)?;
        }
        let Follower {
            files,
            ledger,
            shape,
            ..
        } = self;
        for_each_row(files, self.written_to, rows_len, &mut |offset, row| {
            if !ledger.fold.is_retracted(offset) {
                write_shaped(files, offset, row, *shape, &mut lines)?;
            }
            if lines.len() >= 1 << 20 {
                out.write_all(&lines).map_err(DatasetError::Output)?;
                lines.clear();
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.written_to = rows_len;
        out.write_all(&lines).map_err(DatasetError::Output)?;
        out.flush().map_err(DatasetError::Output)
    }

    fn write_event(&self, event: &LedgerLine, out: &mut Vec<u8>) -> Result<(), DatasetError> {
        let Some(row) = event.row else { return Ok(()) };
        let offset_if = |op| (event.op == op).then_some(row.offset);
        if !matches!(event.op, Op::Retract | Op::Restore) {
            return Ok(());
        }
        let line = Event {
            retracted: offset_if(Op::Retract),
            restored: offset_if(Op::Restore),
            seq: event.seq,
            id: &event.id,
            source_run_id: &event.source_run_id,
            cause: event.cause.code(),
            at: &event.at,
        };
        serde_json::to_writer(&mut *out, &line)
            .map_err(|error| DatasetError::Output(error.into()))?;
        out.push(b'\n');
        match event.op {
            Op::Restore => self.write_row(row, out),
            _ => Ok(()),
        }
    }

    fn write_row(&self, row: RowSpan, out: &mut Vec<u8>) -> Result<(), DatasetError> {
        let bytes = self.files.row(row)?;
        write_shaped(&self.files, row.offset, &bytes, self.shape, out)
    }

    fn replaced_error(&self, path: std::path::PathBuf) -> DatasetError {
        let now = Files::open(self.storage, &self.files.export_path).ok();
        let now = now.and_then(|files| {
            let mut ledger = LedgerReader::new(&files);
            ledger.read_first().ok()?;
            identity(&files, &ledger).ok()
        });
        DatasetError::Replaced { path, now }
    }
}
