//! gRPC over hyper's HTTP/2: framing, statuses and the table of methods.
//!
//! Written here instead of taken from tonic's server because the answers to bad input have to be
//! etcd's to the byte, and because a request costs fewer copies, tasks and allocations this way
//! (`docs/decisions/0001-own-grpc-framing.md`). [`tonic::Status`] and its codes are used throughout.

mod body;
mod budget;
mod frame;
mod head;
mod incoming;
mod method;
mod stream;

pub(crate) use body::{Body, Source};
pub(crate) use budget::{Permit, share};
pub(crate) use frame::{
    Framed, GzipMessage, MessageReader, PREFIX, frame, gzip, push_frame, too_large,
};
pub(crate) use head::{Head, bad_base64, timeout_text};
pub(crate) use incoming::Incoming;
pub(crate) use method::{Kind, METHODS, Method};
pub(crate) use stream::stream;

use stream::After;

use http::Response;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::time::Instant;
use tonic::Status;

/// How a client compresses its messages, and wants the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Not at all.
    Identity,
    /// `grpc-encoding: gzip`.
    Gzip,
}

/// An answer that is only a status.
pub(crate) fn error(status: &Status) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.extend(trailers(status));
    response
}

/// A successful answer of one message; of a large one what comes later ends by `deadline`.
pub(crate) fn unary(
    message: Framed,
    encoding: Encoding,
    deadline: Option<Instant>,
) -> Response<Body> {
    let mut response = match message.into_parts() {
        (whole, None) => Response::new(Body::unary(whole)),
        (first, Some(rest)) => {
            return stream(After::new(first, rest), Encoding::Identity, deadline);
        }
    };
    start_headers(&mut response, encoding);
    response
}

fn start_headers(response: &mut Response<Body>, encoding: Encoding) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if encoding == Encoding::Gzip {
        headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
    }
}

/// The status of a call whose `grpc-timeout` has passed.
pub(crate) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

/// The trailers that end a stream with `status`.
pub(crate) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from(status.code() as i32));
    if !status.message().is_empty() {
        let text = percent_encode(status.message());
        let text = HeaderValue::from_str(&text).expect("printable ASCII");
        trailers.insert("grpc-message", text);
    }
    trailers
}

/// What is not printable ASCII, and the percent sign, as `%XX`.
fn percent_encode(message: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_readable_in_its_header_and_nothing_breaks_out_of_it() {
        assert_eq!(percent_encode("etcdserver: a b"), "etcdserver: a b");
        assert_eq!(percent_encode("100%\r\nx: \u{e9}"), "100%25%0D%0Ax: %C3%A9");
    }
}
