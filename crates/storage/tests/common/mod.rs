//! A medium in memory that remembers every step, so that a test can crash it anywhere, and a
//! workload with the states it goes through.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    collections::BTreeMap,
    io,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use etched_mvcc::{RawRecord, Record, Revision, VisitPart};
use etched_proto::raftpb::ConfState;
use etched_storage::{
    Applied, Boot, Commit, Durability, Held, Medium, Options, Result, Room, Storage, Table, View,
};
use redb::StorageBackend;

/// One step that reached the medium.
#[derive(Debug, Clone)]
pub enum Step {
    Write(usize, u64, Vec<u8>),
    SetLen(usize, u64),
    Sync(usize),
    CreateCopy(usize),
    Install,
    SyncFolder,
    Discard,
}

#[derive(Debug, Default)]
pub struct Disk {
    pub files: Vec<Vec<u8>>,
    pub main: Option<usize>,
    pub copy: Option<usize>,
    pub steps: Vec<Step>,
    /// Bytes that may still be added; `None` is endless.
    pub available: Option<u64>,
    /// Pretend that the question for room was answered before somebody else took it.
    pub room_lies: bool,
    locked: Vec<bool>,
}

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemMedium(Arc<Mutex<Disk>>);

#[derive(Debug)]
struct MemFile {
    disk: MemMedium,
    id: usize,
}

impl MemMedium {
    pub fn with_main(bytes: Vec<u8>) -> Self {
        let medium = Self::default();
        let mut disk = medium.disk();
        disk.files.push(bytes);
        disk.locked.push(false);
        disk.main = Some(0);
        drop(disk);
        medium
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("no test panics with the disk in hand")
    }

    pub fn main_bytes(&self) -> Vec<u8> {
        let disk = self.disk();
        disk.files[disk.main.expect("there is a main file")].clone()
    }

    pub fn steps(&self) -> usize {
        self.disk().steps.len()
    }

    pub fn open(&self) -> Result<(Storage, Boot)> {
        self.open_with(Options { cache_bytes: 256 << 10, ..Options::default() })
    }

    pub fn open_with(&self, options: Options) -> Result<(Storage, Boot)> {
        Storage::open_on(Arc::new(self.clone()), options)
    }

    fn file(&self, id: usize) -> Box<dyn StorageBackend> {
        Box::new(MemFile { disk: self.clone(), id })
    }
}

impl Medium for MemMedium {
    fn name(&self) -> String {
        "memory/db".to_owned()
    }

    fn open_main(&self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        let main = self.disk().main;
        Ok(main.map(|id| self.file(id)))
    }

    fn create_copy(&self) -> io::Result<Box<dyn StorageBackend>> {
        let mut disk = self.disk();
        let id = disk.files.len();
        disk.files.push(Vec::new());
        disk.locked.push(false);
        disk.copy = Some(id);
        disk.steps.push(Step::CreateCopy(id));
        drop(disk);
        Ok(self.file(id))
    }

    fn discard_copy(&self) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.copy.take().is_some() {
            disk.steps.push(Step::Discard);
        }
        Ok(())
    }

    fn hold_main(&self) -> io::Result<Option<Box<dyn Held>>> {
        let main = self.disk().main;
        Ok(main.map(|id| Box::new(MemFile { disk: self.clone(), id }) as _))
    }

    fn install_copy(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.main = Some(disk.copy.take().expect("a copy was made"));
        disk.steps.extend([Step::Install, Step::SyncFolder]);
        Ok(())
    }

    fn room(&self) -> io::Result<Room> {
        let disk = self.disk();
        let taken = disk.main.map_or(0, |id| disk.files[id].len() as u64);
        let available = disk.available.filter(|_| !disk.room_lies).unwrap_or(1 << 40);
        Ok(Room { available, taken, total: 1 << 20 })
    }
}

impl Held for MemFile {
    fn try_lock(&self) -> io::Result<bool> {
        Ok(!std::mem::replace(&mut self.disk.disk().locked[self.id], true))
    }

    fn has_a_name(&self) -> io::Result<bool> {
        let disk = self.disk.disk();
        Ok([disk.main, disk.copy].contains(&Some(self.id)))
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.disk().files[self.id].len() as u64)
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        StorageBackend::set_len(self, length)
    }
}

impl StorageBackend for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.disk().files[self.id].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.disk.disk();
        let range = usize::try_from(offset).ok().and_then(|from| {
            let until = from.checked_add(out.len())?;
            disk.files[self.id].get(from..until)
        });
        out.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.files[self.id].resize(len as usize, 0);
        disk.steps.push(Step::SetLen(self.id, len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.disk().steps.push(Step::Sync(self.id));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.disk();
        if disk.available.is_some_and(|available| available < data.len() as u64) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        write_at(&mut disk.files[self.id], offset, data);
        disk.steps.push(Step::Write(self.id, offset, data.to_vec()));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.disk.disk().locked[self.id] = false;
        Ok(())
    }

    fn try_lock_range(
        &self,
        _: std::ops::Bound<u64>,
        end: std::ops::Bound<u64>,
    ) -> std::result::Result<bool, redb::BackendError> {
        // Only whole-storage locks, as the trait allows.
        if end != std::ops::Bound::Unbounded {
            return Err(redb::BackendError::Unsupported);
        }
        let mut disk = self.disk.disk();
        Ok(!std::mem::replace(&mut disk.locked[self.id], true))
    }

    fn unlock_range(
        &self,
        _: std::ops::Bound<u64>,
        _: std::ops::Bound<u64>,
    ) -> std::result::Result<(), redb::BackendError> {
        self.disk.disk().locked[self.id] = false;
        Ok(())
    }
}

