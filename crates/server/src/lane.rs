//! How answers come back to the network threads.
//!
//! The raft thread hands all answers of a batch that belong to one network thread over as one message;
//! a task there completes the single requests. So a batch costs one wake-up across threads for each
//! network thread, not one for each request.

use std::cell::RefCell;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// The way back to one network thread.
#[derive(Debug)]
pub(crate) struct Lane<T> {
    ready: Mutex<Vec<(oneshot::Sender<T>, T)>>,
    wake: Notify,
}

impl<T> Lane<T> {
    pub(crate) fn new() -> Self {
        Self { ready: Mutex::new(Vec::new()), wake: Notify::new() }
    }

    /// Hands over a batch; empties it.
    pub(crate) fn deliver(&self, batch: &mut Vec<(oneshot::Sender<T>, T)>) {
        self.ready.lock().append(batch);
        self.wake.notify_one();
    }

    /// Completes requests on the thread that runs this, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut batch = Vec::new();
        loop {
            self.wake.notified().await;
            std::mem::swap(&mut batch, &mut *self.ready.lock());
            for (waiter, answer) in batch.drain(..) {
                // The client may have gone meanwhile.
                let _ = waiter.send(answer);
            }
        }
    }
}

thread_local! {
    static LANE: RefCell<usize> = const { RefCell::new(0) };
}

/// Says which lane belongs to this thread.
pub(crate) fn set_current(lane: usize) {
    LANE.with_borrow_mut(|current| *current = lane);
}

/// The lane of this thread.
pub(crate) fn current() -> usize {
    LANE.with_borrow(|lane| *lane)
}
