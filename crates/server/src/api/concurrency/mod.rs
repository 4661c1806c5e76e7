//! What the lock and election services have in common: keys under one name that wait for each other.
//!
//! Whoever wants the name puts the key `name/lease` and has it when no key under `name/` is older. A waiter only
//! watches the one before it, so the end of one wakes one, and turns come in the order of creation.
//!
//! The keys are those that etcd's clients make by themselves (`concurrency` of clientv3), so both can compete for
//! one name. Refusals have the code Unknown, as in etcd, where these services are clients of the server.

pub(super) mod election;
pub(super) mod lock;
mod places;
#[cfg(test)]
mod tests;
mod turn;
mod watching;

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use etched_auth::Asked;
use etched_mvcc::check;
use etched_proto::etcdserverpb as pb;
use etched_proto::mvccpb::KeyValue;
use etched_proto::raw::{OpReply, TxnReply};
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op;
use prost::Message;
use tonic::{Code, Status};

use super::kv;
use crate::auth::Who;
use crate::error::Error;
use crate::quota;
use crate::request::Field;
use crate::shared::{Answer, Shared};

pub(crate) use places::Places;

/// Time to live, in seconds, of a lease that the server makes for a call without one. Nobody keeps it alive.
const SESSION_TTL: i64 = 60;

/// The server, asked in the name of whoever called: these services may do what their callers may.
#[derive(Clone)]
struct Client {
    shared: Arc<Shared>,
    who: Rc<Who>,
}

impl Client {
    fn new(shared: Arc<Shared>, who: Who) -> Self {
        Self { shared, who: Rc::new(who) }
    }
}

impl Deref for Client {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// The lease of a call: that which it names, or a new one.
async fn lease_of(shared: &Client, named: i64) -> Result<i64, Status> {
    if named != etched_lease::NO_LEASE {
        return Ok(named);
    }
    shared.admit(quota::LEASE_COST)?;
    shared.require(&shared.who, Asked::SignedIn)?;
    let id = shared.ids.next_lease();
    let request = pb::LeaseGrantRequest { ttl: SESSION_TTL, id };
    let outcome = shared.propose(&*shared.who, Field::LeaseGrant, &request.encode_to_vec()).await?;
    shared.answer(outcome.result)?;
    Ok(id)
}

/// The key of `lease` under `name`, and where the keys of that name begin.
fn key_of(name: &[u8], lease: i64) -> (Bytes, Bytes) {
    let prefix = [name, b"/"].concat();
    let sign = if lease < 0 { "-" } else { "" };
    let lease = format!("{sign}{:x}", lease.unsigned_abs());
    ([&prefix[..], lease.as_bytes()].concat().into(), prefix.into())
}

/// All keys under `prefix`, which ends in `/`: up to the byte behind it.
fn under(prefix: &Bytes) -> pb::RangeRequest {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    pb::RangeRequest { key: prefix.clone(), range_end: end.into(), ..Default::default() }
}

/// Holds while the key exists in that creation; 0: while it does not exist.
fn created_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

fn op(request: request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// Deletes the key, if it is still of that creation.
fn deletion(key: &Bytes, created: i64) -> pb::TxnRequest {
    let delete = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
    pb::TxnRequest {
        compare: vec![created_at(key, created)],
        success: vec![op(request_op::Request::RequestDeleteRange(delete))],
        failure: Vec::new(),
    }
}

/// Proposes a transaction as a client's would be; its answer and the revision of it.
async fn transact(shared: &Client, txn: &pb::TxnRequest) -> Result<(TxnReply, i64), Status> {
    let refused = |error| Error::from_mvcc(&error).map(Status::from);
    if let Err(error) = check::txn(txn, shared.config.max_txn_ops) {
        let text = error.to_string();
        return Err(refused(error).unwrap_or_else(|| Status::unknown(text)));
    }
    shared.admit(quota::txn_cost(txn))?;
    let outcome = shared.propose(&*shared.who, Field::Txn, &txn.encode_to_vec()).await?;
    match shared.answer(outcome.result)? {
        Answer::Txn(reply) => Ok((reply, outcome.revision)),
        _ => Err(broken()),
    }
}

/// What the ranges find, all at one revision, which stands beside; linearizable.
async fn look(
    shared: &Client,
    ranges: Vec<pb::RangeRequest>,
) -> Result<(Vec<Option<KeyValue>>, i64), Status> {
    shared.read_index().await?;
    let success = ranges.into_iter().map(|range| op(request_op::Request::RequestRange(range)));
    let txn = pb::TxnRequest { success: success.collect(), ..Default::default() };
    let allowed = shared.require(&shared.who, Asked::Txn(&txn))?;
    let reading = Arc::clone(&shared.shared);
    kv::beside(move || {
        let (reply, revision) =
            reading.reader.txn_read_only(&txn).map_err(|error| reading.failed(&error))?;
        reading.still_allowed(allowed)?;
        let found = reply.responses.iter().map(first_of).collect::<Result<_, _>>()?;
        Ok((found, revision))
    })
    .await
}

/// The first key of a range's answer.
fn first_of(reply: &OpReply) -> Result<Option<KeyValue>, Status> {
    let OpReply::Range(range) = reply else { return Err(broken()) };
    let first = range.kvs.first().map(|kv| KeyValue::decode(kv.clone()));
    first.transpose().map_err(|_| broken())
}

/// An answer that cannot be: what runs here is broken.
fn broken() -> Status {
    Status::internal("etched: the answer does not belong to the request")
}

/// A refusal as these services give it.
fn refusal(status: &Status) -> Status {
    let (code, text) = Error::Timeout.status();
    if status.code() == code && status.message() == text {
        return crate::grpc::deadline_exceeded();
    }
    match status.code() {
        Code::DeadlineExceeded => status.clone(),
        _ => Status::unknown(status.message()),
    }
}
