//! The JSON gateway: `/v3/...` on the client port.
//!
//! ```text
//! HTTP body ──Texts──> JSON values ──json::decode──> a gRPC request made here ──> api::serve
//! HTTP body <──lines or one object <──json::Encoder <── gRPC answer, message by message <──┘
//! ```
//! As in etcd the gateway is a gRPC client of its own server. So users, quota, metrics, timeouts and limits hold for it
//! like for anybody, and a method that the server gets is reachable here by its row in [`routes`] alone. Until
//! then it is Unimplemented.
//!
//! A unary answer is one object with its length; a large one comes chunked, as it is read. A streaming answer is a
//! line for each message, `{"result":...}`, and perhaps a last one, `{"error":...}`. Nothing is held of a stream
//! but the message that is being written, and of a request no more than [`request::TEXT_FACTOR`] allows.
//!
//! WebSockets, which etcd offers on these paths, are not there.

mod answer;
mod error;
mod head;
mod request;
mod routes;

use std::sync::Arc;

use etched_proto::schema::Schema;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use tonic::Status;

use crate::api;
use crate::grpc::{self, Body};
use crate::shared::Shared;

/// What all paths of the gateway begin with.
pub(crate) const PREFIX: &str = "/v3/";

/// Answers the request for `path`, which begins with [`PREFIX`].
pub(crate) async fn serve(
    shared: Arc<Shared>,
    stopping: api::Stopping,
    path: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    let Some(full_name) = routes::method_at(path) else {
        crate::http::read_out(request);
        return error::response(&Status::not_found("Not Found"));
    };
    if request.method() != Method::POST {
        crate::http::read_out(request);
        return error::response(&Status::unimplemented("Method Not Allowed"));
    }
    match call(shared, stopping, full_name, request).await {
        Ok(response) => response,
        Err(status) => error::response(&status),
    }
}

/// Calls the method called `full_name`.
///
/// # Errors
/// What ends the call before the server has a message; and, of a unary method, what the server answers.
async fn call(
    shared: Arc<Shared>,
    stopping: api::Stopping,
    full_name: &'static str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let method = *Schema::get().method(full_name).expect("a test holds the routes to the schema");
    let head = head::Head::new(request.headers())?;
    let limits = request::Limits::of(&shared);
    let body = if method.client_streams {
        request::many(request.into_body(), method.input, limits)
    } else {
        request::one(request.into_body(), method.input, limits).await?
    };
    let inner = head.into_request(full_name, grpc::Incoming::Made(body))?;
    // etcd's gateway shows a certificate of its own, whose name counts for nothing.
    let answer = api::serve(shared, stopping, None, inner).await;
    if method.server_streams {
        Ok(answer::lines(answer, method.output).await)
    } else {
        answer::object(answer, method.output).await
    }
}
