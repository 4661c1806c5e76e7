//! `etcdserverpb.Maintenance.Snapshot`.
//!
//! ```text
//! thread: view, measure, write ──messages──> task: as fast as the client takes, or gives up ──> HTTP/2 stream
//! ```

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use etched_auth::Asked;
use etched_proto::etcdserverpb as pb;
use etched_storage::View;
use http::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::{Code, Status};

use super::{Call, Ending, Stopping};
use crate::auth::Who;
use crate::error::Error;
use crate::grpc::{self, Body, Incoming, Method, Source, push_frame};
use crate::shared::Shared;
use crate::snapshot;

/// Snapshots that are made at a time: each has a thread. More wait for their turn, until their deadline.
pub(crate) const SNAPSHOTS_MAX: usize = 8;
/// Bytes of messages that go over at once, so that not each of them wakes a thread.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that wait for the client.
const CHUNKS: usize = 2;
/// How long a client may take nothing: what it is to get keeps pages of the store's file from being used again.
const IDLE: Duration = Duration::from_secs(60);
/// How long a client may keep a snapshot waiting until the call ends. What it takes gives time back ([`RATE`]), never
/// above this. So one that takes a little every minute keeps the pages for a quarter of an hour, and the
/// waiting for one that takes 8 GiB is 49 minutes at most.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Bytes that give a client another second: a third of what a line of 100 megabits a second carries.
const RATE: u64 = 4 << 20;

/// Some messages in a chunk, and how many.
type Messages = Result<(Bytes, u64), Status>;

/// A chunk without messages: the good end.
const END: (Bytes, u64) = (Bytes::new(), 0);

pub(super) async fn snapshot(call: Call, request: Request<Incoming>, who: Who) -> Response<Body> {
    let open = async {
        let _: pb::SnapshotRequest = call.only_message(request).await?;
        call.shared.require(&who, Asked::Admin)?;
        open(&call.shared).await
    };
    let (view, turn) = match call.in_time(open).await {
        Ok(opened) => opened,
        Err(status) => return call.finish(Err(status)),
    };
    let Call { shared, stopping, encoding, deadline, ending, .. } = call;
    let (to, chunks) = mpsc::channel(CHUNKS);
    let writer = Arc::clone(&shared);
    let work = move || {
        let _turn = turn;
        crate::background::step_back();
        if let Err(status) = send(&writer, &view, &to) {
            // Nobody is there to hear it when the client has gone.
            let _ = to.blocking_send(Err(status));
        }
    };
    if let Err(error) = std::thread::Builder::new().name("snapshot".to_owned()).spawn(work) {
        let status = Status::unknown(error.to_string());
        ending.with(status.code());
        return grpc::error(&status);
    }
    let (out, parts) = mpsc::channel(1);
    tokio::task::spawn_local(pass_on(chunks, out, stopping));
    grpc::stream(Parts { shared, parts, ending, ended: false }, encoding, deadline)
}

/// Everything that was acknowledged, fixed at one index.
async fn open(shared: &Shared) -> Result<(Arc<View>, OwnedSemaphorePermit), Status> {
    let turn = Arc::clone(&shared.snapshots).acquire_owned().await;
    let turn = turn.map_err(|_| Error::Stopped)?;
    // On a full disk it may take for ever.
    let committed = shared.flush.commit_now();
    match tokio::time::timeout(shared.config.request_timeout(), committed).await {
        Ok(committed) => committed.map_err(|_| Error::Stopped)?,
        Err(_) => return Err(Error::Timeout.into()),
    }
    Ok((shared.storage.view(), turn))
}

/// Makes the messages, on a thread of its own.
fn send(shared: &Shared, view: &View, to: &mpsc::Sender<Messages>) -> Result<(), Status> {
    let (started, version) = (Instant::now(), shared.storage_version());
    tracing::info!(storage_version = version, "sending database snapshot to client");
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4);
    let mut messages = 0;
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let written = snapshot::write(view, |part| {
        let (remaining_bytes, blob) = (part.remaining, part.bytes.into());
        let version = version.clone();
        push_frame(
            &pb::SnapshotResponse { header: None, remaining_bytes, blob, version },
            &mut chunk,
        );
        messages += 1;
        if chunk.len() >= CHUNK_BYTES {
            let whole = std::mem::take(&mut chunk).freeze();
            return to.blocking_send(Ok((whole, std::mem::take(&mut messages)))).map_err(gone);
        }
        Ok(())
    });
    let total = written.map_err(|error| Status::unknown(error.to_string()))?;
    for chunk in [(chunk.freeze(), messages), END] {
        to.blocking_send(Ok(chunk)).map_err(|_| Error::Stopped)?;
    }
    shared.metrics.backend_snapshot.observe(started.elapsed().as_secs_f64());
    tracing::info!(
        total_bytes = total,
        took = ?started.elapsed(),
        storage_version = version,
        "successfully sent database snapshot to client"
    );
    Ok(())
}

