//! A data directory of etcd's becomes one of ours, when a server is started on it.
//!
//! ```text
//! db (etcd's) ──look──> all of it fits ──fill──> db.takeover, one durable checkpoint at the database's index
//!     │                                               │
//!     ├──second name──> db.etcd-3.7, synced           │
//!     └──────────────────────── replaced <──rename────┘ synced; the log stays as it is, and what it has behind
//!                                                       that index is applied by the start that follows
//! ```
//! Before the rename the directory is etcd's, after it ours, and a start of the one or the other goes on from there: what
//! lies beside means nothing to etcd, and is made anew by us. Nothing of etcd's is written: its database keeps every byte
//! under the second name, its log is our format, its `.snap` files are left alone.
//!
//! Invariant: from before the first look until the log is locked by the start, the database is locked as etcd locks it.

mod found;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use etched_bolt::{Database, Source as _};
use etched_lease::Lessor;
use etched_storage::{Boot, Durability, Error as StorageError, Storage, Table};
use etched_wal::disk::{Disk, DiskFile, Open};

pub use found::{Found, Ids};

use crate::StartError;
use crate::boot::{Paths, compact_rows};
use crate::cluster::{BadRow, Cluster};
use crate::filling::{FillError, Filling, Members};
use found::examine;

pub(crate) use found::OnDisk;

/// Name of the store's file until it is whole.
const UNFINISHED: &str = "db.takeover";
/// What the storage calls that file before it has its tables.
const UNFINISHED_NEW: &str = "db.takeover.new";
/// How often a start says how far it is.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Databases that may be kept in one directory, from one take-over each.
const KEPT_MAX: u32 = 100;
/// Bytes at the start of a database that are compared to tell whether two are the same: both meta pages lie there,
/// and each write changes one of them.
const HEAD_BYTES: usize = 128 << 10;
/// bbolt's meta page has this after its 16-byte page header.
const BBOLT_MAGIC: [u8; 4] = 0xED0C_DAED_u32.to_le_bytes();

