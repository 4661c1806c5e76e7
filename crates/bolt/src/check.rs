//! The whole file, page by page: what bbolt calls Check.
//!
//! Every page below the mark must be reached exactly once, or be free; keys must be in order. In memory is a bit
//! for each page.

use crate::bucket::{Bucket, check_inner};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::layout::{FREELIST, HEADER, NO_FREELIST, u64_at};
use crate::source::Source;

/// Buckets inside buckets that are followed; etcd has one level.
const NESTING_MAX: usize = 16;
/// Bytes of the free list that are read at a time.
const CHUNK_BYTES: usize = 64 << 10;

impl<S: Source> Database<S> {
    /// Reads every page that the file uses and checks it.
    ///
    /// # Errors
    /// The first thing that is wrong: [`Error::Damaged`], [`Error::Io`].
    pub fn check(&self) -> Result<()> {
        let mut check = Check { database: self, used: Pages::new(self.meta().pages) };
        check.used.mark(0, 1)?;
        check.used.mark(1, 1)?;
        check.tree(self.meta().root, (None, None), 0, 0)?;
        if self.meta().freelist == NO_FREELIST {
            // What is not reached is free.
            return Ok(());
        }
        check.free_list()?;
        check.used.all()
    }
}

struct Check<'d, S> {
    database: &'d Database<S>,
    used: Pages,
}

/// From which key on, and below which one.
type Bounds<'k> = (Option<&'k [u8]>, Option<&'k [u8]>);

impl<S: Source> Check<'_, S> {
    fn tree(
        &mut self,
        page: u64,
        (lower, upper): Bounds<'_>,
        depth: usize,
        nesting: usize,
    ) -> Result<()> {
        let (node, pages) = self.database.node(page)?;
        self.used.mark(page, pages)?;
        node.check_order(lower, upper)?;
        if !(node.is_leaf() && depth == 0) {
            check_inner(&node, depth)?;
        }
        for at in 0..node.count() {
            if node.is_leaf() {
                if node.is_bucket(at) {
                    self.bucket(page, node.value(at), nesting + 1)?;
                }
                continue;
            }
            let next = if at + 1 < node.count() { Some(node.key(at + 1)) } else { upper };
            self.tree(node.child(at), (Some(node.key(at)), next), depth + 1, nesting)?;
        }
        Ok(())
    }

    fn bucket(&mut self, page: u64, value: &[u8], nesting: usize) -> Result<()> {
        if nesting > NESTING_MAX {
            return Err(Error::damaged(page, "has a bucket nested too deep"));
        }
        let bucket = Bucket::nested(self.database, page, value)?;
        if let Some(root) = bucket.root_page() {
            return self.tree(root, (None, None), 0, nesting);
        }
        let mut entries = bucket.entries()?;
        while let Some(entry) = entries.next()? {
            // bbolt moves a bucket out of its value before it puts another one into it.
            if entry.is_bucket {
                return Err(Error::damaged(page, "has a bucket in a bucket in a value"));
            }
        }
        Ok(())
    }

    /// The free list: how many, when the header's 16 bits are too few, then the pages, ascending.
    fn free_list(&mut self) -> Result<()> {
        let first = self.database.meta().freelist;
        let mut start = [0; HEADER + 8];
        let header = self.database.header(first, &mut start)?;
        if header.flags != FREELIST {
            return Err(Error::damaged(first, "is no free list"));
        }
        let pages = u64::from(header.overflow) + 1;
        self.used.mark(first, pages)?;
        let (count, skip) = match header.count {
            u16::MAX => (u64_at(&start, HEADER), HEADER as u64 + 8),
            count => (u64::from(count), HEADER as u64),
        };
        let room = (pages * u64::from(self.database.page_size()) - skip) / 8;
        if count > room {
            return Err(Error::damaged(first, format!("has no room for {count} free pages")));
        }
        let mut left = count as usize * 8;
        let mut offset = self.database.offset(first) + skip;
        let mut chunk = vec![0; left.min(CHUNK_BYTES)];
        while left > 0 {
            let take = left.min(CHUNK_BYTES);
            self.database.source().read_at(&mut chunk[..take], offset)?;
            for at in (0..take).step_by(8) {
                self.used.mark(u64_at(&chunk, at), 1)?;
            }
            (left, offset) = (left - take, offset + take as u64);
        }
        Ok(())
    }
}

/// A bit for each page.
struct Pages {
    count: u64,
    bits: Vec<u64>,
}

impl Pages {
    /// The file is at least as long as its pages, so this is a small part of it.
    fn new(count: u64) -> Self {
        Self { count, bits: vec![0; count.div_ceil(64) as usize] }
    }

    fn mark(&mut self, first: u64, pages: u64) -> Result<()> {
        for page in first..first.saturating_add(pages) {
            if page >= self.count {
                return Err(Error::damaged(
                    page,
                    format!("is not among the {} there are", self.count),
                ));
            }
            let (word, bit) = ((page / 64) as usize, 1 << (page % 64));
            if self.bits[word] & bit != 0 {
                return Err(Error::damaged(page, "is used twice"));
            }
            self.bits[word] |= bit;
        }
        Ok(())
    }

    fn all(&self) -> Result<()> {
        match (0..self.count).find(|page| self.bits[(page / 64) as usize] & (1 << (page % 64)) == 0)
        {
            Some(page) => Err(Error::damaged(page, "is neither used nor free")),
            None => Ok(()),
        }
    }
}
