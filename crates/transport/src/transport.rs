//! All peers of a member: who they are, and what goes to which.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use etched_proto::raftpb::{Message, MessageType};
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::local::{Config, Hex, Local};
use crate::metrics::Metrics;
use crate::peer::{Peer, Remote};
use crate::snapshot::SnapshotSource;
use crate::url::PeerUrl;
use crate::{Error, Raft, wire};

/// Members that are not known yet but asked something. Further ones get no answer until they are known.
const REMOTES_MAX: usize = 64;

/// Sends raft messages to the other members and takes theirs.
pub struct Transport {
    pub(crate) local: Arc<Local>,
    members: RwLock<Members>,
    /// Bytes of messages that are coming in by POST.
    pub(crate) posted: AtomicU64,
}

#[derive(Default)]
struct Members {
    peers: HashMap<u64, Arc<Peer>>,
    remotes: HashMap<u64, Remote>,
    stopped: bool,
}

impl Transport {
    /// A transport without peers.
    ///
    /// # Errors
    /// [`Error::Url`]: one of the member's own peer URLs is none.
    ///
    /// # Panics
    /// When `config.version` is no version.
    pub fn new(config: Config, raft: Arc<dyn Raft>) -> Result<Self, Error> {
        let local = Arc::new(Local::new(config, raft)?);
        Ok(Self { local, members: RwLock::default(), posted: AtomicU64::new(0) })
    }

    /// Sends messages, each to the peer it is addressed to. Never waits: what finds no room is lost, and
    /// [`Raft::report_unreachable`] called. One to 0, which is nobody, and one to an unknown member are dropped.
    ///
    /// A MsgSnap is dropped and reported as failed: it needs its database, see [`Self::send_snapshot`].
    pub fn send(&self, messages: impl IntoIterator<Item = Message>) {
        let members = self.members.read();
        for message in messages {
            let to = message.to.unwrap_or_default();
            if to == 0 {
                continue;
            }
            if wire::kind(&message) == MessageType::MsgSnap as i32 {
                self.local.raft.report_snapshot(to, false);
            } else if let Some(peer) = members.peers.get(&to) {
                peer.send(message);
            } else if let Some(remote) = members.remotes.get(&to) {
                remote.send(message);
            } else {
                tracing::debug!(
                    "message-type" = wire::kind_name(wire::kind(&message)),
                    "unknown-target-peer-id" = %Hex(to),
                    "ignored message send request; unknown remote peer target"
                );
            }
        }
    }

    /// Sends a MsgSnap and its database. How it went is always told by [`Raft::report_snapshot`], once.
    pub fn send_snapshot(&self, message: Message, database: SnapshotSource) {
        let to = message.to.unwrap_or_default();
        match self.members.read().peers.get(&to) {
            Some(peer) => peer.send_snapshot(message, database),
            None => self.local.raft.report_snapshot(to, false),
        }
    }

    /// Connects to a peer, from now until it is removed. Does nothing for one that is there already, for this
    /// member itself, and after [`Self::stop`].
    ///
    /// # Errors
    /// [`Error::Url`].
    pub fn add_peer(&self, id: u64, urls: &[impl AsRef<str>]) -> Result<(), Error> {
        let parsed = PeerUrl::parse_all(urls)?;
        let mut members = self.members.write();
        if members.stopped || id == self.local.config.id || members.peers.contains_key(&id) {
            return Ok(());
        }
        members.remotes.remove(&id);
        members.peers.insert(id, Arc::new(Peer::start(&self.local, id, parsed)));
        drop(members);
        tracing::info!(
            "local-member-id" = %Hex(self.local.config.id),
            "remote-peer-id" = %Hex(id),
            "remote-peer-urls" = ?texts(urls),
            "added remote peer"
        );
        Ok(())
    }

    /// Makes it possible to answer a member that is not known (yet). It is forgotten when it becomes a peer.
    ///
    /// # Errors
    /// [`Error::Url`].
    pub fn add_remote(&self, id: u64, urls: &[impl AsRef<str>]) -> Result<(), Error> {
        if id == self.local.config.id || self.members.read().knows(id) {
            return Ok(());
        }
        let parsed = PeerUrl::parse_all(urls)?;
        let mut members = self.members.write();
        if members.stopped || members.knows(id) || members.remotes.len() >= REMOTES_MAX {
            return Ok(());
        }
        members.remotes.insert(id, Remote::start(&self.local, id, parsed));
        drop(members);
        tracing::info!(
            "local-member-id" = %Hex(self.local.config.id),
            "remote-peer-id" = %Hex(id),
            "remote-peer-urls" = ?texts(urls),
            "added new remote peer"
        );
        Ok(())
    }

    /// Ends everything with a peer at once.
    pub fn remove_peer(&self, id: u64) {
        let removed = {
            let mut members = self.members.write();
            members.remotes.remove(&id);
            members.peers.remove(&id)
        };
        let (local, removed_id) = (Hex(self.local.config.id), Hex(id));
        let Some(peer) = removed else {
            tracing::warn!(
                "local-member-id" = %local,
                "removed-remote-peer-id" = %removed_id,
                "skipped removing already removed peer"
            );
            return;
        };
        peer.stop();
        tracing::info!(
            "local-member-id" = %local,
            "removed-remote-peer-id" = %removed_id,
            "removed remote peer"
        );
    }

    /// Uses other URLs for a peer from the next connection on. Does nothing for one that is not there.
    ///
    /// # Errors
    /// [`Error::Url`].
    pub fn update_peer(&self, id: u64, urls: &[impl AsRef<str>]) -> Result<(), Error> {
        let parsed = PeerUrl::parse_all(urls)?;
        let Some(peer) = self.peer(id) else { return Ok(()) };
        peer.link.picker.update(parsed);
        tracing::info!(
            "local-member-id" = %Hex(self.local.config.id),
            "updated-remote-peer-id" = %Hex(id),
            "updated-remote-peer-urls" = ?texts(urls),
            "updated remote peer"
        );
        Ok(())
    }

    /// Since when a peer can be reached; None: it cannot, or it is unknown.
    pub fn active_since(&self, id: u64) -> Option<Instant> {
        self.peer(id)?.link.status.active_since()
    }

    /// How many peers can be reached.
    pub fn active_peers(&self) -> usize {
        let members = self.members.read();
        members.peers.values().filter(|peer| peer.link.status.active_since().is_some()).count()
    }

    /// What was counted.
    pub fn metrics(&self) -> &Metrics {
        &self.local.metrics
    }

    /// Ends everything with all peers at once, for good.
    pub fn stop(&self) {
        let mut members = self.members.write();
        members.stopped = true;
        members.remotes.clear();
        let peers: Vec<_> = members.peers.drain().collect();
        drop(members);
        peers.iter().for_each(|(_, peer)| peer.stop());
    }

    pub(crate) fn peer(&self, id: u64) -> Option<Arc<Peer>> {
        self.members.read().peers.get(&id).map(Arc::clone)
    }
}

#[cfg(test)]
impl Transport {
    pub(crate) fn knows(&self, id: u64) -> bool {
        self.members.read().knows(id)
    }
}

impl Members {
    fn knows(&self, id: u64) -> bool {
        self.peers.contains_key(&id) || self.remotes.contains_key(&id)
    }
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "transport of {:x}", self.local.config.id)
    }
}

fn texts(urls: &[impl AsRef<str>]) -> Vec<&str> {
    urls.iter().map(AsRef::as_ref).collect()
}
