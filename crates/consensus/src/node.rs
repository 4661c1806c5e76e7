//! One member's raft state machine together with its log on disk.

use bytes::Bytes;
use etched_proto::raftpb;
use etched_wal::disk::Disk;
use etched_wal::{Entry, HardState, SnapshotMark, Wal};
use raft::eraftpb;
use raft::{RawNode, StateRole};

use crate::convert::{
    ConfChange, conf_state_from_raft, conf_state_to_raft, entry_from_raft, entry_to_raft,
    hard_state_from_raft, hard_state_to_raft,
};
use crate::log::{KEEP_ENTRIES_MAX, Log};
use crate::{Error, logger};

/// Timing and identity of a member.
#[derive(Debug, Clone)]
pub struct Config {
    /// Member id; not 0.
    pub id: u64,
    /// Ticks without a leader before a campaign (`--election-timeout` / `--heartbeat-interval`).
    pub election_ticks: usize,
    /// Whether a pre-vote round comes first (`--pre-vote`).
    pub pre_vote: bool,
}

/// What the disk holds when the member starts.
#[derive(Debug, Clone)]
pub struct Start {
    /// Last hard state of the log.
    pub hard_state: HardState,
    /// Index and term that the log's entries follow.
    pub mark: (u64, u64),
    /// All entries of the log behind the mark.
    pub entries: Vec<Entry>,
    /// Members as of `applied`.
    pub conf_state: raftpb::ConfState,
    /// Entries up to here are in the store; they do not come out again.
    pub applied: u64,
}

/// Who leads, as far as this member knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftState {
    /// Leader's id; 0 when there is none.
    pub leader: u64,
    /// This member's part.
    pub role: Role,
}

/// A member's part in the current term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Follows (a learner does, too).
    Follower,
    /// Asks for votes, or would be elected if it did.
    Candidate,
    /// Leads.
    Leader,
}

/// What follows from the input since the last [`Node::advance`].
#[derive(Debug, Default)]
pub struct Output {
    /// Entries to apply, in index order.
    pub committed: Vec<Entry>,
    /// Set when the leader or the own part changed.
    pub soft_state: Option<SoftState>,
}

/// A member's raft state machine and its write-ahead log.
///
/// After an [`Error`] the node must be dropped: what is on disk is not known.
pub struct Node<D: Disk> {
    raw: RawNode<Log>,
    wal: Wal<D>,
    hard_state: HardState,
    saved: HardState,
}

impl<D: Disk> Node<D> {
    /// Takes up the log where `start` says the disk stands.
    ///
    /// # Errors
    /// [`Error::StoreAheadOfLog`] when the log lacks entries that the store has applied.
    pub fn new(config: &Config, wal: Wal<D>, start: Start) -> Result<Self, Error> {
        let saved = start.hard_state;
        let mut hard_state = start.hard_state;
        hard_state.commit = hard_state.commit.max(start.applied);
        let mut log = Log::new(
            start.mark.0,
            start.mark.1,
            hard_state_to_raft(&hard_state),
            conf_state_to_raft(&start.conf_state),
        );
        log.append(start.entries.into_iter().map(entry_to_raft));
        if log.last() < hard_state.commit {
            return Err(Error::StoreAheadOfLog { applied: hard_state.commit, last: log.last() });
        }
        let raft_config = raft::Config {
            id: config.id,
            election_tick: config.election_ticks,
            heartbeat_tick: 1,
            applied: start.applied,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 512,
            check_quorum: true,
            pre_vote: config.pre_vote,
            max_uncommitted_size: 1 << 30,
            ..raft::Config::default()
        };
        let raw = RawNode::new(&raft_config, log, &logger::logger(config.id))?;
        Ok(Self { raw, wal, hard_state, saved })
    }

    /// One heartbeat interval has passed.
    pub fn tick(&mut self) {
        self.raw.tick();
    }

    /// Asks for an election now; a sole voter leads as soon as [`Self::advance`] has saved its vote.
    ///
    /// # Errors
    /// Whatever raft-rs refuses.
    pub fn campaign(&mut self) -> Result<(), Error> {
        Ok(self.raw.campaign()?)
    }

