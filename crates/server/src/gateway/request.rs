//! Messages out of the body of an HTTP request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use etched_proto::json::{self, Scanner};
use etched_proto::schema::MessageId;
use http_body::Body as _;
use hyper::body::Incoming;
use tonic::Status;

use crate::grpc::{self, PREFIX, Permit, Source};
use crate::shared::Shared;

/// How much longer than the largest message a JSON value may be. Base64 takes a third more; the rest is for names,
/// white space and escapes.
pub(super) const TEXT_FACTOR: usize = 8;

/// How much one request may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of the largest message.
    message: usize,
    /// Bytes of this thread's budget for large messages.
    share: usize,
}

impl Limits {
    pub(super) fn of(shared: &Shared) -> Self {
        Self { message: shared.config.message_limit(), share: grpc::share(shared.lanes.len()) }
    }
}

/// How long the end of a request may keep its call waiting once the message is there.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// The one message of a call. Nothing at all is the empty message; what follows the first value is passed over.
///
/// # Errors
/// InvalidArgument for what is no such message, ResourceExhausted for one that is too large.
pub(super) async fn one(
    body: Incoming,
    message: MessageId,
    limits: Limits,
) -> Result<Pin<Box<dyn Source>>, Status> {
    let mut texts = Texts::new(body, limits);
    let first = std::future::poll_fn(|cx| texts.poll_next(cx)).await;
    let wire = match first {
        None => Vec::new(),
        Some(text) => {
            text.and_then(|text| Ok(json::decode(message, &text)?)).map_err(Status::from)?
        }
    };
    if wire.len() > limits.message {
        return Err(grpc::too_large(wire.len(), limits.message));
    }
    // Counted while the rest may still come; from then on by who reads the message.
    let mut permit = Permit::default();
    permit.grow_to(wire.len(), limits.share)?;
    // A client that never ends its request gets its answer all the same, and loses the connection.
    let _ = tokio::time::timeout(DRAIN_TIME, texts.drain()).await;
    Ok(Box::pin(Once(Some(framed(&wire)))))
}

/// The messages of a call, as they come. The first value that is no such message ends them, as in etcd.
pub(super) fn many(body: Incoming, message: MessageId, limits: Limits) -> Pin<Box<dyn Source>> {
    Box::pin(Many { texts: Some(Texts::new(body, limits)), message })
}

fn framed(wire: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX + wire.len());
    out.put_u8(0);
    out.put_u32(wire.len() as u32);
    out.put_slice(wire);
    out.freeze()
}

struct Once(Option<Bytes>);

impl Source for Once {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        Poll::Ready(self.0.take().map(Ok))
    }
}

struct Many {
    texts: Option<Texts>,
    message: MessageId,
}

impl Source for Many {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        let Some(texts) = &mut self.texts else { return Poll::Ready(None) };
        let wire = match ready!(texts.poll_next(cx)) {
            Some(Ok(text)) => json::decode(self.message, &text).map_err(Failure::from),
            Some(Err(failure)) => Err(failure),
            None => return Poll::Ready(None),
        };
        Poll::Ready(match wire {
            Ok(wire) => Some(Ok(framed(&wire))),
            Err(failure) => {
                self.texts = None;
                match failure {
                    Failure::Text(error) => {
                        tracing::debug!(%error, "failed to decode a request of a stream");
                        None
                    }
                    Failure::Ends(status) => Some(Err(status)),
                }
            }
        })
    }
}

/// Why there is no message.
#[derive(Debug)]
enum Failure {
    /// No such message.
    Text(json::Error),
    /// Not for what it says: the whole call ends.
    Ends(Status),
}

impl From<json::Error> for Failure {
    fn from(error: json::Error) -> Self {
        Self::Text(error)
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Text(error) => Self::invalid_argument(error.to_string()),
            Failure::Ends(status) => status,
        }
    }
}

/// Cuts a body into JSON values.
struct Texts {
    body: Incoming,
    limits: Limits,
    scanner: Scanner,
    /// What came last and is not looked at yet.
    chunk: Bytes,
    /// The beginning of a value, from earlier chunks.
    buffer: BytesMut,
    /// What the buffer counts for.
    permit: Permit,
}

impl Texts {
    fn new(body: Incoming, limits: Limits) -> Self {
        Self {
            body,
            limits,
            scanner: Scanner::default(),
            chunk: Bytes::new(),
            buffer: BytesMut::new(),
            permit: Permit::default(),
        }
    }

    /// The next value, without white space around it.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            match self.take_value() {
                Ok(Some(value)) => return Poll::Ready(Some(Ok(value))),
                Ok(None) => {}
                Err(failure) => return Poll::Ready(Some(Err(failure))),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.chunk = frame.into_data().unwrap_or_default(),
                Some(Err(_)) => {
                    // Who breaks off in the middle has gone, also where an end would leave the call going on.
                    let gone = Status::cancelled("context canceled");
                    return Poll::Ready(Some(Err(Failure::Ends(gone))));
                }
                None => {
                    let ended = self.scanner.finish().map(|whole| whole.then(|| self.cut(0)));
                    return Poll::Ready(ended.map_err(Failure::from).transpose());
                }
            }
        }
    }

    /// Looks for the end of a value in what is there.
    fn take_value(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Some(end) = self.scanner.push(&self.chunk)? {
            return Ok(Some(self.cut(end)));
        }
        let chunk = std::mem::take(&mut self.chunk);
        if self.scanner.has_begun() {
            let length = self.buffer.len() + chunk.len();
            let most = self.limits.message.saturating_mul(TEXT_FACTOR);
            if length > most {
                return Err(Failure::Ends(grpc::too_large(length, most)));
            }
            self.permit.grow_to(length, self.limits.share).map_err(Failure::Ends)?;
            self.buffer.extend_from_slice(&chunk);
        }
        Ok(None)
    }

    /// The value that ends with the first `end` bytes of the chunk.
    fn cut(&mut self, end: usize) -> Bytes {
        self.scanner = Scanner::default();
        self.permit = Permit::default();
        let last = self.chunk.split_to(end);
        let value = if self.buffer.is_empty() {
            last
        } else {
            self.buffer.extend_from_slice(&last);
            self.buffer.split().freeze()
        };
        value.slice_ref(value.trim_ascii())
    }

    /// Reads to the end, as etcd does before it calls the method: else the connection could not be used again.
    async fn drain(mut self) {
        while std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx))
            .await
            .is_some_and(|frame| frame.is_ok())
        {}
    }
}
