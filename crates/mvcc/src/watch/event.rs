//! From stored record to encoded `mvccpb.Event`.
//!
//! A record is an encoded `mvccpb.KeyValue`; a put's event carries those bytes as they are. Each event is
//! encoded at most twice, with and without `prev_kv`, whoever and how many ask for it.

use bytes::{BufMut, Bytes, BytesMut};

use super::History;
use crate::record::{Record, RecordsError, Revision};

// Field numbers of mvccpb, as the tag bytes they make.
const KV_KEY: u8 = 1 << 3 | 2;
const KV_CREATE_REVISION: u8 = 2 << 3;
const KV_MOD_REVISION: u8 = 3 << 3;
const EVENT_TYPE: u8 = 1 << 3;
const EVENT_KV: u8 = 2 << 3 | 2;
const EVENT_PREV_KV: u8 = 3 << 3 | 2;
const DELETE: u8 = 1;

/// One change, on its way to those who watch its key.
#[derive(Debug)]
pub(super) struct Event<'a> {
    pub(super) revision: Revision,
    record: &'a Record,
    bare: Option<Bytes>,
    with_prev: Option<Bytes>,
}

impl<'a> Event<'a> {
    pub(super) const fn new(revision: Revision, record: &'a Record) -> Self {
        Self { revision, record, bare: None, with_prev: None }
    }

    pub(super) fn key(&self) -> &'a [u8] {
        key_of(&self.record.bytes)
    }

    pub(super) const fn is_delete(&self) -> bool {
        self.record.tombstone
    }

    /// The encoded event; `prev_kv` is the key's value at the revision before, also for the second of two
    /// changes of one revision.
    pub(super) fn encoded(
        &mut self,
        prev_kv: bool,
        history: &dyn History,
    ) -> Result<Bytes, RecordsError> {
        if prev_kv && !is_create(self.record) {
            if self.with_prev.is_none() {
                let prev = history.kv_at(self.key(), self.revision.main - 1)?;
                let prev = prev.map(|prev| encode(self.revision, self.record, Some(&prev)));
                self.with_prev = prev.or_else(|| Some(self.bare()));
            }
            return Ok(self.with_prev.clone().expect("set above"));
        }
        Ok(self.bare())
    }

    fn bare(&mut self) -> Bytes {
        let (revision, record) = (self.revision, self.record);
        self.bare.get_or_insert_with(|| encode(revision, record, None)).clone()
    }
}

/// The key of an encoded `mvccpb.KeyValue`: its first field.
pub(super) fn key_of(record: &[u8]) -> &[u8] {
    let mut rest = record;
    let key = (take_byte(&mut rest) == Some(KV_KEY)).then(|| take_varint(&mut rest)).flatten();
    key.and_then(|len| rest.get(..usize::try_from(len).ok()?))
        .expect("a record begins with its key")
}

/// The put made its key: create and mod revision are the same.
fn is_create(record: &Record) -> bool {
    if record.tombstone {
        return false;
    }
    let mut rest = &record.bytes[record_key_end(&record.bytes)..];
    let mut create = 0;
    while let Some(tag) = take_byte(&mut rest) {
        match tag {
            KV_CREATE_REVISION => create = take_varint(&mut rest).unwrap_or(0),
            KV_MOD_REVISION => return take_varint(&mut rest) == Some(create),
            _ => break,
        }
    }
    false
}

fn record_key_end(record: &[u8]) -> usize {
    let key = key_of(record);
    1 + varint_len(key.len()) + key.len()
}

fn encode(revision: Revision, record: &Record, prev: Option<&[u8]>) -> Bytes {
    let mut out = BytesMut::with_capacity(encoded_len(record, prev));
    if record.tombstone {
        out.put_slice(&[EVENT_TYPE, DELETE]);
        let mut kv = BytesMut::from(&record.bytes[..record_key_end(&record.bytes)]);
        kv.put_u8(KV_MOD_REVISION);
        put_varint(&mut kv, revision.main as u64);
        put_message(&mut out, EVENT_KV, &kv);
    } else {
        put_message(&mut out, EVENT_KV, &record.bytes);
    }
    if let Some(prev) = prev {
        put_message(&mut out, EVENT_PREV_KV, prev);
    }
    out.freeze()
}

/// An upper bound, close enough not to waste memory.
fn encoded_len(record: &Record, prev: Option<&[u8]>) -> usize {
    let mod_revision = if record.tombstone { 2 + 11 } else { 0 };
    let kv = record.bytes.len() + mod_revision;
    let prev = prev.map_or(0, |prev| 1 + varint_len(prev.len()) + prev.len());
    1 + varint_len(kv) + kv + prev
}

fn put_message(out: &mut BytesMut, tag: u8, body: &[u8]) {
    out.put_u8(tag);
    put_varint(out, body.len() as u64);
    out.put_slice(body);
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// How many bytes a length takes as a varint.
pub(super) const fn varint_len(value: usize) -> usize {
    let bits = usize::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    Some(*first)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(rest)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
