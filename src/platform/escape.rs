//! Text from file names and records, made safe for each place where a person reads it. A terminal acts on control
//! characters, a line end begins another line of a log, and marks of the writing direction or of no width make a line read
//! as another one. All text reaches stdout, stderr, the log and the service manager through this file: `tests/suite/tidy.rs`
//! lists the places that write.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::{self, Display, Formatter, Write as _};
use std::os::unix::ffi::OsStrExt as _;

/// Displays a text for a terminal or in a line of the log, with everything escaped that is unsafe there.
#[derive(Debug, Clone, Copy)]
pub struct Printable<'a>(pub &'a str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_unsafe(c) {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Returns whether a character must not reach a terminal or a line as it is.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Returns the bytes of a record as [`Printable`], with each byte that is not UTF-8 as a number.
#[must_use]
pub fn printable_bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        // Writing to a string cannot fail.
        let _ = write!(shown, "{}", Printable(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// Returns one word of a command that is shown to be typed: a shell passes on exactly these bytes, and the word has no
/// backtick, between which texts have their commands.
#[must_use]
pub fn shell_word(word: &(impl AsRef<OsStr> + ?Sized)) -> String {
    let bytes = word.as_ref().as_bytes();
    let is_plain = |c: char| c.is_alphanumeric() || "_-./=+@%,:".contains(c);
    let is_odd = |c| is_unsafe(c) || c == '`';
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && text.chars().all(is_plain) => text.to_owned(),
        Ok(text) if !text.chars().any(is_odd) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let mut quoted = String::from("$'");
            for chunk in bytes.utf8_chunks() {
                for c in chunk.valid().chars() {
                    match c {
                        '\'' | '\\' => quoted.extend(['\\', c]),
                        c if is_odd(c) => {
                            push_bytes(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut quoted)
                        }
                        c => quoted.push(c),
                    }
                }
                push_bytes(chunk.invalid(), &mut quoted);
            }
            quoted + "'"
        }
    }
}

/// Adds bytes as three octal digits each: a shell could take more hexadecimal digits than two for one byte.
fn push_bytes(bytes: &[u8], quoted: &mut String) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(quoted, "\\{byte:03o}");
    }
}

/// Returns JSON of the same value in which everything that is unsafe is escaped. In JSON it occurs in strings alone.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    replaced(text, |c, escaped| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    })
}

/// Returns the text of `/metrics` with everything escaped that is unsafe. It occurs in the values of labels alone, in which
/// a backslash is written twice.
#[must_use]
pub fn metrics(text: &str) -> Cow<'_, str> {
    replaced(text, |c, escaped| {
        escaped.push('\\');
        escaped.extend(c.escape_unicode());
    })
}

