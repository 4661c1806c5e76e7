//! The raft thread: takes all that waits, replicates it as one batch, applies it, answers.
//!
//! ```text
//! Inbox ──take all──> propose ──> Node::advance_inline (one write, one sync) ──> Applier ──> answers by lane
//!                                                                            └──> FlushQueue
//! ```
//! [`Engine`] runs without threads: events and the present moment go in, answers come out by their lanes. The
//! thread around it only waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etched_consensus::{Entry, EntryKind, Node, Role, SoftState, Writer};
use etched_proto::etcdserverpb as pb;
use etched_proto::membershippb;
use etched_storage::Applied;
use etched_wal::Times;
use etched_wal::disk::Disk;
use prost::Message as _;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::apply::{Applier, Applying, Fatal};
use crate::membership::{self, Invalid};
use crate::metrics::Metrics;
use crate::request::{self, Decoded, Field};
use crate::shared::{Event, Outcome, Shared, Waiter};

/// Bytes of records that only memory and the log may hold; above it proposals that add to
/// them wait for the flusher.
pub(crate) const MEMORY_TABLE_BYTES_MAX: usize = 64 << 20;

/// A sync of the log that takes longer is logged, as in etcd.
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// Pause before it is tried again to reserve room for the log.
const FULL_LOG_PAUSE: Duration = Duration::from_secs(1);

/// Bytes of proposals that make a batch full: the rest waits for the next one, so that a few hundred large
/// values neither double in memory at once nor keep the first of them waiting for the last.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Pause of a compaction while a reader is below its floor, or while the flusher has enough to remove.
const BLOCKED_SWEEP_PAUSE: Duration = Duration::from_millis(50);

/// One member's replication and state.
pub(crate) struct Engine<D: Disk> {
    node: Node,
    writer: Writer<D>,
    applier: Applier,
    shared: Arc<Shared>,
    waiters: FxHashMap<u64, Waiter>,
    /// Proposals for the next batch.
    ready: Vec<Bytes>,
    /// Proposals that need memory, with their ids: they wait for the next batch that finds some.
    held: Vec<(u64, Bytes)>,
    answers: Vec<Vec<(oneshot::Sender<Outcome>, Outcome)>>,
    applied: Applied,
    /// Of the last turn; kept for its memory.
    log_times: Times,
    next_tick: Instant,
    next_expiry_pass: Instant,
    next_sweep: Instant,
    next_reserve: Instant,
    stopping: bool,
}

impl<D: Disk> Engine<D> {
    /// An engine whose store stands at `applied`.
    pub(crate) fn new(
        node: Node,
        writer: Writer<D>,
        applier: Applier,
        shared: Arc<Shared>,
        applied: Applied,
    ) -> Self {
        let now = Instant::now();
        let answers = shared.lanes.iter().map(|_| Vec::new()).collect();
        Self {
            node,
            writer,
            applier,
            shared,
            waiters: FxHashMap::default(),
            ready: Vec::new(),
            held: Vec::new(),
            answers,
            applied,
            log_times: Times::default(),
            next_tick: now,
            next_expiry_pass: now,
            next_sweep: now,
            next_reserve: now,
            stopping: false,
        }
    }

    /// Replays what the log has behind the store, becomes leader and publishes this member.
    ///
    /// # Errors
    /// [`Fatal`]: the member cannot start.
    pub(crate) fn start(&mut self) -> Result<(), Fatal> {
        self.turn(Instant::now())?;
        self.node.campaign()?;
        self.turn(Instant::now())?;
        let attributes = membershippb::ClusterMemberAttrSetRequest {
            member_id: self.shared.member_id,
            member_attributes: Some(membershippb::Attributes {
                name: self.shared.config.name.clone(),
                client_urls: self.shared.config.advertise_client_urls.clone(),
            }),
        };
        self.propose_own(Field::ClusterMemberAttrSet, &attributes);
        if let Some(request) = crate::versions::first(&self.shared) {
            self.propose_own(Field::ClusterVersionSet, &request);
        }
        self.turn(Instant::now())?;
        // Only now is all of the log applied: its end is committed by this member's own election.
        self.shared.auth.forget_tokens();
        Ok(())
    }

    fn propose_own(&mut self, field: Field, message: &impl prost::Message) {
        self.ready.push(request::encode_message(self.shared.ids.next(), field, message));
    }

    /// Serves until [`Event::Stop`].
    ///
    /// # Errors
    /// [`Fatal`]: the process must stop.
    pub(crate) fn run(mut self) -> Result<(), Fatal> {
        let result = self.serve();
        self.shared.inbox.close();
        result?;
        Ok(self.writer.close()?)
    }

