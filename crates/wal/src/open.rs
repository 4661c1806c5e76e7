//! Opening a log: which segments, under which locks, what they hold, and where to go on writing.
//!
//! ```text
//! list ──> newest segment with index <= mark ──> lock it and all behind it ──> read, chained by checksum
//!                                                                                 │
//!       sync, Wal  <── zero what lies behind the end <── cut a torn write off  <──┘
//! ```
//! Invariant: on success everything that was read is durable: a process that was killed leaves
//! writes in the page cache that no sync has covered yet, and they are acted upon from here on.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::create;
use crate::disk::{Disk, DiskFile, Open};
use crate::segment::{self, Name, Reader, Record, Step};
use crate::tail::{self, Rest};
use crate::wal::{Contents, Options, Repair, Segment};
use crate::{Damage, Entry, EntryKind, Error, HardState, SnapshotMark};

/// How often the segments are listed anew when one of them vanishes in between.
const LISTINGS_MAX: u32 = 8;

/// Copied at once when a torn segment is set aside.
const COPY_BYTES: usize = 1 << 20;

/// A log that was read, with its segments locked.
pub(crate) struct Opened<F> {
    pub(crate) contents: Contents,
    /// Oldest first; those before the mark's are neither open nor locked.
    pub(crate) segments: Vec<Segment<F>>,
    /// Where to go on writing, in the last segment.
    pub(crate) end: End,
    /// Bytes of log that were read.
    pub(crate) bytes: u64,
    pub(crate) last_index: u64,
}

/// End of what a segment holds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct End {
    pub(crate) offset: u64,
    /// Checksum of the log up to there.
    pub(crate) crc: u32,
    /// Whether something else than zeros lies behind.
    dirty: bool,
}

pub(crate) fn open<D: Disk>(
    disk: &D,
    dir: &Path,
    at: &SnapshotMark,
    options: &Options,
) -> Result<Opened<D::File>, Error> {
    let segments = lock_segments(disk, dir, at.index, options.wait_for_lock)?;
    let opened = read_segments(disk, dir, segments, Replay::new(at, TornEnd::Repaired))?;
    let tail = opened.segments.last().expect("a log has a segment");
    let file = tail.file.as_ref().expect("the last segment is always opened");
    prepare_tail(file, opened.end, options)
        .map_err(|error| Error::io("prepare", &tail.path, error))?;
    if options.sync {
        // The parent too: a creation that was killed may have left its rename without a sync.
        for dir in [dir, create::parent(dir)] {
            disk.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
        }
    }
    Ok(opened)
}

/// What [`Wal::open`](crate::Wal::open) would read, and fail with, in a log that stays as it is: a torn write at
/// the end is left out and not cut off. Holds the locks while it reads. Normal entries up to `known` come without their
/// data, so that only what lies behind takes memory.
///
/// # Errors
/// As [`Wal::open`](crate::Wal::open).
pub fn read<D: Disk>(
    disk: &D,
    dir: &Path,
    at: &SnapshotMark,
    known: u64,
) -> Result<Contents, Error> {
    let segments = lock_segments(disk, dir, at.index, false)?;
    let replay = Replay { known, ..Replay::new(at, TornEnd::Left) };
    Ok(read_segments(disk, dir, segments, replay)?.contents)
}

/// What becomes of a torn write at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TornEnd {
    Repaired,
    Left,
}

fn read_segments<D: Disk>(
    disk: &D,
    dir: &Path,
    segments: Vec<Segment<D::File>>,
    mut replay: Replay<'_>,
) -> Result<Opened<D::File>, Error> {
    let (mut end, mut bytes) = (None, 0);
    let last = segments.len() - 1;
    for (position, segment) in segments.iter().enumerate() {
        let Some(file) = &segment.file else { continue };
        let crc = end.map(|end: End| end.crc);
        let here = replay.segment(disk, segment, file, crc, position == last)?;
        bytes += here.offset;
        end = Some(here);
    }
    if !replay.matched {
        return Err(Error::SnapshotNotFound { dir: dir.into(), index: replay.at.index });
    }
    let tail = &segments[last];
    let end = end.expect("the last segment was read");
    let (contents, last_index) = replay.finish().map_err(|damage| Error::Damaged {
        path: tail.path.clone(),
        offset: end.offset,
        damage,
    })?;
    Ok(Opened { contents, segments, end, bytes, last_index })
}

