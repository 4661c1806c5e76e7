//! `v3lockpb.Lock`.

use std::sync::Arc;

use bytes::Bytes;
use etched_proto::etcdserverpb as pb;
use etched_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use prost::Message as _;
use tonic::Status;

use super::super::reply;
use super::turn::Place;
use super::{Client, lease_of, refusal};
use crate::auth::Who;
use crate::error::Error;
use crate::grpc::Framed;
use crate::request::Field;
use crate::shared::Shared;

/// etcd's text for a waiter whose key has gone.
const SESSION_EXPIRED: &str = "mutex: session is expired";

pub(crate) async fn lock(
    shared: Arc<Shared>,
    request: LockRequest,
    _: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let shared = Client::new(shared, who);
    acquire(shared, request).await.map_err(|status| refusal(&status))
}

async fn acquire(shared: Client, request: LockRequest) -> Result<Framed, Status> {
    let lease = lease_of(&shared, request.lease).await?;
    let place = Place::take(&shared, &request.name, lease, Bytes::new()).await?;
    let revision = place.wait(SESSION_EXPIRED).await?.unwrap_or(place.taken);
    let header = Some(shared.header(revision));
    let key = place.key.clone();
    place.keep();
    reply(&LockResponse { header, key })
}

pub(crate) async fn unlock(
    shared: Arc<Shared>,
    request: UnlockRequest,
    _: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let shared = Client::new(shared, who);
    release(shared, request).await.map_err(|status| refusal(&status))
}

async fn release(shared: Client, request: UnlockRequest) -> Result<Framed, Status> {
    let delete = pb::DeleteRangeRequest { key: request.key, ..Default::default() };
    if delete.key.is_empty() {
        return Err(Error::EmptyKey.into());
    }
    let outcome = shared.propose(&*shared.who, Field::DeleteRange, &delete.encode_to_vec()).await?;
    shared.answer(outcome.result)?;
    reply(&UnlockResponse { header: Some(shared.header(outcome.revision)) })
}
