//! The real daemon on real file systems that become full, fail a sync, turn read-only, or cannot read a sector, under
//! the export, the state or the sources. Visible rows remain, no row is lost, and the daemon reports why it is paused.

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::block_device::{BlockDevice, PROGRAMS};
use crate::host::{self, Mounted, must};
use crate::support::export_reader::ReaderThread;
use crate::support::http::{get, metric};
use crate::support::kill_harness::wait_until;
use crate::support::lake_gen::Stream;
use crate::support::ledger::{Event, LedgerReader, ledger_fault, read_ledger};
use crate::support::naive::{naive_batch, read_pairs};
use crate::support::process::{Bench, LONG, evidence_with, scored, scored_as};
use distilld::platform::clock::{Clock as _, HostClock};
use distilld::platform::storage::OsStorage;
use distilld::record::timestamp::stamp;

const PAIR: &str = "2026/01/01/n.jsonl";
const MIB: u64 = 1 << 20;
/// Runs that are rejected while the disk is full.
const REJECTED: usize = 40;

/// Appends runs whose rows are 64 KiB long.
fn append_long(bench: &Bench, runs: std::ops::Range<u32>) {
    for run in runs {
        let run = format!("long {run}");
        bench.append(
            Stream::Evidence,
            PAIR,
            evidence_with(&run, &"x".repeat(64 << 10)),
        );
        bench.append(Stream::Scored, PAIR, scored(&run));
    }
}

/// Uses all space of a file system; returns the file that occupies it.
fn fill(dir: &Path) -> PathBuf {
    let ballast = dir.join("ballast");
    let mut file = File::create(&ballast).unwrap();
    let zeros = vec![1; 4096];
    while file.write_all(&zeros).is_ok() {}
    // Without a sync, delayed allocation may fail only later.
    _ = file.sync_all();
    ballast
}

/// The directory on the file system that becomes full.
#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Export,
    State,
}

fn small_file_system(bench: &Bench, kind: &str, dir: &Path) -> Mounted {
    if kind == "tmpfs" {
        return Mounted::new(&["-t", "tmpfs", "-o", "size=3m", "tmpfs"], dir);
    }
    let image = bench.sibling("small.image");
    host::make_ext4(&image, 12 * MIB);
    Mounted::image(&image, dir, "noatime")
}

fn check_full(kind: &str, what: What) {
    if !host::has(&["mount", "umount", "mkfs.ext4"]) {
        return;
    }
    let bench = Bench::new();
    let state_dir = bench.sibling("state");
    let full_dir = match what {
        What::Export => bench.root().join("data/distilled/sft"),
        What::State => state_dir.clone(),
    };
    let mounted = small_file_system(&bench, kind, &full_dir);
    let mut command = bench.command(&["run"]);
    command.arg("--state-dir").arg(&state_dir);
    append_long(&bench, 0..3);
    for run in 0..REJECTED {
        bench.append_run(PAIR, &format!("rejected {run}"));
    }
    // Only the state has the start of this run's waiting time.
    bench.append(Stream::Scored, PAIR, scored("waits"));
    let mut daemon = bench.catch_up(&mut command);
    bench.wait_rows(&mut daemon, 3 + REJECTED);
    let readers = (
        ReaderThread::start(&bench.export()),
        LedgerReader::start(&bench.export()),
    );
    let ballast = fill(mounted.dir());
    // Lines of the ledger for more than the block that may be left, and rows of the same commit.
    let rejected = (0..REJECTED).map(|run| scored_as(&format!("rejected {run}"), "rejected"));
    bench.append(Stream::Scored, PAIR, rejected.collect::<String>());
    append_long(&bench, 3..10);
    let stopped = "msg=\"paused: ";
    bench.wait_for(&mut daemon, "it logs the stop", || {
        bench.log_text().contains(stopped)
    });
    let place = match what {
        What::Export => "sft_retractions.jsonl",
        What::State => "journal",
    };
    let requested_at = stamp(HostClock::new().wall_ms());
    bench.wait_for(&mut daemon, "status gives the reason", || {
        let status = bench.status();
        let fault = &status["last_fault"];
        fault["resolved"] == false
            && fault["what"].to_string().contains(place)
            && status["as_of"].as_str() > Some(&requested_at)
            // A run that was read before its evidence arrived waits too, as reading stopped in between.
            && status["scored"]["waiting"].as_u64() >= Some(1)
    });
    fs::remove_file(ballast).unwrap();
    bench.wait_rows(&mut daemon, 10 + REJECTED);
    bench.wait_for(&mut daemon, "status shows it resolved", || {
        bench.status()["last_fault"]["resolved"] == true
    });
    bench.stop(daemon);
    readers.0.finish().unwrap();
    readers.1.finish(&assert_both(&bench)).unwrap();
    command.arg("--once");
    bench.run(&mut command).check(0, &[]);
    assert_both(&bench);
}

