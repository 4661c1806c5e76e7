//! How many bytes of entries are under way to each follower.
//!
//! raft-rs bounds messages in flight by number only: 512 of up to 1 MiB each. Past [`IN_FLIGHT_BYTES_MAX`] the window of
//! that follower is narrowed to what is in it, until answers have come.

use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb::{Message, MessageType};
use raft::{ProgressState, ProgressTracker};

/// Messages with entries under way to one follower, as in etcd.
pub(crate) const IN_FLIGHT_MESSAGES_MAX: usize = 512;
/// Entries' bytes in one message, as in etcd; one entry may be larger.
pub(crate) const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Entries' bytes under way to one follower before it gets no more, give or take what one round sends.
pub(crate) const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;

/// What is under way, by follower.
#[derive(Debug, Default)]
pub(crate) struct Flow(BTreeMap<u64, InFlight>);

#[derive(Debug, Default)]
struct InFlight {
    /// Last index and bytes of each message.
    messages: VecDeque<(u64, usize)>,
    bytes: usize,
    is_narrowed: bool,
}

impl Flow {
    /// `message` goes out.
    pub(crate) fn sent(&mut self, message: &Message) {
        if message.get_msg_type() != MessageType::MsgAppend {
            return;
        }
        let Some(last) = message.entries.last() else { return };
        let bytes =
            message.entries.iter().map(|entry| entry.data.len() + entry.context.len()).sum();
        let in_flight = self.0.entry(message.to).or_default();
        in_flight.messages.push_back((last.index, bytes));
        in_flight.bytes += bytes;
    }

    /// Brings the windows in line with what the followers have answered.
    pub(crate) fn adjust(&mut self, progress: &mut ProgressTracker) {
        self.0.retain(|id, in_flight| match progress.get_mut(*id) {
            Some(follower) if follower.state == ProgressState::Replicate => {
                in_flight.answered(follower.matched);
                let is_full = in_flight.bytes >= IN_FLIGHT_BYTES_MAX;
                if is_full != in_flight.is_narrowed {
                    in_flight.is_narrowed = is_full;
                    let now = follower.ins.count().max(1);
                    let window = if is_full { now } else { IN_FLIGHT_MESSAGES_MAX };
                    follower.ins.set_cap(window);
                }
                true
            }
            // A probe has one message under way, and the window begins anew after it.
            Some(follower) => {
                follower.ins.set_cap(IN_FLIGHT_MESSAGES_MAX);
                false
            }
            None => false,
        });
    }

    /// This member does not lead any more.
    pub(crate) fn clear(&mut self, progress: &mut ProgressTracker) {
        for id in std::mem::take(&mut self.0).into_keys() {
            if let Some(follower) = progress.get_mut(id) {
                follower.ins.set_cap(IN_FLIGHT_MESSAGES_MAX);
            }
        }
    }
}

impl InFlight {
    fn answered(&mut self, matched: u64) {
        while let Some((_, bytes)) = self.messages.front().filter(|(last, _)| *last <= matched) {
            self.bytes -= bytes;
            self.messages.pop_front();
        }
    }
}
