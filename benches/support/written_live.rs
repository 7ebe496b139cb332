//! A history that distilld followed while it was written, and the size of the state that this leaves: after the stop, and
//! after the daemon was idle for a moment.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::lake::{self, PairPath, Record};
use super::live::wait_for_rows;
use super::program::Program;
use super::{Failure, export_path, remove_tree};

/// Pairs of day-files that grow.
const PAIRS: u32 = 50;
/// Runs that each pair gets at a time.
const RUNS: u32 = 20;
/// Mean length of the evidence texts.
const TEXT_BYTES: u32 = 40;
/// Rounds until all rows are awaited.
const ROUNDS_AHEAD: u32 = 10;
/// Time within which an idle daemon compacts its state.
const IDLE: Duration = Duration::from_secs(30);

/// The size of the state after a history that was written live.
#[derive(Debug, Clone, Copy)]
pub struct StateSizes {
    /// Scored runs and evidence records.
    pub records: u64,
    /// Bytes on the disk when the daemon has stopped.
    pub written: u64,
    /// The same after an idle moment.
    pub idle: u64,
}

/// Writes a history of at least `runs` runs while the daemon follows it.
pub fn measure(dir: &Path, runs: u32) -> Result<StateSizes, Failure> {
    remove_tree(dir)?;
    let root = dir.join("root");
    let pairs: Vec<_> = (0..PAIRS).map(PairPath::numbered).collect();
    for pair in &pairs {
        pair.make_dirs(&root)?;
    }
    let (log, export) = (dir.join("distilld.log"), export_path(&root));
    let mut program = Program::start(&root, &["run"], &log)?;
    let mut rng = fastrand::Rng::with_seed(19);
    let rounds = runs.div_ceil(PAIRS * RUNS);
    for round in 1..=rounds {
        write_round(&root, &pairs, &mut rng)?;
        if round % ROUNDS_AHEAD == 0 || round == rounds {
            let rows = u64::from(round * PAIRS * RUNS);
            wait_for_rows(&mut program, &export, rows)?;
        }
    }
    program.stop()?;
    let state = root.join("data/distilled/.distilld/state.redb");
    let (written, inode) = size_of(&state)?;
    let mut program = Program::start(&root, &["run"], &log)?;
    let start = Instant::now();
    // A compaction gives the state another file.
    while start.elapsed() < IDLE && size_of(&state)?.1 == inode {
        program.check_alive()?;
        thread::sleep(Duration::from_millis(50));
    }
    program.stop()?;
    let sizes = StateSizes {
        records: 2 * u64::from(rounds * PAIRS * RUNS),
        written,
        idle: size_of(&state)?.0,
    };
    remove_tree(dir)?;
    Ok(sizes)
}

/// Appends runs to each pair, with random ids.
fn write_round(root: &Path, pairs: &[PairPath], rng: &mut fastrand::Rng) -> io::Result<()> {
    for pair in pairs {
        let (mut evidence, mut scored) = (Vec::new(), Vec::new());
        for line in 0..RUNS {
            let run_id = format!("{:016x}", rng.u64(..));
            let record = Record::good(rng, run_id, TEXT_BYTES);
            record.write_evidence(pair, line, &mut evidence);
            record.write_scored(pair, line, &mut scored);
        }
        lake::append(&pair.evidence(root), &evidence)?;
        lake::append(&pair.scored(root), &scored)?;
    }
    Ok(())
}

/// Returns the bytes that a file takes on the disk, and its inode.
fn size_of(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::metadata(path)?;
    Ok((meta.blocks() * 512, meta.ino()))
}
