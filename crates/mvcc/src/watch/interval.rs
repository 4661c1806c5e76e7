//! Half-open key ranges in a balanced tree that finds all those that hold a key.
//!
//! An AVL tree ordered by (start, end); each node also names the node of its subtree whose range ends
//! last, so that a search leaves out whole subtrees that end before the key. Nodes live in one vector
//! and refer to each other by place. A lookup costs O(log n) per range found.

use std::cmp::Ordering;

use bytes::Bytes;

/// `start..end`; without an end, everything from `start` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) start: Bytes,
    pub(super) end: Option<Bytes>,
}

/// Ranges, each with the items that were put under it.
#[derive(Debug)]
pub(super) struct IntervalTree<T> {
    nodes: Vec<Node<T>>,
    free: Vec<u32>,
    root: u32,
}

#[derive(Debug)]
struct Node<T> {
    interval: Interval,
    items: Vec<T>,
    left: u32,
    right: u32,
    height: u32,
    /// The node of this subtree whose range ends last.
    furthest: u32,
}

const NIL: u32 = u32::MAX;

impl Interval {
    fn order(&self, other: &Self) -> Ordering {
        self.start.cmp(&other.start).then_with(|| self.order_of_ends(other))
    }

    fn order_of_ends(&self, other: &Self) -> Ordering {
        match (&self.end, &other.end) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(mine), Some(theirs)) => mine.cmp(theirs),
        }
    }

    fn ends_after(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| &end[..] > key)
    }
}

