//! Explains a run: each line that concerns it, the verdict with the rule and the value that decided it, its row, or
//! what it waits for. Verdicts come from the state; values are read again from the lines, and a line that changed
//! since is marked. Whether a row is effective comes from the retraction ledger, of which the rows that are out are listed too.

mod deleted;
mod ledger;
mod lines;
pub(crate) mod suggest;

use std::io;
use std::path::Path;

use crate::config::as_typed;
use crate::lake::path::{PairPath, Stream, ledger_path};
use crate::lake::source::Source;
use crate::pair::index::{EvidenceLocation, ScoredLine};
use crate::pair::verdict::Verdict;
use crate::platform::storage::{Storage, StorageFile};
use crate::query::explain::ledger::RunInLedger;
use crate::query::explain::lines::LinePage;
use crate::query::line_numbers::{for_each_line, line_numbers};
use crate::record::keys::RunKey;
use crate::record::ledger::Cause;
use crate::record::parse::{self, Evidence};
use crate::record::row;
use crate::record::timestamp::stamp;
use crate::store::export::row_at;
use crate::store::snapshot::{RunOccurrences, StateSnapshot, pair_path, stream_name};
use crate::store::state::error::StateError;

pub use deleted::{DeletedRows, deleted_rows};
pub use ledger::{Page, RetractedRow, RetractedRows, Retraction, retracted_rows};
pub use lines::{Explanation, LineExplanation, RowRange};

/// The inputs of an explanation.
pub struct ExplainContext<'a> {
    /// The file system.
    pub storage: &'a dyn Storage,
    /// The root, without links in it.
    pub root: &'a Path,
    /// The export.
    pub export_path: &'a Path,
    /// A longer line is a dead letter.
    pub line_bytes_max: u64,
    /// The state at one moment.
    pub state: &'a StateSnapshot,
}

/// Explains a run: its lines, those of a page of them. The cost of a line does not depend on their number.
///
/// # Errors
/// The state cannot be read. An unreadable day-file makes the explanation shorter.
pub fn explain(
    run_id: &str,
    page: Page,
    context: &ExplainContext<'_>,
) -> Result<Explanation, StateError> {
    let found = context.state.find_run(RunKey::from_run_id(run_id))?;
    let export = context.storage.open_read(context.export_path).ok();
    let ledger_path = ledger_path(context.export_path);
    let in_ledger = may_be_in_ledger(run_id, &found, context)
        .then(|| RunInLedger::read(context.storage, &ledger_path, run_id).ok())
        .flatten();
    let with_evidence: Vec<PairPath> = found
        .iter()
        .filter(|pair| pair.evidence.is_some())
        .filter_map(|pair| pair_path(&pair.pair.checkpoint))
        .collect();
    let mut lines = LinePage {
        skip: page.skip,
        limit: page.limit,
        ..LinePage::default()
    };
    for in_pair in &found {
        let Some(path) = pair_path(&in_pair.pair.checkpoint) else {
            continue;
        };
        let one = PairExplainer {
            run_id,
            path: &path,
            in_pair,
            context,
            export: export.as_deref(),
            in_ledger: in_ledger.as_ref(),
            with_evidence: &with_evidence,
        };
        one.scored_lines(&mut lines);
        one.evidence_lines(&mut lines);
    }
    let (retracted, orders) = match in_ledger {
        Some(in_ledger) => in_ledger.without_lines(run_id, &found, &mut lines),
        None => Default::default(),
    };
    let known = lines.is_any_known || !orders.is_empty();
    let near = if known {
        Vec::new()
    } else {
        suggest::near(run_id, context)?
    };
    Ok(Explanation {
        run_id: run_id.to_owned(),
        known,
        lines: lines.lines,
        more: lines.more,
        retracted,
        orders,
        rows_unclaimed: context.state.claimable,
        near,
    })
}

/// Returns whether the ledger may have something of a run: a row of one of its lines or one that no line has, or an order.
/// The page asks for many runs at a time, and a ledger may be long.
fn may_be_in_ledger(run_id: &str, found: &[RunOccurrences], context: &ExplainContext<'_>) -> bool {
    let state = context.state;
    let has_row = |entry: &ScoredLine| matches!(entry.verdict, Verdict::Exported { .. });
    state.claimable > 0
        || state.orders.has_run(RunKey::from_run_id(run_id))
        || found.iter().flat_map(|pair| &pair.entries).any(has_row)
}