/// Passes chunks on until the client takes them too slowly or the server ends; the thread then finds its receiver
/// gone. Counted is only how long the client is waited for, not what the making takes.
async fn pass_on(
    mut chunks: mpsc::Receiver<Messages>,
    to: mpsc::Sender<Messages>,
    stopping: Stopping,
) {
    let passing = async {
        let mut patience = PATIENCE;
        while let Some(chunk) = chunks.recv().await {
            let bytes = chunk.as_ref().map_or(0, |(bytes, _)| bytes.len() as u64);
            let asked = tokio::time::Instant::now();
            match tokio::time::timeout(IDLE.min(patience), to.send(chunk)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => {
                    tracing::warn!("a client takes a snapshot too slowly; giving it up");
                    return;
                }
            }
            let earned = Duration::from_micros(bytes * 1_000_000 / RATE);
            patience = (patience.saturating_sub(asked.elapsed()) + earned).min(PATIENCE);
        }
    };
    tokio::select! {
        () = passing => {}
        () = super::stopped(stopping) => {}
        () = to.closed() => {}
    }
}

/// The answer. Whatever ends before [`END`] is an error.
struct Parts {
    shared: Arc<Shared>,
    parts: mpsc::Receiver<Messages>,
    ending: Ending,
    ended: bool,
}

impl Parts {
    fn end(&mut self, status: Option<Status>) -> Poll<Option<Result<Bytes, Status>>> {
        self.ended = true;
        self.ending.code = status.as_ref().map_or(Code::Ok, Status::code);
        Poll::Ready(status.map(Err))
    }
}

impl Source for Parts {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match std::task::ready!(self.parts.poll_recv(cx)) {
            Some(Ok((_, 0))) => self.end(None),
            Some(Ok((chunk, messages))) => {
                self.shared.metrics.sent(Method::Snapshot, messages, chunk.len());
                Poll::Ready(Some(Ok(chunk)))
            }
            Some(Err(status)) => self.end(Some(status)),
            None => self.end(Some(Error::Stopped.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use tokio::task::LocalSet;

    use super::*;

    /// Chunks of 8 GiB.
    const ALL: usize = (8 << 30) / CHUNK_BYTES;

    /// How many chunks a client gets that takes one each `pause`, and how long that lasts.
    async fn taken(pause: impl Fn(usize) -> Duration) -> (usize, Duration) {
        let (from, chunks) = mpsc::channel(CHUNKS);
        let (to, mut parts) = mpsc::channel(1);
        let (_running, stop) = watch::channel(false);
        let chunk = Bytes::from(vec![0; CHUNK_BYTES]);
        tokio::task::spawn_local(pass_on(chunks, to, Stopping::new(stop)));
        tokio::task::spawn_local(async move {
            for _ in 0..ALL {
                if from.send(Ok((chunk.clone(), 8))).await.is_err() {
                    break;
                }
            }
        });
        let (began, mut count) = (tokio::time::Instant::now(), 0);
        while parts.recv().await.is_some() {
            count += 1;
            tokio::time::sleep(pause(count)).await;
        }
        (count, began.elapsed())
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_client_that_takes_a_little_now_and_then_is_given_up_after_a_quarter_of_an_hour() {
        let local = LocalSet::new();
        let seldom = local.run_until(taken(|_| IDLE - Duration::from_secs(1)));
        let (count, lasted) = seldom.await;
        assert!(count < 20 && lasted < PATIENCE + 3 * IDLE, "{count} chunks in {lasted:?}");
        let slow = local.run_until(taken(|_| Duration::from_millis(500)));
        let (count, lasted) = slow.await;
        assert!(count < ALL && lasted < PATIENCE * 5 / 4, "{count} chunks in {lasted:?}");
        // It had much already.
        let late =
            local.run_until(taken(|count| if count < ALL / 2 { Duration::ZERO } else { IDLE / 2 }));
        let (count, lasted) = late.await;
        assert!(count < ALL && lasted < PATIENCE + 3 * IDLE, "{count} chunks in {lasted:?}");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_client_behind_a_slow_link_gets_all_of_a_large_snapshot() {
        let local = LocalSet::new();
        // 10 MB each second, in bursts with long pauses too.
        let even = local.run_until(taken(|_| Duration::from_millis(26)));
        assert_eq!(even.await.0, ALL);
        let burst =
            |count| if count % 1500 == 0 { Duration::from_secs(39) } else { Duration::ZERO };
        assert_eq!(local.run_until(taken(burst)).await.0, ALL);
    }
}
