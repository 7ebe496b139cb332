//! What `verify` asks of a state or a running daemon: which rows belong to lines of deleted day-files, whether rows are as
//! they were written, by the hashes in the state, and whether the ledger has all its lines.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Instant;

use hyper::Method;

use crate::cli::queries::{query, with_explain_context};
use crate::config::{Settings, as_typed};
use crate::dataset::ledger_reader::{APPEND_PATIENCE, APPEND_PAUSE};
use crate::lake::path::{export_path, ledger_path};
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::root_lock::Holder;
use crate::platform::storage::{OsStorage, Storage as _};
use crate::query::changed_rows::ChangedRows;
use crate::query::explain::{self, DeletedRows};
use crate::query::health::Health;
use crate::query::offline::{self, Backend, InquireError, inquire};
use crate::query::status;
use crate::store::state::error::StateError;
use crate::store::written::{ComparedSegments, RowBytes};

/// Rows in one question, so that its path stays short.
const ROWS_ASKED_MAX: usize = 500;

/// Returns the query that names these rows.
fn rows_query(offsets: &[u64]) -> String {
    let list: Vec<String> = offsets.iter().map(u64::to_string).collect();
    query(&[("rows", &list.join(","))])
}

/// Returns an answer if there is one. Without a state nothing is known, and another error is logged with what follows.
fn known<T>(answer: Result<T, InquireError>, what_follows: &str) -> Option<T> {
    answer
        .inspect_err(|error| {
            if !matches!(error, InquireError::NoState(_)) {
                tracing::warn!(
                    "{what_follows}, because the state cannot be read: {error}; run {} again",
                    as_typed("`distilld verify`")
                );
            }
        })
        .ok()
}

/// Returns which of the rows at these offsets belong to lines of deleted day-files. Without a state nothing is known of
/// any row.
pub(super) fn deleted_rows(settings: &Settings, rows: &[u64]) -> BTreeSet<u64> {
    let mut deleted = BTreeSet::new();
    for rows in rows.chunks(ROWS_ASKED_MAX) {
        let asked: BTreeSet<u64> = rows.iter().copied().collect();
        let path = format!("/deleted-rows.json?{}", rows_query(rows));
        let answer = inquire::<DeletedRows, InquireError>(settings, &path, |files| {
            with_explain_context(settings, files, |context| {
                explain::deleted_rows(&asked, context)
            })
        });
        match known(answer, "rows of deleted day-files count as duplicates") {
            Some(answer) => deleted.extend(answer.rows),
            None => return deleted,
        }
    }
    deleted
}

/// The rows of a lake's export.
pub(super) struct WrittenRows<'a> {
    settings: &'a Settings,
    compared: RefCell<ComparedSegments>,
}

impl<'a> WrittenRows<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self {
            settings,
            compared: RefCell::default(),
        }
    }

    /// Returns for each of the rows at these offsets whether it is as it was written.
    pub(super) fn rows(&self, offsets: &[u64]) -> Vec<RowBytes> {
        let rows = known(
            self.compare(offsets),
            "it is not known whether rows were changed",
        );
        rows.unwrap_or_else(|| vec![RowBytes::Unknown; offsets.len()])
    }

    fn compare(&self, offsets: &[u64]) -> Result<Vec<RowBytes>, InquireError> {
        let files = match offline::find(self.settings)? {
            Backend::OfflineState(files) => files,
            Backend::Daemon(holder) => return self.by_daemon(&holder, offsets),
        };
        let export = OsStorage.open_read(&files.export_path());
        let export = export.map_err(StateError::Io)?;
        let mut compared = self.compared.borrow_mut();
        Ok(compared.rows(offsets, &*export, &files.state.view)?)
    }

    fn by_daemon(&self, holder: &Holder, offsets: &[u64]) -> Result<Vec<RowBytes>, InquireError> {
        let mut changed = ChangedRows::default();
        for offsets in offsets.chunks(ROWS_ASKED_MAX) {
            let path = format!("/changed-rows.json?{}", rows_query(offsets));
            let answer: ChangedRows =
                offline::of_daemon(holder, Method::GET, &path, offline::LONG)?;
            changed.rows.extend(answer.rows);
        }
        let others = self.by_verdict()?;
        let of_row = |offset| match changed.rows.contains(offset) {
            true => RowBytes::Changed,
            false => others,
        };
        Ok(offsets.iter().map(of_row).collect())
    }

    /// A running daemon has written the newest rows itself, and stops once it finds that the export changed.
    fn by_verdict(&self) -> Result<RowBytes, InquireError> {
        let status = status::status(self.settings, HostClock::new().wall_ms())?;
        Ok(match status.health.verdict {
            Health::CatchingUp
            | Health::Lagging
            | Health::Incomplete
            | Health::NoSources
            | Health::Fresh => RowBytes::AsWritten,
            Health::NotRunning
            | Health::Starting
            | Health::Recovering
            | Health::Unresponsive
            | Health::Stopped => RowBytes::Unknown,
        })
    }
}

/// Returns what the ledger lacks of all that was written to it, or that it was changed, by a state or by a running daemon.
pub(super) fn ledger_fault(settings: &Settings) -> Option<String> {
    let fault = known_ledger_fault(settings);
    known(
        fault,
        "it is not known whether the ledger has all its lines",
    )
    .flatten()
}

fn known_ledger_fault(settings: &Settings) -> Result<Option<String>, InquireError> {
    if let Backend::OfflineState(files) = offline::find(settings)? {
        return Ok(files.check_ledger().err().map(|error| error.to_string()));
    }
    let written = status::status(settings, HostClock::new().wall_ms())?.retractions;
    let path = ledger_path(&export_path(&settings.root));
    let until = Instant::now() + APPEND_PATIENCE;
    loop {
        let found = OsStorage.stat(&path).map_or(0, |stat| stat.len_bytes);
        if found >= written.len_bytes {
            return Ok(None);
        }
        if Instant::now() > until {
            let (path, written) = (path.display(), written.len_bytes);
            let fault =
                format!("{path} is {found} bytes long, but {written} bytes of it were written");
            return Ok(Some(fault));
        }
        std::thread::sleep(APPEND_PAUSE);
    }
}
