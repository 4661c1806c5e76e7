//! The writer: the one place that changes the store.
//!
//! ```text
//! apply ──put, delete, txn──> index and memory table, under the lock ──> take_events ──> watch hub
//!                                                                    ──> take_changes ──> flusher ──> storage
//!       <──flushed(upto)── records that storage shows leave memory
//!       ──compact──> floor moves ──> HashJob (any thread) ──> sweep ──> dropped revisions ──> flusher
//! ```
//! Invariants:
//! - every main revision from 2 to the current one has at least one record, and its subs count from 0;
//! - a refused request has changed nothing;
//! - what happens depends on the requests and on nothing else, whatever was flushed or swept when.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use etched_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, TxnRequest};
use etched_proto::raw::{DeleteRangeReply, PutReply, TxnReply};
use parking_lot::{Mutex, RwLock};

use crate::compact::Compaction;
use crate::error::Error;
use crate::hash::{HashJob, Hashes};
use crate::index::{Builder, Built, Entry, Keys, Tree};
use crate::kv::tail_of;
use crate::leases::Leases;
use crate::limit;
use crate::memory::{Flushed, MemoryTable};
use crate::pins::Pins;
use crate::reader::Reader;
use crate::record::{RawRecord, Record, Records, RecordsError, Revision, VisitPart};
use crate::shared::{Core, Shared};
use crate::txn::{self, Branch, Op};
use crate::write::{self, KeptRecords, Write};

pub use crate::compact::{CompactState, Sweep};

/// Keys that one request may delete under the lock; for more, it works on a copy of the tree.
const DELETE_MAX: usize = limit(1024, 3);

/// Threads that read the records at the start. Two halve it; building the index of them uses two as well.
const SCAN_THREADS: usize = 2;

/// A key that hangs on a lease, as its newest record says; for the lessor at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The key.
    pub key: Bytes,
    /// The lease, never 0. It may not exist (any more): then there is nothing to attach.
    pub lease: i64,
}

/// Whether somebody waits for the answer of a write.
///
/// It changes nothing of what is written. A replayed entry and an entry of another member are answered
/// to nobody: then old records are not read for it, and the reply comes back with its responses and
/// previous values left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The whole reply.
    Wanted,
    /// Only the changes matter.
    Unwanted,
}

/// What storage has to write: everything since the last [`Store::take_changes`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// New records, in order.
    pub records: Vec<(Revision, Record)>,
    /// The floor moved: the new `scheduledCompactRev`.
    pub scheduled: Option<i64>,
}

/// The writer of the store: owned by apply, not cloned.
#[derive(Debug)]
pub struct Store {
    core: Arc<Core>,
    compaction: Compaction,
    /// What storage has been given: everything below.
    taken: Revision,
    /// What the watch hub has been given: everything below.
    noticed: Revision,
}

impl Store {
    /// Builds the store from everything that storage holds.
    ///
    /// The current revision is the highest of the last record's, the scheduled and the finished
    /// compaction; 1 when there is nothing. The attachments come in key order.
    ///
    /// # Errors
    /// [`Error::Records`] when storage cannot be read, holds bytes that are no record, or stands above
    /// [`Revision::MAIN_MAX`].
    pub fn open(
        records: Arc<dyn Records>,
        compact: CompactState,
    ) -> Result<(Self, Vec<Attachment>), Error> {
        if compact.floor() > Revision::MAIN_MAX {
            let what =
                format!("revision {}, to which it is compacted, is too high", compact.floor());
            return Err(RecordsError(what).into());
        }
        let (Built { tree, leases }, last) = scan(&*records)?;
        let floor = compact.floor();
        let current = last.max(floor).max(1);
        let shared = Shared { tree, memory: MemoryTable::default(), current, floor };
        let core = Arc::new(Core {
            shared: RwLock::new(shared),
            pins: Arc::new(Pins::default()),
            hashes: Mutex::new(Hashes::default()),
            records,
        });
        let next = Revision::start_of(current + 1);
        let compaction = Compaction::resume(Arc::clone(&core), compact);
        let attachments = leases.into_iter().map(|(key, lease)| Attachment { key, lease });
        Ok((Self { core, compaction, taken: next, noticed: next }, attachments.collect()))
    }

