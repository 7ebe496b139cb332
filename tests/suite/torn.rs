//! Owns last lines without a newline that do not end as they began: taken and then gone on, cut and written anew, filled
//! where a hole was. What stands there in the end has its row, at the index that a batch gives it.

use std::path::{Path, PathBuf};

use distilld::lake::path::PairPath;
use prometheus_client::encoding::text::encode;

use crate::support::bench::{Bench, EXPORT, ROOT};
use crate::support::lake_gen::Stream;
use crate::support::naive::{multiset_difference, naive_batch, read_pairs};
use crate::support::process::{evidence, scored};
use crate::support::sim_disk::SimDisk;

const PAIR: &str = "2026/01/02/audits.jsonl";

/// An open engine on a lake where the evidence of `runs` is there; and where their scored lines go.
fn with_evidence(runs: &[&str]) -> (Bench, PathBuf) {
    let mut bench = Bench::new(SimDisk::new());
    let given = Stream::Evidence.path(Path::new(ROOT), PAIR);
    for run in runs {
        bench.disk.append_durable(&given, evidence(run).as_bytes());
    }
    bench.open().unwrap();
    bench.catch_up().unwrap();
    (bench, Stream::Scored.path(Path::new(ROOT), PAIR))
}

/// As an event tells it: no scan, and no time passes.
fn heard(bench: &mut Bench) {
    let path = PairPath::from_relative(Path::new(PAIR)).unwrap();
    bench.engine.as_mut().unwrap().enqueue(path);
    bench.catch_up().unwrap();
    bench.read_export().unwrap();
}

fn rows(bench: &Bench) -> usize {
    bench.seen.iter().filter(|byte| **byte == b'\n').count()
}

/// How often a day-file was read again from its start.
fn rereads(bench: &Bench) -> u64 {
    let mut text = String::new();
    encode(
        &mut text,
        bench.engine.as_ref().unwrap().metrics().registry(),
    )
    .unwrap();
    let line = text
        .lines()
        .find(|line| line.contains("source_rereads_total "));
    let (_, value) = line.unwrap().rsplit_once(' ').unwrap();
    value.parse().unwrap()
}

fn torn(line: &str) -> &[u8] {
    line.trim_end().as_bytes()
}

#[test]
fn a_line_that_was_taken_without_its_newline_and_goes_on_is_read_again() {
    let (mut bench, path) = with_evidence(&["a", "b", "c"]);
    bench.disk.append_durable(&path, torn(&scored("a")));
    bench.look_around().unwrap();
    bench.quiet().unwrap();
    bench.read_export().unwrap();
    let first = bench.seen.clone();
    assert_eq!(rows(&bench), 1, "it has settled");
    // For a batch both are one line, which is no record and has no index.
    bench
        .disk
        .append_durable(&path, (scored("b") + &scored("c")).as_bytes());
    heard(&mut bench);
    bench.quiet().unwrap();
    bench.read_export().unwrap();

    let naive = naive_batch(&read_pairs(&bench.disk, Path::new(ROOT)).unwrap(), false);
    assert_eq!((naive.counts.malformed, naive.rows.len()), (1, 1));
    assert_eq!(rereads(&bench), 1);
    assert_eq!(bench.count_fault(&naive.counts), None);
    let export = bench.disk.read(EXPORT).unwrap();
    let behind = export.strip_prefix(first.as_slice()).unwrap();
    assert_eq!(multiset_difference(behind, &naive.rows), None);
}

#[test]
fn a_newline_and_white_space_behind_a_line_that_was_taken_are_nothing() {
    for behind in ["\n", "  \r\n", "\r\n\n \n", " "] {
        let (mut bench, path) = with_evidence(&["a", "b"]);
        bench.disk.append_durable(&path, torn(&scored("a")));
        bench.look_around().unwrap();
        bench.quiet().unwrap();
        bench.disk.append_durable(&path, behind.as_bytes());
        heard(&mut bench);
        assert_eq!(rereads(&bench), 0, "{behind:?}");
        let end = if behind.ends_with('\n') { "" } else { "\n" };
        bench
            .disk
            .append_durable(&path, (end.to_owned() + &scored("b")).as_bytes());
        heard(&mut bench);
        assert_eq!(rows(&bench), 2, "{behind:?}");
        let naive = naive_batch(&read_pairs(&bench.disk, Path::new(ROOT)).unwrap(), false);
        let export = bench.disk.read(EXPORT).unwrap();
        assert_eq!(
            multiset_difference(&export, &naive.rows),
            None,
            "{behind:?}"
        );
    }
}

/// Some file systems show a file's new length before what is in it.
#[test]
fn a_line_that_fills_a_hole_is_read_when_it_is_there() {
    for hole_len in [500, 4 << 10, 300 << 10] {
        let (mut bench, path) = with_evidence(&["a", "b"]);
        let first = scored("a");
        bench.disk.append_durable(&path, first.as_bytes());
        heard(&mut bench);
        bench.disk.truncate(&path, (first.len() + hole_len) as u64);
        heard(&mut bench);
        assert_eq!(rows(&bench), 1, "{hole_len}");
        let mut filled = (first + &scored("b")).into_bytes();
        filled.resize(scored("a").len() + hole_len, 0);
        bench.disk.write_file(&path, &filled);
        heard(&mut bench);
        assert_eq!(rows(&bench), 2, "{hole_len}");
    }
}

#[test]
fn a_torn_line_that_is_cut_and_written_anew_is_read_however_long_it_was() {
    for torn_len in [400, 300 << 10] {
        let long = "0".repeat(torn_len);
        let (mut bench, path) = with_evidence(&["a", "b"]);
        let first = scored("a");
        bench.disk.append_durable(&path, first.as_bytes());
        heard(&mut bench);
        bench
            .disk
            .append_durable(&path, (r#"{"torn":""#.to_owned() + &long).as_bytes());
        heard(&mut bench);
        assert_eq!(rows(&bench), 1, "{torn_len}");
        // Both happen between two looks: it has only grown, and its last newline stands where none was.
        let begun = r#"{"begun":""#.to_owned() + &long;
        let anew = first + &scored("b") + &begun;
        bench.disk.write_file(&path, anew.as_bytes());
        heard(&mut bench);
        if torn_len < 256 << 10 {
            assert_eq!(rows(&bench), 2, "{torn_len}");
        }
        bench.quiet().unwrap();
        bench.read_export().unwrap();
        assert_eq!(rows(&bench), 2, "{torn_len}, after a while");
    }
}
