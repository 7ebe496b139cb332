//! The operations and queries of a check: systemctl, the journal, files inside, a lake and its export. The system
//! itself answers each query; the check has the expectations.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::base;
use super::container::Container;
use super::package::Packages;
use super::process::{Ended, run, wait_until};

/// Timeout for anything that should happen immediately, on a busy machine.
pub const LONG: Duration = Duration::from_secs(30);
/// The service.
pub const SERVICE: &str = "distilld.service";
/// The default root.
pub const ROOT: &str = "/srv/lakehouse";
/// The configuration.
pub const CONFIGURATION: &str = "/etc/distilld/distilld.toml";

/// A running system with the package installed.
#[derive(Debug)]
pub struct Host {
    container: Container,
    /// The packages, on the host.
    pub packages: Packages,
    /// The configuration as installed.
    packaged_configuration: String,
    /// Start of the check, in the format of `journalctl`.
    began: Mutex<String>,
}

impl Host {
    /// Builds the package, boots the container and installs the package.
    ///
    /// # Errors
    /// The failed step with its output.
    pub fn boot() -> Result<Self, String> {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("systemd");
        fs::create_dir_all(&home).map_err(|error| error.to_string())?;
        // One thread compiles, the other one downloads and unpacks.
        let (packages, tree) = std::thread::scope(|scope| {
            let tree = scope.spawn(|| base::tree(&home));
            (Packages::build(&home), tree.join().unwrap())
        });
        let (packages, tree) = (packages?, tree?);
        let container = Container::boot(&tree, &home)?;
        let mut host = Self {
            container,
            packages,
            packaged_configuration: String::new(),
            began: Mutex::default(),
        };
        match host.prepare() {
            Ok(()) => Ok(host),
            Err(error) => {
                host.stop();
                Err(error)
            }
        }
    }

    fn prepare(&mut self) -> Result<(), String> {
        let installed = self.try_install(&self.packages.first);
        if installed.code != Some(0) {
            return Err(format!(
                "the package cannot be installed: {}",
                installed.text
            ));
        }
        self.packaged_configuration = self.read(CONFIGURATION);
        Ok(())
    }

    /// Stops the system.
    pub fn stop(&self) {
        self.container.stop();
    }

