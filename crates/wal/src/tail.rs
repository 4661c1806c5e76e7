//! What lies behind the end of the last segment: a torn write, or the rest of a log that was damaged?
//!
//! etcd takes a broken last record for torn when a sector of it is zero, or when its length runs past
//! the end, and drops it with all behind it. A sector that the disk lost later, or a flipped bit in a
//! length, look the same, and then acknowledged entries would vanish silently. But a torn write can
//! only be the one that no sync has covered. Everything behind its first broken record is then of the
//! same write, and that has a known shape:
//!
//! ```text
//! state*  ( entry* state? | snapshot )
//! ```
//! (States that only move the commit index are not synced by themselves.) Records behind the break
//! that do not fit were written after a sync: that log is damaged, not torn. Records are recognized by
//! the chain of checksums, which holds between neighbours wherever one starts; a lone one counts for
//! nothing. A first frame whose length is impossible or leads out of the file is no torn write at all
//! when records follow, as eight aligned bytes are never torn. What is left to etcd's rule is damage
//! inside the very last writes.

use std::io;

use crate::disk::DiskFile;
use crate::record::{self, Frame, HEADER_BYTES};

const CHUNK_BYTES: usize = 256 << 10;

/// What lies behind the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing.
    Zeros,
    /// Something that may never have been synced.
    Unsynced,
    /// Records that were written after what stands at the end had been synced.
    Synced {
        /// Where the first of them starts.
        later: u64,
    },
}

/// Looks at the file from `end` on.
pub(crate) fn rest(file: &impl DiskFile, end: u64) -> io::Result<Rest> {
    let bytes = read_rest(file, end)?;
    if bytes.is_empty() {
        return Ok(Rest::Zeros);
    }
    let write = write_at_break(&bytes, file.size()? - end);
    let later = synced_record(&bytes, write).map(|at| Rest::Synced { later: end + at as u64 });
    Ok(later.unwrap_or(Rest::Unsynced))
}

/// The file from `end` to the last chunk with anything in it.
fn read_rest(file: &impl DiskFile, end: u64) -> io::Result<Vec<u8>> {
    let size = file.size()?;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = end;
    while at < size {
        at = at.max(file.next_data(at)?);
        let read = file.read_at(at, &mut chunk)?;
        if read == 0 {
            break;
        }
        if !is_zeros(&chunk[..read]) {
            bytes.resize((at - end) as usize, 0);
            bytes.extend_from_slice(&chunk[..read]);
        }
        at += read as u64;
    }
    Ok(bytes)
}

/// Looks at many bytes at a time: a new segment is some 60 MB of zeros, which a start looks through.
fn is_zeros(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|some| some.iter().fold(0, |all, byte| all | byte) == 0)
}

/// What may follow in a write that broke where `bytes` start; the file has `left` bytes from there.
fn write_at_break(bytes: &[u8], left: u64) -> Write {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Write::Complete };
    let frame = Frame::parse(u64::from_le_bytes(*header));
    let fits = frame.is_possible() && HEADER_BYTES as u64 + frame.body() <= left;
    if frame.header == 0 || fits { Write::States } else { Write::Complete }
}

/// Where the first record starts that the last unsynced write cannot hold.
fn synced_record(bytes: &[u8], mut write: Write) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        let mut alone = true;
        if let Some(mut record) = Found::at(bytes, at) {
            while let Some(next) = record.next(bytes) {
                if alone && !write.takes(record.kind) {
                    return Some(record.start);
                }
                if !write.takes(next.kind) {
                    return Some(next.start);
                }
                alone = false;
                record = next;
            }
            if !alone {
                at = record.end;
            }
        }
        if alone {
            at += HEADER_BYTES;
        }
    }
    None
}

/// A frame that may be a record.
struct Found {
    kind: u64,
    crc: u32,
    start: usize,
    end: usize,
    data: std::ops::Range<usize>,
}

impl Found {
    fn at(bytes: &[u8], start: usize) -> Option<Self> {
        let bytes = bytes.get(start..)?;
        let frame = Frame::parse(u64::from_le_bytes(*bytes.first_chunk::<HEADER_BYTES>()?));
        let end = HEADER_BYTES as u64 + frame.body();
        if !frame.is_possible() || end > bytes.len() as u64 {
            return None;
        }
        let body = &bytes[HEADER_BYTES..end as usize];
        let envelope = record::parse_envelope(frame, body).ok()?;
        let known = [record::ENTRY, record::STATE, record::SNAPSHOT].contains(&envelope.kind);
        let data = start + HEADER_BYTES;
        known.then(|| Self {
            kind: envelope.kind,
            crc: envelope.crc,
            start,
            end: start + end as usize,
            data: data + envelope.data.start..data + envelope.data.end,
        })
    }

    /// The record behind this one, if the checksums say that it is one.
    fn next(&self, bytes: &[u8]) -> Option<Self> {
        let next = Self::at(bytes, self.end)?;
        (crc32c::crc32c_append(self.crc, &bytes[next.data.clone()]) == next.crc).then_some(next)
    }
}

/// How far the one unsynced write has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    States,
    Entries,
    Complete,
}

impl Write {
    /// Whether a record of that kind can come next; goes on to it.
    fn takes(&mut self, kind: u64) -> bool {
        *self = match (*self, kind) {
            (Self::States, record::STATE) => Self::States,
            (Self::States | Self::Entries, record::ENTRY) => Self::Entries,
            (Self::States, record::SNAPSHOT) | (Self::Entries, record::STATE) => Self::Complete,
            _ => return false,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(kinds: &[u64]) -> bool {
        let mut write = Write::States;
        kinds.iter().all(|&kind| write.takes(kind))
    }

    #[test]
    fn one_byte_among_zeros_is_seen_wherever_it_lies() {
        for len in [0, 1, 63, 64, 65, 200] {
            let mut bytes = vec![0; len];
            assert!(is_zeros(&bytes));
            for at in 0..len {
                bytes[at] = 1;
                assert!(!is_zeros(&bytes), "byte {at} of {len}");
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn one_write_is_states_then_entries_and_a_state_or_one_snapshot() {
        use crate::record::{ENTRY as E, SNAPSHOT as M, STATE as S};
        for kinds in [&[S, S, E, E, S][..], &[E], &[S], &[S, M], &[E, S]] {
            assert!(fits(kinds), "{kinds:?}");
        }
        for kinds in [&[E, S, E][..], &[E, S, S], &[M, S], &[E, M], &[S, E, S, M]] {
            assert!(!fits(kinds), "{kinds:?}");
        }
    }
}
