//! A root for one test of the real process: day-files to write, the process to run, the export to read. Every wait is
//! for a condition, with a deadline. The daemon's state is not read.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, SystemTime};

use distilld::platform::storage::OsStorage;
use distilld::record::row::view;
use serde_json::Value;

use super::kill_harness::{Daemon, export_path, wait_until};
use super::lake_gen::Stream;
use super::naive::{multiset_difference, naive_batch, read_pairs};

/// Maximum time for any immediate operation of a daemon, on a busy host.
pub const LONG: Duration = Duration::from_secs(30);
/// Maximum time from a signal to its end.
pub const STOP: Duration = Duration::from_secs(5);
/// The unprivileged user `nobody` of every Debian.
pub const NOBODY: u32 = 65_534;
/// Resident memory that no input may make the daemon exceed, KiB.
pub const MEMORY_KIB_MAX: u64 = 96 << 10;

/// A lake in a temporary directory of its test.
#[derive(Debug)]
pub struct Bench {
    dir: tempfile::TempDir,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Its complete stderr.
    pub stderr: String,
    /// Its stdout.
    pub stdout: String,
    /// Maximum observed memory, KiB.
    pub memory_kib: u64,
    /// Bytes it read, according to the kernel.
    pub read_bytes: u64,
}

/// Removes the flags that name the lake from the commands in hints: most tests are about the command.
pub fn without_flags(text: &str) -> String {
    const COMMAND: &str = "`distilld ";
    let mut parts = text.split(COMMAND);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for mut part in parts {
        while let Some(rest) = part.strip_prefix("--") {
            let words: Vec<&str> = rest.splitn(3, ' ').collect();
            part = words.get(2).copied().unwrap_or_default();
        }
        plain += COMMAND;
        plain += part;
    }
    plain
}

impl Ended {
    /// Asserts the exit code, and that stderr contains each of the words.
    pub fn check(&self, code: i32, words: &[&str]) {
        assert_eq!(self.status.code(), Some(code), "{}", self.stderr);
        let hints = without_flags(&self.stderr);
        for word in words {
            assert!(
                hints.contains(word) || self.stderr.contains(word),
                "no {word:?} in {}",
                self.stderr
            );
        }
    }
}

/// The log message of a daemon that waits for an operator.
const WAITS_FOR_OPERATOR: &str = "appending nothing until an operator decides";

impl Bench {
    /// Waits until a daemon ends with an error, or waits for an operator; then stops it.
    pub fn wait_end_or_stopped(&self, mut daemon: Daemon) {
        let mut status = None;
        let ended = wait_until(LONG, || {
            status = daemon.end().map_err(|error| error.to_string())?;
            let waits = self.log_text().contains(WAITS_FOR_OPERATOR);
            Ok(status.is_some() || waits)
        });
        assert_eq!(ended, Ok(true), "{}", self.log_text());
        match status {
            Some(status) => assert_eq!(status.code(), Some(1), "{}", self.log_text()),
            None => self.stop(daemon),
        }
    }

    /// Waits until a daemon appends nothing more because an operator has to decide, and stops it.
    pub fn wait_stopped(&self, mut daemon: Daemon) {
        self.wait_for(&mut daemon, "it waits for an operator", || {
            self.log_text().contains(WAITS_FOR_OPERATOR)
        });
        self.stop(daemon);
    }

