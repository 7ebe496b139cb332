//! Whether rows of the export are as they were written: by the hashes in the state, or by the verdict of a running
//! daemon, which compares them itself.

use std::cell::RefCell;

use crate::config::{Settings, as_typed};
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::storage::{OsStorage, Storage as _};
use crate::query::health::Health;
use crate::query::offline::{self, Backend, InquireError};
use crate::query::status;
use crate::store::state::error::StateError;
use crate::store::written::{ComparedSegments, RowBytes};

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
        self.compare(offsets).unwrap_or_else(|error| {
            if !matches!(error, InquireError::NoState(_)) {
                tracing::warn!(
                    "it is not known whether rows were changed, because the state cannot be read: {error}; run {} again",
                    as_typed("`distilld verify`")
                );
            }
            vec![RowBytes::Unknown; offsets.len()]
        })
    }

    fn compare(&self, offsets: &[u64]) -> Result<Vec<RowBytes>, InquireError> {
        let files = match offline::find(self.settings)? {
            Backend::OfflineState(files) => files,
            Backend::Daemon(_) => return Ok(vec![self.by_verdict()?; offsets.len()]),
        };
        let export = OsStorage.open_read(&files.export_path());
        let export = export.map_err(StateError::Io)?;
        let mut compared = self.compared.borrow_mut();
        Ok(compared.rows(offsets, &*export, &files.state.view)?)
    }

    /// A running daemon stops once it finds that the export changed.
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
