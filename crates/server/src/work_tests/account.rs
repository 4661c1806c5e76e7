//! Who did what: allocations counted by an allocator, work on the log by the disk under it.
//!
//! The parts of a member take turns on the test's own thread, and each turn is charged to one of them. Other threads,
//! of other tests too, are charged to nobody.

use std::cell::Cell;

use etched_fuzz::heap::{self, Allocated};

/// Who pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// The client, the simulated disk, the test itself.
    Nobody,
    Network,
    Raft,
}

/// What was written to the log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Logged {
    pub(super) bytes: u64,
    pub(super) syncs: u64,
}

thread_local! {
    static CHARGED: Cell<Account> = const { Cell::new(Account::Nobody) };
    /// What the thread had allocated when it was charged to somebody last.
    static SETTLED: Cell<Allocated> = const { Cell::new(Allocated { times: 0, bytes: 0 }) };
    static NETWORK: Cell<Allocated> = const { Cell::new(Allocated { times: 0, bytes: 0 }) };
    static RAFT: Cell<Allocated> = const { Cell::new(Allocated { times: 0, bytes: 0 }) };
    static LOG: Cell<Logged> = const { Cell::new(Logged { bytes: 0, syncs: 0 }) };
}

/// Runs `work` at the cost of `account`.
pub(super) fn charge<T>(account: Account, work: impl FnOnce() -> T) -> T {
    settle();
    let before = CHARGED.replace(account);
    let result = work();
    settle();
    CHARGED.set(before);
    result
}

/// What `account` has allocated so far.
pub(super) fn allocated(account: Account) -> Allocated {
    settle();
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

/// Charges what was allocated since the last time to who was to pay for it.
fn settle() {
    let now = heap::so_far();
    let before = SETTLED.replace(now);
    let account = match CHARGED.get() {
        Account::Nobody => return,
        Account::Network => &NETWORK,
        Account::Raft => &RAFT,
    };
    let sum = account.get();
    account.set(Allocated {
        times: sum.times + now.times - before.times,
        bytes: sum.bytes + now.bytes - before.bytes,
    });
}
