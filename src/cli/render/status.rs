//! Renders a status for a terminal of a given width, with colours if the terminal has them. Text from file names and
//! records is escaped.

use crossterm::style::Stylize as _;

use crate::cli::render::class_table::classes;
use crate::console::table::thousands;
use crate::query::health::Health;
use crate::query::status::{Status, Unterminated};
use crate::record::timestamp::moment;

/// Size and capabilities of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Width, columns.
    pub width: usize,
    /// Whether it has colours.
    pub colour: bool,
}

/// Maximum number of waiting runs, faults and skipped files shown; `--json` has more.
const SHOWN_MAX: usize = 3;

/// Returns the status as text that ends with a newline.
#[must_use]
pub fn page(status: &Status, screen: TerminalSize) -> String {
    let mut page = Page {
        text: String::new(),
        screen,
    };
    page.head(status);
    page.text.push('\n');
    page.text.push_str(&classes(status, screen.width));
    page.waiting(status);
    if !status.scored.balanced {
        let what =
            "the account of scored lines does not balance: a bug in distilld, please report it";
        page.warn("account", what);
    }
    page.text
}

/// Returns the health verdict and its fix as the last lines of a page that is longer than the screen.
#[must_use]
pub fn verdict(status: &Status, screen: TerminalSize) -> String {
    let mut page = Page {
        text: "\n".to_owned(),
        screen,
    };
    page.health(status);
    page.text
}

struct Page {
    text: String,
    screen: TerminalSize,
}

/// Severity of a line.
#[derive(Clone, Copy)]
enum Tone {
    Plain,
    Good,
    Lagging,
    Bad,
}

impl Page {
    fn head(&mut self, status: &Status) {
        match status.pid.filter(|_| status.running) {
            None => self.line("daemon", "not running", Tone::Plain),
            Some(pid) => self.line("daemon", &format!("running as process {pid}"), Tone::Plain),
        }
        self.health(status);
        self.skipped(status);
        if let Some(watch) = &status.watch {
            self.line(
                "watch",
                &format!("{watch}{}", overflows(status)),
                Tone::Plain,
            );
        }
        if let Some(scanned) = &status.scanned_only
            && let Some(text) = scanned.describe()
        {
            let why = scanned.why.as_deref().unwrap_or_default().escape_debug();
            self.line("scans", &format!("{text}: {why}"), Tone::Plain);
        }
        if status.sampled_day_files > 0 {
            let sampled = counted(status.sampled_day_files, "day-file");
            let text = format!("{sampled} over 256 KiB compared by samples, whole by full scans");
            self.line("sampled", &text, Tone::Plain);
        }
        if let Some(text) = status.within_limit.describe() {
            self.line("too long", &text.escape_debug().to_string(), Tone::Plain);
        }
        self.line("root", &status.root.display().to_string(), Tone::Plain);
        let path = status.export.path.display().to_string();
        let path = path.escape_debug().to_string();
        self.line("export", &path, Tone::Plain);
        self.line("rows", &rows(status), Tone::Plain);
        self.retracted(status);
        if let Some(partial) = status.unterminated.filter(|partial| partial.lines > 0) {
            self.line("partial", &partial_lines(partial), Tone::Plain);
        }
        let last_row = match &status.last_row_at {
            Some(at) => format!("{}, last row {}", status.as_of, ago(&status.as_of, at)),
            None => status.as_of.clone(),
        };
        self.line("as of", &last_row, Tone::Plain);
        for fault in status.faults.iter().rev().take(SHOWN_MAX) {
            let (tone, when) = if fault.resolved {
                (Tone::Plain, "resolved")
            } else {
                (Tone::Bad, "reading stopped")
            };
            let what = fault.what.escape_debug();
            self.line("fault", &format!("{} ({when}): {what}", fault.at), tone);
        }
    }

    fn health(&mut self, status: &Status) {
        self.line(
            "health",
            &status.health.to_string(),
            tone(status.health.verdict),
        );
        if let Some(fix) = &status.health.fix {
            self.line("fix", fix, Tone::Plain);
        }
    }

    fn retracted(&mut self, status: &Status) {
        let (rows, orders) = (status.retractions.rows, status.retractions.orders);
        if rows > 0 || orders > 0 {
            let effective = thousands(status.export.rows.saturating_sub(rows));
            let (rows, orders) = (counted(rows, "row"), counted(orders, "standing order"));
            self.line(
                "retracted",
                &format!("{rows}, {orders}; {effective} rows are effective"),
                Tone::Plain,
            );
        }
    }

    fn skipped(&mut self, status: &Status) {
        for skipped in status.skipped.paths.iter().take(SHOWN_MAX) {
            let text = format!("{} ({})", skipped.path.escape_debug(), skipped.why);
            self.line("skipped", &text, Tone::Bad);
        }
    }

