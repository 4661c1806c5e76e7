//! A call's status as HTTP and JSON say it.

use etched_proto::json::{Escape, push_string};
use http::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use tonic::{Code, Status};

use crate::grpc::Body;

/// An answer that is only a status.
pub(super) fn response(status: &Status) -> Response<Body> {
    let mut response = Response::new(Body::text(object(status, Escape::Plain)));
    *response.status_mut() = http_code(status.code());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status.code() == Code::Unauthenticated
        && let Ok(message) = HeaderValue::from_str(status.message())
    {
        response.headers_mut().insert(WWW_AUTHENTICATE, message);
    }
    response
}

/// The status as an object.
pub(super) fn object(status: &Status, escape: Escape) -> Vec<u8> {
    let mut out = format!("{{\"code\":{}", status.code() as i32).into_bytes();
    if !status.message().is_empty() {
        out.extend_from_slice(b",\"message\":");
        push_string(status.message(), escape, &mut out);
    }
    out.push(b'}');
    out
}

/// The HTTP code that stands for a gRPC code. FailedPrecondition is not 412, which is about other headers.
pub(super) fn http_code(code: Code) -> StatusCode {
    /// What nginx says of a client that has gone.
    const CLIENT_CLOSED_REQUEST: u16 = 499;
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(CLIENT_CLOSED_REQUEST).expect("below 1000"),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_number_and_a_text_and_an_http_code() {
        let status = Status::new(Code::OutOfRange, "a \"<b>\"");
        let text = |escape| String::from_utf8(object(&status, escape)).expect("JSON is text");
        assert_eq!(text(Escape::Plain), r#"{"code":11,"message":"a \"<b>\""}"#);
        assert_eq!(text(Escape::Html), r#"{"code":11,"message":"a \"\u003cb\u003e\""}"#);
        assert_eq!(response(&status).status(), StatusCode::BAD_REQUEST);
        assert_eq!(http_code(Code::Cancelled).as_u16(), 499);
    }

    #[test]
    fn who_is_not_known_is_told_so_in_a_header_too() {
        let response = response(&Status::unauthenticated("etcdserver: invalid auth token"));
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "etcdserver: invalid auth token");
    }
}
