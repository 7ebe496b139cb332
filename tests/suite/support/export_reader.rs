//! A consumer of the export that verifies everything: it remembers each complete line it has seen and detects when one
//! changes, moves or vanishes. Read-only.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A consumer of the export that remembers each complete line it has seen.
#[derive(Debug)]
pub struct ExportReader {
    path: PathBuf,
    hasher: RandomState,
    /// Hash of each complete line seen, and the offset of its end.
    lines: Vec<(u64, u64)>,
    inode: Option<u64>,
}

impl ExportReader {
    /// Creates a reader without lines; the export need not exist.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            hasher: RandomState::new(),
            lines: Vec::new(),
            inode: None,
        }
    }

    /// Returns the number of complete lines seen.
    pub fn lines_seen(&self) -> usize {
        self.lines.len()
    }

    fn seen_bytes(&self) -> u64 {
        self.lines.last().map_or(0, |(_, end)| *end)
    }

    /// Reads new lines, and the last known line once more.
    ///
    /// # Errors
    /// A known line is gone or changed.
    pub fn poll(&mut self) -> Result<(), String> {
        self.compare_from(self.lines.len().saturating_sub(1))
    }

    /// Reads the whole export and compares each known line.
    ///
    /// # Errors
    /// As [`ExportReader::poll`].
    pub fn check_all(&mut self) -> Result<(), String> {
        self.compare_from(0)
    }

    /// Compares the lines from number `first` on, and remembers those that follow.
    fn compare_from(&mut self, first: usize) -> Result<(), String> {
        let Some(file) = self.open()? else {
            return Ok(());
        };
        let start = first
            .checked_sub(1)
            .map_or(0, |before| self.lines[before].1);
        let bytes = read_from(&file, start).map_err(|error| error.to_string())?;
        let (seen, mut end) = (self.seen_bytes(), start);
        if start + (bytes.len() as u64) < seen {
            return Err(format!(
                "the export has shrunk to {} bytes; {seen} were seen",
                start + bytes.len() as u64
            ));
        }
        let complete = bytes
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| line.ends_with(b"\n"));
        for (index, line) in complete.enumerate() {
            end += line.len() as u64;
            let found = (self.hasher.hash_one(line), end);
            match self.lines.get(first + index) {
                None => self.lines.push(found),
                Some(known) if *known == found => {}
                Some(_) => return Err(self.changed(first + index, line)),
            }
        }
        // Fewer lines in the same bytes: a newline is gone.
        if end < seen {
            return Err(format!(
                "complete lines seen up to byte {seen} now end at {end}"
            ));
        }
        Ok(())
    }

    fn changed(&self, number: usize, line: &[u8]) -> String {
        let start = number
            .checked_sub(1)
            .map_or(0, |before| self.lines[before].1);
        let line = String::from_utf8_lossy(&line[..line.len().min(400)]);
        format!(
            "line {number} of the export, at byte {start}, is no longer what was seen there; now: {line}"
        )
    }

    fn open(&mut self) -> Result<Option<File>, String> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.inode.is_none() => {
                return Ok(None);
            }
            Err(error) => return Err(format!("the export cannot be opened any more: {error}")),
        };
        let inode = file.metadata().map_err(|error| error.to_string())?.ino();
        let first = *self.inode.get_or_insert(inode);
        // A file may be replaced before a reader has seen a line of it.
        if first != inode && self.lines.is_empty() {
            self.inode = Some(inode);
        } else if first != inode {
            return Err("the export was replaced by another file".to_owned());
        }
        Ok(Some(file))
    }
}

/// Returns all bytes from `start`. The length is read first: bytes that are appended meanwhile are left to the next
/// call.
fn read_from(file: &File, start: u64) -> io::Result<Vec<u8>> {
    let len_bytes = file.metadata()?.len().saturating_sub(start);
    let mut bytes = vec![0; usize::try_from(len_bytes).map_err(io::Error::other)?];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], start + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// An [`ExportReader`] that polls continuously, on a thread of its own. It stops on drop.
#[derive(Debug)]
pub struct ReaderThread {
    thread: Option<JoinHandle<usize>>,
    stop: Arc<AtomicBool>,
    fault: Arc<OnceLock<String>>,
}

impl ReaderThread {
    /// Starts the thread.
    pub fn start(path: &Path) -> Self {
        let (stop, fault) = (Arc::new(AtomicBool::new(false)), Arc::new(OnceLock::new()));
        let (stopped, found) = (Arc::clone(&stop), Arc::clone(&fault));
        let mut reader = ExportReader::new(path);
        let thread = thread::spawn(move || {
            if let Err(fault) = follow(&mut reader, &stopped) {
                found.get_or_init(|| fault);
            }
            reader.lines_seen()
        });
        Self {
            thread: Some(thread),
            stop,
            fault,
        }
    }

