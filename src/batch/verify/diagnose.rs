//! Explains unmatched rows from the sources of one pair: whether evidence in the file makes the row, whether the
//! day-files changed after it was written, and whether the daemon may not have taken a line without a row yet.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use crate::batch::line_reader::{LineReader, LineSpan, Source};
use crate::batch::pair::LakeReader;
use crate::batch::verify::compare::{Explanation, LineFact};
use crate::batch::verify::rows::RowFact;
use crate::lake::path::{PairPath, Stream};
use crate::platform::storage::FileStat;
use crate::record::firewall::{Admission, admit};
use crate::record::json::escape::Dialect;
use crate::record::keys::RunKey;
use crate::record::parse;
use crate::record::parse::{Evidence, trim};
use crate::record::row::digest_without_stamps;
use crate::record::synthesize::{RowPlace, Synthesis, synthesize};
use crate::record::timestamp::stamp;

/// Change times of files lag the system clock by up to a tick.
const CLOCK_SLACK_MS: u64 = 20;
/// Time that the daemon may need to take a line that has settled.
const SETTLE_SLACK: Duration = Duration::from_secs(1);

/// A line of the pair and the unmatched rows of its key.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub line: &'a LineFact,
    pub rows: Vec<&'a RowFact>,
    /// One for each row; set by [`examine`].
    pub explanations: Vec<Explanation>,
    /// Set by [`examine`] if the daemon need not have taken the line or its evidence yet.
    pub settling: bool,
}

impl Candidate<'_> {
    fn mark_source_changed(&mut self) {
        self.explanations.fill(Explanation::SourceChange);
    }
}

/// The way in which evidence in the file makes a row; the strongest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Unknown,
    /// The evidence's role is refused.
    RefusedRole,
    OtherDialect,
    Native,
}

/// The current time and the time without a change after which a source has settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub wall_ms: u64,
    pub settle: Duration,
}

impl Now {
    fn is_settling(&self, stat: &FileStat) -> bool {
        let unchanged_ms = i128::from(self.wall_ms) - stat.modified_ns / 1_000_000;
        unchanged_ms < (self.settle + SETTLE_SLACK).as_millis().cast_signed()
    }
}

