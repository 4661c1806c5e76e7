//! From committed entries to state: the one place that changes what is replicated.
//!
//! Runs in log order on the raft thread, live and in replay alike. Reads no clock but the lessor's (whose
//! expiry is not replicated) and no randomness. What one entry does is exactly what etcd 3.7.1 does with it,
//! also for entries that this server's API would refuse.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use etched_auth::Caller;
use etched_consensus::{ConfChange, Entry};
use etched_lease::Lessor;
use etched_mvcc::{Answer as Want, HashJob, Leases, Revision, Store};
use etched_proto::etcdserverpb as pb;
use etched_proto::raftpb::ConfState;
use etched_proto::raw::TxnReply;
use etched_storage::{Applied, Commit, Table};

use crate::auth;
use crate::cluster::Member;
use crate::error::Error;
use crate::membership::{Change, Invalid};
use crate::metrics::Operation;
use crate::request::{self, AuthRequest, Request};
use crate::shared::{Answer, Outcome, Shared, Waiter};
use crate::versions::{self, Version};

/// Row of the table `meta`: the compaction up to which all records are removed.
pub(crate) const FINISHED: &[u8] = b"finishedCompactRev";

/// What an entry gave, and who is to hear of it when that is not at once.
pub(crate) enum Applying {
    /// The outcome is known.
    Now(Outcome),
    /// A physical compaction: answered when the rows are gone.
    WhenRemoved,
}

/// A state that must not go on: the process stops with this line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fatal {
    /// A committed entry is no request.
    #[error("entry {index} of the log does not decode: {reason}")]
    BadEntry { index: u64, reason: String },
    /// A committed entry changes something that this version does not know.
    #[error(
        "entry {index} of the log holds request {field}, which this version does not know: a newer one wrote it"
    )]
    UnknownRequest { index: u64, field: u32 },
    /// The store's file failed while an entry was applied.
    #[error("entry {index} of the log cannot be applied: {reason}")]
    Store { index: u64, reason: String },
    /// Somebody read the store's file for a check, and it is damaged.
    #[error("the store cannot be read: {0}")]
    Unreadable(String),
    /// raft or its log.
    #[error(transparent)]
    Consensus(#[from] etched_consensus::Error),
}

fn bad_entry(entry: &Entry, reason: String) -> Fatal {
    Fatal::BadEntry { index: entry.index, reason }
}

/// Stack for transactions nested as deep as etcd's decoder takes them, five thousand; only what is used takes memory.
const ROOM_BYTES: usize = 256 << 20;

/// Does `work`, which may recurse for each transaction in another, where there is room for that.
fn with_room<T: Send>(
    index: u64,
    work: impl FnOnce() -> Result<T, Fatal> + Send,
) -> Result<T, Fatal> {
    let thread = std::thread::Builder::new().name("deep".to_owned()).stack_size(ROOM_BYTES);
    std::thread::scope(|scope| match thread.spawn_scoped(scope, work) {
        Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(error) => Err(Fatal::Store { index, reason: format!("no thread: {error}") }),
    })
}

/// The replicated state and its changes on the way to the file.
pub(crate) struct Applier {
    store: Store,
    shared: Arc<Shared>,
    step: Commit,
    bytes: usize,
    /// Those who wait for a physical compaction that is still swept.
    compacting: Vec<Waiter>,
    /// Those whose compaction is complete with this step.
    removed: Vec<Waiter>,
    hash_jobs: Vec<HashJob>,
    revoked: bool,
    /// The floor whose history is not all removed yet.
    unswept: Option<i64>,
    /// When the compaction that is swept began.
    compaction_began: Option<Instant>,
}

/// Time since `started`, in milliseconds.
fn millis(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1000.0
}

impl Applier {
    /// A state at the index that `store` was opened at.
    ///
    /// `first_rows` are what a new store has of users before its first entry.
    pub(crate) fn new(
        store: Store,
        shared: Arc<Shared>,
        unswept: Option<i64>,
        first_rows: Vec<etched_auth::Row>,
    ) -> Self {
        let rows = first_rows.into_iter().map(auth::storage_row).collect();
        Self {
            store,
            shared,
            step: Commit { rows, ..Commit::default() },
            bytes: 0,
            compacting: Vec::new(),
            removed: Vec::new(),
            hash_jobs: Vec::new(),
            revoked: false,
            unswept,
            compaction_began: None,
        }
    }

