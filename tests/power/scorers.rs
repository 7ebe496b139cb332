//! The scorers' side of a power cut: the intended content of each day-file, the part that a cut left, and how its
//! writer continues. Does not read the export.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use fastrand::Rng;

use crate::support::kill_harness::earns_rows_throughout;
use crate::support::lake_gen::{Shape, Step, Stream, pairs_of, script};
use crate::support::naive_json;

/// The way in which writers continue after a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Each truncates what it has not written (ext4 fills lost parts with zeros) and writes again what is missing.
    WriteAgain,
    /// Each continues with its next bytes, regardless of losses.
    GoOn,
}

type Name = (bool, String);

/// The day-files of a lake and their unwritten parts.
#[derive(Debug, Clone)]
pub struct Scorers {
    writers: Writers,
    files: BTreeMap<Name, DayFile>,
}

#[derive(Debug, Clone, Default)]
struct DayFile {
    /// The written and the intended content.
    bytes: Vec<u8>,
    /// Length of the content written so far.
    written: usize,
    /// Whether anything was ever written.
    was_there: bool,
}

fn stream_of(name: &Name) -> Stream {
    if name.0 {
        Stream::Evidence
    } else {
        Stream::Scored
    }
}

impl Scorers {
    /// Returns whether the lake of a seed has rows in all its lives; without rows nothing can be lost.
    pub fn earn_rows(seed: u64, lines: usize) -> bool {
        earns_rows_throughout(&script(seed, &Shape::steady(lines)))
    }

    /// Creates a lake of about this number of lines, none of them written yet.
    pub fn new(seed: u64, lines: usize, writers: Writers) -> Self {
        let mut files = BTreeMap::new();
        for (pair, (scored, evidence)) in pairs_of(&script(seed, &Shape::steady(lines))) {
            for (is_evidence, bytes) in [(false, scored), (true, evidence)] {
                let file = bytes.map(|bytes| DayFile {
                    bytes,
                    ..DayFile::default()
                });
                files.extend(file.map(|file| ((is_evidence, pair.clone()), file)));
            }
        }
        Self { writers, files }
    }

    /// Returns appends of about `part` of the missing content, in random pieces and any order.
    pub fn next_steps(&mut self, part: f64, rng: &mut Rng) -> Vec<Step> {
        let mut steps = Vec::new();
        for (name, file) in &mut self.files {
            let missing = file.bytes.len() - file.written;
            let goal = file.written + (missing as f64 * part).ceil() as usize;
            let mut pieces = Vec::new();
            while file.written < goal {
                let len = rng.usize(1..=900).min(goal - file.written);
                pieces.push(file.append(name, len));
            }
            steps = interleaved(steps, pieces, rng);
        }
        steps
    }

    /// Set if lost content is written again.
    pub fn lose_no_line(&self) -> bool {
        self.writers == Writers::WriteAgain
    }

    /// Returns whether a cut removed a whole scored day-file that has not been recreated.
    pub fn lack_a_day_file(&self, root: &Path) -> bool {
        self.files.iter().any(|(name, file)| {
            let path = stream_of(name).path(root, &name.1);
            file.was_there && stream_of(name) == Stream::Scored && !path.exists()
        })
    }

    /// Reads what is left of the day-files and plans how to continue. Returns the number of lost bytes.
    pub fn after_cut(&mut self, root: &Path, rng: &mut Rng) -> usize {
        let mut lost_bytes = 0;
        for (name, file) in &mut self.files {
            let path = stream_of(name).path(root, &name.1);
            let mut left = fs::read(&path).unwrap_or_default();
            let differs = left
                .iter()
                .zip(&file.bytes)
                .position(|(one, other)| one != other);
            let right = differs.unwrap_or(left.len());
            lost_bytes += file.written - right.min(file.written);
            let missing = match self.writers {
                Writers::WriteAgain => {
                    if right < left.len() {
                        left.truncate(right);
                        File::options()
                            .write(true)
                            .open(&path)
                            .unwrap()
                            .set_len(right as u64)
                            .unwrap();
                    }
                    file.bytes[right..].to_vec()
                }
                Writers::GoOn => going_on(&left, &file.bytes[file.written..], rng),
            };
            file.written = left.len();
            file.bytes = [left, missing].concat();
        }
        lost_bytes
    }
}

/// Returns the next bytes, on a new line at random, and always where the previous line may be accepted as it is, or where
/// it and the next one would be one record: evidence of another run, which a further cut may remove again.
fn going_on(left: &[u8], next: &[u8], rng: &mut Rng) -> Vec<u8> {
    let tail = left.rsplit(|byte| *byte == b'\n').next();
    let tail = tail.unwrap_or_default();
    let first = next.split(|byte| *byte == b'\n').next();
    let joined = [tail, first.unwrap_or_default()].concat();
    let is_whole = |line: &[u8]| naive_json::parse(String::from_utf8_lossy(line).trim()).is_some();
    let ends_line = !tail.is_empty() && (is_whole(tail) || is_whole(&joined));
    let newline: &[u8] = if ends_line || rng.bool() { b"\n" } else { b"" };
    [newline, next].concat()
}

impl DayFile {
    fn append(&mut self, (is_evidence, pair): &Name, len: usize) -> Step {
        let bytes = self.bytes[self.written..self.written + len].to_vec();
        self.written += len;
        self.was_there = true;
        Step::Append {
            stream: stream_of(&(*is_evidence, String::new())),
            pair: pair.clone(),
            bytes,
        }
    }
}

fn interleaved(one: Vec<Step>, other: Vec<Step>, rng: &mut Rng) -> Vec<Step> {
    let mut steps = Vec::with_capacity(one.len() + other.len());
    let (mut one, mut other) = (one.into_iter().peekable(), other.into_iter().peekable());
    while one.peek().is_some() || other.peek().is_some() {
        let from_one = rng.usize(0..one.len() + other.len()) < one.len();
        steps.extend(if from_one { one.next() } else { other.next() });
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_line_never_completes_a_lost_one() {
        let next = b"\"text\":\"said\"}\n{}\n";
        for (left, ends_line) in [
            (&b"{}\n{\"run_id\":\"a\"}"[..], true),
            (b"{}\n{\"run_id\":\"a\",", true),
            (b"{}\n{\"run_id\":\"a", false),
        ] {
            let all =
                (0..20).all(|seed| going_on(left, next, &mut Rng::with_seed(seed))[0] == b'\n');
            assert_eq!(all, ends_line, "{}", String::from_utf8_lossy(left));
        }
    }
}
