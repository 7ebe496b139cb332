//! Texts that are made to have one xxh3-128, which takes no search: run ids, origins of rows and answers of models are
//! chosen by the writers of the lake. No run gets the row of another, and no command takes one row for another.

use std::fs;

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, evidence_with, scored, wait_for_later};

const PAIR: &str = "2026/01/01/n.jsonl";

/// Returns two texts: a stream of bytes has one xxh3-128 with either of them at offset `from`. Both words of eight bytes
/// are multiplied by the same factor there, and what the one gains the other loses.
fn colliding(from: usize) -> [String; 2] {
    let text = |first: &str, second: &str| {
        let filler = |to: usize, at: usize| "x".repeat(to - at);
        let (one, two) = (filler(608, from), filler(800, 616));
        format!("{one}{first}{two}{second}{}", filler(1_400, 808))
    };
    [text("AAA0aaaa", "RXVtacaa"), text("AAA0acaa", "RXVtaaaa")]
}

/// Checks that two streams of bytes differ and collide.
fn assert_collide(one: &[u8], two: &[u8]) {
    assert_ne!(one, two);
    assert_eq!(xxh3_128(one), xxh3_128(two));
}

fn verify(bench: &Bench, code: i32) -> Value {
    let ended = bench.run(&mut bench.command(&["verify"]));
    ended.check(code, &[]);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Returns the rows of a batch of the lake.
fn batch_rows(bench: &Bench) -> usize {
    let ended = bench.run(&mut bench.command(&["export", "--output", "-"]));
    ended.check(0, &[]);
    ended.stdout.lines().count()
}

/// Reads the lake once. A row that is not later than the last change of its day-files may be one of content that was there
/// before, which `verify` excuses.
fn once(bench: &Bench) {
    for stream in Stream::BOTH {
        let path = bench.path(stream, PAIR);
        if path.exists() {
            wait_for_later(&path);
        }
    }
    bench.once();
}

#[test]
fn a_run_is_joined_with_its_own_evidence_whatever_the_order() {
    let [one, two] = colliding(0);
    assert_collide(one.as_bytes(), two.as_bytes());
    for evidence_first in [true, false] {
        let bench = Bench::new();
        let evidence = [evidence_with(&one, "first"), evidence_with(&two, "second")].concat();
        let parts = [
            (Stream::Evidence, evidence),
            (Stream::Scored, scored(&one) + &scored(&two)),
        ];
        let order = if evidence_first { [0, 1] } else { [1, 0] };
        for at in order {
            bench.append(parts[at].0, PAIR, &parts[at].1);
            once(&bench);
        }
        bench.assert_batch();
        bench.assert_runs(&[&one, &two]);
        assert_eq!(batch_rows(&bench), 2);
        verify(&bench, 0);
    }
}

#[test]
fn a_run_without_evidence_gets_none_of_another_run() {
    let [one, two] = colliding(0);
    let bench = Bench::new();
    bench.append(Stream::Evidence, PAIR, evidence_with(&two, "second"));
    once(&bench);
    bench.append(Stream::Scored, PAIR, scored(&one));
    once(&bench);
    assert_eq!((bench.row_count(), batch_rows(&bench)), (0, 0));
    assert_eq!(bench.status()["scored"]["waiting"], 1);
    verify(&bench, 0);
    // A row that joins the two is no row of this lake, and a firewalled line of one run retracts no row of the other.
    bench.append(Stream::Evidence, PAIR, evidence_with(&one, "first"));
    bench.append(
        Stream::Scored,
        PAIR,
        scored(&two).replace("accepted", "rejected"),
    );
    once(&bench);
    bench.assert_runs(&[&one]);
    assert_eq!(bench.status()["export"]["contradicted"], 0);
    let forged = fs::read_to_string(bench.export())
        .unwrap()
        .replace("\"first\"", "\"second\"");
    fs::write(bench.export(), forged).unwrap();
    assert_eq!(verify(&bench, 1)["equal"], false);
}

/// Returns an accepted line of run `r` with this origin.
fn scored_from(source_file: &str) -> String {
    scored("r").replace(
        "\"source_file\":\"s\"",
        &format!("\"source_file\":\"{source_file}\""),
    )
}

#[test]
fn a_row_belongs_to_the_line_of_its_own_origin() {
    // The length and the text of each part: day-file, run, source file.
    let prefix = ["n.jsonl", "r", ""].map(|text| 8 + text.len());
    let [one, two] = colliding(prefix.iter().sum());
    let stream = |source: &str| {
        let texts = ["n.jsonl", "r", source, "hash of r"];
        let texts =
            texts.map(|text| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat());
        [texts.concat(), 7_i64.to_le_bytes().to_vec()].concat()
    };
    assert_collide(&stream(&one), &stream(&two));

    let bench = Bench::new();
    bench.append(Stream::Evidence, PAIR, evidence_with("r", "said"));
    bench.append(Stream::Scored, PAIR, scored_from(&one));
    once(&bench);
    // A batch that would put the other line's row in the place of this one is refused.
    bench.remove_state();
    fs::write(bench.path(Stream::Scored, PAIR), scored_from(&two)).unwrap();
    let batch = bench.run(&mut bench.command(&["export"]));
    assert_ne!(batch.status.code(), Some(0), "{}", batch.stdout);
    assert_eq!(bench.row_count(), 1);
    // The other line comes first and finds the row without a state: it is not its own.
    fs::write(
        bench.path(Stream::Scored, PAIR),
        scored_from(&two) + &scored_from(&one),
    )
    .unwrap();
    once(&bench);
    assert_eq!(bench.row_count(), 2);
    let rows = fs::read_to_string(bench.export()).unwrap();
    assert!(rows.contains(&one) && rows.contains(&two));
}

#[test]
fn a_row_with_another_text_is_another_row() {
    let bench = Bench::new();
    bench.append(Stream::Scored, PAIR, scored("r"));
    bench.append(Stream::Evidence, PAIR, evidence_with("r", "TEXT"));
    once(&bench);
    let row = fs::read_to_string(bench.export()).unwrap();
    let row = row.trim_end();
    let [one, two] = colliding(row.find("TEXT").unwrap());
    let fields: Value = serde_json::from_str(row).unwrap();
    let time = fields["created_at"].to_string();
    let without_times = |text: &str| row.replace("TEXT", text).replace(&time, "");
    assert_collide(
        without_times(&one).as_bytes(),
        without_times(&two).as_bytes(),
    );

    let bench = Bench::new();
    bench.append(Stream::Scored, PAIR, scored("r"));
    bench.append(Stream::Evidence, PAIR, evidence_with("r", &one));
    once(&bench);
    verify(&bench, 0);
    let export = fs::read_to_string(bench.export()).unwrap();
    fs::write(bench.export(), export.replace(&one, &two)).unwrap();
    assert_eq!(verify(&bench, 1)["equal"], false);

    let rebuild = bench.ask(&["rebuild", "--dry-run"]);
    assert_eq!(
        (&rebuild["rows_kept"], &rebuild["rows_replaced"]),
        (&0.into(), &1.into())
    );
}
