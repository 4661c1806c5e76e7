//! One member's raft state machine.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use etched_proto::raftpb;
use etched_wal::{Entry, HardState, SnapshotMark};
use raft::eraftpb;
use raft::{RawNode, StateRole};

use crate::check::{Refused, View, check};
use crate::convert::{
    ConfChange, conf_state_from_raft, conf_state_to_raft, entry_to_raft, hard_state_to_raft,
};
use crate::flow::{self, Flow};
use crate::log::Log;
use crate::reads::{ReadState, Reads};
use crate::stall::Stall;
use crate::writer::Append;
use crate::{Error, logger, message};

/// Timing and identity of a member.
#[derive(Debug, Clone)]
pub struct Config {
    /// Member id; not 0.
    pub id: u64,
    /// Ticks without a leader before a campaign (`--election-timeout` / `--heartbeat-interval`).
    pub election_ticks: usize,
    /// Whether a pre-vote round comes first (`--pre-vote`).
    pub pre_vote: bool,
    /// Applied entries kept for followers that lag (`--snapshot-catchup-entries`), within 64 MiB; one that lags further
    /// gets a snapshot. None are kept while the member is alone.
    pub catch_up_entries: usize,
    /// Another number in each life of the member: reads are told apart by it.
    pub boot: u64,
    /// Election timeouts follow from (seed, member, term) instead of chance; for simulations.
    pub seed: Option<u64>,
}

/// What the disk holds when the member starts.
///
/// A crash may have come between a snapshot's mark in the log and its taking the store's place. Then the log is opened
/// at that mark, and only when that is done the snapshot takes the store's place: before, a part of what was read of the
/// log may be on no disk, and a second crash takes it back. A mark counts only with its snapshot: one without is older
/// than the log's entries, and the log is opened at the mark before it.
#[derive(Debug, Clone)]
pub struct Start {
    /// Last hard state of the log.
    pub hard_state: HardState,
    /// Index and term that the log's entries follow.
    pub mark: (u64, u64),
    /// All entries of the log behind the mark.
    pub entries: Vec<Entry>,
    /// Members as of `applied`; none in a member that is to join.
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

/// What follows from the input since the last [`Node::advance`]. The fields are to be looked at in this order.
#[derive(Debug, Default)]
pub struct Output {
    /// Set when the leader or the own part changed.
    pub soft_state: Option<SoftState>,
    /// May go out now; what waits for the disk comes out of a later call. A `MsgSnap` has its place in the log and no
    /// contents, and [`Node::report_snapshot`] must be told its fate.
    pub messages: Vec<raftpb::Message>,
    /// For the log's [`Writer`](crate::Writer); then [`Node::persisted`] wants to know. Never with a lone member.
    pub append: Option<Append>,
    /// What is applied here is out of date: the state at this mark, which came with a `MsgSnap`, takes its place. The log
    /// has it. Ends with [`Node::applied`] for its index.
    pub snapshot: Option<SnapshotMark>,
    /// Entries to apply, in index order.
    pub committed: Vec<Entry>,
    /// Reads that may be answered once their index is applied.
    pub read_states: Vec<ReadState>,
    /// Followers that the log does not reach back for: [`Node::offer_snapshot`]. Asked again with each heartbeat
    /// until one is offered.
    pub snapshots_wanted: Vec<u64>,
}

/// How far a member has come, as the leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: u64,
    /// It holds the log up to here.
    pub matched: u64,
    /// It was heard of in the last election timeout.
    pub recent_active: bool,
    /// It has no vote.
    pub is_learner: bool,
    /// A snapshot at this index is under way to it; 0 = none.
    pub pending_snapshot: u64,
}

/// What is handed out to be written and not known to be on disk.
#[derive(Debug)]
pub(crate) struct Unsynced {
    pub(crate) number: u64,
    pub(crate) since: Duration,
    /// It has a term, a vote or a snapshot: then nothing is said before it is on disk.
    pub(crate) is_grave: bool,
    pub(crate) snapshot: Option<SnapshotMark>,
}

/// How long the entries behind a snapshot stay when it has arrived: a peer needs time to take it in. etcd's.
const HOLD_AFTER_SNAPSHOT: Duration = Duration::from_secs(30);

/// Entries above `index` are to stay until then, and while the snapshot is under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hold {
    index: u64,
    until: Duration,
}

