//! From a snapshot of etcd's to a data directory that a new cluster starts from.
//!
//! ```text
//! <data-dir>/member.restore/
//!   snapshot ──hash right?──> every bucket ──> store ──> what a start reads of it ──> log ─┐
//! <data-dir>/member <──────────────────────── one rename, when all is on the disk ────────┘
//! ```
//! Keys, leases, users and alarms stay; members, ids and the log are those of the new cluster.
//!
//! Invariants:
//! - `member` is there wholly or not at all, whatever step a crash comes at; and what is there, a start reads.
//! - `member.restore` is there from the first step to the last: nothing starts beside it. What is in it is nobody's
//!   data. When something fails it is removed, and what a killed restore left goes with the next one.
//! - The data directory is locked all the while: only who holds it makes or removes anything in it.
//!
//! In memory is one batch of records, and at the end the index, as in a start.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use etched_bolt::{Database, Source, snapshot};
use etched_consensus::{ConfChange, ConfChangeKind};
use etched_proto::etcdserverpb::Metadata;
use etched_proto::raftpb::ConfState;
use etched_storage::{Applied, Durability, Options, Storage};
use etched_wal::disk::{Disk, RealDisk};
use etched_wal::{Entry, EntryKind, HardState, SnapshotMark, Wal};
use prost::Message as _;
use rustix::io::Errno;

use crate::StartError;
use crate::boot::{Opened, Paths};
use crate::cluster::Member;
use crate::config::Config;
use crate::filling::{self, FillError, Filling, Members};
use crate::id;
use crate::run::OpenStore;

#[cfg(test)]
mod tests;

/// What is restored, and for which cluster.
#[derive(Debug, Clone)]
pub struct Restore {
    /// The snapshot; or, with `skip_hash_check`, a database.
    pub snapshot: PathBuf,
    /// Take the bytes as they are.
    pub skip_hash_check: bool,
    /// Folder that is made; one that is there must be empty.
    pub data_dir: PathBuf,
    /// Folder of the log, which must not be there; None is `<data_dir>/member/wal`. Not elsewhere in `member`.
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

impl Restore {
    /// Folder of the data directory that what is restored lies in until it is whole.
    pub const UNFINISHED: &str = "member.restore";

    fn paths(&self) -> Paths {
        Paths::below(&self.data_dir, self.wal_dir.clone())
    }

    /// The same, with a log of the default place as such, whatever path says so. Refused is a place that this
    /// makes itself, or that what it makes would lie in.
    fn placed(&self) -> Result<Self, RestoreError> {
        let Some(dir) = &self.wal_dir else { return Ok(self.clone()) };
        let data = resolved(&self.data_dir).map_err(io("open", &self.data_dir))?;
        let wal = resolved(dir).map_err(io("open", dir))?;
        let member = Paths::below(&data, None);
        let is_default = wal == member.wal;
        let is_inside = |folder: &Path| wal.starts_with(folder);
        if !is_default
            && (is_inside(&member.member)
                || is_inside(&data.join(Self::UNFINISHED))
                || data.starts_with(&wal))
        {
            return Err(RestoreError::LogPlace { dir: dir.clone() });
        }
        Ok(Self { wal_dir: self.wal_dir.clone().filter(|_| !is_default), ..self.clone() })
    }

    fn unfinished(&self) -> Paths {
        Paths::inside(self.data_dir.join(Self::UNFINISHED), self.wal_dir.clone())
    }
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
    /// All of it was read and kept, and then no member would start from it.
    #[error("no member starts from what the snapshot holds: {0}")]
    Unstartable(Box<StartError>),
    /// Somebody else restores into the same folder.
    #[error("another restore into {} is at work", dir.display())]
    AtWork {
        /// The folder.
        dir: PathBuf,
    },
    /// A log where it cannot be made.
    #[error(
        "the log cannot lie in {}: of the data directory's own folders only member/wal can be its place", dir.display()
    )]
    LogPlace {
        /// The folder.
        dir: PathBuf,
    },
    /// A revision that leaves too few above it.
    #[error("the snapshot stands at revision {0}, which no store reaches")]
    TooHigh(i64),
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
/// [`RestoreError`]; nothing is left behind then but an empty folder.
pub fn restore(plan: &Restore, progress: &mut dyn FnMut(u64, u64)) -> Result<(), RestoreError> {
    let plan = &plan.placed()?;
    let file = File::open(&plan.snapshot).map_err(io("open", &plan.snapshot))?;
    let length = file.metadata().map_err(io("stat", &plan.snapshot))?.len();
    if length < snapshot::HASH_BYTES as u64 {
        return Err(io("seek", &plan.snapshot)(Errno::INVAL.into()));
    }
    if !plan.skip_hash_check {
        snapshot::verify(&file).map_err(FillError::from)?;
    }
    let log = etched_wal::Options::default();
    let place = Place { disk: RealDisk, open_store: &Storage::open, log };
    let database = Database::open(file).map_err(FillError::from)?;
    RealDisk.create_dir(&plan.data_dir).map_err(io("mkdir", &plan.data_dir))?;
    // From before the first look until the end: what is there is of a restore that was killed, or of this one.
    let held = hold(&plan.data_dir)?;
    let restored = place.restore(plan, &database, progress);
    drop(held);
    restored
}

