//! Writing a whole file from its first byte to its last.
//!
//! The meta pages come first and name the root, which is written last. So the contents are given twice: once to
//! measure them, once to write them. Both times the same code numbers the pages, and the second time fails if it
//! comes to other numbers.
//!
//! ```text
//! Builder::measure() ── bucket, put, put, ... ──> Layout ──> Builder::write() ── bucket, put, put, ... ──> bytes
//! ```
//! Memory: one page for each level of a tree, and one value. No page is free, and no free list is stored: etcd does
//! not read one.

use std::io::{self, Sink, Write};

use crate::error::{Error, Result};
use crate::layout::{BUCKET, IS_BUCKET, KEY_BYTES_MAX, Meta, NO_FREELIST};
use crate::tree::{PAGE_SIZE, Pages, Tree};

/// The transaction that such a file is of; the other meta page has the one before.
const TRANSACTION: u64 = 2;
/// Largest value that bbolt takes.
const VALUE_BYTES_MAX: usize = (1 << 31) - 2;

/// What has to be known of a file before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    root: u64,
    pages: u64,
}

impl Layout {
    /// Bytes of the whole file.
    pub const fn size(&self) -> u64 {
        self.pages * PAGE_SIZE as u64
    }

    fn metas(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 * PAGE_SIZE);
        for id in 0..2 {
            let meta = Meta {
                page_size: PAGE_SIZE as u32,
                root: self.root,
                freelist: NO_FREELIST,
                pages: self.pages,
                transaction: TRANSACTION - id,
            };
            meta.write(id, &mut bytes);
            bytes.resize((id as usize + 1) * PAGE_SIZE, 0);
        }
        bytes
    }
}

/// Takes buckets and their contents in ascending order.
#[derive(Debug)]
pub struct Builder<W> {
    pages: Pages<W>,
    /// The bucket of buckets.
    root: Tree,
    bucket: Option<Open>,
    /// What the file is to become.
    expected: Option<Layout>,
}

/// The bucket that is being filled.
#[derive(Debug)]
struct Open {
    name: Vec<u8>,
    tree: Tree,
    last_key: Vec<u8>,
}

impl Builder<Sink> {
    /// Only finds out the layout.
    pub fn measure() -> Self {
        Self::new(io::sink(), None)
    }
}

impl<W: Write> Builder<W> {
    /// Writes to `out` what was measured before.
    ///
    /// # Errors
    /// [`Error::Io`] of `out`.
    pub fn write(layout: Layout, mut out: W) -> Result<Self> {
        out.write_all(&layout.metas())?;
        Ok(Self::new(out, Some(layout)))
    }

    fn new(out: W, expected: Option<Layout>) -> Self {
        let pages = Pages::new(out, 2, expected.is_none());
        Self { pages, root: Tree::new(), bucket: None, expected }
    }

    /// Begins the next bucket.
    ///
    /// # Errors
    /// [`Error::Unwritable`] for a name out of order, [`Error::Io`].
    pub fn bucket(&mut self, name: &[u8]) -> Result<()> {
        let last = self.bucket.as_ref().map(|bucket| &*bucket.name);
        check_key(name, last.unwrap_or_default())?;
        self.close_bucket()?;
        let open = Open { name: name.to_vec(), tree: Tree::new(), last_key: Vec::new() };
        self.bucket = Some(open);
        Ok(())
    }

    /// Adds to the bucket that was begun last.
    ///
    /// # Errors
    /// [`Error::Unwritable`] for a key out of order or a pair that bbolt would not take, [`Error::Io`].
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let bucket = self.bucket.as_mut().ok_or(Error::Unwritable("there is no bucket yet"))?;
        check_key(key, &bucket.last_key)?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(Error::Unwritable("value too large"));
        }
        bucket.last_key.clear();
        bucket.last_key.extend_from_slice(key);
        bucket.tree.put(0, key, value, &mut self.pages)?;
        Ok(())
    }

    /// Ends the last bucket and the file.
    ///
    /// # Errors
    /// [`Error::Changed`] when that is not what was measured, [`Error::Io`].
    pub fn finish(mut self) -> Result<(Layout, W)> {
        self.close_bucket()?;
        let root = self.root.finish(&mut self.pages)?;
        let layout = Layout { root, pages: self.pages.next };
        if self.expected.is_some_and(|expected| expected != layout) {
            return Err(Error::Changed);
        }
        self.pages.out.flush()?;
        Ok((layout, self.pages.out))
    }

    fn close_bucket(&mut self) -> Result<()> {
        let Some(Open { name, tree, .. }) = self.bucket.take() else { return Ok(()) };
        let mut value = Vec::with_capacity(BUCKET);
        match tree.inline() {
            Some(page) => {
                value.resize(BUCKET, 0);
                value.extend_from_slice(&page);
            }
            None => {
                value.extend_from_slice(&tree.finish(&mut self.pages)?.to_le_bytes());
                value.resize(BUCKET, 0);
            }
        }
        self.root.put(IS_BUCKET, &name, &value, &mut self.pages)?;
        Ok(())
    }
}

fn check_key(key: &[u8], last: &[u8]) -> Result<()> {
    match key {
        [] => Err(Error::Unwritable("key required")),
        _ if key.len() > KEY_BYTES_MAX => Err(Error::Unwritable("key too large")),
        _ if key <= last => Err(Error::Unwritable("it is not above the one before")),
        _ => Ok(()),
    }
}
