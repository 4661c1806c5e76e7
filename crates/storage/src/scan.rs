//! Reading every record with several threads: what a start waits for, and what verifies all of them and
//! their number.
//!
//! ```text
//! thread 0   [ read | claimed |        left        ]          [ read | claimed | left ]
//!                                ^ thread 1, done with its own, takes the upper half ^
//! ```
//! The first thread has everything, and a thread that has nothing takes half of what another one has left.
//! So all end together however the records lie: compaction leaves wide gaps, and no cut made beforehand
//! halves what it has not counted.
//!
//! Invariant: ranges of main revisions that are read or claimed never overlap, and together with what is
//! left they are all there are.

use std::{
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use etched_mvcc::{RawRecord, Revision, VisitPart};

use crate::{error::Result, view::View};

/// Main revisions that a thread claims at a time: as many may be read after another thread has ended.
const CLAIM: i64 = 1024;

/// Main revisions of one thread.
#[derive(Debug, Clone, Copy, Default)]
struct Range {
    /// All below are read or claimed.
    claimed: i64,
    until: i64,
}

impl Range {
    const fn left(self) -> i64 {
        self.until.saturating_sub(self.claimed)
    }
}

/// What each thread has still to read.
struct Plan {
    ranges: Mutex<Vec<Range>>,
}

impl Plan {
    fn new(threads: usize, all: Range) -> Self {
        let mut ranges = vec![Range::default(); threads];
        ranges[0] = all;
        Self { ranges: Mutex::new(ranges) }
    }

    fn ranges(&self) -> MutexGuard<'_, Vec<Range>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A range for a thread that has read its last one to the end: what it has anyway, or the upper half of
    /// the most that another one has left.
    fn next(&self, thread: usize) -> Option<Range> {
        let mut ranges = self.ranges();
        if ranges[thread].left() > 0 {
            return Some(ranges[thread]);
        }
        let most = (0..ranges.len()).max_by_key(|&other| ranges[other].left())?;
        let (left, until) = (ranges[most].left(), ranges[most].until);
        if left < 2 * CLAIM {
            return None;
        }
        let middle = until - left / 2;
        ranges[most].until = middle;
        ranges[thread] = Range { claimed: middle, until };
        Some(ranges[thread])
    }

    /// Whether the thread may read revision `main` of its range; then up to which others as well.
    fn claim(&self, thread: usize, main: i64) -> Option<i64> {
        let range = &mut self.ranges()[thread];
        if main >= range.until {
            return None;
        }
        range.claimed = main.saturating_add(CLAIM).min(range.until);
        Some(range.claimed)
    }

    fn done(&self, thread: usize) {
        self.ranges()[thread] = Range::default();
    }

    /// Nobody reads on.
    fn stop(&self) {
        self.ranges().fill(Range::default());
    }
}

impl View {
    /// Gives every record to one of `parts`, with a thread for each; nothing is copied. Each gets ascending
    /// pieces, which come in any order. The scan ends early when one of them breaks.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`Error::Damaged`](crate::Error::Damaged) when the number of records is not
    /// the committed one. The parts may have got some by then.
    ///
    /// # Panics
    /// Without a part.
    pub fn scan_all(&self, parts: &mut [&mut VisitPart<'_>]) -> Result<()> {
        let (first, last) = self.ends()?;
        let all = Range { claimed: first.main, until: last.main.saturating_add(1) };
        let plan = &Plan::new(parts.len(), all);
        let read = thread::scope(|scope| {
            let (first, others) = parts.split_first_mut().expect("a scan has a part");
            let others = others.iter_mut().zip(1..);
            let others =
                others.map(|(part, thread)| scope.spawn(move || self.read(plan, thread, *part)));
            let others: Vec<_> = others.collect();
            let mut read = vec![self.read(plan, 0, *first)];
            read.extend(others.into_iter().map(|it| it.join().expect("reading does not panic")));
            read
        });
        let (mut count, mut whole) = (0, true);
        for read in read {
            let (records, ended) = read?;
            count += records;
            whole &= ended;
        }
        if whole { self.check_records(count) } else { Ok(()) }
    }

    /// One thread's part: how many records it got, and whether it wanted all of them.
    fn read(&self, plan: &Plan, thread: usize, part: &mut VisitPart<'_>) -> Result<(u64, bool)> {
        let (mut count, mut wanted) = (0, true);
        while let Some(Range { claimed: from, until }) = plan.next(thread) {
            let (from, until) = (Revision::start_of(from), Revision::start_of(until));
            let mut claimed = from.main;
            let read = self.scan(from, until, &mut |revision, record: RawRecord<'_>| {
                if revision.main >= claimed {
                    match plan.claim(thread, revision.main) {
                        Some(until) => claimed = until,
                        None => return ControlFlow::Break(()),
                    }
                }
                count += 1;
                let flow = part(revision, record);
                wanted = flow.is_continue();
                flow
            });
            if !wanted || read.is_err() {
                plan.stop();
                read?;
                break;
            }
            plan.done(thread);
        }
        Ok((count, wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_work_takes_half_of_what_is_left_and_none_of_what_is_claimed() {
        let plan = Plan::new(2, Range { claimed: 2, until: 10 * CLAIM });
        assert_eq!(plan.next(0).map(|range| range.until), Some(10 * CLAIM));
        assert_eq!(plan.claim(0, 2 * CLAIM), Some(3 * CLAIM));
        let taken = plan.next(1).expect("there is enough");
        assert_eq!((taken.claimed, taken.until), (6 * CLAIM + CLAIM / 2, 10 * CLAIM));
        assert_eq!(plan.claim(0, taken.claimed), None);
        assert_eq!(plan.claim(0, taken.claimed - 1), Some(taken.claimed));
        plan.done(0);
        let again = plan.next(0).expect("the other has most of its own");
        assert_eq!(plan.claim(1, again.claimed), None);
        plan.stop();
        assert!(plan.next(1).is_none());
        assert_eq!(plan.claim(0, again.claimed), None);
    }
}
