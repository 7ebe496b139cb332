//! `check`: its findings, and which of them are failures.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use distilld::lake::path::ledger_path;

use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, evidence_with, scored, scored_as, without_flags};

/// Returns the exit code and the lines of `check`.
fn check(root: &Path) -> (Option<i32>, Vec<String>) {
    let output = Command::new(env!("CARGO_BIN_EXE_distilld"))
        .arg("--root")
        .arg(root)
        .arg("check")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (
        output.status.code(),
        text.lines().map(str::to_owned).collect(),
    )
}

fn lake() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for stream in ["scored-runs", "evidence"] {
        let day = root.path().join("data").join(stream).join("2026/05/01");
        fs::create_dir_all(&day).unwrap();
        fs::write(day.join("n.jsonl"), "{}\n").unwrap();
    }
    root
}

fn line<'l>(lines: &'l [String], begin: &str) -> &'l str {
    lines
        .iter()
        .find(|line| line.starts_with(begin))
        .unwrap_or_else(|| panic!("no line begins with {begin:?}: {lines:#?}"))
}

#[test]
fn a_valid_lake_passes_and_no_files_remain() {
    let root = lake();
    let (code, lines) = check(root.path());
    assert_eq!(code, Some(0), "{lines:#?}");
    let scored = line(&lines, "ok   scored-runs ");
    assert!(scored.contains("1 day-files in 4 directories"), "{scored}");
    line(&lines, "ok   state directory ");
    assert!(!root.path().join("data/distilled").exists());
}

#[test]
fn a_file_in_the_place_of_a_directory_fails() {
    let root = lake();
    fs::write(root.path().join("data/distilled"), "").unwrap();
    let (code, lines) = check(root.path());
    assert_eq!(code, Some(1), "{lines:#?}");
    let export = line(&lines, "fail export directory ");
    assert!(export.contains("is not a directory"), "{export}");
}

#[test]
fn an_export_that_is_not_a_file_fails() {
    let root = lake();
    let export = root.path().join("data/distilled/sft/sft_export.jsonl");
    fs::create_dir_all(export).unwrap();
    let (code, lines) = check(root.path());
    assert_eq!(code, Some(1), "{lines:#?}");
    line(&lines, "fail export ");
}

#[test]
fn entries_that_the_daemon_would_skip_cause_warnings() {
    let root = lake();
    let socket = root.path().join("data/evidence/2026/05/01/s.jsonl");
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::remove_dir_all(root.path().join("data/scored-runs")).unwrap();
    let (code, lines) = check(root.path());
    assert_eq!(code, Some(0), "{lines:#?}");
    let evidence = line(&lines, "warn evidence ");
    assert!(evidence.contains("s.jsonl"), "{evidence}");
    line(&lines, "warn scored-runs ");
}

#[test]
fn a_stream_that_is_not_a_directory_fails() {
    let root = lake();
    fs::remove_dir_all(root.path().join("data/evidence")).unwrap();
    fs::write(root.path().join("data/evidence"), "").unwrap();
    let (code, lines) = check(root.path());
    assert_eq!(code, Some(1), "{lines:#?}");
    line(&lines, "fail evidence ");
}

#[test]
fn a_directory_in_place_of_a_daemon_file_fails() {
    let root = lake();
    let distilled = root.path().join("data/distilled");
    for name in [
        ".distilld.lock",
        ".distilld/state.redb",
        ".distilld/journal",
    ] {
        let path = distilled.join(name);
        fs::create_dir_all(&path).unwrap();
        let (code, lines) = check(root.path());
        let finding = line(&lines, &format!("fail file {}", path.display()));
        assert!(finding.contains("not a regular file"), "{finding}");
        assert_eq!(code, Some(1), "{name}");
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert_eq!(check(root.path()).0, Some(0), "{name}");
    }
}

/// Another owner does not help where an attribute of the file forbids to write it: the line names the command that does.
#[test]
fn an_attribute_that_forbids_to_write_is_named_with_the_command_that_removes_it() {
    let bench = Bench::new();
    bench.append_run("2026/01/01/a.jsonl", "a");
    bench.once();
    let export = bench.export();
    let dir = export.parent().unwrap();
    for (flag, path) in [("i", &*export), ("a", &export), ("i", dir)] {
        let chattr = |sign: char| {
            let mut command = std::process::Command::new("chattr");
            let done = command.arg(format!("{sign}{flag}")).arg(path).output();
            done.is_ok_and(|output| output.status.success())
        };
        if !chattr('+') {
            eprintln!("no right, no chattr, or the file system has no such attribute");
            return;
        }
        let (code, lines) = check(&bench.root());
        assert!(chattr('-'));
        let fix = format!("`chattr -{flag} {}`", path.display());
        let found = lines
            .iter()
            .any(|line| line.starts_with("fail") && line.contains(&fix));
        assert!(found && code == Some(1), "{fix}: {lines:#?}");
        assert_eq!(check(&bench.root()).0, Some(0));
    }
}

