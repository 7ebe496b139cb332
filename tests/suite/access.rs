//! Other users than the daemon's: what each may ask, what each is answered, and what none of them can prevent.

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::support::kill_harness::Daemon;
use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, Ended, is_root};

const PAIR: &str = "2026/01/01/a.jsonl";
/// The user of the daemon, a user of its group, and one who is neither.
const OWNER: u32 = 61_001;
const READER: u32 = 61_002;
const STRANGER: u32 = 61_003;

const QUERIES: [&[&str]; 5] = [
    &["status"],
    &["status", "--json"],
    &["explain", "a"],
    &["dead-letters"],
    &["plan"],
];
const RETRY: &[&str] = &["dead-letters", "retry", PAIR];

/// A lake whose daemon runs as its own user, under this umask.
struct Lake {
    bench: Bench,
    umask: &'static str,
}

impl Lake {
    fn new(umask: &'static str) -> Self {
        let bench = Bench::new();
        bench.append_run(PAIR, "a");
        bench.append(Stream::Scored, PAIR, "broken\n");
        fs::set_permissions(bench.root(), Permissions::from_mode(0o755)).unwrap();
        Self { bench, umask }
    }

    /// The command of the daemon's user.
    fn own(&self, arguments: &[&str]) -> Command {
        let own = self.bench.as_user(OWNER, arguments);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {}; exec \"$0\" \"$@\"", self.umask)]);
        command.arg(own.get_program()).args(own.get_args());
        command.env_clear().stdin(Stdio::null());
        command
            .env("DISTILLD_SETTLE_MS", "50")
            .env("PATH", "/usr/bin:/bin");
        command.uid(OWNER).gid(OWNER);
        command
    }

    fn start(&self) -> Daemon {
        let daemon = self.bench.catch_up(&mut self.own(&["run"]));
        fs::metadata(self.socket()).unwrap();
        daemon
    }

    fn socket(&self) -> std::path::PathBuf {
        self.bench.state_dir().join("control.sock")
    }

    fn ask(&self, user: u32, group: u32, arguments: &[&str]) -> Ended {
        let mut command = self.bench.as_user(OWNER, arguments);
        self.bench.run(command.uid(user).gid(group))
    }
}

