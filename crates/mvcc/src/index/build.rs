//! Building the index at start, from every record in revision order.
//!
//! ```text
//! records ──push──> keys in one buffer, changes ──sort by key, two threads──> leaves ──> inner nodes
//! ```
//! Sorting is the cost. Keys are compared by words of eight bytes, loaded once per level, since following
//! a reference to each key's bytes for every comparison would miss the cache a million times.

use std::ops::Range;

use bytes::Bytes;

use crate::limit;

use super::Tree;
use super::entry::Entry;
use super::leaf::Leaf;
use super::node::{Child, Inner, Node, separator};

/// Nodes are filled to this number, so that the first writes do not split all of them.
const FILL: usize = limit(56, 4);
/// Bytes of keys at which a leaf is full.
const FILL_BYTES: usize = 16 << 10;
/// Below this many changes a second thread costs more than it saves.
const PARALLEL_MIN: usize = limit(50_000, 8);
/// Runs of equal words up to this length are sorted by comparing keys.
const SHORT_RUN: usize = limit(24, 1);
/// Levels of words; beyond them keys are compared.
const LEVELS_MAX: usize = limit(8, 1);

/// Collects changes and makes the tree of them.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    changes: Vec<Entry>,
    /// The changes that carry a lease, by their place in `changes`.
    leases: Vec<(u32, i64)>,
}

/// What a [`Builder`] makes.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) tree: Tree,
    /// Keys that exist now with their lease, where there is one; in key order.
    pub(crate) leases: Vec<(Bytes, i64)>,
}

/// A change to be sorted: the next bytes of its key, how many they are (9: more than eight), its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    word: u64,
    len: u8,
    place: u32,
}

#[derive(Default)]
struct Part {
    leaves: Vec<Leaf>,
    leases: Vec<(Bytes, i64)>,
}

impl Builder {
    /// Adds a change that is newer than all before.
    pub(crate) fn push(&mut self, key: &[u8], change: Entry, lease: i64) {
        if lease != 0 {
            self.leases.push((place_of(self.changes.len()), lease));
        }
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
        self.changes.push(change);
    }

    pub(crate) fn finish(self) -> Built {
        let depth = self.common_prefix();
        let mut items: Vec<Item> =
            (0..self.changes.len()).map(|place| self.item(place_of(place), depth)).collect();
        let (low, high) = if items.len() < PARALLEL_MIN {
            (self.part(&mut items, depth), Part::default())
        } else {
            let middle = partition(&mut items);
            let (low, high) = items.split_at_mut(middle);
            std::thread::scope(|scope| {
                let low = scope.spawn(|| self.part(low, depth));
                let high = self.part(high, depth);
                (low.join().expect("sorting does not panic"), high)
            })
        };
        let leaves = low.leaves.into_iter().chain(high.leaves).collect();
        let leases = low.leases.into_iter().chain(high.leases).collect();
        Built { tree: Tree { root: stack(leaves) }, leases }
    }

    fn key(&self, place: u32) -> &[u8] {
        let place = place as usize;
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.bytes[start..self.ends[place]]
    }

    /// Equal keys were sorted together at every level, so their items hold the same word.
    fn same_key(&self, a: Item, b: Item) -> bool {
        a.word == b.word && a.len == b.len && self.key(a.place) == self.key(b.place)
    }

    fn common_prefix(&self) -> usize {
        if self.changes.is_empty() {
            return 0;
        }
        let first = self.key(0);
        (1..self.changes.len()).fold(first.len(), |common, place| {
            let key = self.key(place_of(place));
            if key.starts_with(&first[..common]) {
                return common;
            }
            first[..common].iter().zip(key).take_while(|(a, b)| a == b).count()
        })
    }

    fn item(&self, place: u32, depth: usize) -> Item {
        let rest = &self.key(place)[depth..];
        let mut word = [0; 8];
        let taken = rest.len().min(8);
        word[..taken].copy_from_slice(&rest[..taken]);
        Item { word: u64::from_be_bytes(word), len: rest.len().min(9) as u8, place }
    }