/// Asserts that export and ledger are those of the batch. Returns the events.
fn assert_both(bench: &Bench) -> Vec<Event> {
    bench.assert_batch();
    let export = bench.export_bytes();
    let ledger = fs::read(bench.export().with_file_name("sft_retractions.jsonl")).unwrap();
    let naive = naive_batch(&read_pairs(&OsStorage, &bench.root()).unwrap(), false);
    assert_eq!(ledger_fault(&export, &ledger, &naive), None);
    let events = read_ledger(&export, &ledger).unwrap();
    let retracted = events.iter().filter(|event| event.op == "retract").count();
    assert_eq!(retracted, REJECTED);
    events
}

#[test]
fn an_export_on_a_full_ext4_resumes_when_space_is_available() {
    check_full("ext4", What::Export);
}

#[test]
fn an_export_on_a_full_tmpfs_resumes_when_space_is_available() {
    check_full("tmpfs", What::Export);
}

#[test]
fn a_state_on_a_full_ext4_resumes_when_space_is_available() {
    check_full("ext4", What::State);
}

#[test]
fn a_state_on_a_full_tmpfs_resumes_when_space_is_available() {
    check_full("tmpfs", What::State);
}

/// An ext4 whose disk can start to reject writes: its size exceeds the tmpfs that contains it.
struct ThinDisk {
    pool: Mounted,
    image: PathBuf,
}

impl ThinDisk {
    fn new(bench: &Bench) -> Self {
        let options = ["-t", "tmpfs", "-o", "size=24m", "tmpfs"];
        let pool = Mounted::new(&options, &bench.sibling("pool"));
        let image = pool.dir().join("image");
        host::make_ext4(&image, 64 * MIB);
        Self { pool, image }
    }

    fn mount(&self, dir: &Path) -> Mounted {
        Mounted::image(&self.image, dir, "noatime")
    }
}

/// Recovers the file system like an operator: unmount, repair, mount.
fn repaired(disk: &ThinDisk, mounted: Mounted) -> Mounted {
    let dir = mounted.dir().to_owned();
    drop(mounted);
    // Its exit code indicates a repair.
    let checked = Command::new("e2fsck")
        .args(["-fy"])
        .arg(&disk.image)
        .output()
        .unwrap();
    assert!(
        checked.status.code().is_some_and(|code| code < 4),
        "{checked:?}"
    );
    disk.mount(&dir)
}

#[test]
fn a_failed_sync_ends_the_process_and_the_next_start_recovers() {
    if !host::has(&["mount", "umount", "mkfs.ext4", "e2fsck"]) {
        return;
    }
    let bench = Bench::new();
    let disk = ThinDisk::new(&bench);
    let mounted = disk.mount(&bench.root().join("data/distilled"));
    append_long(&bench, 0..3);
    let mut daemon = bench.start_caught_up();
    bench.wait_rows(&mut daemon, 3);
    let reader = ReaderThread::start(&bench.export());
    let ballast = fill(disk.pool.dir());
    append_long(&bench, 3..60);
    let status = daemon
        .wait(LONG)
        .unwrap_or_else(|error| panic!("{error}: {}", bench.log_text()));
    assert_eq!(status.code(), Some(1), "{}", bench.log_text());
    assert!(bench.log_text().contains("sync"), "{}", bench.log_text());
    reader.finish().unwrap();
    let seen = bench.export_bytes();
    let seen = &seen[..seen
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1)];
    fs::remove_file(ballast).unwrap();
    let _mounted = repaired(&disk, mounted);
    bench.once();
    assert!(
        bench.export_bytes().starts_with(seen),
        "what was seen is gone"
    );
    bench.assert_batch();
}

