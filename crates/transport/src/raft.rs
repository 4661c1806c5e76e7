//! What stands behind the transport: raft, as far as messages concern it.

use std::future::Future;
use std::pin::Pin;

use etched_proto::raftpb::Message;

use crate::SnapshotBody;

/// Takes messages from other members and hears how sending went.
///
/// Every function but [`Raft::receive_snapshot`] is called on network threads, [`Raft::report_unreachable`] and
/// [`Raft::report_snapshot`] also from inside [`send`](crate::Transport::send): none may wait, or call the transport
/// back.
pub trait Raft: Send + Sync + 'static {
    /// Hands a message to raft, which works on it later. It is addressed to this member and its sender was not
    /// removed; nothing else about it has been checked.
    ///
    /// # Errors
    /// It is dropped; the sender hears of it only when it came by POST.
    fn process(&self, message: Message) -> Result<(), Refused>;

    /// Whether a member was removed from the cluster: it is told so and not listened to.
    fn is_id_removed(&self, id: u64) -> bool;

    /// A message to `id` was lost.
    fn report_unreachable(&self, id: u64);

    /// The snapshot for `id` was taken by it, or was not.
    fn report_snapshot(&self, id: u64, sent: bool);

    /// A member says that this one was removed from the cluster for good. May be called many times.
    fn removed(&self);

    /// Keeps a database that a leader sends, then hands its MsgSnap to raft. The message has a snapshot with
    /// metadata, is addressed to this member, and its sender was not removed.
    ///
    /// When the connection ends the future is dropped wherever it is, so what it has written by then must be of
    /// no harm.
    ///
    /// # Errors
    /// The leader is told, and will try again.
    fn receive_snapshot(
        &self,
        message: Message,
        database: SnapshotBody,
    ) -> Pin<Box<dyn Future<Output = Result<(), SnapshotRefused>> + Send + '_>>;
}

/// A message that raft does not get.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its sender is no member any more.
    #[error("cannot process message from removed member")]
    Removed,
    /// It is for another member.
    #[error("cannot process message to mismatch member")]
    Mismatch,
    /// More messages wait than may.
    #[error("receiving buffer is full")]
    Full,
    /// No message that raft may see, or raft is not there.
    #[error("{0}")]
    Because(String),
}

/// A snapshot that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotRefused {
    /// The database could not be kept.
    #[error("failed to save KV snapshot ({0})")]
    Save(String),
    /// Raft does not want its message.
    #[error("failed to process raft message ({0})")]
    Process(String),
}
