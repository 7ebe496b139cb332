//! Verifies that the export equals the rows that the stateless batch makes of the sources, timestamps excluded.
//! Reads only the sources and the export and takes no lock, so it can run while a daemon works.
//!
//! **First pass.** The rows of the batch and of the export are summed in `rows::BUCKETS` buckets by row key: a count
//! and an order-independent sum of digests. If all buckets agree, both sides are equal and the work is done.
//!
//! **Dialect.** If many rows differ and a sample of them is in the bytes of the previous exporter, the sources are summed
//! once more in these bytes, and buckets that agree then need no recheck.
//!
//! **Recheck.** For buckets that differ, rows and lines are collected by key and compared one by one, in slices of
//! bounded size: several buckets, or a part of the rows of one bucket, even of one key. Memory depends on neither the
//! history, nor the number of differences, nor how many lines share a key; the lake is read once for each slice.
//!
//! **Concurrent daemon.** A difference counts only if it persists, so a running daemon causes no false alarm. A row
//! whose line was appended after the sources were read finds its line when the sources are read again after the
//! export. A row that the daemon has yet to write arrives within its latency: differences are rechecked, in growing
//! pauses, until they have been unchanged for [`VerifyOptions::patience`]. Without a daemon that holds the root's lock,
//! and without a change of the files between two reads, there is nothing to wait for. Rows that a daemon with a longer lag has
//! yet to write are missing. A daemon takes an unterminated line, scored or evidence, only after its file has been
//! unchanged for `settle`; until one second after that the line counts as pending. A last row without a newline is
//! not yet a row.
//!
//! **Differences.** A failure is a missing, duplicate, forbidden or unreadable row, or an unexplained row in the
//! place of another. Three explanations turn a failure into a counted exception: evidence in the file makes the row
//! but later evidence replaced it (superseded, or refused now); the previous exporter would have written it (other
//! dialect); its day-files changed after it was written, judged by their change time and the row's timestamp
//! (rewritten, contradicted, refused now). A row without any line left is orphaned. A timestamp that is later than that
//! of a later row, or than the last change of the export, is of a wrong clock: any change explains its row.
//!
//! **Altered rows.** Day-files grow all day, so nearly all of them change after their first rows, and a changed day-file
//! alone explains no row. It explains only a row that did not change itself, by the hashes that the state has of
//! each segment of the export, or because a running daemon, which compares them, has not stopped. If a byte of the row's
//! segments changed, the row counts as altered. Without a state nothing distinguishes an altered row from a rewritten
//! source: the row is undetermined, and the result not complete.
//!
//! **Limits**, since no history is read. The hashes are as old as the state: in an export that a start adopted, a row
//! that was altered before looks like one whose source was rewritten. A running daemon notices a change of the export
//! with its next commit or full scan, and needs time to compare all of it. A row whose evidence had only its role
//! changed in place cannot be distinguished from one that the role never allowed; both are unexpected. A row of a
//! firewalled line counts as contradicted both when the line and when the firewall changed. An invented row counts as
//! orphaned, like a row whose day-file was deleted. If one of two lines with the same key was deleted, its row counts as
//! a duplicate; the text names the deletion if no other row has its index. Only if its whole day-file was deleted and the
//! state of the daemon can be read, its row counts as orphaned. A day-file that was rewritten after the clock was set
//! back can make a genuine row look altered, until a row is written.

mod collect;
mod compare;
mod day_file;
mod days;
mod describe;
mod diagnose;
mod dialect;
mod elsewhere;
pub mod error;
mod explain;
mod fact;
mod few;
mod findings;
mod ledger;
mod ledger_rows;
mod ordered;
mod parts_made;
mod recheck;
mod result;
mod rows;
mod sought;
mod stamps;
mod sums;
mod tally;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::pair::{LakeReader, PairReading, RowSelection};
use crate::batch::verify::error::VerifyError;
use crate::console::progress::OnStep;
use crate::lake::path::Stream;
use crate::lake::path::{export_path, ledger_path};
use crate::pair::orders::Orders;
use crate::record::json::escape::Dialect;
use crate::record::keys::LocalRowKey;
use crate::record::synthesize::Synthesis;
use crate::store::ledger::read_orders;
use crate::store::written::RowBytes;
pub use days::DayDifferences;
use days::{Days, Place};
use elsewhere::Elsewhere;
pub use elsewhere::ElsewhereRun;
use ordered::OrderedRuns;
use recheck::Recheck;
pub use result::VerifyResult;
pub(super) use rows::max_row_bytes;
use rows::{Group, Slice};
use stamps::Stamps;
use tally::{Kind, Tally};

/// Default maximum number of differing rows in memory, both sides together.
pub const ROWS_HELD_MAX: u64 = 170_000;

/// Lines of the export between two progress reports.
const LINES_PER_STEP: u64 = 1_024;
/// Keys with duplicates whose day-files are looked up at once.
const DUPLICATED_KEYS_MAX: usize = 1_024;

