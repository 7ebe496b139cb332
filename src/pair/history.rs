//! The last day by minute and source class: rows of the export, and lines refused. Bounded by the number of classes, and
//! by the number of minutes of each. Pure.
//!
//! Rows count in the minute of their timestamp, as the export has them, so that a retry, a lost state or a kill neither
//! adds nor removes one. Refused lines count in the minute in which the account reached a new maximum: an account that
//! falls and rises again, because day-files are read again, adds nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pair::accounting::{Account, CLASSES_MAX, OTHER, class_of};
use crate::pair::freshness::Freshness;

/// Length of a step, seconds.
const STEP_S: u64 = 60;
/// Number of published steps: a day.
const STEPS: usize = 24 * 60;
/// Maximum minutes kept of a class: those of a day, and as many of a clock that was wrong.
const MINUTES_MAX: usize = 2 * STEPS;

/// The last day in its published form. Compatible changes only add keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent {
    /// Start of the first step, seconds since 1970.
    pub minute_s: u64,
    /// Length of a step, seconds.
    pub step_s: u64,
    /// Number of steps; the last one is that of now.
    #[serde(default)]
    pub steps: u64,
    /// Per source class, one figure per step, oldest first; all of equal length.
    pub series: BTreeMap<String, Series>,
    /// The freshness of the rows that this process appended in the last hour.
    #[serde(default)]
    pub freshness: Freshness,
}

/// The figures of one source class.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Series {
    /// Rows of the export by their timestamps, per step.
    pub exported: Vec<u64>,
    /// Lines that a rule refused, per step; malformed lines are not among them.
    pub refused: Vec<u64>,
}

impl Recent {
    /// Returns the rows of all classes in the newest steps, oldest first.
    #[must_use]
    pub fn exported_newest(&self, steps: usize) -> Vec<u64> {
        let steps = steps.min(STEPS);
        (STEPS - steps..STEPS)
            .map(|step| {
                let of_step = self.series.values().map(|series| series.exported.get(step));
                of_step.map(|rows| rows.copied().unwrap_or(0)).sum()
            })
            .collect()
    }
}

/// The figures of one minute: rows of the export, and refused lines.
type Figures = (u64, u64);

/// Rows and refused lines by source class and minute, and what of the account is counted in them. Its persisted form.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// Figures by class and minute since 1970. Minutes of a clock that was ahead are among them.
    classes: BTreeMap<String, BTreeMap<u64, Figures>>,
    /// Per class, the refused lines of the account that are counted in a minute, or were before the first one.
    refused_counted: BTreeMap<String, u64>,
    /// Number of changes in this process, by which a caller detects them.
    #[serde(skip)]
    changes: u64,
}

impl History {
    /// Returns a number that changes with the figures.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Adds rows of a source class with timestamps in a minute.
    pub fn add_rows(&mut self, class: &str, minute: u64, rows: u64) {
        self.add(class, minute, (rows, 0));
    }

    /// Counts lines as refused in a minute if the account of a class, which has `refused` of them, has more than ever.
    pub fn follow(&mut self, class: &str, refused: u64, minute: u64) {
        let counted = self.refused_counted.entry(class.to_owned()).or_default();
        let more = refused.saturating_sub(*counted);
        *counted += more;
        self.add(class, minute, (0, more));
    }

    /// Follows the account of all classes.
    pub fn follow_all(&mut self, account: &Account, minute: u64) {
        for (class, totals) in &account.classes {
            self.follow(class, totals.refused(), minute);
        }
    }

    /// Takes the refused lines of the account as refused before the first minute.
    pub fn begin_at(&mut self, account: &Account) {
        let classes = account.classes.iter();
        self.refused_counted = classes
            .map(|(class, totals)| (class.clone(), totals.refused()))
            .collect();
    }

    /// Removes refused lines that the account no longer has, the newest first. Only while nothing is to be read: a
    /// day-file that is read again has fewer of them until its end.
    pub fn settle(&mut self, account: &Account) {
        for (class, counted) in &mut self.refused_counted {
            let refused = account.classes.get(class).map_or(0, |of| of.refused());
            let mut surplus = counted.saturating_sub(refused);
            if surplus == 0 {
                continue;
            }
            *counted = refused;
            self.changes += 1;
            let minutes = self.classes.get_mut(class);
            for (_, of_minute) in minutes
                .into_iter()
                .flat_map(|minutes| minutes.iter_mut().rev())
            {
                let removed = surplus.min(of_minute.1);
                of_minute.1 -= removed;
                surplus -= removed;
            }
        }
    }

