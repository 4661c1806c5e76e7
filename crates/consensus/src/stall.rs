//! A leader whose disk does not answer.
//!
//! Its followers are content as long as its heartbeats come, and nothing that is proposed to it is ever answered. So it
//! hands its part over, and if nobody takes it in an election timeout it follows; heartbeats have stopped by then.

use std::time::Duration;

use crate::node::Node;

/// For so long a leader's oldest append may be on its way to the disk.
pub const DISK_STALL_MAX: Duration = Duration::from_secs(5);

/// How far giving up has come.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    /// Ticks since somebody was asked to take over.
    ticks: Option<usize>,
}

impl Stall {
    pub(crate) fn clear(&mut self) {
        self.ticks = None;
    }
}

impl Node {
    /// Whether a leader with others who could lead has waited too long for its disk.
    pub(crate) fn disk_stalls(&mut self) -> bool {
        let oldest = self.unsynced.front().map_or(self.now, |append| append.since);
        let waits = self.now.saturating_sub(oldest) >= DISK_STALL_MAX;
        let stalls = waits && self.is_leader() && !self.raw.raft.prs().is_singleton();
        if !stalls {
            self.stall.clear();
        }
        stalls
    }

    /// One tick of a leader whose disk stalls: no heartbeat goes out.
    pub(crate) fn give_up_leading(&mut self) {
        let ticks = self.stall.ticks.map_or(0, |ticks| ticks + 1);
        self.stall.ticks = Some(ticks);
        if ticks == 0 {
            tracing::error!(
                "the log's disk has not answered for {DISK_STALL_MAX:?}: another member is to lead"
            );
            let others = self.peers().into_iter();
            let best = others
                .filter(|peer| peer.id != self.config.id && !peer.is_learner && peer.recent_active)
                .max_by_key(|peer| peer.matched);
            if let Some(peer) = best {
                self.raw.transfer_leader(peer.id);
            }
        } else if ticks >= self.config.election_ticks {
            self.step_down();
        }
    }
}
