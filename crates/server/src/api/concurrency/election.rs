//! `v3electionpb.Election`.

use std::sync::Arc;

use bytes::Bytes;
use etched_proto::etcdserverpb as pb;
use etched_proto::mvccpb::KeyValue;
use etched_proto::mvccpb::event::EventType;
use etched_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use http::{Request, Response};
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op;
use tonic::Status;

use super::super::answers::{self, Answers};
use super::super::{Call, reply};
use super::turn::Place;
use super::watching::{Change, Watching};
use super::{Client, created_at, deletion, key_of, lease_of, look, op, refusal, transact, under};
use crate::auth::Who;
use crate::grpc::{self, Body, Framed, Incoming, Method};
use crate::shared::Shared;

const NOT_LEADER: &str = "election: not leader";
const NO_LEADER: &str = "election: no leader";
const MISSING_LEADER: &str = "\"leader\" field must be provided";

pub(crate) async fn campaign(
    shared: Arc<Shared>,
    request: CampaignRequest,
    _: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let shared = Client::new(shared, who);
    win(shared, request).await.map_err(|status| refusal(&status))
}

async fn win(shared: Client, request: CampaignRequest) -> Result<Framed, Status> {
    let lease = lease_of(&shared, request.lease).await?;
    let place = Place::take(&shared, &request.name, lease, request.value.clone()).await?;
    if place.found.as_ref().is_some_and(|value| *value != request.value) {
        announce(&shared, &place.key, place.created, lease, request.value).await?;
    }
    place.wait(NOT_LEADER).await?;
    let header = Some(shared.header(place.taken));
    let (key, rev) = (place.key.clone(), place.created);
    place.keep();
    let leader = Some(LeaderKey { name: request.name, key, rev, lease });
    reply(&CampaignResponse { header, leader })
}

pub(crate) async fn proclaim(
    shared: Arc<Shared>,
    request: ProclaimRequest,
    _: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let shared = Client::new(shared, who);
    let proclaimed = async {
        let leader = request.leader.ok_or_else(|| Status::unknown(MISSING_LEADER))?;
        let lease = lease_of(&shared, leader.lease).await?;
        let revision = announce(&shared, &leader.key, leader.rev, lease, request.value).await?;
        reply(&ProclaimResponse { header: Some(shared.header(revision)) })
    };
    proclaimed.await.map_err(|status| refusal(&status))
}

/// Gives the key of that creation a new value; the revision of it.
async fn announce(
    shared: &Client,
    key: &Bytes,
    created: i64,
    lease: i64,
    value: Bytes,
) -> Result<i64, Status> {
    let put = pb::PutRequest { key: key.clone(), value, lease, ..Default::default() };
    let txn = pb::TxnRequest {
        compare: vec![created_at(key, created)],
        success: vec![op(request_op::Request::RequestPut(put))],
        failure: Vec::new(),
    };
    let (reply, revision) = transact(shared, &txn).await?;
    if reply.succeeded { Ok(revision) } else { Err(Status::unknown(NOT_LEADER)) }
}

pub(crate) async fn resign(
    shared: Arc<Shared>,
    request: ResignRequest,
    _: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let shared = Client::new(shared, who);
    let resigned = async {
        let leader = request.leader.ok_or_else(|| Status::unknown(MISSING_LEADER))?;
        let (_, revision) = transact(&shared, &deletion(&leader.key, leader.rev)).await?;
        reply(&ResignResponse { header: Some(shared.header(revision)) })
    };
    resigned.await.map_err(|status| refusal(&status))
}

pub(crate) async fn leader(
    shared: Arc<Shared>,
    request: LeaderRequest,
    _: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let shared = Client::new(shared, who);
    let asked = async {
        let (leader, revision) = leader_of(&shared, &request.name).await?;
        let kv = Some(leader.ok_or_else(|| Status::unknown(NO_LEADER))?);
        reply(&LeaderResponse { header: Some(shared.header(revision)), kv })
    };
    asked.await.map_err(|status| refusal(&status))
}

