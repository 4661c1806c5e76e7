//! Snapshots for members that the log does not reach back for.
//!
//! ```text
//! raft thread: wanted(peer) ──> thread: commit, view ──> raft thread: offer ──> MsgSnap ──> thread: the view as a
//!                                                                            database of etcd's ──> Transport
//! ```
//! The view is fixed at one index and reads on while everything else goes on; what a member gets is made as it is sent.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etched_proto::raftpb::{Message, MessageType};
use etched_storage::View;
use etched_transport::SnapshotSource;
use etched_wal::SnapshotMark;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;

use crate::shared::{Event, Shared};
use crate::snapshot;

/// Parts that wait for the connection.
const PARTS: usize = 8;
/// A view that is older is not offered again: the log may have gone on too far.
const FRESH: Duration = Duration::from_secs(2);
/// A view that nobody has been sent by then is let go: it keeps pages of the store's file from being used again.
const OFFER_MAX: Duration = Duration::from_secs(30);

/// What is prepared for whom.
#[derive(Default)]
pub(crate) struct Laggards {
    prepared: FxHashMap<u64, Prepared>,
}

enum Prepared {
    /// The view is being made.
    Soon,
    /// It waits for its message since then.
    View(Arc<View>, Instant),
}

impl Laggards {
    /// Begins to prepare a view for `peer`, unless that is under way. The mark of one that is there already: raft has
    /// forgotten that it was offered, as it does when the member leads no more.
    pub(crate) fn want(&mut self, shared: &Arc<Shared>, peer: u64) -> Option<SnapshotMark> {
        match self.prepared.get(&peer) {
            Some(Prepared::Soon) => return None,
            Some(Prepared::View(view, since)) if since.elapsed() < FRESH => {
                return Some(mark(view));
            }
            Some(Prepared::View(..)) | None => {}
        }
        let committed = shared.flush.commit_now();
        let made_by = Arc::clone(shared);
        let work = move || {
            let view = committed.blocking_recv().ok().map(|()| made_by.storage.view());
            made_by.inbox.push(Event::SnapshotReady(peer, view));
        };
        match shared.threads.spawn("snapshot", work) {
            Ok(()) => self.prepared.insert(peer, Prepared::Soon),
            Err(_) => self.prepared.remove(&peer),
        };
        None
    }

    /// A view is there, or none could be had; the mark it stands at.
    pub(crate) fn ready(&mut self, peer: u64, view: Option<Arc<View>>) -> Option<SnapshotMark> {
        let mark = view.as_deref().map(mark);
        match view {
            Some(view) => self.prepared.insert(peer, Prepared::View(view, Instant::now())),
            None => self.prepared.remove(&peer),
        };
        mark
    }

    /// Sends what a MsgSnap is about; false when there is nothing for it any more.
    pub(crate) fn send(&mut self, shared: &Arc<Shared>, message: Message) -> bool {
        let to = message.to();
        let index = snapshot_index(&message);
        let Some(Prepared::View(view, _)) = self.prepared.remove(&to) else { return false };
        if index != Some(view.applied().index) {
            return false;
        }
        let sends = Arc::clone(shared);
        shared.threads.spawn("snapshot", move || send(&sends, message, &view)).is_ok()
    }

    /// Lets go of what is prepared for a member that has left.
    pub(crate) fn drop(&mut self, peer: u64) {
        self.prepared.remove(&peer);
    }

    /// Lets go of views that nobody wanted in the end.
    pub(crate) fn forget(&mut self, now: Instant) {
        self.prepared.retain(|_, prepared| match prepared {
            Prepared::Soon => true,
            Prepared::View(_, since) => now.duration_since(*since) < OFFER_MAX,
        });
    }
}

fn mark(view: &View) -> SnapshotMark {
    let (at, conf_state) = (view.applied(), view.conf_state().cloned());
    SnapshotMark { index: at.index, term: at.term, conf_state }
}

/// Whether a message announces a snapshot.
pub(crate) fn is_snapshot(message: &Message) -> bool {
    message.r#type() == MessageType::MsgSnap
}

fn snapshot_index(message: &Message) -> Option<u64> {
    message.snapshot.as_ref()?.metadata.as_ref()?.index
}

/// Makes the database and hands it over, on a thread of its own.
fn send(shared: &Shared, message: Message, view: &View) {
    crate::background::step_back();
    let (to, Some(transport)) = (message.to(), shared.transport.get()) else { return };
    let mut message = Some(message);
    let mut parts: Option<mpsc::Sender<io::Result<Bytes>>> = None;
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let written = snapshot::database(view, |size| {
        let (sender, chunks) = mpsc::channel(PARTS);
        parts = Some(sender.clone());
        if let Some(message) = message.take() {
            transport.send_snapshot(message, SnapshotSource { size, chunks });
        }
        move |part: Vec<u8>| sender.blocking_send(Ok(part.into())).map_err(|_| gone())
    });
    let Err(error) = written else { return };
    tracing::warn!("remote-peer-id" = %format!("{to:x}"), error = %error, "failed to make a snapshot");
    match parts {
        // Cut short: who takes it must not take it for whole.
        Some(sender) => drop(sender.blocking_send(Err(io::Error::other(error.to_string())))),
        None => shared.inbox.push(Event::SnapshotSent(to, false)),
    }
}
