//! The multi-version store: revisions, key index, range, transactions, compaction, watch hub, HashKV.
//!
//! Knows nothing of gRPC, raft, tokio or the clock.

mod record;
pub mod watch;

pub use record::{Record, Records, RecordsError, Revision};
