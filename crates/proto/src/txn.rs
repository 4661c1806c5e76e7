//! Decoding transactions that are nested deeper than prost goes.
//!
//! prost stops at 100 messages inside each other, fifty nested transactions; etcd takes as many as
//! `--max-txn-ops` allows, up to Go's own limit of 10,000 messages. So the nesting is walked here, and prost decodes only
//! what holds no transaction. The walk, and everybody who handles the result, recurses: [`decode`] refuses what is
//! deeper than [`DEPTH_MAX`] before it walks, [`decode_any`] leaves it to its caller to have room.

use bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};

use crate::etcdserverpb::request_op::Request;
use crate::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// Most transactions inside each other that any thread has room for; the outermost counts.
pub const DEPTH_MAX: usize = 256;

const COMPARE: u32 = 1;
const SUCCESS: u32 = 2;
const FAILURE: u32 = 3;
const REQUEST_RANGE: u32 = 1;
const REQUEST_PUT: u32 = 2;
const REQUEST_DELETE: u32 = 3;
const REQUEST_TXN: u32 = 4;

/// Decodes a transaction that is nested at most [`DEPTH_MAX`] deep.
///
/// # Errors
/// The bytes are no `TxnRequest`, or one that is nested deeper.
pub fn decode(body: Bytes) -> Result<TxnRequest, DecodeError> {
    if depth(&body) > DEPTH_MAX { Err(malformed()) } else { decode_any(body) }
}

/// Decodes a transaction however deep it is nested: for one that is in the log, on a thread that has room for what
/// recurses.
///
/// # Errors
/// The bytes are no `TxnRequest`.
pub fn decode_any(mut body: Bytes) -> Result<TxnRequest, DecodeError> {
    let mut txn = TxnRequest::default();
    merge(&mut txn, &mut body)?;
    Ok(txn)
}

fn merge(txn: &mut TxnRequest, body: &mut Bytes) -> Result<(), DecodeError> {
    while body.has_remaining() {
        let (tag, wire) = decode_key(body)?;
        match (tag, wire) {
            (COMPARE, WireType::LengthDelimited) => {
                txn.compare.push(Compare::decode(take(body)?)?);
            }
            (SUCCESS, WireType::LengthDelimited) => txn.success.push(decode_op(take(body)?)?),
            (FAILURE, WireType::LengthDelimited) => txn.failure.push(decode_op(take(body)?)?),
            (COMPARE..=FAILURE, _) => return Err(malformed()),
            _ => skip_field(wire, tag, body, DecodeContext::default())?,
        }
    }
    Ok(())
}

/// Later fields of the oneof replace earlier ones; of one kind they are merged, as protobuf has it. What is replaced
/// has to be well formed all the same.
fn decode_op(mut body: Bytes) -> Result<RequestOp, DecodeError> {
    let mut op = RequestOp::default();
    while body.has_remaining() {
        let (tag, wire) = decode_key(&mut body)?;
        match (tag, wire) {
            (REQUEST_RANGE..=REQUEST_TXN, WireType::LengthDelimited) => {
                let mut part = take(&mut body)?;
                match (&mut op.request, tag) {
                    (Some(Request::RequestRange(range)), REQUEST_RANGE) => range.merge(part)?,
                    (Some(Request::RequestPut(put)), REQUEST_PUT) => put.merge(part)?,
                    (Some(Request::RequestDeleteRange(delete)), REQUEST_DELETE) => {
                        delete.merge(part)?;
                    }
                    (Some(Request::RequestTxn(txn)), REQUEST_TXN) => merge(txn, &mut part)?,
                    _ => op.request = Some(decode_request(tag, part)?),
                }
            }
            (REQUEST_RANGE..=REQUEST_TXN, _) => return Err(malformed()),
            _ => skip_field(wire, tag, &mut body, DecodeContext::default())?,
        }
    }
    Ok(op)
}

fn decode_request(tag: u32, part: Bytes) -> Result<Request, DecodeError> {
    Ok(match tag {
        REQUEST_RANGE => Request::RequestRange(RangeRequest::decode(part)?),
        REQUEST_PUT => Request::RequestPut(PutRequest::decode(part)?),
        REQUEST_DELETE => Request::RequestDeleteRange(DeleteRangeRequest::decode(part)?),
        _ => Request::RequestTxn(decode_any(part)?),
    })
}

fn take(body: &mut Bytes) -> Result<Bytes, DecodeError> {
    let length = decode_varint(body)?;
    if length > body.len() as u64 {
        return Err(malformed());
    }
    Ok(body.split_to(length as usize))
}

/// prost makes its errors itself: this is the one of a varint that is not there.
fn malformed() -> DecodeError {
    decode_varint(&mut Bytes::new()).expect_err("nothing holds no varint")
}

#[derive(Clone, Copy)]
enum Kind {
    Txn,
    Op,
}

