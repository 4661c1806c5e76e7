//! What can be wrong with a bbolt file, each as one line.

use std::io;

/// The result of everything that reads or writes a file here.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither meta page is one. The text is bbolt's.
    #[error("invalid database")]
    Invalid,
    /// The file is of a bbolt format that nobody writes yet. The text is bbolt's.
    #[error("version mismatch")]
    VersionMismatch,
    /// A meta page is there and none has the right checksum. The text is bbolt's.
    #[error("checksum error")]
    Checksum,
    /// The file ends before the pages that its meta page counts.
    #[error("database is cut short: it has {length} bytes and should have {expected}")]
    CutShort {
        /// Bytes in the file.
        length: u64,
        /// Bytes that its pages take.
        expected: u64,
    },
    /// A page says what cannot be.
    #[error("page {page}: {what}")]
    Damaged {
        /// Number of the page; that of the page around it for a bucket that lies in a value.
        page: u64,
        /// What is wrong there.
        what: String,
    },
    /// A row of etcd's is not one. The text is etcdutl's.
    #[error("error during bucket key iteration, name: {bucket:?} err: {what}")]
    Row {
        /// Name of the bucket.
        bucket: String,
        /// What is wrong.
        what: String,
    },
    /// The integrity check of a snapshot found something. The text is etcdutl's, which goes on and counts; here the
    /// first error is the last.
    #[error("snapshot file integrity check failed. 1 errors found.\n{0}")]
    Integrity(Box<Self>),
    /// No hash at the end of a snapshot. The text is etcdutl's.
    #[error("snapshot missing hash but --skip-hash-check=false")]
    MissingHash,
    /// The hash at the end is not that of what stands before it. The text is etcdutl's.
    #[error("expected sha256 {}, got {}", numbers(expected), numbers(found))]
    OtherHash {
        /// What the file says.
        expected: [u8; 32],
        /// What its bytes give.
        found: [u8; 32],
    },
    /// A key to be written is empty, too long or not above the one before it.
    #[error("cannot write key: {0}")]
    Unwritable(&'static str),
    /// What was to be written is not what was measured before.
    #[error("the contents changed between measuring and writing")]
    Changed,
    /// The disk, or whatever is behind the reader or writer.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Bytes as Go prints them.
fn numbers(bytes: &[u8]) -> String {
    format!("{bytes:?}").replace(',', "")
}

impl Error {
    pub(crate) fn damaged(page: u64, what: impl Into<String>) -> Self {
        Self::Damaged { page, what: what.into() }
    }
}
