//! One figure has one value wherever it is shown: every table, gauge and plot adds up, to the lines of the account and to
//! the rows of the export, after retries, kills, a lost state, a full disk, and a clock that jumps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use distilld::cli::render::status::{TerminalSize, page};
use distilld::engine::Engine;
use distilld::lake::path::{PairPath, Stream as ProductStream, ledger_path};
use distilld::pair::verdict::VerdictKind;
use distilld::platform::clock::Clock as _;
use distilld::query::status::Status;
use distilld::record::timestamp::{day_of, moment};
use distilld::store::recent::StoredHistory;
use fastrand::Rng;
use serde_json::Value;

use crate::support::bench::{Bench, EXPORT, STATE_DIR};
use crate::support::http::{get, metric, metric_sum};
use crate::support::kill_harness::append_step;
use crate::support::lake_gen::{EvidenceMode, Shape, Step, script};
use crate::support::ledger::read_ledger;
use crate::support::process::Bench as ProcessBench;
use crate::support::sim_disk::SimDisk;

/// Random lakes on the simulated disk.
const CASES: u64 = 200;
const DAY_MS: i64 = 86_400_000;
/// The verdicts that are no refusals.
const NOT_REFUSED: [VerdictKind; 3] = [
    VerdictKind::Exported,
    VerdictKind::Waiting,
    VerdictKind::Malformed,
];

/// Rows by source class and minute.
type RowsByMinute = BTreeMap<(String, u64), u64>;

/// Reads rows by class and minute from an export.
fn rows_of(export: &[u8]) -> RowsByMinute {
    let mut rows = RowsByMinute::new();
    let whole = export.split_inclusive(|byte| *byte == b'\n');
    for row in whole.filter(|row| row.ends_with(b"\n")) {
        let row: Value = serde_json::from_slice(row).unwrap();
        let id = row["id"].as_str().unwrap();
        let (name, _index) = id.rsplit_once(':').unwrap();
        let class = name.strip_suffix(".jsonl").unwrap().to_owned();
        let minute = moment(row["created_at"].as_str().unwrap()).unwrap() / 60_000;
        *rows.entry((class, minute)).or_default() += 1;
    }
    rows
}

/// Returns a figure of an engine that differs from the export or the account, if there is one. `is_settled` is whether
/// all lines of the lake have been read, all of them within a day.
fn fault_of(engine: &Engine, now_ms: u64, export: &[u8], is_settled: bool) -> Option<String> {
    let rows = rows_of(export);
    let total: u64 = rows.values().sum();
    let exported = engine.totals().counts[VerdictKind::Exported] + engine.claimable();
    let shown = (
        engine.export_rows(),
        engine.export_rows() + engine.rows_pending(),
    );
    if shown != (total, exported) {
        return Some(format!(
            "{shown:?} rows, the export has {total} of {exported}"
        ));
    }
    let days = rows.keys().map(|(_, minute)| (minute / 1_440) as u32);
    for day in days.chain([day_of(now_ms)]) {
        let of_day = rows
            .iter()
            .filter(|((_, minute), _)| minute / 1_440 == u64::from(day));
        let of_day = of_day.map(|(_, rows)| rows).sum::<u64>();
        if engine.rows_on(day) != of_day {
            return Some(format!(
                "{} rows on {day}, not {of_day}",
                engine.rows_on(day)
            ));
        }
    }
    let recent = engine.recent();
    let (first, account) = (recent.minute_s / 60, engine.account());
    let mut plotted = RowsByMinute::new();
    let mut refused = BTreeMap::<&str, u64>::new();
    for (class, series) in &recent.series {
        for (minute, rows) in (first..)
            .zip(&series.exported)
            .filter(|(_, rows)| **rows > 0)
        {
            plotted.insert((class.clone(), minute), *rows);
        }
        refused.insert(class, series.refused.iter().sum());
    }
    let window = first..first + 1_440;
    let of_window: RowsByMinute = rows
        .into_iter()
        .filter(|((_, at), _)| window.contains(at))
        .collect();
    if plotted != of_window {
        return Some(format!(
            "the plot has {plotted:?}, the export {of_window:?}"
        ));
    }
    if !account.balanced() {
        return Some(format!("{account:?} does not add up"));
    }
    for (class, totals) in account.classes.iter().filter(|_| is_settled) {
        let (plotted, counted) = (refused.get(class.as_str()), totals.refused());
        if plotted.copied().unwrap_or(0) != counted {
            return Some(format!(
                "{plotted:?} refused of {class:?}, the account has {counted}"
            ));
        }
    }
    None
}

