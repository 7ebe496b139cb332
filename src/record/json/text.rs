//! The strings of a JSON line as spans of the line: decoding (escapes, lone surrogates and invalid UTF-8 resolved),
//! comparison, and writing back. The scanner has already found where each string ends.

use std::borrow::Cow;
use std::fmt;

use crate::record::json::escape::{
    Dialect, add_escapes_of_go, escape, first_character, is_native_escape, unescape,
    write_character,
};
use crate::record::json::simd::text_run;
use crate::record::json::utf8::decode_utf8;

/// Properties of a string that the scanner records, so that later steps need not search it again.
#[derive(Clone, Copy, Default)]
pub(super) struct Marks {
    /// The string has an escape.
    pub escaped: bool,
    /// The string has an escape that the native dialect writes differently.
    pub odd: bool,
    /// The string has a byte of 0x80 or above.
    pub high: bool,
}

/// The bytes between the quotes of a JSON string as written in the line; decoded when needed.
#[derive(Clone, Copy, Default)]
pub struct JsonText<'a> {
    raw: &'a [u8],
    marks: Marks,
}

impl fmt::Debug for JsonText<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.decode().fmt(formatter)
    }
}

impl<'a> JsonText<'a> {
    /// Returns the length in the line, bytes. The decoded length is at most this; the length written back usually equals it.
    #[must_use]
    pub fn raw_len(&self) -> usize {
        self.raw.len()
    }

