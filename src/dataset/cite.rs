//! `cite`: the name of a version with its figures, and the difference between two versions.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::dataset::error::DatasetError;
use crate::dataset::rows::{Skip, for_each_row};
use crate::dataset::snapshot::Snapshot;
use crate::dataset::version::{At, Version};
use crate::platform::storage::Storage;
use crate::record::ledger::{RowSpan, to_hex};
use crate::record::row::summary;
use crate::record::row::view;

/// A version with its figures. Classes, stamps and categories are those of the effective rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// The version's name.
    pub version: String,
    /// The export's identity.
    pub export: String,
    /// Bytes of the export.
    pub export_len: u64,
    /// Bytes of the ledger.
    pub ledger_len: u64,
    /// Rows of the export.
    pub rows: u64,
    /// Rows that are retracted.
    pub retracted: u64,
    /// Rows that are not.
    pub effective: u64,
    /// Lines of the export that are no rows of distilld; they count as rows, and belong to no class.
    pub foreign_lines: u64,
    /// The earliest `created_at`; empty without rows.
    pub first_stamp: String,
    /// The latest `created_at`.
    pub last_stamp: String,
    /// Effective rows by source class and category.
    pub classes: BTreeMap<String, BTreeMap<String, u64>>,
    /// SHA-256 of the bytes of the export.
    pub export_sha256: String,
    /// SHA-256 of the bytes of the ledger.
    pub ledger_sha256: String,
    /// A shell command that prints the last field of the version.
    pub check: String,
}

/// Reads a version and counts its rows.
///
/// # Errors
/// Those of [`Snapshot::open`], and a file that cannot be read.
pub fn cite(
    storage: &dyn Storage,
    export: &Path,
    at: Option<At>,
) -> Result<Manifest, DatasetError> {
    let snapshot = Snapshot::open(storage, export, at)?;
    let mut figures = Figures::default();
    let mut hash = Sha256::new();
    let mut skip = Skip::new(&snapshot.files, &snapshot.retracted);
    for_each_row(
        &snapshot.files,
        0,
        snapshot.export_len,
        &mut |offset, row| {
            hash.update(row);
            figures.rows += 1;
            match skip.is_retracted(offset, row)? {
                true => figures.retracted += 1,
                false => figures.add(row),
            }
            Ok(ControlFlow::Continue(()))
        },
    )?;
    let (export_sha256, ledger_sha256) = (hash.finalize().into(), snapshot.ledger_sha256()?);
    let version = snapshot.version_of(export_sha256, ledger_sha256);
    Ok(Manifest {
        version: version.to_string(),
        export: version.export.to_string(),
        export_len: version.export_len,
        ledger_len: version.ledger_len,
        rows: figures.rows,
        retracted: figures.retracted,
        effective: figures.rows - figures.retracted,
        foreign_lines: figures.foreign,
        first_stamp: figures.first_stamp.unwrap_or_default(),
        last_stamp: figures.last_stamp,
        classes: figures.classes,
        export_sha256: to_hex(&export_sha256),
        ledger_sha256: to_hex(&ledger_sha256),
        check: check_command(&snapshot, &version),
    })
}

#[derive(Default)]
struct Figures {
    rows: u64,
    retracted: u64,
    foreign: u64,
    first_stamp: Option<String>,
    last_stamp: String,
    classes: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Figures {
    /// Counts an effective row.
    fn add(&mut self, row: &[u8]) {
        let (Ok(read), Ok(fields)) = (summary(row), view(row)) else {
            self.foreign += 1;
            return;
        };
        let stamp = &*read.created_at;
        if self
            .first_stamp
            .as_deref()
            .is_none_or(|first| stamp < first)
        {
            self.first_stamp = Some(stamp.to_owned());
        }
        if stamp > &*self.last_stamp {
            self.last_stamp = stamp.to_owned();
        }
        let name = fields.id.rsplit_once(':').map_or("", |(name, _index)| name);
        let class = name.strip_suffix(".jsonl").unwrap_or(name);
        // An entry takes an owned key, and nearly all are there.
        if !self.classes.contains_key(class) {
            self.classes.insert(class.to_owned(), BTreeMap::new());
        }
        if let Some(categories) = self.classes.get_mut(class) {
            match categories.get_mut(&*read.quality_score) {
                Some(count) => *count += 1,
                None => drop(categories.insert(read.quality_score.into_owned(), 1)),
            }
        }
    }
}

/// Returns a shell command that prints the digest of a version.
fn check_command(snapshot: &Snapshot, version: &Version) -> String {
    let part = |len: u64, path: &Path| {
        let path = path.display().to_string().replace('\'', "'\\''");
        format!("head -c {len} '{path}' | sha256sum | cut -c-64")
    };
    let export = part(version.export_len, &snapshot.files.export_path);
    let ledger = part(version.ledger_len, &snapshot.files.ledger_path);
    format!("{{ {export}; {ledger}; }} | sha256sum | cut -c-16")
}

/// The difference between two versions: `effective` of the second is that of the first, plus `added` and `restored`,
/// minus `retracted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The first version.
    pub from: String,
    /// The second version.
    pub to: String,
    /// Effective rows of the second version that were appended since the first one.
    pub added: u64,
    /// Rows that are effective in the first version and not in the second one.
    pub retracted: u64,
    /// Rows of the first version that are effective in the second one and not in the first one.
    pub restored: u64,
}

/// Compares two versions of one export.
///
/// # Errors
/// A version does not fit the files, or the second one is before the first.
pub fn difference(
    storage: &dyn Storage,
    export: &Path,
    from: Version,
    to: Version,
) -> Result<Difference, DatasetError> {
    let first = Snapshot::open(storage, export, Some(At::Version(from)))?;
    let second = Snapshot::open(storage, export, Some(At::Version(to)))?;
    if to.export_len < from.export_len || to.ledger_len < from.ledger_len {
        return Err(DatasetError::Order { from, to });
    }
    let mut appended = 0;
    for_each_row(
        &second.files,
        from.export_len,
        to.export_len,
        &mut |_, _| {
            appended += 1;
            Ok(ControlFlow::Continue(()))
        },
    )?;
    let old = |row: &&RowSpan| row.offset < from.export_len;
    let without = |rows: &[RowSpan], others: &[RowSpan]| {
        let is_other = |row: &RowSpan| others.binary_search(row).is_ok();
        rows.iter().filter(old).filter(|row| !is_other(row)).count() as u64
    };
    let out_at_once = second.retracted.iter().filter(|row| !old(row)).count() as u64;
    Ok(Difference {
        from: from.to_string(),
        to: to.to_string(),
        added: appended - out_at_once,
        retracted: without(&second.retracted, &first.retracted),
        restored: without(&first.retracted, &second.retracted),
    })
}
