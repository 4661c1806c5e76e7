//! Which key hangs on which lease, in both directions, with each key stored once.
//!
//! ```text
//! by_key: hash of key --> slot number        slots: [key, lease, previous, next] ...
//! a lease holds the first slot of its chain ----------^ and the length of the chain
//! ```
//!
//! A slot is 48 bytes and its hash entry 5 to 10, so a million attached keys cost about 60 MB beside
//! the key bytes themselves, which are shared with whoever handed them in.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use hashbrown::HashTable;

/// No slot: the end of a chain.
const NONE: u32 = u32::MAX;

/// So many slots stay allocated when the last attached key goes.
const KEPT_SLOTS: usize = 64;

/// The keys of one lease: a doubly linked chain through the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    first: u32,
    len: u32,
}

impl Chain {
    pub(crate) const EMPTY: Self = Self { first: NONE, len: 0 };

    pub(crate) fn len(self) -> usize {
        self.len as usize
    }
}

#[derive(Debug)]
struct Slot {
    key: Bytes,
    lease: i64,
    previous: u32,
    next: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Attached {
    by_key: HashTable<u32>,
    // Clients choose the keys, so the hash is keyed at random. Nothing iterates over the table:
    // the seed cannot be seen from outside.
    hasher: RandomState,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Attached {
    /// The lease that `key` hangs on.
    pub(crate) fn lease_of(&self, key: &[u8]) -> Option<i64> {
        // Most stores have no leased key at all, and every put asks.
        if self.by_key.is_empty() {
            return None;
        }
        self.find(key).map(|slot| self.slots[slot as usize].lease)
    }

    /// How many keys hang on any lease.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Hangs a key that hangs nowhere on `lease`, whose keys are `chain`.
    pub(crate) fn insert(&mut self, chain: &mut Chain, key: Bytes, lease: i64) {
        let hash = self.hasher.hash_one(key.as_ref());
        let number = self.place(Slot { key, lease, previous: NONE, next: chain.first });
        if chain.first != NONE {
            self.slots[chain.first as usize].previous = number;
        }
        chain.first = number;
        chain.len += 1;
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.by_key.insert_unique(hash, number, |&other| {
            hasher.hash_one(slots[other as usize].key.as_ref())
        });
    }

    /// Takes `key` off the lease whose keys are `chain`; it must hang there.
    pub(crate) fn remove(&mut self, chain: &mut Chain, key: &[u8]) {
        let Some(number) = self.find(key) else { return };
        let Slot { previous, next, .. } = self.slots[number as usize];
        match previous {
            NONE => chain.first = next,
            before => self.slots[before as usize].next = next,
        }
        if next != NONE {
            self.slots[next as usize].previous = previous;
        }
        chain.len -= 1;
        self.release(number);
    }

    /// Takes all keys of `chain` off and returns them, sorted bytewise.
    pub(crate) fn remove_all(&mut self, chain: Chain) -> Vec<Bytes> {
        let mut keys = Vec::with_capacity(chain.len());
        let mut number = chain.first;
        while number != NONE {
            let next = self.slots[number as usize].next;
            keys.push(self.release(number));
            number = next;
        }
        keys.sort_unstable();
        keys
    }

    /// The keys of `chain`, in no order, but always in the same as long as none is added or taken off.
    pub(crate) fn chained(&self, chain: Chain) -> impl Iterator<Item = &Bytes> {
        self.from(chain.first)
    }

    /// Those that come after `key` among the keys of `lease`; None when it hangs there no more.
    pub(crate) fn chained_after(
        &self,
        key: &[u8],
        lease: i64,
    ) -> Option<impl Iterator<Item = &Bytes>> {
        let slot = &self.slots[self.find(key)? as usize];
        (slot.lease == lease).then(|| self.from(slot.next))
    }

    fn from(&self, first: u32) -> impl Iterator<Item = &Bytes> {
        let slot = |number: u32| (number != NONE).then(|| &self.slots[number as usize]);
        let slots = std::iter::successors(slot(first), move |last| slot(last.next));
        slots.map(|slot| &slot.key)
    }

    /// The keys of `chain`, sorted bytewise.
    pub(crate) fn keys(&self, chain: Chain) -> Vec<Bytes> {
        let mut keys = Vec::with_capacity(chain.len());
        keys.extend(self.chained(chain).cloned());
        keys.sort_unstable();
        keys
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.by_key.find(hash, |&slot| self.slots[slot as usize].key == key).copied()
    }

    fn place(&mut self, slot: Slot) -> u32 {
        if let Some(number) = self.free.pop() {
            self.slots[number as usize] = slot;
            return number;
        }
        self.slots.push(slot);
        u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 attached keys")
    }

    /// Forgets a slot's key and gives the key back; the chain around it is the caller's.
    fn release(&mut self, number: u32) -> Bytes {
        let key = std::mem::take(&mut self.slots[number as usize].key);
        let hash = self.hasher.hash_one(key.as_ref());
        if let Ok(entry) = self.by_key.find_entry(hash, |&slot| slot == number) {
            entry.remove();
        }
        self.free.push(number);
        self.give_back();
        key
    }

    /// Returns the memory of a burst of leased keys once none of them is left.
    fn give_back(&mut self) {
        if self.by_key.is_empty() && self.slots.len() > KEPT_SLOTS {
            (self.slots, self.free) = (Vec::new(), Vec::new());
            self.by_key = HashTable::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attached_key_costs_48_bytes_and_its_hash_entry() {
        assert_eq!(size_of::<Slot>(), 48);
    }

    #[test]
    fn memory_of_a_burst_is_given_back() {
        let mut attached = Attached::default();
        let mut chain = Chain::EMPTY;
        for number in 0..1000u32 {
            attached.insert(&mut chain, Bytes::from(number.to_string()), 1);
        }
        attached.remove_all(chain);
        assert_eq!(attached.slots.capacity() + attached.free.capacity(), 0);
    }

    #[test]
    fn a_released_slot_is_used_again() {
        let mut attached = Attached::default();
        let mut chain = Chain::EMPTY;
        for name in ["a", "b", "c"] {
            attached.insert(&mut chain, Bytes::from(name), 1);
        }
        attached.remove(&mut chain, b"b");
        attached.insert(&mut chain, Bytes::from("d"), 1);
        assert_eq!(attached.slots.len(), 3);
        assert_eq!(attached.keys(chain), ["a", "c", "d"]);
    }
}
