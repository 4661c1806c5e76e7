//! The log as its one writer sees it.
//!
//! ```text
//! save ──> frames in one buffer ──> one write ──> fdatasync if needed ──> at segment_bytes: cut
//! cut: truncate, sync ──> head of 0.tmp, sync ──> rename to the next name, sync the directory
//! ```
//! Invariants:
//! 1. `segments` ends with the segment that is written; all from the first open one on are locked.
//! 2. `end` bytes of it are written; behind them the file is zeros up to its length.
//! 3. After a failed write or sync nothing is ever written again.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::beside::{Next, Removal};
use crate::create;
use crate::disk::{Disk, DiskFile, RealDisk};
use crate::open::{self, Opened};
use crate::record::Encoder;
use crate::segment::Name;
use crate::{Entry, EntryKind, Error, HardState, SnapshotMark, Times};

/// Length a segment is made with, and from which on it is closed: etcd's, not a power of two.
pub const SEGMENT_BYTES: u64 = 64_000_000;

/// States that need no sync are kept in memory up to this length.
const UNSYNCED_BYTES_MAX: usize = 64 << 10;

/// The write buffer keeps its memory up to this size.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// Name of the next segment until it is used.
const NEXT_NAME: &str = "0.tmp";

/// The other name that etcd gives a segment not used yet.
const ETCD_NEXT_NAME: &str = "1.tmp";

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
    /// Reserve the next segment and remove old ones on threads beside, so that no write waits for
    /// them. Off by default, so that the disk's operations have one order.
    pub beside: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES, wait_for_lock: false, sync: true, beside: false }
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

/// One file of the log.
#[derive(Debug)]
pub(crate) struct Segment<F> {
    pub(crate) name: Name,
    pub(crate) path: PathBuf,
    /// Open and locked, unless it was older than the mark the log was opened at.
    pub(crate) file: Option<F>,
}

/// An open log, the only writer of its directory. Dropping it without [`Self::close`] is what a
/// crash does.
pub struct Wal<D: Disk = RealDisk> {
    disk: D,
    dir: PathBuf,
    options: Options,
    metadata: Bytes,
    segments: VecDeque<Segment<D::File>>,
    end: u64,
    encoder: Encoder,
    /// Last state given to the encoder.
    state: HardState,
    /// Commit index of the last state that is durable.
    durable_commit: u64,
    /// Indexes of the marks that are durable.
    marks: Vec<u64>,
    last_index: u64,
    appended_bytes: u64,
    times: Times,
    next: Next<D::File>,
    removal: Removal,
    poisoned: bool,
}

impl<D: Disk> std::fmt::Debug for Wal<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal")
            .field("dir", &self.dir)
            .field("end", &self.end)
            .field("state", &self.state)
            .field("last_index", &self.last_index)
            .finish_non_exhaustive()
    }
}

impl<D: Disk> Wal<D> {
    /// Makes a new log in `dir`, which must not hold one; `metadata` stands at the head of every
    /// segment. The log appears at once and whole: it is built as `<dir>.tmp` and renamed.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Locked`] if somebody else is making it, [`Error::Io`].
    pub fn create(disk: D, dir: &Path, metadata: &[u8], options: &Options) -> Result<Self, Error> {
        if exists(&disk, dir)? {
            return Err(Error::Exists { dir: dir.into() });
        }
        let mut encoder = Encoder::default();
        encoder.segment_head(metadata);
        encoder.snapshot(&SnapshotMark::default());
        let first = create::first_segment(&disk, dir, &encoder.buf, options)?;
        let mut wal = Self {
            disk,
            dir: dir.into(),
            options: *options,
            metadata: Bytes::copy_from_slice(metadata),
            segments: VecDeque::from([first]),
            end: encoder.buf.len() as u64,
            appended_bytes: encoder.buf.len() as u64,
            encoder,
            state: HardState::default(),
            durable_commit: 0,
            marks: vec![0],
            last_index: 0,
            times: Times::default(),
            next: Next::Missing,
            removal: Removal::default(),
            poisoned: false,
        };
        wal.encoder.buf.clear();
        wal.reserve_for_later();
        Ok(wal)
    }

