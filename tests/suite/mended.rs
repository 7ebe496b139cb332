//! Day-files whose middle a power cut left as zeros, restored by the usual tools: with the same length, beginning and
//! end, and by some of them with the same times and inode. Their rows come, and an unchanged day-file is not read again.

use std::fs::{self, FileTimes, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use xxhash_rust::xxh3::xxh3_64;

use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, evidence, scored, wait_for_later};
use crate::support::tools::{skip, tool};

const PAIR: &str = "2026/01/01/a.jsonl";
const LOST: &str = "run 060";
/// The page that was lost, in a day-file of some pages.
const HOLE: std::ops::Range<usize> = 8_192..12_288;

/// A day-file with a hole, and a copy of it that is whole, both last modified at the same time.
struct Damaged {
    bench: Bench,
    path: PathBuf,
    copy: PathBuf,
    whole: Vec<u8>,
}

impl Damaged {
    fn new() -> Self {
        let bench = Bench::new();
        let runs: Vec<String> = (0..120).map(|n| format!("run {n:03}")).collect();
        let whole: String = runs.iter().map(|run| scored(run)).collect();
        let lost = whole.find(&scored(LOST)).unwrap();
        assert!(HOLE.contains(&lost) && whole.len() > HOLE.end + 4_096);
        for run in &runs {
            bench.append(Stream::Evidence, PAIR, evidence(run));
        }
        let whole = whole.into_bytes();
        let mut hurt = whole.clone();
        hurt[HOLE].fill(0);
        bench.append(Stream::Scored, PAIR, hurt);
        let path = bench.path(Stream::Scored, PAIR);
        // A tool that copies the whole seconds of a time copies this one.
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_767_225_600);
        set_modified(&path, long_ago);
        let copy = bench.sibling("a.jsonl");
        fs::write(&copy, &whole).unwrap();
        set_modified(&copy, long_ago);
        wait_for_later(&path);
        Self {
            bench,
            path,
            copy,
            whole,
        }
    }

    fn dir(&self) -> &Path {
        self.path.parent().unwrap()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        let ended = command.args(arguments).status().unwrap();
        assert!(ended.success(), "{program} {arguments:?}");
    }

    fn restore_by(&self, program: &str, flags: &[&str]) {
        let files = [self.copy.to_str().unwrap(), self.path.to_str().unwrap()];
        self.run(program, &[flags, &files].concat());
    }

    /// Writes the lost page into its place.
    fn fill(&self) {
        let (input, output) = (self.copy.display(), self.path.display());
        let (input, output) = (format!("if={input}"), format!("of={output}"));
        let page = ["bs=4096", "skip=2", "seek=2", "count=1", "conv=notrunc"];
        let quiet = ["status=none", &input, &output];
        self.run("dd", &[&page[..], &quiet].concat());
    }
}

fn set_modified(path: &Path, time: std::time::SystemTime) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
}

type Restore = fn(&Damaged);

/// The usual ways to restore a day-file. The first word of some is a tool that may not be installed.
const WAYS: [(&str, Restore); 14] = [
    ("cp", |damaged| damaged.restore_by("cp", &[])),
    ("cp -p", |damaged| damaged.restore_by("cp", &["-p"])),
    ("cp --reflink=auto -p", |damaged| {
        damaged.restore_by("cp", &["--reflink=auto", "-p"]);
    }),
    ("rsync --inplace", |damaged| {
        damaged.restore_by("rsync", &["--inplace", "--ignore-times"]);
    }),
    ("rsync --inplace -t", |damaged| {
        damaged.restore_by("rsync", &["--inplace", "-t", "--checksum"]);
    }),
    ("rsync -t", |damaged| {
        damaged.restore_by("rsync", &["-t", "--checksum"])
    }),
    ("dd conv=notrunc", Damaged::fill),
    ("dd conv=notrunc, touch -r", |damaged| {
        damaged.fill();
        let (copy, path) = (
            damaged.copy.to_str().unwrap(),
            damaged.path.to_str().unwrap(),
        );
        damaged.run("touch", &["-r", copy, path]);
    }),
    ("mv", |damaged| damaged.restore_by("mv", &["-f"])),
    ("install -p", |damaged| {
        damaged.restore_by("install", &["-p", "-m", "644"])
    }),
    ("tar -x", |damaged| {
        let archive = damaged.bench.sibling("a.tar");
        let (archive, from) = (archive.to_str().unwrap(), damaged.copy.parent().unwrap());
        damaged.run(
            "tar",
            &["-C", from.to_str().unwrap(), "-cf", archive, "a.jsonl"],
        );
        damaged.run(
            "tar",
            &["-C", damaged.dir().to_str().unwrap(), "-xf", archive],
        );
    }),
    ("tar -x --overwrite", |damaged| {
        let archive = damaged.bench.sibling("a.tar");
        let (archive, from) = (archive.to_str().unwrap(), damaged.copy.parent().unwrap());
        damaged.run(
            "tar",
            &["-C", from.to_str().unwrap(), "-cf", archive, "a.jsonl"],
        );
        let dir = damaged.dir().to_str().unwrap();
        damaged.run("tar", &["-C", dir, "--overwrite", "-xf", archive]);
    }),
    ("truncate and write", |damaged| {
        fs::write(&damaged.path, &damaged.whole).unwrap()
    }),
    ("rm and write", |damaged| {
        fs::remove_file(&damaged.path).unwrap();
        fs::write(&damaged.path, &damaged.whole).unwrap();
    }),
];

