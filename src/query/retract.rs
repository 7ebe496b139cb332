//! Standing orders of operators: carried out by the running daemon, or by an engine under the lock; listed from the ledger.

use std::collections::BTreeMap;
use std::path::Path;

use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::engine::{EngineError, OrderError, OrderRequest, OrderResult};
use crate::platform::storage::Storage;
use crate::query::engine_setup::open_engine;
use crate::query::ledger::{LedgerReadError, read_ledger};
use crate::query::offline::{self, Backend, InquireError};
use crate::record::ledger::{LedgerLine, Op};

/// Run IDs of one request, bytes. It bounds the memory of the daemon.
const REQUEST_BYTES: usize = 1 << 20;

/// Why an order was not carried out, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum RetractError {
    /// See there.
    #[error(transparent)]
    Inquire(#[from] InquireError),
    /// See there.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// See there.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// See there.
    #[error(transparent)]
    Ledger(#[from] LedgerReadError),
}

/// Carries out an order, in requests of bounded size, and returns the sum of their results.
///
/// # Errors
/// See [`RetractError`]. What was carried out before stays; a repetition changes only the rest.
pub fn order(settings: &Settings, request: &OrderRequest) -> Result<OrderResult, RetractError> {
    match offline::find(settings)? {
        Backend::Daemon(holder) => {
            let mut sum = OrderResult::default();
            for request in parts(request) {
                let body = serde_json::to_vec(&request).unwrap_or_default();
                let (path, patience) = ("/retract", offline::LONG);
                let result: OrderResult =
                    offline::of_daemon_with_body(&holder, Method::POST, path, body, patience)?;
                sum = add(sum, result);
            }
            Ok(sum)
        }
        Backend::OfflineState(files) => {
            let (_lock, mut engine) = open_engine::<RetractError>(settings, *files)?;
            let mut sum = OrderResult::default();
            for request in parts(request) {
                sum = add(sum, engine.order(&request)?);
            }
            engine.checkpoint()?;
            Ok(sum)
        }
    }
}

/// Splits a request by the length of its run IDs.
fn parts(request: &OrderRequest) -> Vec<OrderRequest> {
    let mut parts = Vec::new();
    let mut rest = request.run_ids.as_slice();
    while !rest.is_empty() || parts.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|id| {
            bytes += id.len() + 3;
            bytes <= REQUEST_BYTES
        });
        let (here, after) = rest.split_at(fits.count().max(1).min(rest.len()));
        parts.push(OrderRequest {
            run_ids: here.to_vec(),
            ..request.clone()
        });
        rest = after;
    }
    parts
}

fn add(sum: OrderResult, more: OrderResult) -> OrderResult {
    OrderResult {
        orders_changed: sum.orders_changed + more.orders_changed,
        orders: more.orders,
        rows: sum.rows + more.rows,
        unknown: [sum.unknown, more.unknown].concat(),
    }
}

/// An order in force.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StandingOrder {
    /// The run.
    pub run_id: String,
    /// The day-file that it is limited to; empty for all.
    pub day_file: String,
    /// The words of the operator.
    pub reason: String,
    /// When it was given, RFC 3339.
    pub at: String,
}

impl From<LedgerLine> for StandingOrder {
    fn from(line: LedgerLine) -> Self {
        Self {
            run_id: line.source_run_id,
            day_file: line.day_file,
            reason: line.reason,
            at: line.at,
        }
    }
}

/// Returns the orders in force, by run and day-file, as the ledger has them.
///
/// # Errors
/// See [`LedgerReadError`].
pub fn orders(storage: &dyn Storage, ledger: &Path) -> Result<Vec<StandingOrder>, LedgerReadError> {
    let mut orders = BTreeMap::new();
    read_ledger(storage, ledger, None, |line| {
        let key = (line.source_run_id.clone(), line.day_file.clone());
        match line.op {
            Op::Order => drop(orders.insert(key, line)),
            Op::Revoke => drop(orders.remove(&key)),
            _ => {}
        }
    })?;
    Ok(orders.into_values().map(StandingOrder::from).collect())
}
