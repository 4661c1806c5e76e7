//! What one change of one key is called and what is kept of it.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::kv::Kv;

/// The name of one change: the revision of the store and the place inside it.
///
/// A fresh store stands at main revision 1; the first write makes 2. All changes of one transaction
/// share `main`; `sub` counts them from 0 in the order of execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision {
    /// Revision of the store that this change made.
    pub main: i64,
    /// Place among the changes of that revision.
    pub sub: i64,
}

impl Revision {
    /// The highest main revision that a store is opened at. At a million writes a second it is 146,000 years away, and
    /// above it is room for as many again: so no revision, and nothing that is counted up with them, runs over.
    pub const MAIN_MAX: i64 = 1 << 62;
    /// The highest place: the index keeps 32 bits of it.
    pub const SUB_MAX: i64 = u32::MAX as i64;

    /// Whether a store may hold such a change.
    pub const fn is_possible(self) -> bool {
        0 <= self.main && self.main <= Self::MAIN_MAX && 0 <= self.sub && self.sub <= Self::SUB_MAX
    }

    /// The first place of revision `main`.
    pub const fn start_of(main: i64) -> Self {
        Self { main, sub: 0 }
    }
}

/// What is stored under a [`Revision`]: the very bytes that etcd keeps in its `key` bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key was deleted; `bytes` then holds only the key field.
    pub tombstone: bool,
    /// An encoded `mvccpb.KeyValue`.
    pub bytes: Bytes,
}

impl Record {
    /// Whether a store can be opened that has this record at `revision`.
    ///
    /// # Errors
    /// What [`Store::open`](crate::Store::open) would say.
    pub fn check(&self, revision: Revision) -> Result<(), RecordsError> {
        let record = RawRecord { tombstone: self.tombstone, bytes: &self.bytes };
        record.checked(revision).map(|_| ())
    }
}

/// A [`Record`] where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// As in [`Record::tombstone`].
    pub tombstone: bool,
    /// As in [`Record::bytes`].
    pub bytes: &'a [u8],
}

impl<'r> RawRecord<'r> {
    /// Its fields, when a store can be opened that has it at `revision`. The index takes the place of most of them:
    /// from it comes how long an answer will be, before its records are read.
    pub(crate) fn checked(self, revision: Revision) -> Result<Kv<'r>, RecordsError> {
        let Revision { main, sub } = revision;
        let wrong = |what: &str| Err(RecordsError(format!("record {main}/{sub} {what}")));
        if !revision.is_possible() {
            return wrong("has a revision that no store reaches");
        }
        let kv = Kv::of(revision, self.bytes)?;
        if self.tombstone || self.bytes.is_empty() {
            return Ok(kv);
        }
        if kv.version <= 0 {
            return wrong("is a put without a version");
        }
        if kv.mod_revision != main {
            return wrong(&format!("says it is of revision {}", kv.mod_revision));
        }
        // The version counts changes, so it is not above the number of revisions either.
        if !(1..=main).contains(&kv.create_revision) || kv.version > Revision::MAIN_MAX {
            let (created, version) = (kv.create_revision, kv.version);
            return wrong(&format!(
                "says its key began at revision {created} and has version {version}"
            ));
        }
        Ok(kv)
    }
}

/// What [`Records::scan_all`] calls with each record of one part; to break stops all parts.
pub type VisitPart<'a> = dyn FnMut(Revision, RawRecord<'_>) -> ControlFlow<()> + Send + 'a;

/// Records that have left the memory table.
pub trait Records: Send + Sync {
    /// The record of one change, or none.
    ///
    /// # Errors
    /// [`RecordsError`] when the medium fails or a checksum does not match.
    fn get(&self, revision: Revision) -> Result<Option<Record>, RecordsError>;

    /// Looks up many records at once; adds one answer for each revision, in their order.
    ///
    /// Range answers come through here: a medium that has a cost per lookup, such as opening a snapshot,
    /// overrides it.
    ///
    /// # Errors
    /// [`RecordsError`] when the medium fails or a checksum does not match.
    fn get_many(
        &self,
        revisions: &[Revision],
        found: &mut Vec<Option<Record>>,
    ) -> Result<(), RecordsError> {
        for &revision in revisions {
            found.push(self.get(revision)?);
        }
        Ok(())
    }

    /// Calls `visit` with the place in `revisions`, which ascend, and the bytes of each one's record, in
    /// that order; a revision that is not there is passed over.
    ///
    /// Large answers come through here: a medium that reads neighbours cheaper than single records overrides
    /// it.
    ///
    /// # Errors
    /// [`RecordsError`] when the medium fails or a checksum does not match.
    fn visit_sorted(
        &self,
        revisions: &[Revision],
        visit: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), RecordsError> {
        for (place, &revision) in revisions.iter().enumerate() {
            if let Some(record) = self.get(revision)? {
                visit(place, &record.bytes);
            }
        }
        Ok(())
    }

    /// Calls `visit` for every record in `from..until`, in order, until it breaks.
    ///
    /// # Errors
    /// [`RecordsError`] when the medium fails or a checksum does not match.
    fn scan(
        &self,
        from: Revision,
        until: Revision,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), RecordsError>;

    /// Gives every record to one of `parts`, of which there is one at least: to each in ascending pieces, but
    /// the pieces in any order and the parts on threads of their own.
    ///
    /// The start comes through here: a medium that can be read by several threads overrides it.
    ///
    /// # Errors
    /// [`RecordsError`] when the medium fails, a checksum does not match or a record is missing.
    fn scan_all(&self, parts: &mut [&mut VisitPart<'_>]) -> Result<(), RecordsError> {
        let end = Revision { main: i64::MAX, sub: i64::MAX };
        self.scan(Revision::default(), end, &mut |revision, Record { tombstone, bytes }| {
            parts[0](revision, RawRecord { tombstone, bytes: &bytes })
        })
    }
}

/// The medium behind [`Records`] failed; the text is one line for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordsError(pub String);
