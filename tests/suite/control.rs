//! The control socket of the real daemon: with long paths, with the remains of other processes, with any request.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::support::http::{exchange, get_unix};
use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, scored};

#[test]
fn it_answers_from_a_state_directory_with_a_path_longer_than_a_socket_address() {
    let bench = Bench::new();
    let state_dir = bench.sibling(&"deep/".repeat(60));
    fs::create_dir_all(&state_dir).unwrap();
    // A daemon that was killed leaves its socket.
    let socket = state_dir.join("control.sock");
    let left = bench.sibling("left");
    drop(UnixListener::bind(&left).unwrap());
    fs::rename(left, &socket).unwrap();
    bench.append(Stream::Scored, "2026/05/01/a.jsonl", scored("r1"));

    let typed = state_dir.to_str().unwrap();
    let mut daemon = bench.catch_up(&mut bench.command(&["--state-dir", typed, "run"]));
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    // The answer of the daemon differs from the published status.
    fs::write(state_dir.join("status.json"), "old").unwrap();
    let ended = bench.run(&mut bench.command(&["--state-dir", typed, "status", "--json"]));
    ended.check(0, &[]);
    let answer: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(answer["running"], true, "{answer}");
    assert_eq!(answer["scored"]["waiting"], 1, "{answer}");
    daemon.check_running().unwrap();
    bench.stop(daemon);
    assert!(
        !socket.try_exists().unwrap(),
        "the socket goes with its daemon"
    );
}

#[test]
fn it_serves_the_public_pages_and_only_its_own_operations() {
    let bench = Bench::new();
    let daemon = bench.catch_up(&mut bench.command(&["run"]));
    let socket = bench.state_dir().join("control.sock");
    for path in ["/status.json", "/plan.json", "/healthz", "/nothing"] {
        let answer = get_unix(&socket, path, "localhost");
        let policy = "content-security-policy: default-src 'none'";
        assert!(answer.head.contains(policy), "{path}: {answer:?}");
    }
    for method in ["POST", "DELETE", "CONNECT"] {
        let sent = format!("{method} /healthz HTTP/1.1\r\nConnection: close\r\n\r\n");
        let answer = exchange(UnixStream::connect(&socket).unwrap(), &sent).unwrap();
        assert_eq!(answer.status, 405, "{method}: {answer:?}");
    }
    bench.stop(daemon);
}