fn ways() -> impl Iterator<Item = (&'static str, Restore)> {
    let is_there = |way: &str| {
        let program = way.split(' ').next().unwrap();
        program != "rsync"
            || tool("rsync").is_some()
            || skip::<()>("rsync is not installed").is_some()
    };
    WAYS.into_iter().filter(move |(way, _)| is_there(way))
}

#[test]
fn a_day_file_restored_while_no_daemon_runs_is_read_again() {
    for (way, restore) in ways() {
        for has_grown in [false, true] {
            let damaged = Damaged::new();
            damaged.bench.once();
            assert!(!damaged.bench.has(LOST), "{way}");
            restore(&damaged);
            if has_grown {
                damaged.bench.append_run(PAIR, "later");
            }
            damaged.bench.once();
            // Rows that were there keep the index that their lines had in the damaged day-file.
            assert!(damaged.bench.has(LOST), "{way}, grown: {has_grown}");
            damaged.bench.assert_distinct(120 + usize::from(has_grown));
        }
    }
}

#[test]
fn a_day_file_restored_under_the_daemon_is_read_again() {
    for (way, restore) in ways() {
        let damaged = Damaged::new();
        let mut command = damaged.bench.command(&["run"]);
        command.env("DISTILLD_RECENT_SCAN_MS", "100");
        let mut daemon = damaged.bench.catch_up(&mut command);
        assert!(!damaged.bench.has(LOST), "{way}");
        restore(&damaged);
        damaged.bench.wait_run(&mut daemon, LOST);
        damaged.bench.wait_rows(&mut daemon, 120);
        damaged.bench.stop(daemon);
        damaged.bench.assert_distinct(120);
    }
}

#[test]
fn other_rights_names_and_times_are_no_reason_to_read_a_day_file_again() {
    let damaged = Damaged::new();
    damaged.bench.once();
    fs::set_permissions(&damaged.path, Permissions::from_mode(0o600)).unwrap();
    let ended = damaged.bench.once();
    fs::hard_link(&damaged.path, damaged.bench.sibling("other")).unwrap();
    let linked = damaged.bench.once();
    // As an append does, before it sets the length.
    set_modified(&damaged.path, std::time::SystemTime::now());
    for ended in [ended, linked, damaged.bench.once()] {
        assert!(!ended.stderr.contains("re-reading"), "{}", ended.stderr);
    }
}

/// Day-files that are too long for their samples to cover, each with one letter of an id that was another one.
#[test]
fn what_samples_do_not_cover_is_compared_by_the_full_scans() {
    let bench = Bench::new();
    let padding = "x".repeat(3_000);
    let mut paths = Vec::new();
    // Spread over the rounds of comparisons, so that one of them is due soon.
    for round in 0..8 {
        let name = |n: u32| format!("2026/01/01/{n}.jsonl");
        let mut names = (0..).map(name);
        let pair = names
            .find(|name| xxh3_64(name.as_bytes()) % 168 == round * 21)
            .unwrap();
        for n in 0..400 {
            let category = format!("accepted{padding}");
            let line =
                scored(&format!("run {n}")).replace("\"accepted\"", &format!("{category:?}"));
            bench.append(Stream::Scored, &pair, line);
        }
        bench.append(Stream::Scored, &pair, scored("restored"));
        bench.append(Stream::Evidence, &pair, evidence("restored"));
        let path = bench.path(Stream::Scored, &pair);
        let text = fs::read(&path).unwrap();
        // The second block of four is no sample, and its byte is part of a category.
        let at = 600_000_u64.next_multiple_of(4 * 256) + 256 + 50;
        assert_eq!(&text[at as usize..][..20], "x".repeat(20).as_bytes());
        paths.push((path, at));
    }
    bench.once();
    for (path, at) in &paths {
        let modified = fs::metadata(path).unwrap().modified().unwrap();
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(b"y", *at).unwrap();
        set_modified(path, modified);
    }
    let count = &bench.status()["sampled_day_files"];
    assert_eq!(count, paths.len() as u64);
    let shown = bench.run(&mut bench.command(&["status"])).stdout;
    assert!(
        shown.contains("8 day-files over 256 KiB compared by samples"),
        "{shown}"
    );
    let unnoticed = bench.once();
    assert!(
        !unnoticed.stderr.contains("re-reading"),
        "{}",
        unnoticed.stderr
    );
    let mut command = bench.command(&["run"]);
    command.env("DISTILLD_FULL_SCAN_MS", "100");
    let mut daemon = bench.catch_up(&mut command);
    bench.wait_for(&mut daemon, "a day-file is compared", || {
        bench.log_text().contains("re-reading from the start")
    });
    bench.stop(daemon);
}
