//! Work that no request waits for: it yields the processor and the disk to those that do.

use std::io;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::shared::Shared;

/// How far background threads step back: the weight of such a thread is a tenth of a normal one's.
const NICE: i32 = 10;
/// Rest after a slice of work, in times of what the slice took, while requests come in.
const REST_PARTS: u32 = 3;
/// Longest rest, so that a slice that waited for the disk does not stretch the whole.
const REST_MAX: Duration = Duration::from_millis(100);

/// Lets other threads of the machine go first, from now on and for this thread alone. Not for one that writes
/// files: put off in the middle, it would hold what the log's sync waits for.
pub(crate) fn step_back() {
    // On Linux it is the thread's own value. Refused by a sandbox, it costs calm, not truth.
    let _ = rustix::process::nice(NICE);
}

/// Threads that come and go. Each looks now and then whether the member ends, and the end waits for all of them: what
/// they hold of the store is let go of when [`Handle::stop`](crate::Handle::stop) returns.
#[derive(Debug, Default)]
pub(crate) struct Threads(Mutex<Vec<JoinHandle<()>>>);

impl Threads {
    /// Begins one.
    ///
    /// # Errors
    /// The operating system's: there is no thread to be had.
    pub(crate) fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        let mut threads = self.0.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// Waits for the end of those there are, once the member is told to stop; a panic in one is logged.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut *self.0.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the server panicked");
            }
        }
    }
}

/// The rate of some background work, slowed down while requests change the store.
#[derive(Debug)]
pub(crate) struct Pace {
    applied: u64,
    begun: Instant,
}

impl Pace {
    /// Work begins now.
    pub(crate) fn new(shared: &Shared) -> Self {
        Self { applied: shared.progress.applied.load(Ordering::Relaxed), begun: Instant::now() }
    }

    /// A slice of work is done: how long to rest before the next.
    pub(crate) fn rest(&mut self, shared: &Shared) -> Duration {
        let applied = shared.progress.applied.load(Ordering::Relaxed);
        let busy = std::mem::replace(&mut self.applied, applied) != applied;
        let took = self.begun.elapsed();
        if busy { (took * REST_PARTS).min(REST_MAX) } else { Duration::ZERO }
    }

    /// The next slice begins.
    pub(crate) fn go_on(&mut self) {
        self.begun = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_end_waits_for_each_thread_that_still_runs() {
        let threads = Threads::default();
        let ended = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = mpsc::channel::<()>();
        let end = Arc::clone(&ended);
        let work = move || {
            let _ = stopped.recv();
            end.store(true, Ordering::Release);
        };
        threads.spawn("busy", work).expect("a thread");
        threads.spawn("short", || {}).expect("a thread");
        drop(stop);
        threads.join();
        assert!(ended.load(Ordering::Acquire));
    }
}