    /// Creates an empty root.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("lake")).unwrap();
        Self { dir }
    }

    /// Returns the root.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("lake")
    }

    /// Returns a path next to the root.
    pub fn sibling(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.root().join("data/distilled/.distilld")
    }

    /// Removes the state directory, also while a daemon writes to it.
    pub fn remove_state(&self) {
        let removed = wait_until(LONG, || Ok(fs::remove_dir_all(self.state_dir()).is_ok()));
        assert_eq!(removed, Ok(true));
    }

    /// Returns the export's path.
    pub fn export(&self) -> PathBuf {
        export_path(&self.root())
    }

    /// Returns the export's bytes; empty if there is no export.
    pub fn export_bytes(&self) -> Vec<u8> {
        fs::read(self.export()).unwrap_or_default()
    }

    /// Returns the number of complete lines in the export.
    pub fn row_count(&self) -> usize {
        memchr::memchr_iter(b'\n', &self.export_bytes()).count()
    }

    /// Returns the runs of the effective rows, as `rows` prints them.
    pub fn effective_runs(&self) -> Vec<String> {
        let ended = self.run(&mut self.command(&["rows"]));
        ended.check(0, &[]);
        let rows = ended.stdout.lines().map(str::as_bytes);
        rows.map(|row| view(row).unwrap().source_run_id.into_owned())
            .collect()
    }

    /// Returns the `source_run_id` of every row, in order.
    pub fn runs(&self) -> Vec<String> {
        self.export_bytes()
            .split_inclusive(|byte| *byte == b'\n')
            .map(|row| view(row).unwrap().source_run_id.into_owned())
            .collect()
    }

    /// Asserts that exactly these runs have a row, each one, in any order.
    pub fn assert_runs(&self, runs: &[&str]) {
        let mut found = self.runs();
        found.sort_unstable();
        let mut expected = runs.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    /// Asserts `count` rows, each of another run.
    pub fn assert_distinct(&self, count: usize) {
        let runs = self.runs();
        let distinct: BTreeSet<&String> = runs.iter().collect();
        assert_eq!((runs.len(), distinct.len()), (count, count));
    }

    /// Returns the path of a day-file.
    pub fn path(&self, stream: Stream, pair: &str) -> PathBuf {
        stream.path(&self.root(), pair)
    }

    /// Appends to a day-file, which is created if it is missing.
    pub fn append(&self, stream: Stream, pair: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(stream, pair);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(bytes.as_ref()).unwrap();
    }

    /// Appends an accepted run and its evidence.
    pub fn append_run(&self, pair: &str, run: &str) {
        self.append(Stream::Evidence, pair, evidence(run));
        self.append(Stream::Scored, pair, scored(run));
    }

    /// Returns `distilld --root ROOT` with the arguments and a short settle time, without the environment of the
    /// tests.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_on(&self.root(), arguments)
    }

    /// As [`Self::command`], on another root.
    pub fn command_on(&self, root: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distilld"));
        command
            .env_clear()
            .env("DISTILLD_SETTLE_MS", "50")
            .stdin(Stdio::null())
            .arg("--root")
            .arg(root);
        command.args(arguments);
        command
    }

    /// As [`Self::command`], but as a user who can read world-readable files and write the daemon's files; its program
    /// is at a path that the user can reach. Only root can start it.
    pub fn as_user(&self, user: u32, arguments: &[&str]) -> Command {
        let program = self.sibling("distilld");
        if !program.exists() {
            self.reachable_program();
            let distilled = self.root().join("data/distilled");
            fs::create_dir_all(&distilled).unwrap();
            chown(distilled, Some(user), Some(user)).unwrap();
        }
        let own = self.command(arguments);
        let environment = own.get_envs();
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(environment.filter_map(|(key, value)| Some((key, value?))))
            .stdin(Stdio::null())
            .args(own.get_args())
            .uid(user)
            .gid(user);
        command
    }

    /// Returns the daemon's program at a path that every user can reach.
    pub fn reachable_program(&self) -> PathBuf {
        self.reachable(env!("CARGO_BIN_EXE_distilld"))
    }

    /// Returns a program at a path that every user can reach.
    pub fn reachable(&self, built: &str) -> PathBuf {
        let program = self.sibling(Path::new(built).file_name().unwrap().to_str().unwrap());
        // A file system of its own requires a copy, which another process writes: a child that a parallel test starts
        // would inherit a descriptor that writes, and the kernel starts no program that is open for writing.
        if fs::hard_link(built, &program).is_err() {
            let copied = Command::new("cp").arg(built).arg(&program).status();
            assert!(copied.unwrap().success());
        }
        fs::set_permissions(self.dir.path(), Permissions::from_mode(0o755)).unwrap();
        program
    }

    /// As [`Self::as_user`], for a user who owns nothing else.
    pub fn as_unprivileged(&self, arguments: &[&str]) -> Command {
        self.as_user(NOBODY, arguments)
    }

    /// Starts the daemon.
    pub fn start(&self) -> Daemon {
        self.start_command(&mut self.command(&["run"]))
    }

    /// Starts a daemon with another command.
    pub fn start_command(&self, command: &mut Command) -> Daemon {
        Daemon::start(command, &self.log()).unwrap()
    }

    /// Starts the daemon and waits until it has caught up.
    pub fn start_caught_up(&self) -> Daemon {
        self.catch_up(&mut self.command(&["run"]))
    }

    /// As [`Self::start_caught_up`], with another command.
    pub fn catch_up(&self, command: &mut Command) -> Daemon {
        let before = self.log_text().matches("caught up").count();
        let mut daemon = self.start_command(command);
        self.wait_for(&mut daemon, "it has caught up", || {
            self.log_text().matches("caught up").count() > before
        });
        daemon
    }

    /// Returns the path of the daemons' log.
    pub fn log(&self) -> PathBuf {
        self.sibling("daemon.log")
    }

    /// Returns the log so far, with [`without_flags`].
    pub fn log_text(&self) -> String {
        without_flags(&String::from_utf8_lossy(
            &fs::read(self.log()).unwrap_or_default(),
        ))
    }

    /// Waits for a condition while the daemon runs.
    pub fn wait_for(&self, daemon: &mut Daemon, what: &str, mut holds: impl FnMut() -> bool) {
        let outcome = wait_until(LONG, || daemon.check_running().map(|()| holds()));
        match outcome {
            Ok(true) => {}
            Ok(false) => panic!("not within {LONG:?}: {what}\n{}", self.log_text()),
            Err(error) => panic!("{error}, waiting until {what}\n{}", self.log_text()),
        }
    }

    /// Waits until the export has this number of rows.
    pub fn wait_rows(&self, daemon: &mut Daemon, rows: usize) {
        self.wait_for(daemon, &format!("{rows} rows"), || self.row_count() >= rows);
        assert_eq!(self.row_count(), rows, "{}", self.log_text());
    }

    /// Stops the daemon, which must end successfully.
    pub fn stop(&self, daemon: Daemon) {
        let status = daemon.terminate(LONG).unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log_text());
    }

    /// Appends a new run to day-file `probe.jsonl` and waits for its row: all earlier writes have been noticed then.
    pub fn probe(&self, daemon: &mut Daemon) {
        let run = format!("probe {}", fastrand::u64(..));
        self.append_run("2026/01/01/probe.jsonl", &run);
        self.wait_run(daemon, &run);
    }

    /// Returns whether a run has a row.
    pub fn has(&self, run: &str) -> bool {
        let wanted = format!("\"source_run_id\":\"{run}\"");
        memchr::memmem::find(&self.export_bytes(), wanted.as_bytes()).is_some()
    }

    /// Waits until a run has a row.
    pub fn wait_run(&self, daemon: &mut Daemon, run: &str) {
        self.wait_for(daemon, &format!("{run} has a row"), || self.has(run));
    }

    /// Runs a command to its end.
    pub fn run(&self, command: &mut Command) -> Ended {
        let (out, err) = (self.sibling("stdout"), self.sibling("stderr"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .spawn()
            .unwrap();
        let (status, memory_kib, read_bytes) = watch_to_end(child).unwrap();
        Ended {
            status,
            stderr: String::from_utf8_lossy(&fs::read(err).unwrap()).into_owned(),
            stdout: fs::read_to_string(out).unwrap(),
            memory_kib,
            read_bytes,
        }
    }

    /// Returns a command's answer with `--json`; it must succeed.
    pub fn ask(&self, arguments: &[&str]) -> Value {
        let ended = self.run(&mut self.command(arguments));
        ended.check(0, &[]);
        serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.stdout))
    }

    /// Runs `run --once`, which must succeed.
    pub fn once(&self) -> Ended {
        let ended = self.run(&mut self.command(&["run", "--once"]));
        ended.check(0, &[]);
        ended
    }

    /// Returns `status --json`, of a running daemon or without one.
    pub fn status(&self) -> Value {
        self.ask(&["status", "--json"])
    }

    /// Returns the first difference between the export and the batch of the lake.
    pub fn difference(&self) -> Option<String> {
        let pairs = read_pairs(&OsStorage, &self.root()).unwrap();
        multiset_difference(&self.export_bytes(), &naive_batch(&pairs, false).rows)
    }

    /// Asserts that the export equals the batch of the lake.
    pub fn assert_batch(&self) {
        assert_eq!(self.difference(), None);
    }
}

