//! Messages on the wire: one byte of flags, four of length, the message.

use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use etched_proto::raw::Wire;
use flate2::read::GzDecoder;
use tonic::Status;

use super::budget::{self, Permit};
use super::{Encoding, Incoming, Source};

/// Bytes before a message.
pub(crate) const PREFIX: usize = 5;

/// A message with its prefix, ready for the wire.
pub(crate) enum Framed {
    /// All of it.
    Whole(Bytes),
    /// A large one: the first piece, and where the others come from. Boxed, since all others are moved about too.
    Large(Box<(Bytes, Pin<Box<dyn Source>>)>),
}

impl Framed {
    /// A message that begins with `first`, prefix included, and goes on with what `rest` makes of the number of
    /// bytes that are to come.
    pub(crate) fn pieces<S: Source + 'static>(first: Bytes, rest: impl FnOnce(usize) -> S) -> Self {
        let left = announced(&first) - first.len();
        if left == 0 {
            Self::Whole(first)
        } else {
            Self::Large(Box::new((first, Box::pin(rest(left)))))
        }
    }

    /// The first piece, and where the others come from.
    pub(crate) fn into_parts(self) -> (Bytes, Option<Pin<Box<dyn Source>>>) {
        match self {
            Self::Whole(bytes) => (bytes, None),
            Self::Large(large) => (large.0, Some(large.1)),
        }
    }

    /// A message that is there as a whole.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.into_parts().0
    }

    /// Whether it comes in pieces.
    pub(crate) fn is_large(&self) -> bool {
        matches!(self, Self::Large(_))
    }

    /// Bytes on the wire, prefix included.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Large(large) => announced(&large.0),
        }
    }

    /// The same message, compressed; not for one that comes in pieces.
    pub(crate) fn gzip(self) -> Result<Self, Status> {
        GzipMessage::default().add(&self.into_bytes()[PREFIX..])?.finish()
    }
}

/// Bytes of a message on the wire, as its prefix says.
fn announced(first: &[u8]) -> usize {
    PREFIX + (&first[1..PREFIX]).get_u32() as usize
}

impl From<Bytes> for Framed {
    /// From a message with its prefix.
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

/// A compressed message with its prefix, which grows piece by piece.
pub(crate) struct GzipMessage(flate2::write::GzEncoder<Vec<u8>>);

impl Default for GzipMessage {
    fn default() -> Self {
        Self(flate2::write::GzEncoder::new(vec![0; PREFIX], flate2::Compression::fast()))
    }
}

impl GzipMessage {
    /// Adds a piece of the plain message.
    pub(crate) fn add(mut self, piece: &[u8]) -> Result<Self, Status> {
        std::io::Write::write_all(&mut self.0, piece).map_err(not_compressed)?;
        Ok(self)
    }

    /// The message.
    pub(crate) fn finish(self) -> Result<Framed, Status> {
        let mut out = self.0.finish().map_err(not_compressed)?;
        let length = (out.len() - PREFIX) as u32;
        out[0] = 1;
        out[1..PREFIX].copy_from_slice(&length.to_be_bytes());
        Ok(Framed::from(Bytes::from(out)))
    }
}

/// Bytes compressed, for plain HTTP.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Bytes, Status> {
    let packed = GzipMessage::default().add(bytes)?.finish()?;
    Ok(packed.into_bytes().slice(PREFIX..))
}

fn not_compressed(error: std::io::Error) -> Status {
    Status::internal(format!("gzip: {error}"))
}

/// Encodes one message into a buffer of its own.
pub(crate) fn frame(message: &(impl Wire + ?Sized)) -> Framed {
    let mut out = BytesMut::with_capacity(PREFIX + message.wire_len());
    push_frame(message, &mut out);
    Framed::from(out.freeze())
}

/// Appends one message to a buffer that may hold others.
pub(crate) fn push_frame(message: &(impl Wire + ?Sized), out: &mut BytesMut) {
    out.put_u8(0);
    out.put_u32(message.wire_len() as u32);
    message.write(out);
}

/// Cuts a request's body into messages.
pub(crate) struct MessageReader {
    body: Incoming,
    /// What came last and is not cut yet: messages that lie in it as a whole are not copied.
    chunk: Bytes,
    /// The beginning of a message, from earlier chunks; while it holds something `chunk` is empty.
    buffer: BytesMut,
    encoding: Encoding,
    limit: usize,
    ended: bool,
    /// Bytes of this thread's budget for large messages.
    share: usize,
    /// What the message that is being read, or was read last, counts against it.
    permit: Permit,
}