/// A daemon on a simulated disk, and what it last stored of its history.
struct Case {
    bench: Bench,
    stored: Option<StoredHistory>,
}

impl Case {
    fn engine(&mut self) -> &mut Engine {
        self.bench.engine.as_mut().unwrap()
    }

    fn store(&mut self) {
        let bytes = serde_json::to_vec(&self.engine().stored_recent().unwrap()).unwrap();
        self.stored = Some(serde_json::from_slice(&bytes).unwrap());
    }

    /// Ends the process without a word, and starts the next one.
    fn kill(&mut self) {
        self.bench.open().unwrap();
        let stored = self.stored.clone();
        self.engine().resume_recent(stored).unwrap();
        // As the daemon does with its first change.
        self.store();
    }

    fn lose_state(&mut self, rng: &mut Rng) {
        self.bench.engine = None;
        for name in ["state.redb", "journal"] {
            let path = Path::new(STATE_DIR).join(name);
            // The state has another name while memory holds the claims of an adoption.
            if self.bench.disk.read(&path).is_some() {
                self.bench.disk.remove(path);
            }
        }
        if rng.bool() {
            self.stored = None;
        }
        self.kill();
    }

    fn retry(&mut self, pair: &str) {
        let path = PairPath::from_relative(Path::new(pair)).unwrap();
        for stream in ProductStream::ALL {
            drop(self.engine().begin_retry(&path, stream).unwrap());
        }
    }

    /// Lets the disk be full during a step, so that rows are made and only some of them are written.
    fn step_on_a_full_disk(&mut self, rng: &mut Rng, step: &Step) {
        let room = rng.u64(..3_000);
        let disk = self.bench.disk.clone();
        if let Step::Append { .. } = step {
            // The scorers have room; only the writes of the daemon find none.
            self.bench.step(step, false).unwrap();
            disk.set_capacity(Some(disk.used_bytes() + room));
            drop(self.bench.catch_up());
            self.check(false);
            disk.set_capacity(None);
        } else {
            self.bench.step(step, true).unwrap();
        }
        self.bench.catch_up().unwrap();
    }

    fn check(&mut self, is_settled: bool) {
        let now_ms = self.bench.clock.wall_ms();
        let export = self.bench.disk.read(EXPORT).unwrap_or_default();
        let fault = fault_of(self.engine(), now_ms, &export, is_settled);
        assert_eq!(fault, None);
    }
}

fn run(seed: u64, jumps: bool) {
    let mut rng = Rng::with_seed(seed);
    let steps = script(seed, &Shape::small(&mut rng, EvidenceMode::Free));
    let mut bench = Bench::new(SimDisk::new());
    match rng.u8(..3) {
        0 => bench.commit_in_background(),
        threads => bench.threads = threads.into(),
    }
    let mut case = Case {
        bench,
        stored: None,
    };
    case.kill();
    for step in &steps {
        if jumps && rng.u8(..3) == 0 {
            let days = rng.choice([-30, 0, 0, 1, 30]).unwrap();
            case.bench.clock.set_wall(days * DAY_MS + rng.i64(..DAY_MS));
        }
        case.bench.clock.advance(rng.u64(..200_000));
        match (step, rng.u8(..12)) {
            (Step::Append { .. }, 0) => case.step_on_a_full_disk(&mut rng, step),
            (Step::Restart, _) => case.kill(),
            _ => case.bench.step(step, rng.bool()).unwrap(),
        }
        match (step, rng.u8(..12)) {
            (_, 0) => case.store(),
            (_, 1) => case.kill(),
            (_, 2) => case.lose_state(&mut rng),
            (Step::Append { pair, .. }, 3) => case.retry(pair),
            _ => {}
        }
        case.check(false);
    }
    case.bench.clock.set_wall(0);
    case.bench.step(&Step::Quiet, true).unwrap();
    case.engine().settle_recent();
    case.check(!jumps);
    case.store();
    case.kill();
    case.bench.step(&Step::Quiet, true).unwrap();
    case.engine().settle_recent();
    case.check(!jumps);
}