/// Transactions inside each other, the outermost counted, as far as the bytes can be read. Does not recurse.
pub fn depth(body: &[u8]) -> usize {
    let (mut at, mut deepest) = (0, 1);
    let mut open = vec![(body.len(), Kind::Txn)];
    while let Some(&(end, kind)) = open.last() {
        if at >= end {
            open.pop();
            continue;
        }
        let Some(field) = next_field(&body[..end], at) else { break };
        let inner = match (kind, field.tag) {
            (Kind::Txn, 2 | 3) => Some(Kind::Op),
            (Kind::Op, 4) => Some(Kind::Txn),
            _ => None,
        };
        match inner.filter(|_| field.has_body) {
            Some(inner) => {
                open.push((field.end, inner));
                at = field.start;
                // The kinds alternate, and the outermost is a transaction.
                deepest = deepest.max(open.len().div_ceil(2));
            }
            None => at = field.end,
        }
    }
    deepest
}

struct Field {
    tag: u64,
    has_body: bool,
    start: usize,
    end: usize,
}

fn next_field(body: &[u8], at: usize) -> Option<Field> {
    let (key, start) = varint(body, at)?;
    let (start, length) = match key & 7 {
        0 => (start, varint(body, start)?.1 - start),
        1 => (start, 8),
        2 => {
            let (length, start) = varint(body, start)?;
            (start, usize::try_from(length).ok()?)
        }
        5 => (start, 4),
        _ => return None,
    };
    let end = start.checked_add(length).filter(|end| *end <= body.len())?;
    Some(Field { tag: key >> 3, has_body: key & 7 == 2, start, end })
}

fn varint(body: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for (place, byte) in body.get(at..)?.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, at + place + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{BufMut, BytesMut};
    use prost::encoding::{encode_key, encode_varint};

    fn wrap(tag: u32, body: &[u8]) -> Vec<u8> {
        let mut outer = BytesMut::new();
        encode_key(tag, WireType::LengthDelimited, &mut outer);
        encode_varint(body.len() as u64, &mut outer);
        outer.put_slice(body);
        outer.to_vec()
    }

    /// `depth` transactions inside each other, made from the inside out.
    fn nested(depth: usize) -> Vec<u8> {
        (1..depth).fold(Vec::new(), |body, _| wrap(SUCCESS, &wrap(REQUEST_TXN, &body)))
    }

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    #[test]
    fn what_prost_can_decode_is_decoded_the_same() {
        let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        let range = RangeRequest { key: "k".into(), ..Default::default() };
        let inner = TxnRequest {
            compare: vec![Compare { key: "c".into(), ..Default::default() }],
            success: vec![op(Request::RequestPut(put.clone())), RequestOp::default()],
            failure: vec![op(Request::RequestRange(range))],
        };
        let outer = TxnRequest {
            compare: inner.compare.clone(),
            success: vec![op(Request::RequestTxn(inner.clone())), op(Request::RequestPut(put))],
            failure: vec![op(Request::RequestTxn(inner))],
        };
        let bytes = Bytes::from(outer.encode_to_vec());
        assert_eq!(decode(bytes), Ok(outer));
    }

    #[test]
    fn fields_of_a_oneof_that_come_twice_are_merged_or_replaced_as_prost_does() {
        let put = wrap(2, &wrap(1, b"k"));
        let txn = |key: &[u8]| wrap(REQUEST_TXN, &wrap(COMPARE, &wrap(3, key)));
        for op in [
            [txn(b"a"), txn(b"b")].concat(),
            [put.clone(), txn(b"a")].concat(),
            [txn(b"a"), put.clone()].concat(),
            [txn(b"a"), put, txn(b"b")].concat(),
        ] {
            let bytes = Bytes::from(wrap(SUCCESS, &op));
            assert_eq!(decode(bytes.clone()), TxnRequest::decode(bytes));
        }
    }

    #[test]
    fn what_prost_refuses_is_refused_also_where_it_is_replaced_or_of_another_wire_type() {
        let txn = wrap(REQUEST_TXN, &[]);
        for op in [
            [wrap(REQUEST_PUT, b"\xff"), txn.clone()].concat(),
            [txn.clone(), wrap(REQUEST_RANGE, b"\x0a\x05"), txn].concat(),
            b"\x20\x01".to_vec(),
            b"\x10\x01".to_vec(),
        ] {
            let bytes = Bytes::from(wrap(FAILURE, &op));
            assert!(decode(bytes.clone()).is_err() && TxnRequest::decode(bytes).is_err(), "{op:?}");
        }
        assert!(decode(Bytes::from_static(b"\x19nnnnnnnn")).is_err());
    }

    #[test]
    fn nesting_is_decoded_to_the_limit_and_refused_behind_it() {
        for levels in [1, 2, 51, 129, DEPTH_MAX] {
            assert_eq!(depth(&nested(levels)), levels);
            assert!(decode(nested(levels).into()).is_ok(), "{levels} levels");
        }
        assert!(decode(nested(DEPTH_MAX + 1).into()).is_err());
        assert!(decode(nested(20_000).into()).is_err());
    }

    #[test]
    fn bytes_that_are_no_transaction_are_an_error() {
        for garbage in [&b"\xff"[..], b"\x12\x7f", b"\x0b\x0b", b"\x12\x02\x22\x7f"] {
            assert!(decode(Bytes::copy_from_slice(garbage)).is_err());
        }
        assert!(decode(vec![0x0b; 1 << 20].into()).is_err(), "a million open groups");
    }
}
