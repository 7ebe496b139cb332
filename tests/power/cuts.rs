//! Power cuts under the real daemon: the daemon and its scorers work on a file system whose device logs every write; the
//! disk is rebuilt as cuts at many moments leave it, and each such disk is recovered by the real daemon and compared
//! with the naive batch. Some of these disks continue and are cut again. The state may have a disk of its own, which
//! ends at the same moment.
//!
//! Hundreds of cuts of each file system:
//! `DISTILLD_POWER_CUTS=1000 cargo test --release --features root-tests --test power cuts::`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fastrand::Rng;

use crate::block_device::{BlockDevice, PROGRAMS};
use crate::file_systems::{self, FileSystem};
use crate::host::{self, Mounted};
use crate::scorers::{Scorers, Writers};
use crate::sightings::{LogLengths, Watcher, lengths_of};
use crate::support::account::{Compared, account_fault_by};
use crate::support::export_reader::ReaderThread;
use crate::support::kill_harness::{Daemon, Scorer, export_path, wait_until};
use crate::support::lake_gen::{Step, Stream};
use crate::support::ledger::{ledger_fault, read_ledger};
use crate::support::naive::compare::blank_stamps;
use crate::support::naive::{multiset_difference, naive_batch, read_pairs, row_key};
use crate::support::tools::number_from;
use crate::write_log::WriteLog;
use distilld::platform::storage::OsStorage;

/// Cuts of ext4 in the ordinary run; the variable selects another number, for each file system.
const CUTS: usize = 48;
const CUTS_VARIABLE: &str = "DISTILLD_POWER_CUTS";
const SEED_VARIABLE: &str = "DISTILLD_POWER_SEED";
/// Number of lives of a disk that continues after a cut.
const LIVES: usize = 3;
/// Number of power cuts examined in each life.
const CUTS_PER_LIFE: usize = 8;
/// Lives and cuts of each of the other file systems in the ordinary run.
const FEW_LIVES: usize = 2;
const FEW_CUTS_PER_LIFE: usize = 2;
const LINES_PER_LIFE: usize = 250;
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

/// What power is cut on, and how often.
#[derive(Clone, Copy)]
struct Setting {
    file_system: &'static FileSystem,
    /// Whether the state is on a second disk.
    has_state_disk: bool,
    /// `None`: both, in turn.
    writers: Option<Writers>,
    lives: usize,
    cuts_per_life: usize,
}

impl Setting {
    fn new(file_system: &'static FileSystem, writers: Option<Writers>) -> Self {
        Self {
            file_system,
            has_state_disk: false,
            writers,
            lives: LIVES,
            cuts_per_life: CUTS_PER_LIFE,
        }
    }

    /// Returns the name of the setting in messages.
    fn name(&self) -> String {
        let disks = if self.has_state_disk {
            ", state on a second disk"
        } else {
            ""
        };
        format!("{}{disks}, {:?}", self.file_system.name, self.writers)
    }

    fn writers_of(&self, seed: u64) -> Writers {
        let in_turn = match seed % 2 {
            0 => Writers::WriteAgain,
            _ => Writers::GoOn,
        };
        self.writers.unwrap_or(in_turn)
    }

    fn lines(&self) -> usize {
        self.lives * LINES_PER_LIFE
    }
}

fn check(seed: u64, setting: Setting, cuts: usize) -> Option<Tally> {
    if !host::has(&PROGRAMS) || !setting.file_system.is_available() {
        return None;
    }
    let mut tally = Tally::default();
    let earning = |seed: &u64| Scorers::earn_rows(*seed, setting.lines());
    for seed in (seed..).filter(earning) {
        if let Err(fault) = run_chain(seed, setting, &mut tally) {
            panic!(
                "{SEED_VARIABLE}={seed} (the moments differ), {}: {fault}\n{tally:?}",
                setting.name()
            );
        }
        if tally.cuts >= cuts {
            break;
        }
    }
    eprintln!("from seed {seed}, {}: {tally:?}", setting.name());
    Some(tally)
}

fn first_seed() -> u64 {
    number_from(SEED_VARIABLE).unwrap_or_else(|| fastrand::u64(..))
}

