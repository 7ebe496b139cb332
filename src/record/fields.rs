//! The values of a record's fields: their types, what `null` gives, and the names that keys have in each dialect.

use std::borrow::Cow;
use std::cell::Cell;

use crate::record::json::escape::Dialect;
use crate::record::json::scanner::{JsonError, Scanner};
use crate::record::json::text::JsonText;
use crate::record::json::utf8::decode_utf8;

/// Length of the longest field name that is read; longer keys need no decoding.
pub(super) const LONGEST_NAME: usize = "pathway_fingerprints_seen".len();

/// A list of strings, kept as a span of the line and read again when needed: a line of 16 MiB may hold millions.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonTexts<'a> {
    /// The list including its brackets; empty if it has no elements.
    list: &'a [u8],
}

impl<'a> JsonTexts<'a> {
    /// Returns whether the list has no elements.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Iterates over the strings in order; `null` is the empty string.
    pub fn iter(&self) -> impl Iterator<Item = JsonText<'a>> + use<'a> {
        let mut scanner = Scanner::new(self.list);
        std::iter::from_fn(move || {
            let _ = scanner.take(b'[') || scanner.take(b',');
            match scanner.peek() {
                Some(b'"') => scanner.string().ok(),
                _ => scanner.null().then_some(JsonText::EMPTY),
            }
        })
    }
}

/// The fault of a malformed line, of which nothing is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not JSON.
    #[error("not JSON at byte {at_byte}: {what}")]
    Syntax {
        /// Offset in the trimmed line.
        at_byte: usize,
        /// The fault.
        what: &'static str,
    },
    /// JSON, but neither an object nor `null`.
    #[error("neither an object nor null")]
    NotAnObject,
    /// A field that is read has the wrong type.
    #[error("field {field} is not {expected}")]
    WrongType {
        /// The field's name.
        field: &'static str,
        /// The expected type.
        expected: &'static str,
    },
    /// Longer than the limit; never held in memory.
    #[error("longer than {max_line_bytes} bytes")]
    TooLong {
        /// The limit, in bytes.
        max_line_bytes: u64,
    },
}

impl ParseError {
    /// Returns a short, stable name.
    pub fn code(&self) -> &'static str {
        match self {
            ParseError::Syntax { .. } => "syntax",
            ParseError::NotAnObject => "not-an-object",
            ParseError::WrongType { .. } => "wrong-type",
            ParseError::TooLong { .. } => "too-long",
        }
    }
}

impl From<JsonError> for ParseError {
    fn from(JsonError { at_byte, what }: JsonError) -> ParseError {
        ParseError::Syntax { at_byte, what }
    }
}

/// The rules by which a line is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'d> {
    dialect: Dialect,
    /// Set where the Go dialect may read the line in another way.
    differs: Option<&'d Cell<bool>>,
}

/// A value that a field may have before its key is read.
pub(super) trait Before: Default {
    /// Returns whether it is the default.
    fn is_default(&self) -> bool;
}

impl Before for JsonText<'_> {
    fn is_default(&self) -> bool {
        self.is_empty()
    }
}

impl Before for i64 {
    fn is_default(&self) -> bool {
        *self == 0
    }
}

impl Before for (JsonTexts<'_>, i64) {
    fn is_default(&self) -> bool {
        self.0.is_empty() && self.1 == 0
    }
}

impl Rules<'_> {
    /// Returns the rules of a dialect.
    pub(super) fn of(dialect: Dialect) -> Rules<'static> {
        Rules {
            dialect,
            differs: None,
        }
    }

    /// Returns the rules of the native dialect. Sets `differs` unless the Go dialect reads the line as they do.
    pub(super) fn comparing(differs: &Cell<bool>) -> Rules<'_> {
        Rules {
            dialect: Dialect::Native,
            differs: Some(differs),
        }
    }

    /// Returns the value that a field has before its key is read, and keeps if that is `null`.
    #[inline]
    pub(super) fn before<T: Before>(self, value: T) -> T {
        match self.dialect {
            Dialect::Native => {
                self.note_unless(|| value.is_default());
                T::default()
            }
            Dialect::Go => value,
        }
    }

    /// Returns the name that a key has: in the Go dialect in lower case, with the two other characters that Go takes for
    /// letters of ASCII.
    #[inline]
    pub(super) fn name<'n>(self, key: &'n [u8]) -> Cow<'n, [u8]> {
        match self.dialect {
            Dialect::Native => {
                self.note_unless(|| is_name_of_go(key));
                Cow::Borrowed(key)
            }
            Dialect::Go => Self::go_name(key),
        }
    }

    #[inline]
    fn note_unless(self, is_same: impl FnOnce() -> bool) {
        if let Some(differs) = self.differs
            && !is_same()
        {
            differs.set(true);
        }
    }

    fn go_name(key: &[u8]) -> Cow<'_, [u8]> {
        if is_name_of_go(key) {
            return Cow::Borrowed(key);
        }
        let folded = decode_utf8(key)
            .replace('\u{17f}', "s")
            .replace('\u{212a}', "k");
        Cow::Owned(folded.to_ascii_lowercase().into_bytes())
    }
}

