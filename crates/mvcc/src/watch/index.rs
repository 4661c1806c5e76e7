//! Which items watch a key: a hash of single keys and a tree of ranges.

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::interval::{Interval, IntervalTree};

/// What a watcher watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Span {
    Key(Bytes),
    Range(Interval),
}

/// Items by what they watch. Items of one span stand in a list; an item is taken out by its place there.
#[derive(Debug)]
pub(super) struct Index<T> {
    keys: FxHashMap<Bytes, Vec<T>>,
    ranges: IntervalTree<T>,
}

impl<T: Copy> Index<T> {
    pub(super) fn new() -> Self {
        Self { keys: FxHashMap::default(), ranges: IntervalTree::new() }
    }

    /// Adds an item; returns its place among those of its span.
    pub(super) fn insert(&mut self, span: &Span, item: T) -> usize {
        let items = match span {
            Span::Key(key) => self.keys.entry(key.clone()).or_default(),
            Span::Range(range) => self.ranges.entry(range),
        };
        if items.is_empty() {
            items.reserve_exact(1);
        }
        items.push(item);
        items.len() - 1
    }

    /// Takes out the item at `place` of its span; returns the item that now stands there, if one moved.
    pub(super) fn remove(&mut self, span: &Span, place: usize) -> Option<T> {
        let items = match span {
            Span::Key(key) => self.keys.get_mut(key),
            Span::Range(range) => self.ranges.get_mut(range),
        };
        let items = items.expect("an item that was inserted has its list");
        items.swap_remove(place);
        let moved = items.get(place).copied();
        if items.is_empty() {
            match span {
                Span::Key(key) => drop(self.keys.remove(key)),
                Span::Range(range) => self.ranges.remove(range),
            }
        }
        moved
    }

    /// Calls `visit` for each item that watches `key`, once.
    pub(super) fn visit(&self, key: &[u8], visit: &mut (impl FnMut(T) + ?Sized)) {
        if let Some(items) = self.keys.get(key) {
            items.iter().for_each(|item| visit(*item));
        }
        self.ranges.visit(key, &mut |items| items.iter().for_each(|item| visit(*item)));
    }
}
