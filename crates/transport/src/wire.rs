//! What every request between members carries, and what its refusals mean.

use etched_proto::raftpb::{Message, MessageType};
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use crate::Error;
use crate::connect::RequestBody;
use crate::local::{Hex, Local, hex};
use crate::url::PeerUrl;

pub(crate) const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
pub(crate) const SERVER_FROM: HeaderName = HeaderName::from_static("x-server-from");
pub(crate) const SERVER_VERSION: HeaderName = HeaderName::from_static("x-server-version");
pub(crate) const MIN_CLUSTER_VERSION: HeaderName = HeaderName::from_static("x-min-cluster-version");
pub(crate) const PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");
pub(crate) const RAFT_TO: HeaderName = HeaderName::from_static("x-raft-to");

/// Bytes of an answer's body that are looked at: it is a sentence.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// The oldest version of a cluster that this member can be in.
const MIN_CLUSTER: &str = "3.0.0";
const MIN: Version = Version { major: 3, minor: 0 };
/// Of a peer that does not say its version.
const SILENT: Version = Version { major: 2, minor: 0 };

/// Refusals that a peer reads: see [`refusal`].
pub(crate) const INCOMPATIBLE: &str = "incompatible version";
pub(crate) const MISMATCH: &str = "cluster ID mismatch";

/// A version, as far as compatibility looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: u64,
    minor: u64,
}

impl Version {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let mut number = || {
            let digits = parts.next()?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
        };
        let version = Self { major: number()?, minor: number()? };
        let patch = parts.next()?.split(['-', '+']).next()?;
        patch.parse::<u64>().is_ok().then_some(version)
    }
}

/// Whether a sender is of this cluster and of a version that can be in it; else what it is told.
pub(crate) fn check(local: &Local, headers: &HeaderMap) -> Result<(), &'static str> {
    let from = text(headers, &SERVER_FROM);
    let server = version(headers, &SERVER_VERSION);
    let min_cluster = version(headers, &MIN_CLUSTER_VERSION);
    let compatible = server.is_some_and(|server| server >= MIN)
        && min_cluster.is_some_and(|min_cluster| min_cluster <= local.version);
    if !compatible {
        tracing::warn!(
            "local-member-id" = %Hex(local.config.id),
            "local-member-server-version" = local.config.version,
            "local-member-server-minimum-cluster-version" = MIN_CLUSTER,
            "remote-peer-server-name" = from,
            "remote-peer-server-version" = text(headers, &SERVER_VERSION),
            "remote-peer-server-minimum-cluster-version" = text(headers, &MIN_CLUSTER_VERSION),
            "failed version compatibility check"
        );
        return Err(INCOMPATIBLE);
    }
    if headers.get(&CLUSTER_ID) != Some(&local.headers.cluster_id) {
        tracing::warn!(
            "local-member-id" = %Hex(local.config.id),
            "local-member-cluster-id" = %Hex(local.config.cluster_id),
            "remote-peer-server-name" = from,
            "remote-peer-cluster-id" = text(headers, &CLUSTER_ID),
            "request cluster ID mismatch"
        );
        return Err(MISMATCH);
    }
    Ok(())
}

/// None: what is there is no version.
fn version(headers: &HeaderMap, name: &HeaderName) -> Option<Version> {
    match text(headers, name) {
        "" => Some(SILENT),
        version => Version::parse(version),
    }
}

/// A header's text; empty when there is none.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// An id as etcd reads it: hex digits, nothing else.
pub(crate) fn parse_id(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// The request for a stream from `peer`.
pub(crate) fn get(local: &Local, url: &PeerUrl, path: &str, peer: u64) -> Request<RequestBody> {
    let mut request = request(local, url, Method::GET, path, RequestBody::Empty);
    request.headers_mut().insert(RAFT_TO, hex(peer));
    request
}

/// A request that carries messages.
pub(crate) fn post(
    local: &Local,
    url: &PeerUrl,
    path: &str,
    kind: &'static str,
    body: RequestBody,
) -> Request<RequestBody> {
    let mut request = request(local, url, Method::POST, path, body);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    request
}

fn request(
    local: &Local,
    url: &PeerUrl,
    method: Method,
    path: &str,
    body: RequestBody,
) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().expect("a path of ours");
    let headers = request.headers_mut();
    headers.insert(HOST, url.authority.clone());
    headers.insert(SERVER_FROM, local.headers.id.clone());
    headers.insert(SERVER_VERSION, local.headers.version.clone());
    headers.insert(MIN_CLUSTER_VERSION, HeaderValue::from_static(MIN_CLUSTER));
    headers.insert(CLUSTER_ID, local.headers.cluster_id.clone());
    if let Some(urls) = &local.headers.urls {
        headers.insert(PEER_URLS, urls.clone());
    }
    request
}

/// What a peer means that does not do what it was asked.
pub(crate) async fn refusal(local: &Local, peer: u64, response: Response<Incoming>) -> Error {
    let status = response.status();
    match status {
        StatusCode::GONE | StatusCode::FORBIDDEN => Error::Removed,
        StatusCode::NOT_FOUND => Error::Unknown { peer, local: local.config.id },
        StatusCode::PRECONDITION_FAILED => {
            let theirs = text(response.headers(), &CLUSTER_ID).to_owned();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            precondition(local, peer, &theirs, String::from_utf8_lossy(&body).trim_end())
        }
        other => Error::Status(other),
    }
}

fn precondition(local: &Local, peer: u64, theirs: &str, body: &str) -> Error {
    match body {
        INCOMPATIBLE => {
            tracing::warn!(
                "local-member-id" = %Hex(local.config.id),
                "remote-peer-id" = %Hex(peer),
                "request sent was ignored by remote peer due to server version incompatibility"
            );
            Error::IncompatibleVersion
        }
        MISMATCH => {
            tracing::warn!(
                "remote-peer-id" = %Hex(peer),
                "remote-peer-cluster-id" = theirs,
                "local-member-id" = %Hex(local.config.id),
                "local-member-cluster-id" = %Hex(local.config.cluster_id),
                "request sent was ignored by remote peer due to cluster ID mismatch"
            );
            Error::ClusterIdMismatch
        }
        other => Error::Precondition(other.to_owned()),
    }
}

/// The kind of a message; one without a type is MsgHup, as protobuf has it.
pub(crate) fn kind(message: &Message) -> i32 {
    message.r#type.unwrap_or_default()
}

/// The name of that kind, for the log.
pub(crate) fn kind_name(kind: i32) -> &'static str {
    MessageType::try_from(kind).map_or("unknown", |kind| kind.as_str_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_major_and_minor() {
        let version = |text| Version::parse(text).unwrap();
        assert_eq!(version("3.7.1"), version("3.7.0-rc.1+git"));
        assert!(version("3.6.16") < version("3.7.0") && version("3.7.0") < version("3.10.0"));
        for bad in ["", "3", "3.7", "3.x.1", "3.7.x", "+3.7.1", "3..1", "v3.7.1"] {
            assert_eq!(Version::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn ids_are_hex_digits_and_nothing_else() {
        assert_eq!(parse_id("8E9e05c52164694d"), Some(0x8e9e_05c5_2164_694d));
        for bad in ["", "+1", "0x1", "1_0", "10000000000000000", "g"] {
            assert_eq!(parse_id(bad), None, "{bad:?}");
        }
    }
}
