//! Entries of the log, framed bodies, heads of requests and whole calls with anything in them.

mod calls;

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use etched_auth::Caller;
use etched_fuzz::{Target, outcome, shape};
use etched_proto::as_go;
use etched_proto::etcdserverpb as pb;
use etched_proto::schema::Schema;
use etched_storage::Table;
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use tonic::{Code, Status};

use crate::cluster::{BadRow, Cluster};
use crate::grpc::{self, Encoding, Incoming, MessageReader, Source};
use crate::request::{self, Field, Request};

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

fn transaction() -> pb::TxnRequest {
    let put = pb::PutRequest { key: "key".into(), value: "value".into(), ..Default::default() };
    let put = pb::request_op::Request::RequestPut(put);
    pb::TxnRequest {
        success: vec![pb::RequestOp { request: Some(put) }],
        ..pb::TxnRequest::default()
    }
}

/// The request of an entry that etcd's members would apply, and its bytes: prost writes what it read.
fn theirs_to_apply(theirs: &pb::InternalRaftRequest) -> Option<(u32, Vec<u8>)> {
    let mut fields = Bytes::from(theirs.encode_to_vec());
    let mut found = std::collections::BTreeMap::new();
    while !fields.is_empty() {
        match decode_key(&mut fields).expect("prost wrote it") {
            (tag, WireType::LengthDelimited) => {
                found.insert(tag, request::take_body(&mut fields).expect("prost wrote it"));
            }
            (_, _) => drop(decode_varint(&mut fields)),
        }
    }
    request::ETCDS_ORDER.iter().find_map(|tag| Some((*tag, found.remove(tag)?.to_vec())))
}

/// An entry that is in the log has to be applied: what etcd's members can read has to be readable, and to say the
/// same, to the last field.
#[test]
fn fuzzed_entries_are_what_prost_decodes() {
    let root = Caller { username: "root".to_owned(), revision: 300 };
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 7 };
    let user = pb::AuthUserAddRequest { name: "u".to_owned(), ..Default::default() };
    let txn = request::encode_for(77, &root, Field::Txn, &transaction().encode_to_vec());
    let grant = request::encode_message(1, Field::LeaseGrant, &grant);
    let seeds = [
        [&txn[..], &txn].concat(),
        [&grant[..], &txn].concat(),
        txn.to_vec(),
        grant.to_vec(),
        request::encode_message(u64::MAX, Field::AuthUserAdd, &user).to_vec(),
        request::encode(1, Field::ClusterVersionSet, b"\x0a\x053.7.0").to_vec(),
    ];
    let message = Schema::get().find("etcdserverpb.InternalRaftRequest").expect("it is there");
    Target::new(FOLDER, "entries").seeds(seeds).memory(64 << 10, 400).run(|input| {
        let usual = request::decode(Bytes::copy_from_slice(input));
        if usual.as_ref().is_ok_and(|ours| ours.unknown == Some(request::OLD_REQUEST)) {
            // Of another form, which is not theirs.
            return 3;
        }
        let careful = request::decode_as_etcd(input);
        if let (Ok(usual), Ok(careful)) = (&usual, &careful) {
            assert_eq!(usual, careful);
        }
        let Ok(ours) = usual.or(careful) else {
            let error = as_go::rewrite(message, input).expect_err("it is the only reason");
            assert!(pb::InternalRaftRequest::decode(input).is_err(), "only prost takes it");
            return outcome(&error.to_string());
        };
        let Ok(read) = as_go::rewrite(message, input) else {
            // What is not applied is not looked into.
            assert!(ours.request.is_none(), "{ours:?}");
            return 1;
        };
        let Ok(theirs) = pb::InternalRaftRequest::decode(read) else { return 2 };
        if let Ok(plain) = pb::InternalRaftRequest::decode(input) {
            assert_eq!(plain, theirs);
        }
        assert_eq!(ours.request.as_ref().map(Request::encoded), theirs_applied(&theirs));
        let header = theirs.header.unwrap_or_default();
        assert_eq!(ours.id, if header.id == 0 { theirs.id } else { header.id });
        assert_eq!(ours.caller.username, header.username);
        assert_eq!(ours.caller.revision, header.auth_revision);
        let unknown = ours.unknown.unwrap_or_default() as usize;
        shape(&[2, unknown, ours.request.map_or(0, |request| request.encoded().0 as usize)])
    });
}

/// The same without those that change nothing.
fn theirs_applied(theirs: &pb::InternalRaftRequest) -> Option<(u32, Vec<u8>)> {
    theirs_to_apply(theirs).filter(|(tag, _)| !request::WITHOUT_EFFECT.contains(tag))
}

