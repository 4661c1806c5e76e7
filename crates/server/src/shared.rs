//! What the threads of one running member share.
//!
//! ```text
//! network threads ── propose ──> Inbox ──> raft thread (owns Engine: raft, log, apply)
//!        │                                     │
//!        └── read: Reader, Hub, Lessor <───────┘ writes
//! ```
//! Only apply changes what is replicated; everything here is either immutable, an atomic that mirrors the
//! raft thread's state, or a lock held for one look-up.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use etched_consensus::ConfChange;
use etched_lease::Lessor;
use etched_mvcc::{Reader, watch};
use etched_proto::etcdserverpb::alarm_request::AlarmAction;
use etched_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, CompactionRequest, ResponseHeader,
};
use etched_proto::raftpb::Message;
use etched_proto::raw::{DeleteRangeReply, PutReply, TxnReply};
use etched_storage::{Storage, View};
use etched_transport::Transport;
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use tokio::sync::{Notify, Semaphore, oneshot};
use tonic::{Code, Status};

use crate::api::{LargeAnswers, Places};
use crate::ask::Dial;
use crate::auth::{Asking, Auth, AuthAnswer, Who};
use crate::cluster::{Cluster, Member};
use crate::config::Config;
use crate::deadline::{Elapsed, within};
use crate::engine::ReadWaiter;
use crate::error::Error;
use crate::flush::FlushQueue;
use crate::id::IdGenerator;
use crate::inbox::Inbox;
use crate::lane::{self, Lane};
use crate::metrics::{Metrics, StateValues, Timed, Totals};
use crate::peers::Incoming;
use crate::request::{self, Field};
use crate::wakes::WakeLanes;

/// What applying an entry gave.
#[derive(Debug)]
pub(crate) enum Answer {
    Put(PutReply),
    DeleteRange(DeleteRangeReply),
    Txn(TxnReply),
    LeaseGranted {
        id: i64,
        ttl: i64,
    },
    Alarms(Vec<AlarmMember>),
    Auth(Box<AuthAnswer>),
    /// The members after a change of them.
    Members(Vec<Member>),
    /// Done, and there is no more to say.
    Done,
}

/// The end of a proposal: its answer and the store's revision after it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) result: Result<Answer, Error>,
    pub(crate) revision: i64,
}

/// Who waits for a proposal.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) lane: usize,
    pub(crate) sender: oneshot::Sender<Outcome>,
}

/// Input of the raft thread.
#[derive(Debug)]
pub(crate) enum Event {
    /// An entry to replicate; `id` stands in its header.
    Propose { id: u64, data: Bytes, waiter: Option<Waiter> },
    /// A change of the members to replicate; `id` stands in it.
    Reconfigure { change: ConfChange, waiter: Waiter },
    /// A linearizable read asks whether it may go on.
    Read(ReadWaiter),
    /// From another member.
    Message(Box<Message>),
    /// A message to that member was lost.
    Unreachable(u64),
    /// A snapshot was taken by that member, or was not.
    SnapshotSent(u64, bool),
    /// A view for a snapshot for that member is there, or cannot be had.
    SnapshotReady(u64, Option<Arc<View>>),
    /// Let that member lead.
    Transfer(u64),
    /// Tell how much of the log each member has, if this one leads.
    Matched(oneshot::Sender<Option<Vec<(u64, u64)>>>),
    /// Records up to this revision are visible in the store's file.
    Flushed(etched_mvcc::Revision),
    /// Put a commit index at or above the applied one on disk, then say so.
    SyncCommit(oneshot::Sender<()>),
    /// A durable checkpoint covers the log up to here.
    Checkpointed(etched_wal::SnapshotMark),
    /// The physical part of a compaction is in the file: its waiters can be answered.
    Removed(Vec<Waiter>),
    /// Look again: something that the raft thread waits for has happened.
    Wake,
    /// The store turned out to be unreadable, as this says: end, before anything is done on top of it.
    Unreadable(String),
    /// End after a last checkpoint.
    Stop,
}

