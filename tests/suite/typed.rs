//! The commands that `check` prints: each is typed by root, as it is printed, and mends what it is printed for.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use distilld::lake::path::ledger_path;

use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, Ended, NOBODY, is_root, scored_as};

/// A user whom no host knows by a name.
const NAMELESS: u32 = 64_001;
/// The group of the writers of the day-files, without a name.
const SCORERS: u32 = 64_002;
const PAIR: &str = "2026/01/01/a.jsonl";
/// Maximum number of rounds of `check`: what is in a directory that cannot be entered is found by the next one.
const ROUNDS: usize = 4;
/// The programs that an operator types to mend something; other words in backticks are names, or only show something.
const MENDING: [&str; 11] = [
    "chattr", "chgrp", "chmod", "chown", "cp", "distilld", "install", "mv", "rm", "setfacl",
    "usermod",
];

/// A lake whose daemon runs as a user of its own.
struct Lake {
    bench: Bench,
    user: u32,
    state_dir: PathBuf,
    /// Groups that the daemon is started with.
    groups: Vec<String>,
}

impl Lake {
    /// A lake on which no daemon has run.
    fn new(user: u32) -> Self {
        let bench = Bench::new();
        bench.append_run(PAIR, "a");
        bench.append(Stream::Scored, PAIR, scored_as("a", "rejected"));
        bench.append_run(PAIR, "b");
        bench.reachable_program();
        fs::set_permissions(bench.root(), Permissions::from_mode(0o755)).unwrap();
        let state_dir = bench.state_dir();
        let lake = Self {
            bench,
            user,
            state_dir,
            groups: Vec::new(),
        };
        fs::create_dir(lake.distilled()).unwrap();
        lake.give(&lake.distilled());
        lake
    }

    /// A lake on which a daemon has run.
    fn with_state(user: u32) -> Self {
        let lake = Self::new(user);
        lake.run(user, &["run", "--once"]).check(0, &[]);
        lake
    }

    fn give(&self, path: &Path) {
        chown(path, Some(self.user), Some(self.user)).unwrap();
    }

    fn distilled(&self) -> PathBuf {
        self.bench.root().join("data/distilled")
    }

    /// Returns the paths of the files and directories that the daemon keeps.
    fn own(&self) -> Vec<PathBuf> {
        let (distilled, state_dir) = (self.distilled(), self.bench.state_dir());
        let export = self.bench.export();
        vec![
            ledger_path(&export),
            export,
            state_dir.join("state.redb"),
            state_dir.join("journal"),
            state_dir.join(".distilld.lock"),
            distilled.join(".distilld.lock"),
            distilled.join("sft"),
            state_dir,
            distilled,
        ]
    }

    fn run(&self, user: u32, arguments: &[&str]) -> Ended {
        let mut command = Command::new("setpriv");
        let user_text = user.to_string();
        let user = &user_text;
        command.args(["--reuid", user, "--regid", user]);
        match self.groups.as_slice() {
            [] => command.arg("--clear-groups"),
            groups => command.args(["--groups", &groups.join(",")]),
        };
        command
            .arg(self.bench.sibling("distilld"))
            .arg("--root")
            .arg(self.bench.root())
            .arg("--state-dir")
            .arg(&self.state_dir)
            .args(arguments);
        command.env_clear().stdin(Stdio::null());
        command
            .env("DISTILLD_SETTLE_MS", "50")
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        self.bench.run(&mut command)
    }

    /// Types a command as root.
    fn type_in(&self, command: &str) -> Ended {
        let dir = self.bench.sibling("distilld");
        let path = format!(
            "{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            dir.parent().unwrap().display()
        );
        let mut shell = Command::new("bash");
        shell.args(["-c", command]).env_clear().env("PATH", path);
        self.bench.run(&mut shell)
    }

    /// Follows what `check` prints until it finds nothing, and starts the daemon.
    fn mend(mut self, what: &str) {
        let mut typed = BTreeSet::new();
        let mut shown = String::new();
        let mut found = 0;
        for round in 0..ROUNDS {
            // The next round is that of the user, whose rights root's `check` takes on.
            let asking = if round % 2 == 0 { 0 } else { self.user };
            let check = self.run(asking, &["check"]);
            shown += &check.stdout;
            let failures = check.stdout.lines().filter(|line| line.starts_with("fail"));
            let failures: Vec<&str> = failures.collect();
            assert_eq!(check.status.code(), Some(i32::from(!failures.is_empty())));
            found += failures.len();
            for line in failures {
                self.follow(what, line, &mut typed);
            }
        }
        assert!(found > 0, "{what}: check finds nothing\n{shown}");
        for user in [0, self.user] {
            // The groups of a container are not known to root.
            if user == 0 && !self.groups.is_empty() {
                continue;
            }
            let check = self.run(user, &["check"]);
            let code = check.status.code();
            assert_eq!(code, Some(0), "{what}: {typed:#?}\n{}", check.stdout);
        }
        let start = self.run(self.user, &["run", "--once"]);
        let code = start.status.code();
        assert_eq!(code, Some(0), "{what}: {typed:#?}\n{}", start.stderr);
        assert_eq!(self.bench.difference(), None, "{what}: {typed:#?}");
    }

