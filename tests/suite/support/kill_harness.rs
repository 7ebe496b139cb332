//! A test bench for the real process on a real disk: scorers that append, a reader that verifies the export, and a
//! loop that kills the daemon at random moments and restarts it. Only the view of a consumer counts: the daemon's
//! state is not read.
//!
//! The moments of the kills are seeded; what the daemon was doing then depends on the host.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use distilld::platform::root_lock;
use fastrand::Rng;

use super::export_reader::ReaderThread;
use super::lake_gen::{Shape, Step, pairs_of, script};
use super::ledger::{Event, LedgerReader, effective_rows, read_ledger};
use super::naive::{multiset_difference, naive_batch};

/// Polling interval of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Maximum time for an order to the last daemon.
const QUIET: Duration = Duration::from_secs(30);
/// Maximum life of a daemon after an order was begun.
const ORDER_LIFE: Duration = Duration::from_millis(60);
/// Maximum time from SIGTERM to the exit of a daemon.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// The parameters of a bench run.
#[derive(Debug, Clone)]
pub struct KillPlan {
    /// Seed of the lake, the cuts and the moments of the kills.
    pub seed: u64,
    /// Number of kills; the start after the last one is not killed.
    pub kills: u32,
    /// Lines in the lake, both streams together.
    pub lines: usize,
    /// Appends per second, each a random piece of a day-file; more where `scoring` would be too short.
    pub appends_per_second: u32,
    /// Maximum time of the scorers for the lake.
    pub scoring: Duration,
    /// Maximum life of a daemon before it is killed. The minimum is zero.
    pub life: Duration,
    /// Maximum time after the last append until the export must equal the batch.
    pub quiet_deadline: Duration,
    /// Creates the command that starts the daemon on a root.
    pub command: fn(&Path) -> Command,
    /// Whether the daemon keeps a retraction ledger.
    pub keeps_ledger: bool,
    /// Returns the difference between the export and the naive rows, if there is one.
    pub difference: fn(&[u8], &[String]) -> Option<String>,
}

impl KillPlan {
    /// Creates a plan of `kills` kills within lives of up to 200 ms, and 1,000 lines that arrive throughout.
    pub fn new(seed: u64, kills: u32) -> Self {
        Self {
            seed,
            kills,
            lines: 1000,
            appends_per_second: 200,
            scoring: Duration::from_millis(500) + Duration::from_millis(100) * kills,
            life: Duration::from_millis(200),
            quiet_deadline: Duration::from_secs(60),
            command: daemon_command,
            keeps_ledger: true,
            difference: multiset_difference,
        }
    }

    /// Returns the pause between two of `appends` appends.
    fn pause(&self, appends: usize) -> Duration {
        let appends = u32::try_from(appends.max(1)).unwrap_or(u32::MAX);
        let by_rate = Duration::from_secs(1) / self.appends_per_second.max(1);
        by_rate.min(self.scoring / appends)
    }
}

/// The result of a bench run.
#[derive(Debug, Clone, Copy)]
pub struct KillReport {
    /// Rows in the export at the end.
    pub rows: usize,
    /// Retractions, restorations and orders in the ledger at the end.
    pub retracted: usize,
    pub restored: usize,
    pub ordered: usize,
    /// Orders that were answered.
    pub answered: usize,
    /// Kills after which the export had grown since the previous start.
    pub kills_with_progress: u32,
}

/// Runs the plan on an empty directory.
///
/// # Errors
/// The violation, with the seed and the end of the daemon's log.
pub fn run(plan: &KillPlan, root: &Path) -> Result<KillReport, String> {
    let log = root.join("daemon.log");
    let lake = root.join("lake");
    bench(plan, &lake, &log).map_err(|fault| {
        format!(
            "seed {}: {fault}\n--- end of {}\n{}",
            plan.seed,
            log.display(),
            end_of(&log)
        )
    })
}

/// Returns the path of a root's export.
pub fn export_path(root: &Path) -> PathBuf {
    root.join("data/distilled/sft/sft_export.jsonl")
}

fn ledger_path(root: &Path) -> PathBuf {
    export_path(root).with_file_name("sft_retractions.jsonl")
}

