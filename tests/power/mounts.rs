//! File systems that do not report every change: a FUSE mount whose lower directory is written directly, an overlay,
//! and one with timestamps in whole seconds.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::host::{self, Mounted, must};
use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, evidence, scored};

const PAIRS: [&str; 3] = [
    "2026/01/01/a.jsonl",
    "2026/01/02/a.jsonl",
    "2026/02/01/b.jsonl",
];

/// Attempts to change a day-file twice within a second.
const TRIES: usize = 20;

/// Appends an accepted run and its evidence to the lake below another root.
fn append_run(root: &Path, pair: &str, run: &str) {
    for (stream, line) in [
        (Stream::Scored, scored(run)),
        (Stream::Evidence, evidence(run)),
    ] {
        let path = stream.path(root, pair);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// Asserts that a daemon on a root with unreliable events finds what `append` writes and reports its mode.
fn check_polling(bench: &Bench, file_system: &str, append: impl Fn(&str, &str)) {
    let mut command = bench.command(&["run", "--listen", "127.0.0.1:0"]);
    command.env("DISTILLD_POLL_MS", "50");
    let (mut daemon, address) = bench.listening_by(&mut command);
    bench.wait_rows(&mut daemon, PAIRS.len());
    for pair in PAIRS {
        append(pair, &format!("later {pair}"));
    }
    append("2026/03/01/new.jsonl", "new");
    bench.wait_rows(&mut daemon, 2 * PAIRS.len() + 1);
    let watch = bench.status()["watch"].to_string();
    assert!(
        watch.contains("polling: ") && watch.contains(file_system),
        "{watch}"
    );
    host::assert_watch_mode(address, "polling");
    bench.stop(daemon);
    bench.once();
    bench.assert_batch();
    bench.assert_distinct(2 * PAIRS.len() + 1);
    let checked = bench.run(&mut bench.command(&["check"]));
    let text = [checked.stdout, checked.stderr].concat();
    assert!(text.contains(file_system), "{text}");
}

/// Mounts a lake over FUSE as the root; writes below the mount cause no events in it.
fn over_fuse(bench: &Bench) -> (PathBuf, Mounted) {
    let below = bench.sibling("below");
    for pair in PAIRS {
        append_run(&below, pair, &format!("first {pair}"));
    }
    must(
        "bindfs",
        &[below.to_str().unwrap(), bench.root().to_str().unwrap()],
    );
    (below, Mounted::by_another(&bench.root()))
}

#[test]
fn writes_below_a_fuse_mount_are_found_by_polling() {
    if !host::has(&["bindfs", "umount"]) {
        return;
    }
    let bench = Bench::new();
    let (below, _mounted) = over_fuse(&bench);
    check_polling(&bench, "fuse", |pair, run| append_run(&below, pair, run));
}

/// The daemon is configured to trust events on a file system without them: it does not poll, and the next frequent
/// scan is an hour away.
#[test]
fn writes_without_events_are_found_by_the_full_scan() {
    if !host::has(&["bindfs", "umount"]) {
        return;
    }
    let bench = Bench::new();
    let (below, _mounted) = over_fuse(&bench);
    // Days older than the newest, which only the full scan reads.
    for day in 1..=5 {
        append_run(
            &below,
            &format!("2026/04/{day:02}/c.jsonl"),
            &format!("first {day}"),
        );
    }
    let mut command = bench.command(&["run", "--listen", "127.0.0.1:0"]);
    command
        .env("DISTILLD_WATCH", "events")
        .env("DISTILLD_RECENT_SCAN_MS", "3600000")
        .env("DISTILLD_FULL_SCAN_MS", "200");
    let (mut daemon, address) = bench.listening_by(&mut command);
    bench.wait_rows(&mut daemon, PAIRS.len() + 5);
    host::assert_watch_mode(address, "events");
    for (round, pair) in ["2026/04/05/c.jsonl", PAIRS[0], "2025/12/31/new.jsonl"]
        .into_iter()
        .enumerate()
    {
        append_run(&below, pair, &format!("later {pair}"));
        bench.wait_rows(&mut daemon, PAIRS.len() + 5 + round + 1);
    }
    host::assert_watch_mode(address, "events");
    bench.stop(daemon);
    bench.assert_batch();
    bench.assert_distinct(PAIRS.len() + 8);
}

#[test]
fn day_files_copied_to_the_upper_layer_of_an_overlay_are_followed() {
    if !host::has(&["mount", "umount"]) {
        return;
    }
    let bench = Bench::new();
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| bench.sibling(name));
    for pair in PAIRS {
        append_run(&lower, pair, &format!("first {pair}"));
    }
    for dir in [&upper, &work] {
        fs::create_dir_all(dir).unwrap();
    }
    let [lower, upper, work] = [lower, upper, work].map(|dir| dir.display().to_string());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let _mounted = Mounted::new(&["-t", "overlay", "-o", &options, "overlay"], &bench.root());
    check_polling(&bench, "overlay", |pair, run| bench.append_run(pair, run));
}

/// Waits until a second has just begun, so that the following steps finish within it, unless the machine is slow.
fn begin_a_second() {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let passed = Duration::from_nanos(since.subsec_nanos().into());
    thread::sleep(Duration::from_secs(1) - passed + Duration::from_millis(20));
}

/// ext4 with inodes of 128 bytes has timestamps in whole seconds: a second change within one leaves them equal.
#[test]
fn a_day_file_replaced_within_one_coarse_timestamp_is_read_again() {
    if !host::has(&["mount", "umount", "mkfs.ext4"]) {
        return;
    }
    let bench = Bench::new();
    let image = bench.sibling("coarse.image");
    File::create(&image).unwrap().set_len(64 << 20).unwrap();
    must("mkfs.ext4", &["-q", "-I", "128", image.to_str().unwrap()]);
    let _mounted = Mounted::image(&image, &bench.root().join("data"), "noatime");
    let path = bench.path(Stream::Scored, PAIRS[0]);
    bench.append(Stream::Scored, "2026/01/01/other.jsonl", "\n");
    let mut command = bench.command(&["run"]);
    command
        .env("DISTILLD_WATCH", "poll")
        .env("DISTILLD_POLL_MS", "50");
    let mut daemon = bench.catch_up(&mut command);
    let replacement = path.with_extension("new");
    let mut lines = String::new();
    let is_within_one = (0..TRIES).any(|n| {
        let [first, second] = ["a", "b"].map(|run| format!("{run}{n}"));
        for run in [&first, &second] {
            bench.append(Stream::Evidence, PAIRS[0], evidence(run));
        }
        begin_a_second();
        bench.append(Stream::Scored, PAIRS[0], scored(&first));
        bench.wait_run(&mut daemon, &first);
        let before = fs::metadata(&path).unwrap();
        // One more poll, so that everything has been read and nothing is pending.
        bench.probe(&mut daemon);
        lines += &scored(&second);
        fs::write(&replacement, &lines).unwrap();
        fs::rename(&replacement, &path).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!(before.len(), after.len());
        assert_eq!(before.mtime_nsec(), 0, "the clock is coarse");
        bench.wait_run(&mut daemon, &second);
        (before.mtime(), before.ctime()) == (after.mtime(), after.ctime())
    });
    assert!(is_within_one, "{TRIES} times a second was too short");
    bench.stop(daemon);
}
