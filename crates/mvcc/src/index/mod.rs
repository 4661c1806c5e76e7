//! The key index: an ordered tree from key to its changes, with subtree counts.
//!
//! ```text
//! Tree ── Child{node, sums} ── Inner{separators, children} ── Leaf{keys, latest, older}
//! ```
//! Nodes are shared by reference count. A writer changes a node in place while it alone holds it, and
//! copies it otherwise: so cloning a tree is O(1), and writers copy paths only while a clone lives.
//!
//! Invariants:
//! - a key's changes are ascending; the latest lies in the leaf itself, older ones in its history;
//! - a child's sums are those of its subtree: keys that exist now, keys with something to prune, and
//!   the newest revision at which a key appeared or vanished. So counting at a revision looks only into
//!   subtrees where that happened since;
//! - an inner node remembers what was counted in it at old revisions (see `counts`), while no key moves from it
//!   to another one or to it: so counting there again looks into the edges of the range only;
//! - no node but the root is empty, and neighbours that are both small are merged when pruning.
//!
//! It knows nothing of records, and keeps no bytes but the keys.

mod build;
mod counts;
mod entry;
mod history;
mod keys;
mod leaf;
mod node;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use crate::record::Revision;

pub(crate) use build::{Builder, Built};
pub(crate) use entry::Entry;

use leaf::Leaf;
use node::{Child, Inner, Node, Span};

/// Which keys a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys<'a> {
    /// This one.
    One(&'a [u8]),
    /// `from` and everything above it, below `until` if there is one.
    Range { from: &'a [u8], until: Option<&'a [u8]> },
}

impl<'a> Keys<'a> {
    /// As requests write it: no end names one key, the end `\0` means no upper bound.
    pub(crate) fn new(key: &'a [u8], range_end: &'a [u8]) -> Self {
        match range_end {
            [] => Self::One(key),
            [0] => Self::Range { from: key, until: None },
            _ => Self::Range { from: key, until: Some(range_end) },
        }
    }

    pub(crate) const ALL: Self = Self::Range { from: &[], until: None };

    fn span(self) -> Span<'a> {
        let Self::Range { from, until } = self else { unreachable!("a span of one key") };
        Span { from: Some(from).filter(|from| !from.is_empty()), until }
    }
}

/// The latest main revision there can be: what exists now exists there.
pub(crate) const NOW: i64 = i64::MAX;

#[derive(Debug, Clone)]
pub(crate) struct Tree {
    root: Child,
}

impl Default for Tree {
    fn default() -> Self {
        Self { root: Child::new(Node::Leaf(Leaf::default())) }
    }
}

impl Tree {
    /// How many keys exist now.
    pub(crate) fn live(&self) -> usize {
        self.root.sums.live
    }

    /// The change of `key` that a read at main revision `main` finds; none when it was absent.
    pub(crate) fn at(&self, key: &[u8], main: i64) -> Option<Entry> {
        self.root.find(key).and_then(|(leaf, slot)| leaf.at(slot, main))
    }

    /// Adds a change, the newest of all: a put whose record has this tail (see [`Entry`]), or without one a
    /// deletion. The key's latest change before it, which may be a tombstone.
    pub(crate) fn write(
        &mut self,
        key: &[u8],
        revision: Revision,
        put: Option<u32>,
    ) -> Option<Entry> {
        let (before, split) = self.root.write(key, revision, put);
        if let Some((separator, right)) = split {
            let left = self.root.clone();
            let separators = std::iter::once(separator.as_slice());
            let root = Inner::from_children(vec![left, right], separators);
            self.root = Child::new(Node::Inner(root));
        }
        before
    }

    /// How many of the keys exist at main revision `main`.
    pub(crate) fn count(&self, keys: Keys<'_>, main: i64) -> usize {
        match keys {
            Keys::One(key) => usize::from(self.at(key, main).is_some()),
            Keys::Range { .. } => self.root.count(keys.span(), main),
        }
    }

    /// Calls `visit` for each of the keys that exists at main revision `main`, in order, until it breaks.
    pub(crate) fn visit<'a>(
        &'a self,
        keys: Keys<'_>,
        main: i64,
        mut visit: impl FnMut(&'a [u8], Entry) -> ControlFlow<()>,
    ) {
        let _ = match keys {
            Keys::One(key) => {
                let found = self.root.find(key);
                let found = found.and_then(|(leaf, slot)| Some((leaf, slot, leaf.at(slot, main)?)));
                found.map_or(ControlFlow::Continue(()), |(leaf, slot, entry)| {
                    visit(leaf.key(slot), entry)
                })
            }
            Keys::Range { .. } => self.root.visit(keys.span(), main, &mut visit),
        };
    }

    /// Forgets, from the key `from` on, what no read at `floor` or above can find: of each key all but
    /// the newest change at or below the floor, and that one too when it is a tombstone below the floor.
    ///
    /// Adds the revisions forgotten, each key's in ascending order, and stops at about `budget` of them
    /// and of keys looked at; then returns the key to go on from.
    pub(crate) fn sweep(
        &mut self,
        from: &[u8],
        floor: i64,
        mut budget: usize,
        dropped: &mut Vec<Revision>,
    ) -> Option<Vec<u8>> {
        let from = Some(from).filter(|from| !from.is_empty());
        let resume = self.root.sweep(from, floor, &mut budget, dropped);
        while let Node::Inner(inner) = &*self.root.node {
            match inner.single_child() {
                Some(child) => self.root = child.clone(),
                None if self.root.sums.live + self.root.sums.dirty > 0 => break,
                None => *self = Self::default(),
            }
        }
        resume
    }
}
