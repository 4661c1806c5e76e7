//! Whatever a crash takes, a log that opens again holds a prefix of what was written to it, and all
//! of what `save` had made durable.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

use std::path::Path;

use bytes::Bytes;
use etched_proto::raftpb::ConfState;
use etched_sim::{Loss, Rng, SimDisk};
use etched_wal::{Contents, Entry, EntryKind, HardState, Options, SnapshotMark, Wal, exists};

const DIR: &str = "/data/member/wal";
const METADATA: &[u8] = b"\x08\x01\x10\x02";

fn options(model: &Model) -> Options {
    Options { segment_bytes: 8 << 10, beside: model.beside, ..Options::default() }
}

/// What goes through `Wal::save` and `Wal::save_snapshot`, one record each.
#[derive(Debug, Clone)]
enum Record {
    Entry(Entry),
    State(HardState),
    Mark(SnapshotMark),
}

/// The naive log: all records in the order they were handed over.
#[derive(Debug, Clone, Default)]
struct Model {
    records: Vec<Record>,
    /// So many of them are durable for sure.
    durable: usize,
    /// Segments come and go on threads beside.
    beside: bool,
}

/// What the records add up to.
#[derive(Debug, Clone, Default, PartialEq)]
struct Sum {
    entries: Vec<Entry>,
    state: HardState,
    marks: Vec<u64>,
}

impl Sum {
    fn add(&mut self, record: &Record) {
        match record {
            Record::Entry(entry) => {
                self.entries.truncate(entry.index as usize - 1);
                self.entries.push(entry.clone());
            }
            Record::State(state) => self.state = *state,
            Record::Mark(mark) => self.marks.push(mark.index),
        }
    }

    fn last_index(&self) -> u64 {
        self.entries.len() as u64
    }

    fn mark(&self, index: u64) -> SnapshotMark {
        let entry = index.checked_sub(1).map(|at| &self.entries[at as usize]);
        SnapshotMark {
            index,
            term: entry.map_or(0, |entry| entry.term),
            conf_state: entry.map(|_| ConfState { voters: vec![1], ..ConfState::default() }),
        }
    }

    /// Newest mark that a start can use.
    fn newest_valid_mark(&self) -> u64 {
        let valid = self.marks.iter().filter(|&&mark| mark <= self.state.commit);
        valid.copied().max().unwrap_or(0)
    }
}

impl Model {
    fn sum(&self, records: usize) -> Sum {
        let mut sum = Sum::default();
        self.records[..records].iter().for_each(|record| sum.add(record));
        sum
    }

    fn all(&self) -> Sum {
        self.sum(self.records.len())
    }

    /// Holds the model against what a start found, and goes on from there.
    fn check_recovered(&mut self, at: &SnapshotMark, contents: &Contents) -> Result<(), String> {
        let mut sum = self.sum(self.durable);
        for kept in self.durable..=self.records.len() {
            if kept > self.durable {
                sum.add(&self.records[kept - 1]);
            }
            let behind = sum.entries.get(at.index as usize..).unwrap_or_default();
            let newest = sum.newest_valid_mark() == at.index;
            if newest && behind == contents.entries && sum.state == contents.hard_state {
                self.records.truncate(kept);
                self.durable = kept;
                return Ok(());
            }
        }
        Err(format!("no prefix of {self:#?} with all durable records gives {contents:#?}"))
    }
}

fn random_data(rng: &mut Rng) -> Bytes {
    let len = match rng.below(6) {
        0 => 0,
        1 | 2 => rng.below(40),
        3 | 4 => rng.below(700),
        _ => rng.below(3000),
    };
    // Zeros matter: they look like what was never written.
    let byte = if rng.chance(30) { 0 } else { rng.below(256) as u8 };
    vec![byte; len as usize].into()
}

/// One random call. The model takes the records before the log is asked, and learns that they are
/// durable when it has said so.
fn random_step(rng: &mut Rng, wal: &mut Wal<SimDisk>, model: &mut Model) -> Result<(), ()> {
    let now = model.all();
    if rng.chance(12) && now.state.commit > 0 {
        let index = now.state.commit - rng.below(now.state.commit.min(3));
        let mark = now.mark(index);
        model.records.push(Record::Mark(mark.clone()));
        wal.save_snapshot(&mark).map_err(drop)?;
        model.durable = model.records.len();
        if rng.chance(70) {
            wal.release_to(index).map_err(drop)?;
        }
        return Ok(());
    }
    let (mut state, mut entries) = (now.state, Vec::new());
    let mut next = now.last_index() + 1;
    // A torn write may have kept an entry of a new term and lost the state behind it.
    state.term = state.term.max(now.entries.last().map_or(1, |entry| entry.term));
    if rng.chance(10) {
        // A new leader replaces what was not committed.
        state.term += 1;
        state.vote = rng.below(3);
        next -= rng.below(next - state.commit);
    }
    let count = if rng.chance(20) { 0 } else { rng.below(5) };
    for index in next..next + count {
        let data = random_data(rng);
        let conf_change = rng.chance(10) && !data.is_empty();
        let kind = if conf_change { EntryKind::ConfChange } else { EntryKind::Normal };
        entries.push(Entry { term: state.term, index, kind, data });
    }
    // As a follower has it: what is committed may come with the entries themselves.
    let last = if count > 0 { next + count - 1 } else { now.last_index() };
    state.commit += rng.below(last.saturating_sub(state.commit) + 1);
    let synced = !entries.is_empty()
        || (state.term, state.vote) != (now.state.term, now.state.vote)
        || rng.chance(10);
    model.records.extend(entries.iter().cloned().map(Record::Entry));
    model.records.push(Record::State(state));
    wal.save(Some(&state), &entries, synced).map_err(drop)?;
    if synced {
        model.durable = model.records.len();
    }
    Ok(())
}

