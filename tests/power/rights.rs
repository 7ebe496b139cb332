//! Owns what a daemon without root's rights may not read: said once, passed over, and read when it may.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::host::{self, must};
use crate::support::lake_gen::Stream;
use crate::support::process::Bench;

/// Nobody, on every Debian.
const USER: &str = "65534";

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn as_nobody(bench: &Bench) -> Command {
    as_user(bench, USER)
}

/// The daemon as a user without rights, with its program where that user can reach it.
pub fn as_user(bench: &Bench, user: &str) -> Command {
    set_mode(bench.root().parent().unwrap(), 0o755);
    let program = bench.beside("distilld");
    fs::copy(env!("CARGO_BIN_EXE_distilld"), &program).unwrap();
    let distilled = bench.root().join("data/distilled");
    fs::create_dir_all(&distilled).unwrap();
    must("chown", &["-R", user, distilled.to_str().unwrap()]);
    let own = bench.command(&["run"]);
    let mut command = Command::new("setpriv");
    command
        .env_clear()
        .envs(
            own.get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("DISTILLD_RECENT_SCAN_MS", "50")
        .args(["--reuid", user, "--regid", user, "--clear-groups"])
        .arg(program)
        .args(own.get_args());
    command
}

#[test]
fn what_may_not_be_read_is_said_once_and_read_when_it_may() {
    if !host::has(&["setpriv", "chown"]) {
        return;
    }
    let bench = Bench::new();
    let forbidden = ["2026/01/01/closed.jsonl", "2026/01/02/in-closed.jsonl"];
    for pair in forbidden {
        bench.append_run(pair, pair);
    }
    bench.append_run("2026/01/01/open.jsonl", "open");
    let closed = [
        bench.path(Stream::Scored, forbidden[0]),
        bench.path(Stream::Scored, "2026/01/02"),
    ];
    closed.iter().for_each(|path| set_mode(path, 0o000));
    let mut daemon = bench.start_command(&mut as_nobody(&bench));
    bench.wait_run(&mut daemon, "open");
    // Many looks later there is still one warning of each.
    for round in 0..20 {
        bench.append_run("2026/01/03/open.jsonl", &format!("round {round}"));
        bench.wait_run(&mut daemon, &format!("round {round}"));
    }
    for path in &closed {
        let path = format!("={} ", path.display());
        let said = bench.said();
        let warnings: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("level=warn") && line.contains(&path))
            .collect();
        assert_eq!(warnings.len(), 1, "{path}: {said}");
    }
    set_mode(&closed[0], 0o644);
    set_mode(&closed[1], 0o755);
    for run in forbidden {
        bench.wait_run(&mut daemon, run);
    }
    bench.stop(daemon);
    bench.assert_batch();
}
