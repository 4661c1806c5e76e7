//! The log as its one writer sees it.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::disk::{Disk, RealDisk};
use crate::{Entry, Error, HardState, SnapshotMark};

/// Length a segment is made with, and from which on it is closed: etcd's, not a power of two.
pub const SEGMENT_BYTES: u64 = 64_000_000;

/// How the log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Length of a segment; anything but [`SEGMENT_BYTES`] is for tests.
    pub segment_bytes: u64,
    /// Wait for a log that another server holds, as long as it takes, instead of
    /// [`Error::Locked`]. A caller that wants to say so opens without first.
    pub wait_for_lock: bool,
    /// Sync what must be durable. Off (`--unsafe-no-fsync`) a power cut loses acknowledged writes.
    pub sync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, wait_for_lock: false, sync: true }
    }
}

/// What [`Wal::open`] read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// As given to [`Wal::create`]: an encoded `etcdserverpb.Metadata`.
    pub metadata: Bytes,
    /// The newest hard state, empty if none was saved.
    pub hard_state: HardState,
    /// Entries behind the snapshot, without holes and without those that were replaced. Those above
    /// `hard_state.commit` may still be replaced.
    pub entries: Vec<Entry>,
    /// All snapshot records that were read, in the order they were written.
    pub snapshots: Vec<SnapshotMark>,
    /// Set if the last segment ended in a torn write.
    pub repair: Option<Repair>,
}

/// A torn write that was cut off when the log was opened: nothing of it had been acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// The segment.
    pub path: PathBuf,
    /// Copy of the segment as it was.
    pub broken: PathBuf,
    /// Length that was kept.
    pub offset: u64,
}

/// An open log, the only writer of its directory.
#[derive(Debug)]
pub struct Wal<D: Disk = RealDisk> {
    disk: D,
}

impl<D: Disk> Wal<D> {
    /// Makes a new log in `dir`, which must not hold one; `metadata` stands at the head of every
    /// segment. The log appears at once and whole: it is built as `<dir>.tmp` and renamed.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Io`].
    pub fn create(disk: D, dir: &Path, metadata: &[u8], options: &Options) -> Result<Self, Error> {
        unimplemented!()
    }

    /// Opens the log in `dir` to append, and reads what follows the snapshot mark `at`
    /// (`SnapshotMark::default()` reads a log from its beginning). `at` must be in the log: one of
    /// [`valid_snapshots`]; its `conf_state` is not looked at.
    ///
    /// A torn write at the end is cut off, see [`Contents::repair`].
    ///
    /// # Errors
    /// Any but [`Error::Exists`] and [`Error::Poisoned`].
    pub fn open(
        disk: D,
        dir: &Path,
        at: &SnapshotMark,
        options: &Options,
    ) -> Result<(Self, Contents), Error> {
        unimplemented!()
    }

    /// Appends `entries`, then `hard_state` if it is given and not empty, as one write.
    ///
    /// On return all of it is durable if there was an entry, or the term or the vote changed, or
    /// `must_sync`; a state that only moves the commit index may stay in memory until the next write.
    /// The first entry may have an index that is there already: it and all behind it are replaced.
    ///
    /// # Errors
    /// [`Error::Io`]; then, and ever after, [`Error::Poisoned`].
    ///
    /// # Panics
    /// If `entries` have a hole, do not follow the log, or have term or index 0.
    pub fn save(
        &mut self,
        hard_state: Option<&HardState>,
        entries: &[Entry],
        must_sync: bool,
    ) -> Result<(), Error> {
        unimplemented!()
    }

    /// Appends a snapshot mark and makes everything up to it durable. The state it speaks of must
    /// be durable before. At the next start it is valid only if a hard state with
    /// `commit >= mark.index` was saved, before or behind it.
    ///
    /// # Errors
    /// As [`Self::save`].
    ///
    /// # Panics
    /// If a mark above index 0 has no conf state: etcd would refuse to write it.
    pub fn save_snapshot(&mut self, mark: &SnapshotMark) -> Result<(), Error> {
        unimplemented!()
    }

    /// Removes the segments that are not needed to open at the newest valid durable snapshot mark
    /// at or below `index`; without such a mark nothing happens. Returns what was removed.
    ///
    /// # Errors
    /// [`Error::Io`]; the log stays usable.
    pub fn release_to(&mut self, index: u64) -> Result<Vec<PathBuf>, Error> {
        unimplemented!()
    }

    /// Writes and syncs what is still in memory; the end of an orderly shutdown.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn close(self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Reserves the space of the next segment, if it is not yet. Done by itself when the log is
    /// opened and after each new segment; a failure then is not reported, as there is room left in the
    /// current segment: see [`Self::next_is_reserved`].
    ///
    /// # Errors
    /// [`Error::Io`]; the log stays usable.
    pub fn reserve_next(&mut self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Whether the log can go on into its next segment on a full disk.
    #[must_use]
    pub fn next_is_reserved(&self) -> bool {
        unimplemented!()
    }

    /// Bytes of log read at [`Self::open`] plus those appended since; only differences have a
    /// meaning. The measure for "a checkpoint every so many bytes of log".
    #[must_use]
    pub fn appended_bytes(&self) -> u64 {
        unimplemented!()
    }

    /// Index of the last entry (or snapshot) saved.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        unimplemented!()
    }

    /// As given to [`Self::create`].
    #[must_use]
    pub fn metadata(&self) -> &Bytes {
        unimplemented!()
    }
}

/// Whether `dir` holds a log.
///
/// # Errors
/// [`Error::Io`]; a directory that is not there is no error.
pub fn exists<D: Disk>(disk: &D, dir: &Path) -> Result<bool, Error> {
    unimplemented!()
}

/// The snapshot marks of the log in `dir` that were committed: index at or below the commit of the
/// newest hard state; in the order they were written. Takes no lock and changes nothing.
///
/// # Errors
/// [`Error::Io`], [`Error::NotFound`], [`Error::Damaged`] unless it is a torn end.
pub fn valid_snapshots<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<SnapshotMark>, Error> {
    unimplemented!()
}
