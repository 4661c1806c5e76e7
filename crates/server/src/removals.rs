//! Records that compaction dropped, on their way out of the store's file.
//!
//! ```text
//! sweep (by key) ──> add ──> ascending by revision ──> take: a slice per commit, paced
//!                                                        └ none left: the compaction's last row, its waiters
//! ```
//! Sorted, because rows of neighbouring revisions share a page: by key every removal would rewrite one of its
//! own. That keeps the order which matters, a key's older records before its newer ones: whatever part is gone
//! after a crash, a restart sees the same keys.

use bytes::Bytes;
use etched_mvcc::Revision;
use etched_storage::Table;

use crate::shared::Waiter;

/// Records that wait here before the sweep has to: 16 bytes each.
pub(crate) const WAITING_MAX: usize = 1_000_000;
/// Records removed in one commit: some milliseconds of work.
pub(crate) const SLICE: usize = 4_000;

type Row = (Table, Bytes, Option<Bytes>);

/// What is to be removed, and who hears of it.
#[derive(Debug, Default)]
pub(crate) struct Removals {
    /// Descending once sorted, so that slices come off the end.
    revisions: Vec<Revision>,
    sorted: bool,
    /// `finishedCompactRev`: true only when nothing waits here any more.
    finished: Vec<Row>,
    waiters: Vec<Waiter>,
}

impl Removals {
    /// Takes over what the sweep dropped, and with it the rows that say a compaction is complete.
    pub(crate) fn add(&mut self, dropped: Vec<Revision>, rows: &mut Vec<Row>) {
        if !dropped.is_empty() {
            self.revisions.extend(dropped);
            self.sorted = false;
        }
        let is_finish = |row: &Row| row.0 == Table::Meta && row.1 == crate::apply::FINISHED;
        self.finished.extend(rows.extract_if(.., |row| is_finish(row)));
    }

    /// Keeps those who wait for all there is.
    pub(crate) fn wait(&mut self, waiters: Vec<Waiter>) {
        self.waiters.extend(waiters);
    }

    /// Whether nothing waits: no record, no row, nobody.
    pub(crate) const fn is_empty(&self) -> bool {
        self.revisions.is_empty() && self.finished.is_empty() && self.waiters.is_empty()
    }

    /// Whether the next slice is the last.
    pub(crate) const fn is_short(&self) -> bool {
        self.revisions.len() <= SLICE
    }

    /// The next slice, ascending; after the last one come the rows that were kept back.
    pub(crate) fn take(&mut self, rows: &mut Vec<Row>) -> Vec<Revision> {
        if !std::mem::replace(&mut self.sorted, true) {
            self.revisions.sort_unstable_by(|a, b| b.cmp(a));
        }
        let rest = self.revisions.len().saturating_sub(SLICE);
        let mut slice = self.revisions.split_off(rest);
        slice.reverse();
        if self.revisions.is_empty() {
            self.revisions = Vec::new();
            rows.append(&mut self.finished);
        }
        slice
    }

    /// Those who waited, once nothing is left and the last slice is committed.
    pub(crate) fn take_waiters(&mut self) -> Vec<Waiter> {
        if self.revisions.is_empty() && self.finished.is_empty() {
            std::mem::take(&mut self.waiters)
        } else {
            Vec::new()
        }
    }

    /// Takes back a slice that could not be written, with its rows.
    pub(crate) fn put_back(&mut self, slice: &mut Vec<Revision>, rows: &mut Vec<Row>) {
        self.add(std::mem::take(slice), rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(main: i64) -> Revision {
        Revision::start_of(main)
    }

    #[test]
    fn slices_ascend_and_the_last_one_brings_the_row_that_all_are_gone() {
        let mut removals = Removals::default();
        let finished = (Table::Meta, Bytes::from_static(crate::apply::FINISHED), None);
        let other = (Table::Meta, Bytes::from_static(b"other"), None);
        let mut rows = vec![other.clone(), finished.clone()];
        let count = SLICE as i64 + 10;
        removals.add((0..count).map(|number| at(number * 7919 % count)).collect(), &mut rows);
        assert_eq!(rows, [other]);
        rows.clear();
        let first = removals.take(&mut rows);
        assert_eq!((first.len(), &rows), (SLICE, &Vec::new()));
        let rest = removals.take(&mut rows);
        assert_eq!(rows, [finished]);
        let all: Vec<_> = first.into_iter().chain(rest).collect();
        assert_eq!(all, (0..count).map(at).collect::<Vec<_>>());
    }

    #[test]
    fn a_slice_that_was_put_back_comes_again_before_what_is_newer() {
        let mut removals = Removals::default();
        let (mut rows, mut none) = (Vec::new(), Vec::new());
        removals.add(vec![at(5), at(3)], &mut none);
        let mut slice = removals.take(&mut rows);
        removals.put_back(&mut slice, &mut rows);
        removals.add(vec![at(4)], &mut none);
        assert_eq!(removals.take(&mut rows), [at(3), at(4), at(5)]);
    }
}
