//! Owns the proof that the export equals what the stateless batch makes of the sources, both stamps left out, or the
//! first difference. It writes nothing, takes no lock and looks at no state, so it may run beside a daemon.
//!
//! **First pass.** The batch's rows, then the export's, are added up in `rows::BUCKETS` buckets by what a row came
//! from: a count and a sum of digests, in any order. Where all buckets agree, so do both sides, and that is all.
//!
//! **Closer look.** Of buckets that differ, rows and lines are gathered by key and compared one by one: some buckets
//! at a time where they hold many, so that memory follows neither the history nor what differs.
//!
//! **Beside a daemon** this raises no false alarm, because a difference counts only if it stays. A row that is early
//! (its line was written behind our cut) finds its line when the sources, read again after the export, are read to
//! their present end. A row that is late comes within the daemon's latency: whatever differs is looked at again, in
//! growing pauses, until it has been the same for [`VerifyOptions::patience`]; what a daemon that lags further behind
//! has yet to write is missing. A line that is unterminated, or whose
//! evidence is, is not taken by the daemon before its source was still for `settle`: until a second after that it is
//! reported as pending. A last row without newline is not a row yet.
//!
//! **What a difference is.** A row that is missing, doubled, forbidden or unreadable; and a row in the place of
//! another that nothing explains. Three things explain one, and they are only counted: evidence that still stands in
//! the file makes it, but a later one replaced that (superseded, or refused now); the exporter that came before would
//! have written it so (other dialect); its day-files were changed after it was written, by their change time against
//! the row's stamp (rewritten, contradicted, refused now). A row none of whose lines is there any more is orphaned.
//!
//! **What cannot be told** without history: in a day-file that was changed, if only by appending, after a row was
//! written, a row that somebody altered looks like one whose evidence was rewritten; both are counted as rewritten.
//! Evidence of which the role alone was changed in place makes its row look like one that the role never allowed:
//! it is reported as unexpected. A row of a line that is firewalled now looks the same whether the line or the firewall changed; it is counted as
//! contradicted. An invented row looks like one whose day-file was deleted: orphaned. And where one of two lines
//! that gave the same key was deleted, its row looks like a duplicate, and is called one; where its number is no
//! other row's, it is said that its line is gone. A clock that was set back
//! between a row and the rewriting of its source can make an honest row look altered.

use crate::batch::verify::error::VerifyError;

mod compare;
mod days;
pub(crate) mod diagnose;
pub mod error;
pub(crate) mod recheck;
mod result;
mod rows;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::export::for_each_pair;
use crate::batch::pair::{LakeReader, PairReading};
use crate::lake::path::export_path;
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::{pair_bytes, walk};
use crate::record::json::escape::Dialect;
use crate::record::keys::RowKey;
use crate::record::parse;
use crate::record::row::{summary, view};
use crate::record::synthesize::Synthesis;
use compare::{Finding, KeyRows, Kind, LineFact};
pub use days::DayDifferences;
use days::{Days, Place};
use recheck::Recheck;
pub use result::VerifyResult;
use rows::{ExportLine, ExportReader, Sums};

/// Rows of differing buckets that are held at a time, both sides together.
const ROWS_HELD_MAX: u64 = 200_000;

/// Somebody is told of the reading of the export after so many lines.
const LINES_PER_STEP: u64 = 1_024;

/// How to verify.
#[derive(Debug, Clone, Copy)]
pub struct VerifyOptions {
    /// A longer line is malformed.
    pub max_line_bytes: usize,
    /// How long a source must be still before the daemon takes its unterminated last line.
    pub settle: Duration,
    /// How long a difference must stay the same before it counts.
    pub patience: Duration,
}

/// What came of verifying.
#[derive(Debug)]
pub struct VerifyReport {
    /// What is printed.
    pub result: VerifyResult,
    /// The worst difference, told for a person; `None` exactly if the promise holds.
    pub first_difference: Option<String>,
    /// Directories and day-files that could not be read, as the batch would pass over them.
    pub passed_over: Vec<(PathBuf, io::Error)>,
}

/// Told of the work's steps: what is being done, bytes of it that are done, bytes in all.
pub type OnStep<'a> = &'a mut dyn FnMut(&'static str, u64, u64);

/// Whom to tell of the work's steps.
struct Steps<'a>(Option<OnStep<'a>>);

impl Steps<'_> {
    fn silent() -> Steps<'static> {
        Steps(None)
    }

    fn step(&mut self, what: &'static str, done_bytes: u64, total_bytes: u64) {
        if let Some(on_step) = &mut self.0 {
            on_step(what, done_bytes, total_bytes);
        }
    }
}

/// Verifies the export of a lake.
///
/// # Errors
/// Nothing can be said; see [`VerifyError`]. Differences are no error.
pub fn verify(
    lake: &LakeReader<'_>,
    options: &VerifyOptions,
    on_step: OnStep<'_>,
) -> Result<VerifyReport, VerifyError> {
    let reading = PairReading {
        synthesis: Synthesis {
            dialect: Dialect::Native,
            include_partial: false,
            stamp: "",
        },
        max_line_bytes: options.max_line_bytes,
    };
    let mut verification = Verification {
        lake,
        options,
        reading,
        result: VerifyResult {
            complete: true,
            ..VerifyResult::default()
        },
        worst: None,
        days: Days::default(),
        passed_over: Vec::new(),
    };
    verification.run(&mut Steps(Some(on_step)))?;
    Ok(verification.report())
}