#[test]
fn a_file_system_that_turns_read_only_loses_nothing() {
    if !host::has(&["mount", "umount", "mkfs.ext4", "e2fsck"]) {
        return;
    }
    let bench = Bench::new();
    let disk = ThinDisk::new(&bench);
    let mounted = disk.mount(&bench.root().join("data/distilled"));
    append_long(&bench, 0..3);
    let mut daemon = bench.start_caught_up();
    bench.wait_rows(&mut daemon, 3);
    let reader = ReaderThread::start(&bench.export());
    // ext4 does this itself when its journal cannot be written.
    mounted.remount("abort");
    append_long(&bench, 3..10);
    // The daemon exits after a failed sync; after a failed write it logs the error and retries.
    let mut ended = false;
    let waited = wait_until(LONG, || {
        ended = daemon.check_running().is_err();
        Ok(ended || bench.log_text().contains("msg=\"paused: "))
    });
    let log = bench.log_text();
    assert_eq!(waited, Ok(true), "{log}");
    assert!(
        log.contains("Read-only file system") || log.contains("Input/output error"),
        "{log}"
    );
    assert!(ended || log.contains("msg=\"paused: "), "{log}");
    reader.finish().unwrap();
    drop(daemon);
    let seen = bench.export_bytes();
    bench
        .run(&mut bench.command(&["run", "--once"]))
        .check(1, &["data/distilled", "Read-only file system"]);
    let _mounted = repaired(&disk, mounted);
    bench.once();
    assert!(
        bench.export_bytes().starts_with(&seen),
        "what was seen is gone"
    );
    bench.assert_batch();
}

/// Returns the 512-byte sector of a file's block in an unmounted image.
fn sector_of(image: &Path, path_in_image: &str, block: usize) -> u64 {
    let request = format!("blocks {path_in_image}");
    let output = must("debugfs", &["-R", &request, image.to_str().unwrap()]);
    let blocks = String::from_utf8(output.stdout).unwrap();
    let block: u64 = blocks
        .split_whitespace()
        .nth(block)
        .unwrap()
        .parse()
        .unwrap();
    block * 4096 / 512
}

#[test]
fn a_day_file_with_a_bad_sector_is_skipped_and_read_once_readable() {
    if !host::has(&PROGRAMS) || !host::has(&["debugfs"]) {
        return;
    }
    let bench = Bench::new();
    let image = bench.sibling("image");
    host::make_ext4(&image, 32 * MIB);
    let bad = "2026/01/02/bad.jsonl";
    {
        let _mounted = Mounted::image(&image, &bench.root(), "noatime");
        for run in 0..100 {
            bench.append_run(bad, &format!("bad {run}"));
        }
        bench.append_run(PAIR, "good");
        bench.once();
        for run in 100..200 {
            bench.append_run(bad, &format!("bad {run}"));
        }
        bench.append_run(PAIR, "later");
    }
    // In the new part; the part before it has been read already.
    let blocks = 100 * scored("bad 100").len() / 4096 + 2;
    let sector = sector_of(&image, &format!("/data/scored-runs/{bad}"), blocks);
    let device = BlockDevice::with_bad_sectors(&bench.sibling("device"), &image, &[sector]);
    {
        let _mounted = Mounted::image(device.path(), &bench.root(), "noatime");
        let mut command = bench.command(&["run"]);
        command.env("DISTILLD_RECENT_SCAN_MS", "50");
        let mut daemon = bench.start_command(&mut command);
        bench.wait_run(&mut daemon, "later");
        bench.wait_for(&mut daemon, "the bad day-file is logged", || {
            bench
                .log_text()
                .lines()
                .any(|line| line.contains("level=warn") && line.contains(bad))
        });
        bench.probe(&mut daemon);
        let warned = bench
            .log_text()
            .lines()
            .filter(|line| line.contains("skipped, retrying") && line.contains("bad.jsonl"))
            .count();
        assert_eq!(warned, 1, "{}", bench.log_text());
        let seen = bench.export_bytes();
        bench.stop(daemon);
        assert!(bench.export_bytes().starts_with(&seen));
    }
    drop(device);
    let _mounted = Mounted::image(&image, &bench.root(), "noatime");
    bench.once();
    bench.assert_distinct(203);
    bench.assert_batch();
}

