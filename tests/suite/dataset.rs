//! The readers of an export and its ledger, against ledgers that this file writes by itself: every kind of ledger, of
//! version and of damage. No daemon runs, and no state exists.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use distilld::dataset::rows::copy_rows;
use distilld::dataset::shape::Shape;
use distilld::dataset::snapshot::Snapshot;
use distilld::dataset::version::At;
use distilld::platform::storage::OsStorage;
use fastrand::Rng;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::lake_gen::{Shape as LakeShape, Step, script};
use crate::support::process::{Bench, Ended, is_root};

const ID: &str = "4f1c09b2a77d5e03";

/// A row of an export: its offset and its bytes with the newline.
type Row = (u64, Vec<u8>);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A root with an export and a ledger, both written by the test or the batch.
struct Set {
    bench: Bench,
    /// Events, as they are in the ledger.
    events: Vec<Value>,
}

impl Set {
    fn new(export: &[u8]) -> Set {
        let bench = Bench::new();
        fs::create_dir_all(bench.export().parent().unwrap()).unwrap();
        fs::write(bench.export(), export).unwrap();
        let mut set = Set {
            bench,
            events: Vec::new(),
        };
        set.event("begin", "created", None, 0);
        set
    }

    /// The export of the batch over a random lake.
    fn of_lake(seed: u64) -> Set {
        let set = Set::new(b"");
        fs::remove_file(set.bench.export()).unwrap();
        for step in script(seed, &LakeShape::steady(120)) {
            if let Step::Append {
                stream,
                pair,
                bytes,
            } = step
            {
                set.bench.append(stream, &pair, bytes);
            }
        }
        set.run(&["export"]).check(0, &[]);
        set
    }

    fn ledger(&self) -> PathBuf {
        self.bench.export().with_file_name("sft_retractions.jsonl")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.bench.export()).unwrap_or_default()
    }

    fn len(&self) -> u64 {
        self.bytes().len() as u64
    }

    fn rows(&self) -> Vec<Row> {
        let (mut rows, mut offset) = (Vec::new(), 0);
        for row in self.bytes().split_inclusive(|byte| *byte == b'\n') {
            rows.push((offset, row.to_vec()));
            offset += row.len() as u64;
        }
        rows
    }

    fn append(&self, rows: &[u8]) {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.bench.export())
            .unwrap();
        file.write_all(rows).unwrap();
    }

    /// Adds an event at an export of `export_len` bytes.
    fn event(&mut self, op: &str, cause: &str, row: Option<&Row>, export_len: u64) {
        let (offset, len, hash) = match row {
            Some((offset, row)) => (
                i64::try_from(*offset).unwrap(),
                i64::try_from(row.len()).unwrap(),
                sha256(row)[..32].to_owned(),
            ),
            None => (-1, -1, String::new()),
        };
        let seq = self.events.len();
        let event = json!({
            "schema_version": 1, "seq": seq, "op": op, "export": ID, "export_len": export_len,
            "row_offset": offset, "row_len": len, "row_hash": hash,
            "id": "a.jsonl:0", "source_run_id": format!("run {seq}"), "cause": cause,
            "day_file": "2026/01/01/a.jsonl", "line_offset": -1, "reason": "",
            "at": format!("2026-05-02T03:04:{:02}.000Z", seq.min(59)),
        });
        let mut ledger = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.ledger())
            .unwrap();
        // One call, as the writer does: a reader never sees a part of it.
        ledger.write_all(format!("{event}\n").as_bytes()).unwrap();
        self.events.push(event);
    }

    /// Replaces the ledger in one step, so that no reader meets an empty one.
    fn write_ledger(&self) {
        let lines: String = self
            .events
            .iter()
            .map(|event| format!("{event}\n"))
            .collect();
        let new = self.bench.sibling("ledger");
        fs::write(&new, lines).unwrap();
        fs::rename(new, self.ledger()).unwrap();
    }

    fn retract(&mut self, row: &Row) {
        let len = self.len();
        self.event("retract", "rejected", Some(row), len);
    }

    fn restore(&mut self, row: &Row) {
        let len = self.len();
        self.event("restore", "rejected", Some(row), len);
    }

    /// Adds random events that keep the rules.
    fn random_events(&mut self, rng: &mut Rng, count: usize) {
        let (rows, len) = (self.rows(), self.len());
        for _ in 0..count {
            let Some(row) = rng.choice(&rows) else { return };
            let out = self.retracted(usize::MAX).contains_key(&row.0);
            match (rng.u8(..6), out) {
                (0, _) => self.event("note", "superseded", Some(row), len),
                (1, _) => self.event("order", "operator", None, len),
                (_, true) => self.event("restore", "rejected", Some(row), len),
                (_, false) => self.event("retract", "rescored", Some(row), len),
            }
        }
    }

    /// The naive fold of the first events.
    fn retracted(&self, events: usize) -> BTreeMap<u64, ()> {
        let mut out = BTreeMap::new();
        for event in self.events.iter().take(events) {
            let offset = event["row_offset"].as_u64();
            match (event["op"].as_str().unwrap(), offset) {
                ("retract", Some(offset)) => drop(out.insert(offset, ())),
                ("restore", Some(offset)) => drop(out.remove(&offset)),
                _ => {}
            }
        }
        out
    }

    fn effective(&self, events: usize, from: u64, to: u64) -> Vec<u8> {
        let out = self.retracted(events);
        let rows = self.rows().into_iter();
        let rows =
            rows.filter(|(offset, _)| (from..to).contains(offset) && !out.contains_key(offset));
        rows.flat_map(|(_, row)| row).collect()
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.bench.run(&mut self.bench.command(arguments))
    }

    /// The stdout of a command that must succeed.
    fn out(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        ended.check(0, &[]);
        assert_eq!(ended.stderr, "");
        ended.stdout
    }

    fn cite(&self, arguments: &[&str]) -> Value {
        let arguments = [&["cite", "--json"], arguments].concat();
        serde_json::from_str(&self.out(&arguments)).unwrap()
    }

    fn version(&self) -> String {
        self.cite(&[])["version"].as_str().unwrap().to_owned()
    }

    /// Asserts that a version is not there, and that no row of it is written.
    fn check_lost(&self, version: &str, result: &str, words: &[&str]) {
        let ended = self.run(&["verify", "--at", version]);
        ended.check(1, words);
        ended.check(1, &["fix: "]);
        let printed: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(printed["result"], result, "{printed}");
        let rows = self.run(&["rows", "--at", version]);
        rows.check(1, words);
        assert_eq!(rows.stdout, "");
    }
}

