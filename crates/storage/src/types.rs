//! What goes into the file and what comes back: commits, tables, sizes.

use bytes::Bytes;
use etched_mvcc::{Record, Revision};
use etched_proto::raftpb::ConfState;

/// The newest file format this build reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// How far the log has been applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Applied {
    /// Index of the last applied entry; 0 before any.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
}

/// A table of byte rows, with the name, keys and values of etcd's bucket.
///
/// Records (etcd's bucket `key`) are not among them: they have their own type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `meta`: scheduledCompactRev, finishedCompactRev, storageVersion, ...
    Meta,
    /// `lease`: lease ID as u64 BE, `leasepb.Lease`.
    Lease,
    /// `members`: member ID in hexadecimal, JSON.
    Members,
    /// `members_removed`: member ID in hexadecimal, `removed`.
    MembersRemoved,
    /// `cluster`: clusterVersion, downgrade.
    Cluster,
    /// `auth`: authEnabled, authRevision.
    Auth,
    /// `authUsers`: user name, `authpb.User`.
    AuthUsers,
    /// `authRoles`: role name, `authpb.Role`.
    AuthRoles,
    /// `alarm`: `etcdserverpb.AlarmMember`, empty value.
    Alarm,
}

impl Table {
    /// Every table, in the order of [`Counts::rows`].
    pub const ALL: [Self; 9] = [
        Self::Meta,
        Self::Lease,
        Self::Members,
        Self::MembersRemoved,
        Self::Cluster,
        Self::Auth,
        Self::AuthUsers,
        Self::AuthRoles,
        Self::Alarm,
    ];

    /// The name of etcd's bucket, which is the name of the table in the file as well.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Lease => "lease",
            Self::Members => "members",
            Self::MembersRemoved => "members_removed",
            Self::Cluster => "cluster",
            Self::Auth => "auth",
            Self::AuthUsers => "authUsers",
            Self::AuthRoles => "authRoles",
            Self::Alarm => "alarm",
        }
    }

    pub(crate) const fn place(self) -> usize {
        self as usize
    }
}

/// Everything that changed between two indexes of the log: applied to the file in one step.
///
/// A file is never seen between two commits. A commit without records, removals and rows only moves
/// `applied`.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The index this commit brings the file to. Never lower than the one before it.
    pub applied: Applied,
    /// The membership of the raft group at that index; `None` keeps the one before.
    pub conf_state: Option<ConfState>,
    /// New records in the order of their revisions, all above every record in the file.
    pub records: Vec<(Revision, Record)>,
    /// Records that compaction dropped. All of a commit go at once, so their order here is free; which ones may go
    /// before others in an earlier commit, [`Sweep::dropped`](etched_mvcc::Sweep) says. One that is not in the file is
    /// skipped.
    ///
    /// The row `scheduledCompactRev` of that compaction comes with this commit or came with an earlier one.
    pub removed: Vec<Revision>,
    /// Changed rows in order of change; `None` deletes.
    pub rows: Vec<(Table, Bytes, Option<Bytes>)>,
}

/// What a [`Commit`] survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Visible to readers, lost by a crash: the log brings it back. Costs no sync.
    Buffered,
    /// On the disk, together with every buffered commit before it, when the call returns.
    Checkpoint,
}

/// How many rows each table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records.
    pub records: u64,
    /// Rows, by [`Table::ALL`].
    pub rows: [u64; Table::ALL.len()],
}

impl Counts {
    /// Rows in `table`.
    pub const fn of(&self, table: Table) -> u64 {
        self.rows[table.place()]
    }
}

/// What a file said of itself when it was opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Boot {
    /// The file did not exist, or was empty, and has just been made.
    pub created: bool,
    /// The index the contents stand at; replay starts behind it.
    pub applied: Applied,
    /// The membership at that index; `None` when none was ever committed.
    pub conf_state: Option<ConfState>,
    /// Row counts, verified against the tables.
    pub counts: Counts,
    /// The format version found in the file.
    pub format: u32,
}

/// How large the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// Bytes of disk the file takes, free pages included: what Status calls dbSize.
    ///
    /// Not the length: the file grows by doubling and its unused end has no blocks.
    pub file_bytes: u64,
    /// Bytes that live rows need, page overhead included: what Status calls dbSizeInUse. An estimate; too low
    /// where records are larger than a page, which take whole powers of two of pages.
    pub live_bytes: u64,
}

/// How a file is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Memory for pages, in bytes: read cache and buffered writes together. Default 16 MiB.
    pub cache_bytes: usize,
    /// Make the file when it is missing. Default true.
    ///
    /// Off when the log starts behind index 0, so that nothing could bring the contents back.
    pub create: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 16 << 20, create: true }
    }
}