struct PairExplainer<'a> {
    run_id: &'a str,
    path: &'a PairPath,
    in_pair: &'a RunOccurrences,
    context: &'a ExplainContext<'a>,
    export: Option<&'a dyn StorageFile>,
    /// What the ledger has of the run; `None` where it cannot be read, or need not be.
    in_ledger: Option<&'a RunInLedger>,
    /// The pairs that have evidence of the run.
    with_evidence: &'a [PairPath],
}

impl PairExplainer<'_> {
    fn source(&self, stream: Stream) -> Option<Source> {
        let ExplainContext { storage, root, .. } = self.context;
        Source::open(*storage, root, stream, self.path)
            .ok()
            .flatten()
    }

    fn is_deleted(&self, stream: Stream) -> bool {
        let ExplainContext { storage, root, .. } = self.context;
        matches!(Source::open(*storage, root, stream, self.path), Ok(None))
    }

    fn line(&self, stream: Stream, offset: u64, len_bytes: u64) -> LineExplanation {
        LineExplanation {
            stream: stream_name(stream).to_owned(),
            day_file: self.path.to_string(),
            offset,
            len_bytes,
            ..LineExplanation::default()
        }
    }

    fn scored_lines(&self, page: &mut LinePage) {
        let entries = self.in_pair.entries.iter();
        let entries: Vec<_> = entries.filter(|_| page.has_next()).collect();
        let offsets: Vec<u64> = entries.iter().map(|entry| entry.offset).collect();
        let source = self.source(Stream::Scored);
        let source = source.as_ref();
        let numbers = source
            .and_then(|source| line_numbers(source, &offsets).ok())
            .unwrap_or_default();
        let evidence = self.evidence_now();
        let evidence = evidence
            .as_ref()
            .and_then(|line| parse::evidence(line).ok());
        let deleted = self.is_deleted(Stream::Scored);
        for (n, entry) in entries.into_iter().enumerate() {
            let category = self.category_now(source, entry);
            let mut line = self.line(Stream::Scored, entry.offset, u64::from(entry.len_bytes));
            line.line = numbers.get(n).copied();
            line.changed_since = source.is_some() && category.is_none();
            line.deleted = deleted;
            self.decide(entry, category, evidence.as_ref(), &mut line);
            if let Some(retraction) = &mut line.retraction {
                retraction.category = self.overruling_category(source, retraction);
            }
            page.lines.push(line);
        }
    }

    /// Returns the category of a scored line as it is in the file now, if it is still the run's.
    fn category_now(&self, source: Option<&Source>, entry: &ScoredLine) -> Option<String> {
        category_of(source?, entry.offset, entry.len_bytes, self.run_id).ok()?
    }

    fn decide(
        &self,
        entry: &ScoredLine,
        category: Option<String>,
        evidence: Option<&Evidence<'_>>,
        line: &mut LineExplanation,
    ) {
        let (rule, value) = match (entry.verdict, entry.verdict.refusal()) {
            (_, Some(refusal)) => (refusal.rule(), refusal.value(category, evidence)),
            (Verdict::Exported { .. }, None) => (EXPORTED, category),
            (Verdict::Waiting { .. }, None) => {
                // With evidence it would not wait, unless a line is unreadable.
                let rule = self.in_pair.evidence.map_or(WAITING, |_| UNREADABLE);
                (rule, Some(self.run_id.to_owned()))
            }
            (Verdict::Overruled, None) => (OVERRULED, category),
            (_, None) => (FIREWALLED, category),
        };
        (entry.verdict.kind().code()).clone_into(&mut line.verdict);
        line.rule = as_typed(rule);
        line.value = value;
        match entry.verdict {
            Verdict::Exported {
                row_offset,
                superseded,
                contradicted,
                ..
            } => {
                line.row = Some(self.row(row_offset));
                (line.superseded, line.contradicted) = (superseded, contradicted);
                if let Some(ledger) = self.in_ledger {
                    line.retraction = ledger.retraction(row_offset);
                    line.effective = Some(line.retraction.is_none());
                }
            }
            Verdict::Ordered { .. } => {
                let path = self.path.to_string();
                line.order = self.in_ledger.and_then(|ledger| ledger.order_in(&path));
            }
            Verdict::Waiting { since_s, .. } => {
                line.waiting_since = Some(stamp(since_s * 1_000));
                line.waits_for = Some(self.path.to_string());
                let others = self.with_evidence.iter().filter(|path| *path != self.path);
                line.evidence_elsewhere = others.map(ToString::to_string).collect();
            }
            _ => {}
        }
    }

    /// Returns the category of the line that overrules a row, as it is in the file now.
    fn overruling_category(
        &self,
        source: Option<&Source>,
        retraction: &Retraction,
    ) -> Option<String> {
        if retraction.cause == Cause::Operator.code() {
            return None;
        }
        let (entries, offset) = (&self.in_pair.entries, retraction.line_offset?);
        let found = entries.binary_search_by_key(&offset, |entry| entry.offset);
        self.category_now(source, &entries[found.ok()?])
    }

    /// Returns the line of the evidence that counts, as it is in the file now, if it is still the run's.
    fn evidence_now(&self) -> Option<Vec<u8>> {
        let EvidenceLocation { offset, len_bytes } = self.in_pair.evidence?;
        let line = self
            .source(Stream::Evidence)?
            .line(offset, len_bytes)
            .ok()?;
        let line = parse::trim(&line);
        let evidence = parse::evidence(line).ok()?;
        (evidence.run_id.decode() == self.run_id).then(|| line.to_vec())
    }

    /// Every evidence line with the id that was read; the index knows the last one alone.
    fn evidence_lines(&self, page: &mut LinePage) {
        let Some(counts) = self.in_pair.evidence else {
            return;
        };
        let mut is_seen = false;
        let source = self.source(Stream::Evidence);
        if let Some(source) = &source {
            let read = self.in_pair.pair.checkpoint.evidence.offset;
            let max = self.context.line_bytes_max;
            // Lines before a read error are still explained.
            let _ended = for_each_line(source, read, max, |line| {
                let evidence = parse::evidence(parse::trim(line.body));
                let is_of_run = |evidence: Evidence| evidence.run_id.decode() == self.run_id;
                if !evidence.is_ok_and(is_of_run) {
                    return;
                }
                let is_last = line.offset == counts.offset;
                is_seen |= is_last;
                if page.has_next() {
                    let mut info = self.line(Stream::Evidence, line.offset, line.body.len() as u64);
                    info.line = Some(line.number);
                    let (verdict, rule) = match is_last {
                        true => ("counts", COUNTS),
                        false => ("replaced", REPLACED),
                    };
                    (info.verdict, info.rule) = (verdict.to_owned(), rule.to_owned());
                    page.lines.push(info);
                }
            });
        }
        if !is_seen && page.has_next() {
            let mut line = self.line(Stream::Evidence, counts.offset, u64::from(counts.len_bytes));
            line.changed_since = source.is_some();
            line.deleted = self.is_deleted(Stream::Evidence);
            (line.verdict, line.rule) = ("counts".to_owned(), COUNTS.to_owned());
            page.lines.push(line);
        }
    }

    fn row(&self, offset: u64) -> RowRange {
        let len_bytes = self
            .export
            .and_then(|export| row_len(export, offset, self.run_id));
        RowRange { offset, len_bytes }
    }
}

