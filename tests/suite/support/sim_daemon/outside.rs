//! Everything outside of the daemon, driven by the seed: scorers, the operator, the kernel, the disk's faults and the
//! clocks. It acts between two calls of the daemon, and while the daemon waits.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use distilld::config::Settings;
use distilld::daemon::inbox::Inbox;
use distilld::daemon::requests::{EngineRequest, Snapshot};
use distilld::engine::{OrderRequest, OrderResult};
use distilld::lake::path::{PairPath, Stream};
use distilld::platform::clock::Clock as _;
use distilld::query::wait::WaitReport;
use fastrand::Rng;
use tokio::sync::oneshot::{Receiver, channel};

use crate::support::bench::TestClock;
use crate::support::earned::{Peaks, evidence_line, scored_line};
use crate::support::naive::Pairs;
use crate::support::sim_disk::{EIO, ENOSPC, Fate, Fault, SimDisk};

use super::lake::{AWAY, BASES, Lake, Step, parent};
use super::profile::{self, Profile, pick};

/// Two of one name, whose lines may earn rows with one key.
const PAIRS: [&str; 5] = [
    "2025/12/31/outcomes.jsonl",
    "2026/01/01/audits.jsonl",
    "2026/01/02/audits.jsonl",
    "2026/01/02/outcomes.jsonl",
    "2026/02/01/audits.jsonl",
];
const CATEGORIES: [&str; 4] = ["accepted", "partially_accepted", "rejected", "accepted"];
const RUNS: u8 = 6;
/// Maximum jump of the wall clock: ten years.
const YEARS_MS: i64 = 10 * 365 * 86_400_000;

/// A question to the daemon that is not answered.
#[derive(Debug)]
pub enum Question {
    Status(Receiver<Snapshot>),
    Order(Receiver<Result<OrderResult, String>>),
    /// With what the day-files held when it was asked, and the number of rewrites until then.
    Wait(Receiver<WaitReport>, Pairs, u64),
}

/// Something that happens after all else.
#[derive(Debug)]
pub enum News {
    /// A run in each pair of the oldest days, which the frequent scan does not visit; at first also in all others.
    Lines(usize),
    /// A day-file, or a directory above it, cannot be read any more.
    Denied(PathBuf),
    /// It can be read again.
    Permitted(PathBuf),
}

#[derive(Debug)]
pub struct Outside {
    rng: Rng,
    pub profile: Profile,
    pub clock: Arc<TestClock>,
    pub lake: Lake,
    pub settings: Settings,
    /// Whether the configuration file is broken.
    pub is_misconfigured: bool,
    /// The longest time in which a scan finds a change, with any settings since the start.
    pub blind_ms: u64,
    /// The inbox of the running process.
    pub inbox: Option<Arc<Inbox>>,
    pub questions: Vec<Question>,
    pub peaks: Peaks,
    pub trace: String,
    /// What is left of the last action.
    steps: VecDeque<Step>,
    /// Ends of lines that are not written yet.
    missing: Vec<(PathBuf, Vec<u8>)>,
    /// What was taken away and comes back: where it is, where it was.
    away: Vec<(PathBuf, PathBuf)>,
    denied: Vec<PathBuf>,
    next_action_ms: u64,
    deliver_at_ms: Option<u64>,
    heal_at_ms: Option<u64>,
    pub actions_left: usize,
    /// What the next crash leaves.
    pub fate: Fate,
    /// When a fault of the disk was last there, or a process started.
    pub disturbed_ms: u64,
    /// Calls of the daemon.
    pub calls: u64,
}

