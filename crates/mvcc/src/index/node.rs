//! Nodes of the index: changed in place while nobody else holds them, copied otherwise.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::limit;
use crate::record::Revision;

use super::Entry;
use super::counts::OldCounts;
use super::keys::{KeyList, grow};
use super::leaf::{Leaf, Sums};

/// Children of an inner node.
pub(super) const CHILDREN_MAX: usize = limit(64, 6);
/// Bytes of an inner node's separators beyond which it is split as well.
const SEPARATOR_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Clone)]
pub(super) enum Node {
    Leaf(Leaf),
    Inner(Inner),
}

/// A subtree, with what is known of it.
#[derive(Debug, Clone)]
pub(super) struct Child {
    pub(super) node: Arc<Node>,
    pub(super) sums: Sums,
}

/// Keys of child i are below separator i and not below separator i - 1.
#[derive(Debug, Clone, Default)]
pub(super) struct Inner {
    separators: KeyList,
    children: Vec<Child>,
    old_counts: OldCounts,
}

/// The upper part of a node that was split: the lowest key it may hold, and itself.
pub(super) type Split = (Vec<u8>, Child);

/// Where an interrupted sweep goes on.
pub(super) type Resume = Vec<u8>;

/// The keys in `from..until`; an absent bound is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span<'a> {
    pub(super) from: Option<&'a [u8]>,
    pub(super) until: Option<&'a [u8]>,
}

impl Child {
    pub(super) fn new(node: Node) -> Self {
        let sums = node.sums();
        Self { node: Arc::new(node), sums }
    }

