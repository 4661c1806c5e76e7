//! One peer: its streams, its pipeline, and the tasks that drive them.

use std::sync::Arc;

use etched_proto::raftpb::{Message, MessageType};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::codec::Kind;
use crate::local::{Hex, Local};
use crate::metrics::PeerMetrics;
use crate::outgoing::{Offered, Outgoing, Stream};
use crate::pipeline::PIPELINE_QUEUE_MAX;
use crate::snapshot::SnapshotSource;
use crate::status::Status;
use crate::url::{PeerUrl, Picker};
use crate::{Error, incoming, pipeline, probe, snapshot, wire};

/// What all connections to a peer share.
pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) local: Arc<Local>,
    pub(crate) picker: Picker,
    pub(crate) status: Status,
    pub(crate) metrics: Arc<PeerMetrics>,
}

impl Link {
    fn new(local: &Arc<Local>, id: u64, urls: Vec<PeerUrl>) -> Arc<Self> {
        let metrics = local.metrics.peer(id);
        let status = Status::new(id, Arc::clone(&metrics));
        let (local, picker) = (Arc::clone(local), Picker::new(urls));
        Arc::new(Self { id, local, picker, status, metrics })
    }

    /// A connection to `url` did not do what it was for.
    pub(crate) fn failed(&self, url: &PeerUrl, source: &str, action: &str, error: &Error) {
        self.picker.unreachable(url);
        if matches!(error, Error::Removed) {
            self.local.raft.removed();
        }
        self.status.deactivate(source, action, error);
    }

    /// A message found no room.
    fn dropped(&self, kind: i32) {
        tracing::warn!(
            "message-type" = wire::kind_name(kind),
            "local-member-id" = %Hex(self.local.config.id),
            "remote-peer-id" = %Hex(self.id),
            "remote-peer-active" = self.status.active_since().is_some(),
            "dropped internal Raft message since sending buffer is full"
        );
        self.metrics.sent_failures.add(1);
        self.local.raft.report_unreachable(self.id);
    }
}

/// A member that messages go to and come from.
pub(crate) struct Peer {
    pub(crate) link: Arc<Link>,
    msgapp: Outgoing,
    message: Outgoing,
    pipeline: mpsc::Sender<Message>,
    tasks: Mutex<JoinSet<()>>,
}

impl Peer {
    pub(crate) fn start(local: &Arc<Local>, id: u64, urls: Vec<PeerUrl>) -> Self {
        let link = Link::new(local, id, urls);
        let (pipeline, queue) = mpsc::channel(PIPELINE_QUEUE_MAX);
        let (mut tasks, runtime) = (JoinSet::new(), &local.config.runtime);
        tasks.spawn_on(pipeline::run(Arc::clone(&link), queue), runtime);
        tasks.spawn_on(incoming::run(Arc::clone(&link), Kind::MsgApp), runtime);
        tasks.spawn_on(incoming::run(Arc::clone(&link), Kind::Message), runtime);
        tasks.spawn_on(probe::run(Arc::clone(&link)), runtime);
        Self {
            link,
            msgapp: Outgoing::new(Kind::MsgApp),
            message: Outgoing::new(Kind::Message),
            pipeline,
            tasks: Mutex::new(tasks),
        }
    }

    /// Sends a message on the stream for its kind, on the other, or by itself. Never waits.
    pub(crate) fn send(&self, message: Message) {
        let kind = wire::kind(&message);
        let mut slot = Some(message);
        let mut offered = Offered::Down;
        if kind == MessageType::MsgApp as i32 {
            offered = self.msgapp.offer(&mut slot);
        }
        if offered == Offered::Down {
            offered = self.message.offer(&mut slot);
        }
        let sent = match (offered, slot) {
            (Offered::Queued, _) => true,
            (Offered::Down, Some(message)) => self.pipeline.try_send(message).is_ok(),
            _ => false,
        };
        if !sent {
            self.link.dropped(kind);
        }
    }

    pub(crate) fn send_snapshot(&self, message: Message, source: SnapshotSource) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        let sending = snapshot::send(Arc::clone(&self.link), message, source);
        tasks.spawn_on(sending, &self.link.local.config.runtime);
    }

    /// The peer asks for a stream.
    pub(crate) fn attach(&self, kind: Kind) -> Stream {
        match kind {
            Kind::MsgApp => self.msgapp.attach(&self.link),
            Kind::Message => self.message.attach(&self.link),
        }
    }

    /// Ends everything at once.
    pub(crate) fn stop(&self) {
        self.tasks.lock().abort_all();
        self.msgapp.close();
        self.message.close();
        self.link.status.end();
    }
}

/// A member that this one does not know yet, but which may need an answer to come into touch: it has no streams.
pub(crate) struct Remote {
    link: Arc<Link>,
    pipeline: mpsc::Sender<Message>,
    /// Ends with this.
    _task: JoinSet<()>,
}

impl Remote {
    pub(crate) fn start(local: &Arc<Local>, id: u64, urls: Vec<PeerUrl>) -> Self {
        let link = Link::new(local, id, urls);
        let (pipeline, queue) = mpsc::channel(PIPELINE_QUEUE_MAX);
        let mut task = JoinSet::new();
        task.spawn_on(pipeline::run(Arc::clone(&link), queue), &local.config.runtime);
        Self { link, pipeline, _task: task }
    }

    pub(crate) fn send(&self, message: Message) {
        let kind = wire::kind(&message);
        if self.pipeline.try_send(message).is_err() {
            self.link.dropped(kind);
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.link.status.end();
    }
}
