//! Owns what becomes of the new lines of a pair of day-files: parse, firewall, join, synthesize; who waits, who is
//! looked at again, which row is already there. The heart of the pure core: it does no I/O and reads no clock, asks
//! for what it needs through [`PairIndex`] and [`Bodies`], and gives all that follows as one [`Outcome`].
//!
//! A scored line that the firewall admits has one of five verdicts: it waits, it is refused for its evidence's role
//! or blank text, or it is exported. The first three are looked at again whenever evidence with their run id
//! arrives, because the last evidence with an id counts and a batch over the same bytes would see it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64;

use crate::checkpoint::{
    Claim, DeadLetter, EvidenceEntry, EvidenceRef, PairCheckpoint, PairId, ScoredEntry,
    SourceState, Verdict,
};
use crate::firewall::{Admission, AdmittedRun, admit};
use crate::json_text::Dialect;
use crate::parse::{self, Evidence, ParseFault, ScoredRun};
use crate::row::{RowKey, RunKey};
use crate::synthesize::{Refusal, RowPlace, Synthesis, synthesize};
use crate::tail::Chunk;

/// Rows of one step at which no further scored line is begun. A longer text may still go beyond it.
const ROWS_BYTES_MAX: usize = 8 << 20;

/// Texts for whose rows room is made at once, exactly.
const LONG_TEXT_LEN: usize = 1 << 20;

/// What the state has taken in of a pair, without what its [`Overlay`] holds.
pub trait PairIndex<E> {
    /// Where the evidence for a run lies.
    ///
    /// # Errors
    /// The state's.
    fn evidence(&self, run: RunKey) -> Result<Option<EvidenceRef>, E>;
    /// The scored lines of a run, in order.
    ///
    /// # Errors
    /// The state's.
    fn entries(&self, run: RunKey) -> Result<Vec<ScoredEntry>, E>;
    /// Rows with this key that no line has claimed before this step, in order.
    ///
    /// # Errors
    /// The state's.
    fn claimable(&self, row: RowKey) -> Result<Vec<Claim>, E>;
}

/// Lines of the pair whose place is known. `None`: the file is gone or shorter by now.
pub trait Bodies<E> {
    /// A line of the scored day-file.
    ///
    /// # Errors
    /// The disk's.
    fn scored(&self, offset: u64, len_bytes: u32) -> Result<Option<Vec<u8>>, E>;
    /// A line of the evidence day-file.
    ///
    /// # Errors
    /// The disk's.
    fn evidence(&self, place: EvidenceRef) -> Result<Option<Vec<u8>>, E>;
}

/// What is known of a pair since the state's last checkpoint; it goes before what the state says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// New evidence records.
    pub evidence: BTreeMap<RunKey, EvidenceRef>,
    /// New scored lines, and those whose verdict changed, by run and offset.
    pub entries: BTreeMap<(RunKey, u64), ScoredEntry>,
    /// New dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// Claims that found their row.
    pub claims: Vec<Claim>,
}

impl Overlay {
    /// Entries it holds: what a checkpoint would have to write.
    #[must_use]
    pub fn len(&self) -> usize {
        self.evidence.len() + self.entries.len() + self.dead_letters.len() + self.claims.len()
    }

    /// New evidence records, by run.
    pub fn evidence_entries(&self) -> impl Iterator<Item = EvidenceEntry> {
        self.evidence.iter().map(|(run, place)| EvidenceEntry {
            run: *run,
            place: *place,
        })
    }

    /// Puts what is newer over what is there.
    pub fn extend(&mut self, newer: Overlay) {
        self.evidence.extend(newer.evidence);
        self.entries.extend(newer.entries);
        self.dead_letters.extend(newer.dead_letters);
        self.claims.extend(newer.claims);
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A pair that is being worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivePair {
    /// Its number in the state.
    pub id: PairId,
    /// How far it is read and what became of its lines.
    pub checkpoint: PairCheckpoint,
    /// What the state has not taken in yet.
    pub overlay: Overlay,
    /// Whether the state has ever taken in anything of it; if not, nobody asks.
    pub persisted: bool,
}

/// What the step needs to know beside the lines.
pub struct Facts<'a, E> {
    /// What the state has taken in.
    pub index: &'a dyn PairIndex<E>,
    /// Lines read before.
    pub bodies: &'a dyn Bodies<E>,
    /// Whether there are rows that no line has claimed.
    pub claims_possible: bool,
    /// A longer line is a dead letter, bytes.
    pub line_bytes_max: u64,
    /// RFC 3339 UTC with milliseconds, written into new rows.
    pub stamp: &'a str,
    /// Seconds since 1970, remembered of runs that begin to wait.
    pub now_s: u64,
}

/// All that follows from new lines of one pair. Nothing has happened yet.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The checkpoint after them.
    pub checkpoint: PairCheckpoint,
    /// What to put over the state. Row offsets of `new_rows` count from the start of `rows`.
    pub overlay: Overlay,
    /// New rows, each with its newline.
    pub rows: Vec<u8>,
    /// The scored lines that `rows` are of, in order.
    pub new_rows: Vec<(RunKey, u64)>,
    /// Evidence that differs came for so many rows already written.
    pub superseded: u64,
}

