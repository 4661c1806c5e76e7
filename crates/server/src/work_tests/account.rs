//! Who did what: allocations counted by an allocator, work on the log by the disk under it.
//!
//! The parts of a member take turns on the test's own thread, and each turn is charged to one of them. Other threads,
//! of other tests too, are charged to nobody.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Who pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// The client, the simulated disk, the test itself.
    Nobody,
    Network,
    Raft,
}

/// What one account has allocated.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Allocated {
    /// Calls to the allocator that ask for memory; growing a piece is one more.
    pub(super) times: u64,
    pub(super) bytes: u64,
}

/// What was written to the log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Logged {
    pub(super) bytes: u64,
    pub(super) syncs: u64,
}

thread_local! {
    static CHARGED: Cell<Account> = const { Cell::new(Account::Nobody) };
    static NETWORK: Cell<Allocated> = const { Cell::new(Allocated { times: 0, bytes: 0 }) };
    static RAFT: Cell<Allocated> = const { Cell::new(Allocated { times: 0, bytes: 0 }) };
    static LOG: Cell<Logged> = const { Cell::new(Logged { bytes: 0, syncs: 0 }) };
}

/// Runs `work` at the cost of `account`.
pub(super) fn charge<T>(account: Account, work: impl FnOnce() -> T) -> T {
    let before = CHARGED.replace(account);
    let result = work();
    CHARGED.set(before);
    result
}

/// What `account` has allocated so far.
pub(super) fn allocated(account: Account) -> Allocated {
    match account {
        Account::Nobody => Allocated::default(),
        Account::Network => NETWORK.get(),
        Account::Raft => RAFT.get(),
    }
}

/// What this thread has written to the log so far.
pub(super) fn logged() -> Logged {
    LOG.get()
}

/// Counts a write to the log or a sync of it.
pub(super) fn log(bytes: u64, syncs: u64) {
    let before = LOG.get();
    LOG.set(Logged { bytes: before.bytes + bytes, syncs: before.syncs + syncs });
}

fn count(bytes: usize) {
    let account = match CHARGED.get() {
        Account::Nobody => return,
        Account::Network => &NETWORK,
        Account::Raft => &RAFT,
    };
    let before = account.get();
    account.set(Allocated { times: before.times + 1, bytes: before.bytes + bytes as u64 });
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
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }
}
