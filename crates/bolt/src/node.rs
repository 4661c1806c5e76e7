//! One leaf or branch page in memory, looked through before anything in it is believed.

use crate::error::{Error, Result};
use crate::layout::{
    BRANCH, BUCKET, ELEMENT, HEADER, Header, IS_BUCKET, KEY_BYTES_MAX, LEAF, u32_at, u64_at,
};

/// A page whose elements lie inside it, in order and apart from each other.
#[derive(Debug)]
pub(crate) struct Node {
    /// As in [`Error::Damaged`].
    page: u64,
    bytes: Vec<u8>,
    leaf: bool,
    count: usize,
}

/// Where an element's key and value lie.
struct Place {
    key: usize,
    value: usize,
    end: usize,
}

impl Node {
    /// Takes the bytes of page `page`, header included.
    ///
    /// # Errors
    /// [`Error::Damaged`] when they are no leaf or branch, or an element reaches where it must not.
    pub(crate) fn new(page: u64, bytes: Vec<u8>) -> Result<Self> {
        let leaf = kind(page, &bytes)?;
        let count = usize::from(Header::read(&bytes).count);
        check_places(page, &bytes, bytes.len())?;
        let node = Self { page, bytes, leaf, count };
        for at in 0..count {
            if node.is_bucket(at) && node.value(at).len() < BUCKET {
                return Err(Error::damaged(page, format!("element {at} is no bucket")));
            }
        }
        Ok(node)
    }

    pub(crate) const fn page(&self) -> u64 {
        self.page
    }

    pub(crate) const fn is_leaf(&self) -> bool {
        self.leaf
    }

    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn key(&self, at: usize) -> &[u8] {
        let place = place(&self.bytes, self.leaf, at);
        self.bytes.get(place.key..place.value).unwrap_or_default()
    }

    /// Value of a leaf's element.
    pub(crate) fn value(&self, at: usize) -> &[u8] {
        let place = place(&self.bytes, self.leaf, at);
        self.bytes.get(place.value..place.end).unwrap_or_default()
    }

    /// Whether that value is a bucket.
    pub(crate) fn is_bucket(&self, at: usize) -> bool {
        self.leaf && u32_at(&self.bytes, HEADER + at * ELEMENT) & IS_BUCKET != 0
    }

    /// Page of a branch's child.
    pub(crate) fn child(&self, at: usize) -> u64 {
        u64_at(&self.bytes, HEADER + at * ELEMENT + 8)
    }

    /// The last element whose key is not above `key`, or else the first.
    pub(crate) fn last_at_or_below(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle) <= key { low = middle + 1 } else { high = middle }
        }
        low.saturating_sub(1)
    }

    /// Checks that the keys ascend, from `lower` on and below `upper`.
    ///
    /// Pages below each other get intervals inside each other, and pages beside each other intervals apart: so no
    /// page can be met twice, and a walk ends.
    pub(crate) fn check_order(&self, lower: Option<&[u8]>, upper: Option<&[u8]>) -> Result<()> {
        let wrong = |at, what| Err(Error::damaged(self.page, format!("key {at} is {what}")));
        let mut before = None;
        for at in 0..self.count {
            let key = self.key(at);
            match (before, lower) {
                (Some(before), _) if key <= before => return wrong(at, "not above the one before"),
                (None, Some(lower)) if key < lower => return wrong(at, "below that of its parent"),
                _ => before = Some(key),
            }
        }
        match (before, upper) {
            (Some(last), Some(upper)) if last >= upper => {
                wrong(self.count - 1, "not below the parent's next")
            }
            _ => Ok(()),
        }
    }
}

/// Whether a page is a leaf.
fn kind(page: u64, bytes: &[u8]) -> Result<bool> {
    if bytes.len() < HEADER {
        return Err(Error::damaged(page, "is shorter than its header"));
    }
    match Header::read(bytes).flags {
        LEAF => Ok(true),
        BRANCH => Ok(false),
        flags => Err(Error::damaged(page, format!("is no leaf and no branch (flags {flags:#x})"))),
    }
}

/// Checks all elements against the `length` bytes that the page has; of those only the header and the elements
/// themselves need to be in `bytes`. Answers where the last one ends.
pub(crate) fn check_places(page: u64, bytes: &[u8], length: usize) -> Result<usize> {
    let leaf = kind(page, bytes)?;
    let count = usize::from(Header::read(bytes).count);
    let mut free_from = HEADER + count * ELEMENT;
    if free_from > length.min(bytes.len()) {
        return Err(Error::damaged(page, format!("has no room for its {count} elements")));
    }
    for at in 0..count {
        let place = place(bytes, leaf, at);
        if place.key < free_from || place.end > length {
            return Err(Error::damaged(page, format!("element {at} lies outside")));
        }
        // A bucket's name has no other limit in bbolt than the page, a key has.
        if place.value - place.key > KEY_BYTES_MAX {
            return Err(Error::damaged(page, format!("key {at} is too long")));
        }
        free_from = place.end;
    }
    Ok(free_from)
}

/// Lengths are 32 bits and there are two: no sum leaves 64.
fn place(bytes: &[u8], leaf: bool, at: usize) -> Place {
    let start = HEADER + at * ELEMENT;
    let number = |offset| u32_at(bytes, start + offset) as usize;
    let (position, key, value) =
        if leaf { (number(4), number(8), number(12)) } else { (number(0), number(4), 0) };
    let key_start = start + position;
    Place { key: key_start, value: key_start + key, end: key_start + key + value }
}
