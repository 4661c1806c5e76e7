//! What a write-ahead log holds, in raft's terms.

use std::io;
use std::time::{Duration, Instant};

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

/// How many times of each kind are kept until somebody takes them; more are forgotten. Of one turn there are a few.
const TIMES_MAX: usize = 1024;

/// How long each write and each sync of the log took, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Times {
    /// Handing bytes to the system.
    pub writes: Vec<Duration>,
    /// Waiting until bytes, or a name, are on the disk.
    pub syncs: Vec<Duration>,
}

impl Times {
    /// Does something and notes how long it took, unless it failed: then nothing follows that could be slow.
    pub(crate) fn note<T>(
        times: &mut Vec<Duration>,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let started = Instant::now();
        let done = work()?;
        if times.len() < TIMES_MAX {
            times.push(started.elapsed());
        }
        Ok(done)
    }
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