fn export_bytes(lake: &LakeReader<'_>) -> u64 {
    let stat = lake.storage.stat(&export_path(&lake.root));
    stat.map_or(0, |stat| stat.len_bytes)
}

/// The worst difference so far: the kind, the place by which the first is known, the words.
struct FirstFailure {
    kind: Kind,
    place: Place,
    told: String,
}

struct Verification<'a> {
    lake: &'a LakeReader<'a>,
    options: &'a VerifyOptions,
    reading: PairReading<'a>,
    result: VerifyResult,
    worst: Option<FirstFailure>,
    days: Days,
    passed_over: Vec<(PathBuf, io::Error)>,
}

impl Verification<'_> {
    fn run(&mut self, steps: &mut Steps<'_>) -> Result<(), VerifyError> {
        // Sources before the export: what is in the export only is then most likely new, never old.
        let (earned, sources_bytes) = self.add_up_sources(steps)?;
        let shown = self.add_up_export(sources_bytes, steps)?;
        (self.result.earned, self.result.rows) = (earned.rows(), shown.rows());
        self.result.rows += self.result.forbidden;
        let groups = earned.differing(&shown, ROWS_HELD_MAX);
        for (at, wanted) in groups.iter().enumerate() {
            self.look_closer(wanted, steps)?;
            if self.worst.is_some() && at + 1 < groups.len() {
                self.result.complete = false;
                break;
            }
        }
        Ok(())
    }

    /// Gives how many bytes the sources have, too.
    fn add_up_sources(&mut self, steps: &mut Steps<'_>) -> Result<(Sums, u64), VerifyError> {
        let walked = walk(self.lake.storage, &self.lake.root, Stream::Scored);
        let walked = walked.map_err(|source| VerifyError::Walk {
            path: Stream::Scored.base(&self.lake.root),
            source,
        })?;
        self.passed_over.extend(walked.unreadable);
        let pairs = walked.day_files;
        let mut sums = Sums::new();
        let lake = self.lake;
        let sizes = pairs
            .iter()
            .map(|pair| pair_bytes(lake.storage, &lake.root, pair));
        let sources_bytes: u64 = sizes.sum();
        let total_bytes = sources_bytes + export_bytes(lake);
        let mut done_bytes = 0;
        let passed_over = &mut self.passed_over;
        for_each_pair(self.lake, &pairs, &self.reading, &mut |part| {
            for row in part.rows.split_inclusive(|byte| *byte == b'\n') {
                sums.add(&summary(row).expect("a row that was just made can be read"));
            }
            match part.end {
                None => return Ok(()),
                Some(Ok(totals)) => done_bytes += totals.read_bytes,
                Some(Err(fault)) if fault.is_partial => return Err(VerifyError::Pair(fault)),
                Some(Err(fault)) => passed_over.push((fault.path, fault.source)),
            }
            steps.step("verifying", done_bytes, total_bytes);
            Ok(())
        })?;
        Ok((sums, sources_bytes))
    }

    fn add_up_export(
        &mut self,
        sources_bytes: u64,
        steps: &mut Steps<'_>,
    ) -> Result<Sums, VerifyError> {
        let mut sums = Sums::new();
        let path = export_path(&self.lake.root);
        let total_bytes = sources_bytes + export_bytes(self.lake);
        let mut lines = 0_u64;
        let mut export = ExportReader::new(self.lake.storage, &path);
        export.read_on(&mut |offset, line| {
            lines += 1;
            if lines.is_multiple_of(LINES_PER_STEP) {
                steps.step("verifying", sources_bytes + offset, total_bytes);
            }
            let at = format_args!("at byte {offset} of {}", path.display());
            match line {
                ExportLine::Row(row) => sums.add(&row),
                ExportLine::Forbidden(row) => self.fail_at(Kind::Forbidden, offset, || {
                    let category = row.quality_score;
                    format!("forbidden: the row {at} has the quality_score {category:?}")
                }),
                ExportLine::Unreadable(fault) => {
                    self.fail_at(Kind::Unreadable, offset, || {
                        format!("unreadable: the line {at} is no row: {fault}")
                    });
                }
            }
        })?;
        self.result.torn_bytes = export.torn_bytes;
        Ok(sums)
    }

    fn look_closer(&mut self, wanted: &[bool], steps: &mut Steps<'_>) -> Result<(), VerifyError> {
        let (lake, options, reading) = (self.lake, self.options, self.reading);
        let mut look = Recheck::new(lake, &reading, options, wanted);
        let judged = look.judge(steps)?;
        self.result.inconclusive += judged.inconclusive;
        for (key, finding) in judged.findings {
            self.take(key, finding, &look)?;
        }
        for (path, error) in std::mem::take(&mut look.passed_over) {
            if !self.passed_over.iter().any(|(known, _)| *known == path) {
                self.passed_over.push((path, error));
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        key: RowKey,
        finding: Finding,
        look: &Recheck<'_>,
    ) -> Result<(), VerifyError> {
        let facts = &look.keys[&key];
        let line = finding.line.and_then(|line| facts.lines.get(line));
        let pair = line
            .or(facts.lines.first())
            .map(|line| Arc::clone(&line.pair));
        if !finding.kind.is_failure() {
            self.result.count(finding.kind);
            self.days.count(pair.as_deref(), finding.kind);
            return Ok(());
        }
        let place = match (finding.row, finding.line) {
            (Some(row), _) => (None, facts.rows[row].offset),
            (None, Some(line)) => {
                let line = &facts.lines[line];
                (Some(Arc::clone(&line.pair)), line.span.offset)
            }
            (None, None) => (None, 0),
        };
        if self.count_failure(finding.kind, pair.as_deref(), &place) {
            let told = self.tell(facts, finding, look)?;
            self.keep(finding.kind, pair.as_deref(), place, told);
        }
        Ok(())
    }

    /// Counts a failure, and says whether it is worth being put into words: the worst so far, or the first of its day.
    fn count_failure(&mut self, kind: Kind, pair: Option<&PairPath>, place: &Place) -> bool {
        self.result.count(kind);
        self.days.count(pair, kind);
        self.is_worst(kind, place) || self.days.is_first(pair, kind, place)
    }

    fn keep(&mut self, kind: Kind, pair: Option<&PairPath>, place: Place, told: String) {
        if self.days.is_first(pair, kind, &place) {
            self.days.keep(pair, kind, place.clone(), told.clone());
        }
        if self.is_worst(kind, &place) {
            self.worst = Some(FirstFailure { kind, place, told });
        }
    }

    /// A failure of a line of the export alone.
    fn fail_at(&mut self, kind: Kind, offset: u64, told: impl FnOnce() -> String) {
        let place = (None, offset);
        if self.count_failure(kind, None, &place) {
            self.keep(kind, None, place, told());
        }
    }

    fn is_worst(&self, kind: Kind, place: &Place) -> bool {
        let worst = self.worst.as_ref();
        worst.is_none_or(|worst| (kind, place) < (worst.kind, &worst.place))
    }

    fn tell(
        &self,
        facts: &KeyRows,
        finding: Finding,
        look: &Recheck<'_>,
    ) -> Result<String, VerifyError> {
        let line = finding.line.and_then(|line| facts.lines.get(line));
        let line = line.or(facts.lines.first());
        let verdict = line.map_or("", |line| line.verdict.code());
        let line = line.map_or(String::new(), |line| self.name_line(line));
        let Some(row) = finding.row.map(|row| &facts.rows[row]) else {
            return Ok(format!(
                "missing: {line} earns a row that is not in the export"
            ));
        };
        let bytes = look.export.row_at(row.offset)?;
        let run = view(&bytes).map_or_else(
            |_| "the row".to_owned(),
            |row| format!("the row {:?} of run {:?}", row.id, row.source_run_id),
        );
        let row = format!(
            "{run} at byte {} of {}",
            row.offset,
            export_path(&self.lake.root).display()
        );
        Ok(match finding.kind {
            Kind::Duplicate => {
                let rows = facts.rows.len();
                let earned = (facts.lines.iter()).filter(|line| line.digest.is_some());
                let earned = match earned.count() {
                    1 => "1 line earns".to_owned(),
                    lines => format!("{lines} lines earn"),
                };
                let why = finding.row.map_or("", |at| facts.why_surplus(at));
                format!(
                    "duplicate: {row} is one of {rows} that only {earned}; {line} is the first{why}"
                )
            }
            Kind::Altered => {
                format!(
                    "altered: {row} is not the row that {line} earns, and its sources did not change since"
                )
            }
            _ => format!("unexpected: {row} is there, but {line} is refused ({verdict})"),
        })
    }

    /// Where a line lies and of which run it is, as far as it can still be read.
    fn name_line(&self, line: &LineFact) -> String {
        let run = self.lake.open(Stream::Scored, &line.pair).ok();
        let run = run.and_then(|(source, _)| {
            let mut scratch = Vec::new();
            let body = source.read_span(line.span, &mut scratch).ok()?;
            let run = parse::scored_run(parse::trim(body)).ok()?;
            Some(format!(" of run {:?}", run.evidence_run_id))
        });
        format!(
            "the line{} at byte {} of {} (record {})",
            run.unwrap_or_default(),
            line.span.offset,
            line.pair.path(&self.lake.root, Stream::Scored).display(),
            line.index
        )
    }

    fn report(mut self) -> VerifyReport {
        self.result.equal = self.worst.is_none();
        (self.result.days, self.result.unlisted) = self.days.into_told();
        self.result.skipped = self.passed_over.len() as u64;
        VerifyReport {
            result: self.result,
            first_difference: self.worst.map(|worst| worst.told),
            passed_over: self.passed_over,
        }
    }
}