    /// Applies a normal entry.
    ///
    /// # Errors
    /// [`Fatal`]: the state cannot go on from here.
    pub(crate) fn apply(
        &mut self,
        entry: &Entry,
        caller: &Caller,
        request: Request,
        wanted: bool,
    ) -> Result<Applying, Fatal> {
        let want = if wanted { Want::Wanted } else { Want::Unwanted };
        let (operation, started) = (operation(&request), Instant::now());
        let result = match self.dispatch(entry.index, caller, request, want) {
            Ok(Done::Answer(answer)) => Ok(answer),
            Ok(Done::Later) => return Ok(Applying::WhenRemoved),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Fatal(reason)) => {
                return Err(Fatal::Store { index: entry.index, reason });
            }
        };
        self.shared.metrics.applied(operation, result.is_ok(), started.elapsed());
        Ok(Applying::Now(Outcome { result, revision: self.store.current_revision() }))
    }

    /// Decodes an entry, and hands `then` what it holds: nothing, when it is the empty one that begins a term.
    ///
    /// # Errors
    /// [`Fatal::BadEntry`], [`Fatal::UnknownRequest`]: to skip it would be to differ from the other members. Those of
    /// `then`.
    pub(crate) fn with_decoded<T: Send>(
        entry: &Entry,
        then: impl FnOnce(Option<request::Decoded>) -> Result<T, Fatal> + Send,
    ) -> Result<T, Fatal> {
        if entry.data.is_empty() {
            return then(None);
        }
        match request::decode(entry.data.clone()) {
            Ok(decoded) => then(Some(Self::known(entry, decoded)?)),
            // Nobody proposes such a thing but who means to, or for clients that do.
            Err(_) => with_room(entry.index, || {
                let decoded = request::decode_as_etcd(&entry.data);
                let decoded = decoded.map_err(|error| bad_entry(entry, error.to_string()))?;
                then(Some(Self::known(entry, decoded)?))
            }),
        }
    }

    fn known(entry: &Entry, decoded: request::Decoded) -> Result<request::Decoded, Fatal> {
        let decoded = if decoded.unknown == Some(request::OLD_REQUEST) {
            crate::old_request::decode(entry.data.clone())
                .map_err(|error| bad_entry(entry, error.to_string()))?
        } else {
            decoded
        };
        match decoded.unknown {
            Some(field) => Err(Fatal::UnknownRequest { index: entry.index, field }),
            None => Ok(decoded),
        }
    }

    fn dispatch(
        &mut self,
        index: u64,
        caller: &Caller,
        request: Request,
        want: Want,
    ) -> Result<Done, Failure> {
        self.refuse_under_alarm(&request)?;
        self.authorize(caller, &request)?;
        let shared = Arc::clone(&self.shared);
        let mut leases = LessorLeases(&shared);
        let answer = match request {
            Request::Put(request) => {
                self.count_put(&request);
                Answer::Put(self.store.put(&request, &mut leases, want)?)
            }
            Request::DeleteRange(request) => {
                shared.metrics.mvcc_delete.inc();
                Answer::DeleteRange(self.store.delete_range(&request, &mut leases, want)?)
            }
            Request::Txn(request) => {
                shared.metrics.mvcc_txn.inc();
                Answer::Txn(self.txn(&request, &mut leases, want)?)
            }
            Request::Compaction(request) => return self.compact(&request),
            Request::LeaseGrant(request) => self.grant(&request)?,
            Request::LeaseRevoke(request) => self.revoke(request.id, &mut leases)?,
            Request::LeaseCheckpoint(request) => self.checkpoint_leases(&request),
            Request::Alarm(request) => self.alarm(&request),
            Request::Auth(request) => self.change_users(*request, index)?,
            Request::ClusterVersionSet(request) => self.set_cluster_version(request.ver)?,
            Request::ClusterMemberAttrSet(request) => {
                let attributes = request.member_attributes.unwrap_or_default();
                self.change_cluster(|cluster| {
                    cluster.set_attributes(
                        request.member_id,
                        attributes.name,
                        attributes.client_urls,
                    )
                })
            }
            Request::DowngradeInfoSet(request) => {
                self.change_cluster(|cluster| cluster.set_downgrade(request.enabled, request.ver))
            }
        };
        Ok(Done::Answer(answer))
    }

    /// etcd refuses these in apply, so that all members refuse the same.
    fn refuse_under_alarm(&self, request: &Request) -> Result<(), Failure> {
        let cluster = self.shared.cluster.read();
        if cluster.alarms.is_empty() {
            return Ok(());
        }
        let changes_data = matches!(
            request,
            Request::Put(_)
                | Request::DeleteRange(_)
                | Request::Txn(_)
                | Request::Compaction(_)
                | Request::LeaseGrant(_)
                | Request::LeaseRevoke(_)
        );
        if changes_data && cluster.has_alarm(pb::AlarmType::Corrupt) {
            return Err(Failure::Refused(Error::Corrupt));
        }
        let grows = match request {
            Request::Put(_) | Request::LeaseGrant(_) => true,
            Request::Txn(txn) => crate::quota::txn_cost(txn) > 0,
            _ => false,
        };
        if grows && cluster.has_alarm(pb::AlarmType::Nospace) {
            return Err(Failure::Refused(Error::NoSpace));
        }
        Ok(())
    }

    /// Who asks must be allowed to at this point of the log, whatever was true when it was proposed.
    fn authorize(&self, caller: &Caller, request: &Request) -> Result<(), Failure> {
        if self.shared.auth.is_enabled()
            && let Some(asked) = auth::asked(request)
        {
            let allowed = self.shared.auth.authorize(caller, asked, &*self.shared);
            allowed.map_err(Failure::Refused)?;
        }
        Ok(())
    }

    fn change_users(&mut self, request: AuthRequest, index: u64) -> Result<Answer, Failure> {
        let (mut rows, now) = (Vec::new(), self.shared.now());
        let answer = self.shared.auth.apply(request, index, now, &mut rows);
        self.step.rows.extend(rows.into_iter().map(auth::storage_row));
        Ok(Answer::Auth(Box::new(answer.map_err(Failure::Refused)?)))
    }

    fn count_put(&self, request: &pb::PutRequest) {
        use std::sync::atomic::Ordering;
        self.shared.metrics.mvcc_put.inc();
        let bytes = (request.key.len() + request.value.len()) as u64;
        self.shared.progress.put_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn txn(
        &mut self,
        request: &pb::TxnRequest,
        leases: &mut dyn Leases,
        want: Want,
    ) -> Result<TxnReply, Failure> {
        Ok(self.store.txn(request, leases, want)?)
    }

    fn compact(&mut self, request: &pb::CompactionRequest) -> Result<Done, Failure> {
        let started = Instant::now();
        let job = self.store.compact(request.revision)?;
        self.shared.metrics.index_pause.observe(millis(started));
        self.compaction_began = Some(started);
        self.hash_jobs.push(job);
        self.unswept = Some(request.revision);
        Ok(if request.physical { Done::Later } else { Done::Answer(Answer::Done) })
    }

    /// Keeps the waiter of a physical compaction until its rows are gone.
    pub(crate) fn wait_for_removal(&mut self, waiter: Waiter) {
        self.compacting.push(waiter);
    }

    fn grant(&mut self, request: &pb::LeaseGrantRequest) -> Result<Answer, Failure> {
        let now = self.shared.now();
        let granted = self.shared.lessor.lock().grant(request.id, request.ttl, now)?;
        self.shared.metrics.lease_granted.inc();
        self.shared.metrics.lease_ttl.observe(granted.ttl as f64);
        self.step.rows.push((Table::Lease, granted.row.key, granted.row.value));
        Ok(Answer::LeaseGranted { id: request.id, ttl: granted.ttl })
    }

    fn revoke(&mut self, id: i64, leases: &mut dyn Leases) -> Result<Answer, Failure> {
        let revoked = self.shared.lessor.lock().revoke(id)?;
        self.shared.metrics.lease_revoked.inc();
        self.store.delete_keys(&revoked.keys, leases);
        self.step.rows.push((Table::Lease, revoked.row.key, revoked.row.value));
        self.revoked = true;
        Ok(Answer::Done)
    }

    fn checkpoint_leases(&mut self, request: &pb::LeaseCheckpointRequest) -> Answer {
        let now = self.shared.now();
        let persist = self.shared.cluster.read().version_at_least(3, 6);
        let mut lessor = self.shared.lessor.lock();
        for point in &request.checkpoints {
            let row = lessor.checkpoint(point.id, point.remaining_ttl, persist, now);
            self.step.rows.extend(row.map(|row| (Table::Lease, row.key, row.value)));
        }
        Answer::Done
    }

    fn alarm(&mut self, request: &pb::AlarmRequest) -> Answer {
        use pb::alarm_request::AlarmAction;
        let (member_id, kind) = (request.member_id, request.alarm);
        let one = pb::AlarmMember { member_id, alarm: kind };
        let mut cluster = self.shared.cluster.write();
        let alarms = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => cluster.alarms_of(kind),
            Ok(AlarmAction::Activate) if kind != pb::AlarmType::None as i32 => {
                let rows = cluster.activate(member_id, kind);
                if !rows.is_empty() {
                    self.shared.metrics.count_alarm(member_id, kind, 1.0);
                }
                self.step.rows.extend(rows);
                vec![one]
            }
            Ok(AlarmAction::Deactivate) => match cluster.deactivate(member_id, kind) {
                Some(rows) => {
                    self.shared.metrics.count_alarm(member_id, kind, -1.0);
                    self.step.rows.extend(rows);
                    vec![one]
                }
                None => Vec::new(),
            },
            // etcd crashes on an unknown action; our API never proposes one.
            _ => Vec::new(),
        };
        Answer::Alarms(alarms)
    }

    fn set_cluster_version(&mut self, text: String) -> Result<Answer, Failure> {
        let version = versions::accept(&text).map_err(Failure::Fatal)?;
        let before = Version::parse(&self.shared.cluster.read().version).map(Version::short);
        let now = version.short();
        match &before {
            None => tracing::info!("cluster-version" = now, "set initial cluster version"),
            Some(from) => tracing::info!(from, to = now, "updated cluster version"),
        }
        self.shared.metrics.cluster_version(before.as_deref(), &now);
        Ok(self.change_cluster(|cluster| cluster.set_version(text)))
    }

    fn change_cluster(
        &mut self,
        change: impl FnOnce(&mut crate::cluster::Cluster) -> Vec<crate::cluster::Row>,
    ) -> Answer {
        let rows = change(&mut self.shared.cluster.write());
        self.step.rows.extend(rows);
        Answer::Done
    }

    /// What a membership change does at this point of the log.
    ///
    /// # Errors
    /// [`Invalid`].
    pub(crate) fn validate(&self, change: &ConfChange) -> Result<Change, Invalid> {
        self.shared.cluster.read().validate(change, self.shared.config.max_learners)
    }

    /// Applies the member's side of a membership change; raft has taken it already. The members then.
    pub(crate) fn change_members(&mut self, change: Change, conf_state: ConfState) -> Vec<Member> {
        let (id, message) = match &change {
            Change::Add(member) => (member.id, "added member"),
            Change::Promote(id) => (*id, "promote member"),
            Change::Remove(id) => (*id, "removed member"),
            Change::PeerUrls(id, _) => (*id, "updated member"),
        };
        let (own, id) = (format!("{:x}", self.shared.member_id), format!("{id:x}"));
        tracing::info!("local-member-id" = own, "peer-id" = id, "{message}");
        self.change_cluster(|cluster| cluster.change_members(change));
        self.step.conf_state = Some(conf_state);
        self.shared.cluster.read().members.values().cloned().collect()
    }

    /// Tells watchers, and hands the batch's changes to the flusher.
    ///
    /// # Errors
    /// [`Fatal::Store`] when a previous value that a watcher wants cannot be read.
    pub(crate) fn finish_batch(&mut self, applied: Applied, log_bytes: u64) -> Result<(), Fatal> {
        let events = self.store.take_events();
        if !events.is_empty() {
            let fatal = |error: etched_mvcc::RecordsError| Fatal::Store {
                index: applied.index,
                reason: error.to_string(),
            };
            let wakes = self.shared.hub.notify(&events, &self.shared.reader).map_err(fatal)?;
            self.shared.wakes.wake(wakes);
        }
        if std::mem::take(&mut self.revoked) {
            self.shared.revoked.notify_waiters();
        }
        let changes = self.store.take_changes();
        if let Some(floor) = changes.scheduled {
            self.shared.wakes.wake(self.shared.hub.compacted(floor));
            self.compaction_row(b"scheduledCompactRev", floor);
        }
        self.bytes += changes.records.iter().map(|(_, record)| record.bytes.len()).sum::<usize>();
        let mut step = std::mem::take(&mut self.step);
        step.applied = applied;
        step.records = changes.records;
        let removed = std::mem::take(&mut self.removed);
        self.shared.flush.push(step, std::mem::take(&mut self.bytes), log_bytes, removed);
        Ok(())
    }

    /// Whether a compaction is not complete.
    pub(crate) fn is_sweeping(&self) -> bool {
        self.unswept.is_some()
    }

    /// Prunes a slice of history below the floor; false while a reader is still below it.
    pub(crate) fn sweep(&mut self) -> bool {
        let (budget, started) = (self.shared.config.compaction_batch, Instant::now());
        let Some(sweep) = self.store.sweep(budget) else { return false };
        self.shared.metrics.compaction_pause.observe(millis(started));
        self.shared.metrics.compaction_keys.inc_by(sweep.dropped.len() as u64);
        self.step.removed.extend(sweep.dropped);
        if let Some(finished) = sweep.finished {
            self.compaction_row(FINISHED, finished);
            self.removed.append(&mut self.compacting);
            self.unswept = self.unswept.filter(|floor| *floor > finished);
            if let Some(began) = self.compaction_began.take() {
                self.shared.metrics.compaction_total.observe(millis(began));
            }
            self.shared.mark_compacted(finished);
        }
        true
    }

    fn compaction_row(&mut self, name: &'static [u8], revision: i64) {
        let mut value = [0; 17];
        value[..8].copy_from_slice(&revision.to_be_bytes());
        value[8] = b'_';
        let value = Bytes::copy_from_slice(&value);
        self.step.rows.push((Table::Meta, Bytes::from_static(name), Some(value)));
    }

    /// Hashes of compactions that wait to be computed beside.
    pub(crate) fn take_hash_jobs(&mut self) -> Vec<HashJob> {
        std::mem::take(&mut self.hash_jobs)
    }

    /// The file shows every record up to `upto`: what memory held of them is freed by the flusher, not here.
    pub(crate) fn flushed(&mut self, upto: Revision) {
        let flushed = self.store.flushed(upto);
        self.shared.flush.free_later(flushed);
    }

    /// Bytes of records that only memory and the log hold.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.memory_bytes()
    }

    /// Current revision of the store.
    pub(crate) fn revision(&self) -> i64 {
        self.store.current_revision()
    }
}

