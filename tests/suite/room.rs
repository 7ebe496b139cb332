//! Day-files whose writers reserve room: zero bytes at the end, into which lines are written. For any size of the
//! room, each line is read when it is whole, and the room is never a line.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use distilld::lake::path::PairPath;

use crate::support::bench::{Bench, ROOT};
use crate::support::lake_gen::Stream;
use crate::support::naive::{multiset_difference, naive_batch, read_pairs};
use crate::support::process::{
    Bench as ProcessBench, MEMORY_KIB_MAX, evidence, memory_kib_max, read_bytes, scored,
};
use crate::support::sim_disk::SimDisk;

const PAIR: &str = "2026/01/02/audits.jsonl";
/// Longer than any line of these tests, shorter than a window of a search.
const LINE_BYTES_MAX: u64 = 5_000;
/// Rooms around the maximum length of a line, of a window, and of a chunk.
const ROOMS: [u64; 5] = [
    LINE_BYTES_MAX - 1,
    LINE_BYTES_MAX,
    LINE_BYTES_MAX + 1,
    300 << 10,
    5 << 20,
];

/// A lake on a simulated disk, one of whose day-files has room.
struct Reserved {
    bench: Bench,
    path: PathBuf,
    /// Where the next line is written.
    end: u64,
    room: u64,
}

impl Reserved {
    fn new(knows_holes: bool, room: u64, stream: Stream) -> Self {
        let mut bench = Bench::new(SimDisk::new());
        bench.line_bytes_max = LINE_BYTES_MAX;
        bench.disk.set_knows_holes(knows_holes);
        let path = stream.path(Path::new(ROOT), PAIR);
        bench.disk.append_durable(&path, b"");
        bench.open().unwrap();
        let mut reserved = Self {
            bench,
            path,
            end: 0,
            room,
        };
        reserved.reserve();
        reserved
    }

    /// Reserves room after the lines.
    fn reserve(&mut self) {
        self.bench.disk.truncate(&self.path, self.end + self.room);
        self.hear();
    }

    fn hear(&mut self) {
        self.bench.disk.settle(&self.path);
        let path = PairPath::from_relative(Path::new(PAIR)).unwrap();
        self.bench.engine.as_mut().unwrap().enqueue(path);
        self.bench.catch_up().unwrap();
        self.bench.read_export().unwrap();
    }

    fn write(&mut self, bytes: &[u8]) {
        self.bench.disk.overwrite(&self.path, self.end, bytes);
        self.end += bytes.len() as u64;
    }

    fn rows(&self) -> usize {
        memchr::memchr_iter(b'\n', &self.bench.seen).count()
    }

    /// Ends the room, and compares with a batch.
    fn finish(mut self, malformed: u64, what: &str) {
        self.bench.disk.truncate(&self.path, self.end);
        self.hear();
        self.bench.quiet().unwrap();
        self.bench.read_export().unwrap();
        let pairs = read_pairs(&self.bench.disk, Path::new(ROOT)).unwrap();
        let naive = naive_batch(&pairs, false);
        assert_eq!(
            multiset_difference(&self.bench.seen, &naive.rows),
            None,
            "{what}"
        );
        let totals = self.bench.engine.as_ref().unwrap().totals();
        let counted = totals.scored_malformed + totals.evidence_malformed;
        assert_eq!(counted, malformed, "{what}");
    }
}

fn for_each_room(check: impl Fn(bool, u64, Stream)) {
    for knows_holes in [true, false] {
        for room in ROOMS {
            for stream in Stream::BOTH {
                check(knows_holes, room, stream);
            }
        }
    }
}

fn line(stream: Stream, run: &str) -> String {
    match stream {
        Stream::Scored => scored(run),
        Stream::Evidence => evidence(run),
    }
}

fn other(stream: Stream) -> Stream {
    match stream {
        Stream::Scored => Stream::Evidence,
        Stream::Evidence => Stream::Scored,
    }
}

#[test]
fn lines_written_into_reserved_room_are_read_as_they_come() {
    for_each_room(|knows_holes, room, stream| {
        let what = format!("{room} bytes in {stream:?}, holes known: {knows_holes}");
        let mut reserved = Reserved::new(knows_holes, room, stream);
        let facing = other(stream);
        for number in 0..8 {
            let run = format!("run{number}");
            let path = facing.path(Path::new(ROOT), PAIR);
            let counterpart = line(facing, &run);
            let disk = &reserved.bench.disk;
            disk.append_durable(path, counterpart.as_bytes());
            let line = line(stream, &run);
            let (first, rest) = line.as_bytes().split_at(line.len() / 2);
            reserved.write(first);
            reserved.hear();
            match number {
                // The room grows between two reads, in which a line becomes whole.
                2 => {
                    let len_bytes = reserved.end + 2 * room;
                    reserved.bench.disk.truncate(&reserved.path, len_bytes);
                }
                3 => {
                    reserved.bench.quiet().unwrap();
                }
                4 => {
                    reserved.bench.open().unwrap();
                    reserved.bench.catch_up().unwrap();
                }
                // The room ends, and other room is reserved.
                5 => {
                    let len_bytes = reserved.end;
                    reserved.bench.disk.truncate(&reserved.path, len_bytes);
                    reserved.hear();
                    reserved.reserve();
                }
                _ => {}
            }
            assert_eq!(reserved.rows(), number, "{what}: half a line");
            reserved.write(rest);
            reserved.hear();
            assert_eq!(reserved.rows(), number + 1, "{what}: {run}");
        }
        reserved.finish(0, &what);
    });
}

