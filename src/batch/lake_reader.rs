//! A lake as the batch reads it: its root, the day-files that are read, and how one is opened.

use std::io;
use std::path::{Path, PathBuf};

use crate::batch::line_reader::Source;
use crate::config::Exclude;
use crate::lake::linked_dirs::all_links_to_unread;
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::{Walk, open_day_file, walk};
use crate::platform::storage::Storage;

/// A lake's root and the file system that holds it.
#[derive(Debug, Clone)]
pub struct LakeReader<'s> {
    /// The file system of the root.
    pub storage: &'s dyn Storage,
    /// The root as configured, not canonicalized.
    pub root: PathBuf,
    canonical_root: PathBuf,
    /// The day-files that are not read.
    exclude: Exclude,
}

impl<'s> LakeReader<'s> {
    /// Opens the lake at `root`. A root that does not exist is an empty lake.
    ///
    /// # Errors
    /// `InvalidInput` for an empty path; otherwise the error of canonicalizing it.
    pub fn new(storage: &'s dyn Storage, root: &Path) -> io::Result<LakeReader<'s>> {
        if root.as_os_str().is_empty() {
            let message = "the root is empty: set a directory with --root";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let canonical_root = match storage.canonicalize(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => root.to_owned(),
            canonical => canonical?,
        };
        Ok(LakeReader {
            storage,
            root: root.to_owned(),
            canonical_root,
            exclude: Exclude::default(),
        })
    }

    /// Leaves day-files out.
    #[must_use]
    pub fn excluding(self, exclude: &Exclude) -> LakeReader<'s> {
        LakeReader {
            exclude: exclude.clone(),
            ..self
        }
    }

    /// Walks the scored day-files that are read.
    ///
    /// # Errors
    /// Those of [`walk`].
    pub fn walk(&self) -> io::Result<Walk> {
        let mut walked = walk(self.storage, &self.root, Stream::Scored)?;
        let is_read = |path: &PairPath| !self.exclude.matches(path.as_path());
        walked.day_files.retain(is_read);
        // Evidence is opened by its path, without a walk.
        let links = all_links_to_unread(self.storage, &self.root, Stream::Evidence);
        walked.unreadable.extend(links);
        Ok(walked)
    }

    /// Opens a day-file and returns it with its current length in bytes.
    pub(crate) fn open(&self, stream: Stream, pair: &PairPath) -> io::Result<(Source, u64)> {
        let (root, canonical) = (&self.root, &self.canonical_root);
        let file = open_day_file(self.storage, root, canonical, stream, pair)?;
        let len_bytes = file.stat()?.len_bytes;
        Ok((Source::File(file), len_bytes))
    }
}
