//! A table with ids that are never mistaken for those of a later tenant of the same slot.

/// Names one tenant of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    slot: u32,
    generation: u32,
}

impl Id {
    /// Sorts before every other id.
    pub(super) const MIN: Self = Self { slot: 0, generation: 0 };
}

/// Values under ids; a freed slot is used again under a new generation.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, value: T) -> Id {
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.slots[slot as usize];
            entry.value = Some(value);
            return Id { slot, generation: entry.generation };
        }
        let slot = u32::try_from(self.slots.len()).expect("fewer than 2^32 watchers");
        self.slots.push(Slot { generation: 0, value: Some(value) });
        Id { slot, generation: 0 }
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        let entry = self.slots.get_mut(id.slot as usize)?;
        if entry.generation != id.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.slot);
        Some(value)
    }

    pub(super) fn get(&self, id: Id) -> Option<&T> {
        let entry = self.slots.get(id.slot as usize)?;
        if entry.generation == id.generation { entry.value.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let entry = self.slots.get_mut(id.slot as usize)?;
        if entry.generation == id.generation { entry.value.as_mut() } else { None }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| {
            let id = Id { slot: slot as u32, generation: entry.generation };
            entry.value.as_ref().map(|value| (id, value))
        })
    }
}
