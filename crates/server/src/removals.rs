//! Records that compaction dropped, on their way out of the store's file.
//!
//! ```text
//! sweep (by key) ──> add ──> next batch ── whole? ──> current batch, sorted ──> take: a slice per commit, paced
//!                                                       └ none left: the compaction's last row, its waiters
//! ```
//! A batch begins when the sweep is through, and is sorted then: rows of neighbouring revisions share a page, which
//! goes at once when all of them do. In pieces of the sweep, or by key, every removal would rewrite a page of its
//! own. A batch is a run of what the sweep drops, and goes wholly before the next one: the order keeps what matters, a key's
//! older records before its newer ones (see [`Sweep::dropped`](etched_mvcc::Sweep)).

use bytes::Bytes;
use etched_mvcc::Revision;
use etched_storage::Table;

use crate::shared::Waiter;

/// Records that wait here before the sweep has to: 16 bytes each.
pub(crate) const WAITING_MAX: usize = 1_000_000;
/// Records that make a batch even though the sweep goes on: the one before them may still be on its way.
const BATCH_MAX: usize = WAITING_MAX / 2;
/// Records removed in one commit: a few milliseconds of a processor that requests may want.
pub(crate) const SLICE: usize = 1_000;

type Row = (Table, Bytes, Option<Bytes>);

/// What is to be removed, and who hears of it.
#[derive(Debug, Default)]
pub(crate) struct Removals {
    /// Sorted in descending order, so that slices come off the end.
    current: Batch,
    /// As the sweep brings it.
    next: Batch,
}

#[derive(Debug, Default)]
struct Batch {
    revisions: Vec<Revision>,
    /// `finishedCompactRev`: true only when nothing of the batch is left.
    finished: Vec<Row>,
    waiters: Vec<Waiter>,
}

impl Batch {
    const fn is_gone(&self) -> bool {
        self.revisions.is_empty() && self.finished.is_empty()
    }

    /// Whether its sweep is through, or it is as large as it may be.
    const fn is_whole(&self) -> bool {
        !self.finished.is_empty() || !self.waiters.is_empty() || self.revisions.len() >= BATCH_MAX
    }
}

impl Removals {
    /// Takes over what the sweep dropped, and with it the rows that say a compaction is complete.
    pub(crate) fn add(&mut self, dropped: Vec<Revision>, rows: &mut Vec<Row>) {
        self.next.revisions.extend(dropped);
        self.next.finished.extend(finish_rows(rows));
    }

    /// Keeps those who wait for all there is.
    pub(crate) fn wait(&mut self, waiters: Vec<Waiter>) {
        self.next.waiters.extend(waiters);
    }

    /// Whether [`Self::take`] has something to give, or somebody can be answered after it.
    pub(crate) const fn is_due(&self) -> bool {
        !self.current.is_gone() || !self.current.waiters.is_empty() || self.next.is_whole()
    }

    /// Whether all there is makes one slice.
    pub(crate) const fn is_short(&self) -> bool {
        self.current.revisions.len() + self.next.revisions.len() <= SLICE
    }

    /// The next slice, ascending; after the last one of a batch come the rows that were kept back.
    pub(crate) fn take(&mut self, rows: &mut Vec<Row>) -> Vec<Revision> {
        if self.current.is_gone() && self.next.is_whole() {
            let waiters = std::mem::take(&mut self.current.waiters);
            self.current = std::mem::take(&mut self.next);
            self.current.waiters.extend(waiters);
            self.current.revisions.sort_unstable_by(|a, b| b.cmp(a));
        }
        let revisions = &mut self.current.revisions;
        let mut slice = revisions.split_off(revisions.len().saturating_sub(SLICE));
        slice.reverse();
        if revisions.is_empty() {
            *revisions = Vec::new();
            rows.append(&mut self.current.finished);
        }
        slice
    }

    /// Those who waited for a batch of which nothing is left, once its last slice is committed.
    pub(crate) fn take_waiters(&mut self) -> Vec<Waiter> {
        if self.current.is_gone() { std::mem::take(&mut self.current.waiters) } else { Vec::new() }
    }

    /// Takes back the slice that was taken last and could not be written, with its rows.
    pub(crate) fn put_back(&mut self, slice: &mut Vec<Revision>, rows: &mut Vec<Row>) {
        self.current.revisions.extend(slice.drain(..).rev());
        self.current.finished.extend(finish_rows(rows));
    }
}

/// Takes out the rows that say a compaction is complete.
fn finish_rows(rows: &mut Vec<Row>) -> impl Iterator<Item = Row> {
    rows.extract_if(.., |row| row.0 == Table::Meta && row.1 == crate::apply::FINISHED)
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

    fn finish() -> Row {
        (Table::Meta, Bytes::from_static(crate::apply::FINISHED), None)
    }

    #[test]
    fn a_slice_that_was_put_back_comes_again_before_what_is_newer() {
        let mut removals = Removals::default();
        let mut rows = Vec::new();
        removals.add(vec![at(5), at(3)], &mut vec![finish()]);
        let mut slice = removals.take(&mut rows);
        removals.put_back(&mut slice, &mut rows);
        assert_eq!(rows, []);
        removals.add(vec![at(4)], &mut vec![finish()]);
        assert_eq!(removals.take(&mut rows), [at(3), at(5)]);
        assert_eq!(rows, [finish()]);
        assert_eq!(removals.take(&mut rows), [at(4)]);
        assert!(!removals.is_due());
    }

    #[test]
    fn nothing_goes_until_the_sweep_is_through_or_has_brought_a_full_batch() {
        let (mut removals, mut rows) = (Removals::default(), Vec::new());
        removals.add((1..BATCH_MAX as i64).map(at).collect(), &mut rows);
        assert!(!removals.is_due());
        assert_eq!(removals.take(&mut rows), []);
        removals.add(vec![at(0)], &mut rows);
        assert!(removals.is_due());
        assert_eq!(removals.take(&mut rows)[0], at(0));
        assert_eq!(rows, []);
    }

    #[test]
    fn a_later_compaction_does_not_keep_an_earlier_one_from_its_end() {
        let (mut removals, mut rows) = (Removals::default(), Vec::new());
        let (sender, _receiver) = tokio::sync::oneshot::channel();
        removals.add(vec![at(1)], &mut vec![finish()]);
        removals.wait(vec![Waiter { lane: 0, sender }]);
        assert_eq!(removals.take_waiters().len(), 0);
        removals.take(&mut rows);
        removals.add(vec![at(2)], &mut Vec::new());
        assert_eq!(rows, [finish()]);
        assert_eq!(removals.take_waiters().len(), 1);
    }
}
