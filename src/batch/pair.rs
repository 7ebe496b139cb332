//! Reads one pair of day-files from front to end without any state and yields each scored line with its verdict and
//! its row, if it has one. `export`, `verify` and `explain` read pairs with it.
//!
//! Memory: about 40 bytes per evidence record of the pair, the longest line, and an evidence file of up to
//! [`HELD_BYTES_MAX`]; records of a larger file are read again when a scored run needs them.

use std::collections::HashMap;
use std::io;
use std::ops::{AddAssign, ControlFlow};
use std::path::PathBuf;
use std::sync::Arc;

pub use crate::batch::lake_reader::LakeReader;
use crate::batch::line_reader::{LineReader, LineSpan, Source};
use crate::lake::path::{PairPath, Stream};
use crate::pair::orders::Orders;
use crate::pair::verdict::{PerVerdict, Verdict, VerdictKind};
use crate::platform::storage::read_full_at;
use crate::record::firewall::{Admission, AdmittedRun, admit};
use crate::record::json::escape::Dialect;
use crate::record::keys::RunKey;
use crate::record::parse;
use crate::record::parse::{ParseError, ScoredRun, trim};
use crate::record::synthesize::{Refusal, RowPlace, Synthesis, synthesize};

/// Maximum size in bytes of an evidence file that is held in memory while its pair is read.
pub const HELD_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Default maximum length of a line in bytes.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Options for reading pairs.
#[derive(Debug, Clone, Copy)]
pub struct PairReading<'a> {
    /// Options for making rows.
    pub synthesis: Synthesis<'a>,
    /// Maximum length of a line in bytes; longer lines are malformed.
    pub max_line_bytes: usize,
    /// The standing orders of operators, whose runs have no rows. The Go dialect ignores them.
    pub orders: &'a Orders,
    /// The rows that are passed on.
    pub selection: RowSelection,
}

/// The rows of a pair that are passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowSelection {
    /// All rows.
    #[default]
    All,
    /// Rows that no later line overrules. Day-files are read twice.
    Effective,
    /// All rows, and after those of a pair once more the ones that later lines overrule. A day-file with such rows is read
    /// twice.
    AllThenOverruled,
}

/// Standing orders that keep no run out.
pub static NO_ORDERS: Orders = Orders::NONE;

/// The verdict on a scored line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchVerdict {
    /// The line is not a record.
    Malformed(ParseError),
    /// The category is never exported.
    Firewalled,
    /// The paired day-file has no evidence for the run.
    NoEvidence,
    /// The run is not instructable for another reason.
    Refused(Refusal),
    /// The line has a row.
    Exported,
}

impl BatchVerdict {
    /// Returns the verdict that the daemon gives such a line.
    pub fn kind(&self) -> VerdictKind {
        match self {
            BatchVerdict::Malformed(_) => VerdictKind::Malformed,
            BatchVerdict::Firewalled => VerdictKind::Firewalled,
            BatchVerdict::NoEvidence => VerdictKind::Waiting,
            BatchVerdict::Refused(refusal) => Verdict::refused(*refusal, 0).kind(),
            BatchVerdict::Exported => VerdictKind::Exported,
        }
    }
}

/// A scored line with its verdict.
#[derive(Debug, Clone, Copy)]
pub struct JudgedLine<'l> {
    /// The byte range in the scored day-file.
    pub span: LineSpan,
    /// Index among the well-formed records of the day-file, from 0; `None` for a malformed line.
    pub index: Option<u64>,
    /// The parsed record; `None` for a malformed line.
    pub run: Option<&'l ScoredRun<'l>>,
    /// The verdict.
    pub verdict: BatchVerdict,
    /// The row with its newline; empty unless exported.
    pub row: &'l [u8],
}

/// The lines of a batch by verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchCounts {
    /// Scored lines that are not blank, by verdict.
    pub verdicts: PerVerdict<u64>,
    /// Malformed evidence lines.
    pub malformed_evidence: u64,
}

