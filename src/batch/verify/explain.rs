//! Explains what is left of a slice, the keys of some groups at a time: all keys of a pair are of one group, so that no pair
//! is read twice unless a group has very many keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::verify::compare::{KeyRows, Unmatched};
use crate::batch::verify::day_file::Now;
use crate::batch::verify::diagnose::Diagnosis;
use crate::batch::verify::error::VerifyError;
use crate::batch::verify::recheck::Recheck;
use crate::batch::verify::sought::Sought;
use crate::batch::verify::tally::{Explanation, Tally};
use crate::lake::path::PairPath;
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::map_in_order::map_in_order;
use crate::record::keys::LocalRowKey;
use crate::store::written::RowBytes;

/// Fraction of the rows held at once that is the maximum number of keys explained together.
const KEYS_MAX_FRACTION: u64 = 8;

/// Adds the rows and lines of a key in a slice to its tally.
pub(super) type AddToTally<'t> = &'t dyn Fn(&mut Tally);

/// A key with what is left of it.
type KeyLeft<'f> = (LocalRowKey, &'f KeyRows, Unmatched);

impl Recheck<'_> {
    /// Explains the rows and lines of the remaining keys and passes each key to `on_key`, with a
    /// function that adds them to the key's tally. Returns the number of rows made of lines and evidence.
    pub(super) fn explain(
        &self,
        on_key: &mut dyn FnMut(LocalRowKey, AddToTally<'_>) -> Result<(), VerifyError>,
    ) -> Result<u64, VerifyError> {
        let mut keys: Vec<LocalRowKey> = self.keys.keys().copied().collect();
        keys.sort_unstable();
        let keys_max = (self.options.rows_held_max / KEYS_MAX_FRACTION).max(1) as usize;
        let (mut rest, mut rows_made) = (&keys[..], 0);
        while !rest.is_empty() {
            let (together, behind) = rest.split_at(len_of_groups(rest, keys_max));
            rows_made += self.explain_keys(together, on_key)?;
            rest = behind;
        }
        Ok(rows_made)
    }

    /// Explains some of the keys, which are sorted.
    fn explain_keys(
        &self,
        keys: &[LocalRowKey],
        on_key: &mut dyn FnMut(LocalRowKey, AddToTally<'_>) -> Result<(), VerifyError>,
    ) -> Result<u64, VerifyError> {
        let left: Vec<KeyLeft<'_>> = keys
            .iter()
            .map(|key| (*key, &*self.keys[key], self.keys[key].unmatched()))
            .collect();
        let rows = left.iter().map(|(_, _, left)| left.rows.len()).sum();
        let mut sought = Vec::with_capacity(rows);
        for (key, facts, left) in &left {
            sought.extend(left.rows.iter().map(|row| (*key, &facts.rows[row.at])));
        }
        let sought = Sought::new(keys.to_vec(), sought);
        let mut diagnosis = Diagnosis::new(&sought, &self.stamps);
        self.diagnose(&left, &sought, &mut diagnosis)?;
        let mut explanations: Vec<Explanation> =
            (0..rows).map(|row| diagnosis.explanation(row)).collect();
        self.compare_as_written(&sought, &mut explanations);
        let is_whole = self.slice.group.parts == 1;
        let mut first_row = 0;
        for (key, facts, left) in left {
            let rows = first_row..first_row + left.rows.len();
            first_row = rows.end;
            let explanations = &explanations[rows];
            let lines = left.lines.iter().map(|line| &facts.lines[*line].1);
            let settling: Vec<bool> = lines.map(|line| diagnosis.is_settling(key, line)).collect();
            on_key(key, &|tally| {
                tally.add(facts, &left, explanations, &settling, is_whole);
            })?;
        }
        Ok(diagnosis.rows_made)
    }

    /// A change of the sources explains only rows that did not change themselves.
    fn compare_as_written(&self, sought: &Sought<'_>, explanations: &mut [Explanation]) {
        let rows = explanations.iter_mut().zip(&sought.rows);
        let excused = rows.filter(|(explanation, _)| **explanation == Explanation::SourceChange);
        let (mut explained, mut offsets) = (Vec::new(), Vec::new());
        for (explanation, (_, row)) in excused {
            explained.push(explanation);
            offsets.extend([row.offset, row.last_offset]);
        }
        if offsets.is_empty() {
            return;
        }
        let bytes = (self.written_rows)(&offsets);
        for (explanation, bytes) in explained.into_iter().zip(bytes.chunks_exact(2)) {
            *explanation = match bytes[0].max(bytes[1]) {
                RowBytes::AsWritten => Explanation::SourceChange,
                RowBytes::Unknown => Explanation::Undetermined,
                RowBytes::Changed => Explanation::ExportChange,
            };
        }
    }

    /// Reads the pairs of all lines of the keys.
    fn diagnose(
        &self,
        left: &[KeyLeft<'_>],
        sought: &Sought<'_>,
        diagnosis: &mut Diagnosis<'_>,
    ) -> Result<(), VerifyError> {
        let now = Now {
            wall_ms: HostClock::new().wall_ms(),
            settle: self.options.settle,
        };
        let mut by_pair: BTreeMap<&Arc<PairPath>, Vec<(LocalRowKey, u64)>> = BTreeMap::new();
        for (key, facts, _) in left {
            for pair in &*facts.pairs {
                let lines = by_pair.entry(&pair.first.pair).or_default();
                lines.push((*key, pair.count()));
            }
        }
        let max_line_bytes = self.options.max_line_bytes;
        let mut pairs = by_pair.into_iter();
        map_in_order(
            diagnosis,
            |_| Ok(pairs.next()),
            |_| false,
            |(pair, lines)| {
                let read = sought.read_pair(self.lake, pair, max_line_bytes, now, &lines);
                (pair, lines, read)
            },
            |diagnosis, (pair, lines, read)| {
                let notes = read.map_err(|source| VerifyError::Examine {
                    pair: pair.to_string(),
                    source,
                })?;
                diagnosis.add_pair(pair, notes, &lines);
                Ok(())
            },
        )
    }
}

/// Returns the number of keys in the first groups that have at most `keys_max` keys together, or `keys_max` of a larger
/// group. The keys are sorted.
fn len_of_groups(keys: &[LocalRowKey], keys_max: usize) -> usize {
    let Some(next) = keys.get(keys_max) else {
        return keys.len();
    };
    match keys.partition_point(|key| key.group() < next.group()) {
        0 => keys_max,
        len => len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_group_stay_together_if_they_fit() {
        let key = |group: u128, number: u128| {
            LocalRowKey(group << (u128::BITS - LocalRowKey::GROUP_BITS) | number)
        };
        let keys = [1, 1, 1, 4, 4, 63].iter().zip(0..);
        let keys: Vec<LocalRowKey> = keys.map(|(group, number)| key(*group, number)).collect();
        for (keys_max, len) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 5), (6, 6), (9, 6)] {
            assert_eq!(len_of_groups(&keys, keys_max), len, "{keys_max}");
        }
    }
}
