//! One watch stream, as its client uses it.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use etched_proto::etcdserverpb::watch_create_request::FilterType;
use etched_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use etched_proto::raw::WatchReply;

use super::hub::{Hub, Inner};
use super::index::Span;
use super::interval::Interval;
use super::outbox::{Item, Outbox, Wakes};
use super::slab::Id;
use super::watcher::{Cursor, State, Wants, Watcher};

/// A stream of watches. Dropping it ends all of them.
///
/// Requests come from one side of a connection ([`Stream::create`], [`Stream::cancel`],
/// [`Stream::progress`]), answers go to the other ([`Stream::poll_replies`]); an `Arc` lets both sides
/// hold it.
#[derive(Debug)]
pub struct Stream {
    hub: Hub,
    id: Id,
    outbox: Arc<Outbox>,
}

/// The watch id of answers that are not about one watcher.
const NO_WATCH_ID: i64 = -1;

/// Why a watch was not created. `Display` is the reason that the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The start revision is below zero.
    Compacted,
    /// The range ends at or before its key.
    EmptyRange,
    /// The stream has a watcher with this id.
    DuplicateId,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compacted => "etcdserver: mvcc: required revision has been compacted",
            Self::EmptyRange => "mvcc: watcher range is empty",
            Self::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
        })
    }
}

impl Stream {
    pub(super) const fn new(hub: Hub, id: Id, outbox: Arc<Outbox>) -> Self {
        Self { hub, id, outbox }
    }

    /// Creates a watcher and queues the answer, also when it is refused; returns its watch id.
    ///
    /// An empty key is the key `\0`, a range end of one zero byte is open.
    ///
    /// # Errors
    /// [`Refusal`]; the stream lives on.
    pub fn create(&self, request: &WatchCreateRequest) -> Result<i64, Refusal> {
        let mut wakes = Wakes::default();
        let result = {
            let mut inner = self.hub.lock();
            let result = inner.create(self.id, request, &mut wakes);
            if let Err(refusal) = &result {
                self.push_refusal(&inner, &refusal.to_string(), &mut wakes);
            }
            self.hub.signal_if_ready(&inner);
            result
        };
        wakes.wake_all();
        result
    }

    /// Answers a creation that the caller refuses (permissions), with its reason.
    pub fn refuse(&self, reason: &str) {
        let mut wakes = Wakes::default();
        self.push_refusal(&self.hub.lock(), reason, &mut wakes);
        wakes.wake_all();
    }

    /// Ends a watcher and queues the answer. False: no watcher has this id, and nothing is answered.
    pub fn cancel(&self, watch_id: i64) -> bool {
        let mut wakes = Wakes::default();
        {
            let mut inner = self.hub.lock();
            let stream = inner.streams.get_mut(self.id).expect("an open stream is in the hub");
            let Some(watcher) = stream.watchers.remove(&watch_id) else { return false };
            inner.remove_watcher(watcher);
            let head = WatchResponse { watch_id, canceled: true, ..WatchResponse::default() };
            self.outbox.push(Item::Control(inner.current, Box::new(head)), &mut wakes);
        }
        wakes.wake_all();
        true
    }

    /// The client asks for progress: one answer for the whole stream if all its watchers are in sync and
    /// none waits for a later revision; otherwise, without watchers, or on a full stream, nothing.
    pub fn progress(&self) {
        let mut wakes = Wakes::default();
        {
            let inner = self.hub.lock();
            let stream = inner.streams.get(self.id).expect("an open stream is in the hub");
            let told = |id: &Id| inner.watchers.get(*id).is_some_and(|w| w.was_told(inner.current));
            if !stream.watchers.is_empty() && stream.watchers.values().all(told) {
                let item = Item::Progress { watch_id: NO_WATCH_ID, revision: inner.current };
                self.outbox.try_push(item, &mut wakes);
            }
        }
        wakes.wake_all();
    }

    /// The stream's interval passed: progress for each watcher that asked for it, is in sync and got no
    /// event since the last tick. On a full stream, nothing.
    pub fn progress_tick(&self) {
        let mut wakes = Wakes::default();
        {
            let mut guard = self.hub.lock();
            let inner = &mut *guard;
            let stream = inner.streams.get(self.id).expect("an open stream is in the hub");
            for (watch_id, id) in &stream.watchers {
                let Some(watcher) = inner.watchers.get_mut(*id) else { continue };
                let hushed = std::mem::take(&mut watcher.hushed);
                if watcher.wants.progress && !hushed && watcher.was_told(inner.current) {
                    let item = Item::Progress { watch_id: *watch_id, revision: inner.current };
                    self.outbox.try_push(item, &mut wakes);
                }
            }
        }
        wakes.wake_all();
    }

