//! Reads a day-file again from its start, line by line, to number its lines and show them. Oversized lines are
//! counted and not held in memory.

use std::io;

use crate::lake::source::Source;

/// Bytes read at a time.
const WINDOW_LEN: u64 = 1 << 20;

/// One line, without its newline.
#[derive(Debug, Clone, Copy)]
pub struct NumberedLine<'b> {
    /// Its number, from 1: what an editor shows.
    pub number: u64,
    /// Its offset, bytes.
    pub offset: u64,
    /// Its bytes; empty if it is oversized.
    pub body: &'b [u8],
}

/// Calls `visit` with every line that starts before `end`.
///
/// # Errors
/// The disk's.
pub fn for_each_line(
    source: &Source,
    end: u64,
    line_bytes_max: u64,
    mut visit: impl FnMut(NumberedLine<'_>),
) -> io::Result<()> {
    let mut held = Vec::new();
    let (mut number, mut offset, mut read_to) = (1, 0, 0);
    let mut too_long = false;
    while read_to < end {
        let len = WINDOW_LEN.min(end - read_to);
        let window = source.line(read_to, u32::try_from(len).unwrap_or(u32::MAX))?;
        read_to += window.len() as u64;
        let mut rest = window.as_slice();
        while let Some(at) = memchr::memchr(b'\n', rest) {
            let body = line_of(&mut held, &rest[..at], too_long);
            visit(NumberedLine {
                number,
                offset,
                body,
            });
            rest = &rest[at + 1..];
            offset = read_to - rest.len() as u64;
            number += 1;
            held.clear();
            too_long = false;
        }
        if window.is_empty() {
            break;
        }
        too_long |= (held.len() + rest.len()) as u64 > line_bytes_max;
        if too_long {
            held.clear();
        } else {
            held.extend_from_slice(rest);
        }
    }
    if read_to > offset {
        let body = line_of(&mut held, &[], too_long);
        visit(NumberedLine {
            number,
            offset,
            body,
        });
    }
    Ok(())
}

fn line_of<'h>(held: &'h mut Vec<u8>, rest: &'h [u8], too_long: bool) -> &'h [u8] {
    if too_long {
        return &[];
    }
    if held.is_empty() {
        return rest;
    }
    held.extend_from_slice(rest);
    held
}

/// The number of the line that starts at each of these offsets, which ascend; fewer where the file has become shorter.
///
/// # Errors
/// The disk's.
pub fn line_numbers(source: &Source, offsets: &[u64]) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::with_capacity(offsets.len());
    let (mut newlines, mut at) = (0, 0);
    for offset in offsets {
        while at < *offset {
            let len = WINDOW_LEN.min(offset - at);
            let window = source.line(at, u32::try_from(len).unwrap_or(u32::MAX))?;
            if window.is_empty() {
                return Ok(numbers);
            }
            newlines += memchr::memchr_iter(b'\n', &window).count() as u64;
            at += window.len() as u64;
        }
        numbers.push(newlines + 1);
    }
    Ok(numbers)
}