/// Rows as text, without the prefix `_offset`, and the offsets.
fn with_offsets(text: &str) -> (Vec<u64>, String) {
    let mut offsets = Vec::new();
    let mut rows = String::new();
    for line in text.lines() {
        let rest = line.strip_prefix("{\"_offset\":").unwrap();
        let (offset, rest) = rest.split_once(',').unwrap();
        offsets.push(offset.parse().unwrap());
        rows += &format!("{{{rest}\n");
    }
    (offsets, rows)
}

#[test]
fn rows_are_those_of_the_naive_fold_on_random_lakes() {
    let mut compared = 0;
    for seed in 0..12 {
        let mut rng = Rng::with_seed(seed);
        let mut set = Set::of_lake(seed);
        set.random_events(&mut rng, 40);
        let (rows, len) = (set.rows(), set.len());
        // A batch without rows writes no file.
        if rows.is_empty() {
            continue;
        }
        let all = set.effective(usize::MAX, 0, len);
        assert_eq!(set.out(&["rows"]).as_bytes(), all, "seed {seed}");
        assert_eq!(set.out(&["rows", "--all"]).as_bytes(), set.bytes());
        let from = rng.choice(&rows).map_or(0, |row| row.0);
        let rest = set.effective(usize::MAX, from, len);
        let (offsets, text) =
            with_offsets(&set.out(&["rows", "--from", &from.to_string(), "--offsets"]));
        assert_eq!(text.as_bytes(), rest, "seed {seed} from {from}");
        let out = set.retracted(usize::MAX);
        let expected: Vec<u64> = rows.iter().map(|row| row.0).collect();
        let expected = expected
            .into_iter()
            .filter(|at| *at >= from && !out.contains_key(at));
        assert_eq!(offsets, expected.collect::<Vec<u64>>());
        let keyed = set.out(&["rows", "--key", "--safe-lines"]);
        let plain = String::from_utf8(all).unwrap();
        assert_eq!(keyed.lines().count(), plain.lines().count());
        for (keyed, plain) in keyed.lines().zip(plain.lines()) {
            let mut keyed: Value = serde_json::from_str(keyed).unwrap();
            let key = keyed.as_object_mut().unwrap().remove("_row_key").unwrap();
            assert_eq!(key.as_str().unwrap().len(), 24);
            assert_eq!(keyed, serde_json::from_str::<Value>(plain).unwrap());
        }
        let cited = set.cite(&[]);
        assert_eq!(cited["rows"], rows.len());
        assert_eq!(cited["retracted"], out.len());
        assert_eq!(cited["effective"], rows.len() - out.len());
        let classes = cited["classes"].as_object().unwrap().values();
        let counts = classes.flat_map(|class| class.as_object().unwrap().values());
        let sum: u64 = counts.map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(sum, cited["effective"].as_u64().unwrap());
        compared += rows.len();
    }
    assert!(compared > 100, "{compared} rows");
}

