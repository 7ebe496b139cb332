//! Owns how an explanation, and the list of retracted rows, look to a person. What comes from a record is escaped: it
//! is never a command to the terminal.

use std::fmt::Write as _;

use crate::console::table::{plain_table, thousands, trim_table};
use crate::query::explain::{
    Explanation, LineExplanation, RetractedRow, RetractedRows, Retraction, RowRange,
};
use crate::query::retract::StandingOrder;
use crate::record::ledger::Cause;

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
    for order in &explanation.orders {
        writeln!(page, "  order     {}", text_of(order))?;
    }
    for line in &explanation.lines {
        write_line(page, line)?;
    }
    for row in &explanation.retracted {
        writeln!(page, "\na row that no line in the sources has any more")?;
        write_row(page, &row.row)?;
        writeln!(page, "  retracted {}", reason_of(&row.retraction))?;
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
        write_row(page, row)?;
    }
    write_standing(page, line)?;
    if let (Some(since), Some(waits_for)) = (&line.waiting_since, &line.waits_for) {
        let waits_for = waits_for.escape_debug();
        writeln!(
            page,
            "  waits     since {since} for evidence in data/evidence/{waits_for}"
        )?;
    }
    for other in &line.evidence_elsewhere {
        let other = other.escape_debug();
        writeln!(
            page,
            "  note      evidence of the run is in data/evidence/{other}, which is not its pair"
        )?;
    }
    write_notes(page, line)
}

fn write_row(page: &mut String, row: &RowRange) -> std::fmt::Result {
    match row.len_bytes {
        Some(len_bytes) => writeln!(
            page,
            "  row       bytes {} to {} of the export",
            thousands(row.offset),
            thousands(row.offset.saturating_add(len_bytes))
        ),
        None => writeln!(
            page,
            "  row       byte {} of the export, where it cannot be read",
            thousands(row.offset)
        ),
    }
}

fn write_notes(page: &mut String, line: &LineExplanation) -> std::fmt::Result {
    let notes = [
        (
            line.superseded,
            "evidence that differs came after the row was written; the row stays until a rebuild",
        ),
        (
            line.contradicted,
            "a later line of the run overrules the row; the row stays in the append-only export",
        ),
        (
            line.changed_since,
            "the line is not what was read of it; its day-file will be read again",
        ),
        (
            line.deleted,
            "its day-file is deleted; what was read of it is kept",
        ),
    ];
    for (_, note) in notes.iter().filter(|(holds, _)| *holds) {
        writeln!(page, "  note      {note}")?;
    }
    Ok(())
}

/// Writes whether the row of a line is effective.
fn write_standing(page: &mut String, line: &LineExplanation) -> std::fmt::Result {
    match (&line.retraction, line.effective) {
        (Some(retraction), _) => writeln!(page, "  retracted {}", reason_of(retraction))?,
        (None, Some(_)) => writeln!(page, "  effective yes")?,
        (None, None) if line.row.is_some() => writeln!(
            page,
            "  effective unknown: the retraction ledger cannot be read"
        )?,
        (None, None) => {}
    }
    Ok(())
}

fn text_of(order: &StandingOrder) -> String {
    let limit = match order.day_file.as_str() {
        "" => "in all day-files".to_owned(),
        day_file => format!("in {}", day_file.escape_debug()),
    };
    format!("since {}, {limit}: {:?}", order.at, order.reason)
}

fn reason_of(retraction: &Retraction) -> String {
    let at = &retraction.at;
    if retraction.cause == Cause::Operator.code() {
        return format!("since {at}, by an order: {:?}", retraction.reason);
    }
    let cause = retraction.cause.replace('_', " ");
    let Some(offset) = retraction.line_offset.map(thousands) else {
        return format!("since {at}, {cause}; the ledger that named the line is lost");
    };
    let category = retraction.category.as_ref();
    let category = category.map_or_else(String::new, |category| format!(", category {category:?}"));
    format!("since {at}, {cause} by the line at byte {offset}{category}")
}

/// The list as text, with a newline at its end.
#[must_use]
pub fn list(page: &RetractedRows) -> String {
    if page.counted == 0 {
        return "no row is retracted\n".to_owned();
    }
    if page.rows.is_empty() {
        return String::new();
    }
    let mut table = plain_table();
    table.set_header([
        "run", "cause", "day-file", "line at", "since", "row at", "bytes",
    ]);
    for row in &page.rows {
        table.add_row(cells(row));
    }
    trim_table(&table)
}

fn cells(row: &RetractedRow) -> [String; 7] {
    let number =
        |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    let retraction = &row.retraction;
    [
        match &row.run_id {
            Some(run_id) => format!("{run_id:?}"),
            None => "(longer than 4 KiB)".to_owned(),
        },
        retraction.cause.replace('_', " "),
        retraction.day_file.escape_debug().to_string(),
        number(retraction.line_offset),
        retraction.at.clone(),
        row.row.offset.to_string(),
        number(row.row.len_bytes),
    ]
}
