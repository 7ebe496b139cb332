//! Resets a source in memory for a plan: the pair as the state would have it after the reset, and the rows that its lines
//! could claim.

use std::collections::BTreeSet;

use crate::engine::relocate::scope_of_claims;
use crate::lake::identity::SourceChange;
use crate::lake::path::Stream;
use crate::pair::checkpoint::Review;
use crate::pair::index::{PairId, ScoredLine, UnclaimedRow};
use crate::pair::verdict::Verdict;
use crate::pair::{ActivePair, Overlay};
use crate::query::plan::PlanContext;
use crate::record::keys::RowKey;
use crate::store::export::row_at;
use crate::store::state::error::StateError;

/// Returns the pair after the reset, with all its entries in the overlay, and the rows that became claimable.
pub(super) fn reset(
    context: &PlanContext<'_>,
    pair: ActivePair,
    stream: Stream,
    why: SourceChange,
    heir: Option<PairId>,
) -> Result<(ActivePair, BTreeSet<UnclaimedRow>), StateError> {
    let mut overlay = Overlay::default();
    if pair.persisted {
        let view = &context.state.view;
        view.for_each_entry(pair.id, |entry| {
            overlay.entries.insert((entry.run, entry.offset), entry);
        })?;
        view.for_each_evidence(pair.id, |entry| {
            overlay.evidence.insert(entry.run, entry.place);
        })?;
    }
    overlay.extend(pair.overlay);
    let mut again = ActivePair {
        overlay,
        persisted: false,
        ..pair
    };
    let released = match stream {
        Stream::Scored => {
            if heir.is_none() {
                again.checkpoint.review.insert(Review::REREAD);
            }
            let scope = scope_of_claims(why, again.id, heir);
            forget_scored(context, &mut again, scope)
        }
        Stream::Evidence => {
            forget_evidence(&mut again, context.now_ms / 1_000);
            BTreeSet::new()
        }
    };
    Ok((again, released))
}

fn forget_scored(
    context: &PlanContext<'_>,
    pair: &mut ActivePair,
    scope: PairId,
) -> BTreeSet<UnclaimedRow> {
    pair.checkpoint.scored = Default::default();
    pair.checkpoint.counts = Default::default();
    pair.checkpoint.waiting_since_s = 0;
    let entries = std::mem::take(&mut pair.overlay.entries);
    let Ok(export) = context.storage.open_read(context.export_path) else {
        return BTreeSet::new();
    };
    let claims = entries.values().filter_map(|entry| {
        let Verdict::Exported { row_offset, .. } = entry.verdict else {
            return None;
        };
        Some(UnclaimedRow {
            row: RowKey::from_row(&row_at(&*export, row_offset)?).ok()?,
            scope,
            row_offset,
        })
    });
    claims.collect()
}

fn forget_evidence(pair: &mut ActivePair, since_s: u64) {
    let checkpoint = &mut pair.checkpoint;
    checkpoint.evidence = Default::default();
    checkpoint.counts.requeue_refused_evidence();
    pair.overlay.evidence.clear();
    for entry in pair.overlay.entries.values_mut() {
        if let Some(verdict) = entry.verdict.requeued(since_s) {
            *entry = ScoredLine { verdict, ..*entry };
        }
    }
}
