//! Power cuts under the real daemon: the daemon and its scorers work on an ext4 whose device logs every write; the
//! disk is rebuilt as cuts at many moments leave it, and each such disk is recovered by the real daemon and compared
//! with the naive batch. Some of these disks continue and are cut again.
//!
//! Hundreds of cuts: `DISTILLD_POWER_CUTS=1000 cargo test --release --features root-tests --test power cuts::`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fastrand::Rng;

use crate::block_device::{BlockDevice, PROGRAMS};
use crate::host::{self, Mounted};
use crate::scorers::{Scorers, Writers};
use crate::support::account::{Compared, account_fault};
use crate::support::export_reader::ReaderThread;
use crate::support::kill_harness::{Daemon, Scorer, export_path, wait_until};
use crate::support::lake_gen::{Step, Stream};
use crate::support::ledger::{ledger_fault, read_ledger};
use crate::support::naive::{blank_stamps, multiset_difference, naive_batch, read_pairs};
use crate::support::process::LONG;
use crate::support::tools::number_from;
use crate::write_log::WriteLog;
use distilld::platform::storage::OsStorage;

/// Cuts in the ordinary run; the variable selects another number.
const CUTS: usize = 48;
const CUTS_VARIABLE: &str = "DISTILLD_POWER_CUTS";
const SEED_VARIABLE: &str = "DISTILLD_POWER_SEED";
/// Number of lives of a disk that continues after a cut.
const LIVES: usize = 3;
/// Number of power cuts examined in each life.
const CUTS_PER_LIFE: usize = 8;
const LINES_PER_LIFE: usize = 250;
const IMAGE_BYTES: u64 = 32 << 20;
/// Maximum time that a life waits for its first new row, which need not appear.
const WORK_DEADLINE: Duration = Duration::from_secs(3);

/// The losses that power cuts caused; a test without losses proves nothing.
#[derive(Debug, Default)]
struct Tally {
    cuts: usize,
    writes_lost: usize,
    /// Cuts after which a day-file was shorter than what its writer had written.
    sources_shortened: usize,
    /// Bytes of the export that readers had seen before the cuts.
    seen_bytes: usize,
    /// Day-files that were shorter than the read part, or different: read again from their start.
    sources_read_again: usize,
    /// Cuts after which rows that a reader had seen had to be written again.
    rows_rewritten: usize,
    /// Cuts among these after which a complete line that was never written was in the place of such rows.
    rows_garbled: usize,
    /// Number of starts by recovery case.
    cases: BTreeMap<String, usize>,
    rows: usize,
    /// Retractions and restorations in the ledgers afterwards.
    retracted: usize,
    restored: usize,
}

fn check(writers: Writers) {
    if !host::has(&PROGRAMS) {
        return;
    }
    let seed = number_from(SEED_VARIABLE).unwrap_or_else(|| fastrand::u64(..));
    let wanted = number_from(CUTS_VARIABLE).map_or(CUTS, |cuts| cuts as usize) / 2;
    let mut tally = Tally::default();
    let earning = |seed: &u64| Scorers::earn_rows(*seed, LIVES * LINES_PER_LIFE);
    for seed in (seed..).filter(earning) {
        if let Err(fault) = run_chain(seed, writers, &mut tally) {
            panic!("{SEED_VARIABLE}={seed} (the moments differ), {writers:?}: {fault}\n{tally:?}");
        }
        if tally.cuts >= wanted {
            break;
        }
    }
    eprintln!("from seed {seed}, {writers:?}: {tally:?}");
    let sources_lost = tally.sources_shortened > 0 && tally.sources_read_again > 0;
    assert!(
        tally.writes_lost > 0 && tally.seen_bytes > 0 && sources_lost && tally.retracted > 0,
        "{tally:?}"
    );
}

#[test]
fn a_power_cut_loses_and_duplicates_no_row_if_scorers_write_lost_lines_again() {
    check(Writers::WriteAgain);
}

#[test]
fn a_power_cut_duplicates_no_row_if_scorers_continue_after_lost_lines() {
    check(Writers::GoOn);
}

