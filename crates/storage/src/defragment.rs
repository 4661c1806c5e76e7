//! Giving free pages back to the disk: the live rows go into a new file, which takes the old one's
//! place, while commits and reads go on.
//!
//! ```text
//! begin ──> step, step, ... ──────────────> finish
//!           newest view, from where the     commits wait: the last step, log synced,
//!           copy ends; then what was        sync ──> rename + sync of the folder ──> publish
//!           removed or changed behind it
//! ```
//! Invariant: after a step, the copy holds what the view of that step does of all records below
//! `from`, and every other row. So a copy whose `from` is behind the last record is that view.
//!
//! A crash before the rename leaves the old file, and a copy that the next open removes; after it,
//! the file stands at the index of the last step, as after a checkpoint.

use std::{
    ops::{ControlFlow, Range},
    sync::{Arc, MutexGuard, PoisonError},
};

use bytes::Bytes;
use etched_mvcc::Revision;

use crate::{
    codec::State,
    error::{Error, Result},
    file::{OpenFile, append_records, change_rows, put_state, remove_records},
    guard::Guard,
    retired::Retired,
    storage::{Storage, Writer},
    types::{Durability, Table},
    view::View,
};

/// Bytes that go over in one step when nobody is in the way.
const STEP_BYTES: usize = 8 << 20;

/// What commits did behind the end of the copy since its last step.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) removed: Vec<Revision>,
    pub(crate) rows: Vec<(Table, Bytes, Option<Bytes>)>,
}

/// A copy in the making. Dropped before its end it leaves everything as it was.
///
/// Between steps it holds no lock and no view, so that the pages commits free are used again.
#[derive(Debug)]
pub struct Defragmentation<'s> {
    storage: &'s Storage,
    file: Arc<OpenFile>,
    state: State,
    /// The records below are copied.
    from: Revision,
    /// Rows of other tables are copied as well.
    rows: bool,
    /// A commit took a copy's place: there is nothing to clear away.
    installed: bool,
    _turn: MutexGuard<'s, ()>,
}

/// A slice of records on its way.
#[derive(Default)]
struct Slice {
    bytes: Vec<u8>,
    places: Vec<(Revision, bool, Range<usize>)>,
}

/// How often a copy is synced before commits wait, at most.
const SYNCS_MAX: usize = 4;
/// Records of a step that catches up with what came while the copy was synced.
const SETTLE_BYTES: usize = 1 << 20;
/// Such steps between two syncs. A load that brings more meets a last step that is longer.
const SETTLE_STEPS_MAX: usize = 256;

impl Storage {
    /// Writes all live rows into a new file and puts it in the place of this one, without a pause.
    /// The log must hold a synced HardState as for a checkpoint, see [`Storage::commit`].
    ///
    /// # Errors
    /// As [`Defragmentation::step`] and [`Defragmentation::finish`].
    pub fn defragment(&self) -> Result<()> {
        let mut copy = self.begin_defragment()?;
        while copy.step(STEP_BYTES)? {}
        copy.finish(|| true).map(drop)
    }

    /// Begins a copy; a second one waits here for the end of the first.
    ///
    /// # Errors
    /// [`Error::NoSpace`] with `usable`, [`Error::Io`], [`Error::Stopped`].
    pub fn begin_defragment(&self) -> Result<Defragmentation<'_>> {
        let turn = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        self.view().guard().check()?;
        self.check_room(0)?;
        // A guard of its own: what fails in the copy does not stop the file.
        let guard = Arc::new(Guard::new(&self.medium.name()));
        let file = OpenFile::create(self.medium.as_ref(), &guard, &self.options);
        let copy = Defragmentation {
            storage: self,
            file: file.map_err(usable)?,
            state: State::default(),
            from: Revision::default(),
            rows: false,
            installed: false,
            _turn: turn,
        };
        self.writer().journal = Some(Journal::default());
        Ok(copy)
    }

    /// Is there room for what a copy of `copied` bytes still lacks?
    fn check_room(&self, copied: u64) -> Result<()> {
        let view = self.view();
        let room = self.medium.room().map_err(|error| view.guard().io("stat", error))?;
        let lacks = view.live_bytes().saturating_sub(copied);
        if room.available < lacks + self.options.cache_bytes as u64 {
            return Err(Error::NoSpace { file: view.guard().file(), usable: true });
        }
        Ok(())
    }
}

/// A full disk under the copy costs the copy only.
fn usable(error: Error) -> Error {
    match error {
        Error::NoSpace { file, .. } => Error::NoSpace { file, usable: true },
        other => other,
    }
}

