//! Reading: snapshots of the index that never wait for a writer's disk, nor make it wait.

use std::ops::ControlFlow;

use bytes::Bytes;
use etched_proto::etcdserverpb::{RangeRequest, TxnRequest};
use etched_proto::raw::{RangeReply, TxnReply};

use crate::error::Error;
use crate::hash::KvHash;
use crate::record::{Record, Revision};

/// Reads the store; cheap to clone, for any thread.
#[derive(Debug, Clone)]
pub struct Reader {}

/// One message of a [`RangeStream`].
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// `header` is left to the server; `more` and `count` are set in the last chunk only.
    pub reply: RangeReply,
    /// In the last chunk, which alone has a header: the header's revision.
    pub last: Option<i64>,
}

/// A range answered in pieces of about the size given, all of one revision.
///
/// Between two pieces it holds nothing but the next key: a compaction beyond its revision ends it.
#[derive(Debug)]
pub struct RangeStream {}

impl RangeStream {
    /// The next chunk; none after the last.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the revision has been compacted meanwhile; [`Error::Records`].
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        todo!()
    }
}

impl Reader {
    /// Answers a range; beside it the current revision, for the header that is left to the server.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::FutureRevision`], [`Error::UnknownSortTarget`] (only for a request that
    /// [`check::range`](crate::check::range) refuses), [`Error::Records`].
    pub fn range(&self, request: &RangeRequest) -> Result<(RangeReply, i64), Error> {
        todo!()
    }

    /// Answers a range in chunks that aim at `max_request_bytes`, as etcd sizes them.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::FutureRevision`].
    pub fn range_stream(
        &self,
        request: &RangeRequest,
        max_request_bytes: usize,
    ) -> Result<RangeStream, Error> {
        todo!()
    }

    /// Answers a transaction for which [`check::is_read_only`](crate::check::is_read_only) holds, at one revision; beside it that revision.
    ///
    /// # Errors
    /// Those of [`Reader::range`].
    pub fn txn_read_only(&self, request: &TxnRequest) -> Result<(TxnReply, i64), Error> {
        todo!()
    }

    /// The hash that etcd computes for HashKV at `revision` (0: the current one), and the current revision.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::FutureRevision`], [`Error::Records`].
    pub fn hash_kv(&self, revision: i64) -> Result<(KvHash, i64), Error> {
        todo!()
    }

    /// Revision of the last write; 1 on a fresh store.
    pub fn current_revision(&self) -> i64 {
        todo!()
    }

    /// The last compacted revision; -1 when there was none.
    pub fn compact_revision(&self) -> i64 {
        todo!()
    }

    /// How many keys exist now.
    pub fn keys(&self) -> usize {
        todo!()
    }

    /// Bytes that the memory table holds.
    pub fn memory_bytes(&self) -> usize {
        todo!()
    }

    /// Calls `visit` for each record whose main revision lies in `from..until`, in order, until it breaks.
    ///
    /// # Errors
    /// [`Error::Compacted`] when `from` is below the floor; [`Error::Records`].
    pub fn events(
        &self,
        from: i64,
        until: i64,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        todo!()
    }

    /// The encoded `mvccpb.KeyValue` of `key` as it stood at `revision`; none when it was absent.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::FutureRevision`], [`Error::Records`].
    pub fn kv_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, Error> {
        todo!()
    }
}
