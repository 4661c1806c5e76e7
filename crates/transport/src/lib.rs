//! Raft messages between members, over the wire as etcd's rafthttp has it: members of both kinds understand each
//! other.
//!
//! ```text
//!            ┌ MsgApp ────> queue ─> answer to GET /raft/stream/msgapp/<id>  ┐
//! send ──> peer, other ───> queue ─> answer to GET /raft/stream/message/<id> ├─> peer: Raft::process
//!            └ no stream ─> queue ─> POST /raft, four at a time              ┘
//! send_snapshot ──────────────────> POST /raft/snapshot ──> peer: Raft::receive_snapshot
//! ```
//! Whoever wants messages dials: each member asks each other one for its two streams, and again as soon as one ends. What
//! was written into a stream and is lost with its connection stays lost. Raft expects that of a network, and is told
//! by [`Raft::report_unreachable`].
//!
//! Invariants: [`Transport::send`] never waits. A peer has queues and tasks of its own, so that none waits for
//! another. No message is sent twice: not when a connection breaks, not when a POST fails. Every queue and every
//! message that comes in is bounded, and a length that a peer claims costs no memory before the bytes are there.
//!
//! It knows nothing of consensus: a message is looked at for its sender, its receiver and its kind only. What else a
//! peer port serves, its listener and its certificates, is the server's.

mod codec;
mod connect;
mod error;
#[cfg(test)]
mod fuzz_tests;
mod handler;
mod idle;
mod incoming;
mod local;
pub mod metrics;
mod outgoing;
mod peer;
mod pipeline;
mod probe;
mod raft;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod transport;
mod url;
mod wire;

pub use codec::{DecodeError, ENTRIES_MAX, MESSAGE_BYTES_MAX};
pub use connect::{ANSWER_BYTES_MAX, ClientTls, Dialer};
pub use error::Error;
pub use handler::{Body, POSTED_BYTES_MAX, RaftStream};
pub use idle::Idle;
pub use local::{Config, IO_TIMEOUT};
pub use outgoing::{STREAM_QUEUE_BYTES_MAX, STREAM_QUEUE_MAX};
pub use pipeline::PIPELINE_QUEUE_MAX;
pub use raft::{Raft, Refused, SnapshotRefused};
pub use snapshot::{SNAPSHOT_MESSAGE_BYTES_MAX, SnapshotBody, SnapshotSource};
pub use transport::Transport;
