//! gRPC over hyper's HTTP/2: framing, statuses and the table of methods.
//!
//! Written here instead of taken from tonic's server because the answers to bad input have to be
//! etcd's to the byte, and because a request costs fewer copies, tasks and allocations this way
//! (`docs/decisions/0001-own-grpc-framing.md`). [`tonic::Status`] and its codes are used throughout.

mod body;
mod frame;
mod method;

pub(crate) use body::{Body, Source};
pub(crate) use frame::{Framed, MessageReader, frame, push_frame};
pub(crate) use method::{METHODS, Method};

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tonic::{Code, Status};

/// How a client compresses its messages, and wants the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Not at all.
    Identity,
    /// `grpc-encoding: gzip`.
    Gzip,
}

/// The request's compression.
pub(crate) fn encoding(headers: &HeaderMap) -> Result<Encoding, Status> {
    match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
        None | Some(b"identity" | b"") => Ok(Encoding::Identity),
        Some(b"gzip") => Ok(Encoding::Gzip),
        Some(other) => Err(Status::unimplemented(format!(
            "grpc: Decompressor is not installed for grpc-encoding {:?}",
            String::from_utf8_lossy(other)
        ))),
    }
}

/// What is wrong with a request before its method is looked at.
pub(crate) fn refusal(request: &Request<Incoming>) -> Option<Response<Body>> {
    let content_type = request.headers().get(CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
    let tail = content_type.strip_prefix(b"application/grpc");
    if tail.is_some_and(|tail| matches!(tail.first(), None | Some(b'+' | b';'))) {
        return None;
    }
    let text =
        format!("invalid gRPC request content-type {:?}", String::from_utf8_lossy(content_type));
    let mut response = error(&Status::new(Code::InvalidArgument, text));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Some(response)
}

/// An answer that is only a status.
pub(crate) fn error(status: &Status) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.extend(trailers(status));
    response
}

/// A successful answer of one message.
pub(crate) fn unary(message: Framed, encoding: Encoding) -> Response<Body> {
    let mut response = Response::new(Body::unary(message.into_bytes()));
    start_headers(&mut response, encoding);
    response
}

/// An answer of many messages.
pub(crate) fn stream(source: impl Source + 'static) -> Response<Body> {
    let mut response = Response::new(Body::Stream(Box::pin(source)));
    start_headers(&mut response, Encoding::Identity);
    response
}

fn start_headers(response: &mut Response<Body>, encoding: Encoding) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if encoding == Encoding::Gzip {
        headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
    }
}

/// The trailers that end a stream with `status`.
pub(crate) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    if status.add_header(&mut trailers).is_err() {
        // Only metadata could fail here, and our statuses carry none.
        trailers.insert("grpc-status", HeaderValue::from_static("13"));
    }
    trailers
}
