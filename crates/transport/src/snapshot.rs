//! Databases on their way from a leader to a member that lags: one POST, a message and the bytes behind it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use etched_proto::raftpb::Message;
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::codec::{MessageDecoder, put_message};
use crate::connect::{self, RequestBody, drive};
use crate::local::Hex;
use crate::metrics::PeerMetrics;
use crate::peer::Link;
use crate::url::PeerUrl;
use crate::{DecodeError, Error, wire};

/// Bytes of the message before the database; etcd's. It holds the list of members.
pub const SNAPSHOT_MESSAGE_BYTES_MAX: u64 = 64 << 20;
/// How long a receiver may take nothing, and say nothing: it syncs the database to its disk before it answers.
const IDLE: Duration = Duration::from_secs(5 * 60);

/// How the log calls it.
const NAME: &str = "sendMsgSnap";

/// A database to be sent.
#[derive(Debug)]
pub struct SnapshotSource {
    /// Its bytes, all told.
    pub size: u64,
    /// They, as fast as the receiver takes them; whoever makes them sees from the closed channel that nobody wants more.
    pub chunks: mpsc::Receiver<io::Result<Bytes>>,
}

/// Sends a snapshot and reports how that went, also when the task is ended before it began.
pub(crate) fn send(
    link: Arc<Link>,
    message: Message,
    source: SnapshotSource,
) -> impl Future<Output = ()> + Send {
    let mut outcome = Outcome { link, sent: false };
    async move {
        outcome.sent = send_now(&outcome.link, &message, source).await;
        drop(outcome);
    }
}

/// Tells raft, once.
struct Outcome {
    link: Arc<Link>,
    sent: bool,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        let Link { local, id, metrics, .. } = &*self.link;
        if !self.sent {
            metrics.sent_failures.add(1);
            metrics.snapshot_send.failures.add(1);
            local.raft.report_unreachable(*id);
        }
        local.raft.report_snapshot(*id, self.sent);
    }
}

async fn send_now(link: &Link, message: &Message, source: SnapshotSource) -> bool {
    let (url, began) = (link.picker.pick(), Instant::now());
    let total = source.size.saturating_add(message.encoded_len() as u64);
    let (index, peer) = (snapshot_index(message), Hex(link.id));
    tracing::info!(
        "snapshot-index" = index,
        "remote-peer-id" = %peer,
        bytes = total,
        "sending database snapshot"
    );
    let sending = link.metrics.snapshot_send.inflight.one_more();
    let sent = post(link, &url, message, source).await;
    drop(sending);
    let Err(error) = sent else {
        link.status.activate();
        link.metrics.sent_bytes.add(usize::try_from(total).unwrap_or(usize::MAX));
        link.metrics.snapshot_send.succeeded(began.elapsed());
        tracing::info!(
            "snapshot-index" = index,
            "remote-peer-id" = %peer,
            bytes = total,
            "sent database snapshot"
        );
        return true;
    };
    tracing::warn!(
        "snapshot-index" = index,
        "remote-peer-id" = %peer,
        bytes = total,
        %error,
        "failed to send database snapshot"
    );
    link.failed(&url, NAME, "post", &error);
    false
}

async fn post(
    link: &Link,
    url: &PeerUrl,
    message: &Message,
    source: SnapshotSource,
) -> Result<(), Error> {
    let local = &link.local;
    let (mut sender, connection) = local.config.dialer.dial(url, IDLE).await?;
    let mut head = BytesMut::new();
    put_message(message, &mut head);
    let SnapshotSource { size, chunks } = source;
    let body = connect::Snapshot { head: Some(head.freeze()), chunks, left: size };
    let body = RequestBody::Snapshot(body);
    let request = wire::post(local, url, "/raft/snapshot", "application/octet-stream", body);
    drive(connection, async {
        let response = sender.send_request(request).await?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(()),
            _ => Err(wire::refusal(local, link.id, response).await),
        }
    })
    .await
}

/// The index that a MsgSnap brings its receiver to.
pub(crate) fn snapshot_index(message: &Message) -> Option<u64> {
    message.snapshot.as_ref()?.metadata.as_ref()?.index
}

/// A database that comes in, piece by piece: no more of it is in memory than a piece.
#[derive(Debug)]
pub struct SnapshotBody {
    /// What came along with the message.
    first: Bytes,
    body: Incoming,
    idle: Duration,
    size: Option<u64>,
    metrics: Arc<PeerMetrics>,
}

impl SnapshotBody {
    /// Bytes of the database, when the sender said so; etcd does not.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The next piece, not empty; None when that was all.
    ///
    /// # Errors
    /// The connection broke, or nothing came for the read timeout: what has come so far is no database.
    pub async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        let chunk = match self.first.is_empty() {
            false => Some(std::mem::take(&mut self.first)),
            true => next(&mut self.body, self.idle).await?,
        };
        self.metrics.received_bytes.add(chunk.as_ref().map_or(0, Bytes::len));
        Ok(chunk)
    }
}

/// The next bytes of a body, if any come in time.
pub(crate) async fn next(body: &mut Incoming, idle: Duration) -> io::Result<Option<Bytes>> {
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await;
        let Some(frame) = frame.map_err(|_| io::ErrorKind::TimedOut)? else { return Ok(None) };
        match frame.map_err(io::Error::other)?.into_data() {
            Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
            _ => {}
        }
    }
}

/// Why the message before a database cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Envelope {
    #[error("{}", if *any { "unexpected EOF" } else { "EOF" })]
    End { any: bool },
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Decode(#[from] DecodeError),
}

/// Reads the message; what is left is the database.
pub(crate) async fn receive(
    local: &crate::local::Local,
    mut body: Incoming,
) -> Result<(Message, SnapshotBody), Envelope> {
    let idle = local.config.read_timeout;
    let announced = body.size_hint().exact();
    let mut decoder = MessageDecoder::new(SNAPSHOT_MESSAGE_BYTES_MAX);
    let mut come = 0;
    let message = loop {
        if let Some(message) = decoder.decode()? {
            break message;
        }
        match next(&mut body, idle).await? {
            Some(bytes) => {
                come += bytes.len();
                decoder.extend(&bytes);
            }
            None => return Err(Envelope::End { any: come > 0 }),
        }
    };
    let first = decoder.rest();
    let size = announced.and_then(|all| all.checked_sub((come - first.len()) as u64));
    let metrics = local.metrics.peer(message.from.unwrap_or_default());
    Ok((message, SnapshotBody { first, body, idle, size, metrics }))
}
