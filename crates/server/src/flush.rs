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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use etched_mvcc::Flushed;
use etched_proto::raftpb::ConfState;
use etched_storage::{Applied, Commit, Durability, Error as StorageError};
use etched_wal::SnapshotMark;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::background::Pace;
use crate::removals::{self, Removals};
use crate::shared::{Event, Shared, Waiter};

/// Removed records after which a checkpoint is due: until then their room is not used again.
const CHECKPOINT_REMOVED: usize = 100_000;
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
    /// Removed records that are still in the file.
    removing: AtomicUsize,
    /// Held by the one defragmentation there may be.
    defragmenting: Arc<tokio::sync::Mutex<()>>,
    /// Held by who gives back the room of a file that one replaced.
    shrinking: Mutex<()>,
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
            removing: AtomicUsize::new(0),
            defragmenting: Arc::default(),
            shrinking: Mutex::default(),
        }
    }

    /// Adds the changes of an applied batch.
    pub(crate) fn push(&self, step: Commit, bytes: usize, log_bytes: u64, waiters: Vec<Waiter>) {
        self.removing.fetch_add(step.removed.len(), Ordering::Relaxed);
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

    /// Whether as many removed records wait as may: the sweep has to wait as well.
    pub(crate) fn removes_enough(&self) -> bool {
        self.removing.load(Ordering::Relaxed) >= removals::WAITING_MAX
    }

    /// The turns of those who defragment.
    pub(crate) const fn defragmenting(&self) -> &Arc<tokio::sync::Mutex<()>> {
        &self.defragmenting
    }

    /// The turn of who gives back room.
    pub(crate) const fn shrinking(&self) -> &Mutex<()> {
        &self.shrinking
    }

    /// Whether [`Self::stop`] was called.
    pub(crate) fn is_stopping(&self) -> bool {
        self.state.lock().stop
    }

    /// Nothing more comes: write all and end.
    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_one();
    }

    /// Waits until a commit is worth it or it is time; the commit, and whether it is the last.
    fn next(&self, wake_at: Option<Instant>) -> (State, bool) {
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
            if wake_at.is_some_and(|at| at <= now) {
                break;
            }
            match [due, wake_at].into_iter().flatten().min() {
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
        // A slice of removals alone has no `since`: what came meanwhile must not go under its index.
        old.since = old.since.or(new.since);
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
    removals: Removals,
    /// When the next slice of them may go.
    next_removal: Instant,
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
            removals: Removals::default(),
            next_removal: Instant::now(),
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
            let removal_at = self.removals.is_due().then_some(self.next_removal);
            let wake_at = [checkpoint_at, removal_at].into_iter().flatten().min();
            let (mut state, stop) = self.shared.flush.next(wake_at);
            self.take_removals(&mut state, stop);
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

    /// One commit of what waits, on the caller's thread.
    #[cfg(all(test, debug_assertions))]
    pub(crate) fn commit_waiting(&mut self) -> Result<bool, StorageError> {
        let state = std::mem::take(&mut *self.shared.flush.state.lock());
        self.commit(state, Durability::Buffered)
    }

    /// Puts the next slice of removals into the commit, if it is time for one.
    fn take_removals(&mut self, state: &mut State, stop: bool) {
        let commit = &mut state.commit;
        self.removals.add(std::mem::take(&mut commit.removed), &mut commit.rows);
        self.removals.wait(std::mem::take(&mut state.waiters));
        // At the end what is left waits for the next start, which finds the compaction unfinished.
        let due = if stop { self.removals.is_short() } else { self.next_removal <= Instant::now() };
        if due {
            commit.removed = self.removals.take(&mut commit.rows);
        }
    }

    /// False when the raft thread is gone, which ends the flusher: what is in the log will be replayed.
    fn commit(&mut self, mut state: State, durability: Durability) -> Result<bool, StorageError> {
        if state.since.is_none() {
            state.commit.applied = self.applied;
            state.log_bytes = self.log_bytes;
        }
        let removes = !state.commit.removed.is_empty() || !state.commit.rows.is_empty();
        let nothing_new = state.since.is_none() && !removes;
        if nothing_new && (durability == Durability::Buffered || self.unsafe_since.is_none()) {
            tell(state.committed);
            self.answer_removed();
            return Ok(true);
        }
        // Invariant 2. Without the raft thread, what is in the log will be replayed.
        if durability == Durability::Checkpoint && !self.shared.sync_commit() {
            return Ok(false);
        }
        let (started, mut pace) = (Instant::now(), Pace::new(&self.shared));
        if let Err(error) = self.shared.storage.commit(&state.commit, durability) {
            let Commit { removed, rows, .. } = &mut state.commit;
            self.removals.put_back(removed, rows);
            self.shared.flush.put_back(state);
            return Err(error);
        }
        self.shared.metrics.backend_commit.observe(started.elapsed().as_secs_f64());
        if !state.commit.removed.is_empty() {
            self.next_removal = Instant::now() + pace.rest(&self.shared);
        }
        self.committed(state, durability);
        Ok(true)
    }

    fn committed(&mut self, state: State, durability: Durability) {
        let State { commit, committed, log_bytes, .. } = state;
        self.applied = commit.applied;
        self.log_bytes = log_bytes;
        self.removed += commit.removed.len();
        self.shared.flush.removing.fetch_sub(commit.removed.len(), Ordering::Relaxed);
        self.conf_state = commit.conf_state.or(self.conf_state.take());
        let sizes = self.shared.storage.sizes().unwrap_or_default();
        self.shared.progress.file_live_bytes.store(sizes.live_bytes, Ordering::Relaxed);
        tell(committed);
        if let Some((revision, _)) = commit.records.last() {
            self.shared.inbox.push(Event::Flushed(*revision));
        }
        self.answer_removed();
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

    /// Answers physical compactions of which nothing is left in the file.
    fn answer_removed(&mut self) {
        let waiters = self.removals.take_waiters();
        if !waiters.is_empty() {
            self.shared.inbox.push(Event::Removed(waiters));
        }
    }

    /// A full disk is the operator's to mend; meanwhile puts are refused and memory does not grow.
    fn wait_for_space(&self, error: &StorageError) {
        tracing::error!(error = %error, "the disk is full; raising alarm NOSPACE");
        self.shared.raise(etched_proto::etcdserverpb::AlarmType::Nospace);
        std::thread::sleep(FULL_DISK_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_while_a_slice_of_removals_failed_keeps_its_own_index() {
        let queue = FlushQueue::new(1);
        let step = Commit { applied: Applied { index: 7, term: 2 }, ..Commit::default() };
        queue.push(step, 0, 100, Vec::new());
        let failed = Commit { applied: Applied { index: 3, term: 2 }, ..Commit::default() };
        queue.put_back(State { commit: failed, ..State::default() });
        let state = queue.state.lock();
        assert_eq!(state.commit.applied.index, 7);
        assert!(state.since.is_some(), "or the flusher takes it for a commit of nothing new");
    }
}
