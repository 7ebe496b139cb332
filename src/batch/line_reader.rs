//! Owns the cutting of a file that is read once, from front to end, into lines with their spans, in bounded memory.
//! It never follows a file that grows, and does not know what a line says.

use std::io;
use std::sync::Arc;

use crate::platform::storage::{StorageFile, again};

/// Bytes asked for at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Where a line lies in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineSpan {
    /// Offset of its first byte.
    pub offset: u64,
    /// Its length, the newline not counted.
    pub len_bytes: u64,
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'b> {
    /// Where it lies.
    pub span: LineSpan,
    /// Its bytes without the newline; nothing if it is longer than the limit.
    pub bytes: Option<&'b [u8]>,
}

/// Bytes that lines are cut from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Held in memory.
    Held(Arc<[u8]>),
    /// Read when needed.
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

    /// Reads a line again. `scratch` is overwritten; what is behind the end of the file by now is missing.
    ///
    /// # Errors
    /// Whatever the storage says.
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

/// Hands out the lines of a source up to a given end. The last one may have no newline.
#[derive(Debug)]
pub struct LineReader<'f> {
    source: &'f Source,
    max_line_bytes: usize,
    /// Nothing is read at or behind this offset.
    end_offset: u64,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are read and not handed out: `start..end`.
    start: usize,
    end: usize,
    /// Offset in the file of `buffer[end]`, the next byte to be read.
    read_offset: u64,
}

impl<'f> LineReader<'f> {
    /// Reads `source` up to `end_offset` or its end. Longer lines than `max_line_bytes` are not held.
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

    /// Begins at this offset, where a line starts, instead of the source's beginning.
    pub fn starting_at(mut self, offset: u64) -> LineReader<'f> {
        self.read_offset = offset.min(self.end_offset);
        self
    }

    /// How many bytes were read so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_offset
    }

    /// The next line, if there is one.
    ///
    /// # Errors
    /// Whatever the storage says; an interruption is tried again.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        let offset = self.read_offset - (self.end - self.start) as u64;
        let mut searched = 0;
        loop {
            let held = &self.buffer[self.start..self.end];
            let newline = memchr::memchr(b'\n', &held[searched..]).map(|found| searched + found);
            searched = held.len();
            if newline.unwrap_or(searched) > self.max_line_bytes {
                return self.skip_oversized(offset).map(Some);
            }
            if let Some(len) = newline {
                return Ok(Some(self.hand_out(offset, len, 1)));
            }
            if self.fill()? == 0 {
                return Ok((searched > 0).then(|| self.hand_out(offset, searched, 0)));
            }
        }
    }

    fn hand_out(&mut self, offset: u64, len: usize, newline: usize) -> Line<'_> {
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

    /// Reads on to the end of a line that is too long, keeping none of it.
    fn skip_oversized(&mut self, offset: u64) -> io::Result<Line<'static>> {
        let mut len_bytes = 0;
        loop {
            let held = &self.buffer[self.start..self.end];
            let newline = memchr::memchr(b'\n', held);
            let len = newline.unwrap_or(held.len());
            len_bytes += len as u64;
            self.start += len + usize::from(newline.is_some());
            if newline.is_some() || self.fill()? == 0 {
                return Ok(Line {
                    span: LineSpan { offset, len_bytes },
                    bytes: None,
                });
            }
        }
    }

    /// Reads one more chunk behind what is held, and says how many bytes; 0 at the end.
    fn fill(&mut self) -> io::Result<usize> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let left = usize::try_from(self.end_offset - self.read_offset).unwrap_or(usize::MAX);
        let wanted = CHUNK_BYTES.min(left);
        if self.buffer.len() < self.end + wanted {
            self.buffer.resize(self.end + wanted, 0);
        }
        let space = &mut self.buffer[self.end..self.end + wanted];
        let read = again(|| self.source.read_at(space, self.read_offset))?;
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
        wanted: &[(u64, u64, Option<&[u8]>)],
    ) {
        let source = Source::Held(bytes.into());
        let mut lines = LineReader::new(&source, end_offset, max_line_bytes);
        for (offset, len_bytes, bytes) in wanted {
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
    fn a_line_that_is_too_long_is_passed_over_wherever_it_ends() {
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
    fn a_line_that_is_too_long_is_not_held() {
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
