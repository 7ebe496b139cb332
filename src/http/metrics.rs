//! Formats `/metrics`: the counters of the process, and gauges of the lake made from the status that `/status.json`
//! returns, so that the two never disagree.

use std::fmt;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::engine::metrics::Metrics;
use crate::http::metrics_text::{Format, plain};
use crate::http::status_cache::EngineHealth;
use crate::pair::verdict::VerdictKind;
use crate::platform::escape;
use crate::query::health::Health;
use crate::query::status::Status;
use crate::record::timestamp::moment;

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge>;
type FloatGauge = Gauge<f64, std::sync::atomic::AtomicU64>;

/// Returns all metrics in the requested format.
pub(super) fn text(engine: &EngineHealth, metrics: &Metrics, format: Format) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _: fmt::Result = encode_registry(&mut text, metrics.registry())
        .and_then(|()| encode_registry(&mut text, &process_registry(engine, metrics)))
        .and_then(|()| match engine.known() {
            Some(known) => encode_registry(&mut text, &lake_registry(&known.status)),
            None => Ok(()),
        })
        .and_then(|()| encode_eof(&mut text));
    let text = escape::metrics(&text).into_owned();
    match format {
        Format::OpenMetrics => text,
        Format::Plain => plain(&text),
    }
}

/// Gauges that are known whether the engine's thread responds or not.
fn process_registry(engine: &EngineHealth, metrics: &Metrics) -> Registry {
    let mut registry = Registry::default();
    let health = engine.health();
    seconds(
        &mut registry,
        "process_start_time",
        "Start of the process, since 1970",
        metrics.started_s(),
    );
    let distilld = registry.sub_registry_with_prefix("distilld");
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    distilld.register("build", "The version of distilld", build);
    flag(
        distilld,
        "engine_responsive",
        "1 while the engine thread responds; otherwise the values of the lake are the last known ones, or absent",
        matches!(engine, EngineHealth::Responsive(_)),
    );
    flag(
        distilld,
        "recovering",
        "1 during recovery",
        matches!(engine, EngineHealth::Recovering),
    );
    flag(
        distilld,
        "ready",
        "1 while /readyz returns 200",
        health.verdict.is_ready(),
    );
    let verdicts = Gauges::default();
    for verdict in Health::ALL {
        let labels = [("verdict", verdict.code())];
        set(&verdicts, &labels, u64::from(verdict == health.verdict));
    }
    distilld.register(
        "health",
        "1 for the current health verdict, else 0",
        verdicts,
    );
    registry
}

/// Gauges of the lake at one moment.
fn lake_registry(status: &Status) -> Registry {
    let mut registry = Registry::default();
    let distilld = registry.sub_registry_with_prefix("distilld");
    lines(distilld, status);
    class_lines(distilld, status);
    export(distilld, status);
    waiting(distilld, status);
    health(distilld, status);
    lag(distilld, status);
    registry
}

fn lines(registry: &mut Registry, status: &Status) {
    let scored = &status.scored;
    let verdicts = Gauges::default();
    for (verdict, lines) in scored.verdicts.iter() {
        set(&verdicts, &[("verdict", verdict.code())], lines);
    }
    registry.register(
        "lines",
        "Scored lines of the lake by current verdict; adds up to distilld_lines_read",
        verdicts,
    );
    single(
        registry,
        "lines_read",
        "Scored lines of the lake that were read",
        scored.lines,
    );
    let malformed = Gauges::default();
    let scored_malformed = scored.verdicts[VerdictKind::Malformed];
    set(&malformed, &[("stream", "scored")], scored_malformed);
    set(
        &malformed,
        &[("stream", "evidence")],
        status.evidence.malformed,
    );
    registry.register("malformed_lines", "Malformed lines of the lake", malformed);
    single(
        registry,
        "evidence_lines_read",
        "Evidence lines of the lake that were read",
        status.evidence.lines,
    );
    flag(
        registry,
        "accounts_balanced",
        "1 while every scored line has a verdict; 0 is a bug in distilld",
        scored.balanced,
    );
}

/// The lines by source class. There are at most 64 classes and `other`.
fn class_lines(registry: &mut Registry, status: &Status) {
    if status.classes.is_empty() {
        return;
    }
    let verdicts = Gauges::default();
    for class in &status.classes {
        for (verdict, lines) in class.verdicts.iter() {
            let labels = [("class", class.class.as_str()), ("verdict", verdict.code())];
            set(&verdicts, &labels, lines);
        }
    }
    registry.register(
        "class_lines",
        "Scored lines by source class and current verdict; adds up to distilld_lines_read",
        verdicts,
    );
}

