//! Random lakes: scripts of appends to day-files, cut anywhere, in any order, with the moments at which a test acts.
//! The same seed gives the same script. The expected result is that of the naive batch of [`pairs_of`] the script.

mod lines;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use super::naive::{Pairs, evidence_never_changes};
use super::naive_json;
use lines::{evidence_lines, pick, scored_lines};

/// One of the two streams of a lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// `data/scored-runs`
    Scored,
    /// `data/evidence`
    Evidence,
}

impl Stream {
    /// Both streams.
    pub const BOTH: [Stream; 2] = [Stream::Scored, Stream::Evidence];

    /// Returns the other stream.
    pub fn other(self) -> Self {
        match self {
            Stream::Scored => Stream::Evidence,
            Stream::Evidence => Stream::Scored,
        }
    }

    /// Returns the stream's day-file of a pair.
    pub fn path(self, root: &Path, pair: &str) -> PathBuf {
        let dir = match self {
            Stream::Scored => "data/scored-runs",
            Stream::Evidence => "data/evidence",
        };
        root.join(dir).join(pair)
    }
}

/// One step of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A scorer appends to a day-file, which is created if it is missing.
    Append {
        /// The stream of the day-file.
        stream: Stream,
        /// `YEAR/MONTH/DAY/NAME.jsonl`
        pair: String,
        /// Any part of complete lines, also within UTF-8 characters; may be empty.
        bytes: Vec<u8>,
    },
    /// All sources stay unchanged for longer than `settle`.
    Quiet,
    /// The product is stopped and started.
    Restart,
    /// The product makes its progress durable.
    Checkpoint,
}

impl Step {
    /// Returns the stream, the pair and the bytes of an append.
    pub fn appended(&self) -> Option<(Stream, &str, &[u8])> {
        match self {
            Step::Append {
                stream,
                pair,
                bytes,
            } => Some((*stream, pair, bytes)),
            Step::Quiet | Step::Restart | Step::Checkpoint => None,
        }
    }
}

/// The permitted changes of evidence after its first usable form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvidenceMode {
    /// None, so that incremental must equal batch exactly, with any interleaving.
    Unique,
    /// Any: only the keys of rows can be compared, and a run may have a row in one and none in the other.
    Free,
}

/// The parameters of a script.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Approximate number of lines of both streams.
    pub lines: usize,
    /// The permitted changes of evidence.
    pub mode: EvidenceMode,
    /// Whether [`Step::Quiet`], [`Step::Restart`] and [`Step::Checkpoint`] occur between the appends.
    pub marks: bool,
    /// Whether each day-file ends in a newline, and no line has a beginning that is itself a complete JSON value: for
    /// real clocks, with which the moments without change are unknown.
    pub plain_tails: bool,
}

impl Shape {
    /// Returns a shape of a few lines and all marks, for crash tests and models.
    pub fn small(rng: &mut Rng, mode: EvidenceMode) -> Self {
        Self {
            lines: rng.usize(5..=40),
            mode,
            marks: true,
            plain_tails: false,
        }
    }

    /// Returns a shape for a real process and real clocks.
    pub fn steady(lines: usize) -> Self {
        Self {
            lines,
            mode: EvidenceMode::Unique,
            marks: false,
            plain_tails: true,
        }
    }
}

/// Returns the script of a seed. It ends with [`Step::Quiet`] if it has marks.
pub fn script(seed: u64, shape: &Shape) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    let files = day_files(&mut rng, shape);
    let steps = interleave(&mut rng, files, shape);
    assert!(is_fair(&steps), "a script of seed {seed} is not fair");
    steps
}

/// Returns everything that the script appends, as the pairs of a lake.
pub fn pairs_of(steps: &[Step]) -> Pairs {
    let mut pairs = Pairs::new();
    for (stream, pair, bytes) in steps.iter().filter_map(Step::appended) {
        let (scored, evidence) = pairs.entry(pair.to_owned()).or_default();
        let file = match stream {
            Stream::Scored => scored,
            Stream::Evidence => evidence,
        };
        file.get_or_insert_default().extend_from_slice(bytes);
    }
    pairs
}

/// Returns whether all evidence of the script satisfies [`EvidenceMode::Unique`].
pub fn evidence_is_unique(steps: &[Step]) -> bool {
    let pairs = pairs_of(steps);
    let mut evidence = pairs
        .values()
        .filter_map(|(_, evidence)| evidence.as_deref());
    evidence.all(evidence_never_changes)
}

/// Returns whether no unfinished line that is a complete JSON value is accepted in a [`Step::Quiet`] and continued
/// after it: incremental and batch correctly differ for such a line.
pub fn is_fair(steps: &[Step]) -> bool {
    let mut files: HashMap<(Stream, &str), DayFile> = HashMap::new();
    for (stream, pair, bytes) in steps.iter().filter_map(Step::appended) {
        let file = files
            .entry((stream, pair))
            .or_insert_with(|| DayFile::new(stream, pair));
        file.bytes.extend_from_slice(bytes);
    }
    steps.iter().all(|step| {
        if let Some((stream, pair, bytes)) = step.appended()
            && let Some(file) = files.get_mut(&(stream, pair))
        {
            file.written += bytes.len();
        }
        *step != Step::Quiet || files.values().all(DayFile::may_settle)
    })
}

