//! The metrics of a running publisher.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::http::metrics_text::{Format, plain};
use crate::publish::publisher::Account;

/// The figures of this process.
pub(super) struct Metrics {
    registry: Registry,
    /// Bytes of whole rows that the table does not have.
    pub lag_bytes: Gauge,
    /// Since when the table lacks anything.
    pub lag_seconds: Gauge<f64, AtomicU64>,
    failing: Gauge,
    needs_operator: Gauge,
    version: Gauge,
    commits: Counter,
    conflicts: Counter,
    failures: Counter,
    rows: Counter,
    retracted: Counter,
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("distilld_publish"),
            lag_bytes: Gauge::default(),
            lag_seconds: Gauge::default(),
            failing: Gauge::default(),
            needs_operator: Gauge::default(),
            version: Gauge::default(),
            commits: Counter::default(),
            conflicts: Counter::default(),
            failures: Counter::default(),
            rows: Counter::default(),
            retracted: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register_with_unit(
            "lag",
            "Bytes of whole rows of the export that the table does not have",
            Unit::Bytes,
            self.lag_bytes.clone(),
        );
        registry.register_with_unit(
            "lag",
            "Time since the table lacks anything, 0 if it lacks nothing",
            Unit::Seconds,
            self.lag_seconds.clone(),
        );
        for (name, help, gauge) in [
            ("failing", "Whether the last attempt failed", &self.failing),
            (
                "needs_operator",
                "Whether the last attempt failed for a reason that only an operator can mend",
                &self.needs_operator,
            ),
            (
                "table_version",
                "The newest version of the table that was read",
                &self.version,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, counter) in [
            ("commits", "Commits to the table", &self.commits),
            (
                "conflicts",
                "Attempts at which another writer was first",
                &self.conflicts,
            ),
            ("failures", "Attempts that failed", &self.failures),
            ("rows", "Rows that were added", &self.rows),
            ("retracted", "Rows that were taken out", &self.retracted),
        ] {
            registry.register(name, help, counter.clone());
        }
    }

    /// Adds what a step did.
    pub fn add(&self, step: Account) {
        self.commits.inc_by(step.commits);
        self.conflicts.inc_by(step.conflicts);
        self.rows.inc_by(step.rows);
        self.retracted.inc_by(step.retracted);
        self.version
            .set(i64::try_from(step.version).unwrap_or(i64::MAX));
    }

    /// Notes the end of an attempt: `None` without a failure, else whether only an operator can mend it.
    pub fn note_attempt(&self, failed: Option<bool>) {
        self.failures.inc_by(u64::from(failed.is_some()));
        self.failing.set(i64::from(failed.is_some()));
        self.needs_operator.set(i64::from(failed == Some(true)));
    }

    /// Returns the metrics as text.
    pub fn text(&self, format: Format) -> String {
        let mut text = String::new();
        // Writing into memory does not fail.
        let _ = encode(&mut text, &self.registry);
        match format {
            Format::OpenMetrics => text,
            Format::Plain => plain(&text),
        }
    }
}