    /// Opens the log in `dir` to append, and reads what follows the snapshot mark `at`
    /// (`SnapshotMark::default()` reads a log from its beginning). `at` must be in the log: one of
    /// [`valid_snapshots`](crate::valid_snapshots); its `conf_state` is not looked at.
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
        let Opened { contents, segments, end, bytes, last_index } =
            open::open(&disk, dir, at, options)?;
        let mut wal = Self {
            disk,
            dir: dir.into(),
            options: *options,
            metadata: contents.metadata.clone(),
            segments: segments.into(),
            end: end.offset,
            appended_bytes: bytes,
            encoder: Encoder { crc: end.crc, buf: Vec::new() },
            state: contents.hard_state,
            durable_commit: contents.hard_state.commit,
            marks: contents.snapshots.iter().map(|mark| mark.index).collect(),
            last_index,
            times: Times::default(),
            next: Next::Missing,
            removal: Removal::default(),
            poisoned: false,
        };
        // Left by etcd; a wrong guess costs disk space only.
        let _ = wal.disk.remove(&dir.join(ETCD_NEXT_NAME));
        wal.reserve_for_later();
        Ok((wal, contents))
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
    /// If `entries` have a hole, do not follow the log, replace a committed one, have term or index
    /// 0, or change the configuration without saying how.
    pub fn save(
        &mut self,
        hard_state: Option<&HardState>,
        entries: &[Entry],
        must_sync: bool,
    ) -> Result<(), Error> {
        self.check_usable()?;
        self.append_entries(entries);
        let mut sync = must_sync || !entries.is_empty();
        if let Some(state) = hard_state.filter(|state| !state.is_empty()) {
            sync |= state.term != self.state.term || state.vote != self.state.vote;
            self.encoder.state(state);
            self.state = *state;
        }
        self.finish(sync)
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
        assert!(mark.index == 0 || mark.conf_state.is_some(), "mark {} has no members", mark.index);
        self.check_usable()?;
        self.encoder.snapshot(mark);
        self.last_index = self.last_index.max(mark.index);
        // No cut here, as in etcd: the next save does it.
        self.guard(Self::write_and_sync)?;
        self.marks.push(mark.index);
        Ok(())
    }

    /// Removes the segments that are not needed to open at the newest valid durable snapshot mark
    /// at or below `index`; without such a mark nothing happens, nor while those of an earlier call
    /// are still being removed. Returns what goes, now or [beside](Options::beside).
    ///
    /// # Errors
    /// [`Error::Io`], of this call or of an earlier one; the log stays usable.
    pub fn release_to(&mut self, index: u64) -> Result<Vec<PathBuf>, Error> {
        let valid = index.min(self.durable_commit);
        let Some(mark) = self.marks.iter().copied().filter(|&mark| mark <= valid).max() else {
            return Ok(Vec::new());
        };
        if !self.removal.is_free()? {
            return Ok(Vec::new());
        }
        let needed = self.segments.iter().rposition(|segment| segment.name.index <= mark);
        let gone: Vec<_> = self.segments.drain(..needed.unwrap_or(0)).collect();
        self.marks.retain(|&known| known >= mark);
        let removed: Vec<_> = gone.iter().map(|segment| segment.path.clone()).collect();
        if !gone.is_empty() {
            self.removal.begin(&self.disk, self.dir.clone(), gone, &self.options)?;
        }
        Ok(removed)
    }

