//! What must be right about a request's head, in the order and words of etcd's gRPC library.

use std::time::Duration;

use http::header::HeaderValue;
use http::{Method, Request, Response, StatusCode};
use tonic::Status;

use super::{Body, Encoding, error};
use crate::auth::Who;

/// What a request's head says to this server, found in one pass over its fields. It is judged piece by piece
/// in etcd's order, since of several mistakes the first one is answered.
pub(crate) struct Head<'a> {
    method: &'a Method,
    content_type: &'a [u8],
    timeout: Result<Option<Duration>, String>,
    bad_binary: Option<String>,
    encoding: Option<&'a HeaderValue>,
    /// `client-api-version`.
    pub(crate) client_version: Option<&'a HeaderValue>,
    /// `token`, and what is as good without one.
    token: Option<&'a HeaderValue>,
    authorization: Option<&'a HeaderValue>,
    /// Whether the JSON gateway asks, on behalf of somebody else.
    through_gateway: bool,
    /// Whether the client asks for a member that knows a leader.
    pub(crate) wants_leader: bool,
}

impl<'a> Head<'a> {
    /// Looks through the head of `request`. Of a field that stands there twice the first one counts, but the
    /// last timeout does.
    pub(crate) fn new<B>(request: &'a Request<B>) -> Self {
        let mut head = Self {
            method: request.method(),
            content_type: b"",
            timeout: Ok(None),
            bad_binary: None,
            encoding: None,
            client_version: None,
            token: None,
            authorization: None,
            through_gateway: false,
            wants_leader: false,
        };
        let (mut typed, mut leader) = (false, false);
        for (name, value) in request.headers() {
            match name.as_str() {
                "content-type" if !std::mem::replace(&mut typed, true) => {
                    head.content_type = value.as_bytes();
                }
                "grpc-timeout" => head.timeout(value),
                "grpc-encoding" => head.encoding = head.encoding.or(Some(value)),
                "client-api-version" => head.client_version = head.client_version.or(Some(value)),
                "token" => head.token = head.token.or(Some(value)),
                "authorization" => head.authorization = head.authorization.or(Some(value)),
                "grpcgateway-accept" => head.through_gateway = true,
                "hasleader" if !std::mem::replace(&mut leader, true) => {
                    head.wants_leader = value.as_bytes() == b"true";
                }
                name if name.ends_with("-bin") => head.binary(name, value),
                _ => {}
            }
        }
        head
    }

    fn timeout(&mut self, value: &HeaderValue) {
        if self.timeout.is_ok() {
            let parsed = parse_timeout(&String::from_utf8_lossy(value.as_bytes()));
            let malformed = |reason| format!("malformed grpc-timeout: {reason}");
            self.timeout = parsed.map(Some).map_err(malformed);
        }
    }

    fn binary(&mut self, name: &str, value: &HeaderValue) {
        if let (None, Some(place)) = (&self.bad_binary, bad_base64(value.as_bytes())) {
            let text = String::from_utf8_lossy(value.as_bytes());
            self.bad_binary = Some(format!(
                "malformed binary metadata {text:?} in header {name:?}: illegal base64 data at input \
                 byte {place}"
            ));
        }
    }

    /// What is wrong with the request before its service is looked at.
    pub(crate) fn refusal(&self) -> Option<Response<Body>> {
        let (code, status) = self.check().err()?;
        let mut response = error(&status);
        *response.status_mut() = code;
        Some(response)
    }