fn bench(plan: &KillPlan, root: &Path, log: &Path) -> Result<KillReport, String> {
    let describe = |error: io::Error| error.to_string();
    fs::create_dir_all(root).map_err(describe)?;
    let steps = script(plan.seed, &Shape::steady(plan.lines));
    let naive = naive_batch(&pairs_of(&steps), false);
    let (expected, effective) = (naive.rows, naive.effective);
    let scorer = Scorer::start(root, plan.pause(steps.len()), steps);
    let reader = ReaderThread::start(&export_path(root));
    let ledger_reader = LedgerReader::start(&export_path(root));
    let start = || Daemon::start(&mut (plan.command)(root), log).map_err(describe);
    let mut rng = Rng::with_seed(plan.seed ^ 0x6b69_6c6c);
    let mut kills_with_progress = 0;
    let mut orders = Orders::new(plan, &effective);
    for _ in 0..plan.kills {
        let len_before = len_of(&export_path(root));
        let mut daemon = start()?;
        daemon.live_for(plan.life.mul_f64(rng.f64()))?;
        let order = orders.begin(root, &mut rng);
        daemon.live_for(ORDER_LIFE.mul_f64(rng.f64()))?;
        daemon.kill_9().map_err(describe)?;
        orders.end(order).map_err(describe)?;
        kills_with_progress += u32::from(len_of(&export_path(root)) > len_before);
        reader.check()?;
    }
    let mut daemon = start()?;
    scorer.finish(|| daemon.check_running())?;
    orders.finish(root)?;
    let caught_up = || {
        daemon.check_running()?;
        reader.check()?;
        let export = fs::read(export_path(root)).unwrap_or_default();
        let ledger = fs::read(ledger_path(root)).unwrap_or_default();
        let of_rows = (plan.difference)(&export, &expected);
        // The ledger of a live daemon may name rows that the export read before has not yet.
        let Ok(events) = read_ledger(&export, &ledger) else {
            return Ok(Some("the ledger names rows to come".to_owned()));
        };
        let of_ledger = plan
            .keeps_ledger
            .then(|| (plan.difference)(&effective_rows(&export, &events), &effective));
        let of_ledger = of_ledger.flatten();
        Ok(of_rows.or(of_ledger.map(|fault| format!("effective rows: {fault}"))))
    };
    wait_until_equal(plan.quiet_deadline, caught_up)?;
    let status = daemon.terminate(STOP_DEADLINE).map_err(describe)?;
    if status.code() != Some(0) {
        return Err(format!(
            "after SIGTERM the daemon ended with {status}, not with exit code 0"
        ));
    }
    reader.finish()?;
    let export = fs::read(export_path(root)).unwrap_or_default();
    let ledger = match fs::read(ledger_path(root)) {
        Err(_) if !plan.keeps_ledger => Vec::new(),
        read => read.map_err(describe)?,
    };
    let events = read_ledger(&export, &ledger)?;
    ledger_reader.finish(&events)?;
    orders.check(&events)?;
    let count = |op: &str| events.iter().filter(|event| event.op == op).count();
    match (plan.difference)(&export, &expected) {
        Some(difference) => Err(format!(
            "the export changed while the daemon stopped: {difference}"
        )),
        None => Ok(KillReport {
            rows: expected.len(),
            retracted: count("retract"),
            restored: count("restore"),
            ordered: count("order"),
            answered: orders.answered.len(),
            kills_with_progress,
        }),
    }
}

/// Orders of an operator during the kills. All of them are ended at the end.
struct Orders {
    /// The runs that have effective rows; none for a daemon without a ledger.
    runs: Vec<String>,
    given: BTreeSet<String>,
    /// Those that the command reported as done: they are durable.
    answered: BTreeSet<String>,
}

impl Orders {
    fn new(plan: &KillPlan, rows: &[String]) -> Self {
        let run_of = |row: &String| {
            let row: serde_json::Value = serde_json::from_str(row).ok()?;
            let run = row["source_run_id"].as_str()?.to_owned();
            (!run.is_empty()).then_some(run)
        };
        let runs = rows.iter().filter(|_| plan.keeps_ledger);
        Self {
            runs: runs.filter_map(run_of).collect(),
            given: BTreeSet::new(),
            answered: BTreeSet::new(),
        }
    }

