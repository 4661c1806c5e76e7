//! The stream of appends, etcd's "msgappv2": an append that follows the one before says only what is new.
//!
//! Both sides remember the term of the last whole message and the index of its last entry. An append that
//! continues there in the same term is sent as its entries and its commit index alone.

use bytes::{BufMut as _, BytesMut};
use etched_proto::raftpb::{Entry, Message, MessageType};
use prost::Message as _;

use super::{
    DecodeError, ENTRIES_MAX, LENGTH_BYTES, MESSAGE_BYTES_MAX, Pending, is_link_heartbeat,
    link_heartbeat, parse_message, put_message, put_sized,
};

const LINK_HEARTBEAT: u8 = 0;
const APP_ENTRIES: u8 = 1;
const APP: u8 = 2;

/// Where the next append continues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    term: u64,
    index: u64,
}

impl Place {
    /// Behind a message that was sent as a whole.
    fn after(message: &Message) -> Self {
        let index = message.entries.last().map_or(message.index, |entry| entry.index);
        Self { term: message.term.unwrap_or_default(), index: index.unwrap_or_default() }
    }

    /// Whether a message goes on here, and its indexes do not end.
    fn continues(self, message: &Message) -> bool {
        let log_term = message.log_term.unwrap_or_default();
        self.index.checked_add(message.entries.len() as u64).is_some()
            && self.index == message.index.unwrap_or_default()
            && self.term == log_term
            && log_term == message.term.unwrap_or_default()
    }
}

/// The sender's half.
#[derive(Debug, Default)]
pub(crate) struct MsgAppEncoder {
    place: Place,
}

impl MsgAppEncoder {
    pub(crate) fn encode(&mut self, message: &Message, out: &mut BytesMut) {
        if is_link_heartbeat(message) {
            out.put_u8(LINK_HEARTBEAT);
        } else if self.place.continues(message) {
            out.put_u8(APP_ENTRIES);
            out.put_u64(message.entries.len() as u64);
            for entry in &message.entries {
                put_sized(entry, out);
                self.place.index += 1;
            }
            out.put_u64(message.commit.unwrap_or_default());
        } else {
            out.put_u8(APP);
            put_message(message, out);
            self.place = Place::after(message);
        }
    }
}

/// The receiver's half.
#[derive(Debug)]
pub(crate) struct MsgAppDecoder {
    local: u64,
    remote: u64,
    place: Place,
    pending: Pending,
    state: State,
}

/// What comes next.
#[derive(Debug)]
enum State {
    Type,
    Count,
    Entries(Entries),
    /// The length of a whole message, or the message of that length.
    Message(Option<usize>),
}

/// Entries of an append that is not whole yet.
#[derive(Debug)]
struct Entries {
    /// Still to come.
    left: u64,
    /// Bytes that they may still have.
    bytes_left: u64,
    /// Of the entry that has begun.
    length: Option<usize>,
    read: Vec<Entry>,
}

impl MsgAppDecoder {
    pub(crate) fn new(local: u64, remote: u64) -> Self {
        let (place, pending) = (Place::default(), Pending::default());
        Self { local, remote, place, pending, state: State::Type }
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.pending.0.extend_from_slice(bytes);
    }

    pub(crate) fn decode(&mut self) -> Result<Option<Message>, DecodeError> {
        loop {
            match &mut self.state {
                State::Type => {
                    let Some(kind) = self.pending.byte() else { return Ok(None) };
                    self.state = match kind {
                        LINK_HEARTBEAT => return Ok(Some(link_heartbeat())),
                        APP_ENTRIES => State::Count,
                        APP => State::Message(None),
                        other => return Err(DecodeError::Type(other)),
                    };
                }
                State::Count => {
                    let Some(left) = self.pending.number() else { return Ok(None) };
                    self.state = State::Entries(Entries::expect(left)?);
                }
                State::Entries(entries) => {
                    let Some(commit) = entries.read_all(&mut self.pending)? else {
                        return Ok(None);
                    };
                    let read = std::mem::take(&mut entries.read);
                    self.state = State::Type;
                    return self.append(read, commit).map(Some);
                }
                State::Message(length) => {
                    if length.is_none() {
                        *length = self.pending.length(MESSAGE_BYTES_MAX)?;
                    }
                    let Some(bytes) = length.and_then(|length| self.pending.take(length)) else {
                        return Ok(None);
                    };
                    self.state = State::Type;
                    let message = parse_message(bytes)?;
                    self.place = Place::after(&message);
                    return Ok(Some(message));
                }
            }
        }
    }

    /// The message that entries and a commit index stand for.
    fn append(&mut self, entries: Vec<Entry>, commit: u64) -> Result<Message, DecodeError> {
        let Place { term, index } = self.place;
        self.place.index = index.checked_add(entries.len() as u64).ok_or(DecodeError::Index)?;
        Ok(Message {
            r#type: Some(MessageType::MsgApp as i32),
            from: Some(self.remote),
            to: Some(self.local),
            term: Some(term),
            log_term: Some(term),
            index: Some(index),
            entries,
            commit: Some(commit),
            ..Message::default()
        })
    }
}

impl Entries {
    fn expect(left: u64) -> Result<Self, DecodeError> {
        if left > ENTRIES_MAX {
            return Err(DecodeError::TooManyEntries);
        }
        Ok(Self { left, bytes_left: MESSAGE_BYTES_MAX, length: None, read: Vec::new() })
    }

    /// Reads what is there; the commit index when that is all.
    fn read_all(&mut self, pending: &mut Pending) -> Result<Option<u64>, DecodeError> {
        while self.left > 0 {
            if self.length.is_none() {
                self.length = pending.length(self.bytes_left)?;
            }
            let Some(bytes) = self.length.and_then(|length| pending.take(length)) else {
                return Ok(None);
            };
            let taken = (bytes.len() + LENGTH_BYTES) as u64;
            self.bytes_left = self.bytes_left.saturating_sub(taken);
            self.length = None;
            self.left -= 1;
            self.read.push(Entry::decode(bytes)?);
        }
        Ok(pending.number())
    }
}
