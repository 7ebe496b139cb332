//! The table of source classes on the status page, with its columns shortened or transposed to fit the terminal.

use crate::cli::render::status::*;
use crate::console::table::{plain_table, thousands, trim_table};
use crate::query::status::{ClassStatus, Status};
use comfy_table::{Cell, CellAlignment};

/// A column: its head in one line and in two, its figure, and whether it is always shown.
pub(crate) type Column = (&'static str, &'static str, fn(&ClassStatus) -> u64, bool);

/// Returns the malformed lines of both streams.
pub(crate) fn dead_letters(class: &ClassStatus) -> u64 {
    class
        .dead_letters
        .saturating_add(class.evidence_dead_letters)
}

/// Renders one line per source class and their sum; empty columns are omitted. Heads have one line where the width
/// allows it.
pub(crate) fn classes(status: &Status, width: usize) -> String {
    let mut all = status.classes.clone();
    all.push(total(status));
    for (stacked, class_len) in [(false, 40), (true, 40), (true, 16)] {
        let text = table(&all, stacked, class_len);
        if widest(&text) <= width {
            return text;
        }
    }
    turned(&all, width)
}

pub(crate) fn widest(text: &str) -> usize {
    let lines = text.lines().map(|line| line.chars().count());
    lines.max().unwrap_or(0)
}

pub(super) fn table(all: &[ClassStatus], stacked: bool, class_len: usize) -> String {
    let shown = shown_columns(all);
    let mut table = plain_table();
    let mut heads = vec![Cell::new("source class")];
    let heads_of = shown.iter().map(|(wide, narrow, ..)| {
        let head = if stacked { narrow } else { wide };
        Cell::new(head).set_alignment(CellAlignment::Right)
    });
    heads.extend(heads_of);
    table.set_header(heads);
    for class in all {
        let mut row = vec![Cell::new(shortened(&class.class, class_len))];
        row.extend(shown.iter().map(|(_, _, figure, _)| {
            Cell::new(thousands(figure(class))).set_alignment(CellAlignment::Right)
        }));
        table.add_row(row);
    }
    trim_table(&table)
}

/// Renders one line per figure and one column per class, for a terminal that is too narrow for one line per class.
pub(crate) fn turned(all: &[ClassStatus], width: usize) -> String {
    let mut rest = all;
    let mut text = String::new();
    while !rest.is_empty() {
        let mut taken = 1;
        while taken < rest.len() && widest(&transposed_table(all, &rest[..=taken], width)) <= width
        {
            taken += 1;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&transposed_table(all, &rest[..taken], width));
        rest = &rest[taken..];
    }
    text
}

pub(crate) fn transposed_table(
    all: &[ClassStatus],
    classes: &[ClassStatus],
    width: usize,
) -> String {
    let class_len = width.saturating_sub(20).clamp(8, 20);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut table = plain_table();
    let mut heads = vec![Cell::new("source class")];
    heads.extend((classes.iter()).map(|class| right(shortened(&class.class, class_len))));
    table.set_header(heads);
    for (name, _, figure, _) in shown_columns(all) {
        let mut row = vec![Cell::new(name)];
        row.extend(classes.iter().map(|class| right(thousands(figure(class)))));
        table.add_row(row);
    }
    trim_table(&table)
}

pub(crate) fn shown_columns(all: &[ClassStatus]) -> Vec<&'static Column> {
    let shown = COLUMNS
        .iter()
        .filter(|(_, _, figure, always)| *always || all.iter().any(|class| figure(class) > 0));
    shown.collect()
}

pub(crate) fn total(status: &Status) -> ClassStatus {
    let (scored, export) = (&status.scored, &status.export);
    ClassStatus {
        class: "all".to_owned(),
        lines: scored.lines,
        exported: scored.exported,
        firewalled: scored.firewalled,
        unknown_category: scored.unknown_category,
        role: scored.role,
        blank_text: scored.blank_text,
        waiting: scored.waiting,
        dead_letters: scored.dead_letters,
        superseded: export.superseded,
        contradicted: export.contradicted,
        evidence_lines: status.evidence.lines,
        evidence_dead_letters: status.evidence.dead_letters,
    }
}

pub(crate) fn shortened(class: &str, len: usize) -> String {
    let shown = class.escape_debug().to_string();
    if shown.chars().count() <= len {
        return shown;
    }
    let begin: String = shown.chars().take(len.saturating_sub(1)).collect();
    format!("{begin}\u{2026}")
}
