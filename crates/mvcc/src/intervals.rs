//! A set of keys given as intervals.

use std::collections::BTreeMap;

/// The union of intervals of keys. Kept as disjoint ones: lowest key, and the end (none: no bound).
#[derive(Debug, Clone, Default)]
pub(crate) struct Intervals(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Intervals {
    /// Adds the keys in `from..until`.
    pub(crate) fn insert(&mut self, from: &[u8], until: Option<&[u8]>) {
        if until.is_some_and(|until| until <= from) {
            return;
        }
        let (mut from, mut until) = (from.to_vec(), until.map(<[u8]>::to_vec));
        if let Some((start, end)) = self.0.range(..=from.clone()).next_back()
            && end.as_ref().is_none_or(|end| *end >= from)
        {
            from = start.clone();
        }
        while let Some((start, end)) = self.0.range(from.clone()..).next() {
            if until.as_ref().is_some_and(|until| start > until) {
                break;
            }
            until = until.and_then(|until| end.clone().map(|end| end.max(until)));
            let start = start.clone();
            self.0.remove(&start);
        }
        self.0.insert(from, until);
    }

    /// Adds one key.
    pub(crate) fn insert_key(&mut self, key: &[u8]) {
        self.insert(key, Some(&successor(key)));
    }

    /// Takes one key out.
    pub(crate) fn remove_key(&mut self, key: &[u8]) {
        if !self.contains(key) {
            return;
        }
        let (start, end) = self.0.range(..=key.to_vec()).next_back().expect("it contains the key");
        let (start, end) = (start.clone(), end.clone());
        self.0.remove(&start);
        if start.as_slice() < key {
            self.0.insert(start, Some(key.to_vec()));
        }
        let after = successor(key);
        if end.as_ref().is_none_or(|end| *end > after) {
            self.0.insert(after, end);
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        let below = self.0.range(..=key.to_vec()).next_back();
        below.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < end.as_slice()))
    }

    /// The intervals, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.0.iter().map(|(from, until)| (from.as_slice(), until.as_deref()))
    }
}

/// The lowest key above `key`.
fn successor(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEYS: [&[u8]; 6] = [b"a", b"a\0", b"b", b"c", b"d", b"e"];

    fn key() -> impl Strategy<Value = usize> {
        0..KEYS.len()
    }

    proptest! {
        #[test]
        fn it_holds_what_was_added_last(
            steps in prop::collection::vec((0..3, key(), prop::option::of(key())), 0..12)
        ) {
            let mut set = Intervals::default();
            let mut model = [false; KEYS.len()];
            for (what, from, until) in steps {
                match what {
                    0 => {
                        set.insert(KEYS[from], until.map(|until| KEYS[until]));
                        (from..until.unwrap_or(KEYS.len())).for_each(|at| model[at] = true);
                    }
                    1 => {
                        set.insert_key(KEYS[from]);
                        model[from] = true;
                    }
                    _ => {
                        set.remove_key(KEYS[from]);
                        model[from] = false;
                    }
                }
                for (key, expected) in KEYS.iter().zip(model) {
                    prop_assert_eq!(set.contains(key), expected, "{:?} in {:?}", key, &set);
                }
            }
        }
    }
}
