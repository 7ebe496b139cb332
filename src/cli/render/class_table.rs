//! Renders the account by source class as a table that fits the width of the terminal.

use comfy_table::{Cell, CellAlignment};

use crate::console::table::{plain_table, thousands, trim_table};
use crate::pair::verdict::VerdictKind;
use crate::query::status::{ClassStatus, Status};

/// A column of the table, or a line of the transposed one.
struct Column {
    /// The head in one line.
    head: String,
    /// The head in two lines, for a narrow terminal.
    stacked_head: String,
    /// The value of a class.
    value: Box<dyn Fn(&ClassStatus) -> u64>,
    /// Whether the column is shown even if all its values are 0.
    is_permanent: bool,
}

impl Column {
    fn new(
        head: &str,
        stacked_head: &str,
        is_permanent: bool,
        value: impl Fn(&ClassStatus) -> u64 + 'static,
    ) -> Self {
        Self {
            head: head.to_owned(),
            stacked_head: stacked_head.to_owned(),
            value: Box::new(value),
            is_permanent,
        }
    }

    fn of_verdict(verdict: VerdictKind) -> Self {
        let head = verdict.title();
        let stacked_head = match verdict {
            VerdictKind::Firewalled => "fire-\nwalled".to_owned(),
            VerdictKind::UnknownCategory => "unknown\ncateg.".to_owned(),
            VerdictKind::Malformed => "mal-\nformed".to_owned(),
            _ => head.replace(' ', "\n"),
        };
        let is_permanent = matches!(
            verdict,
            VerdictKind::Exported
                | VerdictKind::Firewalled
                | VerdictKind::Waiting
                | VerdictKind::Malformed
        );
        Self::new(&head, &stacked_head, is_permanent, move |class| {
            class.verdicts[verdict]
        })
    }
}

fn columns() -> Vec<Column> {
    let mut columns = vec![Column::new("lines", "lines", true, |class| class.lines)];
    columns.extend(VerdictKind::ALL.map(Column::of_verdict));
    // Not a verdict: the verdicts of a row add up to its scored lines.
    columns.push(Column::new(
        "malformed evidence",
        "malf.\nevid.",
        false,
        |class| class.evidence_malformed,
    ));
    columns.push(Column::new("superseded", "super-\nseded", false, |class| {
        class.superseded
    }));
    columns.push(Column::new(
        "contradicted",
        "contra-\ndicted",
        false,
        |class| class.contradicted,
    ));
    columns
}

/// Returns one line per source class and a sum, without columns that are empty. Heads take two lines, and the table is
/// transposed, if `width` requires it.
pub(super) fn classes(status: &Status, width: usize) -> String {
    let mut all = status.classes.clone();
    all.push(total(status));
    let columns = shown_columns(&all);
    for (is_stacked, class_len) in [(false, 40), (true, 40), (true, 16)] {
        let text = table(&all, &columns, is_stacked, class_len);
        if widest(&text) <= width {
            return text;
        }
    }
    transposed_tables(&all, &columns, width)
}

/// Returns the length of the longest line, characters.
pub(super) fn widest(text: &str) -> usize {
    let lines = text.lines().map(|line| line.chars().count());
    lines.max().unwrap_or(0)
}

fn table(all: &[ClassStatus], columns: &[Column], is_stacked: bool, class_len: usize) -> String {
    let mut table = plain_table();
    let mut heads = vec![Cell::new("source class")];
    heads.extend(columns.iter().map(|column| {
        let head = if is_stacked {
            &column.stacked_head
        } else {
            &column.head
        };
        right(head)
    }));
    table.set_header(heads);
    for class in all {
        let mut row = vec![Cell::new(shortened(&class.class, class_len))];
        row.extend(columns.iter().map(|column| value_cell(column, class)));
        table.add_row(row);
    }
    trim_table(&table)
}

/// Returns tables with one line per figure and one column per class, as many classes in each as fit.
fn transposed_tables(all: &[ClassStatus], columns: &[Column], width: usize) -> String {
    let mut rest = all;
    let mut text = String::new();
    while !rest.is_empty() {
        let mut taken = 1;
        while taken < rest.len()
            && widest(&transposed_table(columns, &rest[..=taken], width)) <= width
        {
            taken += 1;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&transposed_table(columns, &rest[..taken], width));
        rest = &rest[taken..];
    }
    text
}

fn transposed_table(columns: &[Column], classes: &[ClassStatus], width: usize) -> String {
    let class_len = width.saturating_sub(20).clamp(8, 20);
    let mut table = plain_table();
    let mut heads = vec![Cell::new("source class")];
    heads.extend((classes.iter()).map(|class| right(&shortened(&class.class, class_len))));
    table.set_header(heads);
    for column in columns {
        let mut row = vec![Cell::new(&column.head)];
        row.extend(classes.iter().map(|class| value_cell(column, class)));
        table.add_row(row);
    }
    trim_table(&table)
}

fn value_cell(column: &Column, class: &ClassStatus) -> Cell {
    right(&thousands((column.value)(class)))
}

fn right(text: &str) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn shown_columns(all: &[ClassStatus]) -> Vec<Column> {
    let mut shown = columns();
    shown.retain(|column| column.is_permanent || all.iter().any(|class| (column.value)(class) > 0));
    shown
}

/// Returns the sum over all classes, named `all`.
fn total(status: &Status) -> ClassStatus {
    ClassStatus {
        class: "all".to_owned(),
        lines: status.scored.lines,
        verdicts: status.scored.verdicts,
        superseded: status.export.superseded,
        contradicted: status.export.contradicted,
        evidence_lines: status.evidence.lines,
        evidence_malformed: status.evidence.malformed,
    }
}

/// Returns a class name of at most `len` characters. Control characters are escaped, the end is cut off.
fn shortened(class: &str, len: usize) -> String {
    let shown = class.escape_debug().to_string();
    if shown.chars().count() <= len {
        return shown;
    }
    let begin: String = shown.chars().take(len.saturating_sub(1)).collect();
    format!("{begin}\u{2026}")
}