/// Leaves nothing behind the end that a later record could run into, and the segment's space
/// reserved. Makes durable what was read.
fn prepare_tail(file: &impl DiskFile, end: End, options: &Options) -> io::Result<()> {
    if end.dirty {
        file.set_len(end.offset)?;
    }
    create::allocate(file, options)?;
    if options.sync { file.sync_data() } else { Ok(()) }
}

/// The snapshot marks of the log in `dir` that were committed: index at or below the commit of the
/// newest hard state; in the order they were written. Takes no lock and changes nothing.
///
/// To be called before [`Wal::open`](crate::Wal::open), not beside it: closing a file gives up the
/// record locks that this process has on it (the ones that etcd heeds).
///
/// # Errors
/// [`Error::Io`], [`Error::NotFound`], [`Error::Damaged`] unless it is a torn end.
pub fn valid_snapshots<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<SnapshotMark>, Error> {
    let names = listed(disk, dir)?;
    // Segments in front of a hole are left over from a removal that a crash interrupted.
    let first = (1..names.len()).rev().find(|&i| names[i].seq != names[i - 1].seq + 1);
    let names = &names[first.unwrap_or(0)..];
    let (mut marks, mut state, mut crc) = (Vec::new(), HardState::default(), None);
    for (position, name) in names.iter().enumerate() {
        let path = name.path(dir);
        let failed = |error| Error::io("read", &path, error);
        let file = disk.open(&path, Open::Read).map_err(failed)?;
        let mut reader = Reader::new(&file, crc).map_err(failed)?;
        loop {
            match reader.next().map_err(failed)? {
                Step::Record { record: Record::Snapshot(mark), .. } => marks.push(mark),
                Step::Record { record: Record::State(newer), .. } => state = newer,
                Step::Record { .. } => {}
                Step::End => break,
                Step::Bad { torn: true, .. } if position == names.len() - 1 => break,
                Step::Bad { damage, .. } => {
                    return Err(Error::Damaged { path, offset: reader.offset, damage });
                }
            }
        }
        crc = reader.crc;
    }
    marks.retain(|mark| mark.index <= state.commit);
    Ok(marks)
}

/// Makes what [`valid_snapshots`] has read survive a power cut, which a process that was killed may not have come to: for who
/// acts on a mark before the log is opened. To be called when that is.
///
/// # Errors
/// [`Error::Io`], [`Error::NotFound`].
pub fn make_durable<D: Disk>(disk: &D, dir: &Path) -> Result<(), Error> {
    for name in listed(disk, dir)? {
        let path = name.path(dir);
        let file =
            disk.open(&path, Open::Write).map_err(|error| Error::io("open", &path, error))?;
        file.sync_data().map_err(|error| Error::io("sync", &path, error))?;
    }
    disk.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))
}

fn listed<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<Name>, Error> {
    let names = segment::list(disk, dir)?;
    if names.is_empty() { Err(Error::NotFound { dir: dir.into() }) } else { Ok(names) }
}

/// Opens and locks every segment that can hold what follows `index`.
fn lock_segments<D: Disk>(
    disk: &D,
    dir: &Path,
    index: u64,
    wait: bool,
) -> Result<Vec<Segment<D::File>>, Error> {
    let mut listings = 0;
    'listing: loop {
        listings += 1;
        let mut segments = select(&listed(disk, dir)?, dir, index)?;
        for (segment, needed) in &mut segments {
            if !*needed {
                continue;
            }
            let file = match disk.open(&segment.path, Open::Write) {
                Ok(file) => file,
                // The holder may remove old segments any time.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && listings < LISTINGS_MAX =>
                {
                    continue 'listing;
                }
                Err(error) => return Err(Error::io("open", &segment.path, error)),
            };
            let failed = |error| Error::io("lock", &segment.path, error);
            if !file.try_lock().map_err(failed)? {
                if !wait {
                    return Err(Error::Locked { path: segment.path.clone() });
                }
                file.lock().map_err(failed)?;
                // The holder went on writing until now.
                listings = 0;
                continue 'listing;
            }
            segment.file = Some(file);
        }
        return Ok(segments.into_iter().map(|(segment, _)| segment).collect());
    }
}