const EXPORTED: &str = "an admitted category, evidence of a role that gives samples, a text";
const OVERRULED: &str =
    "a later line of the run overrules it, and `distilld rebuild --effective` left its row out";
const FIREWALLED: &str = "the firewall: category `rejected` or `needs_human_review`, final";
const WAITING: &str = "the paired day-file has no evidence with its run id yet";
const UNREADABLE: &str =
    "its line or its evidence cannot be read any more: the day-file was deleted or changed";
const COUNTS: &str = "the last evidence with its run id counts";
const REPLACED: &str = "later evidence with its run id counts";

/// The category of a scored line, if it is still the run's.
fn category_of(
    source: &Source,
    offset: u64,
    len_bytes: u32,
    run_id: &str,
) -> io::Result<Option<String>> {
    let line = source.line(offset, len_bytes)?;
    let run = parse::scored_run(parse::trim(&line)).ok();
    let run = run.filter(|run| run.evidence_run_id.decode() == run_id);
    Ok(run.map(|run| run.category.decode().into_owned()))
}

/// Length of the row that starts there, with its newline, if it is the run's.
fn row_len(export: &dyn StorageFile, offset: u64, run_id: &str) -> Option<u64> {
    let row = row_at(export, offset)?;
    let is_of_run = row::view(&row).is_ok_and(|view| view.source_run_id == run_id);
    is_of_run.then(|| row.len() as u64 + 1)
}