#[test]
fn a_copy_leaves_out_ranges_of_any_length_at_any_place() {
    for seed in 0..40 {
        let mut rng = Rng::with_seed(seed);
        // Rows far shorter and far longer than a read.
        let longest = *rng.choice(&[3, 5_000, 900_000]).unwrap();
        let mut export = Vec::new();
        while export.len() < 1_500_000 && rng.u32(..100_000) > 0 {
            let text: String = std::iter::repeat_n('x', rng.usize(..longest)).collect();
            export.extend(format!("{{\"r\":\"{text}\"}}\n").bytes());
        }
        let mut set = Set::new(&export);
        let rows = set.rows();
        let share = rng.u8(1..10);
        let chosen: Vec<&Row> = rows.iter().filter(|_| rng.u8(..10) < share).collect();
        let chosen = &chosen[..chosen.len().min(300)];
        for row in chosen {
            set.retract(row);
        }
        let from = rng.choice(&rows).map_or(0, |row| row.0);
        let snapshot = Snapshot::open(&OsStorage, &set.bench.export(), None).unwrap();
        for shape in [
            Shape::default(),
            Shape {
                safe_lines: true,
                ..Shape::default()
            },
        ] {
            let mut copied = Vec::new();
            copy_rows(&snapshot, from, false, shape, &mut copied).unwrap();
            let expected = set.effective(usize::MAX, from, set.len());
            assert!(
                copied == expected,
                "seed {seed}: {} bytes of {}",
                copied.len(),
                expected.len()
            );
        }
    }
}

#[test]
fn a_reader_needs_only_the_right_to_read_two_files() {
    if !is_root() {
        return;
    }
    let mut set = Set::of_lake(3);
    let rows = set.rows();
    set.retract(&rows[0]);
    let export = set.bench.export();
    // Neither the lake nor the directory can be listed, and there is no state.
    let run = |arguments: &[&str]| {
        let mut command = set.bench.as_unprivileged(&[]);
        let program = command.get_program().to_owned();
        command = Command::new(program);
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
        set.bench.run(
            command
                .env_clear()
                .args(arguments)
                .arg("--export")
                .arg(&export),
        )
    };
    run(&["rows"]).check(0, &[]);
    let dir = export.parent().unwrap();
    fs::set_permissions(set.bench.root(), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).unwrap();
    let ended = run(&["rows"]);
    ended.check(0, &[]);
    assert_eq!(
        ended.stdout.as_bytes(),
        set.effective(usize::MAX, 0, set.len())
    );
    let cited = run(&["cite", "--json"]);
    cited.check(0, &[]);
    let cited: Value = serde_json::from_str(&cited.stdout).unwrap();
    run(&["verify", "--at", cited["version"].as_str().unwrap()]).check(0, &[]);
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["sft_export.jsonl", "sft_retractions.jsonl"]);
    fs::set_permissions(set.ledger(), fs::Permissions::from_mode(0o600)).unwrap();
    let ended = run(&["rows"]);
    ended.check(
        1,
        &[
            "cannot read",
            "sft_retractions.jsonl",
            "Permission denied",
            "fix: ",
        ],
    );
    assert_eq!(ended.stdout, "");
}

/// A damage to a ledger, and what the refusal contains.
type Damage = (&'static str, fn(&mut Vec<Value>), &'static str);

#[test]
fn each_event_is_compared_with_its_row_before_the_first_row_is_written() {
    let mut set = Set::of_lake(3);
    let rows = set.rows();
    for row in rows[..rows.len() - 1].iter().step_by(2) {
        set.retract(row);
    }
    let good = set.events.clone();
    assert!(good.len() > 12, "{}", good.len());
    for event in 1..good.len() {
        // The row after it, so that the retracted one is let through.
        let next = &rows[2 * event - 1];
        for keys in [&["row_hash"][..], &["row_offset", "row_len"]] {
            set.events.clone_from(&good);
            for key in keys {
                set.events[event][*key] = match *key {
                    "row_hash" => sha256(&next.1)[..32].into(),
                    "row_offset" => next.0.into(),
                    _ => next.1.len().into(),
                };
            }
            set.write_ledger();
            let ended = set.run(&["rows"]);
            ended.check(1, &["does not have the hash", "fix: "]);
            assert_eq!(ended.stdout, "", "event {event}");
        }
    }
}

