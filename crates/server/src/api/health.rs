//! `grpc.health.v1.Health`, of which clients use `Check`.

use std::sync::Arc;

use bytes::Bytes;
use tonic::Status;

use super::reply;
use crate::grpc::Framed;
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

const SERVING: i32 = 1;

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
