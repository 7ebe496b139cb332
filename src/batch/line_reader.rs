//! Splits a file that is read once, from front to end, into lines with their spans, in bounded memory. Does not
//! follow a growing file and does not parse lines.

use std::io;
use std::sync::Arc;

use crate::platform::storage::{StorageFile, retry_interrupted};

/// Maximum bytes per read.
const CHUNK_BYTES: usize = 256 * 1024;

/// The byte range of a line in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineSpan {
    /// Offset of the first byte.
    pub offset: u64,
    /// Length without the newline.
    pub len_bytes: u64,
}

/// A line and its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'b> {
    /// The byte range in the file.
    pub span: LineSpan,
    /// The bytes without the newline; `None` if the line is longer than the limit.
    pub bytes: Option<&'b [u8]>,
}

/// The bytes that a [`LineReader`] splits.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file's content in memory.
    Held(Arc<[u8]>),
    /// An open file that is read on demand.
    File(Arc<dyn StorageFile>),
}

impl Source {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Source::File(file) => file.read_at(buf, offset),
            Source::Held(bytes) => {
                let start = usize::try_from(offset).map_or(bytes.len(), |at| at.min(bytes.len()));
                let len = buf.len().min(bytes.len() - start);
                buf[..len].copy_from_slice(&bytes[start..start + len]);
                Ok(len)
            }
        }
    }

    /// Returns the end of the hole at `offset`, at most `end`.
    fn hole_end(&self, offset: u64, end: u64) -> u64 {
        match self {
            Source::File(file) if offset < end => {
                let data = file.next_data(offset);
                data.map_or(end, |data| data.clamp(offset, end))
            }
            _ => offset,
        }
    }

    /// Reads a line again, with `scratch` as the buffer. The result is shorter than the span if the file was truncated.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_span<'s>(
        &'s self,
        span: LineSpan,
        scratch: &'s mut Vec<u8>,
    ) -> io::Result<&'s [u8]> {
        let too_large = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let len = usize::try_from(span.len_bytes).map_err(too_large)?;
        match self {
            Source::Held(bytes) => {
                let start = usize::try_from(span.offset).map_err(too_large)?;
                Ok(bytes.get(start..start + len).unwrap_or_default())
            }
            Source::File(file) => {
                scratch.resize(len, 0);
                let read = crate::platform::storage::read_full_at(&**file, scratch, span.offset)?;
                Ok(&scratch[..read])
            }
        }
    }
}

/// An iterator over the lines of a source up to a given end. The last line may lack a newline.
#[derive(Debug)]
pub struct LineReader<'f> {
    source: &'f Source,
    max_line_bytes: usize,
    /// No byte at or after this offset is read.
    end_offset: u64,
    buffer: Vec<u8>,
    /// The unconsumed bytes of the buffer are `start..end`.
    start: usize,
    end: usize,
    /// File offset of `buffer[end]`, the next byte to read.
    read_offset: u64,
}

impl<'f> LineReader<'f> {
    /// Creates a reader of `source` up to `end_offset` or its end. Lines longer than `max_line_bytes` are not buffered.
    pub fn new(source: &'f Source, end_offset: u64, max_line_bytes: usize) -> LineReader<'f> {
        LineReader {
            source,
            max_line_bytes,
            end_offset,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            read_offset: 0,
        }
    }

    /// Sets the offset of the first line; a line must start there.
    pub fn starting_at(mut self, offset: u64) -> LineReader<'f> {
        self.read_offset = offset.min(self.end_offset);
        self
    }

    /// Returns the file offset up to which the source was read.
    pub fn read_bytes(&self) -> u64 {
        self.read_offset
    }

