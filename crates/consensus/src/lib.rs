//! raft-rs over etcd's write-ahead log.
//!
//! ```text
//! propose, read_index ──> Node ──> advance ──> messages for peers
//! tick, step(message) ──┘  ^                ├─> committed entries, reads that may be answered (for the caller)
//!                          └── persisted <──┴─> Append ──> Writer: the log and its sync
//! ```
//! [`Node`] owns raft-rs's state machine and the tail of the log in memory. Input goes in by calls, everything that
//! follows from it comes out of [`Node::advance`] as an [`Output`]; there is no thread, no clock and no network in here.
//! [`Writer`] owns the log on disk; it may live on another thread, and the node goes on while it works. A lone member
//! has nobody to talk to meanwhile and writes at once ([`Node::advance_inline`]). raft-rs's own types end at this
//! crate's border: messages are etcd's, in contents too.
//!
//! Invariants:
//! 1. An entry is in [`Output::committed`] only after it is on disk here (and on a quorum).
//! 2. Entries come out in index order, each once, none below the applied index given at the start.
//! 3. Before a checkpoint at index A is made durable, [`Writer::sync_commit`] has put a hard state with
//!    commit >= A on disk, so that a restart never finds a store that is ahead of its log.
//! 4. Nothing that promises something (a vote, an appended entry) leaves before it is on disk.
//! 5. No message from outside reaches raft-rs unchecked ([`Refused`]), and no context of a read is used twice.

mod check;
mod convert;
mod flow;
mod log;
mod logger;
mod message;
mod node;
mod reads;
mod ready;
mod recover;
mod stall;
mod writer;

pub use check::Refused;
pub use convert::{ConfChange, ConfChangeKind};
pub use etched_wal::{Entry, EntryKind};
pub use node::{Config, Node, Output, Peer, Role, SoftState, Start};
pub use reads::ReadState;
pub use recover::force_new_cluster;
pub use stall::DISK_STALL_MAX;
pub use writer::{Append, Writer};

/// etcd's `--snapshot-catchup-entries` unless it is said otherwise.
pub const CATCH_UP_ENTRIES: usize = 5_000;

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
