//! Owns distilld-lake(5): the input of distilld. The page is converted from `examples/lake/README.md`, so that there is
//! one text. The converter knows the Markdown of that text only: headings, paragraphs, lists, tables and fenced code,
//! separated by blank lines, with names in backticks.

use std::io;

use clap_mangen::roff::{Inline, Roff, bold, roman};

use crate::cli::generate::Page;
use crate::cli::generate::man::{MANUAL, set, source};

const TEXT: &str = include_str!("../../../examples/lake/README.md");

/// Longer lines of code are folded. A page is 80 characters wide and its text is indented by 7.
const CODE_WIDTH: usize = 68;

/// Converts the complete text.
pub(super) fn page() -> io::Result<Page> {
    let mut roff = Roff::new();
    roff.control("TH", ["DISTILLD-LAKE", "5", "", &source(), MANUAL]);
    set(&mut roff);
    roff.control("SH", ["NAME"]);
    roff.text([roman(
        "distilld-lake - input of distilld, and the rows it gives",
    )]);
    roff.control("SH", ["DESCRIPTION"]);
    // The title of the text is the name of the page.
    for block in TEXT.split("\n\n").skip(1) {
        convert(&mut roff, block.trim());
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        bold("distilld"),
        roman("(1), "),
        bold("distilld-export"),
        roman("(1), "),
        bold("distilld-explain"),
        roman("(1), "),
        bold("distilld.toml"),
        roman("(5)"),
    ]);
    Ok(Page {
        path: "man/distilld-lake.5".to_owned(),
        bytes: ascii(&roff.render()).into_bytes(),
    })
}

/// Appends one block of the text.
fn convert(roff: &mut Roff, block: &str) {
    if let Some(heading) = block.strip_prefix("## ") {
        roff.control("SH", [heading.to_uppercase().as_str()]);
    } else if let Some(heading) = block.strip_prefix("### ") {
        roff.control("SS", [heading]);
    } else if block.starts_with("```") {
        code(roff, block);
    } else if block.starts_with('|') {
        table(roff, block);
    } else if let Some(items) = block.strip_prefix("- ") {
        for item in items.split("\n- ") {
            roff.control("IP", ["\\(bu", "2"]);
            roff.text(inlines(&item.replace("\n  ", "\n")));
        }
    } else {
        roff.control("PP", []);
        roff.text(inlines(block));
    }
}

/// Fenced lines, without their fences.
fn code(roff: &mut Roff, block: &str) {
    roff.control("PP", []);
    roff.control("nf", []);
    for line in block.lines().filter(|line| !line.starts_with("```")) {
        for part in folded(line) {
            roff.text([roman(part)]);
        }
    }
    roff.control("fi", []);
}

/// Splits a line that is too wide after a comma, or else after a space. The parts that follow the first are indented.
fn folded(line: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = line;
    let mut indent = "";
    while let Some((limit, _)) = rest.char_indices().nth(CODE_WIDTH) {
        let fitting = &rest[..limit];
        let end = fitting.rfind(',').or_else(|| fitting.rfind(' '));
        let (part, following) = rest.split_at(end.map_or(limit, |at| at + 1));
        parts.push(format!("{indent}{part}"));
        (rest, indent) = (following, "  ");
    }
    parts.push(format!("{indent}{rest}"));
    parts
}

/// Each row becomes a tagged paragraph: the first cell is the tag, the last one the text, those between are appended
/// with the headers of their columns.
fn table(roff: &mut Roff, block: &str) {
    let mut rows = block.lines().map(cells);
    let header = rows.next().unwrap_or_default();
    // The second line separates the header from the rows.
    for row in rows.skip(1) {
        let [tag, between @ .., text] = row.as_slice() else {
            continue;
        };
        // Without a width it would inherit that of the list before.
        roff.control("TP", ["7"]);
        roff.text(inlines(tag));
        let mut text = text.clone();
        for (name, cell) in header.iter().skip(1).zip(between) {
            text.push_str(&format!(" ({name}: {cell})"));
        }
        roff.text(inlines(&text));
    }
}

/// The cells of a line of a table. A bar inside a cell is escaped.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim_start_matches("| ").trim_end_matches(" |");
    let cells = line.split(" | ").map(|cell| cell.replace("\\|", "|"));
    cells.collect()
}

/// Names in backticks are bold.
fn inlines(text: &str) -> Vec<Inline> {
    let mut inlines = Vec::new();
    let mut is_name = false;
    for part in text.split('`') {
        if !part.is_empty() {
            inlines.push(if is_name { bold(part) } else { roman(part) });
        }
        is_name = !is_name;
    }
    inlines
}

/// Names each character that is not ASCII by its number: not every formatter reads UTF-8.
fn ascii(page: &str) -> String {
    let mut ascii = String::with_capacity(page.len());
    for character in page.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            ascii.push_str(&format!("\\[u{:04X}]", u32::from(character)));
        }
    }
    ascii
}