#[test]
fn a_bad_ledger_is_refused_and_no_row_is_written() {
    const DAMAGES: [Damage; 16] = [
        (
            "a gap",
            |events| drop(events.remove(1)),
            "seq is 2, and 1 follows",
        ),
        (
            "no begin",
            |events| drop(events.remove(0)),
            "seq is 1, and 0 follows",
        ),
        (
            "repeated",
            |events| events.push(events[2].clone()),
            "seq is 2, and 4 follows",
        ),
        (
            "twice begun",
            |events| {
                events[2]["op"] = "begin".into();
                events[2]["cause"] = "created".into();
                events[2]["row_offset"] = (-1).into();
                events[2]["row_len"] = (-1).into();
                events[2]["row_hash"] = "".into();
            },
            "the first line alone is begin",
        ),
        (
            "another export's line",
            |events| events[2]["export"] = "4f1c09b2a77d5e04".into(),
            "the line belongs to the export 4f1c09b2a77d5e04",
        ),
        (
            "retracted twice",
            |events| {
                let row = events[1].clone();
                for key in ["row_offset", "row_len", "row_hash"] {
                    events[2][key] = row[key].clone();
                }
            },
            "does not alternate",
        ),
        (
            "restored first",
            |events| events[1]["op"] = "restore".into(),
            "restore of the row at",
        ),
        (
            "a missing key",
            |events| drop(events[1].as_object_mut().unwrap().remove("reason")),
            "missing field `reason`",
        ),
        (
            "another key",
            |events| events[1]["more"] = 1.into(),
            "unknown field `more`",
        ),
        (
            "null",
            |events| events[1]["reason"] = Value::Null,
            "invalid type: null",
        ),
        (
            "a later format",
            |events| events[1]["schema_version"] = 2.into(),
            "schema_version is 2",
        ),
        (
            "no length",
            |events| events[1]["row_len"] = 0.into(),
            "row_len has a value",
        ),
        (
            "a later export",
            |events| events[3]["export_len"] = 1_000_000_000.into(),
            "and its ledger was written when it had 1000000000",
        ),
        (
            "a hash of another row",
            |events| events[2]["row_hash"] = events[1]["row_hash"].clone(),
            "a row does not have the hash",
        ),
        (
            "no row's start",
            |events| {
                events[3]["row_offset"] = (events[3]["row_offset"].as_u64().unwrap() + 1).into()
            },
            "no row starts where",
        ),
        (
            "overlapping rows",
            |events| {
                let len = events[1]["row_len"].as_u64().unwrap();
                events[1]["row_len"] = (len + 1).into();
                events[2]["row_offset"] = (events[1]["row_offset"].as_u64().unwrap() + len).into();
            },
            "a row overlaps the next one",
        ),
    ];
    let mut set = Set::of_lake(3);
    let rows = set.rows();
    for row in &rows[..3] {
        set.retract(row);
    }
    set.out(&["rows"]);
    let good = set.events.clone();
    for (what, damage, word) in DAMAGES {
        set.events.clone_from(&good);
        damage(&mut set.events);
        set.write_ledger();
        for command in ["rows", "cite"] {
            let ended = set.run(&[command]);
            assert!(ended.stderr.contains(word), "{what}: {}", ended.stderr);
            ended.check(
                1,
                &["sft_retractions.jsonl", "fix: "].map(|word| {
                    if what == "a later export" {
                        "fix: "
                    } else {
                        word
                    }
                }),
            );
            assert_eq!(ended.stdout, "", "{what}");
        }
    }
    for (text, word) in [
        ("", "is empty"),
        ("garbage\n", "not an event"),
        ("{}\n", "missing field"),
        ("{\"schema_version\":1", "ends within a line"),
        ("\0\0\0\0\n", "not an event"),
    ] {
        fs::write(set.ledger(), text).unwrap();
        let ended = set.run(&["rows"]);
        ended.check(1, &[word, "fix: "]);
        assert_eq!(ended.stdout, "");
    }
    fs::remove_file(set.ledger()).unwrap();
    set.run(&["rows"]).check(1, &["has no ledger", "fix: "]);
    fs::create_dir(set.ledger()).unwrap();
    set.run(&["rows"]).check(1, &["cannot read", "fix: "]);
    fs::remove_file(set.bench.export()).unwrap();
    set.run(&["cite"])
        .check(1, &["there is no export", "fix: "]);
}

