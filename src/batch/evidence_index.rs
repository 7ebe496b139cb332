//! Where the evidence of each run is in its day-file.
//!
//! Memory: about 40 bytes per evidence record, and a day-file of up to [`HELD_BYTES_MAX`]; records of a larger one are
//! read again when a scored run needs them.

use std::collections::HashMap;
use std::io;

use crate::batch::line_reader::{LineReader, LineSpan, Source};
use crate::batch::pair::{OpenDayFile, PairReading};
use crate::lake::path::Stream;
use crate::platform::storage::read_full_at;
use crate::record::json::escape::Dialect;
use crate::record::keys::RunKey;
use crate::record::parse::{self, trim};

/// Maximum size in bytes of an evidence file that is held in memory while its pair is read.
pub const HELD_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The position of each run's evidence, the last one where a run has several.
#[derive(Debug)]
pub(super) struct EvidenceIndex {
    spans: HashMap<RunKey, LineSpan>,
    dialect: Dialect,
    source: Source,
    scratch: Vec<u8>,
    /// Malformed lines.
    pub malformed: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// The first line that exceeds the limit.
    pub overlong: Option<(Stream, u64)>,
    /// Set by the reader if a line that was read again is not what it was.
    pub is_changed: bool,
}

impl EvidenceIndex {
    /// Reads a day-file up to its end.
    pub fn read(file: &OpenDayFile, reading: &PairReading<'_>) -> io::Result<EvidenceIndex> {
        let (source, end) = hold_if_small((file.source.clone(), file.end))?;
        let mut index = EvidenceIndex {
            spans: HashMap::new(),
            dialect: reading.synthesis.dialect,
            scratch: Vec::new(),
            malformed: 0,
            read_bytes: 0,
            overlong: None,
            is_changed: false,
            source: source.clone(),
        };
        let mut lines = LineReader::new(&source, end, reading.max_line_bytes);
        while let Some(line) = lines.next_line()? {
            match line.bytes.map(trim) {
                Some([]) => continue,
                Some(bytes) => index.add(line.span, bytes),
                None => {
                    index.malformed += 1;
                    index
                        .overlong
                        .get_or_insert((Stream::Evidence, line.span.offset));
                }
            }
        }
        index.read_bytes = lines.read_bytes();
        Ok(index)
    }

    fn add(&mut self, span: LineSpan, line: &[u8]) {
        match parse::evidence_in(line, self.dialect) {
            Ok(evidence) => {
                let key = RunKey::from_text(&evidence.run_id);
                self.spans.insert(key, span);
            }
            Err(_) => self.malformed += 1,
        }
    }

    /// Returns the last evidence of a run, without its newline.
    pub fn line_of(&mut self, key: RunKey) -> io::Result<Option<&[u8]>> {
        match self.spans.get(&key) {
            Some(span) => self.source.read_span(*span, &mut self.scratch).map(Some),
            None => Ok(None),
        }
    }
}

/// Reads a file of up to [`HELD_BYTES_MAX`] bytes into memory.
fn hold_if_small((source, len_bytes): (Source, u64)) -> io::Result<(Source, u64)> {
    let Source::File(file) = &source else {
        return Ok((source, len_bytes));
    };
    if len_bytes > HELD_BYTES_MAX {
        return Ok((source, len_bytes));
    }
    let mut bytes = vec![0; usize::try_from(len_bytes).unwrap_or_default()];
    let read = read_full_at(&**file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok((Source::Held(bytes.into()), read as u64))
}
