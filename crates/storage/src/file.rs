//! One open redb file: making it, recognising it, and what a write transaction does to it.

use std::{
    fmt, io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use etched_mvcc::Revision;
use redb::{
    Database, ReadableDatabase, StorageBackend, TableDefinition, TableError, WriteTransaction,
};

use crate::{
    codec::{self, FORMAT_KEY, OWN_TABLE, RevisionKey, STATE_KEY, State},
    error::{Error, Result},
    guard::Guard,
    medium::Medium,
    pages::Pages,
    types::{Durability, FORMAT_VERSION, Options, Table},
    view::View,
};

/// Records, under the name of etcd's bucket.
pub(crate) const RECORDS: TableDefinition<'static, RevisionKey, &[u8]> =
    TableDefinition::new("key");
const OWN: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new(OWN_TABLE);

/// The redb table behind `table`.
pub(crate) const fn rows_of(
    table: Table,
) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// redb's file starts with this.
const REDB_MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";
/// bbolt's meta page has this after its 16-byte page header.
const BBOLT_MAGIC: [u8; 4] = 0xED0C_DAEDu32.to_le_bytes();

/// One open redb file. Lives as long as the last [`View`] of it.
pub(crate) struct OpenFile {
    /// There until the drop, which has to happen under the guard.
    db: Option<Database>,
    shut: Arc<AtomicBool>,
    pub(crate) guard: Arc<Guard>,
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OpenFile").field("file", &self.guard.file()).finish_non_exhaustive()
    }
}

impl OpenFile {
    /// Opens the main file of `medium` and what it says of itself, or none when it is missing.
    pub(crate) fn open(
        medium: &dyn Medium,
        guard: &Arc<Guard>,
        options: &Options,
    ) -> Result<Option<(Arc<Self>, u32, State)>> {
        let Some(backend) = medium.open_main().map_err(|error| guard.io("open it", error))? else {
            return Ok(None);
        };
        guard.run(|| {
            let file =
                recognise(guard, backend.as_ref()).and_then(|()| Self::on(backend, guard, options));
            if !medium
                .is_main()
                .map_err(|error| guard.io("look whether it is there still", error))?
            {
                // Its last owner replaced it just now, and may have cut it: to be opened again.
                return Err(Error::InUse { file: guard.file() });
            }
            let file = file?;
            let (format, state) = file.read_own()?;
            Ok(Some((Arc::new(file), format, state)))
        })
    }