    /// Fails if the reader has detected a violation.
    ///
    /// # Errors
    /// The first violation.
    pub fn check(&self) -> Result<(), String> {
        self.fault.get().map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// Stops the thread after a final check of all lines; returns the number of complete lines seen.
    ///
    /// # Errors
    /// The first violation.
    pub fn finish(mut self) -> Result<usize, String> {
        self.stop.store(true, Ordering::Release);
        let lines_seen = self.thread.take().map(JoinHandle::join);
        self.check()?;
        match lines_seen {
            Some(Ok(lines_seen)) => Ok(lines_seen),
            Some(Err(_)) | None => Err("the reader panicked".to_owned()),
        }
    }
}

impl Drop for ReaderThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        _ = self.thread.take().map(JoinHandle::join);
    }
}

fn follow(reader: &mut ExportReader, stopped: &AtomicBool) -> Result<(), String> {
    let mut polls = 0_u32;
    while !stopped.load(Ordering::Acquire) {
        polls += 1;
        if polls.is_multiple_of(100) {
            reader.check_all()?;
        } else {
            reader.poll()?;
        }
        // Without a pause the reader would take a processor from the daemon.
        thread::sleep(Duration::from_millis(1));
    }
    reader.check_all()
}

#[cfg(test)]
mod tests {
    use super::super::kill_harness::wait_until;
    use super::*;
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;

    const LONG: Duration = Duration::from_secs(20);

    fn export() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("export");
        (dir, path)
    }

    fn append(path: &Path, bytes: &[u8]) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(bytes).unwrap();
    }

    /// Lets a reader see three lines and the start of a fourth, then damages the file.
    fn check_fault(harm: impl Fn(&Path), message: &str) {
        for all in [false, true] {
            let (_dir, path) = export();
            append(&path, b"one\ntwo\nthree\nfo");
            let mut reader = ExportReader::new(&path);
            reader.poll().unwrap();
            assert_eq!(reader.lines_seen(), 3);
            harm(&path);
            let outcome = if all {
                reader.check_all()
            } else {
                reader.poll()
            };
            let fault = outcome.expect_err(message);
            assert!(fault.contains(message), "{fault}");
        }
    }

    #[test]
    fn a_reader_accepts_an_export_that_only_grows() {
        let (_dir, path) = export();
        let mut reader = ExportReader::new(&path);
        reader.poll().unwrap();
        for piece in [&b""[..], b"{\"a", b"\":1}\n{", b"}\n", b"\n\nx"] {
            append(&path, piece);
            reader.poll().unwrap();
            reader.check_all().unwrap();
        }
        assert_eq!(reader.lines_seen(), 4);
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(13)
            .unwrap();
        append(&path, b"other\n");
        reader
            .check_all()
            .expect("a line that was never complete may go");
        assert_eq!(reader.lines_seen(), 5);
    }

    #[test]
    fn a_reader_detects_lost_and_changed_lines() {
        let cut = |path: &Path| {
            OpenOptions::new()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(9)
                .unwrap()
        };
        check_fault(cut, "shrunk");
        let overwrite = |path: &Path, bytes: &[u8], offset| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(bytes, offset).unwrap();
        };
        check_fault(
            |path| overwrite(path, b"T", 8),
            "line 2 of the export, at byte 8",
        );
        check_fault(|path| overwrite(path, b" ", 13), "now end at 8");
        check_fault(|path| fs::remove_file(path).unwrap(), "cannot be opened");
        let replace = |path: &Path| {
            fs::copy(path, path.with_extension("new")).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        };
        check_fault(replace, "replaced");
    }

    #[test]
    fn an_early_change_is_found_by_a_full_check() {
        let (_dir, path) = export();
        append(&path, b"one\ntwo\nthree\n");
        let mut reader = ExportReader::new(&path);
        reader.poll().unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"O", 0).unwrap();
        reader.poll().unwrap();
        assert!(reader.check_all().is_err());
    }

    #[test]
    fn a_reader_thread_follows_and_reports() {
        let (_dir, path) = export();
        let reader = ReaderThread::start(&path);
        for number in 0..200 {
            append(&path, format!("{number}\n").as_bytes());
        }
        assert_eq!(reader.finish(), Ok(200));
        let reader = ReaderThread::start(&path);
        // Some lines that it has seen are gone at its final check.
        assert!(
            wait_until(LONG, || {
                fs::write(&path, b"").unwrap();
                append(&path, b"a\nb\n");
                Ok(reader.check().is_err())
            })
            .unwrap()
        );
        assert!(reader.finish().is_err());
    }
}
