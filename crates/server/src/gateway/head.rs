//! What of an HTTP request's head goes on into the call: metadata and the timeout.

use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request};
use tonic::Status;

use crate::grpc::{self, bad_base64};

/// Headers with this prefix become metadata without it.
const METADATA: &str = "grpc-metadata-";
const TIMEOUT: &str = "grpc-timeout";

/// Metadata that belongs to gRPC itself: a client cannot set it.
const RESERVED: [&str; 8] = [
    "content-type",
    "user-agent",
    "grpc-message-type",
    "grpc-encoding",
    "grpc-message",
    "grpc-status",
    TIMEOUT,
    "te",
];

/// The head of a call.
#[derive(Debug)]
pub(super) struct Head {
    metadata: HeaderMap,
    /// When the client gives up; it counts from the head on, not from the end of the body.
    deadline: Option<Instant>,
    /// The timeout was over before it began.
    is_over: bool,
}

impl Head {
    /// Looks through the headers of a request.
    ///
    /// # Errors
    /// InvalidArgument for a timeout or for binary metadata that is none.
    pub(super) fn new(headers: &HeaderMap) -> Result<Self, Status> {
        let mut head = Self { metadata: HeaderMap::new(), deadline: None, is_over: false };
        if let Some(text) = headers.get(TIMEOUT).filter(|text| !text.is_empty()) {
            head.timeout(text)?;
        }
        for (name, value) in headers {
            if name == AUTHORIZATION {
                head.metadata.append(AUTHORIZATION, value.clone());
            } else if let Some(own) = name.as_str().strip_prefix(METADATA) {
                head.add(name, own, value)?;
            }
        }
        Ok(head)
    }

    fn add(&mut self, name: &HeaderName, own: &str, value: &HeaderValue) -> Result<(), Status> {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let shown = |byte: &u8| matches!(byte, b' '..=b'~');
        let Ok(own) = HeaderName::try_from(own) else { return Ok(()) };
        if RESERVED.contains(&own.as_str()) || !own.as_str().bytes().all(named) {
            return Ok(());
        }
        if own.as_str().ends_with("-bin") {
            if let Some(place) = bad_base64(value.as_bytes()) {
                return Err(Status::invalid_argument(format!(
                    "invalid binary header {}: illegal base64 data at input byte {place}",
                    canonical(name.as_str())
                )));
            }
        } else if !value.as_bytes().iter().all(shown) {
            return Ok(());
        }
        self.metadata.append(own, value.clone());
        Ok(())
    }

    fn timeout(&mut self, text: &HeaderValue) -> Result<(), Status> {
        let invalid = || {
            let text = String::from_utf8_lossy(text.as_bytes());
            Status::invalid_argument(format!("invalid grpc-timeout: {text}"))
        };
        let (count, unit) = text.to_str().ok().and_then(parse).ok_or_else(invalid)?;
        // None at all is none; one below is over at once.
        self.is_over = count < 0;
        if let Ok(count) = u64::try_from(count)
            && count > 0
        {
            let timeout = Duration::from_nanos(unit.saturating_mul(count));
            self.deadline = Instant::now().checked_add(timeout);
        }
        Ok(())
    }

    /// The gRPC request for the method `full_name`.
    ///
    /// # Errors
    /// DeadlineExceeded when the client has given up meanwhile.
    pub(super) fn into_request(
        self,
        full_name: &str,
        body: grpc::Incoming,
    ) -> Result<Request<grpc::Incoming>, Status> {
        let mut headers = self.metadata;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if self.is_over || left == Some(Duration::ZERO) {
            return Err(grpc::deadline_exceeded());
        }
        if let Some(left) = left {
            let text =
                HeaderValue::from_str(&grpc::timeout_text(left)).expect("digits and a letter");
            headers.insert(TIMEOUT, text);
        }
        let request = Request::builder().method(Method::POST).uri(format!("/{full_name}"));
        let mut request = request.body(body).expect("names of methods are paths");
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// A number of nanoseconds each; more digits and signs than gRPC itself takes.
fn parse(text: &str) -> Option<(i64, u64)> {
    let (end, unit) = text.char_indices().next_back()?;
    let unit = match unit {
        'H' => 3_600_000_000_000,
        'M' => 60_000_000_000,
        'S' => 1_000_000_000,
        'm' => 1_000_000,
        'u' => 1_000,
        'n' => 1,
        _ => return None,
    };
    Some((text[..end].parse().ok()?, unit))
}

/// A header's name as Go writes it.
fn canonical(name: &str) -> String {
    let capital = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    name.split('-').map(capital).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &'static str)]) -> Result<Head, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Head::new(&headers).map_err(|status| status.message().to_owned())
    }

    #[test]
    fn metadata_goes_on_without_its_prefix_and_the_token_as_it_is() {
        let head = head(&[
            ("authorization", "Bearer t"),
            ("token", "nobody's"),
            ("grpc-metadata-token", "t"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-x-bin", "AAE"),
        ]);
        let metadata = head.expect("a good head").metadata;
        let mut names: Vec<_> = metadata.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "hasleader", "token", "x-bin"]);
        assert_eq!(metadata["token"], "t");
    }

