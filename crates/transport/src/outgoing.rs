//! The sending half of a stream: a queue, and the body of the answer to a peer that asked for the stream.
//!
//! ```text
//! send ──try──> queue ──> Stream: encode all that waits ──> HTTP chunk ──> peer
//!   full: lost      └── until a peer comes: down        └── heartbeat when it is time
//! ```
//! A peer that asks again gets a new queue; the old stream ends, and what waited in it is lost and reported: raft
//! sends again what still matters, and a message must not arrive twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use etched_proto::raftpb::Message;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::codec::{Encoder, Kind, link_heartbeat};
use crate::local::Hex;
use crate::peer::Link;

/// Messages that wait in one stream; etcd's. Further ones are lost and reported.
pub const STREAM_QUEUE_MAX: usize = 4096;
/// Bytes of messages that wait in one stream, which shares them with the log. A message that finds none waiting is
/// taken whatever its size. Raft has at most 512 appends of a megabyte on their way to one follower.
pub const STREAM_QUEUE_BYTES_MAX: usize = 512 << 20;
/// Bytes that are put into one chunk, as soon as there are as many.
const CHUNK_BYTES: usize = 256 << 10;

/// Where one kind of messages to a peer goes while it listens.
pub(crate) struct Outgoing {
    kind: Kind,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    queue: Option<Queue>,
    /// For good: a peer that asks at the moment of its removal gets nothing more.
    closed: bool,
}

struct Queue {
    to: mpsc::Sender<Message>,
    bytes: Arc<AtomicUsize>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    Queued,
    /// Too much waits: it is lost.
    Full,
    /// The peer does not listen here: it is still where it was.
    Down,
}

impl Outgoing {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, slot: Mutex::default() }
    }

    /// Takes a message out of `slot` if there is a queue for it; never waits.
    pub(crate) fn offer(&self, slot: &mut Option<Message>) -> Offered {
        let mut listening = self.slot.lock();
        let Some(queue) = &listening.queue else { return Offered::Down };
        let Some(message) = slot.take() else { return Offered::Queued };
        let size = message.encoded_len();
        let waiting = queue.bytes.load(Ordering::Relaxed);
        if waiting > 0 && waiting.saturating_add(size) > STREAM_QUEUE_BYTES_MAX {
            return Offered::Full;
        }
        // Before it is there to be taken out again.
        queue.bytes.fetch_add(size, Ordering::Relaxed);
        match queue.to.try_send(message) {
            Ok(()) => Offered::Queued,
            Err(mpsc::error::TrySendError::Full(_)) => {
                queue.bytes.fetch_sub(size, Ordering::Relaxed);
                Offered::Full
            }
            Err(mpsc::error::TrySendError::Closed(message)) => {
                *slot = Some(message);
                listening.queue = None;
                Offered::Down
            }
        }
    }

    /// A peer listens: what is sent from now on goes to it.
    pub(crate) fn attach(&self, link: &Arc<Link>) -> Stream {
        let (to, queue) = mpsc::channel(STREAM_QUEUE_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        let replaced = self.slot.lock().replace(Queue { to, bytes: Arc::clone(&bytes) });
        link.status.activate();
        let (local, peer) = (link.local.config.id, link.id);
        if replaced.is_some_and(|queue| !queue.to.is_closed()) {
            tracing::warn!(
                "stream-writer-type" = self.kind.name(),
                "local-member-id" = %Hex(local),
                "remote-peer-id" = %Hex(peer),
                "closed TCP streaming connection with remote peer"
            );
        }
        tracing::info!(
            "stream-writer-type" = self.kind.name(),
            "local-member-id" = %Hex(local),
            "remote-peer-id" = %Hex(peer),
            "established TCP streaming connection with remote peer"
        );
        let period = link.local.config.read_timeout / 3;
        let mut heartbeat = tokio::time::interval_at(Instant::now() + period, period);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (kind, link) = (self.kind, Arc::clone(link));
        Stream { kind, link, queue, bytes, encoder: Encoder::new(kind), heartbeat }
    }

    /// Ends the stream, if there is one, for good.
    pub(crate) fn close(&self) {
        *self.slot.lock() = Slot { queue: None, closed: true };
    }
}

impl Slot {
    /// Puts a queue in the place of another. A closed slot keeps none, and a stream without one has ended.
    fn replace(&mut self, queue: Queue) -> Option<Queue> {
        std::mem::replace(&mut self.queue, (!self.closed).then_some(queue))
    }
}

/// What a peer reads. It ends when another takes its place or the peer is removed.
pub(crate) struct Stream {
    kind: Kind,
    link: Arc<Link>,
    queue: mpsc::Receiver<Message>,
    bytes: Arc<AtomicUsize>,
    encoder: Encoder,
    heartbeat: Interval,
}

impl Stream {
    /// Everything that is due, as one chunk; None is the end.
    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.queue.is_closed() {
            return Poll::Ready(None);
        }
        let (mut chunk, mut sent) = (BytesMut::new(), 0);
        while chunk.len() < CHUNK_BYTES {
            match self.queue.poll_recv(cx) {
                Poll::Ready(Some(message)) => {
                    let size = message.encoded_len();
                    self.bytes.fetch_sub(size, Ordering::Relaxed);
                    sent += size;
                    self.encoder.encode(&message, &mut chunk);
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        if self.heartbeat.poll_tick(cx).is_ready() {
            let beat = link_heartbeat();
            sent += beat.encoded_len();
            self.encoder.encode(&beat, &mut chunk);
        }
        if chunk.is_empty() {
            return Poll::Pending;
        }
        self.link.metrics.sent_bytes.add(sent);
        Poll::Ready(Some(chunk.freeze()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let link = &self.link;
        if !self.queue.is_empty() {
            link.local.raft.report_unreachable(link.id);
        }
        if self.queue.is_closed() {
            return;
        }
        link.status.deactivate(self.kind.name(), "write", &"the connection is closed");
        link.metrics.sent_failures.add(1);
        tracing::warn!(
            "stream-writer-type" = self.kind.name(),
            "local-member-id" = %Hex(link.local.config.id),
            "remote-peer-id" = %Hex(link.id),
            "lost TCP streaming connection with remote peer"
        );
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} to {:x}", self.kind.name(), self.link.id)
    }
}