    /// Begins an order on a run half of the time, if the daemon has its lock: without one the command would take it.
    fn begin(&mut self, root: &Path, rng: &mut Rng) -> Option<(String, Child)> {
        if rng.bool() || !root_lock::is_held(root) {
            return None;
        }
        let run = rng.choice(&self.runs)?.clone();
        let mut command = retract(root, &["--reason", "r", "--unseen", "--", &run]);
        let child = command.spawn().ok()?;
        self.given.insert(run.clone());
        Some((run, child))
    }

    /// Waits for the end of an order whose daemon was killed.
    fn end(&mut self, order: Option<(String, Child)>) -> io::Result<()> {
        if let Some((run, mut child)) = order
            && child.wait()?.success()
        {
            self.answered.insert(run);
        }
        Ok(())
    }

    /// Gives an order to the last daemon, and ends all.
    fn finish(&mut self, root: &Path) -> Result<(), String> {
        let Some(run) = self.runs.first().cloned() else {
            return Ok(());
        };
        answered(root, &["--reason", "r", "--unseen", "--", &run])?;
        self.given.insert(run.clone());
        self.answered.insert(run);
        let runs = self.given.iter().map(String::as_str);
        let arguments = ["--revoke", "--"].into_iter().chain(runs);
        answered(root, &arguments.collect::<Vec<_>>())
    }

    /// Fails if the ledger lacks an order that was answered.
    fn check(&self, events: &[Event]) -> Result<(), String> {
        let is_lost = |run: &&String| {
            let of_run = |event: &Event| event.op == "order" && event.run_id == **run;
            !events.iter().any(of_run)
        };
        match self.answered.iter().find(is_lost) {
            Some(run) => Err(format!("an order on {run:?} was answered and is gone")),
            None => Ok(()),
        }
    }
}

/// Repeats an order until the daemon, which may be starting, has carried it out.
fn answered(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut why = "the daemon has not begun".to_owned();
    let is_done = wait_until(QUIET, || {
        if !root_lock::is_held(root) {
            return Ok(false);
        }
        let ended = retract(root, arguments).stderr(Stdio::piped()).output();
        let ended = ended.map_err(|error| error.to_string())?;
        why = String::from_utf8_lossy(&ended.stderr).into_owned();
        // An order that was not recorded may be on a run that is not read yet.
        Ok(ended.status.success() || why.starts_with("no line has the run"))
    });
    is_done?.then_some(()).ok_or(why)
}

