//! One B+ tree that is written from its first key to its last, each page once.
//!
//! ```text
//! elements ──> leaf, full ──> page ──(first key, page)──> branch, full ──> page ──> ...
//! ```
//! One page of each level is in memory. A page number is given when a page is full, so children have lower ones
//! than their parents and the root has the highest: the same elements give the same pages each time, which is how
//! the size of a file is known before it is written.

use std::io::{self, Write};

use crate::layout::{BRANCH, ELEMENT, HEADER, Header, LEAF};

/// Page size of what is written here: that of nearly all machines etcd runs on; it reads any.
pub(crate) const PAGE_SIZE: usize = 4096;
/// Fewest children of a branch: bbolt panics when it deletes from a page without siblings.
const CHILDREN_MIN: usize = 2;

/// Where pages go.
#[derive(Debug)]
pub(crate) struct Pages<W> {
    pub(crate) out: W,
    /// Number of the next page.
    pub(crate) next: u64,
    /// Numbers are given and nothing is written.
    pub(crate) measuring: bool,
    page: Vec<u8>,
}

impl<W: Write> Pages<W> {
    pub(crate) const fn new(out: W, next: u64, measuring: bool) -> Self {
        Self { out, next, measuring, page: Vec::new() }
    }

    fn write(&mut self, node: &Node) -> io::Result<u64> {
        let (id, pages) = (self.next, node.length().div_ceil(PAGE_SIZE));
        self.next += pages as u64;
        if self.measuring {
            return Ok(id);
        }
        self.page.clear();
        node.encode(id, pages as u32 - 1, &mut self.page);
        self.page.resize(pages * PAGE_SIZE, 0);
        self.out.write_all(&self.page)?;
        Ok(id)
    }
}

/// A page that is being filled.
#[derive(Debug)]
struct Node {
    leaf: bool,
    elements: Vec<Element>,
    /// Keys and values, one behind the other; values are left out while measuring.
    data: Vec<u8>,
    /// Bytes of the page so far.
    length: usize,
}

#[derive(Debug, Clone, Copy)]
struct Element {
    /// Of a leaf.
    flags: u32,
    key: usize,
    value: usize,
    /// Of a branch.
    child: u64,
}

impl Node {
    const fn new(leaf: bool) -> Self {
        Self { leaf, elements: Vec::new(), data: Vec::new(), length: HEADER }
    }

    const fn length(&self) -> usize {
        self.length
    }

    fn first_key(&self) -> &[u8] {
        &self.data[..self.elements.first().map_or(0, |first| first.key)]
    }

    const fn has_room(&self, key: usize, value: usize) -> bool {
        self.length + ELEMENT + key + value <= PAGE_SIZE
    }

    fn push(&mut self, element: Element, key: &[u8], value: &[u8]) {
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
        self.length += ELEMENT + element.key + element.value;
        self.elements.push(element);
    }

    /// Takes the last element of a branch out again.
    fn pop(&mut self) -> Option<(Element, Vec<u8>)> {
        let last = self.elements.pop()?;
        self.length -= ELEMENT + last.key;
        Some((last, self.data.split_off(self.data.len() - last.key)))
    }

    fn clear(&mut self) {
        self.elements.clear();
        self.data.clear();
        self.length = HEADER;
    }

    fn encode(&self, id: u64, overflow: u32, out: &mut Vec<u8>) {
        let flags = if self.leaf { LEAF } else { BRANCH };
        let count = self.elements.len();
        Header { id, flags, count: count as u16, overflow }.write(out);
        let mut data_at = HEADER + count * ELEMENT;
        for (place, element) in self.elements.iter().enumerate() {
            let position = (data_at - (HEADER + place * ELEMENT)) as u32;
            let numbers = if self.leaf {
                [element.flags, position, element.key as u32, element.value as u32]
            } else {
                let [low, high] = [element.child as u32, (element.child >> 32) as u32];
                [position, element.key as u32, low, high]
            };
            numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
            data_at += element.key + element.value;
        }
        out.extend_from_slice(&self.data);
    }
}

/// A tree that grows to the right.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Leaf first.
    levels: Vec<Node>,
    /// No leaf was written yet.
    one_leaf: bool,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self { levels: vec![Node::new(true)], one_leaf: true }
    }

    /// Adds an element, whose key is above all before.
    pub(crate) fn put<W: Write>(
        &mut self,
        flags: u32,
        key: &[u8],
        value: &[u8],
        pages: &mut Pages<W>,
    ) -> io::Result<()> {
        let leaf = &self.levels[0];
        if !leaf.elements.is_empty() && !leaf.has_room(key.len(), value.len()) {
            self.spill_leaf(pages)?;
        }
        let element = Element { flags, key: key.len(), value: value.len(), child: 0 };
        let kept = if pages.measuring { &[][..] } else { value };
        self.levels[0].push(element, key, kept);
        Ok(())
    }

    /// The bytes of the tree as a page in a value, when it is small enough; bbolt allows a quarter of a page.
    pub(crate) fn inline(&self) -> Option<Vec<u8>> {
        let leaf = &self.levels[0];
        if !self.one_leaf || leaf.length() > PAGE_SIZE / 4 {
            return None;
        }
        let mut bytes = Vec::with_capacity(leaf.length());
        leaf.encode(0, 0, &mut bytes);
        bytes.resize(leaf.length(), 0);
        Some(bytes)
    }

    /// Writes what is still in memory; the root page.
    pub(crate) fn finish<W: Write>(mut self, pages: &mut Pages<W>) -> io::Result<u64> {
        let mut level = 0;
        loop {
            let node = &self.levels[level];
            let id = pages.write(node)?;
            let key = node.first_key().to_vec();
            level += 1;
            if level == self.levels.len() {
                return Ok(id);
            }
            self.put_child(level, &key, id, pages)?;
        }
    }

    fn spill_leaf<W: Write>(&mut self, pages: &mut Pages<W>) -> io::Result<()> {
        self.one_leaf = false;
        let id = pages.write(&self.levels[0])?;
        let key = self.levels[0].first_key().to_vec();
        self.levels[0].clear();
        self.put_child(1, &key, id, pages)
    }

    /// Adds a child to the branch of that level. A full branch keeps its last child back for the next one, so that
    /// none is left with one child at the end.
    fn put_child<W: Write>(
        &mut self,
        level: usize,
        key: &[u8],
        child: u64,
        pages: &mut Pages<W>,
    ) -> io::Result<()> {
        if level == self.levels.len() {
            self.levels.push(Node::new(false));
        }
        let node = &mut self.levels[level];
        if node.elements.len() > CHILDREN_MIN && !node.has_room(key.len(), 0) {
            let (last, last_key) = node.pop().expect("it has children");
            let id = pages.write(node)?;
            let first = node.first_key().to_vec();
            node.clear();
            node.push(last, &last_key, &[]);
            self.put_child(level + 1, &first, id, pages)?;
        }
        let element = Element { flags: 0, key: key.len(), value: 0, child };
        self.levels[level].push(element, key, &[]);
        Ok(())
    }
}