#[test]
fn an_export_that_stops_the_start_fails() {
    type Harm = (&'static str, &'static str, fn(&Path));
    let harms: [Harm; 4] = [
        ("missing", "restore", |export| {
            fs::remove_file(export).unwrap()
        }),
        ("bytes long", "restore", |export| {
            fs::OpenOptions::new()
                .write(true)
                .open(export)
                .and_then(|file| file.set_len(100))
                .unwrap();
        }),
        ("changed by someone else", "restore", |export| {
            let text = fs::read_to_string(export).unwrap();
            fs::write(export, text.replace("accepted", "ACCEPTED")).unwrap();
        }),
        ("the export is as it was left", "", |_| {}),
    ];
    for (what, fix, harm) in harms {
        let bench = Bench::new();
        bench.append_run("2026/01/01/a.jsonl", "a");
        bench.once();
        harm(&bench.export());
        let (code, lines) = check(&bench.root());
        let found = lines
            .iter()
            .find(|line| line.contains("start with the state"));
        let found = found.unwrap_or_else(|| panic!("{what}: {lines:#?}"));
        assert!(found.contains(what) && found.contains(fix), "{found}");
        let start = bench.run(&mut bench.command(&["run", "--once"]));
        assert_eq!(code, start.status.code(), "{what}: {}", start.stderr);
    }
}

/// Every ledger that its readers refuse is found, and the line names what to do.
#[test]
fn a_ledger_that_readers_refuse_or_cannot_read_is_found() {
    type Harm = (&'static str, &'static str, &'static str, fn(&Path, &Path));
    let harms: [Harm; 9] = [
        ("ok  ", "1 rows are retracted", "", |_, _| {}),
        (
            "warn",
            "does not exist, so nothing shows",
            "restore it",
            |ledger, _| {
                fs::remove_file(ledger).unwrap();
            },
        ),
        ("fail", "is empty", "", |ledger, _| {
            fs::write(ledger, "").unwrap()
        }),
        ("fail", "is damaged", "", |ledger, _| {
            let text = fs::read_to_string(ledger).unwrap();
            fs::write(ledger, text.replace("\"seq\":1,", "\"seq\":2,")).unwrap();
        }),
        ("fail", "is damaged", "rebuild --state-only", |ledger, _| {
            fs::write(ledger, "garbage\n").unwrap();
        }),
        (
            "warn",
            "ends within a line",
            "start `distilld run`",
            |ledger, _| {
                let bytes = fs::read(ledger).unwrap();
                fs::write(ledger, &bytes[..bytes.len() - 5]).unwrap();
            },
        ),
        ("fail", "does not fit its export", "", |ledger, other| {
            fs::copy(other, ledger).unwrap();
        }),
        ("fail", "not a regular file", "move it away", |ledger, _| {
            fs::remove_file(ledger).unwrap();
            fs::create_dir(ledger).unwrap();
        }),
        (
            "warn",
            "mode 0600, and the export of",
            "chmod --reference",
            |ledger, _| {
                fs::set_permissions(ledger, fs::Permissions::from_mode(0o600)).unwrap();
            },
        ),
    ];
    let lake_with = |text: &str| {
        let bench = Bench::new();
        let pair = "2026/01/01/a.jsonl";
        bench.append(Stream::Evidence, pair, evidence_with("a", text));
        bench.append(Stream::Scored, pair, scored("a"));
        bench.append(Stream::Scored, pair, scored_as("a", "rejected"));
        bench.append_run(pair, "b");
        bench.once();
        bench
    };
    // Of the same length, so that only the hash of the row differs.
    let other = lake_with("b text");
    for (severity, what, fix, harm) in harms {
        let bench = lake_with("a text");
        let ledger = ledger_path(&bench.export());
        let export = fs::Permissions::from_mode(0o640);
        fs::set_permissions(bench.export(), export.clone()).unwrap();
        fs::set_permissions(&ledger, export).unwrap();
        harm(&ledger, &ledger_path(&other.export()));
        let (_code, lines) = check(&bench.root());
        let begin = format!("{severity} retraction ledger ");
        let found = lines
            .iter()
            .find(|line| line.starts_with(&begin) && line.contains(what));
        let found = found.unwrap_or_else(|| panic!("{what}: {lines:#?}"));
        assert!(without_flags(found).contains(fix), "{found}");
    }
    let (_code, lines) = check(lake().path());
    assert!(line(&lines, "ok   retraction ledger ").contains("does not exist yet"));
}