/// Returns the shortest script found, by removing ever smaller parts, that is still fair, still has unique evidence if
/// `script` has, and for which `still_fails` holds.
pub fn shrink(script: &[Step], mut still_fails: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let unique = evidence_is_unique(script);
    let mut shortest = script.to_vec();
    let mut part = shortest.len().div_ceil(2);
    while part > 0 {
        let mut start = 0;
        while start < shortest.len() {
            let end = (start + part).min(shortest.len());
            let candidate = [&shortest[..start], &shortest[end..]].concat();
            let comparable = is_fair(&candidate) && (!unique || evidence_is_unique(&candidate));
            if comparable && still_fails(&candidate) {
                shortest = candidate;
            } else {
                start = end;
            }
        }
        part /= 2;
    }
    shortest
}

struct DayFile {
    stream: Stream,
    pair: String,
    bytes: Vec<u8>,
    written: usize,
}

impl DayFile {
    fn new(stream: Stream, pair: &str) -> Self {
        Self {
            stream,
            pair: pair.to_owned(),
            bytes: Vec::new(),
            written: 0,
        }
    }

    /// Returns whether the unfinished line, if it is a complete value now, is followed only by white space.
    fn may_settle(&self) -> bool {
        let (written, to_come) = self.bytes.split_at(self.written);
        let tail = written
            .rsplit(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        let rest = to_come
            .split(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        let is_whole = naive_json::parse(String::from_utf8_lossy(tail).trim()).is_some();
        !is_whole || rest.trim_ascii().is_empty()
    }
}

const DAYS: [&str; 5] = [
    "2026/01/01",
    "2026/01/02",
    "2026/01/01-b",
    "2025/12/31",
    "x/y/z",
];
const NAMES: [&str; 4] = ["audits.jsonl", "a.jsonl", ".dot.jsonl", "é b.jsonl"];

fn day_files(rng: &mut Rng, shape: &Shape) -> Vec<DayFile> {
    // Few names, so that several days are likely to have the same one.
    let mut pairs: Vec<String> = Vec::new();
    for day in DAYS {
        pairs.extend(NAMES.map(|name| format!("{day}/{name}")));
    }
    rng.shuffle(&mut pairs);
    pairs.truncate(rng.usize(1..=4));
    let runs = (shape.lines / pairs.len() / 2).max(1);
    let mut files = Vec::new();
    for pair in &pairs {
        let mut push = |rng: &mut Rng, stream, lines| {
            let bytes = join_lines(rng, lines, shape);
            files.push(DayFile {
                bytes,
                ..DayFile::new(stream, pair)
            });
        };
        if rng.u8(0..12) > 0 {
            let lines = scored_lines(rng, pair, runs, shape);
            push(rng, Stream::Scored, lines);
        }
        if rng.u8(0..12) > 0 {
            let lines = evidence_lines(rng, runs, shape);
            push(rng, Stream::Evidence, lines);
        }
    }
    files
}

fn join_lines(rng: &mut Rng, lines: Vec<Vec<u8>>, shape: &Shape) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        bytes.extend(line);
        bytes.extend_from_slice(pick(rng, &["\n", "\n", "\n", "\r\n", " \t\n"]).as_bytes());
    }
    if !shape.plain_tails && rng.u8(0..3) == 0 {
        // Without its newline, or torn somewhere in the last line.
        let torn = if rng.bool() { 1 } else { rng.usize(1..60) };
        bytes.truncate(bytes.len().saturating_sub(torn));
    }
    bytes
}

fn interleave(rng: &mut Rng, mut files: Vec<DayFile>, shape: &Shape) -> Vec<Step> {
    let mut steps = Vec::new();
    // One stream may be far ahead of the other, as in practice.
    let ahead = *pick(
        rng,
        &[None, None, Some(Stream::Scored), Some(Stream::Evidence)],
    );
    let largest_piece = *pick(rng, &[12, 200, 5000]);
    loop {
        let open: Vec<usize> = (0..files.len())
            .filter(|i| files[*i].written < files[*i].bytes.len())
            .collect();
        let mut candidates = open.clone();
        candidates.retain(|i| ahead.is_none_or(|stream| files[*i].stream == stream));
        if candidates.is_empty() || rng.u8(0..10) == 0 {
            candidates = open;
        }
        if candidates.is_empty() {
            break;
        }
        let file = &mut files[*pick(rng, &candidates)];
        steps.push(next_piece(rng, file, largest_piece));
        if shape.marks && rng.u8(0..8) == 0 {
            let mark = pick(rng, &[Step::Restart, Step::Checkpoint, Step::Quiet]);
            if *mark != Step::Quiet || files.iter().all(DayFile::may_settle) {
                steps.push(mark.clone());
            }
        }
    }
    if shape.marks {
        steps.push(Step::Quiet);
    }
    steps
}

