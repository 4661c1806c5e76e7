//! What the writer and the readers share, and how a record is found.
//!
//! ```text
//! Store (apply) ──write lock, per request──> Shared {tree, memory, revisions} <──read lock── Reader
//!                                                                                  │
//!            index names a revision ──> memory table ──miss──> Records (storage, under a pin)
//! ```
//! The lock is held for a point lookup, a small page or to clone the tree, never while storage is read.

use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::error::Error;
use crate::hash::Hashes;
use crate::index::Tree;
use crate::limit;
use crate::memory::MemoryTable;
use crate::pins::{Pin, Pins};
use crate::record::{Record, Records, RecordsError, Revision};

/// Records looked up under one hold of the lock.
const BATCH: usize = limit(512, 2);

/// The state that a write changes as a whole.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) tree: Tree,
    pub(crate) memory: MemoryTable,
    /// Revision of the last write.
    pub(crate) current: i64,
    /// The last compacted revision, -1 before any. At most `current`.
    pub(crate) floor: i64,
}

pub(crate) struct Core {
    pub(crate) shared: RwLock<Shared>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) hashes: Mutex<Hashes>,
    pub(crate) records: Arc<dyn Records>,
}

/// The index as it stood at one moment. While it lives, writers copy the paths they change.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) tree: Tree,
    pub(crate) current: i64,
    pub(crate) floor: i64,
    _pin: Pin,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").finish_non_exhaustive()
    }
}

impl Shared {
    /// The revision that a request reads at: 0 and below mean the current one.
    pub(crate) fn resolve(&self, requested: i64) -> Result<i64, Error> {
        resolve(requested, self.current, self.floor)
    }
}

/// The revision that a request reads at, when the store stands at `current`.
pub(crate) fn resolve(requested: i64, current: i64, floor: i64) -> Result<i64, Error> {
    match requested {
        revision if revision > current => Err(Error::FutureRevision),
        revision if revision <= 0 => Ok(current),
        revision if revision < floor => Err(Error::Compacted),
        revision => Ok(revision),
    }
}

impl Core {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let shared = self.shared.read();
        Snapshot {
            tree: shared.tree.clone(),
            current: shared.current,
            floor: shared.floor,
            _pin: self.pins.pin(shared.floor),
        }
    }

    /// The records of revisions that the index named under this hold of the lock, in order.
    pub(crate) fn fetch_held(
        &self,
        shared: RwLockReadGuard<'_, Shared>,
        revisions: &[Revision],
    ) -> Result<Vec<Record>, Error> {
        let found = revisions.iter().map(|&revision| shared.memory.get(revision).cloned());
        let mut found: Vec<Option<Record>> = found.collect();
        if found.iter().any(Option::is_none) {
            let _pin = self.pins.pin(shared.floor);
            drop(shared);
            self.fill(revisions, &mut found)?;
        }
        Ok(unwrap_all(found))
    }

    /// The records of revisions that the index named and that a pin, or the writer itself, keeps.
    pub(crate) fn fetch(&self, revisions: &[Revision]) -> Result<Vec<Record>, Error> {
        let mut records = Vec::with_capacity(revisions.len());
        for batch in revisions.chunks(BATCH) {
            let mut found: Vec<Option<Record>> = {
                let shared = self.shared.read();
                batch.iter().map(|&revision| shared.memory.get(revision).cloned()).collect()
            };
            self.fill(batch, &mut found)?;
            records.extend(unwrap_all(found));
        }
        Ok(records)
    }

    /// Looks up in storage what memory does not have.
    fn fill(&self, revisions: &[Revision], found: &mut [Option<Record>]) -> Result<(), Error> {
        let missing =
            |(revision, found): (&Revision, &Option<Record>)| found.is_none().then_some(*revision);
        let missing: Vec<Revision> = revisions.iter().zip(&*found).filter_map(missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut stored = Vec::with_capacity(missing.len());
        self.records.get_many(&missing, &mut stored)?;
        assert_eq!(stored.len(), missing.len(), "one answer for each revision asked for");
        for (place, (revision, record)) in
            found.iter_mut().filter(|found| found.is_none()).zip(missing.iter().zip(stored))
        {
            *place = Some(record.unwrap_or_else(|| lost(*revision)));
        }
        Ok(())
    }

    /// Calls `visit` for each record in `from..until`, in order, until it breaks.
    pub(crate) fn scan(
        &self,
        from: Revision,
        until: Revision,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), RecordsError> {
        let (chunks, first) = {
            let shared = self.shared.read();
            (shared.memory.chunks_from(from), shared.memory.first())
        };
        // Storage shows everything before the first record in memory, and it is asked later.
        let stored_until = first.map_or(until, |first| first.min(until));
        let mut broke = false;
        if from < stored_until {
            self.records.scan(from, stored_until, &mut |revision, record| {
                let flow = visit(revision, record);
                broke = flow.is_break();
                flow
            })?;
        }
        let recent = chunks.iter().flat_map(|chunk| chunk.iter());
        let recent = recent.filter(|(revision, _)| (from..until).contains(revision));
        for (revision, record) in recent.take_while(|_| !broke) {
            if visit(*revision, record.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn unwrap_all(found: Vec<Option<Record>>) -> Vec<Record> {
    found.into_iter().map(|record| record.expect("storage filled the gaps")).collect()
}

/// The index names a record that nobody has: going on would answer with less than was written.
pub(crate) fn lost(revision: Revision) -> ! {
    let Revision { main, sub } = revision;
    panic!("record {main}/{sub} is named by the key index but neither in memory nor in storage");
}
