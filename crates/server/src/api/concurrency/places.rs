//! Which calls of this member count on a key, so that nobody's is taken from under another.
//!
//! ```text
//! enter ──put or found──> keep? ──leave──> other calls there, or one kept it: the key stays
//!   ^                                └──> else it is being withdrawn ──withdrawn──┐
//!   └────────────── waits while the key is being withdrawn <─────────────────────┘
//! ```
//! Two calls with one name and one lease have one key: the second finds what the first has put. It goes with the last
//! of them, unless one kept it. A call enters before it puts, so it never finds a key that is about to be deleted.
//!
//! Not seen: who puts such a key without these services. That key is another creation, and no call here deletes it.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Keys that calls count on, or that are being withdrawn. As many as there are such calls, and places they gave up
/// whose deletion is not applied yet.
#[derive(Default)]
pub(crate) struct Places {
    keys: Mutex<HashMap<Bytes, Key>>,
    /// Woken when a key is not being withdrawn any more.
    free: Notify,
}

#[derive(Default)]
struct Key {
    /// Calls that have entered and not left.
    calls: usize,
    /// Latest creation by one of them; 0: none.
    created: i64,
    /// Latest creation that one of them keeps; 0: none.
    kept: i64,
    withdrawn: bool,
}

impl Places {
    /// Counts a call in; waits while the key is being withdrawn.
    pub(super) async fn enter(&self, key: &Bytes) {
        let mut free = std::pin::pin!(self.free.notified());
        loop {
            // First, so that what happens after the look wakes too.
            free.as_mut().enable();
            if self.try_enter(key) {
                return;
            }
            free.as_mut().await;
            free.set(self.free.notified());
        }
    }

    fn try_enter(&self, key: &Bytes) -> bool {
        let mut keys = self.keys.lock();
        let place = keys.entry(key.clone()).or_default();
        if !place.withdrawn {
            place.calls += 1;
        }
        !place.withdrawn
    }

    /// One of the calls has put the key.
    pub(super) fn put(&self, key: &Bytes, created: i64) {
        if let Some(place) = self.keys.lock().get_mut(key) {
            place.created = place.created.max(created);
        }
    }

    /// The key of that creation outlives the calls.
    pub(super) fn keep(&self, key: &Bytes, created: i64) {
        if let Some(place) = self.keys.lock().get_mut(key) {
            place.kept = place.kept.max(created);
        }
    }

    /// Counts a call out. The creation that it has to delete, then to report as [`Self::withdrawn`], when it was the
    /// last one and none keeps the key.
    pub(super) fn leave(&self, key: &Bytes) -> Option<i64> {
        let mut keys = self.keys.lock();
        let place = keys.get_mut(key)?;
        place.calls -= 1;
        if place.calls > 0 {
            return None;
        }
        if place.created > place.kept {
            place.withdrawn = true;
            return Some(place.created);
        }
        keys.remove(key);
        None
    }

    /// The deletion is applied, or never will be.
    pub(super) fn withdrawn(&self, key: &Bytes) {
        self.keys.lock().remove(key);
        self.free.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Bytes = Bytes::from_static(b"n/1");

    fn with_calls(calls: usize) -> Places {
        let places = Places::default();
        for _ in 0..calls {
            assert!(places.try_enter(&KEY));
        }
        places
    }

    #[test]
    fn the_last_call_that_leaves_deletes_what_any_of_them_has_put() {
        let places = with_calls(2);
        places.put(&KEY, 7);
        assert_eq!(places.leave(&KEY), None);
        assert_eq!(places.leave(&KEY), Some(7));
        assert!(!places.try_enter(&KEY));
        places.withdrawn(&KEY);
        assert!(places.try_enter(&KEY));
        assert_eq!(places.leave(&KEY), None, "nobody has put it");
        assert!(places.keys.lock().is_empty());
    }

    #[test]
    fn what_one_of_the_calls_keeps_stays_whatever_comes_first() {
        let places = with_calls(2);
        places.keep(&KEY, 7);
        places.put(&KEY, 7);
        assert_eq!((places.leave(&KEY), places.leave(&KEY)), (None, None));
        assert!(places.keys.lock().is_empty());
    }

    #[test]
    fn who_kept_an_earlier_creation_does_not_keep_the_later_one() {
        let places = with_calls(2);
        places.put(&KEY, 7);
        places.keep(&KEY, 7);
        places.put(&KEY, 9);
        assert_eq!((places.leave(&KEY), places.leave(&KEY)), (None, Some(9)));
    }
}
