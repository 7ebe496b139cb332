//! Rejoins earlier scored lines with evidence that arrives after them: the last evidence with a run id counts, as in a
//! batch over the same bytes.

use std::collections::BTreeSet;

use crate::pair::evidence_chunk::{NewEvidence, NewEvidenceByRun};
use crate::pair::index::ScoredLine;
use crate::pair::join::{Joiner, ROWS_BYTES_MAX};
use crate::pair::verdict::{Verdict, VerdictKind};
use crate::record::firewall::{Admission, admit};
use crate::record::json::escape::Dialect;
use crate::record::keys::RunKey;
use crate::record::parse;

impl<E> Joiner<'_, E> {
    /// Rejoins the earlier scored lines of the runs in `new_evidence`, in order of offset, until the rows reach
    /// [`ROWS_BYTES_MAX`]. Returns whether all of them were rejoined.
    pub(super) fn rejoin(&mut self, new_evidence: &NewEvidenceByRun<'_>) -> Result<bool, E> {
        let mut affected = Vec::new();
        for run in new_evidence.runs() {
            affected.extend(self.entries(*run)?);
        }
        affected.sort_by_key(|entry| entry.offset);
        let mut with_new_rows = BTreeSet::new();
        for entry in affected {
            let Some(evidence) = new_evidence.get(&entry.run) else {
                continue;
            };
            if self.out.rows.len() >= ROWS_BYTES_MAX {
                self.overrule_runs(with_new_rows)?;
                return Ok(false);
            }
            if let Some(index) = entry.verdict.index_to_join()
                && self.join_again(entry, index, evidence)? == VerdictKind::Exported
            {
                with_new_rows.insert(entry.run);
            }
            if let Verdict::Exported {
                evidence_digest,
                superseded: false,
                ..
            } = entry.verdict
                && evidence_digest != 0
                && evidence_digest != evidence.digest()
            {
                self.supersede(entry)?;
            }
        }
        self.overrule_runs(with_new_rows)?;
        Ok(true)
    }

    fn overrule_runs(&mut self, runs: BTreeSet<RunKey>) -> Result<(), E> {
        runs.into_iter().try_for_each(|run| self.overrule_run(run))
    }

    /// Resets the evidence so that the next step reads it again. Lines already joined with it have their rows and are
    /// skipped then.
    pub(super) fn defer_evidence(&mut self) {
        self.out.checkpoint.evidence = self.pair.checkpoint.evidence;
        self.out.overlay.evidence.clear();
        self.out.overlay.dead_letters.clear();
    }

    /// Joins an earlier scored line with new evidence and returns its verdict. The line stays as it is if it is not of the
    /// evidence's run: its day-file changed, or two runs have one key.
    fn join_again(
        &mut self,
        entry: ScoredLine,
        index: u32,
        evidence: &NewEvidence<'_>,
    ) -> Result<VerdictKind, E> {
        let unchanged = Ok(entry.verdict.kind());
        let Some(line) = self.context.bodies.scored(entry.offset, entry.len_bytes)? else {
            return unchanged;
        };
        let Ok(run) = parse::scored_run(parse::trim(&line)) else {
            return unchanged;
        };
        if !run.evidence_run_id.same_text(&evidence.evidence.run_id) {
            return unchanged;
        }
        let Admission::Admitted(admitted) = admit(&run, Dialect::Native) else {
            return unchanged;
        };
        let verdict = self.join(&admitted, (entry.run, entry.offset), index, evidence)?;
        self.change(entry, verdict);
        Ok(verdict.kind())
    }
}