    fn check(&self) -> Result<(), (StatusCode, Status)> {
        if subtype(self.content_type).is_none() {
            let text = String::from_utf8_lossy(self.content_type);
            let status =
                Status::invalid_argument(format!("invalid gRPC request content-type {text:?}"));
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, status));
        }
        let malformed = |text: &String| Err((StatusCode::BAD_REQUEST, Status::internal(text)));
        if let Some(text) = self.timeout.as_ref().err().or(self.bad_binary.as_ref()) {
            return malformed(text);
        }
        if self.method != Method::POST {
            let text = format!(
                "Received a HEADERS frame with :method \"{}\" which should be POST",
                self.method
            );
            return Err((StatusCode::METHOD_NOT_ALLOWED, Status::internal(text)));
        }
        Ok(())
    }

    /// How long the client waits for the answer of a request without [`Self::refusal`]; None without an end.
    pub(crate) fn timeout_of_call(&self) -> Option<Duration> {
        self.timeout.as_ref().ok().copied().flatten()
    }

    /// Who says to be asking. `common_name` is that of the connection's certificate, where clients have to show one.
    pub(crate) fn who(&self, common_name: Option<&str>) -> Who {
        Who::new(self.token.or(self.authorization), common_name, self.through_gateway)
    }

    /// The request's compression.
    ///
    /// # Errors
    /// gRPC's status for one that is not there.
    pub(crate) fn encoding(&self) -> Result<Encoding, Status> {
        match self.encoding.map(HeaderValue::as_bytes) {
            None | Some(b"identity" | b"") => Ok(Encoding::Identity),
            Some(b"gzip") => Ok(Encoding::Gzip),
            Some(other) => Err(Status::unimplemented(format!(
                "grpc: Decompressor is not installed for grpc-encoding {:?}",
                String::from_utf8_lossy(other)
            ))),
        }
    }

    /// The answer's content type: the request's subtype comes back, if it has one.
    pub(crate) fn answer_type(&self) -> Option<HeaderValue> {
        let subtype = subtype(self.content_type).filter(|tail| !tail.is_empty())?;
        HeaderValue::from_bytes(&[b"application/grpc+", subtype].concat()).ok()
    }
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

/// A `grpc-timeout` of at least this long, in eight digits.
pub(crate) fn timeout_text(timeout: Duration) -> String {
    const COUNT_MAX: u128 = 99_999_999;
    let units =
        [(1, 'n'), (1_000, 'u'), (1_000_000, 'm'), (1_000_000_000, 'S'), (60_000_000_000, 'M')];
    let nanos = timeout.as_nanos();
    let fits = |(unit, _): &(u128, char)| nanos.div_ceil(*unit) <= COUNT_MAX;
    let (unit, letter) = units.into_iter().find(fits).unwrap_or((3_600_000_000_000, 'H'));
    format!("{}{letter}", nanos.div_ceil(unit).min(COUNT_MAX))
}

/// Place of the first byte that is no base64; padding may be there or not.
pub(crate) fn bad_base64(value: &[u8]) -> Option<usize> {
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

    fn request(method: Method, fields: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        let grpc = [("content-type", "application/grpc")];
        let fields = if fields.iter().any(|(name, _)| *name == "content-type") {
            fields.to_vec()
        } else {
            [&grpc, fields].concat()
        };
        for (name, value) in fields {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        request
    }

    fn refused(fields: &[(&'static str, &'static str)]) -> Option<(u16, String)> {
        let (code, status) = Head::new(&request(Method::POST, fields)).check().err()?;
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
    fn a_timeout_that_is_written_is_read_as_at_least_as_long() {
        for (nanos, text) in [(1, "1n"), (99_999_999, "99999999n"), (100_000_001, "100001u")] {
            assert_eq!(timeout_text(Duration::from_nanos(nanos)), text);
        }
        assert_eq!(timeout_text(Duration::from_secs(100_000)), "100000S");
        assert_eq!(timeout_text(Duration::MAX), "99999999H");
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
        let get = request(Method::GET, &[]);
        let code = Head::new(&get).check().expect_err("refused").0;
        assert_eq!(code, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(refused(&[("content-type", "application/grpcx")]).map(|r| r.0), Some(415));
        let answer_type = |value| {
            let request = request(Method::POST, &[("content-type", value)]);
            Head::new(&request).answer_type()
        };
        let echoed = answer_type("application/grpc;charset=utf-8");
        assert_eq!(echoed, Some(HeaderValue::from_static("application/grpc+charset=utf-8")));
        assert_eq!(answer_type("application/grpc"), None);
    }

    #[test]
    fn of_a_repeated_field_the_first_counts_and_of_timeouts_the_last() {
        let request = request(
            Method::POST,
            &[
                ("grpc-timeout", "1S"),
                ("hasleader", "true"),
                ("grpc-encoding", "gzip"),
                ("grpc-timeout", "2S"),
                ("hasleader", "false"),
                ("grpc-encoding", "br"),
            ],
        );
        let head = Head::new(&request);
        assert_eq!(head.timeout_of_call(), Some(Duration::from_secs(2)));
        assert_eq!(head.encoding().ok(), Some(Encoding::Gzip));
        assert!(head.wants_leader);
    }
}
