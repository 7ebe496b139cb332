//! Last lines without a newline whose end differs from their start: accepted and then continued, truncated and
//! rewritten, filled where a hole was. The final content has its row, at the index that a batch gives it.

use std::path::{Path, PathBuf};

use distilld::lake::path::PairPath;
use prometheus_client::encoding::text::encode;

use crate::support::bench::{Bench, EXPORT, ROOT};
use crate::support::lake_gen::Stream;
use crate::support::naive::{multiset_difference, naive_batch, read_pairs};
use crate::support::process::{evidence, scored};
use crate::support::sim_disk::SimDisk;

const PAIR: &str = "2026/01/02/audits.jsonl";

/// Returns an open engine on a lake with the evidence of `runs`, and the path of their scored lines.
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

/// Reads after an event: without a scan, and without a delay.
fn read_after_event(bench: &mut Bench) {
    let path = PairPath::from_relative(Path::new(PAIR)).unwrap();
    bench.engine.as_mut().unwrap().enqueue(path);
    bench.catch_up().unwrap();
    bench.read_export().unwrap();
}

fn rows(bench: &Bench) -> usize {
    bench.seen.iter().filter(|byte| **byte == b'\n').count()
}

/// Returns the number of times that a day-file was read again from its start.
pub(crate) fn rereads(bench: &Bench) -> u64 {
    let mut text = String::new();
    let engine = bench.engine.as_ref().unwrap();
    encode(&mut text, engine.metrics().registry()).unwrap();
    let mut lines = text.lines();
    let line = lines.find(|line| line.contains("sources_reset_total "));
    let (_, value) = line.unwrap().rsplit_once(' ').unwrap();
    value.parse().unwrap()
}

fn torn(line: &str) -> &[u8] {
    line.trim_end().as_bytes()
}

#[test]
fn a_line_accepted_without_newline_and_then_continued_is_read_again() {
    let (mut bench, path) = with_evidence(&["a", "b", "c"]);
    bench.disk.append_durable(&path, torn(&scored("a")));
    bench.scan().unwrap();
    bench.quiet().unwrap();
    bench.read_export().unwrap();
    let first = bench.seen.clone();
    assert_eq!(rows(&bench), 1, "it has settled");
    // For a batch both are one line, which is not a record and has no index.
    bench
        .disk
        .append_durable(&path, (scored("b") + &scored("c")).as_bytes());
    read_after_event(&mut bench);
    bench.quiet().unwrap();
    bench.read_export().unwrap();

    let naive = naive_batch(&read_pairs(&bench.disk, Path::new(ROOT)).unwrap(), false);
    assert_eq!((naive.counts.malformed, naive.rows.len()), (1, 1));
    assert_eq!(rereads(&bench), 1);
    assert_eq!(bench.count_fault(&naive.counts), None);
    let export = bench.disk.read(EXPORT).unwrap();
    let new_rows = export.strip_prefix(first.as_slice()).unwrap();
    assert_eq!(multiset_difference(new_rows, &naive.rows), None);
}

#[test]
fn a_newline_and_white_space_after_an_accepted_line_have_no_effect() {
    for suffix in ["\n", "  \r\n", "\r\n\n \n", " "] {
        let (mut bench, path) = with_evidence(&["a", "b"]);
        bench.disk.append_durable(&path, torn(&scored("a")));
        bench.scan().unwrap();
        bench.quiet().unwrap();
        bench.disk.append_durable(&path, suffix.as_bytes());
        read_after_event(&mut bench);
        assert_eq!(rereads(&bench), 0, "{suffix:?}");
        let end = if suffix.ends_with('\n') { "" } else { "\n" };
        bench
            .disk
            .append_durable(&path, (end.to_owned() + &scored("b")).as_bytes());
        read_after_event(&mut bench);
        assert_eq!(rows(&bench), 2, "{suffix:?}");
        let naive = naive_batch(&read_pairs(&bench.disk, Path::new(ROOT)).unwrap(), false);
        let export = bench.disk.read(EXPORT).unwrap();
        assert_eq!(
            multiset_difference(&export, &naive.rows),
            None,
            "{suffix:?}"
        );
    }
}

/// Some file systems show a file's new length before its content.
#[test]
fn a_line_that_fills_a_hole_is_read_once_written() {
    for hole_len in [500, 4 << 10, 300 << 10] {
        let (mut bench, path) = with_evidence(&["a", "b"]);
        let first = scored("a");
        bench.disk.append_durable(&path, first.as_bytes());
        read_after_event(&mut bench);
        bench.disk.truncate(&path, (first.len() + hole_len) as u64);
        read_after_event(&mut bench);
        assert_eq!(rows(&bench), 1, "{hole_len}");
        let mut filled = (first + &scored("b")).into_bytes();
        filled.resize(scored("a").len() + hole_len, 0);
        bench.disk.write_file(&path, &filled);
        read_after_event(&mut bench);
        assert_eq!(rows(&bench), 2, "{hole_len}");
    }
}

#[test]
fn a_truncated_and_rewritten_torn_line_of_any_length_is_read() {
    for torn_len in [400, 300 << 10] {
        let long = "0".repeat(torn_len);
        let (mut bench, path) = with_evidence(&["a", "b"]);
        let first = scored("a");
        bench.disk.append_durable(&path, first.as_bytes());
        read_after_event(&mut bench);
        bench
            .disk
            .append_durable(&path, (r#"{"torn":""#.to_owned() + &long).as_bytes());
        read_after_event(&mut bench);
        assert_eq!(rows(&bench), 1, "{torn_len}");
        // Both happen between two reads: the file has only grown, and its last newline is where none was.
        let unfinished = r#"{"begun":""#.to_owned() + &long;
        let rewritten = first + &scored("b") + &unfinished;
        bench.disk.write_file(&path, rewritten.as_bytes());
        read_after_event(&mut bench);
        if torn_len < 256 << 10 {
            assert_eq!(rows(&bench), 2, "{torn_len}");
        }
        bench.quiet().unwrap();
        bench.read_export().unwrap();
        assert_eq!(rows(&bench), 2, "{torn_len}, after a while");
    }
}