/// Runs a disk from its creation through all its cuts.
fn run_chain(seed: u64, writers: Writers, tally: &mut Tally) -> Result<(), String> {
    let scratch = host::scratch();
    let mut chain = Chain {
        dir: scratch.path().to_owned(),
        rng: Rng::with_seed(seed),
        seen: Vec::new(),
        images: 0,
    };
    let outcome = chain.run(seed, writers, tally);
    outcome.map_err(|fault| {
        let kept = scratch.keep();
        let log = fs::read_to_string(kept.join("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(30)..].join("\n");
        format!("{fault}\nthe disk is kept in {}\n{end}", kept.display())
    })
}

struct Chain {
    dir: PathBuf,
    rng: Rng,
    /// The part of the export that a reader had seen before any of the previous cuts.
    seen: Vec<u8>,
    images: u32,
}

/// A life of the disk, from power-on to the power cut.
struct Life {
    base: Vec<u8>,
    device: BlockDevice,
    log: PathBuf,
    /// Log length and export length at each observation of a reader.
    sightings: Vec<(u64, usize)>,
    /// The export at the end.
    export: Vec<u8>,
    log_bytes: u64,
}

impl Chain {
    fn run(&mut self, seed: u64, writers: Writers, tally: &mut Tally) -> Result<(), String> {
        let mut image = self.next_image();
        host::make_ext4(&image, IMAGE_BYTES);
        let mut scorers = Scorers::new(seed, LIVES * LINES_PER_LIFE, writers);
        for number in 0..LIVES {
            let steps = scorers.next_steps(1.0 / (LIVES - number) as f64, &mut self.rng);
            let life = self.live(&image, steps)?;
            drop(life.device);
            let log = WriteLog::new(fs::read(&life.log).unwrap());
            let entries = log.entries_within(life.log_bytes);
            let cuts = log.cuts(CUTS_PER_LIFE, entries, &mut self.rng);
            let lives_on = self.rng.usize(..cuts.len());
            let mut next = None;
            for (at, cut) in cuts.into_iter().enumerate() {
                let (disk, lost) = log.disk_after(&life.base, cut, &mut self.rng);
                tally.writes_lost += lost;
                tally.cuts += 1;
                let sighted = life
                    .sightings
                    .partition_point(|(log_bytes, _)| log.entries_within(*log_bytes) <= cut);
                let sighted = sighted.checked_sub(1).map_or(0, |at| life.sightings[at].1);
                tally.seen_bytes += sighted;
                let seen = longer(&self.seen, &life.export[..sighted]);
                image = self.next_image();
                fs::write(&image, &disk).unwrap();
                let garbled = self
                    .recover(&image, scorers.clone(), &seen, &life.export, tally)
                    .map_err(|fault| format!("life {number}, cut {cut} of {entries}: {fault}"))?;
                // Readers of the next life exist before its daemon has repaired the export.
                if !garbled && (at <= lives_on || next.is_none()) {
                    next = Some((disk, seen));
                }
            }
            let (disk, seen) = next.ok_or("no cut lives on")?;
            self.seen = seen;
            image = self.next_image();
            fs::write(&image, disk).unwrap();
            let mounted = Mounted::image(&image, &self.dir.join("mount"), "noatime");
            scorers.after_cut(&root_of(&mounted), &mut self.rng);
            drop(mounted);
        }
        Ok(())
    }

    /// Creates a new file for each disk and removes the previous one. If another mount namespace still holds a file
    /// system that is unmounted here, the kernel would treat the same file as the same disk.
    fn next_image(&mut self) -> PathBuf {
        _ = fs::remove_file(self.dir.join(format!("image-{}", self.images)));
        self.images += 1;
        self.dir.join(format!("image-{}", self.images))
    }

    /// Runs the daemon and its scorers on the disk until the power is cut.
    fn live(&mut self, image: &Path, steps: Vec<Step>) -> Result<Life, String> {
        let base = fs::read(image).unwrap();
        let log = self.dir.join("write-log");
        let device = BlockDevice::logged(&image.with_extension("device"), image, &log);
        // A short commit interval, so that cuts also find data that no sync of the daemon had requested.
        let mounted = Mounted::image(device.path(), &self.dir.join("mount"), "commit=1");
        let root = root_of(&mounted);
        fs::create_dir_all(&root).unwrap();
        let watcher = Watcher::start(&export_path(&root), &log);
        let reader = ReaderThread::start(&export_path(&root));
        let pause = Duration::from_micros(self.rng.u64(100..3_000));
        let scorer = Scorer::start(&root, pause, steps);
        let kills = self.rng.usize(..3);
        for _ in 0..kills {
            let mut daemon = self.start(&root);
            daemon.live_for(Duration::from_millis(self.rng.u64(..300)))?;
            daemon.kill_9().map_err(|error| error.to_string())?;
            self.sync_some(&root);
        }
        let mut daemon = self.start(&root);
        scorer.finish(|| daemon.check_running())?;
        // On a busy host it may take long until there is data to lose.
        let seen = self.seen.len() as u64;
        wait_until(WORK_DEADLINE, || {
            daemon.check_running()?;
            Ok(fs::metadata(export_path(&root)).is_ok_and(|export| export.len() > seen))
        })?;
        daemon.live_for(Duration::from_millis(self.rng.u64(..400)))?;
        let log_bytes = fs::metadata(&log).unwrap().len();
        daemon.kill_9().map_err(|error| error.to_string())?;
        reader.finish()?;
        let sightings = watcher.finish();
        let export = fs::read(export_path(&root)).unwrap_or_default();
        must_begin_with(&export, &self.seen)?;
        drop(mounted);
        Ok(Life {
            base,
            device,
            log,
            sightings,
            export,
            log_bytes,
        })
    }

    fn start(&mut self, root: &Path) -> Daemon {
        let checkpoint_bytes = *self.rng.choice(&[4 << 10, 32 << 10, 16 << 20]).unwrap();
        let mut command = distilld(root, &["run"]);
        command.env("DISTILLD_CHECKPOINT_BYTES", checkpoint_bytes.to_string());
        Daemon::start(&mut command, &self.dir.join("daemon.log")).unwrap()
    }

    /// Syncs some day-files: some scorers sync their lines, and the kernel writes some by itself.
    fn sync_some(&mut self, root: &Path) {
        for pair in read_pairs(&OsStorage, root).unwrap().keys() {
            let stream = *self.rng.choice(&Stream::BOTH).unwrap();
            if let Ok(file) = fs::File::open(stream.path(root, pair)) {
                file.sync_data().unwrap();
            }
        }
    }

    /// Mounts a disk after a cut, recovers it, lets the scorers continue, and compares after each step. Returns
    /// whether the cut left complete lines in the export that were never written.
    fn recover(
        &mut self,
        image: &Path,
        mut scorers: Scorers,
        seen: &[u8],
        export_ever: &[u8],
        tally: &mut Tally,
    ) -> Result<bool, String> {
        let mounted = Mounted::image(image, &self.dir.join("mount"), "noatime");
        let root = root_of(&mounted);
        fs::create_dir_all(&root).unwrap();
        let left = fs::read(export_path(&root)).unwrap_or_default();
        let right = whole_lines(&left[..common_len(&left, export_ever)]);
        tally.rows_rewritten += usize::from(right.len() < seen.len());
        let whole = whole_lines(&left).len();
        tally.rows_garbled += usize::from(right.len() < whole.min(seen.len()));
        let garbled = right.len() < whole;
        let lost_bytes = scorers.after_cut(&root, &mut self.rng);
        tally.sources_shortened += usize::from(lost_bytes > 0);
        let seen = longer(seen, right);
        let ever = rows_of(export_ever);
        let steps = scorers.next_steps(1.0, &mut self.rng);
        // The scorers may start before the daemon.
        if self.rng.bool() {
            self.once(&root, &seen, &ever, tally)?;
            check_account(&root, &scorers, Compared::Lines)?;
        }
        let scorer = Scorer::start(&root, Duration::ZERO, steps);
        scorer.finish(|| Ok(()))?;
        self.once(&root, &seen, &ever, tally)?;
        let export = fs::read(export_path(&root)).unwrap_or_default();
        tally.rows += export.iter().filter(|byte| **byte == b'\n').count();
        if scorers.lose_no_line() {
            let naive = naive_batch(&read_pairs(&OsStorage, &root).unwrap(), false);
            multiset_difference(&export, &naive.rows).map_or(Ok(()), Err)?;
            ledger_fault(&export, &ledger_of(&root), &naive).map_or(Ok(()), Err)?;
            self.must(distilld(&root, &["verify"]))?;
            check_account(&root, &scorers, Compared::All)?;
        } else {
            // If one of two equal lines is lost, `verify` correctly reports a difference: two rows, and one line that
            // earns them.
            check_account(&root, &scorers, Compared::Lines)?;
        }
        Ok(garbled)
    }

    /// Catches up and compares.
    fn once(
        &self,
        root: &Path,
        seen: &[u8],
        ever: &BTreeMap<String, usize>,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let log = self.must(distilld(root, &["run", "--once"]))?;
        let case = log.split("case=").nth(1).unwrap_or_default();
        let case = case.trim_start_matches('"').split_whitespace().next();
        let case = case.unwrap_or("unknown");
        *tally.cases.entry(case.to_owned()).or_default() += 1;
        tally.sources_read_again += log.matches("re-reading from the start").count();
        let export = fs::read(export_path(root)).unwrap_or_default();
        must_begin_with(&export, seen)?;
        // Each event has its number, its row with its hash, and its turn.
        let events = read_ledger(&export, &ledger_of(root))?;
        let count = |op: &str| events.iter().filter(|event| event.op == op).count();
        tally.retracted += count("retract");
        tally.restored += count("restore");
        let naive = naive_batch(&read_pairs(&OsStorage, root).unwrap(), false).rows;
        compare(&export, &naive, ever)
    }

    /// Runs a command, which must succeed, and returns its output.
    fn must(&self, mut command: Command) -> Result<String, String> {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(format!("{command:?} ended with {}: {text}", output.status))
    }
}

/// Asserts that every line is accounted for. If the cut removed a whole day-file, the lines that were read of it
/// remain in the account.
fn check_account(root: &Path, scorers: &Scorers, compared: Compared) -> Result<(), String> {
    let compared = match scorers.lack_a_day_file(root) {
        true => Compared::AtLeast,
        false => compared,
    };
    account_fault(root, compared).map_or(Ok(()), Err)
}

/// Asserts that every row of the batch exists, and no row more often than in the batch or on the disk before the cut:
/// rows whose lines are lost remain.
fn compare(export: &[u8], naive: &[String], ever: &BTreeMap<String, usize>) -> Result<(), String> {
    let found = rows_of(export);
    let earned = counted(naive.iter().map(String::as_str));
    for (key, count) in &earned {
        let actual = found.get(key).copied().unwrap_or_default();
        if actual < *count {
            return Err(format!("{actual} of {count} rows are there: {key}"));
        }
    }
    for (key, count) in &found {
        let [earned, before] = [&earned, ever].map(|rows| rows.get(key).copied().unwrap_or(0));
        if *count > earned.max(before) {
            return Err(format!(
                "{count} rows are there, {earned} earned, {before} before the cut: {key}"
            ));
        }
    }
    Ok(())
}

fn rows_of(export: &[u8]) -> BTreeMap<String, usize> {
    let text = String::from_utf8_lossy(export).into_owned();
    counted(text.lines())
}

fn counted<'a>(rows: impl Iterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(without_index(row)).or_default() += 1;
    }
    counts
}

