//! A day-file that is read again to explain differences, with its metadata.

use std::io;
use std::time::Duration;

use crate::batch::line_reader::{LineReader, LineSpan, Source};
use crate::batch::pair::LakeReader;
use crate::lake::path::{PairPath, Stream};
use crate::platform::storage::FileStat;

/// Change times of files lag the system clock by up to a tick.
const CLOCK_SLACK_MS: u64 = 20;
/// Time that the daemon may need to take a line that has settled.
const SETTLE_SLACK: Duration = Duration::from_secs(1);

/// The current time and the time without a change after which a source has settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub wall_ms: u64,
    pub settle: Duration,
}

/// An open day-file with its metadata.
pub(super) struct DayFile {
    source: Source,
    stat: FileStat,
    /// Set if the last line has no newline and the daemon may not have taken it yet.
    has_settling_end: bool,
}

impl DayFile {
    /// Opens a day-file; `None` if it does not exist.
    pub(super) fn open(
        lake: &LakeReader<'_>,
        stream: Stream,
        pair: &PairPath,
        now: Now,
    ) -> io::Result<Option<DayFile>> {
        let (source, _) = match lake.open(stream, pair) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let Source::File(file) = &source else {
            return Ok(None);
        };
        let stat = file.stat()?;
        let mut last = [b'\n'];
        file.read_at(&mut last, stat.len_bytes.saturating_sub(1))?;
        let unchanged_ms = i128::from(now.wall_ms) - stat.modified_ns / 1_000_000;
        let settled_ms = (now.settle + SETTLE_SLACK).as_millis().cast_signed();
        Ok(Some(DayFile {
            stat,
            has_settling_end: last != [b'\n'] && unchanged_ms < settled_ms,
            source,
        }))
    }

    /// Returns its lines.
    pub(super) fn lines(&self, max_line_bytes: usize) -> LineReader<'_> {
        LineReader::new(&self.source, self.stat.len_bytes, max_line_bytes)
    }

    /// Returns whether the daemon may not have taken this line yet.
    pub(super) fn is_settling(&self, line: LineSpan) -> bool {
        self.has_settling_end && line.offset + line.len_bytes >= self.stat.len_bytes
    }

    /// Returns the latest time at which it changed, milliseconds since 1970.
    pub(super) fn changed_ms(&self) -> u64 {
        let changed_ms = u64::try_from(self.stat.changed_ns / 1_000_000).unwrap_or_default();
        changed_ms + CLOCK_SLACK_MS
    }
}
