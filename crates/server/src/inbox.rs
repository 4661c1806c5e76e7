//! What waits for the raft thread.
//!
//! Many threads put events in, one takes them all at once: the batch forms while the disk works.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Events for one consumer.
#[derive(Debug)]
pub(crate) struct Inbox<E> {
    queue: Mutex<Queue<E>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct Queue<E> {
    events: Vec<E>,
    asleep: bool,
    closed: bool,
}

impl<E> Inbox<E> {
    pub(crate) fn new() -> Self {
        Self {
            queue: Mutex::new(Queue { events: Vec::new(), asleep: false, closed: false }),
            arrived: Condvar::new(),
        }
    }

    /// Adds an event; wakes the consumer only when it sleeps. A closed inbox drops it, and with it whatever
    /// way back to its sender it holds.
    pub(crate) fn push(&self, event: E) {
        let mut queue = self.queue.lock();
        if queue.closed {
            return;
        }
        queue.events.push(event);
        if std::mem::take(&mut queue.asleep) {
            drop(queue);
            self.arrived.notify_one();
        }
    }

    /// Adds all of `events` as [`Inbox::push`] adds one; empties it.
    pub(crate) fn append(&self, events: &mut Vec<E>) {
        let mut queue = self.queue.lock();
        if queue.closed {
            drop(queue);
            // Not under the lock, see `close`.
            events.clear();
            return;
        }
        queue.events.append(events);
        if std::mem::take(&mut queue.asleep) {
            drop(queue);
            self.arrived.notify_one();
        }
    }

    /// Moves all that waits into `batch`, at the latest at `deadline` (then perhaps nothing).
    pub(crate) fn take(&self, batch: &mut Vec<E>, deadline: Option<Instant>) {
        let mut queue = self.queue.lock();
        while queue.events.is_empty() {
            queue.asleep = true;
            match deadline {
                None => self.arrived.wait(&mut queue),
                Some(deadline) => {
                    if self.arrived.wait_until(&mut queue, deadline).timed_out() {
                        queue.asleep = false;
                        break;
                    }
                }
            }
        }
        std::mem::swap(batch, &mut queue.events);
    }

    /// The consumer has ended: what waits is dropped, and so is what comes.
    pub(crate) fn close(&self) {
        let dropped = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            std::mem::take(&mut queue.events)
        };
        // Dropping may wake others, who may come back here: not under the lock.
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn everything_put_in_comes_out_once_and_in_order_for_each_producer() {
        let inbox = Arc::new(Inbox::new());
        let producers: Vec<_> = (0..4)
            .map(|producer| {
                let inbox = Arc::clone(&inbox);
                std::thread::spawn(move || {
                    for n in (0..5000).step_by(5) {
                        inbox.push((producer, n));
                        inbox.append(&mut (n + 1..n + 5).map(|n| (producer, n)).collect());
                    }
                })
            })
            .collect();
        let (mut batch, mut next, mut seen) = (Vec::new(), [0; 4], 0);
        while seen < 20_000 {
            inbox.take(&mut batch, None);
            for (producer, n) in batch.drain(..) {
                assert_eq!(next[producer], n);
                next[producer] += 1;
                seen += 1;
            }
        }
        producers.into_iter().for_each(|producer| producer.join().expect("a producer"));
        assert!(inbox.queue.lock().events.is_empty());
    }

    #[test]
    fn a_closed_inbox_drops_what_waits_and_what_comes() {
        let inbox = Inbox::new();
        let event = Arc::new(());
        inbox.push(Arc::clone(&event));
        inbox.close();
        inbox.push(Arc::clone(&event));
        let mut more = vec![Arc::clone(&event)];
        inbox.append(&mut more);
        assert!(more.is_empty());
        assert_eq!(Arc::strong_count(&event), 1);
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let inbox = Inbox::<u8>::new();
        let mut batch = Vec::new();
        inbox.take(&mut batch, Some(Instant::now()));
        assert!(batch.is_empty());
    }
}