impl MessageReader {
    /// Messages above `limit` bytes are refused before they are read; `threads` share the memory for
    /// large ones.
    pub(crate) fn new(body: Incoming, encoding: Encoding, limit: usize, threads: usize) -> Self {
        let (chunk, buffer, share) = (Bytes::new(), BytesMut::new(), budget::share(threads));
        Self {
            body,
            chunk,
            buffer,
            encoding,
            limit,
            ended: false,
            share,
            permit: Permit::default(),
        }
    }

    /// Ends the reading; what the last message counts for goes on to whoever has the message.
    pub(crate) fn into_permit(self) -> Permit {
        self.permit
    }

    /// The next message; None when the client has sent all.
    ///
    /// # Errors
    /// The status that ends the call; [`tonic::Code::Canceled`] when the client went away.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        self.permit = Permit::default();
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Whether the client ended its side in the middle of a message.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.ended && self.buffer.len() >= PREFIX
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if let Some(message) = self.take_message()? {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.ended {
                return Poll::Ready(self.end());
            }
            match ready!(self.body.poll_data(cx)) {
                None => self.ended = true,
                Some(Ok(data)) => self.push(data),
                Some(Err(status)) => return Poll::Ready(Err(status)),
            }
        }
    }

    fn push(&mut self, data: Bytes) {
        if self.buffer.is_empty() {
            self.chunk = data;
        } else {
            self.buffer.extend_from_slice(&data);
        }
    }

    /// Part of a prefix counts as nothing, as in etcd.
    fn end(&self) -> Result<Option<Bytes>, Status> {
        if self.is_cut_short() { Err(Status::internal("unexpected EOF")) } else { Ok(None) }
    }

    fn take_message(&mut self) -> Result<Option<Bytes>, Status> {
        let waiting = if self.buffer.is_empty() { &self.chunk[..] } else { &self.buffer[..] };
        if let Some((&[flag, ref length @ ..], _)) = waiting.split_first_chunk::<PREFIX>() {
            let length = u32::from_be_bytes(*length) as usize;
            if length > self.limit {
                return Err(too_large(length, self.limit));
            }
            if waiting.len() >= PREFIX + length {
                if self.body.is_made() {
                    // No flow control of a connection bounds these.
                    self.permit.grow_to(length, self.share)?;
                }
                return self.message(flag, length).map(Some);
            }
            // Room grows with what arrives: an announced length alone costs nothing.
            self.permit.grow_to(waiting.len(), self.share)?;
        }
        if !self.chunk.is_empty() {
            self.buffer.extend_from_slice(&std::mem::take(&mut self.chunk));
        }
        Ok(None)
    }

    /// Cuts off a message that is there as a whole.
    fn message(&mut self, flag: u8, length: usize) -> Result<Bytes, Status> {
        let message = if self.buffer.is_empty() {
            self.chunk.advance(PREFIX);
            self.chunk.split_to(length)
        } else {
            self.buffer.advance(PREFIX);
            self.buffer.split_to(length).freeze()
        };
        match (flag, self.encoding) {
            (0, _) => Ok(message),
            (1, Encoding::Gzip) => {
                let plain = unzip(&message, self.limit)?;
                self.permit.grow_to(plain.len(), self.share)?;
                Ok(plain)
            }
            (1, Encoding::Identity) => {
                Err(Status::internal("grpc: compressed flag set with identity or empty encoding"))
            }
            (flag, _) => {
                Err(Status::internal(format!("grpc: received unexpected payload format {flag}")))
            }
        }
    }
}

/// The status of a message that is longer than it may be.
pub(crate) fn too_large(length: usize, limit: usize) -> Status {
    Status::resource_exhausted(format!(
        "grpc: received message larger than max ({length} vs. {limit})"
    ))
}

/// Reads at most one byte above the limit, so that a small message cannot become a huge one.
fn unzip(message: &[u8], limit: usize) -> Result<Bytes, Status> {
    let mut out = Vec::new();
    GzDecoder::new(message).take(limit as u64 + 1).read_to_end(&mut out).map_err(|error| {
        Status::internal(format!("grpc: failed to decompress the received message: {error}"))
    })?;
    if out.len() > limit {
        return Err(Status::resource_exhausted(format!(
            "grpc: received message after decompression larger than max {limit}"
        )));
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let zeros =
            etched_proto::mvccpb::KeyValue { value: vec![0; 1 << 20].into(), ..Default::default() };
        let bomb = frame(&zeros).gzip().expect("in memory").into_bytes();
        assert!(bomb.len() < 10_000);
        let refused = unzip(&bomb[PREFIX..], 4096).expect_err("above the limit");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        let whole = unzip(&bomb[PREFIX..], 2 << 20).expect("below the limit");
        assert_eq!(whole.len(), prost::Message::encoded_len(&zeros));
    }
}
