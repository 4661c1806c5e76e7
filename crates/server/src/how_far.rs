//! How far long work is, for whoever shows it meanwhile.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use etched_mvcc::{RawRecord, Record, Records, RecordsError, Revision, VisitPart};
use etched_storage::Storage;

/// Work done, out of all there is; both in whatever the work counts.
#[derive(Debug, Default)]
pub struct HowFar {
    done: AtomicU64,
    total: AtomicU64,
}

impl HowFar {
    /// Done and total; nobody knows the total while it is 0.
    pub fn now(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// So much is done, of so much.
    pub fn set(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// So much more is done.
    pub(crate) fn add(&self, more: u64) {
        self.done.fetch_add(more, Ordering::Relaxed);
    }
}

/// A store's file whose scans are counted, by record.
pub(crate) struct Counted {
    pub(crate) storage: Arc<Storage>,
    pub(crate) how_far: Arc<HowFar>,
}

impl Records for Counted {
    fn get(&self, revision: Revision) -> Result<Option<Record>, RecordsError> {
        Records::get(&*self.storage, revision)
    }

    fn scan(
        &self,
        from: Revision,
        until: Revision,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), RecordsError> {
        Records::scan(&*self.storage, from, until, &mut |revision, record| {
            self.how_far.add(1);
            visit(revision, record)
        })
    }

    fn scan_all(&self, parts: &mut [&mut VisitPart<'_>]) -> Result<(), RecordsError> {
        let counted = |part| {
            let part: &mut VisitPart<'_> = part;
            move |revision: Revision, record: RawRecord<'_>| {
                self.how_far.add(1);
                part(revision, record)
            }
        };
        let mut parts: Vec<_> = parts.iter_mut().map(|part| counted(&mut **part)).collect();
        let mut parts: Vec<&mut VisitPart<'_>> =
            parts.iter_mut().map(|part| part as &mut VisitPart<'_>).collect();
        Records::scan_all(&*self.storage, &mut parts)
    }
}
