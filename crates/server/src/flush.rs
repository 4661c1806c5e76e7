//! From memory to the store's file: large commits behind the log, and checkpoints that shorten it.
//!
//! ```text
//! apply ── one step of Commit per batch ──> FlushQueue ──> flusher thread ──> Storage::commit
//!                                                              │ visible: Event::Flushed
//!                                                              └ durable: Event::Checkpointed
//! ```
//! Invariants:
//! 1. What one commit brings is everything between two applied indexes, in log order.
//! 2. Before a checkpoint at index A is durable, the log holds a synced commit index >= A.
//! 3. The log is shortened only below a durable checkpoint.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use etched_mvcc::Flushed;
use etched_proto::raftpb::ConfState;
use etched_storage::{Applied, Commit, Durability, Error as StorageError};
use etched_wal::SnapshotMark;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::shared::{Event, Shared, Waiter};

/// Removed records after which a checkpoint is due: until then their room is not used again.
const CHECKPOINT_REMOVED: usize = 50_000;
/// How long changes may wait for company.
const COMMIT_DELAY: Duration = Duration::from_secs(2);
/// Time after which a checkpoint is due when anything changed, so that a quiet server restarts at once.
const CHECKPOINT_DELAY: Duration = Duration::from_secs(300);
/// Pause after a commit found the disk full.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

/// Changes on their way to the file.
#[derive(Debug)]
pub(crate) struct FlushQueue {
    /// Bytes of records that make a commit worth its cost.
    commit_bytes: usize,
    state: Mutex<State>,
    changed: Condvar,
    conf_state: Mutex<Option<ConfState>>,
}

#[derive(Debug, Default)]
struct State {
    commit: Commit,
    bytes: usize,
    /// Log written when the newest change of `commit` was.
    log_bytes: u64,
    /// Answered once the removals of `commit` are in the file.
    waiters: Vec<Waiter>,
    /// Told once everything so far is in the file.
    committed: Vec<oneshot::Sender<()>>,
    /// Records that are in the file by now.
    freed: Vec<Flushed>,
    /// When the oldest change came.
    since: Option<Instant>,
    stop: bool,
}

impl State {
    /// Somebody waits, or the commit is large enough.
    fn worth_it(&self, commit_bytes: usize) -> bool {
        self.bytes >= commit_bytes || !self.waiters.is_empty() || !self.committed.is_empty()
    }
}

impl FlushQueue {
    pub(crate) fn new(commit_bytes: usize) -> Self {
        Self {
            commit_bytes,
            state: Mutex::default(),
            changed: Condvar::new(),
            conf_state: Mutex::default(),
        }
    }

    /// Adds the changes of an applied batch.
    pub(crate) fn push(&self, step: Commit, bytes: usize, log_bytes: u64, waiters: Vec<Waiter>) {
        let mut state = self.state.lock();
        let commit = &mut state.commit;
        commit.applied = step.applied;
        commit.conf_state = step.conf_state.or(commit.conf_state.take());
        append(&mut commit.records, step.records);
        append(&mut commit.removed, step.removed);
        append(&mut commit.rows, step.rows);
        state.waiters.extend(waiters);
        state.bytes += bytes;
        state.log_bytes = log_bytes;
        let first = state.since.is_none();
        state.since.get_or_insert_with(Instant::now);
        if first || state.worth_it(self.commit_bytes) {
            self.changed.notify_one();
        }
    }

    /// Asks for a commit of all there is; the receiver hears when it is visible in the file.
    pub(crate) fn commit_now(&self) -> oneshot::Receiver<()> {
        let (done, wait) = oneshot::channel();
        self.state.lock().committed.push(done);
        self.changed.notify_one();
        wait
    }

    /// Leaves the freeing of many records to the flusher.
    pub(crate) fn free_later(&self, records: Flushed) {
        self.state.lock().freed.push(records);
        self.changed.notify_one();
    }

    /// Membership as of the last commit.
    pub(crate) fn conf_state(&self) -> Option<ConfState> {
        self.conf_state.lock().clone()
    }

    /// Nothing more comes: write all and end.
    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_one();
    }

    /// Waits until a commit is worth it; the commit, and whether it is the last.
    fn next(&self, checkpoint_at: Option<Instant>) -> (State, bool) {
        let mut state = self.state.lock();
        loop {
            let freed = std::mem::take(&mut state.freed);
            if !freed.is_empty() {
                MutexGuard::unlocked(&mut state, || drop(freed));
                continue;
            }
            let due = state.since.map(|since| since + COMMIT_DELAY);
            let now = Instant::now();
            if state.stop || state.worth_it(self.commit_bytes) || due.is_some_and(|due| due <= now)
            {
                break;
            }
            if checkpoint_at.is_some_and(|at| at <= now) {
                break;
            }
            match [due, checkpoint_at].into_iter().flatten().min() {
                None => self.changed.wait(&mut state),
                Some(deadline) => {
                    self.changed.wait_until(&mut state, deadline);
                }
            }
        }
        let stop = state.stop;
        (std::mem::replace(&mut state, State { stop, ..State::default() }), stop)
    }

    /// Puts back what could not be written, in front of what came since.
    fn put_back(&self, mut old: State) {
        let mut state = self.state.lock();
        let new = std::mem::take(&mut *state);
        old.waiters.extend(new.waiters);
        old.committed.extend(new.committed);
        old.freed = new.freed;
        if new.since.is_some() {
            old.commit.applied = new.commit.applied;
            old.commit.conf_state = new.commit.conf_state.or(old.commit.conf_state.take());
            append(&mut old.commit.records, new.commit.records);
            append(&mut old.commit.removed, new.commit.removed);
            append(&mut old.commit.rows, new.commit.rows);
            old.bytes += new.bytes;
            old.log_bytes = new.log_bytes;
        }
        old.stop = new.stop;
        *state = old;
    }
}

