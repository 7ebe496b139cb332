//! Which rows of a pair are overruled: a later line of the same run is refused by its category, or has a row of its own.
//! The last verdict on a run counts, as the last evidence does.
//!
//! A refused line also overrules the unclaimed rows with its key, whose own lines were rewritten, and those of earlier lines
//! of its run that have no row because their evidence is away. The retraction ledger holds each change; the engine writes it
//! together with the batch that learns of it.

use std::collections::HashSet;

use crate::pair::index::{ClaimRight, ScoredLine, UnclaimedRow};
use crate::pair::join::Joiner;
use crate::pair::verdict::{Verdict, VerdictKind};
use crate::record::firewall::{Admission, FIREWALL, admit};
use crate::record::json::escape::Dialect;
use crate::record::keys::{RowKey, RunKey};
use crate::record::ledger::Cause;
use crate::record::parse;
use crate::record::parse::ScoredRun;

/// A row that a line overrules, or whose evidence was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowChange {
    /// Start of the row in the export, bytes. Valid for a row with a line once the rows of the outcome are placed.
    pub row_offset: u64,
    /// By what the row is known.
    pub owner: RowOwner,
    /// Why the row is overruled, or [`Cause::Superseded`].
    pub cause: Cause,
    /// Start of the line that is the reason: a scored line, or the evidence line of a superseded row.
    pub line_offset: u64,
}

/// By what a row is known that a line changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOwner {
    /// The run and offset of the scored line that owns it.
    Line(RunKey, u64),
    /// No line has claimed it.
    Unclaimed(UnclaimedRow),
}

/// A line that overrules the rows of earlier lines of its run.
#[derive(Debug, Clone, Copy)]
struct Overruler {
    cause: Cause,
    offset: u64,
}

