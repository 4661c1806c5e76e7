//! The multi-version store: revisions, key index, range, transactions, compaction, watch hub, HashKV.
//!
//! Knows nothing of gRPC, raft, tokio or the clock.

pub mod check;
mod error;
mod hash;
mod leases;
mod reader;
mod record;
mod store;
pub mod watch;

pub use error::Error;
pub use hash::{HashJob, KvHash};
pub use leases::Leases;
pub use reader::{Chunk, RangeStream, Reader};
pub use record::{Record, Records, RecordsError, Revision};
pub use store::{Answer, Attachment, Changes, CompactState, Store, Sweep};
