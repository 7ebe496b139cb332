//! The health verdict: each state is produced for real, and every surface shows the same verdict for it.

use std::fs;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use distilld::query::health::Health;

use crate::http::{full_disk_command, make_room};
use crate::support::browser::Browser;
use crate::support::http::{get, metric};
use crate::support::kill_harness::{Daemon, wait_until};
use crate::support::lake_gen::Stream;
use crate::support::manager::{Manager, StoppedThread};
use crate::support::process::{Bench, LONG, evidence_with, is_root, scored};

const PAIR: &str = "2026/05/01/audits.jsonl";
const LATER: &str = "2026/05/02/audits.jsonl";

/// A running daemon with its manager and its public address.
pub(crate) struct Surfaces<'b> {
    bench: &'b Bench,
    daemon: Daemon,
    manager: Manager,
    address: SocketAddr,
}

impl<'b> Surfaces<'b> {
    fn start(bench: &'b Bench, command: &mut Command) -> Self {
        let manager = Manager::new();
        command.env("DISTILLD_RECENT_SCAN_MS", "50");
        // Its log names the address.
        let _ = fs::remove_file(bench.log());
        let (daemon, address) = bench.listening_by(manager.manage(command));
        Self {
            bench,
            daemon,
            manager,
            address,
        }
    }

    /// Starts a daemon that finds a fault that needs an operator.
    pub(crate) fn start_stopped(bench: &'b Bench, command: &mut Command) -> Self {
        let manager = Manager::new();
        let _ = fs::remove_file(bench.log());
        let daemon = bench.start_command(manager.manage(command));
        manager.wait_for("READY=1");
        Self {
            bench,
            daemon,
            manager,
            address: bench.listener(0),
        }
    }

    pub(crate) fn stop(self) {
        self.bench.stop(self.daemon);
    }

    /// Waits until the daemon has a verdict, and asserts that each surface shows it, with a reason that contains `reason`.
    pub(crate) fn expect(&self, verdict: Health, reason: &str) {
        let title = verdict.title();
        let json = || get(self.address, "/status.json").json()["health"].clone();
        let is_there = || Ok(json()["verdict"] == verdict.code());
        assert!(
            wait_until(LONG, is_there).unwrap(),
            "{verdict:?}: {}\n{}",
            json(),
            self.bench.log_text()
        );
        let health = json();
        assert!(
            health["reason"].as_str().unwrap().contains(reason),
            "{health}"
        );
        let ready = get(self.address, "/readyz");
        let code = if verdict.is_ready() { 200 } else { 503 };
        assert_eq!(ready.status, code, "{ready:?}");
        assert!(ready.body.starts_with(&format!("{title}: ")), "{ready:?}");
        let metrics = get(self.address, "/metrics").body;
        for other in Health::ALL {
            let name = format!("distilld_health{{verdict=\"{}\"}}", other.code());
            let value = f64::from(u8::from(other == verdict));
            assert_eq!(metric(&metrics, &name), Some(value), "{metrics}");
        }
        let is_ready = f64::from(u8::from(verdict.is_ready()));
        assert_eq!(metric(&metrics, "distilld_ready"), Some(is_ready));
        self.expect_command(verdict);
        // The engine thread writes the status line.
        if verdict != Health::Unresponsive {
            let shown = || {
                let heard = self.manager.drain();
                let last = heard.rsplit("STATUS=").next().unwrap_or_default();
                Ok(last.starts_with(&title))
            };
            assert!(
                wait_until(LONG, shown).unwrap(),
                "{:?}",
                self.manager.lines_so_far()
            );
        }
    }

    /// Asserts that `status` shows a verdict, and that its exit code follows from it.
    fn expect_command(&self, verdict: Health) {
        check_command(self.bench, verdict);
    }
}

