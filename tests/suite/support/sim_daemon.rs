//! A deterministic simulation of the whole daemon: the event loop, the watches, the engine and its files, on a simulated
//! disk, with simulated change events and clocks. The seed decides everything that happens around the daemon, and when:
//! between any two of its calls to the disk and to the event source, and while it waits.
//!
//! The process has one thread here, which the simulation drives turn by turn; the threads of the real one only wait for
//! it (signals, sockets) or do parts of a pass whose order changes no result.

mod events;
mod lake;
mod outside;
mod process;
mod profile;
mod silence;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use distilld::daemon::requests::Snapshot;
use distilld::query::health::Health;
use distilld::query::status::Status;
use distilld::query::wait::WaitReport;
use fastrand::Rng;
use tokio::sync::oneshot::error::TryRecvError;

use super::bench::{EXPORT, LEDGER};
use super::earned::{missing_row, rows_of};
use super::ledger::ledger_fault;
use super::naive::{multiset_difference, naive_batch};
use super::sim_disk::SimDisk;

use events::{Kernel, SimEvents};
use lake::{Lake, Promise};
use outside::{Outside, Question};
use process::{End, Process};
pub use profile::Profile;

/// Time within which the service manager starts the daemon again, milliseconds.
const RESTART_MS: u64 = 5_000;
/// Maximum time from the end of all faults until everything is read, in addition to that of a scan: pauses after errors, a
/// start, and the calls themselves, milliseconds.
const SLACK_MS: u64 = 120_000;
/// Frequent scans of the idle daemon for which its quietness is measured.
const QUIET_SCANS: u64 = 30;
/// Maximum turns of the daemon without an event in this time, and the lines that it may log.
const QUIET_TURNS_MAX: u64 = 12 * QUIET_SCANS + 60;
const QUIET_LINES_MAX: usize = 8;
/// Maximum calls from a requested stop to the end of the process.
const STOP_CALLS_MAX: u64 = 5_000;
/// Maximum turns at one moment of the simulated time.
const TURNS_AT_ONCE_MAX: u64 = 5_000;
/// Lines of a failure's trace that are printed.
const SHOWN_LINES: usize = 80;
/// Maximum lines that the daemon logs while a fault lasts, in addition to those of each start and of each action.
const FAULT_LINES_MAX: u64 = 30;
/// Time without a change after which the daemon is idle, milliseconds.
const QUIET_AFTER_MS: u64 = 60_000;

/// The trace of a simulation: all that happened, and the files at its end, without the random identity of the export.
pub struct Trace {
    pub text: String,
    /// Turns of the daemon's loop.
    pub turns: u64,
    /// Starts of the daemon.
    pub starts: u64,
}

/// Runs the simulation of a seed.
///
/// # Panics
/// If the daemon broke a promise.
pub fn simulate(seed: u64) -> Trace {
    simulate_with(seed, |_| {})
}

/// Runs the simulation of a seed in a changed environment.
///
/// # Panics
/// If the daemon broke a promise.
pub fn simulate_with(seed: u64, adjust: impl FnOnce(&mut Profile)) -> Trace {
    simulate_lake(seed, adjust, Vec::new())
}

/// Runs the simulation of a seed in a changed environment, where these day-files are written first.
///
/// # Panics
/// If the daemon broke a promise.
pub fn simulate_lake(
    seed: u64,
    adjust: impl FnOnce(&mut Profile),
    day_files: Vec<(PathBuf, Vec<u8>)>,
) -> Trace {
    let mut simulation = Simulation::new(seed, adjust);
    for (path, bytes) in day_files {
        simulation.outside().queue_day_file(path, bytes);
    }
    let log = simulation.log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .without_time()
        .with_writer(move || log.clone())
        .finish();
    let _log = tracing::subscriber::set_default(subscriber);
    simulation.run();
    simulation.trace()
}

/// The log of the daemon.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn take(&self) -> String {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&std::mem::take(&mut *bytes)).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Simulation {
    outside: Arc<Mutex<Outside>>,
    events: SimEvents,
    log: Log,
    /// Lines that a reader has seen.
    seen: [Vec<u8>; 2],
    turns: u64,
    starts: u64,
    /// Lines of the log.
    log_lines: usize,
    /// Time and turns since the simulated time last moved.
    turns_at: (u64, u64),
    /// Lines, starts and actions that were left, when the current fault began.
    fault_began: Option<[u64; 3]>,
    /// The last status that was answered.
    ready_status: Option<Status>,
}

