//! What the API refuses before anything is proposed: pure functions on requests.
//!
//! Apply does not repeat these checks: it takes whatever stands in the log, as etcd's does.

use etched_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest};

use crate::error::Error;

/// # Errors
/// [`Error::EmptyKey`], [`Error::InvalidSortOption`].
pub fn range(request: &RangeRequest) -> Result<(), Error> {
    todo!()
}

/// # Errors
/// Those of [`range`], [`Error::StreamSorted`], [`Error::StreamFiltered`].
pub fn range_stream(request: &RangeRequest) -> Result<(), Error> {
    todo!()
}

/// # Errors
/// [`Error::EmptyKey`], [`Error::ValueProvided`], [`Error::LeaseProvided`].
pub fn put(request: &PutRequest) -> Result<(), Error> {
    todo!()
}

/// # Errors
/// [`Error::EmptyKey`].
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), Error> {
    todo!()
}

/// # Errors
/// [`Error::TooManyOperations`], [`Error::EmptyKey`], those of each operation, [`Error::KeyNotFound`] for an empty
/// operation and for a put that would crash etcd (see [`Error::KeptKeyDeleted`]), [`Error::DuplicateKey`].
pub fn txn(request: &TxnRequest, max_ops: usize) -> Result<(), Error> {
    todo!()
}

/// Whether the transaction is answered without being proposed: every operation of both branches is a
/// plain range.
pub fn is_read_only(request: &TxnRequest) -> bool {
    todo!()
}

/// Whether a read-only transaction asks for no linearizable read: every range is serializable.
pub fn is_serializable(request: &TxnRequest) -> bool {
    todo!()
}