impl Outcome {
    /// Counts row offsets from the start of the export instead of `rows`.
    pub fn place_rows(&mut self, rows_offset: u64) {
        for key in &self.new_rows {
            if let Some(ScoredEntry {
                verdict: Verdict::Exported { row_offset, .. },
                ..
            }) = self.overlay.entries.get_mut(key)
            {
                *row_offset += rows_offset;
            }
        }
    }
}

/// Works new lines of a pair: evidence first, so that a run and its evidence that arrive together never wait.
///
/// # Errors
/// Those of the index and the bodies; then nothing follows.
pub fn advance<E>(
    pair: &ActivePair,
    evidence: &Chunk,
    scored: &Chunk,
    facts: &Facts<'_, E>,
) -> Result<Outcome, E> {
    let day_file_name = day_file_name(&pair.checkpoint.path).into_owned();
    let out = Outcome {
        checkpoint: pair.checkpoint.clone(),
        ..Outcome::default()
    };
    let mut step = Step {
        contradicted: HashSet::new(),
        claimed: BTreeSet::new(),
        pair,
        facts,
        day_file_name,
        out,
    };
    let given = step.take_evidence(evidence);
    let all_joined = step.out.checkpoint.scored.records == 0 || step.look_again(&given)?;
    if all_joined {
        step.take_scored(scored, &given)?;
    } else {
        step.leave_evidence();
    }
    Ok(step.out)
}

/// Evidence of the chunk in hand.
struct Given<'c> {
    evidence: Evidence<'c>,
    digest: u32,
}

/// A run key is a hash already: its first bytes serve as the hash of the map.
#[derive(Debug, Default)]
struct RunKeyHasher(u64);

impl Hasher for RunKeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for (at, byte) in bytes.iter().take(8).enumerate() {
            self.0 ^= u64::from(*byte) << (8 * at);
        }
    }
}

type GivenByRun<'c> = HashMap<RunKey, Given<'c>, BuildHasherDefault<RunKeyHasher>>;

struct Step<'a, E> {
    pair: &'a ActivePair,
    facts: &'a Facts<'a, E>,
    day_file_name: String,
    /// Runs whose rows are all marked as contradicted.
    contradicted: HashSet<RunKey>,
    /// Rows that were claimed in this step.
    claimed: BTreeSet<Claim>,
    out: Outcome,
}

