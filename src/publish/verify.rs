//! `verify`: the rows of this host in the table are the effective rows of its export, as far as it is published.

use std::ops::ControlFlow;

use serde::Serialize;

use crate::dataset::error::DatasetError;
use crate::publish::error::PublishError;
use crate::publish::numbers::point;
use crate::publish::publisher::Publisher;
use crate::publish::settings::Settings;
use crate::record::keys::RowKey;
use crate::record::ledger::row_hash;

/// The result of a comparison.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// Whether the rows are the same.
    pub equal: bool,
    /// The version of the table.
    pub version: u64,
    /// The length of the export up to which rows are published.
    pub export_len: u64,
    /// Effective rows of the export up to there.
    pub effective: u64,
    /// Rows of this host in the table.
    pub published: u64,
    /// Rows that the table lacks.
    pub missing: u64,
    /// Rows that only the table has, or that it has more than once.
    pub extra: u64,
    /// Rows with other bytes or another key than in the export.
    pub changed: u64,
    /// The least offset of a row that differs.
    pub first_difference: Option<u64>,
}

/// A row by its offset and a hash of its bytes and its key: 24 bytes of memory for each row.
type Known = (u64, [u8; 16]);

impl Publisher<'_> {
    /// Compares the rows of this host in the table with its export. Needs 24 bytes of memory for each row of each.
    ///
    /// # Errors
    /// One of them cannot be read, or the table has rows of another export.
    pub fn verify(&mut self, settings: &Settings) -> Result<Verified, PublishError> {
        let unpublished = || PublishError::Unpublished {
            host: settings.host.clone(),
            table: settings.table.clone(),
        };
        let version = self.table.newest()?.ok_or_else(unpublished)?;
        let point = point(settings, &self.feed, &version)?;
        let mut effective: Vec<Known> = Vec::new();
        self.feed.rows_at(point, &mut |offset, row| {
            let key =
                RowKey::from_row(row).map_or_else(|_| String::new(), |key| format!("{key:?}"));
            effective.push((offset, hash(row, &key)));
            Ok::<_, DatasetError>(ControlFlow::Continue(()))
        })?;
        let mut published: Vec<Known> = Vec::new();
        version.host_rows(&settings.host, &mut |row| {
            published.push((row.export_offset, hash(row.bytes, row.row_key)));
        })?;
        published.sort_unstable();
        let mut verified = Verified {
            equal: false,
            version: version.number(),
            export_len: point.export_len,
            effective: effective.len() as u64,
            published: published.len() as u64,
            missing: 0,
            extra: 0,
            changed: 0,
            first_difference: None,
        };
        verified.compare(&effective, &published);
        Ok(verified)
    }
}

fn hash(row: &[u8], key: &str) -> [u8; 16] {
    row_hash(&[row, key.as_bytes()].concat())
}

impl Verified {
    /// Compares two lists by their offsets, which are in order; each offset is in the first list once.
    fn compare(&mut self, effective: &[Known], published: &[Known]) {
        let mut left = published.iter().peekable();
        for (offset, hash) in effective {
            while let Some((extra, _)) = left.next_if(|(other, _)| other < offset) {
                self.extra += 1;
                self.differs(*extra);
            }
            match left.next_if(|(other, _)| other == offset) {
                None => {
                    self.missing += 1;
                    self.differs(*offset);
                }
                Some((_, found)) if found != hash => {
                    self.changed += 1;
                    self.differs(*offset);
                }
                Some(_) => {}
            }
        }
        for (extra, _) in left {
            self.extra += 1;
            self.differs(*extra);
        }
        self.equal = self.first_difference.is_none();
    }

    fn differs(&mut self, offset: u64) {
        self.first_difference.get_or_insert(offset);
    }

    /// Returns the error of a comparison that found a difference.
    ///
    /// # Errors
    /// The rows differ.
    pub fn check(&self, settings: &Settings) -> Result<(), PublishError> {
        let Some(offset) = self.first_difference else {
            return Ok(());
        };
        Err(PublishError::Different(format!(
            "the table {} has other rows of the host {} than its export: {} missing, {} extra, {} changed, the first at \
             byte {offset} of the export",
            settings.table, settings.host, self.missing, self.extra, self.changed
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_difference_is_counted() {
        let row = |offset: u64, text: u8| (offset, [text; 16]);
        for (published, counts, first) in [
            (vec![row(0, 1), row(5, 2), row(9, 3)], (0, 0, 0), None),
            (vec![row(0, 1), row(9, 3)], (1, 0, 0), Some(5)),
            (
                vec![row(0, 1), row(5, 2), row(5, 2), row(9, 3)],
                (0, 1, 0),
                Some(5),
            ),
            (
                vec![row(0, 1), row(3, 2), row(5, 2), row(9, 3), row(12, 1)],
                (0, 2, 0),
                Some(3),
            ),
            (vec![row(0, 1), row(5, 7), row(9, 3)], (0, 0, 1), Some(5)),
            (vec![], (3, 0, 0), Some(0)),
        ] {
            let mut verified = Verified {
                equal: false,
                version: 0,
                export_len: 0,
                effective: 0,
                published: 0,
                missing: 0,
                extra: 0,
                changed: 0,
                first_difference: None,
            };
            verified.compare(&[row(0, 1), row(5, 2), row(9, 3)], &published);
            let found = (verified.missing, verified.extra, verified.changed);
            assert_eq!((found, verified.first_difference), (counts, first));
            assert_eq!(verified.equal, first.is_none());
        }
    }
}