/// All segments, not open yet, and which of them are to be read.
fn select<F>(names: &[Name], dir: &Path, index: u64) -> Result<Vec<(Segment<F>, bool)>, Error> {
    let first = names
        .iter()
        .rposition(|name| name.index <= index)
        .ok_or_else(|| Error::NoSegmentFor { dir: dir.into(), index })?;
    for pair in names[first..].windows(2) {
        let expected = pair[0].seq + 1;
        if pair[1].seq != expected {
            return Err(Error::MissingSegment { path: pair[1].path(dir), missing: expected });
        }
    }
    let segment = |name: &Name| Segment { name: *name, path: name.path(dir), file: None };
    Ok(names.iter().enumerate().map(|(i, name)| (segment(name), i >= first)).collect())
}

/// Collects what the records say.
struct Replay<'a> {
    at: &'a SnapshotMark,
    torn_end: TornEnd,
    /// Up to here the data of normal entries is of no use.
    known: u64,
    matched: bool,
    /// Term of the entry at the mark's index, if it was read.
    term_at_mark: Option<u64>,
    contents: Contents,
    last_index: u64,
}

impl<'a> Replay<'a> {
    fn new(at: &'a SnapshotMark, torn_end: TornEnd) -> Self {
        let contents = Contents::default();
        let (known, matched, term_at_mark, last_index) = (0, false, None, 0);
        Self { at, torn_end, known, matched, term_at_mark, contents, last_index }
    }

    /// Reads one segment, chained to `crc` if one before it was read.
    fn segment<D: Disk>(
        &mut self,
        disk: &D,
        segment: &Segment<D::File>,
        file: &D::File,
        crc: Option<u32>,
        last: bool,
    ) -> Result<End, Error> {
        let path = &segment.path;
        let failed = |error| Error::io("read", path, error);
        let damaged = |offset, damage| Error::Damaged { path: path.clone(), offset, damage };
        let mut reader = Reader::new(file, crc).map_err(failed)?;
        let stop = loop {
            match reader.next().map_err(failed)? {
                Step::Record { offset, record } => self.record(path, offset, record)?,
                Step::End => break None,
                Step::Bad { damage, torn } if torn && last => break Some(damage),
                Step::Bad { damage, .. } => return Err(damaged(reader.offset, damage)),
            }
        };
        let mut end =
            End { offset: reader.offset, crc: reader.crc.unwrap_or_default(), dirty: false };
        if !last {
            return Ok(end);
        }
        match tail::rest(file, end.offset).map_err(failed)? {
            Rest::Synced { later } => {
                let first = Box::new(stop.unwrap_or(Damage::Zeros));
                return Err(damaged(end.offset, Damage::BeforeSynced { first, later }));
            }
            Rest::Zeros => {}
            Rest::Unsynced => end.dirty = true,
        }
        if stop.is_some() && self.torn_end == TornEnd::Repaired {
            self.contents.repair = Some(repair(disk, path, file, end.offset)?);
            end.dirty = false;
        }
        Ok(end)
    }

