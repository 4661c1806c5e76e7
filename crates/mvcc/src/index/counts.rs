//! What an inner node counted last at old revisions.
//!
//! Counting at an old revision looks into every leaf in which a key appeared or vanished since. Who reads a list
//! page by page asks for nearly the same count again and again; with the sums of whole subtrees at hand only the
//! two edges of the range are looked into.
//!
//! How many keys of a node existed at a revision changes neither by writes, which are newer, nor by pruning,
//! which leaves what can be read. So a count is dropped only when keys move between nodes.

use parking_lot::Mutex;

use crate::limit;

/// Revisions remembered: as many lists as can be read side by side. One more, and the oldest answer goes.
const REVISIONS_MAX: usize = limit(4, 2);

/// A main revision, which is never 0, and the keys there were.
type Count = (i64, u64);

#[derive(Debug, Default)]
pub(super) struct OldCounts(Mutex<[Count; REVISIONS_MAX]>);

impl OldCounts {
    /// The count at `main`, which lies before the last change of the node's keys.
    pub(super) fn at(&self, main: i64) -> Option<usize> {
        let counts = self.0.lock();
        counts.iter().find(|(at, _)| *at == main && main > 0).map(|&(_, count)| count as usize)
    }

    pub(super) fn note(&self, main: i64, count: usize) {
        let mut counts = self.0.lock();
        if counts.iter().all(|(at, _)| *at != main) {
            counts.rotate_right(1);
            counts[0] = (main, count as u64);
        }
    }

    /// Keys came into the node from another one, or went to one.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// A copy of a node has the same keys.
impl Clone for OldCounts {
    fn clone(&self) -> Self {
        Self(Mutex::new(*self.0.lock()))
    }
}
