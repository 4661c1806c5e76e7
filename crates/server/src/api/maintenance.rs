//! `etcdserverpb.Maintenance`.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use etched_auth::Asked;
use etched_proto::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use pb::downgrade_request::DowngradeAction;
use tonic::Status;

use super::reply;
use crate::auth::Who;
use crate::error::Error;
use crate::grpc::Framed;
use crate::peers;
use crate::request::Field;
use crate::shared::{Answer, Shared};
use crate::versions;

pub(super) async fn alarm(
    shared: Arc<Shared>,
    request: pb::AlarmRequest,
    body: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let asked = match request.action() {
        AlarmAction::Get if request.action == AlarmAction::Get as i32 => Asked::SignedIn,
        _ => Asked::Admin,
    };
    shared.require(&who, asked)?;
    // etcd proposes an unknown action and then crashes while it applies it.
    AlarmAction::try_from(request.action).map_err(|_| Error::UnknownMethod)?;
    let outcome = shared.propose(&who, Field::Alarm, &body).await?;
    let Answer::Alarms(alarms) = shared.answer(outcome.result)? else {
        return super::kv::mismatch();
    };
    reply(&pb::AlarmResponse { header: Some(shared.header(outcome.revision)), alarms })
}

pub(super) async fn status(
    shared: Arc<Shared>,
    _: pb::StatusRequest,
    _: Bytes,
    _: Who,
) -> Result<Framed, Status> {
    use std::sync::atomic::Ordering::Acquire;
    let sizes = shared.storage.sizes().unwrap_or_default();
    let (progress, cluster) = (&shared.progress, shared.cluster.read().clone());
    let mut errors = Vec::new();
    if shared.leader() == 0 {
        errors.push(Error::NoLeader.status().1.to_owned());
    }
    for (member_id, kind) in &cluster.alarms {
        let kind = pb::AlarmType::try_from(*kind).map_or("UNKNOWN", |kind| kind.as_str_name());
        errors.push(format!("memberID:{member_id} alarm:{kind}"));
    }
    reply(&pb::StatusResponse {
        header: Some(shared.header(shared.reader.current_revision())),
        version: crate::ETCD_VERSION.to_owned(),
        db_size: sizes.file_bytes as i64,
        leader: shared.leader(),
        raft_index: progress.commit.load(Acquire),
        raft_term: progress.term.load(Acquire),
        raft_applied_index: progress.applied.load(Acquire),
        errors,
        db_size_in_use: sizes.live_bytes as i64,
        is_learner: shared.is_learner(),
        storage_version: shared.storage_version(),
        db_size_quota: shared.config.quota_bytes.map_or(-1, |quota| quota as i64),
        downgrade_info: Some(pb::DowngradeInfo {
            enabled: cluster.downgrade.is_some(),
            target_version: cluster.downgrade.unwrap_or_default(),
        }),
    })
}

pub(super) async fn defragment(
    shared: Arc<Shared>,
    _: pb::DefragmentRequest,
    _: Bytes,
    _: Who,
) -> Result<Framed, Status> {
    crate::defragment::run(shared).await?;
    reply(&pb::DefragmentResponse::default())
}

pub(super) async fn hash(
    shared: Arc<Shared>,
    _: pb::HashRequest,
    _: Bytes,
    _: Who,
) -> Result<Framed, Status> {
    // Waited for here, not on a thread of the read pool: on a full disk it may take for ever.
    let committed = shared.flush.commit_now();
    match tokio::time::timeout(shared.config.request_timeout(), committed).await {
        Ok(committed) => committed.map_err(|_| Error::Stopped)?,
        Err(_) => return Err(Error::Timeout.into()),
    }
    let work = move || {
        let started = Instant::now();
        let (hash, revision) = crate::hash::whole_store(&shared)?;
        shared.metrics.hash.observe(started.elapsed().as_secs_f64());
        reply(&pb::HashResponse { header: Some(shared.header(revision)), hash })
    };
    super::kv::beside(work).await
}

pub(super) async fn hash_kv(
    shared: Arc<Shared>,
    request: pb::HashKvRequest,
    _: Bytes,
    _: Who,
) -> Result<Framed, Status> {
    let work = move || {
        let started = Instant::now();
        let (hash, revision) =
            shared.reader.hash_kv(request.revision).map_err(|error| shared.failed(&error))?;
        shared.metrics.hash_rev.observe(started.elapsed().as_secs_f64());
        reply(&pb::HashKvResponse {
            header: Some(shared.header(revision)),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.revision,
        })
    };
    super::kv::beside(work).await
}

pub(super) async fn move_leader(
    shared: Arc<Shared>,
    request: pb::MoveLeaderRequest,
    _: Bytes,
    _: Who,
) -> Result<Framed, Status> {
    if !shared.is_leader() {
        return Err(Error::NotLeader.into());
    }
    let target = shared.cluster.read().members.get(&request.target_id).cloned();
    if target.is_none_or(|target| target.is_learner) {
        return Err(Error::BadLeaderTransferee.into());
    }
    let wait = shared.config.request_timeout();
    if request.target_id != shared.member_id
        && !peers::hand_over(&shared, request.target_id, wait).await
    {
        return Err(Error::TimeoutLeaderTransfer.into());
    }
    reply(&pb::MoveLeaderResponse::default())
}

pub(super) async fn downgrade(
    shared: Arc<Shared>,
    request: pb::DowngradeRequest,
    _: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let action = DowngradeAction::try_from(request.action).map_err(|_| Error::UnknownMethod)?;
    let version = match action {
        DowngradeAction::Validate => versions::validate(&shared, &request.version).await?.short(),
        DowngradeAction::Enable => {
            if let Err(error) = versions::enable(&shared, &who, &request.version).await {
                tracing::warn!(error = error.status().1, "reject downgrade request");
                return Err(error.into());
            }
            versions::short_cluster_version(&shared)
        }
        DowngradeAction::Cancel => {
            // As in etcd, who cancels what is not there hears no error.
            if let Err(error) = versions::cancel(&shared, &who).await {
                tracing::warn!(error = error.status().1, "failed to cancel downgrade");
            }
            versions::short_cluster_version(&shared)
        }
    };
    let header = Some(shared.header(shared.reader.current_revision()));
    reply(&pb::DowngradeResponse { header, version })
}
