//! The raft thread: takes all that waits, replicates it as one batch, applies it, answers.
//!
//! ```text
//! Inbox ──take all──> propose ──> Node (one write, one sync) ──> Applier ──> answers by lane
//!   ^                              └──> messages ──> Transport     └──> FlushQueue
//!   └── messages of other members, by Transport
//! ```
//! A lone member writes and applies in one go; with others the messages to them leave before the disk is waited for.
//! [`Engine`] runs without threads: events and the present moment go in, answers come out by their lanes. The
//! thread around it only waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etched_consensus::{
    ConfChange, ConfChangeKind, Entry, EntryKind, Node, Output, Role, SoftState, Writer,
};
use etched_proto::etcdserverpb as pb;
use etched_storage::Applied;
use etched_wal::Times;
use etched_wal::disk::Disk;
use prost::Message as _;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::apply::{Applier, Applying, Fatal};
use crate::error::Error;
use crate::laggards::Laggards;
use crate::membership::{self, Invalid};
use crate::metrics::Metrics;
use crate::request::{self, Decoded, Field};
use crate::shared::{Answer, Event, Outcome, Shared, Waiter};

mod peers;
mod reads;

use reads::Reads;

pub(crate) use reads::ReadWaiter;

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
    /// Changes of the members for the next batch.
    changes: Vec<ConfChange>,
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
    next_purge: Instant,
    reads: Reads,
    laggards: Laggards,
    /// What is left of the first election timeout may be cut short.
    hurries: bool,
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
        let hurries = shared.config.initial_election_tick_advance;
        Self {
            node,
            writer,
            applier,
            shared,
            waiters: FxHashMap::default(),
            ready: Vec::new(),
            changes: Vec::new(),
            held: Vec::new(),
            answers,
            applied,
            log_times: Times::default(),
            next_tick: now,
            next_expiry_pass: now,
            next_sweep: now,
            next_reserve: now,
            next_purge: now,
            reads: Reads::default(),
            laggards: Laggards::default(),
            hurries,
            stopping: false,
        }
    }

    /// Replays what the log has behind the store. A lone member becomes leader and publishes itself; one with others
    /// has to be published when there is a leader, see [`Shared::published`].
    ///
    /// # Errors
    /// [`Fatal`]: the member cannot start.
    pub(crate) fn start(&mut self) -> Result<(), Fatal> {
        self.turn(Instant::now())?;
        if !self.node.syncs_inline() {
            self.shared.auth.forget_tokens();
            return Ok(());
        }
        self.node.campaign()?;
        self.turn(Instant::now())?;
        let attributes = crate::publish::attributes(&self.shared);
        self.propose_own(Field::ClusterMemberAttrSet, &attributes);
        if let Some(request) = crate::versions::first(&self.shared) {
            self.propose_own(Field::ClusterVersionSet, &request);
        }
        self.turn(Instant::now())?;
        // Only now is all of the log applied: its end is committed by this member's own election.
        self.shared.auth.forget_tokens();
        // The end of the log may have added others, who are needed now: `publish` waits for them.
        if self.node.syncs_inline() {
            self.shared.published.send_replace(true);
        }
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
                if request::grows(&data) || self.node.leader() == 0 {
                    self.held.push((id, data));
                } else {
                    self.ready.push(data);
                }
            }
            Event::Reconfigure { change, waiter } => {
                self.waiters.insert(change.id, waiter);
                self.changes.push(change);
            }
            Event::Read(waiter) => self.reads.ask(waiter),
            event @ (Event::Message(_)
            | Event::Matched(_)
            | Event::Unreachable(_)
            | Event::SnapshotSent(..)
            | Event::SnapshotReady(..)
            | Event::Transfer(_)) => self.on_peer_event(event),
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
                    let result = Ok(Answer::Done);
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
        self.begin_reads(now);
        if self.node.syncs_inline() {
            let output = self.node.advance_inline(&mut self.writer)?;
            self.observe_log();
            self.follow(output)?;
        } else {
            self.advance_with_others()?;
        }
        self.reserve_log(now);
        self.publish();
        Ok(())
    }

    /// What is left of an output when its append is on disk.
    fn follow(&mut self, output: Output) -> Result<(), Fatal> {
        self.send(output.messages);
        if let Some(soft_state) = output.soft_state {
            self.on_soft_state(soft_state);
        }
        self.apply(output.committed)?;
        self.reads.confirm(&output.read_states, self.applied.index);
        Ok(())
    }

    fn observe_log(&mut self) {
        self.writer.take_times(&mut self.log_times);
        observe(&self.log_times, &self.shared.metrics);
    }

    fn propose(&mut self) -> Result<(), Fatal> {
        if self.node.leader() == 0 {
            // They wait for one, as in etcd, and their waiters no longer than their time.
            self.forget_abandoned();
            self.forget_abandoned_changes();
            return Ok(());
        }
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
        self.propose_changes()?;
        if self.ready.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.ready);
        if self.node.syncs_inline() {
            self.node.propose(batch)?;
        } else if !self.node.propose(batch.iter().cloned())? {
            // Leadership is on its way to somebody: the next one gets them.
            self.ready = batch;
        }
        Ok(())
    }

    fn propose_changes(&mut self) -> Result<(), Fatal> {
        // One that comes long after its asker was told of a timeout surprises him, and what he did since.
        self.forget_abandoned_changes();
        for change in std::mem::take(&mut self.changes) {
            if self.leaves_no_voter(&change) {
                let (revision, result) = (self.applier.revision(), Err(Error::NotEnoughStarted));
                if let Some(waiter) = self.waiters.remove(&change.id) {
                    self.answer(waiter, Outcome { result, revision });
                    self.deliver();
                }
            } else if !self.node.propose_conf_change(&change)? {
                tracing::warn!("dropped a change of the members: nobody takes it");
            }
        }
        Ok(())
    }

    /// Such a change ends every member that applies it, etcd's too.
    fn leaves_no_voter(&self, change: &ConfChange) -> bool {
        change.kind == ConfChangeKind::RemoveNode
            && self.node.conf_state().voters == [change.node_id]
    }

    fn forget_abandoned_changes(&mut self) {
        let waiters = &mut self.waiters;
        self.changes.retain(|change| {
            let waits = waiters.get(&change.id).is_some_and(|waiter| !waiter.sender.is_closed());
            if !waits {
                waiters.remove(&change.id);
            }
            waits
        });
    }

    /// Lets go of proposals that wait for memory, or for a leader, and for which nobody waits any more.
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
            // Without a leader nobody takes it, and one a second would wait for the next.
            if self.node.leader() != 0 {
                self.shared.raise(pb::AlarmType::Nospace);
            }
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
        self.reads.applied(applied.index);
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
        let result = match self.applier.validate(&change) {
            Ok(valid) => {
                let conf_state = self.node.apply_conf_change(&change)?;
                let done = valid.clone();
                let members = self.applier.change_members(valid, conf_state);
                self.connect(&done);
                Ok(Answer::Members(members))
            }
            // raft hears nothing: for it too the members stay as they are.
            Err(Invalid::Refused(refusal)) => {
                let error = refusal.to_string();
                tracing::error!(error, "Validation on configuration change failed");
                Err(refusal.into())
            }
            Err(Invalid::Malformed(reason)) => return Err(membership::bad(entry, reason).into()),
        };
        if let Some(waiter) = self.waiters.remove(&change.id) {
            let revision = self.applier.revision();
            self.answer(waiter, Outcome { result, revision });
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
        if soft_state.leader == 0 && before != 0 {
            progress.leaderless_since.store(self.shared.now().as_nanos() as u64, Ordering::Release);
        }
        if soft_state.leader != 0 && soft_state.leader != before {
            self.reads.fail(Error::LeaderChanged);
            progress.led_since.store(self.shared.now().as_nanos() as u64, Ordering::Release);
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
            drop(lessor);
            // Who waits to hear that a lease has ended asks the new leader now.
            self.shared.revoked.notify_waiters();
        }
    }

    /// The first entry of a leader's term is applied: with it all entries of the terms before, of which some may say
    /// how long leases have still to go.
    fn lead_leases(&self) {
        let mut lessor = self.shared.lessor.lock();
        if !lessor.is_primary() {
            lessor.promote(self.shared.now(), self.shared.config.election_timeout);
        }
        self.shared.leads.notify_one();
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
            self.tick(now);
        }
        if now >= self.next_expiry_pass {
            self.next_expiry_pass = now + self.expire_leases();
        }
    }

    /// Proposes revokes for leases that have run out; returns after which time to look again.
    fn expire_leases(&mut self) -> Duration {
        if !self.node.is_leader() || self.node.is_handing_over() {
            // Not even one that has just been deposed, or soon will be: its entries would go to the new leader.
            return etched_lease::EXPIRY_PASS_INTERVAL;
        }
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
        let has_room = self.applier.memory_bytes() < MEMORY_TABLE_BYTES_MAX;
        if !self.held.is_empty() && has_room && self.node.leader() != 0 {
            return Some(Instant::now());
        }
        let tick = (!self.node.sole_leader()).then_some(self.next_tick);
        let expiry = self.shared.lessor.lock().next_expiry().map(|at| {
            let due = self.shared.started + at.max(Duration::ZERO);
            due.max(self.next_expiry_pass)
        });
        let sweep = self.applier.is_sweeping().then_some(self.next_sweep);
        [tick, expiry, sweep, self.reads.next_attempt()].into_iter().flatten().min()
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
