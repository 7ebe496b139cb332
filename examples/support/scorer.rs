//! The schedule of the runs, and the `write` of each line.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Expected, Inventor, Run, today};

/// Number of runs per run whose evidence follows the score.
const LATE_EVERY: u64 = 5;

/// A schedule of runs at an even rate.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    per_second: f64,
    given: u64,
}

impl Clock {
    /// Creates a schedule whose first run is due now.
    pub fn new(per_second: f64) -> Self {
        Self {
            start: Instant::now(),
            per_second,
            given: 0,
        }
    }

    /// Returns whether a run is due; each is reported once.
    pub fn due(&mut self) -> bool {
        let due = self.start.elapsed().as_secs_f64() * self.per_second >= self.given as f64;
        self.given += u64::from(due);
        due
    }
}

/// The content of one `write` to a day-file.
#[derive(Debug, Clone)]
pub struct Written {
    /// The run the line belongs to.
    pub run_id: String,
    /// The expected result for the run.
    pub expected: Expected,
    /// Set if both lines of the run have been written.
    pub complete: bool,
    /// Set if the evidence follows the score.
    pub late: bool,
    /// Time at which the `write` returned.
    pub at: Instant,
}

/// Evidence whose append is delayed.
#[derive(Debug)]
struct Late {
    due: Instant,
    run: Run,
    day: String,
}

/// Appends invented runs to the day-files of a lake.
#[derive(Debug)]
pub struct Scorer {
    root: PathBuf,
    /// Day to write to; the current day if unset.
    day: Option<String>,
    inventor: Inventor,
    late_after: Option<Duration>,
    late: VecDeque<Late>,
    count: u64,
}

impl Scorer {
    /// Creates a scorer on `root`. Without `late_after` no evidence is late.
    pub fn new(root: &Path, day: Option<String>, seed: u64, late_after: Option<Duration>) -> Self {
        let inventor = Inventor::new(seed);
        Self {
            root: root.to_owned(),
            day,
            inventor,
            late_after,
            late: VecDeque::new(),
            count: 0,
        }
    }

    /// Scores one run: appends its evidence, unless it is late, then its scored line.
    ///
    /// # Errors
    /// Names the day-file that could not be written.
    pub fn score(&mut self) -> io::Result<Written> {
        self.count += 1;
        let day = self.day.clone().unwrap_or_else(today);
        let run = self.inventor.run(&day);
        let late_after = self.late_after.filter(|_| {
            run.expected == Expected::Exported && self.count.is_multiple_of(LATE_EVERY)
        });
        if late_after.is_none() {
            self.append("evidence", &day, run.class, &run.evidence)?;
        }
        self.append("scored-runs", &day, run.class, &run.scored)?;
        let at = Instant::now();
        let written = written(&run, late_after.is_none(), late_after.is_some(), at);
        if let Some(after) = late_after {
            self.late.push_back(Late {
                due: at + after,
                run,
                day,
            });
        }
        Ok(written)
    }

    /// Appends one delayed line of evidence, if one is due or `all` is set.
    ///
    /// # Errors
    /// Names the day-file that could not be written.
    pub fn give_evidence(&mut self, all: bool) -> io::Result<Option<Written>> {
        let Some(late) = self
            .late
            .pop_front_if(|late| all || late.due <= Instant::now())
        else {
            return Ok(None);
        };
        self.append("evidence", &late.day, late.run.class, &late.run.evidence)?;
        Ok(Some(written(&late.run, true, true, Instant::now())))
    }

    fn append(&self, stream: &str, day: &str, class: &str, line: &str) -> io::Result<()> {
        let directory = self.root.join("data").join(stream).join(day);
        let file = directory.join(format!("{class}.jsonl"));
        let write = || {
            fs::create_dir_all(&directory)?;
            let mut file = OpenOptions::new().append(true).create(true).open(&file)?;
            // One call including the newline, as scorers do to avoid torn lines.
            file.write_all(format!("{line}\n").as_bytes())
        };
        write().map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot append to {}: {error}", file.display()),
            )
        })
    }
}

fn written(run: &Run, complete: bool, late: bool, at: Instant) -> Written {
    Written {
        run_id: run.run_id.clone(),
        expected: run.expected,
        complete,
        late,
        at,
    }
}
