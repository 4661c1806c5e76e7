//! One machine: a disk, and a member on it while it is up.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use etched_consensus::{
    Append, ConfChange, ConfChangeKind, Config, EntryKind, Error, Node, Output, Role, Start, Writer,
};
use etched_proto::raftpb::{ConfState, Message, MessageType};
use etched_wal::disk::Disk as _;
use etched_wal::{Entry, HardState, Options, SnapshotMark, Wal};

use super::checks::Checks;
use super::network::{Letter, Network};
use super::store::{Applied, Store};
use crate::{Loss, Rng, SimDisk};

pub(crate) const ELECTION_TICKS: usize = 5;
/// What a step stands for.
pub(crate) const STEP: Duration = Duration::from_millis(20);
/// Steps from one tick to the next.
pub(crate) const TICK_STEPS: u64 = 5;

const DIR: &str = "/data/wal";

/// What members share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) rng: Rng,
    pub(crate) network: Network,
    pub(crate) checks: Checks,
    pub(crate) step: u64,
    /// Steps that an append takes to the disk at most.
    pub(crate) disk_delay: u64,
    pub(crate) catch_up_entries: usize,
}

/// A machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) id: u64,
    disk: SimDisk,
    /// What a start finds beside the log: the store's last checkpoint.
    checkpoint: Store,
    /// Snapshots that came and have not taken its place.
    received: Vec<Store>,
    pub(crate) up: Option<Up>,
    lives: u64,
    /// It has applied its own removal and does not come back.
    pub(crate) is_removed: bool,
    pub(crate) sleeps_until: u64,
    /// Nothing reaches the disk before.
    pub(crate) disk_stalls_until: u64,
}

/// Work for the log, in order.
#[derive(Debug)]
enum Job {
    Append(Append),
    Checkpoint(Store),
}

/// A running member.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) node: Node,
    writer: Writer<SimDisk>,
    pub(crate) store: Store,
    jobs: VecDeque<(u64, Job)>,
    /// Reads that are under way: what each must see.
    pub(crate) reads: BTreeMap<u64, u64>,
    /// Reads that wait until an index is applied: index, what must be seen.
    ready: Vec<(u64, u64)>,
    /// Writes whose clients wait here.
    pub(crate) writes: BTreeMap<u64, ()>,
    /// Snapshots on their way: for whom, from when on.
    making: Vec<(u64, u64)>,
    /// Made, by whom they are for and their index.
    made: BTreeMap<(u64, u64), Store>,
    was_leader: bool,
}

impl Host {
    /// A machine with an empty disk. Those of `founders` have a log that begins with them.
    pub(crate) fn new(id: u64, founders: &[u64]) -> Self {
        let (disk, founds) = (SimDisk::new(), founders.contains(&id));
        disk.create_dir(Path::new("/data")).expect("an empty disk");
        let checkpoint = Store {
            founders: founders.len() as u64,
            conf_state: ConfState {
                voters: if founds { founders.to_vec() } else { Vec::new() },
                ..ConfState::default()
            },
            ..Store::default()
        };
        if founds {
            let wal = Wal::create(disk.clone(), Path::new(DIR), b"", &options());
            let entry = |(index, node_id): (u64, &u64)| Entry {
                term: 1,
                index,
                kind: EntryKind::ConfChange,
                data: ConfChange {
                    id: 0,
                    kind: ConfChangeKind::AddNode,
                    node_id: *node_id,
                    context: bytes::Bytes::new(),
                }
                .encode(),
            };
            let entries: Vec<Entry> = (1..).zip(founders).map(entry).collect();
            let state = HardState { term: 1, vote: 0, commit: founders.len() as u64 };
            let mut wal = wal.expect("an empty disk");
            wal.save(Some(&state), &entries, true).expect("an empty disk");
        }
        Self {
            id,
            disk,
            checkpoint,
            received: Vec::new(),
            up: None,
            lives: 0,
            is_removed: false,
            sleeps_until: 0,
            disk_stalls_until: 0,
        }
    }

    pub(crate) fn is_awake(&self, step: u64) -> bool {
        self.up.is_some() && self.sleeps_until <= step
    }

