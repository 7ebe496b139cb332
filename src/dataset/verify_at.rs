//! `verify --at`: whether a version is one of the files as they are now.

use std::path::Path;

use serde::Serialize;

use crate::dataset::error::DatasetError;
use crate::dataset::snapshot::Snapshot;
use crate::dataset::version::{At, Version};
use crate::platform::storage::Storage;

/// The result of `verify --at`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionResult {
    /// The version.
    pub version: String,
    /// `fits`, `rebuilt`, `shorter` or `changed`.
    pub result: &'static str,
    /// The export that has the name now.
    pub export: String,
}

/// Compares a version with the files. The error is the reason where it does not fit.
///
/// # Errors
/// The files cannot be read, or contradict each other.
pub fn verify_version(
    storage: &dyn Storage,
    export: &Path,
    version: Version,
) -> Result<(VersionResult, Option<DatasetError>), DatasetError> {
    let error = Snapshot::open(storage, export, Some(At::Version(version))).err();
    let (result, now) = match &error {
        None => ("fits", version.export),
        Some(DatasetError::Rebuilt { now, .. }) => ("rebuilt", *now),
        Some(DatasetError::ShorterThanVersion { .. } | DatasetError::Short { .. }) => {
            ("shorter", version.export)
        }
        Some(
            DatasetError::Changed { .. }
            | DatasetError::Ledger { .. }
            | DatasetError::Foreign { .. }
            | DatasetError::NoRowStart { .. },
        ) => ("changed", version.export),
        Some(_) => return Err(error.unwrap_or(DatasetError::NoExport(export.to_owned()))),
    };
    let result = VersionResult {
        version: version.to_string(),
        result,
        export: now.to_string(),
    };
    Ok((result, error))
}
