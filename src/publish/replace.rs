//! `replace`: the rows of this host are taken out of the table, and those of the export that is there now are added, by
//! one commit.

use std::ops::ControlFlow;

use serde::Serialize;

use crate::dataset::feed::{Feed, Point};
use crate::publish::error::PublishError;
use crate::publish::numbers::numbers;
use crate::publish::publisher::{ATTEMPTS_MAX, Publisher, write_rows};
use crate::publish::settings::Settings;
use crate::publish::table::{AddedFile, Change, Committed, Operation, TableVersion};

/// What was replaced.
#[derive(Debug, Serialize)]
pub struct Replaced {
    /// Rows of the host that the table had.
    pub removed: u64,
    /// Rows that it has now.
    pub added: u64,
    /// The version of the table that has the rows of the export; with `--dry-run` the one that was read.
    pub version: u64,
    /// Nothing was committed.
    pub dry_run: bool,
}

impl Publisher<'_> {
    /// Replaces the rows of this host by the effective rows of its export. Readers see all old rows or all new ones.
    ///
    /// # Errors
    /// The export cannot be read, or the table cannot be read or written.
    pub fn replace(
        &mut self,
        settings: &Settings,
        dry_run: bool,
    ) -> Result<Replaced, PublishError> {
        let missing = || PublishError::Unpublished {
            host: settings.host.clone(),
            table: settings.table.clone(),
        };
        let head = self.feed.changes(Point::default())?;
        let point = Point {
            export_len: head.export_len,
            ledger_len: head.ledger_len,
        };
        let version = self.table.newest()?.ok_or_else(missing)?;
        if dry_run {
            return count(settings, &mut self.feed, point, &version);
        }
        // The new rows do not depend on the table, so they are written once.
        let mut added = Vec::new();
        let mut at = 0;
        while at < point.export_len {
            let end = self
                .feed
                .end_of_rows(at, point.export_len, settings.commit_bytes)?;
            added.extend(write_rows(settings, &version, &mut self.feed, at, end)?);
            at = end;
        }
        for _ in 0..ATTEMPTS_MAX {
            let version = self.table.newest()?.ok_or_else(missing)?;
            let rewrite = version.without_host(&settings.host)?;
            let removed = rewrite.rows;
            let committed = version.commit(Change {
                operation: Operation::Replace,
                transactions: numbers(settings, &self.feed, point)?,
                added: &added,
                rewrite,
            })?;
            if let Committed::Version(number) = committed {
                return Ok(Replaced {
                    removed,
                    added: rows_of(&added),
                    version: number,
                    dry_run,
                });
            }
        }
        Err(PublishError::Contended {
            table: settings.table.clone(),
            attempts: ATTEMPTS_MAX,
        })
    }
}

fn count(
    settings: &Settings,
    feed: &mut Feed,
    point: Point,
    version: &TableVersion<'_>,
) -> Result<Replaced, PublishError> {
    let (mut removed, mut added) = (0, 0);
    version.host_rows(&settings.host, &mut |_row| removed += 1)?;
    feed.rows_at(point, &mut |_offset, _row| {
        added += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(Replaced {
        removed,
        added,
        version: version.number(),
        dry_run: true,
    })
}

fn rows_of(files: &[AddedFile]) -> u64 {
    files.iter().map(|file| file.rows).sum()
}
