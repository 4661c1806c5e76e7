//! How messages stand on a stream: two formats, each encoder made for one connection and each decoder too.
//!
//! ```text
//! message   [length u64] [Message]                                  a link heartbeat is a Message as well
//! msgapp    0                                                       link heartbeat
//!           1 [count u64] ([length u64] [Entry])* [commit u64]      MsgApp that follows the one before
//!           2 [length u64] [Message]                                any other
//! ```
//! Numbers are big-endian. Bytes go in as they come, messages come out as soon as they are whole. What is held is
//! never more than what has come: no length that a peer claims is believed beforehand, and none above
//! [`MESSAGE_BYTES_MAX`] is taken. Decoded entries share the memory of the bytes they came in.

mod msgapp;
#[cfg(test)]
mod tests;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use etched_proto::raftpb::{Message, MessageType};
use prost::Message as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};

pub(crate) use msgapp::{MsgAppDecoder, MsgAppEncoder};

/// Bytes of one message, as etcd limits them; a stream with a larger one is given up.
pub const MESSAGE_BYTES_MAX: u64 = 512 << 20;
/// Entries of one message: each costs memory beside its bytes. Leaders put a megabyte into a message, which is a
/// fifth of this many of the smallest entries there are.
pub const ENTRIES_MAX: u64 = 1 << 20;

/// Fields of a raftpb.Message.
const ENTRIES: u32 = 7;
const RESPONSES: u32 = 14;
/// Bytes of a length.
const LENGTH_BYTES: usize = 8;

/// A stream that cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A message above the limit of its stream.
    #[error("rafthttp: error limit exceeded")]
    TooLarge,
    /// More entries than [`ENTRIES_MAX`].
    #[error("more than {ENTRIES_MAX} entries in one message")]
    TooManyEntries,
    /// A message inside a message; that is for a member's own log only.
    #[error("a message that no member sends to another")]
    Local,
    /// An append whose indexes end.
    #[error("an append beyond the last index there is")]
    Index,
    /// The first byte of a msgapp frame.
    #[error("failed to parse type {0} in msgappv2 stream")]
    Type(u8),
    /// Not protobuf.
    #[error("{0}")]
    Message(#[from] prost::DecodeError),
}

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Appends.
    MsgApp,
    /// Everything else, and appends while the other is down.
    Message,
}

impl Kind {
    /// The last but one part of its path.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::MsgApp => "msgapp",
            Self::Message => "message",
        }
    }

    /// How the log calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::MsgApp => "stream MsgApp v2",
            Self::Message => "stream Message",
        }
    }
}

/// What says that a connection lives: a heartbeat from nobody to nobody.
pub(crate) fn link_heartbeat() -> Message {
    Message { r#type: Some(MessageType::MsgHeartbeat as i32), ..Message::default() }
}

/// Whether a message is that.
pub(crate) fn is_link_heartbeat(message: &Message) -> bool {
    message.r#type == Some(MessageType::MsgHeartbeat as i32)
        && message.from.unwrap_or_default() == 0
        && message.to.unwrap_or_default() == 0
}

/// Encodes what goes over one connection.
#[derive(Debug)]
pub(crate) enum Encoder {
    MsgApp(MsgAppEncoder),
    Message,
}

impl Encoder {
    pub(crate) fn new(kind: Kind) -> Self {
        match kind {
            Kind::MsgApp => Self::MsgApp(MsgAppEncoder::default()),
            Kind::Message => Self::Message,
        }
    }

    pub(crate) fn encode(&mut self, message: &Message, out: &mut BytesMut) {
        match self {
            Self::MsgApp(encoder) => encoder.encode(message, out),
            Self::Message => put_message(message, out),
        }
    }
}

/// Decodes what comes over one connection.
#[derive(Debug)]
pub(crate) enum Decoder {
    MsgApp(MsgAppDecoder),
    Message(MessageDecoder),
}

impl Decoder {
    /// For a stream from member `remote` to member `local`.
    pub(crate) fn new(kind: Kind, local: u64, remote: u64) -> Self {
        match kind {
            Kind::MsgApp => Self::MsgApp(MsgAppDecoder::new(local, remote)),
            Kind::Message => Self::Message(MessageDecoder::new(MESSAGE_BYTES_MAX)),
        }
    }

    /// Takes bytes in.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        match self {
            Self::MsgApp(decoder) => decoder.extend(bytes),
            Self::Message(decoder) => decoder.extend(bytes),
        }
    }

    /// The next message that is there as a whole.
    ///
    /// # Errors
    /// The connection is of no more use.
    pub(crate) fn decode(&mut self) -> Result<Option<Message>, DecodeError> {
        match self {
            Self::MsgApp(decoder) => decoder.decode(),
            Self::Message(decoder) => decoder.decode(),
        }
    }
}

