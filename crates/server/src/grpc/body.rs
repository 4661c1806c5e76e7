//! Bodies of answers, gRPC's and plain HTTP's alike.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http_body::{Frame, SizeHint};
use tonic::Status;

/// Where the messages of a streaming answer come from.
pub(crate) trait Source: Send {
    /// The next framed messages as one chunk; None is the good end, an error the bad one.
    fn poll_chunk(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>>;
}

/// A plain answer could not be completed: its end is missing, so that no client takes it for whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer was cut short: {0}")]
pub(crate) struct Cut(String);

/// Body of an answer.
pub(crate) enum Body {
    /// Nothing: the headers said it all.
    Empty,
    /// One chunk of plain HTTP.
    Full(Option<Bytes>),
    /// One message and `grpc-status: 0`.
    Unary(Option<Bytes>),
    /// The trailers of [`Body::Unary`] are due.
    Trailers,
    /// Plain HTTP, as it comes; an error cuts it short.
    Chunks(Pin<Box<dyn Source>>),
    /// To another member.
    Raft(Box<etched_transport::Body>),
    /// Messages as they come.
    Stream(Pin<Box<dyn Source>>),
}

impl Body {
    pub(super) fn unary(message: Bytes) -> Self {
        Self::Unary(Some(message))
    }

    /// A plain HTTP body.
    pub(crate) fn text(text: impl Into<Bytes>) -> Self {
        Self::Full(Some(text.into()))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        let frame = match this {
            Self::Empty => None,
            Self::Full(data) => data.take().map(Frame::data),
            Self::Unary(message) => {
                let data = message.take().map(Frame::data);
                *this = Self::Trailers;
                data
            }
            Self::Trailers => {
                *this = Self::Empty;
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Some(Frame::trailers(trailers))
            }
            Self::Chunks(source) => match source.as_mut().poll_chunk(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(chunk))) => Some(Frame::data(chunk)),
                Poll::Ready(Some(Err(status))) => {
                    *this = Self::Empty;
                    return Poll::Ready(Some(Err(Cut(status.message().to_owned()))));
                }
                Poll::Ready(None) => None,
            },
            Self::Raft(body) => {
                return Pin::new(&mut **body).poll_frame(cx).map_err(|never| match never {});
            }
            Self::Stream(source) => match source.as_mut().poll_chunk(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(chunk))) => Some(Frame::data(chunk)),
                Poll::Ready(Some(Err(status))) => {
                    *this = Self::Empty;
                    Some(Frame::trailers(super::trailers(&status)))
                }
                Poll::Ready(None) => {
                    *this = Self::Empty;
                    Some(Frame::trailers(super::trailers(&Status::ok(""))))
                }
            },
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Raft(body) => body.is_end_stream(),
            _ => matches!(self, Self::Empty | Self::Full(None)),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(data) => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
            }
            Self::Raft(body) => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}
