//! What a write-ahead log holds, in raft's terms.

use std::time::Duration;

use bytes::Bytes;
use etched_proto::raftpb;

/// Kind of a log entry; the numbers are those on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EntryKind {
    /// A proposal of the server, or the empty entry of a new leader.
    #[default]
    Normal = 0,
    /// An encoded `raftpb.ConfChange`.
    ConfChange = 1,
    /// An encoded `raftpb.ConfChangeV2`.
    ConfChangeV2 = 2,
}

/// One entry of the raft log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Entry {
    /// Term of the leader that proposed it, from 1.
    pub term: u64,
    /// Position in the log, from 1.
    pub index: u64,
    /// How `data` is to be read.
    pub kind: EntryKind,
    /// What was proposed; empty only for a normal entry.
    pub data: Bytes,
}

/// What raft must remember across a restart beside the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct HardState {
    /// Newest term this member has seen.
    pub term: u64,
    /// Member voted for in `term`, 0 = none.
    pub vote: u64,
    /// Highest index known to be committed.
    pub commit: u64,
}

impl HardState {
    /// Whether nothing was ever recorded; such a state is not written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How long writes and syncs of the log have taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// Handing bytes to the system.
    pub write: Duration,
    /// Waiting until they are on the disk; zero when nobody waited.
    pub sync: Duration,
}

/// A record that says: the state up to `index` is kept elsewhere, reading can start behind it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct SnapshotMark {
    /// Last index the kept state covers; 0 in the mark of a new log.
    pub index: u64,
    /// Term of the entry at `index`.
    pub term: u64,
    /// Members at `index`; absent in the mark of a new log and in those written before etcd 3.5.
    pub conf_state: Option<raftpb::ConfState>,
}