impl Drop for Simulation {
    /// A failure prints the end of what happened.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.read_log();
            let lines = self.outside().trace.lines().count();
            let outside = self.outside();
            let last = outside
                .trace
                .lines()
                .skip(lines.saturating_sub(SHOWN_LINES));
            last.for_each(|line| println!("{line}"));
        }
    }
}

impl Simulation {
    fn new(seed: u64, adjust: impl FnOnce(&mut Profile)) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut profile = Profile::new(&mut rng);
        adjust(&mut profile);
        let disk = SimDisk::new();
        let kernel = Kernel::new(disk.clone(), profile.limits, seed);
        let kernel = Arc::new(Mutex::new(kernel));
        let lake = Lake::new(disk, Arc::clone(&kernel));
        let outside = Outside::new(seed, profile, lake, rng);
        let outside = Arc::new(Mutex::new(outside));
        let others = Arc::downgrade(&outside);
        let before_call = Arc::new(move || {
            // Locked while the others act themselves.
            if let Some(outside) = others.upgrade()
                && let Ok(mut outside) = outside.try_lock()
            {
                outside.on_call();
            }
        });
        let simulation = Self {
            outside,
            events: SimEvents {
                kernel,
                before_call,
            },
            log: Log::default(),
            seen: Default::default(),
            turns: 0,
            starts: 0,
            log_lines: 0,
            turns_at: (0, 0),
            fault_began: None,
            ready_status: None,
        };
        let disk = simulation.outside().lake.disk.clone();
        simulation.use_disk(disk);
        simulation
    }

    fn outside(&self) -> MutexGuard<'_, Outside> {
        self.outside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn use_disk(&self, disk: SimDisk) {
        disk.before_each_call(Arc::clone(&self.events.before_call));
        self.outside().set_disk(disk);
    }

    fn run(&mut self) {
        let mut process = None;
        while !self.outside().is_done() {
            self.step(&mut process);
        }
        self.outside().conclude();
        self.converge(&mut process);
        self.check_quiet(&mut process);
        self.check_silence(&mut process);
        self.check_end();
    }

    /// Lets the daemon run, or start, until something happens.
    fn step(&mut self, process: &mut Option<Process>) {
        let end = match process {
            Some(process) => self.turn(process),
            None => self.start(process),
        };
        self.read_log();
        self.check_fault_lines();
        if process.is_some() && !self.outside().lake.disk.is_dead() {
            // Until a start has recovered them, a power cut may have left less.
            self.read_files();
        }
        let Some(end) = end else {
            return self.check_answers(process.as_ref());
        };
        self.outside()
            .note(format_args!("the process ended: {end}"));
        self.outside().inbox = None;
        self.outside().questions.clear();
        *process = None;
        self.after(&end);
    }

    fn start(&mut self, process: &mut Option<Process>) -> Option<End> {
        self.starts += 1;
        self.outside().note("start");
        let started = Process::start(&self.outside, &self.events);
        match started {
            Ok(started) => *process = Some(started),
            Err(end) => return Some(end),
        }
        None
    }

    /// Another process finds the disk; after a failure the service manager waits before it starts one.
    fn after(&mut self, end: &End) {
        let disk = self.outside().lake.disk.clone();
        if disk.is_dead() {
            let (seed, fate) = {
                let mut outside = self.outside();
                (outside.seed(), outside.fate)
            };
            self.use_disk(disk.power_cut(seed, fate));
        } else if matches!(end, End::Failed(_)) {
            self.outside().wait_until_restart(RESTART_MS);
        }
    }

    /// Waits until something happens, and lets the daemon do one turn.
    fn turn(&mut self, process: &mut Process) -> Option<End> {
        if !self.wait(process) {
            return None;
        }
        let now_ms = self.outside().now_ms();
        if self.turns_at.0 != now_ms {
            self.turns_at = (now_ms, 0);
        }
        self.turns_at.1 += 1;
        self.turns += 1;
        assert!(
            self.turns_at.1 < TURNS_AT_ONCE_MAX,
            "the loop turns without end"
        );
        let end = process.turn(&self.outside);
        if let Some(End::Stopped { calls }) = end {
            assert!(calls < STOP_CALLS_MAX, "a stop took {calls} calls");
        }
        end
    }

    /// Moves the time to the next event. Returns whether it is the daemon's turn.
    fn wait(&mut self, process: &Process) -> bool {
        self.outside().act_if_due();
        let Some(deadline_ms) = process.idle_until_ms() else {
            return true;
        };
        if process.has_pending() {
            return true;
        }
        let mut outside = self.outside();
        if outside.asks_now() {
            return true;
        }
        let now_ms = outside.now_ms();
        let next_ms = outside
            .next_ms()
            .map_or(deadline_ms, |at| at.min(deadline_ms));
        outside.clock.advance(next_ms.saturating_sub(now_ms));
        next_ms == deadline_ms
    }

    fn read_log(&mut self) {
        let log = self.log.take();
        self.log_lines += log.lines().count();
        let mut outside = self.outside();
        log.lines().for_each(|line| outside.note(line));
    }

    /// Reads export and ledger as a consumer does: what was seen of them stays.
    fn read_files(&mut self) {
        let disk = self.outside().lake.disk.clone();
        for (seen, path) in self.seen.iter_mut().zip([EXPORT, LEDGER]) {
            let bytes = disk.read(path).unwrap_or_default();
            assert!(
                bytes.starts_with(seen),
                "lines of {path} that a reader had seen are gone or changed"
            );
            let end = bytes.iter().rposition(|byte| *byte == b'\n');
            seen.extend_from_slice(&bytes[seen.len()..end.map_or(seen.len(), |end| end + 1)]);
        }
    }

    /// Checks the answers that the last turn gave.
    fn check_answers(&mut self, process: Option<&Process>) {
        let questions = std::mem::take(&mut self.outside().questions);
        for mut question in questions {
            let is_open = match &mut question {
                Question::Status(reply) => match reply.try_recv() {
                    Ok(snapshot) => self.check_status(&snapshot, process),
                    Err(error) => error == TryRecvError::Empty,
                },
                Question::Order(reply) => reply.try_recv() == Err(TryRecvError::Empty),
                Question::Wait(reply, held, rewrites) => match reply.try_recv() {
                    Ok(report) => {
                        let is_same = self.outside().lake.rewrites == *rewrites;
                        if report.health.verdict == Health::Fresh && is_same {
                            self.check_rows(held, "a wait ended, and");
                        }
                        self.note_wait(&report)
                    }
                    Err(error) => error == TryRecvError::Empty,
                },
            };
            if is_open {
                self.outside().questions.push(question);
            }
        }
    }

    fn note_wait(&mut self, report: &WaitReport) -> bool {
        self.outside().note(format_args!("waited: {report:?}"));
        false
    }

    /// The status `fresh` is true.
    fn check_status(&mut self, snapshot: &Snapshot, process: Option<&Process>) -> bool {
        let status = &snapshot.status;
        let taken = process.map_or((0, 0), Process::taken);
        let lag = status.lag.unwrap_or_default();
        let (promised, lengths) = {
            let mut outside = self.outside();
            outside.note(format_args!("status: {status:?}"));
            let objective_ms = match lag.is_zero() {
                true => 0,
                false => lag.objective_ms,
            };
            let blind_ms = outside.blind_ms + SLACK_MS / 2 + objective_ms;
            let is_undisturbed = outside.disturbed_ms + blind_ms < taken.1;
            // While it polls a directory may have no watch, and a change in it no event.
            let polls = status
                .watch
                .as_ref()
                .is_some_and(|mode| mode.starts_with("polling"));
            let promise = Promise {
                moment: if polls { 0 } else { taken.0 },
                known_by_ms: taken.1.saturating_sub(objective_ms),
                scanned_by_ms: match is_undisturbed {
                    true => taken.1.saturating_sub(blind_ms),
                    false => 0,
                },
            };
            let lake = &outside.lake;
            (lake.promised(&promise), lake.promised_lengths(&promise))
        };
        if status.health.verdict == Health::Fresh {
            self.check_rows(&promised, "the status is fresh, and");
            // Where it names pending files, one of them may be read again from its start.
            let lengths = lengths.into_iter().filter(|_| lag.is_zero());
            for (path, stream, len) in lengths {
                // The state may be on a disk that has just failed.
                let Ok(pair) = snapshot.state.pair(&path) else {
                    continue;
                };
                let read = pair.map_or(0, |pair| pair.checkpoint.source(stream).offset);
                assert!(
                    read >= len as u64,
                    "the status is fresh, and {read} of {len} bytes are read of {path}, {stream:?}"
                );
            }
        }
        self.ready_status = Some(status.clone());
        false
    }

    fn check_rows(&self, pairs: &super::naive::Pairs, when: &str) {
        let export = self.outside().lake.disk.read(EXPORT).unwrap_or_default();
        if let Some(missing) = missing_row(&rows_of(&export), pairs) {
            panic!("{when} {missing}");
        }
    }

    /// Returns how export and ledger differ from what the day-files earn, if they do.
    fn difference(&self) -> Option<String> {
        let outside = self.outside();
        let pairs = outside.lake.pairs();
        let read = |path| outside.lake.disk.read(path).unwrap_or_default();
        let (export, ledger) = (read(EXPORT), read(LEDGER));
        let bounds = outside.peaks.fault(&export, &pairs);
        if !outside.profile.only_grows {
            return bounds;
        }
        let naive = naive_batch(&pairs, false);
        bounds
            .or_else(|| multiset_difference(&export, &naive.rows))
            .or_else(|| ledger_fault(&export, &ledger, &naive))
    }

    /// Everything is read within the time of a scan, also when all events were lost.
    fn converge(&mut self, process: &mut Option<Process>) {
        let deadline_ms = {
            let outside = self.outside();
            outside.now_ms() + outside.blind_ms + SLACK_MS
        };
        let mut difference = Some("nothing is checked".to_owned());
        let mut compared = None;
        for steps in 1_u64.. {
            if difference.is_none() {
                break;
            }
            let now_ms = self.outside().now_ms();
            assert!(
                now_ms < deadline_ms,
                "the daemon does not catch up: {}",
                difference.unwrap()
            );
            self.step(process);
            let is_idle = process
                .as_ref()
                .is_some_and(|it| it.idle_until_ms().is_some());
            // A daemon whose scans take longer than their pause is never idle.
            let lengths = self.seen.each_ref().map(Vec::len);
            if (is_idle || steps.is_multiple_of(64)) && compared != Some(lengths) {
                difference = self.difference();
                compared = Some(lengths);
            }
        }
    }

    /// The idle daemon does little, logs next to nothing, and is ready.
    fn check_quiet(&mut self, process: &mut Option<Process>) {
        let (pause_ms, blind_ms) = {
            let outside = self.outside();
            let pause = outside.settings.recent_scan.min(outside.settings.poll);
            (pause.as_millis() as u64, outside.blind_ms)
        };
        // Timers of the last change run out first.
        self.run_for(process, blind_ms.min(QUIET_AFTER_MS));
        let (turns, lines, starts) = (self.turns, self.log_lines, self.starts);
        self.run_for(process, pause_ms * QUIET_SCANS);
        if starts != self.starts {
            return;
        }
        let (turns, lines) = (self.turns - turns, self.log_lines - lines);
        self.outside()
            .note(format_args!("quiet: {turns} turns, {lines} lines"));
        assert!(turns <= QUIET_TURNS_MAX, "{turns} turns of the idle daemon");
        assert!(lines <= QUIET_LINES_MAX, "{lines} lines of the idle daemon");
        let status = self.status(process);
        assert!(status.health.verdict.is_ready(), "{status:?}");
        assert_eq!(status.export.rows, self.rows_seen(), "{status:?}");
    }

    /// A fault that lasts is not logged repeatedly.
    fn check_fault_lines(&mut self) {
        let (is_failing, actions_left) = {
            let outside = self.outside();
            (outside.is_failing(), outside.actions_left as u64)
        };
        let now = [self.log_lines as u64, self.starts, actions_left];
        let [lines, starts, actions] = *self.fault_began.get_or_insert(now);
        if !is_failing {
            self.fault_began = None;
        }
        let max = FAULT_LINES_MAX + 10 * (now[1] - starts) + 4 * (actions - now[2]);
        let lines = now[0] - lines;
        assert!(lines <= max, "{lines} lines during a fault");
    }

    fn run_for(&mut self, process: &mut Option<Process>, time_ms: u64) {
        let until_ms = self.outside().now_ms() + time_ms;
        while self.outside().now_ms() < until_ms {
            self.step(process);
        }
    }

    fn check_end(&mut self) {
        assert_eq!(self.difference(), None);
    }

    fn trace(&self) -> Trace {
        let mut outside = self.outside();
        for path in [EXPORT, LEDGER] {
            let bytes = outside.lake.disk.read(path).unwrap_or_default();
            outside.note(format_args!("{path}\n{}", String::from_utf8_lossy(&bytes)));
        }
        let ledger = outside.lake.disk.read(LEDGER).unwrap_or_default();
        let begin = ledger.split(|byte| *byte == b'\n').next();
        let begin: Option<serde_json::Value> =
            serde_json::from_slice(begin.unwrap_or_default()).ok();
        let text = std::mem::take(&mut outside.trace);
        let text = match begin.as_ref().and_then(|line| line["export"].as_str()) {
            Some(id) if !id.is_empty() => text.replace(id, "EXPORT"),
            _ => text,
        };
        drop(outside);
        Trace {
            text,
            turns: self.turns,
            starts: self.starts,
        }
    }
}
