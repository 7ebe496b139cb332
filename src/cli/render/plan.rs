//! Owns how a plan looks to a person.

use comfy_table::{Cell, CellAlignment};

use crate::console::table::{plain_table, thousands};
use crate::query::plan::{AffectedFile, Plan};

/// Renders the plan as text.
#[must_use]
pub fn page(plan: &Plan) -> String {
    let mut page = match plan.pairs {
        0 => "nothing to do: no day-file has changed\n".to_owned(),
        1 => "the next run reads 1 pair of day-files\n".to_owned(),
        pairs => format!(
            "the next run reads {} pairs of day-files\n",
            thousands(pairs)
        ),
    };
    let shown: Vec<usize> = (0..plan.total.changes().len())
        .filter(|n| {
            let mut all = plan.classes.values().map(|changes| changes.changes()[*n].1);
            all.any(|change| change != 0)
        })
        .collect();
    if !shown.is_empty() {
        page.push('\n');
        page.push_str(&table(plan, &shown));
    }
    for (what, concerned) in [
        ("would be read again from its start", &plan.read_again),
        ("would be skipped", &plan.skipped),
    ] {
        for AffectedFile {
            day_file,
            stream,
            reason,
        } in concerned
        {
            let day_file = day_file.escape_debug();
            page.push_str(&format!("\n{stream} {day_file} {what}: {reason}"));
        }
    }
    if !page.ends_with('\n') {
        page.push('\n');
    }
    page
}

/// One line a figure, one column a class; more classes than fit a screen are left to `--json`.
fn table(plan: &Plan, shown: &[usize]) -> String {
    const CLASSES_SHOWN: usize = 4;
    let mut table = plain_table();
    let few = plan.classes.len() <= CLASSES_SHOWN;
    let classes: Vec<_> = plan.classes.iter().filter(|_| few).collect();
    let mut head = vec![Cell::new("change"), Cell::new("all")];
    head.extend(
        classes
            .iter()
            .map(|(class, _)| Cell::new(class.escape_debug())),
    );
    table.set_header(head);
    for n in shown {
        let (name, total) = &plan.total.changes()[*n];
        let mut row = vec![Cell::new(name), Cell::new(signed(*total))];
        row.extend((classes.iter()).map(|(_, changes)| Cell::new(signed(changes.changes()[*n].1))));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    crate::console::table::trim_table(&table)
}

fn signed(change: i64) -> String {
    let sign = if change < 0 { "-" } else { "+" };
    match change {
        0 => "0".to_owned(),
        _ => format!("{sign}{}", thousands(change.unsigned_abs())),
    }
}
