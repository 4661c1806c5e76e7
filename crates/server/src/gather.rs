//! What a connection writes in one turn, as few large writes.
//!
//! ```text
//! HTTP/2 ── a write for each frame ──> Socket (keeps up to KEPT_BYTES_MAX) ──> kernel
//!    └────────── one turn, driven by `turns` ──────────┘ at the turn's end, or when full
//! ```
//! The HTTP library flushes after each frame of data, which on a connection with many streams is a system call
//! and a packet for each stream that has a word to say. Here a flush waits for the end of the turn in which the
//! connection's task runs: nothing is held back across turns, so no answer waits for another one.
//!
//! Invariants: bytes leave in the order in which they were written; a turn ends with nothing kept unless the kernel
//! takes no more, and then the task is woken when it does. A quiet connection holds no buffer.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are kept of one turn; with so many, they are written before more is taken.
const KEPT_BYTES_MAX: usize = 64 << 10;
/// Buffers that a thread keeps for the next turn of any of its connections.
const SPARE_BUFFERS_MAX: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A socket, for the connection that writes to it and for [`turns`].
pub(crate) struct Socket<S>(Rc<RefCell<Gather<S>>>);

impl<S> Socket<S> {
    pub(crate) fn new(stream: S) -> Self {
        let kept = Kept { bytes: Vec::new(), written: 0 };
        Self(Rc::new(RefCell::new(Gather { stream, kept, refused: false, unflushed: false })))
    }

    /// The same socket.
    pub(crate) fn handle(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

/// Drives a connection that has a handle of `socket`, and writes what each of its turns leaves there.
///
/// # Errors
/// The connection's, or that of writing.
pub(crate) async fn turns<S, C, E>(socket: &Socket<S>, mut connection: Pin<&mut C>) -> Result<(), E>
where
    S: AsyncWrite + Unpin,
    C: Future<Output = Result<(), E>>,
    E: From<io::Error>,
{
    poll_fn(|cx| {
        loop {
            socket.0.borrow_mut().refused = false;
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                // Its last words, when it did not wait for them: as far as the kernel takes them.
                let _ = socket.0.borrow_mut().poll_write_out(cx);
                return Poll::Ready(result);
            }
            let mut gather = socket.0.borrow_mut();
            ready!(gather.poll_write_out(cx))?;
            // Had the connection been told to wait, nobody would wake it for the room it now has.
            if !gather.refused {
                return Poll::Pending;
            }
        }
    })
    .await
}

struct Gather<S> {
    stream: S,
    kept: Kept,
    /// A write found no room since the turn began.
    refused: bool,
    /// The stream may keep some of what it took: TLS does, a socket does not.
    unflushed: bool,
}

/// Bytes on their way to the kernel.
struct Kept {
    bytes: Vec<u8>,
    /// How many of them it has.
    written: usize,
}

impl Kept {
    /// Takes what there is room for.
    fn take(&mut self, from: &[u8]) -> usize {
        if self.bytes.capacity() == 0 {
            self.bytes = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        let count = from.len().min(KEPT_BYTES_MAX - self.bytes.len());
        self.bytes.extend_from_slice(&from[..count]);
        count
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= KEPT_BYTES_MAX
    }

    fn clear(&mut self) {
        self.written = 0;
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_BUFFERS_MAX {
                spare.push(bytes);
            }
        });
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    /// Ready when nothing is kept, here or in the stream.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.kept.bytes.is_empty() {
            ready!(self.poll_write_kept(cx))?;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.kept.written < self.kept.bytes.len() {
            let rest = &self.kept.bytes[self.kept.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.kept.written += count,
            }
        }
        self.kept.clear();
        Poll::Ready(Ok(()))
    }