/// The folder, locked. Nothing is left of the lock, whatever ends it.
fn hold(dir: &Path) -> Result<File, RestoreError> {
    let folder = File::open(dir).map_err(io("open", dir))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        // NFS locks no folder; there the store's own lock has to do.
        Err(TryLockError::Error(error)) if Errno::from_io_error(&error) == Some(Errno::BADF) => {
            Ok(folder)
        }
        Err(TryLockError::Error(error)) => Err(io("lock", dir)(error)),
        Err(TryLockError::WouldBlock) => Err(RestoreError::AtWork { dir: dir.to_owned() }),
    }
}

/// The place that a path names, through symbolic links as far as it is there.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let there = absolute.ancestors().find_map(|dir| Some((dir, dir.canonicalize().ok()?)));
    let (there, mut place) = there.ok_or(io::ErrorKind::NotFound)?;
    // Nothing of the rest is there, so no link is either.
    for component in absolute.strip_prefix(there).into_iter().flat_map(Path::components) {
        match component {
            Component::ParentDir => drop(place.pop()),
            component => place.push(component),
        }
    }
    Ok(place)
}

/// Fails where a restore has begun and has not ended.
///
/// # Errors
/// [`StartError::RestoreUnfinished`], [`StartError::Io`].
pub(crate) fn refuse_unfinished<D: Disk>(disk: &D, data_dir: &Path) -> Result<(), StartError> {
    let is_there = |dir: &Path| {
        let failed = |source| StartError::Io { action: format!("list {}", dir.display()), source };
        is_there(disk, dir).map_err(failed)
    };
    let dir = data_dir.join(Restore::UNFINISHED);
    // Beside a member it is a left-over that nobody will look for.
    if is_there(&dir)? && !is_there(&Paths::below(data_dir, None).member)? {
        return Err(StartError::RestoreUnfinished { dir });
    }
    Ok(())
}

fn is_there<D: Disk>(disk: &D, dir: &Path) -> io::Result<bool> {
    match disk.list(dir) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RestoreError + use<> {
    let path = path.to_owned();
    move |source| RestoreError::Io { action, path, source }
}

/// Where a restore works: a disk, and the store's files on it.
struct Place<'p, D> {
    disk: D,
    open_store: &'p OpenStore<'p>,
    log: etched_wal::Options,
}

