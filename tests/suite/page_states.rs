//! The page of a real daemon in the states that pass by themselves or by a change of the sources: catching up, lagging,
//! incomplete. Each is kept for people as a picture.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::page::{LOW_CONTRAST, SIDEWAYS, assert_quiet};
use crate::support::browser::Browser;
use crate::support::kill_harness::{Daemon, wait_until};
use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, LONG, evidence, is_root, scored};

const PAIR: &str = "2026/05/01/audits.jsonl";
/// Runs that a slowed daemon reads for seconds.
const RUNS: usize = 40_000;
/// Its day-files: more than one pass reads, because the engine answers between two passes.
const DAYS: usize = 20;
const CLASSES: usize = 50;

/// A process that gets a twentieth of its time, like one on a busy host. It runs freely again on drop.
struct Slowed {
    process: Pid,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Slowed {
    fn start(daemon: &Daemon) -> Self {
        let process = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        kill(process, Signal::SIGSTOP).unwrap();
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                // The two pauses are the shares of the time; no test depends on their lengths.
                std::thread::sleep(Duration::from_millis(95));
                // The process may have ended, which the test then reports.
                _ = kill(process, Signal::SIGCONT);
                std::thread::sleep(Duration::from_millis(5));
                _ = kill(process, Signal::SIGSTOP);
            }
        });
        Self {
            process,
            ends,
            thread: Some(thread),
        }
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
        _ = kill(self.process, Signal::SIGCONT);
    }
}

/// Appends the runs to new day-files, the evidence first, so that each scored run has its row when it is read.
fn append_many(bench: &Bench, name: &str) {
    let lines = |of: fn(&str) -> String| {
        let runs = (0..RUNS / DAYS / CLASSES).map(|run| of(&format!("run-{run}")));
        runs.collect::<String>()
    };
    let (evidence, scored) = (lines(evidence), lines(scored));
    for (stream, lines) in [(Stream::Evidence, evidence), (Stream::Scored, scored)] {
        for pair in 0..DAYS * CLASSES {
            let (day, class) = (pair % DAYS + 1, pair / DAYS);
            let pair = format!("2026/05/{day:02}/{name}_{class}.jsonl");
            bench.append(stream, &pair, &lines);
        }
    }
}

/// Presses the button that lets the page pause, or continue.
fn press_pause(browser: &Browser) {
    browser.run("document.getElementById('pause').click()");
}

/// Waits until the page shows the state, and lets it pause there.
fn pause_at(browser: &Browser, word: &str, why: &str) {
    let shows = || browser.text("#state-word") == word && browser.text("#state-why").contains(why);
    let paused = wait_until(LONG, || {
        if !shows() {
            return Ok(false);
        }
        press_pause(browser);
        // It may have changed before the button was pressed.
        if !shows() {
            press_pause(browser);
            return Ok(false);
        }
        Ok(true)
    });
    let last = browser.text("#state");
    assert!(
        paused.unwrap(),
        "not within {LONG:?}: {word}, {why}; the page shows {last}"
    );
}

/// Waits until the page shows the state, checks it in each appearance, and keeps pictures of it.
fn show(browser: &Browser, word: &str, why: &str) {
    pause_at(browser, word, why);
    let kind = browser.run("return document.getElementById('state').className");
    let expected = match word {
        "Catching up" => "state warn",
        _ => "state bad",
    };
    assert_eq!(kind, expected, "{word}");
    for scheme in ["light", "dark"] {
        for width in [400, 1200] {
            browser.set_appearance(width, scheme);
            browser.picture(&format!("{word}-{scheme}-{width}"));
            assert_eq!(browser.run(SIDEWAYS), 0, "{word}, {width} px");
            let low = browser.run(LOW_CONTRAST);
            assert_eq!(low, json!([]), "{word}, {scheme}, {width} px");
        }
    }
}