    /// A handle for reading; any number, on any thread.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.core))
    }

    /// Revision of the last write; 1 on a fresh store. The `header.revision` of an answer to a write is
    /// this, read right after it.
    pub fn current_revision(&self) -> i64 {
        self.core.shared.read().current
    }

    /// The last compacted revision (the floor); -1 when there was none.
    pub fn compact_revision(&self) -> i64 {
        self.core.shared.read().floor
    }

    /// Writes one key. `header` of the reply is left to the server.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`], [`Error::KeyNotFound`] (`ignore_value`, `ignore_lease`),
    /// [`Error::Records`].
    pub fn put(
        &mut self,
        request: &PutRequest,
        leases: &mut dyn Leases,
        answer: Answer,
    ) -> Result<PutReply, Error> {
        let kept = if txn::keeps(request) {
            let snapshot = self.core.snapshot();
            txn::check_put(&snapshot.tree, request, leases)?;
            write::prefetch(&self.core, &snapshot.tree, std::iter::once(request))?
        } else {
            txn::check_lease(request, leases)?;
            KeptRecords::default()
        };
        let before = self.write(leases, kept, 0, |write| write.put(request));
        let prev = before.filter(|_| request.prev_kv && answer == Answer::Wanted);
        let prev: Vec<Revision> = prev.iter().map(|entry| entry.revision()).collect();
        let prev_kv = self.core.fetch(&prev)?.pop().map(|record| record.bytes);
        Ok(PutReply { header: None, prev_kv })
    }

    /// Deletes a key or a range: one revision, when there was anything to delete.
    ///
    /// # Errors
    /// [`Error::Records`].
    pub fn delete_range(
        &mut self,
        request: &DeleteRangeRequest,
        leases: &mut dyn Leases,
        answer: Answer,
    ) -> Result<DeleteRangeReply, Error> {
        let keys = Keys::new(&request.key, &request.range_end);
        let many = self.count(keys);
        let gone = self.write(leases, KeptRecords::default(), many, |write| write.delete(keys));
        let wanted = request.prev_kv && answer == Answer::Wanted;
        let prev = if wanted { &gone[..] } else { &[] };
        let prev: Vec<Revision> = prev.iter().map(|entry| entry.revision()).collect();
        let prev_kvs = self.core.fetch(&prev)?.into_iter().map(|record| record.bytes).collect();
        Ok(DeleteRangeReply { header: None, deleted: gone.len() as i64, prev_kvs })
    }

    /// Runs a transaction: compares and checks against the state before it, then the branch taken, all
    /// of its writes under one revision. A read-only one may be given as well.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`], [`Error::KeyNotFound`], [`Error::FutureRevision`],
    /// [`Error::Compacted`]; where etcd panics [`Error::EmptyOperation`],
    /// [`Error::UnknownSortTarget`], [`Error::KeptKeyDeleted`]; [`Error::Records`].
    pub fn txn(
        &mut self,
        request: &TxnRequest,
        leases: &mut dyn Leases,
        answer: Answer,
    ) -> Result<TxnReply, Error> {
        let snapshot = self.core.snapshot();
        let branch = Branch::choose(&self.core, &snapshot, request)?;
        branch.check(&snapshot, leases)?;
        let mut keeping = Vec::new();
        let mut deletes = 0;
        branch.try_for_each(&mut |op| {
            match op {
                Op::Put(request) if txn::keeps(request) => keeping.push(*request),
                Op::Delete(request) => {
                    let keys = Keys::new(&request.key, &request.range_end);
                    deletes += snapshot.tree.count(keys, snapshot.current);
                }
                _ => {}
            }
            Ok(())
        })?;
        let kept = write::prefetch(&self.core, &snapshot.tree, keeping.into_iter())?;
        drop(snapshot);
        let wanted = answer == Answer::Wanted;
        let parts = self.write(leases, kept, deletes, |write| write.branch(&branch, wanted));
        let responses = txn::answer(&self.core, parts)?;
        Ok(TxnReply { header: None, succeeded: branch.succeeded, responses })
    }

    /// Deletes these keys in byte order under one revision (a lease ends); how many were there.
    pub fn delete_keys(&mut self, keys: &[Bytes], leases: &mut dyn Leases) -> i64 {
        let mut keys: Vec<&Bytes> = keys.iter().collect();
        keys.sort_unstable();
        self.write(leases, KeptRecords::default(), keys.len(), |write| {
            keys.iter().map(|key| write.delete(Keys::One(key)).len() as i64).sum()
        })
    }

    /// Moves the floor to `revision`: O(1). What lies below is removed by [`Store::sweep`].
    ///
    /// The job computes the hash that etcd keeps of each compaction. It is to be run soon on a thread
    /// that may read storage: sweeping waits until it has run or was dropped.
    ///
    /// # Errors
    /// [`Error::Compacted`] at or below the floor, [`Error::FutureRevision`] above the current revision.
    pub fn compact(&mut self, revision: i64) -> Result<HashJob, Error> {
        self.compaction.schedule(revision)
    }

    /// Prunes history below the floor: at most about `budget` keys and revisions, so that a slice is
    /// short. Does nothing while a reader or a [`HashJob`] still reads below the floor.
    ///
    /// `None`: nothing to do now. Otherwise call again until `finished` is set.
    pub fn sweep(&mut self, budget: usize) -> Option<Sweep> {
        self.compaction.sweep(budget)
    }

    /// What storage has to write since the last call, in order.
    pub fn take_changes(&mut self) -> Changes {
        let records = self.since(self.taken);
        self.taken = Revision::start_of(self.current_revision() + 1);
        Changes { records, scheduled: self.compaction.take_scheduled() }
    }

    /// The records written since the last call, for the watch hub; whole revisions, in order.
    ///
    /// # Panics
    /// When some of them were flushed before: a watcher would miss them.
    pub fn take_events(&mut self) -> Vec<(Revision, Record)> {
        let events = self.since(self.noticed);
        let next = Revision::start_of(self.current_revision() + 1);
        let first = events.first().map_or(next, |(revision, _)| *revision);
        assert!(first == self.noticed, "records were flushed before the watch hub saw them");
        self.noticed = next;
        events
    }

    /// Storage now shows every record up to and including `upto`: they leave the memory table, and are
    /// freed when the answer is dropped.
    ///
    /// # Panics
    /// When [`Store::take_changes`] has not handed them out.
    pub fn flushed(&mut self, upto: Revision) -> Flushed {
        assert!(upto < self.taken, "only what was taken can have been flushed");
        self.core.shared.write().memory.take_until(upto)
    }

    /// Bytes that the memory table holds.
    pub fn memory_bytes(&self) -> usize {
        self.core.shared.read().memory.bytes()
    }

    /// Whether nothing is left of the last compaction.
    #[cfg(test)]
    pub(crate) fn compaction_is_complete(&self) -> bool {
        self.compaction.is_complete()
    }

    fn count(&self, keys: Keys<'_>) -> usize {
        let shared = self.core.shared.read();
        shared.tree.count(keys, shared.current)
    }

    fn since(&self, from: Revision) -> Vec<(Revision, Record)> {
        let chunks = self.core.shared.read().memory.chunks_from(from);
        let records = chunks.iter().flat_map(|chunk| chunk.iter());
        records.filter(|(revision, _)| *revision >= from).cloned().collect()
    }

    /// Makes one revision of what `run` changes; none when it changes nothing.
    ///
    /// A run that deletes many keys works on a copy of the tree, so that readers do not wait for it.
    fn write<T>(
        &mut self,
        leases: &mut dyn Leases,
        kept: KeptRecords,
        deletes: usize,
        run: impl FnOnce(&mut Write<'_>) -> T,
    ) -> T {
        let copy = (deletes > DELETE_MAX).then(|| self.core.shared.read().tree.clone());
        if let Some(mut tree) = copy {
            let begin = self.current_revision();
            let mut write = Write { tree: &mut tree, leases, kept, begin, made: Vec::new() };
            let result = run(&mut write);
            let made = write.made;
            let shared = &mut *self.core.shared.write();
            shared.tree = tree;
            shared.publish(made);
            return result;
        }
        let shared = &mut *self.core.shared.write();
        let (tree, begin) = (&mut shared.tree, shared.current);
        let mut write = Write { tree, leases, kept, begin, made: Vec::new() };
        let result = run(&mut write);
        let made = write.made;
        shared.publish(made);
        result
    }
}

