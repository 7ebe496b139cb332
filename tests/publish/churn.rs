//! Two live daemons, each with twin publishers into one table, while runs arrive and are rejected: killed in a
//! loop, or with orders of an operator and a maintenance of the table at the same time. At the end the table is the union of the
//! effective sets.
//!
//! Minutes: `DISTILLD_PUBLISH_SECONDS=300 cargo test --features publish --test publish churn:: -- --nocapture`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;

use crate::publisher::{PAIR, Publisher, many_runs, python};
use crate::support::kill_harness::Daemon;
use crate::support::lake_gen::Stream;
use crate::support::process::Bench;
use crate::support::tools::number_from;

/// Duration of each test in the ordinary run; the variable selects another one.
const SECONDS: u64 = 10;
const SECONDS_VARIABLE: &str = "DISTILLD_PUBLISH_SECONDS";
const SEED_VARIABLE: &str = "DISTILLD_PUBLISH_SEED";
/// The time between two arrivals of runs, and how many arrive.
const PAUSE: Duration = Duration::from_millis(100);
const RUNS: usize = 8;
/// Commits of a few rows.
const SMALL: &str = "commit_interval_s = 1\ncommit_bytes = \"2KiB\"\ncheckpoint_every = 7\n";
/// Ends of lives, milliseconds: some before the first commit, some after many.
const LIVES_MS: [u64; 6] = [30, 100, 300, 1_000, 3_000, 10_000];

#[derive(Debug, Default)]
struct Tally {
    arrivals: usize,
    /// Starts of publishers, and those that were killed.
    publishers: usize,
    publishers_killed: usize,
    daemons_killed: usize,
    /// As far as publishers reported them before they were killed.
    commits: u64,
    conflicts: u64,
    /// The newest version of the table at the end.
    version: u64,
    orders: usize,
    maintenances: usize,
}

impl Tally {
    /// Adds what a publisher reported: `once` at its end, `run` after each commit.
    fn add(&mut self, account: &Path) {
        let text = fs::read_to_string(account).unwrap();
        if let Ok(account) = serde_json::from_str::<Value>(&text) {
            self.commits += account["commits"].as_u64().unwrap();
            self.conflicts += account["conflicts"].as_u64().unwrap();
        }
        for line in text
            .lines()
            .filter(|line| line.contains("committed version"))
        {
            let conflicts = line.split_once("conflicts=").unwrap().1;
            let digits = conflicts.split(|c: char| !c.is_ascii_digit()).next();
            self.commits += 1;
            self.conflicts += digits.unwrap().parse::<u64>().unwrap();
        }
    }
}

/// A publisher of a host.
struct Twin {
    process: Child,
    dies_at: Instant,
    account: PathBuf,
}

struct Host {
    publisher: Publisher,
    daemon: Option<Daemon>,
    daemon_dies_at: Instant,
    twins: Vec<Twin>,
    runs: usize,
}

struct Churn {
    hosts: [Host; 2],
    kills: bool,
    rng: Rng,
    tally: Tally,
    _place: tempfile::TempDir,
}

#[test]
fn processes_that_are_killed_lose_nothing_and_double_nothing() {
    let Some(mut churn) = Churn::new(true) else {
        return;
    };
    churn.go_on(&mut |_churn| {});
    churn.end();
}

#[test]
fn orders_and_a_maintenance_while_hosts_publish_lose_nothing() {
    let Some(mut churn) = Churn::new(false) else {
        return;
    };
    let mut maintenance = churn.maintain();
    churn.go_on(&mut |churn| {
        churn.give_order();
        if maintenance.try_wait().unwrap().is_some() {
            churn.end_maintenance(&mut maintenance);
            maintenance = churn.maintain();
        }
    });
    churn.end_maintenance(&mut maintenance);
    churn.end();
}

impl Churn {
    fn new(kills: bool) -> Option<Churn> {
        python()?;
        let seed = number_from(SEED_VARIABLE).unwrap_or_else(|| fastrand::u64(..));
        eprintln!("{SEED_VARIABLE}={seed} (the moments differ)");
        let place = tempfile::tempdir().unwrap();
        let table = place.path().join("sft").display().to_string();
        let host = |name| {
            let publisher = Publisher::with(Bench::new(), &table, name, SMALL);
            // Without an export a publisher has nothing to follow, and without a table there is nothing to maintain.
            publisher.export_runs(&["first"]);
            publisher.once();
            Host {
                publisher,
                daemon: None,
                daemon_dies_at: Instant::now(),
                twins: Vec::new(),
                runs: 1,
            }
        };
        Some(Churn {
            hosts: ["lake-01", "lake-02"].map(host),
            kills,
            rng: Rng::with_seed(seed),
            tally: Tally::default(),
            _place: place,
        })
    }

