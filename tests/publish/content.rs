//! What is published, and what is taken out again.

use std::fs;

use serde_json::json;

use crate::publisher::{PAIR, Publisher, many_runs, python};
use crate::support::lake_gen::Stream;
use crate::support::process::{evidence_with, scored};

#[test]
fn the_table_has_the_bytes_of_the_effective_rows() {
    if python().is_none() {
        return;
    }
    let publisher = Publisher::new();
    let odd = "\\u0001 \\\" \\\\ \u{2028} \u{7f} é \\ud83d\\ude00 </a> \\n\\t\\b\\f";
    publisher
        .bench
        .append(Stream::Evidence, PAIR, evidence_with("odd", odd));
    publisher.bench.append(Stream::Scored, PAIR, scored("odd"));
    publisher.export_runs(&["a", "b"]);
    let first = publisher.once();
    assert_eq!((&first["commits"], &first["rows"]), (&json!(1), &json!(3)));
    publisher.assert_published();
    publisher.export_runs(&["c"]);
    let second = publisher.once();
    assert_eq!(
        (&second["commits"], &second["rows"]),
        (&json!(1), &json!(1))
    );
    publisher.assert_published();
    let idle = publisher.once();
    assert_eq!(
        (&idle["commits"], &idle["version"]),
        (&json!(0), &second["version"])
    );
}

#[test]
fn rows_of_another_exporter_keep_their_bytes() {
    if python().is_none() {
        return;
    }
    let publisher = Publisher::new();
    let bench = &publisher.bench;
    bench.append(Stream::Evidence, PAIR, evidence_with("go", "a <b> & c"));
    bench.append(Stream::Scored, PAIR, scored("go"));
    bench
        .run(&mut bench.command(&["export", "--dialect", "go"]))
        .check(0, &[]);
    publisher.export_runs(&["native"]);
    assert!(
        fs::read_to_string(bench.export())
            .unwrap()
            .contains("\\u003cb\\u003e")
    );
    publisher.once();
    publisher.assert_published();
}

#[test]
fn a_retracted_row_leaves_the_table_and_a_restored_one_returns() {
    if python().is_none() {
        return;
    }
    let publisher = Publisher::new();
    publisher.export_runs(&["a", "b", "c"]);
    let before = publisher.once()["version"].as_u64().unwrap();
    let scored_lines = fs::read(publisher.bench.path(Stream::Scored, PAIR)).unwrap();
    publisher.judge("b", "rejected");
    let out = publisher.once();
    assert_eq!((&out["retracted"], &out["rows"]), (&json!(1), &json!(0)));
    publisher.assert_published();
    assert_eq!(publisher.table_runs(None), ["a", "c"]);
    assert_eq!(publisher.table_runs(Some(before)), ["a", "b", "c"]);
    // The day-file loses the line that rejects the run.
    fs::write(publisher.bench.path(Stream::Scored, PAIR), scored_lines).unwrap();
    publisher.bench.once();
    let back = publisher.once();
    assert_eq!((&back["retracted"], &back["rows"]), (&json!(0), &json!(1)));
    publisher.assert_published();
    assert_eq!(publisher.table_runs(None), ["a", "b", "c"]);
}

#[test]
fn a_row_that_is_retracted_already_is_in_no_version() {
    if python().is_none() {
        return;
    }
    let publisher = Publisher::new();
    publisher.export_runs(&["a", "b"]);
    publisher.judge("a", "needs_human_review");
    let account = publisher.once();
    publisher.assert_published();
    for version in 0..=account["version"].as_u64().unwrap() {
        assert!(
            !publisher
                .table_runs(Some(version))
                .contains(&"a".to_owned())
        );
    }
}

#[test]
fn a_commit_has_about_the_configured_bytes_and_the_table_gets_checkpoints() {
    if python().is_none() {
        return;
    }
    let publisher = Publisher::new();
    publisher.configure("commit_bytes = \"1KiB\"\ncheckpoint_every = 5\n");
    let (evidence, scored) = many_runs("r", 40);
    publisher.bench.append(Stream::Evidence, PAIR, evidence);
    publisher.bench.append(Stream::Scored, PAIR, scored);
    publisher.bench.once();
    let account = publisher.once();
    assert!(account["commits"].as_u64().unwrap() > 5, "{account}");
    assert!(
        publisher
            .bench
            .sibling("sft/_delta_log/_last_checkpoint")
            .exists()
    );
    publisher.assert_published();
    publisher.judge("r-0", "rejected");
    publisher.once();
    publisher.assert_published();
}
