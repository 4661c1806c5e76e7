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
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::LocalSet;

use crate::deadline;
use crate::error::Error;
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

/// What the linearizable reads of one turn of the thread wait for together.
#[derive(Default)]
struct Gate {
    answer: Cell<Option<Result<(), Error>>>,
    opened: Notify,
}

/// Proposals of this thread that wait for its other tasks to run.
#[derive(Default)]
struct Outgoing {
    events: RefCell<Vec<Event>>,
    /// Asked for in `events`.
    gate: RefCell<Option<Rc<Gate>>>,
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

/// Waits until whatever was acknowledged before is applied here, on a thread that is [`set_up`].
///
/// # Errors
/// Of the raft thread; [`Error::Timeout`] after `wait`.
pub(crate) async fn read_index(wait: Duration) -> Result<(), Error> {
    let gate = OUTGOING.with(|outgoing| {
        let mut gate = outgoing.gate.borrow_mut();
        Rc::clone(gate.get_or_insert_with(|| new_gate(wait)))
    });
    loop {
        let opened = gate.opened.notified();
        if let Some(answer) = gate.answer.get() {
            return answer;
        }
        opened.await;
    }
}

fn new_gate(wait: Duration) -> Rc<Gate> {
    let gate = Rc::new(Gate::default());
    let (sender, receiver) = oneshot::channel();
    propose(Event::Read(sender));
    let opens = Rc::clone(&gate);
    tokio::task::spawn_local(async move {
        let answer = tokio::time::timeout(wait, receiver).await;
        let answer = answer.map_or(Err(Error::Timeout), |told| told.unwrap_or(Err(Error::Stopped)));
        opens.answer.set(Some(answer));
        opens.opened.notify_waiters();
    });
    gate
}

/// Hands this thread's proposals over, for ever. At most what the ready tasks of one turn of the thread proposed is
/// under way.
async fn run_outgoing(inbox: &Inbox<Event>) {
    let wake = OUTGOING.with(|outgoing| Rc::clone(&outgoing.wake));
    loop {
        wake.notified().await;
        OUTGOING.with(|outgoing| {
            // Who reads from now on asks anew: the round for these may begin before a write that it has to see.
            outgoing.gate.take();
            inbox.append(&mut outgoing.events.borrow_mut());
        });
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
