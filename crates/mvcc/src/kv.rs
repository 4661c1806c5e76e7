//! The encoded `mvccpb.KeyValue`: written once when a key is put, read by hand where a field is needed.
//!
//! Go's encoder, whose bytes HashKV runs over, writes the fields in the order of their numbers and leaves
//! out those that are zero or empty.

use bytes::{BufMut, Bytes, BytesMut};

use crate::record::{Record, RecordsError, Revision};

const KEY: u8 = 1 << 3 | 2;
const CREATE_REVISION: u8 = 2 << 3;
const MOD_REVISION: u8 = 3 << 3;
const VERSION: u8 = 4 << 3;
const VALUE: u8 = 5 << 3 | 2;
const LEASE: u8 = 6 << 3;

/// The fields of a record, borrowed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Kv<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) create_revision: i64,
    pub(crate) mod_revision: i64,
    pub(crate) version: i64,
    pub(crate) value: &'a [u8],
    pub(crate) lease: i64,
}

impl<'a> Kv<'a> {
    /// None when the bytes are not what [`Kv::encode`] or etcd makes.
    pub(crate) fn decode(mut rest: &'a [u8]) -> Option<Self> {
        let mut kv = Self::default();
        while let Some((&tag, tail)) = rest.split_first() {
            rest = tail;
            let number = take_varint(&mut rest)?;
            match tag {
                KEY => kv.key = take(&mut rest, number)?,
                CREATE_REVISION => kv.create_revision = number as i64,
                MOD_REVISION => kv.mod_revision = number as i64,
                VERSION => kv.version = number as i64,
                VALUE => kv.value = take(&mut rest, number)?,
                LEASE => kv.lease = number as i64,
                _ => return None,
            }
        }
        Some(kv)
    }

    /// The fields of a record that the store itself keeps.
    ///
    /// # Errors
    /// When storage gave back bytes that are no `KeyValue`.
    pub(crate) fn of(revision: Revision, record: &'a [u8]) -> Result<Self, RecordsError> {
        Self::decode(record).ok_or_else(|| {
            let Revision { main, sub } = revision;
            RecordsError(format!("record {main}/{sub} is not an encoded mvccpb.KeyValue"))
        })
    }

    pub(crate) fn encoded_len(&self) -> usize {
        bytes_len(self.key)
            + number_len(self.create_revision)
            + number_len(self.mod_revision)
            + number_len(self.version)
            + bytes_len(self.value)
            + number_len(self.lease)
    }

    pub(crate) fn encode_into(&self, out: &mut BytesMut) {
        put_bytes(out, KEY, self.key);
        put_number(out, CREATE_REVISION, self.create_revision);
        put_number(out, MOD_REVISION, self.mod_revision);
        put_number(out, VERSION, self.version);
        put_bytes(out, VALUE, self.value);
        put_number(out, LEASE, self.lease);
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.encode_into(&mut out);
        out.freeze()
    }
}

/// Bytes of value and lease in a record, which the index keeps of each put.
pub(crate) fn tail_len(value: &[u8], lease: i64) -> u32 {
    narrow(bytes_len(value) + number_len(lease))
}

/// The same of a record that is there.
pub(crate) fn tail_of(record_len: usize, kv: &Kv<'_>) -> u32 {
    narrow(record_len.saturating_sub(Kv { value: &[], lease: 0, ..*kv }.encoded_len()))
}

fn narrow(len: usize) -> u32 {
    u32::try_from(len).expect("a record is far below 4 GiB")
}

/// The record of a deletion: only the key.
pub(crate) fn tombstone(key: &[u8]) -> Record {
    Record { tombstone: true, bytes: Kv { key, ..Kv::default() }.encode() }
}

pub(crate) fn varint_len(value: u64) -> usize {
    let bits = u64::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn bytes_len(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { 1 + varint_len(bytes.len() as u64) + bytes.len() }
}

fn number_len(number: i64) -> usize {
    if number == 0 { 0 } else { 1 + varint_len(number as u64) }
}

fn put_bytes(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.put_u8(tag);
        put_varint(out, bytes.len() as u64);
        out.put_slice(bytes);
    }
}

fn put_number(out: &mut BytesMut, tag: u8, number: i64) {
    if number != 0 {
        out.put_u8(tag);
        put_varint(out, number as u64);
    }
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (nth, &byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * nth);
        if byte < 0x80 {
            *rest = &rest[nth + 1..];
            return Some(value);
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (taken, tail) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = tail;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etched_proto::mvccpb::KeyValue;
    use prost::Message;

    fn check(kv: Kv<'_>) {
        let message = KeyValue {
            key: Bytes::copy_from_slice(kv.key),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            value: Bytes::copy_from_slice(kv.value),
            lease: kv.lease,
        };
        assert_eq!(kv.encode(), Bytes::from(message.encode_to_vec()));
        assert_eq!(kv.encode().len(), kv.encoded_len());
        assert_eq!(Kv::decode(&kv.encode()), Some(kv));
    }

    #[test]
    fn record_is_encoded_as_the_generated_message() {
        check(Kv::default());
        check(Kv { key: b"a", ..Kv::default() });
        let long = [7; 300];
        let (create_revision, mod_revision, version) = (127, 128, i64::MAX);
        for lease in [0, 1, -1, i64::MIN] {
            check(Kv { key: &long, create_revision, mod_revision, version, value: b"v", lease });
        }
    }

    #[test]
    fn bytes_that_are_no_record_are_told_apart() {
        for bytes in [&[0xff][..], &[KEY, 5, 1], &[0x38, 1], &[VERSION, 0x80]] {
            assert_eq!(Kv::decode(bytes), None, "{bytes:?}");
        }
    }
}