#[test]
fn a_ledger_of_another_lake_is_refused() {
    let mut set = Set::of_lake(3);
    let mut other = Set::of_lake(4);
    let rows = other.rows();
    other.retract(&rows[1]);
    // Of an export that is not longer, so that lengths do not show it.
    let len = set.len().min(other.len());
    other.events[1]["export_len"] = len.into();
    other.write_ledger();
    fs::copy(other.ledger(), set.ledger()).unwrap();
    let ended = set.run(&["rows"]);
    ended.check(1, &["does not fit its export", "fix: "]);
    assert_eq!(ended.stdout, "");
    // A damage after the rows that are compared first is found when it is reached.
    set.events.truncate(1);
    let own = set.rows();
    for row in &own[..12] {
        set.retract(row);
    }
    set.events[3]["row_len"] = (own[2].1.len() - 1).into();
    set.write_ledger();
    for arguments in [&["rows"][..], &["rows", "--offsets"], &["cite"]] {
        set.run(arguments).check(1, &["does not fit its export"]);
    }
}

/// A line that is not complete may retract a row; a row that is not complete is none.
#[test]
fn a_torn_row_does_not_count_and_a_torn_line_of_the_ledger_is_refused() {
    let mut set = Set::of_lake(3);
    let rows = set.rows();
    set.retract(&rows[1]);
    let (version, effective, len) = (set.version(), set.out(&["rows"]), set.len());
    set.append(b"{\"schema_version\":1,\"id\":\"torn");
    assert_eq!(set.out(&["rows"]), effective);
    assert_eq!(set.version(), version);
    let whole = fs::read(set.ledger()).unwrap();
    let more = [&whole[..], b"{\"schema_version\":1,\"seq\":2,"].concat();
    for torn in [&more[..], &whole[..whole.len() - 1]] {
        fs::write(set.ledger(), torn).unwrap();
        let len = len.to_string();
        for arguments in [&["rows"][..], &["cite"], &["rows", "--at", &len]] {
            let ended = set.run(arguments);
            ended.check(1, &["sft_retractions.jsonl ends within a line", "fix: "]);
            assert_eq!(ended.stdout, "");
        }
    }
    // A version names the bytes that count.
    fs::write(set.ledger(), &more).unwrap();
    assert_eq!(set.out(&["rows", "--at", &version]), effective);
    // A writer that is in the middle of a line ends it.
    let (begun, rest) = whole.split_at(whole.len() - 9);
    fs::write(set.ledger(), begun).unwrap();
    let reader = set.bench.command(&["rows"]).stdout(Stdio::piped()).spawn();
    // Appended, as a writer does: a file that is written whole is empty for a moment.
    let mut writer = OpenOptions::new().append(true).open(set.ledger()).unwrap();
    writer.write_all(rest).unwrap();
    let ended = reader.unwrap().wait_with_output().unwrap();
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), effective);
}

#[test]
fn rows_begin_at_the_start_of_a_row_only() {
    let mut set = Set::of_lake(3);
    let rows = set.rows();
    set.retract(&rows[1]);
    let (version, len) = (set.version(), set.len());
    for offset in [1, rows[1].0 - 1, rows[1].0 + 1] {
        let ended = set.run(&["rows", "--from", &offset.to_string()]);
        ended.check(1, &[&format!("starts at byte {offset}"), "fix: "]);
        assert_eq!(ended.stdout, "");
    }
    set.run(&["rows", "--from", &(len + 1).to_string()])
        .check(1, &["ends at byte", "fix: "]);
    assert_eq!(set.out(&["rows", "--from", &len.to_string()]), "");
    assert_eq!(set.out(&["rows", "--from", &version]), "");
    set.append(&rows[0].1);
    assert_eq!(set.out(&["rows", "--from", &version]).as_bytes(), rows[0].1);
    set.events[0]["export"] = "0000000000000001".into();
    set.events[1]["export"] = "0000000000000001".into();
    set.write_ledger();
    set.run(&["rows", "--from", &version])
        .check(1, &["a rebuild came between", "0000000000000001", "fix: "]);
    set.run(&["rows", "--from", "x"]).check(2, &[]);
}

