//! Who still reads old revisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The revisions that readers are at: pruning to a floor waits for those below it.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<BTreeMap<i64, usize>>);

/// While it lives, nothing is pruned that a read at its revision could find.
///
/// To be taken under the lock of the shared state, where the floor was checked: the writer looks for
/// pins while it holds that lock exclusively.
#[derive(Debug)]
pub(crate) struct Pin {
    pins: Arc<Pins>,
    revision: i64,
}

impl Pins {
    pub(crate) fn pin(self: &Arc<Self>, revision: i64) -> Pin {
        *self.0.lock().entry(revision).or_insert(0) += 1;
        Pin { pins: Arc::clone(self), revision }
    }

    /// The lowest revision that somebody reads at.
    pub(crate) fn lowest(&self) -> Option<i64> {
        self.0.lock().keys().next().copied()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.pins.0.lock();
        let count = pins.get_mut(&self.revision).expect("a pin is counted while it lives");
        *count -= 1;
        if *count == 0 {
            pins.remove(&self.revision);
        }
    }
}
