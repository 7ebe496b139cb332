//! Owns what the sources of one pair say of rows that no line earns as they are: whether evidence that still stands
//! makes such a row, whether the day-files were changed since it was written; and whether a line that has no row is
//! one that the daemon does not take yet. It reads, and writes nothing.

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

/// File systems stamp a change with a clock that lags behind by up to a tick.
const CLOCK_SLACK_MS: u64 = 20;
/// What the daemon may need to take a line that has settled.
const SETTLE_SLACK: Duration = Duration::from_secs(1);

/// A line of the pair, and rows of the same key that are left.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub line: &'a LineFact,
    pub rows: Vec<&'a RowFact>,
    /// Of each row; set by [`examine`].
    pub standings: Vec<Explanation>,
    /// Whether the daemon may rightly not have taken the line, or its evidence, yet; set by [`examine`].
    pub settling: bool,
}

impl Candidate<'_> {
    fn cannot_tell(&mut self) {
        self.standings.fill(Explanation::SourceChange);
    }
}

/// How a row came to be, as far as evidence that stands in the file tells; the strongest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Unknown,
    /// Evidence whose role is refused.
    RefusedRole,
    OtherDialect,
    Native,
}

/// When it is now, and how long a source must be still.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub wall_ms: u64,
    pub settle: Duration,
}

impl Now {
    fn settles(&self, stat: &FileStat) -> bool {
        let still_ms = i128::from(self.wall_ms) - stat.modified_ns / 1_000_000;
        still_ms < (self.settle + SETTLE_SLACK).as_millis().cast_signed()
    }
}

/// Fills in what the pair's files say of each case.
pub(super) fn examine(
    lake: &LakeReader<'_>,
    pair: &PairPath,
    max_line_bytes: usize,
    now: Now,
    cases: &mut [Candidate<'_>],
) -> io::Result<()> {
    let scored = DayFile::open(lake, Stream::Scored, pair)?;
    let evidence = DayFile::open(lake, Stream::Evidence, pair)?;
    let Some(scored) = scored else {
        cases.iter_mut().for_each(Candidate::cannot_tell);
        return Ok(());
    };
    let bodies = cases.iter().map(|case| {
        let mut scratch = Vec::new();
        let line = scored.source.read_span(case.line.span, &mut scratch)?;
        Ok(line.to_vec())
    });
    let bodies: Vec<Vec<u8>> = bodies.collect::<io::Result<_>>()?;
    let mut makers: Vec<Vec<Origin>> = cases
        .iter()
        .map(|case| vec![Origin::Unknown; case.rows.len()])
        .collect();
    for case in &mut *cases {
        case.settling |= scored.ends_unterminated(case.line.span) && now.settles(&scored.stat);
    }
    if let Some(evidence) = &evidence {
        find_makers(
            pair,
            evidence,
            max_line_bytes,
            now,
            &bodies,
            cases,
            &mut makers,
        )?;
    }
    for (at, case) in cases.iter_mut().enumerate() {
        let Ok(run) = parse::scored_run(trim(&bodies[at])) else {
            // It was a record when it was read: the file is being rewritten at this moment.
            case.cannot_tell();
            continue;
        };
        for (row, (fact, maker)) in case.rows.iter().zip(&makers[at]).enumerate() {
            let agrees =
                fact.index == Some(case.line.index) && run.category.eq_str(&fact.quality_score);
            let standing = stand(fact, agrees, *maker, &scored, evidence.as_ref());
            case.standings[row] = case.standings[row].max(standing);
        }
    }
    Ok(())
}

/// `agrees`: the line stands where the row says, and has the category that it says.
fn stand(
    row: &RowFact,
    agrees: bool,
    maker: Origin,
    scored: &DayFile,
    evidence: Option<&DayFile>,
) -> Explanation {
    if !agrees {
        return match scored.changed_since(row) {
            true => Explanation::SourceChange,
            false => Explanation::Impossible,
        };
    }
    match maker {
        Origin::Native => Explanation::Proven,
        Origin::OtherDialect => Explanation::OtherDialect,
        Origin::RefusedRole => Explanation::Impossible,
        Origin::Unknown if evidence.is_none_or(|evidence| evidence.changed_since(row)) => {
            Explanation::SourceChange
        }
        Origin::Unknown => Explanation::Impossible,
    }
}

/// Looks at all evidence of the runs concerned, wherever it stands in the file.
fn find_makers(
    pair: &PairPath,
    evidence: &DayFile,
    max_line_bytes: usize,
    now: Now,
    bodies: &[Vec<u8>],
    cases: &mut [Candidate<'_>],
    makers: &mut [Vec<Origin>],
) -> io::Result<()> {
    let mut of_run: HashMap<RunKey, Vec<usize>> = HashMap::new();
    for (at, body) in bodies.iter().enumerate() {
        if let Ok(run) = parse::scored_run(trim(body)) {
            let key = RunKey::from_text(&run.evidence_run_id);
            of_run.entry(key).or_default().push(at);
        }
    }
    let name = pair.file_name();
    let settles = now.settles(&evidence.stat);
    let mut lines = LineReader::new(&evidence.source, evidence.stat.len_bytes, max_line_bytes);
    while let Some(line) = lines.next_line()? {
        let Some(Ok(found)) = line.bytes.map(|bytes| parse::evidence(trim(bytes))) else {
            continue;
        };
        let key = RunKey::from_text(&found.run_id);
        for at in of_run.get(&key).into_iter().flatten() {
            let case = &mut cases[*at];
            case.settling |= settles && evidence.ends_unterminated(line.span);
            for (row, maker) in case.rows.iter().zip(&mut makers[*at]) {
                *maker = (*maker).max(maker_of(row, &bodies[*at], &found, &name));
            }
        }
    }
    Ok(())
}

fn maker_of(row: &RowFact, scored: &[u8], evidence: &Evidence<'_>, name: &str) -> Origin {
    let Some(index) = row.index else {
        return Origin::Unknown;
    };
    let makes = |dialect, include_partial| {
        let run = parse::scored_run(trim(scored)).ok()?;
        // The native firewall also where the other dialect is tried: it lets no unknown category through.
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

/// An open day-file, and what the file system said of it.
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

    /// Whether the file may have been changed after the row was written. Stamps in another form than ours tell
    /// nothing.
    fn changed_since(&self, row: &RowFact) -> bool {
        let changed_ms = u64::try_from(self.stat.changed_ns / 1_000_000).unwrap_or_default();
        let shape = row.created_at.as_bytes();
        let is_utc = shape.len() >= 20 && shape[4] == b'-' && shape.ends_with(b"Z");
        !is_utc || *stamp(changed_ms + CLOCK_SLACK_MS) >= *row.created_at
    }
}
