//! The write-ahead log as what [`Node`](crate::Node) hands out goes into it.
//!
//! ```text
//! Node::advance ──> Append ──(log thread, or at once)──> Writer::write ──> Node::persisted(number)
//! ```
//! Appends are written in the order they were handed out, each once. Nothing of raft is decided here.

use etched_wal::disk::Disk;
use etched_wal::{Entry, HardState, SnapshotMark, Wal};

use crate::Error;

/// What is to be on disk before the node hears of it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Counts upwards; what [`Node::persisted`](crate::Node::persisted) is to be told.
    pub number: u64,
    /// A snapshot takes the place of the log; `entries` follow it.
    pub snapshot: Option<SnapshotMark>,
    /// Term, vote and commit index as they are then.
    pub hard_state: HardState,
    /// To append, in place of what stands at their indexes and behind them.
    pub entries: Vec<Entry>,
}

impl Append {
    /// Both as one, for a single sync; gives `next` back when its snapshot must stand by itself.
    ///
    /// # Errors
    /// `next` has a snapshot.
    pub fn join(&mut self, next: Self) -> Result<(), Box<Self>> {
        if next.snapshot.is_some() {
            return Err(Box::new(next));
        }
        self.number = next.number;
        self.hard_state = next.hard_state;
        if let Some(first) = next.entries.first().map(|entry| entry.index) {
            let kept = self.entries.iter().take_while(|entry| entry.index < first).count();
            self.entries.truncate(kept);
            self.entries.extend(next.entries);
        }
        Ok(())
    }
}

/// The one that writes the log.
#[derive(Debug)]
pub struct Writer<D: Disk> {
    wal: Wal<D>,
    saved: HardState,
}

impl<D: Disk> Writer<D> {
    /// The writer of a log whose last hard state is `saved`.
    pub fn new(wal: Wal<D>, saved: HardState) -> Self {
        Self { wal, saved }
    }

    /// Writes `append` and syncs.
    ///
    /// # Errors
    /// [`Error::Wal`] when the log could not be written: the process must stop.
    pub fn write(&mut self, append: &Append) -> Result<(), Error> {
        if let Some(mark) = &append.snapshot {
            self.wal.save_snapshot(mark)?;
            // By itself: entries behind a mark that no commit index makes valid would leave a gap.
            self.save(HardState { commit: mark.index, ..append.hard_state }, &[])?;
        }
        self.save(append.hard_state, &append.entries)
    }

    /// Writes all of `appends` with as few syncs as possible; the number of the last one.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_all(
        &mut self,
        appends: impl IntoIterator<Item = Append>,
    ) -> Result<Option<u64>, Error> {
        let mut joined: Option<Append> = None;
        for append in appends {
            let Some(last) = &mut joined else {
                joined = Some(append);
                continue;
            };
            if let Err(next) = last.join(append) {
                self.write(last)?;
                joined = Some(*next);
            }
        }
        if let Some(last) = &joined {
            self.write(last)?;
        }
        Ok(joined.map(|last| last.number))
    }

    /// A commit index alone is not written at once: it goes along with the next entries.
    pub(crate) fn save(&mut self, state: HardState, entries: &[Entry]) -> Result<(), Error> {
        let changed = state != self.saved;
        self.wal.save(changed.then_some(&state), entries, true)?;
        self.saved = state;
        Ok(())
    }

    /// Puts a commit index of at least `applied` on disk, before a checkpoint at or below it becomes durable. Goes
    /// behind all appends that were handed out before `applied` was.
    ///
    /// # Errors
    /// [`Error::Wal`] as for [`Self::write`].
    pub fn sync_commit(&mut self, applied: u64) -> Result<(), Error> {
        let last = self.wal.last_index();
        if last < applied {
            return Err(Error::StoreAheadOfLog { applied, last });
        }
        if self.saved.commit < applied {
            self.save(HardState { commit: applied, ..self.saved }, &[])?;
        }
        Ok(())
    }

    /// A durable checkpoint covers everything up to `mark`: segments below it can go.
    ///
    /// # Errors
    /// [`Error::Wal`] as for [`Self::write`].
    pub fn checkpointed(&mut self, mark: &SnapshotMark) -> Result<(), Error> {
        self.wal.save_snapshot(mark)?;
        self.wal.release_to(mark.index)?;
        Ok(())
    }

    /// Makes sure of the disk space for the log's next segment. Costs nothing when it is reserved already.
    ///
    /// # Errors
    /// [`Error::Wal`] when there is no room: the log can go on to the end of the present segment.
    pub fn reserve(&mut self) -> Result<(), Error> {
        Ok(self.wal.reserve_next()?)
    }

    /// Puts into `times` how long each write and sync of the log since the last call of this took.
    pub fn take_times(&mut self, times: &mut etched_wal::Times) {
        self.wal.take_times(times);
    }

    /// Ends in order: the log is written out, and the room reserved for its next segment given back.
    ///
    /// # Errors
    /// [`Error::Wal`].
    pub fn close(self) -> Result<(), Error> {
        Ok(self.wal.close()?)
    }

    /// Bytes written to the log since the start.
    pub fn bytes(&self) -> u64 {
        self.wal.appended_bytes()
    }
}
