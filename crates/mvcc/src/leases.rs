//! What the store asks of the lessor while it applies writes.

use bytes::Bytes;

/// The lessor, as writes need it: which leases exist and which key hangs on which.
///
/// Called in the order in which etcd attaches and detaches, so that both end in the same state.
pub trait Leases {
    /// Whether a lease with this id has been granted and not revoked.
    fn exists(&self, id: i64) -> bool;

    /// The lease that `key` is attached to; 0 when there is none.
    fn lease_of(&self, key: &[u8]) -> i64;

    /// Attaches `key` to the lease `id`, which is not 0 and which the store has seen to exist, except when a
    /// put keeps the lease of a record whose lease is gone: that one is to be ignored.
    fn attach(&mut self, key: &Bytes, id: i64);

    /// Detaches `key` from the lease `id`.
    fn detach(&mut self, key: &[u8], id: i64);
}
