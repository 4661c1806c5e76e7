//! etcd's write-ahead log: records, segments, repair, over a disk seam.

pub mod disk;
mod error;
mod types;
mod wal;

pub use error::{Damage, Error};
pub use types::{Entry, EntryKind, HardState, SnapshotMark};
pub use wal::{Contents, Options, Repair, SEGMENT_BYTES, Wal, exists, valid_snapshots};