    /// Comes up from what is on the disk; the disk may fail meanwhile.
    pub(crate) fn start(&mut self, world: &mut World) {
        self.lives += 1;
        match self.open(world) {
            Ok(up) => self.up = Some(up),
            Err(error) => {
                assert!(self.disk.has_crashed(), "{}: does not start: {error}", self.id);
                self.crash(world);
            }
        }
    }

    fn open(&mut self, world: &mut World) -> Result<Up, Error> {
        let dir = Path::new(DIR);
        let (wal, contents, mark) = if etched_wal::exists(&self.disk, dir)? {
            let mut marks = etched_wal::valid_snapshots(&self.disk, dir)?;
            marks.sort_unstable_by_key(|mark| std::cmp::Reverse(mark.index));
            let usable = marks.into_iter().find(|mark| self.reaches(mark));
            let mark = usable.expect("a log has a mark that the store reaches");
            let (wal, contents) = Wal::open(self.disk.clone(), dir, &mark, &options())?;
            // Not before: what was read of the log is sure to be on disk only now.
            if let Some(store) = self.received_at(&mark).cloned() {
                self.checkpoint = store;
            }
            (wal, contents, mark)
        } else {
            let wal = Wal::create(self.disk.clone(), dir, b"", &options())?;
            (wal, Default::default(), SnapshotMark::default())
        };
        let store = self.checkpoint.clone();
        let start = Start {
            hard_state: contents.hard_state,
            mark: (mark.index, mark.term),
            entries: contents.entries,
            conf_state: store.conf_state.clone(),
            applied: store.index,
        };
        let config = Config {
            id: self.id,
            election_ticks: ELECTION_TICKS,
            pre_vote: !world.seed.is_multiple_of(4),
            catch_up_entries: world.catch_up_entries,
            boot: self.lives,
            seed: Some(world.seed),
        };
        Ok(Up {
            writer: Writer::new(wal, start.hard_state),
            node: Node::new(&config, start)?,
            store,
            jobs: VecDeque::new(),
            reads: BTreeMap::new(),
            ready: Vec::new(),
            writes: BTreeMap::new(),
            making: Vec::new(),
            made: BTreeMap::new(),
            was_leader: false,
        })
    }

    /// Whether there is a state at or above the mark to begin with.
    fn reaches(&self, mark: &SnapshotMark) -> bool {
        mark.index <= self.checkpoint.index || self.received_at(mark).is_some()
    }

    /// A snapshot that came for this mark and has not taken the place of the checkpoint.
    fn received_at(&self, mark: &SnapshotMark) -> Option<&Store> {
        let fits = |store: &&Store| (store.index, store.term) == (mark.index, mark.term);
        self.received.iter().find(fits).filter(|store| store.index > self.checkpoint.index)
    }

    /// The machine loses what it has in memory, and of its disk what a crash may take.
    pub(crate) fn crash(&mut self, world: &mut World) {
        self.up = None;
        world.checks.outcome.crashes += 1;
        let rng = &mut world.rng;
        let loss = match rng.below(4) {
            0 => Loss::Process,
            1 => Loss::Unsynced,
            _ => Loss::Torn(rng.next_u64()),
        };
        self.disk.restart(loss);
        self.sleeps_until = 0;
        world.checks.note(&[self.id, world.step]);
    }

    /// The disk fails at one of its next operations.
    pub(crate) fn crash_soon(&mut self, rng: &mut Rng) {
        self.disk.crash_after(rng.below(6));
    }

    pub(crate) fn tick(&mut self, step: u64) {
        if let Some(up) = &mut self.up {
            up.node.tick(STEP * step as u32);
        }
    }

    pub(crate) fn receive(&mut self, letter: Letter, world: &mut World) {
        let Some(up) = &mut self.up else { return };
        let is_snapshot = letter.message.r#type() == MessageType::MsgSnap;
        if is_snapshot {
            // The file is whole and synced before raft hears of it.
            self.received.push(letter.state.expect("a snapshot travels with its state"));
        }
        if up.node.step(letter.message).is_err() {
            world.checks.outcome.refused += 1;
        }
    }

