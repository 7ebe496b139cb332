//! A pull scanner for one line of JSON. It checks the whole grammar, keeps strings as spans of the line, and skips
//! values of any depth and size without recursion. It has no knowledge of records and fields.
//!
//! No crate reads JSON by the contract's rules: invalid UTF-8 and lone surrogates inside strings must not lose a
//! record, and depth has no limit. The rest is strict: numbers follow the grammar, strings hold no raw control
//! characters, nothing follows the value.

use crate::record::json::escape::is_native_escape;
use crate::record::json::simd;
use crate::record::json::simd::text_run;
use crate::record::json::text::{JsonText, Marks};
use crate::record::json::utf8::trim;

/// A violation of the JSON grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError {
    /// Offset in the line, bytes.
    pub at_byte: usize,
    /// The violated rule.
    pub what: &'static str,
}

/// A number as written in the line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number<'a> {
    digits: &'a [u8],
    is_integer: bool,
}

impl Number<'_> {
    /// Returns the value if the number is written as an integer and fits.
    pub fn as_i64(&self) -> Option<i64> {
        let text = std::str::from_utf8(self.digits).ok()?;
        self.is_integer.then(|| text.parse().ok())?
    }
}

/// Reads one line from front to end.
#[derive(Debug, Clone)]
pub(crate) struct Scanner<'a> {
    line: &'a [u8],
    at: usize,
}

/// Returns whether the trimmed line is one complete JSON value.
pub fn is_whole_value(line: &[u8]) -> bool {
    let mut scanner = Scanner::new(trim(line));
    scanner.skip_value().and_then(|()| scanner.end()).is_ok()
}

/// Returns what is wrong with the encoding of a line that is no JSON at a byte, if that is the cause.
#[cold]
fn encoding_fault(line: &[u8], at: usize) -> Option<&'static str> {
    /// Characters that show the encoding.
    const SAMPLE: usize = 8;
    let has_nul = |start: usize| {
        let mut bytes = line.iter().skip(start).step_by(2).take(SAMPLE);
        bytes.len() > 1 && bytes.all(|byte| *byte == 0)
    };
    let is_utf16 = line.starts_with(&[0xFF, 0xFE]) || line.starts_with(&[0xFE, 0xFF]);
    if is_utf16 || has_nul(0) != has_nul(1) {
        Some("the line is UTF-16, not UTF-8")
    } else if at == 0 && line.starts_with("\u{feff}".as_bytes()) {
        Some("a byte order mark is in front of the value")
    } else {
        (line.get(at) == Some(&0)).then_some("a NUL byte")
    }
}

/// Returns whether `bytes` start with a well-formed escape other than the frequent ones.
fn is_rare_escape(bytes: &[u8]) -> bool {
    match bytes.get(1) {
        Some(b'/') => true,
        Some(b'u') => bytes
            .get(2..6)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
        _ => false,
    }
}

impl<'a> Scanner<'a> {
    pub fn new(line: &'a [u8]) -> Scanner<'a> {
        Scanner { line, at: 0 }
    }

    /// Returns the offset of the next byte to be read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Returns the part of the line between two offsets.
    pub fn span(&self, start: usize, end: usize) -> &'a [u8] {
        &self.line[start..end]
    }

    fn fault<T>(&self, what: &'static str) -> Result<T, JsonError> {
        Err(JsonError {
            at_byte: self.at,
            what: encoding_fault(self.line, self.at).unwrap_or(what),
        })
    }

    /// Skips white space and returns the next byte without consuming it.
    #[inline(always)]
    pub fn peek(&mut self) -> Option<u8> {
        match self.line.get(self.at) {
            Some(byte) if *byte > b' ' => Some(*byte),
            _ => self.peek_after_space(),
        }
    }

    #[inline(never)]
    fn peek_after_space(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.line.get(self.at) {
            self.at += 1;
        }
        self.line.get(self.at).copied()
    }

    /// Skips white space and consumes the next byte if it is `expected`. Returns whether it was.
    #[inline(always)]
    pub fn take(&mut self, expected: u8) -> bool {
        let is_next = self.peek() == Some(expected);
        self.at += usize::from(is_next);
        is_next
    }

