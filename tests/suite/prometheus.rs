//! A real Prometheus against the real daemon: it scrapes the daemon, loads the rules of `examples/`, and each alert
//! fires for its fault; every query of the dashboard is run.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::http::{full_disk_command, make_room};
use crate::managed::namespaces_work;
use crate::support::http::get;
use crate::support::kill_harness::wait_until;
use crate::support::lake_gen::Stream;
use crate::support::manager::StoppedThread;
use crate::support::packaged_host::PackagedHost;
use crate::support::process::{Bench, LONG, evidence, evidence_with, scored, scored_as};

const PAIR: &str = "2026/05/01/audits.jsonl";

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/prometheus")
        .join(name)
}

/// A server that ends with its test.
struct Prometheus {
    process: Child,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

impl Prometheus {
    /// Starts a server that scrapes the targets, each with the name of its instance if it is not the default one; returns
    /// `None`, with the reason on stderr, where it is neither installed nor required.
    fn start(targets: &[(SocketAddr, Option<&str>)], interval: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("rules.yml"), fast_rules()).unwrap();
        let targets: Vec<_> = targets
            .iter()
            .map(|(target, lake)| {
                let labels =
                    lake.map_or(String::new(), |lake| format!(", labels: {{lake: {lake}}}"));
                format!("{{targets: [\"{target}\"]{labels}}}")
            })
            .collect();
        let config = format!(
            "global: {{scrape_interval: {interval}, scrape_timeout: {interval}, evaluation_interval: 500ms}}\n\
             rule_files: [rules.yml]\n\
             scrape_configs: [{{job_name: distilld, static_configs: [{}]}}]\n",
            targets.join(", ")
        );
        fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        // Prometheus cannot report a port that the kernel chose.
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let spawned = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                dir.path().join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log")).unwrap())
            .spawn();
        let process = match spawned {
            Ok(process) => process,
            Err(error)
                if error.kind() == ErrorKind::NotFound && std::env::var_os("CI").is_none() =>
            {
                eprintln!("skipped: no prometheus here; Debian has it in the package of that name");
                return None;
            }
            Err(error) => panic!("prometheus: {error}"),
        };
        let server = Self {
            process,
            address,
            dir,
        };
        let ready = || {
            Ok(std::net::TcpStream::connect(address).is_ok()
                && get(address, "/-/ready").status == 200)
        };
        assert!(wait_until(LONG, ready).unwrap(), "{}", server.log());
        Some(server)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn ask(&self, path: &str) -> Value {
        let answer = get(self.address, path);
        let body = dechunked(&answer.head, &answer.body);
        let body: Value = serde_json::from_str(&body)
            .unwrap_or_else(|error| panic!("{path}: {error}: {answer:?}"));
        assert_eq!(body["status"], "success", "{path}: {body}");
        body["data"].clone()
    }

    /// Returns the commands in the texts of the alerts that fire for a daemon.
    fn commands(&self, target: SocketAddr) -> BTreeSet<String> {
        let data = self.ask("/api/v1/alerts");
        let target = target.to_string();
        let alerts = data["alerts"].as_array().unwrap().iter();
        let texts = alerts.filter(|alert| alert["labels"]["instance"] == target.as_str());
        let texts = texts.map(|alert| alert["annotations"]["description"].as_str().unwrap());
        let quoted = texts.flat_map(|text| text.split('`').skip(1).step_by(2));
        quoted
            .filter(|quoted| quoted.contains(' '))
            .map(str::to_owned)
            .collect()
    }

    /// Returns the names of the alerts that fire for a daemon.
    fn firing(&self, target: SocketAddr) -> BTreeSet<String> {
        let data = self.ask("/api/v1/alerts");
        let alerts = data["alerts"].as_array().unwrap().iter();
        let target = target.to_string();
        let firing = alerts.filter(|alert| {
            alert["state"] == "firing" && alert["labels"]["instance"] == target.as_str()
        });
        firing
            .map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned())
            .collect()
    }

