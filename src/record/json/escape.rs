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

/// Returns the number of leading bytes that the Go dialect copies unchanged.
fn plain_run_go(bytes: &[u8]) -> usize {
    let native = plain_run(bytes).len;
    let is_special = |at: &usize| match bytes[*at] {
        b'<' | b'>' | b'&' => true,
        0xE2 => matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xA8 | 0xA9])),
        _ => false,
    };
    (0..native).find(is_special).unwrap_or(native)
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