fn check_command(bench: &Bench, verdict: Health) {
    assert_eq!(bench.status()["health"]["verdict"], verdict.code());
    let code = match verdict {
        verdict if verdict.is_ready() => 0,
        verdict if verdict.is_temporary() => 3,
        _ => 1,
    };
    let ended = bench.run(&mut bench.command(&["status", "--check"]));
    ended.check(code, &[]);
    let line = ended
        .stdout
        .lines()
        .find(|line| line.starts_with("health "));
    let words = line.unwrap_or_default().trim_start_matches("health ");
    assert!(
        words.trim_start().starts_with(&verdict.title()),
        "{}",
        ended.stdout
    );
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn listen(bench: &Bench) -> Command {
    bench.command(&["run", "--listen", "127.0.0.1:0"])
}

#[test]
fn a_lake_without_sources_is_neutral_and_then_fresh() {
    let bench = Bench::new();
    let mut surfaces = Surfaces::start(&bench, &mut listen(&bench));
    surfaces.expect(Health::NoSources, "data/scored-runs");
    bench.append_run(PAIR, "a");
    bench.wait_run(&mut surfaces.daemon, "a");
    surfaces.expect(Health::Fresh, "");
    surfaces.stop();
    check_command(&bench, Health::NotRunning);
}

#[test]
fn directories_that_cannot_be_listed_are_incomplete_until_they_can() {
    if !is_root() {
        return;
    }
    let lock_day = |streams: &[Stream], level: &str| {
        let bench = Bench::new();
        bench.append_run(PAIR, "a");
        bench.append_run(LATER, "b");
        let dirs: Vec<_> = streams
            .iter()
            .map(|stream| bench.path(*stream, level))
            .collect();
        for dir in &dirs {
            set_mode(dir, 0o700);
        }
        let ended = bench.run(&mut bench.as_unprivileged(&["run", "--once"]));
        ended.check(1, &["incomplete: cannot read", "Permission denied"]);
        let ended = bench.run(&mut bench.as_unprivileged(&["verify"]));
        assert!(!ended.status.success(), "{}", ended.stdout);
        let mut command = bench.as_unprivileged(&["run", "--listen", "127.0.0.1:0"]);
        let mut surfaces = Surfaces::start(&bench, &mut command);
        surfaces.expect(Health::Incomplete, "Permission denied");
        let metrics = get(surfaces.address, "/metrics").body;
        assert_eq!(
            metric(&metrics, "distilld_directories_skipped"),
            Some(dirs.len() as f64)
        );
        let errors = metric(&metrics, "distilld_errors_total{kind=\"source\"}");
        assert!(errors >= Some(1.0), "{metrics}");
        assert_eq!(
            bench.log_text().matches("cannot read director").count(),
            1,
            "one line for a pass: {}",
            bench.log_text()
        );
        for dir in &dirs {
            set_mode(dir, 0o755);
        }
        bench.wait_rows(&mut surfaces.daemon, 2);
        surfaces.expect(Health::Fresh, "");
        surfaces.stop();
    };
    for level in ["", "2026", "2026/05/02"] {
        lock_day(&[Stream::Scored, Stream::Evidence], level);
    }
    lock_day(&[Stream::Evidence], "2026/05");
}

#[test]
fn a_link_to_day_files_elsewhere_is_incomplete_on_every_surface() {
    for level in ["2026", "2026/04", "2026/04/30"] {
        let bench = Bench::new();
        bench.append_run(PAIR, "a");
        // Of the same stream: its day-files are read by their own names. Without day-files: nothing is missing.
        let above = bench.path(Stream::Evidence, level);
        let above = above.parent().unwrap();
        fs::create_dir_all(above).unwrap();
        let empty = bench.sibling("empty");
        fs::create_dir_all(&empty).unwrap();
        symlink(&empty, above.join("empty")).unwrap();
        symlink(bench.path(Stream::Evidence, "2026"), above.join("latest")).unwrap();
        let mut command = bench.command(&["run", "--listen", "127.0.0.1:0"]);
        // Of an older month a full scan finds it.
        let surfaces = Surfaces::start(&bench, command.env("DISTILLD_FULL_SCAN_MS", "200"));
        surfaces.expect(Health::Fresh, "");
        // The directory that has this level in the stream, with all below it, is elsewhere.
        let other = bench.sibling("other");
        let link = above.join("linked");
        let names = "2026/04/30/x.jsonl".splitn(level.split('/').count() + 1, '/');
        let below = other.join(names.last().unwrap());
        fs::create_dir_all(below.parent().unwrap()).unwrap();
        fs::write(&below, "{}\n").unwrap();
        symlink(&other, &link).unwrap();
        surfaces.expect(Health::Incomplete, "is not followed");
        let ended = bench.run(&mut bench.command(&["check"]));
        ended.check(1, &[]);
        assert!(ended.stdout.contains("mount --bind"), "{}", ended.stdout);
        let ended = bench.run(&mut bench.command(&["verify"]));
        assert!(!ended.status.success(), "{}", ended.stdout);
        fs::remove_file(&link).unwrap();
        let ended = bench.run(&mut bench.command(&["verify"]));
        assert!(ended.status.success(), "{}", ended.stdout);
        surfaces.expect(Health::Fresh, "");
        surfaces.stop();
        symlink(&other, &link).unwrap();
        bench
            .run(&mut bench.command(&["run", "--once"]))
            .check(1, &["is not followed"]);
    }
}

#[test]
fn day_files_that_cannot_be_read_are_incomplete_until_they_can() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.append_run(LATER, "b");
    let locked = bench.path(Stream::Evidence, LATER);
    set_mode(&locked, 0o600);
    let mut command = bench.as_unprivileged(&["run", "--listen", "127.0.0.1:0"]);
    let mut surfaces = Surfaces::start(&bench, &mut command);
    surfaces.expect(Health::Incomplete, LATER);
    set_mode(&locked, 0o644);
    bench.wait_rows(&mut surfaces.daemon, 2);
    surfaces.expect(Health::Fresh, "");
    // A file of another kind.
    let fifo = bench.path(Stream::Scored, "2026/05/02/fifo.jsonl");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    surfaces.expect(Health::Incomplete, "fifo.jsonl (not a regular file)");
    fs::remove_file(&fifo).unwrap();
    surfaces.expect(Health::Fresh, "");
    surfaces.stop();
}

