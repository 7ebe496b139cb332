//! The timestamps of the rows of an export, by the digest of the rest of each row: a row that is written again keeps the
//! time at which it was first there.

use std::collections::HashMap;

use crate::record::local_digest;
use crate::record::row::{self, RowStamps};
use crate::record::timestamp::{moment, stamp};

/// Set in a value that is an index of [`KeptStamps::odd`].
const ODD: u64 = 1 << 63;

/// The timestamps of rows, 16 bytes for each row whose two stamps are equal and of the form that distilld writes.
#[derive(Debug, Default)]
pub struct KeptStamps {
    /// The digest of a row, and its time in milliseconds since 1970 or the index of its odd stamps.
    rows: Vec<(u64, u64)>,
    /// The stamps of other rows, as they are written, quotes included.
    odd: Vec<Box<[u8]>>,
    odd_index: HashMap<Box<[u8]>, u64>,
    /// Whether all lines are added.
    is_finished: bool,
}

/// A line of an export: the digest of its other bytes, and its timestamps.
#[derive(Debug)]
pub struct StampedLine {
    digest: u64,
    stamps: LineStamps,
}

#[derive(Debug)]
enum LineStamps {
    /// Milliseconds since 1970, of two stamps that are equal and of the form that distilld writes.
    At(u64),
    /// The stamps as they are written, quotes included.
    Odd(Vec<u8>),
}

/// Reads a line of an export, without its newline.
#[must_use]
pub fn stamped(line: &[u8]) -> StampedLine {
    // A row of distilld need not be read to find its timestamps.
    if let Some(made) = row::made_stamps(line)
        && let Some(ms) = canonical_ms(texts_of(line, &made))
    {
        return StampedLine {
            digest: short(made.digest),
            stamps: LineStamps::At(ms),
        };
    }
    let Ok(stamps) = row::stamps(line) else {
        return StampedLine {
            digest: short(local_digest::digest(line)),
            stamps: LineStamps::Odd(Vec::new()),
        };
    };
    let texts = texts_of(line, &stamps);
    StampedLine {
        digest: short(stamps.digest),
        stamps: match canonical_ms(texts.clone()) {
            Some(ms) => LineStamps::At(ms),
            None => LineStamps::Odd(texts.collect::<Vec<_>>().join(&b'\n')),
        },
    }
}

/// Returns the digest of a line of an export, its timestamps ignored if it is a row.
#[must_use]
pub fn digest(line: &[u8]) -> u64 {
    stamped(line).digest
}

/// Returns the timestamps of a row as they are written, quotes included.
fn texts_of<'a>(line: &'a [u8], stamps: &RowStamps) -> impl Iterator<Item = &'a [u8]> + Clone {
    let spans = stamps.spans.clone().into_iter();
    spans.map(|(start, end)| &line[start..end])
}

/// The first half of a digest is enough to compare the rows of two exports.
fn short(digest: u128) -> u64 {
    (digest & u128::from(u64::MAX)) as u64
}

impl KeptStamps {
    /// Adds a line of an export.
    pub fn push(&mut self, line: StampedLine) {
        let value = match line.stamps {
            LineStamps::At(ms) => ms,
            LineStamps::Odd(stamps) => self.odd(&stamps),
        };
        self.rows.push((line.digest, value));
    }

    fn odd(&mut self, stamps: &[u8]) -> u64 {
        if let Some(at) = self.odd_index.get(stamps) {
            return *at;
        }
        let at = ODD | self.odd.len() as u64;
        self.odd.push(stamps.into());
        self.odd_index.insert(stamps.into(), at);
        at
    }

    /// Sorts the rows; must be called after the last line is added. Of equal rows the earliest timestamp is kept.
    pub fn finish(&mut self) {
        self.rows.sort_unstable();
        self.odd_index = HashMap::new();
        self.is_finished = true;
    }

