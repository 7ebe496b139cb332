//! Owns how a status looks to a person: a screen of a given width, plain text but for colours where they are wanted.
//! What comes from names of files and from records is escaped.

use crate::cli::render::class_table::{Column, classes, dead_letters};

use crate::console::table::thousands;

use crossterm::style::Stylize as _;

use crate::query::status::{Status, Unterminated};
use crate::record::timestamp::moment;

/// Size and capabilities of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: usize,
    /// Whether it has colours.
    pub colour: bool,
}

/// Waiting runs and faults that a screen shows; `--json` has more.
const SHOWN_MAX: usize = 3;

/// The page, with a newline at its end.
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

struct Page {
    text: String,
    screen: TerminalSize,
}

/// Severity of a line.
#[derive(Clone, Copy)]
enum Tone {
    Plain,
    Good,
    Behind,
    Bad,
}

impl Page {
    fn head(&mut self, status: &Status) {
        match status.pid.filter(|_| status.running) {
            None => self.line("daemon", "not running", Tone::Plain),
            Some(pid) => {
                self.line("daemon", &format!("running as process {pid}"), Tone::Plain);
                let (tone, freshness) = freshness(status);
                self.line("state", &freshness, tone);
                self.passed_over(status);
            }
        }
        if let Some(watch) = &status.watch {
            self.line(
                "watch",
                &format!("{watch}{}", overflows(status)),
                Tone::Plain,
            );
        }
        self.line("root", &status.root.display().to_string(), Tone::Plain);
        let path = status.export.path.display().to_string();
        let path = path.escape_debug().to_string();
        self.line("export", &path, Tone::Plain);
        self.line("rows", &rows(status), Tone::Plain);
        if let Some(torn) = status.unterminated.filter(|torn| torn.lines > 0) {
            self.line("torn", &unterminated(torn), Tone::Plain);
        }
        let last_row = match &status.last_row_at {
            Some(at) => format!("{}, last row {}", status.as_of, ago(&status.as_of, at)),
            None => status.as_of.clone(),
        };
        self.line("as of", &last_row, Tone::Plain);
        for fault in status.faults.iter().rev().take(SHOWN_MAX) {
            let (tone, when) = if fault.over {
                (Tone::Plain, "over")
            } else {
                (Tone::Bad, "reading stopped")
            };
            let what = fault.what.escape_debug();
            self.line("fault", &format!("{} ({when}): {what}", fault.at), tone);
        }
    }

    fn passed_over(&mut self, status: &Status) {
        for passed in status.passed_over.iter().take(SHOWN_MAX) {
            let day_file = passed.day_file.escape_debug();
            let text = format!("{day_file} ({}): {}", passed.stream, passed.why);
            self.line("unread", &text, Tone::Bad);
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
            self.trim_table(&line);
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
            self.trim_table(&format!("{label:<LABEL_LEN$} {piece}"));
            (from, label) = (to, "");
            if characters.is_empty() {
                break;
            }
        }
    }

    fn toned(&self, text: &str, tone: Tone) -> String {
        match tone {
            Tone::Good if self.screen.colour => text.green().to_string(),
            Tone::Behind if self.screen.colour => text.yellow().to_string(),
            Tone::Bad if self.screen.colour => text.red().to_string(),
            _ => text.to_owned(),
        }
    }

