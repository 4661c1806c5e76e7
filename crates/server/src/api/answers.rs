//! The answers of a stream that a task of its own makes, one message each.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use etched_proto::raw::Wire;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::Ending;
use crate::error::Error;
use crate::grpc::{Method, Source, push_frame};
use crate::shared::Shared;

/// Answers of one stream that may wait for the wire; the task that makes them waits above it.
const WAITING_MAX: usize = 16;

/// What the task sends: messages, then at most one status that ends the stream.
pub(super) type Sender<M> = mpsc::Sender<Result<M, Status>>;

/// The body of the stream.
pub(super) struct Answers<M> {
    shared: Arc<Shared>,
    method: Method,
    receiver: mpsc::Receiver<Result<M, Status>>,
    ending: Ending,
}

impl<M> Answers<M> {
    /// The task's end and the body's.
    pub(super) fn new(shared: Arc<Shared>, method: Method, ending: Ending) -> (Sender<M>, Self) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (sender, Self { shared, method, receiver, ending })
    }
}

/// Runs `work` until it ends, the client goes or the server stops; an error becomes the stream's status.
pub(super) async fn run<M>(
    work: impl Future<Output = Result<(), Status>>,
    answers: &Sender<M>,
    stopping: super::Stopping,
) {
    let end = tokio::select! {
        end = work => end,
        // Nobody is left who would read or hear.
        () = answers.closed() => return,
        () = super::stopped(stopping) => Err(Error::Stopped.into()),
    };
    if let Err(status) = end {
        // The stream may be gone: then nobody needs the status.
        let _ = answers.send(Err(status)).await;
    }
}

impl<M: Wire + Send + Unpin> Source for Answers<M> {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        let Poll::Ready(next) = self.receiver.poll_recv(cx) else { return Poll::Pending };
        match next {
            None => {
                self.ending.code = Code::Ok;
                Poll::Ready(None)
            }
            Some(Err(status)) => {
                self.ending.code = status.code();
                Poll::Ready(Some(Err(status)))
            }
            Some(Ok(answer)) => {
                let mut out = BytesMut::new();
                push_frame(&answer, &mut out);
                self.shared.metrics.sent(self.method, 1, out.len());
                Poll::Ready(Some(Ok(out.freeze())))
            }
        }
    }
}
