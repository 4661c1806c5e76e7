//! `etcdserverpb.Cluster`.

use std::sync::Arc;

use bytes::Bytes;
use etched_auth::Asked;
use etched_proto::etcdserverpb as pb;
use tonic::Status;

use super::reply;
use crate::auth::Who;
use crate::cluster::Member;
use crate::error::Error;
use crate::grpc::Framed;
use crate::shared::Shared;
use crate::{forward, reconfigure};

pub(super) async fn member_list(
    shared: Arc<Shared>,
    request: pb::MemberListRequest,
    _: Bytes,
    _: Who,
) -> Result<Framed, Status> {
    if request.linearizable {
        shared.read_index().await?;
    }
    let members = shared.cluster.read().members.values().map(Member::to_proto).collect();
    // The cluster's answers carry no revision.
    reply(&pb::MemberListResponse { header: Some(shared.header(0)), members })
}

pub(super) async fn member_add(
    shared: Arc<Shared>,
    request: pb::MemberAddRequest,
    _: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let urls = reconfigure::peer_urls(&request.peer_ur_ls).ok_or(Error::MemberBadUrls)?;
    shared.require(&who, Asked::Admin)?;
    let (member, members) = reconfigure::add(&shared, urls, request.is_learner).await?;
    reply(&pb::MemberAddResponse {
        header: Some(shared.header(0)),
        member: Some(member.to_proto()),
        members: protos(&members),
    })
}

pub(super) async fn member_remove(
    shared: Arc<Shared>,
    request: pb::MemberRemoveRequest,
    _: Bytes,
    _: Who,
) -> Result<Framed, Status> {
    let members = protos(&reconfigure::remove(&shared, request.id).await?);
    reply(&pb::MemberRemoveResponse { header: Some(shared.header(0)), members })
}

pub(super) async fn member_update(
    shared: Arc<Shared>,
    request: pb::MemberUpdateRequest,
    _: Bytes,
    _: Who,
) -> Result<Framed, Status> {
    // etcd does not look at them, and its other members then crash over what is none.
    reconfigure::peer_urls(&request.peer_ur_ls).ok_or(Error::MemberBadUrls)?;
    let members = reconfigure::update(&shared, request.id, request.peer_ur_ls).await?;
    reply(&pb::MemberUpdateResponse { header: Some(shared.header(0)), members: protos(&members) })
}

pub(super) async fn member_promote(
    shared: Arc<Shared>,
    request: pb::MemberPromoteRequest,
    _: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let members = match reconfigure::promote(&shared, request.id).await {
        Err(Error::NotLeader) => forward::promote(&shared, request.id, who.into_token()).await?,
        members => members?,
    };
    let members = protos(&members);
    reply(&pb::MemberPromoteResponse { header: Some(shared.header(0)), members })
}

fn protos(members: &[Member]) -> Vec<pb::Member> {
    members.iter().map(Member::to_proto).collect()
}
