//! Owns what becomes of rows that are there: which line claims one that was written before it, whether the evidence of
//! today made it, and which of them are contradicted by what was scored later.

use std::collections::HashSet;

use crate::pair::evidence_chunk::NewEvidence;
use crate::pair::index::{ScoredLine, UnclaimedRow};
use crate::pair::join::{Joiner, LONG_TEXT_LEN};
use crate::pair::verdict::Verdict;
use crate::record::firewall::AdmittedRun;
use crate::record::json::escape::Dialect;
use crate::record::keys::{RowKey, RunKey};
use crate::record::parse;
use crate::record::parse::ScoredRun;
use crate::record::row::same_sample;

/// A row in the export that is longer is not compared with what its line gives today: it would need memory twice.
const COMPARED_LEN_MAX: usize = 2 * LONG_TEXT_LEN;

impl<E> Joiner<'_, E> {
    /// Rows with the key of this line that no line has claimed, in order.
    fn claimable(&self, row: RowKey) -> Result<Vec<UnclaimedRow>, E> {
        let mut claims = self.facts.index.claimable(row)?;
        claims.retain(|claim| !self.claimed.contains(claim));
        Ok(claims)
    }

    pub(super) fn first_claimable(&self, run: &ScoredRun<'_>) -> Result<Option<UnclaimedRow>, E> {
        if !self.facts.claims_possible {
            return Ok(None);
        }
        let key = RowKey::from_scored(&self.day_file_name, run);
        Ok(self.claimable(key)?.into_iter().next())
    }

    /// Returns whether a claimed row differs from the row that its line gives today, from the current evidence, which
    /// arrived after the row was written. The row of today follows `row_from`. If the old row cannot be read it is
    /// taken to match the current evidence, so that later differences are counted.
    pub(super) fn is_superseded(
        &mut self,
        claim: UnclaimedRow,
        admitted: &AdmittedRun<'_, '_>,
        index: u32,
        given: &NewEvidence<'_>,
        row_from: usize,
    ) -> Result<bool, E> {
        if given.evidence.text.raw_len() >= LONG_TEXT_LEN {
            return Ok(false);
        }
        let bodies = self.facts.bodies;
        // Its number may have more digits.
        let len_likely = self.out.rows.len() - row_from + 20;
        let Some(there) = bodies.row(claim.row_offset, len_likely, COMPARED_LEN_MAX)? else {
            return Ok(false);
        };
        if same_sample(&there, &self.out.rows[row_from..]) {
            return Ok(false);
        }
        // The exporter that came before passed some fields over: its rows are no older for that.
        self.out.rows.truncate(row_from);
        let made = self.make_row(admitted, index, given, Dialect::Go);
        Ok(made.is_ok() && !same_sample(&there, &self.out.rows[row_from..]))
    }

    /// A line has found its row.
    pub(super) fn take_claim(
        &mut self,
        claim: UnclaimedRow,
        run: RunKey,
        superseded: bool,
    ) -> Result<(), E> {
        self.out.overlay.claims.push(claim);
        self.claimed.insert(claim);
        let counts = &mut self.out.checkpoint.counts;
        counts.superseded += u64::from(superseded);
        // The row was unowned and contradicted when a line with its key was refused. This line owns it now.
        if self.refused_keys(run)?.contains(&claim.row) {
            let counts = &mut self.out.checkpoint.counts;
            counts.contradicted = counts.contradicted.saturating_sub(1);
        }
        Ok(())
    }

    /// Rows of this run that were exported before the firewall refused it now.
    pub(super) fn contradict_earlier(
        &mut self,
        run: RunKey,
        scored: &ScoredRun<'_>,
    ) -> Result<(), E> {
        // Many lines may reject one run: after the first only what it has gained since is looked for.
        let earlier = match self.newly_exported.insert(run, Vec::new()) {
            None => self.entries(run)?,
            Some(offsets) => {
                let entries = &self.out.overlay.entries;
                let newly_exported = offsets.iter().map(|offset| entries.get(&(run, *offset)));
                newly_exported.flatten().copied().collect()
            }
        };
        for entry in earlier {
            self.contradict(entry);
        }
        if !self.facts.claims_possible {
            return Ok(());
        }
        // The accepting line itself was rewritten: its rows still exist and no line claims them. Each counts once,
        // however many lines refuse it. After a lost state a row may belong to a day-file of the same name on another
        // day that has yet to claim it; the listing of contradicted rows accounts for that.
        let key = RowKey::from_scored(&self.day_file_name, scored);
        let left = self.claimable(key)?.len() as u64;
        if left == 0 {
            // If the keys of this run were not computed yet, their later computation includes this line.
            if let Some(keys) = self.refused_keys.get_mut(&run) {
                keys.insert(key);
            }
        } else if self.refused_keys(run)?.insert(key) {
            self.out.checkpoint.counts.contradicted += left;
        }
        Ok(())
    }

    /// The keys of the rows that lines of a run would give, had the firewall not refused them. Each line is read once a
    /// step.
    fn refused_keys(&mut self, run: RunKey) -> Result<&mut HashSet<RowKey>, E> {
        let known = match self.refused_keys.remove(&run) {
            Some(keys) => keys,
            None => self.read_refused_keys(run)?,
        };
        Ok(self.refused_keys.entry(run).or_insert(known))
    }

    fn read_refused_keys(&self, run: RunKey) -> Result<HashSet<RowKey>, E> {
        let mut keys = HashSet::new();
        for entry in self.entries(run)? {
            if entry.verdict != Verdict::Firewalled {
                continue;
            }
            let bodies = self.facts.bodies;
            let line = bodies.scored(entry.offset, entry.len_bytes)?;
            let line = line.unwrap_or_default();
            if let Ok(scored) = parse::scored_run(parse::trim(&line)) {
                keys.insert(RowKey::from_scored(&self.day_file_name, &scored));
            }
        }
        Ok(keys)
    }

    pub(super) fn contradict(&mut self, entry: ScoredLine) {
        let latest = self.out.overlay.entries.get(&(entry.run, entry.offset));
        let mut marked = latest.copied().unwrap_or(entry);
        if let Verdict::Exported { contradicted, .. } = &mut marked.verdict
            && !*contradicted
        {
            *contradicted = true;
            self.put(marked);
            self.out.checkpoint.counts.contradicted += 1;
        }
    }

    pub(super) fn supersede(&mut self, mut entry: ScoredLine) {
        if let Verdict::Exported { superseded, .. } = &mut entry.verdict {
            *superseded = true;
            self.put(entry);
            self.out.checkpoint.counts.superseded += 1;
            self.out.superseded += 1;
        }
    }
}
