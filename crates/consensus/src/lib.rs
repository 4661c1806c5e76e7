//! raft-rs over etcd's write-ahead log.
//!
//! ```text
//! propose(batch) ──> raft ──> WAL append + one fdatasync ──> committed entries ──> (apply, by the caller)
//! tick, step     ──┘                                    └──> messages for peers
//! ```
//! Owns the `RawNode`, the tail of the log in memory and the write-ahead log. Input goes in by calls,
//! everything that follows from it comes out of [`Node::advance`] as an [`Output`]; there is no thread,
//! no clock and no network in here. raft-rs's own types end at this crate's border.
//!
//! Invariants:
//! 1. An entry is in [`Output::committed`] only after it is on disk here (and on a quorum).
//! 2. Entries come out in index order, each once, none below the applied index given at the start.
//! 3. Before a checkpoint at index A is made durable, [`Node::sync_commit`] has put a hard state with
//!    commit >= A on disk, so that a restart never finds a store that is ahead of its log.

mod convert;
mod log;
mod logger;
mod node;

pub use convert::{ConfChange, ConfChangeKind};
pub use etched_wal::{Entry, EntryKind};
pub use node::{Config, Node, Output, Role, SoftState, Start};

/// Why the node cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The write-ahead log failed: the state on disk is unsure, the process must stop.
    #[error(transparent)]
    Wal(#[from] etched_wal::Error),
    /// raft-rs refused its configuration or input.
    #[error("raft: {0}")]
    Raft(#[from] raft::Error),
    /// The store holds entries that the log does not have.
    #[error(
        "the store has applied index {applied}, but the write-ahead log ends at {last}: the log was \
         replaced or lost its tail"
    )]
    StoreAheadOfLog {
        /// Index that the store's checkpoint covers.
        applied: u64,
        /// Last index of the log.
        last: u64,
    },
    /// A committed configuration change does not decode.
    #[error("entry {index} holds a configuration change that does not decode: {reason}")]
    BadConfChange {
        /// Index of the entry.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
}
