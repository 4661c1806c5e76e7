//! The bytes of pages: header, elements, meta. All numbers are little endian, as on every machine that etcd
//! runs on.
//!
//! ```text
//! page     u64 id | u16 flags | u16 count | u32 overflow | elements | data
//! leaf     u32 flags | u32 position | u32 key length | u32 value length
//! branch   u32 position | u32 key length | u64 page of the child
//! bucket   u64 root page, 0 when a page follows here | u64 sequence     (the value of a leaf element)
//! meta     u32 magic | u32 version | u32 page size | u32 flags | bucket | u64 free list | u64 pages | u64 transaction
//!          | u64 FNV-1a of all before
//! ```
//! A position counts from the first byte of its element. A page with overflow n goes on through the n pages
//! behind it.

use crate::error::{Error, Result};

/// Bytes of a page's header.
pub(crate) const HEADER: usize = 16;
/// Bytes of an element, in leaves and branches alike.
pub(crate) const ELEMENT: usize = 16;
/// Bytes of a bucket's root and sequence.
pub(crate) const BUCKET: usize = 16;
/// Bytes of a meta without its page header.
pub(crate) const META: usize = 64;
/// What a branch page has as flags.
pub(crate) const BRANCH: u16 = 0x01;
/// What a leaf page has as flags.
pub(crate) const LEAF: u16 = 0x02;
/// What a meta page has as flags.
pub(crate) const META_PAGE: u16 = 0x04;
/// What a page of free pages has as flags.
pub(crate) const FREELIST: u16 = 0x10;
/// Flag of a leaf element whose value is a bucket.
pub(crate) const IS_BUCKET: u32 = 0x01;
/// Instead of the page of the free list: it is not stored.
pub(crate) const NO_FREELIST: u64 = u64::MAX;
/// Longest key that bbolt takes.
pub(crate) const KEY_BYTES_MAX: usize = 32768;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// Callers have checked the length; a byte beyond it reads as 0.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut found = [0; N];
    if let Some(part) = bytes.get(at..).and_then(|rest| rest.get(..N)) {
        found.copy_from_slice(part);
    }
    found
}

/// The first bytes of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u64,
    pub(crate) flags: u16,
    pub(crate) count: u16,
    pub(crate) overflow: u32,
}

impl Header {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        Self {
            id: u64_at(bytes, 0),
            flags: u16_at(bytes, 8),
            count: u16_at(bytes, 10),
            overflow: u32_at(bytes, 12),
        }
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.overflow.to_le_bytes());
    }
}

/// What a meta page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) page_size: u32,
    /// Root page of the bucket of buckets.
    pub(crate) root: u64,
    /// First page of the list of free pages, or [`NO_FREELIST`].
    pub(crate) freelist: u64,
    /// Pages in use, free ones included: page numbers are below it.
    pub(crate) pages: u64,
    pub(crate) transaction: u64,
}

impl Meta {
    /// The meta behind the header of a meta page.
    pub(crate) fn read(page: &[u8]) -> Result<Self> {
        let meta = page.get(HEADER..HEADER + META).ok_or(Error::Invalid)?;
        if u32_at(meta, 0) != MAGIC {
            return Err(Error::Invalid);
        }
        if u32_at(meta, 4) != VERSION {
            return Err(Error::VersionMismatch);
        }
        if u64_at(meta, META - 8) != fnv1a(&meta[..META - 8]) {
            return Err(Error::Checksum);
        }
        Ok(Self {
            page_size: u32_at(meta, 8),
            root: u64_at(meta, 16),
            freelist: u64_at(meta, 32),
            pages: u64_at(meta, 40),
            transaction: u64_at(meta, 48),
        })
    }

    /// The meta page number `id`, without its padding.
    pub(crate) fn write(&self, id: u64, out: &mut Vec<u8>) {
        Header { id, flags: META_PAGE, count: 0, overflow: 0 }.write(out);
        let start = out.len();
        for number in [MAGIC, VERSION, self.page_size, 0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.root, 0, self.freelist, self.pages, self.transaction] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let sum = fnv1a(&out[start..]);
        out.extend_from_slice(&sum.to_le_bytes());
    }
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_published_vectors() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_meta_is_read_as_it_was_written_and_no_bit_may_turn() {
        let meta = Meta { page_size: 4096, root: 7, freelist: 3, pages: 9, transaction: 4 };
        let mut page = Vec::new();
        meta.write(1, &mut page);
        assert_eq!(Meta::read(&page).expect("just written"), meta);
        for bit in HEADER * 8..page.len() * 8 {
            let mut damaged = page.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Meta::read(&damaged).is_err(), "bit {bit}");
        }
    }
}
