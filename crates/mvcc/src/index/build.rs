//! Building the index at start, from every record, which several threads read.
//!
//! ```text
//! records ──push──> chunks of keys and changes ─┐
//! records ──push──> chunks of keys and changes ─┴─sort by key, two threads──> leaves ──> inner nodes
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

/// Changes of a chunk.
const CHUNK: usize = limit(4096, 4);
/// Bytes of keys at which a chunk is full.
const CHUNK_BYTES: usize = 4 << 20;

/// Collects changes and makes the tree of them.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    chunks: Vec<Chunk>,
    /// What all keys begin with; none before the first key.
    prefix: Option<Vec<u8>>,
}

/// Changes in the order in which they came. It never grows beyond its first room by much: one list of all
/// would be copied again and again, and take twice its bytes in the end.
#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    changes: Vec<Entry>,
    /// The changes that carry a lease, by their slot.
    leases: Vec<(u32, i64)>,
}

/// What a [`Builder`] makes.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) tree: Tree,
    /// Keys that exist now with their lease, where there is one; in key order.
    pub(crate) leases: Vec<(Bytes, i64)>,
}

/// A change to be sorted: the next bytes of its key, how many they are (9: more than eight), its place: chunk
/// and slot in one number.
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

impl Chunk {
    fn is_full(&self) -> bool {
        self.changes.len() == CHUNK || self.bytes.len() >= CHUNK_BYTES
    }

    fn key(&self, slot: usize) -> &[u8] {
        let start = if slot == 0 { 0 } else { self.ends[slot - 1] as usize };
        &self.bytes[start..self.ends[slot] as usize]
    }
}

impl Builder {
    /// Adds a change. Those of one key may come in any order, and are put in order of revision.
    pub(crate) fn push(&mut self, key: &[u8], change: Entry, lease: i64) {
        let prefix = self.prefix.get_or_insert_with(|| key.to_vec());
        if !key.starts_with(prefix) {
            prefix.truncate(common(prefix, key));
        }
        if self.chunks.last().is_none_or(Chunk::is_full) {
            let (ends, changes) = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK));
            self.chunks.push(Chunk { ends, changes, ..Chunk::default() });
        }
        let chunk = self.chunks.last_mut().expect("one was pushed");
        if lease != 0 {
            chunk.leases.push((chunk.changes.len() as u32, lease));
        }
        chunk.bytes.extend_from_slice(key);
        let end = u32::try_from(chunk.bytes.len());
        chunk.ends.push(end.expect("a key is far shorter than 4 GiB"));
        chunk.changes.push(change);
    }

    /// The tree of what several builders collected. No change may have come twice.
    pub(crate) fn finish(builders: impl IntoIterator<Item = Self>) -> Built {
        let mut all = Self::default();
        for builder in builders {
            all.prefix = match (all.prefix, builder.prefix) {
                (Some(one), Some(other)) => Some(one[..common(&one, &other)].to_vec()),
                (one, other) => one.or(other),
            };
            all.chunks.extend(builder.chunks);
        }
        all.built()
    }

    fn built(&self) -> Built {
        let depth = self.prefix.as_ref().map_or(0, Vec::len);
        let mut items: Vec<Item> = Vec::with_capacity(self.chunks.len() * CHUNK);
        for (nth, chunk) in self.chunks.iter().enumerate() {
            let slots = 0..chunk.changes.len();
            items.extend(slots.map(|slot| item(&chunk.key(slot)[depth..], place_of(nth, slot))));
        }
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

    fn chunk(&self, place: u32) -> (&Chunk, usize) {
        let place = place as usize;
        (&self.chunks[place / CHUNK], place % CHUNK)
    }

    fn key(&self, place: u32) -> &[u8] {
        let (chunk, slot) = self.chunk(place);
        chunk.key(slot)
    }

    fn change(&self, place: u32) -> Entry {
        let (chunk, slot) = self.chunk(place);
        chunk.changes[slot]
    }

    /// The lease of a change; 0 without one.
    fn lease(&self, place: u32) -> i64 {
        let (chunk, slot) = self.chunk(place);
        let found = chunk.leases.binary_search_by_key(&(slot as u32), |(slot, _)| *slot);
        found.map_or(0, |found| chunk.leases[found].1)
    }

    /// Equal keys were sorted together at every level, so their items hold the same word.
    fn same_key(&self, a: Item, b: Item) -> bool {
        a.word == b.word && a.len == b.len && self.key(a.place) == self.key(b.place)
    }

    /// Sorts by key, then by place. All keys agree in `depth` bytes, and the items were loaded there.
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
                run.iter_mut().for_each(|loaded| {
                    *loaded = item(&self.key(loaded.place)[depth..], loaded.place);
                });
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
        let (mut places, mut changes) = (Vec::new(), Vec::new());
        for group in groups {
            places.clear();
            places.extend(items[group.clone()].iter().map(|item| item.place));
            if places.len() > 1 {
                // A few ascending runs, which a stable sort merges.
                places.sort_by_key(|place| self.change(*place).revision());
            }
            changes.clear();
            changes.extend(places.iter().map(|place| self.change(*place)));
            let last = places[places.len() - 1];
            leaf.push(self.key(last), &changes);
            let lease = self.lease(last);
            if lease != 0 {
                leases.push((Bytes::copy_from_slice(self.key(last)), lease));
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

/// The change at `place`, of whose key `rest` is not yet compared.
fn item(rest: &[u8], place: u32) -> Item {
    let word = rest.first_chunk().copied().unwrap_or_else(|| {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        word
    });
    Item { word: u64::from_be_bytes(word), len: rest.len().min(9) as u8, place }
}

/// How many bytes two keys begin with in common.
fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

fn place_of(chunk: usize, slot: usize) -> u32 {
    u32::try_from(chunk * CHUNK + slot).expect("a store has fewer than 2^31 changes")
}
