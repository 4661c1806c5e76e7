//! The raft thread's dealings with other members.

use std::time::{Duration, Instant};

use etched_proto::raftpb;
use etched_wal::disk::Disk;

use super::{Engine, Fatal};
use crate::laggards;
use crate::membership::Change;
use crate::shared::Event;

/// How long after the start a member may hurry its first election; etcd's.
const HURRY_MAX: Duration = Duration::from_secs(5);

/// How often those are forgotten who wait no more for a proposal that was lost.
const PURGE_INTERVAL: Duration = Duration::from_secs(10);

impl<D: Disk> Engine<D> {
    pub(super) fn on_peer_event(&mut self, event: Event) {
        match event {
            Event::Message(message) => {
                self.shared.incoming.leaves(&message);
                if let Err(refused) = self.node.step(*message) {
                    tracing::debug!(reason = %refused, "ignored a message of another member");
                }
            }
            Event::Matched(asked) => {
                let peers = self.node.peers().into_iter();
                let matched = peers.map(|peer| (peer.id, peer.matched)).collect();
                // Who has stopped waiting needs no answer.
                let _ = asked.send(self.node.is_leader().then_some(matched));
            }
            Event::Unreachable(id) => self.node.report_unreachable(id),
            Event::SnapshotSent(id, arrived) => self.node.report_snapshot(id, arrived),
            Event::SnapshotReady(peer, view) => {
                if let Some(mark) = self.laggards.ready(peer, view) {
                    self.node.offer_snapshot(peer, &mark);
                }
            }
            Event::Transfer(to) => self.node.transfer_leader(to),
            _ => {}
        }
    }

    /// One round after the other until nothing follows any more: what may go out does before the disk is waited for.
    pub(super) fn advance_with_others(&mut self) -> Result<(), Fatal> {
        loop {
            if self.node.syncs_inline() {
                // The last of the others has left.
                let output = self.node.advance_inline(&mut self.writer)?;
                return self.follow(output);
            }
            let mut output = self.node.advance();
            self.send(std::mem::take(&mut output.messages));
            let appended = output.append.take();
            if let Some(append) = &appended {
                self.writer.write(append)?;
                self.observe_log();
                self.node.persisted(append.number);
            }
            let goes_on = appended.is_some() || !output.committed.is_empty();
            if output.snapshot.is_some() {
                // The log has it, and its file is there: what is applied here is out of date.
                self.stopping = true;
                self.shared.anew.send_replace(true);
                return Ok(());
            }
            for peer in std::mem::take(&mut output.snapshots_wanted) {
                if let Some(mark) = self.laggards.want(&self.shared, peer) {
                    self.node.offer_snapshot(peer, &mark);
                }
            }
            self.follow(output)?;
            if !goes_on {
                return Ok(());
            }
        }
    }

    pub(super) fn send(&mut self, messages: Vec<raftpb::Message>) {
        let Some(transport) = self.shared.transport.get().filter(|_| !messages.is_empty()) else {
            return;
        };
        let (snapshots, messages): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(laggards::is_snapshot);
        transport.send(messages);
        for message in snapshots {
            let to = message.to();
            if !self.laggards.send(&self.shared, message) {
                self.node.report_snapshot(to, false);
            }
        }
    }

    pub(super) fn begin_reads(&mut self, now: Instant) {
        if self.node.sole_leader() {
            self.reads.answer_all();
        } else {
            let node = &mut self.node;
            self.reads.begin(now, || node.read_index());
        }
    }

    pub(super) fn tick(&mut self, now: Instant) {
        let since = self.shared.started;
        self.node.tick(now.duration_since(since));
        self.next_tick = now + self.shared.config.heartbeat_interval;
        self.laggards.forget(now);
        if now >= self.next_purge {
            // What was on its way to a leader that is gone comes back to nobody.
            self.waiters.retain(|_, waiter| !waiter.sender.is_closed());
            self.next_purge = now + PURGE_INTERVAL;
        }
        if self.hurries {
            self.hurry(now);
        }
    }

    /// A member that starts need not wait for a whole election timeout: once another one is there, all but its last ticks
    /// pass at once.
    fn hurry(&mut self, now: Instant) {
        let is_late = now.duration_since(self.shared.started) > HURRY_MAX;
        if is_late || self.node.leader() != 0 {
            self.hurries = false;
        } else if self.shared.transport.get().is_some_and(|peers| peers.active_peers() > 0) {
            self.hurries = false;
            for _ in 2..self.shared.config.election_ticks() {
                self.node.tick(now.duration_since(self.shared.started));
            }
        }
    }

    /// Lets the transport follow a change of the members.
    pub(super) fn connect(&mut self, change: &Change) {
        let own = self.shared.member_id;
        self.shared.note_members();
        if let Change::Remove(id) = change {
            self.laggards.drop(*id);
            if *id == own {
                self.shared.leave();
            }
        }
        let Some(transport) = self.shared.transport.get() else { return };
        let connected = match change {
            Change::Add(member) if member.id != own => {
                transport.add_peer(member.id, &member.peer_urls)
            }
            Change::PeerUrls(id, urls) if *id != own => transport.update_peer(*id, urls),
            Change::Remove(id) if *id != own => {
                transport.remove_peer(*id);
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = connected {
            tracing::error!(error = %error, "a member has peer URLs that are none");
        }
    }
}
