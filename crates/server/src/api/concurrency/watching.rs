//! Waiting for changes, as a client of the watch hub.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;

use etched_auth::Asked;
use etched_mvcc::watch::{Limits, Stream};
use etched_proto::etcdserverpb as pb;
use etched_proto::mvccpb::Event;
use etched_proto::raw::WatchReply;
use pb::watch_create_request::FilterType;
use prost::Message as _;
use tonic::Status;

use super::{Client, broken};
use crate::error::Error;
use crate::lane;
use crate::shared::Shared;

/// Bytes of events that may wait here; more stay in the store.
const OUTBOX_BYTES: usize = 64 << 10;

/// Which events are of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Put,
    Delete,
    Any,
}

/// What a watch has to say.
pub(super) struct Seen {
    pub(super) header: Option<pb::ResponseHeader>,
    pub(super) events: Vec<Event>,
}

/// Watches of some ranges. Dropping it ends them.
pub(super) struct Watching {
    shared: Arc<Shared>,
    stream: Stream,
    replies: VecDeque<WatchReply>,
}

impl Watching {
    /// Watches `ranges` for changes from revision `from` on.
    ///
    /// # Errors
    /// The caller may not read them.
    pub(super) async fn open(
        shared: &Client,
        ranges: &[pb::RangeRequest],
        from: i64,
        change: Change,
    ) -> Result<Self, Status> {
        let stream = shared.hub.open_stream(Limits {
            outbox_bytes: OUTBOX_BYTES,
            fragment_bytes: shared.config.message_limit(),
            group: lane::current(),
        });
        let filters = match change {
            Change::Put => vec![FilterType::Nodelete as i32],
            Change::Delete => vec![FilterType::Noput as i32],
            Change::Any => Vec::new(),
        };
        for range in ranges {
            let create = pb::WatchCreateRequest {
                key: range.key.clone(),
                range_end: range.range_end.clone(),
                start_revision: from,
                filters: filters.clone(),
                ..Default::default()
            };
            shared.require(&shared.who, Asked::Watch(&create))?;
            // A refusal comes out of the stream as an end.
            let _ = stream.create(&create);
        }
        Ok(Self { shared: Arc::clone(&shared.shared), stream, replies: VecDeque::new() })
    }

    /// The next events; none when a watch has ended, because its revision is compacted.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub(super) async fn next(&mut self) -> Result<Option<Seen>, Status> {
        loop {
            while let Some(reply) = self.replies.pop_front() {
                if reply.head.canceled {
                    return Ok(None);
                }
                if !reply.events.is_empty() {
                    return seen(reply).map(Some);
                }
            }
            let mut replies = Vec::new();
            let header = self.shared.header(0);
            let open =
                poll_fn(|cx| self.stream.poll_replies(cx, &header, OUTBOX_BYTES, &mut replies));
            if !open.await {
                return Err(Error::Stopped.into());
            }
            self.replies.extend(replies);
        }
    }
}

fn seen(reply: WatchReply) -> Result<Seen, Status> {
    let events = reply.events.into_iter().map(Event::decode);
    let events = events.collect::<Result<_, _>>().map_err(|_| broken())?;
    Ok(Seen { header: reply.head.header, events })
}
