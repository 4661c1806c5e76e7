//! Ends connections on which nothing moves.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A connection that fails with [`io::ErrorKind::TimedOut`] when somebody has waited for it for `limit` in which no
/// byte moved in either direction.
///
/// A peer that is gone without a word leaves a connection that the kernel holds for a quarter of an hour.
#[derive(Debug)]
pub struct Idle<S> {
    io: S,
    limit: Duration,
    reads: bool,
    moved: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Idle<S> {
    /// Waits `limit` for reads and for writes.
    pub fn new(io: S, limit: Duration) -> Self {
        Self { io, limit, reads: true, moved: Instant::now(), timer: None }
    }

    /// Waits for reads as long as they take, and `limit` for writes only: for connections that are accepted, where
    /// a stream's other side says nothing and a request may take its time.
    pub fn for_writes(io: S, limit: Duration) -> Self {
        Self { reads: false, ..Self::new(io, limit) }
    }

    /// Called when the connection is not ready.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        loop {
            let due = self.moved + self.limit;
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            ready!(timer.as_mut().poll(cx));
            if due <= Instant::now() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")));
            }
            timer.as_mut().reset(due);
        }
    }

    fn wrote<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_pending() {
            // Whoever only reads has let time pass; it counts from the first write that had to wait.
            if !self.reads && self.timer.is_none() {
                self.moved = Instant::now();
            }
            return self.wait(cx);
        }
        self.moved = Instant::now();
        if !self.reads {
            self.timer = None;
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Idle<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        if !this.reads {
            return polled;
        }
        if polled.is_pending() {
            return this.wait(cx);
        }
        this.moved = Instant::now();
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Idle<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, buf);
        this.wrote(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.wrote(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.io).poll_flush(cx) {
            Poll::Pending => this.wrote(cx, Poll::Pending),
            done => done,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.io).poll_shutdown(cx) {
            Poll::Pending => this.wrote(cx, Poll::Pending),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_ends_and_one_that_speaks_does_not() {
        let (mut far, near) = tokio::io::duplex(64);
        let mut near = Idle::new(near, LIMIT);
        for _ in 0..3 {
            tokio::time::advance(LIMIT - Duration::from_secs(1)).await;
            far.write_all(b"x").await.unwrap();
            assert_eq!(near.read_u8().await.unwrap(), b'x');
        }
        let began = Instant::now();
        assert_eq!(near.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_accepted_connection_may_be_silent_but_must_take_what_it_gets() {
        let (mut far, near) = tokio::io::duplex(2);
        let mut near = Idle::for_writes(near, LIMIT);
        let silent = tokio::time::timeout(LIMIT * 10, near.read_u8()).await;
        assert!(silent.is_err(), "still waiting");
        near.write_all(b"ab").await.unwrap();
        let began = Instant::now();
        assert_eq!(near.write_all(b"cd").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), LIMIT.as_secs());
        assert_eq!(far.read_u8().await.unwrap(), b'a');
    }
}
