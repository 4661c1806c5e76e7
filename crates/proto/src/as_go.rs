//! Messages that Go's decoder takes and prost does not.
//!
//! etcd's members decode with Go's protobuf library. That one passes over a field of another wire type than its own, as
//! over one that it does not know; prost refuses the message. An entry of the log that one member applies and another
//! one cannot decode would part them, so Go's rules count: what prost has refused is looked through here by these, and
//! what Go passes over is overwritten with an unknown field of the same length. No length around it changes, and prost
//! reads then what Go reads.
//!
//! Two more things are overwritten that prost refuses where nobody knows them: groups inside each other, and field
//! numbers in them that are none. What remains is how deep messages nest, which is for [`crate::txn`].
//!
//! This is for what prost refuses only: whatever prost takes, Go takes too, and reads the same in it.

use std::fmt;

use bytes::Bytes;

use crate::schema::{Field, Kind, MessageId, Schema};

/// Messages inside each other that Go decodes; the outermost counts.
const MESSAGES_MAX: usize = 10_000;
/// Groups inside each other that Go passes over.
const GROUPS_MAX: usize = MESSAGES_MAX + 1;
/// Largest number of a field.
const NUMBER_MAX: u64 = (1 << 29) - 1;
/// The same inside a group that is passed over.
const NUMBER_IN_GROUP_MAX: u64 = i32::MAX as u64;

const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const GROUP_START: u64 = 3;
const GROUP_END: u64 = 4;
const FOUR_BYTES: u64 = 5;

/// What Go's decoder refuses too. The texts are Go's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// No protobuf.
    Wire,
    /// A string that is not UTF-8.
    Text,
    /// Messages inside each other, too many.
    Depth,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wire => "proto: cannot parse invalid wire-format data",
            Self::Text => "string field contains invalid UTF-8",
            Self::Depth => "proto: exceeded maximum recursion depth",
        })
    }
}

impl std::error::Error for Malformed {}

/// The message `message` in `bytes`, as long as it was, so that prost reads in it what Go does. Does not recurse.
///
/// # Errors
/// What Go refuses; the first that it meets.
pub fn rewrite(message: MessageId, bytes: &[u8]) -> Result<Bytes, Malformed> {
    let schema = Schema::get();
    let mut out = bytes.to_vec();
    let mut open = vec![(bytes.len(), message)];
    let mut at = 0;
    while let Some(&(end, message)) = open.last() {
        if at == end {
            open.pop();
            continue;
        }
        let body = &bytes[..end];
        let (key, value) = varint(body, at)?;
        let (number, wire) = (number(key, NUMBER_MAX)?, key & 7);
        let known = schema.message(message).fields.iter().find(|field| field.number == number);
        match known.map(|field| (field.kind, wire)) {
            Some((Kind::Message(inner), LENGTH_DELIMITED)) => {
                let (start, stop) = delimited(body, value)?;
                if open.len() == MESSAGES_MAX {
                    return Err(Malformed::Depth);
                }
                open.push((stop, inner));
                at = start;
                continue;
            }
            Some((Kind::String, LENGTH_DELIMITED)) => {
                let (start, stop) = delimited(body, value)?;
                std::str::from_utf8(&body[start..stop]).map_err(|_| Malformed::Text)?;
                at = stop;
                continue;
            }
            _ => {}
        }
        let stop = behind(body, value, u64::from(number), wire)?;
        match known {
            Some(field) if takes(field, wire) => packed(field, &body[value..stop], wire)?,
            None if wire != GROUP_START => {}
            _ => hide(&mut out[at..stop]),
        }
        at = stop;
    }
    Ok(out.into())
}

/// Whether `wire` is how the field is written, of its kinds that are no text and no message.
fn takes(field: &Field, wire: u64) -> bool {
    match field.kind {
        Kind::Bytes => wire == LENGTH_DELIMITED,
        Kind::String | Kind::Message(_) => false,
        _ => wire == VARINT || (wire == LENGTH_DELIMITED && field.repeated),
    }
}

