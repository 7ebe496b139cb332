//! Start, READY, status line, crash, stop: the life of the daemon as systemd sees it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::host::{Host, LONG, SERVICE};

/// Maximum time from the start to READY on an empty history; the target is a tenth of it.
const READY: Duration = Duration::from_secs(2);
/// Maximum time from `systemctl stop` under maximum load to the end.
const STOP: Duration = Duration::from_secs(5);
/// The unit's `RestartSec`.
const PAUSE: Duration = Duration::from_secs(5);

pub fn ready_precedes_the_end_of_the_backlog(host: &Host) {
    let rows = host.append_backlog(2026);
    host.start();
    assert_eq!(host.property("ActiveState"), "active");
    let started_us = host.monotonic_us("ExecMainStartTimestampMonotonic");
    let ready_us = host.monotonic_us("ActiveEnterTimestampMonotonic");
    let ready = Duration::from_micros(ready_us - started_us);
    assert!(ready < READY, "ready after {ready:?}");
    host.wait_rows(rows);
    host.wait("it logs that it has caught up", || {
        host.journal(&[]).contains("caught up")
    });
    let caught_up = host.journal(&["--output=json", "--grep=caught up"]);
    let caught_up: serde_json::Value =
        serde_json::from_str(caught_up.lines().next().unwrap()).unwrap();
    let caught_up_us = caught_up["__MONOTONIC_TIMESTAMP"].as_str().unwrap();
    assert!(ready_us < caught_up_us.parse().unwrap());
    host.assert_verified();
}

pub fn the_status_line_shows_the_current_figures(host: &Host) {
    host.append_run("2026/01/01/a.jsonl", "one");
    host.start();
    host.wait_rows(1);
    host.wait("it is fresh", || {
        host.property("StatusText").starts_with("fresh")
    });
    host.assert_status_shows(&["Status: \"fresh, ", "0 waiting for evidence"]);
}

pub fn a_killed_daemon_restarts_after_a_pause_and_loses_nothing(host: &Host) {
    host.append_run("2026/01/01/a.jsonl", "before");
    host.start();
    host.wait_rows(1);
    let first = host.property("MainPID");
    let killed = Instant::now();
    host.systemctl(&["kill", "--kill-whom=main", "--signal=KILL", SERVICE]);
    host.append_run("2026/01/01/a.jsonl", "meanwhile");
    host.wait("it was started again", || host.property("NRestarts") == "1");
    host.wait_state("active");
    assert!(killed.elapsed() >= PAUSE, "after {:?}", killed.elapsed());
    assert_ne!(host.property("MainPID"), first);
    host.wait_rows(2);
    host.append_run("2026/01/01/a.jsonl", "after");
    host.wait_rows(3);
    host.assert_verified();
}

pub fn a_stop_during_a_backfill_is_clean_and_quick(host: &Host) {
    let rows = host.append_backlog(2026);
    host.start();
    host.wait("it works", || host.rows() > 0);
    // Independent of the machine's speed: the process is stopped until the manager's stop wakes it.
    host.systemctl(&["kill", "--kill-whom=main", "--signal=STOP", SERVICE]);
    let requested = Instant::now();
    host.systemctl(&["stop", SERVICE]);
    let took = requested.elapsed();
    assert!(took < STOP, "the stop took {took:?}");
    assert_eq!(host.property("ActiveState"), "inactive");
    assert_eq!(host.property("Result"), "success");
    assert_eq!(host.property("ExecMainStatus"), "0");
    let part = host.export();
    assert!(part.ends_with(b"\n"), "the last row is torn");
    assert!(host.rows() < rows, "the backfill was over before the stop");
    host.start();
    host.wait_for(LONG * 2, "all rows", || host.rows() >= rows);
    assert!(
        host.export().starts_with(&part),
        "what was seen has changed"
    );
    assert_eq!(host.rows(), rows);
    host.assert_verified();
}

pub fn the_page_is_served_on_a_passed_socket_that_lives_with_the_service(host: &Host) {
    let state = || host.property_of("distilld.socket", "ActiveState");
    let answers = || {
        host.run("bash", &["-c", ASK])
            .text
            .starts_with("HTTP/1.1 200")
    };
    assert!(!answers());
    host.start();
    host.wait("the page is served", answers);
    host.systemctl(&["restart", SERVICE]);
    host.wait("the page is served again", answers);
    // A unit that an operator stopped stays stopped under any request.
    host.systemctl(&["stop", SERVICE]);
    assert!(!answers());
    let stopped = ("inactive".to_owned(), "inactive".to_owned());
    assert_eq!((state(), host.property("ActiveState")), stopped);
    // Without the socket everything else works.
    host.systemctl(&["mask", "--runtime", "distilld.socket"]);
    host.start();
    assert!(!answers());
    host.append_run("2026/01/01/a.jsonl", "one");
    host.wait_rows(1);
    host.systemctl(&["unmask", "--runtime", "distilld.socket"]);
}

pub fn a_unix_socket_can_replace_the_tcp_socket(host: &Host) {
    host.configure("listen = \"unix:/run/distilld/http.sock\"");
    host.start();
    let path = host.path("/run/distilld/http.sock");
    host.wait("it listens", || path.exists());
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(REQUEST.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Requests the liveness of the daemon.
const REQUEST: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// The same request to the socket unit, from inside.
const ASK: &str = r"exec 3<>/dev/tcp/127.0.0.1/9743 &&
    printf 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3 && timeout 5 cat <&3";
