//! The gRPC services, one file each, and how a request finds its own.

mod cluster;
mod health;
mod kv;
mod lease;
mod maintenance;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use etched_proto::raw::Wire;
use http::{Request, Response};
use hyper::body::Incoming;
use prost::Message;
use tonic::Status;

use crate::error::Error;
use crate::grpc::{self, Body, Encoding, Framed, MessageReader, Method, frame};
use crate::shared::Shared;

/// Answers one gRPC request.
pub(crate) async fn serve(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    if let Some(refused) = grpc::refusal(&request) {
        return refused;
    }
    let method = match Method::at(request.uri().path()) {
        Ok(method) => method,
        Err(status) => return grpc::error(&status),
    };
    shared.metrics.started(method);
    let begun = begin(&shared, method, &request);
    match begun {
        Ok(encoding) => dispatch(Call { shared, method, encoding }, request).await,
        Err(status) => {
            shared.metrics.handled(method, status.code());
            grpc::error(&status)
        }
    }
}

/// Checks that every call passes before its message is read.
fn begin(shared: &Shared, method: Method, request: &Request<Incoming>) -> Result<Encoding, Status> {
    let encoding = grpc::encoding(request.headers())?;
    let version = match request.headers().get("client-api-version") {
        None => "unknown",
        Some(value) => {
            std::str::from_utf8(value.as_bytes()).map_err(|_| Error::InvalidClientApiVersion)?
        }
    };
    let kind = match method {
        Method::Watch | Method::LeaseKeepAlive | Method::Snapshot | Method::RangeStream => "stream",
        _ => "unary",
    };
    shared.metrics.client_requests.with_label_values(&[kind, version]).inc();
    let has_leader = request.headers().get("hasleader").map(|value| value.as_bytes());
    if has_leader == Some(b"true") && shared.leader() == 0 {
        return Err(Error::NoLeader.into());
    }
    Ok(encoding)
}

/// One call on its way through a service.
pub(crate) struct Call {
    shared: Arc<Shared>,
    method: Method,
    encoding: Encoding,
}

async fn dispatch(call: Call, request: Request<Incoming>) -> Response<Body> {
    match call.method {
        Method::Range => call.unary(request, kv::range).await,
        Method::RangeStream => kv::range_stream(call, request).await,
        Method::Put => call.unary(request, kv::put).await,
        Method::DeleteRange => call.unary(request, kv::delete_range).await,
        Method::Txn => call.unary_bytes(request, kv::txn).await,
        Method::Compact => call.unary(request, kv::compact).await,
        Method::Watch => watch::watch(call, request),
        Method::LeaseGrant => call.unary(request, lease::grant).await,
        Method::LeaseRevoke => call.unary(request, lease::revoke).await,
        Method::LeaseKeepAlive => lease::keep_alive(call, request),
        Method::LeaseTimeToLive => call.unary(request, lease::time_to_live).await,
        Method::LeaseLeases => call.unary(request, lease::leases).await,
        Method::MemberList => call.unary(request, cluster::member_list).await,
        Method::Alarm => call.unary(request, maintenance::alarm).await,
        Method::Status => call.unary(request, maintenance::status).await,
        Method::Defragment => call.unary(request, maintenance::defragment).await,
        Method::Hash => call.unary(request, maintenance::hash).await,
        Method::HashKv => call.unary(request, maintenance::hash_kv).await,
        Method::MoveLeader => call.unary(request, maintenance::move_leader).await,
        Method::HealthCheck => call.unary(request, health::check).await,
        Method::MemberAdd | Method::MemberRemove | Method::MemberUpdate | Method::MemberPromote => {
            call.refuse("membership changes come with clusters")
        }
        Method::Snapshot => call.refuse("snapshots come in a later version"),
        Method::Downgrade => call.refuse("downgrades come in a later version"),
    }
}

impl Call {
    /// Runs a unary method: reads the one message, calls the handler, answers.
    async fn unary<M, F>(
        self,
        request: Request<Incoming>,
        handler: impl FnOnce(Arc<Shared>, M, Bytes) -> F,
    ) -> Response<Body>
    where
        M: Message + Default,
        F: Future<Output = Result<Framed, Status>>,
    {
        self.unary_bytes(request, |shared, body| async {
            let message = decode(body.clone())?;
            handler(shared, message, body).await
        })
        .await
    }

    /// The same for a handler that decodes by itself.
    async fn unary_bytes<F>(
        self,
        request: Request<Incoming>,
        handler: impl FnOnce(Arc<Shared>, Bytes) -> F,
    ) -> Response<Body>
    where
        F: Future<Output = Result<Framed, Status>>,
    {
        let started = Instant::now();
        let result = async {
            let body = self.only_body(request).await?;
            handler(Arc::clone(&self.shared), body).await
        }
        .await;
        let took = started.elapsed();
        if took > self.shared.config.warning_request {
            tracing::warn!(took = ?took, method = ?self.method, "request stats");
        }
        self.finish(result)
    }

    /// The message of a call that takes one, decoded and as it came.
    async fn only_message<M: Message + Default>(
        &self,
        request: Request<Incoming>,
    ) -> Result<(M, Bytes), Status> {
        let body = self.only_body(request).await?;
        Ok((decode(body.clone())?, body))
    }

    async fn only_body(&self, request: Request<Incoming>) -> Result<Bytes, Status> {
        let mut reader = self.reader(request);
        let body = match reader.next().await {
            Ok(Some(body)) => body,
            // etcd's library gives these two to a unary call as they are, without a code of their own.
            Ok(None) => return Err(Status::unknown("EOF")),
            Err(status) if status.message() == "unexpected EOF" => {
                return Err(Status::unknown("unexpected EOF"));
            }
            Err(status) => return Err(status),
        };
        self.shared.metrics.received(self.method, body.len());
        Ok(body)
    }

    fn reader(&self, request: Request<Incoming>) -> MessageReader {
        let limit = self.shared.config.message_limit();
        MessageReader::new(request.into_body(), self.encoding, limit)
    }

    fn finish(self, result: Result<Framed, Status>) -> Response<Body> {
        let result = match (result, self.encoding) {
            (Ok(message), Encoding::Gzip) => message.gzip(),
            (result, _) => result,
        };
        match result {
            Ok(message) => {
                self.shared.metrics.sent(self.method, 1, message.len());
                self.shared.metrics.handled(self.method, tonic::Code::Ok);
                grpc::unary(message, self.encoding)
            }
            Err(status) => {
                self.shared.metrics.handled(self.method, status.code());
                grpc::error(&status)
            }
        }
    }

    /// Answers a method that etcd has and this version does not.
    fn refuse(self, why: &str) -> Response<Body> {
        self.finish(Err(Status::unimplemented(format!("etched: {why}"))))
    }
}

/// Decodes a message; the text is that of etcd's gRPC library.
fn decode<M: Message + Default>(body: Bytes) -> Result<M, Status> {
    M::decode(body).map_err(|_| malformed())
}

/// The same for a message of a stream.
fn decode_streamed<M: Message + Default>(body: Bytes) -> Result<M, Status> {
    M::decode(body).map_err(|_| {
        Status::internal(
            "grpc: failed to unmarshal the received message: proto: cannot parse invalid \
             wire-format data",
        )
    })
}

fn malformed() -> Status {
    Status::internal(
        "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data",
    )
}

/// The usual end of a handler.
fn reply(message: &impl Wire) -> Result<Framed, Status> {
    Ok(frame(message))
}