    /// See [`Leaf::write`].
    pub(super) fn write(
        &mut self,
        key: &[u8],
        revision: Revision,
        put: Option<u32>,
    ) -> (Option<Entry>, Option<Split>) {
        let node = Arc::make_mut(&mut self.node);
        let before = match node {
            Node::Leaf(leaf) => {
                let before = leaf.write(key, revision, put);
                self.sums = leaf.sums();
                before
            }
            Node::Inner(inner) => inner.write(key, revision, put, &mut self.sums),
        };
        let split = node.split_if_over_full();
        if split.is_some() {
            self.sums = node.sums();
        }
        (before, split)
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<(&Leaf, usize)> {
        let mut node = &*self.node;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.find(key).map(|slot| (leaf, slot)),
                Node::Inner(inner) => node = &inner.children[inner.place(key)].node,
            }
        }
    }

    /// The lowest key. Not for an empty leaf, which only a root is.
    fn first_key(&self) -> &[u8] {
        let mut node = &*self.node;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.key(0),
                Node::Inner(inner) => node = &inner.children[0].node,
            }
        }
    }

    /// How many keys of the span exist at main revision `main`.
    pub(super) fn count(&self, span: Span<'_>, main: i64) -> usize {
        if self.sums.turned <= main && span.is_everything() {
            return self.sums.live;
        }
        match &*self.node {
            Node::Leaf(leaf) => {
                let slots = leaf.slots(span.from, span.until);
                slots.filter(|&slot| leaf.at(slot, main).is_some()).count()
            }
            Node::Inner(inner) if span.is_everything() => inner.old_count(main),
            Node::Inner(inner) => inner.count(span, main),
        }
    }

    /// Whether it is known that nothing exists at main revision `main`.
    fn is_void(&self, main: i64) -> bool {
        match &*self.node {
            _ if self.sums.turned <= main => self.sums.live == 0,
            Node::Leaf(_) => false,
            Node::Inner(inner) => inner.old_counts.at(main) == Some(0),
        }
    }

    /// Calls `visit` for each key of the span that exists at main revision `main`, in order.
    pub(super) fn visit<'a>(
        &'a self,
        span: Span<'_>,
        main: i64,
        visit: &mut impl FnMut(&'a [u8], Entry) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if self.is_void(main) {
            return ControlFlow::Continue(());
        }
        match &*self.node {
            Node::Leaf(leaf) => {
                for slot in leaf.slots(span.from, span.until) {
                    if let Some(entry) = leaf.at(slot, main) {
                        visit(leaf.key(slot), entry)?;
                    }
                }
            }
            Node::Inner(inner) => {
                for (child, span) in inner.children_in(span) {
                    child.visit(span, main, visit)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Prunes from the key `from` on; see [`Tree::sweep`](super::Tree::sweep).
    pub(super) fn sweep(
        &mut self,
        from: Option<&[u8]>,
        floor: i64,
        budget: &mut usize,
        dropped: &mut Vec<Revision>,
    ) -> Option<Resume> {
        if self.sums.dirty == 0 {
            return None;
        }
        let node = Arc::make_mut(&mut self.node);
        let resume = match node {
            Node::Leaf(leaf) => {
                let done = leaf.prune(floor, budget, dropped);
                (!done).then(|| leaf.key(0).to_vec())
            }
            Node::Inner(inner) => inner.sweep(from, floor, budget, dropped),
        };
        self.sums = node.sums();
        resume
    }
}

impl Span<'_> {
    fn is_everything(&self) -> bool {
        self.from.is_none() && self.until.is_none()
    }
}

impl Node {
    fn sums(&self) -> Sums {
        match self {
            Self::Leaf(leaf) => leaf.sums(),
            Self::Inner(inner) => inner.sums(),
        }
    }

    fn split_if_over_full(&mut self) -> Option<Split> {
        match self {
            Self::Leaf(leaf) if leaf.is_over_full() => {
                let right = leaf.split();
                let separator = separator(leaf.key(leaf.len() - 1), right.key(0));
                Some((separator, Child::new(Self::Leaf(right))))
            }
            Self::Inner(inner) if inner.is_over_full() => {
                let (separator, right) = inner.split();
                Some((separator, Child::new(Self::Inner(right))))
            }
            _ => None,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Leaf(leaf) => leaf.len() == 0,
            Self::Inner(inner) => inner.children.is_empty(),
        }
    }

    /// Takes over the nodes of its right neighbour when both are small.
    fn absorb(&mut self, right: &Self, separator: &[u8]) -> bool {
        match (self, right) {
            (Self::Leaf(left), Self::Leaf(right)) if left.fits_with(right) => left.append(right),
            (Self::Inner(left), Self::Inner(right)) if left.fits_with(right) => {
                left.append(right, separator);
            }
            _ => return false,
        }
        true
    }
}

impl Inner {
    /// From children in order with the lowest key of each but the first.
    pub(super) fn from_children<'a>(
        children: Vec<Child>,
        separators: impl Iterator<Item = &'a [u8]>,
    ) -> Self {
        let mut list = KeyList::default();
        separators.for_each(|separator| list.push(separator));
        assert_eq!(list.len() + 1, children.len(), "one separator between two children");
        Self { separators: list, children, old_counts: OldCounts::default() }
    }

    #[cfg(test)]
    pub(super) fn children(&self) -> &[Child] {
        &self.children
    }

    /// The only child, of a root that is to be replaced by it.
    pub(super) fn single_child(&self) -> Option<&Child> {
        if let [child] = self.children.as_slice() { Some(child) } else { None }
    }

    /// Writes and keeps `sums`, those of this node, in step.
    fn write(
        &mut self,
        key: &[u8],
        revision: Revision,
        put: Option<u32>,
        sums: &mut Sums,
    ) -> Option<Entry> {
        let place = self.place(key);
        let child = &mut self.children[place];
        sums.subtract(child.sums);
        let (before, split) = child.write(key, revision, put);
        sums.add(child.sums);
        if let Some((separator, right)) = split {
            sums.add(right.sums);
            self.separators.insert(place, &separator);
            grow(&mut self.children, 1);
            self.children.insert(place + 1, right);
        }
        before
    }

    fn sweep(
        &mut self,
        from: Option<&[u8]>,
        floor: i64,
        budget: &mut usize,
        dropped: &mut Vec<Revision>,
    ) -> Option<Resume> {
        let mut place = from.map_or(0, |key| self.place(key));
        let mut from = from;
        while place < self.children.len() {
            if *budget == 0 {
                return Some(self.children[place].first_key().to_vec());
            }
            if let Some(resume) = self.children[place].sweep(from, floor, budget, dropped) {
                return Some(resume);
            }
            from = None;
            if !self.fold(place) {
                place += 1;
            }
        }
        None
    }

    /// Removes the child when it is empty, or moves it into its left neighbour when both are small;
    /// whether its place is now that of the next child.
    fn fold(&mut self, place: usize) -> bool {
        if !self.children[place].node.is_empty() {
            if place == 0 {
                return false;
            }
            let (left, right) = self.children.split_at_mut(place);
            let (left, right) = (&mut left[place - 1], &right[0]);
            if !left.node.fits_with(&right.node) {
                return false;
            }
            let node = Arc::make_mut(&mut left.node);
            let folded = node.absorb(&right.node, self.separators.get(place - 1));
            assert!(folded, "two nodes of one level that fit");
            left.sums = node.sums();
        }
        self.children.remove(place);
        if self.separators.len() > 0 {
            self.separators.remove(place.saturating_sub(1));
        }
        true
    }

    fn is_over_full(&self) -> bool {
        self.children.len() > CHILDREN_MAX
            || (self.separators.byte_len() > SEPARATOR_BYTES_MAX && self.children.len() > 3)
    }

    fn split(&mut self) -> (Vec<u8>, Self) {
        let half = self.children.len() / 2;
        let separators = self.separators.split_off(half);
        let separator = self.separators.get(half - 1).to_vec();
        self.separators.remove(half - 1);
        let children = self.children.split_off(half);
        self.children.shrink_to_fit();
        self.old_counts.forget();
        (separator, Self { separators, children, old_counts: OldCounts::default() })
    }

    fn append(&mut self, right: &Self, separator: &[u8]) {
        let place = self.children.len();
        self.separators.push(separator);
        self.separators.append(&right.separators);
        self.children.extend_from_slice(&right.children);
        self.old_counts.forget();
        self.fold(place);
    }

    fn fits_with(&self, right: &Self) -> bool {
        self.children.len() + right.children.len() <= CHILDREN_MAX / 2
            && self.separators.byte_len() + right.separators.byte_len() <= SEPARATOR_BYTES_MAX / 2
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        self.children.iter().for_each(|child| sums.add(child.sums));
        sums
    }

    fn count(&self, span: Span<'_>, main: i64) -> usize {
        self.children_in(span).map(|(child, span)| child.count(span, main)).sum()
    }

    /// How many of its keys existed at main revision `main`, after which some appeared or vanished.
    fn old_count(&self, main: i64) -> usize {
        self.old_counts.at(main).unwrap_or_else(|| {
            let count = self.count(Span { from: None, until: None }, main);
            self.old_counts.note(main, count);
            count
        })
    }

    /// The child whose span `key` lies in.
    fn place(&self, key: &[u8]) -> usize {
        self.separators.partition(|separator| separator <= key)
    }

    /// The children that meet the span, each with the part of the bounds that cuts it.
    fn children_in<'a, 's>(
        &'a self,
        span: Span<'s>,
    ) -> impl Iterator<Item = (&'a Child, Span<'s>)> {
        let first = span.from.map_or(0, |key| self.place(key));
        let last = span.until.map_or(self.children.len().saturating_sub(1), |key| self.place(key));
        let children = self.children.get(first..=last).unwrap_or_default();
        children.iter().enumerate().map(move |(nth, child)| {
            let from = span.from.filter(|_| nth == 0);
            let until = span.until.filter(|_| first + nth == last);
            (child, Span { from, until })
        })
    }
}

impl Node {
    fn fits_with(&self, right: &Self) -> bool {
        match (self, right) {
            (Self::Leaf(left), Self::Leaf(right)) => left.fits_with(right),
            (Self::Inner(left), Self::Inner(right)) => left.fits_with(right),
            _ => false,
        }
    }
}

/// The shortest key that is above `left` and not above `right`.
pub(super) fn separator(left: &[u8], right: &[u8]) -> Vec<u8> {
    let common = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    right[..common + 1].to_vec()
}
