//! `status`: how much of the export the table has.

use serde::Serialize;

use crate::publish::error::PublishError;
use crate::publish::numbers::point;
use crate::publish::publisher::Publisher;
use crate::publish::settings::Settings;

/// The state of the publication.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The name of this host in the table.
    pub host: String,
    /// The table.
    pub table: String,
    /// Its newest version; null if there is no table.
    pub version: Option<u64>,
    /// The identity of the export.
    pub export: String,
    /// The length of the export, whole rows.
    pub export_len: u64,
    /// How much of it the table has.
    pub published_len: u64,
    /// The rest.
    pub lag_bytes: u64,
    /// Bytes of the ledger that the table does not have.
    pub ledger_lag_bytes: u64,
}

impl Publisher<'_> {
    /// Reads how much of the export the table has.
    ///
    /// # Errors
    /// One of them cannot be read, or the table has rows of another export.
    pub fn status(&self, settings: &Settings) -> Result<Status, PublishError> {
        let head = self.feed.head()?;
        let version = self.table.newest()?;
        let published = match &version {
            Some(version) => point(settings, &self.feed, version)?,
            None => Default::default(),
        };
        Ok(Status {
            host: settings.host.clone(),
            table: settings.table.to_string(),
            version: version.map(|version| version.number()),
            export: self.feed.export().to_string(),
            export_len: head.export_len,
            published_len: published.export_len,
            lag_bytes: head.export_len.saturating_sub(published.export_len),
            ledger_lag_bytes: head.ledger_len.saturating_sub(published.ledger_len),
        })
    }
}