impl<D: Disk> Place<'_, D> {
    fn restore<S: Source>(
        &self,
        plan: &Restore,
        database: &Database<S>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), RestoreError> {
        let unfinished = plan.unfinished();
        self.begin(plan, &unfinished)?;
        let made = self.fill(plan, database, progress, &unfinished).and_then(|(store, members)| {
            self.publish(plan, &unfinished, &members)?;
            // Held until now, so that another restore sees that this one is at work.
            drop(store);
            Ok(())
        });
        if made.is_err() {
            // The first error is what counts.
            let _ = self.disk.remove_dir(&unfinished.member);
        }
        made
    }

    /// Makes the folder that everything goes into; the one of a restore that was killed goes.
    fn begin(&self, plan: &Restore, unfinished: &Paths) -> Result<(), RestoreError> {
        let Self { disk, open_store, .. } = self;
        let (member, dir) = (plan.paths().member, &unfinished.member);
        disk.create_dir(&plan.data_dir).map_err(io("mkdir", &plan.data_dir))?;
        if is_there(disk, &member).map_err(io("open", &member))? {
            return Err(io("mkdir", &member)(io::ErrorKind::AlreadyExists.into()));
        }
        if is_there(disk, dir).map_err(io("open", dir))? {
            let options = Options { create: false, ..Options::default() };
            // Where folders have no lock. Whatever else it says, nobody is at work on it.
            if let Err(error @ etched_storage::Error::InUse { .. }) =
                open_store(&unfinished.store, options)
            {
                return Err(FillError::from(error).into());
            }
            disk.remove_dir(dir).map_err(io("remove", dir))?;
        }
        disk.create_new_dir(dir).map_err(io("mkdir", dir))
    }

    /// The store, whole, synced, and read as by a start.
    fn fill<S: Source>(
        &self,
        plan: &Restore,
        database: &Database<S>,
        progress: &mut dyn FnMut(u64, u64),
        unfinished: &Paths,
    ) -> Result<(Arc<Storage>, BTreeMap<u64, Member>), RestoreError> {
        let snap = unfinished.store.parent().expect("the store lies in a folder");
        self.disk.create_dir(snap).map_err(io("mkdir", snap))?;
        let opened = (self.open_store)(&unfinished.store, Options::default());
        let (storage, _) = opened.map_err(FillError::from)?;
        let (storage, size) = (Arc::new(storage), database.size());
        let mut read = |bytes: u64| progress(bytes.min(size), size);
        let mut filling = Filling::new(Some(&storage), Members::Others, &mut read);
        filling.take(database)?;
        if let Some(bump) = plan.bump_revision {
            filling.bump(bump)?;
        }
        let members = members_of(plan);
        filling.commit.rows.extend(members.values().map(Member::row));
        let (applied, conf_state) = end_of(&members);
        (filling.commit.applied, filling.commit.conf_state) = (applied, Some(conf_state));
        filling.commit(Durability::Checkpoint)?;
        let opened = Opened::read(&Config::default(), &storage)
            .map_err(|error| RestoreError::Unstartable(Box::new(error)))?;
        if opened.current_revision() > filling::REVISION_MAX {
            return Err(RestoreError::TooHigh(opened.current_revision()));
        }
        read(size);
        Ok((storage, members))
    }

    /// Makes the log, and gives all of it its name.
    fn publish(
        &self,
        plan: &Restore,
        unfinished: &Paths,
        members: &BTreeMap<u64, Member>,
    ) -> Result<(), RestoreError> {
        let (disk, from, to) = (&self.disk, &unfinished.member, plan.paths().member);
        let wal = self.create_log(plan, &unfinished.wal, members)?;
        let mut named = write_log(wal, members)
            .and_then(|()| disk.rename(from, &to).map_err(io("rename", from)));
        if named.is_ok() {
            named = disk.sync_dir(&plan.data_dir).map_err(io("sync", &plan.data_dir));
            if named.is_err() {
                let _ = disk.remove_dir(&to);
            }
        }
        if named.is_err() && plan.wal_dir.is_some() {
            let _ = disk.remove_dir(&unfinished.wal);
        }
        named
    }

    fn create_log(
        &self,
        plan: &Restore,
        dir: &Path,
        members: &BTreeMap<u64, Member>,
    ) -> Result<Wal<D>, RestoreError> {
        let ids: Vec<u64> = members.keys().copied().collect();
        let own = members.values().find(|member| member.name == plan.name).map(|member| member.id);
        let metadata = Metadata { node_id: own, cluster_id: Some(id::cluster_id(&ids)) };
        Ok(Wal::create(self.disk.clone(), dir, &metadata.encode_to_vec(), &self.log)?)
    }
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

/// An entry for each member, committed, and a mark that the store stands behind them.
fn write_log<D: Disk>(
    mut wal: Wal<D>,
    members: &BTreeMap<u64, Member>,
) -> Result<(), RestoreError> {
    let entries = members.values().zip(1..).map(|(member, index)| {
        let (kind, node_id) = (ConfChangeKind::AddNode, member.id);
        let change = ConfChange { id: 0, kind, node_id, context: member.json() };
        Entry { term: 1, index, kind: EntryKind::ConfChange, data: change.encode() }
    });
    let (Applied { index, term }, conf_state) = end_of(members);
    let vote = members.keys().next().copied().unwrap_or_default();
    let hard_state = HardState { term, vote, commit: index };
    wal.save(Some(&hard_state), &entries.collect::<Vec<_>>(), true)?;
    wal.save_snapshot(&SnapshotMark { index, term, conf_state: Some(conf_state) })?;
    Ok(wal.close()?)
}
