//! Requests as clients may send them, in protobuf and in JSON.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

use bytes::{Bytes, BytesMut};
use etched_fuzz::{Target, outcome, shape};
use etched_proto::as_go;
use etched_proto::etcdserverpb as pb;
use etched_proto::json::{self, Encoder, Escape, Malformed, Scanner};
use etched_proto::mvccpb::KeyValue;
use etched_proto::raw::{DeleteRangeReply, OpReply, PutReply, RangeReply, TxnReply, Wire as _};
use etched_proto::schema::{MessageId, Schema};
use etched_proto::txn;
use pb::request_op::Request as Op;
use pb::response_op::Response as Reply;
use prost::Message;

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

fn put() -> Op {
    Op::RequestPut(pb::PutRequest {
        key: "key".into(),
        value: "value".into(),
        ..Default::default()
    })
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn nested(levels: usize) -> pb::TxnRequest {
    let leaf = pb::TxnRequest { success: vec![op(put())], ..Default::default() };
    (1..levels).fold(leaf, |inner, _| pb::TxnRequest {
        compare: vec![pb::Compare {
            key: "key".into(),
            target_union: Some(pb::compare::TargetUnion::ModRevision(7)),
            ..Default::default()
        }],
        success: vec![op(Op::RequestTxn(inner))],
        failure: vec![op(Op::RequestRange(pb::RangeRequest::default())), op(put())],
    })
}

/// Transactions inside each other and operations, the branches not taken included.
fn size(txn: &pb::TxnRequest) -> usize {
    let ops = txn.success.iter().chain(&txn.failure);
    let inner = ops.map(|op| match &op.request {
        Some(Op::RequestTxn(txn)) => size(txn),
        _ => 1,
    });
    1 + txn.compare.len() + inner.sum::<usize>()
}

/// The entry in the log is what the client sent, or what [`as_go`] made of it. Members that run etcd decode it by
/// Go's rules: they take more than prost does, which is what `as_go` is for. What is taken here has to be taken by both,
/// and to mean the same; what prost refuses but for its depth, once rewritten, Go has to refuse too.
#[test]
fn fuzzed_transactions_are_what_prost_decodes() {
    let seeds = [1, 2, 3, 10].map(|levels| nested(levels).encode_to_vec());
    let message = Schema::get().find("etcdserverpb.TxnRequest").unwrap();
    // A compare of two bytes becomes a struct of some hundred.
    Target::new(FOLDER, "transactions").seeds(seeds).memory(64 << 10, 400).run(|input| {
        let bytes = Bytes::copy_from_slice(input);
        let depth = txn::depth(input);
        let theirs = pb::TxnRequest::decode(bytes.clone());
        let ours = txn::decode(bytes);
        match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs),
            (Ok(_), Err(error)) => {
                assert!(
                    error.to_string().contains("recursion limit"),
                    "only prost refuses: {error}"
                );
            }
            (Err(error), Ok(_)) => panic!("only prost takes it: {error}"),
            (Err(_), Err(_)) => {}
        }
        match (as_go::rewrite(message, input), &ours) {
            (Ok(read), Ok(ours)) => assert_eq!(txn::decode(read).as_ref(), Ok(ours)),
            (Ok(read), Err(_)) => {
                let read = txn::decode(read);
                assert!(read.is_ok() || depth > txn::DEPTH_MAX, "Go takes it: {read:?}");
            }
            (Err(error), Ok(_)) => panic!("Go refuses it: {error}"),
            (Err(_), Err(_)) => {}
        }
        match ours {
            Ok(txn) => {
                let again = txn::decode(txn.encode_to_vec().into());
                assert_eq!(again.as_ref(), Ok(&txn), "encoded and decoded again");
                shape(&[depth, size(&txn)])
            }
            Err(error) => outcome(&error.to_string()),
        }
    });
}

/// Messages that clients send, and all that can be in them.
fn requests() -> Vec<MessageId> {
    let schema = Schema::get();
    let input = |path| schema.method(path).expect("it is listed").input;
    schema.methods().map(input).collect()
}

/// The first byte chooses the message, the rest is it.
fn chosen<'a>(ids: &[MessageId], input: &'a [u8]) -> Option<(MessageId, &'a [u8])> {
    let (first, rest) = input.split_first()?;
    Some((ids[usize::from(*first) % ids.len()], rest))
}

fn names() -> Vec<Vec<u8>> {
    let schema = Schema::get();
    let fields = requests().into_iter().flat_map(|id| &schema.message(id).fields);
    let mut names: Vec<Vec<u8>> =
        fields.map(|field| format!("\"{}\":", field.name).into_bytes()).collect();
    let marks = ["{", "}", "[", "]", ",", ":", "null", "true", "\"\\u00e9\"", "\"\\ud800\"", "1e3"];
    names.extend(marks.map(|mark| mark.as_bytes().to_vec()));
    names
}

fn text_of(id: MessageId, wire: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut encoder = Encoder::new(id, Escape::Html);
    let mut out = Vec::new();
    encoder.push(wire, &mut out)?;
    encoder.finish(&mut out)?;
    Ok(out)
}

fn place_of(ids: &[MessageId], name: &str) -> u8 {
    let id = Schema::get().find(name).unwrap();
    ids.iter().position(|known| *known == id).unwrap() as u8
}

