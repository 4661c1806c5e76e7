//! The tail of the raft log in memory.
//!
//! raft-rs reads entries from its storage before they are on disk, so the write-ahead log alone cannot
//! serve it. Entries at or below the applied index are kept only for followers that lag: at most
//! [`Config::catch_up_entries`](crate::Config::catch_up_entries) and [`KEEP_BYTES_MAX`], none while this member is alone. A follower that lags further needs a
//! snapshot: raft-rs asks for it here, hears that there is none yet, and finds it when the caller has made it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError};

/// Applied entries kept for slow followers, in bytes of their data.
pub(crate) const KEEP_BYTES_MAX: usize = 64 << 20;
/// Bytes of entries kept behind a snapshot that is under way; a follower that needs longer than these last gets another.
pub(crate) const HOLD_BYTES_MAX: usize = 512 << 20;

/// Invariant: `entries` is gapless and starts at `first`; `before` is the term at `first - 1`.
#[derive(Debug)]
pub(crate) struct Log {
    first: u64,
    before: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
    hard_state: HardState,
    conf_state: ConfState,
    snapshots: RefCell<Snapshots>,
}

/// Snapshots for followers, by follower.
#[derive(Debug, Default)]
struct Snapshots {
    /// raft-rs asked, and nobody has been told yet.
    wanted: BTreeSet<u64>,
    /// Made, and not fetched yet.
    ready: BTreeMap<u64, Snapshot>,
}

impl Log {
    /// A log whose entries follow the one at `index` (of `term`).
    pub(crate) fn new(index: u64, term: u64, hard_state: HardState, conf_state: ConfState) -> Self {
        Self {
            first: index + 1,
            before: term,
            entries: VecDeque::new(),
            bytes: 0,
            hard_state,
            conf_state,
            snapshots: RefCell::default(),
        }
    }

    /// A snapshot takes the place of the whole log.
    pub(crate) fn restart_behind(&mut self, index: u64, term: u64) {
        self.first = index + 1;
        self.before = term;
        self.entries.clear();
        self.bytes = 0;
    }

    /// Followers for whom raft-rs wanted a snapshot since the last call.
    pub(crate) fn take_wanted(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.snapshots.get_mut().wanted).into_iter().collect()
    }

    /// The snapshot that `peer` is to get next.
    pub(crate) fn offer(&mut self, peer: u64, snapshot: Snapshot) {
        self.snapshots.get_mut().ready.insert(peer, snapshot);
    }

    /// Snapshots that were never fetched are of no use any more.
    pub(crate) fn withdraw(&mut self) {
        *self.snapshots.get_mut() = Snapshots::default();
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    pub(crate) fn last(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    /// Appends entries; those at or above the first new index are replaced.
    pub(crate) fn append(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            assert!(
                entry.index >= self.first && entry.index <= self.last() + 1,
                "entry {} does not follow the log {}..={}",
                entry.index,
                self.first,
                self.last()
            );
            while self.last() >= entry.index {
                let dropped = self.entries.pop_back().expect("last >= first implies an entry");
                self.bytes -= bytes(&dropped);
            }
            self.bytes += bytes(&entry);
            self.entries.push_back(entry);
        }
    }

    /// Forgets entries at or below `applied`, but the newest `keep` of them and those above `held`, each within its limit of
    /// bytes.
    pub(crate) fn trim(&mut self, applied: u64, keep: usize, held: Option<u64>) {
        while self.first <= applied {
            let applied_kept = (applied - self.first + 1) as usize;
            if applied_kept <= keep && self.bytes <= KEEP_BYTES_MAX {
                return;
            }
            let is_held = held.is_some_and(|index| self.first > index);
            if is_held && self.bytes <= HOLD_BYTES_MAX {
                return;
            }
            let Some(entry) = self.entries.pop_front() else { return };
            self.bytes -= bytes(&entry);
            self.before = entry.term;
            self.first = entry.index + 1;
        }
    }
}

impl raft::Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last() + 1, "entries up to {high} asked of a log to {}", self.last());
        let from = (low - self.first) as usize;
        let until = (high - self.first) as usize;
        let mut left = max_size.into().unwrap_or(u64::MAX);
        let mut out = Vec::with_capacity(until - from);
        for entry in self.entries.range(from..until) {
            let size = bytes(entry) as u64 + ENTRY_OVERHEAD;
            if size > left && !out.is_empty() {
                break;
            }
            left = left.saturating_sub(size);
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index + 1 == self.first {
            return Ok(self.before);
        }
        if index < self.first {
            return Err(StorageError::Compacted.into());
        }
        let at = (index - self.first) as usize;
        let entry = self.entries.get(at).ok_or(StorageError::Unavailable)?;
        Ok(entry.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let mut snapshots = self.snapshots.borrow_mut();
        if let Some(snapshot) = snapshots.ready.remove(&to)
            && snapshot.get_metadata().index + 1 >= self.first
        {
            return Ok(snapshot);
        }
        snapshots.wanted.insert(to);
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}

/// A change of a member has its bytes in the context.
fn bytes(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len()
}

/// Encoded size of an entry beside its data, roughly.
const ENTRY_OVERHEAD: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use raft::Storage as _;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![0; 10].into(), ..Entry::default() }
    }

    fn log() -> Log {
        let mut log = Log::new(4, 1, HardState::default(), ConfState::default());
        log.append((5..=9).map(|index| entry(index, 2)));
        log
    }

    #[test]
    fn the_term_before_the_first_entry_is_known() {
        let log = log();
        assert_eq!(log.term(4), Ok(1));
        assert_eq!(log.term(5), Ok(2));
        assert!(log.term(3).is_err());
        assert!(log.term(10).is_err());
    }

    #[test]
    fn an_entry_of_a_smaller_index_replaces_the_rest() {
        let mut log = log();
        log.append([entry(7, 3)]);
        assert_eq!(log.last_index(), Ok(7));
        assert_eq!(log.term(7), Ok(3));
        assert_eq!(log.bytes, 30);
    }

    #[test]
    fn trimming_keeps_what_is_not_applied() {
        let mut log = log();
        log.trim(7, 0, None);
        assert_eq!((log.first_index(), log.last_index()), (Ok(8), Ok(9)));
        assert_eq!(log.term(7), Ok(2));
        log.trim(9, 1, None);
        assert_eq!((log.first_index(), log.last_index()), (Ok(9), Ok(9)));
        log.trim(9, 0, None);
        assert_eq!((log.first_index(), log.last_index()), (Ok(10), Ok(9)));
    }

    #[test]
    fn at_least_one_entry_comes_back_whatever_the_size_limit() {
        let log = log();
        let got = log.entries(5, 9, Some(1), GetEntriesContext::empty(false)).expect("entries");
        assert_eq!(got.len(), 1);
        let got = log.entries(5, 9, None, GetEntriesContext::empty(false)).expect("entries");
        assert_eq!(got.len(), 4);
    }

    #[test]
    fn what_follows_a_snapshot_under_way_stays() {
        let mut log = log();
        log.trim(9, 0, Some(7));
        assert_eq!(log.first_index(), Ok(8));
        log.trim(9, 0, Some(9));
        assert_eq!(log.first_index(), Ok(10));
    }
}
