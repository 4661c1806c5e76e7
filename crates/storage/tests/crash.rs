//! The disk loses power at every single step of a workload. What a new open then finds is the state
//! of one commit: the last checkpoint that was answered, or the one under way.

mod common;

use common::{MemMedium, Model, Seed, Step, Workload, write_at};
use etched_storage::{Durability, Storage};

/// A commit as the steps of the disk saw it.
struct Written {
    from: usize,
    until: usize,
    durable: bool,
    after: Model,
}

/// What of the unsynced steps the disk kept.
#[derive(Debug, Clone, Copy)]
enum Kept {
    Nothing,
    Everything,
    Some(u64),
}

/// A disk that is fed step by step and can crash after each.
#[derive(Default)]
struct Replayed {
    synced: Vec<Vec<u8>>,
    unsynced: Vec<Vec<Step>>,
    /// The file that a power cut leaves under the name, unless it kept more.
    durable: Option<usize>,
    main: Option<usize>,
    copy: Option<usize>,
}

impl Replayed {
    fn feed(&mut self, step: &Step) {
        match step {
            Step::CreateCopy(id) => {
                assert_eq!(*id, self.synced.len());
                self.synced.push(Vec::new());
                self.unsynced.push(Vec::new());
                self.copy = Some(*id);
            }
            Step::Write(id, ..) | Step::SetLen(id, _) => self.unsynced[*id].push(step.clone()),
            Step::Sync(id) => {
                for step in std::mem::take(&mut self.unsynced[*id]) {
                    carry_out(&mut self.synced[*id], &step);
                }
            }
            Step::Install => self.main = self.copy.take(),
            Step::SyncFolder => self.durable = self.main,
            Step::Discard => self.copy = None,
        }
    }

    /// The main file as the next start finds it.
    fn crash(&self, kept: Kept) -> Option<Vec<u8>> {
        let mut seed = Seed(if let Kept::Some(seed) = kept { seed | 1 } else { 1 });
        let id = match kept {
            Kept::Nothing => self.durable,
            Kept::Everything => self.main,
            Kept::Some(_) if seed.below(2) == 0 => self.durable,
            Kept::Some(_) => self.main,
        }?;
        let mut file = self.synced[id].clone();
        for step in &self.unsynced[id] {
            let keep = match kept {
                Kept::Nothing => false,
                Kept::Everything => true,
                Kept::Some(_) => seed.below(2) == 0,
            };
            match step {
                // A write may be torn at a sector.
                Step::Write(id, offset, data) if matches!(kept, Kept::Some(_)) && !keep => {
                    let sectors = data.len() / 512;
                    if sectors > 1 && seed.below(2) == 0 {
                        let part = data[..512 * seed.below(sectors)].to_vec();
                        carry_out(&mut file, &Step::Write(*id, *offset, part));
                    }
                }
                step if keep => carry_out(&mut file, step),
                _ => {}
            }
        }
        Some(file)
    }
}

fn carry_out(file: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Write(_, offset, data) => write_at(file, *offset, data),
        Step::SetLen(_, len) => file.resize(*len as usize, 0),
        other => panic!("{other:?} does not change a file"),
    }
}

fn run(seed: u64) -> (Vec<Step>, Vec<Written>) {
    let medium = MemMedium::default();
    let mut written = Vec::new();
    let (storage, _) = medium.open().expect("an empty disk");
    let mut workload = Workload::new(seed);
    let created =
        Written { from: 0, until: medium.steps(), durable: true, after: workload.model.clone() };
    written.push(created);
    for round in 0..8 {
        let from = medium.steps();
        let durable = round % 3 == 2;
        if round == 5 {
            written.extend(defragment(&medium, &storage, &mut workload));
            continue;
        }
        let commit = workload.commit(12);
        let durability = if durable { Durability::Checkpoint } else { Durability::Buffered };
        storage.commit(&commit, durability).expect("there is room");
        let after = workload.model.clone();
        written.push(Written { from, until: medium.steps(), durable, after });
    }
    // A drop with buffered commits must change nothing: its steps are crashed through as well.
    drop(storage);
    let steps = medium.disk().steps.clone();
    (steps, written)
}

