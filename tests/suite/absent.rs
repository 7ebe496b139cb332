//! Day-files that are missing for a while, or cannot be opened, and return unchanged: lines that arrived meanwhile for
//! their runs are joined in the end, once; meanwhile the engine knows that they are unavailable. Also day-files whose end
//! never settles: the wait for them is bounded.

use std::fs;
use std::path::{Path, PathBuf};

use distilld::lake::path::PairPath;

use crate::support::bench::{Bench, EXPORT, ROOT, SETTLE_MS};
use crate::support::lake_gen::{Step, Stream};
use crate::support::naive::{Pairs, multiset_difference, naive_batch};
use crate::support::process::Bench as ProcessBench;
use crate::support::sim_disk::{EIO, Fault, SimDisk};

const PAIR: &str = "2026/01/02/outcomes.jsonl";

/// The way in which a day-file is unavailable.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// It exists and cannot be opened.
    Denied,
    /// It has another name.
    FileMoved,
    /// Its day has another name: the metadata of the day-file itself does not change.
    DayMoved,
}

impl Way {
    const ALL: [Way; 3] = [Way::Denied, Way::FileMoved, Way::DayMoved];

    fn names(self, stream: Stream) -> (PathBuf, PathBuf) {
        let file = stream.path(Path::new(ROOT), PAIR);
        let place = match self {
            Way::Denied | Way::FileMoved => file,
            Way::DayMoved => file.parent().unwrap().to_owned(),
        };
        let aside = Path::new("/aside").join(place.file_name().unwrap());
        (place, aside)
    }

    fn take_away(self, disk: &SimDisk, stream: Stream) {
        let (place, aside) = self.names(stream);
        match self {
            Way::Denied => disk.deny(place, true),
            Way::FileMoved | Way::DayMoved => disk.move_file(place, aside),
        }
    }

    fn give_back(self, disk: &SimDisk, stream: Stream) {
        let (place, aside) = self.names(stream);
        match self {
            Way::Denied => disk.deny(place, false),
            Way::FileMoved | Way::DayMoved => disk.move_file(aside, place),
        }
    }
}

/// The circumstances of the absence.
#[derive(Debug, Clone, Copy)]
struct Case {
    /// The missing day-file.
    away: Stream,
    way: Way,
    /// Whether a checkpoint precedes the absence.
    checkpoint: bool,
    /// Whether a new process starts during the absence.
    restart: bool,
    /// Whether a scan runs during the absence.
    scanned: bool,
}

fn scored(run: &str) -> String {
    format!("{{\"evidence_run_id\":\"{run}\",\"category\":\"accepted\"}}\n")
}

fn evidence(run: &str, text: &str) -> String {
    format!("{{\"run_id\":\"{run}\",\"model_role\":\"executor\",\"text\":\"{text}\"}}\n")
}

/// A bench and everything that was appended to its one pair.
struct Lake {
    bench: Bench,
    pairs: Pairs,
}

impl Lake {
    fn new() -> Self {
        Self::on(Bench::new(SimDisk::new()))
    }

    fn on(mut bench: Bench) -> Self {
        bench.open().unwrap();
        let pairs = Pairs::from([(PAIR.to_owned(), (None, None))]);
        Self { bench, pairs }
    }

    fn remember(&mut self, stream: Stream, bytes: &[u8]) {
        let (scored, evidence) = self.pairs.get_mut(PAIR).unwrap();
        let file = match stream {
            Stream::Scored => scored,
            Stream::Evidence => evidence,
        };
        file.get_or_insert_default().extend_from_slice(bytes);
    }

    /// Appends bytes and queues the pair.
    fn append(&mut self, stream: Stream, bytes: &str) {
        let step = Step::Append {
            stream,
            pair: PAIR.to_owned(),
            bytes: bytes.as_bytes().to_vec(),
        };
        self.remember(stream, bytes.as_bytes());
        self.bench.step(&step, true).unwrap();
    }

    /// Appends bytes without an event.
    fn append_without_event(&mut self, stream: Stream, bytes: &str) {
        let path = stream.path(Path::new(ROOT), PAIR);
        self.bench.disk.append_durable(path, bytes.as_bytes());
        self.remember(stream, bytes.as_bytes());
    }

    fn step(&mut self, step: Step) {
        self.bench.step(&step, true).unwrap();
    }

    fn scan(&mut self) {
        self.bench.scan().unwrap();
        self.bench.quiet().unwrap();
    }

