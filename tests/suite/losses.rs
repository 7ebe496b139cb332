//! `rebuild` and `export` while sources of rows are away: refused with the export unchanged, announced by the dry run, and
//! what each flag and each remedy in a message then does. With the real command.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, Ended, evidence_with, is_root, scored_as, without_flags};

const STREAMS: [Stream; 2] = [Stream::Scored, Stream::Evidence];
const PAIRS: [&str; 3] = [
    "2026/05/01/n.jsonl",
    "2026/05/02/n.jsonl",
    "2027/01/01/n.jsonl",
];

/// Creates a lake whose export has two rows of each of three days.
fn lake() -> Bench {
    let bench = Bench::new();
    for (day, pair) in PAIRS.iter().enumerate() {
        for run in 0..2 {
            bench.append_run(pair, &format!("{day}-{run}"));
        }
    }
    bench.once();
    assert_eq!(bench.row_count(), 6);
    bench
}

fn rebuild(bench: &Bench, flags: &[&str]) -> Ended {
    bench.run(&mut bench.command(&[&["rebuild"], flags].concat()))
}

fn result(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|_| panic!("{} {}", ended.stdout, ended.stderr))
}

/// Returns the names next to the export, without the export.
fn names_beside_export(bench: &Bench) -> Vec<String> {
    let listed = fs::read_dir(bench.export().parent().unwrap()).unwrap();
    let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|name| name != "sft_export.jsonl" && !name.starts_with("sft_retractions.jsonl"))
        .collect();
    names.sort();
    names
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("aside")
}

