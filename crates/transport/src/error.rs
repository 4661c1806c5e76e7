//! What can go wrong between two members.

use std::io;

use http::StatusCode;

use crate::DecodeError;

/// A peer that could not be reached, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that is none.
    #[error("{0}")]
    Url(String),
    /// The connection could not be made, or broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer's HTTP cannot be understood, or the connection broke inside it.
    #[error("{}", with_source(.0))]
    Http(#[from] hyper::Error),
    /// No connection, or no answer, in time.
    #[error("{0} timed out")]
    Timeout(&'static str),
    /// A stream that cannot be decoded.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// The peer's version and this one's have no common cluster version.
    #[error("incompatible version")]
    IncompatibleVersion,
    /// The peer is of another cluster.
    #[error("cluster ID mismatch")]
    ClusterIdMismatch,
    /// The peer knows this member as removed.
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    /// The peer does not know this member (yet).
    #[error("peer {peer:x} failed to find local node {local:x}")]
    Unknown {
        /// Who was asked.
        peer: u64,
        /// This member.
        local: u64,
    },
    /// Another reason to refuse what the peer asks first.
    #[error("unhandled error {0:?} when precondition failed")]
    Precondition(String),
    /// Any other answer.
    #[error("unexpected http status {0}")]
    Status(StatusCode),
    /// What was to be sent ended early, or did not end.
    #[error("the snapshot has not the size that it should have")]
    Size,
    /// An answer to a probe that is none.
    #[error("the answer to a probe cannot be read")]
    Probe,
}

/// hyper says what was tried; what happened is its source.
fn with_source(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
