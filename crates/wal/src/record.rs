//! Records and their frames, byte for byte.
//!
//! ```text
//! frame  = length (8 bytes, little endian; top byte 0x80 | pad bytes, or 0) record pad
//! record = 08 type  10 crc  [1a length data]            (walpb.Record)
//! data   = raftpb.Entry | raftpb.HardState | walpb.Snapshot | etcdserverpb.Metadata
//! ```
//! `crc` is CRC-32C over the data of all records of the log so far, continued from segment to
//! segment; a record of type crc carries the value over and adds nothing to it.
//!
//! The type is not covered by the checksum, so a flipped bit could turn a state into an entry.
//! Decoding is therefore strict: each message must have exactly the fields that etcd (3.5 on) writes,
//! in their order. What is not strict is presence of the type in an entry: up to 3.6 it is always
//! written, since 3.7 (and here) only when it is not 0.

use bytes::Bytes;
use etched_proto::walpb;
use prost::Message as _;

use crate::{Damage, Entry, EntryKind, HardState, SnapshotMark};

pub(crate) const METADATA: u64 = 1;
pub(crate) const ENTRY: u64 = 2;
pub(crate) const STATE: u64 = 3;
pub(crate) const CRC: u64 = 4;
pub(crate) const SNAPSHOT: u64 = 5;

/// Bytes of a frame before the record.
pub(crate) const HEADER_BYTES: usize = 8;

/// Collects records and carries the checksum on.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// Checksum after the last record.
    pub(crate) crc: u32,
    /// Frames not written yet.
    pub(crate) buf: Vec<u8>,
}

impl Encoder {
    /// An entry; its data is copied once.
    pub(crate) fn entry(&mut self, entry: &Entry) {
        let mut head = Small::default();
        if entry.kind != EntryKind::Normal {
            head.field(0x08, entry.kind as u64);
        }
        head.field(0x10, entry.term);
        head.field(0x18, entry.index);
        if !entry.data.is_empty() {
            head.field(0x22, entry.data.len() as u64);
        }
        self.record(ENTRY, head.bytes(), &entry.data);
    }

    /// A hard state, with all its fields whatever their values.
    pub(crate) fn state(&mut self, state: &HardState) {
        let mut head = Small::default();
        head.field(0x08, state.term);
        head.field(0x10, state.vote);
        head.field(0x18, state.commit);
        self.record(STATE, head.bytes(), &[]);
    }

    pub(crate) fn snapshot(&mut self, mark: &SnapshotMark) {
        let message = walpb::Snapshot {
            index: Some(mark.index),
            term: Some(mark.term),
            conf_state: mark.conf_state.clone(),
        };
        self.record(SNAPSHOT, &message.encode_to_vec(), &[]);
    }

    /// The records that stand first in each segment.
    pub(crate) fn segment_head(&mut self, metadata: &[u8]) {
        let mut head = Small::default();
        head.field(0x08, CRC);
        head.field(0x10, u64::from(self.crc));
        self.frame(head.bytes(), &[], &[]);
        self.record(METADATA, metadata, &[]);
    }

    /// A record whose data is `head` followed by `body`.
    fn record(&mut self, kind: u64, head: &[u8], body: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, head);
        if !body.is_empty() {
            self.crc = crc32c::crc32c_append(self.crc, body);
        }
        let mut envelope = Small::default();
        envelope.field(0x08, kind);
        envelope.field(0x10, u64::from(self.crc));
        envelope.field(0x1a, (head.len() + body.len()) as u64);
        self.frame(envelope.bytes(), head, body);
    }

    fn frame(&mut self, envelope: &[u8], head: &[u8], body: &[u8]) {
        let length = envelope.len() + head.len() + body.len();
        let pad = length.wrapping_neg() % 8;
        self.buf.reserve(HEADER_BYTES + length + pad);
        self.buf.extend_from_slice(&frame_header(length as u64).to_le_bytes());
        self.buf.extend_from_slice(envelope);
        self.buf.extend_from_slice(head);
        self.buf.extend_from_slice(body);
        self.buf.extend_from_slice(&[0; 7][..pad]);
    }
}

/// The first eight bytes of a frame around a record of that length.
fn frame_header(length: u64) -> u64 {
    match length.wrapping_neg() % 8 {
        0 => length,
        pad => length | (0x80 | pad) << 56,
    }
}

/// The few bytes before the data, put together on the stack.
struct Small {
    bytes: [u8; 48],
    len: usize,
}

impl Default for Small {
    fn default() -> Self {
        Self { bytes: [0; 48], len: 0 }
    }
}