/// Cuts the power of ext4 often enough that lines, rows and events are lost.
fn check_ext4(writers: Writers) {
    let cuts = number_from(CUTS_VARIABLE).map_or(CUTS, |cuts| cuts as usize);
    let setting = Setting::new(&file_systems::EXT4, Some(writers));
    if let Some(tally) = check(first_seed(), setting, cuts / 2) {
        let sources_lost = tally.sources_shortened > 0 && tally.sources_read_again > 0;
        assert!(
            tally.writes_lost > 0 && tally.seen_bytes > 0 && sources_lost && tally.retracted > 0,
            "{tally:?}"
        );
    }
}

/// Cuts the power of another file system: a few times, or as often as the variable selects.
fn check_other(file_system: &'static FileSystem, has_state_disk: bool) {
    let seed = first_seed();
    let many = Setting {
        has_state_disk,
        ..Setting::new(file_system, None)
    };
    let few = Setting {
        lives: FEW_LIVES,
        cuts_per_life: FEW_CUTS_PER_LIFE,
        ..many
    };
    let Some(cuts) = number_from(CUTS_VARIABLE) else {
        check(seed, few, FEW_LIVES * FEW_CUTS_PER_LIFE);
        return;
    };
    if let Some(tally) = check(seed, many, cuts as usize) {
        assert!(tally.writes_lost > 0 && tally.seen_bytes > 0, "{tally:?}");
    }
}

#[test]
fn a_power_cut_loses_and_duplicates_no_row_if_scorers_write_lost_lines_again() {
    check_ext4(Writers::WriteAgain);
}

#[test]
fn a_power_cut_duplicates_no_row_if_scorers_continue_after_lost_lines() {
    check_ext4(Writers::GoOn);
}

#[test]
fn a_power_cut_of_two_disks_is_recovered() {
    check_other(&file_systems::EXT4, true);
}

#[test]
fn a_power_cut_of_ext4_with_journaled_data_is_recovered() {
    check_other(&file_systems::EXT4_JOURNAL, false);
}

#[test]
fn a_power_cut_of_ext4_with_written_back_data_is_recovered() {
    check_other(&file_systems::EXT4_WRITEBACK, false);
}

#[test]
fn a_power_cut_of_ext4_without_delayed_allocation_is_recovered() {
    check_other(&file_systems::EXT4_NODELALLOC, false);
}

#[test]
fn a_power_cut_of_xfs_is_recovered() {
    check_other(&file_systems::XFS, false);
}

#[test]
fn a_power_cut_of_btrfs_is_recovered() {
    check_other(&file_systems::BTRFS, false);
}

#[test]
fn a_power_cut_of_btrfs_with_compression_is_recovered() {
    check_other(&file_systems::BTRFS_ZSTD, false);
}

