//! The server: apply, the gRPC services, HTTP endpoints, start-up and shutdown.
//!
//! ```text
//! client ──> grpc (framing) ──> api (one file per service) ──> Shared::propose ──> engine (raft thread)
//!                                        │                                             │
//!                                        └── reads: mvcc::Reader, watch hub, lessor <── apply ──> flush
//! ```
//! [`run`] serves one member until it is told to stop. It may be embedded in a program or a test: it touches
//! nothing global but the signal handlers, and those only when [`Config::exit_by_signal`] is set.

mod api;
mod apply;
mod ask;
mod at_start;
mod auth;
mod background;
mod beginning;
mod boot;
mod buckets;
mod catch_up;
mod cluster;
mod compactor;
mod config;
mod corruption;
#[cfg(test)]
mod crash_tests;
mod deadline;
mod defragment;
mod engine;
mod error;
mod filling;
mod flush;
mod forward;
#[cfg(all(test, debug_assertions))]
mod fuzz_tests;
mod gateway;
mod gather;
mod grpc;
mod hash;
mod how_far;
mod http;
mod id;
mod inbox;
mod joining;
mod laggards;
mod lane;
mod listen;
mod membership;
mod metrics;
mod names;
mod notify;
mod offline;
mod old_request;
mod peers;
mod publish;
mod quota;
mod received;
mod reconfigure;
mod removals;
mod request;
mod restore;
mod run;
mod secure;
mod shared;
mod snapshot;
mod takeover;
mod versions;
mod wakes;
// The record is of unoptimized code: what an optimizer leaves out is not ours to count.
#[cfg(all(test, debug_assertions))]
mod work_tests;

use std::path::PathBuf;

pub use config::{
    AuthConfig, AutoCompaction, ClusterState, Config, Feature, InitialMember, JwtOptions, Listen,
    Place, Tls, TokenKind,
};
pub use etched_mvcc::KvHash;
pub use etched_tls::{TlsInfo, Version as TlsVersion};
pub use filling::FillError;
pub use how_far::HowFar;
pub use offline::{Offline, store_file};
pub use restore::{Restore, RestoreError, restore};
pub use run::{Handle, report_damage_on_panic, run, start};
pub use takeover::{Found, Ids, Reason as TakeOverError, check as check_take_over};

/// Version of etcd whose behaviour this server has.
pub const ETCD_VERSION: &str = "3.7.1";

/// Version that its clients give as that of the API they speak.
const API_VERSION: &str = "3.7";

/// What stands in the way of a start, each as one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store's file.
    #[error(transparent)]
    Storage(#[from] etched_storage::Error),
    /// The write-ahead log.
    #[error(transparent)]
    Wal(#[from] etched_wal::Error),
    /// raft, or the log against the store.
    #[error(transparent)]
    Consensus(#[from] etched_consensus::Error),
    /// The keys.
    #[error("the store does not read: {0}")]
    Store(#[from] etched_mvcc::Error),
    /// The leases.
    #[error(transparent)]
    Lease(#[from] etched_lease::RestoreError),
    /// The users and roles.
    #[error(transparent)]
    Auth(#[from] etched_auth::RestoreError),
    /// Tokens cannot be signed or checked as configured.
    #[error("{0}")]
    AuthToken(String),
    /// A row of the cluster's tables.
    #[error("{0}")]
    BadRow(String),
    /// A row of the table `meta`.
    #[error("row {key} of table meta holds no revision")]
    BadMetaRow {
        /// The row's key.
        key: String,
    },
    /// The log's metadata.
    #[error("the write-ahead log in {} has metadata that does not decode: {reason}", dir.display())]
    BadMetadata {
        /// The log's folder.
        dir: PathBuf,
        /// What the decoder said.
        reason: prost::DecodeError,
    },
    /// A store without its log.
    #[error("the store holds data, but its write-ahead log in {} is gone: refusing to start without it", dir.display())]
    LogMissing {
        /// The log's folder.
        dir: PathBuf,
    },
    /// A restore that was killed, or is under way.
    #[error(
        "a restore into this data directory has not ended: let it end, do it again, or remove {}", dir.display()
    )]
    RestoreUnfinished {
        /// What there is of it.
        dir: PathBuf,
    },
    /// A log whose beginning is gone, and no store that has it.
    #[error(
        "the write-ahead log in {} begins behind what the store has applied ({applied}): the store's file \
         was lost or replaced by an older one", dir.display()
    )]
    StoreBehindLog {
        /// The log's folder.
        dir: PathBuf,
        /// Index of the store.
        applied: u64,
    },
    /// A data directory of etcd's that stays one.
    #[error("cannot take over the etcd data directory {}: {reason}", dir.display())]
    TakeOver {
        /// The directory.
        dir: PathBuf,
        /// Why.
        reason: Box<takeover::Reason>,
    },
    /// A data directory that was etcd's and is ours, if the disk keeps it.
    #[error(
        "took the etcd data directory {} over, but cannot make that durable: {source}; a new start goes on with what \
         is on disk", dir.display()
    )]
    TakenOver {
        /// The directory.
        dir: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The cluster goes on without this member.
    #[error(
        "the member has been permanently removed from the cluster; data-dir used by this member must be removed"
    )]
    Removed,
    /// What a leader sent makes no store.
    #[error("the snapshot in {} cannot be taken: {reason}", path.display())]
    Received {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A member without data finds no cluster to begin with; in etcd's words.
    #[error("{0}")]
    Bootstrap(String),
    /// A committed entry could not be applied in replay.
    #[error("{0}")]
    Replay(String),
    /// Certificates and rules of TLS.
    #[error(transparent)]
    Tls(#[from] etched_tls::Error),
    /// An address with TLS, but no certificate for it.
    #[error("cannot listen on TLS for {address}: KeyFile and CertFile are not presented")]
    NoCertificate {
        /// The address.
        address: String,
    },
    /// The data is that of a cluster whose version is above this server's.
    #[error(
        "invalid downgrade; server version is lower than determined cluster version: server {own}, \
         cluster {cluster}"
    )]
    ClusterIsNewer {
        /// This server's version.
        own: String,
        /// The cluster's version.
        cluster: String,
    },
    /// The check before the start found a store that cannot be read as a whole.
    #[error("{member} failed to fetch hash ({reason})")]
    NoHash {
        /// This member.
        member: String,
        /// What the store said.
        reason: String,
    },
    /// Memory cannot be locked, though it is to be.
    #[error("mlock error: {reason}")]
    MemoryLock {
        /// What stands in the way.
        reason: String,
    },
    /// The operating system refused something.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted.
        action: String,
        /// The answer.
        source: std::io::Error,
    },
}

impl From<cluster::BadRow> for StartError {
    fn from(row: cluster::BadRow) -> Self {
        Self::BadRow(row.to_string())
    }
}

impl From<apply::Fatal> for StartError {
    fn from(fatal: apply::Fatal) -> Self {
        match fatal {
            apply::Fatal::Consensus(error) => Self::Consensus(error),
            other => Self::Replay(other.to_string()),
        }
    }
}
