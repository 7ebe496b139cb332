//! Owns the text of `/metrics`: what the process counted, and what is true now, in the format that is asked for. The
//! figures of the moment are those of `/status.json`, so that the two never disagree.

use crate::http::metrics_text::{Format, plain};

use std::fmt;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::engine::metrics::Metrics;
use crate::http::status_cache::{CachedStatus, EngineHealth};

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge>;
type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;

/// All metrics.
pub(super) fn text(engine: &EngineHealth, meters: &Metrics, format: Format) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _: fmt::Result = encode_registry(&mut text, meters.registry())
        .and_then(|()| encode_registry(&mut text, &of_process(engine, meters)))
        .and_then(|()| match engine.known() {
            Some(known) => encode_registry(&mut text, &of_moment(known)),
            None => Ok(()),
        })
        .and_then(|()| encode_eof(&mut text));
    match format {
        Format::OpenMetrics => text,
        Format::Plain => plain(&text),
    }
}

/// Metrics that are known whether the engine's thread responds or not.
fn of_process(engine: &EngineHealth, meters: &Metrics) -> Registry {
    let mut registry = Registry::default();
    let started = Seconds::default();
    started.set(meters.started_s());
    registry.register_with_unit(
        "process_start_time",
        "When the process started, since 1970",
        Unit::Seconds,
        started,
    );
    let distilld = registry.sub_registry_with_prefix("distilld");
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    distilld.register("build", "Which distilld this is", build);
    flag(
        distilld,
        "engine_answering",
        "1 while the engine's thread answers; else the figures of the lake are its last, or absent",
        matches!(engine, EngineHealth::Responsive(_)),
    );
    flag(
        distilld,
        "recovering",
        "1 while what the last process left is made good",
        matches!(engine, EngineHealth::Recovering),
    );
    flag(
        distilld,
        "ready",
        "1 while the export is fresh within the objective, as /readyz says",
        engine.ready().is_ok(),
    );
    registry
}

/// The lake at one moment.
fn of_moment(known: &CachedStatus) -> Registry {
    let mut registry = Registry::default();
    let distilld = registry.sub_registry_with_prefix("distilld");
    lines(distilld, known);
    export(distilld, known);
    waiting(distilld, known);
    lag(distilld, known);
    classes(distilld, known);
    registry
}

pub(super) fn lines(registry: &mut Registry, known: &CachedStatus) {
    let scored = &known.status.scored;
    let verdicts = Gauges::default();
    for (verdict, lines) in [
        ("exported", scored.exported),
        ("firewalled", scored.firewalled),
        ("unknown_category", scored.unknown_category),
        ("role", scored.role),
        ("blank_text", scored.blank_text),
        ("waiting", scored.waiting),
        ("malformed", scored.dead_letters),
    ] {
        set(&verdicts, &[("verdict", verdict)], lines);
    }
    registry.register(
        "lines",
        "Scored lines of the lake by what became of them; their sum is distilld_lines_read",
        verdicts,
    );
    single(
        registry,
        "lines_read",
        "Scored lines of the lake that have been read",
        scored.lines,
    );
    let dead = Gauges::default();
    set(&dead, &[("stream", "scored")], scored.dead_letters);
    set(
        &dead,
        &[("stream", "evidence")],
        known.status.evidence.dead_letters,
    );
    registry.register(
        "dead_letters",
        "Lines of the lake that are no records",
        dead,
    );
    single(
        registry,
        "evidence_lines_read",
        "Evidence lines of the lake that have been read",
        known.status.evidence.lines,
    );
    flag(
        registry,
        "accounts_balanced",
        "1 while every scored line read is accounted for; anything else is a bug in distilld",
        scored.balanced,
    );
}

fn export(registry: &mut Registry, known: &CachedStatus) {
    let export = &known.status.export;
    let size = Gauge::<i64>::default();
    size.set(signed(export.len_bytes));
    registry.register_with_unit("export_size", "Length of the export", Unit::Bytes, size);
    for (name, help, rows) in [
        ("export_rows", "Rows in the export", export.rows),
        (
            "export_rows_unclaimed",
            "Rows in the export of which no line in the sources is known",
            export.rows_unclaimed,
        ),
        (
            "export_rows_superseded",
            "Rows in the export for whose run other evidence came later",
            export.superseded,
        ),
        (
            "export_rows_contradicted",
            "Rows in the export whose run was rejected later",
            export.contradicted,
        ),
    ] {
        single(registry, name, help, rows);
    }
}

