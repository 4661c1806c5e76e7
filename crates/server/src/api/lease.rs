//! `etcdserverpb.Lease`.

use std::sync::Arc;

use bytes::Bytes;
use etched_auth::{Asked, Caller};
use etched_lease::RenewError;
use etched_proto::etcdserverpb as pb;
use http::{Request, Response};
use prost::Message;
use tonic::Status;

use super::answers::{self, Answers};
use super::{Call, decode_streamed, reply};
use crate::auth::Who;
use crate::error::Error;
use crate::forward;
use crate::grpc::{self, Body, Framed, Incoming, MessageReader, Method};
use crate::quota;
use crate::request::Field;
use crate::shared::{Answer, Shared};

/// A longer list of leases, or one whose keys are to be looked at, is put in order and encoded off the network thread.
const INLINE_LEASES_MAX: usize = 1000;

pub(super) async fn grant(
    shared: Arc<Shared>,
    mut request: pb::LeaseGrantRequest,
    mut body: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    shared.admit(quota::LEASE_COST)?;
    shared.require(&who, Asked::SignedIn)?;
    if request.id == etched_lease::NO_LEASE {
        request.id = shared.ids.next_lease();
        body = request.encode_to_vec().into();
    }
    let outcome = shared.propose(&who, Field::LeaseGrant, &body).await?;
    let Answer::LeaseGranted { id, ttl } = shared.answer(outcome.result)? else {
        return super::kv::mismatch();
    };
    let header = Some(shared.header(outcome.revision));
    reply(&pb::LeaseGrantResponse { header, id, ttl, error: String::new() })
}

pub(super) async fn revoke(
    shared: Arc<Shared>,
    _: pb::LeaseRevokeRequest,
    body: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let outcome = shared.propose(&who, Field::LeaseRevoke, &body).await?;
    shared.answer(outcome.result)?;
    reply(&pb::LeaseRevokeResponse { header: Some(shared.header(outcome.revision)) })
}

pub(super) async fn time_to_live(
    shared: Arc<Shared>,
    request: pb::LeaseTimeToLiveRequest,
    _: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let allowed = match request.keys {
        true => shared.require_of_store(&who, Asked::ReadLease(request.id))?,
        false => 0,
    };
    let found = match shared.is_leader() {
        true => time_here(&shared, &request).await?,
        false => Box::pin(forward::time_to_live(&shared, request.id, request.keys)).await?,
    };
    let none = || pb::LeaseTimeToLiveResponse { id: request.id, ttl: -1, ..Default::default() };
    let mut response = found.unwrap_or_else(none);
    response.header = Some(shared.header(shared.reader.current_revision()));
    // As in etcd: without authentication everybody may, whatever changed meanwhile.
    if shared.auth.is_enabled() {
        shared.still_allowed(allowed)?;
    }
    reply(&response)
}

/// What the leader's own lessor says of a lease, none when there is no such lease.
async fn time_here(
    shared: &Shared,
    request: &pb::LeaseTimeToLiveRequest,
) -> Result<Option<pb::LeaseTimeToLiveResponse>, Error> {
    shared.read_index().await?;
    let found = shared.lessor.lock().time_to_live(request.id, shared.now(), request.keys);
    let Some(lease) = found else { return Ok(None) };
    Ok(Some(pb::LeaseTimeToLiveResponse {
        header: None,
        id: request.id,
        // Who leads no more does not know it; asked again, the client finds who does.
        ttl: lease.remaining.ok_or(Error::LeaderChanged)?,
        granted_ttl: lease.granted,
        keys: lease.keys,
    }))
}

pub(super) async fn leases(
    shared: Arc<Shared>,
    _: pb::LeaseLeasesRequest,
    _: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let listing = shared.lessor.lock().listing();
    let header = Some(shared.header(shared.reader.current_revision()));
    let check = match shared.auth.is_enabled() {
        true => Checking::begin(&shared, &who)?,
        false => None,
    };
    let is_short = check.is_none() && listing.count() <= INLINE_LEASES_MAX;
    let answer = move || {
        let ids = listing.ids();
        check.map_or(Ok(()), |check| check.every(&shared, &ids))?;
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id }).collect();
        reply(&pb::LeaseLeasesResponse { header, leases })
    };
    if is_short { answer() } else { super::kv::beside(answer).await }
}