impl Defragmentation<'_> {
    /// Copies about `budget` bytes of records; false when less than half of that was left, so that
    /// [`finish`](Self::finish) may take what comes next.
    ///
    /// # Errors
    /// [`Error::NoSpace`] with `usable` when the copy does not fit, and whatever else fails in it:
    /// the file goes on as it was. Errors of a read of the file are those of [`View::get`].
    pub fn step(&mut self, budget: usize) -> Result<bool> {
        self.storage.check_room(self.state.record_bytes + self.state.row_bytes)?;
        let mut writer = self.storage.writer();
        // Under the lock, so that both are of one moment.
        let (view, journal) = (self.storage.view(), writer.take_journal());
        drop(writer);
        let copied = self.copy(&view, &journal, budget, Durability::Buffered)?;
        Ok(copied > budget / 2)
    }

    /// Takes what is left and puts the copy in the place of the file. Commits wait meanwhile;
    /// readers do not, and those of the old file go on with it. What is left of that is the answer.
    ///
    /// `sync_log` makes the log hold a synced HardState with a commit index at or above
    /// [`Storage::applied`], which does not move while it runs; false gives everything up.
    ///
    /// # Errors
    /// As [`step`](Self::step); one of the rename stops the handle.
    pub fn finish(mut self, sync_log: impl FnOnce() -> bool) -> Result<Retired> {
        self.settle()?;
        let storage = self.storage;
        let mut writer = storage.writer();
        let guard = Arc::clone(&writer.file.guard);
        guard.check()?;
        let (view, journal) = (storage.view(), writer.take_journal());
        if !sync_log() {
            let first = "the log has ended".to_owned();
            return Err(Error::Stopped { file: guard.file(), first });
        }
        self.copy(&view, &journal, usize::MAX, Durability::Checkpoint)?;
        if self.state.counts != *view.counts() {
            return Err(guard.damaged("a copy does not hold as many rows as the file"));
        }
        // Without it the file goes in one piece: it costs calm only.
        let held = storage.medium.hold_main().unwrap_or_default();
        let readers = writer.file.in_use();
        let old = self.install(&mut writer, &guard)?;
        drop(writer);
        drop(old);
        Ok(Retired::new(held, readers))
    }

    /// Syncs the copy, and catches up with what came meanwhile, until that is little: what is left is copied and
    /// synced while commits wait.
    fn settle(&mut self) -> Result<()> {
        for _ in 0..SYNCS_MAX {
            let state = self.state.clone();
            let written = self.file.guard.run(|| {
                self.file.write(Durability::Checkpoint, |writing| put_state(writing, &state))
            });
            written.map_err(usable)?;
            let mut steps = 0;
            while self.step(SETTLE_BYTES)? && steps < SETTLE_STEPS_MAX {
                steps += 1;
            }
            if steps == 0 {
                break;
            }
        }
        Ok(())
    }

    fn install(&mut self, writer: &mut Writer, guard: &Guard) -> Result<Arc<View>> {
        let installed = self.storage.medium.install_copy();
        self.installed = true;
        installed.map_err(|error| guard.io("put the copy in its place", error))?;
        // It has no name any more: nothing of it is worth a write.
        writer.file.shut();
        writer.file = Arc::clone(&self.file);
        writer.state = self.state.clone();
        writer.buffered = false;
        writer.journal = None;
        self.storage.publish(writer)
    }

    /// Brings the copy to `view`, up to about `limit` bytes of records; how many were copied.
    fn copy(
        &mut self,
        view: &View,
        journal: &Journal,
        limit: usize,
        durability: Durability,
    ) -> Result<usize> {
        let slice = Slice::read(view, self.from, limit)?;
        let rows = if self.rows { journal.rows.clone() } else { all_rows(view)? };
        let from = self.from;
        // Others are not in the view, or not copied yet.
        let removed = journal.removed.iter().copied().filter(|removed| *removed < from);
        let removed: Vec<Revision> = removed.collect();
        let mut state = self.state.clone();
        (state.applied, state.conf_state) = (view.applied(), view.conf_state().cloned());
        let file = &self.file;
        let written = file.guard.run(|| {
            file.write(durability, |writing| {
                remove_records(writing, &mut state, &removed)?;
                append_records(writing, &mut state, slice.records())?;
                let rows =
                    rows.iter().map(|(table, key, value)| (*table, &**key, value.as_deref()));
                change_rows(writing, &mut state, rows)?;
                put_state(writing, &state)
            })
        });
        written.map_err(usable)?;
        self.state = state;
        self.rows = true;
        if let Some((last, ..)) = slice.places.last() {
            self.from = Revision { main: last.main, sub: last.sub + 1 };
        }
        Ok(slice.bytes.len())
    }
}

impl Drop for Defragmentation<'_> {
    fn drop(&mut self) {
        if !self.installed {
            self.storage.writer().journal = None;
            self.file.shut();
            // A left-over is only wasted room; the next defragmentation or open removes it.
            let _ = self.storage.medium.discard_copy();
        }
    }
}

impl Slice {
    /// Records from `from` on, in one piece of memory.
    fn read(view: &View, from: Revision, limit: usize) -> Result<Self> {
        let mut slice = Self::default();
        let end = Revision { main: i64::MAX, sub: i64::MAX };
        view.scan(from, end, &mut |revision, record| {
            let start = slice.bytes.len();
            slice.bytes.extend_from_slice(record.bytes);
            slice.places.push((revision, record.tombstone, start..slice.bytes.len()));
            if slice.bytes.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(slice)
    }

    fn records(&self) -> impl Iterator<Item = (Revision, bool, &[u8])> {
        self.places.iter().map(|(at, dead, place)| (*at, *dead, &self.bytes[place.clone()]))
    }
}

fn all_rows(view: &View) -> Result<Vec<(Table, Bytes, Option<Bytes>)>> {
    let mut rows = Vec::new();
    for table in Table::ALL {
        rows.extend(view.rows(table)?.into_iter().map(|(key, value)| (table, key, Some(value))));
    }
    Ok(rows)
}