/// The options of a verification.
#[derive(Debug, Clone, Copy)]
pub struct VerifyOptions {
    /// Maximum length of a line in bytes; longer lines are malformed.
    pub max_line_bytes: usize,
    /// Time without a change after which the daemon takes the unterminated last line of a source.
    pub settle: Duration,
    /// Time that a difference must persist unchanged before it counts.
    pub patience: Duration,
    /// About the maximum number of differing rows in memory, both sides together.
    pub rows_held_max: u64,
}

/// The work of a verification that found differences, which tests bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyWork {
    /// Slices of the differing rows; the lake is read once for each.
    pub slices: u64,
    /// The most rows and lines that were in memory.
    pub facts_held: u64,
    /// Rows made to explain differences.
    pub rows_made: u64,
}

/// The report of a verification.
#[derive(Debug)]
pub struct VerifyReport {
    /// The printed result.
    pub result: VerifyResult,
    /// Description of the worst failure; `None` exactly if the export is correct.
    pub first_difference: Option<String>,
    /// Description of the first row of [`VerifyResult::undetermined`].
    pub first_undetermined: Option<String>,
    /// Unreadable directories and day-files, which the batch would skip too, with their errors.
    pub skipped: Vec<(PathBuf, io::Error)>,
    /// Ids of runs with an effective row that another pair refuses, in order.
    pub rejected_elsewhere: Vec<String>,
    /// The work done.
    pub work: VerifyWork,
}

/// An optional receiver of progress reports.
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

/// What is known of rows of the export, by their offsets, and of its ledger, apart from these files themselves.
#[derive(Clone, Copy)]
pub struct KnownRows<'a> {
    /// Returns which of the rows belong to lines of deleted day-files, as far as that is known.
    pub deleted: &'a dyn Fn(&[u64]) -> BTreeSet<u64>,
    /// Returns for each of the rows whether it is as it was written.
    pub written: &'a dyn Fn(&[u64]) -> Vec<RowBytes>,
    /// Returns what the ledger lacks of all that was written to it, or that it was changed.
    pub ledger: &'a dyn Fn() -> Option<String>,
}

/// Nothing is known.
const UNKNOWN_ROWS: KnownRows<'static> = KnownRows {
    deleted: &|_| BTreeSet::new(),
    written: &|rows| vec![RowBytes::Unknown; rows.len()],
    ledger: &|| None,
};

/// Verifies the export of a lake without a state.
///
/// # Errors
/// Returns a [`VerifyError`] if no result can be determined. Differences are not an error.
pub fn verify(
    lake: &LakeReader<'_>,
    options: &VerifyOptions,
    on_step: OnStep<'_>,
) -> Result<VerifyReport, VerifyError> {
    verify_knowing(lake, options, UNKNOWN_ROWS, on_step)
}

/// As [`verify`], with what a state knows. A surplus row of a deleted day-file counts as orphaned.
///
/// # Errors
/// As [`verify`].
pub fn verify_knowing(
    lake: &LakeReader<'_>,
    options: &VerifyOptions,
    known: KnownRows<'_>,
    on_step: OnStep<'_>,
) -> Result<VerifyReport, VerifyError> {
    let path = ledger_path(&export_path(&lake.root));
    let orders = match read_orders(lake.storage, &path) {
        // The fold of the ledger names the damage.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Orders::default(),
        read => read.map_err(|source| VerifyError::Ledger { path, source })?,
    };
    let reading = PairReading {
        orders: &orders,
        selection: RowSelection::AllThenOverruled,
        other_dialect: None,
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
        known,
        reading,
        result: VerifyResult {
            complete: true,
            ..VerifyResult::default()
        },
        worst: None,
        first_undetermined: None,
        days: Days::default(),
        skipped: BTreeMap::new(),
        work: VerifyWork::default(),
        duplicated: Vec::new(),
        elsewhere: Elsewhere::default(),
        ordered: OrderedRuns::default(),
        without_overruled: false,
        stamps: Arc::default(),
    };
    verification.run(&mut Steps(Some(on_step)))?;
    Ok(verification.report())
}

fn export_bytes(lake: &LakeReader<'_>) -> u64 {
    let stat = lake.storage.stat(&export_path(&lake.root));
    stat.map_or(0, |stat| stat.len_bytes)
}

/// The worst failure so far; of equal kinds the one with the first place.
struct FirstFailure {
    kind: Kind,
    place: Place,
    description: String,
}

struct Verification<'a> {
    lake: &'a LakeReader<'a>,
    options: &'a VerifyOptions,
    known: KnownRows<'a>,
    reading: PairReading<'a>,
    result: VerifyResult,
    worst: Option<FirstFailure>,
    first_undetermined: Option<String>,
    days: Days,
    skipped: BTreeMap<PathBuf, io::Error>,
    work: VerifyWork,
    /// Keys with duplicates whose findings were not added yet.
    duplicated: Vec<Tally>,
    /// Runs that other pairs concern.
    elsewhere: Elsewhere,
    /// Runs with a standing order.
    ordered: OrderedRuns,
    /// Whether the export may lack rows that later lines overrule: a rebuild left them out.
    without_overruled: bool,
    /// The timestamps of the export.
    stamps: Arc<Stamps>,
}

