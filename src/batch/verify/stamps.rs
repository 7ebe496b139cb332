//! Recognizes timestamps of rows that a wrong clock gave: rows are appended, so each was written before those after it,
//! and before the last change of the export. Pure.

use crate::batch::verify::fact::{Stamp, utc_stamp};
use crate::record::timestamp::stamp;

/// Maximum number of steps back that clocks explain. With more, rows are in another order than that of time, as after a
/// rebuild.
const STEPS_MAX: usize = 1_000;

/// The unit of the change times of files on some file systems.
const FILE_TIME_MS: u64 = 1_000;

/// The steps back in the timestamps of an export.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    last: Option<Stamp>,
    /// Rows with an earlier timestamp than the row before them, less those that a later one precedes in time.
    steps: Vec<(u64, Stamp)>,
    steps_seen: usize,
    /// The last change of the export.
    export_changed: Option<Stamp>,
}

impl Stamps {
    /// Adds the next row, by its offset. `None`: a timestamp that is not comparable.
    pub(super) fn add(&mut self, offset: u64, stamp: Option<Stamp>) {
        let Some(stamp) = stamp else { return };
        if self.last.is_some_and(|last| stamp < last) {
            self.steps_seen += 1;
            let earlier = self.steps.partition_point(|(_, earlier)| *earlier < stamp);
            self.steps.truncate(earlier);
            if self.steps_seen <= STEPS_MAX {
                self.steps.push((offset, stamp));
            }
        }
        self.last = Some(stamp);
    }

    /// Sets the time of the last change of the export, milliseconds since 1970.
    pub(super) fn set_export_changed(&mut self, changed_ms: u64) {
        self.export_changed = utc_stamp(stamp(changed_ms + FILE_TIME_MS).as_bytes());
    }

    /// Returns whether the row at this offset was written earlier than its timestamp.
    pub(super) fn is_too_late(&self, offset: u64, stamp: &Stamp) -> bool {
        if self.export_changed.is_some_and(|changed| *stamp > changed) {
            return true;
        }
        let later = self.steps.partition_point(|(at, _)| *at <= offset);
        let earliest = self.steps.get(later);
        self.steps_seen <= STEPS_MAX && earliest.is_some_and(|(_, earliest)| earliest < stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(number: u8) -> Stamp {
        [number; size_of::<Stamp>()]
    }

    #[test]
    fn a_timestamp_after_that_of_a_later_row_is_too_late() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..2_000 {
            let rows: Vec<u8> = (0..random.usize(1..9)).map(|_| random.u8(..5)).collect();
            let mut stamps = Stamps::default();
            for (offset, row) in (0..).zip(&rows) {
                stamps.add(offset, Some(numbered(*row)));
            }
            for (offset, row) in (0..).zip(&rows) {
                let is_too_late = rows[offset as usize..].iter().any(|later| later < row);
                assert_eq!(
                    stamps.is_too_late(offset, &numbered(*row)),
                    is_too_late,
                    "{rows:?}"
                );
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_rows_in_another_order_have_right_timestamps() {
        let mut stamps = Stamps::default();
        for row in 0..=2 * STEPS_MAX as u64 + 1 {
            stamps.add(row, Some(numbered(2 - (row % 2) as u8)));
        }
        assert!(stamps.steps.is_empty());
        assert!(!stamps.is_too_late(0, &numbered(2)));
    }

    #[test]
    fn a_timestamp_after_the_last_change_of_the_export_is_too_late() {
        let mut stamps = Stamps::default();
        stamps.set_export_changed(5_000);
        for (ms, is_too_late) in [(5_000, false), (6_000, false), (6_001, true)] {
            let row = utc_stamp(stamp(ms).as_bytes()).unwrap();
            assert_eq!(stamps.is_too_late(0, &row), is_too_late, "{ms}");
        }
    }
}