/// The oldest key of the name, and the revision at which it is so.
async fn leader_of(shared: &Client, name: &[u8]) -> Result<(Option<KeyValue>, i64), Status> {
    let (found, revision) = look(shared, vec![oldest(name)]).await?;
    Ok((found.into_iter().next().flatten(), revision))
}

fn oldest(name: &[u8]) -> pb::RangeRequest {
    pb::RangeRequest {
        limit: 1,
        sort_order: SortOrder::Ascend as i32,
        sort_target: SortTarget::Create as i32,
        ..under(&key_of(name, 0).1)
    }
}

/// Streams the leader and each change of it, until the client goes.
pub(crate) async fn observe(call: Call, request: Request<Incoming>, who: Who) -> Response<Body> {
    let message = match call.in_time(call.only_message::<LeaderRequest>(request)).await {
        Ok(message) => message,
        Err(status) => return call.finish(Err(status)),
    };
    let Call { shared, stopping, encoding, deadline, ending, .. } = call;
    let (sender, answers) = Answers::new(Arc::clone(&shared), Method::Observe, ending);
    let shared = Client::new(shared, who);
    tokio::task::spawn_local(async move {
        let mut observer = Observer { shared, name: message.name, last: 0, sender: &sender };
        let work = async { observer.run().await.map_err(|status| refusal(&status)) };
        answers::run(work, &sender, stopping).await;
    });
    grpc::stream(answers, encoding, deadline)
}

struct Observer<'a> {
    shared: Client,
    name: Bytes,
    /// Revision of the last value sent.
    last: i64,
    sender: &'a answers::Sender<LeaderResponse>,
}

/// The client has gone.
struct Gone;

impl Observer<'_> {
    async fn run(&mut self) -> Result<(), Status> {
        loop {
            let (leader, revision) = match leader_of(&self.shared, &self.name).await? {
                (Some(leader), revision) => (leader, revision),
                (None, revision) => match self.first_from(revision + 1).await? {
                    Some(leader) => (leader.clone(), leader.mod_revision),
                    None => continue,
                },
            };
            let key = leader.key.clone();
            let header = self.shared.header(revision);
            if self.send(header, leader).await.is_err() {
                return Ok(());
            }
            if self.follow(key, revision + 1).await?.is_err() {
                return Ok(());
            }
        }
    }

    /// The first key of the name from revision `from` on; none: look again.
    async fn first_from(&self, from: i64) -> Result<Option<KeyValue>, Status> {
        let all = [under(&key_of(&self.name, 0).1)];
        let mut watching = Watching::open(&self.shared, &all, from, Change::Put).await?;
        let seen = watching.next().await?;
        Ok(seen.and_then(|seen| seen.events.into_iter().next()).and_then(|event| event.kv))
    }

    /// Sends what the leader proclaims until its key is deleted, or may have been.
    async fn follow(&mut self, key: Bytes, from: i64) -> Result<Result<(), Gone>, Status> {
        let key = [pb::RangeRequest { key, ..Default::default() }];
        let mut watching = Watching::open(&self.shared, &key, from, Change::Any).await?;
        while let Some(seen) = watching.next().await? {
            for event in seen.events {
                if event.r#type == EventType::Delete as i32 {
                    return Ok(Ok(()));
                }
                let header = seen.header.unwrap_or_default();
                let Some(kv) = event.kv else { continue };
                if self.send(header, kv).await.is_err() {
                    return Ok(Err(Gone));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Sends what is newer than what was sent before.
    async fn send(&mut self, header: pb::ResponseHeader, kv: KeyValue) -> Result<(), Gone> {
        if kv.mod_revision <= self.last {
            return Ok(());
        }
        self.last = kv.mod_revision;
        let answer = LeaderResponse { header: Some(header), kv: Some(kv) };
        self.sender.send(Ok(answer)).await.map_err(|_| Gone)
    }
}