    fn wait_firing(&self, target: SocketAddr, wanted: &[&str], fired: &mut BTreeSet<String>) {
        let fires = || {
            Ok(wanted
                .iter()
                .all(|name| self.firing(target).contains(*name)))
        };
        assert!(
            wait_until(LONG, fires).unwrap(),
            "{wanted:?} wanted, {:?} fire\n{}",
            self.firing(target),
            self.log()
        );
        fired.extend(wanted.iter().map(|name| (*name).to_owned()));
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Returns a body without its chunked transfer encoding.
fn dechunked(head: &str, body: &str) -> String {
    if !head.contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut joined, mut rest) = (String::new(), body);
    while let Some((len, tail)) = rest.split_once("\r\n") {
        let len = usize::from_str_radix(len.trim(), 16).unwrap();
        joined.push_str(&tail[..len]);
        rest = tail[len..].trim_start_matches("\r\n");
        if len == 0 {
            break;
        }
    }
    joined
}

/// Returns the rules of the example with delays of seconds instead of minutes, for the test.
fn fast_rules() -> String {
    let rules = fs::read_to_string(example("rules.yml")).unwrap();
    let lines = rules
        .lines()
        .map(|line| match line.trim_start().strip_prefix("for: ") {
            Some(_) => String::new(),
            None => line
                .replace("[10m]", "[20s]")
                .replace("[15m]", "[20s]")
                .replace("[1h]", "[20s]"),
        });
    lines.collect::<Vec<_>>().join("\n")
}

fn alert_names() -> BTreeSet<String> {
    let rules = fs::read_to_string(example("rules.yml")).unwrap();
    let names = rules
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

/// Runs the commands in the texts of the alerts of an instance as they are typed, on a host that has it.
fn run_typed(commands: &BTreeSet<String>, bench: &Bench) {
    for command in ["status", "check", "dead-letters", "explain --retracted"] {
        let typed = format!("distilld --instance night {command}");
        assert!(commands.contains(&typed), "no {typed} in {commands:?}");
    }
    if !namespaces_work() {
        return;
    }
    let host = PackagedHost::new();
    host.add("night", bench);
    for typed in commands {
        let ended = bench.run(&mut host.command("sh", &["-c", typed]));
        let code = ended.status.code();
        assert!(
            code.is_some_and(|code| code < 2),
            "{typed}: {code:?} {}",
            ended.stderr
        );
    }
}

#[test]
fn each_alert_fires_for_its_fault_and_not_before() {
    // On a full disk from its start, with a day-file to read.
    let (full, polled, quiet, stuck) = (Bench::new(), Bench::new(), Bench::new(), Bench::new());
    full.append(
        Stream::Evidence,
        PAIR,
        evidence_with("r1", &"x".repeat(9 << 20)),
    );
    full.append(Stream::Scored, PAIR, scored("r1"));
    let full_daemon =
        full.start_command(full_disk_command(&full).env("DISTILLD_FRESH_OBJECTIVE_MS", "1000"));
    let full_at = full.listener(0);
    let mut polling = polled.command(&["run", "--listen", "127.0.0.1:0"]);
    let (mut polled_daemon, polled_at) = polled.listening_by(polling.env("DISTILLD_WATCH", "poll"));
    quiet.append_run(PAIR, "r0");
    let (mut quiet_daemon, quiet_at) = quiet.listening();
    let mut fired = BTreeSet::new();
    let targets = [
        (full_at, None),
        (polled_at, Some("night")),
        (quiet_at, None),
    ];
    let Some(server) = Prometheus::start(&targets, "500ms") else {
        return;
    };

    server.wait_firing(full_at, &["DistilldStoppedReading"], &mut fired);
    assert_eq!(
        server.commands(full_at),
        BTreeSet::from(["distilld status".to_owned()])
    );
    server.wait_firing(
        polled_at,
        &["DistilldPolling", "DistilldNoSources"],
        &mut fired,
    );
    // Prometheus must have seen each counter before it increases.
    assert_eq!(
        server.firing(polled_at).len(),
        2,
        "{:?}",
        server.firing(polled_at)
    );
    polled.append_run(PAIR, "r1");
    polled.append(Stream::Scored, PAIR, scored_as("r1", "rejected"));
    // A scorer that goes wrong: it rejects what it has accepted.
    let runs: Vec<String> = (0..40).map(|n| format!("wrong{n}")).collect();
    let lines = |of: fn(&str) -> String| runs.iter().map(|run| of(run)).collect::<String>();
    polled.append(Stream::Evidence, PAIR, lines(evidence));
    polled.append(Stream::Scored, PAIR, lines(scored));
    polled.wait_run(&mut polled_daemon, "wrong39");
    polled.append(
        Stream::Scored,
        PAIR,
        lines(|run| scored_as(run, "rejected")),
    );
    polled.append(Stream::Scored, PAIR, "{\n");
    let fifo = polled.path(Stream::Scored, "2026/05/01/fifo.jsonl");
    assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
    let counted = [
        "DistilldMalformedLines",
        "DistilldRetractions",
        "DistilldIncomplete",
    ];
    server.wait_firing(polled_at, &counted, &mut fired);
    run_typed(&server.commands(polled_at), &polled);

    // Its row is late by now.
    let lag_s = || {
        Ok(
            crate::support::http::metric(&get(full_at, "/metrics").body, "distilld_lag_seconds")
                > Some(6.0),
        )
    };
    assert!(wait_until(LONG, lag_s).unwrap());
    // One fault, one alert: the lag and the unread history follow from it.
    let one = BTreeSet::from(["DistilldStoppedReading".to_owned()]);
    assert_eq!(server.firing(full_at), one);
    make_room(&full_daemon);
    server.wait_firing(full_at, &["DistilldSlowRows"], &mut fired);

    quiet.append_run(PAIR, "r1");
    quiet.wait_run(&mut quiet_daemon, "r1");
    assert_eq!(server.firing(quiet_at), BTreeSet::new());
    every_query_of_the_dashboard_is_valid(&server);

    polled.probe(&mut polled_daemon);
    polled.stop(polled_daemon);
    server.wait_firing(polled_at, &["DistilldDown"], &mut fired);
    let commands = server.commands(polled_at);
    let unit = "systemctl status distilld@night";
    assert!(commands.contains(unit), "{commands:?}");
    full.stop(full_daemon);
    quiet.stop(quiet_daemon);

    let (stuck_daemon, stuck_at) = stuck.listening();
    let _hung = StoppedThread::stop(stuck_daemon.pid(), "engine");
    // The first missing answer takes longer than a short scrape interval.
    let Some(server) = Prometheus::start(&[(stuck_at, None)], "8s") else {
        return;
    };
    server.wait_firing(stuck_at, &["DistilldUnresponsive"], &mut fired);
    fired.extend(["DistilldLagging", "DistilldNotCaughtUp"].map(str::to_owned));
    assert_eq!(fired, alert_names(), "the last two are in RULE_TESTS");
}

/// Name, figures of a daemon by the minute, time, and the alerts that fire then.
type RuleTest = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static [&'static str],
);

const REJECTED_ROWS: &str = "distilld_retracted_rows_total{cause=\"rejected\"}";

/// What `promtool test rules` reads.
const RULE_TESTS: &[RuleTest] = &[
    (
        "a lag alone",
        &[
            ("distilld_lag_seconds", "90x9"),
            ("distilld_caught_up", "1x9"),
        ],
        "8m",
        &["DistilldLagging"],
    ),
    (
        "an unreadable day-file hides no lag",
        &[
            ("distilld_health{verdict=\"incomplete\"}", "1x9"),
            ("distilld_day_files_skipped", "1x9"),
            ("distilld_lag_seconds", "90x9"),
            ("distilld_caught_up", "1x9"),
        ],
        "8m",
        &["DistilldIncomplete", "DistilldLagging"],
    ),
    (
        "a full disk has one alert",
        &[
            ("distilld_health{verdict=\"stopped\"}", "1x99"),
            ("distilld_lag_seconds", "90x99"),
            ("distilld_caught_up", "1x99"),
        ],
        "90m",
        &["DistilldStoppedReading"],
    ),
    (
        "a full disk hides no unreadable day-file",
        &[
            ("distilld_health{verdict=\"stopped\"}", "1x99"),
            ("distilld_directories_skipped", "1x99"),
            ("distilld_caught_up", "0x99"),
        ],
        "90m",
        &["DistilldIncomplete", "DistilldStoppedReading"],
    ),
    (
        "a fault that comes and goes too fast for its alert does not silence the lag",
        &[
            (
                "distilld_health{verdict=\"stopped\"}",
                "1 0 1 0 1 0 1 0 1 0",
            ),
            ("distilld_lag_seconds", "90x9"),
            ("distilld_caught_up", "1x9"),
        ],
        "8m",
        &["DistilldLagging"],
    ),
    (
        "a hung disk has one alert",
        &[
            ("distilld_health{verdict=\"unresponsive\"}", "1x99"),
            ("distilld_lag_seconds", "90x99"),
            ("distilld_caught_up", "0x99"),
        ],
        "90m",
        &["DistilldUnresponsive"],
    ),
    (
        "a long history is not a lag",
        &[
            ("distilld_lag_seconds", "3000x99"),
            ("distilld_caught_up", "0x99"),
        ],
        "50m",
        &[],
    ),
    (
        "a history that takes too long",
        &[
            ("distilld_lag_seconds", "3000x99"),
            ("distilld_caught_up", "0x99"),
        ],
        "90m",
        &["DistilldNotCaughtUp"],
    ),
    (
        "a recovery that takes too long",
        &[("distilld_recovering", "1x99")],
        "90m",
        &["DistilldNotCaughtUp"],
    ),
    (
        "a few rejections are ordinary",
        &[
            (REJECTED_ROWS, "0+1x99"),
            ("distilld_export_rows", "2000x99"),
            ("distilld_caught_up", "1x99"),
        ],
        "90m",
        &[],
    ),
    (
        "a scorer that went wrong",
        &[
            (REJECTED_ROWS, "0+3x99"),
            ("distilld_export_rows", "2000x99"),
            ("distilld_caught_up", "1x99"),
        ],
        "90m",
        &["DistilldRetractions"],
    ),
    (
        "an operator takes runs out",
        &[
            (
                "distilld_retracted_rows_total{cause=\"operator\"}",
                "0+3x99",
            ),
            ("distilld_export_rows", "2000x99"),
            ("distilld_caught_up", "1x99"),
        ],
        "90m",
        &[],
    ),
    (
        "the retractions of a history",
        &[
            (REJECTED_ROWS, "0+30x99"),
            ("distilld_export_rows", "2000x99"),
            ("distilld_caught_up", "0x40 1x40"),
        ],
        "50m",
        &[],
    ),
    (
        "a fault of another daemon silences nothing",
        &[
            ("distilld_lag_seconds", "90x9"),
            ("distilld_caught_up", "1x9"),
            (
                "distilld_health{verdict=\"stopped\",instance=\"other\"}",
                "1x9",
            ),
        ],
        "8m",
        &["DistilldLagging"],
    ),
];

#[test]
fn one_fault_has_one_alert_and_hides_no_other() {
    let ours = |series: &str| match series.split_once('{') {
        Some((_, labels)) if labels.contains("instance=") => {
            series.replace('}', ",job=\"distilld\"}")
        }
        Some(_) => series.replace('}', ",job=\"distilld\",instance=\"a\"}"),
        None => format!("{series}{{job=\"distilld\",instance=\"a\"}}"),
    };
    let mut tests = serde_json::json!([]);
    for (name, figures, at, alerts) in RULE_TESTS {
        // A figure that a case does not give is that of a daemon without a fault.
        let usual = [
            ("up", "1x99"),
            ("distilld_lag_objective_seconds", "60x99"),
            ("distilld_day_files_skipped", "0x99"),
            ("distilld_directories_skipped", "0x99"),
        ];
        let is_given = |name: &str| figures.iter().any(|(figure, _)| *figure == name);
        let usual = usual.iter().filter(|(name, _)| !is_given(name));
        let series: Vec<Value> = (usual.chain(*figures))
            .map(|(name, values)| {
                let constant = |part: &str| match part.split_once('x') {
                    Some((value, times)) if !value.contains('+') => format!("{value}+0x{times}"),
                    _ => part.to_owned(),
                };
                let values: Vec<String> = values.split(' ').map(constant).collect();
                let values = values.join(" ");
                serde_json::json!({ "series": ours(name), "values": values })
            })
            .collect();
        let query = "sort(count by (alertname) (ALERTS{alertstate=\"firing\",instance=\"a\"}))";
        let firing: Vec<Value> = (alerts.iter())
            .map(|alert| serde_json::json!({ "labels": format!("{{alertname=\"{alert}\"}}"), "value": 1 }))
            .collect();
        tests.as_array_mut().unwrap().push(serde_json::json!({
            "name": name, "interval": "1m", "input_series": series,
            "promql_expr_test": [{ "expr": query, "eval_time": at, "exp_samples": firing }],
        }));
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tests.json");
    let document = serde_json::json!({ "rule_files": [example("rules.yml")], "evaluation_interval": "1m", "tests": tests });
    fs::write(&file, document.to_string()).unwrap();
    match Command::new("promtool")
        .args(["test", "rules"])
        .arg(&file)
        .output()
    {
        Ok(output) => assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) if error.kind() == ErrorKind::NotFound && std::env::var_os("CI").is_none() => {
            eprintln!("skipped: no promtool here; it comes with Debian's package prometheus");
        }
        Err(error) => panic!("promtool: {error}"),
    }
}

/// Runs each query; those that are listed must return data, because the daemons provide it.
fn every_query_of_the_dashboard_is_valid(server: &Prometheus) {
    let dashboard: Value =
        serde_json::from_slice(&fs::read(example("dashboard.json")).unwrap()).unwrap();
    let mut run = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let query = query
                .replace("$instance", ".*")
                .replace("$__rate_interval", "20s");
            let data = server.ask(&format!("/api/v1/query?query={}", percent_encoded(&query)));
            assert!(data["result"].is_array(), "{query}: {data}");
            // Series that a status does not have yet, and series without a cause.
            let may_be_empty = [
                "distilld_class_lines",
                "distilld_oldest_waiting",
                "histogram_quantile",
            ];
            if !may_be_empty.iter().any(|part| query.contains(part)) {
                assert_ne!(
                    data["result"],
                    Value::Array(Vec::new()),
                    "{query} gives nothing"
                );
            }
            run += 1;
        }
    }
    assert!(run > 20, "only {run} queries");
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn the_rules_are_valid() {
    let checked = Command::new("promtool")
        .arg("check")
        .arg("rules")
        .arg(example("rules.yml"))
        .output();
    match checked {
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) if error.kind() == ErrorKind::NotFound && std::env::var_os("CI").is_none() => {
            eprintln!("skipped: no promtool here; it comes with Debian's package prometheus");
        }
        Err(error) => panic!("promtool: {error}"),
    }
}
