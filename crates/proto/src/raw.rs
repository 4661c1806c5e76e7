//! Answers whose records are already encoded.
//!
//! ```text
//! stored record (encoded mvccpb.KeyValue) ──> Vec<Bytes> in a reply ──> one buffer on the wire
//! ```
//! A record is encoded once, when it is written; range answers, `prev_kv` and watch events carry those
//! same bytes as the body of a sub-message. What a reply here encodes to is, byte for byte, what the
//! generated message of the same name would encode to: the tests hold that.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::etcdserverpb::{ResponseHeader, WatchResponse};

/// A message that can be written to the wire.
///
/// Every generated (prost) message is one; so are the replies of this module.
pub trait Wire {
    /// Length of the encoded body in bytes.
    fn wire_len(&self) -> usize;
    /// Appends the encoded body; exactly [`Wire::wire_len`] bytes.
    fn write(&self, out: &mut BytesMut);
}

impl<M: prost::Message> Wire for M {
    fn wire_len(&self) -> usize {
        self.encoded_len()
    }

    fn write(&self, out: &mut BytesMut) {
        self.encode_raw(out);
    }
}

/// `etcdserverpb.RangeResponse`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RangeReply {
    /// Field 1; the server fills it in.
    pub header: Option<ResponseHeader>,
    /// Field 2: each one an encoded `mvccpb.KeyValue`.
    pub kvs: Vec<Bytes>,
    /// Field 3: the limit cut the result.
    pub more: bool,
    /// Field 4: keys in the range, whatever the limit.
    pub count: i64,
}

/// `etcdserverpb.PutResponse`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PutReply {
    /// Field 1; the server fills it in.
    pub header: Option<ResponseHeader>,
    /// Field 2: an encoded `mvccpb.KeyValue`.
    pub prev_kv: Option<Bytes>,
}

/// `etcdserverpb.DeleteRangeResponse`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeleteRangeReply {
    /// Field 1; the server fills it in.
    pub header: Option<ResponseHeader>,
    /// Field 2: how many keys are gone.
    pub deleted: i64,
    /// Field 3: each one an encoded `mvccpb.KeyValue`.
    pub prev_kvs: Vec<Bytes>,
}

/// `etcdserverpb.TxnResponse`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TxnReply {
    /// Field 1; the server fills it in.
    pub header: Option<ResponseHeader>,
    /// Field 2: all compares held.
    pub succeeded: bool,
    /// Field 3: one answer for each operation of the branch taken.
    pub responses: Vec<OpReply>,
}

/// `etcdserverpb.ResponseOp`.
#[derive(Debug, Clone, PartialEq)]
pub enum OpReply {
    /// Field 1.
    Range(RangeReply),
    /// Field 2.
    Put(PutReply),
    /// Field 3.
    DeleteRange(DeleteRangeReply),
    /// Field 4.
    Txn(TxnReply),
}

/// `etcdserverpb.WatchResponse` whose events are encoded `mvccpb.Event`s.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WatchReply {
    /// Every field but the events.
    pub head: WatchResponse,
    /// Field 11: each one an encoded `mvccpb.Event`.
    pub events: Vec<Bytes>,
}

impl Wire for RangeReply {
    fn wire_len(&self) -> usize {
        header_len(&self.header)
            + repeated_len(2, &self.kvs)
            + bool_len(3, self.more)
            + int_len(4, self.count)
    }

    fn write(&self, out: &mut BytesMut) {
        write_header(&self.header, out);
        write_repeated(2, &self.kvs, out);
        write_bool(3, self.more, out);
        write_int(4, self.count, out);
    }
}

impl Wire for PutReply {
    fn wire_len(&self) -> usize {
        header_len(&self.header) + repeated_len(2, self.prev_kv.as_slice())
    }

    fn write(&self, out: &mut BytesMut) {
        write_header(&self.header, out);
        write_repeated(2, self.prev_kv.as_slice(), out);
    }
}

impl Wire for DeleteRangeReply {
    fn wire_len(&self) -> usize {
        header_len(&self.header) + int_len(2, self.deleted) + repeated_len(3, &self.prev_kvs)
    }

    fn write(&self, out: &mut BytesMut) {
        write_header(&self.header, out);
        write_int(2, self.deleted, out);
        write_repeated(3, &self.prev_kvs, out);
    }
}

impl Wire for TxnReply {
    fn wire_len(&self) -> usize {
        let responses: usize = self.responses.iter().map(|op| message_len(3, op.wire_len())).sum();
        header_len(&self.header) + bool_len(2, self.succeeded) + responses
    }

    fn write(&self, out: &mut BytesMut) {
        write_header(&self.header, out);
        write_bool(2, self.succeeded, out);
        for op in &self.responses {
            write_message(3, op, out);
        }
    }
}

impl OpReply {
    fn field(&self) -> (u32, &dyn Wire) {
        match self {
            Self::Range(reply) => (1, reply),
            Self::Put(reply) => (2, reply),
            Self::DeleteRange(reply) => (3, reply),
            Self::Txn(reply) => (4, reply),
        }
    }
}

impl Wire for OpReply {
    fn wire_len(&self) -> usize {
        let (tag, reply) = self.field();
        message_len(tag, reply.wire_len())
    }

