//! Range: which keys, in which order, how many; then their records.
//!
//! ```text
//! request ──select──> changes in the index (filtered, sorted, cut) ──fetch──> records ──> reply
//! ```
//! Selecting touches only the index, also for sorts and filters by revisions and version; only a sort by
//! value has to see the records first. What is sorted how and when the limit cuts is etcd's, oddities
//! included: see [`fetch_limit`].

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use etched_proto::etcdserverpb::RangeRequest;
use etched_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use etched_proto::raw::RangeReply;

use crate::error::Error;
use crate::index::{Entry, Keys, Tree};
use crate::kv::Kv;
use crate::large::field_len;
use crate::limit;
use crate::record::{Record, Revision};
use crate::shared::Core;

/// Keys that are selected under the lock; for more, the tree is cloned.
const PAGE_MAX: usize = limit(1024, 3);

/// The keys of an answer, before their records are there.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// In key order.
    entries: Vec<Entry>,
    /// With keys only: the encoded answers to `entries`, and where each one ends.
    encoded: (BytesMut, Vec<usize>),
    /// See [`Selection::lens`].
    lens: Option<Vec<u32>>,
    bytes: usize,
    /// Keys in the range, whatever the limit and the filters.
    count: usize,
}

/// Whether the sort is that of the index, as etcd sees it: any target without an order counts.
pub(crate) fn is_default_order(request: &RangeRequest) -> bool {
    let (order, target) = (request.sort_order, request.sort_target);
    order == SortOrder::None as i32
        || (target == SortTarget::Key as i32 && order == SortOrder::Ascend as i32)
}

pub(crate) fn has_revision_filters(request: &RangeRequest) -> bool {
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    bounds.iter().any(|&bound| bound != 0)
}

pub(crate) fn keys(request: &RangeRequest) -> Keys<'_> {
    Keys::new(&request.key, &request.range_end)
}

/// A sort target that exists: etcd panics on others, see [`Error::UnknownSortTarget`].
pub(crate) fn check_target(request: &RangeRequest) -> Result<(), Error> {
    SortTarget::try_from(request.sort_target).map(|_| ()).map_err(|_| Error::UnknownSortTarget)
}

/// Whether selecting at `revision` is quick enough to be done under the lock: a page at most, of the
/// current revision.
pub(crate) fn is_small(tree: &Tree, request: &RangeRequest, revision: i64, current: i64) -> bool {
    if matches!(keys(request), Keys::One(_)) {
        return true;
    }
    let limit = fetch_limit(request).unwrap_or(usize::MAX);
    revision == current
        && (request.count_only
            || limit <= PAGE_MAX
            || tree.count(keys(request), revision) <= PAGE_MAX)
}

/// How many keys are looked at, one more than the limit; none: all of them.
///
/// A sort or a filter looks at all. But a sort target without a sort order, although it sorts in the
/// end, does not count as a sort here: then only the first keys in key order are sorted.
fn fetch_limit(request: &RangeRequest) -> Option<usize> {
    let limit = usize::try_from(request.limit).ok().filter(|&limit| limit > 0)?;
    let all = !is_default_order(request) || has_revision_filters(request);
    (!all).then(|| limit.saturating_add(1))
}

