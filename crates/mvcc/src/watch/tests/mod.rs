//! Specs of the hub: each row of etcd's behaviour, slow streams, and a model under random interleavings.

mod model;
mod past;
mod rows;
mod slow;
mod stress;

use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use prost::Message;

use etched_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use etched_proto::mvccpb;

use super::{Budget, CatchUp, Hub, Limits, Refusal, Round, Stream};
use past::{Op, Past};

/// The side of apply: a store that keeps its past, and the hub that is told.
#[derive(Clone)]
struct Apply {
    past: Arc<Past>,
    hub: Hub,
}

/// The same with the side of the catch-up thread.
struct Server {
    apply: Apply,
    catch_up: CatchUp,
}

impl Deref for Server {
    type Target = Apply;

    fn deref(&self) -> &Apply {
        &self.apply
    }
}

impl Apply {
    fn open(&self) -> Stream {
        self.open_with(1 << 20)
    }

    fn open_with(&self, outbox_bytes: usize) -> Stream {
        self.hub.open_stream(Limits { outbox_bytes, fragment_bytes: 2 << 20, group: 0 })
    }

    /// One transaction; returns its revision.
    fn write(&self, ops: &[Op]) -> i64 {
        let records = self.past.commit(ops);
        self.hub.notify(&records, &*self.past).expect("the past can be read").wake_all();
        self.past.current()
    }

    fn put(&self, key: &str, value: &str) -> i64 {
        self.write(&[Op::Put(key.into(), value.into())])
    }

    fn delete(&self, key: &str) -> i64 {
        self.write(&[Op::Delete(key.into())])
    }

    fn compact(&self, revision: i64) {
        self.past.compact(revision);
        self.hub.compacted(revision).wake_all();
    }
}

impl Server {
    fn new() -> Self {
        let (hub, catch_up) = Hub::new(1, 0);
        Self { apply: Apply { past: Arc::new(Past::new()), hub }, catch_up }
    }

    /// Rounds until there is nothing to do.
    fn catch_up(&mut self) {
        self.catch_up_with(&Budget::default());
    }

    fn catch_up_with(&mut self, budget: &Budget) {
        while self.round(budget).worked {}
    }

    fn round(&mut self, budget: &Budget) -> Round {
        self.catch_up.run(&*self.apply.past, budget).expect("the past can be read")
    }
}

const HEADER: ResponseHeader =
    ResponseHeader { cluster_id: 7, member_id: 8, revision: 0, raft_term: 3 };

/// What waits on a stream, as its client would decode it.
fn drain(stream: &Stream) -> Vec<WatchResponse> {
    let mut replies = Vec::new();
    let cx = Context::from_waker(Waker::noop());
    while stream.poll_replies(&cx, &HEADER, usize::MAX, &mut replies) == Poll::Ready(true) {}
    let decode = |event: &bytes::Bytes| mvccpb::Event::decode(event.clone()).expect("an event");
    replies
        .into_iter()
        .map(|reply| {
            let events = reply.events.iter().map(decode).collect();
            WatchResponse { events, ..reply.head }
        })
        .collect()
}

fn watch_key(key: &str) -> WatchCreateRequest {
    WatchCreateRequest { key: key.to_owned().into(), ..Default::default() }
}

fn watch_range(key: &str, end: &str) -> WatchCreateRequest {
    WatchCreateRequest { range_end: end.to_owned().into(), ..watch_key(key) }
}

fn from(start_revision: i64, request: WatchCreateRequest) -> WatchCreateRequest {
    WatchCreateRequest { start_revision, ..request }
}

/// A response in one line: what a reader of a spec wants to see of it.
fn line(response: &WatchResponse) -> String {
    let header = response.header.as_ref().expect("every answer has a header");
    assert_eq!((header.cluster_id, header.member_id, header.raft_term), (7, 8, 3));
    let mut line = format!("{}@{}", response.watch_id, header.revision);
    let mut add = |yes: bool, text: String| {
        if yes {
            line.push(' ');
            line.push_str(&text);
        }
    };
    add(response.created, "created".into());
    add(response.canceled, "canceled".into());
    add(response.compact_revision != 0, format!("compacted={}", response.compact_revision));
    add(!response.cancel_reason.is_empty(), format!("'{}'", response.cancel_reason));
    for event in &response.events {
        add(true, event_text(event));
    }
    add(response.fragment, "...".into());
    line
}

/// `+key=value:revision` or `-key:revision`, and `<value` for the value before.
fn event_text(event: &mvccpb::Event) -> String {
    let kv = event.kv.as_ref().expect("an event has its kv");
    let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
    let mut line = if event.r#type == mvccpb::event::EventType::Delete as i32 {
        let bare = mvccpb::KeyValue {
            key: kv.key.clone(),
            mod_revision: kv.mod_revision,
            ..Default::default()
        };
        assert_eq!(*kv, bare, "a delete tells only key and revision");
        format!("-{}:{}", text(&kv.key), kv.mod_revision)
    } else {
        format!("+{}={}:{}", text(&kv.key), text(&kv.value), kv.mod_revision)
    };
    if let Some(prev) = &event.prev_kv {
        line.push_str(&format!("<{}", text(&prev.value)));
    }
    line
}

fn lines(stream: &Stream) -> Vec<String> {
    drain(stream).iter().map(line).collect()
}