    fn write(&self, out: &mut BytesMut) {
        let (tag, reply) = self.field();
        write_message(tag, reply, out);
    }
}

impl Wire for WatchReply {
    fn wire_len(&self) -> usize {
        self.head.wire_len() + repeated_len(11, &self.events)
    }

    fn write(&self, out: &mut BytesMut) {
        self.head.write(out);
        write_repeated(11, &self.events, out);
    }
}

/// Length of a length-delimited field with a body of `body` bytes.
fn message_len(tag: u32, body: usize) -> usize {
    key_len(tag) + encoded_len_varint(body as u64) + body
}

fn write_message(tag: u32, message: &(impl Wire + ?Sized), out: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(message.wire_len() as u64, out);
    message.write(out);
}

fn header_len(header: &Option<ResponseHeader>) -> usize {
    header.as_ref().map_or(0, |header| message_len(1, header.wire_len()))
}

fn write_header(header: &Option<ResponseHeader>, out: &mut BytesMut) {
    if let Some(header) = header {
        write_message(1, header, out);
    }
}

fn repeated_len(tag: u32, bodies: &[Bytes]) -> usize {
    bodies.iter().map(|body| message_len(tag, body.len())).sum()
}

fn write_repeated(tag: u32, bodies: &[Bytes], out: &mut BytesMut) {
    for body in bodies {
        encode_key(tag, WireType::LengthDelimited, out);
        encode_varint(body.len() as u64, out);
        out.put_slice(body);
    }
}

fn bool_len(tag: u32, value: bool) -> usize {
    if value { key_len(tag) + 1 } else { 0 }
}

fn write_bool(tag: u32, value: bool, out: &mut BytesMut) {
    if value {
        encode_key(tag, WireType::Varint, out);
        out.put_u8(1);
    }
}

fn int_len(tag: u32, value: i64) -> usize {
    if value == 0 { 0 } else { key_len(tag) + encoded_len_varint(value as u64) }
}

fn write_int(tag: u32, value: i64, out: &mut BytesMut) {
    if value != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(value as u64, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcdserverpb::{
        DeleteRangeResponse, PutResponse, RangeResponse, ResponseOp, TxnResponse, response_op,
    };
    use crate::mvccpb::{Event, KeyValue};
    use prost::Message;

    fn header() -> Option<ResponseHeader> {
        Some(ResponseHeader { cluster_id: 7, member_id: u64::MAX, revision: 300, raft_term: 2 })
    }

    fn kv(key: &str) -> KeyValue {
        KeyValue {
            key: key.to_owned().into(),
            create_revision: 2,
            mod_revision: 300,
            version: 3,
            value: vec![1; 200].into(),
            lease: -1,
        }
    }

    fn encoded(message: &impl Message) -> Bytes {
        message.encode_to_vec().into()
    }

    fn check(raw: &impl Wire, generated: &impl Message) {
        let mut out = BytesMut::new();
        raw.write(&mut out);
        assert_eq!(out.len(), raw.wire_len());
        assert_eq!(out.freeze(), encoded(generated));
    }

    #[test]
    fn replies_encode_to_the_bytes_of_the_generated_messages() {
        let kvs = vec![kv("a"), kv("b")];
        let raw_kvs: Vec<Bytes> = kvs.iter().map(encoded).collect();
        let range = RangeResponse { header: header(), kvs: kvs.clone(), more: true, count: 9 };
        let raw_range = RangeReply { header: header(), kvs: raw_kvs.clone(), more: true, count: 9 };
        check(&raw_range, &range);
        let put = PutResponse { header: None, prev_kv: Some(kv("a")) };
        let raw_put = PutReply { header: None, prev_kv: Some(raw_kvs[0].clone()) };
        check(&raw_put, &put);
        let delete = DeleteRangeResponse { header: header(), deleted: 2, prev_kvs: kvs };
        let raw_delete = DeleteRangeReply { header: header(), deleted: 2, prev_kvs: raw_kvs };
        check(&raw_delete, &delete);
        let op = |response| ResponseOp { response: Some(response) };
        let txn = TxnResponse {
            header: header(),
            succeeded: true,
            responses: vec![
                op(response_op::Response::ResponseRange(range)),
                op(response_op::Response::ResponsePut(put)),
                op(response_op::Response::ResponseDeleteRange(delete)),
                op(response_op::Response::ResponseTxn(TxnResponse::default())),
            ],
        };
        let raw_txn = TxnReply {
            header: header(),
            succeeded: true,
            responses: vec![
                OpReply::Range(raw_range),
                OpReply::Put(raw_put),
                OpReply::DeleteRange(raw_delete),
                OpReply::Txn(TxnReply::default()),
            ],
        };
        check(&raw_txn, &txn);
    }

    #[test]
    fn watch_reply_encodes_to_the_bytes_of_the_generated_message() {
        let event = Event { r#type: 1, kv: Some(kv("a")), prev_kv: Some(kv("b")) };
        let head = WatchResponse {
            header: header(),
            watch_id: -1,
            created: true,
            canceled: true,
            compact_revision: 5,
            cancel_reason: "reason".to_owned(),
            fragment: true,
            events: vec![],
        };
        let raw = WatchReply { head: head.clone(), events: vec![encoded(&event)] };
        check(&raw, &WatchResponse { events: vec![event], ..head });
    }
}
