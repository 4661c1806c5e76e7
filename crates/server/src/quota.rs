//! What a request may cost before it is refused for lack of space.

use etched_proto::etcdserverpb as pb;
use pb::request_op::Request;

/// Bytes counted for a lease.
pub(crate) const LEASE_COST: u64 = 64;
/// Bytes counted for a record beside its key and value.
const RECORD_COST: u64 = 256;

/// Bytes a put may take.
pub(crate) fn put_cost(put: &pb::PutRequest) -> u64 {
    RECORD_COST + (put.key.len() + put.value.len()) as u64
}

/// Bytes a transaction may take: the costlier branch, nested ones counted the same way.
pub(crate) fn txn_cost(txn: &pb::TxnRequest) -> u64 {
    branch_cost(&txn.success).max(branch_cost(&txn.failure))
}

fn branch_cost(ops: &[pb::RequestOp]) -> u64 {
    ops.iter()
        .map(|op| match &op.request {
            Some(Request::RequestPut(put)) => put_cost(put),
            Some(Request::RequestTxn(txn)) => txn_cost(txn),
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(value: &'static [u8]) -> pb::RequestOp {
        let put = pb::PutRequest { key: "k".into(), value: value.into(), ..Default::default() };
        pb::RequestOp { request: Some(Request::RequestPut(put)) }
    }

    #[test]
    fn puts_of_a_nested_transaction_count() {
        let nested = pb::TxnRequest { failure: vec![put(b"")], ..Default::default() };
        let nested = pb::RequestOp { request: Some(Request::RequestTxn(nested)) };
        let txn = pb::TxnRequest { success: vec![nested, put(b"")], ..Default::default() };
        assert_eq!(txn_cost(&txn), 2 * 257);
    }

    #[test]
    fn the_costlier_branch_counts() {
        let txn = pb::TxnRequest {
            success: vec![put(b"1234")],
            failure: vec![put(b""), put(b"")],
            ..Default::default()
        };
        assert_eq!(txn_cost(&txn), 2 * 257);
    }
}
