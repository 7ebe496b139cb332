//! An export edited in place, anywhere, with its length and even its times kept, while the daemon runs and while it
//! does not: detected, reported, nothing appended afterwards, and `rebuild` is the remedy. Only touching the file,
//! killing the daemon or copying the lake is not reported.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use fastrand::Rng;

use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, evidence_with, read_bytes, scored};
use crate::support::tools::number_from;

const PAIR: &str = "2026/01/01/n.jsonl";
const FOUND: &str = "was changed by someone else";
const FITS: &str = "verified, unchanged since they were written";
/// Rows of a lake, 64 KiB each: three and a half segments.
const ROWS: u32 = 56;
/// Edits of the ordinary run; the variables select the number and the seed.
const EDITS: u64 = 4;
const EDITS_VARIABLE: &str = "DISTILLD_EDITS";
const SEED_VARIABLE: &str = "DISTILLD_EDITS_SEED";

fn append_long(bench: &Bench, runs: std::ops::Range<u32>) {
    for run in runs {
        let run = format!("long {run}");
        let text = "x".repeat(64 << 10);
        bench.append(Stream::Evidence, PAIR, evidence_with(&run, &text));
        bench.append(Stream::Scored, PAIR, scored(&run));
    }
}

fn lake() -> Bench {
    let bench = Bench::new();
    append_long(&bench, 0..ROWS);
    bench.once();
    bench
}

fn scanning(bench: &Bench) -> Command {
    let mut command = bench.command(&["run"]);
    command.env("DISTILLD_RECENT_SCAN_MS", "50");
    command
}

/// Changes one byte at a random offset; with `times_back` also restores the file's times as far as possible.
fn edit(export: &Path, rng: &mut Rng, times_back: bool) -> u64 {
    let before = fs::metadata(export).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(export)
        .unwrap();
    let at = rng.u64(..before.len());
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    if times_back {
        let times = FileTimes::new().set_modified(before.modified().unwrap());
        file.set_times(times).unwrap();
        let after = fs::metadata(export).unwrap();
        assert_eq!(after.modified().unwrap(), before.modified().unwrap());
    }
    at
}

/// Asserts that the edit remains reported, that nothing is appended, and that the remedy works.
fn check_refused(bench: &Bench, found: &[u8], what: &str) {
    assert!(
        bench.log_text().contains(FOUND) && bench.log_text().contains("distilld rebuild"),
        "{what}: {}",
        bench.log_text()
    );
    bench.append_run(PAIR, "too late");
    let ended = bench.run(&mut bench.command(&["run", "--once"]));
    ended.check(1, &[FOUND, "distilld rebuild"]);
    fs::remove_file(bench.log()).unwrap();
    bench.wait_stopped(bench.start());
    assert!(bench.log_text().contains(FOUND), "{}", bench.log_text());
    assert!(
        bench.export_bytes() == found,
        "{what}: written all the same"
    );
    bench.run(&mut bench.command(&["rebuild"])).check(0, &[]);
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);
    bench.once();
    bench.assert_batch();
    assert_eq!(bench.row_count(), ROWS as usize + 2, "{what}");
}

fn check_edits(running: bool) {
    let seed = number_from(SEED_VARIABLE).unwrap_or_else(|| fastrand::u64(..));
    for n in 0..number_from(EDITS_VARIABLE).unwrap_or(EDITS) {
        let mut rng = Rng::with_seed(seed.wrapping_add(n));
        let times_back = n % 2 == 0;
        let bench = lake();
        let mut command = scanning(&bench);
        let mut daemon = running.then(|| bench.catch_up(&mut command));
        if let Some(daemon) = &mut daemon {
            bench.append_run(PAIR, "before");
            bench.wait_run(daemon, "before");
        }
        let at = edit(&bench.export(), &mut rng, times_back);
        let found = bench.export_bytes();
        let daemon = daemon
            .take()
            .unwrap_or_else(|| bench.start_command(&mut command));
        let what = format!(
            "{SEED_VARIABLE}={}, running {running}, byte {at}",
            seed.wrapping_add(n)
        );
        bench.wait_stopped(daemon);
        if !running {
            bench.append_run(PAIR, "before");
        }
        check_refused(&bench, &found, &what);
    }
}

#[test]
fn an_edit_anywhere_under_a_running_daemon_is_detected_at_its_next_scan() {
    check_edits(true);
}

#[test]
fn an_edit_anywhere_while_no_daemon_runs_is_detected_after_the_next_start() {
    check_edits(false);
}

