//! The standing orders of operators: runs whose rows are out, and whose later lines earn no row.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::keys::RunKey;

/// Standing orders by run. Pure; the retraction ledger holds them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orders {
    /// Per run, the pairs that the orders concern; an empty path concerns all.
    runs: BTreeMap<RunKey, BTreeSet<Vec<u8>>>,
}

impl Orders {
    /// No orders.
    pub const NONE: Orders = Orders {
        runs: BTreeMap::new(),
    };

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Returns the number of orders.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.values().map(BTreeSet::len).sum()
    }

    /// Adds an order on a run, in one pair or, with an empty path, in all. Returns whether it is new.
    pub fn insert(&mut self, run: RunKey, pair: &[u8]) -> bool {
        self.runs.entry(run).or_default().insert(pair.to_vec())
    }

    /// Removes an order. Returns whether there was one.
    pub fn remove(&mut self, run: RunKey, pair: &[u8]) -> bool {
        let Some(pairs) = self.runs.get_mut(&run) else {
            return false;
        };
        let was_there = pairs.remove(pair);
        if pairs.is_empty() {
            self.runs.remove(&run);
        }
        was_there
    }

    /// Returns whether there is this order.
    #[must_use]
    pub fn contains(&self, run: RunKey, pair: &[u8]) -> bool {
        self.runs
            .get(&run)
            .is_some_and(|pairs| pairs.contains(pair))
    }

    /// Returns the runs with an order that is limited to a pair.
    pub fn limited_to<'a>(&'a self, pair: &'a [u8]) -> impl Iterator<Item = RunKey> + 'a {
        let runs = self.runs.iter().filter(|(_, pairs)| pairs.contains(pair));
        runs.map(|(run, _)| *run)
    }

    /// Returns whether any order is limited to one of these pairs.
    pub fn any_limited_to(&self, is_one: impl Fn(&[u8]) -> bool) -> bool {
        let mut pairs = self.runs.values().flatten();
        pairs.any(|pair| !pair.is_empty() && is_one(pair))
    }

    /// Returns whether any order is on a run.
    #[must_use]
    pub fn has_run(&self, run: RunKey) -> bool {
        self.runs.contains_key(&run)
    }

    /// Returns whether an order keeps the rows of a run out in any pair whose day-files have this name.
    #[must_use]
    pub fn may_apply_to(&self, run: RunKey, day_file_name: &str) -> bool {
        let name = day_file_name.as_bytes();
        let is_named = |pair: &Vec<u8>| {
            pair.is_empty() || pair.rsplit(|byte| *byte == b'/').next() == Some(name)
        };
        self.runs
            .get(&run)
            .is_some_and(|pairs| pairs.iter().any(is_named))
    }

    /// Returns whether an order keeps the rows of a run in a pair out.
    #[must_use]
    pub fn apply_to(&self, run: RunKey, pair: &[u8]) -> bool {
        let pairs = self.runs.get(&run);
        pairs.is_some_and(|pairs| pairs.contains(&b""[..]) || pairs.contains(pair))
    }
}