/// Selects from the index as of `revision`; with `total`, the count is that of the whole range; without, the
/// length of each record is noted.
pub(crate) fn select(tree: &Tree, request: &RangeRequest, revision: i64, total: bool) -> Selection {
    let keys = keys(request);
    let lens = (!total).then(Vec::new);
    let mut selection = Selection { lens, ..Selection::default() };
    if request.count_only {
        selection.count = tree.count(keys, revision);
        return selection;
    }
    let limit = fetch_limit(request).unwrap_or(usize::MAX);
    tree.visit(keys, revision, |key, entry| {
        selection.count += 1;
        if passes(request, entry) {
            selection.take(request, key, entry);
        }
        if selection.count < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if total && selection.count == limit {
        selection.count = tree.count(keys, revision);
    }
    selection
}

pub(crate) fn passes(request: &RangeRequest, entry: Entry) -> bool {
    let inside = |revision: i64, min: i64, max: i64| {
        (max == 0 || revision <= max) && (min == 0 || revision >= min)
    };
    inside(entry.main(), request.min_mod_revision, request.max_mod_revision)
        && inside(entry.created(), request.min_create_revision, request.max_create_revision)
}

/// What an answer will be, before any of its records is read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measure {
    /// Keys in the answer.
    pub(crate) keys: usize,
    /// Bytes of them, as fields `kvs`. Of another order than the keys' at most that many.
    pub(crate) bytes: usize,
    pub(crate) more: bool,
    pub(crate) count: usize,
    /// The limit ended the counting.
    cut_short: bool,
}

/// Measures an answer that is not only a count.
pub(crate) fn measure(tree: &Tree, request: &RangeRequest, revision: i64) -> Measure {
    let limit = fetch_limit(request).unwrap_or(usize::MAX);
    let by_value = request.sort_target == SortTarget::Value as i32;
    let cut = if by_value { usize::MAX } else { cut(request) };
    let (mut measure, mut passing) = (Measure::default(), 0);
    let (mut all, mut largest) = (0, 0);
    tree.visit(keys(request), revision, |key, entry| {
        measure.count += 1;
        if passes(request, entry) {
            let len = field_len(kv_len(request, key, entry));
            passing += 1;
            all += len;
            largest = largest.max(len);
            if passing <= cut {
                measure.bytes += len;
            }
        }
        if measure.count < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if !is_key_order(request) {
        // Which keys stay is not known before they are sorted.
        measure.bytes = all.min(largest.saturating_mul(cut));
    }
    measure.cut_short = measure.count == limit;
    measure.keys = passing.min(cut);
    measure.more = passing > cut;
    measure
}

impl Measure {
    /// With the count of all keys in the range.
    pub(crate) fn counted(mut self, tree: &Tree, request: &RangeRequest, revision: i64) -> Self {
        if std::mem::take(&mut self.cut_short) {
            self.count = tree.count(keys(request), revision);
        }
        self
    }
}

/// Whether the keys of the answer are the first ones of the range that pass, in their order.
pub(crate) fn is_key_order(request: &RangeRequest) -> bool {
    request.sort_target == SortTarget::Key as i32 && order(request) != Some(true)
}

/// Bytes of a key's answer, without its field's head.
pub(crate) fn kv_len(request: &RangeRequest, key: &[u8], entry: Entry) -> usize {
    let tail = if is_index_only(request) { 0 } else { entry.tail() as usize };
    key_only(key, entry).encoded_len() + tail
}

/// A key's answer when only keys are wanted.
pub(crate) fn key_only(key: &[u8], entry: Entry) -> Kv<'_> {
    Kv {
        key,
        create_revision: entry.created(),
        mod_revision: entry.main(),
        version: entry.version(),
        ..Kv::default()
    }
}

/// Whether the answer comes from the index alone: it then lacks the lease, as etcd's does since 3.7.
fn is_index_only(request: &RangeRequest) -> bool {
    request.keys_only && request.sort_target != SortTarget::Value as i32
}

impl Selection {
    fn take(&mut self, request: &RangeRequest, key: &[u8], entry: Entry) {
        self.entries.push(entry);
        if is_index_only(request) {
            let (out, ends) = &mut self.encoded;
            let kv = key_only(key, entry);
            out.reserve(kv.encoded_len());
            kv.encode_into(out);
            ends.push(out.len());
            self.bytes = out.len();
            return;
        }
        let len = field_len(kv_len(request, key, entry));
        self.bytes += len;
        if let Some(lens) = &mut self.lens {
            lens.push(len as u32);
        }
    }

    /// What each record of `entries` takes in the answer; only for a part of a stream, and not when the answer
    /// is made of the index alone.
    pub(crate) fn lens(&self) -> &[u32] {
        self.lens.as_deref().unwrap_or_default()
    }

    /// Bytes of the records that were selected.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The revisions of the records that the answer needs, in the order in which [`Selection::answer`]
    /// takes them.
    pub(crate) fn revisions(&self, request: &RangeRequest) -> Vec<Revision> {
        if is_index_only(request) {
            return Vec::new();
        }
        match order(request) {
            // All of them: their values decide which ones stay.
            Some(_) if request.sort_target == SortTarget::Value as i32 => {
                self.entries.iter().map(|entry| entry.revision()).collect()
            }
            _ => self.places(request).iter().map(|&at| self.entries[at].revision()).collect(),
        }
    }

    /// The answer from the records of [`Selection::revisions`].
    pub(crate) fn answer(
        self,
        request: &RangeRequest,
        records: Vec<Record>,
    ) -> Result<RangeReply, Error> {
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let more = limit > 0 && self.entries.len() > limit;
        let count = self.count as i64;
        let kvs = if is_index_only(request) {
            self.encoded_in_order(request)
        } else if request.sort_target == SortTarget::Value as i32 {
            by_value(request, self.entries, records)?
        } else {
            records.into_iter().map(|record| record.bytes).collect()
        };
        Ok(RangeReply { header: None, kvs, more, count })
    }

    fn encoded_in_order(mut self, request: &RangeRequest) -> Vec<Bytes> {
        let places = self.places(request);
        let (encoded, ends) = std::mem::take(&mut self.encoded);
        let encoded = encoded.freeze();
        let span = |at: usize| if at == 0 { 0..ends[0] } else { ends[at - 1]..ends[at] };
        places.into_iter().map(|at| encoded.slice(span(at))).collect()
    }

    /// The places of `entries` in the order of the answer, up to the limit; not for a sort by value.
    fn places(&self, request: &RangeRequest) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.entries.len()).collect();
        let sort_by = |places: &mut Vec<usize>, field: fn(Entry) -> i64, descending: bool| {
            places.sort_by(|&a, &b| {
                let ordering = field(self.entries[a]).cmp(&field(self.entries[b]));
                if descending { ordering.reverse() } else { ordering }
            });
        };
        if let Some(descending) = order(request) {
            match SortTarget::try_from(request.sort_target) {
                Ok(SortTarget::Version) => sort_by(&mut places, Entry::version, descending),
                Ok(SortTarget::Create) => sort_by(&mut places, Entry::created, descending),
                Ok(SortTarget::Mod) => sort_by(&mut places, Entry::main, descending),
                _ if descending => places.reverse(),
                _ => {}
            }
        }
        places.truncate(cut(request));
        places
    }
}

