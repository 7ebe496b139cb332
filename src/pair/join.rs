//! Processes the new lines of a pair: each line gets its verdict, and each admitted run with evidence its row. Changes
//! nothing but its own [`JoinOutcome`].

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::lake::chunk::Chunk;
use crate::lake::identity::SourceState;
use crate::pair::evidence_chunk::{ByRunKey, NewEvidence, NewEvidenceByRun};
use crate::pair::index::{DeadLetter, EvidenceLocation, ScoredLine, UnclaimedRow};
use crate::pair::line::{Line, day_file_name, len_u32, lines, parse_within};
use crate::pair::verdict::{Verdict, VerdictKind};
use crate::pair::{ActivePair, JoinContext, JoinOutcome};
use crate::record::firewall::{Admission, AdmittedRun, admit};
use crate::record::json::escape::Dialect;
use crate::record::keys::{RowKey, RunKey};
use crate::record::parse;
use crate::record::parse::{ParseError, ScoredRun};
use crate::record::synthesize::{Refusal, RowPlace, Synthesis, synthesize};

/// Bytes of rows after which a step takes no further scored line. The row of the last line may exceed it.
pub(crate) const ROWS_BYTES_MAX: usize = 8 << 20;
/// Minimum text length, bytes, for which the exact room for the row is reserved at once.
pub(super) const LONG_TEXT_LEN: usize = 1 << 20;

/// One step over a pair: its input, the outcome so far, and lookups that are cached within the step.
pub(super) struct Joiner<'a, E> {
    pub(super) pair: &'a ActivePair,
    pub(super) context: &'a JoinContext<'a, E>,
    pub(super) day_file_name: String,
    /// Per run with a line in this step that overrules earlier ones: the offset of the line exported since, which no line
    /// overrules yet.
    pub(super) current_rows: HashMap<RunKey, Option<u64>, ByRunKey>,
    /// Per run looked up in this step: its scored lines in the state.
    pub(super) stored: RefCell<HashMap<RunKey, Vec<ScoredLine>, ByRunKey>>,
    /// Per run looked up in this step: the row keys of all its lines that are refused for their category.
    pub(super) refused_keys: HashMap<RunKey, HashSet<RowKey>, ByRunKey>,
    /// Per run that a line of this step refused: the offset of the last such line.
    pub(super) refused_to: HashMap<RunKey, u64, ByRunKey>,
    /// Rows claimed in this step.
    pub(super) claimed: BTreeSet<UnclaimedRow>,
    pub(super) out: JoinOutcome,
}

impl<'a, E> Joiner<'a, E> {
    pub(super) fn new(
        pair: &'a ActivePair,
        context: &'a JoinContext<'a, E>,
        buffer: Vec<u8>,
    ) -> Self {
        let day_file_name = day_file_name(&pair.checkpoint.path).into_owned();
        let out = JoinOutcome {
            checkpoint: pair.checkpoint.clone(),
            rows: buffer,
            ..JoinOutcome::default()
        };
        Self {
            pair,
            context,
            day_file_name,
            current_rows: HashMap::default(),
            stored: RefCell::default(),
            refused_keys: HashMap::default(),
            refused_to: HashMap::default(),
            claimed: BTreeSet::new(),
            out,
        }
    }

