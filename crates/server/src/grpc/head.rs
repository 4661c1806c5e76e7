//! What must be right about a request's head, in the order and words of etcd's gRPC library.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tonic::Status;

use super::{Body, Encoding, error};

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

/// How long the client waits for the answer; None without an end.
///
/// # Errors
/// The text for a value that is none.
pub(crate) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    let mut timeout = None;
    for value in headers.get_all("grpc-timeout") {
        let parsed = parse_timeout(&String::from_utf8_lossy(value.as_bytes()));
        timeout = Some(parsed.map_err(|reason| format!("malformed grpc-timeout: {reason}"))?);
    }
    Ok(timeout)
}

/// What is wrong with a request before its service is looked at.
pub(crate) fn refusal(request: &Request<Incoming>) -> Option<Response<Body>> {
    let (code, status) = check(request.method(), request.headers()).err()?;
    let mut response = error(&status);
    *response.status_mut() = code;
    Some(response)
}

fn check(method: &Method, headers: &HeaderMap) -> Result<(), (StatusCode, Status)> {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if subtype(content_type).is_none() {
        let text = String::from_utf8_lossy(content_type);
        let status =
            Status::invalid_argument(format!("invalid gRPC request content-type {text:?}"));
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, status));
    }
    let malformed = |text: String| (StatusCode::BAD_REQUEST, Status::internal(text));
    timeout(headers).map_err(malformed)?;
    for (name, value) in headers.iter().filter(|(name, _)| name.as_str().ends_with("-bin")) {
        if let Some(place) = bad_base64(value.as_bytes()) {
            let text = String::from_utf8_lossy(value.as_bytes());
            return Err(malformed(format!(
                "malformed binary metadata {text:?} in header {:?}: illegal base64 data at input \
                 byte {place}",
                name.as_str()
            )));
        }
    }
    if method != Method::POST {
        let text =
            format!("Received a HEADERS frame with :method \"{method}\" which should be POST");
        return Err((StatusCode::METHOD_NOT_ALLOWED, Status::internal(text)));
    }
    Ok(())
}

/// What follows `application/grpc`; None for another type.
fn subtype(content_type: &[u8]) -> Option<&[u8]> {
    let tail = content_type.strip_prefix(b"application/grpc")?;
    match tail.first() {
        None => Some(tail),
        Some(b'+' | b';') => Some(&tail[1..]),
        Some(_) => None,
    }
}

/// The answer's content type: the request's subtype comes back, if it has one.
pub(crate) fn answer_type(headers: &HeaderMap) -> Option<HeaderValue> {
    let subtype = subtype(headers.get(CONTENT_TYPE)?.as_bytes()).filter(|tail| !tail.is_empty())?;
    HeaderValue::from_bytes(&[b"application/grpc+", subtype].concat()).ok()
}

/// Up to eight digits and a unit.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    if text.len() < 2 {
        return Err(format!("transport: timeout string is too short: {text:?}"));
    }
    if text.len() > 9 {
        return Err(format!("transport: timeout string is too long: {text:?}"));
    }
    let (digits, unit) = match text.char_indices().next_back() {
        Some((end, 'H')) => (&text[..end], Duration::from_secs(3600)),
        Some((end, 'M')) => (&text[..end], Duration::from_secs(60)),
        Some((end, 'S')) => (&text[..end], Duration::from_secs(1)),
        Some((end, 'm')) => (&text[..end], Duration::from_millis(1)),
        Some((end, 'u')) => (&text[..end], Duration::from_micros(1)),
        Some((end, 'n')) => (&text[..end], Duration::from_nanos(1)),
        _ => return Err(format!("transport: timeout unit is not recognized: {text:?}")),
    };
    let digits_only = digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse::<u32>() {
        Ok(count) if digits_only => Ok(unit.saturating_mul(count)),
        _ => Err(format!("strconv.ParseUint: parsing {digits:?}: invalid syntax")),
    }
}

/// Place of the first byte that is no base64; padding may be there or not.
fn bad_base64(value: &[u8]) -> Option<usize> {
    let padded = value.len().is_multiple_of(4);
    let end = match value {
        [.., b'=', b'='] if padded => value.len() - 2,
        [.., b'='] if padded => value.len() - 1,
        _ => value.len(),
    };
    let bad = |byte: &u8| !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
    value[..end].iter().position(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        for (name, value) in fields {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn refused(fields: &[(&'static str, &'static str)]) -> Option<(u16, String)> {
        let (code, status) = check(&Method::POST, &headers(fields)).err()?;
        Some((code.as_u16(), status.message().to_owned()))
    }

    #[test]
    fn a_usual_head_passes() {
        assert_eq!(
            refused(&[("grpc-timeout", "10S"), ("x-trace-bin", "AAE="), ("y-bin", "AAE")]),
            None
        );
        assert_eq!(refused(&[("content-type", "application/grpc+proto")]), None);
    }

    #[test]
    fn a_timeout_is_a_short_number_and_a_unit() {
        let reason = |value| refused(&[("grpc-timeout", value)]).expect("refused").1;
        assert!(reason("100").ends_with("transport: timeout unit is not recognized: \"100\""));
        assert!(reason("abcS").ends_with("strconv.ParseUint: parsing \"abc\": invalid syntax"));
        assert!(reason("123456789S").ends_with("timeout string is too long: \"123456789S\""));
        assert!(reason("-1S").ends_with("parsing \"-1\": invalid syntax"));
        assert!(reason("+1S").ends_with("parsing \"+1\": invalid syntax"));
        assert_eq!(parse_timeout("0n"), Ok(Duration::ZERO));
        assert_eq!(parse_timeout("20m"), Ok(Duration::from_millis(20)));
        assert_eq!(parse_timeout("99999999H"), Ok(Duration::from_secs(99_999_999 * 3600)));
        assert!(reason("S").ends_with("timeout string is too short: \"S\""));
    }

    #[test]
    fn binary_metadata_is_base64() {
        let expected = "malformed binary metadata \"!!!\" in header \"x-foo-bin\": illegal base64 \
                        data at input byte 0";
        assert_eq!(refused(&[("x-foo-bin", "!!!")]), Some((400, expected.to_owned())));
        assert_eq!(bad_base64(b"AA=A"), Some(2));
    }

    #[test]
    fn only_post_and_only_grpc() {
        let code = check(&Method::GET, &headers(&[])).expect_err("refused").0;
        assert_eq!(code, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused(&[("content-type", "application/grpcx")]).map(|r| r.0), Some(415));
        let echoed = answer_type(&headers(&[("content-type", "application/grpc;charset=utf-8")]));
        assert_eq!(echoed, Some(HeaderValue::from_static("application/grpc+charset=utf-8")));
        assert_eq!(answer_type(&headers(&[])), None);
    }
}