/// The raft thread's state, as others see it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) term: AtomicU64,
    pub(crate) leader: AtomicU64,
    /// When the last leader was lost, in nanoseconds since the start.
    pub(crate) leaderless_since: AtomicU64,
    /// When the leader was elected, in nanoseconds since the start.
    pub(crate) led_since: AtomicU64,
    pub(crate) commit: AtomicU64,
    pub(crate) applied: AtomicU64,
    pub(crate) pending: AtomicU64,
    pub(crate) wal_bytes: AtomicU64,
    /// This member has no vote.
    pub(crate) is_learner: AtomicBool,
    /// See [`etched_consensus::Node::sole_leader`].
    pub(crate) sole_leader: AtomicBool,
    /// The disk has no room for the next file of the log.
    pub(crate) log_is_full: AtomicBool,
    /// Unix time of the last finished compaction; 0 before any.
    pub(crate) compacted_at: AtomicI64,
    pub(crate) put_bytes: AtomicU64,
    /// Bytes of the store's file that hold data, as of its last commit.
    pub(crate) file_live_bytes: AtomicU64,
}

/// Everything the threads of a member share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) member_id: u64,
    pub(crate) cluster_id: u64,
    pub(crate) reader: Reader,
    pub(crate) hub: Arc<watch::Hub>,
    pub(crate) lessor: Mutex<Lessor>,
    pub(crate) auth: Auth,
    pub(crate) cluster: RwLock<Cluster>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) flush: FlushQueue,
    pub(crate) large: LargeAnswers,
    /// What the health service says: whether this server serves.
    pub(crate) serving: tokio::sync::watch::Sender<bool>,
    /// Turns of those who make a snapshot.
    pub(crate) snapshots: Arc<Semaphore>,
    /// Keys that calls to Lock and Campaign count on.
    pub(crate) places: Places,
    pub(crate) inbox: Inbox<Event>,
    pub(crate) lanes: Vec<Arc<Lane<Outcome>>>,
    pub(crate) wakes: WakeLanes,
    pub(crate) progress: Progress,
    pub(crate) metrics: Metrics,
    pub(crate) ids: IdGenerator,
    /// Those that come and go.
    pub(crate) threads: crate::background::Threads,
    /// How other members are asked what raft does not tell.
    pub(crate) dial: Dial,
    /// The way to the other members; none in a test of one member alone.
    pub(crate) transport: OnceLock<Transport>,
    /// What of other members' messages waits for the raft thread.
    pub(crate) incoming: Incoming,
    /// Whether the cluster knows this member's name and URLs: clients are served from then on.
    pub(crate) published: tokio::sync::watch::Sender<bool>,
    /// Whether nobody has led for several elections.
    pub(crate) leaderless: tokio::sync::watch::Sender<bool>,
    /// Whether a snapshot is there that the store is to be made of: the member has to start anew.
    pub(crate) anew: tokio::sync::watch::Sender<bool>,
    /// Whether this member was removed from its cluster, for good.
    pub(crate) removed: tokio::sync::watch::Sender<bool>,
    /// Woken when this member begins to lead: the first entry of its term is applied.
    pub(crate) leads: Notify,
    /// Woken after each batch that revoked a lease.
    pub(crate) revoked: Notify,
    pub(crate) started: Instant,
}

impl Shared {
    /// Time since the start, the lessor's clock.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Leader's id; 0 when there is none.
    pub(crate) fn leader(&self) -> u64 {
        self.progress.leader.load(Ordering::Acquire)
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.leader() == self.member_id
    }

    pub(crate) fn is_learner(&self) -> bool {
        self.progress.is_learner.load(Ordering::Relaxed)
    }

