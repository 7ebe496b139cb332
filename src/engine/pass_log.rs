//! Collects what a pass has to log of day-files and of the retraction ledger, so that each kind of event is one line per
//! pass however many day-files it concerns: a first start over thousands of faulty day-files must not flood the log.
//! Malformed lines, retractions and restores are routine in a lake that grows: their lines have a minimum distance.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use crate::config::as_typed;
use crate::engine::ledger::Event;
use crate::platform::message_ids;
use crate::record::ledger::{LedgerLine, Op};

/// The events of a pass that are not logged yet.
#[derive(Debug, Default)]
pub(crate) struct PassLog {
    malformed: Events<MalformedLines>,
    malformed_lines: usize,
    skipped: Events<String>,
    deleted: Events<()>,
    reset: Events<ResetSource>,
    retracted: LedgerEvents,
    restored: LedgerEvents,
    ordered: LedgerEvents,
    revoked: LedgerEvents,
    /// When routine events may be logged, monotonic milliseconds.
    routine_at_ms: u64,
}

/// Minimum time between two lines of the same kind of routine event, milliseconds: at most 1,440 of each in a day.
const ROUTINE_PAUSE_MS: u64 = 60_000;

/// Maximum number of day-files that one line names; `status` lists them as well.
const NAMED_MAX: usize = 16;

/// Maximum number of day-files that are distinguished; above it the number in a line is "at least".
const DISTINCT_MAX: usize = 16 << 10;

/// Events of one kind: the first one of each of the first day-files, and the number of day-files.
#[derive(Debug)]
struct Events<T> {
    first: Vec<(PathBuf, T)>,
    /// Hashes of the day-files.
    day_files: HashSet<u64>,
    /// Whether there are more day-files than are distinguished.
    more: bool,
}

#[derive(Debug)]
struct MalformedLines {
    offset: u64,
    reason: String,
}

#[derive(Debug)]
struct ResetSource {
    offset: u64,
    reason: &'static str,
}

/// Events of the retraction ledger: their number, and the first one.
#[derive(Debug, Default)]
struct LedgerEvents {
    count: u64,
    first: Option<LedgerLine>,
}

impl<T> Default for Events<T> {
    fn default() -> Self {
        Self {
            first: Vec::new(),
            day_files: HashSet::new(),
            more: false,
        }
    }
}

impl<T> Events<T> {
    fn add(&mut self, day_file: PathBuf, event: T) {
        let hash = hash_of(&day_file);
        if self.day_files.contains(&hash) {
            return;
        }
        if self.day_files.len() == DISTINCT_MAX {
            self.more = true;
            return;
        }
        self.day_files.insert(hash);
        if self.first.len() < NAMED_MAX {
            self.first.push((day_file, event));
        }
    }

    fn day_files(&self) -> u64 {
        self.day_files.len() as u64
    }

    /// Returns the number of day-files with a noun, as in "2 day-files".
    fn counted(&self, noun: &str) -> String {
        let floor = if self.more { "at least " } else { "" };
        format!("{floor}{}", counted(self.day_files(), noun))
    }

    /// Returns the names of the first day-files, and the number of the others.
    fn names(&self, name: impl Fn(&(PathBuf, T)) -> String) -> String {
        let mut names: Vec<String> = self.first.iter().map(name).collect();
        let floor = if self.more { "at least " } else { "" };
        match self.day_files.len() - self.first.len() {
            0 => {}
            more => names.push(format!("and {floor}{more} more")),
        }
        names.join(", ")
    }
}

