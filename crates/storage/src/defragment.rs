//! Giving free pages back to the disk: the live rows go into a new file, which takes the old one's
//! place.
//!
//! ```text
//! checkpoint -> copy of the view -> sync -> rename + sync of the folder -> publish
//!               (readers go on with the old file, commits wait)
//! ```
//! A crash before the rename leaves the old file, and a copy that the next open removes.

use std::{ops::ControlFlow, sync::Arc};

use etched_mvcc::Revision;

use crate::{
    codec::State,
    error::{Error, Result},
    file::{OpenFile, append_records, change_rows, put_state},
    storage::{Storage, Writer},
    types::{Durability, Table},
    view::View,
};

/// Bytes of records that go over in one transaction.
const BATCH_BYTES: usize = 8 << 20;

impl Storage {
    /// Writes all live rows into a new file and puts it in the place of this one. Commits wait;
    /// readers do not. Starts with a checkpoint, so [`Storage::commit`]'s rule on the log's
    /// HardState holds for it too.
    ///
    /// # Errors
    /// As [`Storage::commit`]. The old file stays in use then, unless it is what failed.
    pub fn defragment(&self) -> Result<()> {
        self.guard.check()?;
        let mut writer = self.writer();
        self.checkpoint(&mut writer)?;
        let room = self.medium.room().map_err(|error| self.guard.io("stat", error))?;
        let view = self.view();
        if room.available < view.live_bytes() + self.options.cache_bytes as u64 {
            return Err(Error::NoSpace { file: self.guard.file(), usable: true });
        }
        let copied = self.copy(&view);
        let file = copied.inspect_err(|_| {
            // A left-over is only wasted room; the next defragmentation or open removes it.
            let _ = self.medium.discard_copy();
        })?;
        let installed = self.medium.install_copy();
        installed.map_err(|error| self.guard.io("put it in its place", error))?;
        writer.file = file;
        self.publish(&writer)
    }

    fn checkpoint(&self, writer: &mut Writer) -> Result<()> {
        if writer.buffered {
            let state = writer.state.clone();
            let file = Arc::clone(&writer.file);
            self.guard
                .run(|| file.write(Durability::Checkpoint, |writing| put_state(writing, &state)))?;
            writer.buffered = false;
            self.publish(writer)?;
        }
        Ok(())
    }

    fn copy(&self, view: &View) -> Result<Arc<OpenFile>> {
        // Twice the memory for pages while both are open would break the budget.
        let file = OpenFile::create(self.medium.as_ref(), &self.guard, &self.options)?;
        let mut state = State {
            applied: view.applied(),
            conf_state: view.conf_state().cloned(),
            ..State::default()
        };
        self.copy_records(view, &file, &mut state)?;
        self.guard.run(|| {
            let mut rows = Vec::new();
            for table in Table::ALL {
                rows.extend(view.rows(table)?.into_iter().map(|(key, value)| (table, key, value)));
            }
            file.write(Durability::Checkpoint, |writing| {
                let rows = rows.iter().map(|(table, key, value)| (*table, &**key, Some(&**value)));
                change_rows(writing, &mut state, rows)?;
                put_state(writing, &state)
            })
        })?;
        if state.counts != *view.counts() {
            return Err(self.guard.damaged("a copy does not hold as many rows as the file"));
        }
        Ok(file)
    }

    fn copy_records(&self, view: &View, file: &OpenFile, state: &mut State) -> Result<()> {
        let mut from = Revision::default();
        let end = Revision { main: i64::MAX, sub: i64::MAX };
        loop {
            let (mut batch, mut places) = (Vec::with_capacity(BATCH_BYTES), Vec::new());
            view.scan(from, end, &mut |revision, record| {
                let start = batch.len();
                batch.extend_from_slice(record.bytes);
                places.push((revision, record.tombstone, start..batch.len()));
                if batch.len() < BATCH_BYTES {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
            let Some((last, ..)) = places.last() else { return Ok(()) };
            from = Revision { main: last.main, sub: last.sub + 1 };
            self.guard.run(|| {
                file.write(Durability::Buffered, |writing| {
                    let records = places.iter();
                    let records =
                        records.map(|(at, dead, place)| (*at, *dead, &batch[place.clone()]));
                    append_records(writing, state, records)
                })
            })?;
        }
    }
}