/// Why a directory of etcd's is left as it is.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// etcd runs on it.
    #[error("it is in use by another process: end that etcd first")]
    InUse,
    /// The database.
    #[error("member/snap/db: {0}")]
    Database(#[from] etched_bolt::Error),
    /// What is in the database.
    #[error("member/snap/db: {0}")]
    Content(FillError),
    /// The new file, which names itself.
    #[error("cannot write the new store: {0}")]
    NewFile(#[from] StorageError),
    /// The log.
    #[error(transparent)]
    Log(#[from] etched_wal::Error),
    /// A membership change in the log.
    #[error(transparent)]
    Consensus(#[from] etched_consensus::Error),
    /// A database without what every etcd writes.
    #[error("member/snap/db has no bucket \"meta\": it is not etcd's")]
    NoMeta,
    /// A row of `meta`.
    #[error("member/snap/db: row {name:?} of bucket \"meta\" is not a number of eight bytes")]
    MetaRow {
        /// Its name.
        name: &'static str,
    },
    /// Members, leases, users or others that do not read, or that no server of this version can have.
    #[error("member/snap/db: {0}")]
    Rows(String),
    /// A schema that is not known.
    #[error("its storage version is {version}; those of etcd 3.5, 3.6 and 3.7 can be taken over")]
    Version {
        /// As it stands there.
        version: String,
    },
    /// Older than what is known.
    #[error(
        "it was written by an etcd older than 3.5: start it with etcd 3.5, 3.6 and 3.7, one after the other"
    )]
    TooOld,
    /// A database without its log.
    #[error("its write-ahead log in {} is missing", dir.display())]
    NoLog {
        /// Where it should be.
        dir: PathBuf,
    },
    /// No place to start reading the log at.
    #[error("its write-ahead log has no valid snapshot record")]
    NoMark,
    /// The log's metadata.
    #[error("its write-ahead log has metadata that does not decode")]
    Metadata,
    /// The log begins behind the database.
    #[error(
        "the database stands at index {database}, but the write-ahead log begins behind {mark}: the database was \
         replaced by an older one, or a snapshot of the leader's is not in its place yet"
    )]
    Behind {
        /// Index of the database.
        database: u64,
        /// Where the log begins.
        mark: u64,
    },
    /// The log ends before the database.
    #[error(
        "the database stands at index {database}, but the write-ahead log ends at {last}: they do not belong together"
    )]
    Ahead {
        /// Index of the database.
        database: u64,
        /// Last index of the log.
        last: u64,
    },
    /// The log ends before what it calls committed.
    #[error(
        "its write-ahead log calls entries up to {commit} committed, but ends at {last}: it has lost its end"
    )]
    Commit {
        /// By its last hard state.
        commit: u64,
        /// Last index of the log.
        last: u64,
    },
    /// Different histories.
    #[error(
        "entry {index} has term {log} in the write-ahead log and {database} in the database: they do not belong \
         together"
    )]
    Term {
        /// The database's index.
        index: u64,
        /// Term in the log.
        log: u64,
        /// Term in the database.
        database: u64,
    },
    /// Membership kept twice, differently.
    #[error(
        "members are {log} by the write-ahead log and {database} by the database: bring them together with etcd first"
    )]
    Disagree {
        /// By the log.
        log: Ids,
        /// By the database.
        database: Ids,
    },
    /// Removed from its cluster.
    #[error("its member {own:x} is none of its cluster (members: {ids})")]
    NoMember {
        /// The member's id.
        own: u64,
        /// Those there are.
        ids: Ids,
    },
    /// An entry that waits in the log.
    #[error("{0}")]
    Entry(String),
    /// The last step is done, but nobody knows whether the disk has it: see [`StartError::TakenOver`].
    #[error("it is taken over, but that may not be on disk: {0}")]
    NotSynced(io::Error),
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// With this file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
}

impl From<BadRow> for Reason {
    fn from(row: BadRow) -> Self {
        Self::Rows(row.to_string())
    }
}

impl From<FillError> for Reason {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Storage(error) => error.into(),
            FillError::Database(error) => error.into(),
            error => Self::Content(error),
        }
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Reason {
    let path = path.to_owned();
    move |source| Reason::Io { action, path, source }
}

/// etcd's database, locked. To be held until the log is: an etcd that waits for it must find that one locked.
#[derive(Debug)]
pub(crate) struct Held<F>(#[allow(dead_code, reason = "held for its lock")] OnDisk<F>);

/// Takes the directory over if it is etcd's; `open` makes a store's file at a path. None when it is not etcd's.
///
/// # Errors
/// [`StartError::TakeOver`]: the directory is etcd's, as it was. [`StartError::TakenOver`]: it is ours, or after a power
/// cut etcd's again.
pub(crate) fn take_over<D: Disk>(
    disk: &D,
    paths: &Paths,
    open: impl FnOnce(&Path) -> Result<(Storage, Boot), StorageError>,
) -> Result<Option<Held<D::File>>, StartError> {
    let step = Step { disk, paths, began: Instant::now() };
    let dir = paths.member.parent().unwrap_or(&paths.member).to_owned();
    step.run(open).map_err(|reason| match reason {
        Reason::NotSynced(source) => StartError::TakenOver { dir, source },
        reason => StartError::TakeOver { dir, reason: Box::new(reason) },
    })
}

/// What a take-over would find, without doing it: all of the database is read as a start reads it, and nothing is
/// written. Only the locks of a start are taken, so the files must be writable.
///
/// # Errors
/// [`Reason`]; [`None`] when the directory is not etcd's.
pub fn check(data_dir: &Path, wal_dir: Option<PathBuf>) -> Result<Option<Found>, Reason> {
    let paths = Paths::below(data_dir, wal_dir);
    let step = Step { disk: &etched_wal::disk::RealDisk, paths: &paths, began: Instant::now() };
    let Some(file) = step.lock()? else { return Ok(None) };
    let database = Database::open(&file)?;
    let found = examine(step.disk, &paths, &database)?;
    step.transfer(&database, &found, None)?;
    Ok(Some(found))
}

/// The second name of etcd's database.
struct Kept {
    path: PathBuf,
    /// Given just now.
    is_new: bool,
}

struct Step<'s, D> {
    disk: &'s D,
    paths: &'s Paths,
    began: Instant,
}

