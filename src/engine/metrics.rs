//! Counters and histograms of the process: lines, verdicts, rows, errors, durations. They never decrease and know
//! nothing of HTTP. Values that can decrease are gauges, derived from the status.
//!
//! Counting happens per read and per commit, never per byte, so that its cost cannot be measured against a read or a
//! sync.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::pair::JoinOutcome;
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::verdict::{PerVerdict, Verdict, VerdictKind};
use crate::record::ledger::{Cause, Op};
use crate::store::ledger::RowFlags;

/// Upper bounds from the sync of a fast disk to a backfill, seconds.
const FRESHNESS_BUCKETS: [f64; 18] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0,
    3_600.0, 86_400.0,
];
/// Upper bounds of one sync, from a disk with a write cache to one that hangs, seconds.
const COMMIT_BUCKETS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// The label of a source class.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    class: String,
}

/// The labels of a source class and a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassVerdict {
    class: String,
    verdict: &'static str,
}

/// The label of a kind of error or scan.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// The label of a cause in the retraction ledger.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

/// The counters and histograms of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    started: SystemTime,
    /// Classes that are counted separately. Locked by the engine's thread alone.
    scored_lines: Family<Class, Counter>,
    evidence_lines: Family<Class, Counter>,
    verdicts: Family<ClassVerdict, Counter>,
    late_verdicts: Family<ClassVerdict, Counter>,
    evidence_malformed_lines: Family<Class, Counter>,
    superseded: Counter,
    contradicted: Counter,
    retracted: Family<CauseLabel, Counter>,
    restored: Counter,
    rows: Family<Class, Counter>,
    row_bytes: Counter,
    source_bytes: Counter,
    sources_reset: Counter,
    engine_iterations: Counter,
    errors: Family<Kind, Counter>,
    overflows: Counter,
    scans: Family<Kind, Counter>,
    freshness: Histogram,
    commit: Histogram,
    checkpoint: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates the metrics, all at zero, and takes the start time of the process.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            started: SystemTime::now(),
            scored_lines: Family::default(),
            evidence_lines: Family::default(),
            verdicts: Family::default(),
            late_verdicts: Family::default(),
            evidence_malformed_lines: Family::default(),
            superseded: Counter::default(),
            contradicted: Counter::default(),
            retracted: Family::default(),
            restored: Counter::default(),
            rows: Family::default(),
            row_bytes: Counter::default(),
            source_bytes: Counter::default(),
            sources_reset: Counter::default(),
            engine_iterations: Counter::default(),
            errors: Family::default(),
            overflows: Counter::default(),
            scans: Family::default(),
            freshness: Histogram::new(FRESHNESS_BUCKETS),
            commit: Histogram::new(COMMIT_BUCKETS),
            checkpoint: Histogram::new(COMMIT_BUCKETS),
        };
        metrics.register_lines();
        metrics.register_work();
        // Kinds start at zero instead of absent, so that a rate does not miss the first event.
        for kind in ERROR_KINDS {
            drop(metrics.errors.get_or_create(&Kind { kind }));
        }
        for kind in ["full", "recent"] {
            drop(metrics.scans.get_or_create(&Kind { kind }));
        }
        for cause in RowFlags::CAUSES {
            let cause = cause.code();
            drop(metrics.retracted.get_or_create(&CauseLabel { cause }));
        }
        metrics
    }

    fn register_lines(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("distilld");
        registry.register(
            "scored_lines",
            "Scored lines read since the process started, by source class; a rewritten line is counted again",
            self.scored_lines.clone(),
        );
        registry.register(
            "scored_verdicts",
            "First verdict of each scored line, by source class; adds up to distilld_scored_lines_total",
            self.verdicts.clone(),
        );
        registry.register(
            "late_verdicts",
            "Verdicts of scored lines that had waited or been refused, after evidence arrived for them",
            self.late_verdicts.clone(),
        );
        registry.register(
            "evidence_lines",
            "Evidence lines read, by source class",
            self.evidence_lines.clone(),
        );
        registry.register(
            "evidence_malformed_lines",
            "Malformed evidence lines, by source class",
            self.evidence_malformed_lines.clone(),
        );
        registry.register(
            "superseded_rows",
            "Rows whose run received other evidence after they were written",
            self.superseded.clone(),
        );
        registry.register(
            "contradicted_rows",
            "Rows that a later line of the same run overruled",
            self.contradicted.clone(),
        );
        registry.register(
            "retracted_rows",
            "Rows that the retraction ledger took out of the effective set, by cause",
            self.retracted.clone(),
        );
        registry.register(
            "restored_rows",
            "Rows that the retraction ledger brought back to the effective set",
            self.restored.clone(),
        );
        registry.register(
            "rows_written",
            "Rows appended to the export, by source class; a line whose row exists already writes none",
            self.rows.clone(),
        );
    }

    fn register_work(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("distilld");
        registry.register_with_unit(
            "rows_written",
            "Bytes of rows appended to the export",
            Unit::Bytes,
            self.row_bytes.clone(),
        );
        registry.register_with_unit(
            "source_read",
            "Bytes of day-files whose lines were processed",
            Unit::Bytes,
            self.source_bytes.clone(),
        );
        registry.register(
            "sources_reset",
            "Day-files that changed before the offset and were read again from their start",
            self.sources_reset.clone(),
        );
        registry.register(
            "engine_iterations",
            "Iterations of the engine thread: each receives pending work and runs at most one pass; none while idle",
            self.engine_iterations.clone(),
        );
        registry.register("errors", "Errors by component", self.errors.clone());
        registry.register(
            "event_overflows",
            "Overflows of the inotify queue",
            self.overflows.clone(),
        );
        registry.register(
            "scans",
            "Scans for changes without an event, by kind",
            self.scans.clone(),
        );
        registry.register_with_unit(
            "freshness",
            "Time from the last change of a day-file (its ctime, or the start of the process if that is later) to its \
             rows readable and durable, once for each pair of a batch that appended rows; up to one clock tick (4 ms) \
             too short",
            Unit::Seconds,
            self.freshness.clone(),
        );
        registry.register_with_unit(
            "commit_duration",
            "Time to write and sync one batch to the journal",
            Unit::Seconds,
            self.commit.clone(),
        );
        registry.register_with_unit(
            "checkpoint_duration",
            "Time to apply the journal to the state, including the sync of the export",
            Unit::Seconds,
            self.checkpoint.clone(),
        );
    }

    /// Returns the registry, for an encoder.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the start of the process, seconds since 1970.
    #[must_use]
    pub fn started_s(&self) -> f64 {
        let since = self.started.duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_secs_f64()
    }

    /// Counts the lines of a merged read. `before` is the pair without them; `class` must be one of the bounded classes.
    pub(crate) fn merged(&self, class: &str, before: &PairCheckpoint, outcome: &JoinOutcome) {
        let after = &outcome.checkpoint;
        let class = Class {
            class: class.to_owned(),
        };
        let count = |family: &Family<Class, Counter>, from: u64, to: u64| {
            add(family, &class, to.saturating_sub(from));
        };
        count(&self.scored_lines, before.scored.lines, after.scored.lines);
        count(
            &self.evidence_lines,
            before.evidence.lines,
            after.evidence.lines,
        );
        count(
            &self.evidence_malformed_lines,
            before.evidence.malformed,
            after.evidence.malformed,
        );
        let read = |from: u64, to: u64| to.saturating_sub(from);
        self.source_bytes.inc_by(
            read(before.scored.offset, after.scored.offset)
                + read(before.evidence.offset, after.evidence.offset),
        );
        let grown = |from: u64, to: u64| to.saturating_sub(from);
        self.superseded
            .inc_by(grown(before.counts.superseded, after.counts.superseded));
        self.contradicted
            .inc_by(grown(before.counts.contradicted, after.counts.contradicted));
        self.verdicts_of(&class, before, outcome);
    }

    /// Counts an event that is in the retraction ledger now.
    pub(crate) fn ledger_event(&self, op: Op, cause: Cause) {
        let cause = cause.code();
        match op {
            Op::Retract => drop(self.retracted.get_or_create(&CauseLabel { cause }).inc()),
            Op::Restore => drop(self.restored.inc()),
            Op::Begin | Op::Note | Op::Order | Op::Revoke => {}
        }
    }

    /// Counts rows that are in the export now; `class` must be one of the bounded classes.
    pub(crate) fn appended(&self, class: &str, rows: u64, len_bytes: u64) {
        let class = Class {
            class: class.to_owned(),
        };
        add(&self.rows, &class, rows);
        self.row_bytes.inc_by(len_bytes);
    }

    fn verdicts_of(&self, class: &Class, before: &PairCheckpoint, outcome: &JoinOutcome) {
        let after = &outcome.checkpoint;
        let (mut first, mut late) = (PerVerdict::default(), PerVerdict::default());
        for entry in outcome.overlay.entries.values() {
            let is_new = entry.offset >= before.scored.offset;
            match entry.verdict {
                // A row that exists already may be in the overlay only because it was superseded or contradicted.
                Verdict::Exported { .. } if !is_new => {}
                verdict if is_new => first[verdict.kind()] += 1,
                verdict => late[verdict.kind()] += 1,
            }
        }
        first[VerdictKind::Malformed] = after
            .scored
            .malformed
            .saturating_sub(before.scored.malformed);
        let exported = after.counts[VerdictKind::Exported]
            .saturating_sub(before.counts[VerdictKind::Exported]);
        late[VerdictKind::Exported] = exported.saturating_sub(first[VerdictKind::Exported]);
        for (family, counts) in [(&self.verdicts, first), (&self.late_verdicts, late)] {
            for (verdict, count) in counts.iter().filter(|(_, count)| *count > 0) {
                let label = ClassVerdict {
                    class: class.class.clone(),
                    verdict: verdict.code(),
                };
                family.get_or_create(&label).inc_by(count);
            }
        }
    }

    /// Counts an iteration of the engine thread.
    pub(crate) fn turn(&self) {
        self.engine_iterations.inc();
    }

    /// Returns a number that changes whenever the engine thread makes progress.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.engine_iterations.get() + self.source_bytes.get()
    }

    /// Counts a day-file that is read again from its start.
    pub(crate) fn reread(&self) {
        self.sources_reset.inc();
    }

    /// Counts an error; `kind` is one of [`ERROR_KINDS`].
    pub(crate) fn error(&self, kind: &'static str) {
        self.errors.get_or_create(&Kind { kind }).inc();
    }

    /// Counts an overflow of the event queue.
    pub(crate) fn overflow(&self) {
        self.overflows.inc();
    }

    /// Counts a scan; `kind` is `full` or `recent`.
    pub(crate) fn scan(&self, kind: &'static str) {
        self.scans.get_or_create(&Kind { kind }).inc();
    }

    /// Observes the freshness of rows that became readable at `shown_ms`; the day-files of their pair last changed at
    /// `changed_ms`. Both are milliseconds since 1970. Returns the freshness, milliseconds.
    pub(crate) fn shown(&self, changed_ms: u64, shown_ms: u64) -> u64 {
        let started_ms = (self.started_s() * 1_000.0) as u64;
        let fresh_ms = shown_ms.saturating_sub(changed_ms.max(started_ms));
        self.freshness.observe(fresh_ms as f64 / 1_000.0);
        fresh_ms
    }

    /// Observes the time to commit a batch, microseconds.
    pub(crate) fn committed(&self, took_us: u64) {
        self.commit
            .observe(Duration::from_micros(took_us).as_secs_f64());
    }

    /// Observes the time of a checkpoint, microseconds.
    pub(crate) fn checkpointed(&self, took_us: u64) {
        self.checkpoint
            .observe(Duration::from_micros(took_us).as_secs_f64());
    }
}

/// The components in which errors are counted.
pub(crate) const ERROR_KINDS: [&str; 5] = ["export", "journal", "other", "source", "state"];

/// Adds to the counter of a class, which this creates even if `count` is 0.
fn add(family: &Family<Class, Counter>, class: &Class, count: u64) {
    family.get_or_create(class).inc_by(count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_counts_from_the_start_of_the_process_at_the_earliest() {
        let metrics = Metrics::new();
        let started_ms = (metrics.started_s() * 1_000.0) as u64;
        metrics.shown(0, started_ms + 20);
        metrics.shown(started_ms + 30, started_ms + 40);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, metrics.registry()).unwrap();
        for line in [
            "distilld_freshness_seconds_count 2",
            "bucket{le=\"0.01\"} 1",
            "bucket{le=\"0.05\"} 2",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
