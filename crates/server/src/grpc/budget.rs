//! How many bytes of large messages may be under way at once.
//!
//! HTTP/2's windows bound what waits unread, not what has been read: each stream may hold a message that is nearly
//! complete, and each complete one waits for the raft thread. Without a bound a client with many streams
//! decides how much memory the server has. Small messages, which come in one piece, pass uncounted.

use std::cell::Cell;

use tonic::Status;

/// Bytes of all network threads together.
const TOTAL: usize = 512 << 20;

thread_local! {
    /// Bytes of this network thread; a call stays on its thread.
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

/// The share of one of `threads` network threads.
pub(crate) fn share(threads: usize) -> usize {
    TOTAL / threads.max(1)
}

/// Bytes that count against the budget until this is dropped, on the thread that took them.
#[derive(Debug, Default)]
pub(crate) struct Permit(usize);

impl Permit {
    /// Counts `bytes` from now on, if that is more than before. Only what has arrived counts: announcing a
    /// length takes no room from others.
    ///
    /// # Errors
    /// The status of a call that would exceed `share`.
    pub(crate) fn grow_to(&mut self, bytes: usize, share: usize) -> Result<(), Status> {
        let more = bytes.saturating_sub(self.0);
        let taken = TAKEN.get() + more;
        if taken > share {
            return Err(Status::resource_exhausted("etcdserver: too many requests"));
        }
        TAKEN.set(taken);
        self.0 += more;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        TAKEN.set(TAKEN.get().saturating_sub(self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_until_something_ends() {
        let (mut first, mut second) = (Permit::default(), Permit::default());
        first.grow_to(20, 100).expect("room");
        first.grow_to(60, 100).expect("room");
        second.grow_to(40, 100).expect("room");
        let refused = second.grow_to(41, 100).expect_err("no room");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        drop(first);
        second.grow_to(100, 100).expect("room again");
        drop(second);
        assert_eq!(TAKEN.get(), 0);
    }
}
