//! What must hold at all times, seen from above.

use std::collections::BTreeMap;

use super::store::Store;

/// Totals of a run, and a sum over all that happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Linearizable reads that were answered.
    pub reads: u64,
    /// Terms that had a leader.
    pub leaders: u64,
    /// Members that crashed.
    pub crashes: u64,
    /// Snapshots that took the place of a member's state.
    pub snapshots: u64,
    /// Changes of members that were applied, each once.
    pub changes: u64,
    /// Leaders that gave up because of their disk.
    pub stalls: u64,
    /// Messages that were refused.
    pub refused: u64,
    /// The same for the same seed.
    pub trace: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// Sum of the state at each index, as whoever was first there had it.
    sums: BTreeMap<u64, u64>,
    /// Who led each term, in which of its lives.
    leaders: BTreeMap<u64, (u64, u64)>,
    /// Highest index of an acknowledged write, or seen by a read that was answered.
    pub(crate) seen: u64,
    pub(crate) outcome: Outcome,
}

impl Checks {
    pub(crate) fn note(&mut self, numbers: &[u64]) {
        for number in numbers {
            let mixed = (self.outcome.trace ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.outcome.trace = mixed ^ mixed >> 29;
        }
    }

    /// A member's state is at a new index.
    pub(crate) fn state(&mut self, id: u64, store: &Store) {
        let first = *self.sums.entry(store.index).or_insert(store.sum);
        assert_eq!(first, store.sum, "{id}: another state at index {}", store.index);
        self.note(&[id, store.index, store.sum]);
    }

    pub(crate) fn is_new(&self, index: u64) -> bool {
        !self.sums.contains_key(&index)
    }

    pub(crate) fn leader(&mut self, id: u64, life: u64, term: u64) {
        let known = self.leaders.len();
        let first = *self.leaders.entry(term).or_insert((id, life));
        assert_eq!(first, (id, life), "term {term} has two leaders");
        if self.leaders.len() > known {
            self.outcome.leaders += 1;
            self.note(&[id, life, term]);
        }
    }

    pub(crate) fn written(&mut self, index: u64) {
        self.seen = self.seen.max(index);
        self.outcome.writes += 1;
    }

    /// A read that was begun when `must_see` had been seen is answered from the state at `applied`.
    pub(crate) fn read(&mut self, id: u64, must_see: u64, read_index: u64, applied: u64) {
        assert!(
            read_index >= must_see,
            "{id}: a read is stale: index {read_index}, but {must_see} was seen before it began"
        );
        self.seen = self.seen.max(applied);
        self.outcome.reads += 1;
    }
}
