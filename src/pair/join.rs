//! Owns one step: each new line of a pair to its verdict, and the rows that follow. It asks for what it needs and
//! changes nothing but its own outcome.

use crate::pair::evidence_chunk::{ByRunKey, NewEvidence, NewEvidenceByRun};

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::lake::chunk::Chunk;
use crate::lake::identity::SourceState;
use crate::pair::index::{DeadLetter, EvidenceLocation, ScoredLine, UnclaimedRow};
use crate::pair::line::{Line, day_file_name, len_u32, lines, parse_within};
use crate::pair::verdict::Verdict;
use crate::pair::{ActivePair, JoinContext, JoinOutcome};
use crate::record::firewall::{Admission, AdmittedRun, admit};
use crate::record::json::escape::Dialect;
use crate::record::keys::{RowKey, RunKey};
use crate::record::parse;
use crate::record::parse::{ParseError, ScoredRun};
use crate::record::synthesize::{Refusal, RowPlace, Synthesis, synthesize};

/// Rows of one step at which no further scored line is begun. A longer text may still go beyond it.
const ROWS_BYTES_MAX: usize = 8 << 20;
/// Texts for whose rows room is made at once, exactly.
pub(super) const LONG_TEXT_LEN: usize = 1 << 20;

pub(super) struct Joiner<'a, E> {
    pair: &'a ActivePair,
    pub(super) facts: &'a JoinContext<'a, E>,
    pub(super) day_file_name: String,
    /// Runs that the firewall refused in this step: lines that had their rows since, none of them marked as contradicted.
    pub(super) newly_exported: HashMap<RunKey, Vec<u64>, ByRunKey>,
    /// Of runs that were asked for: the keys of all their lines that the firewall refused.
    pub(super) refused_keys: HashMap<RunKey, HashSet<RowKey>, ByRunKey>,
    /// Rows that were claimed in this step.
    pub(super) claimed: BTreeSet<UnclaimedRow>,
    pub(super) out: JoinOutcome,
}

impl<'a, E> Joiner<'a, E> {
    pub(super) fn new(pair: &'a ActivePair, facts: &'a JoinContext<'a, E>, room: Vec<u8>) -> Self {
        let day_file_name = day_file_name(&pair.checkpoint.path).into_owned();
        let out = JoinOutcome {
            checkpoint: pair.checkpoint.clone(),
            rows: room,
            ..JoinOutcome::default()
        };
        Self {
            pair,
            facts,
            day_file_name,
            newly_exported: HashMap::default(),
            refused_keys: HashMap::default(),
            claimed: BTreeSet::new(),
            out,
        }
    }

