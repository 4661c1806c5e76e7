//! What a call on the store can answer instead of a result.

use crate::record::RecordsError;

/// Why a request was refused, or could not be carried out.
///
/// A refused write has changed nothing: no revision, no record, no lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The revision asked for is below the compacted one.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision asked for is above the current one.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// `ignore_value` or `ignore_lease` on a key that does not exist; an operation without content.
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// The put names a lease that does not exist.
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// A request or a compare without a key (form check).
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// `ignore_value` together with a value (form check).
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// `ignore_lease` together with a lease (form check).
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// A sort order or target that does not exist (form check).
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// More operations than the limit (form check).
    #[error("etcdserver: too many operations in txn request")]
    TooManyOperations,
    /// One key written twice in one branch (form check).
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// A stream in another order than that of the keys (form check).
    #[error("RangeStream does not support custom sort orders")]
    StreamSorted,
    /// A stream with a bound on create or mod revisions (form check).
    #[error("RangeStream does not support revision filters")]
    StreamFiltered,
    /// The branch taken has an operation without content. etcd's apply panics on it and its API refuses
    /// it, so no living cluster holds such an entry; here the transaction is refused as a whole.
    #[error("etcdserver: empty operation in txn")]
    EmptyOperation,
    /// The branch taken sorts by a target that does not exist. As with [`Error::EmptyOperation`], etcd's
    /// apply panics and its API refuses it.
    #[error("etcdserver: unknown sort target in txn")]
    UnknownSortTarget,
    /// The branch taken deletes a key and then puts it with `ignore_value` or `ignore_lease`. etcd lets
    /// that through (a delete whose range end is one zero byte escapes its duplicate check) and then
    /// panics in apply and at each restart; [`check::txn`](crate::check::txn) refuses to propose it, and apply refuses the whole
    /// transaction.
    #[error("etcdserver: txn deletes a key whose value or lease it then keeps")]
    KeptKeyDeleted,
    /// The records behind the memory table cannot be read. After this from a write the process stops:
    /// the entry is committed and cannot be applied.
    #[error(transparent)]
    Records(#[from] RecordsError),
}