impl<E> Joiner<'_, E> {
    /// Overrules the rows of the earlier lines of a run whose line at `offset` is refused for its category.
    pub(super) fn refuse_earlier(
        &mut self,
        run: RunKey,
        offset: u64,
        scored: &ScoredRun<'_>,
    ) -> Result<(), E> {
        let cause = cause_of_refusal(scored);
        self.overrule_earlier(run, Overruler { cause, offset })?;
        if !self.context.claims_possible {
            return Ok(());
        }
        // If the accepting line itself was rewritten, its rows remain unclaimed. Each counts once, however many lines refuse
        // it. After the loss of a state such a row may belong to another day's file of the same name that has yet to claim
        // it; it is restored then, and it does not count here: the other pair could not take it from this count.
        let key = RowKey::from_scored(&self.day_file_name, scored);
        let unclaimed = self.unclaimed_of_pair(key)?;
        if unclaimed.is_empty() {
            // If the keys of this run are not cached yet, the first lookup reads this line with its others.
            if let Some(keys) = self.refused_keys.get_mut(&run) {
                keys.insert(key);
            }
        } else if self.refused_keys(run)?.insert(key) {
            let own = unclaimed
                .iter()
                .filter(|(right, _)| *right == ClaimRight::Own);
            self.out.checkpoint.counts.contradicted += own.count() as u64;
            self.overrule_unclaimed(unclaimed, Overruler { cause, offset });
        }
        self.overrule_earlier_without_row(run, Overruler { cause, offset })
    }

    /// Returns the unclaimed rows with this key that are of the pair, or may be.
    fn unclaimed_of_pair(&self, key: RowKey) -> Result<Vec<(ClaimRight, UnclaimedRow)>, E> {
        let mut unclaimed = self.claimable(key)?;
        unclaimed.retain(|(right, _)| *right < ClaimRight::IfEqual);
        Ok(unclaimed)
    }

    fn overrule_unclaimed(
        &mut self,
        unclaimed: Vec<(ClaimRight, UnclaimedRow)>,
        overruler: Overruler,
    ) {
        let changes = unclaimed.into_iter().map(|(_, claim)| RowChange {
            row_offset: claim.row_offset,
            owner: RowOwner::Unclaimed(claim),
            cause: overruler.cause,
            line_offset: overruler.offset,
        });
        self.out.row_changes.extend(changes);
    }

    /// Overrules the unclaimed rows of the earlier lines of a run that have no row: they gave one before their day-file was
    /// read again, and cannot claim it without their evidence. Such a row does not count as contradicted, because its line
    /// counts as one without a row.
    fn overrule_earlier_without_row(&mut self, run: RunKey, overruler: Overruler) -> Result<(), E> {
        // Of many lines that refuse one run, each examines the lines since the one before.
        let mut earlier = match self.refused_to.insert(run, overruler.offset) {
            None => self.entries(run)?,
            Some(from) => {
                let since = (run, from)..(run, overruler.offset);
                let since = self.out.overlay.entries.range(since);
                since.map(|(_, entry)| *entry).collect()
            }
        };
        earlier.retain(|entry| {
            let has_row = entry.verdict.kind() == VerdictKind::Exported;
            !has_row && !entry.verdict.is_refused_category()
        });
        let mut overruled = HashSet::new();
        for entry in earlier {
            let Some(key) = self.key_of(&entry)? else {
                continue;
            };
            if overruled.insert(key) {
                let unclaimed = self.unclaimed_of_pair(key)?;
                self.overrule_unclaimed(unclaimed, overruler);
            }
        }
        Ok(())
    }

    /// Returns the row key of a scored line; `None` if the line cannot be read any more.
    fn key_of(&self, entry: &ScoredLine) -> Result<Option<RowKey>, E> {
        let bodies = self.context.bodies;
        let line = bodies.scored(entry.offset, entry.len_bytes)?;
        let seen = line.and_then(|line| LineSeen::parse(&self.day_file_name, &line));
        Ok(seen.map(|seen| seen.key))
    }

    /// Overrules the rows of the earlier lines of a run whose line at `offset` has a row of its own.
    pub(super) fn rescore_earlier(&mut self, run: RunKey, offset: u64) -> Result<(), E> {
        let cause = Cause::Rescored;
        self.overrule_earlier(run, Overruler { cause, offset })?;
        self.current_rows.insert(run, Some(offset));
        Ok(())
    }

    /// Marks the rows of a run that a new last line overrules.
    fn overrule_earlier(&mut self, run: RunKey, overruler: Overruler) -> Result<(), E> {
        if self.out.checkpoint.counts[VerdictKind::Exported] == 0 {
            return Ok(());
        }
        // Many lines may overrule one run; after the first, only rows exported since remain to be marked.
        let earlier = match self.current_rows.insert(run, None) {
            // The rows of this step are known, and there is none before it.
            None if self.pair.checkpoint.scored.records == 0 => Vec::new(),
            None => self.entries(run)?,
            Some(current) => {
                let entries = &self.out.overlay.entries;
                let current = current.and_then(|offset| entries.get(&(run, offset)));
                current.into_iter().copied().collect()
            }
        };
        for entry in earlier {
            self.contradict(entry, overruler);
        }
        Ok(())
    }

    /// Marks the rows of a run that any later line overrules, after earlier lines got rows.
    pub(super) fn overrule_run(&mut self, run: RunKey) -> Result<(), E> {
        let entries = self.entries(run)?;
        // Lines of this step that come later look up the run again.
        self.current_rows.remove(&run);
        let mut overruler = None;
        for entry in entries.into_iter().rev() {
            if let Some(overruler) = overruler {
                self.contradict(entry, overruler);
            }
            if let Some(cause) = self.cause_of(&entry)? {
                let offset = entry.offset;
                overruler = Some(Overruler { cause, offset });
            }
        }
        Ok(())
    }

    /// Returns why a line overrules earlier rows of its run; `None` where it does not.
    fn cause_of(&self, entry: &ScoredLine) -> Result<Option<Cause>, E> {
        Ok(match entry.verdict {
            Verdict::Exported { .. } => Some(Cause::Rescored),
            Verdict::UnknownCategory => Some(Cause::UnknownCategory),
            Verdict::Firewalled => {
                let line = self.context.bodies.scored(entry.offset, entry.len_bytes)?;
                let line = line.unwrap_or_default();
                let scored = parse::scored_run(parse::trim(&line));
                // A line that cannot be read any more was rewritten, which the next read notices.
                Some(scored.map_or(Cause::Rejected, |scored| cause_of_refusal(&scored)))
            }
            _ => None,
        })
    }

    /// Marks the row of a scored line as contradicted, once.
    fn contradict(&mut self, entry: ScoredLine, overruler: Overruler) {
        let latest = self.out.overlay.entries.get(&(entry.run, entry.offset));
        let mut marked = latest.copied().unwrap_or(entry);
        if let Verdict::Exported { contradicted, .. } = &mut marked.verdict
            && !*contradicted
            && overruler.offset > entry.offset
        {
            *contradicted = true;
            self.put(marked);
            self.out.checkpoint.counts.contradicted += 1;
            self.out.row_changes.push(RowChange {
                row_offset: 0,
                owner: RowOwner::Line(entry.run, entry.offset),
                cause: overruler.cause,
                line_offset: overruler.offset,
            });
        }
    }

    /// Takes the claimed row of a line out for the standing order on its run, unless it is out already.
    pub(super) fn order_out_row_of(&mut self, line: (RunKey, u64)) {
        self.out.row_changes.push(RowChange {
            row_offset: 0,
            owner: RowOwner::Line(line.0, line.1),
            cause: Cause::Operator,
            line_offset: line.1,
        });
    }

    /// Returns the row keys of a run's refused lines: of the rows they would have without their category. Reads each line
    /// once per step.
    pub(super) fn refused_keys(&mut self, run: RunKey) -> Result<&mut HashSet<RowKey>, E> {
        let keys = match self.refused_keys.remove(&run) {
            Some(keys) => keys,
            None => self.read_refused_keys(run)?,
        };
        Ok(self.refused_keys.entry(run).or_insert(keys))
    }

    fn read_refused_keys(&self, run: RunKey) -> Result<HashSet<RowKey>, E> {
        let mut keys = HashSet::new();
        for entry in self.entries(run)? {
            if entry.verdict.is_refused_category() {
                keys.extend(self.key_of(&entry)?);
            }
        }
        Ok(keys)
    }
}

