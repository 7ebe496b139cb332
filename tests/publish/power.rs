//! Power cuts under a live daemon and a live publisher: lake and table are on one ext4 whose device logs every write;
//! the disk is rebuilt as cuts at many moments leave it. After each cut an independent reader has to find one whole
//! version of the table, none older than the newest that was reported as committed, and the publisher continues to
//! exactly the effective rows.
//!
//! Hundreds of cuts:
//! `DISTILLD_POWER_CUTS=300 cargo test --features publish,root-tests --test publish power::`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use tempfile::TempDir;

use crate::block_device::{BlockDevice, PROGRAMS};
use crate::file_systems::EXT4;
use crate::host::{self, must};
use crate::publisher::{PAIR, Publisher, many_runs, python};
use crate::support::kill_harness::{Daemon, wait_until};
use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, LONG};
use crate::support::tools::number_from;
use crate::write_log::WriteLog;

/// Cuts in the ordinary run; the variable selects another number.
const CUTS: u64 = 8;
const CUTS_VARIABLE: &str = "DISTILLD_POWER_CUTS";
const SEED_VARIABLE: &str = "DISTILLD_POWER_SEED";
/// Power cuts that are examined in each life. The disk of the last one continues.
const CUTS_PER_LIFE: usize = 4;
/// Commits of the publisher in each life, at least.
const COMMITS_PER_LIFE: usize = 8;
/// Small commits, and checkpoints among them.
const OFTEN: &str = "commit_interval_s = 1\ncommit_bytes = \"1KiB\"\ncheckpoint_every = 3\n";

/// What the cuts did; a test without losses proves nothing.
#[derive(Debug, Default)]
struct Tally {
    cuts: u64,
    writes_lost: usize,
    /// Cuts before the first commit.
    without_table: usize,
    /// Cuts after which the table had a version that no one had seen committed.
    not_yet_reported: usize,
    /// Cuts after which the table had the newest version that was reported.
    newest_reported: usize,
    /// Cuts after which the table lacked rows of the export.
    published_again: usize,
    /// Versions of the table at the ends of the lives.
    versions: u64,
}

/// A life of the disk, from power-on to the power cut.
struct Life {
    base: Vec<u8>,
    log: WriteLog,
    /// Lengths of the log when a version was known to be committed.
    reports: Vec<(u64, u64)>,
    /// The length of the log when everything was killed.
    end: u64,
    /// A copy of the table as it was then.
    table: PathBuf,
    /// Rows of its versions that were asked for.
    rows: HashMap<u64, String>,
}

struct Disk {
    publisher: Publisher,
    dir: TempDir,
    rng: Rng,
    /// Names of images and runs that were used: the kernel takes an old name for the same disk.
    used: usize,
    tally: Tally,
}

#[test]
fn after_a_power_cut_the_table_has_the_last_commit_or_the_one_before() {
    if !host::has(&PROGRAMS) || !EXT4.is_available() || python().is_none() {
        return;
    }
    let seed = number_from(SEED_VARIABLE).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{SEED_VARIABLE}={seed} (the moments differ)");
    let bench = Bench::new();
    let table = bench.root().join("sft").display().to_string();
    let mut disk = Disk {
        publisher: Publisher::with(bench, &table, "lake-07", OFTEN),
        dir: host::scratch(),
        rng: Rng::with_seed(seed),
        used: 0,
        tally: Tally::default(),
    };
    let mut image = disk.next_image();
    EXT4.make(&image);
    while disk.tally.cuts < number_from(CUTS_VARIABLE).unwrap_or(CUTS) {
        let mut life = disk.live(&image);
        fs::remove_file(image).unwrap();
        image = disk.cut(&mut life);
    }
    eprintln!("{:?}", disk.tally);
    assert!(disk.tally.writes_lost > 0 && disk.tally.newest_reported > 0);
}

impl Disk {
    fn next_image(&mut self) -> PathBuf {
        self.used += 1;
        self.dir.path().join(format!("image-{}", self.used))
    }

    fn root(&self) -> PathBuf {
        self.publisher.bench.root()
    }