impl Outside {
    pub fn new(seed: u64, profile: Profile, lake: Lake, mut rng: Rng) -> Self {
        let settings = profile::settings(&mut rng, &profile);
        lake.disk
            .set_signals(profile.is_interrupted.then_some(seed));
        Self {
            rng,
            profile,
            clock: Arc::default(),
            lake,
            blind_ms: profile::blind_ms(&settings),
            settings,
            is_misconfigured: false,
            inbox: None,
            questions: Vec::new(),
            peaks: Peaks::default(),
            trace: String::new(),
            steps: VecDeque::new(),
            missing: Vec::new(),
            away: Vec::new(),
            denied: Vec::new(),
            next_action_ms: 0,
            deliver_at_ms: None,
            heal_at_ms: None,
            actions_left: profile.actions,
            fate: Fate::Kept,
            disturbed_ms: 0,
            calls: 0,
        }
    }

    pub fn now_ms(&self) -> u64 {
        self.clock.monotonic_ms()
    }

    pub fn seed(&mut self) -> u64 {
        self.rng.u64(..)
    }

    pub fn note(&mut self, what: impl std::fmt::Display) {
        let now_ms = self.now_ms();
        writeln!(self.trace, "{now_ms} {what}").unwrap();
    }

    /// The daemon makes a call: time passes, and others may act before it.
    pub fn on_call(&mut self) {
        self.calls += 1;
        if self.profile.call_ms > 0 && self.rng.u8(..4) == 0 {
            self.clock.advance(self.profile.call_ms);
        }
        if self.rng.u32(..self.profile.interleaving) == 0 {
            match self.rng.u8(..3) {
                0 => self.deliver(),
                _ => self.act(),
            }
        }
        self.act_if_due();
    }

    /// Returns when something happens next.
    pub fn next_ms(&self) -> Option<u64> {
        let action = (!self.is_done()).then_some(self.next_action_ms);
        let times = [action, self.deliver_at_ms, self.heal_at_ms];
        times.into_iter().flatten().min()
    }

    /// Returns whether no action is left.
    pub fn is_done(&self) -> bool {
        self.actions_left == 0 && self.steps.is_empty()
    }

