//! `etcdserverpb.Cluster`.

use std::sync::Arc;

use bytes::Bytes;
use etched_proto::etcdserverpb as pb;
use tonic::Status;

use super::reply;
use crate::auth::Who;
use crate::cluster::Member;
use crate::grpc::Framed;
use crate::shared::Shared;

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
