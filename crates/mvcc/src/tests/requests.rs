//! Random requests over a small alphabet, so that they meet.

use bytes::Bytes;
use etched_proto::etcdserverpb::request_op::Request;
use etched_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::TargetUnion,
};
use proptest::prelude::*;

/// One step of a history.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Grant(i64),
    Revoke(i64),
    /// To a revision this far below the current one.
    Compact(i64),
    /// Runs the hash job of the oldest compaction that has one.
    Hash,
    Sweep(usize),
    Remove(usize),
    Flush(usize),
    Reopen,
    Range(RangeRequest),
    Stream(RangeRequest, usize),
    /// HashKV at a revision this far below the current one; the last: at 0.
    HashKv(i64),
    Events(i64, i64),
}

const KEYS: [&str; 14] = [
    "a",
    "a\0",
    "aa",
    "ab",
    "b",
    "c",
    "d",
    "e",
    "f",
    "g",
    "longer than a word 1",
    "longer than a word 2",
    "longer than a word 2 and on and on",
    "z",
];

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(&KEYS[..]).prop_map(Bytes::from)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => Just(Bytes::new()),
        2 => Just(Bytes::from_static(&[0])),
        1 => Just(Bytes::from_static(&[0, 0])),
        4 => key(),
    ]
}

/// To be brought near the current revision by [`settle`].
fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![6 => Just(0), 1 => -6..0i64, 6 => 1..1000i64]
}

fn bound() -> impl Strategy<Value = i64> {
    prop_oneof![5 => Just(0), 1 => -2..1000i64]
}