/// Returns whether this process can start others as another user. In CI it must.
pub fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    assert!(
        is_root || std::env::var_os("CI").is_none(),
        "root is needed for another user"
    );
    is_root
}

/// Returns an accepted run's line.
pub fn scored(run: &str) -> String {
    scored_as(run, "accepted")
}

/// Returns a scored run's line.
pub fn scored_as(run: &str, category: &str) -> String {
    format!(
        "{{\"evidence_run_id\":\"{run}\",\"category\":\"{category}\",\"provenance\":{{\"source_file\":\"s\",\
         \"line_offset\":7,\"sig_hash\":\"hash of {run}\",\"recorded_at\":\"2026-01-01T00:00:00Z\"}}}}\n"
    )
}

/// Returns a run's evidence.
pub fn evidence(run: &str) -> String {
    evidence_with(run, &format!("what {run} said"))
}

/// Returns a run's evidence with this text.
pub fn evidence_with(run: &str, text: &str) -> String {
    format!(
        "{{\"run_id\":\"{run}\",\"model_role\":\"executor\",\"text\":\"{text}\",\"source_files\":[\"a.rs\"],\
         \"provenance\":{{\"source_file\":\"data/_kb/audits.jsonl\"}}}}\n"
    )
}

/// Waits for the process's end; its kernel counters are read until it is reaped.
fn watch_to_end(mut child: Child) -> io::Result<(ExitStatus, u64, u64)> {
    let mut memory_kib = 0;
    let stat = PathBuf::from(format!("/proc/{}/stat", child.id()));
    let ended = wait_until(LONG * 4, || {
        memory_kib = memory_kib.max(memory_kib_max(child.id()));
        let stat = fs::read_to_string(&stat).map_err(|error| error.to_string())?;
        let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
        Ok(state.starts_with('Z'))
    });
    if !ended.map_err(io::Error::other)? {
        child.kill()?;
        child.wait()?;
        return Err(io::Error::other("the process did not end"));
    }
    let read_bytes = read_bytes(child.id());
    Ok((child.wait()?, memory_kib, read_bytes))
}