#[test]
fn a_file_in_the_place_of_a_day_is_incomplete_and_the_fix_is_to_move_it_away() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let mut command = listen(&bench);
    let surfaces = Surfaces::start(&bench, command.env("DISTILLD_FULL_SCAN_MS", "200"));
    surfaces.expect(Health::Fresh, "");
    let day = bench.path(Stream::Scored, PAIR);
    let day = day.parent().unwrap();
    let aside = bench.sibling("aside");
    fs::rename(day, &aside).unwrap();
    fs::write(day, "").unwrap();
    surfaces.expect(Health::Incomplete, "Not a directory");
    let fix = &bench.status()["health"]["fix"];
    assert!(
        fix.as_str().unwrap().starts_with("move away the file"),
        "{fix}"
    );
    fs::remove_file(day).unwrap();
    fs::rename(&aside, day).unwrap();
    surfaces.expect(Health::Fresh, "");
    surfaces.stop();
}

#[test]
fn sources_that_were_read_and_are_not_mounted_are_incomplete() {
    let bench = Bench::new();
    let year = bench.path(Stream::Scored, "2026");
    fs::create_dir_all(&year).unwrap();
    let mount = |arguments: &[&str]| {
        let mounted = Command::new("mount").args(arguments).arg(&year).status();
        mounted.is_ok_and(|status| status.success())
    };
    if !is_root() || !mount(&["-t", "tmpfs", "none"]) {
        assert!(std::env::var_os("CI").is_none(), "tmpfs is needed");
        return;
    }
    let unmount = || {
        let status = Command::new("umount").arg("-l").arg(&year).status();
        assert!(status.unwrap().success());
    };
    bench.append_run(PAIR, "a");
    for watch in ["auto", "poll"] {
        let mut command = listen(&bench);
        command
            .env("DISTILLD_WATCH", watch)
            .env("DISTILLD_POLL_MS", "50")
            .env("DISTILLD_FULL_SCAN_MS", "500");
        let surfaces = Surfaces::start(&bench, &mut command);
        surfaces.expect(Health::Fresh, "");
        unmount();
        surfaces.expect(Health::Incomplete, "is it mounted?");
        surfaces.stop();
        // A later process finds it too.
        let surfaces = Surfaces::start(&bench, &mut command);
        surfaces.expect(Health::Incomplete, "is it mounted?");
        assert!(mount(&["-t", "tmpfs", "none"]));
        bench.append(Stream::Scored, PAIR, scored("a"));
        surfaces.expect(Health::Fresh, "");
        surfaces.stop();
    }
    unmount();
}

#[test]
fn a_stream_that_was_read_and_is_away_is_incomplete() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.once();
    let base = bench.path(Stream::Evidence, "");
    let away = bench.sibling("away");
    fs::rename(&base, &away).unwrap();
    let surfaces = Surfaces::start(&bench, &mut listen(&bench));
    surfaces.expect(Health::Incomplete, "although 1 lines below it were read");
    fs::rename(&away, &base).unwrap();
    surfaces.expect(Health::Fresh, "");
    surfaces.stop();
}

#[test]
fn a_full_disk_is_stopped_and_a_hung_thread_is_unresponsive() {
    let bench = Bench::new();
    let mut surfaces = Surfaces::start(&bench, &mut full_disk_command(&bench));
    let browser = Browser::start();
    if let Some(browser) = &browser {
        browser.open(&format!("http://{}/", surfaces.address));
    }
    let shown = |word: &str| {
        if let Some(browser) = &browser {
            browser.wait_text("#state-word", word, |text| text == word);
        }
    };
    surfaces.expect(Health::NoSources, "");
    shown("No sources");
    let long = evidence_with("r1", &"x".repeat(9 << 20));
    bench.append(Stream::Evidence, PAIR, long);
    bench.append(Stream::Scored, PAIR, scored("r1"));
    surfaces.expect(Health::Stopped, "File too large");
    shown("Stopped");
    make_room(&surfaces.daemon);
    bench.wait_run(&mut surfaces.daemon, "r1");
    surfaces.expect(Health::Fresh, "");
    shown("Fresh");
    let hung = StoppedThread::stop(surfaces.daemon.pid(), "engine");
    surfaces.expect(Health::Unresponsive, "no progress");
    shown("Unresponsive");
    drop(hung);
    surfaces.expect(Health::Fresh, "");
    surfaces.stop();
}

