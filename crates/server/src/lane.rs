//! How proposals leave a network thread, and how answers come back to it: both many at a time.
//!
//! ```text
//! tasks of the thread ──propose──> outgoing ──once all that were ready have run──> Inbox ──> raft thread
//! tasks of the thread <──complete── Lane::run <────────one message a batch────────────────────────┘
//! ```
//! So a batch costs one wake-up across threads each way, not one for each request, and the first request
//! of many that came in together does not start a batch of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::LocalSet;

use crate::deadline;
use crate::inbox::Inbox;
use crate::shared::{Event, Shared};

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
    async fn run(self: Arc<Self>) {
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
    static LANE: Cell<usize> = const { Cell::new(0) };
    static OUTGOING: Outgoing = Outgoing::default();
}

/// Proposals of this thread that wait for its other tasks to run.
#[derive(Default)]
struct Outgoing {
    events: RefCell<Vec<Event>>,
    wake: Rc<Notify>,
}

/// Makes this thread the network thread of lane `number`: what requests need of it runs on `local` from now on.
pub(crate) fn set_up(local: &LocalSet, shared: &Arc<Shared>, number: usize) {
    LANE.set(number);
    local.spawn_local(deadline::run());
    local.spawn_local(Arc::clone(&shared.lanes[number]).run());
    let woken = Arc::clone(shared);
    local.spawn_local(async move { woken.wakes.run(number).await });
    let shared = Arc::clone(shared);
    local.spawn_local(async move { run_outgoing(&shared.inbox).await });
}

/// The lane of this thread.
pub(crate) fn current() -> usize {
    LANE.get()
}

/// Sends a proposal on its way, from a thread that is [`set_up`].
pub(crate) fn propose(event: Event) {
    OUTGOING.with(|outgoing| {
        let mut events = outgoing.events.borrow_mut();
        if events.is_empty() {
            // The task that hands over comes behind all that are ready now.
            outgoing.wake.notify_one();
        }
        events.push(event);
    });
}

/// Hands this thread's proposals over, for ever. At most what the ready tasks of one turn of the thread proposed is
/// under way.
async fn run_outgoing(inbox: &Inbox<Event>) {
    let wake = OUTGOING.with(|outgoing| Rc::clone(&outgoing.wake));
    loop {
        wake.notified().await;
        OUTGOING.with(|outgoing| inbox.append(&mut outgoing.events.borrow_mut()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_of_tasks_that_were_ready_together_are_one_batch() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let local = LocalSet::new();
        let inbox = Rc::new(Inbox::new());
        let handed = Rc::clone(&inbox);
        local.spawn_local(async move { run_outgoing(&handed).await });
        for _ in 0..3 {
            local.spawn_local(async { propose(Event::Wake) });
        }
        local.block_on(&runtime, async {
            let mut batch = Vec::new();
            while batch.is_empty() {
                tokio::task::yield_now().await;
                inbox.take(&mut batch, Some(std::time::Instant::now()));
            }
            assert_eq!(batch.len(), 3);
        });
    }
}
