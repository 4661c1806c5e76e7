//! Ends of waiting on a network thread: one timer for all requests of the thread.
//!
//! ```text
//! Within::poll ──register──> Waiting (by deadline) ──first one is due──> run() ──> wakes the future
//! ```
//! A timer of the runtime for each request costs a wake-up of the thread's own poll for nearly every one of
//! them, since the newest is often the only one. Here a request that is answered in time only adds and removes
//! an entry; the thread's timer stays where it is, at the latest as far off as the longest deadline, and looks
//! for the next entry when it goes off.
//!
//! Invariant: `armed` is at or before the first deadline that waits.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A deadline and a number that tells equal ones apart.
type Key = (Instant, u64);

thread_local! {
    static WAITING: RefCell<Waiting> = RefCell::default();
}

#[derive(Default)]
struct Waiting {
    wakers: BTreeMap<Key, Waker>,
    next: u64,
    /// When the timer goes off; none while it waits for the first deadline.
    armed: Option<Instant>,
    /// Tells the timer that `armed` has changed.
    earlier: Rc<Notify>,
}

impl Waiting {
    fn register(&mut self, deadline: Instant, waker: &Waker) -> Key {
        let key = (deadline, self.next);
        self.next += 1;
        self.wakers.insert(key, waker.clone());
        if self.armed.is_none_or(|armed| deadline < armed) {
            self.armed = Some(deadline);
            self.earlier.notify_one();
        }
        key
    }

    /// Takes out those whose deadline has come, and arms the timer for the next.
    fn due(&mut self, now: Instant) -> Vec<Waker> {
        let later = self.wakers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.wakers, later);
        self.armed = self.wakers.keys().next().map(|(deadline, _)| *deadline);
        due.into_values().collect()
    }
}

/// The timer of the thread that runs this, for ever. Without it no deadline of the thread passes.
pub(crate) async fn run() {
    let earlier = WAITING.with_borrow(|waiting| Rc::clone(&waiting.earlier));
    loop {
        match WAITING.with_borrow(|waiting| waiting.armed) {
            None => earlier.notified().await,
            // Either way the loop looks again: nobody is due when an earlier deadline came.
            Some(armed) => drop(tokio::time::timeout_at(armed, earlier.notified()).await),
        }
        let now = Instant::now();
        // Woken outside of the borrow: a waker may run code that comes back here.
        let due = WAITING.with_borrow_mut(|waiting| waiting.due(now));
        due.into_iter().for_each(Waker::wake);
    }
}

/// The deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// `future` until `deadline`; without one, for as long as it takes. To be polled on one network thread.
pub(crate) fn within<F: Future>(deadline: Option<Instant>, future: F) -> Within<F> {
    Within { future, deadline, entry: Entry(None) }
}

pin_project! {
    /// See [`within`].
    pub(crate) struct Within<F> {
        #[pin]
        future: F,
        deadline: Option<Instant>,
        entry: Entry,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let Some(deadline) = *this.deadline else { return Poll::Pending };
        if Instant::now() >= deadline {
            return Poll::Ready(Err(Elapsed));
        }
        this.entry.wait(deadline, cx.waker());
        Poll::Pending
    }
}

/// A place among the waiting, given up when this is dropped.
struct Entry(Option<Key>);

impl Entry {
    fn wait(&mut self, deadline: Instant, waker: &Waker) {
        WAITING.with_borrow_mut(|waiting| {
            match self.0.and_then(|key| waiting.wakers.get_mut(&key)) {
                Some(known) => known.clone_from(waker),
                None => self.0 = Some(waiting.register(deadline, waker)),
            }
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(key) = self.0 else { return };
        // The thread may be ending, and its storage with it; the waker is dropped outside of the borrow.
        let _ = WAITING.try_with(|waiting| {
            let waker = waiting.borrow_mut().wakers.remove(&key);
            drop(waker);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use super::*;

    /// Runs `test` on one thread with the timer beside it, in time that passes only while all wait.
    fn with_timer(test: impl Future<Output = ()>) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
        let local = tokio::task::LocalSet::new();
        local.spawn_local(run());
        local.block_on(&runtime, test);
    }

    fn after(millis: u64) -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(millis))
    }

    fn waiting() -> usize {
        WAITING.with_borrow(|waiting| waiting.wakers.len())
    }

    #[test]
    fn a_future_that_is_ready_never_waits() {
        with_timer(async {
            assert_eq!(within(after(0), ready(7)).await, Ok(7));
            assert_eq!(waiting(), 0);
        });
    }

    #[test]
    fn a_future_ends_at_its_deadline_whatever_the_order_of_deadlines() {
        with_timer(async {
            let begun = Instant::now();
            let wait = |millis| async move {
                let end = within(after(millis), pending::<()>()).await;
                (end, begun.elapsed().as_millis() as u64)
            };
            let (late, soon, same) = tokio::join!(wait(700), wait(50), wait(50));
            for ((end, at), millis) in [(late, 700), (soon, 50), (same, 50)] {
                assert_eq!(end, Err(Elapsed));
                assert!((millis..millis + 5).contains(&at), "{at} ms, want {millis}");
            }
            assert_eq!(waiting(), 0);
        });
    }

    #[test]
    fn deadlines_work_again_after_the_timer_had_nothing_to_do() {
        with_timer(async {
            for _ in 0..3 {
                assert_eq!(within(after(10), pending::<()>()).await, Err(Elapsed));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }

    #[test]
    fn who_is_dropped_or_answered_leaves_nothing_behind() {
        with_timer(async {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let (answer, ()) = tokio::join!(within(after(1000), receiver), async {
                assert_eq!(waiting(), 1);
                let mut dropped = Box::pin(within(after(10), pending::<()>()));
                assert!(futures_poll(dropped.as_mut()).await.is_pending());
                assert_eq!(waiting(), 2);
                drop(dropped);
                assert_eq!(waiting(), 1);
                sender.send(5).expect("waits");
            });
            assert_eq!(answer, Ok(Ok(5)));
            assert_eq!(waiting(), 0);
        });
    }

    async fn futures_poll<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
        std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
    }

    #[test]
    fn without_a_deadline_nothing_is_registered() {
        with_timer(async {
            let mut forever = Box::pin(within(None, pending::<()>()));
            assert!(futures_poll(forever.as_mut()).await.is_pending());
            assert_eq!(waiting(), 0);
        });
    }
}