    /// Returns the difference of the export or the counts to the naive batch, if there is one.
    fn fault(&mut self) -> Option<String> {
        let naive = naive_batch(&self.pairs, false);
        let export = self.bench.disk.read(EXPORT).unwrap_or_default();
        multiset_difference(&export, &naive.rows)
            .or_else(|| self.bench.count_fault(&naive.counts))
            .or_else(|| self.bench.read_export().err())
    }
}

/// One run is exported before, a second one has half of its lines; the other half arrives while the first day-file is
/// unavailable.
fn fault_after(case: Case) -> Option<String> {
    let mut lake = Lake::new();
    let both = Stream::BOTH.map(|stream| match stream {
        Stream::Scored => (stream, scored("before"), scored("x")),
        Stream::Evidence => (stream, evidence("before", "b"), evidence("x", "t")),
    });
    for (stream, before, half) in &both {
        lake.append(*stream, before);
        if *stream == case.away {
            lake.append(*stream, half);
        }
    }
    lake.scan();
    if case.checkpoint {
        lake.step(Step::Checkpoint);
    }
    assert_eq!(lake.fault(), None, "{case:?}: before");

    case.way.take_away(&lake.bench.disk, case.away);
    for (stream, _, half) in &both {
        if *stream != case.away {
            lake.append(*stream, half);
        }
    }
    if case.restart {
        lake.step(Step::Restart);
    }
    if case.scanned {
        lake.scan();
    }
    case.way.give_back(&lake.bench.disk, case.away);
    lake.scan();
    lake.fault().or_else(|| {
        lake.step(Step::Restart);
        lake.scan();
        lake.fault().map(|fault| format!("after a start: {fault}"))
    })
}