    /// Returns the digests of all lines, sorted.
    pub fn digests(&self) -> impl Iterator<Item = u64> + '_ {
        self.rows.iter().map(|(digest, _)| *digest)
    }

    /// Returns the number of lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether there are no lines.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Gives the row that starts at `from`, with its newline, the timestamps that it had. Returns its digest; `None` where no
    /// export is compared.
    pub fn restore(&self, rows: &mut Vec<u8>, from: usize) -> Option<u64> {
        if !self.is_finished {
            return None;
        }
        let line = rows[from..].strip_suffix(b"\n").unwrap_or(&rows[from..]);
        let stamps = row::made_stamps(line).or_else(|| row::stamps(line).ok());
        let Some(stamps) = stamps else {
            return Some(short(local_digest::digest(line)));
        };
        let digest = short(stamps.digest);
        let at = self.rows.partition_point(|(known, _)| *known < digest);
        if let Some((_, value)) = self.rows.get(at).filter(|(known, _)| *known == digest) {
            self.write_stamps(*value, rows, from, &stamps.spans);
        }
        Some(digest)
    }

    /// Writes the stamps of a value to their places in the row that starts at `from`.
    fn write_stamps(&self, value: u64, rows: &mut Vec<u8>, from: usize, places: &[(usize, usize)]) {
        let own;
        let kept: Vec<&[u8]> = match value & ODD {
            0 => {
                own = format!("\"{}\"", stamp(value));
                vec![own.as_bytes(); 2]
            }
            _ => {
                let odd = &self.odd[(value & !ODD) as usize];
                odd.split(|byte| *byte == b'\n').collect()
            }
        };
        if kept.len() != places.len() {
            return;
        }
        for ((start, end), kept) in places.iter().zip(kept).rev() {
            rows.splice(from + start..from + end, kept.iter().copied());
        }
    }
}

/// Returns the time of a row whose two stamps are equal and written as distilld writes them.
fn canonical_ms<'a>(mut texts: impl Iterator<Item = &'a [u8]>) -> Option<u64> {
    let (created, recorded) = (texts.next()?, texts.next()?);
    if created != recorded || texts.next().is_some() {
        return None;
    }
    let text = created.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let text = std::str::from_utf8(text).ok()?;
    moment(text).filter(|ms| stamp(*ms) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(run: &str, created: &str, recorded: &str) -> String {
        format!(
            "{{\"id\":\"a:0\",\"source_run_id\":\"{run}\",\"created_at\":\"{created}\",\
             \"provenance\":{{\"source_file\":\"\",\"line_offset\":0,\"sig_hash\":\"\",\"recorded_at\":\"{recorded}\"}}}}"
        )
    }

    #[test]
    fn a_row_gets_back_the_bytes_that_it_had() {
        let (first, now) = ("2026-05-02T03:04:05.678Z", "2027-01-01T00:00:00.000Z");
        let rows = [
            row("a", first, first),
            row("b", "2026-05-02T05:04:05+02:00", "then"),
            row(
                "c",
                "2026-05-02T03:04:05.6789Z",
                "2026-05-02T03:04:05.6789Z",
            ),
            row("d", "", ""),
            row("e", "2026-05-02T99:04:05.678Z", "2026-05-02T99:04:05.678Z"),
        ];
        let mut kept = KeptStamps::default();
        rows.iter()
            .for_each(|row| kept.push(stamped(row.as_bytes())));
        kept.push(stamped(b"no row"));
        assert_eq!(kept.restore(&mut b"{}\n".to_vec(), 0), None);
        kept.finish();
        assert_eq!((kept.len(), kept.is_empty()), (6, false));
        for (run, expected) in ["a", "b", "c", "d", "e"].iter().zip(rows) {
            let mut written = b"before\n".to_vec();
            written.extend(row(run, now, now).as_bytes());
            written.push(b'\n');
            let digest = kept.restore(&mut written, 7);
            assert_eq!(digest, Some(self::digest(expected.as_bytes())));
            assert_eq!(written, format!("before\n{expected}\n").as_bytes());
        }
        let mut other = row("f", now, now).into_bytes();
        kept.restore(&mut other, 0);
        assert_eq!(other, row("f", now, now).as_bytes());
    }

    #[test]
    fn of_equal_rows_the_earliest_time_is_kept() {
        let (early, late) = ("2026-05-02T03:04:05.678Z", "2026-05-03T03:04:05.678Z");
        let mut kept = KeptStamps::default();
        kept.push(stamped(row("a", late, late).as_bytes()));
        kept.push(stamped(row("a", early, early).as_bytes()));
        kept.finish();
        let mut written = row("a", "x", "x").into_bytes();
        kept.restore(&mut written, 0);
        assert_eq!(written, row("a", early, early).as_bytes());
    }
}
