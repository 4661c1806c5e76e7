//! HashKV, byte for byte etcd's.
//!
//! ```text
//! "key", then for each record up to the revision that is kept: its 17 or 18 bytes of name, its bytes
//! ```
//! etcd hashes what lies in its database, where compacted records vanish some time after the compaction.
//! Here a record that the floor makes unreadable counts as gone at once, whether it was pruned or not: so
//! the hash is that of an etcd whose compaction is complete.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::error::Error;
use crate::index::{Keys, Tree};
use crate::pins::Pin;
use crate::record::{Record, Revision};
use crate::shared::Core;

/// Hashes of compactions that are kept.
const KEPT_MAX: usize = 10;
/// Records between two questions whether to go on.
const ASK_RECORDS: usize = 1024;

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

/// The hashes of the newest compactions, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Hashes(Vec<KvHash>);

impl Hashes {
    pub(crate) fn all(&self) -> &[KvHash] {
        &self.0
    }

    fn keep(&mut self, hash: KvHash) {
        self.0.push(hash);
        self.0.sort_by_key(|kept| kept.revision);
        let surplus = self.0.len().saturating_sub(KEPT_MAX);
        self.0.drain(..surplus);
    }
}

/// The hash of a compaction, still to be computed; see [`Store::compact`](crate::Store::compact).
///
/// While it lives, nothing that the compaction makes unreadable is pruned.
#[derive(Debug)]
#[must_use = "sweeping waits for it"]
pub struct HashJob {
    pub(crate) core: Arc<Core>,
    pub(crate) revision: i64,
    /// The floor before.
    pub(crate) compact_revision: i64,
    /// Whether the compaction before was complete when this one came.
    pub(crate) wanted: bool,
    pub(crate) _pin: Pin,
}

impl HashJob {
    /// Reads everything up to the compacted revision and keeps the hash for HashKV.
    ///
    /// None when etcd would keep none, as the compaction before was not complete; and when `goes_on`, asked now
    /// and then, says no.
    ///
    /// # Errors
    /// [`Error::Records`].
    pub fn run(self, goes_on: &dyn Fn() -> bool) -> Result<Option<KvHash>, Error> {
        if !self.wanted {
            return Ok(None);
        }
        let tree = self.core.shared.read().tree.clone();
        let kept = Kept::of(&tree, self.revision, self.compact_revision, Keep::Tombstone);
        drop(tree);
        let hash = self.core.hash(self.revision, self.compact_revision, &kept, goes_on)?;
        if let Some(hash) = hash {
            self.core.hashes.lock().keep(hash);
        }
        Ok(hash)
    }
}

/// What counts as kept at the revision that is hashed, when it comes to whether anything is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Keys that exist there.
    Live,
    /// Those, and a deletion of that very revision.
    Tombstone,
}

/// The records at or below the floor that are hashed, ascending.
struct Kept(Vec<Revision>);

impl Kept {
    /// Of the records at or below `floor`: those that are still the newest of their key at `revision`. If
    /// nothing at all is kept there, etcd filters nothing, and all that the floor left is hashed.
    fn of(tree: &Tree, revision: i64, floor: i64, keep: Keep) -> Self {
        let any = (keep == Keep::Tombstone && revision >= 2) || tree.count(Keys::ALL, revision) > 0;
        let mut kept = Vec::new();
        tree.visit(Keys::ALL, if any { revision } else { floor }, |_, entry| {
            if entry.main() <= floor {
                kept.push(entry.revision());
            }
            ControlFlow::Continue(())
        });
        kept.sort_unstable();
        Self(kept)
    }
}

impl Core {
    pub(crate) fn hash_kv(&self, revision: i64) -> Result<(KvHash, i64), Error> {
        let (tree, current, floor, _pin) = {
            let shared = self.shared.read();
            let (current, floor) = (shared.current, shared.floor);
            let kept = self.hashes.lock();
            if let Some(hash) = kept.all().iter().find(|kept| kept.revision == revision) {
                return Ok((*hash, current));
            }
            if revision > 0 && revision < floor {
                return Err(Error::Compacted);
            }
            if revision > current {
                return Err(Error::FutureRevision);
            }
            (shared.tree.clone(), current, floor, self.pins.pin(floor))
        };
        let revision = if revision == 0 { current } else { revision };
        let kept = Kept::of(&tree, revision, floor, Keep::Live);
        drop(tree);
        let hash = self.hash(revision, floor, &kept, &|| true)?;
        Ok((hash.expect("nothing cuts it short"), current))
    }

    /// The hash at the current revision, always computed; see [`Reader::hash_now`](crate::Reader::hash_now).
    pub(crate) fn hash_now(&self, goes_on: &dyn Fn() -> bool) -> Result<Option<KvHash>, Error> {
        let (tree, current, floor, _pin) = {
            let shared = self.shared.read();
            (shared.tree.clone(), shared.current, shared.floor, self.pins.pin(shared.floor))
        };
        let kept = Kept::of(&tree, current, floor, Keep::Live);
        drop(tree);
        self.hash(current, floor, &kept, goes_on)
    }

    fn hash(
        &self,
        revision: i64,
        compact_revision: i64,
        kept: &Kept,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Option<KvHash>, Error> {
        let (mut asked, mut ends) = (0, !goes_on());
        let mut hash = crc32c::crc32c(b"key");
        let mut kept = kept.0.iter().copied().peekable();
        let until = Revision::start_of(revision.saturating_add(1));
        self.scan(Revision::start_of(0), until, &mut |at, record| {
            asked += 1;
            if asked % ASK_RECORDS == 0 && !goes_on() {
                ends = true;
            }
            if ends {
                return ControlFlow::Break(());
            }
            while kept.next_if(|&kept| kept < at).is_some() {}
            if at.main > compact_revision || kept.peek() == Some(&at) {
                hash = crc32c::crc32c_append(hash, &name(at, &record)[..name_len(&record)]);
                hash = crc32c::crc32c_append(hash, &record.bytes);
            }
            ControlFlow::Continue(())
        })?;
        Ok((!ends).then_some(KvHash { hash, compact_revision, revision }))
    }
}

/// The key of etcd's bucket: main, `_`, sub, and `t` for a tombstone.
fn name(revision: Revision, record: &Record) -> [u8; 18] {
    let mut name = [0; 18];
    name[..8].copy_from_slice(&revision.main.to_be_bytes());
    name[8] = b'_';
    name[9..17].copy_from_slice(&revision.sub.to_be_bytes());
    name[17] = if record.tombstone { b't' } else { 0 };
    name
}

fn name_len(record: &Record) -> usize {
    if record.tombstone { 18 } else { 17 }
}
