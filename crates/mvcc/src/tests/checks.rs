//! What the API refuses: the rows of etcd's behaviour, and the one refusal that is ours.

use bytes::Bytes;
use etched_proto::etcdserverpb::request_op::Request;
use etched_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use proptest::prelude::*;

use super::requests;
use crate::{Error, check};

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn put(key: &'static str) -> RequestOp {
    op(Request::RequestPut(PutRequest { key: key.into(), ..PutRequest::default() }))
}

fn keep(key: &'static str, ignore_value: bool) -> RequestOp {
    let ignore_lease = !ignore_value;
    let put = PutRequest { key: key.into(), ignore_value, ignore_lease, ..PutRequest::default() };
    op(Request::RequestPut(put))
}

fn delete(key: &'static str, range_end: &'static str) -> RequestOp {
    let (key, range_end) = (key.into(), range_end.into());
    op(Request::RequestDeleteRange(DeleteRangeRequest { key, range_end, prev_kv: false }))
}

fn range(key: &'static str) -> RequestOp {
    op(Request::RequestRange(RangeRequest { key: key.into(), ..RangeRequest::default() }))
}

fn txn(success: &[RequestOp], failure: &[RequestOp]) -> TxnRequest {
    TxnRequest { compare: Vec::new(), success: success.to_vec(), failure: failure.to_vec() }
}

fn nested(success: &[RequestOp], failure: &[RequestOp]) -> RequestOp {
    op(Request::RequestTxn(txn(success, failure)))
}

/// Checks the operations as either branch.
#[track_caller]
fn check_branch(ops: &[RequestOp], expected: Result<(), Error>) {
    assert_eq!(check::txn(&txn(ops, &[]), 128), expected, "as success");
    assert_eq!(check::txn(&txn(&[], ops), 128), expected, "as failure");
}

const REFUSED: Result<(), Error> = Err(Error::DuplicateKey);

#[test]
fn one_branch_puts_a_key_once() {
    check_branch(&[put("k"), put("k")], REFUSED);
    check_branch(&[put("k"), put("l")], Ok(()));
    check_branch(&[put("k"), nested(&[put("k")], &[])], REFUSED);
    check_branch(&[nested(&[put("k")], &[]), nested(&[], &[put("k")])], REFUSED);
}

#[test]
fn both_branches_may_put_a_key() {
    assert_eq!(check::txn(&txn(&[put("k")], &[put("k")]), 128), Ok(()));
    check_branch(&[nested(&[put("k")], &[put("k")])], Ok(()));
    check_branch(&[nested(&[put("k")], &[put("k")]), put("k")], REFUSED);
}

#[test]
fn put_and_delete_of_a_key_are_refused_in_either_order() {
    for end in ["", "l"] {
        check_branch(&[put("k"), delete("k", end)], REFUSED);
        check_branch(&[delete("k", end), put("k")], REFUSED);
        check_branch(&[delete("k", end), nested(&[put("k")], &[])], REFUSED);
        check_branch(&[put("k"), nested(&[], &[delete("k", end)])], REFUSED);
        check_branch(&[nested(&[delete("k", end)], &[]), nested(&[put("k")], &[])], REFUSED);
    }
    check_branch(&[put("k"), delete("l", "")], Ok(()));
    check_branch(&[put("k"), delete("k\0", "l")], Ok(()));
    check_branch(&[put("l"), delete("k", "l")], Ok(()));
    check_branch(&[put("k"), delete("l", "a")], Ok(()));
}

#[test]
fn deletes_may_overlap() {
    check_branch(&[delete("a", "c"), delete("b", "d"), delete("b", "")], Ok(()));
    check_branch(&[delete("a", "c"), delete("b", "d"), put("c")], REFUSED);
}

#[test]
fn nested_put_before_a_nested_delete_of_the_key_passes() {
    check_branch(&[nested(&[put("k")], &[]), nested(&[delete("k", "")], &[])], Ok(()));
}

#[test]
fn delete_to_the_end_of_all_keys_escapes_the_check() {
    check_branch(&[delete("a", "\0"), put("a")], Ok(()));
    check_branch(&[put("b"), delete("a", "\0")], Ok(()));
    check_branch(&[delete("\0", "\0"), put("a")], Ok(()));
}

#[test]
fn put_that_keeps_a_key_deleted_before_it_is_not_proposed() {
    const CRASHES: Result<(), Error> = Err(Error::KeyNotFound);
    for keep_value in [true, false] {
        let keep = |key| keep(key, keep_value);
        check_branch(&[delete("a", "\0"), keep("a")], CRASHES);
        check_branch(&[delete("a", "\0"), keep("b")], CRASHES);
        check_branch(&[delete("c", "\0"), delete("a", "\0"), keep("b")], CRASHES);
        check_branch(&[nested(&[], &[delete("a", "\0")]), keep("b")], CRASHES);
        check_branch(&[delete("a", "\0"), nested(&[], &[keep("b")])], CRASHES);
        check_branch(&[nested(&[delete("a", "\0"), keep("b")], &[])], CRASHES);
        check_branch(&[keep("b"), delete("a", "\0")], Ok(()));
        check_branch(&[delete("c", "\0"), keep("b")], Ok(()));
        check_branch(&[nested(&[delete("a", "\0")], &[keep("b")])], Ok(()));
    }
}

