//! Bodies of requests, from a connection or made in this process.
//!
//! A request of the JSON gateway becomes a gRPC request of this kind: everything that holds for a call holds for
//! it too, without a way of its own through the services.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use tonic::Status;

use super::Source;

/// Body of a request.
pub(crate) enum Incoming {
    /// As it comes from the client.
    Connection(hyper::body::Incoming),
    /// Framed messages made here; an error ends the call.
    Made(Pin<Box<dyn Source>>),
}

impl Incoming {
    /// Whether the messages are made here.
    pub(super) const fn is_made(&self) -> bool {
        matches!(self, Self::Made(_))
    }

    /// The next piece; None when the client has sent all.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        let body = match self {
            Self::Connection(body) => body,
            Self::Made(source) => return source.as_mut().poll_chunk(cx),
        };
        loop {
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(_)) => {
                    return Poll::Ready(Some(Err(Status::cancelled("context canceled"))));
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
            }
        }
    }
}