    /// Removes all rows, before those of another export are added.
    pub fn remove_rows(&mut self) {
        self.changes += 1;
        for figures in self.classes.values_mut().flat_map(BTreeMap::values_mut) {
            figures.0 = 0;
        }
    }

    /// Takes the refused lines of another history.
    pub fn take_refused(&mut self, other: History) {
        for (class, minutes) in other.classes {
            for (minute, (_, refused)) in minutes {
                self.add(&class, minute, (0, refused));
            }
        }
        self.refused_counted = other.refused_counted;
    }

    /// Returns the newest minute that has a figure.
    #[must_use]
    pub fn newest_minute(&self) -> Option<u64> {
        let newest = self.classes.values().filter_map(BTreeMap::last_key_value);
        newest.map(|(minute, _)| *minute).max()
    }

    /// Returns the rows with timestamps of a UTC day, in days since 1970.
    #[must_use]
    pub fn rows_on(&self, day: u32) -> u64 {
        let first = u64::from(day) * STEPS as u64;
        let minutes = self.classes.values();
        minutes
            .flat_map(|minutes| minutes.range(first..first + STEPS as u64))
            .map(|(_, (rows, _))| rows)
            .sum()
    }

    /// Returns the day that ends with the minute of `now_ms`, by the classes that the account has.
    #[must_use]
    pub fn recent(&self, account: &Account, now_ms: u64) -> Recent {
        let end = minute_of(now_ms) + 1;
        let first = end.saturating_sub(STEPS as u64);
        let mut series = BTreeMap::<String, Series>::new();
        for (class, minutes) in &self.classes {
            let of_day = minutes.range(first..end);
            let mut of_day = of_day.filter(|(_, figures)| **figures != (0, 0)).peekable();
            if of_day.peek().is_none() {
                continue;
            }
            let class = account.class_kept(class).to_owned();
            let series = series.entry(class).or_insert_with(|| Series {
                exported: vec![0; STEPS],
                refused: vec![0; STEPS],
            });
            for (minute, (rows, refused)) in of_day {
                let step = (minute - first) as usize;
                series.exported[step] += rows;
                series.refused[step] += refused;
            }
        }
        Recent {
            minute_s: first * STEP_S,
            step_s: STEP_S,
            steps: STEPS as u64,
            series,
            freshness: Freshness::default(),
        }
    }

    fn add(&mut self, class: &str, minute: u64, (rows, refused): Figures) {
        if rows == 0 && refused == 0 {
            return;
        }
        self.changes += 1;
        let full = self.classes.len() >= CLASSES_MAX && !self.classes.contains_key(class);
        let class = if full { OTHER } else { class };
        if !self.classes.contains_key(class) {
            self.classes.insert(class.to_owned(), BTreeMap::new());
        }
        let Some(minutes) = self.classes.get_mut(class) else {
            return;
        };
        let figures = minutes.entry(minute).or_default();
        figures.0 = figures.0.saturating_add(rows);
        figures.1 = figures.1.saturating_add(refused);
        if minutes.len() > MINUTES_MAX {
            // The minute that differs most from the last one: an old one, or one of a clock that was ahead.
            let first = minutes
                .first_key_value()
                .map_or(minute, |(first, _)| *first);
            let last = minutes.last_key_value().map_or(minute, |(last, _)| *last);
            if minute.abs_diff(first) >= minute.abs_diff(last) {
                minutes.pop_first();
            } else {
                minutes.pop_last();
            }
        }
    }
}

/// Adds the rows of an export one by one. Rows in sequence with equal class and minute are added together.
#[derive(Debug)]
pub struct RowTally<'h> {
    history: &'h mut History,
    day_file_name: String,
    minute: u64,
    rows: u64,
}

impl<'h> RowTally<'h> {
    /// Begins to add rows to a history.
    #[must_use]
    pub fn new(history: &'h mut History) -> Self {
        Self {
            history,
            day_file_name: String::new(),
            minute: 0,
            rows: 0,
        }
    }

    /// Adds rows with timestamps in a minute.
    pub fn add(&mut self, day_file_name: &str, minute: u64, rows: u64) {
        if (self.day_file_name.as_str(), self.minute) != (day_file_name, minute) {
            self.flush();
            day_file_name.clone_into(&mut self.day_file_name);
            self.minute = minute;
        }
        self.rows += rows;
    }

    fn flush(&mut self) {
        let class = class_of(self.day_file_name.as_bytes());
        let rows = std::mem::take(&mut self.rows);
        self.history.add_rows(&class, self.minute, rows);
    }
}

