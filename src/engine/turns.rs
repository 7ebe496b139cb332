//! The orders in which queued pairs have their turn. Neither prefers a name.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;

use crate::lake::path::PairPath;

/// Pairs in the order of their arrival, each once.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    order: VecDeque<PairPath>,
    queued: BTreeSet<PairPath>,
}

impl Arrivals {
    /// Queues a pair after all others. One that is queued keeps its place.
    pub(super) fn push(&mut self, path: PairPath) {
        if self.queued.insert(path.clone()) {
            self.order.push_back(path);
        }
    }

    /// Queues a pair before all others: it was taken and not read.
    pub(super) fn push_first(&mut self, path: PairPath) {
        if !self.queued.insert(path.clone()) {
            self.order.retain(|queued| *queued != path);
        }
        self.order.push_front(path);
    }

    /// Takes the pair that was queued first.
    pub(super) fn pop(&mut self) -> Option<PairPath> {
        let path = self.order.pop_front()?;
        self.queued.remove(&path);
        Some(path)
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn contains(&self, path: &PairPath) -> bool {
        self.queued.contains(path)
    }

    /// Returns the pairs in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &PairPath> {
        self.order.iter()
    }
}

/// Pairs in the order of their paths, which are taken in a circle: a scan may queue the first ones again before the others
/// have had their turn.
#[derive(Debug)]
pub(super) struct Circle {
    queued: BTreeSet<PairPath>,
    /// Where the next pair is taken.
    from: Bound<PairPath>,
}

impl Default for Circle {
    fn default() -> Self {
        Self {
            queued: BTreeSet::new(),
            from: Bound::Unbounded,
        }
    }
}

impl Circle {
    /// Queues a pair.
    pub(super) fn push(&mut self, path: PairPath) {
        self.queued.insert(path);
    }

    /// Queues a pair that was taken and not read; it is the next one.
    pub(super) fn push_first(&mut self, path: PairPath) {
        self.from = Bound::Included(path.clone());
        self.queued.insert(path);
    }

    /// Takes the next pair.
    pub(super) fn pop(&mut self) -> Option<PairPath> {
        let from = std::mem::replace(&mut self.from, Bound::Unbounded);
        let next = self.queued.range((from, Bound::Unbounded)).next();
        let path = next.or_else(|| self.queued.first())?.clone();
        self.queued.remove(&path);
        self.from = Bound::Excluded(path.clone());
        Some(path)
    }

    pub(super) fn len(&self) -> usize {
        self.queued.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    pub(super) fn contains(&self, path: &PairPath) -> bool {
        self.queued.contains(path)
    }

    /// Returns the pairs in the order of their paths.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &PairPath> {
        self.queued.iter()
    }
}
