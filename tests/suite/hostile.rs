//! Names, ids, roles, categories and texts that hold commands for a terminal, line ends, marks of the writing direction and
//! bytes that are not UTF-8: none of them reaches a terminal, the log, the service manager or the metrics as it is.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::support::http::get_unix;
use crate::support::lake_gen::Stream;
use crate::support::manager::Manager;
use crate::support::process::Bench;
use crate::support::pty::{Session, Shown};

/// The title of a window, a colour, a C1 command, marks of direction and of no width, line ends, markup and quotes.
const HOSTILE: &str = "\u{1b}]0;T\u{7}\u{1b}[31m\u{9b}2J\u{202e}\u{200f}\u{61c}\u{2028}\u{feff}\r\nREADY=1\nSTATUS=x\n\
                       fix: run it\n<b>\"}\\ {x} 'cmd'";
/// Characters of which none may be shown; a line end is allowed where this program writes its own.
const UNSAFE: [char; 9] = [
    '\u{7}', '\u{9b}', '\u{202e}', '\u{200f}', '\u{61c}', '\u{2028}', '\u{feff}', '\u{1b}',
    '\u{7f}',
];

const NAMES: [&[u8]; 7] = [
    b"\x1b]0;T\x07.jsonl",
    b"a\nREADY=1\nSTATUS=x\nfix: run it.jsonl",
    b"\xff\xfe\x1b[2J.jsonl",
    "\u{202e}x\u{9b}2J\u{200f}\u{feff}.jsonl".as_bytes(),
    b"\"} 1\n#evil{x=\".jsonl",
    b"<img src=x>\r.jsonl",
    b"$(x)\x7f.jsonl",
];

fn line(value: &Value) -> String {
    value.to_string() + "\n"
}

/// Fills a lake in which everything that a scorer chooses is hostile.
fn hostile_lake() -> Bench {
    let bench = Bench::new();
    let provenance = json!({"source_file": HOSTILE, "line_offset": 1, "sig_hash": HOSTILE});
    for (n, name) in NAMES.iter().enumerate() {
        let id = format!("{HOSTILE}{n}");
        let evidence = json!({"run_id": id, "task_id": HOSTILE, "model_name": HOSTILE, "model_role": "executor",
            "text": HOSTILE, "source_files": [HOSTILE], "provenance": provenance});
        let refused = json!({"run_id": format!("role{n}"), "model_role": HOSTILE, "text": "x", "provenance": {}});
        let scored = |id: &str, category: &str| {
            line(&json!({"evidence_run_id": id, "category": category, "provenance": provenance}))
        };
        let malformed = format!("not json {HOSTILE}\n{{\"category\": [\"{HOSTILE}\"]}}\n");
        let scored = [
            scored(&id, "accepted"),
            scored(&format!("{id} waits"), "accepted"),
            scored("category", HOSTILE),
            scored(&format!("role{n}"), "accepted"),
            scored(&id, "rejected"),
            malformed.clone(),
        ];
        for (stream, text) in [
            (
                Stream::Evidence,
                line(&evidence) + &line(&refused) + &malformed,
            ),
            (Stream::Scored, scored.concat()),
        ] {
            for day in [&b"2026/01/01"[..], b"2026\x1b]0;T\x07/0\n5/\xff1"] {
                let dir = bench.path(stream, "").join(OsStr::from_bytes(day));
                fs::create_dir_all(&dir).unwrap();
                fs::write(dir.join(OsStr::from_bytes(name)), &text).unwrap();
            }
        }
    }
    let day = bench.path(Stream::Evidence, "2026/01/01");
    symlink("/etc/passwd", day.join("l\u{1b}]0;T\u{7}\nREADY=1.jsonl")).unwrap();
    fs::create_dir(day.join("d\u{9b}2J\u{202e}.jsonl")).unwrap();
    bench
}

/// Removes the changes of colour, which do no harm.
fn without_colours(shown: &str) -> String {
    let mut text = String::new();
    for (n, part) in shown.split("\u{1b}[").enumerate() {
        let numbers = part.find(|c: char| !c.is_ascii_digit() && c != ';');
        match numbers {
            _ if n == 0 => text.push_str(part),
            // Of a progress bar also the clearing of a line and the movement of the cursor in it.
            Some(at) if part[at..].starts_with(['m', 'K', 'A', 'G']) => {
                text.push_str(&part[at + 1..]);
            }
            _ => text.push_str(&format!("\u{1b}[{part}")),
        }
    }
    text
}

#[track_caller]
fn assert_safe(what: &str, shown: &str) {
    // The line of a progress bar is cleared.
    let shown = shown.replace("\r\u{1b}[2K", "");
    let shown = without_colours(&shown).replace("\r\n", "\n");
    for c in UNSAFE.into_iter().chain(['\r']) {
        let at = shown.find(c);
        assert!(at.is_none(), "{what}: {:?} in {shown:?}", at.map(|_| c));
    }
    for forged in ["\nREADY=1", "\nSTATUS=x", "\nfix: run it"] {
        assert!(!shown.contains(forged), "{what}: {forged:?} in {shown:?}");
    }
}

