//! Explain: how long it takes to find one run among ten million, in a state that has no index from a run to its pair; and
//! to find the runs that wait for the longest time. Against reading the state's file once.
//!
//! `cargo bench --bench explain [-- --pairs N --records N --waiting N] [--runs R]`
//!
//! The state is synthetic and written by the state's own code: pairs, their checkpoints and their packed indexes, without
//! day-files or an export. Its pages are in the page cache. It asserts what is found, no time.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;

use distilld::pair::checkpoint::PairCheckpoint;
use distilld::pair::index::{EvidenceLine, EvidenceLocation, PairId, ScoredLine};
use distilld::pair::verdict::{Verdict, VerdictCounts, VerdictKind};
use distilld::platform::storage::OsStorage;
use distilld::query::status::waiting_oldest;
use distilld::record::keys::RunKey;
use distilld::store::snapshot::StateSnapshot;
use distilld::store::state::blocks::packed;
use distilld::store::state::header::Header;
use distilld::store::state::{PairWrite, State};

use support::figures::{millis, ratio};
use support::summary::{self, Line};
use support::{Failure, bench_dir, remove_tree};

/// Pairs of one transaction.
const PAIRS_AT_ONCE: u32 = 500;

/// Measures how soon a run is found.
#[derive(Debug, Parser)]
struct Options {
    /// Pairs of day-files
    #[arg(long, default_value_t = 58_000)]
    pairs: u32,
    /// Scored runs of each pair, each with its evidence
    #[arg(long, default_value_t = 173)]
    records: u32,
    /// Number of pairs per waiting run
    #[arg(long, default_value_t = 2)]
    waiting_every: u32,
    /// Number of runs to search for
    #[arg(long, default_value_t = 7)]
    runs: u32,
    /// No effect: the default size is the full size
    #[arg(long, hide = true)]
    full: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let dir = bench_dir("explain");
    remove_tree(&dir)?;
    fs::create_dir_all(&dir)?;
    let path = dir.join("state.redb");
    write_state(&path, &options)?;
    let state = State::open(&OsStorage, &path)?;
    let figures = StateSnapshot {
        view: Arc::new(state.view()?),
        changed: Vec::new(),
        claimed: Arc::default(),
        claimable: 0,
        orders: Arc::default(),
    };
    let len_bytes = fs::metadata(&path)?.len();
    let records = u64::from(options.pairs) * u64::from(options.records) * 2;
    println!(
        "{} pairs, {records} records, state of {} MiB, {:.1} bytes a record",
        options.pairs,
        len_bytes >> 20,
        len_bytes as f64 / records as f64
    );
    let floor = timed(options.runs, |_| {
        assert_eq!(fs::read(&path)?.len() as u64, len_bytes);
        Ok(())
    })?;
    let known = timed(options.runs, |n| {
        let pair = (options.pairs - 1) / options.runs * n;
        let found = figures.find_run(run_key(pair, options.records / 2))?;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pair.id, PairId(pair));
        assert!(found[0].entries.len() == 1 && found[0].evidence.is_some());
        Ok(())
    })?;
    let unknown = timed(options.runs, |n| {
        assert!(
            figures
                .find_run(RunKey::from_run_id(&format!("unknown {n}")))?
                .is_empty()
        );
        Ok(())
    })?;
    let oldest = timed(options.runs, |_| {
        let oldest = waiting_oldest(&figures, &OsStorage, &dir)?;
        assert!(!oldest.is_empty() || options.waiting_every > options.pairs);
        Ok(())
    })?;
    for (what, times) in [
        ("reading the file once", &floor),
        ("a known run", &known),
        ("an unknown run", &unknown),
        ("the runs that wait longest", &oldest),
    ] {
        let (least, most) = (times.iter().min(), times.iter().max());
        println!(
            "{what:<28} {:>9.1?} to {:.1?}",
            least.unwrap_or(&Duration::ZERO),
            most.unwrap_or(&Duration::ZERO)
        );
    }
    let middle = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let (floor, unknown) = (middle(floor), middle(unknown));
    summary::leave(
        "explain",
        &[Line {
            what: format!("explain an unknown run among {records} records"),
            value: millis(unknown),
            floor: millis(floor),
            ratio: ratio(unknown, floor),
            aim: "",
        }],
    )?;
    drop((figures, state));
    Ok(remove_tree(&dir)?)
}

fn timed(
    runs: u32,
    mut work: impl FnMut(u32) -> Result<(), Failure>,
) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    for n in 0..runs {
        let from = Instant::now();
        work(n)?;
        times.push(from.elapsed());
    }
    Ok(times)
}

fn run_key(pair: u32, record: u32) -> RunKey {
    RunKey::from_run_id(&format!("run {pair} {record}"))
}

fn write_state(path: &Path, options: &Options) -> Result<(), Failure> {
    let mut state = State::create(&OsStorage, path)?;
    let mut from = 0;
    while from < options.pairs {
        let to = (from + PAIRS_AT_ONCE).min(options.pairs);
        let checkpoints: Vec<_> = (from..to).map(|pair| checkpoint(pair, options)).collect();
        let writes: Vec<_> = checkpoints
            .iter()
            .zip(from..)
            .map(|(checkpoint, pair)| pair_write(pair, checkpoint, options))
            .collect();
        let header = Header {
            pair_next: to,
            ..state.header().clone()
        };
        state.checkpoint(header, &writes)?;
        from = to;
    }
    Ok(())
}

fn waits(pair: u32, record: u32, options: &Options) -> bool {
    record == 0 && pair.is_multiple_of(options.waiting_every)
}

fn checkpoint(pair: u32, options: &Options) -> PairCheckpoint {
    let (day, name) = (pair / 16, pair % 16);
    let (year, month, day) = (2000 + day / 336, day / 28 % 12 + 1, day % 28 + 1);
    let path = format!("{year:04}/{month:02}/{day:02}/class-{name:02}.jsonl");
    let mut checkpoint = PairCheckpoint::new(path.into_bytes());
    let waiting = u64::from(waits(pair, 0, options));
    let exported = u64::from(options.records) - waiting;
    checkpoint.counts = VerdictCounts::default()
        .with(VerdictKind::Exported, exported)
        .with(VerdictKind::Waiting, waiting);
    checkpoint.waiting_since_s = waiting * u64::from(1_700_000_000 + pair);
    checkpoint
}

fn pair_write<'c>(pair: u32, checkpoint: &'c PairCheckpoint, options: &Options) -> PairWrite<'c> {
    let mut evidence = Vec::new();
    let mut entries = Vec::new();
    for record in 0..options.records {
        let (run, offset) = (run_key(pair, record), u64::from(record) * 200);
        let verdict = if waits(pair, record, options) {
            Verdict::Waiting {
                index: record,
                since_s: checkpoint.waiting_since_s,
            }
        } else {
            Verdict::Exported {
                row_offset: u64::from(pair) * 100_000 + offset,
                evidence_digest: 1,
                superseded: false,
                contradicted: false,
            }
        };
        evidence.push(EvidenceLine {
            run,
            place: EvidenceLocation {
                offset,
                len_bytes: 199,
            },
        });
        entries.push(ScoredLine {
            run,
            offset,
            len_bytes: 199,
            verdict,
        });
    }
    evidence.sort_unstable_by_key(|entry| entry.run);
    entries.sort_unstable_by_key(|entry| entry.run);
    PairWrite {
        id: PairId(pair),
        is_new: true,
        checkpoint,
        evidence: packed(evidence),
        entries: packed(entries),
        dead_letters: &[],
        claims: &[],
    }
}