    /// Makes an empty file at the place of the copy, with every table in it.
    pub(crate) fn create(
        medium: &dyn Medium,
        guard: &Arc<Guard>,
        options: &Options,
    ) -> Result<Arc<Self>> {
        let backend = medium.create_copy().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::InUse { file: guard.file() },
            _ => guard.io("create it", error),
        })?;
        guard.run(|| {
            let file = Self::on(backend, guard, options)?;
            file.write(Durability::Checkpoint, |writing| {
                writing.open_table(RECORDS)?;
                for table in Table::ALL {
                    writing.open_table(rows_of(table))?;
                }
                let format = FORMAT_VERSION.to_le_bytes();
                let format = codec::row_value(OWN_TABLE, FORMAT_KEY, &format);
                writing.open_table(OWN)?.insert(FORMAT_KEY, format.as_slice())?;
                put_state(writing, &State::default())
            })?;
            Ok(Arc::new(file))
        })
    }

    fn on(backend: Box<dyn StorageBackend>, guard: &Arc<Guard>, options: &Options) -> Result<Self> {
        let shut = Arc::<AtomicBool>::default();
        let backend = Pages::new(backend, Arc::clone(&shut));
        let db = Database::builder()
            .set_cache_size(options.cache_bytes)
            .create_with_backend(backend)
            .map_err(|error| guard.redb("open it", error))?;
        Ok(Self { db: Some(db), shut, guard: Arc::clone(guard) })
    }

    fn db(&self) -> &Database {
        self.db.as_ref().expect("the database is there until the drop")
    }

    /// Runs `fill` in one write transaction. Call inside [`Guard::run`].
    pub(crate) fn write<T>(
        &self,
        durability: Durability,
        fill: impl FnOnce(&WriteTransaction) -> std::result::Result<T, redb::Error>,
    ) -> Result<T> {
        let guard = &self.guard;
        let begun = self.db().begin_write();
        let mut writing = begun.map_err(|error| guard.redb("begin a write", error))?;
        let durable = match durability {
            Durability::Buffered => redb::Durability::None,
            Durability::Checkpoint => redb::Durability::Immediate,
        };
        let set = writing.set_durability(durable);
        set.map_err(|error| guard.redb("begin a write", error))?;
        // Without it a start after a crash would walk the whole file.
        writing.set_quick_repair(durability == Durability::Checkpoint);
        let value = fill(&writing).map_err(|error| guard.redb("write", error))?;
        writing.commit().map_err(|error| guard.redb("commit", error))?;
        Ok(value)
    }

    /// The file as the last write left it.
    pub(crate) fn view(self: &Arc<Self>, state: State) -> Result<View> {
        self.guard.run(|| {
            let failed = |error: redb::Error| self.guard.redb("read", error);
            let reading = self.db().begin_read().map_err(|error| failed(error.into()))?;
            let records = reading.open_table(RECORDS).map_err(|error| failed(error.into()))?;
            let mut rows = Vec::with_capacity(Table::ALL.len());
            for table in Table::ALL {
                let opened = reading.open_table(rows_of(table));
                rows.push(opened.map_err(|error| failed(error.into()))?);
            }
            View::new(records, rows, state, Arc::clone(self))
        })
    }

    /// Bytes of pages in use, by walking the trees: slow, for when it has to be exact.
    pub(crate) fn allocated_bytes(&self) -> Result<u64> {
        self.guard.run(|| {
            let begun = self.db().begin_write();
            let writing = begun.map_err(|error| self.guard.redb("begin a write", error))?;
            let stats = writing.stats().map_err(|error| self.guard.redb("read", error))?;
            Ok(stats.allocated_pages() * stats.page_size() as u64)
        })
    }

    /// From now on nothing more reaches the disk through this handle.
    pub(crate) fn shut(&self) {
        self.shut.store(true, Ordering::Release);
    }

    /// Alive until redb has let go of the file, which is after the last [`View`] of it.
    pub(crate) fn in_use(&self) -> Weak<AtomicBool> {
        Arc::downgrade(&self.shut)
    }

    /// The two rows of etched's own table, the format first: the rest depends on it.
    fn read_own(&self) -> Result<(u32, State)> {
        let guard = &self.guard;
        let failed = |error: redb::Error| guard.redb("read", error);
        let reading = self.db().begin_read().map_err(|error| failed(error.into()))?;
        let own = match reading.open_table(OWN) {
            Ok(own) => own,
            Err(TableError::TableDoesNotExist(_)) => {
                let what = "a redb file of another program".to_owned();
                return Err(Error::Foreign { file: guard.file(), what });
            }
            Err(error) => return Err(failed(error.into())),
        };
        let row = |key: &'static [u8]| -> Result<Vec<u8>> {
            let stored = own.get(key).map_err(|error| failed(error.into()))?;
            let stored = stored.ok_or_else(|| guard.damaged("a row of table etched is missing"))?;
            let value = codec::row_of(OWN_TABLE, key, stored.value());
            value.map(<[u8]>::to_vec).map_err(|what| guard.damaged(what))
        };
        let format = <[u8; 4]>::try_from(row(FORMAT_KEY)?)
            .map(u32::from_le_bytes)
            .map_err(|_| guard.damaged("the format version is not four bytes"))?;
        if format > FORMAT_VERSION {
            let file = guard.file();
            return Err(Error::TooNew { file, found: format, known: FORMAT_VERSION });
        }
        let state = State::decode(&row(STATE_KEY)?);
        Ok((format, state.ok_or_else(|| guard.damaged("the state row does not parse"))?))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.guard.check().is_err() {
            self.shut();
        }
        // redb writes its allocator state here. What fails costs the next open a look at the file.
        let _ = self.guard.run(|| {
            drop(self.db.take());
            Ok(())
        });
    }
}