    fn waiting(&mut self, status: &Status) {
        if status.waiting_oldest.is_empty() {
            return;
        }
        self.text.push_str("\nwaiting longest\n");
        for run in status.waiting_oldest.iter().take(SHOWN_MAX) {
            let run_id = run.run_id.as_deref().unwrap_or("?");
            let line = format!(
                "  {:>9}  {:?} in {}, byte {}",
                age(&status.as_of, &run.since),
                run_id,
                run.day_file.escape_debug(),
                thousands(run.offset)
            );
            self.push_line(&line);
        }
    }

    fn warn(&mut self, label: &str, text: &str) {
        self.text.push('\n');
        self.line(label, text, Tone::Bad);
    }

    /// Writes a text after its label, wrapped at the width of the screen.
    fn line(&mut self, label: &str, text: &str, tone: Tone) {
        const LABEL_LEN: usize = 9;
        let room = self.screen.width.saturating_sub(LABEL_LEN + 1).max(20);
        let characters: Vec<char> = text.chars().collect();
        let mut from = 0;
        let mut label = label;
        while from < characters.len() || from == 0 {
            let to = break_at(&characters, from, room);
            let piece: String = characters[from..to].iter().collect();
            let piece = self.toned(piece.trim(), tone);
            self.push_line(&format!("{label:<LABEL_LEN$} {piece}"));
            (from, label) = (to, "");
            if characters.is_empty() {
                break;
            }
        }
    }

    fn toned(&self, text: &str, tone: Tone) -> String {
        match tone {
            Tone::Good if self.screen.colour => text.green().to_string(),
            Tone::Lagging if self.screen.colour => text.yellow().to_string(),
            Tone::Bad if self.screen.colour => text.red().to_string(),
            _ => text.to_owned(),
        }
    }

    fn push_line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}

/// Returns the end of a line that begins at `from`: after a space if there is one, so that words stay whole.
fn break_at(characters: &[char], from: usize, room: usize) -> usize {
    let end = from + room;
    if characters.len() <= end {
        return characters.len();
    }
    let space = characters[from..end].iter().rposition(|c| *c == ' ');
    space.filter(|at| *at > 0).map_or(end, |at| from + at + 1)
}

fn tone(health: Health) -> Tone {
    match health {
        Health::Fresh => Tone::Good,
        Health::NotRunning | Health::NoSources => Tone::Plain,
        health if health.is_temporary() => Tone::Lagging,
        _ => Tone::Bad,
    }
}

fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(count))
}

/// Returns how often the event queue overflowed; empty if it never did.
fn overflows(status: &Status) -> String {
    let Some(at) = &status.last_overflow_at else {
        return String::new();
    };
    let times = match status.event_overflows {
        1 => "once".to_owned(),
        times => format!("{} times", thousands(times)),
    };
    let ago = ago(&status.as_of, at);
    format!("; the event queue overflowed {times}, last {ago}, and every day-file was checked")
}

fn rows(status: &Status) -> String {
    let export = &status.export;
    let mut rows = format!(
        "{} today, {} in total, {} bytes",
        thousands(export.rows_today),
        thousands(export.rows),
        thousands(export.len_bytes)
    );
    if export.rows_pending > 0 {
        let pending = thousands(export.rows_pending);
        rows.push_str(&format!("; {pending} more are made and not written yet"));
    }
    if export.rows_unclaimed > 0 {
        let unclaimed = thousands(export.rows_unclaimed);
        rows.push_str(&format!("; {unclaimed} without a line in the sources"));
    }
    rows
}

/// Returns the number of unterminated last lines. They are not part of the lag: a line is read when its newline arrives.
fn partial_lines(partial: Unterminated) -> String {
    let bytes = thousands(partial.bytes);
    let lines = counted(partial.lines, "partial line");
    format!("{lines} without a newline yet, {bytes} bytes")
}

/// Returns the time between `at` and `as_of` in words.
fn ago(as_of: &str, at: &str) -> String {
    format!("{} ago", age(as_of, at))
}

fn age(as_of: &str, at: &str) -> String {
    match (moment(as_of), moment(at)) {
        (Some(now_ms), Some(at_ms)) => duration(now_ms.saturating_sub(at_ms) / 1_000),
        _ => format!("since {at}"),
    }
}