impl<D: Disk> Step<'_, D> {
    fn run(
        &self,
        open: impl FnOnce(&Path) -> Result<(Storage, Boot), StorageError>,
    ) -> Result<Option<Held<D::File>>, Reason> {
        let Some(file) = self.lock()? else { return Ok(None) };
        let database = Database::open(&file)?;
        let found = examine(self.disk, self.paths, &database)?;
        tracing::info!(
            version = found.version.as_deref().unwrap_or("none yet"),
            "member-id" = %format!("{:x}", found.member_id),
            "cluster-id" = %format!("{:x}", found.cluster_id),
            index = found.index,
            "entries-behind" = found.waiting,
            bytes = found.database_bytes,
            "this is a data directory of etcd's; taking it over"
        );
        self.remove_unfinished()?;
        let filled = self.fill(&database, &found, open).and_then(|()| self.put_in_place(&found));
        match filled {
            Ok(kept) => {
                tracing::info!(
                    "kept-as" = %kept.display(),
                    took = ?self.began.elapsed(),
                    "took the data directory over; etcd's database is kept and can be removed when it is not needed any \
                     more"
                );
                Ok(Some(Held(file)))
            }
            Err(error) => {
                // The first error is what counts.
                let _ = self.remove_unfinished();
                Err(error)
            }
        }
    }

    /// etcd's database, if that is what lies there, locked.
    fn lock(&self) -> Result<Option<OnDisk<D::File>>, Reason> {
        if !self.is_etcds()? {
            return Ok(None);
        }
        let store = &self.paths.store;
        let file = self.disk.open(store, Open::Write).map_err(io_error("open", store))?;
        if !file.try_lock().map_err(io_error("lock", store))? {
            return Err(Reason::InUse);
        }
        // Who had the lock until now may have taken it over.
        Ok(self.is_etcds()?.then_some(OnDisk(file)))
    }

    /// What is no database of etcd's is told apart by who opens the store, and so is a missing one.
    fn is_etcds(&self) -> Result<bool, Reason> {
        let store = &self.paths.store;
        let file = match self.disk.open(store, Open::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => OnDisk(file.map_err(io_error("open", store))?),
        };
        let mut magic = [0; BBOLT_MAGIC.len()];
        match file.read_at(&mut magic, 16) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(io_error("read", store)(error)),
            Ok(()) => Ok(magic == BBOLT_MAGIC),
        }
    }

    /// Makes the store, whole, checked and durable, but not under its name.
    fn fill(
        &self,
        database: &Database<&OnDisk<D::File>>,
        found: &Found,
        open: impl FnOnce(&Path) -> Result<(Storage, Boot), StorageError>,
    ) -> Result<(), Reason> {
        let (storage, _) = open(&self.beside(UNFINISHED))?;
        self.transfer(database, found, Some(&storage))?;
        check_rows(|table| storage.rows(table))
    }

    /// All of the database, into a store or none.
    fn transfer(
        &self,
        database: &Database<&OnDisk<D::File>>,
        found: &Found,
        storage: Option<&Storage>,
    ) -> Result<(), Reason> {
        let mut report = Report { total: database.size(), next: self.began + REPORT_INTERVAL };
        let mut progress = |read| report.show(read);
        let mut filling = Filling::new(storage, Members::Kept, &mut progress);
        filling.take(database)?;
        (filling.commit.applied, filling.commit.conf_state) =
            (found.applied(), found.conf_state.clone());
        Ok(filling.commit(Durability::Checkpoint)?)
    }

    /// From here on the directory is ours. Answers where etcd's database is now.
    fn put_in_place(&self, found: &Found) -> Result<PathBuf, Reason> {
        let store = &self.paths.store;
        let folder = store.parent().expect("the store lies in a folder");
        let Kept { path: kept, is_new } = self.keep(found)?;
        let unfinished = self.beside(UNFINISHED);
        let sync = || self.disk.sync_dir(folder);
        let switched = sync().map_err(io_error("sync", folder)).and_then(|()| {
            self.disk.rename(&unfinished, store).map_err(io_error("rename", &unfinished))
        });
        if let Err(reason) = switched {
            // Its only name is the other one if the rename was done in spite of its error.
            if is_new && self.is_etcds().unwrap_or(false) {
                let _ = self.disk.remove(&kept);
            }
            return Err(reason);
        }
        sync().map_err(Reason::NotSynced)?;
        Ok(kept)
    }

    /// Gives etcd's database a name that says what it is, beside the one it has.
    fn keep(&self, found: &Found) -> Result<Kept, Reason> {
        let store = &self.paths.store;
        let name = found.kept_name();
        for number in 1..=KEPT_MAX {
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let path = self.beside(&format!("{name}{suffix}"));
            match self.disk.link(store, &path) {
                Ok(()) => return Ok(Kept { path, is_new: true }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("link etcd's database as", &path)(error)),
            }
            // A take-over that was killed here has given it already.
            if self.head(store)? == self.head(&path)? {
                return Ok(Kept { path, is_new: false });
            }
        }
        let source = io::ErrorKind::AlreadyExists.into();
        Err(io_error("link etcd's database as", &self.beside(&name))(source))
    }

    /// Length and first bytes of a file.
    fn head(&self, path: &Path) -> Result<(u64, Vec<u8>), Reason> {
        let read = || {
            let file = self.disk.open(path, Open::Read)?;
            let mut bytes = vec![0; HEAD_BYTES];
            let read = file.read_at(0, &mut bytes)?;
            bytes.truncate(read);
            Ok((file.size()?, bytes))
        };
        read().map_err(io_error("read", path))
    }

    fn remove_unfinished(&self) -> Result<(), Reason> {
        for name in [UNFINISHED, UNFINISHED_NEW] {
            let path = self.beside(name);
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.paths.store.with_file_name(name)
    }
}