    /// Returns the next line, `None` at the end.
    ///
    /// # Errors
    /// The source cannot be read. Interrupted reads are retried.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        let offset = self.read_offset - (self.end - self.start) as u64;
        let mut searched = 0;
        loop {
            let held = &self.buffer[self.start..self.end];
            let newline = memchr::memchr(b'\n', &held[searched..]).map(|at| searched + at);
            searched = held.len();
            if newline.unwrap_or(searched) > self.max_line_bytes {
                return self.skip_oversized(offset).map(Some);
            }
            if let Some(len) = newline {
                return Ok(Some(self.consume(offset, len, 1)));
            }
            if self.fill()? == 0 {
                return Ok((searched > 0).then(|| self.consume(offset, searched, 0)));
            }
        }
    }

    fn consume(&mut self, offset: u64, len: usize, newline: usize) -> Line<'_> {
        let start = self.start;
        self.start += len + newline;
        Line {
            span: LineSpan {
                offset,
                len_bytes: len as u64,
            },
            bytes: Some(&self.buffer[start..start + len]),
        }
    }

    /// Skips to the end of an oversized line without buffering it.
    fn skip_oversized(&mut self, offset: u64) -> io::Result<Line<'static>> {
        let mut len_bytes = 0;
        loop {
            let held = &self.buffer[self.start..self.end];
            let newline = memchr::memchr(b'\n', held);
            let len = newline.unwrap_or(held.len());
            len_bytes += len as u64;
            let is_zero = len > 0 && held.iter().all(|byte| *byte == 0);
            self.start += len + usize::from(newline.is_some());
            if is_zero {
                // No newline is in a hole, which may be larger than all data of the lake.
                let hole_end = self.source.hole_end(self.read_offset, self.end_offset);
                len_bytes += hole_end - self.read_offset;
                self.read_offset = hole_end;
            }
            if newline.is_some() || self.fill()? == 0 {
                return Ok(Line {
                    span: LineSpan { offset, len_bytes },
                    bytes: None,
                });
            }
        }
    }

    /// Appends one chunk to the buffer and returns its length, 0 at the end.
    fn fill(&mut self) -> io::Result<usize> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let left = usize::try_from(self.end_offset - self.read_offset).unwrap_or(usize::MAX);
        let chunk_len = CHUNK_BYTES.min(left);
        if self.buffer.len() < self.end + chunk_len {
            self.buffer.resize(self.end + chunk_len, 0);
        }
        let space = &mut self.buffer[self.end..self.end + chunk_len];
        let read = retry_interrupted(|| self.source.read_at(space, self.read_offset))?;
        self.end += read;
        self.read_offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        bytes: &[u8],
        end_offset: u64,
        max_line_bytes: usize,
        expected: &[(u64, u64, Option<&[u8]>)],
    ) {
        let source = Source::Held(bytes.into());
        let mut lines = LineReader::new(&source, end_offset, max_line_bytes);
        for (offset, len_bytes, bytes) in expected {
            let line = lines.next_line().unwrap().unwrap();
            let span = LineSpan {
                offset: *offset,
                len_bytes: *len_bytes,
            };
            assert_eq!(
                line,
                Line {
                    span,
                    bytes: *bytes
                }
            );
            if let Some(bytes) = line.bytes {
                assert_eq!(source.read_span(span, &mut Vec::new()).unwrap(), bytes);
            }
        }
        assert_eq!(lines.next_line().unwrap(), None);
    }

    #[test]
    fn lines_have_their_spans() {
        check(b"", 9, 9, &[]);
        check(
            b"a\n\nbc",
            9,
            9,
            &[(0, 1, Some(b"a")), (2, 0, Some(b"")), (3, 2, Some(b"bc"))],
        );
        check(b"a\nbc\n", 4, 9, &[(0, 1, Some(b"a")), (2, 2, Some(b"bc"))]);
    }

    #[test]
    fn an_oversized_line_is_skipped_at_any_position() {
        check(
            b"abc\nd\n",
            9,
            3,
            &[(0, 3, Some(b"abc")), (4, 1, Some(b"d"))],
        );
        check(b"abcd\ne", 9, 3, &[(0, 4, None), (5, 1, Some(b"e"))]);
        check(b"a\nbcde", 9, 3, &[(0, 1, Some(b"a")), (2, 4, None)]);
        let long = CHUNK_BYTES as u64 * 3 + 17;
        let mut bytes = vec![b'x'; CHUNK_BYTES * 3 + 17];
        bytes.extend(b"\nend\n");
        let end = (long + 1, 3, Some(&b"end"[..]));
        check(&bytes, u64::MAX, 1000, &[(0, long, None), end]);
        let held = &bytes[..CHUNK_BYTES * 3 + 17];
        check(&bytes, u64::MAX, 1 << 20, &[(0, long, Some(held)), end]);
    }

    #[test]
    fn lines_can_be_read_from_the_middle_of_a_source() {
        let source = Source::Held(b"a\nbc\nd"[..].into());
        let mut lines = LineReader::new(&source, 9, 9).starting_at(2);
        let spans = std::iter::from_fn(|| lines.next_line().unwrap().map(|line| line.span.offset));
        assert_eq!(spans.collect::<Vec<_>>(), [2, 5]);
    }

    #[test]
    fn an_oversized_line_is_not_buffered() {
        let source = Source::Held(vec![b'x'; 40 * CHUNK_BYTES].into());
        let mut lines = LineReader::new(&source, u64::MAX, CHUNK_BYTES);
        assert_eq!(lines.next_line().unwrap().unwrap().bytes, None);
        assert!(
            lines.buffer.len() <= 3 * CHUNK_BYTES,
            "{}",
            lines.buffer.len()
        );
    }
}