    /// The empty string.
    pub const EMPTY: JsonText<'static> = JsonText {
        raw: &[],
        marks: Marks {
            escaped: false,
            odd: false,
            high: false,
        },
    };

    /// Makes a text of the well-formed bytes between the quotes.
    pub(super) fn new(raw: &'a [u8], marks: Marks) -> JsonText<'a> {
        JsonText { raw, marks }
    }

    /// Returns whether the string is empty.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Returns the string if it is ASCII without escapes.
    pub(crate) fn as_plain(&self) -> Option<&'a [u8]> {
        (!self.marks.escaped && !self.marks.high).then_some(self.raw)
    }

    /// Decodes the string. A lone surrogate and each byte that is not UTF-8 become U+FFFD.
    pub fn decode(&self) -> Cow<'a, str> {
        if !self.marks.escaped {
            return decode_utf8(self.raw);
        }
        let mut text = String::with_capacity(self.raw.len());
        let mut rest = self.raw;
        while let Some(backslash) = memchr::memchr(b'\\', rest) {
            text.push_str(&decode_utf8(&rest[..backslash]));
            let (character, len) = unescape(&rest[backslash..]);
            text.push(character);
            rest = &rest[backslash + len..];
        }
        text.push_str(&decode_utf8(rest));
        Cow::Owned(text)
    }

    /// Returns whether the decoded string equals `expected`.
    pub fn eq_str(&self, expected: &str) -> bool {
        match self.as_plain() {
            Some(plain) => plain == expected.as_bytes(),
            None => self.decode() == expected,
        }
    }

    /// Returns whether two strings are equal when decoded.
    pub fn same_text(&self, other: &JsonText<'_>) -> bool {
        let plain = !(self.marks.escaped || other.marks.escaped);
        (plain && self.raw == other.raw) || self.decode() == other.decode()
    }

    /// Returns whether the string is empty or only Unicode white space. Stops at the first other character.
    pub fn is_blank(&self) -> bool {
        let mut rest = self.raw;
        while !rest.is_empty() {
            let (character, len) = match rest[0] {
                b'\\' => unescape(rest),
                _ => first_character(rest),
            };
            if !character.is_whitespace() {
                return false;
            }
            rest = &rest[len..];
        }
        true
    }

    /// Appends the string with quotes, escaped in the dialect.
    pub fn write_json(&self, dialect: Dialect, out: &mut Vec<u8>) {
        out.push(b'"');
        self.write_escaped(dialect, out);
        out.push(b'"');
    }

    /// Appends the string without quotes, as part of a longer string.
    pub(crate) fn write_escaped(&self, dialect: Dialect, out: &mut Vec<u8>) {
        let utf8 = !self.marks.high || simdutf8::basic::from_utf8(self.raw).is_ok();
        if !utf8 || dialect == Dialect::Go && self.marks.odd {
            escape(&self.decode(), dialect, out);
        } else if dialect == Dialect::Go {
            add_escapes_of_go(self.raw, out);
        } else if self.marks.odd {
            self.respell_escapes(out);
        } else {
            out.extend_from_slice(self.raw);
        }
    }

    /// Appends valid UTF-8, rewriting the escapes that the native dialect writes differently.
    fn respell_escapes(&self, out: &mut Vec<u8>) {
        let mut copied = 0;
        text_run(self.raw, |at| {
            // The second half of a surrogate pair was consumed with the first.
            if at >= copied && !is_native_escape(&self.raw[at..]) {
                out.extend_from_slice(&self.raw[copied..at]);
                let (character, len) = unescape(&self.raw[at..]);
                write_character(character, out);
                copied = at + len;
            }
            true
        });
        out.extend_from_slice(&self.raw[copied..]);
    }

    /// Returns the raw bytes if the string has no escapes.
    pub(super) fn as_unescaped(&self) -> Option<&'a [u8]> {
        (!self.marks.escaped).then_some(self.raw)
    }

    /// Decodes the string for comparison with field names of up to `longest` ASCII characters. A string that is too long
    /// for such a name is not decoded; the result is empty, which is no field name.
    #[cold]
    pub(super) fn as_field_name(&self, longest: usize) -> Vec<u8> {
        const LONGEST_ESCAPE: usize = 6;
        if self.raw.len() > longest * LONGEST_ESCAPE {
            return Vec::new();
        }
        self.decode().into_owned().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::json::scanner::Scanner;
    use crate::record::json::utf8::trim;

    fn text(quoted: &[u8]) -> JsonText<'_> {
        Scanner::new(quoted).string().unwrap()
    }

    fn check(quoted: &[u8], decoded: &str) {
        let text = text(quoted);
        assert_eq!(text.decode(), decoded);
        assert!(text.eq_str(decoded));
        let mut native = Vec::new();
        text.write_json(Dialect::Native, &mut native);
        assert_eq!(native, serde_json::to_vec(decoded).unwrap(), "{decoded:?}");
    }

    #[test]
    fn lone_surrogates_and_single_bad_bytes_become_replacement_characters() {
        check(br#""\ud83d\ude00""#, "\u{1f600}");
        check(br#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}");
        check(br#""\ud83d""#, "\u{fffd}");
        check(br#""\ude00x""#, "\u{fffd}x");
        check(br#""\ud83d\n\u0041""#, "\u{fffd}\nA");
        check(br#""\ud83d\\ude00""#, "\u{fffd}\\ude00");
        // As in Go, each byte of a truncated sequence counts, not the sequence.
        check(b"\"\xe2\x82A\"", "\u{fffd}\u{fffd}A");
        check(b"\"\xf0\x9f\x98\"", "\u{fffd}\u{fffd}\u{fffd}");
        check(b"\"\xed\xa0\x80\"", "\u{fffd}\u{fffd}\u{fffd}");
        check(
            b"\"\xc0\xaf\xff\\n\xe2\x9c\x93\"",
            "\u{fffd}\u{fffd}\u{fffd}\n\u{2713}",
        );
    }

    #[test]
    fn escapes_of_any_spelling_are_written_like_serde_json() {
        check(
            br#""\/ \u002f \u003c \u000a \u000A \u0008 \u001F \u001f \u0000 \u007f""#,
            "/ / < \n \n \u{8} \u{1f} \u{1f} \u{0} \u{7f}",
        );
        check(
            br#""\u0022 \u005c \" \\ \b\f\n\r\t \u00e9 \u2028""#,
            "\" \\ \" \\ \u{8}\u{c}\n\r\t \u{e9} \u{2028}",
        );
        check(
            "\"caf\u{e9} \\u00e9 \\n \u{2028}\u{1f600}\"".as_bytes(),
            "caf\u{e9} \u{e9} \n \u{2028}\u{1f600}",
        );
        for code in 0..0x20 {
            check(
                format!("\"x\\u{code:04x}y\\u{code:04X}\"").as_bytes(),
                &format!("x{0}y{0}", char::from(code)),
            );
        }
    }

    #[test]
    fn escapes_are_rewritten_in_any_context() {
        const PIECES: [&str; 16] = [
            "u",
            "\\\\",
            "\\\\",
            "\\u00e9",
            "\\u000A",
            "\\u001f",
            "\\ud83d\\ude00",
            "\\ud83d",
            "\\n",
            "\u{e9}",
            "plain words, more than a block",
            "<a>",
            "&",
            "\u{2028}",
            "\u{2027}\u{2029}",
            "\\/",
        ];
        for seed in 0..5_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            // Half of the strings have no `\/`.
            let pieces = &PIECES[..PIECES.len() - rng.usize(..2)];
            let mut quoted = "\"".to_owned();
            for _ in 0..rng.usize(1..40) {
                quoted.push_str(rng.choice(pieces).unwrap());
            }
            quoted.push('"');
            let text = text(quoted.as_bytes());
            let mut native = Vec::new();
            text.write_json(Dialect::Native, &mut native);
            let expected = serde_json::to_vec(&text.decode()).unwrap();
            assert_eq!(native, expected, "seed {seed}: {quoted}");
            let (mut go, mut expected) = (Vec::new(), Vec::new());
            text.write_escaped(Dialect::Go, &mut go);
            escape(&text.decode(), Dialect::Go, &mut expected);
            assert_eq!(go, expected, "seed {seed}: {quoted}");
        }
    }

    #[test]
    fn the_go_dialect_escapes_html_characters() {
        let mut out = Vec::new();
        text("\"<&>\u{2028}\u{2029}\u{2027}\\u003c\\b\u{7f}/\"".as_bytes())
            .write_json(Dialect::Go, &mut out);
        let expected = "\"\\u003c\\u0026\\u003e\\u2028\\u2029\u{2027}\\u003c\\b\u{7f}/\"";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn blank_is_empty_or_white_space_only() {
        for blank in [
            "",
            " ",
            "\\n\\t\\u000b\\f\\r",
            "\\u00a0\u{2003} \u{3000}\\u0085\\u2028",
        ] {
            assert!(
                text(format!("\"{blank}\"").as_bytes()).is_blank(),
                "{blank}"
            );
        }
        for other in [
            "x", " \\n.", "\\u200b", "\\ufeff", "\\ud83d", "\\u0000", " \\\\n",
        ] {
            assert!(
                !text(format!("\"{other}\"").as_bytes()).is_blank(),
                "{other}"
            );
        }
        assert!(!text(b"\"\x85\"").is_blank());
    }

    #[test]
    fn trimming_removes_unicode_white_space_and_keeps_invalid_bytes() {
        let all = "\u{3000} \t{}\u{a0}\u{85}\r\u{2003}\u{205f}\u{1680}";
        assert_eq!(trim(all.as_bytes()), b"{}");
        assert_eq!(trim("\u{3000}\u{b}\n".as_bytes()), b"");
        for kept in [
            &b"\x85{}\xa0"[..],
            b"\x80\x80",
            "\u{200b}{}\u{feff}".as_bytes(),
            "x\u{e9}".as_bytes(),
        ] {
            assert_eq!(trim(kept), kept);
        }
        assert_eq!(trim(b" \xe3\x80 "), b"\xe3\x80");
    }

    #[test]
    fn texts_are_compared_decoded() {
        assert!(text(br#""\u0061b""#).same_text(&text(b"\"ab\"")));
        assert!(text(b"\"\xff\"").same_text(&text(br#""\ud800""#)));
        assert!(!text(br#""\\u0061b""#).same_text(&text(b"\"ab\"")));
        assert!(!text(b"\"ab\"").eq_str("Ab"));
        assert_eq!(text(br#""te\u0078t""#).as_field_name(4), b"text");
        let long = [b"\"", &br"\u0061".repeat(5)[..], b"\""].concat();
        assert_eq!(text(&long).as_field_name(4), b"");
    }
}