    fn serve(&mut self) -> Result<(), Fatal> {
        let mut events = Vec::new();
        while !self.stopping {
            self.shared.inbox.take(&mut events, self.next_deadline());
            self.round(&mut events)?;
        }
        Ok(())
    }

    /// Everything that is to be done after `events`; empties them.
    ///
    /// # Errors
    /// [`Fatal`]: the process must stop.
    pub(crate) fn round(&mut self, events: &mut Vec<Event>) -> Result<(), Fatal> {
        for event in events.drain(..) {
            self.on_event(event)?;
        }
        let now = Instant::now();
        self.turn(now)?;
        if self.applier.is_sweeping() && now >= self.next_sweep {
            self.sweep(now)?;
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) -> Result<(), Fatal> {
        match event {
            Event::Propose { id, data, waiter } => {
                self.waiters.extend(waiter.map(|waiter| (id, waiter)));
                if request::grows(&data) {
                    self.held.push((id, data));
                } else {
                    self.ready.push(data);
                }
            }
            Event::Flushed(upto) => self.applier.flushed(upto),
            Event::SyncCommit(done) => {
                self.writer.sync_commit(self.applied.index)?;
                // A flusher that has gone needs no answer.
                let _ = done.send(());
            }
            Event::Checkpointed(mark) => self.writer.checkpointed(&mark)?,
            Event::Removed(waiters) => {
                let revision = self.applier.revision();
                for waiter in waiters {
                    let result = Ok(crate::shared::Answer::Done);
                    self.answer(waiter, Outcome { result, revision });
                }
                self.deliver();
            }
            Event::Wake => self.next_sweep = Instant::now(),
            Event::Unreadable(reason) => return Err(Fatal::Unreadable(reason)),
            Event::Stop => self.stopping = true,
        }
        Ok(())
    }

    /// One round: propose what waits, save, apply, answer.
    fn turn(&mut self, now: Instant) -> Result<(), Fatal> {
        self.on_time(now);
        self.propose()?;
        let output = self.node.advance_inline(&mut self.writer)?;
        self.observe_log();
        if let Some(soft_state) = output.soft_state {
            self.on_soft_state(soft_state);
        }
        self.apply(output.committed)?;
        self.reserve_log(now);
        self.publish();
        Ok(())
    }

    fn observe_log(&mut self) {
        self.writer.take_times(&mut self.log_times);
        observe(&self.log_times, &self.shared.metrics);
    }

    fn propose(&mut self) -> Result<(), Fatal> {
        if self.applier.memory_bytes() < MEMORY_TABLE_BYTES_MAX {
            let mut bytes = 0;
            let fits = |(_, data): &&(u64, Bytes)| {
                let fits = bytes < BATCH_BYTES_MAX;
                bytes += data.len();
                fits
            };
            let count = self.held.iter().take_while(fits).count();
            self.ready.extend(self.held.drain(..count).map(|(_, data)| data));
        } else {
            self.forget_abandoned();
        }
        if !self.ready.is_empty() && !self.node.propose(std::mem::take(&mut self.ready))? {
            // Without a leader the entries are gone; their waiters run into their timeouts.
            tracing::warn!("dropped proposals: no leader");
            self.waiters.retain(|_, waiter| !waiter.sender.is_closed());
        }
        Ok(())
    }

    /// Lets go of proposals that wait for memory and for which nobody waits any more.
    fn forget_abandoned(&mut self) {
        let waiters = &mut self.waiters;
        self.held.retain(|(id, _)| {
            let abandoned = waiters.get(id).is_some_and(|waiter| waiter.sender.is_closed());
            if abandoned {
                waiters.remove(id);
            }
            !abandoned
        });
    }

    /// The log's next file is made while there is room; without it the log ends where this one does.
    fn reserve_log(&mut self, now: Instant) {
        if now < self.next_reserve {
            return;
        }
        let failed = self.writer.reserve().err();
        let was_full = self.shared.progress.log_is_full.swap(failed.is_some(), Ordering::Relaxed);
        if let Some(error) = failed {
            self.next_reserve = now + FULL_LOG_PAUSE;
            if !was_full {
                tracing::error!(error = %error, "no room for the log; raising alarm NOSPACE");
            }
            self.shared.raise(pb::AlarmType::Nospace);
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<(), Fatal> {
        let Some(last) = entries.last() else { return Ok(()) };
        let applied = Applied { index: last.index, term: last.term };
        let started = Instant::now();
        for entry in &entries {
            self.apply_entry(entry)?;
        }
        self.applied = applied;
        self.node.applied(applied.index);
        self.applier.finish_batch(applied, self.writer.bytes())?;
        // Who has an answer and asks for the status must find the index of his entry in it.
        self.publish();
        self.deliver();
        for job in self.applier.take_hash_jobs() {
            self.run_hash_job(job);
        }
        let took = started.elapsed();
        if took > self.shared.config.warning_apply {
            self.shared.metrics.slow_apply.inc();
            tracing::warn!(
                took = ?took,
                "expected-duration" = ?self.shared.config.warning_apply,
                entries = entries.len(),
                "apply request took too long"
            );
        }
        Ok(())
    }

    fn apply_entry(&mut self, entry: &Entry) -> Result<(), Fatal> {
        if entry.kind != EntryKind::Normal {
            return self.apply_conf_change(entry);
        }
        Applier::with_decoded(entry, |decoded| self.apply_request(entry, decoded))
    }

    fn apply_request(&mut self, entry: &Entry, decoded: Option<Decoded>) -> Result<(), Fatal> {
        let Some(decoded) = decoded else {
            if self.node.is_leader() && entry.term == self.node.term() {
                self.lead_leases();
            }
            return Ok(());
        };
        let waiter = self.waiters.remove(&decoded.id);
        let Some(request) = decoded.request else { return Ok(()) };
        match self.applier.apply(entry, &decoded.caller, request, waiter.is_some())? {
            Applying::Now(outcome) => {
                if let Some(waiter) = waiter {
                    self.answer(waiter, outcome);
                }
            }
            Applying::WhenRemoved => {
                if let Some(waiter) = waiter {
                    self.applier.wait_for_removal(waiter);
                }
            }
        }
        Ok(())
    }

    fn apply_conf_change(&mut self, entry: &Entry) -> Result<(), Fatal> {
        let change = membership::decode(entry)?;
        match self.applier.validate(&change) {
            Ok(valid) => {
                let conf_state = self.node.apply_conf_change(&change)?;
                self.applier.change_members(valid, conf_state);
            }
            // raft hears nothing: for it too the members stay as they are.
            Err(Invalid::Refused(refusal)) => tracing::error!(
                error = %refusal,
                "Validation on configuration change failed"
            ),
            Err(Invalid::Malformed(reason)) => return Err(membership::bad(entry, reason).into()),
        }
        Ok(())
    }

    fn answer(&mut self, waiter: Waiter, outcome: Outcome) {
        self.answers[waiter.lane].push((waiter.sender, outcome));
    }

    fn deliver(&mut self) {
        for (answers, lane) in self.answers.iter_mut().zip(&self.shared.lanes) {
            if !answers.is_empty() {
                lane.deliver(answers);
            }
        }
    }

    /// A compaction's hash is computed beside: it reads the store while entries go on being applied.
    fn run_hash_job(&self, job: etched_mvcc::HashJob) {
        let shared = Arc::clone(&self.shared);
        let work = move || {
            crate::background::step_back();
            match job.run(&|| !shared.flush.is_stopping()) {
                Ok(None) => {}
                Ok(Some(hash)) => tracing::info!(
                    hash = hash.hash,
                    revision = hash.revision,
                    "compact-revision" = hash.compact_revision,
                    "storing new hash"
                ),
                Err(error) => shared.inbox.push(Event::Unreadable(error.to_string())),
            }
            shared.inbox.push(Event::Wake);
        };
        if let Err(error) = self.shared.threads.spawn("compact-hash", work) {
            tracing::warn!(error = %error, "no hash of this compaction: cannot start a thread");
        }
    }

    /// Prunes one slice of history; the next one comes after a pause, so that requests hardly notice.
    fn sweep(&mut self, now: Instant) -> Result<(), Fatal> {
        let pause = if self.shared.flush.removes_enough() {
            BLOCKED_SWEEP_PAUSE
        } else if self.applier.sweep() {
            self.applier.finish_batch(self.applied, self.writer.bytes())?;
            self.shared.config.compaction_pause
        } else {
            BLOCKED_SWEEP_PAUSE
        };
        self.next_sweep = now + pause;
        Ok(())
    }

    fn on_soft_state(&mut self, soft_state: SoftState) {
        let progress = &self.shared.progress;
        let before = progress.leader.swap(soft_state.leader, Ordering::AcqRel);
        if soft_state.leader != 0 && soft_state.leader != before {
            self.shared.metrics.leader_changes.inc();
            tracing::info!(
                target: "raft",
                "raft.node: {:x} elected leader {:x} at term {}",
                self.shared.member_id,
                soft_state.leader,
                self.node.term()
            );
        }
        // Leading begins for leases in `apply_entry`, when all that was acknowledged before is applied.
        let mut lessor = self.shared.lessor.lock();
        if soft_state.role != Role::Leader && lessor.is_primary() {
            lessor.demote();
        }
    }

    /// The first entry of a leader's term is applied: with it all entries of the terms before, of which some may say
    /// how long leases have still to go.
    fn lead_leases(&self) {
        let mut lessor = self.shared.lessor.lock();
        if !lessor.is_primary() {
            lessor.promote(self.shared.now(), self.shared.config.election_timeout);
        }
    }

    fn publish(&self) {
        let progress = &self.shared.progress;
        progress.term.store(self.node.term(), Ordering::Release);
        progress.commit.store(self.node.commit(), Ordering::Release);
        progress.applied.store(self.applied.index, Ordering::Release);
        progress.pending.store(self.waiters.len() as u64, Ordering::Relaxed);
        progress.wal_bytes.store(self.writer.bytes(), Ordering::Relaxed);
        progress.sole_leader.store(self.node.sole_leader(), Ordering::Release);
    }

    fn on_time(&mut self, now: Instant) {
        if !self.node.sole_leader() && now >= self.next_tick {
            self.node.tick(now.duration_since(self.shared.started));
            self.next_tick = now + self.shared.config.heartbeat_interval;
        }
        if now >= self.next_expiry_pass {
            self.next_expiry_pass = now + self.expire_leases();
        }
    }

    /// Proposes revokes for leases that have run out; returns after which time to look again.
    fn expire_leases(&mut self) -> Duration {
        if self.shared.cluster.read().has_alarm(pb::AlarmType::Corrupt) {
            // Each would be an entry of the log that apply refuses, and would come again soon.
            return etched_lease::EXPIRY_PASS_INTERVAL;
        }
        let now = self.shared.now();
        let expired = self.shared.lessor.lock().expired(now, etched_lease::EXPIRED_PER_PASS);
        let is_full = expired.len() == etched_lease::EXPIRED_PER_PASS;
        for id in expired {
            self.shared.metrics.lease_expired.inc();
            let revoke = pb::LeaseRevokeRequest { id }.encode_to_vec();
            let (id, caller) = (self.shared.ids.next(), self.shared.auth.own_caller());
            self.ready.push(request::encode_for(id, &caller, Field::LeaseRevoke, &revoke));
        }
        if is_full { etched_lease::FULL_PASS_INTERVAL } else { etched_lease::EXPIRY_PASS_INTERVAL }
    }

    /// When something is due without an event; None while nothing can be.
    fn next_deadline(&self) -> Option<Instant> {
        if !self.held.is_empty() && self.applier.memory_bytes() < MEMORY_TABLE_BYTES_MAX {
            return Some(Instant::now());
        }
        let tick = (!self.node.sole_leader()).then_some(self.next_tick);
        let expiry = self.shared.lessor.lock().next_expiry().map(|at| {
            let due = self.shared.started + at.max(Duration::ZERO);
            due.max(self.next_expiry_pass)
        });
        let sweep = self.applier.is_sweeping().then_some(self.next_sweep);
        [tick, expiry, sweep].into_iter().flatten().min()
    }
}

/// Counts each write and each sync of the log, and warns of slow syncs.
fn observe(times: &Times, metrics: &Metrics) {
    for took in &times.writes {
        metrics.wal_write.observe(took.as_secs_f64());
    }
    for took in &times.syncs {
        metrics.wal_fsync.observe(took.as_secs_f64());
        if *took > SLOW_SYNC {
            tracing::warn!(?took, "expected-duration" = ?SLOW_SYNC, "slow fdatasync");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use parking_lot::Mutex;
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;
    use crate::metrics::About;

    /// The fields of each event, in one line.
    #[derive(Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            self.0 += &format!("{field}={value:?} ");
        }
    }

    impl Subscriber for Lines {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut line = Line(format!("{} ", event.metadata().level()));
            event.record(&mut line);
            self.0.lock().push(line.0);
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn each_sync_of_the_log_is_counted_and_a_slow_one_is_logged() {
        let metrics = Metrics::new(&About {
            member_id: 7,
            server_version: crate::ETCD_VERSION,
            features: &[],
            extensive: false,
        });
        let millis = Duration::from_millis;
        let times =
            Times { writes: vec![millis(1)], syncs: vec![millis(900), millis(900), millis(1500)] };
        let lines = Arc::<Mutex<Vec<String>>>::default();
        tracing::subscriber::with_default(Lines(Arc::clone(&lines)), || observe(&times, &metrics));
        assert_eq!(metrics.wal_write.get_sample_count(), 1);
        assert_eq!(metrics.wal_fsync.get_sample_count(), 3);
        assert_eq!(
            *lines.lock(),
            ["WARN message=slow fdatasync took=1.5s expected-duration=1s "],
            "two that add up to a slow one are none"
        );
    }
}