/// Looks at numbers that stand behind one length.
fn packed(field: &Field, value: &[u8], wire: u64) -> Result<(), Malformed> {
    if field.kind == Kind::Bytes || wire != LENGTH_DELIMITED {
        return Ok(());
    }
    let (mut at, end) = delimited(value, 0)?;
    while at < end {
        at = varint(&value[..end], at)?.1;
    }
    Ok(())
}

/// Makes it numbers in field 15, which no message that is asked for has. A field takes two bytes at least.
fn hide(field: &mut [u8]) {
    const KEY: u8 = 15 << 3;
    let odd = field.len() % 2;
    for pair in field.chunks_exact_mut(2) {
        pair.copy_from_slice(&[KEY, 0]);
    }
    if odd == 1 {
        // The last of them in three bytes: a zero may be written longer than it is.
        let last = field.len() - 3;
        field[last..].copy_from_slice(&[KEY, 0x80, 0]);
    }
}

/// The place behind a value of any type.
fn behind(body: &[u8], at: usize, number_of_it: u64, wire: u64) -> Result<usize, Malformed> {
    let mut groups = Vec::new();
    let (mut at, mut number_now, mut wire) = (at, number_of_it, wire);
    loop {
        match wire {
            GROUP_START if groups.len() == GROUPS_MAX => return Err(Malformed::Wire),
            GROUP_START => groups.push(number_now),
            GROUP_END if groups.pop() == Some(number_now) => {}
            _ => at = behind_one(body, at, wire)?,
        }
        if groups.is_empty() {
            return Ok(at);
        }
        let (key, next) = varint(body, at)?;
        number_now = u64::from(number(key, NUMBER_IN_GROUP_MAX)?);
        (at, wire) = (next, key & 7);
    }
}

fn behind_one(body: &[u8], at: usize, wire: u64) -> Result<usize, Malformed> {
    let end = match wire {
        VARINT => varint(body, at)?.1,
        EIGHT_BYTES => at + 8,
        LENGTH_DELIMITED => delimited(body, at)?.1,
        FOUR_BYTES => at + 4,
        _ => return Err(Malformed::Wire),
    };
    if end > body.len() { Err(Malformed::Wire) } else { Ok(end) }
}

fn number(key: u64, most: u64) -> Result<u32, Malformed> {
    let number = key >> 3;
    if number == 0 || number > most { Err(Malformed::Wire) } else { Ok(number as u32) }
}

/// Where what stands behind a length begins and ends.
fn delimited(body: &[u8], at: usize) -> Result<(usize, usize), Malformed> {
    let (length, start) = varint(body, at)?;
    if length > (body.len() - start) as u64 {
        return Err(Malformed::Wire);
    }
    Ok((start, start + length as usize))
}