fn hash_of(path: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

impl PassLog {
    /// Records that lines of a day-file became dead letters; `offset` and `reason` are those of the first line.
    pub(super) fn on_malformed(
        &mut self,
        day_file: PathBuf,
        lines: usize,
        offset: u64,
        reason: &impl Display,
    ) {
        let reason = reason.to_string();
        self.malformed
            .add(day_file, MalformedLines { offset, reason });
        self.malformed_lines += lines;
    }

    /// Records that a day-file cannot be read.
    pub(super) fn on_skipped(&mut self, day_file: PathBuf, problem: String) {
        self.skipped.add(day_file, problem);
    }

    /// Records that a day-file was deleted.
    pub(super) fn on_deleted(&mut self, day_file: PathBuf) {
        self.deleted.add(day_file, ());
    }

    /// Records that a day-file changed in bytes that were read, up to `offset`, and is read again from its start.
    pub(super) fn on_reset(&mut self, day_file: PathBuf, offset: u64, reason: &'static str) {
        self.reset.add(day_file, ResetSource { offset, reason });
    }

    /// Records events of the retraction ledger, with their lines in the same order.
    pub(super) fn on_ledger_lines(&mut self, events: &[Event], lines: &[u8]) {
        for (event, line) in events.iter().zip(lines.split(|byte| *byte == b'\n')) {
            let kind = match event.op {
                Op::Retract => &mut self.retracted,
                Op::Restore => &mut self.restored,
                Op::Order => &mut self.ordered,
                Op::Revoke => &mut self.revoked,
                Op::Begin | Op::Note => continue,
            };
            kind.count += 1;
            if kind.first.is_none() {
                kind.first = LedgerLine::parse(line).ok();
            }
        }
    }

    /// Logs the events that a pass collected. Routine events are kept until [`ROUTINE_PAUSE_MS`] after the last ones, and
    /// are logged together then.
    pub(crate) fn flush_pass(&mut self, more_resets: bool, now_ms: u64) {
        if !self.has_routine() {
            return self.flush(more_resets);
        }
        if self.routine_at_ms <= now_ms {
            self.flush(more_resets);
            self.routine_at_ms = now_ms + ROUTINE_PAUSE_MS;
            return;
        }
        let malformed = (std::mem::take(&mut self.malformed), self.malformed_lines);
        let retracted = std::mem::take(&mut self.retracted);
        let restored = std::mem::take(&mut self.restored);
        self.flush(more_resets);
        (self.malformed, self.malformed_lines) = malformed;
        (self.retracted, self.restored) = (retracted, restored);
    }

    /// Returns when kept events are to be logged, monotonic milliseconds.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.has_routine().then_some(self.routine_at_ms)
    }

    fn has_routine(&self) -> bool {
        !self.malformed.first.is_empty() || self.retracted.count + self.restored.count > 0
    }

    /// Logs all collected events, one line for each kind. `more_resets`: resets are kept for a later line, because more of
    /// the same kind are likely, as when the whole lake was copied to another disk.
    pub(crate) fn flush(&mut self, more_resets: bool) {
        let kept = Self {
            routine_at_ms: self.routine_at_ms,
            ..Self::default()
        };
        let mut events = std::mem::replace(self, kept);
        if more_resets {
            self.reset = std::mem::take(&mut events.reset);
        }
        log_reset(events.reset);
        log_deleted(events.deleted);
        log_skipped(events.skipped);
        log_malformed(events.malformed, events.malformed_lines);
        log_rows("retracted", "the rows stay in the export", events.retracted);
        log_rows(
            "restored",
            "nothing overrules them any more",
            events.restored,
        );
        log_orders("given", events.ordered);
        log_orders("ended", events.revoked);
    }
}

fn log_reset(events: Events<ResetSource>) {
    let Some((day_file, ResetSource { offset, reason })) = events.first.first() else {
        return;
    };
    let (day_file, day_files) = (day_file.display(), events.day_files());
    tracing::warn!(
        %day_file,
        day_files,
        reason,
        offset,
        "{} no longer the same as when read, re-reading from the start and keeping the exported rows; first {day_file} ({reason}, read up to byte {offset})",
        events.counted("day-file"),
    );
}

fn log_deleted(events: Events<()>) {
    let Some((day_file, ())) = events.first.first() else {
        return;
    };
    let (day_file, day_files) = (day_file.display(), events.day_files());
    tracing::warn!(
        %day_file,
        day_files,
        "{} deleted, the exported rows stay: {}",
        events.counted("day-file"),
        events.names(|(day_file, ())| day_file.display().to_string()),
    );
}

fn log_skipped(events: Events<String>) {
    let Some((day_file, problem)) = events.first.first() else {
        return;
    };
    let (day_file, day_files) = (day_file.display(), events.day_files());
    tracing::warn!(
        %day_file,
        day_files,
        problem,
        "{} skipped, retrying at the next change or scan: {}",
        events.counted("unreadable day-file"),
        events.names(|(day_file, problem)| format!("{} ({problem})", day_file.display())),
    );
}

fn log_malformed(events: Events<MalformedLines>, lines: usize) {
    let Some((day_file, MalformedLines { offset, reason })) = events.first.first() else {
        return;
    };
    let (day_file, day_files) = (day_file.display(), events.day_files());
    tracing::warn!(
        message_id = message_ids::DEAD_LETTERS,
        %day_file,
        day_files,
        lines,
        offset,
        reason,
        "{} in {} moved to dead letters, first {day_file} at byte {offset} ({reason}); {} lists them",
        counted(lines as u64, "malformed line"),
        events.counted("day-file"),
        as_typed("`distilld dead-letters`"),
    );
}

