//! A publisher without rights: it names the file that it cannot use and the way out, and changes nothing. Needs root, to start
//! it as another user.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::publisher::{Publisher, python};
use crate::support::process::{Ended, NOBODY, is_root};

/// Runs a command as a user who owns nothing.
fn as_nobody(publisher: &Publisher, arguments: &[&str]) -> Ended {
    let own = publisher.command(arguments);
    let mut command = Command::new(publisher.bench.sibling("distilld-publish"));
    command.args(own.get_args()).uid(NOBODY).gid(NOBODY);
    publisher.bench.run(&mut command)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Returns the files below a directory with their bytes.
fn files_of(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_of(&path)),
            false => _ = files.insert(path.clone(), fs::read(&path).unwrap()),
        }
    }
    files
}

fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), user);
        }
    }
}

/// Returns a file of the table whose name has this end.
fn file_of(dir: &Path, end: &str) -> PathBuf {
    let files = files_of(dir).into_keys();
    let mut found = files.filter(|path| path.to_str().unwrap().ends_with(end));
    found.next().unwrap()
}

/// A table of two versions, and a row that it lacks.
fn readable() -> Publisher {
    let publisher = Publisher::new();
    publisher
        .bench
        .reachable(env!("CARGO_BIN_EXE_distilld-publish"));
    publisher.export_runs(&["a", "b"]);
    publisher.once();
    publisher.judge("a", "rejected");
    publisher
}

#[test]
fn without_rights_nothing_changes_and_the_way_out_is_named() {
    if !is_root() || python().is_none() {
        return;
    }
    let publisher = readable();
    let table = PathBuf::from(&publisher.table);
    let export = publisher.bench.export();
    let of_table = "give this user read and write permission for the table";
    let of_export = "give this user permission to read the export and its ledger";
    let log = table.join("_delta_log");
    let cases = [
        (table.clone(), 0o755, &["once"][..], 1, of_table),
        (
            table.clone(),
            0o700,
            &["once", "status", "verify"],
            1,
            of_table,
        ),
        (
            log.clone(),
            0o700,
            &["once", "status", "verify"],
            1,
            of_table,
        ),
        (
            file_of(&log, "1.json"),
            0o600,
            &["once", "status", "verify"],
            1,
            of_table,
        ),
        (
            file_of(&table, ".parquet"),
            0o600,
            &["once", "verify"],
            1,
            of_table,
        ),
        (
            export.clone(),
            0o600,
            &["once", "status", "verify"],
            1,
            of_export,
        ),
        (
            export.with_file_name("sft_retractions.jsonl"),
            0o600,
            &["once", "status", "verify"],
            1,
            of_export,
        ),
        (
            export.parent().unwrap().to_owned(),
            0o700,
            &["once", "status", "verify"],
            1,
            of_export,
        ),
        (
            publisher.config(),
            0o600,
            &["once", "status", "verify"],
            78,
            "give this user permission to read it",
        ),
    ];
    let before = files_of(&table);
    for (path, mode, commands, code, way_out) in cases {
        let had = fs::metadata(&path).unwrap().mode();
        set_mode(&path, mode);
        for command in commands {
            let ended = as_nobody(&publisher, &[command]);
            ended.check(code, &["Permission denied", way_out]);
            // The error and the way out, nothing of libraries.
            assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
            assert!(ended.stdout.is_empty(), "{}", ended.stdout);
        }
        assert!(files_of(&table) == before, "{}", path.display());
        set_mode(&path, had);
    }
    // Reading needs no right to write.
    as_nobody(&publisher, &["status"]).check(0, &[]);
    as_nobody(&publisher, &["verify"]).check(0, &[]);
    give(&table, NOBODY);
    as_nobody(&publisher, &["once"]).check(0, &[]);
    publisher.assert_published();
}

#[test]
fn a_table_is_not_created_without_the_right_to() {
    if !is_root() {
        return;
    }
    let publisher = readable();
    let table = Path::new(&publisher.table);
    fs::remove_dir_all(table).unwrap();
    as_nobody(&publisher, &["once"]).check(
        1,
        &[
            "Permission denied",
            "give this user read and write permission",
        ],
    );
    assert!(!table.exists());
}
