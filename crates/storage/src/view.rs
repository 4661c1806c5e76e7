//! The file at one commit, for any number of readers at once.
//!
//! A view fixes redb's read transaction, so everything read through it belongs to one index. It
//! keeps the pages it can see from being used again: hold one for as long as an answer takes, not
//! longer.

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use etched_mvcc::{RawRecord, Record, Records, RecordsError, Revision, VisitPart};
use redb::{ReadOnlyTable, ReadableTable, ReadableTableMetadata};

use crate::{
    codec::{self, RevisionKey, State},
    error::{Error, Result},
    file::OpenFile,
    guard::Guard,
    types::{Applied, Counts, Table},
};

/// Revisions at most this far apart are read by walking from one to the other.
const NEAR: i64 = 20;

/// The file at one commit.
pub struct View {
    // Before `file`: redb closes with the database, and a table must not outlive it.
    records: ReadOnlyTable<RevisionKey, &'static [u8]>,
    rows: Vec<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    state: State,
    file: Arc<OpenFile>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("View").field("state", &self.state).finish_non_exhaustive()
    }
}

impl View {
    /// Fails when the tables do not hold as many rows as the commit says.
    pub(crate) fn new(
        records: ReadOnlyTable<RevisionKey, &'static [u8]>,
        rows: Vec<ReadOnlyTable<&'static [u8], &'static [u8]>>,
        state: State,
        file: Arc<OpenFile>,
    ) -> Result<Self> {
        let failed = |error| file.guard.redb("read", error);
        let mut found = Counts { records: records.len().map_err(failed)?, ..Counts::default() };
        for (count, table) in found.rows.iter_mut().zip(&rows) {
            *count = table.len().map_err(failed)?;
        }
        if found != state.counts {
            let what = format!("row counts are {found:?}, committed were {:?}", state.counts);
            return Err(file.guard.damaged(what));
        }
        Ok(Self { records, rows, state, file })
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.file.guard
    }

    /// The index this view stands at.
    pub const fn applied(&self) -> Applied {
        self.state.applied
    }

    /// The membership at that index.
    pub const fn conf_state(&self) -> Option<&etched_proto::raftpb::ConfState> {
        self.state.conf_state.as_ref()
    }

    /// Rows by table.
    pub const fn counts(&self) -> &Counts {
        &self.state.counts
    }

    /// The record of one change, or none.
    ///
    /// # Errors
    /// [`Error::Damaged`] when its checksum does not match; [`Error::Io`] and [`Error::Stopped`].
    pub fn get(&self, revision: Revision) -> Result<Option<Record>> {
        let guard = &self.file.guard;
        guard.run(|| {
            let found = self.records.get(revision).map_err(|error| guard.redb("read", error))?;
            let Some(stored) = found else { return Ok(None) };
            let (tombstone, bytes) =
                codec::record_of(revision, stored.value()).map_err(|what| guard.damaged(what))?;
            Ok(Some(Record { tombstone, bytes: Bytes::copy_from_slice(bytes) }))
        })
    }

