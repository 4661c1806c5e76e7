//! Rounds of ReadIndex, each with a context of its own.
//!
//! raft-rs finds pending reads and their acknowledgements by the context alone. One that is used twice lets a leader
//! that was paused and deposed answer a new read with an old commit index (etcd issue 20418). So every attempt has a
//! context of (member, boot, counter) that never comes again, and the contexts of peers are replaced by such ones
//! while raft-rs has them.

use std::collections::HashMap;

use bytes::Bytes;
use raft::eraftpb;

/// Reads of peers that wait for acknowledgements at once; with more, further ones are dropped and their askers ask again.
const PEER_READS_MAX: usize = 4096;
/// Reads that wait for the first commit of this leader's term; with more, further ones are dropped.
const POSTPONED_MAX: usize = 4096;

/// A linearizable read may be answered once the state machine stands at `index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadState {
    /// As [`Node::read_index`](crate::Node::read_index) gave it.
    pub id: u64,
    /// Commit index that the leader was sure of after the read was asked for.
    pub index: u64,
}

/// Contexts of one member in one life of it.
#[derive(Debug)]
pub(crate) struct Reads {
    member: u64,
    boot: u64,
    counter: u64,
    /// What peers called the reads that have our contexts now.
    of_peers: HashMap<u64, Bytes>,
    /// Asked for before this leader committed in its term; all of `term`.
    postponed: Vec<eraftpb::Message>,
    /// Both of the above are of this leader's term.
    term: u64,
}

impl Reads {
    pub(crate) fn new(member: u64, boot: u64) -> Self {
        let (of_peers, postponed) = (HashMap::new(), Vec::new());
        Self { member, boot, counter: 0, of_peers, postponed, term: 0 }
    }

    /// A message that asks for a read under a new id.
    pub(crate) fn ask(&mut self) -> (u64, eraftpb::Message) {
        self.counter += 1;
        let mut context = Vec::with_capacity(24);
        for number in [self.member, self.boot, self.counter] {
            context.extend_from_slice(&number.to_be_bytes());
        }
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgReadIndex);
        let entry = eraftpb::Entry { data: context.into(), ..eraftpb::Entry::default() };
        message.set_entries(vec![entry].into());
        (self.counter, message)
    }

    /// The same for a peer's `message`; nothing when too many wait.
    pub(crate) fn ask_for_peer(
        &mut self,
        mut message: eraftpb::Message,
    ) -> Option<eraftpb::Message> {
        if self.of_peers.len() >= PEER_READS_MAX {
            return None;
        }
        let theirs = message.mut_entries().first_mut().map(eraftpb::Entry::take_data)?;
        let (id, mut ours) = self.ask();
        ours.from = message.from;
        self.of_peers.insert(id, theirs);
        Some(ours)
    }

    /// Keeps a read until the leader has committed in `term`, if there is room.
    pub(crate) fn postpone(&mut self, message: eraftpb::Message) {
        if self.postponed.len() < POSTPONED_MAX {
            self.postponed.push(message);
        } else if let Some(id) = message.entries.first().and_then(|entry| self.id(&entry.data)) {
            self.of_peers.remove(&id);
        }
    }

    pub(crate) fn take_postponed(&mut self) -> Vec<eraftpb::Message> {
        std::mem::take(&mut self.postponed)
    }

    /// Reads of another term, or of one that this member does not lead, have been forgotten by raft-rs.
    pub(crate) fn lead(&mut self, term: u64) {
        if self.term != term {
            self.term = term;
            self.of_peers.clear();
            self.postponed.clear();
        }
    }

    /// Gives a peer's context back in the answer to it.
    pub(crate) fn answer(&mut self, message: &mut eraftpb::Message) {
        let Some(entry) = message.mut_entries().first_mut() else { return };
        if let Some(theirs) = self.id(&entry.data).and_then(|id| self.of_peers.remove(&id)) {
            entry.data = theirs;
        }
    }

    /// A read of this member, if the context is one of this life.
    pub(crate) fn own(&self, state: &raft::ReadState) -> Option<ReadState> {
        self.id(&state.request_ctx).map(|id| ReadState { id, index: state.index })
    }

    fn id(&self, context: &[u8]) -> Option<u64> {
        let (numbers, rest) = context.as_chunks::<8>();
        let numbers: Vec<u64> = numbers.iter().copied().map(u64::from_be_bytes).collect();
        match *numbers.as_slice() {
            [member, boot, id] if rest.is_empty() && (member, boot) == (self.member, self.boot) => {
                Some(id)
            }
            _ => None,
        }
    }
}