    /// Runs a program inside to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Ended {
        run(self.container.command(program).args(arguments)).unwrap()
    }

    /// Runs a program inside, which must succeed, and returns its output.
    #[track_caller]
    pub fn ok(&self, program: &str, arguments: &[&str]) -> String {
        let ended = self.run(program, arguments);
        assert_eq!(
            ended.code,
            Some(0),
            "{program} {arguments:?}: {}",
            ended.text
        );
        ended.text
    }

    /// Runs a shell script inside, which must succeed, and returns its output.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        self.ok("sh", &["-ec", script])
    }

    /// Runs `systemctl`, which must succeed, and returns its output.
    #[track_caller]
    pub fn systemctl(&self, arguments: &[&str]) -> String {
        self.ok("systemctl", arguments)
    }

    /// Starts the service, which must become ready.
    #[track_caller]
    pub fn start(&self) {
        self.systemctl(&["start", SERVICE]);
    }

    /// Returns a property of the service.
    pub fn property(&self, name: &str) -> String {
        self.property_of(SERVICE, name)
    }

    /// Returns a property of a unit.
    pub fn property_of(&self, unit: &str, name: &str) -> String {
        let value = self.systemctl(&["show", "--property", name, "--value", unit]);
        value.trim_end().to_owned()
    }

    /// Returns a property that is a time in microseconds since boot.
    pub fn monotonic_us(&self, name: &str) -> u64 {
        self.property(name).parse().unwrap()
    }

    /// Returns the id on the host of the daemon's process.
    #[track_caller]
    pub fn main_process(&self) -> u32 {
        let inside = self.property("MainPID");
        self.container.outside(&inside).unwrap()
    }

    /// Returns the time since boot, microseconds.
    pub fn uptime_us(&self) -> u64 {
        let uptime = self.read("/proc/uptime");
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        (seconds * 1e6) as u64
    }

    /// Returns the output of `systemctl status`. Its exit code, which reflects the state, is ignored.
    pub fn status(&self) -> String {
        let lines = ["status", "--no-pager", "--full", "--lines=20", SERVICE];
        self.run("systemctl", &lines).text
    }

    /// Asserts that `systemctl status` shows each of these.
    #[track_caller]
    pub fn assert_status_shows(&self, words: &[&str]) {
        let status = self.status();
        for word in words {
            assert!(status.contains(word), "no {word:?} in\n{status}");
        }
    }

    /// Returns the unit's journal since the check began, as `journalctl` prints it with these arguments.
    pub fn journal(&self, arguments: &[&str]) -> String {
        // Not a cursor: combined with other matches, systemd 252 skips the first event after it.
        let began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        let since = format!("--since={}", *began);
        let all = [
            &["--no-pager", "--quiet", "--unit=distilld*", &since],
            arguments,
        ]
        .concat();
        self.run("journalctl", &all).text
    }

    /// Waits for a condition.
    #[track_caller]
    pub fn wait(&self, what: &str, holds: impl FnMut() -> bool) {
        self.wait_for(LONG, what, holds);
    }

    /// Waits for a condition with another time-out.
    #[track_caller]
    pub fn wait_for(&self, patience: Duration, what: &str, holds: impl FnMut() -> bool) {
        assert!(
            wait_until(patience, holds),
            "not within {patience:?}: {what}"
        );
    }

    /// Waits until the service is in this active state.
    #[track_caller]
    pub fn wait_state(&self, state: &str) {
        self.wait(&format!("the service is {state}"), || {
            self.property("ActiveState") == state
        });
    }

    /// Returns the major version of the systemd inside.
    pub fn systemd_version(&self) -> u32 {
        let version = self.systemctl(&["--version"]);
        version.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Returns the path on the host of a path inside.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.container.path(inside)
    }

    /// Reads a file inside.
    #[track_caller]
    pub fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap_or_else(|error| panic!("{inside}: {error}"))
    }

    /// Writes a file inside, and creates the directories above it.
    #[track_caller]
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Adds lines to the packaged configuration.
    pub fn configure(&self, lines: &str) {
        let configuration = format!("{}\n{lines}\n", self.packaged_configuration);
        self.write(CONFIGURATION, &configuration);
    }

    /// Installs a drop-in and reloads the units.
    pub fn drop_in(&self, unit: &str, text: &str) {
        self.write(&format!("/etc/systemd/system/{unit}.d/test.conf"), text);
        self.systemctl(&["daemon-reload"]);
    }

    /// Installs a package and returns the complete output.
    pub fn try_install(&self, package: &Path) -> Ended {
        fs::copy(package, self.path("/root/distilld.deb")).unwrap();
        // Keeps the old file at every prompt about a changed configuration.
        self.run(
            "dpkg",
            &["--force-confold", "--install", "/root/distilld.deb"],
        )
    }

    /// Installs a package.
    #[track_caller]
    pub fn install(&self, package: &Path) {
        let installed = self.try_install(package);
        assert_eq!(installed.code, Some(0), "{}", installed.text);
    }

    /// Resets to an empty lake, an empty state, the packaged configuration, and a stopped service.
    pub fn freshen(&self) {
        self.shell(
            "systemctl kill --signal=KILL 'distilld*.service' 2>/dev/null || true
             systemctl stop 'distilld*.service' 'distilld*.socket' 'srv-*.mount'
             rm -rf /etc/systemd/system/distilld*.d /etc/systemd/system/srv-*.mount
             systemctl daemon-reload
             systemctl reset-failed
             rm -rf /srv/* /var/lib/distilld/* /var/lib/distilld/.[!.]*",
        );
        self.configure("");
        self.shell("systemd-tmpfiles --create distilld.conf");
        self.shell("mkdir /srv/lakehouse/data/scored-runs /srv/lakehouse/data/evidence");
        let now = self.ok("date", &["+@%s.%6N"]).trim().to_owned();
        *self.began.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Returns diagnostics for a failed check.
    pub fn account(&self) -> String {
        format!(
            "see above; systemctl status:\n{}\nthe journal since the check began:\n{}",
            self.status(),
            self.journal(&["--output=short-monotonic"])
        )
    }

    /// Appends a scored run and its evidence to a pair of the default lake.
    pub fn append_run(&self, pair: &str, run: &str) {
        self.append_runs(ROOT, pair, &[run]);
    }

    /// Appends scored runs and their evidence, each stream with one write.
    pub fn append_runs(&self, root: &str, pair: &str, runs: &[&str]) {
        let evidence: String = runs.iter().map(|run| evidence_line(run)).collect();
        let scored: String = runs.iter().map(|run| scored_line(run)).collect();
        for (stream, lines) in [("evidence", evidence), ("scored-runs", scored)] {
            let path = self.path(&format!("{root}/data/{stream}/{pair}"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .unwrap();
            file.write_all(lines.as_bytes()).unwrap();
        }
    }

    /// Appends a year's backlog, which takes many passes; returns the number of its rows.
    pub fn append_backlog(&self, year: u32) -> usize {
        const PAIRS: usize = 150;
        const RUNS: usize = 1_000;
        for pair in 0..PAIRS {
            let runs: Vec<String> = (0..RUNS).map(|run| format!("{pair} {run}")).collect();
            let runs: Vec<&str> = runs.iter().map(String::as_str).collect();
            let (month, day) = (pair / 28 + 1, pair % 28 + 1);
            self.append_runs(ROOT, &format!("{year}/{month:02}/{day:02}/a.jsonl"), &runs);
        }
        PAIRS * RUNS
    }

    /// Returns the export's bytes; empty if there is no export.
    pub fn export(&self) -> Vec<u8> {
        self.export_of(ROOT)
    }

    /// Returns the bytes of the export of a root.
    pub fn export_of(&self, root: &str) -> Vec<u8> {
        let path = format!("{root}/data/distilled/sft/sft_export.jsonl");
        fs::read(self.path(&path)).unwrap_or_default()
    }

    /// Returns the number of rows of the default root.
    pub fn rows(&self) -> usize {
        memchr::memchr_iter(b'\n', &self.export()).count()
    }

    /// Waits for exactly this number of rows.
    #[track_caller]
    pub fn wait_rows(&self, rows: usize) {
        self.wait(&format!("{rows} rows"), || self.rows() >= rows);
        assert_eq!(self.rows(), rows);
    }

    /// Runs `distilld verify` as the daemon's own user: the export equals the batch of the lake.
    #[track_caller]
    pub fn assert_verified(&self) {
        let user = [
            "--reuid=distilld",
            "--regid=distilld",
            "--clear-groups",
            "--",
        ];
        let command = ["distilld", "--config", CONFIGURATION, "verify"];
        self.ok("setpriv", &[&user[..], &command[..]].concat());
    }
}

fn scored_line(run: &str) -> String {
    format!(
        "{{\"evidence_run_id\":\"{run}\",\"category\":\"accepted\",\"provenance\":{{\"source_file\":\"s\",\
         \"line_offset\":7,\"sig_hash\":\"hash of {run}\",\"recorded_at\":\"2026-01-01T00:00:00Z\"}}}}\n"
    )
}

fn evidence_line(run: &str) -> String {
    format!(
        "{{\"run_id\":\"{run}\",\"model_role\":\"executor\",\"text\":\"what {run} said {}\",\
         \"source_files\":[\"a.rs\"],\"provenance\":{{\"source_file\":\"data/_kb/audits.jsonl\"}}}}\n",
        "and again ".repeat(100)
    )
}
