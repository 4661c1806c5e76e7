//! `grpc.health.v1.Health`: a server that answers serves.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::oneshot;
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
const SERVICE_UNKNOWN: i32 = 3;

pub(super) async fn check(
    _: Arc<Shared>,
    request: CheckRequest,
    _: Bytes,
) -> Result<Framed, Status> {
    if request.service.is_empty() {
        return reply(&CheckResponse { status: SERVING });
    }
    Err(Status::not_found("unknown service"))
}

pub(super) async fn list(_: Arc<Shared>, _: HealthListRequest, _: Bytes) -> Result<Framed, Status> {
    let whole = CheckResponse { status: SERVING };
    let statuses = vec![ListEntry { service: String::new(), status: Some(whole) }];
    reply(&ListResponse { statuses })
}

/// Says the state once and then waits with the client: it changes only by the server's end.
pub(super) async fn watch(call: Call, request: Request<Incoming>) -> Response<Body> {
    let asked = call.in_time(call.only_message::<CheckRequest>(request)).await;
    let service = match asked {
        Ok(request) => request.service,
        Err(status) => return call.finish(Err(status)),
    };
    let status = if service.is_empty() { SERVING } else { SERVICE_UNKNOWN };
    let (mut end, ended) = oneshot::channel::<()>();
    let Call { shared, stopping, encoding, deadline, ending, .. } = call;
    tokio::task::spawn_local(async move {
        tokio::select! {
            () = super::stopped(stopping) => drop(end),
            () = end.closed() => {}
        }
    });
    let first = Some(frame(&CheckResponse { status }).into_bytes());
    grpc::stream(State { shared, first, ended, ending }, encoding, deadline)
}

struct State {
    shared: Arc<Shared>,
    first: Option<Bytes>,
    ended: oneshot::Receiver<()>,
    ending: Ending,
}

impl Source for State {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        if let Some(first) = self.first.take() {
            self.shared.metrics.sent(Method::HealthWatch, 1, first.len());
            return Poll::Ready(Some(Ok(first)));
        }
        if Pin::new(&mut self.ended).poll(cx).is_pending() {
            return Poll::Pending;
        }
        let status = Status::from(Error::Stopped);
        self.ending.code = status.code();
        Poll::Ready(Some(Err(status)))
    }
}
