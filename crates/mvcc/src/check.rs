//! What the API refuses before anything is proposed: pure functions on requests.
//!
//! Apply does not repeat these checks: it takes whatever stands in the log, as etcd's does. The order of
//! the checks decides which error a request with two faults gets, and is etcd's.

use std::collections::BTreeSet;

use etched_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use etched_proto::etcdserverpb::request_op::Request;
use etched_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use crate::error::Error;
use crate::intervals::Intervals;
use crate::range::{has_revision_filters, is_default_order};
use crate::txn::keeps;

/// The form of a Range request.
///
/// # Errors
/// [`Error::EmptyKey`], [`Error::InvalidSortOption`].
pub fn range(request: &RangeRequest) -> Result<(), Error> {
    key(&request.key)?;
    let known = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(Error::InvalidSortOption) }
}

/// The form of a RangeStream request.
///
/// # Errors
/// Those of [`range`], [`Error::StreamSorted`], [`Error::StreamFiltered`].
pub fn range_stream(request: &RangeRequest) -> Result<(), Error> {
    range(request)?;
    if !is_default_order(request) {
        return Err(Error::StreamSorted);
    }
    if has_revision_filters(request) { Err(Error::StreamFiltered) } else { Ok(()) }
}

/// The form of a Put request.
///
/// # Errors
/// [`Error::EmptyKey`], [`Error::ValueProvided`], [`Error::LeaseProvided`].
pub fn put(request: &PutRequest) -> Result<(), Error> {
    key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 { Err(Error::LeaseProvided) } else { Ok(()) }
}

/// The form of a DeleteRange request.
///
/// # Errors
/// [`Error::EmptyKey`].
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), Error> {
    key(&request.key)
}

/// The form of a Txn request, nested ones included.
///
/// `max_ops` bounds the longest of compares, success and failure; a nested transaction gets what is left.
///
/// # Errors
/// [`Error::TooManyOperations`], [`Error::EmptyKey`], those of each operation, [`Error::KeyNotFound`] for an
/// empty operation, [`Error::DuplicateKey`]. Beyond etcd's: [`Error::KeyNotFound`] for a put that keeps the value
/// or lease of a key deleted before it in the same transaction, which crashes an etcd (see
/// [`Error::KeptKeyDeleted`]). A member whose store lacks the key gives that answer as well.
pub fn txn(request: &TxnRequest, max_ops: usize) -> Result<(), Error> {
    form(request, max_ops)?;
    branch(&request.success)?;
    branch(&request.failure)?;
    kept_keys(&request.success, None)?;
    kept_keys(&request.failure, None)?;
    Ok(())
}

/// Whether the transaction is answered without being proposed: every operation of both branches is a
/// plain range.
pub fn is_read_only(request: &TxnRequest) -> bool {
    all_ranges(request, |_| true)
}

/// Whether a read-only transaction asks for no linearizable read: every range is serializable.
pub fn is_serializable(request: &TxnRequest) -> bool {
    all_ranges(request, |range| range.serializable)
}

fn all_ranges(request: &TxnRequest, matches: impl Fn(&RangeRequest) -> bool) -> bool {
    request.success.iter().chain(&request.failure).all(|op| match &op.request {
        Some(Request::RequestRange(range)) => matches(range),
        _ => false,
    })
}

fn key(key: &[u8]) -> Result<(), Error> {
    if key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

fn form(request: &TxnRequest, max_ops: usize) -> Result<(), Error> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = max_ops.checked_sub(ops).ok_or(Error::TooManyOperations)?;
    request.compare.iter().try_for_each(|compare| key(&compare.key))?;
    request.success.iter().chain(&request.failure).try_for_each(|op| match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => form(request, left),
        None => Err(Error::KeyNotFound),
    })
}

/// What a branch writes, for the check of those around it.
#[derive(Default)]
struct Written<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Intervals,
}

/// Refuses a branch that writes a key twice, as far as etcd sees it.
///
/// It sees this level's deletes, then each nested transaction, then this level's puts: so a nested put that
/// a later nested delete covers passes. And it takes the end of a delete literally: a delete up to the end
/// of all keys (`\0`) covers nothing.
fn branch(ops: &[RequestOp]) -> Result<Written<'_>, Error> {
    let mut written = Written::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            match &delete.range_end[..] {
                [] => written.deletes.insert_key(&delete.key),
                end => written.deletes.insert(&delete.key, Some(end)),
            }
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            let (then, otherwise) = (branch(&nested.success)?, branch(&nested.failure)?);
            // A key of both branches is put once: only one of them runs.
            let puts: BTreeSet<&[u8]> = then.puts.union(&otherwise.puts).copied().collect();
            puts.into_iter().try_for_each(|key| written.put(key))?;
            for (from, until) in then.deletes.iter().chain(otherwise.deletes.iter()) {
                written.deletes.insert(from, until);
            }
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            written.put(&put.key)?;
        }
    }
    Ok(written)
}

impl<'a> Written<'a> {
    fn put(&mut self, key: &'a [u8]) -> Result<(), Error> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(Error::DuplicateKey);
        }
        Ok(())
    }
}

/// Refuses a put that keeps value or lease of a key that the transaction may have deleted before.
///
/// After [`branch`] only a delete without upper bound can have done that, and no put in between can have
/// brought the key back. `deleted` is the lowest key of such deletes so far; the answer is the one
/// after the branch.
fn kept_keys<'a>(
    ops: &'a [RequestOp],
    mut deleted: Option<&'a [u8]>,
) -> Result<Option<&'a [u8]>, Error> {
    let lower = |a: Option<&'a [u8]>, b: Option<&'a [u8]>| match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    for op in ops {
        match &op.request {
            Some(Request::RequestDeleteRange(delete)) if delete.range_end[..] == [0] => {
                deleted = lower(deleted, Some(&delete.key));
            }
            Some(Request::RequestPut(put))
                if keeps(put) && deleted.is_some_and(|lowest| &put.key[..] >= lowest) =>
            {
                return Err(Error::KeyNotFound);
            }
            Some(Request::RequestTxn(nested)) => {
                let then = kept_keys(&nested.success, deleted)?;
                let otherwise = kept_keys(&nested.failure, deleted)?;
                deleted = lower(then, otherwise);
            }
            _ => {}
        }
    }
    Ok(deleted)
}
