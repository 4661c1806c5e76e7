//! `grpc.health.v1.Health`: a server that answers serves, but while it is defragmented with the gate
//! StopGRPCServiceOnDefrag.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::{Call, Ending, reply};
use crate::error::Error;
use crate::grpc::{self, Body, Framed, Incoming, Method, Source, frame};
use crate::shared::Shared;

/// `HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CheckRequest {
    /// Empty for the whole server.
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

/// `HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct CheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `HealthListRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthListRequest {}

/// `HealthListResponse`: a map, which is a list of entries on the wire.
#[derive(Clone, PartialEq, prost::Message)]
struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    statuses: Vec<ListEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListEntry {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(message, optional, tag = "2")]
    status: Option<CheckResponse>,
}

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;
const SERVICE_UNKNOWN: i32 = 3;

fn status_of(serving: bool) -> i32 {
    if serving { SERVING } else { NOT_SERVING }
}

pub(super) async fn check(
    shared: Arc<Shared>,
    request: CheckRequest,
    _: Bytes,
) -> Result<Framed, Status> {
    if request.service.is_empty() {
        return reply(&CheckResponse { status: status_of(*shared.serving.borrow()) });
    }
    Err(Status::not_found("unknown service"))
}

pub(super) async fn list(
    shared: Arc<Shared>,
    _: HealthListRequest,
    _: Bytes,
) -> Result<Framed, Status> {
    let whole = CheckResponse { status: status_of(*shared.serving.borrow()) };
    let statuses = vec![ListEntry { service: String::new(), status: Some(whole) }];
    reply(&ListResponse { statuses })
}

/// Says the state, and says it again when it changes. Who is slow hears of the last change only.
pub(super) async fn watch(call: Call, request: Request<Incoming>) -> Response<Body> {
    let asked = call.in_time(call.only_message::<CheckRequest>(request)).await;
    let known = match asked {
        Ok(request) => request.service.is_empty(),
        Err(status) => return call.finish(Err(status)),
    };
    let (said, states) = mpsc::channel(1);
    let Call { shared, stopping, encoding, deadline, ending, .. } = call;
    let serving = shared.serving.subscribe();
    tokio::task::spawn_local(async move {
        tokio::select! {
            () = super::stopped(stopping) => {}
            () = said.closed() => {}
            () = say(&said, serving, known) => {}
        }
    });
    grpc::stream(State { shared, states, ending }, encoding, deadline)
}

/// Ends when nobody listens.
async fn say(said: &mpsc::Sender<i32>, mut serving: watch::Receiver<bool>, known: bool) {
    loop {
        let Ok(place) = said.reserve().await else { return };
        let serving_now = *serving.borrow_and_update();
        place.send(if known { status_of(serving_now) } else { SERVICE_UNKNOWN });
        // A service that is unknown stays so.
        let changed = serving.wait_for(|serving| known && *serving != serving_now);
        if changed.await.is_err() {
            return;
        }
    }
}

struct State {
    shared: Arc<Shared>,
    states: mpsc::Receiver<i32>,
    ending: Ending,
}

impl Source for State {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        if let Some(status) = ready!(self.states.poll_recv(cx)) {
            let message = frame(&CheckResponse { status }).into_bytes();
            self.shared.metrics.sent(Method::HealthWatch, 1, message.len());
            return Poll::Ready(Some(Ok(message)));
        }
        let status = Status::from(Error::Stopped);
        self.ending.code = status.code();
        Poll::Ready(Some(Err(status)))
    }
}
