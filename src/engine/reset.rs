//! Resets sources whose day-files no longer hold what was read of them: rewritten, truncated, replaced, moved, shortened
//! by a power cut. What was read is forgotten; its rows stay in the export, and the lines that the day-files hold now
//! claim them.

use std::collections::BTreeMap;

use crate::engine::relocate::{in_order, scope_of_claims};
use crate::engine::{Engine, EngineError};
use crate::lake::identity::{SourceChange, SourceIdentity};
use crate::lake::path::{PairPath, Stream};
use crate::pair::checkpoint::{PairCheckpoint, Review};
use crate::pair::index::{PairId, UnclaimedRow};
use crate::pair::verdict::Verdict;
use crate::record::keys::RowKey;
use crate::store::state::error::StateError;
use crate::store::state::{PairReset, Reset};

/// Released rows from which no further pair is reset in the same transaction, 24 bytes each. Pairs whose day-files were
/// moved in a circle are reset together all the same.
const CLAIMS_AT_ONCE: usize = 256 << 10;

/// The sources of a pair that are read again from their start, and why. Without any, only the rows that no line owns are
/// given to the heir.
#[derive(Debug, Default)]
pub(super) struct ResetRequest {
    pub(super) changes: BTreeMap<Stream, SourceChange>,
    /// The pair to which the scored day-file was moved.
    pub(super) heir: Option<(PairPath, PairId)>,
}

impl Engine {
    /// Resets a source outside a pass, so that the next pass reads it from its start.
    ///
    /// # Errors
    /// Errors of a checkpoint and of the state.
    pub(crate) fn reset_for_retry(
        &mut self,
        path: &PairPath,
        stream: Stream,
    ) -> Result<(), EngineError> {
        let request = ResetRequest {
            changes: BTreeMap::from([(stream, SourceChange::Edited)]),
            heir: None,
        };
        let requests = BTreeMap::from([(path.clone(), request)]);
        let result = self
            .reopen_state_if_failed()
            .and_then(|()| self.reset_pairs(&requests));
        self.books.log.flush(false);
        self.commits.mark_state_failed(result)
    }

    /// Releases the rows of moved and rewritten day-files, before a pass reads anything: a read that began before would not
    /// know these rows, and write them again.
    pub(super) fn release_rows(&mut self) -> Result<(), EngineError> {
        let relocations = self.queue.relocations();
        let rewritten = self.queue.due_resets();
        let paths = rewritten.keys().cloned().collect();
        let mut moved = self.moved_pairs(&relocations, paths)?;
        let mut others = BTreeMap::<PairPath, ResetRequest>::new();
        for (path, pair) in &rewritten {
            let Some(known) = self.known_checkpoint(path)? else {
                continue;
            };
            for (stream, change) in &pair.changes {
                if let Some(request) = moved.get_mut(path) {
                    request.changes.entry(*stream).or_insert(*change);
                } else if known.source(*stream).identity.is_some() {
                    // Otherwise it was reset since, as one that was moved.
                    if (*stream, *change) == (Stream::Scored, SourceChange::Replaced) {
                        self.replaced.insert(path, known.scored);
                    }
                    let request = others.entry(path.clone()).or_default();
                    request.changes.insert(*stream, *change);
                }
            }
        }
        self.carry_orders(&moved)?;
        // Before the moves: what is known of a replaced day-file must not hide the one that was moved into its place.
        self.reset_pairs(&others)?;
        let claimable = self.pairs.claimable();
        self.reset_pairs(&moved)?;
        let mut late = self.late_moves(&relocations)?;
        late.retain(|from, _| !moved.contains_key(from));
        self.carry_orders(&late)?;
        self.reset_pairs(&late)?;
        moved.extend(late);
        let first = moved.first_key_value();
        let first = first.map(|(from, request)| (from, &request.heir));
        if let Some((from, Some((to, _)))) = first {
            let day_files = moved.len();
            let rows = self.pairs.claimable().saturating_sub(claimable);
            tracing::info!(
                day_files,
                rows,
                from = %from,
                to = %to,
                "day-files moved to another day: {day_files}, the first from {from} to {to}; keeping their {rows} rows",
            );
        }
        self.queue.clear_relocations();
        self.queue.requeue_reset(rewritten);
        Ok(())
    }

    /// Forgets what was read of sources, and releases their rows for lines to claim.
    fn reset_pairs(
        &mut self,
        requests: &BTreeMap<PairPath, ResetRequest>,
    ) -> Result<(), EngineError> {
        if requests.is_empty() {
            return Ok(());
        }
        self.checkpoint()?;
        let has_unclaimed = self.pairs.claimable() > 0;
        let mut groups = in_order(requests).into_iter().peekable();
        // The view does not show what this call changed.
        let mut changed = BTreeMap::<PairPath, PairCheckpoint>::new();
        while groups.peek().is_some() {
            let mut header = self.with_accounts(self.commits.state.header().clone());
            let mut resets = Vec::new();
            let mut done = Vec::new();
            let mut released = 0;
            while released < CLAIMS_AT_ONCE
                && let Some(group) = groups.next()
            {
                for (path, request) in group {
                    let before = self.pairs.slot(path)?.pair.checkpoint.clone();
                    let reset = self.reset_of(path, request, has_unclaimed)?;
                    header.account.replace(&before, &reset.checkpoint);
                    let claims = reset.sources.iter().map(Reset::released).sum::<usize>();
                    header.claimable += claims as u64;
                    released += claims;
                    changed.insert(path.clone(), reset.checkpoint.clone());
                    resets.push(reset);
                    done.push((path, request, before));
                }
            }
            for (_, request, before) in &done {
                if let Some((heir, id)) = &request.heir
                    && !request.changes.is_empty()
                    && let Some(identity) = before.scored.identity
                {
                    self.expect_moved((heir, *id), identity, &mut changed, &mut resets)?;
                }
            }
            self.commits.reset_pairs(header, &resets)?;
            let header = self.commits.state.header();
            let claimable = header.claimable;
            self.books.account = header.account.clone();
            for reset in &resets {
                self.runs_without_lines.on_released(reset.id);
            }
            for (path, request, before) in done {
                self.pairs.remove_reset(path, claimable);
                for stream in Stream::ALL {
                    self.queue.settling.stop(path, stream);
                }
                self.record_reset(path, request, &before);
                if let Some((heir, id)) = &request.heir {
                    self.runs_without_lines.on_released(*id);
                    self.pairs.remove_reset(heir, claimable);
                }
            }
        }
        self.renew_view()
    }

