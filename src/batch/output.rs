//! Owns where a batch's rows go. A file is written beside its target, synced, and renamed: under its name stands the
//! old one or the new one, whole. It never looks into a row.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::platform::storage::{Storage, StorageFile, write_all_at};

/// Where a batch's rows go.
pub enum Output<'w> {
    /// A file, replaced atomically.
    File(PathBuf),
    /// What is no file and stays what it is, such as `/dev/null` or a FIFO: its path, and where it was opened.
    Device(PathBuf, File),
    /// Anything else, such as stdout.
    Writer(&'w mut dyn Write),
}

impl Output<'_> {
    /// Whatever a path names: a file that is replaced, or a device that is written to and opened now.
    ///
    /// # Errors
    /// What the disk says of a device.
    pub fn named(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(found) if !found.is_file() && !found.is_dir() => {
                let device = OpenOptions::new().write(true).open(path)?;
                Ok(Self::Device(path.to_owned(), device))
            }
            _ => Ok(Self::File(path.to_owned())),
        }
    }
}

/// Takes rows as they come; a file appears under its name only when all of them are durable.
pub(crate) struct Sink<'s, 'w> {
    storage: &'s dyn Storage,
    output: Output<'w>,
    dry_run: bool,
    temporary: Option<(PathBuf, Arc<dyn StorageFile>)>,
    /// Bytes taken; with none the output is not touched.
    pub written_bytes: u64,
}

impl<'s, 'w> Sink<'s, 'w> {
    pub fn new(storage: &'s dyn Storage, output: Output<'w>, dry_run: bool) -> Sink<'s, 'w> {
        Sink {
            storage,
            output,
            dry_run,
            temporary: None,
            written_bytes: 0,
        }
    }

    /// What a person calls the output.
    pub fn name(&self) -> String {
        match &self.output {
            Output::File(path) | Output::Device(path, _) => path.display().to_string(),
            Output::Writer(_) => "-".to_owned(),
        }
    }

    /// Takes whole rows.
    pub fn append(&mut self, rows: &[u8]) -> io::Result<()> {
        if rows.is_empty() || self.dry_run {
            return Ok(());
        }
        self.write(rows)?;
        self.written_bytes += rows.len() as u64;
        Ok(())
    }

    fn write(&mut self, rows: &[u8]) -> io::Result<()> {
        let path = match &mut self.output {
            Output::Writer(writer) => return writer.write_all(rows),
            Output::Device(_, device) => return device.write_all(rows),
            Output::File(path) => path,
        };
        let (_, file) = match &mut self.temporary {
            Some(temporary) => temporary,
            none => none.insert(create_beside(self.storage, path)?),
        };
        write_all_at(&**file, rows, self.written_bytes)
    }

    /// Makes the rows durable, and the file appear under its name.
    pub fn finish(&mut self) -> io::Result<()> {
        match (&mut self.output, &self.temporary) {
            (Output::Writer(writer), _) => writer.flush(),
            (Output::Device(..), _) | (Output::File(_), None) => Ok(()),
            (Output::File(path), Some((temporary, file))) => {
                file.sync_data()?;
                self.storage.rename(temporary, path)?;
                self.temporary = None;
                self.storage.sync_dir(directory_of(path))
            }
        }
    }

    /// Removes what was begun. That this fails too is worth no second error: the name says what the file is.
    pub fn abandon(&mut self) {
        if let Some((temporary, _)) = self.temporary.take() {
            let _ = self.storage.remove_file(&temporary);
        }
    }
}

/// A new file in the directory of `path`, named after it and this process: two batches never share one.
fn create_beside(
    storage: &dyn Storage,
    path: &Path,
) -> io::Result<(PathBuf, Arc<dyn StorageFile>)> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(format!(".{}.partial", std::process::id()));
    let dir = directory_of(path);
    storage.create_dir_all(dir)?;
    let temporary = dir.join(name);
    // Left by a process of the same number that was killed.
    match storage.remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = storage.create(&temporary)?;
    Ok((temporary, file))
}

/// The directory that holds what a path names.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}
