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
use crate::pair::verdict::Verdict;

/// From the sync of a fast disk to a backfill: 1 ms doubled up to about a minute.
const FRESHNESS_BUCKETS: [f64; 18] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0,
    3_600.0, 86_400.0,
];
/// One sync, from a disk with a battery to one that hangs.
const COMMIT_BUCKETS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

/// A source class.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    class: String,
}

/// A source class and a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassVerdict {
    class: String,
    verdict: &'static str,
}

/// A kind of error.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// The counters of one process. Cloned handles count into the same ones.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    started: SystemTime,
    /// Classes that are counted separately. Locked by the engine's thread alone.
    scored_lines: Family<Class, Counter>,
    evidence_lines: Family<Class, Counter>,
    verdicts: Family<ClassVerdict, Counter>,
    late_verdicts: Family<ClassVerdict, Counter>,
    evidence_dead_letters: Family<Class, Counter>,
    superseded: Counter,
    contradicted: Counter,
    rows: Family<Class, Counter>,
    row_bytes: Counter,
    source_bytes: Counter,
    source_rereads: Counter,
    turns: Counter,
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
    /// All at zero; the process starts now.
    #[must_use]
    pub fn new() -> Self {
        let mut meters = Self {
            registry: Registry::default(),
            started: SystemTime::now(),
            scored_lines: Family::default(),
            evidence_lines: Family::default(),
            verdicts: Family::default(),
            late_verdicts: Family::default(),
            evidence_dead_letters: Family::default(),
            superseded: Counter::default(),
            contradicted: Counter::default(),
            rows: Family::default(),
            row_bytes: Counter::default(),
            source_bytes: Counter::default(),
            source_rereads: Counter::default(),
            turns: Counter::default(),
            errors: Family::default(),
            overflows: Counter::default(),
            scans: Family::default(),
            freshness: Histogram::new(FRESHNESS_BUCKETS),
            commit: Histogram::new(COMMIT_BUCKETS),
            checkpoint: Histogram::new(COMMIT_BUCKETS),
        };
        meters.register_lines();
        meters.register_work();
        // A kind that has not happened is zero, not absent: a rate over it must not miss the first one.
        for kind in ERROR_KINDS {
            drop(meters.errors.get_or_create(&Kind { kind }));
        }
        for kind in ["full", "recent"] {
            drop(meters.scans.get_or_create(&Kind { kind }));
        }
        meters
    }

    fn register_lines(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("distilld");
        registry.register(
            "scored_lines",
            "Scored lines read since the process started, by source class; one that was rewritten is read, and counted, again",
            self.scored_lines.clone(),
        );
        registry.register(
            "scored_verdicts",
            "First verdicts on scored lines, by source class; their sum is distilld_scored_lines_total",
            self.verdicts.clone(),
        );
        registry.register(
            "late_verdicts",
            "Verdicts on scored lines that had waited or been refused, when evidence came for them",
            self.late_verdicts.clone(),
        );
        registry.register(
            "evidence_lines",
            "Evidence lines read, by source class",
            self.evidence_lines.clone(),
        );
        registry.register(
            "evidence_dead_letters",
            "Evidence lines that are no records",
            self.evidence_dead_letters.clone(),
        );
        registry.register(
            "superseded_rows",
            "Rows for whose run other evidence came after they were written",
            self.superseded.clone(),
        );
        registry.register(
            "contradicted_rows",
            "Rows whose run was rejected after they were written",
            self.contradicted.clone(),
        );
        registry.register(
            "rows_written",
            "Rows committed for the export, by source class; a line whose row was there already writes none",
            self.rows.clone(),
        );
    }

    fn register_work(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("distilld");
        registry.register_with_unit(
            "rows_written",
            "Bytes of rows committed for the export",
            Unit::Bytes,
            self.row_bytes.clone(),
        );
        registry.register_with_unit(
            "source_read",
            "Bytes of day-files whose lines were taken in",
            Unit::Bytes,
            self.source_bytes.clone(),
        );
        registry.register(
            "source_rereads",
            "Day-files that were not what had been read of them, and were read again from their start",
            self.source_rereads.clone(),
        );
        registry.register(
            "turns",
            "Turns of the engine's thread: each hears what is new and does one pass at most; none while nothing happens",
            self.turns.clone(),
        );
        registry.register("errors", "Errors met, by where", self.errors.clone());
        registry.register(
            "event_overflows",
            "Times that more happened than the file system's events tell of",
            self.overflows.clone(),
        );
        registry.register(
            "scans",
            "Scans for changes that no event told of",
            self.scans.clone(),
        );
        registry.register_with_unit(
            "freshness",
            "From the last change of a day-file (its ctime, or the start of this process if that is later) to its rows \
             readable and durable, once for each day-file pair of a batch that showed rows. The inode's time is taken \
             because it includes what an event, or a scan where none came, needed to reach us; it runs up to a clock \
             tick (4 ms) early",
            Unit::Seconds,
            self.freshness.clone(),
        );
        registry.register_with_unit(
            "commit_duration",
            "Writing and syncing one batch to the journal",
            Unit::Seconds,
            self.commit.clone(),
        );
        registry.register_with_unit(
            "checkpoint_duration",
            "Taking the journal into the state, the export's sync included",
            Unit::Seconds,
            self.checkpoint.clone(),
        );
    }

    /// Returns the registry, for an encoder.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// When the process started, seconds since 1970.
    #[must_use]
    pub fn started_s(&self) -> f64 {
        let since = self.started.duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_secs_f64()
    }

    /// A look's lines were merged; `before` is its pair without them. `class` is one of few.
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
            &self.evidence_dead_letters,
            before.evidence.malformed,
            after.evidence.malformed,
        );
        add(&self.rows, &class, outcome.new_rows.len() as u64);
        self.row_bytes.inc_by(outcome.rows.len() as u64);
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

    fn verdicts_of(&self, class: &Class, before: &PairCheckpoint, outcome: &JoinOutcome) {
        let after = &outcome.checkpoint;
        let mut first = [0; VERDICTS.len()];
        let mut late = [0; VERDICTS.len()];
        for entry in outcome.overlay.entries.values() {
            let is_new = entry.offset >= before.scored.offset;
            match entry.verdict {
                // One that was shown before may be here for having been superseded or contradicted alone.
                Verdict::Exported { .. } if !is_new => {}
                verdict if is_new => first[index_of(verdict)] += 1,
                verdict => late[index_of(verdict)] += 1,
            }
        }
        first[MALFORMED] = after
            .scored
            .malformed
            .saturating_sub(before.scored.malformed);
        let exported = after.counts.exported.saturating_sub(before.counts.exported);
        late[EXPORTED] = exported.saturating_sub(first[EXPORTED]);
        for (family, counts) in [(&self.verdicts, first), (&self.late_verdicts, late)] {
            for (verdict, count) in VERDICTS.into_iter().zip(counts) {
                if count > 0 {
                    let class = class.class.clone();
                    let label = ClassVerdict { class, verdict };
                    family.get_or_create(&label).inc_by(count);
                }
            }
        }
    }

    /// The engine's thread begins another turn.
    pub(crate) fn turn(&self) {
        self.turns.inc();
    }

    /// Differs from what it gave before whenever the engine's thread got anything done since.
    #[must_use]
    pub fn progress(&self) -> u64 {
        self.turns.get() + self.source_bytes.get()
    }

    /// A day-file is read again from its start.
    pub(crate) fn reread(&self) {
        self.source_rereads.inc();
    }

    /// An error was met; `kind` is one of [`ERROR_KINDS`].
    pub(crate) fn error(&self, kind: &'static str) {
        self.errors.get_or_create(&Kind { kind }).inc();
    }

    /// Events were lost.
    pub(crate) fn overflow(&self) {
        self.overflows.inc();
    }

    /// A scan began; `kind` is `full` or `recent`.
    pub(crate) fn scan(&self, kind: &'static str) {
        self.scans.get_or_create(&Kind { kind }).inc();
    }

    /// Rows of a pair became readable at `shown_ms`; its day-files last changed at `changed_ms`, both since 1970.
    pub(crate) fn shown(&self, changed_ms: u64, shown_ms: u64) {
        let started_ms = (self.started_s() * 1_000.0) as u64;
        let fresh_ms = shown_ms.saturating_sub(changed_ms.max(started_ms));
        self.freshness
            .observe(Duration::from_millis(fresh_ms).as_secs_f64());
    }

    /// A batch was made durable in that time.
    pub(crate) fn committed(&self, took_us: u64) {
        self.commit
            .observe(Duration::from_micros(took_us).as_secs_f64());
    }

    /// The state took in the journal in that time.
    pub(crate) fn checkpointed(&self, took_us: u64) {
        self.checkpoint
            .observe(Duration::from_micros(took_us).as_secs_f64());
    }
}

