//! The lines of a chunk: their offsets, their length limit, and the digest that distinguishes evidence lines.

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64;

use crate::lake::chunk::Chunk;
use crate::record::json::utf8::decode_utf8;
use crate::record::parse;
use crate::record::parse::ParseError;

/// One line of a chunk.
pub(super) struct Line<'c> {
    /// Start of the line, bytes.
    pub(super) offset: u64,
    /// The line without its newline.
    pub(super) body: &'c [u8],
    /// Start of the next line, bytes.
    pub(super) end: u64,
}

/// Splits a chunk that was read at offset `from` into lines.
pub(super) fn lines(from: u64, chunk: &Chunk) -> impl Iterator<Item = Line<'_>> {
    let bytes = chunk.bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let len = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let offset = from + at as u64;
        at = (at + len + 1).min(bytes.len());
        Some(Line {
            offset,
            body: &rest[..len],
            end: from + at as u64,
        })
    })
}

/// Parses a line after trimming it; a line longer than `line_bytes_max` is a fault.
pub(super) fn parse_within<'l, T>(
    line: &'l [u8],
    line_bytes_max: u64,
    parse: impl Fn(&'l [u8]) -> Result<T, ParseError>,
) -> Result<T, ParseError> {
    if line.len() as u64 > line_bytes_max {
        return Err(ParseError::TooLong {
            max_line_bytes: line_bytes_max,
        });
    }
    parse(parse::trim(line))
}

/// Returns the digest of an evidence line. It is never 0, which means "not known". It compares evidence of one run alone:
/// where two lines have one digest, the mark that the run's row is superseded is missing, and `verify` shows the difference.
pub(super) fn digest(line: &[u8]) -> u32 {
    (xxh3_64(parse::trim(line)) as u32).max(1)
}

/// Returns the length of a line that was parsed, bytes.
pub(super) fn len_u32(line: &[u8]) -> u32 {
    u32::try_from(line.len()).expect("lines are shorter than their limit, which is below 4 GiB")
}

/// Returns the file name of a pair's path, `NAME.jsonl`, decoded as the batch does.
pub(crate) fn day_file_name(path: &[u8]) -> Cow<'_, str> {
    let start = memchr::memrchr(b'/', path).map_or(0, |slash| slash + 1);
    decode_utf8(&path[start..])
}