/// The first byte chooses the table, the second how long the row's key is.
#[test]
fn fuzzed_rows_of_the_cluster_are_read_or_refused() {
    const TABLES: [Table; 4] =
        [Table::Members, Table::MembersRemoved, Table::Cluster, Table::Alarm];
    let row = |table: u8, key: &str, value: &str| {
        [&[table, key.len() as u8], key.as_bytes(), value.as_bytes()].concat()
    };
    let seeds = [
        row(
            0,
            "8e9e05c52164694d",
            r#"{"id":10276657743932975437,"peerURLs":["http://a:1"],"name":"a","isLearner":true}"#,
        ),
        row(1, "8e9e05c52164694d", "removed"),
        row(2, "clusterVersion", "3.7.0"),
        row(2, "downgrade", r#"{"target-version":"3.6.0","enabled":true}"#),
        row(3, "\x08\x07\x10\x01", ""),
    ];
    Target::new(FOLDER, "cluster-rows").seeds(seeds).run(|input| {
        let Some(([which, length], rest)) = input.split_first_chunk::<2>() else { return 0 };
        let (key, value) = rest.split_at(rest.len().min(usize::from(*length)));
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        let here = TABLES[usize::from(which % 4)];
        let rows = |table| {
            let mine = (table == here).then(|| (key.clone(), value.clone()));
            Ok::<_, BadRow>(mine.into_iter().collect())
        };
        match Cluster::restore(rows) {
            Ok(cluster) => {
                for member in cluster.members.values() {
                    let (_, _, json) = member.row();
                    let again = serde_json::from_slice(&json.expect("a row with a value"));
                    assert_eq!(again.ok().as_ref(), Some(member));
                }
                shape(&[1, usize::from(which % 4), cluster.version.len()])
            }
            Err(error) => outcome(&error.to_string()),
        }
    });
}

/// A body in pieces.
struct Pieces(VecDeque<Bytes>);

impl Source for Pieces {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

type Read = (Vec<Bytes>, Option<(Code, String)>);

/// The messages of a body that comes in pieces of `length` bytes, and what ended it.
fn read(body: &[u8], length: usize, encoding: Encoding) -> Read {
    /// Bytes of a message.
    const LIMIT: usize = 2000;
    let pieces = body.chunks(length.max(1)).map(Bytes::copy_from_slice).collect();
    let body = Incoming::Made(Box::pin(Pieces(pieces)));
    let mut reader = MessageReader::new(body, encoding, LIMIT, 1);
    let mut messages = Vec::new();
    loop {
        let next = pin!(reader.next()).poll(&mut Context::from_waker(Waker::noop()));
        match next {
            Poll::Ready(Ok(Some(message))) => {
                assert!(message.len() <= LIMIT);
                messages.push(message);
            }
            Poll::Ready(Ok(None)) => return (messages, None),
            Poll::Ready(Err(status)) => {
                return (messages, Some((status.code(), status.message().to_owned())));
            }
            Poll::Pending => panic!("all pieces are there"),
        }
    }
}

/// The first byte says how it is compressed and in which pieces it comes.
#[test]
fn fuzzed_bodies_are_the_same_messages_in_whatever_pieces() {
    let plain = grpc::frame(&transaction()).into_bytes();
    let packed = grpc::frame(&transaction()).gzip().expect("in memory").into_bytes();
    let seeds = [
        [&[2][..], &plain, &plain].concat(),
        [&[7][..], &packed, &plain].concat(),
        [&[4][..], &plain[..plain.len() - 2]].concat(),
    ];
    // zlib's own tables.
    Target::new(FOLDER, "bodies").seeds(seeds).memory(512 << 10, 64).run(|input| {
        let Some((how, body)) = input.split_first() else { return 0 };
        let encoding = if how & 1 == 1 { Encoding::Gzip } else { Encoding::Identity };
        let whole = read(body, body.len(), encoding);
        assert_eq!(whole, read(body, usize::from(how >> 1), encoding));
        match whole.1 {
            None => shape(&[whole.0.len(), usize::from(how & 1)]),
            Some((code, text)) => outcome(&text) ^ code as u64,
        }
    });
}

/// Lines are `name: value`; what HTTP itself would refuse is passed over.
#[test]
fn fuzzed_heads_are_judged() {
    let seeds = [
        "content-type: application/grpc\ngrpc-timeout: 20m\ntoken: abc.17\nhasleader: true",
        "content-type: application/grpc+proto\ngrpc-encoding: gzip\nx-bin: AAE=\nauthorization: Bearer x",
        "content-type: text/plain\ngrpc-timeout: 99999999H\ngrpcgateway-accept: *",
    ];
    let words =
        ["\ngrpc-timeout: ", "\nx-bin: ", "\ntoken: ", "n", "H", "=", ",", "\ncontent-type: "];
    Target::new(FOLDER, "heads").seeds(seeds).words(&words).bytes_max(512).run(|input| {
        let mut request = http::Request::post("http://localhost/etcdserverpb.KV/Range");
        for line in input.split(|byte| *byte == b'\n') {
            let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..at], line[at + 1..].trim_ascii());
            let name = http::HeaderName::from_bytes(name);
            let value = http::HeaderValue::from_bytes(value);
            if let (Ok(name), Ok(value)) = (name, value) {
                request = request.header(name, value);
            }
        }
        let Ok(request) = request.body(()) else { return 0 };
        let head = grpc::Head::new(&request);
        let _ = head.who(Some("name"));
        match head.refusal() {
            Some(response) => {
                let text = response.headers().get("grpc-message").map(|text| text.as_bytes());
                outcome(&String::from_utf8_lossy(text.unwrap_or_default()))
            }
            None => {
                let timeout =
                    head.timeout_of_call().map_or(0, |timeout| timeout.as_millis() as usize);
                shape(&[1, timeout, usize::from(head.encoding().is_ok())])
            }
        }
    });
}
