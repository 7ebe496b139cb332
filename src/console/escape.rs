//! Text from file names and records, made safe to print: a terminal acts on control characters, and an override of the
//! writing direction can make a line read as another one.

use std::fmt::{self, Display, Formatter, Write as _};

/// Displays a text with its control characters and direction overrides escaped.
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

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_direction_overrides_are_escaped() {
        let text = "a\u{1b}]0;t\u{7}\n\u{9b}1m\u{202e} é🦀";
        let shown = Printable(text).to_string();
        assert_eq!(shown, "a\\u{1b}]0;t\\u{7}\\u{a}\\u{9b}1m\\u{202e} é🦀");
    }
}