    /// Makes the pair to which a day-file was moved known by that file before it is read there: if it is moved on first, it
    /// is found as one that was moved from there, and the rows follow it.
    fn expect_moved(
        &mut self,
        (heir, id): (&PairPath, PairId),
        identity: SourceIdentity,
        changed: &mut BTreeMap<PairPath, PairCheckpoint>,
        resets: &mut Vec<PairReset>,
    ) -> Result<(), EngineError> {
        let mut checkpoint = match changed.get(heir) {
            Some(checkpoint) => checkpoint.clone(),
            None => self.pairs.slot(heir)?.pair.checkpoint.clone(),
        };
        if checkpoint.scored.identity.is_some() {
            return Ok(());
        }
        checkpoint.scored.identity = Some(identity.unread());
        checkpoint.review.insert(Review::REREAD);
        changed.insert(heir.clone(), checkpoint.clone());
        match resets.iter_mut().find(|reset| reset.id == id) {
            Some(reset) => reset.checkpoint = checkpoint,
            None => resets.push(PairReset {
                id,
                checkpoint,
                sources: Vec::new(),
            }),
        }
        Ok(())
    }

    /// Returns what the state has to change for a pair that is reset. `has_unclaimed` is whether any row was claimable before
    /// this pass; the others are given to their heirs as they are released.
    fn reset_of(
        &mut self,
        path: &PairPath,
        request: &ResetRequest,
        has_unclaimed: bool,
    ) -> Result<PairReset, EngineError> {
        let pair = &self.pairs.slot(path)?.pair;
        let (id, mut checkpoint) = (pair.id, pair.checkpoint.clone());
        let heir = request.heir.as_ref().map(|(_, heir)| *heir);
        let mut sources = Vec::new();
        if request.changes.is_empty() {
            sources.extend(heir.filter(|_| has_unclaimed).map(Reset::Bequeath));
        }
        for (stream, why) in &request.changes {
            sources.push(match stream {
                Stream::Scored => {
                    checkpoint.scored = Default::default();
                    checkpoint.counts = Default::default();
                    checkpoint.waiting_since_s = 0;
                    if heir.is_none() {
                        checkpoint.review.insert(Review::REREAD);
                    }
                    let scope = scope_of_claims(*why, id, heir);
                    Reset::Scored {
                        released: self.claims_of(id, scope)?,
                        heir: heir.filter(|_| has_unclaimed),
                    }
                }
                Stream::Evidence => {
                    let now_s = self.ctx.clock.wall_ms() / 1_000;
                    reset_evidence(&mut checkpoint, now_s);
                    Reset::Evidence(now_s)
                }
            });
        }
        Ok(PairReset {
            id,
            checkpoint,
            sources,
        })
    }

    fn record_reset(&mut self, path: &PairPath, request: &ResetRequest, before: &PairCheckpoint) {
        for (stream, why) in &request.changes {
            self.books.metrics.reread();
            if *why != SourceChange::Moved {
                let day_file = path.path(&self.ctx.root, *stream);
                let offset = before.source(*stream).offset;
                self.books.log.on_reset(day_file, offset, why.code());
            }
        }
    }

    /// Returns a claim, for the lines of `scope`, on every row that the pair's lines have in the export.
    fn claims_of(&self, id: PairId, scope: PairId) -> Result<Vec<UnclaimedRow>, EngineError> {
        let mut offsets = Vec::new();
        self.pairs.view().for_each_entry(id, |entry| {
            if let Verdict::Exported { row_offset, .. } = entry.verdict {
                offsets.push(row_offset);
            }
        })?;
        let mut claims = Vec::with_capacity(offsets.len());
        for row_offset in offsets {
            let bytes = self.commits.export.row_at(row_offset)?;
            let row = RowKey::from_row(&bytes).map_err(|error| {
                StateError::Damaged(format!(
                    "no row starts at byte {row_offset} of the export: {error}"
                ))
            })?;
            claims.push(UnclaimedRow {
                row,
                scope,
                row_offset,
            });
        }
        Ok(claims)
    }
}

/// Forgets the evidence of a pair. Lines that were refused for it wait again.
fn reset_evidence(checkpoint: &mut PairCheckpoint, now_s: u64) {
    checkpoint.evidence = Default::default();
    if checkpoint.counts.requeue_refused_evidence() > 0 {
        checkpoint.begin_to_wait(now_s);
    }
}
