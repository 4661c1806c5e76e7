//! What other members ask at `--listen-peer-urls`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use etched_auth::Asked;
use etched_lease::RenewError;
use etched_proto::etcdserverpb as pb;
use etched_proto::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use etched_transport::Transport;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use prost::Message;

use super::{get_only, json, not_get, set_type, text, version};
use crate::auth::Who;
use crate::cluster::Member;
use crate::error::Error;
use crate::forward::{LEASES, LEASES_INTERNAL, PROMOTE};
use crate::grpc::Body;
use crate::reconfigure;
use crate::shared::Shared;
use crate::{api, forward};

/// Bytes of a request's body; etcd's bound.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Header that says of which cluster an answer, or a request, is.
const CLUSTER_ID: &str = "x-etcd-cluster-id";
/// How long a question about a lease waits until what was committed is applied; etcd's.
const APPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// Why it was not answered then; etcd's words.
const NOT_APPLIED: &str = "waiting for node to catch up its applied index has timed out\n";

/// Answers one request of a member at `remote`; raft's own traffic is the transport's.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    remote: Option<SocketAddr>,
    request: Request<Incoming>,
) -> Response<Body> {
    match request.uri().path() {
        path if Transport::serves(path) => match shared.transport.get() {
            Some(transport) => {
                let remote = remote.map(|remote| remote.to_string()).unwrap_or_default();
                let answer = transport.serve(&remote, request).await;
                answer.map(|body| Body::Raft(Box::new(body)))
            }
            None => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        },
        "/version" => get_only(&request, || json(version(shared))),
        "/members" => get_only(&request, || members(shared)),
        "/downgrade/enabled" => match not_get(&request) {
            Some(refused) => refused,
            None => downgrade_enabled(shared).await,
        },
        "/members/hashkv" => match not_get(&request) {
            Some(refused) => refused,
            None => hash_kv(shared, request).await,
        },
        LEASES | LEASES_INTERNAL => lease(shared, request).await,
        path if path.starts_with(PROMOTE) => promote(shared, request).await,
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn members(shared: &Shared) -> Response<Body> {
    let members: Vec<_> = shared.cluster.read().members.values().cloned().collect();
    of_cluster(shared, json(listed(&members)))
}

fn listed(members: &[Member]) -> String {
    let mut body = serde_json::to_string(members).expect("strings and numbers always serialize");
    body.push('\n');
    body
}

/// Whether the cluster is on its way to the version before: what a member of that version asks before it joins.
async fn downgrade_enabled(shared: &Shared) -> Response<Body> {
    if let Err(error) = shared.read_index().await {
        let body = format!("failed linearized read: {}\n", error.status().1);
        return of_cluster(shared, text(StatusCode::INTERNAL_SERVER_ERROR, body));
    }
    let enabled = shared.cluster.read().downgrade.is_some();
    let mut response = Response::new(Body::text(enabled.to_string()));
    set_type(&mut response, "text/plain");
    of_cluster(shared, response)
}

/// An answer to another member says which cluster it is from.
fn of_cluster(shared: &Shared, mut response: Response<Body>) -> Response<Body> {
    let id = HeaderValue::from_str(&format!("{:x}", shared.cluster_id)).expect("hex digits");
    response.headers_mut().insert(CLUSTER_ID, id);
    response
}

/// The whole body of a request.
async fn body(request: Request<Incoming>) -> Result<Bytes, Response<Body>> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| {
        if error.is::<LengthLimitError>() {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "request body too large\n");
        }
        text(StatusCode::BAD_REQUEST, "error reading body\n")
    })
}

fn bad_request(reason: &str) -> Response<Body> {
    text(StatusCode::BAD_REQUEST, format!("{reason}\n"))
}

async fn lease(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    }
    let renews = request.uri().path() == LEASES;
    let body = match body(request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    if renews { renew(shared, body).await } else { time_to_live(shared, body).await }
}

async fn renew(shared: &Shared, body: Bytes) -> Response<Body> {
    let Ok(request) = pb::LeaseKeepAliveRequest::decode(body) else {
        return bad_request("error unmarshalling request");
    };
    if let Some(late) = not_applied(shared).await {
        return late;
    }
    match api::renew_here(shared, request.id).await {
        Ok(ttl) => {
            let answer = pb::LeaseKeepAliveResponse { header: None, id: request.id, ttl };
            protobuf(&answer)
        }
        Err(RenewError::LeaseNotFound) => text(StatusCode::NOT_FOUND, "lease not found\n"),
        Err(RenewError::NotPrimary | RenewError::Expired) => bad_request("not a primary lessor"),
    }
}

/// The asker may have applied more than this member: it is looked up when all is applied here that was committed, and
/// by a leader that is one still. The refusal, where that takes too long.
async fn not_applied(shared: &Shared) -> Option<Response<Body>> {
    let applied = tokio::time::timeout(APPLY_TIMEOUT, shared.read_index()).await;
    let is_applied = applied.is_ok_and(|read| read.is_ok());
    (!is_applied).then(|| text(StatusCode::REQUEST_TIMEOUT, NOT_APPLIED))
}