/// Whether the answer is sorted, and then whether descending. A target but the key without an order
/// sorts ascending; an order that does not exist sorts nothing.
fn order(request: &RangeRequest) -> Option<bool> {
    match SortOrder::try_from(request.sort_order) {
        Ok(SortOrder::None) => (request.sort_target != SortTarget::Key as i32).then_some(false),
        Ok(SortOrder::Ascend) => Some(false),
        Ok(SortOrder::Descend) => Some(true),
        Err(_) => None,
    }
}

fn cut(request: &RangeRequest) -> usize {
    usize::try_from(request.limit).ok().filter(|&limit| limit > 0).unwrap_or(usize::MAX)
}

/// Sorts records by their values and cuts them; drops the values when only keys are wanted.
fn by_value(
    request: &RangeRequest,
    entries: Vec<Entry>,
    records: Vec<Record>,
) -> Result<Vec<Bytes>, Error> {
    let mut sorted: Vec<(Bytes, Bytes)> = Vec::with_capacity(records.len());
    for (record, entry) in records.into_iter().zip(entries) {
        let value = Kv::of(entry.revision(), &record.bytes)?.value;
        sorted.push((record.bytes.slice_ref(value), record.bytes));
    }
    match order(request) {
        Some(true) => sorted.sort_by(|a, b| b.0.cmp(&a.0)),
        Some(false) => sorted.sort_by(|a, b| a.0.cmp(&b.0)),
        None => {}
    }
    sorted.truncate(cut(request));
    let kept = sorted.into_iter().map(|(_, bytes)| bytes);
    if request.keys_only {
        kept.map(|bytes| without_value(&bytes)).collect()
    } else {
        Ok(kept.collect())
    }
}

fn without_value(bytes: &Bytes) -> Result<Bytes, Error> {
    let kv = Kv::of(Revision::default(), bytes)?;
    Ok(Kv { value: &[], ..kv }.encode())
}

impl Core {
    /// Answers a selection made of a tree that a pin, or the writer itself, keeps readable.
    pub(crate) fn answer(
        &self,
        request: &RangeRequest,
        selection: Selection,
    ) -> Result<RangeReply, Error> {
        let records = self.fetch(&selection.revisions(request))?;
        selection.answer(request, records)
    }
}
