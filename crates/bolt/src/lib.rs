//! Reading and writing bbolt files, which etcd's databases and snapshots are.
//!
//! ```text
//! file ──> Database ──> Bucket ──> Entries        (pages by need, each checked before it is believed)
//! Builder::measure, Builder::write ──> file       (forwards, page by page)
//! ```
//! Invariants:
//! - No bytes of a file make a panic, a walk without end, or more memory than a path of pages.
//! - What the writer wrote, the reader takes; so do bbolt's own check and etcd.
//!
//! It knows nothing of our own storage, and takes no locks. Bytes: `layout`.
//!
//! | file | what |
//! | --- | --- |
//! | `layout` | headers, elements, meta as bytes |
//! | `source` | reading at positions |
//! | `database` | an open file |
//! | `node` | one page, checked |
//! | `bucket` | looking up and walking |
//! | `check` | all pages of a file |
//! | `tree`, `writer` | writing |
//! | `etcd` | what etcd keeps in which bucket |
//! | `snapshot` | the hash at the end; what `etcdutl snapshot status` says |

mod bucket;
mod check;
mod database;
mod error;
mod layout;
mod node;
mod source;
mod tree;
mod writer;

pub mod etcd;
pub mod snapshot;

pub use bucket::{Bucket, Entries, Entry};
pub use database::Database;
pub use error::{Error, Result};
pub use source::Source;
pub use writer::{Builder, Layout};