impl Shared {
    fn publish(&mut self, made: Vec<(Revision, Record)>) {
        self.current += i64::from(!made.is_empty());
        for (revision, record) in made {
            self.memory.push(revision, record);
        }
    }
}

/// One thread's share of the records.
#[derive(Default)]
struct Share {
    builder: Builder,
    /// Main revision of the newest.
    last: i64,
    failed: Option<RecordsError>,
}

impl Share {
    fn visit(&mut self, revision: Revision, record: RawRecord<'_>) -> ControlFlow<()> {
        self.last = self.last.max(revision.main);
        match self.add(revision, record) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failed = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    fn add(&mut self, revision: Revision, record: RawRecord<'_>) -> Result<(), RecordsError> {
        let kv = record.checked(revision)?;
        if record.tombstone {
            self.builder.push(kv.key, Entry::tombstone(revision), 0);
        } else if record.bytes.is_empty() {
            // What a restore that raises the revision leaves there. Its key, the empty one, no request names.
            self.builder.push(&[], Entry::put(revision, revision.main, 1, 0), 0);
        } else {
            let tail = tail_of(record.bytes.len(), &kv);
            let entry = Entry::put(revision, kv.create_revision, kv.version, tail);
            self.builder.push(kv.key, entry, kv.lease);
        }
        Ok(())
    }
}

/// The index of all records, and the main revision of the last one.
fn scan(records: &dyn Records) -> Result<(Built, i64), Error> {
    let mut shares: [Share; SCAN_THREADS] = Default::default();
    let mut visits = shares.each_mut().map(|share| {
        move |revision: Revision, record: RawRecord<'_>| share.visit(revision, record)
    });
    records.scan_all(&mut visits.each_mut().map(|visit| visit as &mut VisitPart<'_>))?;
    let (mut builders, mut last) = (Vec::new(), 0);
    for share in shares {
        if let Some(error) = share.failed {
            return Err(error.into());
        }
        builders.push(share.builder);
        last = last.max(share.last);
    }
    Ok((Builder::finish(builders), last))
}

/// The tree is shared with readers by cloning it.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Tree>();
    shared::<Reader>();
    shared::<Store>();
};