/// Checks that an answer names a missing right and nothing else.
fn check_denied(ended: &Ended, words: &[&str]) {
    ended.check(
        1,
        &["permission denied: user 6100", "fix: repeat the command"],
    );
    ended.check(1, words);
    for wrong in ["hang", "starting", "try again", "no progress"] {
        let shown = format!("{}{}", ended.stdout, ended.stderr);
        assert!(!shown.contains(wrong), "{wrong}: {shown}");
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

#[test]
fn the_group_of_the_export_may_ask_and_the_owner_alone_may_change() {
    if !is_root() {
        return;
    }
    for umask in ["0", "002", "022", "027"] {
        let lake = Lake::new(umask);
        let mut daemon = lake.start();
        assert_eq!(mode(&lake.socket()), 0o660, "umask {umask}");
        for arguments in QUERIES {
            lake.ask(READER, OWNER, arguments).check(0, &[]);
            check_denied(&lake.ask(STRANGER, STRANGER, arguments), &[]);
        }
        let refused = lake.ask(READER, OWNER, RETRY);
        refused.check(1, &["answered 403", "`sudo -u '#61001'`"]);
        check_denied(&lake.ask(STRANGER, STRANGER, RETRY), &[]);
        lake.ask(OWNER, OWNER, RETRY).check(0, &[]);
        lake.ask(0, 0, RETRY).check(0, &[]);
        lake.bench.probe(&mut daemon);
        lake.bench.stop(daemon);
        for arguments in QUERIES.into_iter().chain([RETRY]) {
            let files = "no daemon answers on its control socket";
            check_denied(&lake.ask(READER, OWNER, arguments), &[files]);
            check_denied(&lake.ask(STRANGER, STRANGER, arguments), &[]);
            lake.ask(OWNER, OWNER, arguments).check(0, &[]);
        }
        lake.bench.assert_batch();
    }
}

#[test]
fn an_export_that_its_group_may_not_read_keeps_the_socket_to_its_owner() {
    if !is_root() {
        return;
    }
    let lake = Lake::new("077");
    let daemon = lake.start();
    assert_eq!(mode(&lake.socket()), 0o600);
    check_denied(&lake.ask(READER, OWNER, &["status"]), &[]);
    lake.bench.stop(daemon);
}

#[test]
fn a_closed_directory_on_the_way_is_the_path_that_is_named() {
    if !is_root() {
        return;
    }
    let lake = Lake::new("022");
    let daemon = lake.start();
    for dir in [
        lake.bench.state_dir(),
        lake.bench.root().join("data/distilled"),
    ] {
        let before = mode(&dir);
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        let named = format!("may not enter {}", dir.display());
        for arguments in QUERIES {
            check_denied(&lake.ask(STRANGER, STRANGER, arguments), &[&named]);
        }
        fs::set_permissions(&dir, Permissions::from_mode(before)).unwrap();
    }
    lake.bench.stop(daemon);
}

/// Returns connections to a socket that another user holds open and does not use.
fn held_by(user: u32, group: u32, socket: &Path, count: usize) -> Vec<UnixStream> {
    let hold = || {
        // The rights of this thread alone.
        let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(group));
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
        let connect = |_| UnixStream::connect(socket).unwrap();
        (0..count).map(connect).collect()
    };
    std::thread::scope(|scope| scope.spawn(hold).join().unwrap())
}

#[test]
fn connections_of_readers_keep_the_operator_from_nothing() {
    if !is_root() {
        return;
    }
    let lake = Lake::new("027");
    let mut daemon = lake.start();
    // More than are served, and fewer than the kernel's queue holds.
    let held = held_by(READER, OWNER, &lake.socket(), 150);
    for arguments in QUERIES.into_iter().chain([RETRY]) {
        lake.ask(OWNER, OWNER, arguments).check(0, &[]);
        lake.ask(0, 0, arguments).check(0, &[]);
    }
    lake.ask(OWNER, OWNER, &["status", "--check"]).check(0, &[]);
    lake.bench.probe(&mut daemon);
    drop(held);
    lake.ask(READER, OWNER, &["explain", "a"]).check(0, &[]);
    lake.bench.stop(daemon);
}

#[test]
fn no_umask_lets_others_write_files_of_the_daemon() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let own = bench.command(&["run"]);
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0; exec \"$0\" \"$@\""]);
    command.arg(own.get_program()).args(own.get_args());
    command.stdin(Stdio::null()).env("DISTILLD_SETTLE_MS", "50");
    let daemon = bench.catch_up(&mut command);
    bench.wait_for(&mut { daemon }, "it has published", || {
        bench.state_dir().join("status.json").exists()
    });
    let mut dirs = vec![bench.root().join("data/distilled")];
    let mut seen = 0;
    while let Some(dir) = dirs.pop() {
        assert_eq!(mode(&dir) & 0o022, 0, "{}", dir.display());
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            seen += 1;
            let group_may = if path.ends_with("control.sock") {
                0o020
            } else {
                0
            };
            assert_eq!(mode(&path) & 0o022, group_may, "{}", path.display());
            if path.ends_with(".distilld.lock") {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
            }
        }
    }
    let report = bench.sibling("report");
    let check = format!("umask 0; exec \"$0\" \"$@\" --bundle {}", report.display());
    let mut command = Command::new("sh");
    command.args(["-c", &check]);
    command
        .arg(own.get_program())
        .args(["--root".as_ref(), bench.root().as_os_str()]);
    bench.run(command.arg("check").stdin(Stdio::null()));
    assert_eq!(mode(&report) & 0o022, 0);
    assert!(
        seen >= 7,
        "export, state, journal, socket, status, two locks: {seen}"
    );
}

/// Processes that hold the lock of a file as another user, until they are dropped.
struct Holder(std::process::Child);

/// The process that took the lock has it, and its child.
const BY_TAKER: &str = "exec flock $1 --nonblock $0 -c 'echo locked; exec sleep 600'";
/// The process that took the lock has ended.
const INHERITED: &str = "exec 9<$0; flock $1 --nonblock 9 && echo locked && exec sleep 600";

impl Holder {
    /// Returns `None` if that user cannot open the file.
    fn of(lock: &Path, user: u32, share: &str, way: &str) -> Option<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", way]).arg(lock).arg(share);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command.uid(user).gid(OWNER).process_group(0);
        let mut holder = Self(command.spawn().unwrap());
        let mut line = [0; 7];
        let read = holder.0.stdout.as_mut().unwrap().read_exact(&mut line);
        read.is_ok().then_some(holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        // A group that has ended cannot be killed.
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::SIGKILL);
        self.0.wait().unwrap();
    }
}