/// Runs a disk from its creation through all its cuts.
fn run_chain(seed: u64, setting: Setting, tally: &mut Tally) -> Result<(), String> {
    let scratch = host::scratch();
    let mut chain = Chain {
        setting,
        dir: scratch.path().to_owned(),
        rng: Rng::with_seed(seed),
        seen: Vec::new(),
        images: 0,
    };
    let outcome = chain.run(seed, tally);
    outcome.map_err(|fault| {
        let kept = scratch.keep();
        let log = fs::read_to_string(kept.join("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(30)..].join("\n");
        format!("{fault}\nthe disk is kept in {}\n{end}", kept.display())
    })
}

struct Chain {
    setting: Setting,
    dir: PathBuf,
    rng: Rng,
    /// The part of the export that a reader had seen before any of the previous cuts.
    seen: Vec<u8>,
    images: u32,
}

/// The disks of a lake, mounted: that of the lake, and that of the state if it has one.
struct Disks(Vec<Mounted>);

impl Disks {
    fn root(&self) -> PathBuf {
        self.0[0].dir().join("lake")
    }

    fn state_dir(&self) -> Option<PathBuf> {
        Some(self.0.get(1)?.dir().join("state"))
    }

    fn distilld(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distilld"));
        command.env_clear().env("DISTILLD_SETTLE_MS", "50");
        if let Some(state_dir) = self.state_dir() {
            command.env("DISTILLD_STATE_DIR", state_dir);
        }
        command.arg("--root").arg(self.root()).args(arguments);
        command
    }
}

/// A life of the disks, from power-on to the power cut.
struct Life {
    bases: Vec<Vec<u8>>,
    logs: Vec<WriteLog>,
    sightings: Vec<(LogLengths, usize)>,
    /// Lengths that the logs had at one moment.
    moments: Vec<LogLengths>,
    /// The export at the end.
    export: Vec<u8>,
    end: LogLengths,
}

impl Life {
    fn entries_within(&self, lengths: &LogLengths) -> Vec<usize> {
        let logs = self.logs.iter().zip(lengths);
        logs.map(|(log, len)| log.entries_within(*len)).collect()
    }

    /// Returns cuts, each as the number of entries of each log that were before it.
    fn cuts(&self, count: usize, rng: &mut Rng) -> Vec<Vec<usize>> {
        if let [log] = &self.logs[..] {
            let cuts = log.cuts(count, self.entries_within(&self.end)[0], rng);
            return cuts.into_iter().map(|cut| vec![cut]).collect();
        }
        let moments = self
            .moments
            .iter()
            .map(|moment| self.entries_within(moment));
        let moments: Vec<_> = moments.collect();
        let mut at: Vec<usize> = (0..count).map(|_| rng.usize(..moments.len())).collect();
        at.sort_unstable();
        at.into_iter().map(|at| moments[at].clone()).collect()
    }

    /// Returns the part of the export that a reader had surely seen before a cut.
    fn sighted(&self, cut: &[usize]) -> &[u8] {
        let is_before = |(lengths, _): &(LogLengths, usize)| {
            let entries = self.entries_within(lengths);
            entries.iter().zip(cut).all(|(entries, cut)| entries <= cut)
        };
        let sighted = self.sightings.partition_point(is_before);
        let len = sighted.checked_sub(1).map_or(0, |at| self.sightings[at].1);
        &self.export[..len]
    }
}

/// The disks after a cut, and what readers have seen of their export.
type LivesOn = (Vec<Vec<u8>>, Vec<u8>);

impl Chain {
    fn run(&mut self, seed: u64, tally: &mut Tally) -> Result<(), String> {
        let lives = self.setting.lives;
        let mut images = self.next_images();
        images
            .iter()
            .for_each(|image| self.setting.file_system.make(image));
        let mut scorers = Scorers::new(seed, self.setting.lines(), self.setting.writers_of(seed));
        for number in 0..lives {
            let steps = scorers.next_steps(1.0 / (lives - number) as f64, &mut self.rng);
            let life = self.live(&images, steps)?;
            let lives_on = self
                .cut_life(&life, &scorers, tally)
                .map_err(|fault| format!("life {number}, {fault}"))?;
            // All cuts of a life may leave lines in the export that were never written.
            let Some((disks, seen)) = lives_on else {
                return Ok(());
            };
            self.seen = seen;
            images = self.write_images(&disks);
            let mounted = self.mount(&images);
            scorers.after_cut(&mounted.root(), &mut self.rng);
        }
        Ok(())
    }

    /// Recovers the disks as cuts of a life leave them. Returns those of a cut after which they live on.
    fn cut_life(
        &mut self,
        life: &Life,
        scorers: &Scorers,
        tally: &mut Tally,
    ) -> Result<Option<LivesOn>, String> {
        let cuts = life.cuts(self.setting.cuts_per_life, &mut self.rng);
        let lives_on = self.rng.usize(..cuts.len());
        let mut next = None;
        for (at, cut) in cuts.into_iter().enumerate() {
            tally.cuts += 1;
            let mut disks = Vec::new();
            for ((log, base), cut) in life.logs.iter().zip(&life.bases).zip(&cut) {
                let (disk, lost) = log.disk_after(base, *cut, &mut self.rng);
                tally.writes_lost += lost;
                disks.push(disk);
            }
            let sighted = life.sighted(&cut);
            tally.seen_bytes += sighted.len();
            let seen = longer(&self.seen, sighted);
            let images = self.write_images(&disks);
            let garbled = self
                .recover(&images, scorers.clone(), &seen, &life.export, tally)
                .map_err(|fault| {
                    format!(
                        "cut {cut:?} of {:?}: {fault}",
                        life.entries_within(&life.end)
                    )
                })?;
            // Readers of the next life exist before its daemon has repaired the export.
            if !garbled && (at <= lives_on || next.is_none()) {
                next = Some((disks, seen));
            }
        }
        Ok(next)
    }

    /// Returns the paths of new files for the disks and removes the previous ones. If another mount namespace still holds a
    /// file system that is unmounted here, the kernel would treat the same file as the same disk.
    fn next_images(&mut self) -> Vec<PathBuf> {
        let disks = 1 + u32::from(self.setting.has_state_disk);
        let path = |number| self.dir.join(format!("image-{number}"));
        for number in (self.images + 1).saturating_sub(disks)..=self.images {
            _ = fs::remove_file(path(number));
        }
        let first = self.images + 1;
        self.images += disks;
        (first..=self.images)
            .map(|number| self.dir.join(format!("image-{number}")))
            .collect()
    }

    fn write_images(&mut self, disks: &[Vec<u8>]) -> Vec<PathBuf> {
        let images = self.next_images();
        for (image, disk) in images.iter().zip(disks) {
            fs::write(image, disk).unwrap();
        }
        images
    }

    fn mount<'i>(&self, images: impl IntoIterator<Item = &'i PathBuf>) -> Disks {
        let mount = |(number, image): (usize, &PathBuf)| {
            let dir = self.dir.join(format!("mount-{number}"));
            self.setting.file_system.mount(image, &dir)
        };
        Disks(images.into_iter().enumerate().map(mount).collect())
    }

    /// Runs the daemon and its scorers on the disks until the power is cut.
    fn live(&mut self, images: &[PathBuf], steps: Vec<Step>) -> Result<Life, String> {
        let bases = images.iter().map(|image| fs::read(image).unwrap());
        let bases = bases.collect();
        let log_of = |image: &PathBuf| image.with_extension("write-log");
        let logs: Vec<PathBuf> = images.iter().map(log_of).collect();
        let devices = images
            .iter()
            .zip(&logs)
            .map(|(image, log)| BlockDevice::logged(&image.with_extension("device"), image, log));
        let devices: Vec<BlockDevice> = devices.collect();
        let paths: Vec<PathBuf> = devices
            .iter()
            .map(|device| device.path().to_owned())
            .collect();
        let mounted = self.mount(&paths);
        let root = mounted.root();
        fs::create_dir_all(&root).unwrap();
        let watcher = Watcher::start(&export_path(&root), &logs);
        let reader = ReaderThread::start(&export_path(&root));
        let pause = Duration::from_micros(self.rng.u64(100..3_000));
        let scorer = Scorer::start(&root, pause, steps);
        let kills = self.rng.usize(..3);
        for _ in 0..kills {
            let mut daemon = self.start(&mounted);
            daemon.live_for(Duration::from_millis(self.rng.u64(..300)))?;
            daemon.kill_9().map_err(|error| error.to_string())?;
            self.sync_some(&root);
        }
        let mut daemon = self.start(&mounted);
        scorer.finish(|| daemon.check_running())?;
        // On a busy host it may take long until there is data to lose.
        let seen = self.seen.len() as u64;
        wait_until(WORK_DEADLINE, || {
            daemon.check_running()?;
            Ok(fs::metadata(export_path(&root)).is_ok_and(|export| export.len() > seen))
        })?;
        daemon.live_for(Duration::from_millis(self.rng.u64(..400)))?;
        let end = lengths_of(&logs).unwrap();
        daemon.kill_9().map_err(|error| error.to_string())?;
        reader.finish()?;
        let sightings = watcher.finish();
        let export = fs::read(export_path(&root)).unwrap_or_default();
        must_begin_with(&export, &self.seen)?;
        drop((mounted, devices));
        let read = |log: &PathBuf| WriteLog::new(fs::read(log).unwrap());
        // What follows the end is the unmounting.
        let is_alive = |moment: &LogLengths| moment.iter().zip(&end).all(|(len, end)| len <= end);
        let moments = sightings.moments.into_iter().filter(is_alive).collect();
        let life = Life {
            bases,
            logs: logs.iter().map(read).collect(),
            sightings: sightings.of_export,
            moments,
            export,
            end,
        };
        logs.iter().for_each(|log| fs::remove_file(log).unwrap());
        Ok(life)
    }

    fn start(&mut self, disks: &Disks) -> Daemon {
        let checkpoint_bytes = *self.rng.choice(&[4 << 10, 32 << 10, 16 << 20]).unwrap();
        let mut command = disks.distilld(&["run"]);
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
        images: &[PathBuf],
        mut scorers: Scorers,
        seen: &[u8],
        export_ever: &[u8],
        tally: &mut Tally,
    ) -> Result<bool, String> {
        let disks = self.mount(images);
        let root = disks.root();
        // A cut may remove the directory of a stream: btrfs syncs a file without the directories of others. Without it, or
        // with an empty one on a device of another number, the daemon reports that the lake is incomplete: its file system
        // may not be mounted.
        for stream in Stream::BOTH {
            fs::create_dir_all(stream.path(&root, "2000/01/01")).unwrap();
        }
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
            self.once(&disks, &seen, &ever, tally)?;
            check_account(&disks, &scorers, Compared::Lines)?;
        }
        let scorer = Scorer::start(&root, Duration::ZERO, steps);
        scorer.finish(|| Ok(()))?;
        self.once(&disks, &seen, &ever, tally)?;
        let export = fs::read(export_path(&root)).unwrap_or_default();
        tally.rows += export.iter().filter(|byte| **byte == b'\n').count();
        if scorers.lose_no_line() {
            let naive = naive_batch(&read_pairs(&OsStorage, &root).unwrap(), false);
            multiset_difference(&export, &naive.rows).map_or(Ok(()), Err)?;
            ledger_fault(&export, &ledger_of(&root), &naive).map_or(Ok(()), Err)?;
            self.must(disks.distilld(&["verify"]))?;
            check_account(&disks, &scorers, Compared::All)?;
        } else {
            // If one of two equal lines is lost, `verify` correctly reports a difference: two rows, and one line that
            // earns them.
            check_account(&disks, &scorers, Compared::Lines)?;
        }
        Ok(garbled)
    }

    /// Catches up and compares.
    fn once(
        &self,
        disks: &Disks,
        seen: &[u8],
        ever: &BTreeMap<String, usize>,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let root = &disks.root();
        let log = self.must(disks.distilld(&["run", "--once"]))?;
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
fn check_account(disks: &Disks, scorers: &Scorers, compared: Compared) -> Result<(), String> {
    let root = &disks.root();
    let compared = match scorers.lack_a_day_file(root) {
        true => Compared::AtLeast,
        false => compared,
    };
    account_fault_by(disks.distilld(&[]), root, compared).map_or(Ok(()), Err)
}

/// Asserts that the batch has no more rows of a key than there are, and no row more often than in the batch or on the disk
/// before the cut: rows whose lines are lost remain, and another line of their key claims them with what they have.
fn compare(export: &[u8], naive: &[String], ever: &BTreeMap<String, usize>) -> Result<(), String> {
    let export = String::from_utf8_lossy(export);
    let actual = counted(export.lines(), row_key);
    for (key, count) in counted(naive.iter().map(String::as_str), row_key) {
        let actual = actual.get(&key).copied().unwrap_or_default();
        if actual < count {
            return Err(format!("{actual} of {count} rows are there: {key}"));
        }
    }
    let found = counted(export.lines(), without_index);
    let earned = counted(naive.iter().map(String::as_str), without_index);
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
    counted(String::from_utf8_lossy(export).lines(), without_index)
}

fn counted<'a>(
    rows: impl Iterator<Item = &'a str>,
    key_of: fn(&str) -> String,
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(key_of(row)).or_default() += 1;
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

fn ledger_of(root: &Path) -> Vec<u8> {
    let path = export_path(root).with_file_name("sft_retractions.jsonl");
    fs::read(path).unwrap_or_default()
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