#[test]
fn operations_are_counted_by_the_longest_list_and_nested_ones_get_the_rest() {
    let check = |txn: &TxnRequest, max| check::txn(txn, max);
    let puts = [put("a"), put("b"), put("c")];
    assert_eq!(check(&txn(&puts, &[]), 3), Ok(()));
    assert_eq!(check(&txn(&puts, &puts), 3), Ok(()));
    assert_eq!(check(&txn(&[], &puts), 2), Err(Error::TooManyOperations));
    let compare = Compare { key: Bytes::from("k"), ..Compare::default() };
    let compares = TxnRequest { compare: vec![compare; 3], ..TxnRequest::default() };
    assert_eq!(check(&compares, 2), Err(Error::TooManyOperations));
    let outer = txn(&[range("a"), nested(&puts, &[])], &[]);
    assert_eq!(check(&outer, 5), Ok(()));
    assert_eq!(check(&outer, 4), Err(Error::TooManyOperations));
}

#[test]
fn requests_without_a_key_or_content_are_refused() {
    assert_eq!(check::put(&PutRequest::default()), Err(Error::EmptyKey));
    assert_eq!(check::delete_range(&DeleteRangeRequest::default()), Err(Error::EmptyKey));
    assert_eq!(check::range(&RangeRequest::default()), Err(Error::EmptyKey));
    check_branch(&[put("")], Err(Error::EmptyKey));
    check_branch(&[delete("", "")], Err(Error::EmptyKey));
    check_branch(&[range("")], Err(Error::EmptyKey));
    check_branch(&[RequestOp { request: None }], Err(Error::KeyNotFound));
    let compare = TxnRequest { compare: vec![Compare::default()], ..TxnRequest::default() };
    assert_eq!(check::txn(&compare, 128), Err(Error::EmptyKey));
}

#[test]
fn put_gives_a_value_or_keeps_it_and_so_for_the_lease() {
    let put = PutRequest { key: "k".into(), ..PutRequest::default() };
    let value = PutRequest { ignore_value: true, value: "v".into(), ..put.clone() };
    assert_eq!(check::put(&value), Err(Error::ValueProvided));
    let lease = PutRequest { ignore_lease: true, lease: 1, ..put };
    assert_eq!(check::put(&lease), Err(Error::LeaseProvided));
}

#[test]
fn sorts_that_do_not_exist_are_refused_and_streams_are_in_key_order() {
    let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    let sorted =
        |sort_order, sort_target| RangeRequest { sort_order, sort_target, ..range.clone() };
    assert_eq!(check::range(&sorted(2, 4)), Ok(()));
    for unknown in [sorted(3, 0), sorted(-1, 0), sorted(0, 5), sorted(0, -1)] {
        assert_eq!(check::range(&unknown), Err(Error::InvalidSortOption));
        assert_eq!(check::range_stream(&unknown), Err(Error::InvalidSortOption));
    }
    assert_eq!(check::range_stream(&sorted(1, 0)), Ok(()));
    assert_eq!(check::range_stream(&sorted(0, 3)), Ok(()));
    assert_eq!(check::range_stream(&sorted(2, 0)), Err(Error::StreamSorted));
    assert_eq!(check::range_stream(&sorted(1, 3)), Err(Error::StreamSorted));
    let filtered = RangeRequest { max_mod_revision: 1, ..range };
    assert_eq!(check::range_stream(&filtered), Err(Error::StreamFiltered));
}

#[test]
fn transaction_is_read_only_when_every_operation_is_a_plain_range() {
    assert!(check::is_read_only(&txn(&[], &[])));
    assert!(check::is_read_only(&txn(&[range("a")], &[range("b")])));
    assert!(!check::is_read_only(&txn(&[range("a")], &[put("b")])));
    assert!(!check::is_read_only(&txn(&[nested(&[range("a")], &[])], &[])));
    assert!(!check::is_serializable(&txn(&[range("a")], &[])));
    let serializable =
        RangeRequest { key: "a".into(), serializable: true, ..RangeRequest::default() };
    assert!(check::is_serializable(&txn(&[op(Request::RequestRange(serializable))], &[])));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// What passes the checks never meets the errors that stand where etcd panics.
    #[test]
    fn nothing_that_passes_the_checks_would_crash_etcd(
        puts in prop::collection::vec(requests::put(), 0..6),
        txn in requests::txn(),
    ) {
        let mut rig = super::fake::Rig::new();
        rig.leases.granted.extend([1, 2, 3]);
        for put in puts {
            let _ = rig.store.put(&put, &mut rig.leases, crate::Answer::Unwanted);
        }
        if check::txn(&txn, 128).is_ok() {
            let reply = rig.store.txn(&txn, &mut rig.leases, crate::Answer::Unwanted);
            let panics = [Error::EmptyOperation, Error::UnknownSortTarget, Error::KeptKeyDeleted];
            prop_assert!(reply.as_ref().err().is_none_or(|error| !panics.contains(error)), "{reply:?}");
        }
    }
}
