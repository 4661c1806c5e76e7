//! From a snapshot of etcd's to a data directory that a new cluster starts from.
//!
//! ```text
//! snapshot ──hash right?──> every bucket ──> store's file under another name ──synced──> its own name
//!                                                                                           │
//!                                          log: one entry for each member, a mark behind <──┘
//! ```
//! Keys, leases, users and alarms stay; members, ids and the log are those of the new cluster. A start between two
//! steps is refused: a store without its log is, and so is a log that ends before its store. When something fails,
//! what was made is removed, and the next try begins anew. In memory is one batch of records.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use etched_bolt::etcd::{self, Revision};
use etched_bolt::{Bucket, Database, snapshot};
use etched_consensus::{ConfChange, ConfChangeKind};
use etched_mvcc::Record;
use etched_proto::etcdserverpb::Metadata;
use etched_proto::mvccpb::KeyValue;
use etched_proto::raftpb::ConfState;
use etched_storage::{Applied, Commit, Durability, Options, Storage, Table};
use etched_wal::disk::{Disk as _, RealDisk};
use etched_wal::{Entry, EntryKind, HardState, SnapshotMark, Wal};
use prost::Message as _;

use crate::boot::Paths;
use crate::cluster::Member;
use crate::id;

/// Bytes of records that are committed at once.
const COMMIT_BYTES: usize = 8 << 20;
/// Name of the store's file until it is whole: nothing starts where it lies.
pub(crate) const UNFINISHED: &str = "db.restore";

/// What is restored, and for which cluster.
#[derive(Debug, Clone)]
pub struct Restore {
    /// The snapshot; or, with `skip_hash_check`, a database.
    pub snapshot: PathBuf,
    /// Take the bytes as they are.
    pub skip_hash_check: bool,
    /// Folder that is made; one that is there must be empty.
    pub data_dir: PathBuf,
    /// Folder of the log, which must not be there; None is `<data_dir>/member/wal`.
    pub wal_dir: Option<PathBuf>,
    /// Name of the member whose directory this is; one of `members`.
    pub name: String,
    /// Peer URLs by name, of all members.
    pub members: BTreeMap<String, Vec<String>>,
    /// Salt of the ids.
    pub token: String,
    /// Go on so many revisions later, and call all before it compacted; None goes on where the snapshot ends.
    pub bump_revision: Option<u64>,
}

/// Why there is no data directory.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The snapshot.
    #[error(transparent)]
    Snapshot(#[from] etched_bolt::Error),
    /// The store's file.
    #[error(transparent)]
    Storage(#[from] etched_storage::Error),
    /// The log.
    #[error(transparent)]
    Wal(#[from] etched_wal::Error),
    /// A bucket, or a row of `meta`, that no release up to this one writes.
    #[error(
        "{0} is nothing that this version knows: the snapshot is of a newer etcd, or of something else"
    )]
    Unknown(String),
    /// The revision would be higher than revisions get.
    #[error("revision {latest} cannot be raised by {bump}")]
    Revision {
        /// The snapshot's.
        latest: i64,
        /// By how much.
        bump: u64,
    },
    /// The operating system refused something.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// Go's word for what was attempted.
        action: &'static str,
        /// With this file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
}

