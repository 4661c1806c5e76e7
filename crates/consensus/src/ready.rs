//! What follows from input, in the order it may be seen outside.
//!
//! ```text
//! advance ──> ready ──> entries, term, vote ──> Append ──> (disk) ──> persisted(number) ──> advance ──> ...
//!                  ├──> messages that may go at once
//!                  └──> messages that wait for the append ──────────────────────────────────┘
//! ```
//! At once go the messages of a leader whose term and vote are on disk, and of a follower those that promise nothing:
//! forwarded proposals and reads, and, so that a slow disk costs no election, answers to heartbeats as long as no term,
//! vote or snapshot waits for the disk. raft-rs would let a follower's messages wait all, and lets a leader's go even
//! when it is a sole voter whose new term is not on disk: a crash would let it lead that term a second time.

use etched_wal::Entry;
use etched_wal::disk::Disk;
use raft::Ready;
use raft::eraftpb::{self, MessageType};

use crate::convert::{entry_from_raft, hard_state_from_raft, hard_state_to_raft, mark_from_raft};
use crate::node::{Node, Output, SoftState, Unsynced, role};
use crate::writer::{Append, Writer};
use crate::{Error, message};

impl Node {
    /// What is to be done now. An append in it goes to the log before those of later calls; meanwhile the node takes
    /// ticks, messages and proposals.
    pub fn advance(&mut self) -> Output {
        let mut output = self.begin();
        if self.raw.has_ready() {
            let mut ready = self.raw.ready();
            self.take(&mut ready, &mut output);
            let number = ready.number();
            let at_once = ready.take_messages();
            let later = ready.take_persisted_messages();
            output.append = self.take_append(&mut ready);
            self.raw.advance_append_async(ready);
            if self.unsynced.is_empty() {
                // Nothing in it needed the disk, nor does anything before it.
                self.raw.on_persist_ready(number);
            }
            self.send_or_hold(at_once.into_iter().chain(later), &mut output);
        }
        output.snapshots_wanted = self.raw.mut_store().take_wanted();
        self.flow.adjust(self.raw.raft.mut_prs());
        self.settle();
        output
    }

    /// The append of this number, and all before it, are on disk. What follows comes out of [`Self::advance`].
    pub fn persisted(&mut self, number: u64) {
        while let Some(first) = self.unsynced.front().filter(|first| first.number <= number) {
            self.installed = first.snapshot.clone().or(self.installed.take());
            self.unsynced.pop_front();
        }
        self.raw.on_persist_ready(number);
        self.settle();
    }

    /// Whether [`Self::advance_inline`] is the way to go on: this member is alone, so nobody waits for anything but
    /// the disk, and nothing is under way to it.
    pub fn syncs_inline(&self) -> bool {
        self.alone() && self.unsynced.is_empty()
    }

    /// As [`Self::advance`], but writes and syncs here: with one write and one sync for what is new, and what is
    /// committed then comes out at once.
    ///
    /// # Errors
    /// [`Error::Wal`] when the log could not be written: the process must stop.
    ///
    /// # Panics
    /// If the member is not alone, see [`Self::syncs_inline`].
    pub fn advance_inline<D: Disk>(&mut self, writer: &mut Writer<D>) -> Result<Output, Error> {
        assert!(self.syncs_inline(), "only a lone member waits for its disk");
        let mut output = self.begin();
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            self.take(&mut ready, &mut output);
            let mut messages = ready.take_messages();
            messages.extend(ready.take_persisted_messages());
            if let Some(append) = self.take_append(&mut ready) {
                self.unsynced.clear();
                writer.write(&append)?;
                output.snapshot = append.snapshot.or(output.snapshot.take());
            }
            let mut light = self.raw.advance_append(ready);
            if let Some(commit) = light.commit_index() {
                self.hard_state.commit = commit;
            }
            messages.extend(light.take_messages());
            for message in messages {
                self.send(message, &mut output);
            }
            take_committed(&mut output, &light.take_committed_entries());
        }
        self.settle();
        Ok(output)
    }

    fn begin(&mut self) -> Output {
        if self.is_leader() && self.committed_in_term() {
            for message in self.reads.take_postponed() {
                // Never refused: what could not be sent is lost.
                let _ = self.raw.raft.step(message);
            }
        }
        let mut output = Output { snapshot: self.installed.take(), ..Output::default() };
        let waits_for = self.unsynced.front().map_or(u64::MAX, |first| first.number);
        while let Some((number, _)) = self.held.front()
            && *number < waits_for
        {
            let (_, message) = self.held.pop_front().expect("it was just there");
            self.send(message, &mut output);
        }
        output
    }

    fn take(&mut self, ready: &mut Ready, output: &mut Output) {
        if let Some(soft) = ready.ss() {
            output.soft_state =
                Some(SoftState { leader: soft.leader_id, role: role(soft.raft_state) });
        }
        if let Some(state) = ready.hs() {
            self.hard_state = hard_state_from_raft(state);
        }
        take_committed(output, &ready.take_committed_entries());
        for state in ready.take_read_states() {
            output.read_states.extend(self.reads.own(&state));
        }
    }

    /// Moves what is new into the log in memory; what of it must be on disk.
    fn take_append(&mut self, ready: &mut Ready) -> Option<Append> {
        let (number, must_sync) = (ready.number(), ready.must_sync());
        let snapshot = Some(ready.snapshot()).filter(|snapshot| !snapshot.is_empty());
        let snapshot = snapshot.map(|snapshot| mark_from_raft(snapshot.get_metadata()));
        let store = self.raw.mut_store();
        if let Some(mark) = &snapshot {
            store.restart_behind(mark.index, mark.term);
        }
        let new = ready.take_entries();
        let entries: Vec<Entry> =
            if must_sync { new.iter().map(entry_from_raft).collect() } else { Vec::new() };
        store.append(new);
        store.set_hard_state(hard_state_to_raft(&self.hard_state));
        if !must_sync {
            return None;
        }
        let vote = (self.hard_state.term, self.hard_state.vote);
        let is_grave = snapshot.is_some() || vote != self.handed;
        self.handed = vote;
        let since = self.now;
        self.unsynced.push_back(Unsynced { number, since, is_grave, snapshot: snapshot.clone() });
        Some(Append { number, snapshot, hard_state: self.hard_state, entries })
    }

    fn send_or_hold(
        &mut self,
        messages: impl Iterator<Item = eraftpb::Message>,
        output: &mut Output,
    ) {
        let is_grave = self.unsynced.iter().any(|append| append.is_grave);
        let newest = self.unsynced.back().map(|append| append.number);
        for message in messages {
            let waits = match message.get_msg_type() {
                MessageType::MsgPropose
                | MessageType::MsgReadIndex
                | MessageType::MsgTransferLeader => false,
                MessageType::MsgHeartbeatResponse
                | MessageType::MsgAppend
                | MessageType::MsgHeartbeat
                | MessageType::MsgSnapshot
                | MessageType::MsgTimeoutNow
                | MessageType::MsgReadIndexResp => is_grave,
                _ => true,
            };
            match newest.filter(|_| waits) {
                Some(number) => self.held.push_back((number, message)),
                None => self.send(message, output),
            }
        }
    }

    fn send(&mut self, mut message: eraftpb::Message, output: &mut Output) {
        if message.get_msg_type() == MessageType::MsgReadIndexResp {
            self.reads.answer(&mut message);
        }
        self.flow.sent(&message);
        output.messages.push(message::to_wire(message));
    }
}

fn take_committed(output: &mut Output, entries: &[eraftpb::Entry]) {
    output.committed.extend(entries.iter().map(entry_from_raft));
}