    /// Fails if anything but white space follows.
    pub fn end(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.fault("something follows the value"),
        }
    }

    /// Consumes a string.
    #[inline(always)]
    pub fn string(&mut self) -> Result<JsonText<'a>, JsonError> {
        if !self.take(b'"') {
            return self.fault("a string is missing");
        }
        let start = self.at;
        // Most strings are short and plain: keys, names, identifiers.
        match simd::short_string(&self.line[start..]) {
            Some(run) => {
                self.at += run.len + 1;
                let marks = Marks {
                    high: run.high,
                    ..Marks::default()
                };
                Ok(JsonText::new(&self.line[start..start + run.len], marks))
            }
            None => self.long_string(start),
        }
    }

    #[inline(never)]
    fn long_string(&mut self, start: usize) -> Result<JsonText<'a>, JsonError> {
        let text = &self.line[start..];
        let mut odd = false;
        let run = text_run(text, |at| {
            odd |= !is_native_escape(&text[at..]);
            is_rare_escape(&text[at..])
        });
        self.at = start + run.len;
        match text.get(run.len) {
            Some(b'"') => {}
            Some(b'\\') if text.get(run.len + 1) == Some(&b'u') => {
                return self.fault("an escape is not \\u and four hexadecimal digits");
            }
            Some(b'\\') => return self.fault("an escape is unknown"),
            Some(_) => return self.fault("a string has a raw control character"),
            None => return self.fault("a string has no end"),
        }
        self.at += 1;
        let marks = Marks {
            escaped: run.escaped,
            odd,
            high: run.high,
        };
        Ok(JsonText::new(&text[..run.len], marks))
    }

    /// Consumes a number.
    pub fn number(&mut self) -> Result<Number<'a>, JsonError> {
        self.peek();
        let start = self.at;
        self.at += usize::from(self.line.get(self.at) == Some(&b'-'));
        let first = self.line.get(self.at);
        match self.digits() {
            0 => return self.fault("a number has no digits"),
            1 => {}
            _ if first == Some(&b'0') => return self.fault("a number starts with 0"),
            _ => {}
        }
        let integer_end = self.at;
        if self.line.get(self.at) == Some(&b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return self.fault("a number has no digits after its point");
            }
        }
        if let Some(b'e' | b'E') = self.line.get(self.at) {
            self.at += 1;
            self.at += usize::from(matches!(self.line.get(self.at), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return self.fault("a number has no digits in its exponent");
            }
        }
        Ok(Number {
            digits: &self.line[start..self.at],
            is_integer: self.at == integer_end,
        })
    }

    /// Consumes decimal digits and returns their number.
    fn digits(&mut self) -> usize {
        let rest = &self.line[self.at..];
        let len = rest
            .iter()
            .position(|byte| !byte.is_ascii_digit())
            .unwrap_or(rest.len());
        self.at += len;
        len
    }

    /// Consumes `null` if it is next. Returns whether it was.
    pub fn null(&mut self) -> bool {
        self.peek();
        self.literal("null")
    }

    fn literal(&mut self, word: &str) -> bool {
        let is_next = self.line[self.at..].starts_with(word.as_bytes());
        self.at += if is_next { word.len() } else { 0 };
        is_next
    }

    /// Consumes an object whose opening brace is next. After each colon calls `field`, which consumes the value, with the
    /// decoded key. A key that is longer than `longest_name` in any spelling is passed as an empty slice.
    pub fn object<E: From<JsonError>>(
        &mut self,
        longest_name: usize,
        mut field: impl FnMut(&mut Self, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.take(b'{');
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.key()?;
            let decoded;
            let name = match key.as_unescaped() {
                Some(name) => name,
                None => {
                    decoded = key.as_field_name(longest_name);
                    &decoded
                }
            };
            field(self, name)?;
            if self.take(b'}') {
                return Ok(());
            }
            self.comma()?;
        }
    }

    /// Consumes an array whose opening bracket is next; `element` consumes each value.
    pub fn array<E: From<JsonError>>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.take(b'[');
        if self.take(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if self.take(b']') {
                return Ok(());
            }
            self.comma()?;
        }
    }

    #[inline(always)]
    fn key(&mut self) -> Result<JsonText<'a>, JsonError> {
        let key = self.string()?;
        match self.take(b':') {
            true => Ok(key),
            false => self.fault("a colon is missing"),
        }
    }

    #[inline(always)]
    fn comma(&mut self) -> Result<(), JsonError> {
        match self.take(b',') {
            true => Ok(()),
            false => self.fault("a comma or the end of a list or object is missing"),
        }
    }

    /// Skips a value of any depth and checks all of it.
    #[inline(always)]
    pub fn skip_value(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            _ => self.skip_any_value(),
        }
    }

    #[inline(never)]
    fn skip_any_value(&mut self) -> Result<(), JsonError> {
        let mut open = Nesting::default();
        loop {
            if self.skip_to_scalar_end(&mut open)? {
                continue;
            }
            loop {
                let Some(is_object) = open.innermost() else {
                    return Ok(());
                };
                if self.take(if is_object { b'}' } else { b']' }) {
                    open.pop();
                    continue;
                }
                self.comma()?;
                if is_object {
                    self.key()?;
                }
                break;
            }
        }
    }

    /// Skips a scalar, an empty container, or the opening of a container. Returns whether a value must follow.
    fn skip_to_scalar_end(&mut self, open: &mut Nesting) -> Result<bool, JsonError> {
        match self.peek() {
            Some(b'{') => {
                self.at += 1;
                if !self.take(b'}') {
                    self.key()?;
                    open.push(true);
                    return Ok(true);
                }
            }
            Some(b'[') => {
                self.at += 1;
                if !self.take(b']') {
                    open.push(false);
                    return Ok(true);
                }
            }
            Some(b'"') => drop(self.string()?),
            Some(b'-' | b'0'..=b'9') => drop(self.number()?),
            Some(_)
                if ["null", "true", "false"]
                    .iter()
                    .any(|word| self.literal(word)) => {}
            _ => return self.fault("a value is missing"),
        }
        Ok(false)
    }
}

