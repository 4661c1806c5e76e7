//! etcd's write-ahead log: records, segments, repair, over a disk seam.
//!
//! ```text
//! Wal::save(state, entries) ──> record ──> segment file ──> fdatasync
//! Wal::open(mark)           <── checks, repair <── segments from the mark on
//! read(mark)                <── checks ────────────┘   changes nothing
//! ```
//! The files are etcd's, byte for byte (3.5 to 3.7 are read, 3.7 is written): etcd opens what this
//! crate writes and the other way round.
//!
//! Invariants:
//! 1. What [`Wal::save`] returned success for (with something in it that needs a sync) is read back
//!    by every later [`Wal::open`]; nothing is read back that was not saved.
//! 2. Damage is an error that names file and offset. Only what a power cut can leave of the one
//!    write that was not synced is cut off, and kept aside (see `tail`).
//! 3. One log has one writer: each open segment is locked.
//!
//! Knows nothing of raft's rules beyond the shape of the log, and keeps no entries in memory.

pub mod disk;

mod beside;
mod create;
mod error;
mod open;
mod record;
mod segment;
mod tail;
mod types;
mod wal;

#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod fuzz_tests;

pub use error::{Damage, Error};
pub use open::{make_durable, read, valid_snapshots};
pub use types::{Entry, EntryKind, HardState, SnapshotMark, Times};
pub use wal::{Contents, Options, Repair, SEGMENT_BYTES, Wal, exists};
