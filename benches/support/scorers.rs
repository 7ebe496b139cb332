//! Scorers that keep their day-files open and write several lines at a time, at a rate in all. Their lines are made
//! beforehand, so that writing costs little more than the system calls.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Failure;
use super::floor::sleep_until;
use super::lake::{CLASSES, PairPath, Record};
use super::process::thread_cpu_time;
use super::watcher::RUN_PREFIX;

/// Digits of a run's number.
const DIGITS: usize = 8;
/// Different texts of each class.
const TEXTS: usize = 32;
/// Writing pauses at least this long, so that what is due is written together.
const TICK: Duration = Duration::from_millis(1);

/// What is written, and how.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Pairs of day-files, which are written in turn.
    pub pairs: u32,
    /// Runs a second in all.
    pub rate: u32,
    /// Duration.
    pub seconds: u32,
    /// Runs whose lines are written to a pair at a time.
    pub lines: u32,
}

/// The result of writing.
#[derive(Debug)]
pub struct Written {
    /// When the `write` of the scored line of each run returned, by number.
    pub at: Vec<Instant>,
    /// Runs a second; less than asked for where the writing thread is too slow.
    pub rate: f64,
    /// CPU time of the writing thread.
    pub cpu: Duration,
}

/// A line whose run id is filled in when it is written.
#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    digits_at: usize,
}

impl Line {
    fn of(bytes: Vec<u8>) -> Result<Self, Failure> {
        let prefix = memchr::memmem::find(&bytes, RUN_PREFIX.as_bytes());
        let digits_at = prefix.ok_or("a line without its run id")? + RUN_PREFIX.len();
        Ok(Self { bytes, digits_at })
    }

    fn write(&self, number: usize, out: &mut Vec<u8>) {
        let begin = out.len() + self.digits_at;
        out.extend_from_slice(&self.bytes);
        let mut rest = number;
        for digit in out[begin..begin + DIGITS].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
}

/// Open day-files and the lines for them.
#[derive(Debug)]
pub struct Scorers {
    /// Evidence and scored day-file of each pair.
    files: Vec<[File; 2]>,
    /// Evidence and scored line, by text and class.
    lines: Vec<[Line; 2]>,
    load: Load,
}

impl Scorers {
    /// Opens the day-files, and makes the lines.
    pub fn open(
        root: &Path,
        load: Load,
        rng: &mut fastrand::Rng,
        text_bytes: u32,
    ) -> Result<Self, Failure> {
        let mut files = Vec::new();
        for number in 0..load.pairs {
            let pair = PairPath::numbered(number);
            let open = |path| OpenOptions::new().append(true).open(path);
            files.push([open(pair.evidence(root))?, open(pair.scored(root))?]);
        }
        let mut lines = Vec::new();
        for number in 0..TEXTS * CLASSES.len() {
            let pair = PairPath::numbered(number as u32);
            let run_id = format!("{RUN_PREFIX}{}", "0".repeat(DIGITS));
            let record = Record::good(rng, run_id, text_bytes);
            let (mut evidence, mut scored) = (Vec::new(), Vec::new());
            record.write_evidence(&pair, number as u32, &mut evidence);
            record.write_scored(&pair, number as u32, &mut scored);
            lines.push([Line::of(evidence)?, Line::of(scored)?]);
        }
        Ok(Self { files, lines, load })
    }

    /// Writes the runs at their rate: first the evidence, then the scored lines of as many runs as are written at a time.
    pub fn write(&mut self) -> io::Result<Written> {
        let Load {
            rate,
            seconds,
            lines,
            ..
        } = self.load;
        let count = rate as usize * seconds as usize / lines as usize * lines as usize;
        let mut at = Vec::with_capacity(count);
        let mut buffers = [Vec::new(), Vec::new()];
        let (cpu_before, start) = (thread_cpu_time()?, Instant::now());
        while at.len() < count {
            let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as usize;
            while at.len() + lines as usize <= due.min(count) {
                self.write_group(&mut at, &mut buffers)?;
            }
            sleep_until(Instant::now() + TICK);
        }
        let took = start.elapsed().as_secs_f64();
        Ok(Written {
            rate: count as f64 / took.max(count as f64 / f64::from(rate)),
            at,
            cpu: thread_cpu_time()?.saturating_sub(cpu_before),
        })
    }

    fn write_group(&mut self, at: &mut Vec<Instant>, buffers: &mut [Vec<u8>; 2]) -> io::Result<()> {
        let lines = self.load.lines as usize;
        let pair = at.len() / lines % self.files.len();
        buffers.iter_mut().for_each(Vec::clear);
        for number in at.len()..at.len() + lines {
            let text = number % TEXTS * CLASSES.len() + pair % CLASSES.len();
            for (line, out) in self.lines[text].iter().zip(&mut *buffers) {
                line.write(number, out);
            }
        }
        for (file, bytes) in self.files[pair].iter_mut().zip(&*buffers) {
            file.write_all(bytes)?;
        }
        at.resize(at.len() + lines, Instant::now());
        Ok(())
    }
}