#[test]
fn a_reader_cannot_keep_the_daemon_from_its_lock() {
    if !is_root() {
        return;
    }
    let lake = Lake::new("027");
    let once = || lake.bench.run(&mut lake.own(&["run", "--once"]));
    once().check(0, &[]);
    let locks = [
        lake.bench.root().join("data/distilled/.distilld.lock"),
        lake.bench.state_dir().join(".distilld.lock"),
    ];
    for lock in &locks {
        assert!(Holder::of(lock, READER, "--exclusive", BY_TAKER).is_none());
        // An earlier version left it readable.
        for share in ["--shared", "--exclusive"] {
            for way in [BY_TAKER, INHERITED] {
                fs::set_permissions(lock, Permissions::from_mode(0o640)).unwrap();
                let holder = Holder::of(lock, READER, share, way).unwrap();
                once().check(0, &[]);
                drop(holder);
                assert_eq!(mode(lock), 0o600);
            }
        }
        // A daemon of that version holds it.
        fs::set_permissions(lock, Permissions::from_mode(0o640)).unwrap();
        let holder = Holder::of(lock, OWNER, "--exclusive", BY_TAKER).unwrap();
        once().check(1, &["another distilld"]);
        drop(holder);
    }
    lake.bench.assert_batch();
}

#[test]
fn a_command_of_root_follows_no_link_of_the_daemons_user() {
    if !is_root() {
        return;
    }
    let lake = Lake::new("022");
    lake.bench
        .run(&mut lake.own(&["run", "--once"]))
        .check(0, &[]);
    let (root_file, missing) = (lake.bench.sibling("shadow"), lake.bench.sibling("preload"));
    fs::write(&root_file, "root:secret\n").unwrap();
    fs::set_permissions(&root_file, Permissions::from_mode(0o600)).unwrap();
    let distilled = lake.bench.root().join("data/distilled");
    let state_dir = lake.bench.state_dir();
    let places = [
        distilled.join(".distilld.lock"),
        distilled.join(".distilld.holder.new"),
        state_dir.join(".distilld.lock"),
        state_dir.join(".distilld.lock.new"),
        state_dir.join("state.redb"),
        state_dir.join("journal"),
        state_dir.join("status.json"),
    ];
    let commands = QUERIES
        .into_iter()
        .chain([RETRY, &["check"], &["run", "--once"]]);
    let commands: Vec<_> = commands.collect();
    for place in places {
        let kept = fs::read(&place).ok();
        for target in [&root_file, &missing] {
            for arguments in &commands {
                let _ = fs::remove_file(&place);
                symlink(target, &place).unwrap();
                lake.ask(0, 0, arguments);
                let shown = format!("{arguments:?} with a link at {}", place.display());
                assert_eq!(fs::read(&root_file).unwrap(), b"root:secret\n", "{shown}");
                assert_eq!(fs::metadata(&root_file).unwrap().uid(), 0, "{shown}");
                assert_eq!(mode(&root_file), 0o600, "{shown}");
                assert!(!missing.exists(), "{shown}");
            }
        }
        let _ = fs::remove_file(&place);
        if let Some(kept) = kept {
            fs::write(&place, kept).unwrap();
            chown(&place, Some(OWNER), Some(OWNER)).unwrap();
        }
    }
}

#[test]
fn a_check_by_root_finds_what_the_daemons_user_may_not_read() {
    if !is_root() {
        return;
    }
    let lake = Lake::new("027");
    let once = lake.bench.run(&mut lake.own(&["run", "--once"]));
    once.check(0, &[]);
    lake.ask(0, 0, &["check"]).check(0, &[]);
    let year = lake.bench.path(Stream::Evidence, "2026");
    let day_file = lake.bench.path(Stream::Scored, PAIR);
    for path in [year, day_file, lake.bench.state_dir().join("journal")] {
        let before = fs::metadata(&path).unwrap();
        chown(&path, Some(0), Some(0)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        for user in [0, OWNER] {
            let ended = lake.ask(user, user, &["check"]);
            assert_eq!(ended.status.code(), Some(1), "{}", ended.stdout);
            let named =
                |line: &str| line.starts_with("fail") && line.contains(path.to_str().unwrap());
            assert!(ended.stdout.lines().any(named), "{user}: {}", ended.stdout);
        }
        fs::set_permissions(&path, before.permissions()).unwrap();
        chown(&path, Some(before.uid()), Some(before.gid())).unwrap();
    }
    lake.ask(0, 0, &["check"]).check(0, &[]);
}

/// Returns owner, group and mode of a file.
fn rights_of(path: &Path) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid(), found.mode() & 0o7777)
}

