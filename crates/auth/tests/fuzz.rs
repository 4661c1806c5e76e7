//! Rows of the auth tables, requests by users that come of them, and tokens, with anything in them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

use std::time::Duration;

use bytes::Bytes;
use etched_auth::{Asked, Caller, Error, LeaseKeys, SimpleTokens, Store, token_index};
use etched_fuzz::{Target, outcome, shape};
use etched_proto::authpb::{Permission, Role, User};
use etched_proto::etcdserverpb as pb;
use etched_proto::txn;
use pb::request_op::Request as Op;
use prost::Message as _;

struct Hanging;

impl LeaseKeys for Hanging {
    fn each_key(
        &self,
        lease: i64,
        check: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let keys: &[&[u8]] = if lease == 7 { &[b"a", b"b"] } else { &[] };
        keys.iter().try_for_each(|key| check(key))
    }
}

/// Parts, each behind one byte that says how long it is.
fn parts<const N: usize>(mut input: &[u8]) -> [Bytes; N] {
    std::array::from_fn(|_| {
        let Some((length, rest)) = input.split_first() else { return Bytes::new() };
        let (part, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        input = rest;
        Bytes::copy_from_slice(part)
    })
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&[part.len() as u8], *part].concat()).collect()
}

/// A user's row, a role's row and a transaction: the check of the whole request walks all of them.
#[test]
fn fuzzed_rows_and_requests_are_allowed_or_denied() {
    let permission =
        |end: &'static str| Permission { perm_type: 2, key: "a".into(), range_end: end.into() };
    let key_permission = ["", "c", "\0"].map(permission).to_vec();
    let role = Role { name: "r".into(), key_permission }.encode_to_vec();
    let user =
        User { name: "u".into(), roles: vec!["r".into()], ..User::default() }.encode_to_vec();
    let put = pb::PutRequest { key: "b".into(), lease: 7, prev_kv: true, ..Default::default() };
    let range = pb::RangeRequest { key: "a".into(), range_end: "z".into(), ..Default::default() };
    let op = |request| pb::RequestOp { request: Some(request) };
    let inner = pb::TxnRequest { failure: vec![op(Op::RequestRange(range))], ..Default::default() };
    let asked = pb::TxnRequest {
        success: vec![op(Op::RequestPut(put)), op(Op::RequestTxn(inner))],
        ..Default::default()
    };
    let seed = joined(&[&user, &role, &asked.encode_to_vec()]);
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "rows").seeds([seed]);
    target.memory(64 << 10, 400).run(|input| {
        let [user, role, asked] = parts(input);
        let auth = [
            ("authEnabled", Bytes::from_static(&[1])),
            ("authRevision", Bytes::from_static(&[0; 8])),
        ];
        let store = match Store::restore(auth, [("u", user)], [("r", role)]) {
            Ok(store) => store,
            Err(error) => return outcome(&error.to_string()),
        };
        let Ok(txn) = txn::decode(asked) else { return 1 };
        let caller = Caller { username: "u".to_owned(), revision: 1 };
        let verdict = store.authorize(&caller, Asked::Txn(&txn), &Hanging);
        let root = store.authorize(&caller, Asked::Admin, &Hanging).is_ok();
        assert!(!root || verdict.is_ok(), "root may do everything");
        match verdict {
            Ok(()) => shape(&[1, txn.success.len() + txn.failure.len()]),
            Err(error) => outcome(&error.to_string()),
        }
    });
}

#[test]
fn fuzzed_tokens_are_nobodys() {
    let mut known = SimpleTokens::new(Duration::from_secs(10));
    known.assign("abcdefghijklmnop.17".to_owned(), "alice", Duration::ZERO);
    let seeds = ["abcdefghijklmnop.17", "abcdefghijklmnop.18446744073709551615", "."];
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "tokens").seeds(seeds).bytes_max(64);
    target.run(|input| {
        let token = String::from_utf8_lossy(input);
        let user = known.user_of(&token, Duration::from_secs(1));
        assert_eq!(user.is_some(), token == "abcdefghijklmnop.17", "{token}");
        token_index(&token).map_or(0, |index| shape(&[1, index as usize]))
    });
}