    /// Indexes the lines of an evidence chunk and returns their records by run. Of several records with one run id the
    /// last one counts.
    pub(super) fn ingest_evidence<'c>(&mut self, chunk: &'c Chunk) -> NewEvidenceByRun<'c> {
        let mut new_evidence = NewEvidenceByRun::default();
        self.skip_oversized(true, chunk);
        for Line { offset, body, end } in lines(self.source(true).offset, chunk) {
            self.source(true).offset = end;
            if parse::trim(body).is_empty() {
                continue;
            }
            self.source(true).lines += 1;
            match parse_within(body, self.context.line_bytes_max, parse::evidence) {
                Ok(evidence) => {
                    let run = RunKey::from_text(&evidence.run_id);
                    let place = EvidenceLocation {
                        offset,
                        len_bytes: len_u32(body),
                    };
                    self.out.checkpoint.evidence.records += 1;
                    self.out.overlay.evidence.insert(run, place);
                    new_evidence.insert(run, NewEvidence::new(evidence, body));
                }
                Err(fault) => self.dead_letter(true, offset, body.len() as u64, fault),
            }
        }
        new_evidence
    }

    /// Processes scored lines until the chunk ends or the rows reach [`ROWS_BYTES_MAX`]: many lines may share one long
    /// text.
    pub(super) fn ingest_scored(
        &mut self,
        chunk: &Chunk,
        new_evidence: &NewEvidenceByRun<'_>,
    ) -> Result<(), E> {
        self.skip_oversized(false, chunk);
        for Line { offset, body, end } in lines(self.source(false).offset, chunk) {
            if self.out.rows.len() >= ROWS_BYTES_MAX {
                break;
            }
            self.source(false).offset = end;
            if parse::trim(body).is_empty() {
                continue;
            }
            self.source(false).lines += 1;
            match parse_within(body, self.context.line_bytes_max, parse::scored_run) {
                Ok(run) => self.ingest_run(offset, len_u32(body), &run, new_evidence)?,
                Err(fault) => self.dead_letter(false, offset, body.len() as u64, fault),
            }
        }
        Ok(())
    }

    fn ingest_run(
        &mut self,
        offset: u64,
        len_bytes: u32,
        scored: &ScoredRun<'_>,
        new_evidence: &NewEvidenceByRun<'_>,
    ) -> Result<(), E> {
        let index = u32::try_from(self.out.checkpoint.scored.records)
            .expect("a day-file of at most 1 TiB has fewer than 2^32 records");
        self.out.checkpoint.scored.records += 1;
        let run = RunKey::from_text(&scored.evidence_run_id);
        let verdict = match admit(scored, Dialect::Native) {
            Admission::Firewalled => {
                self.refuse_earlier(run, offset, scored)?;
                Verdict::Firewalled
            }
            Admission::UnknownCategory => {
                self.refuse_earlier(run, offset, scored)?;
                Verdict::UnknownCategory
            }
            Admission::Admitted(admitted) => {
                let verdict = self.join_new(&admitted, (run, offset), index, new_evidence)?;
                if verdict.kind() == VerdictKind::Exported {
                    self.rescore_earlier(run, offset)?;
                }
                verdict
            }
        };
        self.out.checkpoint.counts[verdict.kind()] += 1;
        if let Verdict::Waiting { since_s, .. } = verdict {
            self.out.checkpoint.begin_to_wait(since_s);
        }
        self.put(ScoredLine {
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
        new_evidence: &NewEvidenceByRun<'_>,
    ) -> Result<Verdict, E> {
        let run = key.0;
        let waiting = if self.is_ordered(run) {
            Verdict::Ordered { index }
        } else {
            Verdict::Waiting {
                index,
                since_s: self.context.now_s,
            }
        };
        let run_id = &admitted.run().evidence_run_id;
        if let Some(evidence) = new_evidence.get(&run) {
            return match evidence.evidence.run_id.same_text(run_id) {
                true => self.join(admitted, key, index, evidence),
                false => Ok(waiting),
            };
        }
        let Some(place) = self.find_evidence(run)? else {
            return Ok(waiting);
        };
        let Some(line) = self.context.bodies.evidence(place)? else {
            return Ok(waiting);
        };
        match parse::evidence(parse::trim(&line)) {
            Ok(evidence) if evidence.run_id.same_text(run_id) => {
                self.join(admitted, key, index, &NewEvidence::new(evidence, &line))
            }
            // The file changed since it was indexed, which the next read detects by its identity, or another run has the
            // same key.
            _ => Ok(waiting),
        }
    }

    /// Joins a run with its evidence: appends a row, claims an existing row, or refuses the run.
    pub(super) fn join(
        &mut self,
        admitted: &AdmittedRun<'_, '_>,
        key: (RunKey, u64),
        index: u32,
        evidence: &NewEvidence<'_>,
    ) -> Result<Verdict, E> {
        let row_from = self.out.rows.len();
        if let Err(refusal) = self.make_row(admitted, index, evidence, Dialect::Native) {
            // An order comes first, as where it is given after the line.
            return Ok(match self.is_ordered(key.0) {
                true => Verdict::Ordered { index },
                false => Verdict::refused(refusal, index),
            });
        }
        if let Some((claim, superseded)) = self.find_claim(admitted, index, evidence, row_from)? {
            self.out.rows.truncate(row_from);
            self.take_claim(claim, key.0, superseded)?;
            if superseded {
                self.note_superseded(key)?;
            }
            if self.is_ordered(key.0) {
                self.order_out_row_of(key);
            }
            return Ok(Verdict::Exported {
                row_offset: claim.row_offset,
                evidence_digest: evidence.digest(),
                superseded,
                contradicted: false,
            });
        }
        if self.context.left_out.contains(&key.1) {
            self.out.rows.truncate(row_from);
            return Ok(Verdict::Overruled);
        }
        if self.is_ordered(key.0) {
            self.out.rows.truncate(row_from);
            return Ok(Verdict::Ordered { index });
        }
        let kept_stamps = self.context.kept_stamps;
        let digest = kept_stamps.restore(&mut self.out.rows, row_from);
        self.out.row_digests.extend(digest);
        self.out.new_rows.push(key);
        Ok(Verdict::Exported {
            row_offset: row_from as u64,
            evidence_digest: evidence.digest(),
            superseded: false,
            contradicted: false,
        })
    }

    /// Appends the row of a run and its evidence.
    pub(super) fn make_row(
        &mut self,
        admitted: &AdmittedRun<'_, '_>,
        index: u32,
        evidence: &NewEvidence<'_>,
        dialect: Dialect,
    ) -> Result<(), Refusal> {
        let place = RowPlace {
            day_file_name: self.day_file_name.as_bytes(),
            index: u64::from(index),
        };
        let synthesis = Synthesis {
            dialect,
            include_partial: false,
            stamp: self.context.stamp,
        };
        let text_len = evidence.evidence.text.raw_len();
        if text_len >= LONG_TEXT_LEN {
            // Growth by doubling needs twice the memory of the row.
            self.out
                .rows
                .reserve_exact(text_len + text_len / 64 + 4_096);
        }
        synthesize(
            admitted,
            &evidence.evidence,
            &place,
            &synthesis,
            &mut self.out.rows,
        )
    }

    /// Returns whether an operator's standing order keeps the run out of the export.
    fn is_ordered(&self, run: RunKey) -> bool {
        let (orders, path) = (self.context.orders, &self.pair.checkpoint.path);
        !orders.is_empty() && orders.apply_to(run, path)
    }

    /// Looks up the evidence of a run: in this step, in the overlay, then in the state.
    pub(super) fn find_evidence(&self, run: RunKey) -> Result<Option<EvidenceLocation>, E> {
        let fresh = self
            .out
            .overlay
            .evidence
            .get(&run)
            .or_else(|| self.pair.overlay.evidence.get(&run));
        match fresh {
            Some(place) => Ok(Some(*place)),
            None if self.pair.persisted => self.context.index.evidence(run),
            None => Ok(None),
        }
    }

    /// Returns every scored line of a run so far, in order of offset.
    pub(super) fn entries(&self, run: RunKey) -> Result<Vec<ScoredLine>, E> {
        let mut entries = BTreeMap::new();
        let is_read = self.pair.checkpoint.scored.records > 0;
        if self.pair.persisted && is_read {
            let mut stored = self.stored.borrow_mut();
            let of_run = match stored.entry(run) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(self.context.index.entries(run)?),
            };
            entries.extend(of_run.iter().map(|entry| (entry.offset, *entry)));
        }
        for overlay in [&self.pair.overlay, &self.out.overlay] {
            let of_run = overlay.entries.range((run, 0)..=(run, u64::MAX));
            entries.extend(of_run.map(|((_, offset), entry)| (*offset, *entry)));
        }
        Ok(entries.into_values().collect())
    }

    /// Replaces the verdict of a scored line and moves its count.
    pub(super) fn change(&mut self, entry: ScoredLine, verdict: Verdict) {
        self.out.checkpoint.counts[entry.verdict.kind()] -= 1;
        self.out.checkpoint.counts[verdict.kind()] += 1;
        self.put(ScoredLine { verdict, ..entry });
    }

    /// Stores a scored line in the overlay.
    pub(super) fn put(&mut self, entry: ScoredLine) {
        self.out
            .overlay
            .entries
            .insert((entry.run, entry.offset), entry);
    }

    fn dead_letter(&mut self, in_evidence: bool, offset: u64, len_bytes: u64, fault: ParseError) {
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

    /// Skips bytes of an oversized line. At its end the line becomes a dead letter.
    fn skip_oversized(&mut self, in_evidence: bool, chunk: &Chunk) {
        let Chunk::OversizedLine {
            line_start,
            offset,
            is_complete,
        } = *chunk
        else {
            return;
        };
        let source = self.source(in_evidence);
        source.offset = offset;
        source.overlong_from = (!is_complete).then_some(line_start);
        if is_complete {
            source.lines += 1;
            let fault = ParseError::TooLong {
                max_line_bytes: self.context.line_bytes_max,
            };
            self.dead_letter(in_evidence, line_start, offset - line_start - 1, fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::pair::checkpoint::PairCheckpoint;
    use crate::pair::index::PairId;
    use crate::pair::orders::Orders;
    use crate::pair::verdict::VerdictKind;
    use crate::pair::{LineLookup, Overlay, StateLookup};
    use crate::record::kept_stamps::KeptStamps;

    const SCORED: &[u8] = br#"{"evidence_run_id":"a","category":"accepted"}"#;

    /// A state in which the keys of all runs are equal.
    struct OneKey {
        evidence: Option<Vec<u8>>,
        scored: Vec<ScoredLine>,
    }

    impl StateLookup<Infallible> for OneKey {
        fn evidence(&self, _: RunKey) -> Result<Option<EvidenceLocation>, Infallible> {
            let place = self.evidence.as_ref().map(|line| EvidenceLocation {
                offset: 0,
                len_bytes: len_u32(line),
            });
            Ok(place)
        }

        fn entries(&self, run: RunKey) -> Result<Vec<ScoredLine>, Infallible> {
            let mut lines = self.scored.clone();
            lines.iter_mut().for_each(|line| line.run = run);
            Ok(lines)
        }

        fn claimable(&self, _: RowKey) -> Result<Vec<UnclaimedRow>, Infallible> {
            Ok(Vec::new())
        }
    }

    impl LineLookup<Infallible> for OneKey {
        fn scored(&self, _: u64, _: u32) -> Result<Option<Vec<u8>>, Infallible> {
            Ok(Some(SCORED.to_vec()))
        }

        fn evidence(&self, _: EvidenceLocation) -> Result<Option<Vec<u8>>, Infallible> {
            Ok(self.evidence.clone())
        }

        fn row(&self, _: u64, _: usize, _: usize) -> Result<Option<Vec<u8>>, Infallible> {
            Ok(None)
        }
    }

    fn evidence_of(run: &str) -> Vec<u8> {
        format!(r#"{{"run_id":"{run}","model_role":"executor","text":"t"}}"#).into()
    }

    /// Returns the number of rows that a step makes of run `a` with evidence whose key is equal.
    fn rows(known: Option<&str>, new: Option<&str>, is_scored: bool) -> usize {
        let mut one_key = OneKey {
            evidence: known.map(evidence_of),
            scored: Vec::new(),
        };
        let mut pair = ActivePair {
            id: PairId(0),
            checkpoint: PairCheckpoint {
                path: b"y/m/d/n.jsonl".to_vec(),
                ..Default::default()
            },
            overlay: Overlay::default(),
            persisted: true,
        };
        if is_scored {
            pair.checkpoint.scored.records = 1;
            pair.checkpoint.counts[VerdictKind::Waiting] = 1;
            one_key.scored.push(ScoredLine {
                run: RunKey::from_run_id("a"),
                offset: 0,
                len_bytes: len_u32(SCORED),
                verdict: Verdict::Waiting {
                    index: 0,
                    since_s: 0,
                },
            });
        }
        let context = JoinContext {
            orders: &Orders::default(),
            left_out: &HashSet::new(),
            index: &one_key,
            bodies: &one_key,
            claims_possible: false,
            line_bytes_max: 1 << 20,
            stamp: "",
            kept_stamps: &KeptStamps::default(),
            now_s: 0,
        };
        let mut joiner = Joiner::new(&pair, &context, Vec::new());
        let line = new.map(evidence_of);
        let mut new_evidence = NewEvidenceByRun::default();
        if let Some(line) = &line {
            let evidence = NewEvidence::new(parse::evidence(line).unwrap(), line);
            new_evidence.insert(RunKey::from_run_id("a"), evidence);
        }
        match is_scored {
            true => drop(joiner.rejoin(&new_evidence).unwrap()),
            false => {
                let chunk = Chunk::Lines([SCORED, b"\n"].concat());
                joiner.ingest_scored(&chunk, &new_evidence).unwrap();
            }
        }
        joiner.out.new_rows.len()
    }

    #[test]
    fn a_run_is_never_joined_with_evidence_that_has_only_its_key() {
        for (run, expected) in [("a", 1), ("b", 0)] {
            assert_eq!(rows(Some(run), None, false), expected, "known, {run}");
            assert_eq!(rows(None, Some(run), false), expected, "new, {run}");
            assert_eq!(rows(None, Some(run), true), expected, "later, {run}");
        }
    }
}
