//! Answers to `verify` on rows of the export, which are named by their offsets.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::daemon::inbox::Inbox;
use crate::http::handlers::{HttpResponse, QueryContext, QueryParams, long_request};
use crate::lake::path::export_path;
use crate::platform::storage::OsStorage;
use crate::query::changed_rows::changed_rows;
use crate::query::explain::deleted_rows;

/// Returns which of the rows belong to lines of deleted day-files.
pub(super) async fn deleted(
    inbox: &Inbox,
    context: &Arc<QueryContext>,
    params: &QueryParams,
) -> HttpResponse {
    let rows = rows_of(params);
    long_request(inbox, context, move |context, snapshot| {
        context.with_explain_context(snapshot, |explaining| deleted_rows(&rows, explaining))
    })
    .await
}

/// Returns which of the rows are not as they were written.
pub(super) async fn changed(
    inbox: &Inbox,
    context: &Arc<QueryContext>,
    params: &QueryParams,
) -> HttpResponse {
    let rows = rows_of(params);
    long_request(inbox, context, move |context, snapshot| {
        let export_path = export_path(&context.root);
        changed_rows(&rows, (&OsStorage, &export_path), &snapshot.state.view)
    })
    .await
}

fn rows_of(params: &QueryParams) -> BTreeSet<u64> {
    let rows = params.get("rows").unwrap_or_default();
    let rows = rows.split(',');
    rows.filter_map(|row| row.parse().ok()).collect()
}
