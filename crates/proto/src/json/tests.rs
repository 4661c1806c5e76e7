//! Cases by hand, and messages and texts made by chance.

use std::time::{Duration, Instant};

use prost::Message as _;

use super::*;
use crate::authpb::{Permission, User, UserAddOptions};
use crate::etcdserverpb as pb;
use crate::mvccpb::{Event, KeyValue};
use crate::schema::{Field, Kind, MessageId, Schema};

fn id(name: &str) -> MessageId {
    Schema::get().find(name).expect("a message of etcd")
}

fn to_wire(name: &str, text: &str) -> Result<Vec<u8>, String> {
    decode(id(name), text.as_bytes()).map_err(|error| error.to_string())
}

/// What a range request in JSON means.
fn range(text: &str) -> Result<pb::RangeRequest, String> {
    to_wire("etcdserverpb.RangeRequest", text)
        .map(|wire| pb::RangeRequest::decode(&*wire).expect("what was decoded is a message"))
}

fn to_json(name: &str, wire: &[u8]) -> String {
    to_json_with(name, wire, Escape::Plain)
}

fn to_json_with(name: &str, wire: &[u8], escape: Escape) -> String {
    let mut encoder = Encoder::new(id(name), escape);
    let mut out = Vec::new();
    encoder.push(wire, &mut out).expect("a message");
    encoder.finish(&mut out).expect("a whole one");
    String::from_utf8(out).expect("JSON is text")
}