    /// Sorts by key, then by place, which is the order of revisions. All keys agree in `depth` bytes, and
    /// the items were loaded there.
    fn sort(&self, items: &mut [Item], depth: usize, level: usize) {
        items.sort_unstable();
        for run in items.chunk_by_mut(|a, b| a.word == b.word && a.len == b.len) {
            if run.len() == 1 || run[0].len <= 8 {
                continue;
            }
            let depth = depth + 8;
            if run.len() <= SHORT_RUN || level == LEVELS_MAX {
                let rest = |item: &Item| &self.key(item.place)[depth..];
                run.sort_unstable_by(|a, b| rest(a).cmp(rest(b)).then(a.place.cmp(&b.place)));
            } else {
                run.iter_mut().for_each(|item| *item = self.item(item.place, depth));
                self.sort(run, depth, level + 1);
            }
        }
    }

    fn part(&self, items: &mut [Item], depth: usize) -> Part {
        self.sort(items, depth, 0);
        let mut part = Part::default();
        let (mut groups, mut bytes): (Vec<Range<usize>>, usize) = (Vec::new(), 0);
        let mut start = 0;
        for group in items.chunk_by(|a, b| self.same_key(*a, *b)) {
            groups.push(start..start + group.len());
            start += group.len();
            bytes += self.key(group[0].place).len();
            if groups.len() == FILL || bytes >= FILL_BYTES {
                part.leaves.push(self.leaf(items, &groups, bytes, &mut part.leases));
                groups.clear();
                bytes = 0;
            }
        }
        if !groups.is_empty() {
            part.leaves.push(self.leaf(items, &groups, bytes, &mut part.leases));
        }
        part
    }

    fn leaf(
        &self,
        items: &[Item],
        groups: &[Range<usize>],
        bytes: usize,
        leases: &mut Vec<(Bytes, i64)>,
    ) -> Leaf {
        let mut leaf = Leaf::with_capacity(groups.len(), bytes);
        let mut changes = Vec::new();
        for group in groups {
            let group = &items[group.clone()];
            changes.clear();
            changes.extend(group.iter().map(|item| self.changes[item.place as usize]));
            let last = group[group.len() - 1].place;
            leaf.push(self.key(last), &changes);
            if let Ok(found) = self.leases.binary_search_by_key(&last, |(place, _)| *place) {
                leases.push((Bytes::copy_from_slice(self.key(last)), self.leases[found].1));
            }
        }
        leaf
    }
}

/// Moves the items below a middle word to the front; how many they are.
fn partition(items: &mut [Item]) -> usize {
    let mut sample: Vec<u64> =
        items.iter().step_by(items.len().div_ceil(500)).map(|i| i.word).collect();
    sample.sort_unstable();
    let pivot = sample[sample.len() / 2];
    let mut low = 0;
    for at in 0..items.len() {
        if items[at].word < pivot {
            items.swap(low, at);
            low += 1;
        }
    }
    low
}

/// Inner nodes over the leaves, level by level up to one root.
fn stack(leaves: Vec<Leaf>) -> Child {
    let mut separators: Vec<Vec<u8>> = leaves
        .windows(2)
        .map(|pair| separator(pair[0].key(pair[0].len() - 1), pair[1].key(0)))
        .collect();
    let mut level: Vec<Child> =
        leaves.into_iter().map(|leaf| Child::new(Node::Leaf(leaf))).collect();
    while level.len() > 1 {
        let mut upper = Vec::new();
        let mut upper_separators = Vec::new();
        let mut children = level.into_iter();
        let mut start = 0;
        while children.len() > 0 {
            // Not a last node with a single child: that would be a level for nothing.
            let take = if children.len() == FILL + 1 { FILL / 2 } else { FILL };
            let group: Vec<Child> = children.by_ref().take(take).collect();
            let inside = start..start + group.len() - 1;
            upper_separators.extend(separators.get(inside.end).cloned());
            start = inside.end + 1;
            let inside = separators[inside].iter().map(Vec::as_slice);
            upper.push(Child::new(Node::Inner(Inner::from_children(group, inside))));
        }
        (level, separators) = (upper, upper_separators);
    }
    level.pop().unwrap_or_else(|| Child::new(Node::Leaf(Leaf::default())))
}

fn place_of(place: usize) -> u32 {
    u32::try_from(place).expect("a store has fewer than 2^32 changes")
}