/// Messages with their lengths before them.
#[derive(Debug)]
pub(crate) struct MessageDecoder {
    pending: Pending,
    limit: u64,
    /// Of the message that has begun.
    length: Option<usize>,
}

impl MessageDecoder {
    /// Takes messages up to `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self { pending: Pending::default(), limit, length: None }
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.pending.0.extend_from_slice(bytes);
    }

    pub(crate) fn decode(&mut self) -> Result<Option<Message>, DecodeError> {
        if self.length.is_none() {
            self.length = self.pending.length(self.limit)?;
        }
        let Some(bytes) = self.length.and_then(|length| self.pending.take(length)) else {
            return Ok(None);
        };
        self.length = None;
        parse_message(bytes).map(Some)
    }

    /// What came behind the messages.
    pub(crate) fn rest(self) -> Bytes {
        self.pending.0.freeze()
    }
}

/// Bytes that have come and belong to nothing whole yet.
#[derive(Debug, Default)]
struct Pending(BytesMut);

impl Pending {
    fn take(&mut self, count: usize) -> Option<Bytes> {
        (self.0.len() >= count).then(|| self.0.split_to(count).freeze())
    }

    fn byte(&mut self) -> Option<u8> {
        self.0.has_remaining().then(|| self.0.get_u8())
    }

    fn number(&mut self) -> Option<u64> {
        (self.0.len() >= LENGTH_BYTES).then(|| self.0.get_u64())
    }

    /// A number of bytes, at most `limit`.
    fn length(&mut self, limit: u64) -> Result<Option<usize>, DecodeError> {
        let Some(length) = self.number() else { return Ok(None) };
        match usize::try_from(length) {
            Ok(bytes) if length <= limit => Ok(Some(bytes)),
            _ => Err(DecodeError::TooLarge),
        }
    }
}

/// A message with its length before it.
pub(crate) fn put_message(message: &Message, out: &mut BytesMut) {
    put_sized(message, out);
}

fn put_sized(message: &impl prost::Message, out: &mut BytesMut) {
    let length = message.encoded_len();
    out.reserve(LENGTH_BYTES + length);
    out.put_u64(length as u64);
    message.encode(out).expect("a BytesMut grows as it must");
}

/// A message that came from outside.
///
/// # Errors
/// Not protobuf, too many entries, or a message inside it.
pub(crate) fn parse_message(bytes: Bytes) -> Result<Message, DecodeError> {
    check_fields(&bytes)?;
    Ok(Message::decode(bytes)?)
}

/// Looks over the outermost fields before memory is taken for them.
fn check_fields(mut bytes: &[u8]) -> Result<(), DecodeError> {
    let mut entries = 0;
    while !bytes.is_empty() {
        let (tag, wire) = decode_key(&mut bytes)?;
        match tag {
            ENTRIES => entries += 1,
            RESPONSES => return Err(DecodeError::Local),
            _ => {}
        }
        skip_field(wire, tag, &mut bytes, DecodeContext::default())?;
    }
    if entries > ENTRIES_MAX { Err(DecodeError::TooManyEntries) } else { Ok(()) }
}
