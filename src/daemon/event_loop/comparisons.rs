//! Which day-files a full scan compares with what was read of them. Each round of comparisons takes its share of the pairs,
//! so that all bytes of the lake are compared once in `ROUNDS` rounds, at a load that is the same every hour.

use xxhash_rust::xxh3::xxh3_64;

use crate::lake::path::PairPath;

/// Rounds in which all pairs are compared: a week, with the default pause between full scans.
const ROUNDS: u64 = 168;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Comparisons {
    /// The number of the last round. It follows from the time, so that a restart continues where the last process was.
    round: u64,
    /// Whether the running scan is a round.
    is_round: bool,
    /// When the next round is due, monotonic milliseconds.
    due_ms: u64,
}

impl Comparisons {
    pub(super) fn new(wall_ms: u64, pause_ms: u64) -> Self {
        Self {
            round: wall_ms / pause_ms.max(1),
            is_round: false,
            due_ms: 0,
        }
    }

    /// A full scan begins. Rounds are at least the pause between full scans apart, also while polling scans more often.
    pub(super) fn on_scan(&mut self, now_ms: u64, pause_ms: u64) {
        self.is_round = now_ms >= self.due_ms;
        if self.is_round {
            self.round = self.round.wrapping_add(1);
            self.due_ms = now_ms + pause_ms;
        }
    }

    /// Returns whether the running scan compares a pair.
    pub(super) fn is_due(&self, path: &PairPath) -> bool {
        self.is_round && xxh3_64(path.as_bytes()) % ROUNDS == self.round % ROUNDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn all_pairs_are_compared_once_in_a_week_and_not_sooner_while_polling() {
        const HOUR_MS: u64 = 3_600_000;
        let mut comparisons = Comparisons::new(1_777_000_000_000, HOUR_MS);
        let pair = |n| PairPath::from_relative(Path::new(&format!("2026/05/01/{n}.jsonl")));
        let pairs: Vec<PairPath> = (0..2_000).filter_map(pair).collect();
        let mut compared = vec![0; pairs.len()];
        let mut most = 0;
        // Scans every minute.
        for minute in 0..7 * 24 * 60 {
            comparisons.on_scan(minute * 60_000, HOUR_MS);
            let due = pairs
                .iter()
                .zip(&mut compared)
                .filter(|(pair, _)| comparisons.is_due(pair));
            most = most.max(due.map(|(_, count)| *count += 1).count());
        }
        assert!(compared.iter().all(|count| *count == 1), "{compared:?}");
        assert!(most < 40, "{most}");
    }
}
