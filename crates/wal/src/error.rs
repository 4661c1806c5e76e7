//! Why the log cannot be used.

use std::io;
use std::path::PathBuf;

/// Why the log cannot be opened or written. `Display` is one line with the path in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("wal: cannot {action} {}: {source}{}", path.display(), hint(source))]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// An earlier write or sync failed, what is on disk is unsure: the process must end.
    #[error("wal: an earlier write to {} failed, nothing more is written", path.display())]
    Poisoned {
        /// The segment that was written.
        path: PathBuf,
    },
    /// Another server holds the log.
    #[error("wal: {} is locked by another process", path.display())]
    Locked {
        /// The segment that is held.
        path: PathBuf,
    },
    /// A log is there already.
    #[error("wal: {} already holds a write-ahead log", dir.display())]
    Exists {
        /// Directory of the log.
        dir: PathBuf,
    },
    /// No segment is there.
    #[error("wal: no segment in {}", dir.display())]
    NotFound {
        /// Directory of the log.
        dir: PathBuf,
    },
    /// The segments that could hold what follows the snapshot are gone.
    #[error("wal: no segment in {} goes back to the snapshot index {index}", dir.display())]
    NoSegmentFor {
        /// Directory of the log.
        dir: PathBuf,
        /// Index that reading was to start behind.
        index: u64,
    },
    /// A segment in the middle is missing.
    #[error("wal: segment number {missing:#x} before {} is missing", path.display())]
    MissingSegment {
        /// The segment behind the hole.
        path: PathBuf,
        /// Sequence number that should stand before it.
        missing: u64,
    },
    /// The snapshot record that reading was to start behind is not in the log.
    #[error("wal: {} has no snapshot record for index {index}", dir.display())]
    SnapshotNotFound {
        /// Directory of the log.
        dir: PathBuf,
        /// Index asked for.
        index: u64,
    },
    /// The snapshot record of that index has another term.
    #[error(
        "wal: {} at offset {offset}: snapshot record of index {index} has term {found}, expected \
         {expected}",
        path.display()
    )]
    SnapshotMismatch {
        /// The segment.
        path: PathBuf,
        /// Where the record's frame starts.
        offset: u64,
        /// Index of the snapshot.
        index: u64,
        /// Term asked for.
        expected: u64,
        /// Term in the log.
        found: u64,
    },
    /// Bytes that no crash explains. The log is left as it is.
    #[error("wal: {} is damaged at offset {offset}: {damage}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the frame of the bad record starts.
        offset: u64,
        /// What is wrong with it.
        damage: Damage,
    },
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The frame's length or padding cannot be.
    #[error("impossible frame {header:#018x}")]
    Frame {
        /// The eight bytes, as a little endian number.
        header: u64,
    },
    /// The segment ends inside the record, and it is not the last one or was whole before.
    #[error("the record runs past the end of the segment")]
    PastEnd,
    /// Checksum of the chain.
    #[error("checksum {stored:08x} does not fit the computed {computed:08x}")]
    Crc {
        /// In the record.
        stored: u32,
        /// Over the log up to here.
        computed: u32,
    },
    /// The record, or the message in it, does not decode.
    #[error("{what} does not decode")]
    Encoding {
        /// Which message.
        what: &'static str,
    },
    /// A record stands where none of its kind can.
    #[error("record of type {kind} out of place")]
    OutOfPlace {
        /// Its type number.
        kind: u64,
    },
    /// The used part ends, yet [`Damage::BeforeSynced`].
    #[error("zeros where a record should start")]
    Zeros,
    /// The segment ends before its own checksum and metadata records.
    #[error("the segment has no header")]
    NoHeader,
    /// Metadata differs between segments.
    #[error("conflicting metadata found")]
    MetadataConflict,
    /// An index is left out.
    #[error("entry {found} follows entry {last}")]
    EntryGap {
        /// Last entry before.
        last: u64,
        /// Entry read.
        found: u64,
    },
    /// Terms go back.
    #[error("entry {index} has term {found}, the one before has {before}")]
    TermBack {
        /// Index of the entry.
        index: u64,
        /// Its term.
        found: u64,
        /// Term of the entry before it.
        before: u64,
    },
    /// The record is broken, yet a later one shows that it had been synced whole: not a torn write.
    #[error("{first}, and later synced records follow at offset {later}")]
    BeforeSynced {
        /// What is wrong with the record.
        first: Box<Self>,
        /// Where the later record stands.
        later: u64,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// Whether the disk (or the quota of the user) is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if full(source))
    }
}

fn full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; free space on that file system and start again",
        io::ErrorKind::ReadOnlyFilesystem => "; the file system is mounted read-only",
        io::ErrorKind::PermissionDenied => "; the server must own the directory",
        _ => "",
    }
}