/// Returns a row without its timestamps and its index, which depends on earlier losses. Two days may have lines and
/// evidence of the same name, so the content is compared too.
fn without_index(row: &str) -> String {
    let row = blank_stamps(row);
    let (id, rest) = row.split_once("\",\"instruction\":").unwrap_or((&row, ""));
    let name = id.rsplit_once(':').map_or(id, |(name, _)| name);
    format!("{name} {rest}")
}

fn root_of(mounted: &Mounted) -> PathBuf {
    mounted.dir().join("lake")
}

fn ledger_of(root: &Path) -> Vec<u8> {
    let path = export_path(root).with_file_name("sft_retractions.jsonl");
    fs::read(path).unwrap_or_default()
}

fn distilld(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distilld"));
    command.env_clear().env("DISTILLD_SETTLE_MS", "50");
    command.arg("--root").arg(root).args(arguments);
    command
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte == b'\n');
    &bytes[..end.map_or(0, |end| end + 1)]
}

fn longer(one: &[u8], other: &[u8]) -> Vec<u8> {
    if other.len() > one.len() { other } else { one }.to_vec()
}

/// Returns the length of the common prefix of two versions of the export.
fn common_len(one: &[u8], other: &[u8]) -> usize {
    let differs = one.iter().zip(other).position(|(one, other)| one != other);
    differs.unwrap_or(one.len().min(other.len()))
}