    pub fn act_if_due(&mut self) {
        let now_ms = self.now_ms();
        if self.heal_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.heal();
        }
        if self.deliver_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.deliver();
        }
        if !self.is_done() && self.next_action_ms <= now_ms {
            self.act();
        }
        if self.deliver_at_ms.is_none() && self.lake.kernel().has_queued() {
            self.deliver_at_ms = Some(now_ms + self.rng.u64(..=self.profile.latency_ms));
        }
    }

    fn deliver(&mut self) {
        let count = match self.rng.u8(..4) {
            0 => self.rng.usize(1..4),
            _ => usize::MAX,
        };
        self.lake.kernel().deliver(count);
        self.lake.note_known(self.clock.monotonic_ms());
        self.deliver_at_ms = None;
    }

    /// Returns whether the disk may fail.
    pub fn is_failing(&self) -> bool {
        self.heal_at_ms.is_some()
    }

    /// Ends the faults of the disk.
    pub fn heal(&mut self) {
        self.note("heal");
        self.heal_at_ms = None;
        self.lake.disk.heal();
        self.lake.disk.set_capacity(None);
        self.disturbed_ms = self.now_ms();
    }

    /// Takes the next step of an action, or begins an action.
    fn act(&mut self) {
        if let Some(step) = self.steps.pop_front() {
            self.note(format_args!("{step:?}"));
            let moved = self.lake.step(&step, self.clock.monotonic_ms());
            self.peaks.moved_from(&moved);
            self.peaks.note(&self.lake.pairs());
        } else if self.actions_left > 0 {
            self.actions_left -= 1;
            self.begin_action();
        }
        self.next_action_ms = self.now_ms() + self.pause_ms();
    }

    fn pause_ms(&mut self) -> u64 {
        let recent_ms = self.settings.recent_scan.as_millis() as u64;
        let max_ms = *pick(&mut self.rng, &[0, 0, 0, 20, 2_000, 2 * recent_ms]);
        self.rng.u64(..=max_ms)
    }

    fn begin_action(&mut self) {
        match self.rng.u8(..40) {
            0..10 => self.append(),
            10 => self.complete(),
            11..13 => self.take_away(),
            13..15 => self.bring_back(),
            15 => self.copy(),
            16 => self.deny(),
            17 => self.permit(),
            18..20 => self.jump(),
            20..24 => self.ask_status(),
            24 => self.wait_for_all(),
            25 => self.retry(),
            26 => self.order(),
            27 => self.reload(),
            28 => self.tell(Inbox::report),
            29 => self.tell(Inbox::stop),
            30..32 => self.crash(),
            32..34 => self.fail_once(),
            34 => self.fail_for_a_while(),
            _ if self.profile.only_grows => self.append(),
            35 => self.rewrite(),
            36 => self.truncate(),
            37 => self.remove(),
            38 => self.move_dir(),
            _ => self.replace(),
        }
    }

    fn tell(&mut self, what: impl FnOnce(&Inbox)) {
        self.note("signal");
        if let Some(inbox) = &self.inbox {
            what(inbox);
        }
    }

    fn file(&mut self) -> PathBuf {
        let base = *pick(&mut self.rng, &BASES);
        Path::new(base).join(*pick(&mut self.rng, &PAIRS))
    }

    /// Queues a day-file with this content.
    pub fn queue_day_file(&mut self, file: PathBuf, bytes: Vec<u8>) {
        self.make_dirs(&file);
        self.steps.push_back(Step::Append(file, bytes));
    }

    /// Queues the directories above a file that are missing.
    fn make_dirs(&mut self, file: &Path) {
        let above: Vec<_> = parent(file).ancestors().collect();
        let missing = above.into_iter().rev();
        let missing = missing.filter(|dir| self.lake.disk.stat_of(dir).is_none());
        self.steps
            .extend(missing.map(|dir| Step::MakeDir(dir.to_owned())));
    }

    /// Appends some lines, the last one perhaps in two pieces.
    fn append(&mut self) {
        let file = self.file();
        let is_away = self.away.iter().any(|(_, back)| file.starts_with(back));
        if is_away && self.profile.only_grows {
            // What comes back would be after it, in another order.
            return;
        }
        let mut bytes = Vec::new();
        for _ in 0..self.rng.u8(1..4) {
            let run = format!("run {}", self.rng.u8(..RUNS));
            let category = *pick(&mut self.rng, &CATEGORIES);
            let line = match file.starts_with(BASES[0]) {
                true => scored_line(&run, category),
                false if run.ends_with('5') => evidence_line(&run, " "),
                false => evidence_line(&run, &format!("what {run} said")),
            };
            bytes.extend(line.into_bytes());
        }
        self.complete_file(&file);
        // Without its last brace it is no whole value, so that it is not accepted as it is.
        let len = match self.rng.u8(..4) {
            0 => self.rng.usize(1..bytes.len() - 2),
            _ => bytes.len(),
        };
        let rest = bytes.split_off(len);
        self.make_dirs(&file);
        if !rest.is_empty() {
            self.missing.push((file.clone(), rest));
        }
        self.steps.push_back(Step::Append(file, bytes));
    }

    fn complete_file(&mut self, file: &Path) {
        if let Some(at) = self.missing.iter().position(|(of, _)| of == file) {
            let (file, rest) = self.missing.swap_remove(at);
            self.steps.push_back(Step::Append(file, rest));
        }
    }

    fn complete(&mut self) {
        while let Some((file, _)) = self.missing.first().cloned() {
            self.complete_file(&file);
        }
    }

    /// Takes a day-file, or a directory with day-files, out of the lake for a while.
    fn take_away(&mut self) {
        self.complete();
        let file = self.file();
        let from: Vec<_> = file.ancestors().take(4).collect();
        let from = pick(&mut self.rng, &from).to_path_buf();
        if !self.away.is_empty() || !self.steps.is_empty() {
            return;
        }
        let name = from.file_name().unwrap().to_owned();
        let to = Path::new(AWAY).join(name);
        if self.lake.disk.stat_of(&from).is_some() {
            self.away.push((to.clone(), from.clone()));
            self.steps.push_back(Step::Rename(from, to));
        }
    }

    /// Brings it back. What was made in its place meanwhile stays, and gets its lines.
    fn bring_back(&mut self) {
        if let Some((there, back)) = self.away.pop() {
            self.put_back(there, back);
        }
    }

    fn put_back(&mut self, there: PathBuf, back: PathBuf) {
        if self.lake.disk.stat_of(&back).is_none() {
            self.make_dirs(&back);
            self.steps.push_back(Step::Rename(there, back));
        } else if let Some(bytes) = self.lake.disk.read(&there) {
            self.complete_file(&back);
            self.steps.push_back(Step::Append(back, bytes));
            self.steps.push_back(Step::Remove(there));
        } else {
            for name in self.lake.disk.names_in(&there) {
                self.put_back(there.join(&name), back.join(&name));
            }
        }
    }

    /// Replaces a day-file by a copy of it.
    fn copy(&mut self) {
        let file = self.file();
        let copy = Path::new(AWAY).join("copy.jsonl");
        if let Some(bytes) = self.lake.disk.read(&file) {
            self.steps.push_back(Step::Append(copy.clone(), bytes));
            self.steps.push_back(Step::Rename(copy, file));
        }
    }

    fn deny(&mut self) {
        let file = self.file();
        let path: Vec<_> = file.ancestors().take(3).collect();
        let path = pick(&mut self.rng, &path).to_path_buf();
        if self.lake.disk.stat_of(&path).is_some() {
            self.denied.push(path.clone());
            self.steps.push_back(Step::Deny(path, true));
        }
    }

    fn permit(&mut self) {
        if let Some(path) = self.denied.pop() {
            self.steps.push_back(Step::Deny(path, false));
        }
    }

    /// The wall clock jumps, as when it is set and after a suspend.
    fn jump(&mut self) {
        let by_ms = self.rng.i64(-YEARS_MS..YEARS_MS);
        let by_ms = *pick(&mut self.rng, &[by_ms, 0, 8 * 3_600_000]);
        self.note(format_args!("the wall clock is set by {by_ms}"));
        self.clock.set_wall(by_ms);
    }

    pub fn ask_status(&mut self) {
        self.note("status?");
        let (reply, receiver) = channel();
        self.ask(EngineRequest::Snapshot(reply), Question::Status(receiver));
    }

    /// Asks for the status at a moment at which the daemon has nothing to do, at random.
    pub fn asks_now(&mut self) -> bool {
        let asks = !self.is_done() && self.rng.u8(..3) == 0;
        if asks {
            self.ask_status();
        }
        asks
    }

    fn ask(&mut self, request: EngineRequest, question: Question) {
        if let Some(inbox) = &self.inbox {
            inbox.ask(request);
            self.questions.push(question);
        }
    }

    fn wait_for_all(&mut self) {
        self.note("wait");
        let (reply, receiver) = channel();
        let id = self.rng.u8(..).to_string();
        let held = self.lake.whole_pairs();
        let question = Question::Wait(receiver, held, self.lake.rewrites);
        self.ask(EngineRequest::Wait { id, reply }, question);
    }

    fn retry(&mut self) {
        let path = PairPath::from_relative(Path::new(pick(&mut self.rng, &PAIRS))).unwrap();
        let stream = *pick(&mut self.rng, &Stream::ALL);
        self.note("retry");
        if let Some(inbox) = &self.inbox {
            let (reply, _receiver) = channel();
            inbox.ask(EngineRequest::Retry {
                path,
                stream,
                reply,
            });
        }
    }

    /// Gives or ends an order on runs that have no line.
    fn order(&mut self) {
        self.note("order");
        let (reply, receiver) = channel();
        let request = OrderRequest {
            run_ids: vec![format!("ordered {}", self.rng.u8(..3))],
            reason: "the operator's words".to_owned(),
            day_file: None,
            revoke: self.rng.bool(),
            dry_run: false,
            unseen: true,
        };
        let request = EngineRequest::Order(Box::new(request), reply);
        self.ask(request, Question::Order(receiver));
    }

    fn reload(&mut self) {
        self.settings = profile::settings(&mut self.rng, &self.profile);
        self.is_misconfigured = self.rng.u8(..4) == 0;
        self.blind_ms = self.blind_ms.max(profile::blind_ms(&self.settings));
        self.disturbed_ms = self.now_ms();
        let watch = self.settings.watch;
        self.note(format_args!("reload {watch:?}"));
        self.tell(Inbox::reload);
    }

    fn crash(&mut self) {
        self.note("crash");
        self.fate = *pick(&mut self.rng, &Fate::ALL);
        self.lake.disk.crash_at(self.rng.u64(..40));
    }

    fn fail_once(&mut self) {
        let fault = Fault::once(*pick(&mut self.rng, &[EIO, ENOSPC]));
        let n = self.rng.u64(..40);
        self.note("a call fails");
        match self.rng.bool() {
            true => self.lake.disk.fail_at(n, fault),
            false => self.lake.disk.fail_read_call_at(n, fault),
        }
        self.heal_after(60_000);
    }

    fn fail_for_a_while(&mut self) {
        self.note("the disk fails for a while");
        match self.rng.bool() {
            true => {
                let fault = Fault::until_healed(*pick(&mut self.rng, &[EIO, ENOSPC]));
                self.lake.disk.fail_at(0, fault);
            }
            false => {
                let capacity = self.lake.disk.used_bytes() + self.rng.u64(..4_096);
                self.lake.disk.set_capacity(Some(capacity));
            }
        }
        let max_ms = *pick(&mut self.rng, &[1_000, 60_000, 60_000, 1_200_000]);
        self.heal_after(max_ms);
    }

    fn heal_after(&mut self, max_ms: u64) {
        let at_ms = self.now_ms() + self.rng.u64(..max_ms);
        self.heal_at_ms = Some(self.heal_at_ms.map_or(at_ms, |other| other.max(at_ms)));
    }

    fn lines(&self, file: &Path) -> Vec<Vec<u8>> {
        let bytes = self.lake.disk.read(file).unwrap_or_default();
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let whole = lines.filter(|line| line.ends_with(b"\n"));
        whole.map(<[u8]>::to_vec).collect()
    }

    /// Writes some of the lines of a day-file in another order.
    fn rewrite(&mut self) {
        let file = self.file();
        let mut lines = self.lines(&file);
        match self.rng.u8(..3) {
            0 => lines.reverse(),
            1 => lines.extend(lines.clone()),
            _ => drop(lines.pop()),
        }
        self.missing.retain(|(of, _)| *of != file);
        let bytes = lines.concat();
        if self.rng.bool() {
            return self.steps.push_back(Step::Rewrite(file, bytes));
        }
        let fresh = file.with_extension("tmp");
        self.make_dirs(&file);
        self.steps.push_back(Step::Append(fresh.clone(), bytes));
        self.steps.push_back(Step::Rename(fresh, file));
    }

    fn truncate(&mut self) {
        let file = self.file();
        let mut lines = self.lines(&file);
        lines.truncate(self.rng.usize(..=lines.len()));
        self.missing.retain(|(of, _)| *of != file);
        let len_bytes = lines.concat().len() as u64;
        self.steps.push_back(Step::Truncate(file, len_bytes));
    }

    fn remove(&mut self) {
        let file = self.file();
        self.missing.retain(|(of, _)| *of != file);
        self.steps.push_back(Step::Remove(file.clone()));
        if self.rng.bool() {
            self.steps.push_back(Step::RemoveDir(parent(&file).into()));
        }
    }

    /// Renames a directory of the lake.
    fn move_dir(&mut self) {
        let (from, to) = (self.file(), self.file());
        let depth = self.rng.usize(1..3);
        let dir = |file: &Path| file.ancestors().nth(depth).unwrap().to_owned();
        let (from, to) = (dir(&from), dir(&to));
        self.missing.clear();
        self.make_dirs(&to);
        self.steps.push_back(Step::Rename(from, to));
    }

    /// Replaces a directory by an empty one.
    fn replace(&mut self) {
        let dir = parent(&self.file()).to_owned();
        let to = Path::new(AWAY).join(self.rng.u64(..).to_string());
        self.missing.clear();
        self.steps.push_back(Step::Rename(dir.clone(), to));
        self.steps.push_back(Step::MakeDir(dir));
    }

    /// Ends all faults, completes all lines, and gives all rights back. Nothing changes afterwards.
    pub fn conclude(&mut self) {
        self.actions_left = 0;
        self.heal();
        self.take_steps();
        self.bring_back();
        self.take_steps();
        self.complete();
        self.take_steps();
        self.is_misconfigured = false;
        self.tell(Inbox::reload);
        for base in BASES {
            self.permit_all(Path::new(base));
        }
        self.take_steps();
    }

    /// Loses each event from now on, silently.
    pub fn lose_all_events(&mut self) {
        self.lake.kernel().limits.lost_of = 1;
    }

    pub fn random_ms(&mut self, max_ms: u64) -> u64 {
        self.rng.u64(..=max_ms)
    }

    /// Returns a day-file, or a directory above one.
    pub fn some_path(&mut self) -> PathBuf {
        let files = self.lake.day_files();
        let file = pick(&mut self.rng, &files);
        let above: Vec<_> = file.ancestors().take(4).collect();
        pick(&mut self.rng, &above).to_path_buf()
    }

    /// Lets something happen at once.
    pub fn happen(&mut self, news: &News) {
        match news {
            News::Lines(n) => {
                let pairs = match n {
                    0 => &PAIRS[..],
                    _ => &PAIRS[..2],
                };
                for pair in pairs {
                    self.append_run(pair, &format!("news {n}"));
                }
            }
            News::Denied(path) => self.steps.push_back(Step::Deny(path.clone(), true)),
            News::Permitted(path) => self.steps.push_back(Step::Deny(path.clone(), false)),
        }
        self.take_steps();
    }

    fn append_run(&mut self, pair: &str, run: &str) {
        let lines = [scored_line(run, "accepted"), evidence_line(run, "news")];
        for (base, line) in BASES.into_iter().zip(lines) {
            let file = Path::new(base).join(pair);
            self.make_dirs(&file);
            self.steps.push_back(Step::Append(file, line.into_bytes()));
            self.take_steps();
        }
    }

    fn take_steps(&mut self) {
        while !self.steps.is_empty() {
            self.act();
        }
    }

    fn permit_all(&mut self, path: &Path) {
        if self.lake.disk.is_denied(path) {
            self.steps.push_back(Step::Deny(path.to_owned(), false));
        }
        for name in self.lake.disk.names_in(path) {
            self.permit_all(&path.join(name));
        }
    }

    /// Time passes without a process.
    pub fn wait_until_restart(&mut self, wait_ms: u64) {
        let until_ms = self.now_ms() + wait_ms;
        while self.now_ms() < until_ms {
            let next_ms = self
                .next_ms()
                .unwrap_or(until_ms)
                .clamp(self.now_ms() + 1, until_ms);
            self.clock.advance(next_ms - self.now_ms());
            self.act_if_due();
        }
    }

    /// Another process starts on a disk, which may be another one after a crash.
    pub fn set_disk(&mut self, disk: SimDisk) {
        self.lake.kernel().disk = disk.clone();
        self.lake.disk = disk;
    }
}
