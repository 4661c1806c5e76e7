//! The handle of the server: one writer, any number of readers.

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use bytes::Bytes;
use etched_mvcc::{Record, Records, RecordsError, Revision, VisitPart};

use crate::{
    codec::State,
    defragment::Journal,
    error::{Error, Result},
    file::{OpenFile, append_records, change_rows, put_state, remove_records},
    guard::Guard,
    medium::{FileMedium, Medium},
    room,
    types::{Applied, Boot, Commit, Durability, Options, Sizes, Table},
    view::View,
};

/// The redb file behind the log. Share it by `Arc`.
#[derive(Debug)]
pub struct Storage {
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) options: Options,
    /// Held by the one defragmentation there may be.
    pub(crate) copying: Mutex<()>,
    /// The last commit; replaced after each one. Held only to clone or to replace.
    view: RwLock<Arc<View>>,
    writer: Mutex<Writer>,
}

/// What only the writer knows. Whoever holds it is the only one who changes the file.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) file: Arc<OpenFile>,
    pub(crate) state: State,
    /// The highest record ever written through this handle or found at open.
    last: Option<Revision>,
    /// Buffered commits since the last checkpoint: a drop must not make them durable.
    pub(crate) buffered: bool,
    /// Kept while there is a copy that has to follow.
    pub(crate) journal: Option<Journal>,
}

impl Storage {
    /// Opens the file at `path`, or makes it; its folder must exist. Answers at once also for a
    /// large file, after a clean end and after a crash alike.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Missing`], [`Error::TooNew`], [`Error::Foreign`],
    /// [`Error::Damaged`], [`Error::NoSpace`], [`Error::Io`].
    pub fn open(path: &Path, options: Options) -> Result<(Self, Boot)> {
        Self::open_on(Arc::new(FileMedium::new(path)), options)
    }

    /// The same on any medium.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on(medium: Arc<dyn Medium>, options: Options) -> Result<(Self, Boot)> {
        let guard = Arc::new(Guard::new(&medium.name()));
        let opened = OpenFile::open(medium.as_ref(), &guard, &options)?;
        let created = opened.is_none();
        let (file, format, state) = match opened {
            Some(opened) => opened,
            None if !options.create => return Err(Error::Missing { file: guard.file() }),
            None => {
                let file = OpenFile::create(medium.as_ref(), &guard, &options)?;
                let installed = medium.install_copy();
                installed.map_err(|error| guard.io("put it in its place", error))?;
                (file, crate::FORMAT_VERSION, State::default())
            }
        };
        if !created {
            // Only now: the main file is ours, so nobody else is making a copy.
            let discarded = medium.discard_copy();
            discarded.map_err(|error| guard.io("remove an unfinished copy of it", error))?;
        }
        let view = file.view(state.clone())?;
        let boot = Boot {
            created,
            applied: state.applied,
            conf_state: state.conf_state.clone(),
            counts: state.counts,
            format,
        };
        let writer = Writer { file, last: view.last()?, state, buffered: false, journal: None };
        let (view, writer) = (RwLock::new(Arc::new(view)), Mutex::new(writer));
        Ok((Self { medium, options, copying: Mutex::default(), view, writer }, boot))
    }

    /// Brings the file to the index of `commit`, wholly or not at all. Readers see it when the call
    /// returns, and the commit before it until then.
    ///
    /// One call at a time; others wait. With [`Durability::Checkpoint`] all earlier buffered
    /// commits become durable too: the log must hold a synced HardState with a commit index at
    /// least as high before.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] and [`Error::NoSpace`] with `usable`: nothing was changed. Any other
    /// error, also one that a read met before: this handle writes no more ([`Error::Stopped`]), and
    /// the log brings the file up to date after a restart.
    pub fn commit(&self, commit: &Commit, durability: Durability) -> Result<()> {
        let mut writer = self.writer();
        let file = Arc::clone(&writer.file);
        file.guard.check()?;
        writer.check_order(&file.guard, commit)?;
        room::check(self, &writer, commit, durability)?;
        let mut state = writer.state.clone();
        state.applied = commit.applied;
        if let Some(conf_state) = &commit.conf_state {
            state.conf_state = Some(conf_state.clone());
        }
        file.guard.run(|| {
            file.write(durability, |writing| {
                if !commit.records.is_empty() {
                    let records = commit.records.iter();
                    let records =
                        records.map(|(at, record)| (*at, record.tombstone, &*record.bytes));
                    append_records(writing, &mut state, records)?;
                }
                if !commit.removed.is_empty() {
                    remove_records(writing, &mut state, &commit.removed)?;
                }
                let rows = commit.rows.iter();
                let rows = rows.map(|(table, key, value)| (*table, &**key, value.as_deref()));
                change_rows(writing, &mut state, rows)?;
                put_state(writing, &state)
            })
        })?;
        writer.buffered = durability == Durability::Buffered;
        writer.last = commit.records.last().map(|(revision, _)| *revision).or(writer.last);
        writer.state = state;
        if let Some(journal) = &mut writer.journal {
            journal.removed.extend(&commit.removed);
            journal.rows.extend(commit.rows.iter().cloned());
        }
        self.publish(&writer)?;
        Ok(())
    }

    /// Removes compacted records in a buffered commit of its own at the present index. Ascending;
    /// one that is not there is skipped.
    ///
    /// The pages come free with the second checkpoint after it: between checkpoints the file grows
    /// by the pages that removals rewrite.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn remove_records(&self, revisions: &[Revision]) -> Result<()> {
        let commit =
            Commit { applied: self.applied(), removed: revisions.to_vec(), ..Commit::default() };
        self.commit(&commit, Durability::Buffered)
    }

    /// The index of the last commit.
    pub fn applied(&self) -> Applied {
        self.view().applied()
    }

    /// The last commit, fixed.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every row of a table in the order of its keys.
    ///
    /// # Errors
    /// As [`View::rows`].
    pub fn rows(&self, table: Table) -> Result<Vec<(Bytes, Bytes)>> {
        self.view().rows(table)
    }

    /// How large the file is.
    ///
    /// # Errors
    /// [`Error::Io`] when the operating system does not say.
    pub fn sizes(&self) -> Result<Sizes> {
        let view = self.view();
        let room = self.medium.room().map_err(|error| view.guard().io("stat", error))?;
        let live_bytes = view.live_bytes().min(room.taken);
        Ok(Sizes { file_bytes: room.taken, live_bytes })
    }

    /// Bytes of the file's pages that are in use, by walking all of it: slow, and it waits for commits. Pages whose
    /// rows the last commits removed count until a checkpoint has let go of them.
    ///
    /// # Errors
    /// As [`View::get`].
    pub fn allocated_bytes(&self) -> Result<u64> {
        self.writer().file.allocated_bytes()
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows readers what the writer has made; the view before.
    pub(crate) fn publish(&self, writer: &Writer) -> Result<Arc<View>> {
        let view = Arc::new(writer.file.view(writer.state.clone())?);
        let mut shown = self.view.write().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut *shown, view))
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let writer = self.writer();
        if writer.buffered {
            writer.file.shut();
        }
    }
}

