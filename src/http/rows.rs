//! Answers to `verify` on rows of the export, which are named by their offsets.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use crate::daemon::inbox::Inbox;
use crate::daemon::requests::Snapshot;
use crate::http::handlers::{HttpResponse, QueryContext, QueryParams, long_request};
use crate::lake::path::export_path;
use crate::platform::storage::OsStorage;
use crate::query::changed_rows::{ChangedRows, changed_rows};
use crate::query::explain::{DeletedRows, deleted_rows};
use crate::store::state::error::StateError;

/// Finds the rows among those that were asked for of which something holds.
type Find<T> = fn(&BTreeSet<u64>, &QueryContext, &Snapshot) -> Result<T, StateError>;

/// Returns the response to a question about rows.
pub(super) async fn answer<T: Serialize + Send + 'static>(
    inbox: &Inbox,
    context: &Arc<QueryContext>,
    params: &QueryParams,
    find: Find<T>,
) -> HttpResponse {
    let rows = params.get("rows").unwrap_or_default();
    let rows = rows.split(',');
    let rows: BTreeSet<u64> = rows.filter_map(|row| row.parse().ok()).collect();
    long_request(inbox, context, move |context, snapshot| {
        find(&rows, context, snapshot)
    })
    .await
}

/// Finds the rows of lines of deleted day-files.
pub(super) fn deleted(
    rows: &BTreeSet<u64>,
    context: &QueryContext,
    snapshot: &Snapshot,
) -> Result<DeletedRows, StateError> {
    context.with_explain_context(snapshot, |explaining| deleted_rows(rows, explaining))
}

/// Finds the rows that are not as they were written.
pub(super) fn changed(
    rows: &BTreeSet<u64>,
    context: &QueryContext,
    snapshot: &Snapshot,
) -> Result<ChangedRows, StateError> {
    let export_path = export_path(&context.root);
    changed_rows(rows, (&OsStorage, &export_path), &snapshot.state.view)
}
