//! The older changes of a leaf's keys: everything but each key's latest.
//!
//! ```text
//! key's changes, oldest first:  [sealed chunk][sealed chunk]..[recent run] | latest (in the leaf)
//! ```
//! A few older changes of a key lie in one flat list of the leaf. When a key's run there is full, it is
//! sealed into a chunk of its own; chunks of equal size are merged, so that there are few. Chunks are
//! shared, so that copying a leaf under a snapshot does not copy the history of a busy key.

use std::sync::Arc;

use super::entry::Entry;
use super::keys::grow;
use crate::limit;
use crate::record::Revision;

/// Older changes of one key that lie in the leaf's flat list, at most.
const RUN_MAX: usize = limit(16, 2);
/// Chunks are not merged beyond this many changes: a merge copies them.
const CHUNK_MAX: usize = limit(4096, 6);

#[derive(Debug, Clone, Copy)]
#[repr(Rust, packed(2))]
struct Recent {
    slot: u16,
    entry: Entry,
}

impl Recent {
    fn slot(&self) -> usize {
        usize::from(self.slot)
    }
}

/// Older changes by slot. Ordered by slot, then by revision.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    recent: Vec<Recent>,
    /// Not empty, ascending; all older than the slot's recent ones.
    sealed: Vec<(u16, Vec<Arc<[Entry]>>)>,
}

impl History {
    pub(super) fn has(&self, slot: usize) -> bool {
        let recent = self.recent.partition_point(|recent| recent.slot() < slot);
        self.recent.get(recent).is_some_and(|recent| recent.slot() == slot)
            || self.sealed_of(slot).is_some()
    }

    /// The slots with older changes, some of them several times.
    pub(super) fn slots(&self) -> impl Iterator<Item = usize> {
        let sealed = self.sealed.iter().map(|(slot, _)| usize::from(*slot));
        self.recent.iter().map(Recent::slot).chain(sealed)
    }

    /// Adds a change that is newer than all others of the slot.
    pub(super) fn push(&mut self, slot: usize, entry: Entry) {
        let stop = self.recent.partition_point(|recent| recent.slot() <= slot);
        grow(&mut self.recent, 1);
        self.recent.insert(stop, Recent { slot: narrow(slot), entry });
        let start = self.recent.partition_point(|recent| recent.slot() < slot);
        if stop + 1 - start > RUN_MAX {
            let run: Arc<[Entry]> = self.recent.drain(start..=stop).map(|r| r.entry).collect();
            self.seal(slot, run);
        }
    }

    /// Sets the older changes of a slot above all others; oldest first.
    pub(super) fn push_run(&mut self, slot: usize, entries: &[Entry]) {
        if entries.len() <= RUN_MAX {
            grow(&mut self.recent, entries.len());
            let slot = narrow(slot);
            self.recent.extend(entries.iter().map(|&entry| Recent { slot, entry }));
        } else {
            let chunks = entries.chunks(CHUNK_MAX).map(Arc::from).collect();
            self.sealed.push((narrow(slot), chunks));
        }
    }

    /// The newest older change of the slot at or before main revision `main`.
    pub(super) fn at(&self, slot: usize, main: i64) -> Option<Entry> {
        let after = self.recent.partition_point(|r| (r.slot(), { r.entry }.main()) <= (slot, main));
        if let Some(recent) = self.recent[..after].last().filter(|recent| recent.slot() == slot) {
            return Some(recent.entry);
        }
        let chunks = self.sealed_of(slot)?;
        let chunk = chunks[..chunks.partition_point(|chunk| chunk[0].main() <= main)].last()?;
        chunk[..chunk.partition_point(|entry| entry.main() <= main)].last().copied()
    }

    /// A key was inserted at `slot`.
    pub(super) fn open_slot(&mut self, slot: usize) {
        let recent = self.recent.partition_point(|recent| recent.slot() < slot);
        self.recent[recent..].iter_mut().for_each(|recent| recent.slot += 1);
        let sealed = self.sealed.partition_point(|(other, _)| usize::from(*other) < slot);
        self.sealed[sealed..].iter_mut().for_each(|(other, _)| *other += 1);
    }