/// The first and last log message of a scrub of a touched export.
const COMPARED: &str = "export metadata changed since our last write";
const FITS: &str = "verified, unchanged since they were written";

#[test]
fn an_export_with_a_bad_sector_is_reported_once_and_verified_once_readable() {
    if !host::has(&PROGRAMS) || !host::has(&["debugfs"]) {
        return;
    }
    let bench = Bench::new();
    let image = bench.sibling("image");
    host::make_ext4(&image, 64 * MIB);
    // The day-files are on another file system: on a changed device they would be read again, and the rows with them.
    let distilled = bench.root().join("data/distilled");
    fs::create_dir_all(&distilled).unwrap();
    let before = {
        let _mounted = Mounted::image(&image, &distilled, "noatime");
        append_long(&bench, 0..40);
        bench.once();
        bench.export_bytes().len() as u64
    };
    assert!(before > 2 * MIB);
    // In its first MiB, because an append verifies only the end.
    let sector = sector_of(&image, "/sft/sft_export.jsonl", 20);
    let device = BlockDevice::with_bad_sectors(&bench.sibling("device"), &image, &[sector]);
    {
        let _mounted = Mounted::image(device.path(), &distilled, "noatime");
        fs::set_permissions(bench.export(), Permissions::from_mode(0o600)).unwrap();
        let mut command = bench.command(&["run", "--listen", "127.0.0.1:0"]);
        // Each full scan reads another part.
        command.env("DISTILLD_FULL_SCAN_MS", "100");
        let (mut daemon, address) = bench.listening_by(&mut command);
        bench.wait_for(&mut daemon, "it logs that it cannot compare", || {
            bench.log_text().contains("cannot read segment ")
        });
        let scans = "distilld_scans_total{kind=\"full\"}";
        bench.wait_answer(&mut daemon, address, "/metrics", "many scans", |answer| {
            metric(&answer.body, scans) >= Some(10.0)
        });
        bench.append_run(PAIR, "all the same");
        bench.wait_for(&mut daemon, "a reader that continues has the row", || {
            let mut export = File::open(bench.export()).unwrap();
            export.seek(SeekFrom::Start(before)).unwrap();
            let mut new = String::new();
            export.read_to_string(&mut new).unwrap();
            new.ends_with('\n') && new.contains("\"all the same\"")
        });
        let log = bench.log_text();
        let errors: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("level=error"))
            .collect();
        assert_eq!(errors.len(), 1, "{log}");
        for words in ["sft_export.jsonl", "Input/output error", "check its disk"] {
            assert!(errors[0].contains(words), "{}", errors[0]);
        }
        assert!(log.contains(COMPARED) && !log.contains(FITS), "{log}");
        let text = get(address, "/metrics").body;
        let counted = metric(&text, "distilld_errors_total{kind=\"export\"}");
        assert_eq!(counted, Some(1.0), "{text}");
        bench.stop(daemon);
    }
    drop(device);
    // A successful start proves nothing: what could not be compared is compared by the next start.
    let _mounted = Mounted::image(&image, &distilled, "noatime");
    let compared = bench.log_text().matches(COMPARED).count();
    let mut daemon = bench.start_caught_up();
    bench.wait_for(&mut daemon, "it logs that everything matches", || {
        bench.log_text().contains(FITS)
    });
    assert!(bench.log_text().matches(COMPARED).count() > compared);
    bench.stop(daemon);
    bench.assert_distinct(41);
    bench.assert_batch();
}