impl Drop for RowTally<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Returns the minute of a time, milliseconds since 1970.
#[must_use]
pub fn minute_of(wall_ms: u64) -> u64 {
    wall_ms / 1_000 / STEP_S
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::checkpoint::PairCheckpoint;
    use crate::pair::verdict::{VerdictCounts, VerdictKind};

    const NOW_MS: u64 = 1_777_000_000_000;
    const MINUTE_MS: u64 = 60_000;
    const NOW: u64 = NOW_MS / MINUTE_MS;

    fn account(refused: u64) -> Account {
        let never = PairCheckpoint::new(b"2026/05/01/a.jsonl".to_vec());
        let mut read = never.clone();
        read.scored.lines = refused + 1;
        read.scored.malformed = 1;
        read.counts = VerdictCounts::default().with(VerdictKind::Firewalled, refused);
        let mut account = Account::default();
        account.replace(&never, &read);
        account
    }

    fn sums(history: &History, account: &Account, now_ms: u64) -> (u64, u64) {
        let recent = history.recent(account, now_ms);
        let sum = |figures: fn(&Series) -> &Vec<u64>| {
            let series = recent.series.values();
            series.flat_map(|series| figures(series).iter()).sum()
        };
        (sum(|it| &it.exported), sum(|it| &it.refused))
    }

    #[test]
    fn rows_count_in_their_minute_and_leave_the_window_after_a_day() {
        let (mut history, account) = (History::default(), Account::default());
        for (class, minute, rows) in [("a", NOW, 2), ("a", NOW + 1, 3), ("b", NOW + 1, 4)] {
            history.add_rows(class, minute, rows);
        }
        let recent = history.recent(&account, NOW_MS + MINUTE_MS);
        assert_eq!(recent.exported_newest(2), [2, 7]);
        assert_eq!(recent.minute_s + STEP_S * STEPS as u64, (NOW + 2) * STEP_S);
        let at = |minutes: u64| sums(&history, &account, NOW_MS + MINUTE_MS * minutes).0;
        assert_eq!((at(0), at(1), at(1_440), at(1_441)), (2, 9, 7, 0));
        assert_eq!(sums(&history, &account, u64::MAX), (0, 0));
    }

    #[test]
    fn a_clock_that_was_ahead_hides_nothing_of_today() {
        let mut history = History::default();
        let day = u32::try_from(NOW / 1_440).unwrap();
        let today = u64::from(day) * 1_440;
        for minute in today..today + 1_440 {
            history.add_rows("a", minute, 1);
        }
        for minute in 0..1_440 {
            history.add_rows("a", today + 30 * 1_440 + minute, 1);
        }
        assert_eq!(
            (history.rows_on(day), history.rows_on(day + 30)),
            (1_440, 1_440)
        );
        // The corrected clock adds minutes; those of the wrong one are removed for them.
        for minute in 1_440..2_880 {
            history.add_rows("a", today + minute, 1);
        }
        assert_eq!(
            (history.rows_on(day + 1), history.rows_on(day + 30)),
            (1_440, 0)
        );
        assert_eq!(history.classes["a"].len(), MINUTES_MAX);
    }

    #[test]
    fn refused_lines_that_are_read_again_count_once() {
        let mut history = History::default();
        history.follow_all(&account(5), NOW);
        for refused in [0, 2, 5, 6] {
            history.follow_all(&account(refused), NOW + 1);
        }
        let now_ms = NOW_MS + MINUTE_MS;
        assert_eq!(sums(&history, &account(6), now_ms), (0, 6));
        history.settle(&account(6));
        assert_eq!(sums(&history, &account(6), now_ms), (0, 6));
        // Two of them became rows.
        history.settle(&account(4));
        assert_eq!(sums(&history, &account(4), now_ms), (0, 4));
        history.follow_all(&account(5), NOW + 1);
        assert_eq!(sums(&history, &account(5), now_ms), (0, 5));
        history.settle(&Account::default());
        assert_eq!(sums(&history, &Account::default(), now_ms), (0, 0));
    }

    #[test]
    fn lines_refused_before_the_history_began_are_not_in_it() {
        let mut history = History::default();
        history.begin_at(&account(5));
        history.follow_all(&account(7), NOW);
        assert_eq!(sums(&history, &account(7), NOW_MS), (0, 2));
    }

    #[test]
    fn classes_past_the_bound_count_as_other() {
        let (mut history, account) = (History::default(), Account::default());
        for n in 0..CLASSES_MAX + 10 {
            RowTally::new(&mut history).add(&format!("{n}.jsonl"), NOW, 1);
        }
        let recent = history.recent(&account, NOW_MS);
        assert_eq!(recent.series.len(), CLASSES_MAX + 1);
        assert_eq!(recent.series[OTHER].exported[STEPS - 1], 10);
    }
}