pub(super) fn put() -> impl Strategy<Value = PutRequest> {
    let flags = (any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let value = prop::sample::select(&["", "v", "w", "x"][..]);
    let lease = prop_oneof![8 => Just(0), 2 => 1..3i64, 1 => Just(3)];
    (key(), value, lease, flags).prop_map(
        |(key, value, lease, (prev_kv, ignore_value, ignore_lease))| {
            let value = if ignore_value { "" } else { value }.into();
            let lease = if ignore_lease { 0 } else { lease };
            PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease }
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteRangeRequest> {
    let range_end = prop_oneof![2 => Just(Bytes::new()), 1 => range_end()];
    (key(), range_end, any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

pub(super) fn range() -> impl Strategy<Value = RangeRequest> {
    let limit = prop_oneof![3 => Just(0), 4 => 1..6i64, 1 => Just(-1), 1 => Just(i64::MAX)];
    let order = prop_oneof![9 => Just(0), 9 => 0..3, 1 => Just(7)];
    let sort = (order, prop_oneof![10 => Just(0), 20 => 0..5, 1 => Just(9)]);
    let keys = prop_oneof![3 => (key(), range_end()), 1 => Just(all())];
    let only = (prop::bool::weighted(0.3), prop::bool::weighted(0.2));
    let bounds = (bound(), bound(), bound(), bound());
    (keys, revision(), limit, sort, only, bounds).prop_map(
        |((key, range_end), revision, limit, (sort_order, sort_target), only, bounds)| {
            RangeRequest {
                key,
                range_end,
                limit,
                revision,
                sort_order,
                sort_target,
                serializable: false,
                keys_only: only.0,
                count_only: only.1,
                min_mod_revision: bounds.0,
                max_mod_revision: bounds.1,
                min_create_revision: bounds.2,
                max_create_revision: bounds.3,
            }
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let number = prop_oneof![0..5i64, 0..40i64];
    let operand = (0..6, number).prop_map(|(kind, number)| match kind {
        0 => Some(TargetUnion::Version(number)),
        1 => Some(TargetUnion::CreateRevision(number)),
        2 => Some(TargetUnion::ModRevision(number)),
        3 => Some(TargetUnion::Value(["", "v", "w"][number as usize % 3].into())),
        4 => Some(TargetUnion::Lease(number)),
        _ => None,
    });
    let matching = operand.clone().prop_map(|operand| {
        let target = match operand {
            None | Some(TargetUnion::Version(_)) => 0,
            Some(TargetUnion::CreateRevision(_)) => 1,
            Some(TargetUnion::ModRevision(_)) => 2,
            Some(TargetUnion::Value(_)) => 3,
            Some(TargetUnion::Lease(_)) => 4,
        };
        (target, operand)
    });
    let target = prop_oneof![5 => matching, 1 => (prop_oneof![0..5, Just(9)], operand)];
    (key(), range_end(), prop_oneof![8 => 0..4, 1 => Just(9)], target).prop_map(
        |(key, range_end, result, (target, target_union))| Compare {
            result,
            target,
            key,
            range_end,
            target_union,
        },
    )
}

/// Transactions as a log may hold them: also what the API refuses.
pub(super) fn txn() -> impl Strategy<Value = TxnRequest> {
    let op = prop_oneof![
        40 => range().prop_map(|range| Some(Request::RequestRange(range))),
        80 => put().prop_map(|put| Some(Request::RequestPut(put))),
        60 => delete().prop_map(|delete| Some(Request::RequestDeleteRange(delete))),
        1 => Just(None),
    ];
    let op = op.prop_map(|request| RequestOp { request }).boxed();
    let txn = |op: BoxedStrategy<RequestOp>| {
        let ops = prop::collection::vec(op, 0..4);
        (prop::collection::vec(compare(), 0..2), ops.clone(), ops)
            .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
    };
    let nested = move |op: BoxedStrategy<RequestOp>| {
        let nested = txn(op.clone()).prop_map(|txn| Some(Request::RequestTxn(txn)));
        prop_oneof![4 => op, 1 => nested.prop_map(|request| RequestOp { request })].boxed()
    };
    txn(nested(nested(op)))
}

/// All keys.
pub(super) fn all() -> (Bytes, Bytes) {
    (Bytes::from_static(&[0]), Bytes::from_static(&[0]))
}

/// Brings the revisions that a range names near the current one.
pub(super) fn settle(range: &mut RangeRequest, current: i64) {
    let near = |revision: i64| if revision > 0 { 1 + revision % (current + 1) } else { revision };
    for revision in [
        &mut range.revision,
        &mut range.min_mod_revision,
        &mut range.max_mod_revision,
        &mut range.min_create_revision,
        &mut range.max_create_revision,
    ] {
        *revision = near(*revision);
    }
}

/// [`settle`] for all ranges of a transaction.
pub(super) fn settle_txn(txn: &mut TxnRequest, current: i64) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestRange(range)) => settle(range, current),
            Some(Request::RequestTxn(txn)) => settle_txn(txn, current),
            _ => {}
        }
    }
}

/// A few puts to begin with, so that there is something to read.
pub(super) fn beginning() -> Vec<Step> {
    let put = |(nth, key): (usize, &&'static str)| {
        let lease = if nth % 4 == 0 { 1 } else { 0 };
        Step::Put(PutRequest { key: (*key).into(), lease, ..PutRequest::default() })
    };
    let grants = [Step::Grant(1), Step::Grant(2)].into_iter();
    grants.chain(KEYS.iter().step_by(2).enumerate().map(put)).collect()
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => put().prop_map(Step::Put),
        10 => delete().prop_map(Step::Delete),
        14 => txn().prop_map(Step::Txn),
        3 => (1..4i64).prop_map(Step::Grant),
        1 => (1..4i64).prop_map(Step::Revoke),
        4 => (-1..30i64).prop_map(Step::Compact),
        4 => Just(Step::Hash),
        6 => (1..6usize).prop_map(Step::Sweep),
        4 => (1..8usize).prop_map(Step::Remove),
        6 => (0..9usize).prop_map(Step::Flush),
        1 => Just(Step::Reopen),
        24 => range().prop_map(Step::Range),
        5 => (range(), 0..60usize).prop_map(|(range, bytes)| Step::Stream(range, bytes)),
        5 => (-1..40i64).prop_map(Step::HashKv),
        3 => (0..40i64, 0..40i64).prop_map(|(from, until)| Step::Events(from, until)),
    ]
}