#[test]
fn rows_by_time_are_those_of_the_export_and_refused_lines_those_of_the_account() {
    for seed in 0..CASES {
        let ran = std::panic::catch_unwind(|| run(seed, seed % 2 == 0));
        assert!(ran.is_ok(), "seed {seed}");
    }
}

/// Every surface of a daemon at one moment, or of its files without it.
struct Surfaces {
    status: Value,
    daemon: Option<(String, Value)>,
    rows: u64,
    ledger: LedgerFigures,
}

/// The retraction ledger in figures, by the contract of its consumers.
#[derive(Debug, PartialEq, Eq)]
struct LedgerFigures {
    rows: u64,
    len_bytes: u64,
    orders: u64,
    /// Of the rows, those that an order took out.
    ordered_out: u64,
}

impl LedgerFigures {
    fn read(bench: &ProcessBench) -> Self {
        let ledger = std::fs::read(ledger_path(&bench.export())).unwrap();
        let (mut out, mut orders) = (BTreeMap::new(), BTreeSet::new());
        for event in read_ledger(&bench.export_bytes(), &ledger).unwrap() {
            let row = event.row.map(|(offset, _len)| offset);
            match (event.op.as_str(), row) {
                ("retract", Some(row)) => assert_eq!(out.insert(row, event.cause), None),
                ("restore", Some(row)) => assert!(out.remove(&row).is_some()),
                ("order", _) => assert!(orders.insert(event.run_id)),
                ("revoke", _) => assert!(orders.remove(&event.run_id)),
                _ => {}
            }
        }
        Self {
            rows: out.len() as u64,
            len_bytes: ledger.len() as u64,
            orders: orders.len() as u64,
            ordered_out: out.values().filter(|cause| *cause == "operator").count() as u64,
        }
    }
}

fn sum_of(values: &Value) -> u64 {
    let values = values.as_array().unwrap();
    values.iter().map(|value| value.as_u64().unwrap()).sum()
}

impl Surfaces {
    fn count(account: &Value, verdicts: impl IntoIterator<Item = VerdictKind>) -> u64 {
        let verdicts = verdicts.into_iter();
        verdicts
            .map(|verdict| account[verdict.code()].as_u64().unwrap())
            .sum()
    }

    fn refusals() -> impl Iterator<Item = VerdictKind> {
        let all = VerdictKind::ALL.into_iter();
        all.filter(|verdict| !NOT_REFUSED.contains(verdict))
    }

    /// Adds up every figure of each surface.
    fn check(&self, when: &str) {
        let status = &self.status;
        let (scored, export) = (&status["scored"], &status["export"]);
        let classes = status["classes"].as_array().unwrap();
        for account in classes.iter().chain([scored]) {
            let lines = Self::count(account, VerdictKind::ALL);
            assert_eq!(account["lines"], lines, "{when}: {account}");
        }
        for key in VerdictKind::ALL
            .map(VerdictKind::code)
            .iter()
            .chain(&["lines"])
        {
            let sum: u64 = classes
                .iter()
                .map(|class| class[*key].as_u64().unwrap())
                .sum();
            assert_eq!(scored[*key], sum, "{when}: {key} in {status}");
        }
        assert_eq!(export["rows"], self.rows, "{when}: {status}");
        assert_eq!(export["rows_today"], self.rows, "{when}: {status}");
        assert_eq!(
            scored["exported"].as_u64().unwrap() + export["rows_unclaimed"].as_u64().unwrap(),
            self.rows
        );
        self.check_ledger(when);
        self.check_table(when);
        if let Some((metrics, recent)) = &self.daemon {
            self.check_metrics(when, metrics);
            let sum = |what: &str| -> u64 {
                let series = recent["series"].as_object().unwrap().values();
                series.map(|series| sum_of(&series[what])).sum()
            };
            assert_eq!(sum("exported"), self.rows, "{when}: rows of the plot");
            let refused = Self::count(scored, Self::refusals());
            assert_eq!(sum("refused"), refused, "{when}: refused lines of the plot");
        }
    }

