//! The last 24 hours by minute: rows exported and lines refused per source class. Bounded by the number of classes that
//! the accounting distinguishes. Only a plot depends on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pair::accounting::{CLASSES_MAX, OTHER};

/// Length of a step, seconds.
const STEP_S: u64 = 60;
/// Number of steps: a day.
const STEPS: usize = 24 * 60;

/// The last day in its persisted and published form. Compatible changes only add keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent {
    /// Start of the first step, seconds since 1970.
    pub minute_s: u64,
    /// Length of a step, seconds.
    pub step_s: u64,
    /// Per source class, one figure per step, oldest first; all of equal length.
    pub series: BTreeMap<String, Series>,
    /// Number of additions in this process, by which a caller detects changes.
    #[serde(skip)]
    pub notes: u64,
}

/// The figures of one source class.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Series {
    /// Rows written per step.
    pub exported: Vec<u32>,
    /// Refused and malformed lines per step.
    pub refused: Vec<u32>,
}

impl Series {
    fn zero() -> Self {
        Self {
            exported: vec![0; STEPS],
            refused: vec![0; STEPS],
        }
    }

    fn is_zero(&self) -> bool {
        self.exported
            .iter()
            .chain(&self.refused)
            .all(|figure| *figure == 0)
    }

    fn shift(&mut self, steps: usize) {
        for figures in [&mut self.exported, &mut self.refused] {
            figures.drain(..steps.min(STEPS));
            figures.resize(STEPS, 0);
        }
    }
}

impl Recent {
    /// Makes an empty history whose last step contains `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self {
            minute_s: first_minute(now_ms),
            step_s: STEP_S,
            series: BTreeMap::new(),
            notes: 0,
        }
    }

    /// Advances a persisted history to now. An invalid one is replaced by an empty history.
    #[must_use]
    pub fn resume(persisted: Self, now_ms: u64) -> Self {
        let is_valid = persisted.step_s == STEP_S
            && persisted.minute_s.is_multiple_of(STEP_S)
            && persisted.minute_s <= first_minute(now_ms)
            && persisted.series.len() <= CLASSES_MAX + 1
            && (persisted.series.values())
                .all(|series| series.exported.len() == STEPS && series.refused.len() == STEPS);
        if !is_valid {
            return Self::new(now_ms);
        }
        let mut resumed = persisted;
        resumed.advance(now_ms);
        resumed
    }

    /// Drops steps older than a day. Does nothing if the clock was set back.
    pub fn advance(&mut self, now_ms: u64) {
        let steps = first_minute(now_ms).saturating_sub(self.minute_s) / STEP_S;
        if steps == 0 {
            return;
        }
        self.minute_s += steps * STEP_S;
        let steps = usize::try_from(steps).unwrap_or(STEPS);
        for series in self.series.values_mut() {
            series.shift(steps);
        }
        self.series.retain(|_, series| !series.is_zero());
    }

    /// Adds the figures of a source class to the current step.
    pub fn add(&mut self, class: &str, now_ms: u64, exported: u64, refused: u64) {
        if exported == 0 && refused == 0 {
            return;
        }
        self.advance(now_ms);
        self.notes += 1;
        let full = self.series.len() >= CLASSES_MAX && !self.series.contains_key(class);
        let class = if full { OTHER } else { class };
        let series = self
            .series
            .entry(class.to_owned())
            .or_insert_with(Series::zero);
        // If the clock was set back, the last step counts as the current one.
        for (figures, count) in [
            (&mut series.exported, exported),
            (&mut series.refused, refused),
        ] {
            if let Some(last) = figures.last_mut() {
                *last = last.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
            }
        }
    }

    /// Returns the rows of all classes in the newest steps, oldest first.
    #[must_use]
    pub fn exported_newest(&self, steps: usize) -> Vec<u64> {
        let steps = steps.min(STEPS);
        (STEPS - steps..STEPS)
            .map(|step| {
                let of_step = self.series.values().map(|series| series.exported.get(step));
                of_step.map(|rows| u64::from(*rows.unwrap_or(&0))).sum()
            })
            .collect()
    }
}

/// Returns the start of the first step if the last step contains `now_ms`, seconds since 1970.
fn first_minute(now_ms: u64) -> u64 {
    let minute = now_ms / 1_000 / STEP_S;
    (minute + 1).saturating_sub(STEPS as u64) * STEP_S
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_777_000_000_000;
    const MINUTE_MS: u64 = 60_000;

    fn last_two(recent: &Recent, class: &str) -> (u32, u32) {
        let exported = &recent.series[class].exported;
        (exported[STEPS - 2], exported[STEPS - 1])
    }

    #[test]
    fn figures_count_in_their_minute_and_expire_after_a_day() {
        let mut recent = Recent::new(NOW_MS);
        recent.add("a", NOW_MS, 2, 1);
        recent.add("a", NOW_MS + MINUTE_MS, 3, 0);
        recent.add("b", NOW_MS + MINUTE_MS, 4, 0);
        assert_eq!(last_two(&recent, "a"), (2, 3));
        assert_eq!(recent.exported_newest(2), [2, 7]);
        let covered_s = recent.minute_s + STEP_S * STEPS as u64;
        let now_s = (NOW_MS + MINUTE_MS) / 1_000;
        assert!((now_s + 1..=now_s + STEP_S).contains(&covered_s));
        recent.advance(NOW_MS + MINUTE_MS * STEPS as u64);
        assert_eq!(recent.series["a"].exported[0], 3);
        recent.advance(NOW_MS + MINUTE_MS * (STEPS as u64 + 1));
        assert!(recent.series.is_empty());
        recent.advance(u64::MAX);
    }

    #[test]
    fn a_clock_that_is_set_back_moves_nothing() {
        let mut recent = Recent::new(NOW_MS);
        recent.add("a", NOW_MS - 10 * MINUTE_MS, 1, 0);
        assert_eq!(last_two(&recent, "a"), (0, 1));
    }

    #[test]
    fn a_persisted_history_is_advanced_and_an_invalid_one_is_dropped() {
        let mut persisted = Recent::new(NOW_MS);
        persisted.add("a", NOW_MS, 5, 0);
        let resumed = Recent::resume(persisted.clone(), NOW_MS + MINUTE_MS);
        assert_eq!(last_two(&resumed, "a"), (5, 0));
        let mut short = persisted.clone();
        short.series.get_mut("a").unwrap().refused.pop();
        let mut odd = persisted.clone();
        odd.minute_s += 1;
        for wrong in [short, odd] {
            assert_eq!(Recent::resume(wrong, NOW_MS), Recent::new(NOW_MS));
        }
        let from_the_future = Recent::resume(persisted, NOW_MS - MINUTE_MS);
        assert_eq!(from_the_future, Recent::new(NOW_MS - MINUTE_MS));
    }

    #[test]
    fn classes_past_the_bound_count_as_other() {
        let mut recent = Recent::new(NOW_MS);
        for n in 0..CLASSES_MAX + 10 {
            recent.add(&n.to_string(), NOW_MS, 1, 0);
        }
        assert_eq!(recent.series.len(), CLASSES_MAX + 1);
        assert_eq!(recent.series[OTHER].exported[STEPS - 1], 10);
    }
}