    /// Types the first command of a line, unless it was typed for another one.
    fn follow(&mut self, what: &str, line: &str, typed: &mut BTreeSet<String>) {
        let is_command = |part: &&str| {
            let program = part.split(' ').next().unwrap_or_default();
            MENDING.contains(&program)
        };
        let Some(command) = line.split('`').skip(1).step_by(2).find(is_command) else {
            return;
        };
        if let Some((_, group)) = line.split_once("`SupplementaryGroups=")
            && !command.starts_with("setfacl")
        {
            let group = group.split('`').next().unwrap();
            self.groups.push(group.to_owned());
        }
        if typed.insert(command.to_owned()) {
            let ended = self.type_in(command);
            assert!(ended.status.success(), "{what}: {line}\n{}", ended.stderr);
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Makes a path one of root's, with this mode.
fn take(path: &Path, group: u32, mode: u32) {
    chown(path, Some(0), Some(group)).unwrap();
    set_mode(path, mode);
}

#[test]
fn a_wrong_owner_or_mode_of_a_file_of_the_daemon_is_mended_as_typed() {
    if !is_root() {
        return;
    }
    for user in [NAMELESS, NOBODY] {
        let count = Lake::new(user).own().len();
        for at in 0..count {
            let lake = Lake::with_state(user);
            let path = lake.own().swap_remove(at);
            take(&path, 0, 0o700);
            lake.mend(&format!("root's: {}", path.display()));
            let lake = Lake::with_state(user);
            let path = lake.own().swap_remove(at);
            set_mode(&path, 0o100);
            lake.mend(&format!("mode 0100: {}", path.display()));
        }
    }
}

#[test]
fn a_directory_of_the_daemon_that_it_may_not_create_is_mended_as_typed() {
    if !is_root() {
        return;
    }
    for user in [NAMELESS, NOBODY] {
        let mut lake = Lake::new(user);
        lake.state_dir = lake.bench.sibling("var/state");
        fs::create_dir_all(&lake.state_dir).unwrap();
        lake.give(&lake.state_dir);
        fs::remove_dir(lake.distilled()).unwrap();
        lake.mend("no data/distilled");

        let mut lake = Lake::with_state(user);
        lake.state_dir = lake.bench.sibling("var/state");
        lake.mend("no state directory");
    }
}

/// The lock, and the file that names its holder, are in the directory above that of the export.
#[test]
fn what_keeps_a_start_from_its_lock_is_found_and_mended_as_typed() {
    if !is_root() {
        return;
    }
    for has_state in [false, true] {
        for elsewhere in [false, true] {
            let mut lake = Lake::new(NAMELESS);
            if elsewhere {
                lake.state_dir = lake.bench.sibling("state");
            }
            for dir in [lake.bench.export().parent().unwrap(), &lake.state_dir] {
                fs::create_dir_all(dir).unwrap();
                lake.give(dir);
            }
            if has_state {
                lake.run(NAMELESS, &["run", "--once"]).check(0, &[]);
            }
            take(&lake.distilled(), 0, 0o755);
            lake.mend(&format!("state {has_state}, elsewhere {elsewhere}"));
        }
    }
    let names = [
        ".distilld.holder",
        ".distilld.holder.new",
        ".distilld.lock",
        ".distilld/.distilld.lock",
    ];
    for name in names {
        let lake = Lake::with_state(NOBODY);
        let path = lake.distilled().join(name);
        if name.ends_with(".lock") {
            fs::hard_link(&path, lake.bench.sibling("second name")).unwrap();
            lake.mend(&format!("second name of {name}"));
        }
        let lake = Lake::with_state(NOBODY);
        let path = lake.distilled().join(name);
        let _ = fs::remove_file(&path);
        fs::create_dir(&path).unwrap();
        lake.mend(&format!("directory {name}"));
    }
}

#[test]
fn an_attribute_of_a_file_or_directory_is_removed_as_typed() {
    if !is_root() {
        return;
    }
    for flag in ['i', 'a'] {
        for at in 0..Lake::new(NOBODY).own().len() {
            let lake = Lake::with_state(NOBODY);
            let path = lake.own().swap_remove(at);
            let set = format!("chattr +{flag} {}", path.display());
            if !lake.type_in(&set).status.success() {
                eprintln!("no right, no chattr, or the file system has no such attribute");
                return;
            }
            lake.mend(&set);
        }
    }
}

#[test]
fn sources_that_the_daemon_may_not_read_are_mended_as_typed() {
    if !is_root() {
        return;
    }
    for group in [0, SCORERS] {
        for below in [
            "",
            "data",
            "data/evidence",
            "data/evidence/2026",
            "data/scored-runs/2026/01",
        ] {
            for mode in [0o700, 0o704, 0o701] {
                let lake = Lake::with_state(NAMELESS);
                let path = lake.bench.root().join(below);
                take(&path, group, mode);
                // The way to the sources need not be readable.
                if mode != 0o701 || below.contains('/') {
                    lake.mend(&format!("group {group}, mode {mode:o}: {}", path.display()));
                }
            }
        }
        let lake = Lake::with_state(NAMELESS);
        for stream in [Stream::Scored, Stream::Evidence] {
            lake.bench.append(stream, "2026/01/02/b.jsonl", "");
            for pair in [PAIR, "2026/01/02/b.jsonl"] {
                take(&lake.bench.path(stream, pair), group, 0o600);
            }
        }
        lake.mend("day-files");
    }
}
