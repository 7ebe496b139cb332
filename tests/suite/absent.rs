//! Day-files that are away for a while, or cannot be opened, and come back as they were: what arrived meanwhile for
//! their lines is joined in the end, once. And ends of day-files that never settle: nobody waits for them for ever.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::bench::{Bench, EXPORT, ROOT, SETTLE_MS};
use crate::support::lake_gen::{Step, Stream};
use crate::support::naive::{Pairs, multiset_difference, naive_batch};
use crate::support::process::Bench as ProcessBench;
use crate::support::sim_disk::SimDisk;

const PAIR: &str = "2026/01/02/outcomes.jsonl";

/// How a day-file is out of reach.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// It is there and may not be opened.
    Denied,
    /// It has another name.
    FileMoved,
    /// Its day has another name: nothing that the file system says of the day-file itself changes.
    DayMoved,
}

impl Way {
    const ALL: [Way; 3] = [Way::Denied, Way::FileMoved, Way::DayMoved];

    fn names(self, stream: Stream) -> (PathBuf, PathBuf) {
        let file = stream.path(Path::new(ROOT), PAIR);
        let there = match self {
            Way::Denied | Way::FileMoved => file,
            Way::DayMoved => file.parent().unwrap().to_owned(),
        };
        let aside = Path::new("/aside").join(there.file_name().unwrap());
        (there, aside)
    }

    fn take_away(self, disk: &SimDisk, stream: Stream) {
        let (there, aside) = self.names(stream);
        match self {
            Way::Denied => disk.deny(there, true),
            Way::FileMoved | Way::DayMoved => disk.move_file(there, aside),
        }
    }

    fn give_back(self, disk: &SimDisk, stream: Stream) {
        let (there, aside) = self.names(stream);
        match self {
            Way::Denied => disk.deny(there, false),
            Way::FileMoved | Way::DayMoved => disk.move_file(aside, there),
        }
    }
}

/// What happens beside it.
#[derive(Debug, Clone, Copy)]
struct Case {
    /// Which day-file is away.
    away: Stream,
    way: Way,
    /// Whether all is taken into the state before it goes.
    checkpoint: bool,
    /// Whether a new process starts while it is away.
    restart: bool,
    /// Whether it is scanned for while it is away.
    scanned: bool,
}

fn scored(run: &str) -> String {
    format!("{{\"evidence_run_id\":\"{run}\",\"category\":\"accepted\"}}\n")
}

fn evidence(run: &str, text: &str) -> String {
    format!("{{\"run_id\":\"{run}\",\"model_role\":\"executor\",\"text\":\"{text}\"}}\n")
}

/// A bench, and all that was appended to its one pair.
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

    /// Appends, and has it looked at.
    fn append(&mut self, stream: Stream, bytes: &str) {
        let step = Step::Append {
            stream,
            pair: PAIR.to_owned(),
            bytes: bytes.as_bytes().to_vec(),
        };
        self.remember(stream, bytes.as_bytes());
        self.bench.step(&step, true).unwrap();
    }

    /// Appends, and tells nobody.
    fn append_unheard(&mut self, stream: Stream, bytes: &str) {
        let path = stream.path(Path::new(ROOT), PAIR);
        self.bench.disk.append_durable(path, bytes.as_bytes());
        self.remember(stream, bytes.as_bytes());
    }

    fn step(&mut self, step: Step) {
        self.bench.step(&step, true).unwrap();
    }

    fn scan(&mut self) {
        self.bench.look_around().unwrap();
        self.bench.quiet().unwrap();
    }

    /// In what the export or the counts differ from the naive batch, if in anything.
    fn fault(&mut self) -> Option<String> {
        let naive = naive_batch(&self.pairs, false);
        let export = self.bench.disk.read(EXPORT).unwrap_or_default();
        multiset_difference(&export, &naive.rows)
            .or_else(|| self.bench.count_fault(&naive.counts))
            .or_else(|| self.bench.read_export().err())
    }
}

/// One run is exported before, one has half of what it needs; the other half comes while the first is out of reach.
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
fn a_run_scored_while_its_evidence_is_out_of_reach_is_exported_when_that_is_back() {
    check(Stream::Evidence, false);
}

#[test]
fn a_run_scored_while_its_evidence_is_out_of_reach_is_exported_after_a_start_too() {
    check(Stream::Evidence, true);
}

#[test]
fn evidence_that_comes_while_its_run_is_out_of_reach_is_joined_when_that_is_back() {
    check(Stream::Scored, false);
}