impl BatchCounts {
    /// Returns the number of well-formed scored records.
    pub fn records_read(&self) -> u64 {
        self.verdicts.sum_of(|kind| kind != VerdictKind::Malformed)
    }

    /// Returns the number of records that the batch result reports as not instructable: neither exported nor firewalled.
    pub fn not_instructable(&self) -> u64 {
        let verdicts = &self.verdicts;
        self.records_read() - verdicts[VerdictKind::Exported] - verdicts[VerdictKind::Firewalled]
    }
}

impl AddAssign for BatchCounts {
    fn add_assign(&mut self, more: BatchCounts) {
        self.verdicts += more.verdicts;
        self.malformed_evidence += more.malformed_evidence;
    }
}

/// An I/O error of a day-file of a pair.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct PairReadError {
    /// The day-file.
    pub path: PathBuf,
    /// The error of the storage.
    pub source: io::Error,
    /// Set if lines had been passed on before the error; the pair can then not be skipped as unread.
    pub is_partial: bool,
}

/// The totals of a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PairTotals {
    /// Lines by verdict.
    pub counts: BatchCounts,
    /// Bytes read from both day-files.
    pub read_bytes: u64,
    /// Rows that later lines overrule; known only if they are selected or left out.
    pub overruled: u64,
}

/// Reads a pair and calls `on_line` with each scored line and its verdict, in order, until it breaks.
///
/// The end of the scored day-file is determined before the evidence is read: a run whose line and evidence are both
/// appended meanwhile is then not reported as without evidence.
///
/// # Errors
/// One of the day-files cannot be read. A missing evidence file is not an error.
pub fn read_pair(
    lake: &LakeReader<'_>,
    pair: &PairPath,
    reading: &PairReading<'_>,
    on_line: &mut dyn FnMut(&JudgedLine<'_>) -> ControlFlow<()>,
) -> Result<PairTotals, PairReadError> {
    let read_error = |stream: Stream, is_partial: bool| {
        move |source: io::Error| PairReadError {
            path: pair.path(&lake.root, stream),
            source,
            is_partial,
        }
    };
    let scored = lake.open(Stream::Scored, pair);
    let (scored, scored_end) = scored.map_err(read_error(Stream::Scored, false))?;
    let evidence = EvidenceIndex::read(lake, pair, reading);
    let mut evidence = evidence.map_err(read_error(Stream::Evidence, false))?;

    let mut lines = LineReader::new(&scored, scored_end, reading.max_line_bytes);
    let mut totals = PairTotals::default();
    totals.counts.malformed_evidence = evidence.malformed;
    let mut row = Vec::new();
    let mut is_partial = false;
    while let Some(line) = lines
        .next_line()
        .map_err(read_error(Stream::Scored, is_partial))?
    {
        let run = match line.bytes.map(trim) {
            Some([]) => continue,
            Some(bytes) => parse::scored_run_in(bytes, reading.synthesis.dialect),
            None => Err(too_long(reading.max_line_bytes)),
        };
        let place = RowPlace {
            day_file_name: pair.name_bytes(),
            index: totals.counts.records_read(),
        };
        row.clear();
        let verdict = match &run {
            Err(malformed) => BatchVerdict::Malformed(*malformed),
            Ok(run) if is_ordered(run, pair, reading) => BatchVerdict::Refused(Refusal::Ordered),
            Ok(run) => judge(run, &mut evidence, &place, &reading.synthesis, &mut row)
                .map_err(read_error(Stream::Evidence, is_partial))?,
        };
        totals.counts.verdicts[verdict.kind()] += 1;
        is_partial = true;
        let judged = JudgedLine {
            span: line.span,
            index: run.is_ok().then_some(place.index),
            run: run.as_ref().ok(),
            verdict,
            row: &row,
        };
        if on_line(&judged).is_break() {
            break;
        }
    }
    totals.read_bytes = lines.read_bytes() + evidence.read_bytes;
    Ok(totals)
}

/// Returns whether a standing order is on a run that the category admits.
fn is_ordered(run: &ScoredRun<'_>, pair: &PairPath, reading: &PairReading<'_>) -> bool {
    let dialect = reading.synthesis.dialect;
    !reading.orders.is_empty()
        && dialect == Dialect::Native
        && reading
            .orders
            .apply_to(RunKey::from_text(&run.evidence_run_id), pair.as_bytes())
        && matches!(admit(run, dialect), Admission::Admitted(_))
}

fn too_long(max_line_bytes: usize) -> ParseError {
    ParseError::TooLong {
        max_line_bytes: max_line_bytes as u64,
    }
}

/// Returns the first applicable verdict on a well-formed record and appends its row, if any.
fn judge(
    run: &ScoredRun<'_>,
    evidence: &mut EvidenceIndex,
    place: &RowPlace<'_>,
    synthesis: &Synthesis<'_>,
    row: &mut Vec<u8>,
) -> io::Result<BatchVerdict> {
    match admit(run, synthesis.dialect) {
        Admission::Firewalled => Ok(BatchVerdict::Firewalled),
        Admission::UnknownCategory => Ok(BatchVerdict::Refused(Refusal::UnknownCategory)),
        Admission::Admitted(admitted) => join(&admitted, evidence, place, synthesis, row),
    }
}

fn join(
    admitted: &AdmittedRun<'_, '_>,
    evidence: &mut EvidenceIndex,
    place: &RowPlace<'_>,
    synthesis: &Synthesis<'_>,
    row: &mut Vec<u8>,
) -> io::Result<BatchVerdict> {
    let run_id = &admitted.run().evidence_run_id;
    let Some(line) = evidence.line_of(RunKey::from_text(run_id))? else {
        return Ok(BatchVerdict::NoEvidence);
    };
    // A large evidence file is read twice and may have been rewritten in between: the bytes must still be this run's
    // evidence.
    let Ok(evidence) = parse::evidence_in(trim(line), synthesis.dialect) else {
        return Ok(BatchVerdict::NoEvidence);
    };
    if !evidence.run_id.same_text(run_id) {
        return Ok(BatchVerdict::NoEvidence);
    }
    Ok(
        match synthesize(admitted, &evidence, place, synthesis, row) {
            Ok(()) => BatchVerdict::Exported,
            Err(refusal) => BatchVerdict::Refused(refusal),
        },
    )
}

/// The position of each run's evidence, the last one where a run has several.
#[derive(Debug)]
struct EvidenceIndex {
    spans: HashMap<RunKey, LineSpan>,
    dialect: Dialect,
    source: Source,
    scratch: Vec<u8>,
    malformed: u64,
    read_bytes: u64,
}

impl EvidenceIndex {
    fn read(
        lake: &LakeReader<'_>,
        pair: &PairPath,
        reading: &PairReading<'_>,
    ) -> io::Result<EvidenceIndex> {
        let (source, end) = match lake.open(Stream::Evidence, pair) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (Source::Held(Arc::new([])), 0)
            }
            opened => hold_if_small(opened?)?,
        };
        let mut index = EvidenceIndex {
            spans: HashMap::new(),
            dialect: reading.synthesis.dialect,
            scratch: Vec::new(),
            malformed: 0,
            read_bytes: 0,
            source: source.clone(),
        };
        let mut lines = LineReader::new(&source, end, reading.max_line_bytes);
        while let Some(line) = lines.next_line()? {
            match line.bytes.map(trim) {
                Some([]) => continue,
                Some(bytes) => index.add(line.span, bytes),
                None => index.malformed += 1,
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

    fn line_of(&mut self, key: RunKey) -> io::Result<Option<&[u8]>> {
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