    /// Compares the figures of the retraction ledger with its fold.
    fn check_ledger(&self, when: &str) {
        let shown = &self.status["retractions"];
        let figure = |key: &str| shown[key].as_u64().unwrap();
        let figures = LedgerFigures {
            rows: figure("rows"),
            len_bytes: figure("len_bytes"),
            orders: figure("orders"),
            ordered_out: self.ledger.ordered_out,
        };
        assert_eq!(figures, self.ledger, "{when}");
        let contradicted = self.status["export"]["contradicted"].as_u64().unwrap();
        // A row that an order took out first may be contradicted as well.
        let range = contradicted..=contradicted + figures.ordered_out;
        assert!(
            range.contains(&figures.rows),
            "{when}: {range:?} {figures:?}"
        );
        assert!(contradicted > 0, "{when}");
        let Some((text, _)) = &self.daemon else {
            return;
        };
        for (name, figure) in [
            ("distilld_export_rows_retracted", figures.rows),
            ("distilld_export_rows_contradicted", contradicted),
            ("distilld_ledger_size_bytes", figures.len_bytes),
            ("distilld_standing_orders", figures.orders),
        ] {
            assert_eq!(metric(text, name), Some(figure as f64), "{when}: {name}");
        }
    }

    /// Adds up each row of the table of `status`.
    fn check_table(&self, when: &str) {
        let status: Status = serde_json::from_value(self.status.clone()).unwrap();
        let (width, colour) = (1_000, false);
        let text = page(&status, TerminalSize { width, colour });
        let mut lines = text
            .lines()
            .skip_while(|line| !line.starts_with("source class"));
        let columns = |line: &str| -> Vec<String> {
            let columns = line.split("  ").map(str::trim);
            columns
                .filter(|column| !column.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let heads = columns(lines.next().unwrap());
        let verdicts = VerdictKind::ALL.map(VerdictKind::title);
        let mut rows = 0;
        for line in lines.take_while(|line| !line.is_empty()) {
            let cells = columns(line);
            let figure = |n: usize| cells[n].replace(',', "").parse::<u64>().unwrap();
            let of_verdicts = (0..heads.len()).filter(|n| verdicts.contains(&heads[*n]));
            assert_eq!(heads[1], "lines");
            assert_eq!(
                figure(1),
                of_verdicts.map(figure).sum::<u64>(),
                "{when}: {text}"
            );
            rows += 1;
        }
        assert_eq!(rows, status.classes.len() + 1, "{when}: {text}");
    }

    fn check_metrics(&self, when: &str, text: &str) {
        let scored = &self.status["scored"];
        let lines = scored["lines"].as_f64();
        assert_eq!(metric(text, "distilld_lines_read"), lines, "{when}");
        for name in ["distilld_lines", "distilld_class_lines"] {
            assert_eq!(Some(metric_sum(text, name, "")), lines, "{when}: {name}");
            for verdict in VerdictKind::ALL {
                let label = format!("verdict=\"{}\"", verdict.code());
                let sum = metric_sum(text, name, &label);
                assert_eq!(
                    Some(sum),
                    scored[verdict.code()].as_f64(),
                    "{when}: {name} {label}"
                );
            }
        }
        assert_eq!(
            metric(text, "distilld_export_rows"),
            Some(self.rows as f64),
            "{when}"
        );
        assert_eq!(
            metric(text, "distilld_export_rows_pending"),
            Some(0.0),
            "{when}"
        );
    }
}

fn surfaces(bench: &ProcessBench, address: Option<std::net::SocketAddr>) -> Surfaces {
    let daemon = address.map(|address| {
        let recent = get(address, "/recent.json").json();
        (get(address, "/metrics").body, recent)
    });
    Surfaces {
        status: bench.status(),
        daemon,
        rows: bench.row_count() as u64,
        ledger: LedgerFigures::read(bench),
    }
}

/// Returns the run of an effective row, and a run that waits.
fn runs_to_order_out(bench: &ProcessBench) -> [String; 2] {
    let rows = bench.run(&mut bench.command(&["rows"]));
    rows.check(0, &[]);
    let row: Value = serde_json::from_str(rows.stdout.lines().last().unwrap()).unwrap();
    let waiting = &bench.status()["waiting_oldest"][0]["run_id"];
    [&row["source_run_id"], waiting].map(|run| run.as_str().unwrap().to_owned())
}

#[test]
fn every_table_gauge_and_plot_of_a_daemon_adds_up() {
    let bench = ProcessBench::new();
    let steps = script(7, &Shape::steady(600));
    let (first, second) = steps.split_at(steps.len() / 2);
    first
        .iter()
        .for_each(|step| append_step(&bench.root(), step).unwrap());
    let (mut daemon, address) = bench.listening();
    surfaces(&bench, Some(address)).check("after the first half");
    let letters = bench.ask(&["dead-letters", "--json"])["letters"].clone();
    let letters = letters.as_array().unwrap();
    assert!(letters.len() > 10, "{letters:?}");
    for letter in letters {
        let day_file = letter["day_file"].as_str().unwrap();
        let retry = ["dead-letters", "retry", day_file, "--evidence"];
        let is_scored = letter["stream"] == "scored";
        let retry = &retry[..if is_scored { 3 } else { 4 }];
        bench.run(&mut bench.command(retry)).check(0, &[]);
    }
    surfaces(&bench, Some(address)).check("after retries");
    let [exported, waiting] = runs_to_order_out(&bench);
    let order = ["retract", &exported, &waiting, "--reason", "a test"];
    bench.run(&mut bench.command(&order)).check(0, &[]);
    // An answer is at most two seconds old.
    bench.wait_answer(&mut daemon, address, "/metrics", "the orders", |answer| {
        metric(&answer.body, "distilld_standing_orders") == Some(2.0)
    });
    let refused = Surfaces::count(&bench.status()["scored"], Surfaces::refusals());
    bench.wait_answer(&mut daemon, address, "/recent.json", "refusals", |answer| {
        let series = answer.json()["series"].clone();
        let series = series.as_object().unwrap().values();
        refused == series.map(|series| sum_of(&series["refused"])).sum::<u64>()
    });
    let ordered = surfaces(&bench, Some(address));
    ordered.check("after an order");
    assert_eq!(ordered.ledger.orders, 2);
    assert!(ordered.ledger.ordered_out > 0);
    // This process has written every event.
    let (text, _) = ordered.daemon.as_ref().unwrap();
    let retracted = metric_sum(text, "distilld_retracted_rows_total", "");
    let restored = metric(text, "distilld_restored_rows_total").unwrap();
    assert_eq!(retracted - restored, ordered.ledger.rows as f64);
    let by_order = metric_sum(text, "distilld_retracted_rows_total", "cause=\"operator\"");
    assert_eq!(by_order, ordered.ledger.ordered_out as f64);
    assert!(ordered.status["scored"]["ordered"].as_u64() > Some(0));
    daemon.kill_9().unwrap();
    surfaces(&bench, None).check("after a kill");
    second
        .iter()
        .for_each(|step| append_step(&bench.root(), step).unwrap());
    let (daemon, address) = bench.listening();
    surfaces(&bench, Some(address)).check("after the second half");
    bench.stop(daemon);
    surfaces(&bench, None).check("without a daemon");
    for keeps_history in [true, false] {
        let state_dir = bench.state_dir();
        for name in ["state.redb", "journal"] {
            std::fs::remove_file(state_dir.join(name)).unwrap();
        }
        if !keeps_history {
            std::fs::remove_file(state_dir.join("recent.json")).unwrap();
        }
        let (daemon, address) = bench.listening();
        surfaces(&bench, Some(address)).check("after the state was lost");
        bench.stop(daemon);
    }
    assert!(bench.row_count() > 50);
    let planned = bench.run(&mut bench.command(&["rebuild", "--dry-run"]));
    let planned: Value = serde_json::from_str(&planned.stdout).unwrap();
    assert_eq!(planned["refused"], Value::Null, "{planned}");
    let dropped = planned["dropped"].as_array().unwrap();
    assert!(
        dropped.iter().all(|group| group["reason"] == "ordered"),
        "{planned}"
    );
    // Of such a run all rows are dropped, also those that a line had taken out before.
    let ordered_out = surfaces(&bench, None).ledger.ordered_out;
    assert!(
        planned["rows_dropped"].as_u64() >= Some(ordered_out),
        "{planned}"
    );
    let revoke = ["retract", "--revoke", &exported, &waiting];
    bench.run(&mut bench.command(&revoke)).check(0, &[]);
    let revoked = surfaces(&bench, None);
    let ledger = &revoked.ledger;
    assert_eq!((ledger.orders, ledger.ordered_out), (0, 0));
    revoked.check_ledger("after the orders ended");
    bench.once();
    bench.run(&mut bench.command(&["rebuild"])).check(0, &[]);
    let (daemon, address) = bench.listening();
    surfaces(&bench, Some(address)).check("after a rebuild");
    bench.stop(daemon);
}
