//! What a member answers to its peers below `/raft`, with etcd's order of checks, statuses and texts.

#![allow(
    clippy::result_large_err,
    reason = "an answer that comes early is moved up two callers at most"
)]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use etched_proto::raftpb::MessageType;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::codec::{Kind, MESSAGE_BYTES_MAX, parse_message};
use crate::local::Hex;
use crate::outgoing::Stream;
use crate::peer::Peer;
use crate::{Refused, SnapshotRefused, Transport, probe, snapshot, wire};

/// Bytes of all messages that are coming in by POST at one moment. One that would go beyond is refused as unreadable;
/// small ones are not counted, so that votes come through.
pub const POSTED_BYTES_MAX: u64 = 1 << 30;
const SMALL_BYTES: u64 = 64 << 10;

/// Everything this module answers.
const PREFIX: &str = "/raft";
const STREAMS: &str = "/raft/stream/";

/// Body of an answer; it never fails.
#[derive(Debug)]
pub enum Body {
    /// What is there at once.
    Full(Option<Bytes>),
    /// Messages as they come.
    Stream(Box<RaftStream>),
}

/// A stream of messages to a peer.
#[derive(Debug)]
pub struct RaftStream(Stream);

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let chunk = match self.get_mut() {
            Self::Full(bytes) => bytes.take(),
            Self::Stream(stream) => ready!(stream.0.poll_chunk(cx)),
        };
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// What one body has of [`POSTED_BYTES_MAX`].
struct Share<'a> {
    of: &'a AtomicU64,
    bytes: u64,
}