fn waiting(registry: &mut Registry, known: &CachedStatus) {
    single(
        registry,
        "waiting_runs",
        "Scored runs that wait for their evidence",
        known.status.scored.waiting,
    );
    let oldest = known.status.waiting_oldest.first();
    if let Some(since_s) = oldest.and_then(|run| seconds_of(&run.since)) {
        let since = Seconds::default();
        since.set(since_s);
        registry.register_with_unit(
            "oldest_waiting_timestamp",
            "Since when the run waits that waits for the longest time, since 1970",
            Unit::Seconds,
            since,
        );
    }
    flag(
        registry,
        "fault_active",
        "1 while reading is stopped for a fault that is tried again",
        known
            .status
            .last_fault
            .as_ref()
            .is_some_and(|fault| !fault.over),
    );
    let mode = Gauges::default();
    let events = known.status.watch.as_deref() == Some("events");
    set(&mode, &[("mode", "events")], u64::from(events));
    set(&mode, &[("mode", "polling")], u64::from(!events));
    registry.register("watch_mode", "1 for how changes are noticed", mode);
}

fn lag(registry: &mut Registry, known: &CachedStatus) {
    let lag = &known.freshness;
    single(
        registry,
        "behind_day_files",
        "Day-files and directories known to be unread",
        known.status.behind.unwrap_or(0),
    );
    let bytes = Gauge::<i64>::default();
    bytes.set(signed(lag.bytes));
    registry.register_with_unit(
        "behind",
        "Bytes of day-files known to be unread",
        Unit::Bytes,
        bytes,
    );
    for (name, help, ms) in [
        (
            "behind",
            "For how long the oldest unread news has been known",
            lag.age_ms,
        ),
        (
            "fresh_objective",
            "Older unread news than this is not fresh: the key fresh_objective_ms",
            lag.objective_ms,
        ),
    ] {
        let seconds = Seconds::default();
        seconds.set(ms as f64 / 1_000.0);
        registry.register_with_unit(name, help, Unit::Seconds, seconds);
    }
    flag(
        registry,
        "caught_up",
        "1 once all that was there at the start has been looked at",
        lag.caught_up,
    );
    if let Some(at_s) = known.status.last_row_at.as_deref().and_then(seconds_of) {
        let last = Seconds::default();
        last.set(at_s);
        registry.register_with_unit(
            "last_row_timestamp",
            "When this process last showed a row, since 1970",
            Unit::Seconds,
            last,
        );
    }
}

/// The same verdicts for each source class, of which there are few.
fn classes(registry: &mut Registry, known: &CachedStatus) {
    let verdicts = Gauges::default();
    for class in &known.status.classes {
        for (verdict, lines) in [
            ("exported", class.exported),
            ("firewalled", class.firewalled),
            ("unknown_category", class.unknown_category),
            ("role", class.role),
            ("blank_text", class.blank_text),
            ("waiting", class.waiting),
            ("malformed", class.dead_letters),
        ] {
            let labels = [("class", class.class.as_str()), ("verdict", verdict)];
            set(&verdicts, &labels, lines);
        }
    }
    if !known.status.classes.is_empty() {
        let help = "Scored lines by source class and what became of them; their sum is distilld_lines_read";
        registry.register("class_lines", help, verdicts);
    }
}

/// Seconds since 1970 of a stamp as this crate writes them.
fn seconds_of(stamp: &str) -> Option<f64> {
    let stamp: toml::value::Datetime = stamp.parse().ok()?;
    let (date, time) = (stamp.date?, stamp.time?);
    let days = days_since_1970(date.year.into(), date.month.into(), date.day.into())?;
    let second = u64::from(time.hour) * 3_600 + u64::from(time.minute) * 60;
    let second = second + u64::from(time.second.unwrap_or(0));
    let nanosecond = f64::from(time.nanosecond.unwrap_or(0));
    Some((days * 86_400 + second) as f64 + nanosecond / 1e9)
}

/// The inverse of how a stamp is made; `None` before 1970.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 {
        year.checked_sub(1)?
    } else {
        year
    };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    days.checked_sub(719_468)
}

fn single(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(signed(value));
    registry.register(name, help, gauge);
}

fn flag(registry: &mut Registry, name: &str, help: &str, value: bool) {
    single(registry, name, help, u64::from(value));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::timestamp::stamp;

    #[test]
    fn a_stamp_is_read_as_the_moment_it_was_made_of() {
        for wall_ms in [0, 951_782_400_000, 1_777_690_985_678, 4_107_542_400_000] {
            let read_s = seconds_of(&stamp(wall_ms)).unwrap();
            assert!(
                (read_s - wall_ms as f64 / 1_000.0).abs() < 1e-6,
                "{wall_ms}: {read_s}"
            );
        }
        assert_eq!(seconds_of("yesterday"), None);
    }

    #[test]
    fn the_older_format_names_families_as_their_samples() {
        let open = "# HELP a Some.\n# TYPE a counter\na_total 1\n# HELP b_bytes Size.\n# TYPE b_bytes gauge\n\
                    # UNIT b_bytes bytes\nb_bytes 2\n# HELP c Which.\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n";
        let expected = "# HELP a_total Some.\n# TYPE a_total counter\na_total 1\n# HELP b_bytes Size.\n\
                        # TYPE b_bytes gauge\nb_bytes 2\n# HELP c_info Which.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n";
        assert_eq!(plain(open), expected);
    }
}