fn next_piece(rng: &mut Rng, file: &mut DayFile, largest: usize) -> Step {
    let left = &file.bytes[file.written..];
    let len = match rng.u8(0..20) {
        0 => 0,
        1..8 => left
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(left.len(), |end| end + 1),
        _ => rng.usize(1..=largest).min(left.len()),
    };
    file.written += len;
    Step::Append {
        stream: file.stream,
        pair: file.pair.clone(),
        bytes: left[..len].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::naive::{Counts, naive_batch};
    use super::*;

    fn shape(seed: u64, mode: EvidenceMode) -> Shape {
        Shape::small(&mut Rng::with_seed(seed), mode)
    }

    #[test]
    fn the_same_seed_gives_the_same_script() {
        let script_of = |seed| script(seed, &shape(seed, EvidenceMode::Unique));
        assert_eq!(script_of(7), script_of(7));
        assert_ne!(script_of(7), script_of(8));
    }

    #[test]
    fn scripts_have_every_verdict_and_every_mark() {
        let mut total = Counts::default();
        let (mut marks, mut inside_lines, mut duplicates) = (0, 0, 0);
        for seed in 0..200 {
            let steps = script(seed, &shape(seed, EvidenceMode::Unique));
            let batch = naive_batch(&pairs_of(&steps), false);
            let counts = batch.counts;
            total.malformed += counts.malformed;
            total.has_unarmed += counts.has_unarmed;
            total.evidence_malformed += counts.evidence_malformed;
            total.firewall += counts.firewall;
            total.unknown_category += counts.unknown_category;
            total.no_evidence += counts.no_evidence;
            total.role += counts.role;
            total.blank_text += counts.blank_text;
            total.exported += counts.exported;
            for step in &steps {
                match step {
                    Step::Append { bytes, .. } => {
                        inside_lines += usize::from(!bytes.ends_with(b"\n"))
                    }
                    Step::Quiet | Step::Restart | Step::Checkpoint => marks += 1,
                }
            }
            let mut keys: Vec<String> = batch
                .rows
                .iter()
                .map(|row| super::super::naive::row_key(row))
                .collect();
            keys.sort_unstable();
            duplicates += keys.windows(2).filter(|pair| pair[0] == pair[1]).count();
        }
        let verdicts = [
            total.firewall,
            total.unknown_category,
            total.no_evidence,
            total.role,
            total.blank_text,
        ];
        let others = [total.malformed, total.has_unarmed, total.evidence_malformed];
        assert!(
            verdicts.iter().chain(&others).all(|count| *count > 20),
            "{total:?}"
        );
        assert!(
            total.exported > 500 && marks > 500 && inside_lines > 1000 && duplicates > 5,
            "{total:?} {marks} {inside_lines} {duplicates}"
        );
    }

    #[test]
    fn evidence_is_unique_if_requested() {
        let unique = |mode| {
            (0..200)
                .filter(|seed| evidence_is_unique(&script(*seed, &shape(*seed, mode))))
                .count()
        };
        assert_eq!(unique(EvidenceMode::Unique), 200);
        assert!(unique(EvidenceMode::Free) < 150);
    }

    #[test]
    fn plain_tails_end_in_newlines_and_may_settle_anywhere() {
        for seed in 0..20 {
            let steps = script(seed, &Shape::steady(100));
            let quiet_everywhere: Vec<Step> = steps
                .iter()
                .flat_map(|step| [step.clone(), Step::Quiet])
                .collect();
            assert!(is_fair(&quiet_everywhere), "seed {seed}");
            assert_eq!(naive_batch(&pairs_of(&steps), false).counts.has_unarmed, 0);
        }
    }

    #[test]
    fn a_value_that_continues_after_it_was_accepted_is_not_fair() {
        let append = |bytes: &[u8]| Step::Append {
            stream: Stream::Scored,
            pair: "1/2/3/a.jsonl".to_owned(),
            bytes: bytes.to_vec(),
        };
        assert!(!is_fair(&[append(b"{}"), Step::Quiet, append(b"{}\n")]));
        assert!(is_fair(&[append(b"{}"), Step::Restart, append(b"{}\n")]));
        assert!(is_fair(&[append(b"{}"), Step::Quiet, append(b" \r\n{}")]));
        assert!(is_fair(&[append(b"{"), Step::Quiet, append(b"}\n")]));
    }

    #[test]
    fn shrinking_keeps_the_failing_steps_and_few_others() {
        let steps = script(
            3,
            &Shape {
                lines: 40,
                ..shape(3, EvidenceMode::Unique)
            },
        );
        let fails = |steps: &[Step]| naive_batch(&pairs_of(steps), false).counts.firewall > 0;
        assert!(fails(&steps), "choose a seed with a firewalled line");
        let shortest = shrink(&steps, fails);
        assert!(fails(&shortest) && shortest.len() < steps.len());
        let any_append = shrink(&steps, |steps| {
            steps.iter().any(|step| *step != Step::Quiet)
        });
        assert_eq!(any_append.len(), 1);
    }
}
