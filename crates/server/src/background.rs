//! Work that no request waits for: it yields the processor and the disk to those that do.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::shared::Shared;

/// How far background threads step back: the weight of such a thread is a tenth of a normal one's.
const NICE: i32 = 10;
/// Rest after a slice of work, in times of what the slice took, while requests come in.
const REST_PARTS: u32 = 3;
/// Longest rest, so that a slice that waited for the disk does not stretch the whole.
const REST_MAX: Duration = Duration::from_millis(100);

/// Lets other threads of the machine go first, from now on and for this thread alone. Not for one that writes
/// files: put off in the middle, it would hold what the log's sync waits for.
pub(crate) fn step_back() {
    // On Linux it is the thread's own value. Refused by a sandbox, it costs calm, not truth.
    let _ = rustix::process::nice(NICE);
}

/// The rate of some background work, slowed down while requests change the store.
#[derive(Debug)]
pub(crate) struct Pace {
    applied: u64,
    begun: Instant,
}

impl Pace {
    /// Work begins now.
    pub(crate) fn new(shared: &Shared) -> Self {
        Self { applied: shared.progress.applied.load(Ordering::Relaxed), begun: Instant::now() }
    }

    /// A slice of work is done: how long to rest before the next.
    pub(crate) fn rest(&mut self, shared: &Shared) -> Duration {
        let applied = shared.progress.applied.load(Ordering::Relaxed);
        let busy = std::mem::replace(&mut self.applied, applied) != applied;
        let took = self.begun.elapsed();
        if busy { (took * REST_PARTS).min(REST_MAX) } else { Duration::ZERO }
    }

    /// The next slice begins.
    pub(crate) fn go_on(&mut self) {
        self.begun = Instant::now();
    }
}
