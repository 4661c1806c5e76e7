//! What is done to a data directory while no server runs on it.
//!
//! Only the store's file is looked at. After a clean stop it holds everything; after a kill, what came since its last
//! checkpoint is in the log alone, and the next start brings it back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use etched_mvcc::{KvHash, Store};
use etched_storage::{Boot, Error as StorageError, Options, Storage};

use crate::StartError;
use crate::boot::{Paths, compact_state};
use crate::how_far::{Counted, HowFar};

/// A hand on data directories that no server runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offline {
    /// How long a file in use is waited for; None is for ever.
    pub lock_timeout: Option<Duration>,
}

/// Bytes of a defragmentation that go over at once.
const STEP_BYTES: usize = 8 << 20;
/// How often a file in use is asked for again.
const RETRY: Duration = Duration::from_millis(50);

impl Offline {
    /// The hash that HashKV would answer at `revision`, 0 being the last, from the store's file at `file`. All
    /// records are read twice: for the index, and for the hash.
    ///
    /// # Errors
    /// [`StartError`]; a revision that is not there is [`StartError::Store`].
    pub fn hash_kv(
        self,
        file: &Path,
        revision: i64,
        how_far: &Arc<HowFar>,
    ) -> Result<KvHash, StartError> {
        let (storage, found) = self.open(file)?;
        how_far.set(0, 2 * found.counts.records);
        let (storage, how_far) = (Arc::new(storage), Arc::clone(how_far));
        let compact = compact_state(&storage)?;
        let (store, _) = Store::open(Arc::new(Counted { storage, how_far }), compact)?;
        Ok(store.reader().hash_kv(revision)?.0)
    }

    /// Gives the free pages of a data directory's store back to the disk.
    ///
    /// # Errors
    /// [`StartError::Storage`].
    pub fn defragment(self, data_dir: &Path, how_far: &HowFar) -> Result<(), StartError> {
        let (storage, _) = self.open(&store_file(data_dir))?;
        how_far.set(0, storage.sizes()?.live_bytes);
        let mut copy = storage.begin_defragment()?;
        while copy.step(STEP_BYTES)? {
            how_far.add(STEP_BYTES as u64);
        }
        Ok(copy.finish(|| true).map(drop)?)
    }

    fn open(self, file: &Path) -> Result<(Storage, Boot), StartError> {
        let deadline = self.lock_timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let options = Options { create: false, ..Options::default() };
            match Storage::open(file, options) {
                Err(StorageError::InUse { .. })
                    if deadline.is_none_or(|at| Instant::now() < at) =>
                {
                    std::thread::sleep(RETRY);
                }
                opened => return Ok(opened?),
            }
        }
    }
}

/// Where the store of a data directory lies.
pub fn store_file(data_dir: &Path) -> PathBuf {
    Paths::below(data_dir, None).store
}
