//! Between the transport and the raft thread.
//!
//! ```text
//! Transport ── process, report_* ──> Inbox ──> raft thread ── messages ──> Transport
//! ```
//! The transport's threads only put events in; what raft makes of them, the raft thread decides.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use etched_proto::raftpb::Message;
use etched_transport::{
    Config as TransportConfig, Raft, Refused, SnapshotBody, SnapshotRefused, Transport,
};
use prost::Message as _;
use tokio::runtime::Handle;

use crate::StartError;
use crate::boot::Paths;
use crate::cluster::Member;
use crate::laggards;
use crate::received;
use crate::shared::{Event, Shared};

/// Messages of other members that may wait for the raft thread; further ones are dropped, and sent again.
const WAITING_MAX: usize = 16 << 10;
/// Bytes that they may have.
const WAITING_BYTES_MAX: usize = 256 << 20;

/// Why nothing is taken any more.
const STOPPING: &str = "the server is stopping";
/// What a snapshot must not be.
const WITHOUT_DATABASE: &str = "a snapshot comes with its database";

/// What of other members' messages waits.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Incoming {
    /// Takes a message in, unless too much waits.
    fn enters(&self, message: &Message) -> bool {
        let bytes = message.encoded_len();
        let is_full = self.messages.load(Ordering::Relaxed) >= WAITING_MAX
            || self.bytes.load(Ordering::Relaxed).saturating_add(bytes) > WAITING_BYTES_MAX;
        if !is_full {
            self.messages.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        !is_full
    }

    /// The raft thread has it.
    pub(crate) fn leaves(&self, message: &Message) {
        self.messages.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(message.encoded_len(), Ordering::Relaxed);
    }
}

/// The raft thread, as the transport sees it.
struct RaftThread {
    /// Weak: the shared parts hold the transport, which holds this.
    shared: Weak<Shared>,
}

impl RaftThread {
    /// Puts a message into the inbox, if there is room.
    fn enter(&self, message: Message) -> Result<(), Refused> {
        let gone = || Refused::Because(STOPPING.to_owned());
        let shared = self.shared.upgrade().ok_or_else(gone)?;
        if !shared.incoming.enters(&message) {
            return Err(Refused::Full);
        }
        shared.inbox.push(Event::Message(Box::new(message)));
        Ok(())
    }

    fn tell(&self, event: Event) {
        if let Some(shared) = self.shared.upgrade() {
            shared.inbox.push(event);
        }
    }
}

impl Raft for RaftThread {
    fn process(&self, message: Message) -> Result<(), Refused> {
        if laggards::is_snapshot(&message) {
            // The log would get a mark that nothing here stands at, and no start would come past it.
            return Err(Refused::Because(WITHOUT_DATABASE.to_owned()));
        }
        self.enter(message)
    }

    fn is_id_removed(&self, id: u64) -> bool {
        self.shared.upgrade().is_some_and(|shared| shared.cluster.read().removed.contains(&id))
    }

    fn report_unreachable(&self, id: u64) {
        self.tell(Event::Unreachable(id));
    }

    fn report_snapshot(&self, id: u64, sent: bool) {
        self.tell(Event::SnapshotSent(id, sent));
    }

    fn removed(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.leave();
        }
    }

    fn receive_snapshot(
        &self,
        message: Message,
        database: SnapshotBody,
    ) -> Pin<Box<dyn Future<Output = Result<(), SnapshotRefused>> + Send + '_>> {
        Box::pin(async move {
            let shared = self.shared.upgrade();
            let shared = shared.ok_or_else(|| SnapshotRefused::Save(STOPPING.to_owned()))?;
            let snapshot = message.snapshot.as_ref();
            let metadata = snapshot.and_then(|snapshot| snapshot.metadata.as_ref());
            let index = metadata.map_or(0, |metadata| metadata.index());
            let paths = Paths::of(&shared.config);
            let folder = paths.store.parent().unwrap_or(&paths.member).to_owned();
            received::keep(&shared.threads, folder, index, database)
                .await
                .map_err(|error| SnapshotRefused::Save(error.to_string()))?;
            tracing::info!("snapshot-index" = index, "received and saved database snapshot");
            self.enter(message).map_err(|refused| SnapshotRefused::Process(refused.to_string()))
        })
    }
}

/// Connects to the other members; `remotes` are those of a cluster that is about to be joined. What it does runs on
/// `runtime`.
///
/// # Errors
/// [`StartError::Bootstrap`]: a peer URL is none.
pub(crate) fn connect(
    shared: &Arc<Shared>,
    remotes: &[Member],
    runtime: Handle,
) -> Result<(), StartError> {
    let config = &shared.config;
    let transport = TransportConfig {
        id: shared.member_id,
        cluster_id: shared.cluster_id,
        urls: config.advertise_peer_urls.clone(),
        version: crate::ETCD_VERSION,
        dialer: shared.dial.0.clone(),
        read_timeout: config.raft_read_timeout,
        write_timeout: config.raft_write_timeout,
        runtime,
    };
    let bad = |error: etched_transport::Error| StartError::Bootstrap(error.to_string());
    let raft = Arc::new(RaftThread { shared: Arc::downgrade(shared) });
    let transport = Transport::new(transport, raft).map_err(bad)?;
    for remote in remotes {
        transport.add_remote(remote.id, &remote.peer_urls).map_err(bad)?;
    }
    let members: Vec<Member> = shared.cluster.read().members.values().cloned().collect();
    for member in members.iter().filter(|member| member.id != shared.member_id) {
        transport.add_peer(member.id, &member.peer_urls).map_err(bad)?;
    }
    let is_first = shared.transport.set(transport).is_ok();
    debug_assert!(is_first, "a member has one transport");
    Ok(())
}

/// Asks raft to let a member lead in place of this one, and waits until another one does; false after `wait`.
pub(crate) async fn hand_over(shared: &Shared, to: u64, wait: Duration) -> bool {
    let interval = shared.config.heartbeat_interval;
    let (from, began) = (shared.leader(), tokio::time::Instant::now());
    tracing::info!(
        "local-member-id" = %format!("{:x}", shared.member_id),
        "current-leader-member-id" = %format!("{from:x}"),
        "transferee-member-id" = %format!("{to:x}"),
        "leadership transfer starting"
    );
    shared.inbox.push(Event::Transfer(to));
    while shared.leader() != to {
        if began.elapsed() >= wait {
            return false;
        }
        tokio::time::sleep(interval).await;
    }
    tracing::info!(
        "local-member-id" = %format!("{:x}", shared.member_id),
        "old-leader-member-id" = %format!("{from:x}"),
        "new-leader-member-id" = %format!("{to:x}"),
        took = ?began.elapsed(),
        "leadership transfer finished"
    );
    true
}

/// The voter that has been connected for longest.
pub(crate) fn longest_connected(shared: &Shared) -> Option<u64> {
    let cluster = shared.cluster.read();
    let voters = cluster.members.values().filter(|member| !member.is_learner);
    let connected = voters.filter_map(|member| Some((shared.active_since(member.id)?, member.id)));
    connected.min().map(|(_, id)| id)
}
