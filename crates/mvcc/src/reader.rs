//! Reading: snapshots of the index that never wait for a writer's disk, nor make it wait.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use etched_proto::etcdserverpb::{RangeRequest, TxnRequest};
use etched_proto::raw::{RangeReply, TxnReply};

use crate::error::Error;
use crate::hash::KvHash;
use crate::index::Tree;
use crate::large::{LargeRange, RangeAnswer};
use crate::pins::Pin;
use crate::range::{self, Measure};
use crate::record::{Record, RecordsError, Revision};
use crate::shared::Core;
use crate::stream::RangeStream;
use crate::txn;
use crate::watch::History;

/// Reads the store; cheap to clone, for any thread.
#[derive(Debug, Clone)]
pub struct Reader {
    core: Arc<Core>,
}

impl Reader {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Answers a range; beside it the current revision, for the header that is left to the server.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::FutureRevision`], [`Error::UnknownSortTarget`] (only for a request that
    /// [`check::range`](crate::check::range) refuses), [`Error::Records`].
    pub fn range(&self, request: &RangeRequest) -> Result<(RangeReply, i64), Error> {
        if let Some(answer) = self.range_at_once(request, usize::MAX)? {
            return Ok(answer);
        }
        let (tree, revision, current, _pin) = self.at(request)?;
        let selection = range::select(&tree, request, revision, true);
        drop(tree);
        Ok((self.core.answer(request, selection)?, current))
    }

    /// As [`Reader::range`] when that is quick and its records take `bytes_max` bytes at most; else none.
    ///
    /// # Errors
    /// Those of [`Reader::range`].
    pub fn range_at_once(
        &self,
        request: &RangeRequest,
        bytes_max: usize,
    ) -> Result<Option<(RangeReply, i64)>, Error> {
        let shared = self.core.shared.read();
        let (revision, current) = (shared.resolve(request.revision)?, shared.current);
        range::check_target(request)?;
        if !range::is_small(&shared.tree, request, revision, current) {
            return Ok(None);
        }
        let selection = range::select(&shared.tree, request, revision, true);
        if selection.bytes() > bytes_max {
            return Ok(None);
        }
        let records = self.core.fetch_held(shared, &selection.revisions(request))?;
        Ok(Some((selection.answer(request, records)?, current)))
    }

    /// The index, the revision that a request reads there, the current one.
    fn at(&self, request: &RangeRequest) -> Result<(Tree, i64, i64, Pin), Error> {
        let shared = self.core.shared.read();
        let (revision, current) = (shared.resolve(request.revision)?, shared.current);
        range::check_target(request)?;
        Ok((shared.tree.clone(), revision, current, self.core.pins.pin(revision)))
    }

    /// As [`Reader::range`] up to about `bytes_max` bytes; what is larger comes window by window where that can
    /// be. Beside it the current revision.
    ///
    /// # Errors
    /// Those of [`Reader::range`].
    pub fn answer(
        &self,
        request: &RangeRequest,
        bytes_max: usize,
    ) -> Result<(RangeAnswer, i64), Error> {
        let (tree, revision, current, pin) = self.at(request)?;
        let measure = if request.count_only {
            Measure::default()
        } else {
            range::measure(&tree, request, revision)
        };
        let answer = if measure.bytes <= bytes_max {
            let selection = range::select(&tree, request, revision, true);
            drop(tree);
            RangeAnswer::Reply(self.core.answer(request, selection)?)
        } else if range::is_key_order(request) {
            let core = Arc::clone(&self.core);
            let measure = measure.counted(&tree, request, revision);
            RangeAnswer::Large(LargeRange::new(core, request.clone(), revision, measure, pin))
        } else {
            RangeAnswer::Heavy
        };
        Ok((answer, current))
    }

    /// Answers a range in chunks that aim at `max_request_bytes`, as etcd sizes them: 10 keys at first,
    /// then twice as many while a chunk is below half of it, half as many above twice of it.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::FutureRevision`].
    pub fn range_stream(
        &self,
        request: &RangeRequest,
        max_request_bytes: usize,
    ) -> Result<RangeStream, Error> {
        RangeStream::new(Arc::clone(&self.core), request, max_request_bytes)
    }

    /// Answers a transaction for which [`check::is_read_only`](crate::check::is_read_only) holds, at one
    /// revision; beside it that revision.
    ///
    /// # Errors
    /// Those of [`Reader::range`]; [`Error::EmptyOperation`] when it is not read-only after all.
    pub fn txn_read_only(&self, request: &TxnRequest) -> Result<(TxnReply, i64), Error> {
        let snapshot = self.core.snapshot();
        Ok((txn::read_only(&self.core, &snapshot, request)?, snapshot.current))
    }

    /// The hash that etcd computes for HashKV at `revision` (0: the current one), and the current
    /// revision.
    ///
    /// A revision whose compaction's hash is kept is answered with that one, however long compacted. A
    /// negative revision gives the hash of nothing.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::FutureRevision`], [`Error::Records`].
    pub fn hash_kv(&self, revision: i64) -> Result<(KvHash, i64), Error> {
        self.core.hash_kv(revision)
    }

    /// The hash at the current revision, from the records as they are: never one that was kept, as HashKV at 0
    /// answers after a compaction at 0. None when `goes_on`, asked now and then, says no.
    ///
    /// # Errors
    /// [`Error::Records`].
    pub fn hash_now(&self, goes_on: &dyn Fn() -> bool) -> Result<Option<KvHash>, Error> {
        self.core.hash_now(goes_on)
    }

    /// The hashes kept of the last compactions, at most 10, oldest first.
    pub fn compaction_hashes(&self) -> Vec<KvHash> {
        self.core.hashes.lock().all().to_vec()
    }

    /// Revision of the last write; 1 on a fresh store.
    pub fn current_revision(&self) -> i64 {
        self.core.shared.read().current
    }

    /// The last compacted revision; -1 when there was none.
    pub fn compact_revision(&self) -> i64 {
        self.core.shared.read().floor
    }

    /// How many keys exist now.
    pub fn keys(&self) -> usize {
        self.core.shared.read().tree.live()
    }

    /// Bytes that the memory table holds.
    pub fn memory_bytes(&self) -> usize {
        self.core.shared.read().memory.bytes()
    }

    /// Calls `visit` for each record whose main revision lies in `from..until`, in order, until it
    /// breaks.
    ///
    /// # Errors
    /// [`Error::Compacted`] when `from` is below the floor; [`Error::Records`].
    pub fn events(
        &self,
        from: i64,
        until: i64,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let _pin = {
            let shared = self.core.shared.read();
            if from < shared.floor {
                return Err(Error::Compacted);
            }
            self.core.pins.pin(shared.floor)
        };
        let until = Revision::start_of(until);
        Ok(self.core.scan(Revision::start_of(from), until, visit)?)
    }

    /// The encoded `mvccpb.KeyValue` of `key` as it stood at `revision`; none when it was absent.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::FutureRevision`], [`Error::Records`].
    pub fn kv_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, Error> {
        let shared = self.core.shared.read();
        if revision < shared.floor {
            return Err(Error::Compacted);
        }
        if revision > shared.current {
            return Err(Error::FutureRevision);
        }
        let Some(entry) = shared.tree.at(key, revision) else { return Ok(None) };
        let records = self.core.fetch_held(shared, &[entry.revision()])?;
        Ok(records.into_iter().next().map(|record| record.bytes))
    }
}

/// The watch hub reads the past through this.
impl History for Reader {
    fn compact_revision(&self) -> i64 {
        self.compact_revision()
    }

    /// Also below the floor: the hub looks at the floor afterwards.
    fn scan(
        &self,
        from: i64,
        until: i64,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), RecordsError> {
        let _pin = self.core.pins.pin(from);
        self.core.scan(Revision::start_of(from), Revision::start_of(until), visit)
    }

    fn kv_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, RecordsError> {
        match self.kv_at(key, revision) {
            Ok(found) => Ok(found),
            Err(Error::Records(error)) => Err(error),
            // Compacted, or not yet there: the hub has no other answer for either.
            Err(_) => Ok(None),
        }
    }
}