/// Returns a text of whole lines with each unsafe character replaced.
fn replaced(text: &str, mut replace: impl FnMut(char, &mut String)) -> Cow<'_, str> {
    let is_foreign = |c: char| is_unsafe(c) && c != '\n';
    if !text.contains(is_foreign) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        match is_foreign(c) {
            true => replace(c, &mut escaped),
            false => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Returns a text of this program for a terminal: its own lines and colours stay, and anything unsafe that is still in it
/// is escaped.
#[must_use]
pub fn styled(text: &str) -> Cow<'_, str> {
    if !text.contains(|c: char| is_unsafe(c) && c != '\n') {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(at) = rest.find(is_unsafe) {
        let (safe, from) = rest.split_at(at);
        shown.push_str(safe);
        let kept = match from.starts_with('\n') {
            true => 1,
            false => style_len(from),
        };
        if kept > 0 {
            shown.push_str(&from[..kept]);
            rest = &from[kept..];
            continue;
        }
        let c = from.chars().next().unwrap_or_default();
        shown.extend(c.escape_unicode());
        rest = &from[c.len_utf8()..];
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

/// Returns the length of the change of colour that a text begins with, `ESC [ NUMBERS m`, or 0.
fn style_len(text: &str) -> usize {
    let Some(numbers) = text.strip_prefix("\x1b[") else {
        return 0;
    };
    let end = numbers.find(|c: char| !c.is_ascii_digit() && c != ';');
    match end {
        Some(end) if numbers[end..].starts_with('m') => "\x1b[".len() + end + 1,
        _ => 0,
    }
}

/// Returns a line for the status of the service manager: after a line end it would take the rest for a message of its own.
#[must_use]
pub fn status_line(text: &str, bytes_max: usize) -> String {
    let mut line = String::new();
    for c in text.chars() {
        let shown = match c {
            _ if c.is_control() => " ".to_owned(),
            _ if is_unsafe(c) => c.escape_unicode().to_string(),
            _ => c.to_string(),
        };
        if line.len() + shown.len() > bytes_max {
            break;
        }
        line.push_str(&shown);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}]0;t\u{7}\n\u{9b}1m\u{202e}\u{200f}\u{61c} é🦀";

    /// A real shell reads each byte, and every one after each other kind of byte, from the word that is shown.
    #[test]
    fn a_shell_passes_on_exactly_the_bytes_of_a_word() {
        let mut words: Vec<Vec<u8>> = (1..=255).map(|byte| vec![b'a', byte, b'1']).collect();
        words.extend(
            [
                &b""[..],
                b"plain.jsonl",
                b"-x",
                b"a'b; $(c) `d` \"e\" \\ ! # ~ *",
                b"\xe2\x80 \n 7",
            ]
            .map(<[u8]>::to_vec),
        );
        words.push(HOSTILE.into());
        for word in words {
            let shown = shell_word(OsStr::from_bytes(&word));
            assert!(
                !shown.contains('`') && !shown.chars().any(is_unsafe),
                "{shown:?}"
            );
            let script = format!("printf %s {shown}");
            let output = std::process::Command::new("bash")
                .args(["-c", &script])
                .output();
            let output = output.unwrap();
            assert!(output.status.success(), "{shown:?}: {output:?}");
            assert_eq!(output.stdout, word, "{shown:?}");
        }
        assert_eq!(shell_word("2026/01/02/a b.jsonl"), "'2026/01/02/a b.jsonl'");
    }

    #[test]
    fn control_characters_and_marks_are_escaped() {
        let shown = Printable(HOSTILE).to_string();
        let expected = "a\\u{1b}]0;t\\u{7}\\u{a}\\u{9b}1m\\u{202e}\\u{200f}\\u{61c} é🦀";
        assert_eq!(shown, expected);
        let shown = printable_bytes(b"{\"a\":\"\x1b]0;title\x07 \xc3\xa4 \xff\xe2\x80\xae\t\"}");
        let expected = "{\"a\":\"\\u{1b}]0;title\\u{7} \u{e4} \\xff\\u{202e}\\u{9}\"}";
        assert_eq!(shown, expected);
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let text = serde_json::to_string(&[HOSTILE, "\u{7f}\u{e0041}"]).unwrap() + "\n";
        let escaped = json(&text);
        assert!(!escaped.trim_end().contains(is_unsafe), "{escaped}");
        let value: serde_json::Value = serde_json::from_str(&escaped).unwrap();
        assert_eq!(value, serde_json::json!([HOSTILE, "\u{7f}\u{e0041}"]));
        assert!(matches!(json("[\"é\"]\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_label_is_escaped_once_more() {
        let text = "a{b=\"\u{1b}\u{202e}é\"} 1\n";
        assert_eq!(metrics(text), "a{b=\"\\\\u{1b}\\\\u{202e}é\"} 1\n");
    }

    #[test]
    fn own_lines_and_colours_stay_and_other_commands_do_not() {
        let own = "\x1b[1;31mred\x1b[0m\nnext\n";
        assert_eq!(styled(own), own);
        let shown = styled("\x1b[2J\x1b[1;5H\x1b]0;t\x07\x1b[31\u{9b}2J\r\x1b[0m");
        let expected = "\\u{1b}[2J\\u{1b}[1;5H\\u{1b}]0;t\\u{7}\\u{1b}[31\\u{9b}2J\\u{d}\x1b[0m";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_status_is_one_line_of_bounded_length() {
        assert_eq!(
            status_line("1\nSTOPPING=1\r\u{202e}", 99),
            "1 STOPPING=1 \\u{202e}"
        );
        assert_eq!(status_line(&"ü".repeat(9), 7), "ü".repeat(3));
        assert_eq!(status_line("12345\u{202e}", 8), "12345");
    }
}
