//! Writes the rows of a batch to a file, a device or a stream. A file is written under a temporary name in the same
//! directory, synced, and renamed, so that its name refers to the complete old or the complete new content.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::kept_rows::{KeptRows, RowsLost};
use crate::platform::rights_of::{rights_of, rights_of_first};
use crate::platform::storage::{Rights, Storage, StorageFile, write_all_at};

/// The destination of a batch's rows.
pub enum Output<'w> {
    /// A file, replaced atomically.
    File(PathBuf),
    /// A root's own export, replaced atomically, unless one of its rows would be lost.
    Own(PathBuf),
    /// A device or FIFO such as `/dev/null`, which is written to and not replaced: its path and the open file.
    Device(PathBuf, File),
    /// A stream such as stdout.
    Writer(&'w mut dyn Write),
}

impl Output<'_> {
    /// Returns the output for a path: a file to be replaced, or a device, which is opened immediately.
    ///
    /// # Errors
    /// The device cannot be opened.
    pub fn named(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => {
                let device = OpenOptions::new().write(true).open(path)?;
                Ok(Self::Device(path.to_owned(), device))
            }
            _ => Ok(Self::File(path.to_owned())),
        }
    }
}

/// A writer of rows. An output file appears under its name only after all rows are durable.
pub(crate) struct Sink<'s, 'w> {
    storage: &'s dyn Storage,
    output: Output<'w>,
    dry_run: bool,
    temporary: Option<(PathBuf, Arc<dyn StorageFile>)>,
    /// The rows of a root's own export, once the first row is written.
    kept_rows: Option<KeptRows>,
    /// Bytes appended; the output is not touched while this is 0.
    pub written_bytes: u64,
}

impl<'s, 'w> Sink<'s, 'w> {
    pub fn new(storage: &'s dyn Storage, output: Output<'w>, dry_run: bool) -> Sink<'s, 'w> {
        Sink {
            storage,
            output,
            dry_run,
            temporary: None,
            kept_rows: None,
            written_bytes: 0,
        }
    }

    /// Returns the output's path for display, `-` for a stream.
    pub fn name(&self) -> String {
        match &self.output {
            Output::File(path) | Output::Own(path) | Output::Device(path, _) => {
                path.display().to_string()
            }
            Output::Writer(_) => "-".to_owned(),
        }
    }

    /// Begins a file, which then appears also without rows.
    pub fn begin(&mut self) -> io::Result<()> {
        if let (Output::File(path), None, false) = (&self.output, &self.temporary, self.dry_run) {
            let rights = rights_of(self.storage, path)?;
            self.temporary = Some(create_temporary(self.storage, path, rights)?);
        }
        Ok(())
    }

    /// Appends complete rows.
    pub fn append(&mut self, rows: &[u8]) -> io::Result<()> {
        if rows.is_empty() || self.dry_run {
            return Ok(());
        }
        if let Output::Own(path) = &self.output {
            let kept_rows = match &mut self.kept_rows {
                Some(kept_rows) => kept_rows,
                none => none.insert(KeptRows::read(self.storage, path)?),
            };
            kept_rows.on_made(rows);
        }
        self.write(rows)?;
        self.written_bytes += rows.len() as u64;
        Ok(())
    }

    fn write(&mut self, rows: &[u8]) -> io::Result<()> {
        if let Some((_, file)) = &self.temporary {
            return write_all_at(&**file, rows, self.written_bytes);
        }
        let (path, rights) = match &mut self.output {
            Output::Writer(writer) => return writer.write_all(rows),
            Output::Device(_, device) => return device.write_all(rows),
            Output::File(path) => (&*path, rights_of(self.storage, path)?),
            // The daemon appends to it later, also after a batch that root ran.
            Output::Own(path) => (
                &*path,
                rights_of_first(self.storage, std::slice::from_ref(path))?,
            ),
        };
        let (_, file) = (self.temporary).insert(create_temporary(self.storage, path, rights)?);
        write_all_at(&**file, rows, self.written_bytes)
    }

    /// Returns the rows of a root's own export that would be lost.
    pub fn rows_lost(&mut self) -> Option<RowsLost> {
        self.kept_rows.as_mut()?.lost()
    }

    /// Makes the rows durable and renames the temporary file to the output's name.
    pub fn finish(&mut self) -> io::Result<()> {
        match (&mut self.output, &self.temporary) {
            (Output::Writer(writer), _) => writer.flush(),
            (Output::Device(..), _) | (Output::File(_) | Output::Own(_), None) => Ok(()),
            (Output::File(path) | Output::Own(path), Some((temporary, file))) => {
                file.sync_data()?;
                self.storage.rename(temporary, path)?;
                self.temporary = None;
                self.storage.sync_dir(directory_of(path))
            }
        }
    }

    /// Removes the temporary file. A failure is ignored: the batch has failed already, and the file's name identifies
    /// it as partial.
    pub fn abandon(&mut self) {
        if let Some((temporary, _)) = self.temporary.take() {
            let _ = self.storage.remove_file(&temporary);
        }
    }
}

/// Creates `.NAME.PID.partial` in the directory of `path`, with the rights of the file that it replaces; the process number
/// keeps two batches apart.
fn create_temporary(
    storage: &dyn Storage,
    path: &Path,
    rights: Option<Rights>,
) -> io::Result<(PathBuf, Arc<dyn StorageFile>)> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(format!(".{}.partial", std::process::id()));
    let dir = directory_of(path);
    storage.create_dir_all(dir)?;
    let temporary = dir.join(name);
    // A killed process with the same number may have left one.
    match storage.remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = storage.create(&temporary)?;
    if let Some(rights) = rights {
        file.set_rights(rights)?;
    }
    Ok((temporary, file))
}

/// Returns the parent directory of a path, `.` if it has none.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}