impl<E> Step<'_, E> {
    fn take_evidence<'c>(&mut self, chunk: &'c Chunk) -> GivenByRun<'c> {
        let mut given = GivenByRun::default();
        self.pass_over(true, chunk);
        for Line { offset, body, end } in lines(self.source(true).offset, chunk) {
            self.source(true).offset = end;
            if parse::trim(body).is_empty() {
                continue;
            }
            self.source(true).lines += 1;
            match parse_within(body, self.facts.line_bytes_max, parse::evidence) {
                Ok(evidence) => {
                    let run = RunKey::of(&evidence.run_id.decode());
                    let place = EvidenceRef {
                        offset,
                        len_bytes: len_u32(body),
                    };
                    self.out.checkpoint.evidence.records += 1;
                    self.out.overlay.evidence.insert(run, place);
                    given.insert(
                        run,
                        Given {
                            evidence,
                            digest: digest(body),
                        },
                    );
                }
                Err(fault) => self.bury(true, offset, body.len() as u64, fault),
            }
        }
        given
    }

    /// Looks again at the runs that this evidence concerns, in the order in which they stand in their day-file, until
    /// the rows are many. Says whether it looked at all of them.
    fn look_again(&mut self, given: &GivenByRun<'_>) -> Result<bool, E> {
        let mut concerned = Vec::new();
        for run in given.keys() {
            concerned.extend(self.entries(*run)?);
        }
        concerned.sort_by_key(|entry| entry.offset);
        let rejected = concerned
            .iter()
            .filter(|entry| entry.verdict == Verdict::Firewalled);
        let rejected_last: HashMap<RunKey, u64> =
            rejected.map(|entry| (entry.run, entry.offset)).collect();
        for entry in concerned {
            let Some(evidence) = given.get(&entry.run) else {
                continue;
            };
            if self.out.rows.len() >= ROWS_BYTES_MAX {
                return Ok(false);
            }
            match entry.verdict {
                Verdict::Waiting { index, .. }
                | Verdict::Role { index }
                | Verdict::BlankText { index } => {
                    self.join_again(entry, index, evidence)?;
                    if rejected_last
                        .get(&entry.run)
                        .is_some_and(|last| *last > entry.offset)
                    {
                        self.contradict(entry);
                    }
                }
                Verdict::Exported {
                    evidence_digest,
                    superseded: false,
                    ..
                } if evidence_digest != 0 && evidence_digest != evidence.digest => {
                    self.supersede(entry);
                }
                _ => {}
            }
        }
        Ok(true)
    }

    /// The evidence is read again in the next step: what was joined with it by then has its row, and is passed by.
    fn leave_evidence(&mut self) {
        self.out.checkpoint.evidence = self.pair.checkpoint.evidence;
        self.out.overlay.evidence.clear();
        self.out.overlay.dead_letters.clear();
    }

    fn join_again(&mut self, entry: ScoredEntry, index: u32, given: &Given<'_>) -> Result<(), E> {
        let Some(line) = self.facts.bodies.scored(entry.offset, entry.len_bytes)? else {
            return Ok(());
        };
        let Ok(run) = parse::scored_run(parse::trim(&line)) else {
            return Ok(());
        };
        if RunKey::of(&run.evidence_run_id.decode()) != entry.run {
            return Ok(());
        }
        let Admission::Admitted(admitted) = admit(&run, Dialect::Native) else {
            return Ok(());
        };
        let verdict = self.join(&admitted, (entry.run, entry.offset), index, given)?;
        self.change(entry, verdict);
        Ok(())
    }

    /// Works scored lines until the chunk ends or the rows are many: one text may be wanted by many lines.
    fn take_scored(&mut self, chunk: &Chunk, given: &GivenByRun<'_>) -> Result<(), E> {
        self.pass_over(false, chunk);
        for Line { offset, body, end } in lines(self.source(false).offset, chunk) {
            if self.out.rows.len() >= ROWS_BYTES_MAX {
                break;
            }
            self.source(false).offset = end;
            if parse::trim(body).is_empty() {
                continue;
            }
            self.source(false).lines += 1;
            match parse_within(body, self.facts.line_bytes_max, parse::scored_run) {
                Ok(run) => self.take_run(offset, len_u32(body), &run, given)?,
                Err(fault) => self.bury(false, offset, body.len() as u64, fault),
            }
        }
        Ok(())
    }

    fn take_run(
        &mut self,
        offset: u64,
        len_bytes: u32,
        scored: &ScoredRun<'_>,
        given: &GivenByRun<'_>,
    ) -> Result<(), E> {
        let index = u32::try_from(self.out.checkpoint.scored.records)
            .expect("a day-file of at most 1 TiB has fewer than 2^32 records");
        self.out.checkpoint.scored.records += 1;
        let run = RunKey::of(&scored.evidence_run_id.decode());
        let verdict = match admit(scored, Dialect::Native) {
            Admission::Firewalled => {
                self.contradict_earlier(run, scored)?;
                Verdict::Firewalled
            }
            Admission::UnknownCategory => Verdict::UnknownCategory,
            Admission::Admitted(admitted) => {
                self.join_new(&admitted, (run, offset), index, given)?
            }
        };
        *self.out.checkpoint.counts.of_mut(verdict) += 1;
        self.put(ScoredEntry {
            run,
            offset,
            len_bytes,
            verdict,
        });
        Ok(())
    }

    fn join_new(
        &mut self,
        admitted: &AdmittedRun<'_, '_>,
        key: (RunKey, u64),
        index: u32,
        given: &GivenByRun<'_>,
    ) -> Result<Verdict, E> {
        let run = key.0;
        let waiting = Verdict::Waiting {
            index,
            since_s: self.facts.now_s,
        };
        if let Some(given) = given.get(&run) {
            return self.join(admitted, key, index, given);
        }
        let Some(place) = self.find_evidence(run)? else {
            return Ok(waiting);
        };
        let Some(line) = self.facts.bodies.evidence(place)? else {
            return Ok(waiting);
        };
        match parse::evidence(parse::trim(&line)) {
            Ok(evidence) if RunKey::of(&evidence.run_id.decode()) == run => self.join(
                admitted,
                key,
                index,
                &Given {
                    evidence,
                    digest: digest(&line),
                },
            ),
            // The file changed under us; its identity will say so before anything more is read of it.
            _ => Ok(waiting),
        }
    }

    /// A run and its evidence: a row, a claim on a row that is there, or a refusal.
    fn join(
        &mut self,
        admitted: &AdmittedRun<'_, '_>,
        key: (RunKey, u64),
        index: u32,
        given: &Given<'_>,
    ) -> Result<Verdict, E> {
        let place = RowPlace {
            day_file_name: &self.day_file_name,
            index: u64::from(index),
        };
        let synthesis = Synthesis {
            dialect: Dialect::Native,
            include_partial: false,
            stamp: self.facts.stamp,
        };
        let row_from = self.out.rows.len();
        let text_len = given.evidence.text.raw_len();
        if text_len >= LONG_TEXT_LEN {
            // Doubling would need twice the memory of the row.
            self.out
                .rows
                .reserve_exact(text_len + text_len / 64 + 4_096);
        }
        match synthesize(
            admitted,
            &given.evidence,
            &place,
            &synthesis,
            &mut self.out.rows,
        ) {
            Err(Refusal::Role) => return Ok(Verdict::Role { index }),
            Err(Refusal::BlankText) => return Ok(Verdict::BlankText { index }),
            Err(Refusal::UnknownCategory) => return Ok(Verdict::UnknownCategory),
            Ok(()) => {}
        }
        let exported = |row_offset, evidence_digest| Verdict::Exported {
            row_offset,
            evidence_digest,
            superseded: false,
            contradicted: false,
        };
        self.contradicted.remove(&key.0);
        if let Some(claim) = self.first_claimable(admitted.run())? {
            self.out.rows.truncate(row_from);
            self.out.overlay.claims.push(claim);
            self.claimed.insert(claim);
            return Ok(exported(claim.row_offset, 0));
        }
        self.out.new_rows.push(key);
        Ok(exported(row_from as u64, given.digest))
    }

    fn first_claimable(&self, run: &ScoredRun<'_>) -> Result<Option<Claim>, E> {
        if !self.facts.claims_possible {
            return Ok(None);
        }
        let claimable = self
            .facts
            .index
            .claimable(RowKey::of_line(&self.day_file_name, run))?;
        Ok(claimable
            .into_iter()
            .find(|claim| !self.claimed.contains(claim)))
    }

    fn find_evidence(&self, run: RunKey) -> Result<Option<EvidenceRef>, E> {
        let fresh = self
            .out
            .overlay
            .evidence
            .get(&run)
            .or_else(|| self.pair.overlay.evidence.get(&run));
        match fresh {
            Some(place) => Ok(Some(*place)),
            None if self.pair.persisted => self.facts.index.evidence(run),
            None => Ok(None),
        }
    }

    /// Every scored line of a run so far, in order.
    fn entries(&self, run: RunKey) -> Result<Vec<ScoredEntry>, E> {
        let mut entries = BTreeMap::new();
        if self.pair.persisted {
            entries.extend(
                self.facts
                    .index
                    .entries(run)?
                    .into_iter()
                    .map(|entry| (entry.offset, entry)),
            );
        }
        for overlay in [&self.pair.overlay, &self.out.overlay] {
            let of_run = overlay.entries.range((run, 0)..=(run, u64::MAX));
            entries.extend(of_run.map(|((_, offset), entry)| (*offset, *entry)));
        }
        Ok(entries.into_values().collect())
    }

    /// Rows of this run that were exported before the firewall refused it now.
    fn contradict_earlier(&mut self, run: RunKey, scored: &ScoredRun<'_>) -> Result<(), E> {
        // Many lines may reject one run; its rows are looked for again only when it has gained one.
        if self.contradicted.insert(run) {
            for entry in self.entries(run)? {
                self.contradict(entry);
            }
        }
        // The accepting line itself was rewritten: its row is still there, and nobody claims it any more.
        if self.first_claimable(scored)?.is_some() {
            self.out.checkpoint.counts.contradicted += 1;
        }
        Ok(())
    }

    fn contradict(&mut self, entry: ScoredEntry) {
        let entry = self
            .out
            .overlay
            .entries
            .get(&(entry.run, entry.offset))
            .copied()
            .unwrap_or(entry);
        if let Verdict::Exported {
            row_offset,
            evidence_digest,
            superseded,
            contradicted: false,
        } = entry.verdict
        {
            let verdict = Verdict::Exported {
                row_offset,
                evidence_digest,
                superseded,
                contradicted: true,
            };
            self.put(ScoredEntry { verdict, ..entry });
            self.out.checkpoint.counts.contradicted += 1;
        }
    }

    fn supersede(&mut self, entry: ScoredEntry) {
        if let Verdict::Exported {
            row_offset,
            evidence_digest,
            contradicted,
            ..
        } = entry.verdict
        {
            let verdict = Verdict::Exported {
                row_offset,
                evidence_digest,
                superseded: true,
                contradicted,
            };
            self.put(ScoredEntry { verdict, ..entry });
            self.out.checkpoint.counts.superseded += 1;
            self.out.superseded += 1;
        }
    }

    fn change(&mut self, entry: ScoredEntry, verdict: Verdict) {
        *self.out.checkpoint.counts.of_mut(entry.verdict) -= 1;
        *self.out.checkpoint.counts.of_mut(verdict) += 1;
        self.put(ScoredEntry { verdict, ..entry });
    }

    fn put(&mut self, entry: ScoredEntry) {
        self.out
            .overlay
            .entries
            .insert((entry.run, entry.offset), entry);
    }

    fn bury(&mut self, in_evidence: bool, offset: u64, len_bytes: u64, fault: ParseFault) {
        self.source(in_evidence).malformed += 1;
        let reason = fault.code().to_owned();
        self.out.overlay.dead_letters.push(DeadLetter {
            in_evidence,
            offset,
            len_bytes,
            reason,
        });
    }

    fn source(&mut self, in_evidence: bool) -> &mut SourceState {
        if in_evidence {
            &mut self.out.checkpoint.evidence
        } else {
            &mut self.out.checkpoint.scored
        }
    }

    /// Bytes of an overlong line: passed over, and buried when its end is reached.
    fn pass_over(&mut self, in_evidence: bool, chunk: &Chunk) {
        let Chunk::Overlong {
            line_from,
            offset,
            ended,
        } = *chunk
        else {
            return;
        };
        let source = self.source(in_evidence);
        source.offset = offset;
        source.overlong_from = (!ended).then_some(line_from);
        if ended {
            source.lines += 1;
            let fault = ParseFault::TooLong {
                max_line_bytes: self.facts.line_bytes_max,
            };
            self.bury(in_evidence, line_from, offset - line_from - 1, fault);
        }
    }
}

