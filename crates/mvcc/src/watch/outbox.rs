//! What one stream still has to be told, in order.
//!
//! ```text
//! hub (under its lock) ── push / offer ──> queue ── poll_replies ──> shell ──> wire
//!                                            │ at or above the limit: `offer` says no
//!                                            └ down to half of it: whoever drains tells the hub
//! ```
//! The queue holds small items; replies are made, and split where fragments were asked for, by the one
//! who drains. Lock order: hub, then outbox.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use etched_proto::etcdserverpb::{ResponseHeader, WatchResponse};
use etched_proto::raw::{WatchReply, Wire};

use super::event::varint_len;

/// What one stream may hold and how its answers are cut.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes waiting for the wire from which on the stream counts as slow. Its watchers then wait in
    /// the store instead, until half of this is left. A single answer may be larger.
    pub outbox_bytes: usize,
    /// Encoded size from which on an answer to a watcher that asked for fragments is split (etcd:
    /// the request limit plus 512 KiB).
    pub fragment_bytes: usize,
    /// Returned with the stream's wakers, so that the shell can hand a thread all of its own at once.
    pub group: usize,
}

/// Tasks to be woken, each with the group of its stream; one for each stream that was waiting.
#[derive(Debug, Default)]
#[must_use = "streams wait until they are woken"]
pub struct Wakes(Vec<(usize, Waker)>);

impl Wakes {
    /// Wakes them all from here.
    pub fn wake_all(self) {
        self.0.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Whether nobody was waiting.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of each group together.
    pub fn by_group(mut self) -> impl Iterator<Item = (usize, Waker)> {
        self.0.sort_unstable_by_key(|(group, _)| *group);
        self.into_iter()
    }

    /// Adds those of another call.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }
}

impl IntoIterator for Wakes {
    type Item = (usize, Waker);
    type IntoIter = std::vec::IntoIter<(usize, Waker)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// An answer before it gets its final form.
#[derive(Debug)]
pub(super) enum Item {
    /// Created and canceled; the revision of the header beside.
    Control(i64, Box<WatchResponse>),
    Progress {
        watch_id: i64,
        revision: i64,
    },
    Events {
        watch_id: i64,
        revision: i64,
        fragment: bool,
        events: Events,
    },
}

/// Encoded events, shared with other watchers where they get the same.
#[derive(Debug, Clone)]
pub(super) enum Events {
    One(Bytes),
    Many(Arc<Vec<Bytes>>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Item>,
    bytes: usize,
    events: usize,
    events_taken: u64,
    closed: bool,
    /// Watchers of this stream wait in the hub for room.
    room_wanted: bool,
    reader: Option<Waker>,
    requester: Option<Waker>,
}

/// What draining came to.
pub(super) struct Drained {
    /// False: the stream is closed and everything was taken.
    pub(super) open: bool,
    /// Watchers wait in the hub for the room that was made.
    pub(super) room_made: bool,
}

impl Outbox {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// Queues an item whatever waits already.
    pub(super) fn push(&self, item: Item, wakes: &mut Wakes) {
        self.put(&mut self.state.lock(), item, wakes);
    }

    /// Queues an item unless the stream is full; if it is, the hub is told of room later.
    pub(super) fn offer(&self, item: Item, wakes: &mut Wakes) -> bool {
        let mut state = self.state.lock();
        if self.is_full(&state) {
            state.room_wanted = true;
            return false;
        }
        self.put(&mut state, item, wakes);
        true
    }

    /// Queues an item unless the stream is full; it is then dropped.
    pub(super) fn try_push(&self, item: Item, wakes: &mut Wakes) {
        let mut state = self.state.lock();
        if !self.is_full(&state) {
            self.put(&mut state, item, wakes);
        }
    }

    /// Whether the stream is full; if it is, the hub is told of room later.
    pub(super) fn full_until_told(&self) -> bool {
        let mut state = self.state.lock();
        let full = self.is_full(&state);
        state.room_wanted |= full;
        full
    }

    /// Bytes that may be added before the stream is full.
    pub(super) fn room(&self) -> usize {
        self.limits.outbox_bytes.saturating_sub(self.state.lock().bytes)
    }

    /// Ends the stream: what waits is still taken, nothing is added.
    pub(super) fn close(&self, wakes: &mut Wakes) {
        let mut state = self.state.lock();
        state.closed = true;
        wakes.0.extend(state.reader.take().map(|waker| (self.limits.group, waker)));
        wakes.0.extend(state.requester.take().map(|waker| (self.limits.group, waker)));
    }

    /// Events that wait here, and those taken so far.
    pub(super) fn event_counts(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.events, state.events_taken)
    }

