//! The escapes of JSON strings: decoding them, and writing them in the native or the Go dialect.

use crate::record::json::simd::plain_run;

/// The exporter whose bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Escapes as `serde_json` and `JSON.stringify` write them.
    #[default]
    Native,
    /// Escapes as Go's `encoding/json` writes them: also `<`, `>`, `&`, U+2028 and U+2029.
    Go,
}

/// Returns the first character of bytes that are not empty, and its length. A byte that starts no character is U+FFFD.
pub(super) fn first_character(bytes: &[u8]) -> (char, usize) {
    if bytes[0].is_ascii() {
        return (char::from(bytes[0]), 1);
    }
    (2..=bytes.len().min(4))
        .find_map(|len| std::str::from_utf8(&bytes[..len]).ok())
        .and_then(|text| text.chars().next())
        .map_or((char::REPLACEMENT_CHARACTER, 1), |character| {
            (character, character.len_utf8())
        })
}

/// Decodes the well-formed escape at the start of `bytes`. Returns the character and the length of the escape.
pub(super) fn unescape(bytes: &[u8]) -> (char, usize) {
    match bytes.get(1) {
        Some(b'b') => ('\u{8}', 2),
        Some(b'f') => ('\u{c}', 2),
        Some(b'n') => ('\n', 2),
        Some(b'r') => ('\r', 2),
        Some(b't') => ('\t', 2),
        Some(b'u') => unescape_unicode(bytes),
        Some(&other) => (char::from(other), 2),
        None => (char::REPLACEMENT_CHARACTER, 1),
    }
}

/// Decodes a `\u` escape. A high surrogate consumes the low surrogate that follows it. A lone surrogate is U+FFFD and
/// consumes nothing else.
fn unescape_unicode(bytes: &[u8]) -> (char, usize) {
    let first = hex_escape(bytes).unwrap_or(0xFFFD);
    if let high @ 0xD800..0xDC00 = first
        && let Some(low @ 0xDC00..0xE000) = bytes.get(6..).and_then(hex_escape)
    {
        let code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
        return (
            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
            12,
        );
    }
    (
        char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER),
        6,
    )
}

/// Parses `\uXXXX` at the start of `bytes`; `None` if they start with anything else.
fn hex_escape(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |number, digit| {
        Some(number << 4 | char::from(*digit).to_digit(16)?)
    })
}

/// Returns whether the well-formed escape at the start of `bytes` is the one that the native dialect writes.
pub(super) fn is_native_escape(bytes: &[u8]) -> bool {
    match bytes {
        [_, b'u', b'0', b'0', b'0', last, ..] => {
            matches!(last, b'0'..=b'7' | b'b' | b'e' | b'f')
        }
        [_, b'u', b'0', b'0', b'1', last, ..] => matches!(last, b'0'..=b'9' | b'a'..=b'f'),
        [_, b'u' | b'/', ..] => false,
        _ => true,
    }
}

/// Returns whether a line of JSON has an escape that the Go dialect writes and the native one never does.
pub(crate) fn has_escape_of_go(line: &[u8]) -> bool {
    memchr::memmem::find_iter(line, b"\\u").any(|at| {
        let before = line[..at].iter().rev();
        let is_escaped = before.take_while(|byte| **byte == b'\\').count() % 2 == 1;
        let digits = line.get(at + 2..at + 6).unwrap_or_default();
        !is_escaped
            && [b"003c", b"003e", b"0026", b"2028", b"2029"]
                .iter()
                .any(|of_go| *of_go == digits)
    })
}

/// Appends `text` as part of a JSON string, without quotes.
pub(crate) fn escape(text: &str, dialect: Dialect, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let run = match dialect {
            Dialect::Native => plain_run(rest).len,
            Dialect::Go => plain_run_go(rest),
        };
        out.extend_from_slice(&rest[..run]);
        rest = &rest[run..];
        if !rest.is_empty() {
            let (character, len) = first_character(rest);
            write_escape(character, out);
            rest = &rest[len..];
        }
    }
}