#[test]
fn a_version_is_reproduced_after_growth_and_its_loss_is_named() {
    let mut set = Set::of_lake(3);
    let rows = set.rows();
    set.retract(&rows[1]);
    set.retract(&rows[2]);
    let (old, old_rows, old_len) = (set.version(), set.out(&["rows"]), set.len());
    let cited = set.cite(&[]);
    let check = Command::new("sh")
        .args(["-c", cited["check"].as_str().unwrap()])
        .output()
        .unwrap();
    let digest = String::from_utf8(check.stdout).unwrap();
    assert_eq!(old.rsplit_once(':').unwrap().1, digest.trim_end());
    assert_eq!(cited["export_sha256"], sha256(&set.bytes()));

    // Growth: rows, a restoration, more retractions, one of a new row.
    let more: Vec<u8> = rows[..4].iter().flat_map(|row| row.1.clone()).collect();
    set.append(&more);
    set.restore(&rows[1]);
    set.retract(&rows[0]);
    let new_row = set.rows()[rows.len()].clone();
    set.retract(&new_row);
    let new = set.version();
    let fits = set.out(&["verify", "--at", &old]);
    assert!(fits.contains("\"result\":\"fits\""), "{fits}");
    assert_eq!(set.out(&["rows", "--at", &old]), old_rows);
    assert_eq!(set.out(&["rows", "--at", &old_len.to_string()]), old_rows);
    assert_eq!(set.cite(&["--at", &old])["version"], *old);
    assert_eq!(set.cite(&["--at", &old_len.to_string()])["version"], *old);
    let difference = set.cite(&[&format!("{old}..{new}")]);
    let figures = ["added", "retracted", "restored"].map(|key| difference[key].as_u64().unwrap());
    assert_eq!(figures, [3, 1, 1]);
    set.run(&["cite", &format!("{new}..{old}")])
        .check(1, &["is before", "fix: "]);
    // The ledger's times are 2026-05-02, the rows' are those of the batch.
    set.run(&["rows", "--at", "2020-01-01T00:00:00Z"])
        .check(1, &["begins at", "fix: "]);
    set.run(&["rows", "--at", "1"])
        .check(1, &["starts at byte 1", "fix: "]);
    set.run(&["rows", "--at", "900000000"])
        .check(1, &["ends at byte", "fix: "]);

    // Changed bytes within the version, and after it.
    let change = |path: PathBuf, at: u64| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    };
    change(set.bench.export(), old_len - 3);
    set.check_lost(
        &old,
        "changed",
        &["are not those of the version", "its digest is"],
    );
    change(set.bench.export(), old_len - 3);
    change(set.bench.export(), old_len + 3);
    set.out(&["verify", "--at", &old]);
    change(set.bench.export(), old_len + 3);
    let second = fs::read(set.ledger()).unwrap();
    let at = second
        .windows(5)
        .rposition(|part| part == b"run 1")
        .unwrap() as u64;
    change(set.ledger(), at);
    set.check_lost(&old, "changed", &["are not those of the version"]);
    change(set.ledger(), at);
    set.out(&["verify", "--at", &old]);

    // Cut, then replaced.
    let export = set.bytes();
    fs::write(
        set.bench.export(),
        &export[..usize::try_from(old_len).unwrap() - 1],
    )
    .unwrap();
    set.check_lost(
        &old,
        "shorter",
        &["sft_export.jsonl has", "and the version"],
    );
    fs::write(set.bench.export(), &export).unwrap();
    for event in &mut set.events {
        event["export"] = "0000000000000001".into();
    }
    set.events[0]["cause"] = "rebuild".into();
    set.events[0]["reason"] = "replaces the old one".into();
    set.write_ledger();
    set.check_lost(
        &old,
        "rebuilt",
        &[
            "0000000000000001",
            "a rebuild came between",
            "replaces the old one",
        ],
    );
}

#[test]
fn a_time_is_what_was_known_then() {
    let row = |second: u32| {
        let text = format!("\"created_at\":\"2026-05-02T03:04:{second:02}.000Z\"");
        format!(
            "{{\"id\":\"a.jsonl:{second}\",\"source_run_id\":\"{second}\",\"quality_score\":\"accepted\",{text},\"provenance\":{{\"source_file\":\"f\",\"line_offset\":1,\"sig_hash\":\"s\"}}}}\n"
        )
    };
    // The events have the second of their number: 0 begins, 1 and 2 retract.
    let mut set = Set::new(row(0).as_bytes());
    set.append(row(1).as_bytes());
    let rows = set.rows();
    set.retract(&rows[0]);
    set.retract(&rows[1]);
    set.append((row(3) + &row(9)).as_bytes());
    for (at, rows) in [
        ("2026-05-02T03:04:00Z", row(0)),
        ("2026-05-02T03:04:01.5Z", row(1)),
        ("2026-05-02T03:04:02Z", String::new()),
        ("2026-05-02T03:04:08Z", row(3)),
        ("2026-05-03T00:00:00Z", row(3) + &row(9)),
    ] {
        // At 0 s and 1 s the events belong to an export that was longer.
        set.events[1]["export_len"] = (row(0).len() + row(1).len()).into();
        set.write_ledger();
        assert_eq!(set.out(&["rows", "--at", at]), rows, "{at}");
    }
    // A rebuild keeps stamps in any order; what it wrote counts from its start.
    set.events[0]["export_len"] = set.len().into();
    set.events[1]["export_len"] = set.len().into();
    set.events[2]["export_len"] = set.len().into();
    set.write_ledger();
    assert_eq!(
        set.out(&["rows", "--at", "2026-05-02T03:04:02Z"]),
        row(3) + &row(9)
    );
}

