//! Explains a run: each line that concerns it, the verdict with the rule and the value that decided it, its row, or
//! what it waits for. Verdicts come from the state; values are read again from the lines, and a line that changed
//! since is marked. Whether a row is effective comes from the retraction ledger, of which the rows that are out are listed too.

mod deleted;
mod ledger;
pub(crate) mod suggest;

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::as_typed;
use crate::lake::path::{PairPath, Stream, ledger_path};
use crate::lake::source::Source;
use crate::pair::index::{EvidenceLocation, ScoredLine};
use crate::pair::verdict::Verdict;
use crate::platform::storage::{Storage, StorageFile};
use crate::query::explain::ledger::RunInLedger;
use crate::query::line_numbers::{for_each_line, line_numbers};
use crate::query::retract::StandingOrder;
use crate::record::keys::RunKey;
use crate::record::ledger::Cause;
use crate::record::parse;
use crate::record::row;
use crate::record::timestamp::stamp;
use crate::store::export::row_at;
use crate::store::snapshot::{RunOccurrences, StateSnapshot, pair_path, stream_name};
use crate::store::state::error::StateError;

pub use deleted::{DeletedRows, deleted_rows};
pub use ledger::{Page, RetractedRow, RetractedRows, Retraction, retracted_rows};

/// The lines of a run. Keys are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Explanation {
    /// The id that was asked for.
    pub run_id: String,
    /// Whether any line that was read concerns the run.
    pub known: bool,
    /// Each line that concerns it: day-file by day-file, scored lines first, in order.
    pub lines: Vec<LineExplanation>,
    /// For an unknown id: similar ids in the newest day-files and among the longest-waiting runs.
    pub near: Vec<String>,
}

/// One line of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LineExplanation {
    /// `scored` or `evidence`.
    pub stream: String,
    /// `YYYY/MM/DD/NAME.jsonl`, below the stream's directory.
    pub day_file: String,
    /// Its number in the day-file, from 1; `None` where the day-file cannot be read now.
    pub line: Option<u64>,
    /// Its offset, bytes.
    pub offset: u64,
    /// Its length without the newline, bytes.
    pub len_bytes: u64,
    /// For a scored line the code of a [`VerdictKind`](crate::pair::verdict::VerdictKind) except `malformed`; for
    /// evidence `counts`, or `replaced` if later evidence with its id counts.
    pub verdict: String,
    /// The rule that decided it.
    pub rule: String,
    /// The value that the rule tests.
    pub value: Option<String>,
    /// For an exported line: the position of its row.
    pub row: Option<RowRange>,
    /// For a waiting line: the start of the wait, RFC 3339.
    pub waiting_since: Option<String>,
    /// For a waiting line: the day-file below `data/evidence` that must bring its evidence.
    pub waits_for: Option<String>,
    /// For an exported line: different evidence arrived after the row was written.
    pub superseded: bool,
    /// For an exported line: a later line of the run overrules the row.
    pub contradicted: bool,
    /// For an exported line: whether the row is in the effective set; `None` where the ledger cannot be read.
    #[serde(default)]
    pub effective: Option<bool>,
    /// For a row that is out: the event of the ledger that took it out.
    #[serde(default)]
    pub retraction: Option<Retraction>,
    /// For a line with the verdict `ordered`: the order.
    #[serde(default)]
    pub order: Option<StandingOrder>,
    /// For a waiting line: other day-files below `data/evidence` that have evidence with its run id.
    #[serde(default)]
    pub evidence_elsewhere: Vec<String>,
    /// Whether the line changed since it was read: the daemon will read its day-file again.
    pub changed_since: bool,
    /// Whether its day-file does not exist any more.
    #[serde(default)]
    pub deleted: bool,
}

/// A row in the export.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RowRange {
    /// Its offset, bytes.
    pub offset: u64,
    /// Its length with the newline, bytes; `None` where it cannot be read.
    pub len_bytes: Option<u64>,
}

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