/// Whether somebody who is not root may hear of leases: of each, all keys have to be readable. How many keys that are
/// nobody knows before, so it is looked at off the network thread.
struct Checking {
    caller: Caller,
    /// Of the store, before anything was asked.
    revision: u64,
}

impl Checking {
    /// None when there is nothing to look at.
    fn begin(shared: &Shared, who: &Who) -> Result<Option<Self>, Error> {
        let revision = shared.require_of_store(who, Asked::SignedIn)?;
        if shared.require(who, Asked::Admin).is_ok() {
            return Ok(None);
        }
        Ok(Some(Self { caller: shared.caller(who)?, revision }))
    }

    fn every(&self, shared: &Shared, leases: &[i64]) -> Result<(), Error> {
        for lease in leases {
            shared.auth.authorize(&self.caller, Asked::ReadLease(*lease), shared)?;
        }
        shared.still_allowed(self.revision)
    }
}

/// Renews leases as the client asks for it, one answer for each request, in their order.
pub(super) fn keep_alive(call: Call, request: Request<Incoming>, who: Who) -> Response<Body> {
    let reader = call.reader(request);
    let Call { shared, stopping, encoding, deadline, ending, .. } = call;
    let (sender, answers) = Answers::new(Arc::clone(&shared), Method::LeaseKeepAlive, ending);
    tokio::task::spawn_local(async move {
        answers::run(answer_renewals(shared, &who, reader, &sender), &sender, stopping).await;
    });
    grpc::stream(answers, encoding, deadline)
}

async fn answer_renewals(
    shared: Arc<Shared>,
    who: &Who,
    mut reader: MessageReader,
    answers: &answers::Sender<pb::LeaseKeepAliveResponse>,
) -> Result<(), Status> {
    loop {
        let body = match reader.next().await {
            Ok(Some(body)) => body,
            Ok(None) => return Ok(()),
            Err(status) => {
                shared.metrics.stream_failed("receive", "lease-keepalive");
                return Err(status);
            }
        };
        shared.metrics.received(Method::LeaseKeepAlive, body.len());
        let request: pb::LeaseKeepAliveRequest = decode_streamed(Method::LeaseKeepAlive, body)?;
        let header = shared.header(shared.reader.current_revision());
        if shared.auth.is_enabled() {
            may_renew(&shared, who, request.id).await?;
        }
        let ttl = renew(&shared, request.id).await?;
        let response = pb::LeaseKeepAliveResponse { header: Some(header), id: request.id, ttl };
        if answers.send(Ok(response)).await.is_err() {
            return Ok(());
        }
    }
}

/// Whether who asks may renew a lease: all its keys have to be writable, and there has to be somebody who asks.
async fn may_renew(shared: &Shared, who: &Who, lease: i64) -> Result<(), Error> {
    let caller = shared.caller(who)?;
    for asked in [Asked::SignedIn, Asked::WriteLease(lease)] {
        shared.auth.authorize(&caller, asked, shared)?;
    }
    Ok(())
}

/// The lease's time from now on; 0 when there is no such lease.
async fn renew(shared: &Shared, id: i64) -> Result<i64, Status> {
    if shared.is_leader() {
        // An old leader that the others have left must not say that a lease lives on.
        shared.read_index().await?;
        match renew_here(shared, id).await {
            Ok(ttl) => return Ok(ttl),
            Err(RenewError::LeaseNotFound) => return Ok(0),
            Err(RenewError::NotPrimary | RenewError::Expired) => {}
        }
    }
    Ok(Box::pin(forward::renew(shared, id)).await?.unwrap_or(0))
}

/// The same by this member's own lessor, which knows it only where it leads.
pub(crate) async fn renew_here(shared: &Shared, id: i64) -> Result<i64, RenewError> {
    loop {
        let revoked = shared.revoked.notified();
        let renewed = shared.lessor.lock().renew(id, shared.now());
        match renewed {
            Ok(renewed) => {
                shared.metrics.lease_renewed.inc();
                return Ok(renewed.ttl);
            }
            // Its end is proposed, not yet applied: only then is the answer certain.
            Err(RenewError::Expired) => revoked.await,
            Err(error) => return Err(error),
        }
    }
}
