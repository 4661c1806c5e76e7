//! The multi-version store: revisions, key index, range, transactions, compaction, watch hub, HashKV.
//!
//! ```text
//! apply ──> Store ──write──> index + memory table <──read── Reader <── services, watch hub
//!             │                                               │
//!             └──take_changes──> storage (later) <──Records───┘
//! ```
//! [`Store`] is the one writer, owned by apply. [`Reader`]s run on any thread and never wait for a disk that
//! the writer waits for, nor it for theirs. A record is encoded once and passed on as bytes. Requests are
//! etcd's own messages; [`check`] holds what the API refuses before anything is proposed.
//!
//! Knows nothing of gRPC, raft, tokio or the clock.

pub mod check;
mod compact;
mod compare;
mod error;
mod hash;
mod index;
mod intervals;
mod kv;
mod large;
mod leases;
mod memory;
mod pins;
mod range;
mod reader;
mod record;
mod shared;
mod store;
mod stream;
#[cfg(test)]
mod tests;
mod txn;
pub mod watch;
mod write;

pub use error::Error;
pub use hash::{HashJob, KvHash};
pub use large::{LargeRange, RangeAnswer, Window};
pub use leases::Leases;
pub use memory::Flushed;
pub use reader::Reader;
pub use record::{RawRecord, Record, Records, RecordsError, Revision, VisitPart};
pub use store::{Answer, Attachment, Changes, CompactState, Store, Sweep};
pub use stream::{Chunk, RangeStream};

/// A limit that tests lower, so that small stores go through the machinery of large ones.
const fn limit(usual: usize, in_tests: usize) -> usize {
    if cfg!(test) { in_tests } else { usual }
}