/// Returns the maximum resident memory of a running process so far, KiB. It is 0 for a process that has just been started
/// and for a moment still has the memory of this one: the kernel continues the parent before it replaces that memory.
pub fn memory_kib_max(pid: u32) -> u64 {
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok();
    if program == std::env::current_exe().ok() {
        return 0;
    }
    number_after(&proc_file(pid, "status"), "VmHWM:")
}

/// Returns the resident memory of a running process, KiB.
pub fn memory_kib(pid: u32) -> u64 {
    number_after(&proc_file(pid, "status"), "VmRSS:")
}

/// Returns the bytes that a running process has read so far, according to the kernel.
pub fn read_bytes(pid: u32) -> u64 {
    number_after(&proc_file(pid, "io"), "rchar:")
}

fn proc_file(pid: u32, name: &str) -> String {
    let mut text = String::new();
    let opened = File::open(Path::new("/proc").join(pid.to_string()).join(name));
    // A process that has just ended has no values.
    if let Ok(mut file) = opened {
        _ = file.read_to_string(&mut text);
    }
    text
}

fn number_after(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Runs a command that has this text on its stdin, which it need not read.
pub fn output_with_stdin(command: &mut Command, text: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // While the output is read: both pipes may be full.
        scope.spawn(move || match stdin.write_all(text) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => panic!("{error}"),
            _ => {}
        });
        child.wait_with_output().unwrap()
    })
}

/// Waits until the clock is clearly later than the file's last change.
pub fn wait_for_later(path: &Path) {
    let changed = fs::metadata(path).unwrap().modified().unwrap();
    let later = changed + Duration::from_millis(100);
    assert!(wait_until(LONG, || Ok(SystemTime::now() > later)).unwrap());
}