impl Small {
    /// A tag of one byte and a varint. At most four of them, 11 bytes each, are ever put.
    fn field(&mut self, tag: u8, mut value: u64) {
        self.put(tag);
        while value >= 0x80 {
            self.put(value as u8 | 0x80);
            value >>= 7;
        }
        self.put(value as u8);
    }

    fn put(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Lengths that a frame's first eight bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) header: u64,
    pub(crate) record: u64,
    pub(crate) pad: u64,
}

impl Frame {
    /// Takes the lengths out of the header as etcd does: without a look whether they can be.
    pub(crate) fn parse(header: u64) -> Self {
        let pad = if header >> 63 == 1 { header >> 56 & 7 } else { 0 };
        Self { header, record: header & (u64::MAX >> 8), pad }
    }

    /// Whether an encoder could have written it.
    pub(crate) fn is_possible(self) -> bool {
        self.record > 0 && frame_header(self.record) == self.header
    }

    /// Bytes behind the header, below 2^57.
    pub(crate) fn body(self) -> u64 {
        self.record + self.pad
    }
}

/// A record before its data is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) kind: u64,
    pub(crate) crc: u32,
    /// Where in the frame's body the data is; empty for a crc record.
    pub(crate) data: std::ops::Range<usize>,
}

/// Takes the envelope off a frame's body (record and pad).
pub(crate) fn parse_envelope(frame: Frame, body: &[u8]) -> Result<Envelope, Damage> {
    let broken = Damage::Encoding { what: "record" };
    let record = frame.record as usize;
    if body[record..].iter().any(|&byte| byte != 0) {
        return Err(Damage::Frame { header: frame.header });
    }
    let mut rest = Fields(&body[..record]);
    let kind = rest.field(0x08).ok_or_else(|| broken.clone())?;
    let crc = rest.field(0x10).ok_or_else(|| broken.clone())?;
    let crc = u32::try_from(crc).map_err(|_| broken.clone())?;
    let data =
        if rest.0.is_empty() { 0 } else { rest.field(0x1a).ok_or_else(|| broken.clone())? };
    // Nothing may stand behind the data.
    if data != rest.0.len() as u64 {
        return Err(broken);
    }
    Ok(Envelope { kind, crc, data: record - data as usize..record })
}

/// Reads fields that must come in a known order.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// The varint behind `tag`, if that is what comes next.
    fn field(&mut self, tag: u8) -> Option<u64> {
        let (&first, mut rest) = self.0.split_first()?;
        if first != tag {
            return None;
        }
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, behind) = rest.split_first()?;
            rest = behind;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return None;
            }
            value |= part << shift;
            if byte < 0x80 {
                self.0 = rest;
                return Some(value);
            }
        }
        None
    }
}

pub(crate) fn decode_entry(data: &Bytes) -> Result<Entry, Damage> {
    entry_fields(data).ok_or(Damage::Encoding { what: "entry" })
}

fn entry_fields(data: &Bytes) -> Option<Entry> {
    let mut rest = Fields(data);
    let kind = match rest.field(0x08) {
        None | Some(0) => EntryKind::Normal,
        Some(1) => EntryKind::ConfChange,
        Some(2) => EntryKind::ConfChangeV2,
        Some(_) => return None,
    };
    let term = rest.field(0x10)?;
    let index = rest.field(0x18)?;
    let length = if rest.0.is_empty() { 0 } else { rest.field(0x22)? };
    let fits = length == rest.0.len() as u64;
    // A configuration change always says what it changes; one without data is a hard state whose
    // type was damaged.
    let plausible = term > 0 && index > 0 && (length > 0 || kind == EntryKind::Normal);
    (fits && plausible).then(|| Entry {
        term,
        index,
        kind,
        data: data.slice(data.len() - length as usize..),
    })
}

pub(crate) fn decode_state(data: &Bytes) -> Result<HardState, Damage> {
    state_fields(data).ok_or(Damage::Encoding { what: "hard state" })
}

fn state_fields(data: &[u8]) -> Option<HardState> {
    let mut rest = Fields(data);
    let term = rest.field(0x08)?;
    let vote = rest.field(0x10)?;
    let commit = rest.field(0x18)?;
    // Term 0 never votes nor commits: that would be an entry of etcd 3.6 whose type was damaged.
    (rest.0.is_empty() && term > 0).then_some(HardState { term, vote, commit })
}

pub(crate) fn decode_snapshot(data: &Bytes) -> Result<SnapshotMark, Damage> {
    let broken = Damage::Encoding { what: "snapshot record" };
    let message = walpb::Snapshot::decode(data.as_ref()).map_err(|_| broken.clone())?;
    match (message.index, message.term) {
        (Some(index), Some(term)) => {
            Ok(SnapshotMark { index, term, conf_state: message.conf_state })
        }
        _ => Err(broken),
    }
}