fn export(registry: &mut Registry, status: &Status) {
    let export = &status.export;
    bytes(
        registry,
        "export_size",
        "Length of the export",
        export.len_bytes,
    );
    bytes(
        registry,
        "ledger_size",
        "Length of the retraction ledger",
        status.retractions.len_bytes,
    );
    for (name, help, rows) in [
        ("export_rows", "Rows in the export", export.rows),
        (
            "export_rows_pending",
            "Rows that are made and not in the export yet",
            export.rows_pending,
        ),
        (
            "export_rows_unclaimed",
            "Rows in the export for which no line in the day-files is known",
            export.rows_unclaimed,
        ),
        (
            "export_rows_superseded",
            "Rows in the export whose run received other evidence later",
            export.superseded,
        ),
        (
            "export_rows_contradicted",
            "Rows in the export that a later line of the same run overrules",
            export.contradicted,
        ),
        (
            "export_rows_retracted",
            "Rows in the export that the retraction ledger has out of the effective set",
            status.retractions.rows,
        ),
        (
            "standing_orders",
            "Standing orders of operators that keep runs out of the effective set",
            status.retractions.orders,
        ),
    ] {
        single(registry, name, help, rows);
    }
    if let Some(at_s) = status.last_row_at.as_deref().and_then(seconds_of) {
        seconds(
            registry,
            "last_row_timestamp",
            "When this process last appended a row, since 1970",
            at_s,
        );
    }
}

fn waiting(registry: &mut Registry, status: &Status) {
    single(
        registry,
        "waiting_runs",
        "Scored runs that wait for their evidence",
        status.scored.verdicts[VerdictKind::Waiting],
    );
    let oldest = status.waiting_oldest.first();
    if let Some(since_s) = oldest.and_then(|run| seconds_of(&run.since)) {
        seconds(
            registry,
            "oldest_waiting_timestamp",
            "Since when the oldest waiting run has waited, since 1970",
            since_s,
        );
    }
}

fn health(registry: &mut Registry, status: &Status) {
    let fault = status.last_fault.as_ref();
    flag(
        registry,
        "fault_active",
        "1 while reading is stopped by a fault that is retried",
        fault.is_some_and(|fault| !fault.resolved),
    );
    for (name, help, count) in [
        (
            "day_files_skipped",
            "Day-files that are unreadable now",
            status.skipped.day_files,
        ),
        (
            "directories_skipped",
            "Directories that are unreadable now",
            status.skipped.directories,
        ),
    ] {
        single(registry, name, help, count);
    }
    single(
        registry,
        "day_files_scanned_only",
        "Day-files whose growth scans alone find, because no event reports it",
        status
            .scanned_only
            .as_ref()
            .map_or(0, |scanned| scanned.day_files),
    );
    let mode = Gauges::default();
    let has_events = status.watch.as_deref() == Some("events");
    set(&mode, &[("mode", "events")], u64::from(has_events));
    set(&mode, &[("mode", "polling")], u64::from(!has_events));
    registry.register(
        "watch_mode",
        "1 for the mode of change detection in use",
        mode,
    );
}

fn lag(registry: &mut Registry, status: &Status) {
    let lag = status.lag.unwrap_or_default();
    single(
        registry,
        "lag_files",
        "Day-files and directories known to be unread",
        lag.files,
    );
    bytes(registry, "lag", "Bytes known to be unread", lag.bytes);
    seconds(
        registry,
        "lag",
        "How long the oldest unread change has been known",
        lag.age_ms as f64 / 1_000.0,
    );
    seconds(
        registry,
        "lag_objective",
        "The key fresh_objective_ms; a greater lag is not ready",
        lag.objective_ms as f64 / 1_000.0,
    );
    flag(
        registry,
        "caught_up",
        "1 after everything that existed at the start was read",
        lag.caught_up,
    );
}

/// Returns the seconds since 1970 of a timestamp in the format that this crate writes.
fn seconds_of(timestamp: &str) -> Option<f64> {
    Some(moment(timestamp)? as f64 / 1_000.0)
}

fn single(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(signed(value));
    registry.register(name, help, gauge);
}

fn flag(registry: &mut Registry, name: &str, help: &str, value: bool) {
    single(registry, name, help, u64::from(value));
}

fn bytes(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(signed(value));
    registry.register_with_unit(name, help, Unit::Bytes, gauge);
}

fn seconds(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = FloatGauge::default();
    gauge.set(value);
    registry.register_with_unit(name, help, Unit::Seconds, gauge);
}

fn set(gauges: &Gauges, labels: &[(&'static str, &str)], value: u64) {
    let labels = labels
        .iter()
        .map(|(key, value)| (*key, (*value).to_owned()));
    gauges.get_or_create(&labels.collect()).set(signed(value));
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