/// A defragmentation with commits between its steps, as they come while a server serves: buffered ones become
/// durable with the copy that takes them along, checkpoints in the old file. That gives its room back at the end.
fn defragment(medium: &MemMedium, storage: &Storage, workload: &mut Workload) -> Vec<Written> {
    let mut written = Vec::new();
    let mut copy = storage.begin_defragment().expect("there is room");
    for round in 0..4 {
        copy.step(3000).expect("there is room");
        let (from, durable) = (medium.steps(), round == 1);
        let durability = if durable { Durability::Checkpoint } else { Durability::Buffered };
        storage.commit(&workload.commit(4), durability).expect("there is room");
        let (until, after) = (medium.steps(), workload.model.clone());
        written.push(Written { from, until, durable, after });
    }
    let from = medium.steps();
    let mut old = copy.finish(|| true).expect("there is room");
    let (until, after) = (medium.steps(), workload.model.clone());
    written.push(Written { from, until, durable: true, after });
    assert!(!old.is_read());
    while old.shrink(30_000) {}
    assert!(medium.steps() > until + 2, "the old file is cut in steps");
    written
}

#[test]
fn a_crash_at_any_step_leaves_the_state_of_one_commit_from_the_last_checkpoint_on() {
    let mut crashes = 0;
    for seed in 1..=3 {
        let (steps, written) = run(seed);
        let mut replayed = Replayed::default();
        for (place, step) in steps.iter().enumerate() {
            replayed.feed(step);
            let done = place + 1;
            for kept in [Kept::Nothing, Kept::Everything, Kept::Some(seed + 77 * done as u64)] {
                crashes += usize::from(check(&replayed, kept, done, &written));
            }
        }
    }
    assert!(crashes > 300, "only {crashes} crashes were tried");
}

fn check(replayed: &Replayed, kept: Kept, done: usize, written: &[Written]) -> bool {
    let Some(file) = replayed.crash(kept) else { return false };
    let (storage, boot) = MemMedium::with_main(file)
        .open()
        .unwrap_or_else(|error| panic!("after step {done}, {kept:?} kept: {error}"));
    let floor = written.iter().rposition(|commit| commit.durable && commit.until <= done);
    // The first file may have its name before that is durable.
    let floor = floor.unwrap_or(0);
    let allowed =
        written[floor..].iter().filter(|commit| commit.from < done || commit.until <= done);
    let found = allowed.clone().find(|commit| commit.after.applied == boot.applied);
    let found = found.unwrap_or_else(|| {
        let allowed: Vec<_> = allowed.map(|commit| commit.after.applied).collect();
        panic!("after step {done}, {kept:?} kept: {:?} is none of {allowed:?}", boot.applied)
    });
    found.after.expect(&storage);
    true
}

#[test]
fn a_drop_makes_no_buffered_commit_durable() {
    let medium = MemMedium::default();
    let (storage, _) = medium.open().unwrap();
    let mut workload = Workload::new(9);
    workload.fill(&storage, 2, 10);
    let checkpoint = workload.model.clone();
    storage.commit(&workload.commit(10), Durability::Buffered).unwrap();
    drop(storage);
    let (storage, boot) = medium.open().unwrap();
    assert_eq!(boot.applied, checkpoint.applied);
    checkpoint.expect(&storage);
}

#[test]
fn a_handle_opened_after_a_crash_goes_on_writing() {
    let mut medium = MemMedium::default();
    let (mut storage, _) = medium.open().unwrap();
    let mut workload = Workload::new(11);
    for _ in 0..4 {
        workload.fill(&storage, 3, 20);
        // The bytes as they lie there now, while the handle is still open.
        medium = MemMedium::with_main(medium.main_bytes());
        storage = medium.open().unwrap().0;
        workload.model.expect(&storage);
    }
}