    /// The header of an answer at `revision`.
    pub(crate) fn header(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision,
            raft_term: self.progress.term.load(Ordering::Relaxed),
        }
    }

    /// Version of the data format, as etcd names it; it follows the cluster's version.
    pub(crate) fn storage_version(&self) -> String {
        self.cluster.read().version.clone()
    }

    /// Waits until a read of the local store is linearizable.
    ///
    /// A sole voter that leads needs no round: whatever was acknowledged is applied here
    /// (`docs/decisions/0002-reads-of-a-sole-voter.md`). With others, the reads of a turn of this thread share one.
    ///
    /// # Errors
    /// [`Error::LeaderChanged`], [`Error::Timeout`]; also while nobody leads.
    pub(crate) async fn read_index(&self) -> Result<(), Error> {
        if self.progress.sole_leader.load(Ordering::Acquire) {
            return Ok(());
        }
        let answer = Box::pin(lane::read_index(self.config.request_timeout())).await;
        if answer.is_err() {
            self.metrics.read_indexes_failed.inc();
        }
        answer
    }

    /// Replicates what `who` asks for and waits for its outcome; `body` is the request as the client encoded it.
    ///
    /// # Errors
    /// [`Error::InvalidAuthToken`], [`Error::RequestTooLarge`], [`Error::Timeout`], [`Error::Stopped`]; what
    /// applying gave is inside the outcome.
    pub(crate) async fn propose(
        &self,
        who: impl Asking,
        field: Field,
        body: &[u8],
    ) -> Result<Outcome, Error> {
        let started = Instant::now();
        let id = self.ids.next();
        let data = match self.auth.is_enabled() {
            // In a box of its own: the future of a proposal should be small.
            true => Box::pin(self.encode_asked(id, who.who(), field, body)).await?,
            false => request::encode(id, field, body),
        };
        if data.len() > self.config.max_request_bytes {
            return Err(Error::RequestTooLarge);
        }
        let (sender, receiver) = oneshot::channel();
        let waiter = Some(Waiter { lane: lane::current(), sender });
        lane::propose(Event::Propose { id, data, waiter });
        let timeout = self.config.request_timeout();
        let deadline =
            (!waits_for_removal(field, body)).then(|| tokio::time::Instant::now() + timeout);
        let outcome = self.ended(within(deadline, receiver).await, started);
        let success = outcome.as_ref().is_ok_and(|outcome| outcome.result.is_ok());
        self.metrics.requested(Timed::Proposal(field), success, started.elapsed());
        outcome
    }

    /// What waiting for the end of a proposal gave that began then.
    ///
    /// # Errors
    /// Those of [`Self::late`], [`Error::Stopped`].
    pub(crate) fn ended(
        &self,
        waited: Result<Result<Outcome, oneshot::error::RecvError>, Elapsed>,
        started: Instant,
    ) -> Result<Outcome, Error> {
        match waited {
            Ok(outcome) => outcome.map_err(|_| Error::Stopped),
            Err(Elapsed) => {
                self.metrics.proposals_failed.inc();
                Err(self.late(started))
            }
        }
    }

    /// Why a proposal that began then has no outcome, as far as one can tell.
    fn late(&self, started: Instant) -> Error {
        let led_since = Duration::from_nanos(self.progress.led_since.load(Ordering::Acquire));
        let elected = self.started + led_since;
        let lost = elected.checked_sub(2 * self.config.election_timeout);
        if lost.is_none_or(|lost| started > lost) && started < elected {
            return Error::TimeoutLeaderFail;
        }
        let leader = self.leader();
        if leader == 0 && started > elected && !self.had_leader_since(started) {
            return Error::DeadlineExceeded;
        }
        let connected =
            |id| id == self.member_id || self.active_since(id).is_some_and(|at| at < started);
        let cluster = self.cluster.read();
        let is_connected = if leader == 0 || leader == self.member_id {
            let voters = cluster.members.values().filter(|member| !member.is_learner);
            let voters: Vec<u64> = voters.map(|member| member.id).collect();
            let count = voters.iter().filter(|id| connected(**id)).count();
            count > voters.len() / 2
        } else {
            connected(leader)
        };
        if is_connected { Error::Timeout } else { Error::TimeoutConnectionLost }
    }

    /// Whether somebody led at some time since then.
    fn had_leader_since(&self, moment: Instant) -> bool {
        let lost = Duration::from_nanos(self.progress.leaderless_since.load(Ordering::Acquire));
        self.started + lost > moment
    }

    /// Follows a change of the members.
    pub(crate) fn note_members(&self) {
        let cluster = self.cluster.read();
        let learns = cluster.members.get(&self.member_id).is_some_and(|own| own.is_learner);
        self.progress.is_learner.store(learns, Ordering::Relaxed);
    }

    /// Since when another member is connected without a break.
    pub(crate) fn active_since(&self, id: u64) -> Option<Instant> {
        Some(self.transport.get()?.active_since(id)?.into_std())
    }

    /// This member is none any more: it stops.
    pub(crate) fn leave(&self) {
        self.removed.send_replace(true);
    }

    /// An entry with its caller.
    async fn encode_asked(
        &self,
        id: u64,
        who: &Who,
        field: Field,
        body: &[u8],
    ) -> Result<Bytes, Error> {
        let caller = self.caller(who)?;
        Ok(request::encode_for(id, &caller, field, body))
    }

    /// Puts a commit index at or above what is applied on disk; false when the raft thread has ended. Blocks.
    pub(crate) fn sync_commit(&self) -> bool {
        let (done, wait) = oneshot::channel();
        self.inbox.push(Event::SyncCommit(done));
        wait.blocking_recv().is_ok()
    }

    /// The answer of an outcome, or its refusal as a status.
    ///
    /// # Errors
    /// The status of the refusal.
    pub(crate) fn answer(&self, result: Result<Answer, Error>) -> Result<Answer, Status> {
        result.map_err(Status::from)
    }

    /// The status of a read that failed. A store that cannot be read stops being believed: the client
    /// hears so, and the log says it once per read.
    pub(crate) fn failed(&self, error: &etched_mvcc::Error) -> Status {
        match Error::from_mvcc(error) {
            Some(refused) => refused.into(),
            None => {
                tracing::error!(error = %error, "the store cannot be read");
                Status::new(Code::DataLoss, error.to_string())
            }
        }
    }

    /// Refuses a request that adds `cost` bytes when they would not fit into the quota or the log may find no
    /// room for them, and raises the alarm.
    ///
    /// # Errors
    /// [`Error::NoSpace`].
    pub(crate) fn admit(&self, cost: u64) -> Result<(), Error> {
        if cost == 0 {
            // Only deletes and reads: they have to work when the quota is used up.
            return Ok(());
        }
        let full = |quota| self.live_bytes() + cost >= quota;
        let log_is_full = self.progress.log_is_full.load(Ordering::Relaxed);
        if !log_is_full && !self.config.quota_bytes.is_some_and(full) {
            return Ok(());
        }
        self.raise(AlarmType::Nospace);
        Err(Error::NoSpace)
    }

    /// Bytes that the data takes, in the file and on its way there.
    fn live_bytes(&self) -> u64 {
        self.progress.file_live_bytes.load(Ordering::Relaxed) + self.reader.memory_bytes() as u64
    }

    /// Raises an alarm for this member, unless it is raised.
    pub(crate) fn raise(&self, alarm: AlarmType) {
        let alarm = alarm as i32;
        if self.cluster.read().alarms.contains(&(self.member_id, alarm)) {
            return;
        }
        let request =
            AlarmRequest { action: AlarmAction::Activate as i32, member_id: self.member_id, alarm };
        let id = self.ids.next();
        let data = request::encode_message(id, Field::Alarm, &request);
        self.inbox.push(Event::Propose { id, data, waiter: None });
    }

    /// A compaction is complete.
    pub(crate) fn mark_compacted(&self, revision: i64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.progress.compacted_at.store(now.as_secs() as i64, Ordering::Relaxed);
        tracing::info!("compact-revision" = revision, "finished scheduled compaction");
    }

    /// The state gauges at this moment.
    pub(crate) fn observe(&self) -> (StateValues, Totals) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let sizes = self.storage.sizes().unwrap_or_default();
        let watch = self.hub.counters();
        let values = StateValues {
            has_leader: f64::from(self.leader() != 0),
            is_leader: f64::from(self.is_leader()),
            is_learner: f64::from(self.is_learner()),
            committed: load(&self.progress.commit),
            applied: load(&self.progress.applied),
            pending: load(&self.progress.pending),
            quota: self.config.quota_bytes.map_or(-1.0, |quota| quota as f64),
            db_size: sizes.file_bytes as f64,
            db_in_use: sizes.live_bytes as f64,
            keys: self.reader.keys() as f64,
            revision: self.reader.current_revision() as f64,
            compact_revision: self.reader.compact_revision() as f64,
            compaction_last: self.progress.compacted_at.load(Ordering::Relaxed) as f64,
            put_bytes: load(&self.progress.put_bytes),
            watch_streams: watch.streams as f64,
            watchers: watch.watchers as f64,
            slow_watchers: watch.slow_watchers as f64,
            pending_events: watch.pending_events as f64,
            wal_bytes: load(&self.progress.wal_bytes),
            auth_revision: self.auth.revision() as f64,
            ..StateValues::default()
        };
        (values, Totals { events: watch.events_total, ..Totals::default() })
    }
}

/// Whether the answer comes only when old records are removed, which takes as long as there are many: a physical
/// compaction, for which etcd has no timeout either.
fn waits_for_removal(field: Field, body: &[u8]) -> bool {
    field == Field::Compaction
        && CompactionRequest::decode(body).is_ok_and(|request| request.physical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_physical_compaction_may_take_longer_than_a_request() {
        let compaction = |physical| CompactionRequest { revision: 5, physical }.encode_to_vec();
        assert!(waits_for_removal(Field::Compaction, &compaction(true)));
        assert!(!waits_for_removal(Field::Compaction, &compaction(false)));
        assert!(!waits_for_removal(Field::Put, &compaction(true)));
    }
}