/// Asserts that the tile of the lag warns, and names the files that are not read.
fn assert_lag(browser: &Browser) {
    let shown = browser.run(
        "const tile = [...document.querySelectorAll('#tiles div')].find((tile) => tile.querySelector('dt').textContent === 'Lag');
         return `${tile.className}: ${tile.querySelector('.note').textContent}`;",
    );
    let shown = shown.as_str().unwrap();
    assert!(
        shown.starts_with("warn: ") && shown.contains(" file"),
        "{shown}"
    );
}

/// Returns a daemon with this objective at an address that a page has open already.
fn daemon_at(bench: &Bench, address: SocketAddr, objective_ms: u64) -> Command {
    let mut command = bench.command(&["run", "--listen", &address.to_string()]);
    command.env("DISTILLD_FRESH_OBJECTIVE_MS", objective_ms.to_string());
    command
}

#[test]
fn a_backlog_is_caught_up_with_and_a_burst_lags() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bench = Bench::new();
    // The page is open before the backlog is read.
    let (daemon, address) = bench.listening();
    browser.open(&format!("http://{address}/"));
    browser.wait_text("#state-word", "it waits", |text| text == "No sources");
    bench.stop(daemon);
    append_many(&bench, "backlog");
    let mut daemon = bench.start_command(&mut daemon_at(&bench, address, 60_000));
    let slowed = Slowed::start(&daemon);
    show(&browser, "Catching up", "what existed at the start");
    assert_lag(&browser);
    drop(slowed);
    press_pause(&browser);
    bench.wait_rows(&mut daemon, RUNS);
    browser.wait_text("#state-word", "it is over", |text| text == "Fresh");
    bench.stop(daemon);

    daemon = bench.catch_up(&mut daemon_at(&bench, address, 10));
    let slowed = Slowed::start(&daemon);
    append_many(&bench, "burst");
    show(&browser, "Lagging", "change is unread for ");
    assert!(
        browser
            .text("#state-fix")
            .contains("distilld_commit_duration_seconds"),
        "{}",
        browser.text("#state-fix")
    );
    assert_lag(&browser);
    drop(slowed);
    press_pause(&browser);
    bench.wait_rows(&mut daemon, 2 * RUNS);
    browser.wait_text("#state-word", "it is over", |text| text == "Fresh");
    assert_quiet_apart_from_absence(&browser);
    bench.stop(daemon);
}

/// The browser itself reports each answer that does not come: none runs, or it is too slow.
fn assert_quiet_apart_from_absence(browser: &Browser) {
    let messages = browser.console().into_iter();
    let others: Vec<String> = messages
        .filter(|message| !message.contains("Failed to load resource"))
        .collect();
    assert_eq!(others, Vec::<String>::new());
}

#[test]
fn what_cannot_be_read_is_named_with_its_remedy_until_it_can() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let bench = Bench::new();
    bench.append_run(PAIR, "r1");
    bench.append_run("2026/05/02/audits.jsonl", "r2");
    let closed = bench.path(Stream::Scored, "2026/05/02");
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
    let fifo = bench.path(Stream::Evidence, "2026/05/01/<i>fifo.jsonl");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let arguments = ["run", "--listen", "127.0.0.1:0"];
    // Root reads everything.
    let mut command = match is_root() {
        true => bench.as_unprivileged(&arguments),
        false => bench.command(&arguments),
    };
    let (daemon, address) = bench.listening_by(&mut command);
    browser.open(&format!("http://{address}/"));
    show(
        &browser,
        "Incomplete",
        "annot read 1 directory and 2 day-files",
    );
    let fix = browser.text("#state-fix");
    assert!(fix.contains(" check names the rights"), "{fix}");
    let faults = browser.text("#faults");
    for words in [
        "data/scored-runs/2026/05/02",
        "ermission denied",
        "<i>fifo",
        "Replace it by a regular file",
        "check",
    ] {
        assert!(faults.contains(words), "no {words} in {faults}");
    }
    assert_eq!(browser.text("#faults-why"), "3 active.");

    press_pause(&browser);
    fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(&fifo).unwrap();
    browser.wait_text("#state-word", "it is over", |text| text == "Fresh");
    browser.wait_text("#faults-why", "nothing is active", |text| {
        text == "None since the start."
    });
    assert_quiet(&browser);
    bench.stop(daemon);
}
