//! Finds the comments and texts in a Rust file.

/// A comment or string literal, without code.
#[derive(Debug)]
pub struct Prose {
    /// The line of its start, from 1.
    pub line: usize,
    /// Its text; of code, only the delimiters remain.
    pub text: String,
}

/// Returns the comments of a Rust file, and its string literals that contain a space. Consecutive line comments are
/// one text.
pub fn prose_of(rust: &str) -> Vec<Prose> {
    let mut prose: Vec<Prose> = Vec::new();
    let (mut line, mut comment_end, mut starts_line) = (1, 0, true);
    let mut rest = rust;
    while !rest.is_empty() {
        let (len, text) = next_token(rest);
        let token = &rest[..len];
        if let Some(text) = text {
            let is_line_comment = starts_line && token.starts_with("//");
            match prose.last_mut() {
                Some(last) if is_line_comment && comment_end + 1 == line => {
                    last.text += " ";
                    last.text += &text;
                }
                _ => prose.push(Prose { line, text }),
            }
            comment_end = if is_line_comment { line } else { 0 };
        }
        starts_line = token == "\n" || starts_line && token.trim().is_empty();
        line += token.matches('\n').count();
        rest = &rest[len..];
    }
    for Prose { text, .. } in &mut prose {
        *text = without_code(text);
    }
    prose
}

/// Returns the length of the token at the start of `rest`, and its text if it is prose.
fn next_token(rest: &str) -> (usize, Option<String>) {
    if rest.starts_with("//") {
        let len = rest.find('\n').unwrap_or(rest.len());
        let text = rest[..len].trim_start_matches('/').trim_start_matches('!');
        return (len, Some(text.trim().to_owned()));
    }
    if rest.starts_with("/*") {
        let len = rest.find("*/").map_or(rest.len(), |at| at + 2);
        return (len, Some(rest[..len].to_owned()));
    }
    if let Some(hashes) = raw_string_hashes(rest) {
        let end = format!("\"{}", "#".repeat(hashes));
        let start = rest.find('"').map_or(rest.len(), |at| at + 1);
        let body = rest[start..].find(&end).unwrap_or(rest.len() - start);
        let text = &rest[start..start + body];
        let len = (start + body + end.len()).min(rest.len());
        return (len, text.contains(' ').then(|| text.to_owned()));
    }
    match rest.as_bytes()[0] {
        b'"' => string_literal(rest),
        b'\'' => (char_literal_len(rest), None),
        byte if is_word_byte(byte) => {
            let len = rest.bytes().take_while(|byte| is_word_byte(*byte)).count();
            (len, None)
        }
        _ => (rest.chars().next().map_or(1, char::len_utf8), None),
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Returns the number of hashes of the raw string literal at the start of `rest`, if there is one.
fn raw_string_hashes(rest: &str) -> Option<usize> {
    let quoted = ["r", "br", "cr"].into_iter().find_map(|prefix| {
        let rest = rest.strip_prefix(prefix)?;
        rest.starts_with(['"', '#']).then_some(rest)
    })?;
    let hashes = quoted.bytes().take_while(|byte| *byte == b'#').count();
    quoted[hashes..].starts_with('"').then_some(hashes)
}

/// Returns the length of a string literal, and its text if that has a space. Each escape is a space.
fn string_literal(rest: &str) -> (usize, Option<String>) {
    let mut text = String::new();
    let mut has_space = false;
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (at + 1, has_space.then_some(text)),
            '\\' => {
                chars.next();
                text.push(' ');
            }
            _ => {
                has_space |= c == ' ';
                text.push(c);
            }
        }
    }
    (rest.len(), has_space.then_some(text))
}

/// Returns the length of a character literal; 1 for the quote of a lifetime.
fn char_literal_len(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(1, |at| at + 4),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

/// Drops code between backticks, and format arguments, for which `{}` remains.
fn without_code(text: &str) -> String {
    let prose: Vec<&str> = text.split('`').step_by(2).collect();
    let mut pieces = prose.join(" ` ");
    let mut from = 0;
    while let Some(open) = pieces[from..].find('{').map(|at| from + at) {
        let Some(close) = pieces[open..].find('}').map(|at| open + at) else {
            break;
        };
        let (name, _) = pieces[open + 1..close]
            .split_once(':')
            .unwrap_or((&pieces[open + 1..close], ""));
        if name.bytes().all(|byte| is_word_byte(byte) || byte == b'.') {
            pieces.replace_range(open + 1..close, "");
        }
        from = open + 1;
    }
    pieces
}
