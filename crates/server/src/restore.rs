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

use etched_bolt::{Database, snapshot};
use etched_consensus::{ConfChange, ConfChangeKind};
use etched_proto::etcdserverpb::Metadata;
use etched_proto::raftpb::ConfState;
use etched_storage::{Applied, Durability, Options, Storage};
use etched_wal::disk::{Disk as _, RealDisk};
use etched_wal::{Entry, EntryKind, HardState, SnapshotMark, Wal};
use prost::Message as _;

use crate::boot::Paths;
use crate::cluster::Member;
use crate::filling::{FillError, Filling, Members};
use crate::id;

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
    /// The snapshot, or the store's file.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// The log.
    #[error(transparent)]
    Wal(#[from] etched_wal::Error),
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
        snapshot::verify(&file).map_err(FillError::from)?;
    }
    let database = Database::open(file).map_err(FillError::from)?;
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
    let (storage, _) =
        Storage::open(&snap.join(UNFINISHED), Options::default()).map_err(FillError::from)?;
    let mut progress = |read: u64| progress(read.min(database.size()), database.size());
    let mut filling = Filling::new(&storage, Members::Others, &mut progress);
    filling.take(database)?;
    if let Some(bump) = plan.bump_revision {
        filling.bump(bump)?;
    }
    let members = members_of(plan);
    filling.commit.rows.extend(members.values().map(Member::row));
    let (applied, conf_state) = end_of(&members);
    (filling.commit.applied, filling.commit.conf_state) = (applied, Some(conf_state));
    filling.commit(Durability::Checkpoint)?;
    progress(database.size());
    Ok(members)
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
