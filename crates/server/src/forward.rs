//! What only the leader knows, asked of it at its peer URLs.
//!
//! ```text
//! keep-alive, time to live, promotion ──> do I lead? no ──> who does? ──> POST /leases, /leases/internal,
//!        └── yes: here                                                    /members/promote/<id>
//! ```
//! An answer that says nothing certain (nobody there, not the leader any more) is asked for again, until the time of a
//! request is over.

use std::time::Duration;

use bytes::Bytes;
use etched_proto::etcdserverpb as pb;
use etched_proto::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue};
use prost::Message;
use tokio::time::{Instant, sleep};

use crate::ask::{Question, Told};
use crate::cluster::Member;
use crate::error::Error;
use crate::shared::Shared;

/// Path that renews a lease.
pub(crate) const LEASES: &str = "/leases";
/// Path that tells how long a lease has to go.
pub(crate) const LEASES_INTERNAL: &str = "/leases/internal";
/// Path that promotes a learner; its id in decimal digits comes behind it.
pub(crate) const PROMOTE: &str = "/members/promote/";

/// What the bodies of the first two are.
const PROTOBUF: &str = "application/protobuf";
/// Pause before the leader is asked again; etcd's.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What an answer is worth.
enum Verdict<T> {
    /// It is certain.
    Certain(Result<T, Error>),
    /// It says nothing: ask again.
    Nothing,
}

/// Time of a lease from now on, by its leader; None when there is no such lease.
///
/// # Errors
/// [`Error::NoLeader`], [`Error::Timeout`].
pub(crate) async fn renew(shared: &Shared, id: i64) -> Result<Option<i64>, Error> {
    let mut question = Question::post(LEASES, pb::LeaseKeepAliveRequest { id }.encode_to_vec());
    question.content_type = Some(PROTOBUF);
    ask_leader(shared, &question, |told| match told.status {
        StatusCode::OK => match pb::LeaseKeepAliveResponse::decode(told.body) {
            Ok(answer) if answer.id == id => Verdict::Certain(Ok(Some(answer.ttl))),
            _ => Verdict::Nothing,
        },
        StatusCode::NOT_FOUND => Verdict::Certain(Ok(None)),
        _ => Verdict::Nothing,
    })
    .await
}

/// What the leader says of a lease; None when there is no such lease.
///
/// # Errors
/// [`Error::NoLeader`], [`Error::Timeout`].
pub(crate) async fn time_to_live(
    shared: &Shared,
    id: i64,
    keys: bool,
) -> Result<Option<pb::LeaseTimeToLiveResponse>, Error> {
    let asked = pb::LeaseTimeToLiveRequest { id, keys };
    let request = LeaseInternalRequest { lease_time_to_live_request: Some(asked) };
    let mut question = Question::post(LEASES_INTERNAL, request.encode_to_vec());
    question.content_type = Some(PROTOBUF);
    ask_leader(shared, &question, |told| match told.status {
        StatusCode::OK => {
            let answer = LeaseInternalResponse::decode(told.body).ok();
            let answer = answer.and_then(|answer| answer.lease_time_to_live_response);
            match answer.filter(|answer| answer.id == id) {
                Some(answer) => Verdict::Certain(Ok(Some(answer))),
                None => Verdict::Nothing,
            }
        }
        StatusCode::NOT_FOUND => Verdict::Certain(Ok(None)),
        _ => Verdict::Nothing,
    })
    .await
}

/// Promotes a learner by the leader, with the token of who asks; the members afterwards.
///
/// # Errors
/// Why the leader does not, [`Error::NoLeader`], [`Error::Timeout`].
pub(crate) async fn promote(
    shared: &Shared,
    id: u64,
    token: Option<HeaderValue>,
) -> Result<Vec<Member>, Error> {
    let mut question = Question::post(format!("{PROMOTE}{id}"), Bytes::new());
    question.headers.extend(token.map(|token| (AUTHORIZATION, token)));
    ask_leader(shared, &question, promotion).await
}

fn promotion(told: Told) -> Verdict<Vec<Member>> {
    let says = |error: Error| {
        let text = error.peer_text();
        told.body.windows(text.len()).any(|window| window == text.as_bytes())
    };
    match told.status {
        StatusCode::OK => match serde_json::from_slice(&told.body) {
            Ok(members) => Verdict::Certain(Ok(members)),
            Err(_) => Verdict::Nothing,
        },
        StatusCode::PRECONDITION_FAILED if says(Error::LearnerNotReady) => {
            Verdict::Certain(Err(Error::LearnerNotReady))
        }
        StatusCode::PRECONDITION_FAILED if says(Error::MemberNotLearner) => {
            Verdict::Certain(Err(Error::MemberNotLearner))
        }
        StatusCode::NOT_FOUND => Verdict::Certain(Err(Error::MemberNotFound)),
        _ => Verdict::Nothing,
    }
}

async fn ask_leader<T>(
    shared: &Shared,
    question: &Question,
    judge: impl Fn(Told) -> Verdict<T>,
) -> Result<T, Error> {
    let deadline = Instant::now() + shared.config.request_timeout();
    loop {
        let leader = wait_for_leader(shared, deadline).await?;
        for url in &leader.peer_urls {
            let wait = deadline.saturating_duration_since(Instant::now());
            if let Ok(told) = shared.dial.ask(url, question.clone(), wait).await
                && let Verdict::Certain(answer) = judge(told)
            {
                return answer;
            }
        }
        if Instant::now() + AGAIN_AFTER >= deadline {
            return Err(Error::Timeout);
        }
        sleep(AGAIN_AFTER).await;
    }
}

/// The member that leads; waits for an election when there is none.
async fn wait_for_leader(shared: &Shared, deadline: Instant) -> Result<Member, Error> {
    loop {
        let leader = shared.cluster.read().members.get(&shared.leader()).cloned();
        if let Some(leader) = leader {
            return if leader.peer_urls.is_empty() { Err(Error::NoLeader) } else { Ok(leader) };
        }
        let again = Instant::now() + shared.config.election_timeout;
        if again >= deadline {
            tokio::time::sleep_until(deadline).await;
            return Err(Error::NoLeader);
        }
        tokio::time::sleep_until(again).await;
    }
}
