//! Answers of many messages: their compression and their end by the client's timeout.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http::Response;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use super::GzipMessage;
use super::{Body, Encoding, Source, deadline_exceeded, start_headers};

/// An answer of many messages, compressed as the request was, until `deadline` at the latest.
pub(crate) fn stream(
    source: impl Source + 'static,
    encoding: Encoding,
    deadline: Option<Instant>,
) -> Response<Body> {
    let mut source: Pin<Box<dyn Source>> = Box::pin(source);
    if encoding == Encoding::Gzip {
        source = Box::pin(Gzip(source));
    }
    if let Some(deadline) = deadline {
        let end = Box::pin(tokio::time::sleep_until(deadline));
        source = Box::pin(Until { source, end });
    }
    let mut response = Response::new(Body::Stream(source));
    start_headers(&mut response, encoding);
    response
}

/// A first chunk, then the others.
pub(super) struct After {
    first: Option<Bytes>,
    rest: Pin<Box<dyn Source>>,
}

impl After {
    pub(super) fn new(first: Bytes, rest: Pin<Box<dyn Source>>) -> Self {
        Self { first: Some(first), rest }
    }
}

impl Source for After {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => self.rest.as_mut().poll_chunk(cx),
        }
    }
}

/// Compresses each message.
struct Gzip(Pin<Box<dyn Source>>);

impl Source for Gzip {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        self.0.as_mut().poll_chunk(cx).map(|chunk| chunk.map(|chunk| chunk.and_then(gzip_chunk)))
    }
}

/// A chunk holds whole messages.
fn gzip_chunk(mut chunk: Bytes) -> Result<Bytes, Status> {
    let mut out = BytesMut::new();
    while !chunk.is_empty() {
        chunk.advance(1);
        let length = chunk.get_u32() as usize;
        let packed = GzipMessage::default().add(&chunk.split_to(length))?.finish()?;
        out.extend_from_slice(&packed.into_bytes());
    }
    Ok(out.freeze())
}

/// Ends the stream when the client has stopped to wait for it.
struct Until {
    source: Pin<Box<dyn Source>>,
    end: Pin<Box<Sleep>>,
}

impl Source for Until {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(deadline_exceeded())));
        }
        self.source.as_mut().poll_chunk(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::{frame, push_frame};
    use etched_proto::mvccpb::KeyValue;
    use flate2::read::GzDecoder;
    use std::io::Read as _;

    #[test]
    fn every_message_of_a_chunk_is_compressed_by_itself() {
        let of = |key: &'static [u8]| KeyValue { key: key.into(), ..Default::default() };
        let mut chunk = BytesMut::new();
        push_frame(&of(b"a"), &mut chunk);
        push_frame(&of(b""), &mut chunk);
        let mut packed = gzip_chunk(chunk.freeze()).expect("in memory");
        for key in [&b"a"[..], b""] {
            assert_eq!(packed.get_u8(), 1);
            let length = packed.get_u32() as usize;
            let mut plain = Vec::new();
            let message = packed.split_to(length);
            GzDecoder::new(&message[..]).read_to_end(&mut plain).expect("gzip");
            assert_eq!(plain, frame(&of(key)).into_bytes()[5..]);
        }
        assert!(packed.is_empty());
    }
}
