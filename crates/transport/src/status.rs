//! Whether a peer can be reached, as far as its connections tell.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::metrics::PeerMetrics;

/// One for all connections of a peer: the last event of any of them counts, as in etcd.
pub(crate) struct Status {
    id: u64,
    metrics: Arc<PeerMetrics>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    since: Option<Instant>,
    /// The peer was removed; what its tasks still say on their way out does not count.
    ended: bool,
}

impl Status {
    pub(crate) fn new(id: u64, metrics: Arc<PeerMetrics>) -> Self {
        Self { id, metrics, state: Mutex::default() }
    }

    /// Something arrived at the peer, or from it.
    pub(crate) fn activate(&self) {
        let mut state = self.state.lock();
        if state.since.is_none() && !state.ended {
            state.since = Some(Instant::now());
            self.metrics.active.set(1);
            tracing::info!("peer-id" = %format!("{:x}", self.id), "peer became active");
        }
    }

    /// `source` could not do `action`.
    pub(crate) fn deactivate(&self, source: &str, action: &str, reason: &dyn std::fmt::Display) {
        let id = format!("{:x}", self.id);
        let error = format!("failed to {action} {id} on {source} ({reason})");
        if self.state.lock().since.take().is_none() {
            tracing::debug!("peer-id" = id, error, "peer deactivated again");
            return;
        }
        self.metrics.active.set(0);
        self.metrics.disconnected.add(1);
        tracing::warn!("peer-id" = id, error, "peer became inactive (message send to peer failed)");
    }

    /// The peer is no peer any more.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        if state.since.take().is_some() {
            self.metrics.active.set(0);
        }
    }

    pub(crate) fn active_since(&self) -> Option<Instant> {
        self.state.lock().since
    }
}
