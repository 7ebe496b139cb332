//! Owns a log that goes into a pipe: where nobody reads it, lines are lost and counted, and nobody waits for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::OFlags;

use crate::console::progress;

/// Lines that were lost and not told of yet.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Has `tell` log how many lines were lost, if any were; they count on where that line is lost as well.
pub fn tell_lost(tell: impl FnOnce(u64)) {
    let lost = LOST.swap(0, Ordering::Relaxed);
    if lost > 0 {
        tell(lost);
        if LOST.load(Ordering::Relaxed) > 0 {
            LOST.fetch_add(lost, Ordering::Relaxed);
        }
    }
}

/// The pipe that stderr is.
#[derive(Debug)]
pub(super) struct Pipe {
    file: File,
    /// The last line went in in part.
    torn: AtomicBool,
}

impl Pipe {
    /// Stderr's pipe, if it is one: opened anew, so that only we do not wait for whoever reads it.
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
            torn: AtomicBool::new(false),
        })
    }

    fn write_line(&self, line: &[u8]) -> io::Result<()> {
        let mut rest = line;
        if self.torn.load(Ordering::Relaxed) {
            (&self.file).write_all(b"\n")?;
            self.torn.store(false, Ordering::Relaxed);
        }
        while !rest.is_empty() {
            match (&self.file).write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.torn.store(rest.len() < line.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Takes one line at a time, as the log gives them.
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