impl Share<'_> {
    /// Whether it is, or can be made, as large as a body.
    fn covers(&mut self, size: u64) -> bool {
        let more = size.saturating_sub(SMALL_BYTES).saturating_sub(self.bytes);
        self.bytes += more;
        self.of.fetch_add(more, Ordering::Relaxed) + more <= POSTED_BYTES_MAX
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A request that is not done; becomes its answer.
type Answer = Result<Response<Body>, Response<Body>>;

impl Transport {
    /// Whether [`Self::serve`] is who answers a path.
    pub fn serves(path: &str) -> bool {
        path.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Answers a request of a peer, which came from `remote` (for metrics). HTTP/1.1: the body of a stream's
    /// answer is written as messages come, and lives until the peer hangs up or is removed.
    ///
    /// Connections should be wrapped in [`Idle::for_writes`](crate::Idle::for_writes), so that a peer that takes
    /// nothing any more is given up.
    pub async fn serve(&self, remote: &str, request: Request<Incoming>) -> Response<Body> {
        let answer = match request.uri().path() {
            "/raft" => self.take_message(remote, request).await,
            "/raft/snapshot" => self.take_snapshot(remote, request).await,
            probe::PATH => Ok(probed()),
            "/raft/stream" => Ok(to_streams(request.method())),
            path if path.starts_with(STREAMS) => self.open_stream(&request),
            _ => Ok(text(StatusCode::NOT_FOUND, "404 page not found")),
        };
        answer.unwrap_or_else(|refused| refused)
    }

    async fn take_message(&self, remote: &str, request: Request<Incoming>) -> Answer {
        self.check(&request, Method::POST)?;
        self.remember(request.headers());
        let bad = |reason| {
            self.metrics().count_bad_request(remote);
            self.of_cluster(text(StatusCode::BAD_REQUEST, reason))
        };
        let body = self.read(request.into_body()).await.ok_or("error reading raft message");
        let (body, _share) = body.map_err(bad)?;
        let size = body.len();
        let message = parse_message(body).map_err(|error| {
            tracing::warn!(
                "local-member-id" = %Hex(self.local.config.id),
                %error,
                "failed to unmarshal Raft message"
            );
            bad("error unmarshalling raft message")
        })?;
        let from = message.from.unwrap_or_default();
        self.metrics().peer(from).received_bytes.add(size);
        self.local.process(message).map_err(|error| {
            tracing::warn!(
                "local-member-id" = %Hex(self.local.config.id),
                %error,
                "failed to process Raft message"
            );
            if error == Refused::Full {
                self.metrics().peer(from).received_failures.add(1);
            }
            self.of_cluster(not_processed())
        })?;
        Ok(self.of_cluster(done()))
    }

    /// A whole body of bounded size that keeps coming, and its share of what all bodies may have.
    async fn read(&self, mut body: Incoming) -> Option<(Bytes, Share<'_>)> {
        let (mut whole, mut share) = (BytesMut::new(), Share { of: &self.posted, bytes: 0 });
        while let Some(bytes) =
            snapshot::next(&mut body, self.local.config.read_timeout).await.ok()?
        {
            let size = (whole.len() + bytes.len()) as u64;
            if size > MESSAGE_BYTES_MAX || !share.covers(size) {
                return None;
            }
            whole.extend_from_slice(&bytes);
        }
        Some((whole.freeze(), share))
    }

    async fn take_snapshot(&self, remote: &str, request: Request<Incoming>) -> Answer {
        let began = Instant::now();
        self.check(&request, Method::POST)
            .inspect_err(|_| self.metrics().unknown_snapshots.add(1))?;
        self.remember(request.headers());
        let received = snapshot::receive(&self.local, request.into_body()).await;
        let (message, body) = received.map_err(|error| {
            self.metrics().count_bad_request(remote);
            let reason = format!("failed to decode raft message ({error})");
            self.refuse_snapshot(0, StatusCode::BAD_REQUEST, &reason)
        })?;
        let from = message.from.unwrap_or_default();
        let metrics = self.metrics().peer(from);
        metrics.received_bytes.add(prost::Message::encoded_len(&message));
        let index = snapshot::snapshot_index(&message);
        if wire::kind(&message) != MessageType::MsgSnap as i32 || index.is_none() {
            let reason = "wrong raft message type";
            return Err(self.refuse_snapshot(from, StatusCode::BAD_REQUEST, reason));
        }
        let _receiving = metrics.snapshot_receive.inflight.one_more();
        let said = |what: &str| {
            tracing::info!(
                "local-member-id" = %Hex(self.local.config.id),
                "remote-snapshot-sender-id" = %Hex(from),
                "incoming-snapshot-index" = index,
                took = ?began.elapsed(),
                "{what}"
            );
        };
        said("receiving database snapshot");
        let taken = match self.local.check(&message) {
            Ok(()) => self.local.raft.receive_snapshot(message, body).await,
            Err(refused) => Err(SnapshotRefused::Process(refused.to_string())),
        };
        taken.map_err(|error| {
            self.refuse_snapshot(from, StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
        })?;
        metrics.snapshot_receive.succeeded(began.elapsed());
        said("received and saved database snapshot");
        Ok(self.of_cluster(done()))
    }

    fn refuse_snapshot(&self, from: u64, status: StatusCode, reason: &str) -> Response<Body> {
        self.metrics().peer(from).snapshot_receive.failures.add(1);
        tracing::warn!(
            "local-member-id" = %Hex(self.local.config.id),
            "remote-snapshot-sender-id" = %Hex(from),
            error = reason,
            "failed to receive a database snapshot"
        );
        self.of_cluster(text(status, reason))
    }

    fn open_stream(&self, request: &Request<Incoming>) -> Answer {
        let of_member = |mut answer: Response<Body>| {
            let version = self.local.headers.version.clone();
            answer.headers_mut().insert(wire::SERVER_VERSION, version);
            self.of_cluster(answer)
        };
        if let Err(refused) = self.check(request, Method::GET) {
            return Err(match refused.status() {
                StatusCode::METHOD_NOT_ALLOWED => refused,
                _ => of_member(refused),
            });
        }
        match self.find_stream(request) {
            Ok((peer, kind)) => {
                let stream = Box::new(RaftStream(peer.attach(kind)));
                Ok(of_member(Response::new(Body::Stream(stream))))
            }
            Err((status, reason)) => Err(of_member(text(status, reason))),
        }
    }

    /// Which stream to whom is asked for; else what the sender is told.
    fn find_stream(
        &self,
        request: &Request<Incoming>,
    ) -> Result<(Arc<Peer>, Kind), (StatusCode, &'static str)> {
        let (folder, id) = request.uri().path().rsplit_once('/').unwrap_or_default();
        let kind = [Kind::MsgApp, Kind::Message]
            .into_iter()
            .find(|kind| folder.strip_prefix(STREAMS) == Some(kind.path()))
            .ok_or((StatusCode::NOT_FOUND, "invalid path"))?;
        let from = wire::parse_id(id).ok_or((StatusCode::NOT_FOUND, "invalid from"))?;
        let refuse = |status, reason, to: &str| {
            tracing::warn!(
                "local-member-id" = %Hex(self.local.config.id),
                "remote-peer-id-from" = %Hex(from),
                "remote-peer-id-header" = to,
                reason,
                "refused a stream to a remote peer"
            );
            Err((status, reason))
        };
        let to = wire::text(request.headers(), &wire::RAFT_TO);
        if self.local.raft.is_id_removed(from) {
            return refuse(StatusCode::GONE, "removed member", to);
        }
        let Some(peer) = self.peer(from) else {
            self.remember_as(from, request.headers());
            return refuse(StatusCode::NOT_FOUND, "error sender not found", to);
        };
        if to != Hex(self.local.config.id).to_string() {
            return refuse(StatusCode::PRECONDITION_FAILED, "to field mismatch", to);
        }
        Ok((peer, kind))
    }

    /// The method, the versions and the cluster.
    fn check(&self, request: &Request<Incoming>, method: Method) -> Result<(), Response<Body>> {
        if request.method() != method {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
            let allowed = HeaderValue::from_str(method.as_str()).expect("a method's name");
            refused.headers_mut().insert(ALLOW, allowed);
            return Err(refused);
        }
        wire::check(&self.local, request.headers())
            .map_err(|reason| self.of_cluster(text(StatusCode::PRECONDITION_FAILED, reason)))
    }

    /// A sender that says where it is can be answered before its membership is known here.
    fn remember(&self, headers: &HeaderMap) {
        if let Some(from) = wire::parse_id(wire::text(headers, &wire::SERVER_FROM)) {
            self.remember_as(from, headers);
        }
    }

    fn remember_as(&self, from: u64, headers: &HeaderMap) {
        let urls = wire::text(headers, &wire::PEER_URLS);
        // One that has left must not take the place of one that comes.
        if urls.is_empty() || self.local.raft.is_id_removed(from) {
            return;
        }
        let urls: Vec<&str> = urls.split(',').collect();
        if let Err(error) = self.add_remote(from, &urls) {
            tracing::warn!("remote-peer-id" = %Hex(from), %error, "a sender has no usable peer URLs");
        }
    }

    fn of_cluster(&self, mut answer: Response<Body>) -> Response<Body> {
        let id = self.local.headers.cluster_id.clone();
        answer.headers_mut().insert(wire::CLUSTER_ID, id);
        answer
    }
}

fn done() -> Response<Body> {
    let mut answer = Response::new(Body::Full(None));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// etcd drops the connection here, so that nothing more comes over it. A removed member gets the same: the 403 that
/// etcd has for it is never sent by 3.7.1, which looks for an interface that its error does not have.
fn not_processed() -> Response<Body> {
    let mut answer = text(StatusCode::INTERNAL_SERVER_ERROR, "error processing raft message");
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn probed() -> Response<Body> {
    let mut answer = Response::new(Body::Full(Some(probe::answer().into())));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer
}

/// Go's answer to the name of a folder without its slash.
fn to_streams(method: &Method) -> Response<Body> {
    let mut answer = Response::new(Body::Full(None));
    if matches!(*method, Method::GET | Method::HEAD) {
        let link = "<a href=\"/raft/stream/\">Temporary Redirect</a>.\n\n";
        *answer.body_mut() = Body::Full(Some(Bytes::from_static(link.as_bytes())));
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        answer.headers_mut().insert(CONTENT_TYPE, html);
    }
    *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    answer.headers_mut().insert(LOCATION, HeaderValue::from_static(STREAMS));
    answer
}

/// A plain text answer as Go's helper makes it.
fn text(status: StatusCode, reason: &str) -> Response<Body> {
    let mut answer = Response::new(Body::Full(Some(Bytes::from(format!("{reason}\n")))));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_what_all_may_have_and_give_it_back() {
        let all = AtomicU64::new(0);
        let mut large = Share { of: &all, bytes: 0 };
        assert!(large.covers(SMALL_BYTES) && all.load(Ordering::Relaxed) == 0);
        assert!(large.covers(SMALL_BYTES + 10) && large.covers(SMALL_BYTES + POSTED_BYTES_MAX));
        let mut other = Share { of: &all, bytes: 0 };
        assert!(other.covers(SMALL_BYTES), "a small one is always taken");
        assert!(!other.covers(SMALL_BYTES + 1));
        drop(large);
        assert!(other.covers(SMALL_BYTES + 1));
        drop(other);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