impl Verification<'_> {
    fn run(&mut self, steps: &mut Steps<'_>) -> Result<(), VerifyError> {
        // Sources first: a row that only the export has is then most likely new.
        let (expected, sources_bytes) = self.sum_sources(steps)?;
        let ledger = self.read_ledger()?;
        self.without_overruled = ledger.is_of_effective_rows;
        let existing = self.sum_export(sources_bytes, &ledger, steps)?;
        if existing.all.rows() > 0 {
            self.skip_missing_streams();
        }
        (self.result.earned, self.result.rows) = (expected.all.rows(), existing.all.rows());
        if self.without_overruled {
            let present = existing.out.rows().min(self.result.overruled);
            self.result.left_out = self.result.overruled - present;
            self.result.overruled = present;
        }
        self.result.overruled += std::mem::take(&mut self.ordered).overruled();
        self.result.rows += self.result.forbidden + self.result.ordered;
        let due = match self.without_overruled {
            // Rows that were overruled since are in the export, and there all of a bucket are compared.
            true => expected.all.without_absent(&expected.out, &existing.out),
            false => expected.all.clone(),
        };
        let due = self.settle_other_dialect(due, &existing.all, steps)?;
        for group in due.differing(&existing.all, self.options.rows_held_max) {
            self.recheck(&group, steps)?;
        }
        self.add_duplicated()?;
        if ledger.is_there {
            self.recheck_ledger(&expected.effective, &existing.effective, steps)?;
        }
        self.find_evidence_elsewhere()
    }

    /// Skips a stream whose directory does not exist although the export has rows: its file system may not be mounted.
    fn skip_missing_streams(&mut self) {
        for stream in Stream::ALL {
            let base = stream.base(&self.lake.root);
            let stat = self.lake.storage.stat(&base);
            if let Err(error) = stat.map(|_| ()) {
                self.skipped.insert(base, error);
            }
        }
    }

    fn walk_error(&self, source: io::Error) -> VerifyError {
        VerifyError::Walk {
            path: Stream::Scored.base(&self.lake.root),
            source,
        }
    }

    /// Compares the rows of a group one by one. Only a key of several slices needs a tally until the last of these.
    fn recheck(&mut self, group: &Group, steps: &mut Steps<'_>) -> Result<(), VerifyError> {
        let (lake, options, reading) = (self.lake, self.options, self.reading);
        let mut tallies: HashMap<LocalRowKey, Tally> = HashMap::new();
        let mut unstable = HashSet::new();
        for part in 0..group.parts {
            let mut recheck = Recheck::new(lake, &reading, options, Slice { group, part });
            recheck.without_overruled = self.without_overruled;
            recheck.written_rows = self.known.written;
            recheck.stamps = Arc::clone(&self.stamps);
            unstable.extend(recheck.collect(steps)?);
            self.work.slices += 1;
            self.work.facts_held = self.work.facts_held.max(recheck.facts_held);
            let rows_made = recheck.explain(&mut |key, add| {
                if group.parts > 1 {
                    add(tallies.entry(key).or_default());
                    return Ok(());
                }
                let mut tally = Tally::default();
                add(&mut tally);
                self.add_findings(tally)
            })?;
            self.work.rows_made += rows_made;
            for (path, error) in std::mem::take(&mut recheck.skipped) {
                self.skipped.entry(path).or_insert(error);
            }
        }
        self.result.inconclusive += unstable.len() as u64;
        tallies.retain(|key, _| !unstable.contains(key));
        tallies
            .into_values()
            .try_for_each(|tally| self.add_findings(tally))
    }

    fn report(mut self) -> VerifyReport {
        self.result.equal = self.worst.is_none();
        self.result.complete &= self.skipped.is_empty();
        self.result.complete &= self.result.inconclusive + self.result.undetermined == 0;
        (self.result.days, self.result.unlisted) = self.days.into_listed();
        self.result.skipped = self.skipped.len() as u64;
        self.result.contradicted += self.result.overruled;
        self.result.elsewhere_unexamined = self.elsewhere.unexamined;
        let rejected_elsewhere = self.elsewhere.rejected.keys().cloned().collect();
        let (elsewhere, rejected, accepted) = self.elsewhere.into_result();
        self.result.elsewhere = elsewhere;
        self.result.rejected_elsewhere = rejected;
        self.result.accepted_elsewhere = accepted;
        VerifyReport {
            result: self.result,
            first_difference: self.worst.map(|worst| worst.description),
            first_undetermined: self.first_undetermined,
            skipped: self.skipped.into_iter().collect(),
            rejected_elsewhere,
            work: self.work,
        }
    }
}