/// Starts as a server does: makes the log if there is none, else opens it at the newest valid mark.
fn start(disk: &SimDisk, model: &mut Model) -> Result<Wal<SimDisk>, etched_wal::Error> {
    let dir = Path::new(DIR);
    disk.create_parent();
    if !exists(disk, dir)? {
        assert_eq!(model.durable, 0, "the whole log is gone");
        model.records.clear();
        let wal = Wal::create(disk.clone(), dir, METADATA, &options(model))?;
        return Ok(wal);
    }
    let marks = etched_wal::valid_snapshots(disk, dir)?;
    let at = marks.iter().max_by_key(|mark| mark.index).expect("a log has a mark").clone();
    let (wal, contents) = Wal::open(disk.clone(), dir, &at, &options(model))?;
    assert_eq!(contents.metadata, METADATA);
    model.check_recovered(&at, &contents).unwrap_or_else(|error| panic!("{error}"));
    Ok(wal)
}

trait CreateParent {
    fn create_parent(&self);
}

impl CreateParent for SimDisk {
    /// The server makes its directories before the log; a crash there is not what is tested.
    fn create_parent(&self) {
        use etched_wal::disk::Disk as _;
        let _ = self.create_dir(Path::new(DIR).parent().unwrap());
    }
}

/// Runs random steps until the crash, or `steps` of them.
fn run(rng: &mut Rng, disk: &SimDisk, model: &mut Model, steps: u64) {
    match start(disk, model) {
        Ok(mut wal) => {
            for _ in 0..steps {
                if random_step(rng, &mut wal, model).is_err() {
                    assert!(disk.has_crashed(), "an error without a crash");
                    return;
                }
            }
        }
        Err(error) => assert!(disk.has_crashed(), "does not start: {error}"),
    }
}

fn random_loss(rng: &mut Rng) -> Loss {
    match rng.below(4) {
        0 => Loss::Process,
        1 => Loss::Unsynced,
        _ => Loss::Torn(rng.next_u64()),
    }
}

#[test]
fn a_crash_at_each_step_keeps_all_that_was_durable_and_invents_nothing() {
    let script_seed = 7;
    let total = {
        let disk = SimDisk::new();
        run(&mut Rng::new(script_seed), &disk, &mut Model::default(), 30);
        disk.operations()
    };
    assert!(total > 60, "the script does little: {total} operations");
    let mut losses = vec![Loss::Process, Loss::Unsynced];
    losses.extend((0..12).map(Loss::Torn));
    for step in 0..total {
        for loss in &losses {
            let (disk, mut model) = (SimDisk::new(), Model::default());
            disk.crash_after(step);
            run(&mut Rng::new(script_seed), &disk, &mut model, 30);
            assert!(disk.has_crashed());
            disk.restart(*loss);
            start(&disk, &mut model)
                .unwrap_or_else(|error| panic!("crash at step {step}, {loss:?}: {error}"));
        }
    }
}

#[test]
fn a_log_lives_through_many_crashes_also_while_it_opens() {
    for seed in 0..150 {
        let mut rng = Rng::new(seed);
        let beside = seed % 2 == 1;
        let (disk, mut model) = (SimDisk::new(), Model { beside, ..Model::default() });
        for _ in 0..12 {
            // Few operations: the crash comes while the log opens or repairs itself.
            let operations = if rng.chance(40) { rng.below(8) } else { rng.below(80) };
            disk.crash_after(operations);
            run(&mut rng, &disk, &mut model, 40);
            disk.restart(random_loss(&mut rng));
        }
        start(&disk, &mut model).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn one_seed_gives_one_run() {
    let trace = || {
        let (mut rng, disk, mut model) = (Rng::new(3), SimDisk::new(), Model::default());
        disk.crash_after(90);
        run(&mut rng, &disk, &mut model, 40);
        disk.restart(Loss::Torn(5));
        start(&disk, &mut model).unwrap();
        (disk.operations(), model.records.len(), rng.next_u64())
    };
    assert_eq!(trace(), trace());
}

/// A killed process may leave what it wrote in memory of the system alone: who acts on it must not be ahead of the disk.
#[test]
fn what_was_read_of_a_log_outlives_a_power_cut_once_it_is_made_durable() {
    let found = |is_made_durable: bool| {
        let (disk, dir) = (SimDisk::new(), Path::new(DIR));
        disk.create_parent();
        let options = options(&Model::default());
        let mut wal = Wal::create(disk.clone(), dir, METADATA, &options).unwrap();
        let conf_state = Some(ConfState { voters: vec![1], ..ConfState::default() });
        wal.save(Some(&HardState { term: 1, vote: 1, commit: 0 }), &[], true).unwrap();
        wal.save_snapshot(&SnapshotMark { index: 7, term: 1, conf_state }).unwrap();
        // It is written, and the kill comes before the sync.
        disk.crash_after(1);
        wal.save(Some(&HardState { term: 1, vote: 1, commit: 7 }), &[], true).unwrap_err();
        drop(wal);
        disk.restart(Loss::Process);
        let newest = |disk: &SimDisk| {
            let marks = etched_wal::valid_snapshots(disk, dir).unwrap();
            marks.iter().map(|mark| mark.index).max()
        };
        assert_eq!(newest(&disk), Some(7));
        if is_made_durable {
            etched_wal::make_durable(&disk, dir).unwrap();
        }
        disk.restart(Loss::Unsynced);
        newest(&disk)
    };
    assert_eq!(found(false), Some(0));
    assert_eq!(found(true), Some(7));
}
