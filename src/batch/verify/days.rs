//! Counts differences by day and keeps the first failure of each. The number of days listed is bounded; differences
//! of further days are counted together.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::batch::verify::tally::Kind;
use crate::lake::path::PairPath;

/// Maximum number of days listed.
const DAYS_MAX: usize = 1_000;

/// The position of a difference: the pair and the offset of its line, or no pair and the offset of a row without one.
pub(super) type Place = (Option<Arc<PairPath>>, u64);

/// The differences of one day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DayDifferences {
    /// The day's directory, for example `2026/05/01`; `null` for rows without a line in the sources.
    pub day: Option<String>,
    /// Expected rows that are not in the export.
    pub missing: u64,
    /// Rows in the export that are not expected.
    pub extra: u64,
    /// Unexplained rows in the place of expected ones.
    pub differing: u64,
    /// Rows that differ for a known reason and count as no failure.
    pub excused: u64,
    /// The worst failure of the day, the first of equal ones; `null` if all differences are excused.
    pub first: Option<String>,
}

impl DayDifferences {
    /// Returns whether the day has a failure.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.missing + self.extra + self.differing > 0
    }

    fn count(&mut self, kind: Kind, number: u64) {
        let count = match kind {
            Kind::Missing => &mut self.missing,
            Kind::Forbidden | Kind::Unreadable | Kind::Duplicate | Kind::Unexpected => {
                &mut self.extra
            }
            Kind::Altered | Kind::Ledger | Kind::Unretracted | Kind::Unfounded => {
                &mut self.differing
            }
            Kind::Superseded
            | Kind::SourceChange
            | Kind::OtherDialect
            | Kind::Contradicted
            | Kind::RefusedNow
            | Kind::Orphaned => &mut self.excused,
            // The daemon may not have taken the line yet.
            Kind::Pending => return,
        };
        *count += number;
    }
}

impl fmt::Display for DayDifferences {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = self.day.as_deref().unwrap_or("(no day)");
        let counts = [
            (self.missing, "missing"),
            (self.extra, "extra"),
            (self.differing, "differing"),
            (self.excused, "excused"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        write!(out, "{day}: {}", counts.join(", "))?;
        match &self.first {
            Some(first) => write!(out, "; {first}"),
            None => Ok(()),
        }
    }
}

/// A day's counts and the kind and place of its first failure.
#[derive(Debug, Default)]
struct Day {
    counted: DayDifferences,
    first: Option<(Kind, Place)>,
}

/// The days that differ.
#[derive(Debug, Default)]
pub(super) struct Days {
    days: BTreeMap<Option<String>, Day>,
    unlisted: u64,
}

impl Days {
    /// Counts differences for the day of `pair`.
    pub(super) fn count(&mut self, pair: Option<&PairPath>, kind: Kind, number: u64) {
        if kind == Kind::Pending {
            return;
        }
        let day = day_of(pair);
        if self.days.len() >= DAYS_MAX && !self.days.contains_key(&day) {
            self.unlisted += number;
            return;
        }
        let entry = self.days.entry(day.clone()).or_default();
        entry.counted.day = day;
        entry.counted.count(kind, number);
    }

    /// Returns whether a failure would be the first of its day and so needs a description.
    pub(super) fn is_first(&self, pair: Option<&PairPath>, kind: Kind, place: &Place) -> bool {
        self.days.get(&day_of(pair)).is_some_and(|day| {
            let known = day.first.as_ref();
            known.is_none_or(|known| (kind, place) < (known.0, &known.1))
        })
    }

    /// Stores the first failure of a day that was counted.
    pub(super) fn keep(
        &mut self,
        pair: Option<&PairPath>,
        kind: Kind,
        place: Place,
        description: String,
    ) {
        if let Some(day) = self.days.get_mut(&day_of(pair)) {
            day.first = Some((kind, place));
            day.counted.first = Some(description);
        }
    }

    /// Returns the days in order, rows without a day first, and the number of differences of further days.
    pub(super) fn into_listed(self) -> (Vec<DayDifferences>, u64) {
        let days = self.days.into_values().map(|day| day.counted);
        (days.collect(), self.unlisted)
    }
}

fn day_of(pair: Option<&PairPath>) -> Option<String> {
    let day = pair?.as_path().parent()?;
    Some(day.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn pair(path: &str) -> Arc<PairPath> {
        Arc::new(PairPath::from_relative(Path::new(path)).unwrap())
    }

    fn fail(days: &mut Days, path: &str, kind: Kind, offset: u64) {
        let pair = pair(path);
        days.count(Some(&pair), kind, 1);
        let place = (Some(Arc::clone(&pair)), offset);
        if days.is_first(Some(&pair), kind, &place) {
            days.keep(Some(&pair), kind, place, format!("{kind:?} at {offset}"));
        }
    }

    #[test]
    fn each_day_keeps_its_worst_failure_and_the_first_of_equal_ones() {
        let mut days = Days::default();
        fail(&mut days, "y/m/2/n.jsonl", Kind::Altered, 1);
        fail(&mut days, "y/m/1/n.jsonl", Kind::Missing, 9);
        fail(&mut days, "y/m/2/n.jsonl", Kind::Missing, 7);
        fail(&mut days, "y/m/2/n.jsonl", Kind::Missing, 5);
        days.count(Some(&pair("y/m/3/n.jsonl")), Kind::Superseded, 1);
        days.count(None, Kind::Orphaned, 1);
        days.count(Some(&pair("y/m/4/n.jsonl")), Kind::Pending, 1);
        let (days, unlisted) = days.into_listed();
        let lines: Vec<String> = days.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "(no day): 1 excused",
                "y/m/1: 1 missing; Missing at 9",
                "y/m/2: 2 missing, 1 differing; Missing at 5",
                "y/m/3: 1 excused",
            ]
        );
        assert_eq!(unlisted, 0);
        assert!(days[1].is_failure() && !days[0].is_failure());
    }

    #[test]
    fn days_over_the_limit_are_counted_together() {
        let mut days = Days::default();
        for day in 0..DAYS_MAX + 7 {
            fail(
                &mut days,
                &format!("y/m/{day:05}/n.jsonl"),
                Kind::Missing,
                0,
            );
        }
        let (listed, unlisted) = days.into_listed();
        assert_eq!((listed.len(), unlisted), (DAYS_MAX, 7));
    }
}