/// The stack of open containers, one bit each: a line may nest ten million deep and must not cost more than that.
#[derive(Default)]
struct Nesting {
    full_words: Vec<u64>,
    word: u64,
    depth: u64,
}

impl Nesting {
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.full_words.push(self.word);
        }
        self.word = self.word << 1 | u64::from(is_object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.word >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.word = self.full_words.pop().unwrap_or_default();
        }
    }

    fn innermost(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.word & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &[u8], is_json: bool) {
        let shown = String::from_utf8_lossy(&line[..line.len().min(80)]);
        assert_eq!(is_whole_value(line), is_json, "{shown}");
    }

    #[test]
    fn the_whole_grammar_is_checked_in_skipped_values() {
        for good in [
            "0",
            "-0",
            "12",
            "-1.5e+10",
            "1E5",
            "0.0",
            "1e400",
            "null",
            "true",
            "false",
            "\"\"",
            "[]",
            "{}",
            "[1,2]",
            "{\"a\":1,\"a\":[{}]}",
            " \t\r[ 1 , 2 ] ",
            "\"\\u00Ff\\/\\b\\f\\n\\r\\t\\\\\\\"\"",
            "\"\\ud83d\"",
            "[[[[]]],{\"\":{}}]",
            "\u{3000}7\u{a0}",
            "\"\u{7f}\"",
        ] {
            check(good.as_bytes(), true);
        }
        for bad in [
            "",
            " ",
            "01",
            "-",
            "+1",
            ".5",
            "1.",
            "1.e5",
            "1e",
            "1e+",
            "0x1",
            "NaN",
            "-Infinity",
            "00",
            "-01",
            "tru",
            "nulll",
            "True",
            "[",
            "]",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{a:1}",
            "{\"a\" 1}",
            "[1}",
            "{\"a\":1]",
            "1 2",
            "{}{}",
            "{} x",
            "\"",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\\U0041\"",
            "\"a\tb\"",
            "\"\u{1f}\"",
            "\"\\",
            "'a'",
            "\u{feff}{}",
            "[\u{a0}1]",
            "[1\u{b}]",
            "/**/1",
        ] {
            check(bad.as_bytes(), false);
        }
        check(b"\"\xff\xed\xa0\x80\"", true);
        check(b"[\xff]", false);
    }

    #[test]
    fn depth_costs_bits_not_stack() {
        const DEPTH: usize = 10_000_000;
        let mut line = vec![b'['; DEPTH];
        check(&line, false);
        line.resize(2 * DEPTH, b']');
        check(&line, true);
        line.pop();
        check(&line, false);

        let mut mixed = b"[{\"a\":".repeat(1_000);
        mixed.push(b'1');
        mixed.extend(b"}]".repeat(1_000));
        check(&mixed, true);
        mixed.truncate(mixed.len() - 2);
        mixed.extend(b"]}");
        check(&mixed, false);
    }
}
