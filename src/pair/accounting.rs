//! The account of all pairs: their sums, and the same per source class. It is stored with the state's header, so that a
//! query needs no walk. Pure.
//!
//! A source class is the name of a day-file without `.jsonl`. The first [`CLASSES_MAX`] classes are counted
//! separately, all others under [`OTHER`], so that neither memory nor metric labels grow without bound.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::verdict::LineTotals;

/// Source classes kept apart.
pub const CLASSES_MAX: usize = 64;
/// Name of the class that counts all classes beyond [`CLASSES_MAX`].
pub const OTHER: &str = "other";

/// Sums over all pairs, per source class and in total.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Account {
    /// Over all pairs.
    pub totals: LineTotals,
    /// Over the pairs of each source class.
    pub classes: BTreeMap<String, LineTotals>,
    /// Without meaning; it keeps the format of the state. Rows by time are in [`crate::pair::history::History`].
    reserved: (u32, u64),
}

impl Account {
    /// Takes a pair's figures out (`before`) and puts its new ones in (`after`).
    pub fn replace(&mut self, before: &PairCheckpoint, after: &PairCheckpoint) {
        let (old, new) = (before.line_totals(), after.line_totals());
        // An unchanged pair adds no class: which classes exist depends on the lines that were read alone.
        if old == new {
            return;
        }
        self.totals.replace(&old, &new);
        let class = class_of(&after.path);
        let class = self.class_kept(&class).to_owned();
        self.classes.entry(class).or_default().replace(&old, &new);
    }

    /// The name that a class counts under.
    #[must_use]
    pub fn class_kept<'c>(&self, class: &'c str) -> &'c str {
        let apart = self.classes.len() - usize::from(self.classes.contains_key(OTHER));
        if self.classes.contains_key(class) || apart < CLASSES_MAX {
            class
        } else {
            OTHER
        }
    }

    /// Promise 5 over all pairs: the totals balance, and are the sum over the classes.
    #[must_use]
    pub fn balanced(&self) -> bool {
        let mut sum = LineTotals::default();
        for class in self.classes.values() {
            sum.add(class);
        }
        self.totals.balanced() && sum == self.totals
    }
}

/// The source class of a pair's path; each byte that is not UTF-8 as U+FFFD.
#[must_use]
pub fn class_of(path: &[u8]) -> String {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let name = name.strip_suffix(b".jsonl").unwrap_or(name);
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::verdict::{VerdictCounts, VerdictKind};

    fn pair(name: &str, firewalled: u64) -> PairCheckpoint {
        let mut pair = PairCheckpoint::new(format!("2026/05/01/{name}.jsonl").into_bytes());
        pair.scored.lines = firewalled;
        pair.scored.records = firewalled;
        pair.counts = VerdictCounts::default().with(VerdictKind::Firewalled, firewalled);
        pair
    }

    fn never(name: &str) -> PairCheckpoint {
        pair(name, 0)
    }

    #[test]
    fn a_class_is_the_name_of_its_day_files() {
        for (path, class) in [
            (&b"2026/05/01/audits.jsonl"[..], "audits"),
            (b"2026/05/01/.jsonl", ""),
            (b"2026/05/01/a.b.jsonl", "a.b"),
            (b"2026/05/01/\xff.jsonl", "\u{fffd}"),
        ] {
            assert_eq!(class_of(path), class);
        }
    }

    #[test]
    fn classes_are_sums_over_days_and_the_totals_sums_over_classes() {
        let mut account = Account::default();
        account.replace(&never("a"), &pair("a", 3));
        account.replace(&never("a"), &pair("a", 4));
        account.replace(&never("b"), &pair("b", 5));
        account.replace(&pair("a", 3), &pair("a", 1));
        assert_eq!(account.classes["a"].counts[VerdictKind::Firewalled], 5);
        assert_eq!(account.totals.counts[VerdictKind::Firewalled], 10);
        assert!(account.balanced());
        account.classes.get_mut("a").unwrap().scored_lines -= 1;
        account.classes.get_mut("a").unwrap().counts[VerdictKind::Firewalled] -= 1;
        assert!(!account.balanced(), "each balances, but not their sum");
    }

    #[test]
    fn classes_past_the_bound_count_as_other_and_stay_there() {
        let mut account = Account::default();
        account.replace(&never("seen, not read"), &never("seen, not read"));
        for n in 0..CLASSES_MAX + 3 {
            account.replace(&never(&n.to_string()), &pair(&n.to_string(), 1));
        }
        account.replace(&pair("65", 1), &pair("65", 2));
        account.replace(&pair("3", 1), &pair("3", 2));
        assert_eq!(account.classes.len(), CLASSES_MAX + 1);
        assert_eq!(account.classes[OTHER].counts[VerdictKind::Firewalled], 4);
        assert_eq!(account.classes["3"].counts[VerdictKind::Firewalled], 2);
        assert!(account.balanced());
    }

    #[test]
    fn a_day_file_called_other_takes_no_place_from_a_class() {
        let mut account = Account::default();
        account.replace(&never(OTHER), &pair(OTHER, 1));
        for n in 0..=CLASSES_MAX {
            account.replace(&never(&n.to_string()), &pair(&n.to_string(), 1));
        }
        assert_eq!(account.classes.len(), CLASSES_MAX + 1);
        assert_eq!(account.classes[OTHER].counts[VerdictKind::Firewalled], 2);
    }
}
