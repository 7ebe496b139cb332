//! The explanations of the status page, for every client: the longest-waiting runs, some malformed lines and the newest
//! retracted rows. They name runs, files, categories and rules; they have no text of a model or an operator. A client
//! chooses neither run nor file, and each is made at most so often, so that strangers can neither search nor slow down.

use std::sync::Arc;

use serde::Serialize;

use crate::daemon::inbox::Inbox;
use crate::http::handlers::{HttpResponse, QueryContext, long_request};
use crate::lake::path::{export_path, ledger_path};
use crate::platform::storage::OsStorage;
use crate::query::dead_letters::{DeadLetterFilter, DeadLetterInfo, letters};
use crate::query::explain::{Explanation, Page, RetractedRow, explain, retracted_rows};
use crate::store::state::error::StateError;

/// Maximum number of malformed lines, of retracted rows, and of lines of a run.
const LISTED_MAX: usize = 50;

#[derive(Serialize)]
struct WaitingRuns {
    waiting: Vec<Explanation>,
}

#[derive(Serialize)]
struct MalformedLines {
    malformed: Vec<DeadLetterInfo>,
    /// Whether there are others.
    more: bool,
}

#[derive(Serialize)]
struct RetractedRuns {
    /// The newest first.
    retracted: Vec<RetractedRow>,
    /// Whether there are others.
    more: bool,
}

/// Returns the explanations of the runs that wait for the longest time.
pub(super) async fn waiting(inbox: &Inbox, context: &Arc<QueryContext>) -> HttpResponse {
    long_request(inbox, context, |context, snapshot| {
        let runs = context.waiting_oldest(snapshot)?.into_iter();
        let page = Page {
            skip: 0,
            limit: LISTED_MAX,
        };
        context.with_explain_context(snapshot, |explaining| {
            let explained = runs.filter_map(|run| run.run_id).map(|run_id| {
                let explanation = Explanation {
                    near: Vec::new(),
                    ..explain(&run_id, page, explaining)?
                };
                Ok(explanation.without_reasons())
            });
            let waiting = explained.collect::<Result<_, StateError>>()?;
            Ok::<_, StateError>(WaitingRuns { waiting })
        })
    })
    .await
}

/// Returns some malformed lines.
pub(super) async fn malformed(inbox: &Inbox, context: &Arc<QueryContext>) -> HttpResponse {
    long_request(inbox, context, |context, snapshot| {
        let filter = DeadLetterFilter {
            limit: LISTED_MAX,
            ..DeadLetterFilter::default()
        };
        let page = letters(&snapshot.state, &OsStorage, &context.root, &filter)?;
        Ok::<_, StateError>(MalformedLines {
            malformed: page.letters,
            more: page.more,
        })
    })
    .await
}

/// Returns the rows that were retracted last.
pub(super) async fn retracted(inbox: &Inbox, context: &Arc<QueryContext>) -> HttpResponse {
    long_request(inbox, context, |context, snapshot| {
        let rows_out = usize::try_from(snapshot.status.retractions.rows).unwrap_or(usize::MAX);
        let page = Page {
            skip: rows_out.saturating_sub(LISTED_MAX),
            limit: LISTED_MAX,
        };
        let ledger = ledger_path(&export_path(&context.root));
        retracted_rows(&OsStorage, &ledger, page).map(|mut found| {
            for row in &mut found.rows {
                row.retraction.reason.clear();
            }
            found.rows.reverse();
            RetractedRuns {
                retracted: found.rows,
                more: page.skip > 0 || found.more,
            }
        })
    })
    .await
}