    /// Lets everything happen until the time is over.
    fn go_on(&mut self, more: &mut dyn FnMut(&mut Churn)) {
        let seconds = number_from(SECONDS_VARIABLE).unwrap_or(SECONDS);
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            for host in &mut self.hosts {
                host.arrive();
                host.keep_daemon(self.kills, &mut self.rng, &mut self.tally);
                host.keep_twins(self.kills, &mut self.rng, &mut self.tally);
            }
            self.tally.arrivals += 1;
            more(self);
            sleep(PAUSE);
        }
    }

    /// Kills all publishers, lets the daemons and then one publisher of each host catch up, and compares.
    fn end(mut self) {
        for host in &mut self.hosts {
            for mut twin in host.twins.drain(..) {
                self.tally.publishers_killed +=
                    usize::from(twin.process.try_wait().unwrap().is_none());
                _ = twin.process.kill();
                twin.process.wait().unwrap();
                self.tally.add(&twin.account);
            }
            if let Some(daemon) = host.daemon.take() {
                daemon.kill_9().unwrap();
            }
            host.publisher.bench.once();
            host.publisher.bench.assert_batch();
        }
        for host in &self.hosts {
            assert_eq!(host.publisher.bench.row_count(), host.runs);
            // What was not published between the kills needs thousands of small commits.
            host.publisher.configure("");
            let account = host.publisher.once();
            self.tally.version = account["version"].as_u64().unwrap();
        }
        for host in &self.hosts {
            host.publisher.assert_published();
            host.publisher.run(&["verify"]).check(0, &[]);
        }
        let rows = self.hosts.iter().map(|host| host.runs);
        eprintln!("rows: {}, {:?}", rows.sum::<usize>(), self.tally);
    }

    /// Takes runs of a host out by an order, or ends an order.
    fn give_order(&mut self) {
        let host = self.rng.choice(&self.hosts).unwrap();
        let run = format!("{}-{}", host.publisher.host, self.rng.usize(0..RUNS));
        let order = match self.rng.bool() {
            true => &["--reason", "r", "--unseen"][..],
            false => &["--revoke"],
        };
        let bench = &host.publisher.bench;
        let ended = bench.run(&mut bench.command(&[&["retract", &run], order].concat()));
        // An order that was not given cannot be revoked.
        assert!(ended.status.code() < Some(2), "{}", ended.stderr);
        self.tally.orders += usize::from(ended.status.success());
    }

    fn maintain(&self) -> Child {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/lakehouse/maintain.py");
        let host = &self.hosts[0].publisher;
        let log = File::create(host.bench.sibling("maintain.log")).unwrap();
        let mut command = Command::new(python().unwrap());
        let command = command.arg(script).arg(&host.table).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    fn end_maintenance(&mut self, maintenance: &mut Child) {
        let ended = maintenance.wait().unwrap();
        let log = self.hosts[0].publisher.bench.sibling("maintain.log");
        assert!(ended.success(), "{}", fs::read_to_string(log).unwrap());
        self.tally.maintenances += 1;
    }
}

impl Host {
    /// Appends runs, of which every fourth is rejected after it was accepted.
    fn arrive(&mut self) {
        let first = self.runs - 1;
        let name = match first {
            0 => self.publisher.host.clone(),
            _ => format!("{}-{first}", self.publisher.host),
        };
        let (evidence, scored) = many_runs(&name, RUNS);
        let bench = &self.publisher.bench;
        bench.append(Stream::Evidence, PAIR, evidence);
        bench.append(Stream::Scored, PAIR, scored);
        self.runs += RUNS;
    }

    fn keep_daemon(&mut self, kills: bool, rng: &mut Rng, tally: &mut Tally) {
        if kills
            && Instant::now() >= self.daemon_dies_at
            && let Some(daemon) = self.daemon.take()
        {
            daemon.kill_9().unwrap();
            tally.daemons_killed += 1;
        }
        if self.daemon.is_none() {
            self.daemon = Some(self.publisher.bench.start());
            self.daemon_dies_at = Instant::now() + life(rng);
        }
    }

    fn keep_twins(&mut self, kills: bool, rng: &mut Rng, tally: &mut Tally) {
        for twin in &mut self.twins {
            let ended = twin.process.try_wait().unwrap();
            if let Some(status) = ended {
                let text = fs::read_to_string(&twin.account).unwrap();
                assert!(status.success(), "{text}");
            } else if kills && Instant::now() >= twin.dies_at {
                twin.process.kill().unwrap();
                twin.process.wait().unwrap();
                tally.publishers_killed += 1;
            } else {
                continue;
            }
            tally.add(&twin.account);
            // Its place is free.
            twin.account.clear();
        }
        self.twins
            .retain(|twin| !twin.account.as_os_str().is_empty());
        while self.twins.len() < 2 {
            tally.publishers += 1;
            let twin = self.start_twin(tally.publishers, rng);
            self.twins.push(twin);
        }
    }

    fn start_twin(&self, number: usize, rng: &mut Rng) -> Twin {
        let account = self.publisher.bench.sibling(&format!("twin-{number}"));
        let command = if rng.bool() { "run" } else { "once" };
        let mut command = self.publisher.command(&[command]);
        let command = command.stdin(Stdio::null());
        let out = File::create(&account).unwrap();
        let command = command.stdout(out.try_clone().unwrap()).stderr(out);
        Twin {
            process: command.spawn().unwrap(),
            dies_at: Instant::now() + life(rng),
            account,
        }
    }
}

fn life(rng: &mut Rng) -> Duration {
    Duration::from_millis(*rng.choice(&LIVES_MS).unwrap()).mul_f64(rng.f64())
}