/// Makes the data directory. `progress` hears, now and then, of how many bytes of how many have been read.
///
/// # Errors
/// [`RestoreError`]; nothing is left behind then, but for an empty folder, and for a log outside of the data directory.
pub fn restore(plan: &Restore, progress: &mut dyn FnMut(u64, u64)) -> Result<(), RestoreError> {
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Io { action, path, source }
    };
    let file = File::open(&plan.snapshot).map_err(io("open", &plan.snapshot))?;
    let length = file.metadata().map_err(io("stat", &plan.snapshot))?.len();
    if length < snapshot::HASH_BYTES as u64 {
        return Err(io("seek", &plan.snapshot)(rustix::io::Errno::INVAL.into()));
    }
    if !plan.skip_hash_check {
        snapshot::verify(&file)?;
    }
    let database = Database::open(file)?;
    let paths = Paths::below(&plan.data_dir, plan.wal_dir.clone());
    let snap = paths.store.parent().expect("the store lies in a folder").to_owned();
    RealDisk.create_dir(&plan.data_dir).map_err(io("mkdir", &plan.data_dir))?;
    // Who makes this folder owns what is in it: one that is there is somebody else's, and stays as it is.
    std::fs::create_dir(&paths.member).map_err(io("mkdir", &paths.member))?;
    let made = RealDisk
        .create_dir(&snap)
        .map_err(io("mkdir", &snap))
        .and_then(|()| fill(plan, &database, &snap, progress))
        .and_then(|members| {
            let unfinished = snap.join(UNFINISHED);
            RealDisk.rename(&unfinished, &paths.store).map_err(io("rename", &unfinished))?;
            RealDisk.sync_dir(&snap).map_err(io("sync", &snap))?;
            make_log(plan, &paths.wal, &members)
        });
    if made.is_err() {
        // The first error is what counts.
        let _ = RealDisk.remove_dir(&paths.member);
    }
    made
}

/// The new cluster's members, by id.
fn members_of(plan: &Restore) -> BTreeMap<u64, Member> {
    let members = plan.members.iter().map(|(name, peer_urls)| {
        let id = id::member_id(peer_urls, &plan.token);
        let (name, peer_urls) = (name.clone(), peer_urls.clone());
        (id, Member { id, name, peer_urls, ..Member::default() })
    });
    members.collect()
}

/// Where the log of such a cluster ends.
fn end_of(members: &BTreeMap<u64, Member>) -> (Applied, ConfState) {
    let applied = Applied { index: members.len() as u64, term: 1 };
    let voters = members.keys().copied().collect();
    (applied, ConfState { voters, ..ConfState::default() })
}

/// The store's file, whole and synced, but not under its name.
fn fill(
    plan: &Restore,
    database: &Database<File>,
    snap: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<BTreeMap<u64, Member>, RestoreError> {
    let (storage, _) = Storage::open(&snap.join(UNFINISHED), Options::default())?;
    let mut filling = Filling {
        storage: &storage,
        commit: Commit::default(),
        bytes: 0,
        read: 0,
        latest: 0,
        progress: &mut |read| progress(read.min(database.size()), database.size()),
    };
    let mut buckets = database.root().entries()?;
    while let Some(entry) = buckets.next()? {
        let name = String::from_utf8_lossy(entry.key).into_owned();
        let bucket = buckets.bucket()?;
        let bucket = bucket.ok_or_else(|| RestoreError::Unknown(format!("key {name:?}")))?;
        filling.bucket(&name, &bucket)?;
    }
    if let Some(bump) = plan.bump_revision {
        filling.bump(bump)?;
    }
    let members = members_of(plan);
    filling.commit.rows.extend(members.values().map(Member::row));
    let (applied, conf_state) = end_of(&members);
    (filling.commit.applied, filling.commit.conf_state) = (applied, Some(conf_state));
    filling.commit(Durability::Checkpoint)?;
    (filling.progress)(database.size());
    Ok(members)
}

struct Filling<'f> {
    storage: &'f Storage,
    commit: Commit,
    /// Of the records in it.
    bytes: usize,
    /// Of all records so far.
    read: u64,
    /// Main revision of the last record.
    latest: i64,
    progress: &'f mut dyn FnMut(u64),
}