/// Sets the explanations and the settling flag of each candidate from the pair's files.
pub(super) fn examine(
    lake: &LakeReader<'_>,
    pair: &PairPath,
    max_line_bytes: usize,
    now: Now,
    candidates: &mut [Candidate<'_>],
) -> io::Result<()> {
    let scored = DayFile::open(lake, Stream::Scored, pair)?;
    let evidence = DayFile::open(lake, Stream::Evidence, pair)?;
    let Some(scored) = scored else {
        candidates
            .iter_mut()
            .for_each(Candidate::mark_source_changed);
        return Ok(());
    };
    let bodies = candidates.iter().map(|candidate| {
        let mut scratch = Vec::new();
        let line = scored.source.read_span(candidate.line.span, &mut scratch)?;
        Ok(line.to_vec())
    });
    let bodies: Vec<Vec<u8>> = bodies.collect::<io::Result<_>>()?;
    let mut origins: Vec<Vec<Origin>> = candidates
        .iter()
        .map(|candidate| vec![Origin::Unknown; candidate.rows.len()])
        .collect();
    for candidate in &mut *candidates {
        candidate.settling |=
            scored.ends_unterminated(candidate.line.span) && now.is_settling(&scored.stat);
    }
    if let Some(evidence) = &evidence {
        find_origins(
            pair,
            evidence,
            max_line_bytes,
            now,
            &bodies,
            candidates,
            &mut origins,
        )?;
    }
    for (at, candidate) in candidates.iter_mut().enumerate() {
        let Ok(run) = parse::scored_run(trim(&bodies[at])) else {
            // The line was a record before: the file is being rewritten at this moment.
            candidate.mark_source_changed();
            continue;
        };
        for (row, (fact, origin)) in candidate.rows.iter().zip(&origins[at]).enumerate() {
            let agrees = fact.index == Some(candidate.line.index)
                && run.category.eq_str(&fact.quality_score);
            let explanation = explain(fact, agrees, *origin, &scored, evidence.as_ref());
            candidate.explanations[row] = candidate.explanations[row].max(explanation);
        }
    }
    Ok(())
}

/// Returns the explanation of a row. `agrees`: the line has the row's index and category.
fn explain(
    row: &RowFact,
    agrees: bool,
    origin: Origin,
    scored: &DayFile,
    evidence: Option<&DayFile>,
) -> Explanation {
    if !agrees {
        return match scored.changed_since(row) {
            true => Explanation::SourceChange,
            false => Explanation::Impossible,
        };
    }
    match origin {
        Origin::Native => Explanation::Proven,
        Origin::OtherDialect => Explanation::OtherDialect,
        Origin::RefusedRole => Explanation::Impossible,
        Origin::Unknown if evidence.is_none_or(|evidence| evidence.changed_since(row)) => {
            Explanation::SourceChange
        }
        Origin::Unknown => Explanation::Impossible,
    }
}

/// Tries all evidence of the candidates' runs in the file, not only the last of each run.
fn find_origins(
    pair: &PairPath,
    evidence: &DayFile,
    max_line_bytes: usize,
    now: Now,
    bodies: &[Vec<u8>],
    candidates: &mut [Candidate<'_>],
    origins: &mut [Vec<Origin>],
) -> io::Result<()> {
    let mut by_run: HashMap<RunKey, Vec<usize>> = HashMap::new();
    for (at, body) in bodies.iter().enumerate() {
        if let Ok(run) = parse::scored_run(trim(body)) {
            let key = RunKey::from_text(&run.evidence_run_id);
            by_run.entry(key).or_default().push(at);
        }
    }
    let name = pair.name_bytes();
    let settling = now.is_settling(&evidence.stat);
    let mut lines = LineReader::new(&evidence.source, evidence.stat.len_bytes, max_line_bytes);
    while let Some(line) = lines.next_line()? {
        let Some(Ok(evidence_record)) = line.bytes.map(|bytes| parse::evidence(trim(bytes))) else {
            continue;
        };
        let key = RunKey::from_text(&evidence_record.run_id);
        for at in by_run.get(&key).into_iter().flatten() {
            let candidate = &mut candidates[*at];
            candidate.settling |= settling && evidence.ends_unterminated(line.span);
            for (row, origin) in candidate.rows.iter().zip(&mut origins[*at]) {
                *origin = (*origin).max(origin_of(row, &bodies[*at], &evidence_record, name));
            }
        }
    }
    Ok(())
}

fn origin_of(row: &RowFact, scored: &[u8], evidence: &Evidence<'_>, name: &[u8]) -> Origin {
    let Some(index) = row.index else {
        return Origin::Unknown;
    };
    let makes = |dialect, include_partial| {
        let run = parse::scored_run(trim(scored)).ok()?;
        // The native firewall in both dialects: it lets no unknown category through.
        let Admission::Admitted(admitted) = admit(&run, Dialect::Native) else {
            return None;
        };
        let place = RowPlace {
            day_file_name: name,
            index,
        };
        let synthesis = Synthesis {
            dialect,
            include_partial,
            stamp: "",
        };
        let mut made = Vec::new();
        synthesize(&admitted, evidence, &place, &synthesis, &mut made).ok()?;
        Some(digest_without_stamps(&made).ok()? == row.digest)
    };
    if makes(Dialect::Native, false) == Some(true) {
        Origin::Native
    } else if makes(Dialect::Go, false) == Some(true) {
        Origin::OtherDialect
    } else if makes(Dialect::Native, true) == Some(true) {
        Origin::RefusedRole
    } else {
        Origin::Unknown
    }
}

/// An open day-file with its metadata.
struct DayFile {
    source: Source,
    stat: FileStat,
    has_last_newline: bool,
}

impl DayFile {
    fn open(lake: &LakeReader<'_>, stream: Stream, pair: &PairPath) -> io::Result<Option<DayFile>> {
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
        Ok(Some(DayFile {
            stat,
            has_last_newline: last == [b'\n'],
            source,
        }))
    }

    fn ends_unterminated(&self, line: LineSpan) -> bool {
        !self.has_last_newline && line.offset + line.len_bytes >= self.stat.len_bytes
    }

    /// Returns whether the file may have changed after the row was written. True for a row whose timestamp is not
    /// RFC 3339 in UTC.
    fn changed_since(&self, row: &RowFact) -> bool {
        let changed_ms = u64::try_from(self.stat.changed_ns / 1_000_000).unwrap_or_default();
        let shape = row.created_at.as_bytes();
        let is_utc = shape.len() >= 20 && shape[4] == b'-' && shape.ends_with(b"Z");
        !is_utc || *stamp(changed_ms + CLOCK_SLACK_MS) >= *row.created_at
    }
}