/// Reads what a start reads beside the keys, so that it cannot fail for what stands there.
fn check_rows<E>(rows: impl Fn(Table) -> Result<Vec<(Bytes, Bytes)>, E>) -> Result<(), Reason>
where
    Reason: From<E>,
{
    let wrong = |error: &dyn std::fmt::Display| Reason::Rows(error.to_string());
    Cluster::restore(|table| rows(table).map_err(Reason::from))?;
    compact_rows(&rows(Table::Meta)?).map_err(|error| wrong(&error))?;
    let (auth, users, roles) =
        (rows(Table::Auth)?, rows(Table::AuthUsers)?, rows(Table::AuthRoles)?);
    etched_auth::Store::restore(auth, users, roles).map_err(|error| wrong(&error))?;
    let options = etched_lease::Options { min_ttl: 1, checkpoints: false };
    Lessor::restore(options, rows(Table::Lease)?).map_err(|error| wrong(&error))?;
    Ok(())
}

/// Says now and then how far it is.
struct Report {
    total: u64,
    next: Instant,
}

impl Report {
    fn show(&mut self, read: u64) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + REPORT_INTERVAL;
        let percent = read.min(self.total) * 100 / self.total.max(1);
        tracing::info!(percent, read, of = self.total, "taking the data directory over");
    }
}
