//! A pair whose two day-files are named one by one: it needs no root, no state and no configuration, so that any engine
//! can run it once for each pair of a history that is larger than one host.
//!
//! Both day-files are read to their end, which is their length when they are opened or a given one. What cannot be read to
//! it is an error, never a shorter result: a retry reads the same bytes, or fails.

pub mod account;
pub mod error;
pub mod export;
pub mod verify;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::batch::line_reader::Source;
use crate::batch::named_pair::error::NamedPairError;
use crate::batch::overruled::Overruled;
use crate::batch::pair::{
    JudgedLine, OpenDayFile, OpenPair, PairReading, PairTotals, RowSelection, read_open_pair,
};
use crate::lake::path::{Stream, is_day_file_name};
use crate::platform::storage::Storage;

/// The day-files of a pair, by their paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFiles {
    /// The scored day-file.
    pub scored: PathBuf,
    /// The evidence day-file; `None` for a pair without evidence.
    pub evidence: Option<PathBuf>,
    /// `NAME.jsonl`, which rows have in `id`; `None` for the name of the scored day-file.
    pub name: Option<String>,
    /// The lengths up to which the two are read, scored and evidence; `None` for those that they have when opened.
    pub lengths: Option<(u64, u64)>,
}

/// A pair, open.
struct NamedPair {
    name: String,
    scored: OpenDayFile,
    evidence: OpenDayFile,
    /// Whether a line that exceeds the limit is an error. Else it is malformed, as in a lake.
    refuses_overlong: bool,
}

impl NamedPair {
    fn open(
        storage: &dyn Storage,
        files: &PairFiles,
        refuses_overlong: bool,
    ) -> Result<NamedPair, NamedPairError> {
        let scored = open(storage, &files.scored, files.lengths.map(|it| it.0))?;
        let evidence_end = files.lengths.map(|it| it.1);
        let evidence = match &files.evidence {
            Some(path) => open(storage, path, evidence_end)?,
            None => match evidence_end {
                Some(wanted) if wanted > 0 => return Err(NamedPairError::NoEvidence { wanted }),
                _ => OpenDayFile::absent("-".into()),
            },
        };
        Ok(NamedPair {
            name: files.name()?,
            scored,
            evidence,
            refuses_overlong,
        })
    }

    /// Calls `on_row` with the lines of the selected rows, in order.
    fn for_each_row(
        &self,
        reading: &PairReading<'_>,
        on_row: &mut dyn FnMut(&JudgedLine<'_>) -> Result<(), NamedPairError>,
    ) -> Result<PairTotals, NamedPairError> {
        let left_out = match reading.selection {
            RowSelection::Effective => self.overruled_lines(reading)?,
            RowSelection::All | RowSelection::AllThenOverruled => HashSet::new(),
        };
        let totals = self.read(reading, &mut |line| match line.row.is_empty()
            || left_out.contains(&line.span.offset)
        {
            true => Ok(()),
            false => on_row(line),
        })?;
        Ok(PairTotals {
            overruled: left_out.len() as u64,
            ..totals
        })
    }

    fn overruled_lines(&self, reading: &PairReading<'_>) -> Result<HashSet<u64>, NamedPairError> {
        let mut overruled = Overruled::default();
        self.read(reading, &mut |line| {
            overruled.add(line);
            Ok(())
        })?;
        Ok(overruled.lines)
    }

    /// Reads both day-files to their ends.
    fn read(
        &self,
        reading: &PairReading<'_>,
        on_line: &mut dyn FnMut(&JudgedLine<'_>) -> Result<(), NamedPairError>,
    ) -> Result<PairTotals, NamedPairError> {
        let pair = OpenPair {
            path: self.name.as_bytes(),
            name: self.name.as_bytes(),
            scored: self.scored.clone(),
            evidence: self.evidence.clone(),
        };
        let mut result = Ok(());
        let totals = read_open_pair(&pair, reading, &mut |line| {
            result = on_line(line);
            match result {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        result?;
        refuse_cut(&self.scored, totals.scored_bytes)?;
        refuse_cut(&self.evidence, totals.evidence_bytes)?;
        if totals.is_evidence_changed {
            return Err(NamedPairError::Changed(self.evidence.path.clone()));
        }
        match totals.overlong {
            Some((stream, offset)) if self.refuses_overlong => Err(NamedPairError::Overlong {
                path: self.file(stream).path.clone(),
                offset,
                max_line_bytes: reading.max_line_bytes,
            }),
            _ => Ok(totals),
        }
    }

    fn file(&self, stream: Stream) -> &OpenDayFile {
        match stream {
            Stream::Scored => &self.scored,
            Stream::Evidence => &self.evidence,
        }
    }
}

impl PairFiles {
    fn name(&self) -> Result<String, NamedPairError> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let name = self.scored.file_name();
        let name = name.filter(|name| is_day_file_name(name));
        let name = name.and_then(|name| name.to_str());
        match name {
            Some(name) => Ok(name.to_owned()),
            None => Err(NamedPairError::Name(self.scored.clone())),
        }
    }
}

fn open(
    storage: &dyn Storage,
    path: &Path,
    end: Option<u64>,
) -> Result<OpenDayFile, NamedPairError> {
    let opened = storage
        .canonicalize(path)
        .and_then(|resolved| storage.open_read(&resolved));
    let file = opened.map_err(|error| open_error(path, error))?;
    let stat = file.stat();
    let stat = stat.map_err(|source| NamedPairError::unreadable(path, source))?;
    Ok(OpenDayFile {
        path: path.to_owned(),
        end: refuse_shorter(path, stat.len_bytes, end)?,
        source: Source::File(file),
    })
}

fn open_error(path: &Path, source: io::Error) -> NamedPairError {
    // Also of a pipe, whose path in /proc leads to no file.
    let kind = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    let kind = match kind {
        Some(kind) if kind.is_dir() => "a directory",
        Some(kind) if kind.is_fifo() => "a FIFO",
        Some(kind) if !kind.is_file() => "a device or a socket",
        _ if source.kind() == io::ErrorKind::NotFound => {
            return NamedPairError::Missing(path.to_owned());
        }
        _ => return NamedPairError::unreadable(path, source),
    };
    NamedPairError::NotRegular {
        path: path.to_owned(),
        kind,
    }
}

/// Returns the length up to which a day-file is read.
fn refuse_shorter(path: &Path, len: u64, end: Option<u64>) -> Result<u64, NamedPairError> {
    match end {
        Some(wanted) if len < wanted => Err(NamedPairError::Shorter {
            path: path.to_owned(),
            len,
            wanted,
        }),
        Some(wanted) => Ok(wanted),
        None => Ok(len),
    }
}

/// Refuses a day-file that became shorter while it was read.
fn refuse_cut(file: &OpenDayFile, read_bytes: u64) -> Result<(), NamedPairError> {
    let mut len = read_bytes;
    if let Source::File(open) = &file.source {
        let stat = open.stat();
        let stat = stat.map_err(|source| NamedPairError::unreadable(&file.path, source))?;
        len = len.min(stat.len_bytes);
    }
    match len < file.end {
        true => Err(NamedPairError::Cut {
            path: file.path.clone(),
            len,
            wanted: file.end,
        }),
        false => Ok(()),
    }
}
