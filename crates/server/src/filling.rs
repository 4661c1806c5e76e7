//! From a database of etcd's to a store of ours: bucket by bucket into large commits.
//!
//! ```text
//! Database ──every bucket──> Filling ──commits of 8 MiB──> Storage, at no index yet
//! ```
//! What stands where is the same on both sides; left out is what tells of the old log, and, where the new cluster is
//! another one, its members. In memory is one commit. Nothing is durable before whoever began it makes the last commit.
//! Without a store it is only seen whether everything could be taken.

use bytes::Bytes;
use etched_bolt::etcd::{self, Revision};
use etched_bolt::{Bucket, Database, Source};
use etched_mvcc::Record;
use etched_storage::{Commit, Durability, Storage, Table};

/// Bytes of records and rows that are committed at once.
const COMMIT_BYTES: usize = 8 << 20;
/// Records and rows that are: each takes some hundred bytes more than it has itself.
const COMMIT_ROWS: usize = 50_000;
/// The highest revision that is made or restored: half of what a start takes, so that whatever is written then is
/// started from again.
pub(crate) const REVISION_MAX: i64 = etched_mvcc::Revision::MAIN_MAX / 2;

/// Why a database makes no store.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// The database.
    #[error(transparent)]
    Database(#[from] etched_bolt::Error),
    /// The store's file.
    #[error(transparent)]
    Storage(#[from] etched_storage::Error),
    /// A bucket, or a row of `meta`, that no release up to this one writes.
    #[error("{0} is nothing that this version knows: it is of a newer etcd, or of something else")]
    Unknown(String),
    /// The revision would be higher than revisions get.
    #[error("revision {latest} cannot be raised by {bump}")]
    Revision {
        /// That of the last record.
        latest: i64,
        /// By how much.
        bump: u64,
    },
}

/// Whose members the store is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Members {
    /// Those of the database.
    Kept,
    /// Others: those of the database and what it says of removed ones are left out.
    Others,
}

/// A store that is being filled.
pub(crate) struct Filling<'f> {
    storage: Option<&'f Storage>,
    members: Members,
    /// What comes with the next commit.
    pub(crate) commit: Commit,
    /// Of the records and rows in it.
    bytes: usize,
    /// Of all records and rows so far.
    read: u64,
    /// Main revision of the last record.
    pub(crate) latest: i64,
    /// Hears, now and then, how many bytes have been read.
    progress: &'f mut dyn FnMut(u64),
}

impl<'f> Filling<'f> {
    /// Nothing yet, into `storage`, which is empty, or into none.
    pub(crate) fn new(
        storage: Option<&'f Storage>,
        members: Members,
        progress: &'f mut dyn FnMut(u64),
    ) -> Self {
        let commit = Commit::default();
        Self { storage, members, commit, bytes: 0, read: 0, latest: 0, progress }
    }

    /// Takes everything over; the last part waits in [`Self::commit`].
    ///
    /// # Errors
    /// [`FillError`].
    pub(crate) fn take<S: Source>(&mut self, database: &Database<S>) -> Result<(), FillError> {
        let mut buckets = database.root().entries()?;
        while let Some(entry) = buckets.next()? {
            let name = String::from_utf8_lossy(entry.key).into_owned();
            let bucket = buckets.bucket()?;
            let bucket = bucket.ok_or_else(|| FillError::Unknown(format!("key {name:?}")))?;
            self.bucket(&name, &bucket)?;
        }
        Ok(())
    }

    fn bucket<S: Source>(&mut self, name: &str, bucket: &Bucket<'_, S>) -> Result<(), FillError> {
        let mut entries = bucket.entries()?;
        while let Some(entry) = entries.next()? {
            let (key, value) = (entry.key, entry.value);
            if entry.is_bucket {
                let inner = key.escape_ascii();
                return Err(FillError::Unknown(format!("bucket \"{inner}\" in bucket {name:?}")));
            }
            match name {
                etcd::KEY => self.record(key, value)?,
                etcd::MEMBERS | etcd::MEMBERS_REMOVED if self.members == Members::Others => {}
                etcd::META => self.meta(key, value)?,
                _ => {
                    let table = Table::ALL.into_iter().find(|table| table.name() == name);
                    let unknown = || FillError::Unknown(format!("bucket {name:?}"));
                    self.row(table.ok_or_else(unknown)?, key, value)?;
                }
            }
        }
        Ok(())
    }

    fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), FillError> {
        let row = (table, Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)));
        self.commit.rows.push(row);
        self.added(key, value)
    }

    /// Counts what was added to the commit, and makes the next one when it is enough.
    fn added(&mut self, key: &[u8], value: &[u8]) -> Result<(), FillError> {
        self.bytes += key.len() + value.len();
        let rows = self.commit.records.len() + self.commit.rows.len();
        if self.bytes >= COMMIT_BYTES || rows >= COMMIT_ROWS {
            self.commit(Durability::Buffered)?;
        }
        Ok(())
    }

    /// Where the log stood is said by the index of the last commit, and the schema follows the cluster's version.
    fn meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), FillError> {
        let name = String::from_utf8_lossy(key);
        match &*name {
            etcd::meta::SCHEDULED_COMPACT_REV | etcd::meta::FINISHED_COMPACT_REV => {
                self.row(Table::Meta, key, value)
            }
            etcd::meta::CONSISTENT_INDEX
            | etcd::meta::TERM
            | etcd::meta::CONF_STATE
            | etcd::meta::STORAGE_VERSION => Ok(()),
            _ => Err(FillError::Unknown(format!("key {name:?} of bucket meta"))),
        }
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), FillError> {
        let wrong = |what: &str| etched_bolt::Error::Row {
            bucket: etcd::KEY.to_owned(),
            what: format!("{what} \"{}\"", key.escape_ascii()),
        };
        let revision = Revision::read(key).ok_or_else(|| wrong("cannot parse revision key:"))?;
        let at = etched_mvcc::Revision { main: revision.main, sub: revision.sub };
        let bytes = Bytes::copy_from_slice(value);
        let record = Record { tombstone: revision.tombstone, bytes };
        record.check(at).map_err(|error| wrong(&format!("{error}, key:")))?;
        self.commit.records.push((at, record));
        self.latest = revision.main;
        self.added(key, value)
    }

    /// A record of nothing so many revisions later, up to which everything counts as compacted.
    ///
    /// # Errors
    /// [`FillError::Revision`].
    pub(crate) fn bump(&mut self, by: u64) -> Result<(), FillError> {
        let wrong = FillError::Revision { latest: self.latest, bump: by };
        let main = self.latest.checked_add_unsigned(by);
        let main = main.filter(|main| *main <= REVISION_MAX).ok_or(wrong)?;
        let record = Record { tombstone: false, bytes: Bytes::new() };
        self.commit.records.push((etched_mvcc::Revision::start_of(main), record));
        let (mut buffer, tombstone) = ([0; Revision::BYTES_MAX], false);
        let compacted = Revision { main, sub: 0, tombstone }.bytes(&mut buffer).to_vec();
        self.row(Table::Meta, etcd::meta::SCHEDULED_COMPACT_REV.as_bytes(), &compacted)
    }

    /// Puts what waits into the store.
    ///
    /// # Errors
    /// [`FillError::Storage`].
    pub(crate) fn commit(&mut self, durability: Durability) -> Result<(), FillError> {
        if let Some(storage) = self.storage {
            storage.commit(&self.commit, durability)?;
        }
        self.read += self.bytes as u64;
        (self.commit, self.bytes) = (Commit::default(), 0);
        (self.progress)(self.read);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_bounded_by_its_bytes_and_by_its_rows() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = etched_storage::Options::default();
        let (storage, _) = Storage::open(&folder.path().join("db"), options).expect("a new file");
        let mut ignored = |_| ();
        let mut filling = Filling::new(Some(&storage), Members::Others, &mut ignored);
        for number in 0..COMMIT_ROWS as u64 + 10 {
            filling.row(Table::Lease, &number.to_be_bytes(), b"").expect("there is room");
            assert!(filling.commit.rows.len() < COMMIT_ROWS);
        }
        assert_eq!(filling.commit.rows.len(), 10);
        filling.row(Table::Alarm, b"large", &vec![0; COMMIT_BYTES]).expect("there is room");
        assert_eq!(filling.commit.rows.len(), 0);
        let counts = *storage.view().counts();
        assert_eq!(counts.of(Table::Lease), COMMIT_ROWS as u64 + 10);
        assert_eq!(counts.of(Table::Alarm), 1);
    }
}