#[test]
fn an_oversized_line_in_reserved_room_ends_with_its_newline() {
    for_each_room(|knows_holes, room, stream| {
        let what = format!("{room} bytes in {stream:?}, holes known: {knows_holes}");
        let mut reserved = Reserved::new(knows_holes, room, stream);
        let path = other(stream).path(Path::new(ROOT), PAIR);
        let disk = &reserved.bench.disk;
        disk.append_durable(path, line(other(stream), "after").as_bytes());
        for _ in 0..3 {
            reserved.write(&[b'x'; 2_000]);
            reserved.hear();
        }
        reserved.bench.open().unwrap();
        reserved.bench.quiet().unwrap();
        reserved.write(b"xyz");
        reserved.hear();
        reserved.write(b"\n");
        reserved.write(line(stream, "after").as_bytes());
        reserved.hear();
        assert_eq!(reserved.rows(), 1, "{what}");
        reserved.finish(1, &what);
    });
}

fn check_zeros_before_lines(knows_holes: bool, room: u64, stream: Stream) {
    let what = format!("{room} bytes in {stream:?}, holes known: {knows_holes}");
    let mut reserved = Reserved::new(knows_holes, room, stream);
    let path = other(stream).path(Path::new(ROOT), PAIR);
    let disk = &reserved.bench.disk;
    disk.append_durable(path, line(other(stream), "after").as_bytes());
    reserved.end = room;
    reserved.reserve();
    reserved.write(b"the rest of a line\n");
    reserved.write(line(stream, "after").as_bytes());
    reserved.hear();
    assert_eq!(reserved.rows(), 1, "{what}");
    reserved.finish(1, &what);
}

#[test]
fn zero_bytes_with_lines_after_them_are_part_of_a_malformed_line() {
    for_each_room(check_zeros_before_lines);
    // Longer than what one read skips.
    for knows_holes in [true, false] {
        check_zeros_before_lines(knows_holes, 65 << 20, Stream::Scored);
    }
}

/// Reserves room at the end of a real day-file, as a hole.
fn reserve(bench: &ProcessBench, stream: Stream, len_bytes: u64) {
    bench.append(stream, PAIR, "");
    let file = OpenOptions::new()
        .write(true)
        .open(bench.path(stream, PAIR));
    file.unwrap().set_len(len_bytes).unwrap();
}

fn overwrite(bench: &ProcessBench, stream: Stream, offset: u64, bytes: &str) -> u64 {
    let file = OpenOptions::new()
        .write(true)
        .open(bench.path(stream, PAIR));
    file.unwrap()
        .write_all_at(bytes.as_bytes(), offset)
        .unwrap();
    offset + bytes.len() as u64
}

const GIB: u64 = 1 << 30;

#[test]
fn a_hole_of_40_gib_costs_no_read() {
    let bench = ProcessBench::new();
    for stream in Stream::BOTH {
        reserve(&bench, stream, 40 * GIB);
    }
    let mut daemon = bench.start_caught_up();
    let mut ends = [0, 0];
    for run in ["one", "two", "three"] {
        for (stream, end) in Stream::BOTH.into_iter().zip(&mut ends) {
            *end = overwrite(&bench, stream, *end, &line(stream, run));
        }
        bench.wait_run(&mut daemon, run);
    }
    let read_bytes = read_bytes(daemon.pid());
    assert!(read_bytes < 32 << 20, "{read_bytes} bytes");
    assert!(memory_kib_max(daemon.pid()) < MEMORY_KIB_MAX);
    bench.stop(daemon);
    // The hole becomes part of a line.
    for stream in Stream::BOTH {
        let end = overwrite(&bench, stream, 40 * GIB - 1, "\n");
        let end = overwrite(&bench, stream, end, &line(stream, "last"));
        assert_eq!(fs::metadata(bench.path(stream, PAIR)).unwrap().len(), end);
    }
    let ended = bench.once();
    assert!(ended.read_bytes < 80 << 20, "{}", ended.read_bytes);
    bench.assert_runs(&["one", "two", "three", "last"]);
    let status = bench.status();
    for stream in ["scored", "evidence"] {
        assert_eq!(status[stream]["malformed"], 1, "{status}");
    }
    let verified = bench.run(&mut bench.command(&["verify"]));
    verified.check(0, &[]);
    assert!(verified.read_bytes < 100 << 20, "{}", verified.read_bytes);
}