    /// The state is to be made durable, in its turn.
    pub(crate) fn checkpoint(&mut self, step: u64) {
        if let Some(up) = &mut self.up
            && up.store.index > self.checkpoint.index
        {
            let store = up.store.clone();
            if up.jobs.is_empty() {
                up.jobs.push_back((step, Job::Checkpoint(store)));
            } else {
                let at = up.jobs.back().map_or(step, |(at, _)| *at);
                up.jobs.push_back((at, Job::Checkpoint(store)));
            }
        }
    }

    /// One line about it.
    pub(crate) fn summary(&self) -> String {
        let Self { id, lives, is_removed, checkpoint, .. } = self;
        let Some(Up { node, store, jobs, .. }) = &self.up else {
            return format!("{id}: down, removed {is_removed}, checkpoint {}", checkpoint.index);
        };
        format!(
            "{id}: life {lives}, term {}, leader {}, last {}, commit {}, applied {}, jobs {}, {:?} {:?}",
            node.term(),
            node.leader(),
            node.last_index(),
            node.commit(),
            store.index,
            jobs.len(),
            store.conf_state.voters,
            store.conf_state.learners
        )
    }

    /// Everything that is due: the disk's work, then what the node says to it.
    pub(crate) fn work(&mut self, world: &mut World) {
        if let Err(error) = self.try_work(world) {
            assert!(self.disk.has_crashed(), "{}: fails without a fault: {error}", self.id);
            self.crash(world);
        }
    }

    fn try_work(&mut self, world: &mut World) -> Result<(), Error> {
        self.write_log(world.step)?;
        loop {
            let Some(up) = &mut self.up else { return Ok(()) };
            up.offer_snapshots(world.step);
            let output = if up.node.syncs_inline() && up.jobs.is_empty() {
                up.node.advance_inline(&mut up.writer)?
            } else {
                up.node.advance()
            };
            let is_quiet = is_empty(&output);
            self.take(output, world)?;
            if is_quiet || self.up.is_none() {
                return Ok(());
            }
        }
    }

    fn write_log(&mut self, step: u64) -> Result<(), Error> {
        let Some(up) = &mut self.up else { return Ok(()) };
        if self.disk_stalls_until > step {
            return Ok(());
        }
        let mut appends = Vec::new();
        while let Some((_, job)) = up.jobs.pop_front_if(|(at, _)| *at <= step) {
            match job {
                Job::Append(append) => appends.push(append),
                Job::Checkpoint(store) => {
                    up.write_all(std::mem::take(&mut appends))?;
                    up.writer.sync_commit(store.index)?;
                    // One that is older than an installed snapshot is not written any more.
                    if store.index > self.checkpoint.index {
                        self.received.retain(|other| other.index > store.index);
                        let mark = store.mark();
                        self.checkpoint = store;
                        up.writer.checkpointed(&mark)?;
                    }
                }
            }
        }
        up.write_all(appends)
    }