fn check(away: Stream, restart: bool) {
    let mut wrong = Vec::new();
    for way in Way::ALL {
        for (checkpoint, scanned) in [(false, false), (false, true), (true, false), (true, true)] {
            let case = Case {
                away,
                way,
                checkpoint,
                restart,
                scanned,
            };
            if let Some(fault) = fault_after(case) {
                wrong.push(format!("{case:?}: {fault}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
}

#[test]
fn a_run_scored_while_its_evidence_is_unavailable_is_exported_on_its_return() {
    check(Stream::Evidence, false);
}

#[test]
fn a_run_scored_while_its_evidence_is_unavailable_is_exported_after_a_restart() {
    check(Stream::Evidence, true);
}

#[test]
fn evidence_that_arrives_while_its_run_is_unavailable_is_joined_on_its_return() {
    check(Stream::Scored, false);
}

#[test]
fn evidence_that_arrives_while_its_run_is_unavailable_is_joined_after_a_restart() {
    check(Stream::Scored, true);
}

/// A lake whose one run is exported and in the state.
fn lake_at_rest() -> Lake {
    let mut lake = Lake::new();
    lake.append(Stream::Evidence, &evidence("x", "t"));
    lake.append(Stream::Scored, &scored("x"));
    lake.step(Step::Checkpoint);
    lake
}

/// Returns the number of day-files that the last reads could not read.
fn skipped(lake: &Lake) -> usize {
    lake.bench.engine.as_ref().unwrap().skipped().count()
}

/// After an error of the state all pairs are loaded again from it, and it does not know what cannot be read.
#[test]
fn an_unreadable_day_file_is_known_as_such_after_an_error_of_the_state() {
    let mut failed = 0;
    for n in 0.. {
        let mut lake = lake_at_rest();
        Way::Denied.take_away(&lake.bench.disk, Stream::Scored);
        lake.scan();
        assert_eq!(skipped(&lake), 1);
        lake.bench.disk.fail_at(n, Fault::once(EIO));
        let engine = lake.bench.engine.as_mut().unwrap();
        let result = engine.checkpoint();
        if lake.bench.disk.failed_calls().is_empty() {
            break;
        }
        failed += usize::from(result.is_err());
        engine.tick().unwrap();
        assert_eq!(skipped(&lake), 1, "call {n}");
    }
    assert!(failed > 2, "only {failed} errors reached the engine");
}

/// Its metadata does not change when it can be read again.
#[test]
fn a_day_file_that_could_not_be_read_once_is_read_with_the_next_scan() {
    for stream in Stream::BOTH {
        let day_file = stream.path(Path::new(ROOT), PAIR);
        let opened = format!("open_read {}", day_file.display());
        let mut lake = lake_at_rest();
        lake.bench.scan().unwrap();
        let engine = lake.bench.engine.as_ref().unwrap();
        assert_eq!(engine.queue_len(), 0, "all is as it was read");
        for n in 0.. {
            lake.bench.disk.fail_read_call_at(n, Fault::once(EIO));
            let pair = PairPath::from_relative(Path::new(PAIR)).unwrap();
            let engine = lake.bench.engine.as_mut().unwrap();
            engine.enqueue(pair);
            let _ = engine.pass();
            lake.bench.disk.heal();
            lake.bench.catch_up().unwrap();
            if lake.bench.disk.failed_read_call().as_ref() == Some(&opened) {
                break;
            }
        }
        assert_eq!(skipped(&lake), 1, "{stream:?}");
        lake.scan();
        assert_eq!(skipped(&lake), 0, "{stream:?}");
    }
}

#[test]
fn lines_after_a_burst_of_rows_are_read_in_the_same_catch_up() {
    let mut lake = Lake::new();
    // Nine rows of one text: more than one step makes.
    lake.append(Stream::Scored, &scored("x").repeat(9));
    lake.append_without_event(Stream::Scored, &(scored("y") + &scored("x")));
    lake.append_without_event(Stream::Evidence, &evidence("y", "t"));
    lake.append(Stream::Evidence, &evidence("x", &"t".repeat(1 << 20)));
    // The clock did not advance, and there was no other event.
    let totals = lake.bench.engine.as_ref().unwrap().totals();
    assert_eq!((totals.scored_lines, totals.evidence_lines), (11, 2));
    assert_eq!(lake.fault(), None);
}

/// The fate of a day-file that ends in an unterminated line.
#[derive(Debug, Clone, Copy)]
enum End {
    /// No change.
    Stays,
    /// The line exceeds the limit and remains unterminated.
    GrowsOverlong,
    /// The line exceeds the limit and ends, and another unterminated line follows.
    GrowsOverlongThenMore,
    /// It becomes unavailable.
    Away(Way),
    /// It is truncated to zero.
    Emptied,
}

impl End {
    const ALL: [End; 7] = [
        End::Stays,
        End::GrowsOverlong,
        End::GrowsOverlongThenMore,
        End::Away(Way::Denied),
        End::Away(Way::FileMoved),
        End::Away(Way::DayMoved),
        End::Emptied,
    ];

    fn happen(self, disk: &SimDisk, stream: Stream, long: &[u8]) {
        let path = stream.path(Path::new(ROOT), PAIR);
        match self {
            End::Stays => {}
            End::GrowsOverlong => disk.append_durable(path, long),
            End::GrowsOverlongThenMore => {
                disk.append_durable(path, &[long, b"\n{\"to"].concat());
            }
            End::Away(way) => way.take_away(disk, stream),
            End::Emptied => disk.truncate(path, 0),
        }
    }
}

/// The change of a day-file, and the time of the next read.
#[derive(Debug, Clone, Copy)]
struct Tail {
    stream: Stream,
    end: End,
    /// Whether it was read before the change.
    was_read: bool,
    settle_ms: u64,
    long_bytes: usize,
}

/// Checks that the wait for lines that may settle ends, and that all complete lines have been read then.
fn fault_of_wait(tail: Tail) -> Option<String> {
    let Tail { stream, end, .. } = tail;
    let mut bench = Bench::new(SimDisk::new());
    bench.settle_ms = tail.settle_ms;
    bench.line_bytes_max = 256;
    let mut lake = Lake::on(bench);
    let whole = match stream {
        Stream::Scored => scored("a"),
        Stream::Evidence => evidence("a", "t"),
    };
    let bytes = format!("{whole}{{\"torn\":");
    if tail.was_read {
        lake.append(stream, &bytes);
    } else {
        lake.append_without_event(stream, &bytes);
    }
    end.happen(&lake.bench.disk, stream, &vec![b'x'; tail.long_bytes]);
    lake.bench.scan().unwrap();
    // The other day-file queues the pair, regardless of what the scan finds.
    lake.append(stream.other(), "\n");
    if !lake.bench.settle_all().unwrap() {
        return Some("the wait has no end".to_owned());
    }
    let totals = lake.bench.engine.as_ref().unwrap().totals();
    let lines = match stream {
        Stream::Scored => totals.scored_lines,
        Stream::Evidence => totals.evidence_lines,
    };
    let expected = match end {
        End::Stays | End::GrowsOverlong => 1,
        End::GrowsOverlongThenMore => 2,
        End::Away(_) => u64::from(tail.was_read),
        End::Emptied => 0,
    };
    let torn = match end {
        End::Stays => (1, 8),
        End::GrowsOverlong => (1, 8 + tail.long_bytes as u64),
        End::Away(_) | End::Emptied => (0, 0),
        End::GrowsOverlongThenMore => (1, 4),
    };
    let unterminated = lake.bench.engine.as_ref().unwrap().unterminated();
    let unterminated = (unterminated.lines, unterminated.bytes);
    (lines != expected || unterminated != torn)
        .then(|| format!("{lines} lines read of {expected}, torn {unterminated:?} of {torn:?}"))
}

#[test]
fn the_wait_for_the_end_of_a_day_file_is_bounded() {
    let mut wrong = Vec::new();
    for stream in Stream::BOTH {
        for end in End::ALL {
            for (was_read, settle_ms) in
                [(true, SETTLE_MS), (true, 0), (false, SETTLE_MS), (false, 0)]
            {
                for long_bytes in [300, 5 << 20] {
                    let tail = Tail {
                        stream,
                        end,
                        was_read,
                        settle_ms,
                        long_bytes,
                    };
                    let fault = fault_of_wait(tail);
                    wrong.extend(fault.map(|fault| format!("{tail:?}: {fault}")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
}

#[test]
fn a_torn_line_is_counted_once_however_often_its_pair_is_evicted() {
    let mut lake = Lake::new();
    lake.append(Stream::Scored, &(scored("a") + "{\"torn\":"));
    let unterminated = |lake: &Lake| {
        let unterminated = lake.bench.engine.as_ref().unwrap().unterminated();
        (unterminated.lines, unterminated.bytes)
    };
    for _ in 0..3 {
        assert_eq!(unterminated(&lake), (1, 8));
        assert!(lake.bench.settle_all().unwrap());
        lake.step(Step::Checkpoint);
        lake.append(Stream::Evidence, "\n");
        lake.bench.clock.advance(10 * SETTLE_MS);
        let engine = lake.bench.engine.as_mut().unwrap();
        engine.tick().unwrap();
        assert_eq!(engine.active_paths(), []);
        assert_eq!(unterminated(&lake), (1, 8));
        lake.scan();
    }
    lake.append(Stream::Scored, "0}\n");
    assert_eq!(unterminated(&lake), (0, 0));
}

/// Copies of day-files in other days, each line of which has its own row, and which are deleted afterwards.
#[test]
fn rows_of_deleted_copies_are_orphaned_and_no_duplicates() {
    let bench = ProcessBench::new();
    let [first, copy, moved] = [1, 2, 3].map(|day| format!("2026/01/{day:02}/copied.jsonl"));
    let copy_to = |to: &str| {
        for stream in Stream::BOTH {
            let to = bench.path(stream, to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(bench.path(stream, &first), to).unwrap();
        }
    };
    let delete = |pair: &str| {
        for stream in Stream::BOTH {
            fs::remove_file(bench.path(stream, pair)).unwrap();
        }
    };
    for run in ["a", "b", "c"] {
        bench.append_run(&first, run);
    }
    let mut daemon = bench.start_caught_up();
    bench.wait_rows(&mut daemon, 3);
    copy_to(&copy);
    bench.wait_rows(&mut daemon, 6);
    delete(&copy);
    let orphaned = |count: u32| {
        let verified = bench.ask(&["verify"]);
        assert_eq!(verified["orphaned"], count, "{verified}");
        assert_eq!(verified["duplicate"], 0, "{verified}");
    };
    orphaned(3);
    bench.stop(daemon);
    orphaned(3);
    // Between file systems a move is a copy and a deletion: of equal rows those of the first day-file are surplus too.
    copy_to(&moved);
    bench.once();
    assert_eq!(bench.row_count(), 9);
    delete(&first);
    orphaned(6);
    bench.once();
    orphaned(6);
    // A row that was written twice is a duplicate in any case.
    let bytes = bench.export_bytes();
    let row = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    fs::write(bench.export(), [&bytes[..], &bytes[..row]].concat()).unwrap();
    let ended = bench.run(&mut bench.command(&["verify"]));
    ended.check(1, &["duplicate"]);
    assert!(
        ended.stdout.contains("\"duplicate\":1,"),
        "{}",
        ended.stdout
    );
}