/// What the metrics call a request.
fn operation(request: &Request) -> Operation {
    let place = match request {
        Request::Put(_) => 0,
        Request::DeleteRange(_) => 1,
        Request::Txn(_) => 2,
        Request::Compaction(_) => 3,
        Request::LeaseGrant(_) => 4,
        Request::LeaseRevoke(_) => 5,
        Request::LeaseCheckpoint(_) => 6,
        Request::Alarm(_) => 7,
        Request::ClusterVersionSet(_) => 8,
        Request::ClusterMemberAttrSet(_) => 9,
        Request::DowngradeInfoSet(_) => 10,
        Request::Auth(request) => {
            // etcd has no name for a look at the status.
            let is_status = matches!(**request, AuthRequest::AuthStatus(_));
            return Operation::Named(if is_status { "unknown" } else { request.name() });
        }
    };
    Operation::Usual(place)
}

enum Done {
    Answer(Answer),
    Later,
}

enum Failure {
    Refused(Error),
    Fatal(String),
}

impl From<etched_mvcc::Error> for Failure {
    fn from(error: etched_mvcc::Error) -> Self {
        match Error::from_mvcc(&error) {
            Some(refused) => Self::Refused(refused),
            None => Self::Fatal(error.to_string()),
        }
    }
}

impl From<etched_lease::Error> for Failure {
    fn from(error: etched_lease::Error) -> Self {
        Self::Refused(error.into())
    }
}

/// The lessor as the store's writes see it.
struct LessorLeases<'a>(&'a Shared);

impl LessorLeases<'_> {
    fn lessor(&self) -> parking_lot::MutexGuard<'_, Lessor> {
        self.0.lessor.lock()
    }
}

impl Leases for LessorLeases<'_> {
    fn exists(&self, id: i64) -> bool {
        self.lessor().exists(id)
    }

    fn lease_of(&self, key: &[u8]) -> i64 {
        self.lessor().lease_of(key)
    }

    fn attach(&mut self, key: &Bytes, id: i64) {
        // A lease that is gone is to be ignored, see the trait.
        let _ = self.lessor().attach(key, id);
    }

    fn detach(&mut self, key: &[u8], id: i64) {
        self.lessor().detach(key, id);
    }
}
