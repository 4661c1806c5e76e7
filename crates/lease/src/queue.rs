//! A queue of leases by the time at which something is due.
//!
//! The caller remembers under which time a lease is queued: that makes moving it O(log n) without a
//! second map. Times are nanoseconds since the caller's start; equal times go by id.

use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub(crate) struct DueQueue {
    entries: BTreeSet<(u64, i64)>,
}

impl DueQueue {
    pub(crate) fn insert(&mut self, at: u64, id: i64) {
        self.entries.insert((at, id));
    }

    pub(crate) fn remove(&mut self, at: u64, id: i64) {
        self.entries.remove(&(at, id));
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// The earliest time that something is due.
    pub(crate) fn next(&self) -> Option<u64> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// Takes the earliest entry out when it is due at `now`.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<i64> {
        if self.next()? > now {
            return None;
        }
        self.entries.pop_first().map(|(_, id)| id)
    }
}