/// The batch may be run by root, or by the daemon's user under another umask.
#[test]
fn a_batch_that_replaces_the_export_keeps_its_owner_group_and_mode() {
    if !is_root() {
        return;
    }
    for by_root in [true, false] {
        let lake = Lake::new("027");
        let daemon = lake.start();
        lake.bench.stop(daemon);
        let export = lake.bench.export();
        std::os::unix::fs::chown(&export, Some(OWNER), Some(READER)).unwrap();
        fs::set_permissions(&export, Permissions::from_mode(0o640)).unwrap();
        lake.bench.remove_state();
        lake.bench.append_run(PAIR, "b");
        let mut command = match by_root {
            true => lake.bench.command(&["export"]),
            false => {
                let mut own = lake.bench.as_user(OWNER, &["export"]);
                own.uid(OWNER).gid(READER);
                own
            }
        };
        lake.bench.run(&mut command).check(0, &[]);
        assert_eq!(
            rights_of(&export),
            (OWNER, READER, 0o640),
            "by root {by_root}"
        );
        let elsewhere = lake.bench.sibling("copy.jsonl");
        fs::write(&elsewhere, "").unwrap();
        std::os::unix::fs::chown(&elsewhere, Some(READER), Some(READER)).unwrap();
        fs::set_permissions(&elsewhere, Permissions::from_mode(0o600)).unwrap();
        let mut command = lake.bench.command(&["export", "--output"]);
        lake.bench.run(command.arg(&elsewhere)).check(0, &[]);
        assert_eq!(rights_of(&elsewhere), (READER, READER, 0o600));
        // A link is replaced by a file like a new one.
        fs::remove_file(&elsewhere).unwrap();
        std::os::unix::fs::symlink("/dev/shm/none", &elsewhere).unwrap();
        let mut command = lake.bench.command(&["export", "--output"]);
        lake.bench.run(command.arg(&elsewhere)).check(0, &[]);
        assert_eq!(rights_of(&elsewhere).2 & 0o022, 0);
        let daemon = lake.start();
        lake.bench.stop(daemon);
    }
}

/// What root creates in a lake of the daemon's user, also where a state or the whole output is not there yet.
#[test]
fn the_daemon_can_use_what_commands_of_root_have_created() {
    if !is_root() {
        return;
    }
    let commands: [&[&str]; 7] = [
        &["rebuild", "--dry-run"],
        &["rebuild", "--state-only"],
        &["rebuild"],
        &["export"],
        &["run", "--once"],
        &["retract", "a", "--unseen", "--reason", "licence"],
        RETRY,
    ];
    for arguments in commands {
        for lost in ["state", "output", "nothing"] {
            let lake = Lake::new("027");
            let daemon = lake.start();
            lake.bench.stop(daemon);
            let distilled = lake.bench.root().join("data/distilled");
            match lost {
                "state" => lake.bench.remove_state(),
                "output" => fs::remove_dir_all(&distilled).unwrap(),
                _ => {}
            }
            let parent = lake.bench.root().join("data");
            std::os::unix::fs::chown(&parent, Some(OWNER), Some(OWNER)).unwrap();
            // Some of them refuse such a lake.
            lake.bench.run(&mut lake.bench.command(arguments));
            let mut found = vec![distilled];
            found.retain(|path| path.exists());
            while let Some(path) = found.pop() {
                let what = format!("{arguments:?}, {lost} lost: {}", path.display());
                assert_eq!(fs::symlink_metadata(&path).unwrap().uid(), OWNER, "{what}");
                let entries = fs::read_dir(&path).into_iter().flatten();
                found.extend(entries.map(|entry| entry.unwrap().path()));
            }
            let daemon = lake.start();
            lake.bench.stop(daemon);
        }
    }
}
