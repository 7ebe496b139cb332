//! Plain tables and number formatting for output on a terminal.

use comfy_table::{ContentArrangement, Table, presets};

/// Creates a table without rules, with two spaces between its columns.
pub(crate) fn plain_table() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Formats a table without spaces at the start and the end of its lines.
pub(crate) fn trim_table(table: &Table) -> String {
    let lines = table.to_string();
    let line = |line: &str| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned() + "\n";
    lines.lines().map(line).collect()
}

/// Formats a number with its digits in groups of three.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut thousands = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            thousands.push(',');
        }
        thousands.push(digit);
    }
    thousands
}