    fn trim_table(&mut self, line: &str) {
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

/// Returns the freshness or the lag in words.
fn freshness(status: &Status) -> (Tone, String) {
    let stopped = status.faults.last().is_some_and(|fault| !fault.over);
    let behind = status.behind.unwrap_or(0);
    let lag = status.lag.clone().unwrap_or_default();
    if status.silent {
        let told = "it does not answer, and this is what it published last: its disk may hang";
        return (Tone::Bad, told.to_owned());
    }
    if !stopped && behind == 0 && lag.bytes == 0 {
        return match status.day_files_passed_over {
            0 => (Tone::Good, "fresh".to_owned()),
            1 => (
                Tone::Bad,
                "fresh, but for a day-file that cannot be read".to_owned(),
            ),
            many => {
                let many = thousands(many);
                let told = format!("fresh, but for {many} day-files that cannot be read");
                (Tone::Bad, told)
            }
        };
    }
    let mut parts = vec![format!("{} to look at", thousands(behind))];
    if lag.bytes > 0 {
        let floor = if lag.exact { "" } else { "at least " };
        parts.push(format!("{floor}{} bytes", thousands(lag.bytes)));
    }
    if let Some(lines) = lag.lines.filter(|lines| *lines > 0) {
        parts.push(format!("{} lines", thousands(lines)));
    }
    if lag.seconds > 0 {
        parts.push(format!("for {}", duration(lag.seconds)));
    }
    let parts = parts.join(", ");
    if stopped {
        return (Tone::Bad, format!("stopped reading: {parts}"));
    }
    (Tone::Behind, format!("catching up: {parts}"))
}

/// Returns the number of event losses in words, empty if there were none.
fn overflows(status: &Status) -> String {
    let Some(at) = &status.last_overflow_at else {
        return String::new();
    };
    let times = match status.event_overflows {
        1 => "once".to_owned(),
        times => format!("{} times", thousands(times)),
    };
    let ago = ago(&status.as_of, at);
    format!("; events were lost {times}, last {ago}, and every day-file was looked at")
}

fn rows(status: &Status) -> String {
    let export = &status.export;
    let mut rows = format!(
        "{} today, {} in all, {} bytes",
        thousands(export.rows_today),
        thousands(export.rows),
        thousands(export.len_bytes)
    );
    if export.rows_unclaimed > 0 {
        let unclaimed = thousands(export.rows_unclaimed);
        rows.push_str(&format!("; {unclaimed} without a line in the sources"));
    }
    rows
}

/// Returns the unterminated last lines in words. They are not lag, since they are not complete.
fn unterminated(torn: Unterminated) -> String {
    let wait = match torn.lines {
        1 => "1 last line waits for its newline".to_owned(),
        lines => format!("{} last lines wait for their newline", thousands(lines)),
    };
    format!("{wait}, {} bytes", thousands(torn.bytes))
}

/// The columns.
pub(super) const COLUMNS: [Column; 10] = [
    ("lines", "lines", |c| c.lines, true),
    ("exported", "exported", |c| c.exported, true),
    ("firewalled", "fire-\nwalled", |c| c.firewalled, true),
    (
        "unknown category",
        "unknown\ncateg.",
        |c| c.unknown_category,
        false,
    ),
    ("role", "role", |c| c.role, false),
    ("blank text", "blank\ntext", |c| c.blank_text, false),
    ("waiting", "waiting", |c| c.waiting, true),
    ("dead letters", "dead\nletters", dead_letters, true),
    ("superseded", "super-\nseded", |c| c.superseded, false),
    ("contradicted", "contra-\ndicted", |c| c.contradicted, false),
];

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

/// A time in its two largest units.
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
    use crate::query::status::ClassStatus;
    use crate::query::status::{Fault, Lag, WaitingRun};

    const PLAIN: TerminalSize = TerminalSize {
        width: 80,
        colour: false,
    };

    #[test]
    fn digits_stand_in_groups_of_three() {
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
    fn times_stand_in_their_two_largest_units() {
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
    fn a_page_says_what_is_wrong_and_keeps_quiet_of_what_is_not() {
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
        status.as_of = "2026-05-02T03:04:05.678Z".into();
        status.last_overflow_at = Some("2026-05-02T03:03:00.000Z".into());
        let (lines, bytes) = (1, 1_065);
        status.unterminated = Some(Unterminated { lines, bytes });
        status.faults = vec![Fault {
            at: "2026-05-02T03:04:05.678Z".into(),
            what: "no space".into(),
            over: false,
        }];
        let page = page(&status, PLAIN);
        for present in [
            "seded",
            "1,234",
            "(reading stopped): no space",
            "does not balance",
            "events; events were lost 2 times, last 1 min 5 s ago",
            "torn      1 last line waits for its newline, 1,065 bytes\n",
        ] {
            assert!(page.contains(present), "{page}");
        }
        assert!(page.lines().all(|line| line == line.trim_end()), "{page}");
    }

    fn busy() -> Status {
        let class = |class: &str, n: u64| ClassStatus {
            class: class.to_owned(),
            lines: 12_345_678 * n,
            exported: 12_000_000 * n,
            firewalled: 300_000 * n,
            unknown_category: 12 * n,
            role: 40_000 * n,
            blank_text: 5_000 * n,
            waiting: 600 * n,
            dead_letters: 66 * n,
            superseded: 7 * n,
            contradicted: n,
            evidence_lines: 12_345_678 * n,
            evidence_dead_letters: 0,
        };
        let mut status = Status {
            running: true,
            pid: Some(4_711),
            root: "/srv/lakehouse".into(),
            as_of: "2026-05-02T03:04:05.678Z".into(),
            behind: Some(12),
            watch: Some("events".into()),
            last_row_at: Some("2026-05-02T03:04:03.000Z".into()),
            classes: vec![class("audits", 1), class("contract_analyses_of_the_north", 2)],
            lag: Some(Lag {
                bytes: 1_234_567,
                exact: true,
                lines: Some(612),
                seconds: 75,
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
                over: true,
            }],
            ..Status::default()
        };
        status.export.path = "/srv/lakehouse/data/distilled/sft/sft_export.jsonl".into();
        (status.export.rows, status.export.rows_today) = (36_000_000, 98_765);
        status.export.len_bytes = 72_000_000_000;
        status.scored.balanced = true;
        let three = class("all", 3);
        status.scored.lines = three.lines;
        status.scored.exported = three.exported;
        status.scored.firewalled = three.firewalled;
        status.scored.unknown_category = three.unknown_category;
        status.scored.role = three.role;
        status.scored.blank_text = three.blank_text;
        status.scored.waiting = three.waiting;
        status.scored.dead_letters = three.dead_letters;
        status.export.superseded = three.superseded;
        status.export.contradicted = three.contradicted;
        status
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