/// A member's raft state machine.
///
/// After an [`Error`] the node must be dropped: what is on disk is not known.
pub struct Node {
    pub(crate) raw: RawNode<Log>,
    pub(crate) config: Config,
    pub(crate) hard_state: HardState,
    /// Term and vote of the last append handed out.
    pub(crate) handed: (u64, u64),
    pub(crate) unsynced: VecDeque<Unsynced>,
    /// Wait for the append of that number.
    pub(crate) held: VecDeque<(u64, eraftpb::Message)>,
    /// On disk; comes out with the next [`Self::advance`].
    pub(crate) installed: Option<SnapshotMark>,
    pub(crate) reads: Reads,
    pub(crate) flow: Flow,
    pub(crate) stall: Stall,
    /// By peer: what it needs behind the snapshot that is under way to it.
    pub(crate) holds: BTreeMap<u64, Hold>,
    pub(crate) now: Duration,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.config.id)
            .field("hard_state", &self.hard_state)
            .field("unsynced", &self.unsynced)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Takes up the log where `start` says the disk stands.
    ///
    /// # Errors
    /// [`Error::StoreAheadOfLog`] when the log lacks entries that the store has applied.
    pub fn new(config: &Config, start: Start) -> Result<Self, Error> {
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
            max_size_per_msg: flow::MESSAGE_BYTES_MAX,
            max_inflight_msgs: flow::IN_FLIGHT_MESSAGES_MAX,
            check_quorum: true,
            pre_vote: config.pre_vote,
            max_uncommitted_size: 1 << 30,
            ..raft::Config::default()
        };
        let raw = RawNode::new(&raft_config, log, &logger::logger(config.id))?;
        let mut node = Self {
            raw,
            config: config.clone(),
            hard_state,
            handed: (hard_state.term, hard_state.vote),
            unsynced: VecDeque::new(),
            held: VecDeque::new(),
            installed: None,
            reads: Reads::new(config.id, config.boot),
            flow: Flow::default(),
            stall: Stall::default(),
            holds: BTreeMap::new(),
            now: Duration::ZERO,
        };
        node.settle();
        Ok(node)
    }

    /// One heartbeat interval has passed; it is `now`, by a clock that never goes back.
    pub fn tick(&mut self, now: Duration) {
        self.now = now;
        if self.disk_stalls() {
            self.give_up_leading();
        } else if self.is_leader() || self.may_campaign() || !self.campaign_is_due() {
            self.raw.tick();
        }
        self.settle();
    }

    /// Takes a message of a peer. One with a snapshot comes here when its contents are safe.
    ///
    /// # Errors
    /// [`Refused`]: the message is without effect.
    pub fn step(&mut self, message: raftpb::Message) -> Result<(), Refused> {
        use raftpb::MessageType as Type;
        let kind = check(&message, &self.view())?;
        let number = kind.into();
        let mut message = message::from_wire(message).ok_or(Refused::Type(number))?;
        match kind {
            Type::MsgTimeoutNow if !self.may_campaign() => return Ok(()),
            // The last vote would make it leader in this very step.
            Type::MsgVoteResp | Type::MsgPreVoteResp if !self.may_campaign() => return Ok(()),
            Type::MsgReadIndex => {
                message = self.reads.ask_for_peer(message).ok_or(Refused::Dropped)?;
                if !self.committed_in_term() {
                    self.reads.postpone(message);
                    return Ok(());
                }
            }
            _ => {}
        }
        let from = message.from;
        let stepped = self.raw.step(message);
        self.settle();
        match stepped {
            Ok(()) => Ok(()),
            Err(raft::Error::StepPeerNotFound) => Err(Refused::UnknownPeer(from)),
            Err(_) => Err(Refused::Dropped),
        }
    }

    /// Asks for an election now; a sole voter leads as soon as its vote is on disk.
    ///
    /// # Errors
    /// Whatever raft-rs refuses.
    pub fn campaign(&mut self) -> Result<(), Error> {
        if self.raw.raft.promotable() && self.may_campaign() {
            self.raw.campaign()?;
        }
        self.settle();
        Ok(())
    }

    /// Proposes a batch as consecutive entries, here or, in a follower, by way of the leader; false when there is no
    /// leader to take it. True is no promise: what is under way can be lost.
    ///
    /// # Errors
    /// Whatever raft-rs refuses beside that.
    pub fn propose(&mut self, batch: impl IntoIterator<Item = Bytes>) -> Result<bool, Error> {
        let entry = |data| eraftpb::Entry { data, ..eraftpb::Entry::default() };
        self.propose_entries(batch.into_iter().map(entry).collect())
    }

    /// Proposes a change of a member, as [`Self::propose`] does.
    ///
    /// # Errors
    /// As [`Self::propose`].
    pub fn propose_conf_change(&mut self, change: &ConfChange) -> Result<bool, Error> {
        let kind = etched_wal::EntryKind::ConfChange;
        let entry = Entry { kind, data: change.encode(), ..Entry::default() };
        self.propose_entries(vec![entry_to_raft(entry)])
    }

    fn propose_entries(&mut self, entries: Vec<eraftpb::Entry>) -> Result<bool, Error> {
        if entries.is_empty() {
            return Ok(true);
        }
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.from = self.config.id;
        message.entries = entries.into();
        match self.raw.raft.step(message) {
            Ok(()) => Ok(true),
            Err(raft::Error::ProposalDropped) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Begins a round after which reads asked for until now may be answered: a [`ReadState`] of this id. Nothing when
    /// there is no leader. A round can be lost: who waits long enough begins another, which has another id.
    pub fn read_index(&mut self) -> Option<u64> {
        if self.raw.raft.leader_id == raft::INVALID_ID {
            return None;
        }
        let (id, message) = self.reads.ask();
        if self.is_leader() && !self.committed_in_term() {
            self.reads.postpone(message);
        } else {
            // Never refused: what could not be sent is lost.
            let _ = self.raw.raft.step(message);
        }
        Some(id)
    }

    /// The store has everything up to `index`; entries nobody needs leave the memory, see
    /// [`Config::catch_up_entries`].
    pub fn applied(&mut self, index: u64) {
        self.raw.advance_apply_to(index);
        let keep = if self.alone() { 0 } else { self.config.catch_up_entries };
        let now = self.now;
        let progress = self.raw.raft.prs();
        // Nobody is waited for who has left, or whom nothing was sent to in the end.
        self.holds.retain(|peer, hold| {
            progress.get(*peer).is_some_and(|of| of.pending_snapshot != 0 || now < hold.until)
        });
        let held = self.holds.values().map(|hold| hold.index).min();
        self.raw.mut_store().trim(index, keep, held);
    }

    /// Applies a committed membership change; the members afterwards. A leader that is no voter any more follows.
    ///
    /// Of two voters the one that stays needs the other's vote until it has heard that the removal is committed, and
    /// does not get it while its log is the shorter one. So a leader should hand over before it is removed, and a member
    /// that was removed should live on for a few election timeouts.
    ///
    /// # Errors
    /// Whatever raft-rs refuses (a change that is impossible in the present configuration).
    pub fn apply_conf_change(&mut self, change: &ConfChange) -> Result<raftpb::ConfState, Error> {
        if let Some(change) = change.for_raft() {
            self.raw.apply_conf_change(&change)?;
        }
        if self.is_leader() && !self.raw.raft.promotable() {
            self.step_down();
        }
        self.settle();
        Ok(self.conf_state())
    }

    /// Asks `to` to lead in place of the present leader.
    pub fn transfer_leader(&mut self, to: u64) {
        self.raw.transfer_leader(to);
        self.settle();
    }

    /// Messages to `peer` do not arrive.
    pub fn report_unreachable(&mut self, peer: u64) {
        self.raw.report_unreachable(peer);
    }

    /// What became of the snapshot sent to `peer`.
    pub fn report_snapshot(&mut self, peer: u64, arrived: bool) {
        let status =
            if arrived { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
        self.raw.report_snapshot(peer, status);
        if !arrived {
            self.holds.remove(&peer);
        } else if let Some(hold) = self.holds.get_mut(&peer) {
            hold.until = self.now + HOLD_AFTER_SNAPSHOT;
        }
    }

    /// Whether this leader has asked another member to lead: it takes no proposals meanwhile.
    pub fn is_handing_over(&self) -> bool {
        self.is_leader() && self.raw.raft.lead_transferee.is_some()
    }

    /// The state at `mark` is kept for `peer`, which gets a `MsgSnap` for it: now, or, if it must be heard of first,
    /// later. Without effect when it does not need one any more, or when the log begins later. Of several the last
    /// counts, but a `MsgSnap` for an earlier one may be under way: its index says which it is.
    pub fn offer_snapshot(&mut self, peer: u64, mark: &SnapshotMark) {
        if !self.is_leader() || peer == self.config.id || self.raw.raft.prs().get(peer).is_none() {
            return;
        }
        self.raw.mut_store().offer(peer, crate::convert::mark_to_raft(mark));
        let until = self.now + HOLD_AFTER_SNAPSHOT;
        self.holds.insert(peer, Hold { index: mark.index, until });
        self.raw.raft.send_append(peer);
    }

    /// Members as of the last applied change.
    pub fn conf_state(&self) -> raftpb::ConfState {
        conf_state_from_raft(&self.raw.raft.prs().conf().to_conf_state())
    }

    /// All members as the leader knows them, by id; none when this one does not lead.
    pub fn peers(&self) -> Vec<Peer> {
        if !self.is_leader() {
            return Vec::new();
        }
        let progress = self.raw.raft.prs();
        let peer = |(id, of): (&u64, &raft::Progress)| Peer {
            id: *id,
            matched: of.matched,
            recent_active: of.recent_active || *id == self.config.id,
            is_learner: progress.conf().learners().contains(id),
            pending_snapshot: of.pending_snapshot,
        };
        let mut peers: Vec<Peer> = progress.iter().map(peer).collect();
        peers.sort_unstable_by_key(|peer| peer.id);
        peers
    }

    /// Whether this member leads and is the only voter, with an entry of its own term committed: then
    /// nobody else can have acknowledged anything, and what is applied here is all there is.
    pub fn sole_leader(&self) -> bool {
        self.is_leader() && self.alone() && self.committed_in_term()
    }

    /// Whether this member leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Whether an entry of the current term is committed: until then a leader answers no read.
    pub fn committed_in_term(&self) -> bool {
        self.raw.raft.commit_to_current_term()
    }

    /// Whether this member is the only voter, and nobody learns from it.
    pub(crate) fn alone(&self) -> bool {
        let raft = &self.raw.raft;
        raft.promotable() && raft.prs().is_singleton() && raft.prs().iter().count() == 1
    }

    /// Current term.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// The leader's id; 0 when there is none.
    pub fn leader(&self) -> u64 {
        self.raw.raft.leader_id
    }

    /// Index of the last committed entry.
    pub fn commit(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// Index of the last entry, on disk or not.
    pub fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// Term of the entry at `index`, if the log still knows it.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        // raft-rs says 0 of what it does not know.
        self.raw.raft.raft_log.term(index).ok().filter(|term| *term != 0)
    }

    pub(crate) fn role(&self) -> Role {
        role(self.raw.raft.state)
    }

    /// A snapshot has been taken, and the store is not there yet.
    fn is_installing(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        log.first_index() > log.applied() + 1
    }

    fn is_unsynced(&self) -> bool {
        let raft = &self.raw.raft;
        !self.unsynced.is_empty()
            || !raft.raft_log.unstable_entries().is_empty()
            || self.handed != (raft.term, raft.vote)
    }

    /// raft-rs wants to read all that is not applied when it campaigns, and a sole voter leads at once, with everything
    /// on disk.
    fn may_campaign(&self) -> bool {
        let waits_for_disk = self.raw.raft.prs().is_singleton() && self.is_unsynced();
        !self.is_installing() && !waits_for_disk
    }

    fn campaign_is_due(&self) -> bool {
        let raft = &self.raw.raft;
        raft.election_elapsed + 1 >= raft.randomized_election_timeout()
    }

    pub(crate) fn step_down(&mut self) {
        let term = self.raw.raft.term;
        self.raw.raft.become_follower(term, raft::INVALID_ID);
    }

    /// After whatever may have changed term or part.
    pub(crate) fn settle(&mut self) {
        let raft = &mut self.raw.raft;
        if let Some(seed) = self.config.seed {
            let ticks = self.config.election_ticks;
            let more = mixed([seed, raft.id, raft.term]) as usize % ticks;
            raft.set_randomized_election_timeout(ticks + more);
        }
        if raft.state == StateRole::Leader {
            self.reads.lead(raft.term);
        } else {
            self.reads.lead(0);
            self.flow.clear(raft.mut_prs());
            self.stall.clear();
            raft.mut_store().withdraw();
            self.holds.clear();
        }
    }

    fn view(&self) -> View {
        View {
            id: self.config.id,
            term: self.term(),
            role: self.role(),
            last: self.last_index(),
            commit: self.commit(),
            commit_term: self.term_of(self.commit()).unwrap_or_default(),
            is_installing: self.is_installing(),
            is_unsynced: self.is_unsynced(),
        }
    }
}

/// Mixed well: two members whose timeouts differed by the same in each term would split votes for ever.
fn mixed(numbers: [u64; 3]) -> u64 {
    numbers.into_iter().fold(0, |sum: u64, number| {
        let mut mixed = (sum ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}

pub(crate) fn role(state: StateRole) -> Role {
    match state {
        StateRole::Follower => Role::Follower,
        StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        StateRole::Leader => Role::Leader,
    }
}
