//! Buckets, and walking one in the order of its keys.

use crate::database::Database;
use crate::error::{Error, Result};
use crate::layout::{BUCKET, Header, u64_at};
use crate::node::Node;
use crate::source::Source;

/// More levels than this no tree has: with two children a page it would hold 2^32 pages.
pub(crate) const DEPTH_MAX: usize = 32;

/// A bucket of an open file.
#[derive(Debug)]
pub struct Bucket<'d, S> {
    database: &'d Database<S>,
    root: Root,
}

#[derive(Debug)]
enum Root {
    Page(u64),
    /// A small bucket lies in the value of its element, as a page of its own.
    Inline {
        page: u64,
        bytes: Vec<u8>,
    },
}

/// One element of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'e> {
    /// The key, or the name of a bucket.
    pub key: &'e [u8],
    /// The value, or what stands for the bucket.
    pub value: &'e [u8],
    /// Whether it is a bucket.
    pub is_bucket: bool,
}

impl<'d, S: Source> Bucket<'d, S> {
    pub(crate) const fn at(database: &'d Database<S>, root: u64) -> Self {
        Self { database, root: Root::Page(root) }
    }

    /// The bucket that stands in an element of page `page`.
    pub(crate) fn nested(database: &'d Database<S>, page: u64, value: &[u8]) -> Result<Self> {
        let root = u64_at(value, 0);
        if root != 0 {
            return Ok(Self::at(database, root));
        }
        let bytes = value.get(BUCKET..).unwrap_or_default().to_vec();
        if Header::read(&bytes).overflow != 0 {
            return Err(Error::damaged(page, "a bucket in a value runs over"));
        }
        Ok(Self { database, root: Root::Inline { page, bytes } })
    }

    /// All elements in the order of their keys.
    ///
    /// # Errors
    /// [`Error::Damaged`] for the first pages, [`Error::Io`].
    pub fn entries(&self) -> Result<Entries<'d, S>> {
        let left = self.database.meta().pages;
        let mut entries = Entries { database: self.database, path: Vec::new(), left };
        entries.push(self.root()?, None)?;
        Ok(entries)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.find(key)?;
        Ok(found
            .filter(|(node, at)| !node.is_bucket(*at))
            .map(|(node, at)| node.value(at).to_vec()))
    }

    /// The bucket of that name in this one.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Self>> {
        let found = self.find(name)?.filter(|(node, at)| node.is_bucket(*at));
        found.map(|(node, at)| Self::nested(self.database, node.page(), node.value(at))).transpose()
    }

    fn root(&self) -> Result<Node> {
        match &self.root {
            Root::Page(id) => Ok(self.database.node(*id)?.0),
            Root::Inline { page, bytes } => {
                let node = Node::new(*page, bytes.clone())?;
                if !node.is_leaf() {
                    return Err(Error::damaged(*page, "a bucket in a value is no leaf"));
                }
                Ok(node)
            }
        }
    }

    pub(crate) const fn root_page(&self) -> Option<u64> {
        match self.root {
            Root::Page(id) => Some(id),
            Root::Inline { .. } => None,
        }
    }

    fn find(&self, key: &[u8]) -> Result<Option<(Node, usize)>> {
        let mut node = self.root()?;
        node.check_order(None, None)?;
        let mut depth = 0;
        while !node.is_leaf() {
            depth += 1;
            check_inner(&node, depth)?;
            let at = node.last_at_or_below(key);
            let child = self.database.node(node.child(at))?.0;
            let upper = (at + 1 < node.count()).then(|| node.key(at + 1));
            child.check_order(Some(node.key(at)), upper)?;
            node = child;
        }
        let at = node.last_at_or_below(key);
        Ok((at < node.count() && node.key(at) == key).then_some((node, at)))
    }
}

/// Checks what the order of keys leaves open: that a branch has children, and how deep it lies.
pub(crate) fn check_inner(node: &Node, depth: usize) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(Error::damaged(node.page(), "lies too deep"));
    }
    if node.count() == 0 {
        return Err(Error::damaged(node.page(), "is empty"));
    }
    Ok(())
}

/// A walk through a bucket. In memory is the path of pages down to where it is.
///
/// After an error it must not go on.
#[derive(Debug)]
pub struct Entries<'d, S> {
    database: &'d Database<S>,
    path: Vec<Step>,
    /// Pages that the walk may still read. Pages that run over into each other would each be read with all the
    /// others, and what is little in the file would never end.
    left: u64,
}

#[derive(Debug)]
struct Step {
    node: Node,
    /// Elements that the walk has passed.
    passed: usize,
    /// Keys end below it.
    upper: Option<Vec<u8>>,
}

impl<'d, S: Source> Entries<'d, S> {
    /// The next element; none at the end.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    #[allow(clippy::should_implement_trait, reason = "an entry lives in the page of the walk")]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>> {
        while let Some(step) = self.path.last_mut() {
            if step.passed == step.node.count() {
                self.path.pop();
                continue;
            }
            let at = step.passed;
            step.passed += 1;
            if step.node.is_leaf() {
                let node = &self.path.last().expect("it was there").node;
                let (key, value) = (node.key(at), node.value(at));
                return Ok(Some(Entry { key, value, is_bucket: node.is_bucket(at) }));
            }
            let next = step.passed < step.node.count();
            let upper =
                if next { Some(step.node.key(step.passed).to_vec()) } else { step.upper.clone() };
            let lower = step.node.key(at).to_vec();
            let id = step.node.child(at);
            let (child, pages) = self.database.node(id)?;
            self.left = self.left.checked_sub(pages).ok_or_else(|| {
                Error::damaged(id, "belongs to a bucket with more pages than there are")
            })?;
            child.check_order(Some(&lower), upper.as_deref())?;
            self.push(child, upper)?;
        }
        Ok(None)
    }

    /// The bucket of the element that [`next`](Self::next) gave last; none when it was a value.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn bucket(&self) -> Result<Option<Bucket<'d, S>>> {
        let Some(Step { node, passed, .. }) = self.path.last() else { return Ok(None) };
        match passed.checked_sub(1).filter(|at| node.is_bucket(*at)) {
            Some(at) => Bucket::nested(self.database, node.page(), node.value(at)).map(Some),
            None => Ok(None),
        }
    }

    fn push(&mut self, node: Node, upper: Option<Vec<u8>>) -> Result<()> {
        if self.path.is_empty() {
            node.check_order(None, None)?;
        }
        // Only the root of a bucket without elements is a page without elements.
        if !(node.is_leaf() && self.path.is_empty()) {
            check_inner(&node, self.path.len())?;
        }
        self.path.push(Step { node, passed: 0, upper });
        Ok(())
    }
}
