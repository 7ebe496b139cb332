//! FIXME: record::json::utf8

use crate::record::json::escape::first_character;
use std::borrow::Cow;

/// The bytes as text, each byte that belongs to no UTF-8 character as one U+FFFD of its own: Go's rule. Rust's
/// lossy conversion would make one of several.
pub(crate) fn decode_utf8(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = simdutf8::basic::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

/// Without the Unicode white space around it; bytes that are not UTF-8 are not white space.
#[inline]
pub fn trim(line: &[u8]) -> &[u8] {
    // Hardly a line has any.
    match line {
        [b'!'..=b'~', .., b'!'..=b'~'] => line,
        _ => trim_space(line),
    }
}

pub(crate) fn trim_space(mut line: &[u8]) -> &[u8] {
    while !line.is_empty() {
        let (character, len) = first_character(line);
        if !character.is_whitespace() {
            break;
        }
        line = &line[len..];
    }
    while let Some(len) = trailing_space(line) {
        line = &line[..line.len() - len];
    }
    line
}

/// Length of the white-space character at the end, if one is there. None is longer than three bytes.
pub(crate) fn trailing_space(line: &[u8]) -> Option<usize> {
    let last = *line.last()?;
    if last.is_ascii() {
        return char::from(last).is_whitespace().then_some(1);
    }
    (2..=line.len().min(3)).find(|len| {
        let (character, width) = first_character(&line[line.len() - len..]);
        width == *len && character.is_whitespace()
    })
}