    /// Writes and syncs what is still in memory; the end of an orderly shutdown.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn close(mut self) -> Result<(), Error> {
        self.check_usable()?;
        self.guard(Self::write_and_sync)?;
        self.removal.wait()?;
        // What it could not reserve is not missed any more.
        let _ = self.next.wait();
        if self.next.take().is_some() {
            let next = self.dir.join(NEXT_NAME);
            self.disk.remove(&next).map_err(|error| Error::io("remove", next, error))?;
        }
        Ok(())
    }

    /// Reserves the space of the next segment, if it is not yet and nobody is at it. Begun by itself
    /// when the log is opened and after each new segment; a failure then is reported by the first
    /// call of this that comes after it, as there is room left in the current segment.
    ///
    /// # Errors
    /// [`Error::Io`]; the log stays usable.
    pub fn reserve_next(&mut self) -> Result<(), Error> {
        self.next.reserve(&self.disk, self.dir.join(NEXT_NAME), &self.options)
    }

    /// Whether the log can go on into its next segment on a full disk.
    #[must_use]
    pub fn next_is_reserved(&self) -> bool {
        self.next.is_ready()
    }

    /// Puts into `times` how long each write and sync since the last call of this took; of very many, the first
    /// ones.
    pub fn take_times(&mut self, times: &mut Times) {
        times.writes.clear();
        times.syncs.clear();
        std::mem::swap(times, &mut self.times);
    }

    /// Bytes of log read at [`Self::open`] plus those appended since; only differences have a
    /// meaning. The measure for "a checkpoint every so many bytes of log".
    #[must_use]
    pub fn appended_bytes(&self) -> u64 {
        self.appended_bytes + self.encoder.buf.len() as u64
    }

    /// Index of the last entry (or snapshot) saved.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    /// As given to [`Self::create`].
    #[must_use]
    pub fn metadata(&self) -> &Bytes {
        &self.metadata
    }

    fn append_entries(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let (commit, last) = (self.state.commit, self.last_index);
        assert!(first.index > commit, "entry {} replaces a committed one ({commit})", first.index);
        assert!(first.index <= last + 1, "entry {} does not follow the log ({last})", first.index);
        self.last_index = first.index - 1;
        for entry in entries {
            let (index, last) = (entry.index, self.last_index);
            assert!(index == last + 1 && entry.term > 0, "entry {index} of {entry:?} after {last}");
            assert!(
                entry.kind == EntryKind::Normal || !entry.data.is_empty(),
                "entry {index} changes the configuration without saying how"
            );
            self.encoder.entry(entry);
            self.last_index = index;
        }
    }

    fn check_usable(&self) -> Result<(), Error> {
        if self.poisoned { Err(Error::Poisoned { path: self.tail_path() }) } else { Ok(()) }
    }

    /// Does something to the disk that leaves it unsure if it fails.
    fn guard(&mut self, step: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        let done = step(self);
        self.poisoned |= done.is_err();
        done
    }

    fn finish(&mut self, sync: bool) -> Result<(), Error> {
        let waiting = self.encoder.buf.len();
        if self.end + waiting as u64 >= self.options.segment_bytes {
            self.guard(Self::cut)?;
            self.reserve_for_later();
            Ok(())
        } else if sync {
            self.guard(Self::write_and_sync)
        } else if waiting > UNSYNCED_BYTES_MAX {
            self.guard(Self::write)
        } else {
            Ok(())
        }
    }

    fn tail(&self) -> (&Path, &D::File) {
        tail_of(&self.segments)
    }

    fn tail_path(&self) -> PathBuf {
        self.tail().0.into()
    }

    /// Hands the buffer to the system.
    fn write(&mut self) -> Result<(), Error> {
        if self.encoder.buf.is_empty() {
            return Ok(());
        }
        let (path, file) = tail_of(&self.segments);
        let bytes = &self.encoder.buf;
        let written = Times::note(&mut self.times.writes, || file.write_at(self.end, bytes));
        written.map_err(|error| Error::io("write", path, error))?;
        let bytes = self.encoder.buf.len() as u64;
        self.end += bytes;
        self.appended_bytes += bytes;
        self.encoder.buf.clear();
        self.encoder.buf.shrink_to(BUFFER_BYTES_MAX);
        Ok(())
    }

    fn write_and_sync(&mut self) -> Result<(), Error> {
        self.write()?;
        if self.options.sync {
            let (path, file) = tail_of(&self.segments);
            let synced = Times::note(&mut self.times.syncs, || file.sync_data());
            synced.map_err(|error| Error::io("sync", path, error))?;
        }
        self.durable_commit = self.state.commit;
        Ok(())
    }

    /// Closes the segment behind what is in the buffer and starts the next one.
    fn cut(&mut self) -> Result<(), Error> {
        self.write()?;
        let (path, file) = self.tail();
        file.set_len(self.end).map_err(|error| Error::io("truncate", path, error))?;
        self.write_and_sync()?;
        let waited = self.next.wait();
        if waited.is_err() || !self.next.is_ready() {
            self.reserve_next()?;
        }
        let next = self.next.take().expect("just reserved");
        let tail = self.segments.back().expect("a log has a segment");
        let name = Name { seq: tail.name.seq + 1, index: self.last_index + 1 };
        let (from, path) = (self.dir.join(NEXT_NAME), name.path(&self.dir));
        self.encoder.segment_head(&self.metadata);
        if !self.state.is_empty() {
            self.encoder.state(&self.state);
        }
        let (head, times) = (&self.encoder.buf, &mut self.times);
        let written = Times::note(&mut times.writes, || next.write_at(0, head));
        written.map_err(|error| Error::io("write", &from, error))?;
        if self.options.sync {
            let synced = Times::note(&mut times.syncs, || next.sync_data());
            synced.map_err(|error| Error::io("sync", &from, error))?;
        }
        let renamed = self.disk.rename(&from, &path);
        renamed.map_err(|error| Error::io("rename", &from, error))?;
        if self.options.sync {
            let synced = Times::note(&mut times.syncs, || self.disk.sync_dir(&self.dir));
            synced.map_err(|error| Error::io("sync", &self.dir, error))?;
        }
        self.end = head.len() as u64;
        self.appended_bytes += self.end;
        self.encoder.buf.clear();
        self.segments.push_back(Segment { name, path, file: Some(next) });
        Ok(())
    }

    fn reserve_for_later(&mut self) {
        self.next.begin(&self.disk, self.dir.join(NEXT_NAME), &self.options);
    }
}

/// The segment that is written.
fn tail_of<F>(segments: &VecDeque<Segment<F>>) -> (&Path, &F) {
    let tail = segments.back().expect("a log has a segment");
    (&tail.path, tail.file.as_ref().expect("the last segment is open"))
}

/// Whether `dir` holds a log.
///
/// # Errors
/// [`Error::Io`]; a directory that is not there is no error.
pub fn exists<D: Disk>(disk: &D, dir: &Path) -> Result<bool, Error> {
    match disk.list(dir) {
        Ok(names) => Ok(names.iter().any(|name| name.ends_with(".wal"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("list", dir, error)),
    }
}