    /// Takes waiting answers up to about `max_bytes`, at least one, appending them to `out`. Their
    /// headers are `header` with the revision filled in.
    ///
    /// Ready(false): the hub is closed and nothing is left. Pending: nothing waits; the task of `cx`, and
    /// only the one that asked last, is woken when something does.
    pub fn poll_replies(
        &self,
        cx: &Context<'_>,
        header: &ResponseHeader,
        max_bytes: usize,
        out: &mut Vec<WatchReply>,
    ) -> Poll<bool> {
        self.outbox.poll_drain(cx, header, max_bytes, out).map(|drained| {
            if drained.room_made {
                let mut inner = self.hub.lock();
                inner.unpark(self.id);
                self.hub.signal_if_ready(&inner);
            }
            drained.open
        })
    }

    /// Ready when the client's next request may be taken: its answers have room. Otherwise the task of
    /// `cx`, and only the one that asked last, is woken when half of the outbox is free.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        self.outbox.poll_room(cx)
    }

    fn push_refusal(&self, inner: &Inner, reason: &str, wakes: &mut Wakes) {
        let head = WatchResponse {
            watch_id: NO_WATCH_ID,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..WatchResponse::default()
        };
        self.outbox.push(Item::Control(inner.current, Box::new(head)), wakes);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.hub.lock().remove_stream(self.id);
    }
}

impl Watcher {
    /// It was told all there is up to `current`, and it asked for some of it.
    fn was_told(&self, current: i64) -> bool {
        self.state == State::Synced && self.start <= current
    }
}

impl Inner {
    fn create(
        &mut self,
        stream_id: Id,
        request: &WatchCreateRequest,
        wakes: &mut Wakes,
    ) -> Result<i64, Refusal> {
        if request.start_revision < 0 {
            return Err(Refusal::Compacted);
        }
        let span = span_of(request)?;
        let stream = self.streams.get_mut(stream_id).expect("an open stream is in the hub");
        let watch_id = stream.claim_id(request.watch_id)?;
        let outbox = Arc::clone(&stream.outbox);
        let head = WatchResponse { watch_id, created: true, ..WatchResponse::default() };
        outbox.push(Item::Control(self.current, Box::new(head)), wakes);
        let id = self.watchers.insert(Watcher {
            stream: stream_id,
            watch_id,
            outbox,
            span,
            start: request.start_revision,
            wants: wants_of(request),
            state: State::Compacted,
            place: 0,
            mark: 0,
            hushed: false,
        });
        stream.watchers.insert(watch_id, id);
        self.begin(id, request.start_revision, wakes);
        Ok(watch_id)
    }

    fn begin(&mut self, id: Id, start: i64, wakes: &mut Wakes) {
        if start == 0 || start > self.current {
            self.enter_synced(id);
        } else if start < self.compacted {
            self.cancel_compacted(id, wakes);
        } else {
            let turn = self.ready.new_turn();
            self.queue(id, Cursor { next: start, turn });
        }
    }
}

impl super::hub::StreamState {
    /// The id asked for, or for 0 the lowest unused one that was not yet given out.
    fn claim_id(&mut self, asked: i64) -> Result<i64, Refusal> {
        if asked != 0 {
            let taken = self.watchers.contains_key(&asked);
            return if taken { Err(Refusal::DuplicateId) } else { Ok(asked) };
        }
        while self.watchers.contains_key(&self.next_watch_id) {
            self.next_watch_id += 1;
        }
        self.next_watch_id += 1;
        Ok(self.next_watch_id - 1)
    }
}

/// Copies what is watched: the request's bytes are a slice of a much larger buffer.
fn span_of(request: &WatchCreateRequest) -> Result<Span, Refusal> {
    let key: &[u8] = if request.key.is_empty() { b"\0" } else { &request.key };
    let end = &request.range_end[..];
    let start = Bytes::copy_from_slice(key);
    match end {
        b"" => Ok(Span::Key(start)),
        b"\0" => Ok(Span::Range(Interval { start, end: None })),
        _ if end <= key => Err(Refusal::EmptyRange),
        _ => Ok(Span::Range(Interval { start, end: Some(Bytes::copy_from_slice(end)) })),
    }
}

fn wants_of(request: &WatchCreateRequest) -> Wants {
    Wants {
        no_puts: request.filters.contains(&(FilterType::Noput as i32)),
        no_deletes: request.filters.contains(&(FilterType::Nodelete as i32)),
        prev_kv: request.prev_kv,
        progress: request.progress_notify,
        fragment: request.fragment,
    }
}