    /// Proposes a batch as consecutive entries; false when there is no leader to take it.
    ///
    /// # Errors
    /// Whatever raft-rs refuses beside that.
    pub fn propose(&mut self, batch: impl IntoIterator<Item = Bytes>) -> Result<bool, Error> {
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.from = self.raw.raft.id;
        message.entries = batch
            .into_iter()
            .map(|data| eraftpb::Entry { data, ..eraftpb::Entry::default() })
            .collect::<Vec<_>>()
            .into();
        if message.entries.is_empty() {
            return Ok(true);
        }
        match self.raw.raft.step(message) {
            Ok(()) => Ok(true),
            Err(raft::Error::ProposalDropped) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Saves what is new with one write and one sync, and collects what is committed then.
    ///
    /// # Errors
    /// [`Error::Wal`] when the log could not be written: the process must stop.
    pub fn advance(&mut self) -> Result<Output, Error> {
        let mut output = Output::default();
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            if let Some(soft) = ready.ss() {
                output.soft_state =
                    Some(SoftState { leader: soft.leader_id, role: role(soft.raft_state) });
            }
            take_committed(&mut output, ready.take_committed_entries());
            if let Some(state) = ready.hs() {
                self.hard_state = hard_state_from_raft(state);
            }
            let entries = ready.take_entries();
            if ready.must_sync() {
                self.save(&entries)?;
            }
            let store = self.raw.mut_store();
            store.append(entries);
            store.set_hard_state(hard_state_to_raft(&self.hard_state));
            let mut light = self.raw.advance_append(ready);
            if let Some(commit) = light.commit_index() {
                self.hard_state.commit = commit;
            }
            take_committed(&mut output, light.take_committed_entries());
        }
        Ok(output)
    }

    /// A commit index alone is not written at once: it goes along with the next entries.
    fn save(&mut self, entries: &[eraftpb::Entry]) -> Result<(), Error> {
        let entries: Vec<Entry> = entries.iter().map(entry_from_raft).collect();
        let changed = self.hard_state != self.saved;
        self.wal.save(changed.then_some(&self.hard_state), &entries, true)?;
        self.saved = self.hard_state;
        Ok(())
    }

    /// The store has everything up to `index`; entries nobody needs leave the memory.
    pub fn applied(&mut self, index: u64) {
        self.raw.advance_apply_to(index);
        let keep = if self.alone() { 0 } else { KEEP_ENTRIES_MAX };
        self.raw.mut_store().trim(index, keep);
    }

    /// Applies a committed membership change; the members afterwards.
    ///
    /// # Errors
    /// Whatever raft-rs refuses (a change that is impossible in the present configuration).
    pub fn apply_conf_change(&mut self, change: &ConfChange) -> Result<raftpb::ConfState, Error> {
        if let Some(change) = change.for_raft() {
            self.raw.apply_conf_change(&change)?;
        }
        Ok(self.conf_state())
    }

    /// Members as of the last applied change.
    pub fn conf_state(&self) -> raftpb::ConfState {
        conf_state_from_raft(&self.raw.raft.prs().conf().to_conf_state())
    }

    /// Puts the present commit index on disk, before a checkpoint at or below it becomes durable.
    ///
    /// # Errors
    /// [`Error::Wal`] as for [`Self::advance`].
    pub fn sync_commit(&mut self) -> Result<(), Error> {
        if self.hard_state != self.saved {
            self.wal.save(Some(&self.hard_state), &[], true)?;
            self.saved = self.hard_state;
        }
        Ok(())
    }

    /// A durable checkpoint covers everything up to `mark`: segments below it can go.
    ///
    /// # Errors
    /// [`Error::Wal`] as for [`Self::advance`].
    pub fn checkpointed(&mut self, mark: &SnapshotMark) -> Result<(), Error> {
        self.wal.save_snapshot(mark)?;
        self.wal.release_to(mark.index)?;
        Ok(())
    }

    /// Makes sure of the disk space for the log's next segment. Costs nothing when it is reserved already.
    ///
    /// # Errors
    /// [`Error::Wal`] when there is no room: the node can go on to the end of the present segment.
    pub fn reserve_log(&mut self) -> Result<(), Error> {
        Ok(self.wal.reserve_next()?)
    }

    /// How long writes and syncs of the log have taken since the last call of this.
    pub fn take_log_times(&mut self) -> etched_wal::Times {
        self.wal.take_times()
    }

    /// Bytes written to the log since the start.
    pub fn wal_bytes(&self) -> u64 {
        self.wal.appended_bytes()
    }

    /// Whether this member leads and is the only voter, with an entry of its own term committed: then
    /// nobody else can have acknowledged anything, and what is applied here is all there is.
    pub fn sole_leader(&self) -> bool {
        self.is_leader() && self.alone() && self.raw.raft.commit_to_current_term()
    }

    /// Whether this member leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    fn alone(&self) -> bool {
        self.raw.raft.prs().is_singleton() && self.raw.raft.prs().iter().count() == 1
    }

    /// Current term.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// Index of the last committed entry.
    pub fn commit(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// Term of the entry at `index`, if the log still knows it.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        self.raw.raft.raft_log.term(index).ok()
    }
}

fn take_committed(output: &mut Output, entries: Vec<eraftpb::Entry>) {
    output.committed.extend(entries.iter().map(entry_from_raft));
}

fn role(state: StateRole) -> Role {
    match state {
        StateRole::Follower => Role::Follower,
        StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        StateRole::Leader => Role::Leader,
    }
}