async fn time_to_live(shared: &Shared, body: Bytes) -> Response<Body> {
    let request = LeaseInternalRequest::decode(body).ok();
    let Some(request) = request.and_then(|request| request.lease_time_to_live_request) else {
        return bad_request("error unmarshalling request");
    };
    if let Some(late) = not_applied(shared).await {
        return late;
    }
    let found = shared.lessor.lock().time_to_live(request.id, shared.now(), request.keys);
    let Some(lease) = found else { return text(StatusCode::NOT_FOUND, "lease not found\n") };
    let Some(ttl) = lease.remaining else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "not a primary lessor\n");
    };
    let answer = pb::LeaseTimeToLiveResponse {
        header: Some(pb::ResponseHeader::default()),
        id: request.id,
        ttl,
        granted_ttl: lease.granted,
        keys: lease.keys,
    };
    protobuf(&LeaseInternalResponse { lease_time_to_live_response: Some(answer) })
}

fn protobuf(message: &impl Message) -> Response<Body> {
    let mut response = Response::new(Body::text(message.encode_to_vec()));
    set_type(&mut response, "application/protobuf");
    response
}

async fn promote(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::POST {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
        response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let digits = request.uri().path()[PROMOTE.len()..].to_owned();
    let Ok(id) = digits.parse::<u64>() else {
        let body = format!("member {digits} not found in cluster\n");
        return of_cluster(shared, text(StatusCode::NOT_FOUND, body));
    };
    let token = request.headers().get(AUTHORIZATION).cloned();
    let response = match promote_as(shared, id, token).await {
        Ok(members) => json(listed(&members)),
        Err(error) => {
            let status = error.status().1;
            tracing::warn!("member-id" = %format!("{id:x}"), error = status, "failed to promote a member");
            match error {
                Error::MemberNotFound => {
                    text(StatusCode::NOT_FOUND, error.peer_text().to_owned() + "\n")
                }
                Error::MemberNotLearner | Error::LearnerNotReady => {
                    text(StatusCode::PRECONDITION_FAILED, error.peer_text().to_owned() + "\n")
                }
                _ => {
                    let mut response = json(r#"{"message":"Internal Server Error"}"#.to_owned());
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                    response
                }
            }
        }
    };
    of_cluster(shared, response)
}

async fn promote_as(
    shared: &Shared,
    id: u64,
    token: Option<HeaderValue>,
) -> Result<Vec<Member>, Error> {
    shared.require(&Who::new(token.as_ref(), None, false), Asked::Admin)?;
    match reconfigure::promote(shared, id).await {
        Err(Error::NotLeader) => forward::promote(shared, id, token).await,
        members => members,
    }
}

/// What `GET /members/hashkv` asks.
#[derive(serde::Deserialize)]
struct HashRequest {
    #[serde(default)]
    revision: i64,
}

/// And what it answers: fields that are 0 are left out.
#[derive(Default, serde::Serialize)]
struct HashAnswer {
    header: HashHeader,
    #[serde(skip_serializing_if = "is_zero")]
    hash: i64,
    #[serde(skip_serializing_if = "is_zero")]
    compact_revision: i64,
    #[serde(skip_serializing_if = "is_zero")]
    hash_revision: i64,
}

#[derive(Default, serde::Serialize)]
struct HashHeader {
    #[serde(skip_serializing_if = "is_zero")]
    revision: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

async fn hash_kv(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let own = format!("{:x}", shared.cluster_id);
    let given = request.headers().get(CLUSTER_ID).filter(|given| !given.is_empty());
    if given.is_some_and(|given| *given != own) {
        return text(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch\n");
    }
    let body = match body(request).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    let Ok(HashRequest { revision }) = serde_json::from_reader(body.reader()) else {
        return bad_request("error unmarshalling request");
    };
    let asked = Arc::clone(shared);
    let hashed = tokio::task::spawn_blocking(move || asked.reader.hash_kv(revision)).await;
    match hashed {
        Ok(Ok((hash, current))) => {
            let answer = HashAnswer {
                header: HashHeader { revision: current },
                hash: i64::from(hash.hash),
                compact_revision: hash.compact_revision,
                hash_revision: hash.revision,
            };
            let body = serde_json::to_string(&answer).expect("numbers always serialize");
            of_cluster(shared, json(body))
        }
        Ok(Err(error)) => {
            tracing::warn!("requested-revision" = revision, error = %error, "failed to get hashKV");
            let reason = match error {
                etched_mvcc::Error::Compacted => "mvcc: required revision has been compacted",
                etched_mvcc::Error::FutureRevision => {
                    "mvcc: required revision is a future revision"
                }
                ref other => &other.to_string(),
            };
            bad_request(reason)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}
