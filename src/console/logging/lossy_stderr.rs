//! A log writer for a pipe that never blocks: lines that the reader is too slow for are dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::OFlags;

use crate::console::progress;

/// The number of dropped lines that have not been reported.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Calls `report` with the number of dropped lines if there are any. They are counted again if that line is dropped as
/// well.
pub fn report_lost_lines(report: impl FnOnce(u64)) {
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost > 0 {
        report(lost);
        if LOST.load(Ordering::Relaxed) > 0 {
            LOST.fetch_add(lost, Ordering::Relaxed);
        }
    }
}

/// The pipe at stderr.
#[derive(Debug)]
pub(super) struct Pipe {
    file: File,
    /// The last line was written in part.
    is_torn: AtomicBool,
}

impl Pipe {
    /// Opens stderr's pipe again, if it is one, so that only this process does not block on its reader.
    pub(super) fn for_stderr() -> Option<Self> {
        const STDERR: &str = "/proc/self/fd/2";
        if !std::fs::metadata(STDERR).ok()?.file_type().is_fifo() {
            return None;
        }
        let mut options = OpenOptions::new();
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = options.write(true).custom_flags(flags).open(STDERR).ok()?;
        Some(Self {
            file,
            is_torn: AtomicBool::new(false),
        })
    }

    fn write_line(&self, line: &[u8]) -> io::Result<()> {
        let mut rest = line;
        if self.is_torn.load(Ordering::Relaxed) {
            (&self.file).write_all(b"\n")?;
            self.is_torn.store(false, Ordering::Relaxed);
        }
        while !rest.is_empty() {
            match (&self.file).write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_torn
                        .store(rest.len() < line.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Each call writes one line, as the log passes them.
impl Write for &Pipe {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match progress::around(|| self.write_line(line)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                LOST.fetch_add(1, Ordering::Relaxed);
            }
            other => other?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