pub fn write_at(file: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let (from, until) = (offset as usize, offset as usize + data.len());
    if file.len() < until {
        file.resize(until, 0);
    }
    file[from..until].copy_from_slice(data);
}

/// Numbers from a seed.
#[derive(Debug, Clone)]
pub struct Seed(pub u64);

impl Seed {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Every record as this many threads get them.
pub fn scanned<const THREADS: usize>(view: &View) -> Result<[Vec<(Revision, Record)>; THREADS]> {
    let mut parts = [const { Vec::new() }; THREADS];
    let mut visits = parts.each_mut().map(|part| {
        move |revision: Revision, raw: RawRecord<'_>| {
            let bytes = Bytes::copy_from_slice(raw.bytes);
            part.push((revision, Record { tombstone: raw.tombstone, bytes }));
            ControlFlow::Continue(())
        }
    });
    view.scan_all(&mut visits.each_mut().map(|visit| visit as &mut VisitPart<'_>))?;
    Ok(parts)
}

/// What a file should hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Model {
    pub applied: Applied,
    pub conf_state: Option<ConfState>,
    pub records: BTreeMap<Revision, Record>,
    pub rows: BTreeMap<Table, BTreeMap<Bytes, Bytes>>,
}

impl Model {
    pub fn apply(&mut self, commit: &Commit) {
        self.applied = commit.applied;
        if commit.conf_state.is_some() {
            self.conf_state.clone_from(&commit.conf_state);
        }
        self.records.extend(commit.records.iter().cloned());
        self.records.retain(|revision, _| !commit.removed.contains(revision));
        for (table, key, value) in &commit.rows {
            let rows = self.rows.entry(*table).or_default();
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
    }

    /// Everything in a file, by every way of reading it.
    pub fn read(storage: &Storage) -> Result<Self> {
        let view = storage.view();
        let mut model = Self {
            applied: view.applied(),
            conf_state: view.conf_state().cloned(),
            ..Self::default()
        };
        for part in scanned::<2>(&view)? {
            model.records.extend(part);
        }
        for table in Table::ALL {
            let rows = view.rows(table)?;
            if !rows.is_empty() {
                model.rows.insert(table, rows.into_iter().collect());
            }
        }
        Ok(model)
    }

    pub fn expect(&self, storage: &Storage) {
        let mut expected = self.clone();
        expected.rows.retain(|_, rows| !rows.is_empty());
        let found = Self::read(storage).expect("the file is whole");
        assert!(found == expected, "at {:?}: not what was committed", found.applied);
    }
}

/// Makes commits out of a seed, one after the other.
#[derive(Debug)]
pub struct Workload {
    pub seed: Seed,
    pub model: Model,
    next_main: i64,
}

impl Workload {
    pub fn new(seed: u64) -> Self {
        Self {
            seed: Seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            model: Model::default(),
            next_main: 2,
        }
    }

    /// Goes on from `model`.
    pub fn after(model: Model, seed: u64) -> Self {
        let next_main = model.records.keys().last().map_or(2, |last| last.main + 1);
        Self { model, next_main, ..Self::new(seed) }
    }

    pub fn bytes(&mut self, below: usize) -> Bytes {
        let length = self.seed.below(below);
        let first = self.seed.next() as u8;
        Bytes::from((0..length).map(|place| first.wrapping_add(place as u8)).collect::<Vec<_>>())
    }

    pub fn commit(&mut self, records: usize) -> Commit {
        let mut commit = Commit {
            applied: Applied {
                index: self.model.applied.index + 1 + self.seed.below(5) as u64,
                term: self.model.applied.term + self.seed.below(2) as u64,
            },
            ..Commit::default()
        };
        if self.seed.below(4) == 0 {
            let voters = vec![self.seed.next()];
            commit.conf_state = Some(ConfState { voters, ..ConfState::default() });
        }
        for _ in 0..records {
            let subs = 1 + self.seed.below(3) as i64;
            for sub in 0..subs {
                let below = if self.seed.below(20) == 0 { 9000 } else { 400 };
                let record =
                    Record { tombstone: self.seed.below(5) == 0, bytes: self.bytes(below) };
                commit.records.push((Revision { main: self.next_main, sub }, record));
            }
            self.next_main += 1;
        }
        for revision in self.model.records.keys() {
            if self.seed.below(6) == 0 {
                commit.removed.push(*revision);
            }
        }
        for _ in 0..self.seed.below(12) {
            let table = Table::ALL[self.seed.below(Table::ALL.len())];
            let key = Bytes::from(format!("key{}", self.seed.below(10)));
            let value = (self.seed.below(3) > 0).then(|| self.bytes(100));
            commit.rows.push((table, key, value));
        }
        self.model.apply(&commit);
        commit
    }

    /// Commits until the file holds some pages of everything, then makes a checkpoint.
    pub fn fill(&mut self, storage: &Storage, commits: usize, records: usize) {
        for _ in 0..commits {
            let commit = self.commit(records);
            storage.commit(&commit, Durability::Buffered).expect("there is room");
        }
        let last = self.commit(1);
        storage.commit(&last, Durability::Checkpoint).expect("there is room");
    }
}

/// Every record of `from..until`.
pub fn scan(storage: &Storage, from: Revision, until: Revision) -> Result<Vec<(Revision, Record)>> {
    let mut found = Vec::new();
    storage.view().scan(from, until, &mut |revision, raw| {
        let bytes = Bytes::copy_from_slice(raw.bytes);
        found.push((revision, Record { tombstone: raw.tombstone, bytes }));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}
