//! The watch hub: who watches what, and what each stream still has to be told.
//!
//! ```text
//! apply ── notify(records) ──> Hub ──> Outbox of each concerned stream ──> poll_replies (shell)
//!                               ^                     │ full                      │ room again
//!                               │                     v                           v
//!                            CatchUp::run <── unsynced watchers: past ones and slow ones
//!                               │
//!                               └── History::scan (the store; no lock held meanwhile)
//! ```
//! A watcher is *synced* (it has been offered every event up to the hub's revision) or *unsynced* (it
//! has a cursor: the next revision it has not been offered). Synced watchers are found by key and cost
//! nothing while their keys rest. A synced watcher whose stream is full becomes unsynced at that
//! revision; unsynced ones read the store in order and become synced again under the hub's lock.
//!
//! Invariants:
//! 1. Each watcher is offered every matching event once, in revision order, a revision as a whole.
//! 2. All answers of a stream (created, canceled, events, progress) go through one queue, so that
//!    progress stands behind every event it vouches for.
//! 3. The hub's revision is the last one notified, never ahead of what the streams were offered.
//! 4. An outbox holds events of at most twice its limit and two revisions, whatever the client does.
//!    Answers to its requests come on top: the shell asks [`Stream::poll_room`] before it takes the next.
//!
//! It knows no gRPC, no runtime and no clock: intervals and threads belong to the shell.

mod catch_up;
mod event;
mod hand_out;
mod history;
mod hub;
mod index;
mod interval;
mod outbox;
mod slab;
mod stream;
#[cfg(test)]
mod tests;
mod watcher;

pub use catch_up::{Budget, CatchUp, Round};
pub use history::History;
pub use hub::{Counters, Hub};
pub use outbox::{Limits, Wakes};
pub use stream::{Refusal, Stream};
