//! Conversion of bytes that may not be UTF-8 to text, and trimming of Unicode white space.

use std::borrow::Cow;

use crate::record::json::escape::first_character;

/// Decodes bytes as text, with one U+FFFD for each byte that is not part of a UTF-8 character. This is Go's rule; Rust's
/// lossy conversion replaces several such bytes by one U+FFFD.
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

/// Removes leading and trailing Unicode white space. Bytes that are not UTF-8 are not white space.
#[inline]
pub fn trim(line: &[u8]) -> &[u8] {
    // Almost no line has any.
    match line {
        [b'!'..=b'~', .., b'!'..=b'~'] => line,
        _ => trim_space(line),
    }
}

fn trim_space(mut line: &[u8]) -> &[u8] {
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

/// Returns the length of the trailing white-space character, if there is one. None is longer than three bytes.
fn trailing_space(line: &[u8]) -> Option<usize> {
    let last = *line.last()?;
    if last.is_ascii() {
        return char::from(last).is_whitespace().then_some(1);
    }
    (2..=line.len().min(3)).find(|len| {
        let (character, width) = first_character(&line[line.len() - len..]);
        width == *len && character.is_whitespace()
    })
}