impl Filling<'_> {
    fn bucket(&mut self, name: &str, bucket: &Bucket<'_, File>) -> Result<(), RestoreError> {
        let mut entries = bucket.entries()?;
        while let Some(entry) = entries.next()? {
            let (key, value) = (entry.key, entry.value);
            match name {
                etcd::KEY => self.record(key, value)?,
                // Those of the cluster that the snapshot is from.
                etcd::MEMBERS | etcd::MEMBERS_REMOVED => {}
                etcd::META => self.meta(key, value)?,
                _ => {
                    let table = Table::ALL.into_iter().find(|table| table.name() == name);
                    let unknown = || RestoreError::Unknown(format!("bucket {name:?}"));
                    self.row(table.ok_or_else(unknown)?, key, value);
                }
            }
        }
        Ok(())
    }

    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) {
        let value = Some(Bytes::copy_from_slice(value));
        self.commit.rows.push((table, Bytes::copy_from_slice(key), value));
    }

    /// Where the log stood and which schema it was is not kept: the new log begins anew.
    fn meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
        let name = String::from_utf8_lossy(key);
        match &*name {
            etcd::meta::SCHEDULED_COMPACT_REV | etcd::meta::FINISHED_COMPACT_REV => {
                self.row(Table::Meta, key, value);
                Ok(())
            }
            etcd::meta::CONSISTENT_INDEX
            | etcd::meta::TERM
            | etcd::meta::CONF_STATE
            | etcd::meta::STORAGE_VERSION => Ok(()),
            _ => Err(RestoreError::Unknown(format!("key {name:?} of bucket meta"))),
        }
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
        let row = |what: &str| etched_bolt::Error::Row {
            bucket: etcd::KEY.to_owned(),
            what: format!("{what} \"{}\"", key.escape_ascii()),
        };
        let revision = Revision::read(key)
            .filter(|revision| revision.main >= 0 && revision.sub >= 0)
            .ok_or_else(|| row("cannot parse revision key:"))?;
        let bytes = Bytes::copy_from_slice(value);
        KeyValue::decode(bytes.clone()).map_err(|_| row("cannot unmarshal value, key:"))?;
        let at = etched_mvcc::Revision { main: revision.main, sub: revision.sub };
        self.commit.records.push((at, Record { tombstone: revision.tombstone, bytes }));
        self.latest = revision.main;
        self.bytes += key.len() + value.len();
        if self.bytes >= COMMIT_BYTES {
            self.commit(Durability::Buffered)?;
        }
        Ok(())
    }

    /// A record of nothing so many revisions later, up to which everything counts as compacted.
    fn bump(&mut self, by: u64) -> Result<(), RestoreError> {
        let wrong = RestoreError::Revision { latest: self.latest, bump: by };
        let main = self.latest.checked_add_unsigned(by).ok_or(wrong)?;
        let record = Record { tombstone: false, bytes: Bytes::new() };
        self.commit.records.push((etched_mvcc::Revision { main, sub: 0 }, record));
        let (mut buffer, tombstone) = ([0; Revision::BYTES_MAX], false);
        let compacted = Revision { main, sub: 0, tombstone }.bytes(&mut buffer).to_vec();
        self.row(Table::Meta, etcd::meta::SCHEDULED_COMPACT_REV.as_bytes(), &compacted);
        Ok(())
    }

    fn commit(&mut self, durability: Durability) -> Result<(), RestoreError> {
        self.storage.commit(&self.commit, durability)?;
        self.read += self.bytes as u64;
        (self.commit, self.bytes) = (Commit::default(), 0);
        (self.progress)(self.read);
        Ok(())
    }
}

/// The log: an entry for each member, committed, and a mark that the store stands behind them.
fn make_log(
    plan: &Restore,
    dir: &Path,
    members: &BTreeMap<u64, Member>,
) -> Result<(), RestoreError> {
    let ids: Vec<u64> = members.keys().copied().collect();
    let own = members.values().find(|member| member.name == plan.name).map(|member| member.id);
    let metadata = Metadata { node_id: own, cluster_id: Some(id::cluster_id(&ids)) };
    let options = etched_wal::Options::default();
    let mut wal = Wal::create(RealDisk, dir, &metadata.encode_to_vec(), &options)?;
    let entries = members.values().zip(1..).map(|(member, index)| {
        let (kind, node_id) = (ConfChangeKind::AddNode, member.id);
        let change = ConfChange { id: 0, kind, node_id, context: member.json() };
        Entry { term: 1, index, kind: EntryKind::ConfChange, data: change.encode() }
    });
    let (Applied { index, term }, conf_state) = end_of(members);
    let vote = ids.first().copied().unwrap_or_default();
    let hard_state = HardState { term, vote, commit: index };
    wal.save(Some(&hard_state), &entries.collect::<Vec<_>>(), true)?;
    wal.save_snapshot(&SnapshotMark { index, term, conf_state: Some(conf_state) })?;
    Ok(wal.close()?)
}