    fn record(&mut self, path: &Path, offset: u64, record: Record) -> Result<(), Error> {
        match record {
            Record::Entry(entry) => {
                return self.entry(entry).map_err(|damage| Error::Damaged {
                    path: path.into(),
                    offset,
                    damage,
                });
            }
            Record::State(state) => self.contents.hard_state = state,
            Record::Snapshot(mark) => {
                if mark.index == self.at.index {
                    if mark.term != self.at.term {
                        return Err(Error::SnapshotMismatch {
                            path: path.into(),
                            offset,
                            index: mark.index,
                            expected: self.at.term,
                            found: mark.term,
                        });
                    }
                    self.reached();
                }
                self.last_index = self.last_index.max(mark.index);
                self.contents.snapshots.push(mark);
            }
            Record::Metadata(metadata) => {
                let known = &mut self.contents.metadata;
                if !known.is_empty() && *known != metadata {
                    let damage = Damage::MetadataConflict;
                    return Err(Error::Damaged { path: path.into(), offset, damage });
                }
                // Not a slice of the chunk that was read: it lives as long as the log.
                *known = Bytes::copy_from_slice(&metadata);
            }
        }
        Ok(())
    }

    /// An entry takes the place of the one with its index and of all behind that.
    fn entry(&mut self, mut entry: Entry) -> Result<(), Damage> {
        self.last_index = entry.index;
        let entries = &mut self.contents.entries;
        let Some(position) = entry.index.checked_sub(self.at.index + 1) else {
            entries.clear();
            self.term_at_mark = (entry.index == self.at.index).then_some(entry.term);
            return Ok(());
        };
        if position > entries.len() as u64 {
            let last = self.at.index + entries.len() as u64;
            return Err(Damage::EntryGap { last, found: entry.index });
        }
        entries.truncate(position as usize);
        // Not held against the mark's term: this one may be replaced by an older index yet to come.
        if let Some(before) = entries.last().filter(|before| before.term > entry.term) {
            let (index, before) = (entry.index, before.term);
            return Err(Damage::TermBack { index, found: entry.term, before });
        }
        if entry.index <= self.known {
            // Not a slice of the chunk that was read, which would be kept whole.
            entry.data = match entry.kind {
                EntryKind::Normal => Bytes::new(),
                EntryKind::ConfChange | EntryKind::ConfChangeV2 => {
                    Bytes::copy_from_slice(&entry.data)
                }
            };
        }
        entries.push(entry);
        Ok(())
    }

    /// The mark that reading starts behind.
    fn reached(&mut self) {
        self.matched = true;
        // A mark whose entry the log never had, or had of another term, came from a leader: it
        // replaced the whole log.
        if self.at.index > 0 && self.term_at_mark != Some(self.at.term) {
            self.contents.entries.clear();
        }
        self.term_at_mark = Some(self.at.term);
    }

    fn finish(self) -> Result<(Contents, u64), Damage> {
        if let Some(first) = self.contents.entries.first()
            && first.term < self.at.term
        {
            let (index, found, before) = (first.index, first.term, self.at.term);
            return Err(Damage::TermBack { index, found, before });
        }
        Ok((self.contents, self.last_index))
    }
}

/// Sets a copy of the segment aside as `<name>.broken` and cuts the segment at `offset`.
fn repair<D: Disk>(disk: &D, path: &Path, file: &D::File, offset: u64) -> Result<Repair, Error> {
    let mut broken = path.as_os_str().to_owned();
    broken.push(".broken");
    let broken = PathBuf::from(broken);
    let copied = disk.open(&broken, Open::Create).and_then(|copy| copy_file(file, &copy));
    copied.map_err(|error| Error::io("write", &broken, error))?;
    if let Some(dir) = path.parent() {
        disk.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
    }
    let cut = file.set_len(offset).and_then(|()| file.sync_data());
    cut.map_err(|error| Error::io("cut", path, error))?;
    Ok(Repair { path: path.into(), broken, offset })
}

fn copy_file(from: &impl DiskFile, to: &impl DiskFile) -> io::Result<()> {
    let mut chunk = vec![0; COPY_BYTES];
    let mut offset = 0;
    loop {
        let read = from.read_at(offset, &mut chunk)?;
        if read == 0 {
            return to.sync_data();
        }
        to.write_at(offset, &chunk[..read])?;
        offset += read as u64;
    }
}
