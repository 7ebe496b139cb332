//! Reads one pair of day-files from front to end without any state and yields each scored line with its verdict and
//! its row, if it has one. `export`, `verify` and `explain` read pairs with it.
//!
//! Memory: that of the index of the evidence, and the longest line.

use std::io;
use std::ops::{AddAssign, ControlFlow};
use std::path::PathBuf;
use std::sync::Arc;

use crate::batch::evidence_index::EvidenceIndex;
pub use crate::batch::evidence_index::HELD_BYTES_MAX;
pub use crate::batch::lake_reader::LakeReader;
use crate::batch::line_reader::{LineReader, LineSpan, Source};
use crate::lake::path::{PairPath, Stream};
use crate::pair::orders::Orders;
use crate::pair::verdict::{PerVerdict, Verdict, VerdictKind};
use crate::record::firewall::{Admission, AdmittedRun, admit};
use crate::record::json::escape::Dialect;
use crate::record::keys::RunKey;
use crate::record::parse;
use crate::record::parse::{ParseError, ScoredRun, trim};
use crate::record::synthesize::{Refusal, RowPlace, Synthesis, synthesize};

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
    /// Another dialect in which each row is made too.
    pub other_dialect: Option<Dialect>,
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
    /// The row in the other dialect; empty unless both exporters write one.
    pub other_row: &'l [u8],
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
    /// Bytes read from the scored day-file.
    pub scored_bytes: u64,
    /// Bytes read from the evidence day-file.
    pub evidence_bytes: u64,
    /// Rows that later lines overrule; known only if they are selected or left out.
    pub overruled: u64,
    /// The first line that exceeds the limit, malformed for that: its day-file and offset.
    pub overlong: Option<(Stream, u64)>,
    /// Set if evidence that was read again is not what it was: its day-file was rewritten meanwhile.
    pub is_evidence_changed: bool,
}

impl PairTotals {
    /// Returns the bytes read from both day-files.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.scored_bytes + self.evidence_bytes
    }
}

/// An open day-file.
#[derive(Debug, Clone)]
pub struct OpenDayFile {
    /// Its path, for messages.
    pub path: PathBuf,
    /// Its bytes.
    pub source: Source,
    /// The length up to which it is read, bytes.
    pub end: u64,
}

impl OpenDayFile {
    /// Returns the day-file that a pair without evidence has.
    #[must_use]
    pub fn absent(path: PathBuf) -> OpenDayFile {
        OpenDayFile {
            path,
            source: Source::Held(Arc::new([])),
            end: 0,
        }
    }
}

/// The two day-files of a pair, open.
#[derive(Debug, Clone)]
pub struct OpenPair<'p> {
    /// The path of the pair, to which orders refer.
    pub path: &'p [u8],
    /// `NAME.jsonl`, which its rows have in `id`.
    pub name: &'p [u8],
    /// The scored day-file.
    pub scored: OpenDayFile,
    /// The evidence day-file.
    pub evidence: OpenDayFile,
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
    let read_error = |stream: Stream| {
        move |source: io::Error| PairReadError {
            path: pair.path(&lake.root, stream),
            source,
            is_partial: false,
        }
    };
    let scored = lake.open(Stream::Scored, pair);
    let scored = scored.map_err(read_error(Stream::Scored))?;
    let evidence = match lake.open(Stream::Evidence, pair) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Source::Held(Arc::new([])), 0),
        opened => opened.map_err(read_error(Stream::Evidence))?,
    };
    let open = |stream, (source, end)| OpenDayFile {
        path: pair.path(&lake.root, stream),
        source,
        end,
    };
    let opened = OpenPair {
        path: pair.as_bytes(),
        name: pair.name_bytes(),
        scored: open(Stream::Scored, scored),
        evidence: open(Stream::Evidence, evidence),
    };
    read_open_pair(&opened, reading, on_line)
}