/// Returns whether a key is its name in the Go dialect.
fn is_name_of_go(key: &[u8]) -> bool {
    let is_lower = |byte: &u8| byte.is_ascii() && !byte.is_ascii_uppercase();
    key.iter().all(is_lower)
}

/// Parses a whole line: `null`, or an object whose field values `field` consumes.
pub(super) fn record<'a>(
    line: &'a [u8],
    rules: Rules<'_>,
    mut field: impl FnMut(&mut Scanner<'a>, &[u8]) -> Result<(), ParseError>,
) -> Result<(), ParseError> {
    let mut scanner = Scanner::new(line);
    let is_record = match scanner.peek() {
        Some(b'{') => {
            scanner.object(LONGEST_NAME, |scanner, key| {
                field(scanner, &rules.name(key))
            })?;
            true
        }
        _ if scanner.null() => true,
        _ => {
            scanner.skip_value()?;
            false
        }
    };
    scanner.end()?;
    match is_record {
        true => Ok(()),
        false => Err(ParseError::NotAnObject),
    }
}

/// Parses an object or `null`.
pub(super) fn object<'a>(
    scanner: &mut Scanner<'a>,
    rules: Rules<'_>,
    name: &'static str,
    mut field: impl FnMut(&mut Scanner<'a>, &[u8]) -> Result<(), ParseError>,
) -> Result<(), ParseError> {
    match scanner.peek() {
        Some(b'{') => scanner.object(LONGEST_NAME, |scanner, key| {
            field(scanner, &rules.name(key))
        }),
        _ if scanner.null() => Ok(()),
        _ => Err(wrong_type(scanner, name, "an object")),
    }
}

/// Parses a string, or `null`, which is `before`.
pub(super) fn text<'a>(
    scanner: &mut Scanner<'a>,
    before: JsonText<'a>,
    field: &'static str,
) -> Result<JsonText<'a>, ParseError> {
    match scanner.peek() {
        Some(b'"') => Ok(scanner.string()?),
        _ if scanner.null() => Ok(before),
        _ => Err(wrong_type(scanner, field, "a string")),
    }
}

/// Parses a list of strings and `null`s, or `null`.
pub(super) fn texts<'a>(
    scanner: &mut Scanner<'a>,
    field: &'static str,
) -> Result<JsonTexts<'a>, ParseError> {
    let mut count = 0_u64;
    match scanner.peek() {
        Some(b'[') => {}
        _ if scanner.null() => return Ok(JsonTexts::default()),
        _ => return Err(wrong_type(scanner, field, "a list of strings")),
    }
    let start = scanner.at();
    scanner.array(|scanner| {
        count += 1;
        text(scanner, JsonText::EMPTY, field).map(drop)
    })?;
    Ok(match count {
        0 => JsonTexts::default(),
        _ => JsonTexts {
            list: scanner.span(start, scanner.at()),
        },
    })
}

/// Parses a 64-bit integer, or `null`, which is `before`.
pub(super) fn integer(
    scanner: &mut Scanner<'_>,
    before: i64,
    field: &'static str,
) -> Result<i64, ParseError> {
    const EXPECTED: &str = "an integer of 64 bits";
    match scanner.peek() {
        Some(b'-' | b'0'..=b'9') => scanner.number()?.as_i64().ok_or(ParseError::WrongType {
            field,
            expected: EXPECTED,
        }),
        _ if scanner.null() => Ok(before),
        _ => Err(wrong_type(scanner, field, EXPECTED)),
    }
}

/// Returns the fault of a value that has the wrong type, or is no value at all.
fn wrong_type(
    scanner: &mut Scanner<'_>,
    field: &'static str,
    expected: &'static str,
) -> ParseError {
    match scanner.skip_value() {
        Ok(()) => ParseError::WrongType { field, expected },
        Err(syntax) => syntax.into(),
    }
}