fn retract(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distilld"));
    let command_line = command.arg("--root").arg(root).arg("retract");
    command_line.args(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Returns the command `distilld --root ROOT run`.
pub fn daemon_command(root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distilld"));
    command.arg("--root").arg(root).arg("run");
    command
}

fn wait_until_equal(
    deadline: Duration,
    mut difference: impl FnMut() -> Result<Option<String>, String>,
) -> Result<(), String> {
    let mut last = None;
    let equal = wait_until(deadline, || {
        last = difference()?;
        Ok(last.is_none())
    })?;
    match (equal, last) {
        (false, Some(last)) => Err(format!(
            "export and batch still differ after {deadline:?}: {last}"
        )),
        _ => Ok(()),
    }
}

/// Returns whether rows appear throughout. In some lakes one stream is far ahead of the other: then all rows appear in
/// the last part.
pub fn earns_rows_throughout(steps: &[Step]) -> bool {
    let rows = |part: usize| {
        let steps = &steps[..steps.len() * part / 4];
        naive_batch(&pairs_of(steps), false).rows.len()
    };
    let rows = [0, 1, 2, 3, 4].map(rows);
    rows.windows(2)
        .all(|quarter| (quarter[1] - quarter[0]) * 7 > rows[4])
}

/// Polls a condition until it holds or the deadline has passed; returns which.
///
/// # Errors
/// The first error of the condition.
pub fn wait_until(
    deadline: Duration,
    mut holds: impl FnMut() -> Result<bool, String>,
) -> Result<bool, String> {
    let end = Instant::now() + deadline;
    loop {
        if holds()? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

fn len_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn end_of(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// A process under test. It is killed on drop.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts the process; its stderr is appended to `log`.
    ///
    /// # Errors
    /// The log cannot be opened or the program cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let command = command.stdout(log.try_clone()?).stderr(log);
        Ok(Self {
            child: command.spawn()?,
        })
    }

    /// Fails if the process has ended by itself.
    ///
    /// # Errors
    /// How it ended.
    pub fn check_running(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("the daemon ended by itself: {status}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Lets the process run for a while.
    ///
    /// # Errors
    /// It ended by itself.
    pub fn live_for(&mut self, time: Duration) -> Result<(), String> {
        wait_until(time, || self.check_running().map(|()| false)).map(|_| ())
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    /// The process had ended otherwise before.
    pub fn kill_9(mut self) -> io::Result<()> {
        self.child.kill()?;
        let status = self.child.wait()?;
        match status.signal() {
            Some(9) => Ok(()),
            _ => Err(io::Error::other(format!(
                "the daemon ended by itself: {status}"
            ))),
        }
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// The process has not ended at the deadline; it is killed then.
    pub fn terminate(self, deadline: Duration) -> io::Result<ExitStatus> {
        self.end_by(rustix::process::Signal::TERM, deadline)
    }

    /// Sends a signal and waits for the end.
    ///
    /// # Errors
    /// As [`Daemon::terminate`].
    pub fn end_by(
        mut self,
        signal: rustix::process::Signal,
        deadline: Duration,
    ) -> io::Result<ExitStatus> {
        let pid = rustix::process::Pid::from_child(&self.child);
        // Before it handles signals, a signal ends any process, which would not test its own end.
        let id = self.pid();
        let listens = || self.check_running().map(|()| listens_to(id, signal));
        wait_until(deadline, listens).map_err(io::Error::other)?;
        rustix::process::kill_process(pid, signal)?;
        self.wait(deadline)
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// It has not ended at the deadline.
    pub fn wait(&mut self, deadline: Duration) -> io::Result<ExitStatus> {
        let mut ended = None;
        let waited = wait_until(deadline, || {
            ended = self.child.try_wait().map_err(|error| error.to_string())?;
            Ok(ended.is_some())
        });
        waited.map_err(io::Error::other)?;
        ended.ok_or_else(|| io::Error::other(format!("still running after {deadline:?}")))
    }

    /// Returns the exit status if the process has ended.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn end(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// Returns whether a process has a handler for a signal, according to the kernel.
fn listens_to(pid: u32, signal: rustix::process::Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.unwrap_or(0) >> (signal.as_raw() - 1) & 1 == 1
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both calls fail only if the process has already ended.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A thread that writes a script's appends to real day-files. It stops on drop.
#[derive(Debug)]
pub struct Scorer {
    thread: Option<JoinHandle<io::Result<()>>>,
    stop: Arc<AtomicBool>,
}

impl Scorer {
    /// Starts the thread; it pauses after each append.
    pub fn start(root: &Path, pause: Duration, steps: Vec<Step>) -> Self {
        let root = root.to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for step in &steps {
                if stopped.load(Ordering::Acquire) {
                    break;
                }
                append_step(&root, step)?;
                thread::sleep(pause);
            }
            Ok(())
        });
        let thread = Some(thread);
        Self { thread, stop }
    }

    /// Waits until everything is written; `check` is called in between, and its error ends the wait.
    ///
    /// # Errors
    /// An append failed, or `check` did.
    pub fn finish(mut self, mut check: impl FnMut() -> Result<(), String>) -> Result<(), String> {
        while self
            .thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
        {
            check()?;
            thread::sleep(POLL_INTERVAL);
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => Err(format!("the scorer failed: {error}")),
            Some(Err(_)) => Err("the scorer panicked".to_owned()),
            Some(Ok(Ok(()))) | None => Ok(()),
        }
    }
}

impl Drop for Scorer {
    fn drop(&mut self) {
        // A scorer that continued would recreate directories that its test has removed.
        self.stop.store(true, Ordering::Release);
        _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Carries out an append on a real disk; other steps do nothing.
///
/// # Errors
/// Those of the file system.
pub fn append_step(root: &Path, step: &Step) -> io::Result<()> {
    let Step::Append {
        stream,
        pair,
        bytes,
    } = step
    else {
        return Ok(());
    };
    let path = stream.path(root, pair);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::naive::read_pairs;
    use super::*;
    use distilld::platform::storage::OsStorage;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_scorer_writes_the_whole_script() {
        let dir = tempfile::tempdir().unwrap();
        let steps = script(5, &Shape::steady(60));
        Scorer::start(dir.path(), Duration::ZERO, steps.clone())
            .finish(|| Ok(()))
            .unwrap();
        let mut expected = pairs_of(&steps);
        expected.retain(|_, (scored, _)| scored.is_some());
        assert_eq!(read_pairs(&OsStorage, dir.path()).unwrap(), expected);
    }

    #[test]
    fn a_process_is_killed_terminated_and_its_end_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let (log, ready) = (dir.path().join("log"), dir.path().join("ready"));
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.arg("-c").arg(script).current_dir(dir.path());
            Daemon::start(&mut command, &log).unwrap()
        };
        shell("exec sleep 60").kill_9().unwrap();
        let polite = shell("trap 'exit 0' TERM; : > ready; while :; do sleep 0.01; done");
        assert!(wait_until(LONG, || Ok(ready.exists())).unwrap());
        assert_eq!(polite.terminate(LONG).unwrap().code(), Some(0));
        let mut brief = shell("echo no root >&2; exit 3");
        let fault = brief.live_for(LONG).unwrap_err();
        assert!(fault.contains("exit status: 3"), "{fault}");
        assert_eq!(end_of(&log), "no root");
    }

    /// Returns a substitute for the daemon: a shell that repeatedly appends the lines that the export lacks of the
    /// file `prepared` next to the lake, then runs `tail`, until it receives SIGTERM. It writes by builtins alone: a
    /// child would survive and write after the shell was killed.
    fn substitute(root: &Path, on_term: &str, tail: &str) -> Command {
        let script = format!(
            "trap '{on_term}' TERM; mkdir -p data/distilled/sft; cd data/distilled/sft; e=sft_export.jsonl
            while :; do
                : >> $e; has=0; at=0
                while IFS= read -r row; do has=$((has + 1)); done < $e
                while IFS= read -r row; do
                    at=$((at + 1)); test $at -le $has || printf '%s\\n' \"$row\" >> $e
                done < \"$PREPARED\"
                {tail}
                sleep 0.02
            done"
        );
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).current_dir(root);
        command.env("PREPARED", root.with_file_name("prepared"));
        command
    }

    fn check_bench(command: fn(&Path) -> Command, quiet: Duration) -> Result<KillReport, String> {
        let dir = tempfile::tempdir().unwrap();
        let plan = KillPlan {
            lines: 40,
            command,
            quiet_deadline: quiet,
            keeps_ledger: false,
            ..KillPlan::new(9, 3)
        };
        let rows = naive_batch(&pairs_of(&script(9, &Shape::steady(40))), false).rows;
        fs::write(dir.path().join("prepared"), rows.join("\n") + "\n").unwrap();
        run(&plan, dir.path())
    }

    #[test]
    fn a_correct_daemon_passes_the_bench() {
        let report = check_bench(|root| substitute(root, "exit 0", ""), LONG).unwrap();
        assert!(report.rows > 5, "{report:?}");
    }

    #[test]
    fn the_bench_reports_the_faults_of_a_bad_daemon() {
        type Bad = (fn(&Path) -> Command, Duration, &'static str);
        let brief = Duration::from_secs(1);
        let bad: [Bad; 5] = [
            (
                |_| Command::new("true"),
                LONG,
                "the daemon ended by itself: exit status: 0",
            ),
            (
                |root| substitute(root, "exit 0", "echo more >> $e; sleep 9"),
                brief,
                "still differ",
            ),
            (
                |root| substitute(root, "exit 0", "sleep 0.1; rm $e; sleep 0.1"),
                LONG,
                "cannot be opened any more",
            ),
            (
                |root| substitute(root, "exit 7", ""),
                LONG,
                "ended with exit status: 7",
            ),
            (
                |root| substitute(root, "echo more >> $e; exit 0", ""),
                LONG,
                "changed while the daemon stopped",
            ),
        ];
        for (command, quiet, message) in bad {
            let fault = check_bench(command, quiet).expect_err(message);
            assert!(
                fault.starts_with("seed 9: ") && fault.contains(message),
                "{message}: {fault}"
            );
        }
    }
}
