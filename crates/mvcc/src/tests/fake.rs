//! Stand-ins for storage and for the lessor.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    Attachment, CompactState, Leases, RawRecord, Record, Records, RecordsError, Revision, Store,
    Sweep, VisitPart,
};

/// Storage as a map; it can be told to fail.
#[derive(Debug, Default)]
pub(super) struct FakeRecords {
    pub(super) rows: Mutex<BTreeMap<Revision, Record>>,
    pub(super) broken: Mutex<bool>,
}

impl FakeRecords {
    fn check(&self) -> Result<(), RecordsError> {
        if *self.broken.lock() { Err(RecordsError("broken".to_owned())) } else { Ok(()) }
    }
}

impl Records for FakeRecords {
    fn get(&self, revision: Revision) -> Result<Option<Record>, RecordsError> {
        self.check()?;
        Ok(self.rows.lock().get(&revision).cloned())
    }

    fn scan(
        &self,
        from: Revision,
        until: Revision,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), RecordsError> {
        self.check()?;
        let rows = self.rows.lock().clone();
        for (revision, record) in rows.range(from..until) {
            if visit(*revision, record.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// In pieces of three by turns, the last piece first: no order is promised beyond a piece.
    fn scan_all(&self, parts: &mut [&mut VisitPart<'_>]) -> Result<(), RecordsError> {
        self.check()?;
        let rows: Vec<_> = self.rows.lock().clone().into_iter().collect();
        for (nth, piece) in rows.chunks(3).enumerate().rev() {
            let part = &mut parts[nth % parts.len()];
            for (revision, Record { tombstone, bytes }) in piece {
                if part(*revision, RawRecord { tombstone: *tombstone, bytes }).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// A lessor that holds the store to its part of the contract.
#[derive(Debug, Default)]
pub(super) struct FakeLeases {
    pub(super) granted: BTreeSet<i64>,
    pub(super) attached: BTreeMap<Vec<u8>, i64>,
}

impl Leases for FakeLeases {
    fn exists(&self, id: i64) -> bool {
        self.granted.contains(&id)
    }

    fn lease_of(&self, key: &[u8]) -> i64 {
        self.attached.get(key).copied().unwrap_or(0)
    }

    fn attach(&mut self, key: &Bytes, id: i64) {
        assert!(self.granted.contains(&id), "attached to a lease that does not exist");
        assert!(!self.attached.contains_key(&key[..]), "attached while it hangs on another lease");
        self.attached.insert(key.to_vec(), id);
    }

    fn detach(&mut self, key: &[u8], id: i64) {
        assert_eq!(
            self.attached.remove(key),
            Some(id),
            "detached from a lease it does not hang on"
        );
    }
}

/// What a flusher still has to remove, in order.
#[derive(Debug)]
enum Removal {
    Row(Revision),
    Finished(i64),
}

/// A store with its storage and a flusher that is driven by hand.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) store: Store,
    pub(super) leases: FakeLeases,
    pub(super) records: Arc<FakeRecords>,
    pub(super) compact: CompactState,
    /// Written but not yet said to be flushed.
    written: Vec<Revision>,
    removals: VecDeque<Removal>,
}

impl Rig {
    pub(super) fn new() -> Self {
        let records = Arc::new(FakeRecords::default());
        let (store, attached) =
            Store::open(Arc::clone(&records) as _, CompactState::default()).unwrap();
        assert_eq!(attached, []);
        let (compact, leases) = (CompactState::default(), FakeLeases::default());
        let (written, removals) = (Vec::new(), VecDeque::new());
        Self { store, leases, records, compact, written, removals }
    }

    /// Writes all changes, then says that `part` of 8 of the records in memory are flushed.
    pub(super) fn flush(&mut self, part: usize) {
        self.write();
        let flushed = self.written.len() * part / 8;
        if let Some(upto) = self.written.drain(..flushed).next_back() {
            self.store.flushed(upto);
        }
    }

    fn write(&mut self) {
        // Events of records that are flushed must have been taken.
        self.store.take_events();
        let changes = self.store.take_changes();
        self.compact.scheduled = changes.scheduled.or(self.compact.scheduled);
        self.written.extend(changes.records.iter().map(|(revision, _)| *revision));
        self.records.rows.lock().extend(changes.records);
    }

    /// One slice of pruning; what it drops waits to be removed.
    pub(super) fn sweep(&mut self, budget: usize) -> Option<Sweep> {
        let sweep = self.store.sweep(budget)?;
        self.removals.extend(sweep.dropped.iter().map(|revision| Removal::Row(*revision)));
        self.removals.extend(sweep.finished.map(Removal::Finished));
        Some(sweep)
    }

    /// Removes up to `count` of what waits; records that are not written yet stay until they are. An odd `count`
    /// sorts before that what waits in front of the end of a compaction.
    pub(super) fn remove(&mut self, count: usize) {
        self.write();
        if count % 2 == 1 {
            let rows = self.removals.make_contiguous();
            let run = rows.iter().position(|it| matches!(it, Removal::Finished(_)));
            let end = run.unwrap_or(rows.len());
            rows[..end].sort_by_key(|it| match it {
                Removal::Row(revision) => *revision,
                Removal::Finished(_) => unreachable!("the run ends before it"),
            });
        }
        for _ in 0..count {
            match self.removals.pop_front() {
                Some(Removal::Row(revision)) => {
                    self.records.rows.lock().remove(&revision).expect("a row is dropped once");
                }
                Some(Removal::Finished(revision)) => self.compact.finished = Some(revision),
                None => return,
            }
        }
    }

    /// Ends the process, with everything written, and starts it again.
    pub(super) fn reopen(&mut self) {
        self.write();
        let records = Arc::clone(&self.records);
        let (store, attached) = Store::open(records as _, self.compact).unwrap();
        assert!(attached.is_sorted_by(|a, b| a.key < b.key));
        let pairs = attached.into_iter().map(|Attachment { key, lease }| (key.to_vec(), lease));
        self.leases.attached = pairs.collect();
        self.store = store;
        self.written.clear();
        self.removals.clear();
    }
}