    /// Takes items until `max_bytes` (but at least one) and makes replies of them. Pending: nothing
    /// waits, and `cx` is woken when something does.
    pub(super) fn poll_drain(
        &self,
        cx: &Context<'_>,
        header: &ResponseHeader,
        max_bytes: usize,
        out: &mut Vec<WatchReply>,
    ) -> Poll<Drained> {
        let mut items = Vec::new();
        let (drained, requester) = {
            let mut state = self.state.lock();
            if state.queue.is_empty() && !state.closed {
                keep_waker(&mut state.reader, cx);
                return Poll::Pending;
            }
            self.take(&mut state, max_bytes, &mut items)
        };
        if let Some(waker) = requester {
            waker.wake();
        }
        for item in items {
            item.into_replies(header, self.limits.fragment_bytes, out);
        }
        Poll::Ready(drained)
    }

    /// Ready as long as the stream is not full (or is closed).
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if self.is_full(&state) && !state.closed {
            keep_waker(&mut state.requester, cx);
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn is_full(&self, state: &State) -> bool {
        state.bytes >= self.limits.outbox_bytes.max(1)
    }

    fn put(&self, state: &mut State, item: Item, wakes: &mut Wakes) {
        if state.closed {
            return;
        }
        state.bytes += item.cost();
        state.events += item.events();
        state.queue.push_back(item);
        wakes.0.extend(state.reader.take().map(|waker| (self.limits.group, waker)));
    }

    fn take(
        &self,
        state: &mut State,
        max_bytes: usize,
        items: &mut Vec<Item>,
    ) -> (Drained, Option<Waker>) {
        let mut taken = 0;
        while let Some(item) = state.queue.front() {
            if !items.is_empty() && taken + item.cost() > max_bytes {
                break;
            }
            taken += item.cost();
            state.events -= item.events();
            state.events_taken += item.events() as u64;
            items.extend(state.queue.pop_front());
        }
        state.bytes -= taken;
        if state.queue.is_empty() && state.queue.capacity() > ROOMY {
            state.queue = VecDeque::new();
        }
        let low = state.bytes <= self.limits.outbox_bytes / 2;
        let room_made = low && std::mem::take(&mut state.room_wanted);
        let requester = if low { state.requester.take() } else { None };
        let open = !state.closed || !items.is_empty();
        (Drained { open, room_made }, requester)
    }
}

/// Places an empty queue may keep.
const ROOMY: usize = 64;

/// Bytes an item counts beside those of its events, and an event beside its own.
const ITEM_BYTES: usize = 128;
pub(super) const EVENT_BYTES: usize = 32;

fn keep_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

impl Events {
    fn as_slice(&self) -> &[Bytes] {
        match self {
            Self::One(event) => std::slice::from_ref(event),
            Self::Many(events) => events,
        }
    }

    fn into_vec(self) -> Vec<Bytes> {
        match self {
            Self::One(event) => vec![event],
            Self::Many(events) => Arc::unwrap_or_clone(events),
        }
    }
}

impl Item {
    /// Bytes it counts against the limit.
    fn cost(&self) -> usize {
        let Self::Events { events, .. } = self else { return ITEM_BYTES };
        ITEM_BYTES + events.as_slice().iter().map(|event| EVENT_BYTES + event.len()).sum::<usize>()
    }

    fn events(&self) -> usize {
        if let Self::Events { events, .. } = self { events.as_slice().len() } else { 0 }
    }

    fn into_replies(self, header: &ResponseHeader, limit: usize, out: &mut Vec<WatchReply>) {
        let header = |revision| Some(ResponseHeader { revision, ..*header });
        match self {
            Self::Control(revision, head) => {
                let head = WatchResponse { header: header(revision), ..*head };
                out.push(WatchReply { head, events: Vec::new() });
            }
            Self::Progress { watch_id, revision } => {
                let head =
                    WatchResponse { header: header(revision), watch_id, ..Default::default() };
                out.push(WatchReply { head, events: Vec::new() });
            }
            Self::Events { watch_id, revision, fragment, events } => {
                let head =
                    WatchResponse { header: header(revision), watch_id, ..Default::default() };
                let reply = WatchReply { head, events: events.into_vec() };
                if fragment && reply.events.len() > 1 && reply.wire_len() >= limit {
                    split(reply, limit, out);
                } else {
                    out.push(reply);
                }
            }
        }
    }
}

/// Cuts a reply into ones below `limit` bytes; a single event is never cut. All but the last say that
/// more follows, and that flag counts towards the size of each.
fn split(reply: WatchReply, limit: usize, out: &mut Vec<WatchReply>) {
    let head = WatchResponse { fragment: true, ..reply.head };
    let head_len = head.wire_len();
    let mut part = WatchReply { head: head.clone(), events: Vec::new() };
    let mut size = head_len;
    for event in reply.events {
        let event_len = 1 + varint_len(event.len()) + event.len();
        if !part.events.is_empty() && size + event_len >= limit {
            out.push(std::mem::replace(
                &mut part,
                WatchReply { head: head.clone(), events: vec![] },
            ));
            size = head_len;
        }
        size += event_len;
        part.events.push(event);
    }
    part.head.fragment = false;
    out.push(part);
}