/// Explains a run.
///
/// # Errors
/// The state cannot be read. An unreadable day-file makes the explanation shorter.
pub fn explain(run_id: &str, context: &ExplainContext<'_>) -> Result<Explanation, StateError> {
    let found = context.state.find_run(RunKey::from_run_id(run_id))?;
    let export = context.storage.open_read(context.export_path).ok();
    let ledger_path = ledger_path(context.export_path);
    let concerns_ledger = found.iter().flat_map(|pair| &pair.entries).any(|entry| {
        matches!(
            entry.verdict,
            Verdict::Exported { .. } | Verdict::Ordered { .. }
        )
    });
    let in_ledger = concerns_ledger
        .then(|| RunInLedger::read(context.storage, &ledger_path, run_id).ok())
        .flatten();
    let with_evidence: Vec<PairPath> = found
        .iter()
        .filter(|pair| pair.evidence.is_some())
        .filter_map(|pair| pair_path(&pair.pair.checkpoint))
        .collect();
    let mut lines = Vec::new();
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
    let known = !lines.is_empty();
    let near = if known {
        Vec::new()
    } else {
        suggest::near(run_id, context)?
    };
    Ok(Explanation {
        run_id: run_id.to_owned(),
        known,
        lines,
        near,
    })
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

    fn scored_lines(&self, lines: &mut Vec<LineExplanation>) {
        let source = self.source(Stream::Scored);
        let entries = &self.in_pair.entries;
        let offsets: Vec<u64> = entries.iter().map(|entry| entry.offset).collect();
        let numbers = (source.as_ref())
            .and_then(|source| line_numbers(source, &offsets).ok())
            .unwrap_or_default();
        let evidence = self.evidence_now();
        let deleted = self.is_deleted(Stream::Scored);
        for (n, entry) in entries.iter().enumerate() {
            let category = source.as_ref().and_then(|source| {
                let category = category_of(source, entry.offset, entry.len_bytes, self.run_id);
                category.ok().flatten()
            });
            let mut line = self.line(Stream::Scored, entry.offset, u64::from(entry.len_bytes));
            line.line = numbers.get(n).copied();
            line.changed_since = source.is_some() && category.is_none();
            line.deleted = deleted;
            self.decide(entry, category, evidence.as_deref(), &mut line);
            lines.push(line);
        }
    }

    fn decide(
        &self,
        entry: &ScoredLine,
        category: Option<String>,
        evidence: Option<&[u8]>,
        line: &mut LineExplanation,
    ) {
        let (rule, value) = match (entry.verdict, entry.verdict.refusal()) {
            (_, Some(refusal)) => {
                let evidence = evidence.and_then(|line| parse::evidence(line).ok());
                (refusal.rule(), refusal.value(category, evidence.as_ref()))
            }
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
                if let Some(retraction) = &mut line.retraction {
                    retraction.category = self.overruling_category(retraction);
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
    fn overruling_category(&self, retraction: &Retraction) -> Option<String> {
        if retraction.cause == Cause::Operator.code() {
            return None;
        }
        let entries = &self.in_pair.entries;
        let entry = entries
            .iter()
            .find(|entry| Some(entry.offset) == retraction.line_offset)?;
        let source = self.source(Stream::Scored)?;
        category_of(&source, entry.offset, entry.len_bytes, self.run_id).ok()?
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
    fn evidence_lines(&self, lines: &mut Vec<LineExplanation>) {
        let Some(counts) = self.in_pair.evidence else {
            return;
        };
        let mut found = Vec::new();
        let mut seen = false;
        let source = self.source(Stream::Evidence);
        if let Some(source) = &source {
            let read = self.in_pair.pair.checkpoint.evidence.offset;
            let max = self.context.line_bytes_max;
            // Lines before a read error are still explained.
            let _ended = for_each_line(source, read, max, |line| {
                let evidence = parse::evidence(parse::trim(line.body));
                if evidence.is_ok_and(|evidence| evidence.run_id.decode() == self.run_id) {
                    let mut info = self.line(Stream::Evidence, line.offset, line.body.len() as u64);
                    info.line = Some(line.number);
                    found.push(info);
                }
            });
        }
        for line in &mut found {
            let is_last = line.offset == counts.offset;
            seen |= is_last;
            let (verdict, rule) = if is_last {
                ("counts", COUNTS)
            } else {
                ("replaced", REPLACED)
            };
            verdict.clone_into(&mut line.verdict);
            rule.clone_into(&mut line.rule);
        }
        if !seen {
            let mut line = self.line(Stream::Evidence, counts.offset, u64::from(counts.len_bytes));
            line.changed_since = source.is_some();
            line.deleted = self.is_deleted(Stream::Evidence);
            "counts".clone_into(&mut line.verdict);
            COUNTS.clone_into(&mut line.rule);
            found.push(line);
        }
        lines.append(&mut found);
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