fn tell(committed: Vec<oneshot::Sender<()>>) {
    for waiter in committed {
        // Who has gone needs no answer.
        let _ = waiter.send(());
    }
}

/// Appends without a copy when there is nothing to append to.
fn append<T>(to: &mut Vec<T>, mut from: Vec<T>) {
    if to.is_empty() {
        *to = from;
    } else {
        to.append(&mut from);
    }
}

/// The thread that moves changes to the file.
pub(crate) struct Flusher {
    shared: Arc<Shared>,
    applied: Applied,
    conf_state: Option<ConfState>,
    /// Log written at the last checkpoint.
    checkpoint_log_bytes: u64,
    log_bytes: u64,
    /// Records removed since the last checkpoint.
    removed: usize,
    /// When the first change after the last checkpoint was committed.
    unsafe_since: Option<Instant>,
}

impl Flusher {
    /// A flusher of a store that stands at `applied`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        applied: Applied,
        conf_state: Option<ConfState>,
    ) -> Self {
        Self {
            shared,
            applied,
            conf_state,
            checkpoint_log_bytes: 0,
            log_bytes: 0,
            removed: 0,
            unsafe_since: None,
        }
    }

    /// Runs until [`FlushQueue::stop`], and ends with a checkpoint.
    ///
    /// # Errors
    /// The store's file failed: the process must stop. The log still holds everything.
    pub(crate) fn run(mut self) -> Result<(), StorageError> {
        loop {
            let checkpoint_at = self.unsafe_since.map(|since| since + CHECKPOINT_DELAY);
            let (state, stop) = self.shared.flush.next(checkpoint_at);
            let logged = state.log_bytes.max(self.log_bytes);
            let due = logged - self.checkpoint_log_bytes >= self.shared.config.checkpoint_log_bytes
                || self.removed >= CHECKPOINT_REMOVED
                || checkpoint_at.is_some_and(|at| at <= Instant::now());
            let durability =
                if stop || due { Durability::Checkpoint } else { Durability::Buffered };
            match self.commit(state, durability) {
                Ok(going_on) if stop || !going_on => return Ok(()),
                Ok(_) => {}
                Err(error) if error.is_no_space() && !stop => self.wait_for_space(&error),
                Err(error) => return Err(error),
            }
        }
    }

    /// False when the raft thread is gone, which ends the flusher: what is in the log will be replayed.
    fn commit(&mut self, mut state: State, durability: Durability) -> Result<bool, StorageError> {
        let nothing_new = state.since.is_none();
        if nothing_new {
            state.commit.applied = self.applied;
            state.log_bytes = self.log_bytes;
        }
        if nothing_new && (durability == Durability::Buffered || self.unsafe_since.is_none()) {
            tell(state.committed);
            return Ok(true);
        }
        if durability == Durability::Checkpoint && !self.sync_commit() {
            return Ok(false);
        }
        let started = Instant::now();
        if let Err(error) = self.shared.storage.commit(&state.commit, durability) {
            self.shared.flush.put_back(state);
            return Err(error);
        }
        self.shared.metrics.backend_commit.observe(started.elapsed().as_secs_f64());
        self.committed(state, durability);
        Ok(true)
    }

    fn committed(&mut self, state: State, durability: Durability) {
        let State { commit, waiters, committed, log_bytes, .. } = state;
        self.applied = commit.applied;
        self.log_bytes = log_bytes;
        self.removed += commit.removed.len();
        self.conf_state = commit.conf_state.or(self.conf_state.take());
        self.shared.flush.conf_state.lock().clone_from(&self.conf_state);
        let sizes = self.shared.storage.sizes().unwrap_or_default();
        self.shared.progress.file_live_bytes.store(sizes.live_bytes, Ordering::Relaxed);
        tell(committed);
        if let Some((revision, _)) = commit.records.last() {
            self.shared.inbox.push(Event::Flushed(*revision));
        }
        if !waiters.is_empty() {
            self.shared.inbox.push(Event::Removed(waiters));
        }
        if durability == Durability::Buffered {
            self.unsafe_since.get_or_insert_with(Instant::now);
            return;
        }
        self.unsafe_since = None;
        self.removed = 0;
        self.checkpoint_log_bytes = self.log_bytes;
        let mark = SnapshotMark {
            index: self.applied.index,
            term: self.applied.term,
            conf_state: self.conf_state.clone(),
        };
        self.shared.inbox.push(Event::Checkpointed(mark));
    }

    /// Invariant 2; false when the raft thread has ended.
    fn sync_commit(&self) -> bool {
        let (done, wait) = oneshot::channel();
        self.shared.inbox.push(Event::SyncCommit(done));
        wait.blocking_recv().is_ok()
    }

    /// A full disk is the operator's to mend; meanwhile puts are refused and memory does not grow.
    fn wait_for_space(&self, error: &StorageError) {
        tracing::error!(error = %error, "the disk is full; raising alarm NOSPACE");
        self.shared.raise_no_space();
        std::thread::sleep(FULL_DISK_PAUSE);
    }
}