/// A clock that was wrong for some time: no time gives a row that was retracted before it, or lacks one without a word.
#[test]
fn a_time_is_what_was_known_then_also_after_the_clock_went_back() {
    let row = |number: usize, stamp: &str| {
        format!(
            "{{\"id\":\"a.jsonl:{number}\",\"source_run_id\":\"{number}\",\"quality_score\":\"accepted\",\"created_at\":\"{stamp}\",\
             \"provenance\":{{\"source_file\":\"f\",\"line_offset\":1,\"sig_hash\":\"s\"}}}}\n"
        )
    };
    const FUTURE: &str = "2938-01-01T00:00:00Z";
    const AHEAD: &str = "2026-05-04T00:00:00Z";
    let set_of = |stamps: [&str; 4], at: &str| {
        let rows: Vec<String> = (0..4).map(|n| row(n, stamps[n])).collect();
        let mut set = Set::new(rows[0].as_bytes());
        set.append(rows[1..].concat().as_bytes());
        let first = set.rows()[0].clone();
        set.retract(&first);
        set.events[0]["at"] = "2026-05-02T03:04:00Z".into();
        set.events[1]["at"] = at.into();
        set.write_ledger();
        (set, rows)
    };
    let second = |second: u32| format!("2026-05-02T03:04:{second:02}.000Z");
    let [s0, s1, s2, s3, s4, s5] = [0, 1, 2, 3, 4, 5].map(second);
    // The second row, or the event, has a stamp in the future.
    let (set, rows) = set_of([&s0, FUTURE, &s2, &s3], &s4);
    assert_eq!(set.out(&["rows", "--at", &s5]), rows[1..].concat());
    assert_eq!(set.out(&["rows", "--at", &s2]), rows[..3].concat());
    let (set, rows) = set_of([&s0, &s1, &s2, &s3], FUTURE);
    assert_eq!(set.out(&["rows", "--at", &s5]), rows[1..].concat());
    // A stamp of the past is wrong as well, if others follow it. What was known before it, and after it, is known.
    let (set, rows) = set_of([&s0, AHEAD, &s2, &s3], &s4);
    for at in [&s2, &s3, &s5] {
        let ended = set.run(&["rows", "--at", at]);
        ended.check(1, &["the clock of its host went back", "a version of"]);
        assert_eq!(ended.stdout, "");
        set.run(&["cite", "--at", at]).check(1, &["went back"]);
    }
    assert_eq!(set.out(&["rows", "--at", &s1]), rows[0]);
    assert_eq!(set.out(&["rows", "--at", AHEAD]), rows[1..].concat());
    // An event between rows of later commits.
    let (mut set, rows) = set_of([&s0, &s1, &s2, &s3], AHEAD);
    assert_eq!(set.out(&["rows", "--at", &s5]), rows.concat());
    let second_row = set.rows()[1].clone();
    set.retract(&second_row);
    set.events[2]["at"] = s4.clone().into();
    set.write_ledger();
    set.run(&["rows", "--at", &s5]).check(1, &["went back"]);
    assert_eq!(set.out(&["rows", "--at", AHEAD]), rows[2..].concat());
    // Stamps of two threads.
    let (set, rows) = set_of(
        [&s0, "2026-05-02T03:04:01.4Z", "2026-05-02T03:04:01.2Z", &s3],
        &s4,
    );
    assert_eq!(
        set.out(&["rows", "--at", "2026-05-02T03:04:01.3Z"]),
        rows[..3].concat()
    );
}

