//! A leaf of the index: up to 64 keys, each with its latest change, and what is older.

use crate::limit;
use crate::record::Revision;

use super::entry::Entry;
use super::history::History;
use super::keys::{KeyList, grow};

/// Keys of a leaf.
pub(super) const LEAF_KEYS_MAX: usize = limit(64, 6);
/// Bytes of a leaf's keys beyond which it is split as well: an insertion moves half of them.
const LEAF_BYTES_MAX: usize = 32 << 10;

/// Keys that cost as much to look at as one revision to drop.
const KEYS_PER_BUDGET: usize = 4;

/// What a parent knows of a subtree without looking into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sums {
    /// Keys that exist now.
    pub(super) live: usize,
    /// Keys with something to prune one day: older changes or a tombstone.
    pub(super) dirty: usize,
    /// No key appeared or vanished after this revision. Pruning does not lower it.
    pub(super) turned: i64,
}

impl Sums {
    pub(super) fn add(&mut self, other: Self) {
        self.live += other.live;
        self.dirty += other.dirty;
        self.turned = self.turned.max(other.turned);
    }

    /// Takes back an [`Sums::add`]; `turned` stays.
    pub(super) fn subtract(&mut self, other: Self) {
        self.live -= other.live;
        self.dirty -= other.dirty;
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Leaf {
    keys: KeyList,
    latest: Vec<Entry>,
    older: History,
    sums: Sums,
}

impl Leaf {
    pub(super) fn with_capacity(keys: usize, bytes: usize) -> Self {
        let keys_list = KeyList::with_capacity(keys, bytes);
        Self { keys: keys_list, latest: Vec::with_capacity(keys), ..Self::default() }
    }

    /// Adds a key above all others with all of its changes, oldest first.
    pub(super) fn push(&mut self, key: &[u8], changes: &[Entry]) {
        let (&latest, older) = changes.split_last().expect("a key has a change");
        self.keys.push(key);
        self.latest.push(latest);
        self.older.push_run(self.latest.len() - 1, older);
        self.sums.live += usize::from(latest.is_live());
        self.sums.dirty += usize::from(!older.is_empty() || !latest.is_live());
        let turned = changes.iter().map(|entry| entry.turned()).max().unwrap_or(0);
        self.sums.turned = self.sums.turned.max(turned);
    }

    /// Adds a change, the newest of the whole store, to a key; what the key's latest one was.
    pub(super) fn write(
        &mut self,
        key: &[u8],
        revision: Revision,
        put: Option<u32>,
    ) -> Option<Entry> {
        match self.keys.search(key) {
            Ok(slot) => Some(self.supersede(slot, revision, put)),
            Err(slot) => {
                self.insert(slot, key, Entry::next(None, revision, put));
                None
            }
        }
    }

    fn supersede(&mut self, slot: usize, revision: Revision, put: Option<u32>) -> Entry {
        let before = self.latest[slot];
        let entry = Entry::next(Some(before), revision, put);
        let was_clean = before.is_live() && !self.older.has(slot);
        self.latest[slot] = entry;
        self.older.push(slot, before);
        self.sums.dirty += usize::from(was_clean);
        self.sums.live -= usize::from(before.is_live());
        self.count_in(entry, before.is_live() != entry.is_live());
        before
    }

    fn insert(&mut self, slot: usize, key: &[u8], entry: Entry) {
        self.keys.insert(slot, key);
        grow(&mut self.latest, 1);
        self.latest.insert(slot, entry);
        self.older.open_slot(slot);
        self.sums.dirty += usize::from(!entry.is_live());
        self.count_in(entry, true);
    }

    fn count_in(&mut self, entry: Entry, turned: bool) {
        self.sums.live += usize::from(entry.is_live());
        if turned {
            self.sums.turned = self.sums.turned.max(entry.main());
        }
    }

    pub(super) fn is_over_full(&self) -> bool {
        self.len() > LEAF_KEYS_MAX || (self.keys.byte_len() > LEAF_BYTES_MAX && self.len() > 1)
    }

    /// Gives the upper half of the keys away.
    pub(super) fn split(&mut self) -> Self {
        let slot = self.len().div_ceil(2);
        let mut right = Self {
            keys: self.keys.split_off(slot),
            latest: self.latest.split_off(slot),
            older: self.older.split_off(slot),
            sums: Sums::default(),
        };
        self.latest.shrink_to_fit();
        right.sums = right.recount(self.sums.turned);
        self.sums = self.recount(self.sums.turned);
        right
    }

    pub(super) fn fits_with(&self, right: &Self) -> bool {
        self.len() + right.len() <= LEAF_KEYS_MAX / 2
            && self.keys.byte_len() + right.keys.byte_len() <= LEAF_BYTES_MAX / 2
    }

    pub(super) fn append(&mut self, right: &Self) {
        self.older.append(&right.older, self.len());
        self.keys.append(&right.keys);
        self.latest.reserve_exact(right.latest.len());
        self.latest.extend_from_slice(&right.latest);
        self.sums.add(right.sums);
    }

    /// Prunes all keys; see [`Tree::sweep`](super::Tree::sweep). Whether it is done: otherwise the budget ran
    /// out, and the whole leaf is to be pruned again, since a write in between may seal what is recent now.
    pub(super) fn prune(
        &mut self,
        floor: i64,
        budget: &mut usize,
        dropped: &mut Vec<Revision>,
    ) -> bool {
        let cuts: Vec<Revision> = (0..self.len()).map(|slot| self.cut(slot, floor)).collect();
        for (slot, &cut) in cuts.iter().enumerate() {
            if !self.older.prune_sealed(slot, cut, budget, dropped) {
                return false;
            }
        }
        let before = dropped.len();
        self.older.prune_recent(&cuts, dropped);
        self.remove_dead(floor, dropped);
        *budget = budget.saturating_sub(dropped.len() - before + 1 + cuts.len() / KEYS_PER_BUDGET);
        self.sums = self.recount(self.sums.turned);
        true
    }

    /// Which older changes of a key a floor makes unreadable: those below the revision returned.
    ///
    /// The newest change at or below the floor is what a read there finds. It stays when it is live, and,
    /// for watchers that start there, when it is a tombstone of exactly that revision.
    fn cut(&self, slot: usize, floor: i64) -> Revision {
        let latest = self.latest[slot];
        if latest.main() <= floor {
            return latest.revision();
        }
        match self.older.at(slot, floor) {
            Some(entry) if entry.is_live() || entry.main() == floor => entry.revision(),
            Some(entry) => {
                let Revision { main, sub } = entry.revision();
                Revision { main, sub: sub + 1 }
            }
            None => Revision::default(),
        }
    }

    /// Removes the keys whose latest change is a tombstone below the floor.
    fn remove_dead(&mut self, floor: i64, dropped: &mut Vec<Revision>) {
        for slot in (0..self.len()).rev() {
            let latest = self.latest[slot];
            if !latest.is_live() && latest.main() < floor {
                dropped.push(latest.revision());
                self.older.close_slot(slot);
                self.latest.remove(slot);
                self.keys.remove(slot);
            }
        }
    }

    fn recount(&self, turned: i64) -> Sums {
        let live = self.latest.iter().filter(|entry| entry.is_live()).count();
        let mut dirty: Vec<bool> = self.latest.iter().map(|entry| !entry.is_live()).collect();
        self.older.slots().for_each(|slot| dirty[slot] = true);
        Sums { live, dirty: dirty.into_iter().filter(|dirty| *dirty).count(), turned }
    }

    pub(super) fn len(&self) -> usize {
        self.latest.len()
    }

    pub(super) fn sums(&self) -> Sums {
        self.sums
    }

    pub(super) fn key(&self, slot: usize) -> &[u8] {
        self.keys.get(slot)
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        self.keys.search(key).ok()
    }

    /// The slots of the keys in `from..until`; an absent bound is none.
    pub(super) fn slots(
        &self,
        from: Option<&[u8]>,
        until: Option<&[u8]>,
    ) -> std::ops::Range<usize> {
        let place = |bound: &[u8]| self.keys.partition(|key| key < bound);
        let start = from.map_or(0, place);
        start..until.map_or(self.len(), place).max(start)
    }

    /// The change that a read at main revision `main` finds; none when the key was absent.
    pub(super) fn at(&self, slot: usize, main: i64) -> Option<Entry> {
        let latest = self.latest[slot];
        let entry = if latest.main() <= main { Some(latest) } else { self.older.at(slot, main) };
        entry.filter(|entry| entry.is_live())
    }
}
