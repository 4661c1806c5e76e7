//! What the index knows of one change of one key.

use crate::record::Revision;

/// One change of a key: 32 bytes, since there are millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(Rust, packed(4))]
pub(crate) struct Entry {
    main: i64,
    created: i64,
    /// 0 in a tombstone, else at least 1.
    version: i64,
    sub: u32,
    /// Bytes of the record that are not key, revisions and version: so how long an answer will be is known
    /// before any record is read. 0 in a tombstone.
    tail: u32,
}

impl Entry {
    pub(crate) fn put(revision: Revision, created: i64, version: i64, tail: u32) -> Self {
        debug_assert!(version > 0, "a put has a version");
        Self { main: revision.main, created, version, sub: sub_of(revision), tail }
    }

    pub(crate) fn tombstone(revision: Revision) -> Self {
        Self { main: revision.main, created: 0, version: 0, sub: sub_of(revision), tail: 0 }
    }

    /// The change of a key that stood at `before`: a put with this tail, or without one a deletion.
    pub(super) fn next(before: Option<Self>, revision: Revision, put: Option<u32>) -> Self {
        let Some(tail) = put else { return Self::tombstone(revision) };
        match before {
            Some(before) if before.is_live() => {
                Self::put(revision, before.created, before.version + 1, tail)
            }
            _ => Self::put(revision, revision.main, 1, tail),
        }
    }

    pub(crate) fn revision(self) -> Revision {
        Revision { main: self.main, sub: i64::from(self.sub) }
    }

    pub(crate) fn main(self) -> i64 {
        self.main
    }

    /// Revision that began the key's generation; 0 in a tombstone.
    pub(crate) fn created(self) -> i64 {
        self.created
    }

    pub(crate) fn version(self) -> i64 {
        self.version
    }

    pub(crate) fn tail(self) -> u32 {
        self.tail
    }

    pub(crate) fn is_live(self) -> bool {
        self.version != 0
    }

    /// The newest revision at which this change or one before it in its generation made the key appear
    /// or vanish.
    pub(super) fn turned(self) -> i64 {
        if self.is_live() { self.created } else { self.main }
    }
}

fn sub_of(revision: Revision) -> u32 {
    u32::try_from(revision.sub).expect("a revision has fewer than 2^32 changes")
}