    /// The key at `slot`, which has no older changes, was removed.
    pub(super) fn close_slot(&mut self, slot: usize) {
        let recent = self.recent.partition_point(|recent| recent.slot() <= slot);
        self.recent[recent..].iter_mut().for_each(|recent| recent.slot -= 1);
        let sealed = self.sealed.partition_point(|(other, _)| usize::from(*other) <= slot);
        self.sealed[sealed..].iter_mut().for_each(|(other, _)| *other -= 1);
    }

    /// Gives away the changes from `slot` on, which becomes slot 0 there.
    pub(super) fn split_off(&mut self, slot: usize) -> Self {
        let recent = self.recent.partition_point(|recent| recent.slot() < slot);
        let sealed = self.sealed.partition_point(|(other, _)| usize::from(*other) < slot);
        let mut right =
            Self { recent: self.recent.split_off(recent), sealed: self.sealed.split_off(sealed) };
        self.recent.shrink_to_fit();
        right.recent.iter_mut().for_each(|recent| recent.slot -= narrow(slot));
        right.sealed.iter_mut().for_each(|(other, _)| *other -= narrow(slot));
        right
    }

    /// Adds the changes of a leaf to the right, whose slot 0 becomes `slot`.
    pub(super) fn append(&mut self, right: &Self, slot: usize) {
        let moved = |other: u16| other + narrow(slot);
        self.recent.extend(right.recent.iter().map(|r| Recent { slot: moved(r.slot), ..*r }));
        self.sealed.extend(right.sealed.iter().map(|(other, c)| (moved(*other), c.clone())));
    }

    /// Drops the slot's sealed changes below `cut`, oldest first, chunk by chunk while there is budget.
    /// Whether all are dropped.
    pub(super) fn prune_sealed(
        &mut self,
        slot: usize,
        cut: Revision,
        budget: &mut usize,
        dropped: &mut Vec<Revision>,
    ) -> bool {
        let Ok(place) = self.sealed.binary_search_by_key(&narrow(slot), |(other, _)| *other) else {
            return true;
        };
        let chunks = &mut self.sealed[place].1;
        let mut gone = 0;
        for chunk in chunks.iter_mut() {
            let below = chunk.partition_point(|entry| entry.revision() < cut);
            if below == 0 || *budget == 0 {
                break;
            }
            dropped.extend(chunk[..below].iter().map(|entry| entry.revision()));
            *budget = budget.saturating_sub(below);
            if below < chunk.len() {
                *chunk = Arc::from(&chunk[below..]);
                break;
            }
            gone += 1;
        }
        chunks.drain(..gone);
        let done = chunks.first().is_none_or(|chunk| chunk[0].revision() >= cut);
        if chunks.is_empty() {
            self.sealed.remove(place);
        }
        done
    }

    /// Drops the recent changes below their slot's cut.
    pub(super) fn prune_recent(&mut self, cuts: &[Revision], dropped: &mut Vec<Revision>) {
        self.recent.retain(|recent| {
            let (cut, revision) = (cuts[recent.slot()], { recent.entry }.revision());
            if revision < cut {
                dropped.push(revision);
            }
            revision >= cut
        });
        if self.recent.capacity() > 2 * self.recent.len() + 8 {
            self.recent.shrink_to_fit();
        }
    }

    fn sealed_of(&self, slot: usize) -> Option<&[Arc<[Entry]>]> {
        let place = self.sealed.binary_search_by_key(&slot, |(other, _)| usize::from(*other));
        place.ok().map(|place| self.sealed[place].1.as_slice())
    }

    fn seal(&mut self, slot: usize, run: Arc<[Entry]>) {
        let key = narrow(slot);
        let place = match self.sealed.binary_search_by_key(&key, |(other, _)| *other) {
            Ok(place) => place,
            Err(place) => {
                self.sealed.insert(place, (key, Vec::new()));
                place
            }
        };
        let chunks = &mut self.sealed[place].1;
        chunks.push(run);
        while let [.., before, last] = chunks.as_slice() {
            if before.len() > last.len() || before.len() + last.len() > CHUNK_MAX {
                break;
            }
            let merged = before.iter().chain(last.iter()).copied().collect();
            chunks.truncate(chunks.len() - 2);
            chunks.push(merged);
        }
    }
}

fn narrow(slot: usize) -> u16 {
    u16::try_from(slot).expect("a leaf has few slots")
}
