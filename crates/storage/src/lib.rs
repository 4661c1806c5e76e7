//! The redb file behind the log.
//!
//! The log is the durability; this file is filled behind it, so that the log can be shortened and a
//! start need not replay everything.
//!
//! ```text
//! flusher -- Commit (state at ONE index) --> Storage --> redb --> Medium (disk, or a test's memory)
//!                                               |
//! readers <-- View (the last commit, fixed) ----'
//! ```
//! Invariants:
//! - Every commit carries the applied index, the membership and all tables together, so the file is
//!   always the state at one index of the log, also after a crash: then of the last checkpoint.
//! - Every value carries a CRC-32C over its key and itself, verified on every read; the row counts of
//!   a commit are verified at open and after every full scan. redb itself verifies nothing it reads.
//! - A file takes its name only when it is whole and synced.
//! - Only a checkpoint makes anything durable; dropping the handle does not.
//!
//! It knows neither gRPC nor raft, keeps no thread and no clock, and does not decide when to flush,
//! to checkpoint or to compact. Bytes: `docs/STORAGE_FORMAT.md`.
//!
//! | file | what |
//! | --- | --- |
//! | `types` | commits, tables, sizes |
//! | `storage` | the handle: commit, publish |
//! | `view` | reading |
//! | `scan` | reading everything, with several threads |
//! | `file` | one open redb file and its write transactions |
//! | `codec` | keys, values, checksums |
//! | `room` | is there room for a commit |
//! | `defragment` | a new file for the live rows |
//! | `retired` | the file that was replaced, given back in steps |
//! | `medium` | where the file lies |
//! | `pages` | a checksum of every page in memory, so that nothing vanishes unseen |
//! | `guard` | errors and panics of redb as one line |

mod codec;
mod defragment;
mod error;
mod file;
#[cfg(test)]
mod fuzz_tests;
mod guard;
mod medium;
mod pages;
mod retired;
mod room;
mod scan;
mod storage;
mod types;
mod view;

pub use defragment::Defragmentation;
pub use error::{Error, Result};
pub use guard::panic_line;
pub use medium::{Held, Medium, Room};
/// What a [`Medium`] hands out; redb's own trait.
pub use redb::StorageBackend;
pub use retired::Retired;
pub use storage::Storage;
pub use types::{Applied, Boot, Commit, Counts, Durability, FORMAT_VERSION, Options, Sizes, Table};
pub use view::View;
