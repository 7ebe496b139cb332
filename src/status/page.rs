//! Owns how a status looks to a person: a page of plain text, no escapes, no width to guess.

use super::Status;

/// The page, with a newline at its end.
#[must_use]
pub fn page(status: &Status) -> String {
    let mut page = Page(String::new());
    page.line("daemon", &daemon(status));
    page.line("root", &status.root.display().to_string());
    page.line("export", &export(status));
    page.line("as of", &status.as_of);
    if let Some(last_row_at) = &status.last_row_at {
        page.line("last row", last_row_at);
    }
    if let Some(fault) = &status.last_fault {
        let when = if fault.over {
            "over"
        } else {
            "reading stopped"
        };
        page.line("fault", &format!("{} ({when}): {}", fault.at, fault.what));
    }
    page.0.push('\n');
    let scored = &status.scored;
    page.figure("scored lines", scored.lines, "");
    page.figure("  exported", scored.exported, &shadows(status));
    page.figure("  firewalled", scored.firewalled, "");
    page.figure("  unknown category", scored.unknown_category, "");
    page.figure("  role", scored.role, "");
    page.figure("  blank text", scored.blank_text, "");
    page.figure("  waiting", scored.waiting, "for their evidence");
    page.figure("  dead letters", scored.dead_letters, "");
    page.figure("evidence lines", status.evidence.lines, "");
    page.figure("  dead letters", status.evidence.dead_letters, "");
    if !scored.balanced {
        page.0.push_str(
            "\nthe account of scored lines does not balance: a bug in distilld, please report it\n",
        );
    }
    page.0
}

struct Page(String);

impl Page {
    fn line(&mut self, label: &str, text: &str) {
        self.trimmed(&format!("{label:<9} {text}"));
    }

    fn figure(&mut self, label: &str, figure: u64, remark: &str) {
        let line = format!("{label:<18} {:>15}  {remark}", grouped(figure));
        self.trimmed(&line);
    }

    fn trimmed(&mut self, line: &str) {
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }
}

fn daemon(status: &Status) -> String {
    let Some(pid) = status.pid.filter(|_| status.running) else {
        return "not running".to_owned();
    };
    let fresh = match status.behind {
        Some(0) | None => "fresh".to_owned(),
        Some(behind) => format!("catching up, {} behind", grouped(behind)),
    };
    let watch = status
        .watch
        .as_ref()
        .map_or(String::new(), |watch| format!(", {watch}"));
    format!("running as process {pid}, {fresh}{watch}")
}

fn export(status: &Status) -> String {
    let export = &status.export;
    let unclaimed = match export.rows_unclaimed {
        0 => String::new(),
        rows => format!(", {} of them without a line in the sources", grouped(rows)),
    };
    format!(
        "{}: {} rows, {} bytes{unclaimed}",
        export.path.display(),
        grouped(export.rows),
        grouped(export.len_bytes)
    )
}

/// What has been said against exported rows since.
fn shadows(status: &Status) -> String {
    let said = [
        (status.export.superseded, "superseded"),
        (status.export.contradicted, "contradicted"),
    ];
    let said = said.iter().filter(|(rows, _)| *rows > 0);
    let said: Vec<_> = said
        .map(|(rows, what)| format!("{} {what}", grouped(*rows)))
        .collect();
    said.join(", ")
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Fault;

    #[test]
    fn digits_stand_in_groups_of_three() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(grouped(number), expected);
        }
    }

    #[test]
    fn a_page_says_what_is_wrong_and_keeps_quiet_of_what_is_not() {
        let mut status = Status::default();
        status.scored.balanced = true;
        let quiet = page(&status);
        for absent in ["fault", "superseded", "without a line", "balance", "\x1b"] {
            assert!(!quiet.contains(absent), "{quiet}");
        }
        status.scored.balanced = false;
        status.export.superseded = 1_234;
        status.last_fault = Some(Fault {
            at: "2026-05-02T03:04:05.678Z".into(),
            what: "no space".into(),
            over: false,
        });
        let page = page(&status);
        for present in [
            "1,234 superseded",
            "(reading stopped): no space",
            "does not balance",
        ] {
            assert!(page.contains(present), "{page}");
        }
        assert!(page.lines().all(|line| line == line.trim_end()), "{page}");
    }
}