/// Refuses what redb would call damaged although it is only somebody else's.
fn recognise(guard: &Guard, backend: &dyn StorageBackend) -> Result<()> {
    let read = |error| guard.io("read", error);
    let length = backend.len().map_err(read)?;
    let mut head = [0; 20];
    let present = usize::try_from(length).map_or(head.len(), |length| length.min(head.len()));
    backend.read(0, &mut head[..present]).map_err(read)?;
    if head.starts_with(REDB_MAGIC) {
        return Ok(());
    }
    let what = match present {
        0 => return Err(guard.damaged("it is empty")),
        20 if head[16..] == BBOLT_MAGIC => "a bbolt file, as etcd keeps its data in",
        _ => "its first bytes are unknown",
    };
    Err(Error::Foreign { file: guard.file(), what: what.to_owned() })
}

/// Writes the state row.
pub(crate) fn put_state(
    writing: &WriteTransaction,
    state: &State,
) -> std::result::Result<(), redb::Error> {
    let value = codec::row_value(OWN_TABLE, STATE_KEY, &state.encode());
    writing.open_table(OWN)?.insert(STATE_KEY, value.as_slice())?;
    Ok(())
}

/// Appends records behind all others and counts them into `state`.
///
/// Through redb's cursor: it packs pages full and searches once, not once a record.
pub(crate) fn append_records<'a>(
    writing: &WriteTransaction,
    state: &mut State,
    records: impl Iterator<Item = (Revision, bool, &'a [u8])>,
) -> std::result::Result<(), redb::Error> {
    let mut table = writing.open_table(RECORDS)?;
    let mut end = table.upper_bound_mut(std::ops::Bound::<Revision>::Unbounded)?;
    let mut stored = Vec::new();
    for (revision, tombstone, bytes) in records {
        codec::put_record(&mut stored, revision, tombstone, bytes);
        end.insert_before(revision, stored.as_slice())?;
        state.counts.records += 1;
        state.record_bytes += (codec::REVISION_BYTES + stored.len()) as u64;
    }
    end.close()?;
    Ok(())
}

/// Removes records, skipping those that are not there, and counts them out of `state`.
pub(crate) fn remove_records(
    writing: &WriteTransaction,
    state: &mut State,
    revisions: &[Revision],
) -> std::result::Result<(), redb::Error> {
    let mut table = writing.open_table(RECORDS)?;
    for revision in revisions {
        let Some(old) = table.remove(revision)? else { continue };
        let bytes = (codec::REVISION_BYTES + old.value().len()) as u64;
        state.counts.records = state.counts.records.saturating_sub(1);
        state.record_bytes = state.record_bytes.saturating_sub(bytes);
    }
    Ok(())
}

/// Changes rows in order and keeps their counts.
pub(crate) fn change_rows<'a>(
    writing: &WriteTransaction,
    state: &mut State,
    rows: impl Iterator<Item = (Table, &'a [u8], Option<&'a [u8]>)>,
) -> std::result::Result<(), redb::Error> {
    let mut open: [Option<redb::Table<'_, &[u8], &[u8]>>; Table::ALL.len()] = Default::default();
    for (table, key, value) in rows {
        let slot = &mut open[table.place()];
        let rows = match slot {
            Some(rows) => rows,
            None => slot.insert(writing.open_table(rows_of(table))?),
        };
        let count = &mut state.counts.rows[table.place()];
        let old = match value {
            Some(value) => {
                let stored = codec::row_value(table.name(), key, value);
                *count += 1;
                state.row_bytes += (key.len() + stored.len()) as u64;
                rows.insert(key, stored.as_slice())?
            }
            None => rows.remove(key)?,
        };
        if let Some(old) = old {
            *count = count.saturating_sub(1);
            let bytes = (key.len() + old.value().len()) as u64;
            state.row_bytes = state.row_bytes.saturating_sub(bytes);
        }
    }
    Ok(())
}