/// Fails if the previously seen part of the export is incomplete.
fn must_begin_with(export: &[u8], seen: &[u8]) -> Result<(), String> {
    let common = common_len(export, seen);
    if common == seen.len() {
        return Ok(());
    }
    let [export, seen] = [export.len(), seen.len()];
    Err(format!(
        "{seen} bytes of the export were seen; of {export} that are there {common} are the same"
    ))
}

/// Records the length of the log for each observed length of the export.
struct Watcher {
    thread: JoinHandle<Vec<(u64, usize)>>,
    stop: Arc<AtomicBool>,
}

impl Watcher {
    fn start(export: &Path, log: &Path) -> Self {
        let (export, log) = (export.to_owned(), log.to_owned());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watch = move || {
            let mut sightings = Vec::new();
            _ = wait_until(LONG * 10, || {
                sightings.extend(sighting(&export, &log, sightings.last()));
                Ok(stopped.load(Ordering::Acquire))
            });
            sightings
        };
        Self {
            thread: thread::spawn(watch),
            stop,
        }
    }

    fn finish(self) -> Vec<(u64, usize)> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

/// Reads the export first, so that the log as read afterwards covers the observed bytes.
fn sighting(export: &Path, log: &Path, last: Option<&(u64, usize)>) -> Option<(u64, usize)> {
    let from = last.map_or(0, |(_, len)| *len);
    let file = fs::File::open(export).ok()?;
    let len = file.metadata().ok()?.len() as usize;
    let mut fresh = vec![0; len.saturating_sub(from)];
    file.read_exact_at(&mut fresh, from as u64).ok()?;
    let whole = whole_lines(&fresh).len();
    let log_bytes = fs::metadata(log).ok()?.len();
    (whole > 0).then_some((log_bytes, from + whole))
}