    /// Calls `visit` for every record in `from..until`, in order, until it breaks; nothing is
    /// copied.
    ///
    /// # Errors
    /// As [`get`](Self::get), after the records before the fault were visited.
    pub fn scan(
        &self,
        from: Revision,
        until: Revision,
        visit: &mut dyn FnMut(Revision, RawRecord<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        if from >= until {
            return Ok(());
        }
        let guard = &self.file.guard;
        guard.run(|| {
            let failed = |error| guard.redb("read", error);
            let mut last = None;
            for row in self.records.range(from..until).map_err(failed)? {
                let (key, stored) = row.map_err(failed)?;
                let (revision, stored) = (key.value(), stored.value());
                // A damaged tree may lead to right records in a wrong place.
                if revision < from || revision >= until || last >= Some(revision) {
                    let Revision { main, sub } = revision;
                    return Err(guard.damaged(format!("record {main}.{sub} is out of order")));
                }
                last = Some(revision);
                let (tombstone, bytes) =
                    codec::record_of(revision, stored).map_err(|what| guard.damaged(what))?;
                if visit(revision, RawRecord { tombstone, bytes }).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Calls `visit` with the place in `revisions`, which ascend, and the record of each one that is
    /// there.
    ///
    /// Revisions that lie close are read by one walk along the pages, which also meets the records between
    /// them: a row passed over costs a twentieth of a look-up.
    ///
    /// # Errors
    /// As [`get`](Self::get), after the records before the fault were visited.
    pub fn visit_sorted(
        &self,
        revisions: &[Revision],
        visit: &mut dyn FnMut(usize, RawRecord<'_>),
    ) -> Result<()> {
        let guard = &self.file.guard;
        guard.run(|| {
            let mut first = 0;
            while first < revisions.len() {
                let run = run_length(&revisions[first..]);
                self.visit_run(&revisions[first..first + run], &mut |place, record| {
                    visit(first + place, record);
                })?;
                first += run;
            }
            Ok(())
        })
    }

    fn visit_run(
        &self,
        revisions: &[Revision],
        visit: &mut dyn FnMut(usize, RawRecord<'_>),
    ) -> Result<()> {
        let guard = &self.file.guard;
        let failed = |error| guard.redb("read", error);
        let mut found = |place: usize, stored: &[u8]| {
            let record = codec::record_of(revisions[place], stored);
            let (tombstone, bytes) = record.map_err(|what| guard.damaged(what))?;
            visit(place, RawRecord { tombstone, bytes });
            Ok(())
        };
        let [first, .., last] = revisions else {
            let stored = self.records.get(revisions[0]).map_err(failed)?;
            return stored.map_or(Ok(()), |stored| found(0, stored.value()));
        };
        let (mut place, mut passed) = (0, 0);
        let mut rows = self.records.range(*first..=*last).map_err(failed)?;
        while let Some(row) = rows.next() {
            let (key, stored) = row.map_err(failed)?;
            let revision = key.value();
            passed += 1;
            while revisions.get(place).is_some_and(|wanted| *wanted < revision) {
                place += 1;
            }
            while revisions.get(place) == Some(&revision) {
                found(place, stored.value())?;
                (place, passed) = (place + 1, 0);
            }
            // One revision may have any number of records.
            if let (true, Some(next)) = (passed > NEAR, revisions.get(place)) {
                rows = self.records.range(*next..=*last).map_err(failed)?;
                passed = 0;
            }
        }
        Ok(())
    }

    /// Every row of a table in the order of its keys.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`Error::Damaged`] when their number is not the committed one.
    pub fn rows(&self, table: Table) -> Result<Vec<(Bytes, Bytes)>> {
        let guard = &self.file.guard;
        guard.run(|| {
            let failed = |error| guard.redb("read", error);
            let expected = self.state.counts.of(table);
            let mut rows: Vec<(Bytes, Bytes)> = Vec::new();
            for row in self.rows[table.place()].iter().map_err(failed)? {
                let (key, stored) = row.map_err(failed)?;
                let row = codec::checked_row(table, key.value(), stored.value());
                let row = row.map_err(|what| guard.damaged(what))?;
                if rows.last().is_some_and(|(last, _)| *last >= row.0) {
                    let name = table.name();
                    return Err(guard.damaged(format!("table {name} is out of order")));
                }
                rows.push(row);
            }
            self.check_count(table.name(), rows.len() as u64, expected)?;
            Ok(rows)
        })
    }

    /// The highest record.
    pub(crate) fn last(&self) -> Result<Option<Revision>> {
        let guard = &self.file.guard;
        guard.run(|| {
            let last = self.records.last().map_err(|error| guard.redb("read", error))?;
            Ok(last.map(|(key, _)| key.value()))
        })
    }

    /// What live rows need on the disk, with the overhead of well filled pages.
    pub(crate) const fn live_bytes(&self) -> u64 {
        let counts = &self.state.counts;
        let mut rows = counts.records;
        let mut place = 0;
        while place < counts.rows.len() {
            rows += counts.rows[place];
            place += 1;
        }
        let bytes = self.state.record_bytes + self.state.row_bytes + rows * 4;
        bytes + bytes / 24 + 20 * 4096
    }

    fn check_count(&self, table: &str, found: u64, expected: u64) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        let what = format!("table {table} has {found} rows, committed were {expected}");
        Err(self.file.guard.damaged(what))
    }

    /// The lowest and the highest record; the same when there is none.
    pub(crate) fn ends(&self) -> Result<(Revision, Revision)> {
        let guard = &self.file.guard;
        guard.run(|| {
            let failed = |error| guard.redb("read", error);
            let first = self.records.first().map_err(failed)?.map(|(key, _)| key.value());
            let last = self.records.last().map_err(failed)?.map(|(key, _)| key.value());
            Ok(first.zip(last).unwrap_or_default())
        })
    }

    /// Fails when `found` is not the number of records committed.
    pub(crate) fn check_records(&self, found: u64) -> Result<()> {
        self.check_count("key", found, self.state.counts.records)
    }
}

/// How many of the first of `revisions` lie so close that walking from one to the next is cheaper than looking
/// each one up.
fn run_length(revisions: &[Revision]) -> usize {
    let far = |pair: &[Revision]| pair[1].main - pair[0].main > NEAR;
    revisions.windows(2).position(far).map_or(revisions.len(), |place| place + 1)
}

impl Records for View {
    fn visit_sorted(
        &self,
        revisions: &[Revision],
        visit: &mut dyn FnMut(usize, &[u8]),
    ) -> std::result::Result<(), RecordsError> {
        let visit = &mut |place, record: RawRecord<'_>| visit(place, record.bytes);
        Self::visit_sorted(self, revisions, visit).map_err(Error::into)
    }

    fn get_many(
        &self,
        revisions: &[Revision],
        found: &mut Vec<Option<Record>>,
    ) -> std::result::Result<(), RecordsError> {
        if let [revision] = revisions {
            found.push(Records::get(self, *revision)?);
            return Ok(());
        }
        let mut order: Vec<usize> = (0..revisions.len()).collect();
        order.sort_unstable_by_key(|&place| revisions[place]);
        let sorted: Vec<Revision> = order.iter().map(|&place| revisions[place]).collect();
        let start = found.len();
        found.resize(start + revisions.len(), None);
        let visit = &mut |nth: usize, RawRecord { tombstone, bytes }: RawRecord<'_>| {
            let bytes = Bytes::copy_from_slice(bytes);
            found[start + order[nth]] = Some(Record { tombstone, bytes });
        };
        Self::visit_sorted(self, &sorted, visit).map_err(Error::into)
    }

    fn get(&self, revision: Revision) -> std::result::Result<Option<Record>, RecordsError> {
        Self::get(self, revision).map_err(Error::into)
    }

    fn scan(
        &self,
        from: Revision,
        until: Revision,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> std::result::Result<(), RecordsError> {
        let copied = &mut |revision, RawRecord { tombstone, bytes }: RawRecord<'_>| {
            visit(revision, Record { tombstone, bytes: Bytes::copy_from_slice(bytes) })
        };
        Self::scan(self, from, until, copied).map_err(Error::into)
    }

    fn scan_all(&self, parts: &mut [&mut VisitPart<'_>]) -> std::result::Result<(), RecordsError> {
        Self::scan_all(self, parts).map_err(Error::into)
    }
}