const ID: &str = "\u{1b}]0;T\u{7}\u{1b}[31m\u{9b}2J\u{202e}\u{200f}\u{61c}\u{2028}\u{feff}\r\nREADY=1\nSTATUS=x\n\
                  fix: run it\n<b>\"}\\ {x} 'cmd'0";

const COMMANDS: [&[&str]; 24] = [
    &["status"],
    &["status", "--json"],
    &["explain", ID],
    &["explain", "--json", ID],
    &["explain", "role0"],
    &["explain", "category"],
    &["explain", "none \u{1b}]0;T\u{7}\u{9b}2J"],
    &["explain", "--retracted"],
    &["explain", "--retracted", "--json"],
    &["dead-letters"],
    &["dead-letters", "--json"],
    &[
        "dead-letters",
        "show",
        "2026/01/01/a\nfix: run it\u{9b}2J.jsonl",
        "7",
    ],
    &[
        "dead-letters",
        "retry",
        "2026/01/01/a\nfix: run it\u{9b}2J.jsonl",
    ],
    &["plan"],
    &["plan", "--json"],
    &["verify"],
    &["verify", "--rejected-elsewhere"],
    &["check"],
    &["cite"],
    &["retract", "--list"],
    &["retract", ID, "none \u{9b}2J", "--reason", HOSTILE],
    &["retract", "--list", "--json"],
    &["export", "--dry-run"],
    &["rebuild", "--dry-run"],
];

#[test]
fn nothing_foreign_reaches_a_terminal_as_it_is() {
    let bench = hostile_lake();
    let at_terminal = |arguments: &[&str]| {
        let mut command = bench.command(arguments);
        command.env("TERM", "xterm-256color");
        let left = Session::start(command, 160, Shown::Both).end();
        assert_safe(&format!("{arguments:?}"), &left.shown);
    };
    at_terminal(&["--log", "debug", "run", "--once"]);
    at_terminal(&["rows"]);
    at_terminal(&["rows", "--all"]);
    at_terminal(&["export", "--output", "-"]);
    for arguments in COMMANDS {
        at_terminal(arguments);
    }
    let daemon = bench.start_caught_up();
    for arguments in COMMANDS {
        at_terminal(arguments);
    }
    bench.stop(daemon);
    fs::remove_file(bench.export()).unwrap();
    for arguments in [&["status"][..], &["verify"], &["run", "--once"], &["rows"]] {
        at_terminal(arguments);
    }
}

#[test]
fn a_usage_error_escapes_what_was_typed() {
    let bench = Bench::new();
    let flag = format!("--{HOSTILE}");
    for arguments in [
        &[HOSTILE][..],
        &[&flag],
        &["help", HOSTILE],
        &["status", HOSTILE],
        &["export", "--dialect", HOSTILE],
        &["export", "--recorded-at", HOSTILE],
        &["dead-letters", "--day-file", HOSTILE],
        &["rows", "--at", HOSTILE],
        &["wait", "--timeout", HOSTILE],
        &["--instance", HOSTILE, "status"],
        &["--log-format", HOSTILE, "status"],
    ] {
        let mut command = bench.command(arguments);
        command.env("TERM", "xterm-256color");
        let left = Session::start(command, 160, Shown::Both).end();
        assert_safe(&format!("{arguments:?}"), &left.shown);
        assert!(
            left.shown.contains("\\u{1b}]0;T"),
            "{arguments:?}: {:?}",
            left.shown
        );
    }
}

#[test]
fn nothing_foreign_reaches_the_log_the_manager_or_the_metrics_as_it_is() {
    for format in ["kv", "json", "human"] {
        let bench = hostile_lake();
        let manager = Manager::new();
        let mut command = bench.command(&["--log", "debug", "--log-format", format, "run"]);
        command.args([
            "--listen",
            &format!("unix:{}", bench.sibling("s").display()),
        ]);
        command.env("DISTILLD_SETTLE_MS", "50");
        let daemon = bench.start_command(manager.manage(&mut command));
        manager.wait_for("READY=1");
        manager.wait_for("waiting for evidence");
        let metrics = get_unix(&bench.sibling("s"), "/metrics", "localhost");
        assert_safe("metrics", &metrics.body);
        assert!(metrics.body.contains("distilld_class_lines"));
        bench.stop(daemon);
        // Its own messages are checked line by line.
        assert_safe("manager", &manager.drain().replace("READY=1\n", ""));
        for line in manager.drain().lines() {
            let name = line.split('=').next().unwrap();
            assert!(
                name.chars().all(|c| c.is_ascii_uppercase() || c == '_'),
                "{line:?}"
            );
            assert!(line != "STATUS=x", "{line:?}");
        }
        assert_eq!(manager.drain().matches("READY=1\n").count(), 1);
        let log = bench.log_text();
        assert_safe(format, &log);
        for line in log.lines() {
            match format {
                "json" => drop(serde_json::from_str::<Value>(line).unwrap()),
                "kv" => assert!(line.starts_with("time="), "{line:?}"),
                _ => {}
            }
        }
    }
}

/// The text that a person sees and the value that a program reads are the same.
#[test]
fn escaped_json_has_the_value_of_the_record() {
    let bench = hostile_lake();
    bench.once();
    let explained = bench.ask(&["explain", "--json", ID]);
    assert_eq!(explained["run_id"], ID);
}