#[test]
fn a_backlog_is_catching_up_at_the_start_and_lagging_later() {
    let bench = Bench::new();
    let fill = |day: usize| {
        let text = "a long answer. ".repeat(200);
        for pair in 0..40 {
            let name = format!("2026/01/{day:02}/f{pair}.jsonl");
            let runs: Vec<String> = (0..100)
                .map(|run| format!("run-{day}-{pair}-{run}"))
                .collect();
            let texts: String = runs.iter().map(|run| evidence_with(run, &text)).collect();
            bench.append(Stream::Evidence, &name, texts);
            let lines: String = runs.iter().map(|run| scored(run)).collect();
            bench.append(Stream::Scored, &name, lines);
        }
    };
    fill(1);
    let mut command = listen(&bench);
    // The least objective: a burst is over it.
    command.env("DISTILLD_FRESH_OBJECTIVE_MS", "10");
    let manager = Manager::new();
    let daemon = bench.start_command(manager.manage(&mut command));
    let status_line = manager.wait_for("STATUS=catching up: ");
    assert!(status_line.contains("pending"), "{status_line}");
    manager.wait_for("STATUS=fresh, ");
    let address = bench.listener(0);
    // The verdict is at most one second old, so a burst may fall between two of them.
    let mut day = 2;
    let is_lagging = || {
        fill(day % 28 + 1);
        day += 1;
        let answer = get(address, "/readyz");
        let is_lagging = answer.body.starts_with("lagging: a change is unread for ");
        assert_eq!(answer.status == 503, !answer.body.starts_with("fresh"));
        Ok(is_lagging)
    };
    assert!(
        wait_until(LONG, is_lagging).unwrap(),
        "{}",
        bench.log_text()
    );
    bench.stop(daemon);
}

#[test]
fn a_changed_export_is_stopped_and_served_until_an_operator_acts() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.append_run(PAIR, "b");
    let mut surfaces = Surfaces::start(&bench, &mut listen(&bench));
    bench.wait_rows(&mut surfaces.daemon, 2);
    surfaces.expect(Health::Fresh, "");
    let committed = bench.export_bytes();
    let ledger_path = bench.export().with_file_name("sft_retractions.jsonl");
    let ledger = fs::read(&ledger_path).unwrap();
    let mut changed = committed.clone();
    changed[10] ^= 1;
    for (export, reason) in [
        (Some(&changed[..]), "was changed by someone else"),
        (Some(&committed[..committed.len() - 5]), "bytes long, but"),
        (None, "is missing"),
    ] {
        let whole = bench.export_bytes();
        match export {
            Some(bytes) => fs::write(bench.export(), bytes).unwrap(),
            None => fs::remove_file(bench.export()).unwrap(),
        }
        bench.append_run(PAIR, "later");
        surfaces.expect(Health::Stopped, reason);
        // The same at a start, which the service manager would otherwise repeat without end.
        surfaces.stop();
        surfaces = Surfaces::start_stopped(&bench, &mut listen(&bench));
        surfaces.expect(Health::Stopped, reason);
        let health = bench.status()["health"].clone();
        assert!(
            health["fix"].as_str().unwrap().contains("restore"),
            "{health}"
        );
        let ended = bench.run(&mut bench.command(&["explain", "a"]));
        ended.check(1, &["stopped: ", "restore"]);
        let (code, text) = {
            let ended = bench.run(&mut bench.command(&["check"]));
            (ended.status.code(), ended.stdout + &ended.stderr)
        };
        assert_eq!(code, Some(1), "{text}");
        let now = fs::read(bench.export()).ok();
        assert_eq!(now.as_deref(), export, "nothing is appended");
        surfaces.stop();
        fs::write(bench.export(), &whole).unwrap();
        fs::remove_file(bench.state_dir().join("export-changed")).ok();
        surfaces = Surfaces::start(&bench, &mut listen(&bench));
        surfaces.expect(Health::Fresh, "");
        bench.wait_run(&mut surfaces.daemon, "later");
        surfaces.stop();
        // An older copy of both files.
        fs::write(bench.export(), &committed).unwrap();
        fs::write(&ledger_path, &ledger).unwrap();
        bench.remove_state();
        surfaces = Surfaces::start(&bench, &mut listen(&bench));
        surfaces.expect(Health::Fresh, "");
    }
    surfaces.stop();
}