#[test]
fn a_follower_writes_rows_and_what_happens_to_them() {
    let mut set = Set::of_lake(3);
    let rows = set.rows();
    set.retract(&rows[0]);
    let version = set.version();
    let mut command = set.bench.command(&["rows", "--follow"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    for row in &rows[1..] {
        assert_eq!(next() + "\n", String::from_utf8_lossy(&row.1));
    }
    let event = |line: String| -> Value { serde_json::from_str(&line).unwrap() };
    set.retract(&rows[1]);
    let line = event(next());
    assert_eq!(
        (&line["_retracted"], &line["cause"], &line["source_run_id"]),
        (&json!(rows[1].0), &json!("rejected"), &json!("run 2"))
    );
    // The row that it never wrote follows its restoration.
    set.restore(&rows[0]);
    assert_eq!(event(next())["_restored"], rows[0].0);
    assert_eq!(next() + "\n", String::from_utf8_lossy(&rows[0].1));
    // Two rows, one of which is retracted with its commit: ledger first, then the export.
    let at = set.len();
    let both = [rows[2].1.clone(), rows[3].1.clone()].concat();
    let out = (at, rows[2].1.clone());
    set.event("retract", "rescored", Some(&out), at + both.len() as u64);
    set.append(&both);
    assert_eq!(next() + "\n", String::from_utf8_lossy(&rows[3].1));

    // One that resumes at the version has the same.
    let mut command = set
        .bench
        .command(&["rows", "--follow", "--offsets", "--from", &version]);
    let mut resumed = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(resumed.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(event(next())["_retracted"], rows[1].0);
    assert_eq!(event(next())["_restored"], rows[0].0);
    assert_eq!(event(next())["_offset"], rows[0].0);
    assert_eq!(event(next())["_offset"], at + rows[2].1.len() as u64);
    drop(lines);
    // Its reader is gone, which ends it without an error.
    assert_eq!(resumed.wait().unwrap().code(), Some(0));

    // A rebuild: other files take the names.
    let new = set.bench.sibling("new");
    fs::write(&new, &rows[0].1).unwrap();
    for event in &mut set.events {
        event["export"] = "0000000000000001".into();
    }
    set.events.truncate(1);
    set.write_ledger();
    fs::rename(new, set.bench.export()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("was replaced while it was read"),
        "{stderr}"
    );
}

/// Appends commits as the daemon does: the ledger first, then the export, each in two parts.
fn commit_at_random(set: &mut Set, rng: &mut Rng, number: usize) {
    let old = set.rows();
    let start = set.len();
    let row = |part: usize| format!("{{\"r\":\"{number}.{part} {}\"}}\n", "x".repeat(part * 50));
    let new: Vec<Vec<u8>> = (0..rng.usize(1..5))
        .map(|part| row(part).into_bytes())
        .collect();
    let end = start + new.iter().map(|row| row.len() as u64).sum::<u64>();
    let out = set.retracted(usize::MAX);
    let mut offset = start;
    let new_rows = new.iter().map(|row| {
        offset += row.len() as u64;
        (offset - row.len() as u64, row.clone())
    });
    let all: Vec<Row> = old.into_iter().chain(new_rows).collect();
    for row in all.iter().filter(|row| !out.contains_key(&row.0)) {
        if rng.u8(..10) == 0 {
            set.event("retract", "rescored", Some(row), end);
        }
    }
    let bytes = new.concat();
    let (first, rest) = bytes.split_at(rng.usize(..bytes.len()));
    set.append(first);
    set.append(rest);
}

#[test]
fn a_live_reader_never_has_a_row_whose_retraction_was_committed_before() {
    let mut set = Set::new(b"");
    let (export, ledger) = (set.bench.export(), set.ledger());
    let writer = std::thread::spawn(move || {
        let mut rng = Rng::with_seed(7);
        for number in 0..150 {
            commit_at_random(&mut set, &mut rng, number);
        }
        set
    });
    let mut reads = 0;
    let shape = Shape {
        offsets: true,
        ..Shape::default()
    };
    while !writer.is_finished() || reads == 0 {
        // Whole lines that were there before the reader began.
        let before = fs::read_to_string(&ledger).unwrap();
        let whole = &before[..before.rfind('\n').map_or(0, |at| at + 1)];
        let events = whole
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let retracted: Vec<u64> = events
            .filter_map(|event| event["row_offset"].as_u64())
            .collect();
        let snapshot = Snapshot::open(&OsStorage, &export, None).unwrap();
        let mut copied = Vec::new();
        copy_rows(&snapshot, 0, false, shape, &mut copied).unwrap();
        let (offsets, _) = with_offsets(&String::from_utf8(copied).unwrap());
        for offset in retracted {
            assert!(!offsets.contains(&offset), "{offset} is retracted");
        }
        // The version is one of the history, so it is reproduced later.
        let version = snapshot.version().unwrap();
        let again = Snapshot::open(&OsStorage, &export, Some(At::Version(version))).unwrap();
        let mut copied_again = Vec::new();
        copy_rows(&again, 0, false, shape, &mut copied_again).unwrap();
        assert_eq!(
            with_offsets(&String::from_utf8(copied_again).unwrap()).0,
            offsets
        );
        reads += 1;
    }
    let set = writer.join().unwrap();
    assert!(set.events.len() > 100 && set.effective(usize::MAX, 0, set.len()).len() > 1_000);
}

#[test]
fn a_closed_output_is_no_error() {
    let row = format!("{{\"r\":\"{}\"}}\n", "x".repeat(1_000));
    let set = Set::new(row.repeat(2_000).as_bytes());
    for arguments in [
        &["rows"][..],
        &["rows", "--safe-lines"],
        &["rows", "--follow"],
    ] {
        let mut command = set.bench.command(arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap() + "\n", row);
        drop(lines);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    }
}
