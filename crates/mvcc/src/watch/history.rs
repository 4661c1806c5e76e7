//! What the hub reads of the store.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::record::{Record, RecordsError, Revision};

/// The store's past, as unsynced watchers and `prev_kv` need it.
///
/// Called from the catch-up thread without any lock of the hub, and from
/// [`Hub::notify`](super::Hub::notify) (only [`History::kv_at`]) under it: an implementation must not call back into
/// the hub. It must already show everything that was notified.
pub trait History: Send + Sync {
    /// The last compacted revision; 0 or less when there was none.
    ///
    /// Moves before anything is removed: a scan is whole when this, read after it, is not above its start.
    fn compact_revision(&self) -> i64;

    /// Calls `visit` for each record whose main revision lies in `from..until`, in order, until it
    /// breaks. Records at exactly the compacted revision, deletions too, are among them.
    ///
    /// `visit` does not call back into the history.
    ///
    /// # Errors
    /// [`RecordsError`] when the medium fails.
    fn scan(
        &self,
        from: i64,
        until: i64,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), RecordsError>;

    /// The encoded `mvccpb.KeyValue` of `key` as it stood at main revision `revision`: none when the key
    /// was absent then, or when that revision is compacted.
    ///
    /// # Errors
    /// [`RecordsError`] when the medium fails.
    fn kv_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, RecordsError>;
}
