//! Owns how an explanation, and the list of contradicted rows, look to a person. What comes from a record is escaped: it
//! is never a command to the terminal.

use std::fmt::Write as _;

use crate::console::table::{plain_table, thousands, trim_table};
use crate::query::explain::{ContradictedRow, Contradictions, Explanation, LineExplanation};

/// The answer as text, with a newline at its end.
#[must_use]
pub fn page(explanation: &Explanation) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_page(&mut page, explanation);
    page
}

fn write_page(page: &mut String, explanation: &Explanation) -> std::fmt::Result {
    writeln!(page, "run {:?}", explanation.run_id)?;
    if !explanation.known {
        writeln!(page, "  no line that was read concerns it")?;
        if explanation.near.is_empty() {
            return writeln!(page, "  and none of the newest runs has an id like it");
        }
        writeln!(page, "  ids like it, of the newest runs:")?;
        return (explanation.near.iter()).try_for_each(|id| writeln!(page, "    {id:?}"));
    }
    for line in &explanation.lines {
        write_line(page, line)?;
    }
    Ok(())
}

fn write_line(page: &mut String, line: &LineExplanation) -> std::fmt::Result {
    let dir = match line.stream.as_str() {
        "evidence" => "data/evidence",
        _ => "data/scored-runs",
    };
    let number = line.line.map_or_else(|| "?".to_owned(), thousands);
    writeln!(
        page,
        "\n{}, line {number}",
        format!("{dir}/{}", line.day_file).escape_debug()
    )?;
    writeln!(
        page,
        "  bytes     {} to {}",
        thousands(line.offset),
        thousands(line.offset.saturating_add(line.len_bytes))
    )?;
    writeln!(page, "  verdict   {}", line.verdict.replace('_', " "))?;
    writeln!(page, "  rule      {}", line.rule)?;
    if let Some(value) = &line.value {
        writeln!(page, "  value     {value:?}")?;
    }
    if let Some(row) = &line.row {
        match row.len_bytes {
            Some(len_bytes) => writeln!(
                page,
                "  row       bytes {} to {} of the export",
                thousands(row.offset),
                thousands(row.offset.saturating_add(len_bytes))
            )?,
            None => writeln!(
                page,
                "  row       byte {} of the export, where it cannot be read",
                thousands(row.offset)
            )?,
        }
    }
    if let (Some(since), Some(waits_for)) = (&line.waiting_since, &line.waits_for) {
        let waits_for = waits_for.escape_debug();
        writeln!(
            page,
            "  waits     since {since} for evidence in data/evidence/{waits_for}"
        )?;
    }
    let notes = [
        (
            line.superseded,
            "evidence that differs came after the row was written; the row stays until a rebuild",
        ),
        (
            line.contradicted,
            "the run was rejected after the row was written; the row stays in the append-only export",
        ),
        (
            line.changed_since,
            "the line is not what was read of it; its day-file will be read again",
        ),
    ];
    for (_, note) in notes.iter().filter(|(holds, _)| *holds) {
        writeln!(page, "  note      {note}")?;
    }
    Ok(())
}

/// The list as text, with a newline at its end.
#[must_use]
pub fn list(page: &Contradictions) -> String {
    if page.counted == 0 {
        return "no row is contradicted\n".to_owned();
    }
    let mut table = plain_table();
    table.set_header([
        "run",
        "day-file",
        "line at",
        "refused at",
        "as",
        "row at",
        "bytes",
    ]);
    for row in &page.rows {
        table.add_row(cells(row));
    }
    let mut list = if page.rows.is_empty() {
        String::new()
    } else {
        trim_table(&table)
    };
    if page.not_found > 0 {
        let count = thousands(page.not_found);
        list += &format!(
            "{count} more of these day-files: counted, but no line that can be read leads to them\n"
        );
    }
    list
}

fn cells(row: &ContradictedRow) -> [String; 7] {
    let number = |number: Option<u64>, none: &str| {
        number.map_or_else(|| none.to_owned(), |number| number.to_string())
    };
    [
        row.run_id
            .as_ref()
            .map_or_else(|| "?".to_owned(), |id| format!("{id:?}")),
        row.day_file.escape_debug().to_string(),
        number(row.line_offset, "rewritten"),
        number(row.refused_offset, "?"),
        row.category.as_ref().map_or_else(
            || "?".to_owned(),
            |category| category.escape_debug().to_string(),
        ),
        row.row.offset.to_string(),
        number(row.row.len_bytes, "?"),
    ]
}
