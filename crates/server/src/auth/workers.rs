//! Threads for what takes a core for a while, with a bounded queue: requests wait for nothing of it but what they asked for.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::Error;

/// Jobs that wait for a thread. One more is refused: behind so many passwords at the default cost it would be answered
/// only when its client has given up.
pub(super) const WAITING_MAX: usize = 100;

type Job = Box<dyn FnOnce() + Send>;

/// The threads, which begin with the first job and end with this.
pub(super) struct Workers {
    name: &'static str,
    threads: usize,
    jobs: OnceLock<SyncSender<Job>>,
}

impl Workers {
    pub(super) fn new(name: &'static str, threads: usize) -> Self {
        Self { name, threads, jobs: OnceLock::new() }
    }

    /// Runs `work` on one of the threads; what nobody waits for any more is not begun.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`] when the queue is full, [`Error::Stopped`] without threads.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        let job = Box::new(move || {
            if !sender.is_closed() {
                // Who asked may have gone meanwhile.
                let _ = sender.send(work());
            }
        });
        match self.jobs.get_or_init(|| self.start()).try_send(job) {
            Ok(()) => receiver.await.map_err(|_| Error::Stopped),
            Err(TrySendError::Full(_)) => Err(Error::TooManyRequests),
            Err(TrySendError::Disconnected(_)) => Err(Error::Stopped),
        }
    }

    fn start(&self) -> SyncSender<Job> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..self.threads {
            let receiver = Arc::clone(&receiver);
            let thread = std::thread::Builder::new().name(format!("{}-{number}", self.name));
            if let Err(error) = thread.spawn(move || work(&receiver)) {
                tracing::error!(error = %error, "cannot start a thread for {}", self.name);
            }
        }
        sender
    }

    /// Whether nobody has asked for anything yet.
    #[cfg(test)]
    pub(super) fn are_unused(&self) -> bool {
        self.jobs.get().is_none()
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let next = jobs.lock().recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}
