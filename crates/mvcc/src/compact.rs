//! Compaction: the floor moves at once, history below it is pruned in slices.

use std::sync::Arc;

use crate::error::Error;
use crate::hash::HashJob;
use crate::record::Revision;
use crate::shared::Core;

/// The compactions that storage knows of: etcd's two rows of the table `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactState {
    /// `scheduledCompactRev`: the floor moved there.
    pub scheduled: Option<i64>,
    /// `finishedCompactRev`: everything below it has been removed.
    pub finished: Option<i64>,
}

/// One slice of pruning, see [`Store::sweep`](crate::Store::sweep).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sweep {
    /// Revisions that nobody can name any more: of each key the older ones first, also from slice to slice.
    ///
    /// Storage removes them in any number of commits, and in any order that keeps this: as they come, or any run of
    /// them sorted, also one over several slices, if none begins before all in front of it are gone. Then, whatever
    /// part is gone, a restart sees the same keys. A key's tombstone that went before what it hides would not hide
    /// it any more.
    pub dropped: Vec<Revision>,
    /// The compaction at this revision is complete with this slice: the `finishedCompactRev` to be
    /// written with or after the removal of everything dropped so far.
    pub finished: Option<i64>,
}

/// The writer's side of compaction.
#[derive(Debug)]
pub(crate) struct Compaction {
    core: Arc<Core>,
    state: CompactState,
    /// The floor moved since storage was told.
    moved: bool,
    /// Where pruning to which floor goes on.
    at: Option<(i64, Vec<u8>)>,
}

impl CompactState {
    /// The last compacted revision, -1 before any.
    pub(crate) fn floor(self) -> i64 {
        self.scheduled.max(self.finished).unwrap_or(-1)
    }
}

impl Compaction {
    /// Goes on where the process before stopped: a compaction that is not finished is pruned again.
    pub(crate) fn resume(core: Arc<Core>, state: CompactState) -> Self {
        Self { core, state, moved: false, at: None }
    }

    pub(crate) fn schedule(&mut self, revision: i64) -> Result<HashJob, Error> {
        let wanted = self.is_complete();
        let mut shared = self.core.shared.write();
        let floor = shared.floor;
        if revision <= floor {
            return Err(Error::Compacted);
        }
        if revision > shared.current {
            return Err(Error::FutureRevision);
        }
        shared.floor = revision;
        self.state.scheduled = Some(revision);
        self.moved = true;
        let (core, pin) = (Arc::clone(&self.core), self.core.pins.pin(floor));
        Ok(HashJob { core, revision, compact_revision: floor, wanted, _pin: pin })
    }

    /// Whether nothing is left of the last compaction.
    pub(crate) fn is_complete(&self) -> bool {
        self.state.scheduled == self.state.finished
    }

    pub(crate) fn sweep(&mut self, budget: usize) -> Option<Sweep> {
        let floor = self.state.scheduled.filter(|_| !self.is_complete())?;
        let mut shared = self.core.shared.write();
        if self.core.pins.lowest().is_some_and(|lowest| lowest < floor) {
            return None;
        }
        let from = match self.at.take() {
            Some((at, from)) if at == floor => from,
            _ => Vec::new(),
        };
        let mut sweep = Sweep::default();
        match shared.tree.sweep(&from, floor, budget.max(1), &mut sweep.dropped) {
            Some(resume) => self.at = Some((floor, resume)),
            None => {
                self.state.finished = Some(floor);
                sweep.finished = Some(floor);
            }
        }
        Some(sweep)
    }

    /// The scheduled compaction, when it moved since the last call.
    pub(crate) fn take_scheduled(&mut self) -> Option<i64> {
        let moved = std::mem::take(&mut self.moved);
        self.state.scheduled.filter(|_| moved)
    }
}