    #[test]
    fn what_belongs_to_grpc_cannot_be_set_from_outside() {
        let fields = [
            ("grpc-metadata-grpc-encoding", "gzip"),
            ("grpc-metadata-content-type", "text/plain"),
            ("grpc-metadata-grpc-timeout", "1n"),
            ("grpc-metadata-a*b", "c"),
            ("grpc-metadata-", "c"),
        ];
        assert!(head(&fields).expect("passed over").metadata.is_empty());
    }

    #[test]
    fn a_timeout_is_a_number_and_a_unit_and_zero_is_none() {
        for bad in ["5x", "5", "S", "1.5S", "99999999999999999999S"] {
            assert_eq!(
                head(&[("grpc-timeout", bad)]).expect_err("refused"),
                format!("invalid grpc-timeout: {bad}")
            );
        }
        assert_eq!(head(&[("grpc-timeout", "0S")]).expect("none").deadline, None);
        assert!(
            head(&[("grpc-timeout", "+123456789012S")]).is_ok_and(|head| head.deadline.is_some())
        );
        assert!(head(&[("grpc-timeout", "-1S")]).is_ok_and(|head| head.is_over));
    }

    #[test]
    fn binary_metadata_is_base64() {
        let refused = head(&[("grpc-metadata-x-bin", "!")]).expect_err("no base64");
        assert_eq!(
            refused,
            "invalid binary header Grpc-Metadata-X-Bin: illegal base64 data at input byte 0"
        );
    }

    /// Lines are `name: value`; what HTTP itself would refuse is passed over.
    #[test]
    fn fuzzed_heads_of_the_gateway_become_requests_or_an_error() {
        let seeds = [
            "grpc-timeout: 20m\ngrpc-metadata-token: abc.17\nauthorization: Bearer t",
            "grpc-timeout: -1S\ngrpc-metadata-x-bin: AAE\ngrpc-metadata-te: x",
        ];
        let words =
            ["\ngrpc-timeout: ", "\ngrpc-metadata-", "-bin: ", "H", "n", "9223372036854775807"];
        let target = etched_fuzz::Target::new(env!("CARGO_MANIFEST_DIR"), "gateway-heads");
        target.seeds(seeds).words(&words).bytes_max(512).run(|input| {
            let mut headers = HeaderMap::new();
            for line in input.split(|byte| *byte == b'\n') {
                let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
                let name = HeaderName::from_bytes(&line[..at]);
                let value = HeaderValue::from_bytes(line[at + 1..].trim_ascii());
                if let (Ok(name), Ok(value)) = (name, value) {
                    headers.append(name, value);
                }
            }
            let nothing = grpc::Incoming::Made(Box::pin(Nothing));
            let request = Head::new(&headers)
                .and_then(|head| head.into_request("etcdserverpb.KV/Range", nothing));
            match request {
                Ok(request) => etched_fuzz::shape(&[1, request.headers().len()]),
                Err(status) => etched_fuzz::outcome(status.message()),
            }
        });
    }

    struct Nothing;

    impl grpc::Source for Nothing {
        fn poll_chunk(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<bytes::Bytes, Status>>> {
            std::task::Poll::Ready(None)
        }
    }
}