    fn poll_keep(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.kept.is_full() && self.poll_write_out(cx)?.is_pending() {
            self.refused = true;
            return Poll::Pending;
        }
        let mut taken = 0;
        for slice in slices {
            let count = self.kept.take(slice);
            taken += count;
            if count < slice.len() {
                break;
            }
        }
        Poll::Ready(Ok(taken))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_keep(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Left to the end of the turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gather = self.0.borrow_mut();
        ready!(gather.poll_write_out(cx))?;
        Pin::new(&mut gather.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A stream that counts the writes it gets and takes at most `most` bytes with one.
    struct Counting<S> {
        stream: S,
        most: usize,
        writes: Rc<RefCell<usize>>,
    }

    impl<S: AsyncWrite + Unpin> AsyncWrite for Counting<S> {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            *self.writes.borrow_mut() += 1;
            let count = bytes.len().min(self.most);
            Pin::new(&mut self.stream).poll_write(cx, &bytes[..count])
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }

    /// Writes `parts`, each followed by a flush, in one turn; returns what arrived and in how many writes.
    async fn send(parts: Vec<Vec<u8>>, most: usize, pipe: usize) -> (Vec<u8>, usize) {
        let (near, mut far) = tokio::io::duplex(pipe);
        let writes = Rc::new(RefCell::new(0));
        let socket = Socket::new(Counting { stream: near, most, writes: Rc::clone(&writes) });
        let mut handle = socket.handle();
        let mut connection = Box::pin(async move {
            for part in parts {
                handle.write_all(&part).await?;
                handle.flush().await?;
            }
            handle.shutdown().await
        });
        let mut arrived = Vec::new();
        let (sent, read) = tokio::join!(
            turns::<_, _, io::Error>(&socket, connection.as_mut()),
            far.read_to_end(&mut arrived)
        );
        sent.expect("sent");
        read.expect("read");
        assert!(socket.0.borrow().kept.bytes.capacity() == 0, "nothing is held at rest");
        let count = *writes.borrow();
        (arrived, count)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_frames_of_a_turn_leave_in_one_write() {
        let parts: Vec<Vec<u8>> = (0..100).map(|n| vec![n; 300]).collect();
        let (arrived, writes) = send(parts.clone(), usize::MAX, 1 << 20).await;
        assert_eq!((arrived, writes), (parts.concat(), 1));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_the_kernel_does_not_take_at_once_arrives_in_order() {
        let parts: Vec<Vec<u8>> = (0..40).map(|n| vec![n; 10_000]).collect();
        for (most, pipe) in [(usize::MAX, 777), (1000, 1 << 20), (77, 99)] {
            let (arrived, _) = send(parts.clone(), most, pipe).await;
            assert!(arrived == parts.concat(), "most {most}, pipe {pipe}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_the_stream_keeps_by_itself_is_flushed_at_the_end_of_the_turn() {
        let (near, mut far) = tokio::io::duplex(7);
        let socket = Socket::new(tokio::io::BufWriter::new(near));
        let mut handle = socket.handle();
        let mut connection = Box::pin(async move {
            handle.write_all(b"a longer answer").await?;
            std::future::pending::<io::Result<()>>().await
        });
        let mut answer = [0; 15];
        tokio::select! {
            _ = turns::<_, _, io::Error>(&socket, connection.as_mut()) => unreachable!("it waits for ever"),
            read = far.read_exact(&mut answer) => assert_eq!(read.expect("read"), 15),
        }
        assert_eq!(&answer, b"a longer answer");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_turn_that_ends_waiting_leaves_nothing_behind() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let socket = Socket::new(near);
        let mut handle = socket.handle();
        let mut connection = Box::pin(async move {
            handle.write_all(b"answer").await?;
            std::future::pending::<io::Result<()>>().await
        });
        let mut answer = [0; 6];
        tokio::select! {
            _ = turns::<_, _, io::Error>(&socket, connection.as_mut()) => unreachable!("it waits for ever"),
            read = far.read_exact(&mut answer) => assert_eq!(read.expect("read"), 6),
        }
        assert_eq!(&answer, b"answer");
    }
}