    /// Runs daemon and publisher on the disk while runs arrive and are rejected, and kills both.
    fn live(&mut self, image: &Path) -> Life {
        let base = fs::read(image).unwrap();
        let log = image.with_extension("write-log");
        let device = BlockDevice::logged(&image.with_extension("device"), image, &log);
        let mounted = EXT4.mount(device.path(), &self.root());
        self.make_streams();
        let mut daemon = self.publisher.bench.start_caught_up();
        let publish_log = image.with_extension("publish-log");
        let mut command = self.publisher.command(&["run"]);
        let mut publishing = Daemon::start(&mut command, &publish_log).unwrap();
        let mut reports: Vec<(u64, u64)> = Vec::new();
        while reports.len() < COMMITS_PER_LIFE {
            self.append();
            let before = reports.last().map(|(_, version)| *version);
            let reported = wait_until(LONG, || {
                daemon.check_running()?;
                publishing.check_running()?;
                let version = last_committed(&publish_log).filter(|now| Some(*now) != before);
                reports.extend(version.map(|version| (len_of(&log), version)));
                Ok(version.is_some())
            });
            let text = fs::read_to_string(&publish_log).unwrap();
            assert_eq!(reported, Ok(true), "{text}");
        }
        let end = len_of(&log);
        publishing.kill_9().unwrap();
        daemon.kill_9().unwrap();
        let table = image.with_extension("table");
        must(
            "cp",
            &["-r", &self.publisher.table, table.to_str().unwrap()],
        );
        drop((mounted, device));
        self.tally.versions += reports.last().map_or(0, |(_, version)| *version);
        let bytes = fs::read(&log).unwrap();
        // The directory may be in memory.
        fs::remove_file(log).unwrap();
        Life {
            base,
            log: WriteLog::new(bytes),
            reports,
            end,
            table,
            rows: HashMap::new(),
        }
    }

    /// Creates the directories of the streams, which a cut may remove: the daemon then reports an incomplete lake.
    fn make_streams(&self) {
        for stream in Stream::BOTH {
            fs::create_dir_all(stream.path(&self.root(), "2000/01/01")).unwrap();
        }
    }

    /// Appends runs, of which one is rejected.
    fn append(&mut self) {
        self.used += 1;
        let (evidence, scored) = many_runs(&self.used.to_string(), 4);
        let bench = &self.publisher.bench;
        bench.append(Stream::Evidence, PAIR, evidence);
        bench.append(Stream::Scored, PAIR, scored);
    }

    /// Examines the disk as cuts of a life leave it, and returns the last of them as it continued.
    fn cut(&mut self, life: &mut Life) -> PathBuf {
        let end = life.log.entries_within(life.end);
        let mut last = PathBuf::new();
        for cut in life.log.cuts(CUTS_PER_LIFE, end, &mut self.rng) {
            let (disk, lost) = life.log.disk_after(&life.base, cut, &mut self.rng);
            self.tally.cuts += 1;
            self.tally.writes_lost += lost;
            _ = fs::remove_file(&last);
            last = self.next_image();
            fs::write(&last, disk).unwrap();
            let mounted = EXT4.mount(&last, &self.root());
            let is_before = |(len, _): &&(u64, u64)| life.log.entries_within(*len) <= cut;
            let reported = life.reports.iter().rev().find(is_before);
            let reported = reported.map(|(_, version)| *version);
            self.check_version(life, reported);
            self.check_continued();
            drop(mounted);
        }
        fs::remove_dir_all(&life.table).unwrap();
        last
    }

    /// Asserts that the table is one of its versions, at least the reported one.
    fn check_version(&mut self, life: &mut Life, reported: Option<u64>) {
        let publisher = &self.publisher;
        let log = Path::new(&publisher.table).join("_delta_log");
        if !log.join("00000000000000000000.json").exists() {
            assert_eq!(reported, None, "the table is gone");
            self.tally.without_table += 1;
            return;
        }
        let (version, found) = publisher.read_table(&publisher.table, None);
        assert!(Some(version) >= reported, "{version} of {reported:?}");
        let whole = life.table.to_str().unwrap();
        let expected = life.rows.entry(version);
        let expected = expected.or_insert_with(|| publisher.read_table(whole, Some(version)).1);
        assert!(found == *expected, "version {version} has\n{found}");
        match Some(version) > reported {
            true => self.tally.not_yet_reported += 1,
            false => self.tally.newest_reported += 1,
        }
    }

    /// Lets daemon and publisher continue, and compares.
    fn check_continued(&mut self) {
        self.make_streams();
        self.publisher.bench.once();
        let account = self.publisher.once();
        self.tally.published_again += usize::from(account["commits"] != 0);
        self.publisher.assert_published();
    }
}

/// Returns the last version that a publisher reported as committed.
fn last_committed(log: &Path) -> Option<u64> {
    let text = fs::read_to_string(log).ok()?;
    let (_, rest) = text.rsplit_once("committed version ")?;
    rest.split_once(' ')?.0.parse().ok()
}

fn len_of(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}
