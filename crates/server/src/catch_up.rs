//! The thread that brings watchers up to date, at a pace that leaves room for requests.
//!
//! A round ([`etched_mvcc::watch::CatchUp`]) reads without a lock, but what it makes goes through the network threads that
//! requests need too. So the next round begins only when they have got through this one, and while there are
//! writes it waits as long again: catching up then takes at most half of a network thread, in pieces of
//! [`Budget::sent`] bytes, and the busier the thread, the longer a round takes and the pause after it.
//! It never stops altogether: a pause is at most [`PAUSE_MAX`] long.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use etched_mvcc::watch::{Budget, CatchUp};

use crate::shared::Shared;

/// How long one round may be waited for, and how long the pause after it is at most.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// After this long without a write nobody is there who could be held up.
const QUIET_AFTER: Duration = Duration::from_millis(100);

/// Serves until the hub is closed.
///
/// # Errors
/// One line: the store could not be read. What it cannot read must not become a gap in somebody's events, so
/// all streams are ended.
pub(crate) fn run(mut catch_up: CatchUp, shared: &Shared) -> Result<(), String> {
    let budget = Budget::default();
    let mut writes = Writes::new(shared);
    while catch_up.wait() {
        loop {
            let began = Instant::now();
            let round = catch_up.run(&shared.reader, &budget).map_err(|error| {
                shared.hub.close();
                format!("watchers cannot be caught up: {error}")
            })?;
            shared.wakes.wake_and_wait(round.wakes, PAUSE_MAX);
            if !round.more {
                break;
            }
            if writes.go_on(shared) {
                std::thread::sleep(began.elapsed().min(PAUSE_MAX));
            }
        }
    }
    Ok(())
}

/// Whether there are writes.
struct Writes {
    applied: u64,
    seen: Option<Instant>,
}

impl Writes {
    fn new(shared: &Shared) -> Self {
        Self { applied: shared.progress.applied.load(Ordering::Acquire), seen: None }
    }

    /// Whether something was written within [`QUIET_AFTER`].
    fn go_on(&mut self, shared: &Shared) -> bool {
        let applied = shared.progress.applied.load(Ordering::Acquire);
        if applied != self.applied {
            (self.applied, self.seen) = (applied, Some(Instant::now()));
        }
        self.seen.is_some_and(|seen| seen.elapsed() < QUIET_AFTER)
    }
}