/// One line of a chunk, without its newline.
struct Line<'c> {
    offset: u64,
    body: &'c [u8],
    /// Where the next one starts.
    end: u64,
}

fn lines(from: u64, chunk: &Chunk) -> impl Iterator<Item = Line<'_>> {
    let bytes = if let Chunk::Lines(bytes) = chunk {
        bytes.as_slice()
    } else {
        &[]
    };
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let len = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let offset = from + at as u64;
        at = (at + len + 1).min(bytes.len());
        Some(Line {
            offset,
            body: &rest[..len],
            end: from + at as u64,
        })
    })
}

fn parse_within<'l, T>(
    line: &'l [u8],
    line_bytes_max: u64,
    parse: impl Fn(&'l [u8]) -> Result<T, ParseFault>,
) -> Result<T, ParseFault> {
    if line.len() as u64 > line_bytes_max {
        return Err(ParseFault::TooLong {
            max_line_bytes: line_bytes_max,
        });
    }
    parse(parse::trim(line))
}

/// Tells one evidence line from another; never 0, which stands for "not known".
fn digest(line: &[u8]) -> u32 {
    (xxh3_64(parse::trim(line)) as u32).max(1)
}

fn len_u32(line: &[u8]) -> u32 {
    u32::try_from(line.len()).expect("lines are shorter than their limit, which is below 4 GiB")
}

fn day_file_name(path: &[u8]) -> Cow<'_, str> {
    let start = memchr::memrchr(b'/', path).map_or(0, |slash| slash + 1);
    String::from_utf8_lossy(&path[start..])
}
