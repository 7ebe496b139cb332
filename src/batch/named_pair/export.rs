//! The rows of a named pair, and their account.

use sha2::{Digest as _, Sha256};

use crate::batch::named_pair::account::PairExport;
use crate::batch::named_pair::error::NamedPairError;
use crate::batch::named_pair::{NamedPair, PairFiles};
use crate::batch::output::{Output, Sink};
use crate::batch::pair::PairReading;
use crate::platform::storage::Storage;
use crate::record::final_check::forbidden_in_dialect;
use crate::record::json::escape::Dialect;

/// Bytes of rows that are checked and written at once.
const PART_BYTES: usize = 256 * 1024;

/// The options of the export of a named pair.
#[derive(Debug, Clone, Copy)]
pub struct NamedPairOptions<'a> {
    /// Limits and options for making rows. Orders are not known without a lake.
    pub reading: PairReading<'a>,
    /// Whether a line that exceeds the limit is an error. Else it is malformed, as in a lake with that limit.
    pub refuses_overlong: bool,
    /// Counts without writing.
    pub dry_run: bool,
}

/// Writes the rows of a pair, and returns its account, which has the error too. An output file appears only if the pair was
/// read to its end, also if it has no rows.
pub fn export_named_pair(
    storage: &dyn Storage,
    files: &PairFiles,
    options: &NamedPairOptions<'_>,
    output: Output<'_>,
) -> (PairExport, Result<(), NamedPairError>) {
    let mut exported = PairExport::default();
    let mut writer = Writer {
        sink: Sink::new(storage, output, options.dry_run),
        dialect: options.reading.synthesis.dialect,
        hash: Sha256::new(),
        part: Vec::new(),
    };
    let result = export(storage, files, options, &mut writer, &mut exported);
    match &result {
        Ok(()) => exported.account.complete = true,
        Err(error) => {
            writer.sink.abandon();
            exported.account.error = error.to_string();
        }
    }
    (exported, result)
}

fn export(
    storage: &dyn Storage,
    files: &PairFiles,
    options: &NamedPairOptions<'_>,
    writer: &mut Writer<'_, '_>,
    exported: &mut PairExport,
) -> Result<(), NamedPairError> {
    let pair = NamedPair::open(storage, files, options.refuses_overlong)?;
    exported.account.on_open(&pair);
    let totals = pair.for_each_row(&options.reading, &mut |line| {
        exported.account.rows += 1;
        exported.rows_bytes += line.row.len() as u64;
        writer.add(line.row)
    })?;
    exported.account.on_read(&totals);
    exported.rows_sha256 = writer.finish()?;
    Ok(())
}

struct Writer<'s, 'w> {
    sink: Sink<'s, 'w>,
    dialect: Dialect,
    hash: Sha256,
    /// Complete rows that are not written yet.
    part: Vec<u8>,
}

impl Writer<'_, '_> {
    fn add(&mut self, row: &[u8]) -> Result<(), NamedPairError> {
        self.part.extend_from_slice(row);
        match self.part.len() < PART_BYTES {
            true => Ok(()),
            false => self.write_part(),
        }
    }

    fn write_part(&mut self) -> Result<(), NamedPairError> {
        if let Some(forbidden) = forbidden_in_dialect(&self.part, self.dialect) {
            return Err(NamedPairError::Forbidden(forbidden));
        }
        self.hash.update(&self.part);
        let appended = self.sink.append(&self.part);
        self.part.clear();
        appended.map_err(|source| self.write_error(source))
    }

    /// Writes what is left, and returns the digest of all rows.
    fn finish(&mut self) -> Result<String, NamedPairError> {
        self.write_part()?;
        let finished = self.sink.begin().and_then(|()| self.sink.finish());
        finished.map_err(|source| self.write_error(source))?;
        let digest = std::mem::take(&mut self.hash).finalize();
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn write_error(&self, source: std::io::Error) -> NamedPairError {
        NamedPairError::Write {
            path: self.sink.name(),
            source,
        }
    }
}
