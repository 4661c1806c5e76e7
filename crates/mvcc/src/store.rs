//! The writer: the one place that changes the store.

use std::sync::Arc;

use bytes::Bytes;
use etched_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, TxnRequest};
use etched_proto::raw::{DeleteRangeReply, PutReply, TxnReply};

use crate::error::Error;
use crate::hash::HashJob;
use crate::leases::Leases;
use crate::reader::Reader;
use crate::record::{Record, Records, Revision};

/// The compactions that storage knows of: etcd's two rows of the table `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactState {
    /// `scheduledCompactRev`: the floor moved there.
    pub scheduled: Option<i64>,
    /// `finishedCompactRev`: everything below it has been removed.
    pub finished: Option<i64>,
}

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
/// to nobody: then old records are not read for it, and the reply comes back with its ranges,
/// previous values and counts left out.
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

/// One slice of pruning, see [`Store::sweep`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sweep {
    /// Revisions that nobody can name any more. Storage removes them **in this order**, in any number of
    /// commits: whatever prefix of all slices is gone, a restart sees the same keys.
    pub dropped: Vec<Revision>,
    /// The compaction at this revision is complete with this slice: the `finishedCompactRev` to be
    /// written with or after the removal of everything dropped so far.
    pub finished: Option<i64>,
}

/// The writer of the store: owned by apply, not cloned.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// Builds the store from everything that storage holds.
    ///
    /// The current revision is the highest of the last record's, the scheduled and the finished
    /// compaction; 1 when there is nothing. The attachments come in key order.
    ///
    /// # Errors
    /// [`Error::Records`] when storage cannot be read or holds bytes that are no record.
    pub fn open(
        records: Arc<dyn Records>,
        compact: CompactState,
    ) -> Result<(Self, Vec<Attachment>), Error> {
        todo!()
    }

    /// A handle for reading; any number, on any thread.
    pub fn reader(&self) -> Reader {
        todo!()
    }

    /// Revision of the last write; 1 on a fresh store. The `header.revision` of an answer to a write is
    /// this, read right after it.
    pub fn current_revision(&self) -> i64 {
        todo!()
    }

    /// The last compacted revision (the floor); -1 when there was none.
    pub fn compact_revision(&self) -> i64 {
        todo!()
    }

    /// Writes one key. `header` of the reply is left to the server.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`], [`Error::KeyNotFound`] (`ignore_value`, `ignore_lease`), [`Error::Records`].
    pub fn put(
        &mut self,
        request: &PutRequest,
        leases: &mut dyn Leases,
        answer: Answer,
    ) -> Result<PutReply, Error> {
        todo!()
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
        todo!()
    }

    /// Runs a transaction: compares and checks against the state before it, then the branch taken, all of
    /// its writes under one revision. A read-only one may be given as well.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`], [`Error::KeyNotFound`], [`Error::FutureRevision`], [`Error::Compacted`]; where etcd panics
    /// [`Error::EmptyOperation`], [`Error::UnknownSortTarget`], [`Error::KeptKeyDeleted`]; [`Error::Records`].
    pub fn txn(
        &mut self,
        request: &TxnRequest,
        leases: &mut dyn Leases,
        answer: Answer,
    ) -> Result<TxnReply, Error> {
        todo!()
    }

    /// Deletes these keys in byte order under one revision (a lease ends); how many were there.
    pub fn delete_keys(&mut self, keys: &[Bytes], leases: &mut dyn Leases) -> i64 {
        todo!()
    }

    /// Moves the floor to `revision`: O(1). What lies below is removed by [`Store::sweep`].
    ///
    /// The job computes the hash that etcd keeps of each compaction. It is to be run soon on a thread that
    /// may read storage: sweeping waits until it has run or was dropped.
    ///
    /// # Errors
    /// [`Error::Compacted`] at or below the floor, [`Error::FutureRevision`] above the current revision.
    pub fn compact(&mut self, revision: i64) -> Result<HashJob, Error> {
        todo!()
    }

    /// Prunes history below the floor: at most about `budget` keys and revisions, so that a slice is
    /// short. Does nothing while a reader or a [`HashJob`] still reads below the floor.
    ///
    /// `None`: nothing to do now. Otherwise call again until `finished` is set.
    pub fn sweep(&mut self, budget: usize) -> Option<Sweep> {
        todo!()
    }

    /// What storage has to write since the last call, in order.
    pub fn take_changes(&mut self) -> Changes {
        todo!()
    }

    /// The records written since the last call, for the watch hub; whole revisions, in order.
    pub fn take_events(&mut self) -> Vec<(Revision, Record)> {
        todo!()
    }

    /// Storage now shows every record up to and including `upto`: they leave the memory table.
    pub fn flushed(&mut self, upto: Revision) {
        todo!()
    }

    /// Bytes that the memory table holds.
    pub fn memory_bytes(&self) -> usize {
        todo!()
    }
}