fn varint(body: &[u8], at: usize) -> Result<(u64, usize), Malformed> {
    let mut value = 0;
    for (place, byte) in body[at..].iter().take(10).enumerate() {
        if place == 9 && *byte > 1 {
            return Err(Malformed::Wire);
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok((value, at + place + 1));
        }
    }
    Err(Malformed::Wire)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcdserverpb as pb;
    use prost::Message as _;

    fn id(name: &str) -> MessageId {
        Schema::get().find(name).expect("it is in the schema")
    }

    fn put(bytes: &[u8]) -> Result<pb::PutRequest, Malformed> {
        let read = rewrite(id("etcdserverpb.PutRequest"), bytes)?;
        assert_eq!(read.len(), bytes.len());
        Ok(pb::PutRequest::decode(read).expect("prost takes what was rewritten"))
    }

    fn key(key: &'static str) -> pb::PutRequest {
        pb::PutRequest { key: key.into(), ..Default::default() }
    }

    #[test]
    fn a_field_of_another_wire_type_is_passed_over() {
        for foreign in [
            &b"\x08\x01"[..],
            b"\x08\x81\x01",
            b"\x0d1234",
            b"\x0912345678",
            b"\x1a\x00",
            b"\x1a\x03abc",
            b"\x22\x01x",
            b"\x0b\x0c",
            b"\x0b\x0a\x01z\x08\x01\x0c",
        ] {
            assert!(pb::PutRequest::decode(foreign).is_err(), "prost takes {foreign:?}");
            assert_eq!(put(&[foreign, b"\x0a\x01k"].concat()), Ok(key("k")), "{foreign:?}");
            assert_eq!(put(&[b"\x0a\x01k", foreign].concat()), Ok(key("k")), "{foreign:?}");
        }
    }

    #[test]
    fn groups_that_nobody_knows_are_passed_over_however_deep() {
        let deep =
            |levels| [vec![0x7b; levels], vec![0x7c; levels], b"\x0a\x01k".to_vec()].concat();
        assert_eq!(put(&deep(101)), Ok(key("k")));
        assert_eq!(put(&deep(GROUPS_MAX)), Ok(key("k")));
        assert_eq!(put(&deep(GROUPS_MAX + 1)), Err(Malformed::Wire));
        let large_number = b"\x7b\xf8\xff\xff\xff\x3f\x01\x7c\x0a\x01k";
        assert!(pb::PutRequest::decode(&large_number[..]).is_err());
        assert_eq!(put(large_number), Ok(key("k")));
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for bytes in [
            &b"\x0a\x05a"[..],
            b"\x0b",
            b"\x0b\x14",
            b"\x0c",
            b"\x0e",
            b"\x02\x00",
            b"\x0d123",
            b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x18\xff",
            b"\x80\x80\x80\x80\x80\x01\x00",
            b"\x0b\xf8\xff\xff\xff\x7f\x01\x0c",
        ] {
            assert_eq!(put(bytes), Err(Malformed::Wire), "{bytes:?}");
        }
        let user = |bytes| rewrite(id("etcdserverpb.AuthUserAddRequest"), bytes);
        assert_eq!(user(b"\x0a\x01\xff\xff"), Err(Malformed::Text));
        assert_eq!(user(b"\x0a\x05a\xff"), Err(Malformed::Wire));
    }

    #[test]
    fn messages_nest_as_deep_as_go_takes_them() {
        let nested = |levels: usize| {
            (1..levels).fold(Vec::new(), |body: Vec<u8>, level| {
                let tag = if (levels - level) % 2 == 1 { 0x12 } else { 0x22 };
                let mut outer = vec![tag];
                prost::encoding::encode_varint(body.len() as u64, &mut outer);
                [outer, body].concat()
            })
        };
        let txn = |levels| rewrite(id("etcdserverpb.TxnRequest"), &nested(levels)).map(drop);
        assert_eq!(txn(MESSAGES_MAX), Ok(()));
        assert_eq!(txn(MESSAGES_MAX + 1), Err(Malformed::Depth));
    }

    #[test]
    fn a_list_of_numbers_stands_behind_one_length_or_one_by_one_but_in_no_other_way() {
        let watch = |bytes: &[u8]| {
            let read = rewrite(id("etcdserverpb.WatchCreateRequest"), bytes)?;
            Ok(pb::WatchCreateRequest::decode(read).expect("prost takes it").filters)
        };
        assert_eq!(watch(b"\x2a\x02\x00\x01\x28\x01\x2d1234"), Ok(vec![0, 1, 1]));
        assert_eq!(watch(b"\x2a\x02\x00\xff"), Err(Malformed::Wire));
    }

    #[test]
    fn no_message_that_is_asked_for_has_the_field_that_hides_others() {
        let schema = Schema::get();
        let asked = schema.methods().map(|path| schema.method(path).expect("it is listed").input);
        let mut open: Vec<MessageId> = asked.collect();
        open.extend(["etcdserverpb.InternalRaftRequest", "raftpb.ConfChange"].map(id));
        let mut seen = std::collections::HashSet::new();
        while let Some(message) = open.pop() {
            if !seen.insert(schema.message(message).name.as_str()) {
                continue;
            }
            for field in &schema.message(message).fields {
                assert_ne!(field.number, 15, "{}", schema.message(message).name);
                if let Kind::Message(inner) = field.kind {
                    open.push(inner);
                }
            }
        }
    }
}