#[test]
fn evidence_that_comes_while_its_run_is_out_of_reach_is_joined_after_a_start_too() {
    check(Stream::Scored, true);
}

#[test]
fn lines_behind_a_flood_of_rows_are_read_in_the_same_catch_up() {
    let mut lake = Lake::new();
    // Nine rows of one text: more than a step makes before it ends.
    lake.append(Stream::Scored, &scored("x").repeat(9));
    lake.append_unheard(Stream::Scored, &(scored("y") + &scored("x")));
    lake.append_unheard(Stream::Evidence, &evidence("y", "t"));
    lake.append(Stream::Evidence, &evidence("x", &"t".repeat(1 << 20)));
    // No clock moved, and nobody touched it again.
    let totals = lake.bench.engine.as_ref().unwrap().totals();
    assert_eq!((totals.scored_lines, totals.evidence_lines), (11, 2));
    assert_eq!(lake.fault(), None);
}

/// What becomes of a day-file that ends in an unterminated line.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Nothing.
    Stays,
    /// The line gets longer than the limit, still without its end.
    GrowsOverlong,
    /// The same, and has its end, and another unterminated line behind it.
    GrowsOverlongThenMore,
    /// It goes.
    Away(Way),
    /// It is emptied.
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

/// What happens to which day-file, and when somebody looks.
#[derive(Debug, Clone, Copy)]
struct Tail {
    stream: Stream,
    end: End,
    /// Whether it was looked at before that happened.
    heard: bool,
    settle_ms: u64,
    long_bytes: usize,
}

/// That the wait for what may settle has an end, and that all whole lines have been read then.
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
    if tail.heard {
        lake.append(stream, &bytes);
    } else {
        lake.append_unheard(stream, &bytes);
    }
    end.happen(&lake.bench.disk, stream, &vec![b'x'; tail.long_bytes]);
    lake.bench.look_around().unwrap();
    // The other day-file has the pair looked at, whatever the scan finds.
    lake.append(stream.other(), "\n");
    if !lake.bench.settle_all().unwrap() {
        return Some("waits for ever".to_owned());
    }
    let totals = lake.bench.engine.as_ref().unwrap().totals();
    let lines = match stream {
        Stream::Scored => totals.scored_lines,
        Stream::Evidence => totals.evidence_lines,
    };
    let expected = match end {
        End::Stays | End::GrowsOverlong => 1,
        End::GrowsOverlongThenMore => 2,
        End::Away(_) => u64::from(tail.heard),
        End::Emptied => 0,
    };
    let torn = match end {
        End::Stays => (1, 8),
        End::GrowsOverlong => (1, 8 + tail.long_bytes as u64),
        End::Away(_) | End::Emptied => (0, 0),
        End::GrowsOverlongThenMore => (1, 4),
    };
    let told = lake.bench.engine.as_ref().unwrap().unterminated();
    let told = (told.lines, told.bytes);
    (lines != expected || told != torn)
        .then(|| format!("{lines} lines read of {expected}, torn {told:?} of {torn:?}"))
}

#[test]
fn nobody_waits_for_ever_for_the_end_of_a_day_file() {
    let mut wrong = Vec::new();
    for stream in Stream::BOTH {
        for end in End::ALL {
            for (heard, settle_ms) in [(true, SETTLE_MS), (true, 0), (false, SETTLE_MS), (false, 0)]
            {
                for long_bytes in [300, 5 << 20] {
                    let tail = Tail {
                        stream,
                        end,
                        heard,
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
fn a_torn_line_is_told_once_however_often_its_pair_leaves_the_memory() {
    let mut lake = Lake::new();
    lake.append(Stream::Scored, &(scored("a") + "{\"torn\":"));
    let told = |lake: &Lake| {
        let unterminated = lake.bench.engine.as_ref().unwrap().unterminated();
        (unterminated.lines, unterminated.bytes)
    };
    for _ in 0..3 {
        assert_eq!(told(&lake), (1, 8));
        assert!(lake.bench.settle_all().unwrap());
        lake.step(Step::Checkpoint);
        lake.append(Stream::Evidence, "\n");
        lake.bench.clock.advance(10 * SETTLE_MS);
        let engine = lake.bench.engine.as_mut().unwrap();
        engine.tick().unwrap();
        assert_eq!(engine.active_paths(), []);
        assert_eq!(told(&lake), (1, 8));
        lake.scan();
    }
    lake.append(Stream::Scored, "0}\n");
    assert_eq!(told(&lake), (0, 0));
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