#[test]
fn both_names_of_a_field_are_read_and_unknown_ones_passed_over() {
    let expected = pb::RangeRequest {
        key: "a".into(),
        range_end: "b".into(),
        keys_only: true,
        sort_order: 2,
        ..Default::default()
    };
    let text = r#"{"key":"YQ==","rangeEnd":"Yg","keys_only":true,"nope":{"x":[{}, "]}"]},"sort_order":"DESCEND"}"#;
    assert_eq!(range(text), Ok(expected));
    assert_eq!(range(r#"{"Key":"YQ==","[a.b]":1,"":null}"#), Ok(pb::RangeRequest::default()));
    assert_eq!(range(r#"{"k\u0065y":"YQ=="}"#).map(|request| request.key), Ok("a".into()));
}

#[test]
fn numbers_are_read_as_numbers_or_strings_in_the_range_of_their_type() {
    let limit =
        |value: &str| range(&format!(r#"{{"limit":{value}}}"#)).map(|request| request.limit);
    assert_eq!(limit("5"), Ok(5));
    assert_eq!(limit("\"-9223372036854775808\""), Ok(i64::MIN));
    assert_eq!(limit("1.20e1"), Ok(12));
    assert_eq!(limit("\"5 apples\""), Ok(5));
    assert_eq!(limit("null"), Ok(0));
    for refused in ["1.5", "9223372036854775808", "\" 5\"", "\"\"", "\"x\"", "true"] {
        let expected =
            format!("proto: (line 1:10): invalid value for int64 field limit: {refused}");
        assert_eq!(limit(refused), Err(expected));
    }
}

#[test]
fn enums_are_read_by_name_or_number_and_an_unknown_name_is_none() {
    let order = |value: &str| {
        range(&format!(r#"{{"sortOrder":{value}}}"#)).map(|request| request.sort_order)
    };
    assert_eq!(order("\"ASCEND\""), Ok(1));
    assert_eq!(order("77"), Ok(77));
    assert_eq!(order("\"ascend\""), Ok(0));
    assert!(order("\"1\"").is_ok_and(|order| order == 0));
    assert!(order("2147483648").is_err());
    let text = r#"{"createRequest":{"filters":["NOPUT","x",1,"NODELETE"]}}"#;
    let wire = to_wire("etcdserverpb.WatchRequest", text).expect("a request");
    let request = pb::WatchRequest::decode(&*wire).expect("a message").request_union;
    let Some(pb::watch_request::RequestUnion::CreateRequest(create)) = request else {
        panic!("{request:?}")
    };
    assert_eq!(create.filters, [0, 1, 1]);
}

#[test]
fn what_is_json_but_no_such_message_is_refused_in_go_s_words() {
    for (text, expected) in [
        ("[]", "syntax error (line 1:1): unexpected token ["),
        ("null", "syntax error (line 1:1): unexpected token null"),
        (r#""key""#, "syntax error (line 1:1): unexpected token \"key\""),
        (r#"{"key":5}"#, "(line 1:8): invalid value for bytes field key: 5"),
        (r#"{"key":"*"}"#, "(line 1:8): invalid value for bytes field key: \"*\""),
        (r#"{"key":{}}"#, "(line 1:8): invalid value for bytes field key: {"),
        (r#"{"keysOnly":"true"}"#, "(line 1:13): invalid value for bool field keysOnly: \"true\""),
        ("{\"key\":\"\",\n \"é\":1, \"key\":\"\"}", "(line 2:9): duplicate field \"key\""),
        (r#"{"range_end":"","rangeEnd":""}"#, "(line 1:17): duplicate field \"rangeEnd\""),
        (
            "{\"x\":\"\\ud800\", \"key\":\"\"}",
            "syntax error (line 1:6): invalid escape code \"\\\", \\\"ke\" in string",
        ),
        ("{\"x\":\"\\ud800\"}", "unexpected EOF"),
    ] {
        assert_eq!(range(text), Err(format!("proto: {expected}")), "{text}");
    }
    let bytes = b"{\"x\":\"\xff\"}";
    let refused = decode(id("etcdserverpb.RangeRequest"), bytes).expect_err("no UTF-8");
    assert_eq!(refused.to_string(), "proto: syntax error (line 1:6): invalid UTF-8 in string");
}

#[test]
fn of_a_oneof_one_field_may_be_set_and_null_sets_none() {
    let compare = |text: &str| to_wire("etcdserverpb.Compare", text);
    let expected = "proto: (line 1:14): error parsing \"lease\", oneof etcdserverpb.Compare.target_union is already set";
    assert_eq!(compare(r#"{"version":1,"lease":2}"#), Err(expected.to_owned()));
    let wire = compare(r#"{"version":null,"value":"","lease":null}"#).expect("one");
    let target = pb::Compare::decode(&*wire).expect("a message").target_union;
    // A field of a oneof is set to its zero value where others would not be set.
    assert_eq!(target, Some(pb::compare::TargetUnion::Value(Default::default())));
}

#[test]
fn lists_hold_values_and_no_null() {
    let member = |text: &str| to_wire("etcdserverpb.MemberAddRequest", text);
    let wire = member(r#"{"peerURLs":["http://a","b\n"],"isLearner":true}"#).expect("one");
    let expected = pb::MemberAddRequest {
        peer_ur_ls: vec!["http://a".into(), "b\n".into()],
        is_learner: true,
    };
    assert_eq!(pb::MemberAddRequest::decode(&*wire), Ok(expected));
    let refused = "proto: (line 1:14): invalid value for string field peerURLs: null";
    assert_eq!(member(r#"{"peerURLs":[null]}"#), Err(refused.to_owned()));
    assert_eq!(
        member(r#"{"peerURLs":{}}"#),
        Err("proto: syntax error (line 1:13): unexpected token {".to_owned())
    );
    let txn = to_wire("etcdserverpb.TxnRequest", r#"{"success":[null]}"#);
    assert_eq!(txn, Err("proto: syntax error (line 1:13): unexpected token null".to_owned()));
}

#[test]
fn nested_messages_get_their_lengths_however_long_they_are() {
    let value = "x".repeat(100_000);
    let put = pb::PutRequest { key: "k".into(), value: value.clone().into(), ..Default::default() };
    let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) };
    let inner = pb::TxnRequest {
        failure: vec![op.clone(), pb::RequestOp::default()],
        ..Default::default()
    };
    let nested = pb::RequestOp { request: Some(pb::request_op::Request::RequestTxn(inner)) };
    let compare = pb::Compare { key: "k".into(), ..Default::default() };
    let txn =
        pb::TxnRequest { compare: vec![compare], success: vec![nested, op], ..Default::default() };
    let text = to_json("etcdserverpb.TxnRequest", &txn.encode_to_vec());
    assert_eq!(to_wire("etcdserverpb.TxnRequest", &text), Ok(txn.encode_to_vec()));
}

#[test]
fn nesting_is_bounded_on_both_sides() {
    // Without optimisation a level takes more stack than a test has; a server's threads have this much.
    let thread = std::thread::Builder::new().stack_size(8 << 20);
    thread.spawn(nest_too_deep).expect("a thread").join().expect("no panic");
}

fn nest_too_deep() {
    let levels = 20 * NESTING_MAX;
    let text = r#"{"success":[{"requestTxn":"#.repeat(levels) + "{}" + &"}]}".repeat(levels);
    assert_eq!(
        to_wire("etcdserverpb.TxnRequest", &text),
        Err("proto: exceeded max recursion depth".to_owned())
    );
    for (levels, expected) in [(NESTING_MAX, Ok(())), (NESTING_MAX + 2, Err(Malformed))] {
        // An answer in an operation of an answer, from the inside out.
        let wire = (0..levels).fold(Vec::new(), |body: Vec<u8>, level| {
            let mut outer = vec![if level % 2 == 0 { 0x22 } else { 0x1a }];
            prost::encoding::encode_varint(body.len() as u64, &mut outer);
            [outer, body].concat()
        });
        let mut encoder = Encoder::new(id("etcdserverpb.TxnResponse"), Escape::Plain);
        assert_eq!(encoder.push(&wire, &mut Vec::new()), expected, "{levels} levels");
    }
}

#[test]
fn what_is_zero_is_left_out_and_what_is_there_but_empty_is_written() {
    let header = pb::ResponseHeader { cluster_id: 1, raft_term: u64::MAX, ..Default::default() };
    let status = pb::StatusResponse {
        header: Some(header),
        db_size: -1,
        errors: vec!["a\"<\u{1}\u{2028}".into(), String::new()],
        downgrade_info: Some(pb::DowngradeInfo::default()),
        ..Default::default()
    };
    let expected = "{\"header\":{\"cluster_id\":\"1\",\"raft_term\":\"18446744073709551615\"},\"dbSize\":\"-1\",\
                    \"errors\":[\"a\\\"<\\u0001\u{2028}\",\"\"],\"downgradeInfo\":{}}";
    assert_eq!(to_json("etcdserverpb.StatusResponse", &status.encode_to_vec()), expected);
    let html = to_json_with("etcdserverpb.StatusResponse", &status.encode_to_vec(), Escape::Html);
    assert_eq!(html, expected.replace('<', "\\u003c").replace('\u{2028}', "\\u2028"));
    assert_eq!(to_json("etcdserverpb.DefragmentResponse", b""), "{}");
    assert_eq!(to_json("mvccpb.KeyValue", &[0x10, 0]), "{}", "a zero that was written out");
}

#[test]
fn events_show_bytes_as_base64_and_types_by_name() {
    let kv = KeyValue {
        key: "k".into(),
        mod_revision: 7,
        value: "\u{0}\u{ff}".into(),
        ..Default::default()
    };
    let events = vec![
        Event { kv: Some(kv.clone()), ..Default::default() },
        Event { r#type: 1, kv: Some(KeyValue::default()), prev_kv: Some(kv) },
        Event { r#type: 9, ..Default::default() },
    ];
    let response = pb::WatchResponse { watch_id: 3, events, ..Default::default() };
    let kv = r#"{"key":"aw==","mod_revision":"7","value":"AMO/"}"#;
    assert_eq!(
        to_json("etcdserverpb.WatchResponse", &response.encode_to_vec()),
        format!(
            r#"{{"watch_id":"3","events":[{{"kv":{kv}}},{{"type":"DELETE","kv":{{}},"prev_kv":{kv}}},{{"type":9}}]}}"#
        )
    );
}

#[test]
fn a_message_in_pieces_is_written_as_in_one() {
    let kvs = (0..50).map(|n| KeyValue {
        key: format!("key{n}").into(),
        version: n,
        ..Default::default()
    });
    let header = Some(pb::ResponseHeader { revision: 5, ..Default::default() });
    let answer = pb::RangeResponse { header, kvs: kvs.collect(), more: true, count: 50 };
    let wire = answer.encode_to_vec();
    let whole = to_json("etcdserverpb.RangeResponse", &wire);
    for size in [1, 2, 3, 7, 64, wire.len()] {
        let mut encoder = Encoder::new(id("etcdserverpb.RangeResponse"), Escape::Plain);
        let mut out = Vec::new();
        for piece in wire.chunks(size) {
            encoder.push(piece, &mut out).expect("a message");
        }
        encoder.finish(&mut out).expect("a whole one");
        assert_eq!(String::from_utf8(out).as_ref(), Ok(&whole), "pieces of {size}");
    }
    let mut cut = Encoder::new(id("etcdserverpb.RangeResponse"), Escape::Plain);
    cut.push(&wire[..wire.len() - 1], &mut Vec::new()).expect("so far");
    assert_eq!(cut.finish(&mut Vec::new()), Err(Malformed));
}

#[test]
fn bytes_that_are_no_message_are_an_error() {
    for wire in [
        &b"\x0a\x05"[..],
        b"\x0b",
        b"\x08\x01",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut encoder = Encoder::new(id("etcdserverpb.PutResponse"), Escape::Plain);
        let pushed = encoder.push(wire, &mut Vec::new());
        assert!(pushed.is_err() || encoder.finish(&mut Vec::new()).is_err(), "{wire:?}");
    }
}

#[test]
fn messages_of_the_other_packages_are_known() {
    let user = User {
        name: "root".into(),
        roles: vec!["a".into()],
        options: Some(UserAddOptions { no_password: true }),
        ..Default::default()
    };
    let text = to_json("authpb.User", &user.encode_to_vec());
    assert_eq!(text, r#"{"name":"cm9vdA==","roles":["a"],"options":{"no_password":true}}"#);
    let permission = Permission { perm_type: 2, key: "k".into(), ..Default::default() };
    let text = to_json("authpb.Permission", &permission.encode_to_vec());
    assert_eq!(text, r#"{"permType":"READWRITE","key":"aw=="}"#);
    assert_eq!(to_wire("authpb.Permission", &text), Ok(permission.encode_to_vec()));
}

/// A small generator of numbers: the same ones for the same seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A message in JSON, of which `depth` levels may follow.
    fn message(&mut self, id: MessageId, depth: usize) -> String {
        let message = Schema::get().message(id);
        let (mut members, mut oneofs) = (Vec::new(), 0_u64);
        for field in &message.fields {
            let taken = field.oneof.is_some_and(|oneof| oneofs & 1 << oneof != 0);
            let nested = matches!(field.kind, Kind::Message(_));
            if taken || (nested && depth == 0) || self.below(3) == 0 {
                continue;
            }
            oneofs |= field.oneof.map_or(0, |oneof| 1 << oneof);
            let name = if self.below(2) == 0 { &field.name } else { &field.json_name };
            members.push(format!("\"{name}\":{}", self.field(field, depth)));
        }
        let separator = *self.pick(&[",", " ,\n", ",\t"]);
        format!("{{{}}}", members.join(separator))
    }

    fn field(&mut self, field: &Field, depth: usize) -> String {
        if !field.repeated {
            return self.value(field, depth);
        }
        let values: Vec<_> = (0..self.below(4)).map(|_| self.value(field, depth)).collect();
        format!("[{}]", values.join(", "))
    }

    fn value(&mut self, field: &Field, depth: usize) -> String {
        let small = self.below(3) as u64;
        let any = self.next() >> self.below(64);
        let number = *self.pick(&[small, any]);
        match field.kind {
            Kind::Bool => (number % 2 == 1).to_string(),
            Kind::Int32 | Kind::Enum(_) => (number as i32).to_string(),
            Kind::Uint32 => (number as u32).to_string(),
            Kind::Int64 => format!("\"{}\"", number as i64),
            Kind::Uint64 => number.to_string(),
            Kind::String => self
                .pick(&[r#""""#, r#""\u00e9\ud83d\ude00\n""#, r#""<a&b>""#, "\"é\""])
                .to_string(),
            Kind::Bytes => self.pick(&[r#""""#, r#""YWJj""#, r#""-_8""#, r#""YQ==""#]).to_string(),
            Kind::Message(id) => self.message(id, depth - 1),
        }
    }
}

/// Runs `body` with numbers of chance for a second; the seed is that of `ETCHED_SEED` or a new one.
fn by_chance(mut body: impl FnMut(&mut Chance, MessageId)) {
    let given = std::env::var("ETCHED_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("after 1970").as_nanos() as u64
    });
    println!("seed: ETCHED_SEED={seed}");
    let names = [
        "etcdserverpb.TxnRequest",
        "etcdserverpb.TxnResponse",
        "etcdserverpb.WatchRequest",
        "etcdserverpb.WatchResponse",
        "etcdserverpb.StatusResponse",
        "etcdserverpb.AuthRoleGetResponse",
        "etcdserverpb.MemberListResponse",
        "v3electionpb.ProclaimRequest",
        "etcdserverpb.HashKVResponse",
    ];
    let (mut chance, end) = (Chance(seed), Instant::now() + Duration::from_secs(1));
    while Instant::now() < end {
        let message = id(chance.pick::<&str>(&names));
        body(&mut chance, message);
    }
}

fn json_of(id: MessageId, wire: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(id, Escape::Plain);
    let mut out = Vec::new();
    encoder.push(wire, &mut out).expect("a message");
    encoder.finish(&mut out).expect("a whole one");
    out
}

#[test]
fn messages_by_chance_come_back_as_they_were() {
    by_chance(|chance, id| {
        let text = chance.message(id, 4);
        let mut scanner = Scanner::default();
        assert_eq!(scanner.push(text.as_bytes()), Ok(Some(text.len())), "{text}");
        let wire = decode(id, text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
        let again = json_of(id, &wire);
        assert_eq!(decode(id, &again), Ok(wire), "{text}");
    });
}

#[test]
fn texts_damaged_by_chance_are_refused_or_mean_a_message() {
    by_chance(|chance, id| {
        let mut text = chance.message(id, 3).into_bytes();
        for _ in 0..=chance.below(3) {
            let (place, byte) = (chance.below(text.len()), chance.next() as u8);
            let byte = *chance.pick(&[byte, b'"', b'{', b'}', b'[', b',', b'\\', b'e', b'0', b'n']);
            match chance.below(3) {
                0 => text[place] = byte,
                1 => text.insert(place, byte),
                _ => drop(text.drain(place..(place + chance.below(5)).min(text.len()))),
            }
            if text.is_empty() {
                return;
            }
        }
        let mut scanner = Scanner::default();
        let end = scanner.push(&text);
        let decoded = decode(id, &text[..end.ok().flatten().unwrap_or(text.len())]);
        if let Ok(wire) = decoded {
            json_of(id, &wire);
        }
    });
}

#[test]
fn bytes_by_chance_are_a_message_or_an_error() {
    by_chance(|chance, id| {
        let text = chance.message(id, 3);
        let mut wire = decode(id, text.as_bytes()).expect("a message");
        for _ in 0..=chance.below(3) {
            let (place, byte) = (chance.below(wire.len() + 1), chance.next() as u8);
            wire.insert(place, byte);
        }
        let mut encoder = Encoder::new(id, Escape::Html);
        let mut out = Vec::new();
        if encoder.push(&wire, &mut out).and_then(|()| encoder.finish(&mut out)).is_ok() {
            let mut scanner = Scanner::default();
            assert_eq!(
                scanner.push(&out),
                Ok(Some(out.len())),
                "{}",
                String::from_utf8_lossy(&out)
            );
        }
    });
}