/// Returns a duration in its two largest units.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", thousands(days), hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::class_table::widest;
    use crate::engine::Lag;
    use crate::pair::verdict::{PerVerdict, VerdictKind};
    use crate::query::health::DaemonState;
    use crate::query::health::ScannedOnly;
    use crate::query::status::ClassStatus;
    use crate::query::status::{Fault, WaitingRun};

    const PLAIN: TerminalSize = TerminalSize {
        width: 80,
        colour: false,
    };

    #[test]
    fn numbers_have_thousands_separators() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(thousands(number), expected);
        }
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, expected) in [
            (0, "0 s"),
            (61, "1 min 1 s"),
            (7_260, "2 h 1 min"),
            (86_400 * 1_000 + 3_600, "1,000 d 1 h"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn a_page_shows_problems_and_omits_what_is_normal() {
        let mut status = Status::default();
        status.scored.balanced = true;
        let quiet = page(&status, PLAIN);
        for absent in [
            "fault",
            "superseded",
            "without a line",
            "balance",
            "newline",
            "\x1b",
        ] {
            assert!(!quiet.contains(absent), "{quiet}");
        }
        status.scored.balanced = false;
        status.export.superseded = 1_234;
        status.watch = Some("events".into());
        status.event_overflows = 2;
        status.scanned_only = Some(ScannedOnly {
            day_files: 1_200,
            why: Some("they are links".into()),
            within_ms: 3_600_000,
        });
        status.as_of = "2026-05-02T03:04:05.678Z".into();
        status.last_overflow_at = Some("2026-05-02T03:03:00.000Z".into());
        let (lines, bytes) = (1, 1_065);
        status.unterminated = Some(Unterminated { lines, bytes });
        status.faults = vec![Fault {
            at: "2026-05-02T03:04:05.678Z".into(),
            what: "no space".into(),
            resolved: false,
            fix: None,
        }];
        let page = page(&status, PLAIN);
        for present in [
            "seded",
            "1,234",
            "(reading stopped): no space",
            "does not balance",
            "scans     scans alone find the growth of 1,200 day-files, within 3600 s",
            "events; the event queue overflowed 2 times, last 1 min 5 s ago",
            "partial   1 partial line without a newline yet, 1,065 bytes\n",
        ] {
            assert!(page.contains(present), "{page}");
        }
        assert!(page.lines().all(|line| line == line.trim_end()), "{page}");
    }

    fn busy() -> Status {
        let class = |class: &str, n: u64| ClassStatus {
            class: class.to_owned(),
            lines: 12_345_678 * n,
            verdicts: PerVerdict::from_fn(|verdict| match verdict {
                VerdictKind::Exported => 12_000_000 * n,
                VerdictKind::Firewalled => 300_000 * n,
                VerdictKind::UnknownCategory => 12 * n,
                VerdictKind::Ordered | VerdictKind::Overruled => 0,
                VerdictKind::WrongRole => 40_000 * n,
                VerdictKind::BlankText => 5_000 * n,
                VerdictKind::Waiting => 600 * n,
                VerdictKind::Malformed => 66 * n,
            }),
            superseded: 7 * n,
            contradicted: n,
            evidence_lines: 12_345_678 * n,
            evidence_malformed: 0,
        };
        let mut status = Status {
            running: true,
            pid: Some(4_711),
            root: "/srv/lakehouse".into(),
            as_of: "2026-05-02T03:04:05.678Z".into(),
            watch: Some("events".into()),
            last_row_at: Some("2026-05-02T03:04:03.000Z".into()),
            classes: vec![class("audits", 1), class("contract_analyses_of_the_north", 2)],
            lag: Some(Lag {
                files: 12,
                bytes: 1_234_567,
                bytes_exact: true,
                lines: Some(612),
                age_ms: 75_000,
                objective_ms: 60_000,
                caught_up: true,
            }),
            unterminated: Some(Unterminated {
                lines: 2,
                bytes: 4_096,
            }),
            waiting_oldest: vec![WaitingRun {
                day_file: "2026/04/29/audits.jsonl".into(),
                run_id: Some("run \x1b[31m 7".into()),
                offset: 81_920,
                since: "2026-04-29T01:00:00.000Z".into(),
            }],
            faults: vec![Fault {
                at: "2026-05-01T22:00:00.000Z".into(),
                what: "writing the export /srv/lakehouse/data/distilled/sft/sft_export.jsonl failed: No space left on \
                       device"
                    .into(),
                resolved: true,
                fix: None,
            }],
            ..Status::default()
        };
        status.export.path = "/srv/lakehouse/data/distilled/sft/sft_export.jsonl".into();
        (status.export.rows, status.export.rows_today) = (36_000_000, 98_765);
        status.export.len_bytes = 72_000_000_000;
        status.scored.balanced = true;
        let three = class("all", 3);
        status.scored.lines = three.lines;
        status.scored.verdicts = three.verdicts;
        status.export.superseded = three.superseded;
        status.export.contradicted = three.contradicted;
        status.assessed(DaemonState::Running)
    }

    #[test]
    fn a_busy_page_is_set_for_80_and_for_120_columns() {
        for (width, golden) in [
            (80, include_str!("status/80.txt")),
            (120, include_str!("status/120.txt")),
        ] {
            let screen = TerminalSize {
                width,
                colour: false,
            };
            let shown = page(&busy(), screen);
            assert_eq!(shown, golden, "\n{shown}");
            assert!(shown.lines().all(|line| line.chars().count() <= width));
        }
    }

    #[test]
    fn a_narrow_screen_gets_a_list_and_nothing_of_a_record_is_obeyed() {
        let screen = TerminalSize {
            width: 40,
            colour: false,
        };
        let shown = page(&busy(), screen);
        let figure = |line: &str| line.split_whitespace().eq(["waiting", "1,800"]);
        assert!(shown.lines().any(figure), "{shown}");
        assert!(widest(&classes(&busy(), 40)) <= 40, "{shown}");
        assert!(!shown.contains('\x1b'), "{shown}");
    }
}
