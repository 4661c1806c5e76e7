//! HashKV, byte for byte etcd's.

use crate::error::Error;

/// A hash over the records up to one revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvHash {
    /// CRC-32C, as etcd computes it.
    pub hash: u32,
    /// The floor that was in force; for the hash kept of a compaction, the floor before it. -1: none.
    pub compact_revision: i64,
    /// The revision that was hashed.
    pub revision: i64,
}

/// The hash of a compaction, still to be computed; see [`Store::compact`](crate::Store::compact).
#[derive(Debug)]
#[must_use = "sweeping waits for it"]
pub struct HashJob {}

impl HashJob {
    /// Reads everything up to the compacted revision and keeps the hash for HashKV.
    ///
    /// None when etcd would keep none: the compaction before was not complete.
    ///
    /// # Errors
    /// [`Error::Records`].
    pub fn run(self) -> Result<Option<KvHash>, Error> {
        todo!()
    }
}
