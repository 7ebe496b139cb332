//! Rows that were altered in the export, and sources that were rewritten after their rows were written: `verify`
//! distinguishes them by the hashes in the state, and reports where it cannot.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use distilld::platform::clock::{Clock as _, HostClock};
use distilld::record::timestamp::stamp;
use serde_json::Value;

use crate::support::kill_harness::wait_until;
use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, Ended, LONG, evidence_with, scored, wait_for_later};

const PAIR: &str = "2026/01/01/n.jsonl";
const OTHER: &str = "2026/01/02/n.jsonl";

/// A lake whose two runs have rows.
fn lake() -> Bench {
    let bench = Bench::new();
    for run in ["a", "b"] {
        let text = format!("good text of {run}");
        bench.append(Stream::Evidence, PAIR, evidence_with(run, &text));
        bench.append(Stream::Scored, PAIR, scored(run));
    }
    bench.once();
    wait_for_later(&bench.export());
    bench
}

/// Overwrites a text of a file in place.
fn overwrite(path: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(path).unwrap();
    let at = text.find(old).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(new.as_bytes(), at as u64).unwrap();
}

fn verified(bench: &Bench) -> (Value, Ended) {
    let ended = bench.run(&mut bench.command(&["verify"]));
    (serde_json::from_str(&ended.stdout).unwrap(), ended)
}

/// Returns `equal`, `complete`, and how many rows are `altered`, `rewritten` and `undetermined`.
fn verdict(result: &Value) -> (bool, bool, [u64; 3]) {
    let flag = |name: &str| result[name].as_bool().unwrap();
    let counts = ["altered", "rewritten", "undetermined"];
    (
        flag("equal"),
        flag("complete"),
        counts.map(|name| result[name].as_u64().unwrap()),
    )
}

type Change = fn(&Bench);

#[test]
fn an_altered_row_is_found_whatever_happens_to_its_day_file_later() {
    let changes: [(&str, Change); 5] = [
        ("nothing", |_| {}),
        ("evidence of another run", |bench| {
            bench.append(Stream::Evidence, PAIR, evidence_with("other", "t"));
        }),
        ("a scored line of another run", |bench| {
            bench.append(Stream::Scored, PAIR, scored("other"));
        }),
        ("other rights", |bench| {
            let evidence = bench.path(Stream::Evidence, PAIR);
            fs::set_permissions(evidence, Permissions::from_mode(0o640)).unwrap();
        }),
        ("evidence of the run", |bench| {
            let line = evidence_with("a", "later text");
            bench.append(Stream::Evidence, PAIR, line);
        }),
    ];
    for (what, change) in changes {
        for running in [false, true] {
            let bench = lake();
            let daemon = running.then(|| bench.start_caught_up());
            overwrite(&bench.export(), "good text of a", "evil text of a");
            change(&bench);
            let (result, ended) = verified(&bench);
            // A daemon that found the change itself names it and answers nothing else.
            let is_named = running && ended.stderr.contains("was changed by someone else");
            let expected = match is_named {
                true => (true, false, [0, 1, 1]),
                false => (false, true, [1, 0, 0]),
            };
            let found = verdict(&result);
            assert_eq!(
                found, expected,
                "{what}, running {running}: {}",
                ended.stderr
            );
            ended.check(1, if is_named { &[] } else { &["altered: the row"] });
            drop(daemon);
        }
    }
}

#[test]
fn a_rewritten_source_is_no_difference_while_the_state_proves_the_export() {
    let bench = lake();
    overwrite(
        &bench.path(Stream::Evidence, PAIR),
        "good text of a",
        "else text of a",
    );
    let rewritten = (true, true, [0, 1, 0]);
    let (result, ended) = verified(&bench);
    assert_eq!(verdict(&result), rewritten);
    ended.check(0, &[]);
    let daemon = bench.start_caught_up();
    let (result, ended) = verified(&bench);
    assert_eq!(verdict(&result), rewritten, "while the daemon runs");
    ended.check(0, &[]);
    bench.stop(daemon);
    // The row of the other run cannot be distinguished from it then: they are in one segment.
    overwrite(&bench.export(), "good text of b", "evil text of b");
    let (result, ended) = verified(&bench);
    assert_eq!(verdict(&result), (false, true, [2, 0, 0]));
    ended.check(1, &["bytes of the export around it did too"]);
}

