//! What can go wrong with the file, each as one line for the operator.

use std::io;

use etched_mvcc::{RecordsError, Revision};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the file could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process, or another handle of this one, holds the file. Worth waiting for.
    #[error("database file {file} is in use by another process")]
    InUse {
        /// Path of the file.
        file: String,
    },
    /// The file is not there although [`Options::create`](crate::Options::create) forbids making it.
    #[error(
        "database file {file} is missing, but the log beside it is not complete without it: \
         refusing to start empty"
    )]
    Missing {
        /// Path of the file.
        file: String,
    },
    /// The file was written by a newer etched.
    #[error(
        "database file {file} has format version {found}, but this etched reads at most {known}: \
         start a newer etched"
    )]
    TooNew {
        /// Path of the file.
        file: String,
        /// Version in the file.
        found: u32,
        /// Newest version this build knows.
        known: u32,
    },
    /// The file is not etched's.
    #[error("database file {file} is not a file of etched: {what}")]
    Foreign {
        /// Path of the file.
        file: String,
        /// What it seems to be.
        what: String,
    },
    /// The contents contradict themselves: a checksum, a count, or the structure of the tree.
    #[error("database file {file} is damaged: {what}")]
    Damaged {
        /// Path of the file.
        file: String,
        /// What was found, and where.
        what: String,
    },
    /// The disk is full.
    #[error("no space left on the disk for database file {file}{}", if *.usable { "" } else {
        ": its last write was cut short, restart after making room (the log holds every change)"
    })]
    NoSpace {
        /// Path of the file.
        file: String,
        /// The commit was refused before it began: reads and later commits go on working.
        /// Otherwise only a new open helps.
        usable: bool,
    },
    /// The operating system refused.
    #[error("database file {file}: cannot {action}: {source}")]
    Io {
        /// Path of the file.
        file: String,
        /// What was attempted.
        action: &'static str,
        /// The answer.
        source: io::Error,
    },
    /// An earlier write or read failed; the handle refuses everything since.
    #[error("database file {file} is closed to further use after an earlier failure: {first}")]
    Stopped {
        /// Path of the file.
        file: String,
        /// The first failure.
        first: String,
    },
    /// A commit broke the order of the log: a fault of the caller, nothing was written.
    #[error(
        "database file {file}: {what} {}.{} is not above the last one, {}.{}",
        .next.main, .next.sub, .last.main, .last.sub
    )]
    OutOfOrder {
        /// Path of the file.
        file: String,
        /// `record` or `applied index` (then main is the index and sub the term).
        what: &'static str,
        /// What was to be written.
        next: Revision,
        /// What stands there.
        last: Revision,
    },
}

impl Error {
    /// The disk is full: the server raises NOSPACE instead of stopping when `usable`.
    pub const fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }
}

impl From<Error> for RecordsError {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}