/// Components that report errors.
pub(crate) const ERROR_KINDS: [&str; 5] = ["export", "journal", "other", "source", "state"];

/// Names of the verdicts, in the order of the arrays here.
const VERDICTS: [&str; 7] = [
    "exported",
    "firewalled",
    "unknown_category",
    "role",
    "blank_text",
    "waiting",
    "malformed",
];
const EXPORTED: usize = 0;
const MALFORMED: usize = 6;

fn index_of(verdict: Verdict) -> usize {
    match verdict {
        Verdict::Exported { .. } => EXPORTED,
        Verdict::Firewalled => 1,
        Verdict::UnknownCategory => 2,
        Verdict::Role { .. } => 3,
        Verdict::BlankText { .. } => 4,
        Verdict::Waiting { .. } => 5,
    }
}

/// A class is there once something of it was counted, then with all its zeros.
fn add(family: &Family<Class, Counter>, class: &Class, count: u64) {
    family.get_or_create(class).inc_by(count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_is_not_counted_from_before_the_process() {
        let meters = Metrics::new();
        let started_ms = (meters.started_s() * 1_000.0) as u64;
        meters.shown(0, started_ms + 20);
        meters.shown(started_ms + 30, started_ms + 40);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, meters.registry()).unwrap();
        for line in [
            "distilld_freshness_seconds_count 2",
            "bucket{le=\"0.01\"} 1",
            "bucket{le=\"0.05\"} 2",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
