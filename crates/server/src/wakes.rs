//! How watch streams are woken: all those of one network thread together.
//!
//! ```text
//! raft thread, catch-up ── wakers of a batch ──> list of each thread ──one wake-up──> WakeLanes::run there
//! ```
//! [`WakeLanes::run`] wakes the streams from their own thread. They then run before the connections they write
//! to, so a connection gathers what all of its streams have to say; woken from another thread, each stream would
//! be followed by a turn of its connection.
//!
//! The catch-up also asks how long the thread took to get through it ([`WakeLanes::wake_and_wait`]): by that it
//! keeps its pace.

use std::task::Waker;
use std::time::{Duration, Instant};

use etched_mvcc::watch::Wakes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// For each network thread the streams to be woken there.
#[derive(Debug)]
pub(crate) struct WakeLanes(Vec<WakeLane>);

#[derive(Debug, Default)]
struct WakeLane {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    served: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// At most one for each stream of the thread.
    wakers: Vec<Waker>,
    /// How often somebody wanted to know when all of this is done, and how far that has come.
    asked: u64,
    served: u64,
}

impl WakeLanes {
    pub(crate) fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| WakeLane::default()).collect())
    }

    /// Wakes streams.
    pub(crate) fn wake(&self, wakes: Wakes) {
        self.hand_over(wakes, false);
    }

    /// Wakes streams and blocks until their threads have served them, and what came before; at most for `limit`,
    /// since a thread may end instead.
    pub(crate) fn wake_and_wait(&self, wakes: Wakes, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.hand_over(wakes, true);
        for lane in &self.0 {
            let mut waiting = lane.waiting.lock();
            let asked = waiting.asked;
            while waiting.served < asked {
                if lane.served.wait_until(&mut waiting, deadline).timed_out() {
                    break;
                }
            }
        }
    }

    fn hand_over(&self, wakes: Wakes, ask: bool) {
        let mut wakes = wakes.by_group().peekable();
        while let Some(&(group, _)) = wakes.peek() {
            let lane = &self.0[group];
            {
                let mut waiting = lane.waiting.lock();
                while let Some((_, waker)) = wakes.next_if(|(of, _)| *of == group) {
                    waiting.wakers.push(waker);
                }
                waiting.asked += u64::from(ask);
            }
            lane.arrived.notify_one();
        }
    }

    /// Wakes the streams of network thread `number` on that thread, for ever.
    pub(crate) async fn run(&self, number: usize) {
        let lane = &self.0[number];
        let mut wakers = Vec::new();
        loop {
            lane.arrived.notified().await;
            let (asked, served) = {
                let mut waiting = lane.waiting.lock();
                std::mem::swap(&mut wakers, &mut waiting.wakers);
                (waiting.asked, waiting.served)
            };
            wakers.drain(..).for_each(Waker::wake);
            if asked > served {
                // Once for the streams, once more for their connections.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                lane.waiting.lock().served = asked;
                lane.served.notify_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etched_mvcc::watch::{Hub, Limits};
    use etched_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest};
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;
    use std::sync::Arc;
    use tokio::task::{LocalSet, yield_now};

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn streams_of_a_thread_are_woken_together_before_it_goes_on() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let local = LocalSet::new();
        let lanes = Arc::new(WakeLanes::new(1));
        let (hub, _) = Hub::new(1, 0);
        let seen = Rc::new(Cell::new(0));
        for _ in 0..10 {
            let limits = Limits { outbox_bytes: 1 << 20, fragment_bytes: 1 << 20, group: 0 };
            let (stream, seen) = (hub.open_stream(limits), Rc::clone(&seen));
            stream
                .create(&WatchCreateRequest { start_revision: 1, ..Default::default() })
                .expect("created");
            local.spawn_local(async move {
                let mut out = Vec::new();
                let header = ResponseHeader::default();
                loop {
                    poll_fn(|cx| stream.poll_replies(cx, &header, 1 << 20, &mut out)).await;
                    seen.set(seen.get() + 1);
                }
            });
        }
        let running = Arc::clone(&lanes);
        local.spawn_local(async move { running.run(0).await });
        local.block_on(&runtime, async {
            while seen.get() < 10 {
                yield_now().await;
            }
            // A compaction cancels them all: each has something to send.
            let compacted = hub.compacted(5);
            let waiter = std::thread::spawn({
                let lanes = Arc::clone(&lanes);
                move || lanes.wake_and_wait(compacted, LONG)
            });
            while !waiter.is_finished() {
                yield_now().await;
            }
            waiter.join().expect("served");
            assert_eq!(seen.get(), 20);
        });
    }

    #[test]
    fn a_thread_that_has_ended_is_not_waited_for() {
        let lanes = WakeLanes::new(2);
        lanes.wake_and_wait(Wakes::default(), LONG);
        assert!(lanes.0.iter().all(|lane| lane.waiting.lock().asked == 0), "nobody to be woken");
    }
}