#[test]
fn fuzzed_json_that_is_taken_reads_back_the_same() {
    let ids = requests();
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for (name, text) in [
        ("etcdserverpb.PutRequest", r#"{"key":"a2V5","value":"dg","lease":"-7","prevKv":true}"#),
        (
            "etcdserverpb.RangeRequest",
            r#"{"key":"AA==","range_end":null,"sort_order":"DESCEND","limit":1.0e1}"#,
        ),
        (
            "etcdserverpb.WatchRequest",
            r#"{"createRequest":{"key":"YQ","filters":["NOPUT",1],"x":[{}]}}"#,
        ),
        (
            "etcdserverpb.AuthRoleGrantPermissionRequest",
            r#"{"name":"r\u00e9\ud83d\ude00","perm":{"permType":2}}"#,
        ),
    ] {
        seeds.push([&[place_of(&ids, name)], text.as_bytes()].concat());
    }
    let txn =
        text_of(Schema::get().find("etcdserverpb.TxnRequest").unwrap(), &nested(3).encode_to_vec());
    seeds.push([vec![place_of(&ids, "etcdserverpb.TxnRequest")], txn.unwrap()].concat());
    Target::new(FOLDER, "json").seeds(seeds).words(&names()).memory(64 << 10, 64).run(|input| {
        let Some((id, text)) = chosen(&ids, input) else { return 0 };
        let whole = Scanner::default().push(text);
        let mut parts = Scanner::default();
        let mut end = Ok(None);
        for (at, byte) in text.iter().enumerate() {
            end = parts.push(std::slice::from_ref(byte)).map(|end| end.map(|end| at + end));
            if end != Ok(None) {
                break;
            }
        }
        assert_eq!(whole, end, "in one piece and byte by byte");
        let text = match whole {
            Ok(Some(end)) => &text[..end],
            Ok(None) if parts.finish() == Ok(true) => text,
            Ok(None) => return 1,
            Err(error) => return outcome(&error.to_string()),
        };
        match json::decode(id, text) {
            Ok(wire) => {
                let again = text_of(id, &wire).expect("what was made here is a message");
                assert_eq!(json::decode(id, &again).as_ref(), Ok(&wire));
                shape(&[wire.len(), usize::from(input[0])])
            }
            Err(error) => outcome(&error.to_string()),
        }
    });
}

#[test]
fn fuzzed_messages_become_json_in_pieces_as_in_one() {
    let ids = requests();
    let place = place_of(&ids, "etcdserverpb.TxnRequest");
    let seeds = [1, 2, 5].map(|levels| [vec![place], nested(levels).encode_to_vec()].concat());
    // A number of one byte may have a name of thirty.
    Target::new(FOLDER, "messages").seeds(seeds).memory(64 << 10, 400).run(|input| {
        let Some((id, wire)) = chosen(&ids, input) else { return 0 };
        let whole = text_of(id, wire);
        let cut = usize::from(input[0]) % (wire.len() + 1);
        let (first, second) = wire.split_at(cut);
        let in_parts = || {
            let mut encoder = Encoder::new(id, Escape::Html);
            let mut out = Vec::new();
            encoder.push(first, &mut out)?;
            encoder.push(second, &mut out)?;
            encoder.finish(&mut out)?;
            Ok(out)
        };
        assert_eq!(whole, in_parts());
        let Ok(text) = whole else { return 1 };
        let parsed: Result<serde_json::Value, _> = serde_json::from_slice(&text);
        assert!(
            parsed.is_ok() || parsed.is_err_and(|error| error.to_string().contains("recursion"))
        );
        shape(&[text.len(), usize::from(input[0])])
    });
}

fn range_reply(reply: &pb::RangeResponse) -> RangeReply {
    let kvs = reply.kvs.iter().map(|kv| kv.encode_to_vec().into()).collect();
    RangeReply { header: reply.header, kvs, more: reply.more, count: reply.count }
}

fn txn_reply(reply: &pb::TxnResponse) -> Option<TxnReply> {
    let bytes = |kv: &KeyValue| Bytes::from(kv.encode_to_vec());
    let mut responses = Vec::new();
    for op in &reply.responses {
        responses.push(match op.response.as_ref()? {
            Reply::ResponseRange(range) => OpReply::Range(range_reply(range)),
            Reply::ResponsePut(put) => OpReply::Put(PutReply {
                header: put.header,
                prev_kv: put.prev_kv.as_ref().map(bytes),
            }),
            Reply::ResponseDeleteRange(delete) => OpReply::DeleteRange(DeleteRangeReply {
                header: delete.header,
                deleted: delete.deleted,
                prev_kvs: delete.prev_kvs.iter().map(bytes).collect(),
            }),
            Reply::ResponseTxn(txn) => OpReply::Txn(txn_reply(txn)?),
        });
    }
    Some(TxnReply { header: reply.header, succeeded: reply.succeeded, responses })
}

#[test]
fn fuzzed_replies_are_written_as_prost_writes_them() {
    let header = Some(pb::ResponseHeader { revision: 300, ..Default::default() });
    let kv = KeyValue { key: "k".into(), mod_revision: 300, ..Default::default() };
    let range =
        pb::RangeResponse { header, kvs: vec![kv.clone(), kv.clone()], more: true, count: 9 };
    let put = pb::PutResponse { header, prev_kv: Some(kv) };
    let ops = [Reply::ResponseRange(range), Reply::ResponsePut(put)];
    let responses = ops.map(|response| pb::ResponseOp { response: Some(response) }).to_vec();
    let seed = pb::TxnResponse { header, succeeded: true, responses };
    Target::new(FOLDER, "replies").seeds([seed.encode_to_vec()]).memory(64 << 10, 1000).run(
        |input| {
            let Ok(reply) = pb::TxnResponse::decode(input) else { return 0 };
            let Some(raw) = txn_reply(&reply) else { return 1 };
            let mut out = BytesMut::new();
            raw.write(&mut out);
            assert_eq!(out.len(), raw.wire_len());
            assert_eq!(out, reply.encode_to_vec());
            shape(&[out.len(), reply.responses.len()])
        },
    );
}