fn replace_by_fifo(path: &Path) {
    fs::remove_file(path).unwrap();
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

fn replace_by_link(path: &Path, target: &Path) {
    if path.is_dir() {
        fs::rename(path, aside(path)).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
    symlink(target, path).unwrap();
}

/// A way in which sources are away, what does it, the reason that is reported, and the rows that have no source.
type Way = (&'static str, fn(&Bench), &'static str, u64);

/// Ways that may be an interruption.
const UNREADABLE: [Way; 8] = [
    (
        "the scored runs are not there",
        |bench| fs::rename(base(bench, Stream::Scored), bench.sibling("s")).unwrap(),
        "unreadable",
        6,
    ),
    (
        "the evidence is not there",
        |bench| fs::rename(base(bench, Stream::Evidence), bench.sibling("e")).unwrap(),
        "unreadable",
        6,
    ),
    (
        "a FIFO in the place of a day-file",
        |bench| replace_by_fifo(&bench.path(Stream::Scored, PAIRS[0])),
        "unreadable",
        2,
    ),
    (
        "a FIFO in the place of evidence",
        |bench| replace_by_fifo(&bench.path(Stream::Evidence, PAIRS[0])),
        "unreadable",
        2,
    ),
    (
        "a directory in the place of a day-file",
        |bench| {
            let path = bench.path(Stream::Scored, PAIRS[2]);
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        },
        "unreadable",
        2,
    ),
    (
        "a link that leads nowhere",
        |bench| replace_by_link(&bench.path(Stream::Evidence, PAIRS[1]), Path::new("none")),
        "unreadable",
        2,
    ),
    (
        "a link that leaves the root",
        |bench| {
            replace_by_link(
                &bench.path(Stream::Scored, PAIRS[1]),
                Path::new("/dev/null"),
            )
        },
        "unreadable",
        2,
    ),
    (
        "a link in the place of a directory",
        |bench| {
            let month = bench.path(Stream::Scored, "2026/05");
            replace_by_link(&month, Path::new("05.aside"));
            // The walk would find the directory that was renamed as a day of its own.
            fs::rename(aside(&month), bench.sibling("month")).unwrap();
        },
        "unreadable",
        4,
    ),
];

/// Ways in which sources do not come back by themselves.
const GONE: [Way; 4] = [
    (
        "a day is compressed",
        |bench| {
            for stream in STREAMS {
                let path = bench.path(stream, PAIRS[0]);
                fs::rename(&path, path.with_extension("jsonl.gz")).unwrap();
            }
        },
        "gone",
        2,
    ),
    (
        "the evidence of a day is deleted",
        |bench| fs::remove_dir_all(bench.path(Stream::Evidence, "2027")).unwrap(),
        "gone",
        2,
    ),
    (
        "a line is removed",
        |bench| {
            let path = bench.path(Stream::Scored, PAIRS[1]);
            let lines = fs::read_to_string(&path).unwrap();
            fs::write(&path, lines.lines().next().unwrap().to_owned() + "\n").unwrap();
        },
        "line_gone",
        1,
    ),
    (
        "a line is rejected in its place",
        |bench| {
            let path = bench.path(Stream::Scored, PAIRS[1]);
            fs::write(&path, scored_as("1-0", "rejected")).unwrap();
        },
        "line_gone",
        2,
    ),
];

fn base(bench: &Bench, stream: Stream) -> PathBuf {
    bench.path(stream, "")
}

/// Asserts that a rebuild refuses, that its dry run announces it, and that nothing is changed. Returns the dry result.
fn assert_refused(bench: &Bench, flags: &[&str], rows: u64, what: &str) -> Value {
    let before = bench.export_bytes();
    let dry = rebuild(bench, &[flags, &["--dry-run"]].concat());
    dry.check(0, &[]);
    let dry = result(&dry);
    assert_eq!(dry["rows_dropped"], rows, "{what}: {dry}");
    assert!(dry["refused"].is_string(), "{what}: {dry}");
    let refused = rebuild(bench, flags);
    refused.check(1, &[&format!("would drop {rows} of 6 rows"), "unchanged"]);
    let group = &dry["dropped"][0];
    let first_run = format!("the first: run {}", group["first_run"]);
    refused.check(1, &[&first_run]);
    if let Some(path) = group["path"].as_str() {
        refused.check(1, &[path]);
    }
    assert_eq!(bench.export_bytes(), before, "{what}");
    assert_eq!(names_beside_export(bench), [""; 0], "{what}");
    dry
}

#[test]
fn rows_whose_sources_cannot_be_read_are_never_dropped() {
    for (what, take_away, reason, rows) in UNREADABLE {
        for has_state in [true, false] {
            let bench = lake();
            take_away(&bench);
            if !has_state {
                bench.remove_state();
            }
            let what = format!("{what}, state: {has_state}");
            for flags in [&[][..], &["--drop-missing"]] {
                let dry = assert_refused(&bench, flags, rows, &what);
                assert_eq!(dry["refused"], reason, "{what}: {dry}");
                assert_eq!(dry["dropped"][0]["day"].is_string(), has_state, "{what}");
            }
        }
    }
}

#[test]
fn rows_whose_sources_are_gone_are_dropped_on_request_alone() {
    for (what, take_away, reason, rows) in GONE {
        for has_state in [true, false] {
            let bench = lake();
            take_away(&bench);
            // An empty directory could be a file system that is not mounted.
            if !has_state {
                bench.remove_state();
            }
            let what = format!("{what}, state: {has_state}");
            let dry = assert_refused(&bench, &[], rows, &what);
            let reason = if has_state { reason } else { "line_gone" };
            assert_eq!(dry["refused"], reason, "{what}: {dry}");
            let before = bench.export_bytes();
            let dry = result(&rebuild(&bench, &["--drop-missing", "--dry-run"]));
            let mut done = result(&rebuild(&bench, &["--drop-missing"]));
            let kept = PathBuf::from(done["kept_path"].take().as_str().unwrap());
            assert_eq!(fs::read(&kept).unwrap(), before, "{what}");
            assert_eq!(dry, done, "{what}");
            assert_eq!(bench.row_count() as u64, 6 - rows, "{what}");
            bench.assert_batch();
            bench.once();
            assert_eq!(bench.row_count() as u64, 6 - rows, "{what}");
        }
    }
}

/// Without a state it may be a file system that is not mounted, so the remedy names both.
#[test]
fn an_empty_directory_of_deleted_day_files_is_named_with_its_remedy() {
    let bench = lake();
    let files = STREAMS.map(|stream| bench.path(stream, PAIRS[1]));
    for file in &files {
        fs::remove_file(file).unwrap();
    }
    bench.remove_state();
    let refused = rebuild(&bench, &["--drop-missing"]);
    let directory = files[0].parent().unwrap().to_str().unwrap();
    refused.check(1, &[directory, "fix: mount", "`rmdir`"]);
    assert_eq!(bench.row_count(), 6);
    for file in &files {
        fs::remove_dir(file.parent().unwrap()).unwrap();
    }
    rebuild(&bench, &["--drop-missing"]).check(0, &[]);
    assert_eq!(bench.row_count(), 4);
}

#[test]
fn rows_whose_sources_lack_a_permission_are_never_dropped() {
    if !is_root() {
        return;
    }
    for closed in ["", "2027", PAIRS[2]] {
        for stream in STREAMS {
            let bench = Bench::new();
            bench.append_run(PAIRS[0], "a");
            bench.append_run(PAIRS[2], "b");
            bench
                .run(&mut bench.as_unprivileged(&["run", "--once"]))
                .check(0, &[]);
            let before = bench.export_bytes();
            let path = bench.path(stream, closed);
            fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
            for flags in [&["rebuild"][..], &["rebuild", "--drop-missing"]] {
                let ended = bench.run(&mut bench.as_unprivileged(flags));
                ended.check(1, &["Permission denied", "unchanged", closed]);
                assert_eq!(bench.export_bytes(), before);
            }
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            bench
                .run(&mut bench.as_unprivileged(&["rebuild"]))
                .check(0, &[]);
        }
    }
}

#[test]
fn rows_whose_sources_are_not_mounted_are_never_dropped() {
    for level in ["2027", "2027/01/01"] {
        let bench = Bench::new();
        let mount_point = bench.path(Stream::Evidence, level);
        fs::create_dir_all(&mount_point).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let ended = Command::new(program)
                .args(arguments)
                .arg(&mount_point)
                .status();
            ended.is_ok_and(|status| status.success())
        };
        if !is_root() || !run("mount", &["-t", "tmpfs", "none"]) {
            assert!(std::env::var_os("CI").is_none(), "tmpfs is needed");
            return;
        }
        bench.append_run(PAIRS[0], "a");
        bench.append_run(PAIRS[2], "b");
        bench.once();
        let before = bench.export_bytes();
        assert!(run("umount", &["-l"]));
        for has_state in [true, false] {
            if !has_state {
                bench.remove_state();
            }
            let refused = rebuild(&bench, &["--drop-missing"]);
            refused.check(1, &["would drop 1 of 2 rows", "mounted", level]);
            assert_eq!(bench.export_bytes(), before);
        }
    }
}

#[test]
fn rows_that_the_export_has_lost_too_are_not_given_up() {
    let bench = lake();
    fs::remove_file(bench.export()).unwrap();
    fs::rename(base(&bench, Stream::Scored), bench.sibling("s")).unwrap();
    rebuild(&bench, &["--drop-missing"]).check(1, &["would drop 6 of 0 rows", "scored-runs"]);
    assert!(!bench.export().exists());
    fs::rename(bench.sibling("s"), base(&bench, Stream::Scored)).unwrap();
    let done = result(&rebuild(&bench, &[]));
    assert_eq!(
        (&done["rows_after"], &done["kept_path"]),
        (&6.into(), &Value::Null)
    );
}

/// Returns the files below a directory with their bytes, without those that name the process that holds a lock, and
/// without the bytes of the state, whose head changes when it is opened.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.ends_with(".distilld.lock") && !path.ends_with(".distilld.holder") {
            let is_state = path.ends_with("state.redb");
            let bytes = if is_state {
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

#[test]
fn a_dry_run_and_a_refusal_change_no_file() {
    let bench = lake();
    bench.append(
        Stream::Evidence,
        PAIRS[1],
        evidence_with("1-0", "another text"),
    );
    fs::write(bench.path(Stream::Scored, PAIRS[2]), "").unwrap();
    let before = files(&bench.root());
    for flags in [&[][..], &["--dry-run"], &["--dry-run", "--drop-missing"]] {
        rebuild(&bench, flags);
        let after = files(&bench.root());
        for (one, other) in before.iter().zip(&after) {
            assert!(
                one == other,
                "{flags:?}: {} {}",
                one.0.display(),
                other.0.display()
            );
        }
        assert_eq!(before.len(), after.len(), "{flags:?}");
    }
}

/// What is in the lake and is no source of a row is no reason to refuse.
#[test]
fn what_is_no_source_of_a_row_does_not_matter() {
    let bench = lake();
    let fifo = bench.path(Stream::Scored, "2026/05/01/fifo.jsonl");
    fs::write(&fifo, "").unwrap();
    replace_by_fifo(&fifo);
    fs::create_dir_all(bench.path(Stream::Evidence, "2030/01")).unwrap();
    let done = result(&rebuild(&bench, &[]));
    assert_eq!(done["rows_kept"], 6);
    assert_eq!(done["passed_over"], 1);
}

#[test]
fn a_row_keeps_its_timestamps_until_its_content_changes() {
    let bench = lake();
    let before = bench.export_bytes();
    bench.append(
        Stream::Evidence,
        PAIRS[1],
        evidence_with("1-0", "another text"),
    );
    bench.append_run(PAIRS[2], "new");
    let done = result(&rebuild(&bench, &[]));
    for (key, rows) in [("kept", 5), ("replaced", 1), ("added", 1), ("dropped", 0)] {
        assert_eq!(done[format!("rows_{key}")], rows, "{done}");
    }
    let lines = |bytes: &[u8]| -> Vec<String> {
        String::from_utf8(bytes.to_vec())
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    };
    let (before, after) = (lines(&before), lines(&bench.export_bytes()));
    let same = after.iter().filter(|row| before.contains(row)).count();
    assert_eq!(same, 5);
    bench.assert_batch();
    // Nothing changed since: the same bytes.
    let bytes = bench.export_bytes();
    rebuild(&bench, &[]).check(0, &[]);
    assert_eq!(bench.export_bytes(), bytes);
}

#[test]
fn each_rebuild_keeps_the_export_that_it_replaced() {
    let bench = lake();
    let mut kept = Vec::new();
    for round in 0..3 {
        kept.push(bench.export_bytes());
        bench.append_run(PAIRS[0], &format!("round {round}"));
        rebuild(&bench, &[]).check(0, &[]);
        let names: Vec<String> = (0..=round)
            .map(|number| match number {
                0 => "sft_export.jsonl.before-rebuild".to_owned(),
                number => format!("sft_export.jsonl.before-rebuild.{number}"),
            })
            .collect();
        assert_eq!(names_beside_export(&bench), names);
        for (name, bytes) in names.iter().zip(&kept) {
            let path = bench.export().with_file_name(name);
            assert_eq!(fs::read(path).as_ref().ok(), Some(bytes), "{name}");
        }
    }
    // A kept export is not the file to which rows are appended.
    bench.append_run(PAIRS[0], "last");
    bench.once();
    let last = bench
        .export()
        .with_file_name("sft_export.jsonl.before-rebuild.2");
    assert_eq!(fs::read(last).unwrap(), kept[2]);
}

#[test]
fn a_new_state_leaves_the_export_as_it_is() {
    let bench = lake();
    let inode = || fs::metadata(bench.export()).unwrap().ino();
    let (bytes, file) = (bench.export_bytes(), inode());
    // Sources are not read: they may be away.
    fs::rename(base(&bench, Stream::Evidence), bench.sibling("e")).unwrap();
    let done = result(&rebuild(&bench, &["--state-only"]));
    assert_eq!(done["rows_adopted"], 6, "{done}");
    assert_eq!((bench.export_bytes(), inode()), (bytes.clone(), file));
    fs::rename(bench.sibling("e"), base(&bench, Stream::Evidence)).unwrap();
    bench.append_run(PAIRS[0], "new");
    bench.once();
    assert_eq!(
        (&bench.export_bytes()[..bytes.len()], inode()),
        (&bytes[..], file)
    );
    bench.assert_batch();
    fs::remove_file(bench.export()).unwrap();
    rebuild(&bench, &["--state-only"]).check(1, &["there is no export", "restore the export"]);
    assert!(!bench.export().exists());
}

/// A defect of an export, the bytes that it leaves, and the remedies that help, in the order of the message.
type Damage = (
    &'static str,
    fn(&[u8]) -> Option<Vec<u8>>,
    &'static [&'static str],
);

/// Each defect of an export, and the remedies that the message of the next start names, in order.
#[test]
fn every_remedy_that_a_message_names_helps() {
    let damage: [Damage; 3] = [
        ("missing", |_| None, &["rebuild"]),
        (
            "short",
            |bytes| Some(bytes[..bytes.len() / 2].to_vec()),
            &["rebuild --state-only", "rebuild"],
        ),
        (
            "changed",
            |bytes| Some(bytes.to_ascii_uppercase()),
            &["rebuild --state-only", "rebuild"],
        ),
    ];
    for (what, damage, remedies) in damage {
        for remedy in remedies {
            let bench = lake();
            match damage(&bench.export_bytes()) {
                None => fs::remove_file(bench.export()).unwrap(),
                Some(bytes) => fs::write(bench.export(), bytes).unwrap(),
            }
            let ended = bench.run(&mut bench.command(&["run", "--once"]));
            ended.check(1, &[&format!("`distilld {remedy}`")]);
            let hints = without_flags(&ended.stderr);
            let named = |remedy: &str| hints.find(&format!("`distilld {remedy}`"));
            assert!(named(remedies[0]) <= named("rebuild"), "{}", ended.stderr);
            let words: Vec<&str> = remedy.split(' ').collect();
            bench.run(&mut bench.command(&words)).check(0, &[]);
            bench.once();
            if *remedy == "rebuild" || what == "short" {
                bench.run(&mut bench.command(&["verify"])).check(0, &[]);
            }
        }
    }
}

#[test]
fn a_rebuild_by_root_leaves_nothing_to_root() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.append_run(PAIRS[0], "a");
    let once = || bench.run(&mut bench.as_unprivileged(&["run", "--once"]));
    once().check(0, &[]);
    fs::set_permissions(bench.export(), Permissions::from_mode(0o640)).unwrap();
    let of = |path: &Path| {
        let found = fs::symlink_metadata(path).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    let owner = of(&bench.export());
    for (round, flags) in [&[][..], &["--state-only"], &["--dry-run"]]
        .iter()
        .enumerate()
    {
        for has_state in [true, false] {
            if !has_state {
                bench.remove_state();
                once().check(0, &[]);
                fs::remove_file(bench.state_dir().join("state.redb")).unwrap();
            }
            rebuild(&bench, flags).check(0, &[]);
            assert_eq!(of(&bench.export()), owner, "{flags:?}");
            for dir in [bench.state_dir(), bench.state_dir().join("rebuilding")] {
                for entry in fs::read_dir(dir).into_iter().flatten() {
                    let path = entry.unwrap().path();
                    assert_eq!(of(&path).0, owner.0, "{flags:?} {}", path.display());
                }
            }
            bench.append_run(PAIRS[0], &format!("{round} {has_state}"));
            once().check(0, &[]);
        }
    }
    bench
        .run(&mut bench.as_unprivileged(&["rebuild"]))
        .check(0, &[]);
    bench.assert_batch();
}

#[test]
fn a_batch_does_not_replace_the_export_by_one_with_fewer_rows() {
    for (what, take_away, _, _) in UNREADABLE.iter().chain(&GONE) {
        let bench = lake();
        bench.remove_state();
        take_away(&bench);
        // Otherwise a batch without rows writes nothing.
        bench.append_run("2028/01/01/n.jsonl", "other");
        let before = bench.export_bytes();
        let own = bench.export();
        for output in [
            &["export"][..],
            &["export", "--output", own.to_str().unwrap()],
        ] {
            let refused = bench.run(&mut bench.command(output));
            refused.check(1, &["would lack", "of its 6 rows", "--output FILE"]);
            assert_eq!(bench.export_bytes(), before, "{what}");
        }
        assert_eq!(names_beside_export(&bench), [""; 0], "{what}");
        let elsewhere = bench.sibling("elsewhere.jsonl");
        let output = ["export", "--output", elsewhere.to_str().unwrap()];
        bench.run(&mut bench.command(&output)).check(0, &[]);
        fs::remove_file(own).unwrap();
        bench.run(&mut bench.command(&["export"])).check(0, &[]);
    }
    let bench = lake();
    bench.remove_state();
    bench.append_run(PAIRS[0], "more");
    bench.run(&mut bench.command(&["export"])).check(0, &[]);
    assert_eq!(bench.row_count(), 7);
}
