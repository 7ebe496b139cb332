//! Orders that are limited to a day-file follow it: what an operator took out does not come back because a day was renamed.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::orders::OrderRequest;
use crate::engine::reset::ResetRequest;
use crate::engine::{Engine, EngineError};
use crate::lake::path::PairPath;

impl Engine {
    /// Extends the orders that are limited to moved day-files to their new paths. They are durable before the move is, so that
    /// the lines at the new path are never read without them. The old ones stay: a copy may come back there.
    pub(super) fn carry_orders(
        &mut self,
        moved: &BTreeMap<PairPath, ResetRequest>,
    ) -> Result<(), EngineError> {
        let from: BTreeSet<&[u8]> = moved.keys().map(PairPath::as_bytes).collect();
        let orders = &self.commits.ledger.orders;
        if from.is_empty() || !orders.any_limited_to(|pair| from.contains(pair)) {
            return Ok(());
        }
        // From here on the state knows every order.
        self.checkpoint()?;
        let mut of_pairs = BTreeMap::<Vec<u8>, Vec<String>>::new();
        for order in self.pairs.view().orders()? {
            of_pairs.entry(order.pair).or_default().push(order.run_id);
        }
        for (from, request) in moved {
            let Some((to, _)) = &request.heir else {
                continue;
            };
            // An order is limited by text: none was to a name that is none, and none can be.
            let (Some(run_ids), Some(day_file)) =
                (of_pairs.remove(from.as_bytes()), to.as_path().to_str())
            else {
                continue;
            };
            let runs = run_ids.len();
            let request = OrderRequest {
                run_ids,
                reason: format!("ordered out of {from}, which was moved here"),
                day_file: Some(day_file.to_owned()),
                revoke: false,
                dry_run: false,
                unseen: true,
            };
            self.carry_out(&request, day_file)?;
            tracing::info!(
                runs,
                from = %from,
                to = %to,
                "orders that are limited to {from} hold for {to} too, where that day-file is now; runs: {runs}",
            );
        }
        Ok(())
    }
}
