//! Memory by thread, counted by an allocator.
//!
//! Whoever links this crate, which only tests do, runs on this allocator. Each thread has its own counts and no
//! lock, so that tests beside each other do not see each other's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a thread has allocated so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allocated {
    /// Calls to the allocator that ask for memory; growing a piece is one more.
    pub times: u64,
    /// What they asked for together.
    pub bytes: u64,
}

thread_local! {
    static SO_FAR: Cell<Allocated> = const { Cell::new(Allocated { times: 0, bytes: 0 }) };
    /// Held now: below zero on a thread that frees what others allocated.
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

/// What this thread has allocated so far.
pub fn so_far() -> Allocated {
    SO_FAR.get()
}

/// Runs `work`; how many bytes more than before this thread held at most meanwhile.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before).max(0).unsigned_abs())
}

fn count(bytes: usize) {
    let before = SO_FAR.get();
    SO_FAR.set(Allocated { times: before.times + 1, bytes: before.bytes + bytes as u64 });
}

fn hold(bytes: usize) {
    let live = LIVE.get() + bytes as i64;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

fn give_back(bytes: usize) {
    LIVE.set(LIVE.get() - bytes as i64);
}

/// The system's allocator, with a count. Its cells are made with the thread and need no end, so that counting
/// does not allocate.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[allow(
    unsafe_code,
    reason = "an allocator cannot be had without; each call goes to the system's as it came"
)]
// SAFETY: what is promised to these functions and by them is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        hold(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        hold(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        hold(new_size);
        give_back(layout.size());
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        give_back(layout.size());
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_at_once_counts_and_what_came_before_does_not() {
        let before = vec![0_u8; 1000];
        let (kept, peak) = peak_of(|| {
            drop(vec![1_u8; 5000]);
            vec![2_u8; 3000]
        });
        assert_eq!((peak, before.len(), kept.len()), (5000, 1000, 3000));
        let counted = so_far();
        drop(vec![0_u8; 7]);
        assert_eq!(so_far(), Allocated { times: counted.times + 1, bytes: counted.bytes + 7 });
    }
}