#[test]
fn a_reverted_edit_is_accepted() {
    let bench = lake();
    let before = bench.export_bytes();
    edit(&bench.export(), &mut Rng::with_seed(3), false);
    let ended = bench.run(&mut bench.command(&["run", "--once"]));
    ended.check(1, &[FOUND]);
    // In the same file: another file under its name would be accepted.
    let file = OpenOptions::new().write(true).open(bench.export()).unwrap();
    file.write_all_at(&before, 0).unwrap();
    bench.append_run(PAIR, "after");
    bench.once();
    bench.assert_batch();
}

/// A batch in the journal is written at its offset by the next start, regardless of the content there.
#[test]
fn lines_appended_by_others_remain_when_the_next_row_detects_them() {
    let bench = lake();
    let mut command = bench.command(&["run"]);
    // Only the next row triggers a verification.
    command.env("DISTILLD_RECENT_SCAN_MS", "3600000");
    let mut daemon = bench.catch_up(&mut command);
    bench.append_run(PAIR, "before");
    bench.wait_run(&mut daemon, "before");
    let mut export = File::options().append(true).open(bench.export()).unwrap();
    export
        .write_all(b"{\"row\":\"of another process\"}\n")
        .unwrap();
    let seen = bench.export_bytes();
    bench.append_run(PAIR, "next");
    bench.wait_stopped(daemon);
    assert!(bench.log_text().contains(FOUND), "{}", bench.log_text());
    bench.once();
    assert!(bench.export_bytes().starts_with(&seen));
    assert!(bench.has("next"));
    assert_eq!(bench.row_count(), ROWS as usize + 3);
}

/// Changes of the file's times that leave its bytes.
#[derive(Debug, Clone, Copy)]
enum Touch {
    Chmod,
    HardLink,
    NewTimes,
    OwnBytes,
}

impl Touch {
    fn act(self, bench: &Bench) {
        let export = bench.export();
        let file = || {
            File::options()
                .read(true)
                .write(true)
                .open(&export)
                .unwrap()
        };
        match self {
            Touch::Chmod => fs::set_permissions(&export, Permissions::from_mode(0o664)).unwrap(),
            Touch::HardLink => fs::hard_link(&export, bench.sibling("link")).unwrap(),
            Touch::NewTimes => {
                let now = FileTimes::new().set_modified(SystemTime::now());
                file().set_times(now).unwrap();
            }
            Touch::OwnBytes => {
                let mut bytes = vec![0; 4_000];
                file().read_exact_at(&mut bytes, 1 << 20).unwrap();
                file().write_all_at(&bytes, 1 << 20).unwrap();
            }
        }
    }
}

#[test]
fn metadata_changes_of_the_export_are_verified_once_without_an_alarm() {
    let bench = lake();
    let mut daemon = bench.catch_up(&mut scanning(&bench));
    for touch in [
        Touch::Chmod,
        Touch::HardLink,
        Touch::NewTimes,
        Touch::OwnBytes,
    ] {
        let before = bench.log_text().matches(FITS).count();
        touch.act(&bench);
        bench.wait_for(&mut daemon, &format!("{touch:?}"), || {
            bench.log_text().matches(FITS).count() == before + 1
        });
        bench.probe(&mut daemon);
    }
    let verified = bench.log_text().matches(FITS).count();
    (0..3).for_each(|_| bench.probe(&mut daemon));
    bench.stop(daemon);
    assert_eq!(
        bench.log_text().matches(FITS).count(),
        verified,
        "{}",
        bench.log_text()
    );
    // The verified metadata is stored.
    bench.stop(bench.start_caught_up());
    assert_eq!(
        bench.log_text().matches(FITS).count(),
        verified,
        "{}",
        bench.log_text()
    );
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);
}

#[test]
fn a_copied_lake_and_a_killed_daemon_cause_no_alarm() {
    let bench = lake();
    let mut daemon = bench.start_caught_up();
    append_long(&bench, ROWS..ROWS + 3);
    bench.wait_rows(&mut daemon, ROWS as usize + 3);
    daemon.kill_9().unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(bench.root())
        .arg(bench.sibling("copy"))
        .status()
        .unwrap();
    assert!(copied.success());
    fs::rename(bench.root(), bench.sibling("original")).unwrap();
    fs::rename(bench.sibling("copy"), bench.root()).unwrap();
    let before = bench.log_text().matches(FITS).count();
    let mut daemon = bench.start_caught_up();
    bench.wait_for(&mut daemon, "it was compared", || {
        bench.log_text().matches(FITS).count() > before
    });
    append_long(&bench, ROWS + 3..ROWS + 5);
    bench.wait_rows(&mut daemon, ROWS as usize + 5);
    // Read once, not for each row afterwards.
    let read_before = read_bytes(daemon.pid());
    (0..8).for_each(|_| bench.probe(&mut daemon));
    let read = read_bytes(daemon.pid()) - read_before;
    assert!(read < 1 << 20, "{read} bytes were read for 8 rows");
    bench.stop(daemon);
    bench.assert_batch();
}
