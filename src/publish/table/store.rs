//! Where the table is: a directory of this host, or a prefix of an S3 bucket.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use delta_kernel::object_store::aws::AmazonS3Builder;
use delta_kernel::object_store::local::LocalFileSystem;
use delta_kernel::object_store::{BackoffConfig, DynObjectStore, RetryConfig};

use crate::publish::table::TableError;

/// How often a request to S3 is repeated that fails or has no answer, and until when. The caller tries again too, and reports
/// meanwhile what is wrong.
const RETRIES_MAX: usize = 3;
const RETRY_PATIENCE: Duration = Duration::from_secs(60);

/// The location of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A directory, by its absolute path.
    Directory(PathBuf),
    /// A URL `s3://BUCKET/PREFIX`.
    S3(String),
}

impl Location {
    /// Parses the value of `table`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Location> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.trim_end_matches('/').split_once('/')?;
            let is_usable = !bucket.is_empty() && !prefix.is_empty();
            return is_usable.then(|| Location::S3(text.trim_end_matches('/').to_owned()));
        }
        let path = Path::new(text);
        (path.is_absolute() && path.parent().is_some()).then(|| Location::Directory(path.into()))
    }

    /// Returns the name by which the kernel opens the table.
    pub(super) fn url(&self) -> String {
        match self {
            Location::Directory(path) => path.to_string_lossy().into_owned(),
            Location::S3(url) => url.clone(),
        }
    }

    /// Opens the store. A write to a directory is durable when it returns: the file and the directories that name it are
    /// synced.
    pub(super) fn store(&self) -> Result<Arc<DynObjectStore>, TableError> {
        match self {
            Location::Directory(_) => Ok(Arc::new(LocalFileSystem::new().with_fsync(true))),
            Location::S3(url) => {
                let retry = RetryConfig {
                    backoff: BackoffConfig::default(),
                    max_retries: RETRIES_MAX,
                    retry_timeout: RETRY_PATIENCE,
                };
                let builder = AmazonS3Builder::from_env().with_url(url);
                let built = builder.with_retry(retry).build();
                let store = built.map_err(|error| TableError::Unreachable {
                    table: self.clone(),
                    reason: error.to_string(),
                })?;
                Ok(Arc::new(store))
            }
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Directory(path) => write!(formatter, "{}", path.display()),
            Location::S3(url) => formatter.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_a_directory_or_a_prefix_of_a_bucket() {
        let directory = Location::Directory("/lake/sft".into());
        assert_eq!(Location::parse("/lake/sft"), Some(directory));
        let s3 = Location::S3("s3://lake/a/b".to_owned());
        assert_eq!(Location::parse("s3://lake/a/b/"), Some(s3));
        for text in [
            "",
            "/",
            "lake/sft",
            "s3://lake",
            "s3://lake/",
            "s3:///sft",
            "gs://a/b",
        ] {
            assert_eq!(Location::parse(text), None, "{text}");
        }
    }
}