/// What a scored line that is read again shows: the key of the row that it earns, or would earn without its category, and
/// why it overrules if it is refused for its category.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineSeen {
    /// The row key.
    pub key: RowKey,
    /// Why it overrules if it is refused.
    pub cause: Cause,
}

impl LineSeen {
    /// Parses the bytes of a line of a day-file with this name; `None` where they are no scored run.
    #[must_use]
    pub fn parse(day_file_name: &str, line: &[u8]) -> Option<Self> {
        let scored = parse::scored_run(parse::trim(line)).ok()?;
        Some(Self {
            key: RowKey::from_scored(day_file_name, &scored),
            cause: cause_of_refusal(&scored),
        })
    }
}

/// The lines of one run in a pair that is read to its end, for the rows of the run that none of them claimed.
#[derive(Debug)]
pub struct RunLines {
    /// Why the last line overrules such a row, and where it starts; `None` where the run has no line.
    last: Option<(Cause, u64)>,
    /// The keys of the lines that have neither a row nor a refused category: such a row may be their own.
    unresolved: HashSet<RowKey>,
    /// Whether a line cannot be read any more, so that nothing is known.
    is_unknown: bool,
}

impl RunLines {
    /// Takes the lines of a run, in order. `see` reads one again; `None` where it is not there any more.
    ///
    /// # Errors
    /// Those of `see`.
    pub fn new<E>(
        lines: &[ScoredLine],
        mut see: impl FnMut(&ScoredLine) -> Result<Option<LineSeen>, E>,
    ) -> Result<Self, E> {
        let mut run = Self {
            last: None,
            unresolved: HashSet::new(),
            is_unknown: false,
        };
        for (at, line) in lines.iter().enumerate() {
            let is_last = at + 1 == lines.len();
            let is_refused = line.verdict.is_refused_category();
            let has_row = line.verdict.kind() == VerdictKind::Exported;
            let is_asked = if is_refused { is_last } else { !has_row };
            let mut cause = Cause::Rescored;
            if is_asked {
                match see(line)? {
                    None => run.is_unknown = true,
                    Some(seen) if is_refused => cause = seen.cause,
                    Some(seen) => drop(run.unresolved.insert(seen.key)),
                }
            }
            run.last = Some((cause, line.offset));
        }
        Ok(run)
    }

    /// Returns why a row with this key is out, and the start of the overruling line. The row's own line is not in the pair
    /// any more, but the last line of its run counts; without any line of the run the row stays as it is.
    #[must_use]
    pub fn overruler_of(&self, key: RowKey) -> Option<(Cause, u64)> {
        self.last
            .filter(|_| !self.is_unknown && !self.unresolved.contains(&key))
    }
}

/// Returns why a line that is refused for its category overrules.
fn cause_of_refusal(scored: &ScoredRun<'_>) -> Cause {
    let [_rejected, needs_review] = FIREWALL;
    match admit(scored, Dialect::Native) {
        Admission::Firewalled if scored.category.eq_str(needs_review) => Cause::NeedsHumanReview,
        Admission::Firewalled => Cause::Rejected,
        _ => Cause::UnknownCategory,
    }
}
