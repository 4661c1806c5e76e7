//! RangeStream: a range in pieces, all of one revision.

use std::sync::Arc;

use bytes::Bytes;
use etched_proto::etcdserverpb::RangeRequest;
use etched_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use etched_proto::raw::RangeReply;

use crate::error::Error;
use crate::index::{Keys, Tree};
use crate::kv::{Kv, varint_len};
use crate::limit;
use crate::pins::Pin;
use crate::range::{self, Selection};
use crate::record::Revision;
use crate::shared::{Core, resolve};

/// Keys of the first chunk, at most.
const FIRST_CHUNK_KEYS: i64 = 10;
/// Keys by which the end of a chunk that grows too large is chosen.
const BATCH: usize = limit(64, 2);

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
/// The pieces are in key order whatever sort target the request has. Between two of them it holds nothing
/// but the next key: a compaction beyond its revision ends it.
#[derive(Debug)]
pub struct RangeStream {
    core: Arc<Core>,
    /// `key`, `limit` and `revision` are those of the next chunk.
    request: RangeRequest,
    /// Keys that may still be sent.
    remaining: i64,
    sent: i64,
    header_revision: i64,
    target_bytes: usize,
    done: bool,
}

impl RangeStream {
    pub(crate) fn new(
        core: Arc<Core>,
        request: &RangeRequest,
        target_bytes: usize,
    ) -> Result<Self, Error> {
        let (revision, current) = {
            let shared = core.shared.read();
            (shared.resolve(request.revision)?, shared.current)
        };
        let remaining = if request.limit > 0 { request.limit } else { i64::MAX };
        let mut request = request.clone();
        request.revision = revision;
        request.limit = remaining.min(FIRST_CHUNK_KEYS);
        // A sort target without an order would sort each chunk by itself: keys would repeat and be lost.
        let keeps_lease = request.sort_target == SortTarget::Value as i32 && request.keys_only;
        request.sort_order = SortOrder::None as i32;
        if !keeps_lease {
            request.sort_target = SortTarget::Key as i32;
        }
        let header_revision = current;
        Ok(Self { core, request, remaining, sent: 0, header_revision, target_bytes, done: false })
    }

    /// The next chunk; none after the last.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the revision has been compacted meanwhile; [`Error::Records`].
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        if self.done {
            return Ok(None);
        }
        let (tree, _pin) = self.open()?;
        let chunk = if self.request.count_only {
            let count = tree.count(range::keys(&self.request), self.request.revision) as i64;
            self.last(RangeReply { count, ..RangeReply::default() })
        } else {
            self.read(&tree)?
        };
        self.done = chunk.last.is_some();
        Ok(Some(chunk))
    }

    /// The index, while the revision can still be read.
    fn open(&self) -> Result<(Tree, Pin), Error> {
        let shared = self.core.shared.read();
        let revision = resolve(self.request.revision, shared.current, shared.floor)?;
        Ok((shared.tree.clone(), self.core.pins.pin(revision)))
    }

    fn read(&mut self, tree: &Tree) -> Result<Chunk, Error> {
        let selection = range::select(tree, &self.request, self.request.revision, false);
        let (visited, counted) = (selection.len(), selection.count());
        let (kvs, bytes) = self.records(selection)?;
        let more = visited > kvs.len();
        self.sent += kvs.len() as i64;
        self.remaining -= kvs.len() as i64;
        let mut reply = RangeReply { kvs, ..RangeReply::default() };
        if !more {
            reply.count = self.sent;
            return Ok(self.last(reply));
        }
        let last = reply.kvs.last().expect("a chunk that was cut holds a key");
        let mut next = Kv::of(Revision::default(), last)?.key.to_vec();
        next.push(0);
        self.request.key = next.into();
        if self.remaining == 0 {
            let rest = tree.count(self.rest(), self.request.revision) as i64;
            reply.more = true;
            reply.count = self.sent + rest;
            return Ok(self.last(reply));
        }
        self.adjust(bytes + reply_overhead(self.header_revision, counted));
        Ok(Chunk { reply, last: None })
    }

    /// The records of a chunk up to its limit and to about twice the size aimed at, and their size in a reply.
    fn records(&self, selection: Selection) -> Result<(Vec<Bytes>, usize), Error> {
        let limit = usize::try_from(self.request.limit).unwrap_or(usize::MAX);
        let revisions = selection.revisions(&self.request);
        let kvs: Vec<Bytes> = if revisions.is_empty() {
            selection.answer(&self.request, Vec::new())?.kvs
        } else {
            let mut bytes = 0;
            let mut fits = |len: u32| {
                let fits = bytes <= 2 * self.target_bytes;
                bytes += len as usize;
                fits
            };
            let lens = selection.lens().iter().take(limit);
            let keys = lens.take_while(|&&len| fits(len)).count().next_multiple_of(BATCH);
            let records = self.core.fetch(&revisions[..keys.min(limit).min(revisions.len())])?;
            records.into_iter().map(|record| self.trim(record.bytes)).collect::<Result<_, _>>()?
        };
        let bytes = kvs.iter().map(kv_bytes).sum();
        Ok((kvs, bytes))
    }

    fn trim(&self, record: Bytes) -> Result<Bytes, Error> {
        if !self.request.keys_only {
            return Ok(record);
        }
        let kv = Kv::of(Revision::default(), &record)?;
        Ok(Kv { value: &[], ..kv }.encode())
    }

    fn rest(&self) -> Keys<'_> {
        range::keys(&self.request)
    }

    fn last(&self, reply: RangeReply) -> Chunk {
        Chunk { reply, last: Some(self.header_revision) }
    }

    /// Sets the limit of the next chunk by the size of this one.
    fn adjust(&mut self, bytes: usize) {
        let limit = self.request.limit;
        let limit = match bytes {
            _ if bytes < self.target_bytes / 2 => limit.saturating_mul(2),
            _ if bytes > self.target_bytes.saturating_mul(2) => limit / 2,
            _ => limit,
        };
        self.request.limit = limit.max(1).min(self.remaining);
    }
}

fn kv_bytes(kv: &Bytes) -> usize {
    1 + varint_len(kv.len() as u64) + kv.len()
}

/// What the message that etcd measures holds beside the keys: header with revision, more, count.
fn reply_overhead(revision: i64, counted: usize) -> usize {
    let header = 1 + varint_len(revision as u64);
    (1 + 1 + header) + 2 + (1 + varint_len(counted as u64))
}
