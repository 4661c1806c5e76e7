//! A sorted list of byte strings in one allocation.

/// Keys one after the other, with the place where each one ends.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyList {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl KeyList {
    pub(super) fn with_capacity(keys: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(keys) }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn get(&self, slot: usize) -> &[u8] {
        &self.bytes[self.start(slot)..self.ends[slot] as usize]
    }

    /// How many keys, from the first on, satisfy `before`; it holds for a prefix of the list.
    pub(super) fn partition(&self, before: impl Fn(&[u8]) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            if before(self.get(middle)) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The slot of `key`, or the one where it would go.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let slot = self.partition(|other| other < key);
        if slot < self.len() && self.get(slot) == key { Ok(slot) } else { Err(slot) }
    }

    /// Adds a key above all others.
    pub(super) fn push(&mut self, key: &[u8]) {
        grow(&mut self.bytes, key.len());
        grow(&mut self.ends, 1);
        self.bytes.extend_from_slice(key);
        self.ends.push(end(self.bytes.len()));
    }

    pub(super) fn insert(&mut self, slot: usize, key: &[u8]) {
        let (start, added) = (self.start(slot), end(key.len()));
        grow(&mut self.bytes, key.len());
        grow(&mut self.ends, 1);
        let old_len = self.bytes.len();
        self.bytes.resize(old_len + key.len(), 0);
        self.bytes.copy_within(start..old_len, start + key.len());
        self.bytes[start..start + key.len()].copy_from_slice(key);
        self.ends.insert(slot, end(start));
        self.ends[slot..].iter_mut().for_each(|end| *end += added);
    }

    pub(super) fn remove(&mut self, slot: usize) {
        let (start, stop) = (self.start(slot), self.ends[slot] as usize);
        self.bytes.drain(start..stop);
        self.ends.remove(slot);
        let removed = end(stop - start);
        self.ends[slot..].iter_mut().for_each(|end| *end -= removed);
    }

    /// Keeps `slots` keys and gives the others away; both sides without slack.
    pub(super) fn split_off(&mut self, slots: usize) -> Self {
        let start = self.start(slots);
        let bytes = self.bytes[start..].to_vec();
        let ends = self.ends[slots..].iter().map(|end| end - start as u32).collect();
        self.bytes.truncate(start);
        self.ends.truncate(slots);
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
        Self { bytes, ends }
    }

    pub(super) fn append(&mut self, other: &Self) {
        let start = end(self.bytes.len());
        self.bytes.reserve_exact(other.bytes.len());
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.reserve_exact(other.ends.len());
        self.ends.extend(other.ends.iter().map(|end| start + end));
    }

    fn start(&self, slot: usize) -> usize {
        if slot == 0 { 0 } else { self.ends[slot - 1] as usize }
    }
}

fn end(len: usize) -> u32 {
    u32::try_from(len).expect("a node is split long before its keys fill 4 GiB")
}

/// Makes room for `more` elements with an eighth to spare: doubling would cost half the memory.
pub(super) fn grow<T>(list: &mut Vec<T>, more: usize) {
    if list.capacity() - list.len() < more {
        list.reserve_exact(more.max(list.len() / 8).max(4));
    }
}