    pub(super) fn ingest_evidence<'c>(&mut self, chunk: &'c Chunk) -> NewEvidenceByRun<'c> {
        let mut given = NewEvidenceByRun::default();
        self.skip_oversized(true, chunk);
        for Line { offset, body, end } in lines(self.source(true).offset, chunk) {
            self.source(true).offset = end;
            if parse::trim(body).is_empty() {
                continue;
            }
            self.source(true).lines += 1;
            match parse_within(body, self.facts.line_bytes_max, parse::evidence) {
                Ok(evidence) => {
                    let run = RunKey::of_text(&evidence.run_id);
                    let place = EvidenceLocation {
                        offset,
                        len_bytes: len_u32(body),
                    };
                    self.out.checkpoint.evidence.records += 1;
                    self.out.overlay.evidence.insert(run, place);
                    given.insert(run, NewEvidence::new(evidence, body));
                }
                Err(fault) => self.dead_letter(true, offset, body.len() as u64, fault),
            }
        }
        given
    }

    /// Looks again at the runs that this evidence concerns, in the order in which they stand in their day-file, until
    /// the rows are many. Says whether it looked at all of them.
    pub(super) fn rejoin(&mut self, given: &NewEvidenceByRun<'_>) -> Result<bool, E> {
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
                | Verdict::WrongRole { index }
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
                } if evidence_digest != 0 && evidence_digest != evidence.digest() => {
                    self.supersede(entry);
                }
                _ => {}
            }
        }
        Ok(true)
    }

    /// The evidence is read again in the next step: what was joined with it by then has its row, and is passed by.
    pub(super) fn defer_evidence(&mut self) {
        self.out.checkpoint.evidence = self.pair.checkpoint.evidence;
        self.out.overlay.evidence.clear();
        self.out.overlay.dead_letters.clear();
    }

    fn join_again(
        &mut self,
        entry: ScoredLine,
        index: u32,
        given: &NewEvidence<'_>,
    ) -> Result<(), E> {
        let Some(line) = self.facts.bodies.scored(entry.offset, entry.len_bytes)? else {
            return Ok(());
        };
        let Ok(run) = parse::scored_run(parse::trim(&line)) else {
            return Ok(());
        };
        if RunKey::of_text(&run.evidence_run_id) != entry.run {
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
    pub(super) fn ingest_scored(
        &mut self,
        chunk: &Chunk,
        given: &NewEvidenceByRun<'_>,
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
            match parse_within(body, self.facts.line_bytes_max, parse::scored_run) {
                Ok(run) => self.take_run(offset, len_u32(body), &run, given)?,
                Err(fault) => self.dead_letter(false, offset, body.len() as u64, fault),
            }
        }
        Ok(())
    }

    fn take_run(
        &mut self,
        offset: u64,
        len_bytes: u32,
        scored: &ScoredRun<'_>,
        given: &NewEvidenceByRun<'_>,
    ) -> Result<(), E> {
        let index = u32::try_from(self.out.checkpoint.scored.records)
            .expect("a day-file of at most 1 TiB has fewer than 2^32 records");
        self.out.checkpoint.scored.records += 1;
        let run = RunKey::of_text(&scored.evidence_run_id);
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
        given: &NewEvidenceByRun<'_>,
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
            Ok(evidence) if RunKey::of_text(&evidence.run_id) == run => {
                self.join(admitted, key, index, &NewEvidence::new(evidence, &line))
            }
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
        given: &NewEvidence<'_>,
    ) -> Result<Verdict, E> {
        let row_from = self.out.rows.len();
        match self.make_row(admitted, index, given, Dialect::Native) {
            Err(Refusal::WrongRole) => return Ok(Verdict::WrongRole { index }),
            Err(Refusal::BlankText) => return Ok(Verdict::BlankText { index }),
            Err(Refusal::UnknownCategory) => return Ok(Verdict::UnknownCategory),
            Ok(()) => {}
        }
        if let Some(newly_exported) = self.newly_exported.get_mut(&key.0) {
            newly_exported.push(key.1);
        }
        if let Some(claim) = self.first_claimable(admitted.run())? {
            let superseded = self.is_superseded(claim, admitted, index, given, row_from)?;
            self.out.rows.truncate(row_from);
            self.take_claim(claim, key.0, superseded)?;
            return Ok(Verdict::Exported {
                row_offset: claim.row_offset,
                evidence_digest: given.digest(),
                superseded,
                contradicted: false,
            });
        }
        self.out.new_rows.push(key);
        Ok(Verdict::Exported {
            row_offset: row_from as u64,
            evidence_digest: given.digest(),
            superseded: false,
            contradicted: false,
        })
    }

    /// Appends the row that a run and its evidence give.
    pub(super) fn make_row(
        &mut self,
        admitted: &AdmittedRun<'_, '_>,
        index: u32,
        given: &NewEvidence<'_>,
        dialect: Dialect,
    ) -> Result<(), Refusal> {
        let place = RowPlace {
            day_file_name: &self.day_file_name,
            index: u64::from(index),
        };
        let synthesis = Synthesis {
            dialect,
            include_partial: false,
            stamp: self.facts.stamp,
        };
        let text_len = given.evidence.text.raw_len();
        if text_len >= LONG_TEXT_LEN {
            // Doubling would need twice the memory of the row.
            self.out
                .rows
                .reserve_exact(text_len + text_len / 64 + 4_096);
        }
        synthesize(
            admitted,
            &given.evidence,
            &place,
            &synthesis,
            &mut self.out.rows,
        )
    }

    fn find_evidence(&self, run: RunKey) -> Result<Option<EvidenceLocation>, E> {
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
    pub(super) fn entries(&self, run: RunKey) -> Result<Vec<ScoredLine>, E> {
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

    fn change(&mut self, entry: ScoredLine, verdict: Verdict) {
        self.out.checkpoint.counts[entry.verdict.kind()] -= 1;
        self.out.checkpoint.counts[verdict.kind()] += 1;
        self.put(ScoredLine { verdict, ..entry });
    }

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

    /// Bytes of an overlong line: passed over, and buried when its end is reached.
    fn skip_oversized(&mut self, in_evidence: bool, chunk: &Chunk) {
        let Chunk::OversizedLine {
            line_start,
            offset,
            ended,
        } = *chunk
        else {
            return;
        };
        let source = self.source(in_evidence);
        source.offset = offset;
        source.overlong_from = (!ended).then_some(line_start);
        if ended {
            source.lines += 1;
            let fault = ParseError::TooLong {
                max_line_bytes: self.facts.line_bytes_max,
            };
            self.dead_letter(in_evidence, line_start, offset - line_start - 1, fault);
        }
    }
}
