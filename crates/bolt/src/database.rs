//! An open file: its meta, and pages on demand.

use std::io;

use crate::bucket::Bucket;
use crate::error::{Error, Result};
use crate::layout::{ELEMENT, HEADER, Header, Meta};
use crate::node::{self, Node};
use crate::source::Source;

/// Smallest and largest page that is believed; bbolt looks for its second meta page in this range too.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 1 << 9..=1 << 24;
/// Largest leaf or branch with its overflow. etcd refuses requests long before; one that is larger is damage.
const NODE_BYTES_MAX: u64 = 512 << 20;

/// A bbolt file, open for reading.
///
/// Nothing but the meta pages is read at first; later one path of pages is in memory for each walk that goes on.
/// No lock is taken: the file must not be written meanwhile.
#[derive(Debug)]
pub struct Database<S> {
    source: S,
    meta: Meta,
}

impl<S: Source> Database<S> {
    /// Reads the newest meta page that is whole.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::VersionMismatch`], [`Error::Checksum`] as bbolt would say it,
    /// [`Error::CutShort`], [`Error::Damaged`], [`Error::Io`].
    pub fn open(source: S) -> Result<Self> {
        let length = source.length()?;
        let meta = newest_meta(&source, length)?;
        if !PAGE_SIZES.contains(&meta.page_size) || !meta.page_size.is_power_of_two() {
            return Err(Error::damaged(0, format!("page size {} cannot be", meta.page_size)));
        }
        let expected = meta.pages.saturating_mul(u64::from(meta.page_size));
        if expected > length {
            return Err(Error::CutShort { length, expected });
        }
        Ok(Self { source, meta })
    }

    /// Bytes of one page.
    pub const fn page_size(&self) -> u32 {
        self.meta.page_size
    }

    /// Bytes of all pages in use, free ones included: what bbolt calls the size of a transaction.
    pub const fn size(&self) -> u64 {
        self.meta.pages * self.meta.page_size as u64
    }

    /// The bucket of buckets.
    pub const fn root(&self) -> Bucket<'_, S> {
        Bucket::at(self, self.meta.root)
    }

    pub(crate) const fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(crate) const fn source(&self) -> &S {
        &self.source
    }

    /// Reads page `id` with what it runs over into.
    pub(crate) fn node(&self, id: u64) -> Result<(Node, u64)> {
        let mut bytes = vec![0; self.meta.page_size as usize];
        let header = self.header(id, &mut bytes)?;
        let pages = u64::from(header.overflow) + 1;
        if pages > 1 {
            self.read_overflow(id, header, &mut bytes)?;
        }
        Ok((Node::new(id, bytes)?, pages))
    }

    /// Fills `bytes` from the start of page `id`.
    pub(crate) fn header(&self, id: u64, bytes: &mut [u8]) -> Result<Header> {
        if !(2..self.meta.pages).contains(&id) {
            return Err(Error::damaged(
                id,
                format!("is not among the {} there are", self.meta.pages),
            ));
        }
        self.source.read_at(bytes, self.offset(id))?;
        let header = Header::read(bytes);
        if header.id != id {
            return Err(Error::damaged(id, format!("calls itself {}", header.id)));
        }
        if u64::from(header.overflow) >= self.meta.pages - id {
            return Err(Error::damaged(id, format!("runs over {} pages", header.overflow)));
        }
        Ok(header)
    }

    pub(crate) const fn offset(&self, id: u64) -> u64 {
        id * self.meta.page_size as u64
    }

    /// The elements say how long a page is; only when that is as many pages as its header says it is read.
    fn read_overflow(&self, id: u64, header: Header, bytes: &mut Vec<u8>) -> Result<()> {
        let page_size = u64::from(self.meta.page_size);
        let length = (u64::from(header.overflow) + 1) * page_size;
        if length > NODE_BYTES_MAX {
            return Err(Error::damaged(id, format!("takes {length} bytes")));
        }
        let table = HEADER + usize::from(header.count) * ELEMENT;
        if table as u64 > length {
            return Err(Error::damaged(
                id,
                format!("has no room for its {} elements", header.count),
            ));
        }
        if table > bytes.len() {
            bytes.resize(table, 0);
            self.source.read_at(bytes, self.offset(id))?;
        }
        let end = node::check_places(id, bytes, length as usize)?;
        // Old releases of bolt took one page more when the last one was full.
        if (end as u64).div_ceil(page_size) < u64::from(header.overflow) {
            return Err(Error::damaged(
                id,
                format!("needs less than {} more pages", header.overflow),
            ));
        }
        bytes.resize(end.max(table), 0);
        self.source.read_at(bytes, self.offset(id))?;
        Ok(())
    }
}

fn newest_meta(source: &impl Source, length: u64) -> Result<Meta> {
    let first = meta_at(source, length, 0);
    let places: Vec<u64> = match &first {
        Ok(meta) => vec![u64::from(meta.page_size)],
        // Without the first, nothing says how large a page is.
        Err(Error::Io(_)) => Vec::new(),
        Err(_) => (9..=24).map(|bits| 1 << bits).collect(),
    };
    let second = places.into_iter().filter_map(|place| {
        meta_at(source, length, place).ok().filter(|meta| u64::from(meta.page_size) == place)
    });
    match (first, second.max_by_key(|meta| meta.transaction)) {
        (Ok(first), Some(second)) if second.transaction > first.transaction => Ok(second),
        (Err(Error::Io(error)), _) => Err(Error::Io(error)),
        (Err(_), Some(second)) => Ok(second),
        (first, _) => first,
    }
}

fn meta_at(source: &impl Source, length: u64, place: u64) -> Result<Meta> {
    let mut page = [0; HEADER + crate::layout::META];
    // bbolt reads so much of the first one, and no file of its own is shorter.
    let needed = if place == 0 { 4096 } else { page.len() as u64 };
    if place.saturating_add(needed) > length {
        return Err(Error::Invalid);
    }
    match source.read_at(&mut page, place) {
        // The file has become shorter meanwhile.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Invalid),
        read => Meta::read(&page).and_then(|meta| Ok(read.map(|()| meta)?)),
    }
}