impl Writer {
    /// What there is for a copy to follow up to the last commit.
    pub(crate) fn take_journal(&mut self) -> Journal {
        self.journal.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn check_order(&self, guard: &Guard, commit: &Commit) -> Result<()> {
        let refuse =
            |what, next, last| Err(Error::OutOfOrder { file: guard.file(), what, next, last });
        let place = |applied: Applied| Revision {
            main: i64::try_from(applied.index).unwrap_or(i64::MAX),
            sub: i64::try_from(applied.term).unwrap_or(i64::MAX),
        };
        let applied = self.state.applied;
        if commit.applied.index < applied.index || commit.applied.term < applied.term {
            return refuse("applied index", place(commit.applied), place(applied));
        }
        let mut last = self.last.unwrap_or(Revision { main: 0, sub: -1 });
        for (revision, _) in &commit.records {
            if *revision <= last || revision.sub < 0 {
                return refuse("record", *revision, last);
            }
            last = *revision;
        }
        Ok(())
    }
}

impl Records for Storage {
    fn visit_sorted(
        &self,
        revisions: &[Revision],
        visit: &mut dyn FnMut(usize, &[u8]),
    ) -> std::result::Result<(), RecordsError> {
        Records::visit_sorted(&*self.view(), revisions, visit)
    }

    fn get_many(
        &self,
        revisions: &[Revision],
        found: &mut Vec<Option<Record>>,
    ) -> std::result::Result<(), RecordsError> {
        Records::get_many(&*self.view(), revisions, found)
    }

    fn get(&self, revision: Revision) -> std::result::Result<Option<Record>, RecordsError> {
        Records::get(&*self.view(), revision)
    }

    fn scan(
        &self,
        from: Revision,
        until: Revision,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> std::result::Result<(), RecordsError> {
        Records::scan(&*self.view(), from, until, visit)
    }

    fn scan_all(&self, parts: &mut [&mut VisitPart<'_>]) -> std::result::Result<(), RecordsError> {
        Records::scan_all(&*self.view(), parts)
    }
}