    fn take(&mut self, output: Output, world: &mut World) -> Result<(), Error> {
        let Some(up) = &mut self.up else { return Ok(()) };
        // Who leads and says so; what is in memory alone is nobody's business.
        let leads = |message: &Message| {
            let kind = message.r#type();
            matches!(kind, MessageType::MsgApp | MessageType::MsgHeartbeat | MessageType::MsgSnap)
        };
        if let Some(message) = output.messages.iter().find(|message| leads(message)) {
            world.checks.leader(self.id, self.lives, message.term());
        }
        if up.node.sole_leader() {
            world.checks.leader(self.id, self.lives, up.node.term());
        }
        if let Some(soft) = output.soft_state {
            let is_leader = soft.role == Role::Leader;
            if up.was_leader && !is_leader && self.disk_stalls_until > world.step {
                world.checks.outcome.stalls += 1;
            }
            up.was_leader = is_leader;
        }
        up.send(output.messages, world);
        if let Some(append) = output.append {
            let earliest = up.jobs.back().map_or(0, |(at, _)| *at);
            let at = world.step + world.rng.below(world.disk_delay + 1);
            up.jobs.push_back((at.max(earliest), Job::Append(append)));
        }
        if let Some(mark) = output.snapshot {
            let fits = |store: &&Store| (store.index, store.term) == (mark.index, mark.term);
            let store = self.received.iter().rfind(fits).expect("it came before its message");
            let members = sorted(mark.conf_state.unwrap_or_default());
            assert_eq!(store.conf_state.voters, members.voters, "{}: its members", self.id);
            self.checkpoint = store.clone();
            up.store = store.clone();
            self.received.retain(|store| store.index > mark.index);
            up.node.applied(mark.index);
            world.checks.outcome.snapshots += 1;
            world.checks.state(self.id, &up.store);
        }
        for entry in &output.committed {
            up.apply(self.id, entry, world)?;
        }
        if let Some(last) = output.committed.last() {
            up.node.applied(last.index);
        }
        for state in output.read_states {
            if let Some(must_see) = up.reads.remove(&state.id) {
                up.ready.push((state.index, must_see));
            }
        }
        up.answer_reads(self.id, world);
        let at = world.step + world.rng.below(20);
        up.making.extend(output.snapshots_wanted.into_iter().map(|peer| (peer, at)));
        if up.store.removed.contains(&self.id) {
            self.is_removed = true;
            self.up = None;
        }
        Ok(())
    }
}

impl Up {
    fn write_all(&mut self, appends: Vec<Append>) -> Result<(), Error> {
        if let Some(number) = self.writer.write_all(appends)? {
            self.node.persisted(number);
        }
        Ok(())
    }

    fn send(&mut self, messages: Vec<Message>, world: &mut World) {
        for message in messages {
            let to = message.to();
            let is_snapshot = message.r#type() == MessageType::MsgSnap;
            let metadata =
                message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
            let index = metadata.map_or(0, |metadata| metadata.index());
            let state = self.made.get(&(to, index)).cloned();
            let arrives = world.network.send(Letter { message, state }, world.step, &mut world.rng);
            if is_snapshot {
                // A transport that does not say what became of it would stop that follower for ever.
                self.node.report_snapshot(to, arrives);
            } else if !arrives && world.rng.chance(30) {
                self.node.report_unreachable(to);
            }
        }
    }

    fn offer_snapshots(&mut self, step: u64) {
        let due = self.making.extract_if(.., |(_, at)| *at <= step);
        for (peer, _) in due.collect::<Vec<_>>() {
            // Nothing is applied yet: then there is nothing to send.
            if self.store.index > 0 {
                self.made.insert((peer, self.store.index), self.store.clone());
                self.node.offer_snapshot(peer, &self.store.mark());
            }
        }
    }

    fn apply(&mut self, id: u64, entry: &Entry, world: &mut World) -> Result<(), Error> {
        let is_new = world.checks.is_new(entry.index);
        match self.store.apply(entry) {
            Applied::Nothing => {}
            Applied::Write(write) => {
                if self.writes.remove(&write).is_some() {
                    world.checks.written(entry.index);
                }
            }
            Applied::Change(change) => {
                self.store.conf_state = sorted(self.node.apply_conf_change(&change)?);
                world.checks.outcome.changes += u64::from(is_new);
            }
        }
        world.checks.state(id, &self.store);
        Ok(())
    }

    fn answer_reads(&mut self, id: u64, world: &mut World) {
        let applied = self.store.index;
        for (index, must_see) in self.ready.extract_if(.., |(index, _)| *index <= applied) {
            world.checks.read(id, must_see, index, applied);
        }
    }
}

fn sorted(mut state: ConfState) -> ConfState {
    state.voters.sort_unstable();
    state.learners.sort_unstable();
    state
}

fn is_empty(output: &Output) -> bool {
    output.soft_state.is_none()
        && output.messages.is_empty()
        && output.append.is_none()
        && output.snapshot.is_none()
        && output.committed.is_empty()
        && output.read_states.is_empty()
        && output.snapshots_wanted.is_empty()
}

fn options() -> Options {
    Options { segment_bytes: 16 << 10, ..Options::default() }
}
