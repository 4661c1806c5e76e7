//! `etcdserverpb.Watch`.
//!
//! ```text
//! requests ──> task: create, cancel, progress ──> Stream (hub) ──poll_replies──> body of the answer
//! ```
//! All answers come out of the stream's one queue. The task that takes requests waits while that queue is full of
//! answers to earlier ones, so a client that only asks cannot fill the memory.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use etched_auth::Asked;
use etched_mvcc::watch::{Limits, Stream};
use etched_proto::etcdserverpb as pb;
use etched_proto::raw::WatchReply;
use http::{Request, Response};
use pb::watch_request::RequestUnion;
use tokio::task::JoinHandle;
use tonic::Status;

use super::{Call, Ending, decode_streamed};
use crate::auth::Who;
use crate::error::Error;
use crate::grpc::{self, Body, Incoming, MessageReader, Method, Source, push_frame};
use crate::lane;
use crate::shared::Shared;

/// Bytes that may wait for a slow client before its watchers read from the store instead.
const OUTBOX_BYTES: usize = 1 << 20;
/// Bytes that go to the connection as one chunk.
const CHUNK_BYTES: usize = 64 << 10;

pub(super) fn watch(call: Call, request: Request<Incoming>, who: Who) -> Response<Body> {
    let shared = Arc::clone(&call.shared);
    let stream = Arc::new(shared.hub.open_stream(Limits {
        outbox_bytes: OUTBOX_BYTES,
        fragment_bytes: shared.config.message_limit(),
        group: lane::current(),
    }));
    let reader = call.reader(request);
    let requests = take_requests(Arc::clone(&shared), who, reader, Arc::clone(&stream));
    let ticker = tick(Arc::clone(&shared), Arc::clone(&stream));
    let (encoding, deadline) = (call.encoding, call.deadline);
    let replies = Replies {
        shared,
        stream,
        requests: tokio::task::spawn_local(requests),
        ticker: tokio::task::spawn_local(ticker),
        requests_ended: false,
        replies: Vec::new(),
        ending: call.ending,
    };
    grpc::stream(replies, encoding, deadline)
}

/// Serves the client's requests; the good end of them does not end the stream.
async fn take_requests(
    shared: Arc<Shared>,
    who: Who,
    mut reader: MessageReader,
    stream: Arc<Stream>,
) -> Result<(), Status> {
    while let Some(body) = reader.next().await? {
        shared.metrics.received(Method::Watch, body.len());
        let request: pb::WatchRequest = decode_streamed(Method::Watch, body)?;
        poll_fn(|cx| stream.poll_room(cx)).await;
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                if let Err(refused) = may_watch(&shared, &who, &create).await {
                    stream.refuse(&refusal(refused));
                    continue;
                }
                // A refusal is answered on the stream.
                let _ = stream.create(&create);
            }
            Some(RequestUnion::CancelRequest(cancel)) => {
                stream.cancel(cancel.watch_id);
            }
            Some(RequestUnion::ProgressRequest(_)) => stream.progress(),
            None => {}
        }
    }
    Ok(())
}

/// Whether who asks may watch these keys; it is looked at once, when the watch begins. A start before all revisions
/// is refused for that first, as in etcd.
async fn may_watch(
    shared: &Shared,
    who: &Who,
    create: &pb::WatchCreateRequest,
) -> Result<(), Error> {
    if shared.auth.is_enabled() && create.start_revision >= 0 {
        shared.require(who, Asked::Watch(create))?;
    }
    Ok(())
}

/// A refusal as etcd's clients read it: the text of a gRPC status of Go.
fn refusal(error: Error) -> String {
    let (code, text) = error.status();
    format!("rpc error: code = {code:?} desc = {text}")
}

/// The stream's own clock for progress; up to a tenth later each time, so that streams do not all speak at once.
async fn tick(shared: Arc<Shared>, stream: Arc<Stream>) {
    let interval = shared.config.watch_progress_interval;
    let jitter = interval / 10 * (shared.ids.next() % 11) as u32 / 10;
    let mut ticker = tokio::time::interval(interval + jitter);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticker.tick().await;
    loop {
        ticker.tick().await;
        let started = Instant::now();
        stream.progress_tick();
        shared.metrics.watch_progress.observe(started.elapsed().as_secs_f64());
    }
}

struct Replies {
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    requests: JoinHandle<Result<(), Status>>,
    ticker: JoinHandle<()>,
    requests_ended: bool,
    replies: Vec<WatchReply>,
    ending: Ending,
}

impl Source for Replies {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        let this = &mut *self;
        if let Some(status) = this.poll_requests(cx) {
            this.shared.metrics.stream_failed("receive", "watch");
            this.ending.code = status.code();
            return Poll::Ready(Some(Err(status)));
        }
        let header = this.shared.header(0);
        match this.stream.poll_replies(cx, &header, CHUNK_BYTES, &mut this.replies) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(true) => Poll::Ready(Some(Ok(this.encode()))),
            // The hub closes streams only when the server ends.
            Poll::Ready(false) => {
                let status = Status::from(Error::Stopped);
                this.ending.code = status.code();
                Poll::Ready(Some(Err(status)))
            }
        }
    }
}

impl Replies {
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Option<Status> {
        if self.requests_ended {
            return None;
        }
        match Pin::new(&mut self.requests).poll(cx) {
            Poll::Pending => None,
            Poll::Ready(Ok(Ok(()))) => {
                self.requests_ended = true;
                None
            }
            Poll::Ready(Ok(Err(status))) => Some(status),
            Poll::Ready(Err(_)) => Some(Error::Stopped.into()),
        }
    }

    fn encode(&mut self) -> Bytes {
        let started = Instant::now();
        let mut out = BytesMut::new();
        let (count, mut events) = (self.replies.len() as u64, 0);
        for reply in self.replies.drain(..) {
            events += reply.events.len();
            push_frame(&reply, &mut out);
        }
        self.time(started.elapsed().as_secs_f64(), events);
        self.shared.metrics.sent(Method::Watch, count, out.len());
        out.freeze()
    }
}

impl Replies {
    /// Counts the time that a chunk with so many events took.
    fn time(&self, seconds: f64, events: usize) {
        let metrics = &self.shared.metrics;
        if events == 0 {
            metrics.watch_control.observe(seconds);
        } else {
            metrics.watch_events.observe(seconds);
            metrics.watch_per_event.observe(seconds / events as f64);
        }
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.requests.abort();
        self.ticker.abort();
    }
}