/// As [`read_pair`], of day-files that are open, each up to its end.
///
/// # Errors
/// One of the day-files cannot be read.
pub fn read_open_pair(
    pair: &OpenPair<'_>,
    reading: &PairReading<'_>,
    on_line: &mut dyn FnMut(&JudgedLine<'_>) -> ControlFlow<()>,
) -> Result<PairTotals, PairReadError> {
    let read_error = |file: &OpenDayFile, is_partial: bool| {
        let path = file.path.clone();
        move |source: io::Error| PairReadError {
            path,
            source,
            is_partial,
        }
    };
    let evidence = EvidenceIndex::read(&pair.evidence, reading);
    let mut evidence = evidence.map_err(read_error(&pair.evidence, false))?;

    let mut lines = LineReader::new(&pair.scored.source, pair.scored.end, reading.max_line_bytes);
    let mut totals = PairTotals::default();
    totals.counts.malformed_evidence = evidence.malformed;
    let (mut row, mut other_row) = (Vec::new(), Vec::new());
    let mut is_partial = false;
    while let Some(line) = lines
        .next_line()
        .map_err(|error| read_error(&pair.scored, is_partial)(error))?
    {
        let run = match line.bytes.map(trim) {
            Some([]) => continue,
            Some(bytes) => parse::scored_run_in(bytes, reading.synthesis.dialect),
            None => {
                let at = (Stream::Scored, line.span.offset);
                totals.overlong.get_or_insert(at);
                Err(too_long(reading.max_line_bytes))
            }
        };
        let place = RowPlace {
            day_file_name: pair.name,
            index: totals.counts.records_read(),
        };
        row.clear();
        let verdict = match &run {
            Err(malformed) => BatchVerdict::Malformed(*malformed),
            Ok(run) if is_ordered(run, pair, reading) => BatchVerdict::Refused(Refusal::Ordered),
            Ok(run) => judge(run, &mut evidence, &place, &reading.synthesis, &mut row)
                .map_err(|error| read_error(&pair.evidence, is_partial)(error))?,
        };
        totals.counts.verdicts[verdict.kind()] += 1;
        is_partial = true;
        other_row.clear();
        if let (BatchVerdict::Exported, Some(bytes)) = (verdict, line.bytes) {
            join_other(reading, bytes, &mut evidence, &place, &mut other_row)
                .map_err(|error| read_error(&pair.evidence, is_partial)(error))?;
        }
        let judged = JudgedLine {
            span: line.span,
            index: run.is_ok().then_some(place.index),
            run: run.as_ref().ok(),
            verdict,
            row: &row,
            other_row: &other_row,
        };
        if on_line(&judged).is_break() {
            break;
        }
    }
    totals.scored_bytes = lines.read_bytes();
    totals.evidence_bytes = evidence.read_bytes;
    totals.overlong = totals.overlong.or(evidence.overlong);
    totals.is_evidence_changed = evidence.is_changed;
    Ok(totals)
}

/// Returns whether a standing order is on a run that the category admits.
fn is_ordered(run: &ScoredRun<'_>, pair: &OpenPair<'_>, reading: &PairReading<'_>) -> bool {
    let dialect = reading.synthesis.dialect;
    !reading.orders.is_empty()
        && dialect == Dialect::Native
        && reading
            .orders
            .apply_to(RunKey::from_text(&run.evidence_run_id), pair.path)
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

/// Appends the row that a line has in the other dialect, if one is asked for and it has one.
fn join_other(
    reading: &PairReading<'_>,
    line: &[u8],
    evidence: &mut EvidenceIndex,
    place: &RowPlace<'_>,
    row: &mut Vec<u8>,
) -> io::Result<()> {
    let Some(dialect) = reading.other_dialect else {
        return Ok(());
    };
    let synthesis = Synthesis {
        dialect,
        include_partial: false,
        stamp: "",
    };
    if let Ok(run) = parse::scored_run_in(trim(line), dialect)
        && let Admission::Admitted(admitted) = admit(&run, Dialect::Native)
    {
        join(&admitted, evidence, place, &synthesis, row)?;
    }
    Ok(())
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
    let found = parse::evidence_in(trim(line), synthesis.dialect);
    let Some(found) = found.ok().filter(|found| found.run_id.same_text(run_id)) else {
        evidence.is_changed = true;
        return Ok(BatchVerdict::NoEvidence);
    };
    Ok(match synthesize(admitted, &found, place, synthesis, row) {
        Ok(()) => BatchVerdict::Exported,
        Err(refusal) => BatchVerdict::Refused(refusal),
    })
}