impl<T> IntervalTree<T> {
    pub(super) const fn new() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), root: NIL }
    }

    /// The items under exactly this range, added empty if it is new.
    pub(super) fn entry(&mut self, interval: &Interval) -> &mut Vec<T> {
        let mut found = self.find(interval);
        if found == NIL {
            found = self.allocate(interval.clone());
            self.root = self.link(self.root, found);
        }
        &mut self.nodes[found as usize].items
    }

    /// The items under exactly this range, if there are any.
    pub(super) fn get_mut(&mut self, interval: &Interval) -> Option<&mut Vec<T>> {
        let found = self.find(interval);
        if found == NIL { None } else { Some(&mut self.nodes[found as usize].items) }
    }

    /// Takes a range out with all its items.
    pub(super) fn remove(&mut self, interval: &Interval) {
        if self.find(interval) != NIL {
            let (root, gone) = self.unlink(self.root, interval);
            self.root = root;
            self.nodes[gone as usize].items = Vec::new();
            self.free.push(gone);
        }
    }

    /// Calls `visit` for the items of every range that holds `key`.
    pub(super) fn visit(&self, key: &[u8], visit: &mut impl FnMut(&[T])) {
        self.visit_under(self.root, key, visit);
    }

    fn visit_under(&self, at: u32, key: &[u8], visit: &mut impl FnMut(&[T])) {
        let Some(node) = self.nodes.get(at as usize) else { return };
        if !self.nodes[node.furthest as usize].interval.ends_after(key) {
            return;
        }
        self.visit_under(node.left, key, visit);
        if &node.interval.start[..] <= key {
            if node.interval.ends_after(key) {
                visit(&node.items);
            }
            self.visit_under(node.right, key, visit);
        }
    }

    fn find(&self, interval: &Interval) -> u32 {
        let mut at = self.root;
        while let Some(node) = self.nodes.get(at as usize) {
            match interval.order(&node.interval) {
                Ordering::Less => at = node.left,
                Ordering::Greater => at = node.right,
                Ordering::Equal => break,
            }
        }
        at
    }

    fn allocate(&mut self, interval: Interval) -> u32 {
        let node =
            Node { interval, items: Vec::new(), left: NIL, right: NIL, height: 1, furthest: NIL };
        let at = match self.free.pop() {
            Some(at) => at,
            None => u32::try_from(self.nodes.len()).expect("fewer than 2^32 ranges"),
        };
        if at as usize == self.nodes.len() {
            self.nodes.push(node);
        } else {
            self.nodes[at as usize] = node;
        }
        self.nodes[at as usize].furthest = at;
        at
    }

    /// Puts `new` below `at`; returns the subtree's root.
    fn link(&mut self, at: u32, new: u32) -> u32 {
        if at == NIL {
            return new;
        }
        let order = self.nodes[new as usize].interval.order(&self.nodes[at as usize].interval);
        if order == Ordering::Less {
            self.nodes[at as usize].left = self.link(self.nodes[at as usize].left, new);
        } else {
            self.nodes[at as usize].right = self.link(self.nodes[at as usize].right, new);
        }
        self.balance(at)
    }

    /// Takes `interval`, which is there, out below `at`; returns the subtree's root and the node taken.
    fn unlink(&mut self, at: u32, interval: &Interval) -> (u32, u32) {
        let Node { left, right, .. } = self.nodes[at as usize];
        match interval.order(&self.nodes[at as usize].interval) {
            Ordering::Less => {
                let (root, gone) = self.unlink(left, interval);
                self.nodes[at as usize].left = root;
                (self.balance(at), gone)
            }
            Ordering::Greater => {
                let (root, gone) = self.unlink(right, interval);
                self.nodes[at as usize].right = root;
                (self.balance(at), gone)
            }
            Ordering::Equal if left == NIL => (right, at),
            Ordering::Equal if right == NIL => (left, at),
            Ordering::Equal => {
                let (rest, heir) = self.unlink_first(right);
                self.nodes[heir as usize].left = left;
                self.nodes[heir as usize].right = rest;
                (self.balance(heir), at)
            }
        }
    }

    fn unlink_first(&mut self, at: u32) -> (u32, u32) {
        let Node { left, right, .. } = self.nodes[at as usize];
        if left == NIL {
            return (right, at);
        }
        let (rest, first) = self.unlink_first(left);
        self.nodes[at as usize].left = rest;
        (self.balance(at), first)
    }

    fn balance(&mut self, at: u32) -> u32 {
        let Node { left, right, .. } = self.nodes[at as usize];
        let lean = i64::from(self.height(left)) - i64::from(self.height(right));
        if lean > 1 {
            let Node { left: outer, right: inner, .. } = self.nodes[left as usize];
            if self.height(inner) > self.height(outer) {
                self.nodes[at as usize].left = self.rotate_left(left);
            }
            return self.rotate_right(at);
        }
        if lean < -1 {
            let Node { left: inner, right: outer, .. } = self.nodes[right as usize];
            if self.height(inner) > self.height(outer) {
                self.nodes[at as usize].right = self.rotate_right(right);
            }
            return self.rotate_left(at);
        }
        self.refresh(at);
        at
    }

    fn rotate_left(&mut self, at: u32) -> u32 {
        let up = self.nodes[at as usize].right;
        self.nodes[at as usize].right = self.nodes[up as usize].left;
        self.nodes[up as usize].left = at;
        self.refresh(at);
        self.refresh(up);
        up
    }

    fn rotate_right(&mut self, at: u32) -> u32 {
        let up = self.nodes[at as usize].left;
        self.nodes[at as usize].left = self.nodes[up as usize].right;
        self.nodes[up as usize].right = at;
        self.refresh(at);
        self.refresh(up);
        up
    }

    fn height(&self, at: u32) -> u32 {
        self.nodes.get(at as usize).map_or(0, |node| node.height)
    }

    fn refresh(&mut self, at: u32) {
        let Node { left, right, .. } = self.nodes[at as usize];
        let mut furthest = at;
        for child in [left, right] {
            if let Some(node) = self.nodes.get(child as usize) {
                let theirs = &self.nodes[node.furthest as usize].interval;
                if theirs.order_of_ends(&self.nodes[furthest as usize].interval).is_gt() {
                    furthest = node.furthest;
                }
            }
        }
        let height = 1 + self.height(left).max(self.height(right));
        let node = &mut self.nodes[at as usize];
        node.furthest = furthest;
        node.height = height;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(start: u8, end: u8) -> Interval {
        let end = (end != 0).then(|| Bytes::from(vec![end]));
        Interval { start: Bytes::from(vec![start]), end }
    }

    fn check_shape(tree: &IntervalTree<u32>, at: u32) -> u32 {
        let Some(node) = tree.nodes.get(at as usize) else { return 0 };
        let (left, right) = (check_shape(tree, node.left), check_shape(tree, node.right));
        assert!(left.abs_diff(right) <= 1, "balanced");
        assert_eq!(node.height, 1 + left.max(right));
        node.height
    }

    #[test]
    fn a_key_finds_exactly_the_ranges_that_hold_it_after_any_inserts_and_removals() {
        let mut random = 7_u64;
        let mut next = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % bound
        };
        let mut tree = IntervalTree::new();
        let mut model: Vec<(Interval, u32)> = Vec::new();
        for step in 0..4_000 {
            let range = interval(next(40) as u8, next(41) as u8);
            if next(3) == 0 {
                tree.remove(&range);
                model.retain(|(other, _)| *other != range);
            } else {
                tree.entry(&range).push(step);
                model.push((range, step));
            }
            check_shape(&tree, tree.root);
            let key = [next(42) as u8];
            let mut found = Vec::new();
            tree.visit(&key, &mut |items| found.extend_from_slice(items));
            found.sort_unstable();
            let holds = |range: &Interval| range.start[..] <= key[..] && range.ends_after(&key);
            let expected: Vec<u32> =
                model.iter().filter(|(range, _)| holds(range)).map(|(_, item)| *item).collect();
            assert_eq!(found, expected);
        }
        assert!(tree.nodes.len() < 41 * 41, "places of removed ranges are used again");
    }
}