/// Appends a part of a JSON string as the native dialect writes it, with the further escapes of the Go dialect. No byte of
/// these characters is part of an escape.
pub(crate) fn add_escapes_of_go(native: &[u8], out: &mut Vec<u8>) {
    let mut html = memchr::memchr3_iter(b'<', b'>', b'&', native).peekable();
    let separators = memchr::memmem::find_iter(native, b"\xe2\x80");
    let mut separators = separators
        .filter(|at| matches!(native.get(at + 2), Some(0xa8 | 0xa9)))
        .peekable();
    let mut copied = 0;
    loop {
        let next_html = html.peek().map(|at| (*at, 1));
        let next_separator = separators.peek().map(|at| (*at, 3));
        let Some((at, len)) = [next_html, next_separator].into_iter().flatten().min() else {
            break;
        };
        match len {
            1 => html.next(),
            _ => separators.next(),
        };
        out.extend_from_slice(&native[copied..at]);
        write_escape(first_character(&native[at..]).0, out);
        copied = at + len;
    }
    out.extend_from_slice(&native[copied..]);
}

/// Returns the number of leading bytes that the Go dialect copies unchanged.
fn plain_run_go(bytes: &[u8]) -> usize {
    plain_len_go(bytes.iter().copied())
}

/// Reads no further than the first special byte and two bytes after it. Taking the length of the native run as the
/// limit instead is quadratic: that run may extend to the end of the text, and is searched again at each escape.
fn plain_len_go(mut bytes: impl Iterator<Item = u8> + Clone) -> usize {
    let mut len = 0;
    while let Some(byte) = bytes.next() {
        let is_special = match byte {
            0..0x20 | b'"' | b'\\' | b'<' | b'>' | b'&' => true,
            0xE2 => {
                let mut next = bytes.clone();
                next.next() == Some(0x80) && matches!(next.next(), Some(0xA8 | 0xA9))
            }
            _ => false,
        };
        if is_special {
            break;
        }
        len += 1;
    }
    len
}

/// Appends one character in the native dialect.
pub(super) fn write_character(character: char, out: &mut Vec<u8>) {
    match character {
        ..' ' | '"' | '\\' => write_escape(character, out),
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

fn write_escape(character: char, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match character {
        '"' => b'"',
        '\\' => b'\\',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        _ => {
            let code = character as usize;
            out.extend_from_slice(b"\\u");
            out.extend([12, 8, 4, 0].map(|shift| HEX[code >> shift & 0xF]));
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn escapes_of_the_go_dialect_are_recognized() {
        for text in ["a<b", "&", "\u{2028}", "\\<", "\\\\>"] {
            let mut written = Vec::new();
            escape(text, Dialect::Go, &mut written);
            assert!(has_escape_of_go(&written), "{text:?}");
            written.clear();
            escape(text, Dialect::Native, &mut written);
            assert!(!has_escape_of_go(&written), "{text:?}");
        }
        for text in ["\\u003c", "\\\\u003c", "\u{1}", "u003c", "\u{1f}\\u2028"] {
            for dialect in [Dialect::Native, Dialect::Go] {
                let mut written = Vec::new();
                escape(text, dialect, &mut written);
                assert!(!has_escape_of_go(&written), "{text:?}");
            }
        }
        assert!(!has_escape_of_go(br"\u00"));
    }

    #[test]
    fn the_go_dialect_reads_each_byte_a_bounded_number_of_times() {
        let text = "<td class=x>\u{2028}".repeat(2_000);
        let (mut rest, read) = (text.as_bytes(), Cell::new(0));
        while !rest.is_empty() {
            let counted = rest.iter().copied().inspect(|_| read.set(read.get() + 1));
            let len = plain_len_go(counted);
            rest = &rest[len..];
            rest = rest.get(first_character(rest).1..).unwrap_or_default();
        }
        assert!(read.get() <= 3 * text.len(), "{} bytes read", read.get());
    }
}
