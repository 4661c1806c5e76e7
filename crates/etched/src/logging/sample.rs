//! Keeps a flood of equal lines short.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Level;

/// So many equal lines in one second are all written; from then on each so-many-th.
const ALL_UP_TO: u64 = 100;
const THEN_EACH: u64 = 100;
const PERIOD: Duration = Duration::from_secs(1);

/// Slots per level; lines whose messages share one are counted together, which only matters in a
/// flood.
const SLOTS: usize = 512;

/// Counts lines by level and message. Concurrent lines may be counted one off, as in zap.
pub(super) struct Sampler {
    slots: Vec<Slot>,
    hasher: RandomState,
}

#[derive(Default)]
struct Slot {
    /// Nanoseconds since the subscriber's start.
    ends_at: AtomicU64,
    count: AtomicU64,
}

impl Sampler {
    pub(super) fn new() -> Self {
        let slots = std::iter::repeat_with(Slot::default);
        Self { slots: slots.take(SLOTS * 6).collect(), hasher: RandomState::new() }
    }

    /// Whether a line is written; `now` is the time since the subscriber's start.
    pub(super) fn admits(&self, level: Level, message: &str, now: Duration) -> bool {
        let hash = self.hasher.hash_one(message) as usize % SLOTS;
        let slot = &self.slots[level as usize * SLOTS + hash];
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if slot.ends_at.load(Ordering::Relaxed) <= nanos(now) {
            slot.ends_at.store(nanos(now + PERIOD), Ordering::Relaxed);
            slot.count.store(1, Ordering::Relaxed);
            return true;
        }
        let count = slot.count.fetch_add(1, Ordering::Relaxed) + 1;
        count <= ALL_UP_TO || (count - ALL_UP_TO).is_multiple_of(THEN_EACH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_thinned_out_and_a_new_second_starts_anew() {
        let sampler = Sampler::new();
        let admitted =
            |now| (0..1000).filter(|_| sampler.admits(Level::Info, "again", now)).count();
        assert_eq!(admitted(Duration::from_millis(5)), 100 + 9);
        assert_eq!(admitted(Duration::from_millis(1004)), 10, "still the same second");
        assert_eq!(admitted(Duration::from_millis(1005)), 100 + 9);
        assert!(sampler.admits(Level::Warn, "again", Duration::from_millis(6)));
    }
}