/// The scored day-file of one day takes the place of another one, while the evidence stays: its line has other evidence.
#[test]
fn a_scored_day_file_in_the_place_of_another_one_is_no_difference() {
    for (exchange, running) in [(false, false), (true, false), (true, true)] {
        let bench = Bench::new();
        for (pair, run) in [(PAIR, "x"), (OTHER, "r")] {
            let text = format!("text of {pair}");
            bench.append(Stream::Evidence, pair, evidence_with("r", &text));
            bench.append(Stream::Evidence, pair, evidence_with("x", &text));
            bench.append(Stream::Scored, pair, scored(run));
        }
        bench.once();
        wait_for_later(&bench.export());
        let daemon = running.then(|| bench.start_caught_up());
        let [first, second] = [PAIR, OTHER].map(|pair| bench.path(Stream::Scored, pair));
        let aside = bench.sibling("aside");
        fs::rename(&first, &aside).unwrap();
        fs::rename(&second, &first).unwrap();
        if exchange {
            fs::rename(&aside, &second).unwrap();
        }
        if let Some(daemon) = daemon {
            bench.ask(&["wait", "--fresh", "--json"]);
            bench.stop(daemon);
        }
        bench.once();
        let (result, ended) = verified(&bench);
        let what = format!("exchange {exchange}, running {running}: {result}");
        assert_eq!(result["altered"], 0, "{what}");
        assert!(result["rewritten"].as_u64() > Some(0), "{what}");
        ended.check(0, &[]);
        // A row that was altered too is found.
        overwrite(&bench.export(), "text of 2026/01/02", "evil of 2026/01/02");
        verified(&bench).1.check(1, &["altered: the row"]);
    }
}

/// Rows that a clock stamped which was ahead, and whose sources were rewritten when it was right again.
#[test]
fn sources_that_are_rewritten_after_the_clock_was_ahead_are_no_difference() {
    const TWO_DAYS_MS: u64 = 2 * 86_400_000;
    // A timestamp that is in the past at the end is known to be wrong by the rows after it.
    for (ahead_ms, with_later_row) in [(TWO_DAYS_MS, false), (TWO_DAYS_MS, true), (4_000, true)] {
        let bench = Bench::new();
        let row_stamp = stamp(HostClock::new().wall_ms() + ahead_ms);
        bench.append(Stream::Evidence, PAIR, evidence_with("a", "good text of a"));
        bench.append(Stream::Scored, PAIR, scored("a"));
        let exported = ["export", "--recorded-at", &row_stamp];
        bench.run(&mut bench.command(&exported)).check(0, &[]);
        let evidence = bench.path(Stream::Evidence, PAIR);
        overwrite(&evidence, "good text of a", "else text of a");
        if with_later_row {
            bench.append_run(OTHER, "later");
        }
        bench.once();
        let is_past = || stamp(HostClock::new().wall_ms() - 1_000) > row_stamp;
        if ahead_ms < TWO_DAYS_MS {
            assert!(wait_until(LONG, || Ok(is_past())).unwrap());
        }
        fs::set_permissions(bench.export(), Permissions::from_mode(0o644)).unwrap();
        let (result, ended) = verified(&bench);
        assert_eq!(
            verdict(&result),
            (true, true, [0, 1, 0]),
            "{ahead_ms} {result}"
        );
        ended.check(0, &[]);
        let row = fs::read_to_string(bench.export()).unwrap();
        assert!(row.contains(&row_stamp));
    }
}

#[test]
fn without_a_state_a_rewritten_source_and_an_altered_row_are_undetermined() {
    let export = |bench: &Bench| bench.export();
    let source = |bench: &Bench| bench.path(Stream::Evidence, PAIR);
    for path in [export, source] {
        let bench = lake();
        overwrite(&path(&bench), "good text of a", "else text of a");
        bench.append(Stream::Evidence, PAIR, evidence_with("other", "t"));
        bench.remove_state();
        let (result, ended) = verified(&bench);
        assert_eq!(verdict(&result), (true, false, [0, 1, 1]));
        ended.check(1, &["1 rows are not those of their lines", "of run \"a\""]);
    }
}