fn log_rows(what: &str, note: &str, events: LedgerEvents) {
    let Some(first) = events.first else {
        return;
    };
    let (rows, run_id, cause) = (events.count, first.source_run_id, first.cause.code());
    let (day_file, offset) = (first.day_file, first.line_offset);
    let place = offset.map_or_else(String::new, |offset| format!(", line at byte {offset}"));
    tracing::info!(
        rows,
        run_id,
        cause,
        day_file,
        offset,
        "{} {what}, {note}; first run {} ({cause}, {}{place})",
        counted(rows, "row"),
        run_id.escape_debug(),
        day_file.escape_debug(),
    );
}

fn log_orders(what: &str, events: LedgerEvents) {
    let Some(first) = events.first else {
        return;
    };
    let (orders, run_id, reason) = (events.count, first.source_run_id, first.reason);
    let given_reason = match reason.is_empty() {
        true => String::new(),
        false => format!(" (reason: {reason:?})"),
    };
    tracing::info!(
        orders,
        run_id,
        reason,
        "{} {what}; first run {}{given_reason}",
        counted(orders, "standing order"),
        run_id.escape_debug(),
    );
}

/// Returns a count and its noun, as in "1 day-file" and "2 day-files".
fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ledger::{Cause, ExportId, RowSpan};
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn flushed(log: &mut PassLog, more_resets: bool) -> Vec<String> {
        captured(|| log.flush(more_resets))
    }

    fn captured(flush: impl FnOnce()) -> Vec<String> {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, flush);
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn each_kind_of_event_is_one_line_that_names_the_first_day_file() {
        let mut log = PassLog::default();
        assert_eq!(flushed(&mut log, false), [""; 0]);
        for n in 0..970_u64 {
            let day_file = || PathBuf::from(format!("/lake/{n}.jsonl"));
            log.on_malformed(day_file(), 2, 7 + n, &"too-long");
            log.on_skipped(day_file(), "Is a directory".to_owned());
            log.on_deleted(day_file());
            log.on_reset(day_file(), 12, "head");
        }
        let lines = flushed(&mut log, false);
        assert_eq!(lines.len(), 4, "{lines:#?}");
        for (line, expected) in lines.iter().zip([
            "970 day-files no longer the same as when read, re-reading from the start and keeping the exported rows; first /lake/0.jsonl (head, read up to byte 12)",
            "970 day-files deleted, the exported rows stay: /lake/0.jsonl, /lake/1.jsonl, ",
            "970 unreadable day-files skipped, retrying at the next change or scan: /lake/0.jsonl (Is a directory), ",
            "1940 malformed lines in 970 day-files moved to dead letters, first /lake/0.jsonl at byte 7 (too-long); `distilld dead-letters` lists them",
        ]) {
            assert!(line.contains(expected), "no {expected:?} in {line}");
            assert!(line.contains("day_file=/lake/0.jsonl day_files=970"), "{line}");
        }
        assert!(
            lines[1].contains("/lake/15.jsonl, and 954 more"),
            "{}",
            lines[1]
        );
        assert_eq!(flushed(&mut log, false), [""; 0], "events are logged once");
    }

    #[test]
    fn a_day_file_is_counted_once_and_the_memory_for_that_is_bounded() {
        let mut log = PassLog::default();
        for n in 0..2 * DISTINCT_MAX {
            for _pass in 0..2 {
                log.on_malformed(format!("/lake/{n}.jsonl").into(), 1, 7, &"syntax");
                log.on_skipped(format!("/lake/{n}.jsonl").into(), "denied".to_owned());
            }
            if n == 2 {
                let lines = flushed(&mut log, false);
                assert!(lines[0].contains("3 unreadable day-files"), "{lines:?}");
                let named = "/lake/1.jsonl (denied), /lake/2.jsonl (denied)";
                assert!(lines[0].contains(named), "{lines:?}");
                let counted = "6 malformed lines in 3 day-files moved";
                assert!(lines[1].contains(counted), "{lines:?}");
            }
        }
        assert_eq!(log.malformed.day_files.len(), DISTINCT_MAX);
        let lines = flushed(&mut log, false);
        for (line, words) in lines.iter().zip([
            "at least 16384 unreadable day-files skipped",
            "65530 malformed lines in at least 16384 day-files",
        ]) {
            assert!(line.contains(words), "{line}");
        }
        assert!(lines[0].contains("and at least 16368 more"), "{}", lines[0]);
    }

    #[test]
    fn events_of_the_ledger_are_one_line_for_each_kind() {
        let line = |seq: u64, op: Op, cause: Cause| LedgerLine {
            seq,
            op,
            export: ExportId([7; 8]),
            export_len: 9_000,
            row: op.has_row().then_some(RowSpan {
                offset: 300 * seq,
                len_bytes: 300,
            }),
            row_hash: [1; 16],
            id: "audits.jsonl:1".to_owned(),
            source_run_id: format!("run-{seq}\u{1b}"),
            cause,
            day_file: "2026/01/01/audits.jsonl".to_owned(),
            line_offset: (cause != Cause::Operator).then_some(seq),
            reason: String::new(),
            at: "2026-01-01T00:00:00.000Z".to_owned(),
        };
        let event = |line: &LedgerLine| Event {
            op: line.op,
            cause: line.cause,
            row_offset: line.row.map(|row| row.offset),
            run_id: String::new(),
            day_file: Arc::from(line.day_file.as_str()),
            line_offset: line.line_offset,
            reason: Arc::from(""),
        };
        let mut log = PassLog::default();
        for batch in [1, 10] {
            let lines = [
                line(batch, Op::Note, Cause::Superseded),
                line(batch + 1, Op::Retract, Cause::Rejected),
                line(batch + 2, Op::Retract, Cause::Rescored),
                line(batch + 3, Op::Restore, Cause::Rejected),
                line(batch + 4, Op::Order, Cause::Operator),
            ];
            let mut bytes = Vec::new();
            lines.iter().for_each(|line| line.write(&mut bytes));
            log.on_ledger_lines(&lines.iter().map(event).collect::<Vec<_>>(), &bytes);
        }
        let lines = flushed(&mut log, false);
        assert_eq!(lines.len(), 3, "{lines:?}");
        for (line, words) in lines.iter().zip([
            "4 rows retracted, the rows stay in the export; first run run-2",
            "2 rows restored, nothing overrules them any more; first run run-4",
            "2 standing orders given; first run run-5",
        ]) {
            assert!(!line.contains("(reason"), "none was given: {line}");
            assert!(line.contains(words), "{line}");
            assert!(line.contains("\\u{1b}"), "{line:?}");
        }
        assert!(
            lines[0].contains("2026/01/01/audits.jsonl, line at byte 2"),
            "{lines:?}"
        );
        assert_eq!(flushed(&mut log, false), [""; 0], "events are logged once");
    }

    #[test]
    fn a_day_of_routine_events_is_a_line_a_minute_for_each_kind_and_silent_afterwards() {
        let mut log = PassLog::default();
        let mut lines = Vec::new();
        let (day_ms, pass_ms) = (86_400_000, 5_000);
        for now_ms in (0..day_ms).step_by(pass_ms) {
            let due = log.due_ms().is_some_and(|due_ms| due_ms <= now_ms);
            assert!(!due || now_ms > 0, "the first line does not wait");
            log.on_malformed(PathBuf::from("/lake/a.jsonl"), 1, now_ms, &"syntax");
            lines.extend(captured(|| log.flush_pass(false, now_ms)));
        }
        assert_eq!(lines.len(), 1_440);
        assert!(
            lines[0].contains("1 malformed line in 1 day-file"),
            "{}",
            lines[0]
        );
        assert!(
            lines[1].contains("12 malformed lines in 1 day-file "),
            "{}",
            lines[1]
        );
        let due_ms = log_due(&log);
        let last = captured(|| log.flush_pass(false, due_ms));
        assert!(last[0].contains("11 malformed lines"), "{last:?}");
        assert_eq!(log.due_ms(), None);
        // A fault is logged at once.
        log.on_malformed(PathBuf::from("/lake/a.jsonl"), 1, 7, &"syntax");
        log.on_skipped(PathBuf::from("/lake/b.jsonl"), "denied".to_owned());
        let at_once = captured(|| log.flush_pass(false, day_ms + 1));
        assert_eq!(at_once.len(), 1, "{at_once:?}");
        assert!(at_once[0].contains("skipped"), "{at_once:?}");
    }

    fn log_due(log: &PassLog) -> u64 {
        log.due_ms().expect("events are kept")
    }

    #[test]
    fn resets_of_many_passes_are_one_line() {
        let mut log = PassLog::default();
        for pass in 0..4 {
            log.on_reset(PathBuf::from(format!("/lake/{pass}.jsonl")), 12, "replaced");
            log.on_deleted(PathBuf::from("/lake/other.jsonl"));
            let lines = flushed(&mut log, pass < 3);
            let resets: Vec<&String> = lines
                .iter()
                .filter(|line| line.contains("re-reading"))
                .collect();
            assert_eq!(
                (lines.len(), resets.len()),
                (1 + usize::from(pass == 3), usize::from(pass == 3))
            );
            assert!(
                resets
                    .iter()
                    .all(|line| line.contains("4 day-files no longer"))
            );
        }
    }
}
