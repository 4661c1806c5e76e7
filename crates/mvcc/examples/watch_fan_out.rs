//! What an event costs the hub: many watchers of one key, and many watchers of different keys.
//!
//! `cargo run --release -p etched-mvcc --example watch_fan_out`

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::hint::black_box;
use std::ops::ControlFlow;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;

use etched_mvcc::watch::{History, Hub, Limits, Stream};
use etched_mvcc::{Record, RecordsError, Revision};
use etched_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest};
use etched_proto::mvccpb::KeyValue;

/// Nobody reads the past here.
struct NoPast;

impl History for NoPast {
    fn compact_revision(&self) -> i64 {
        0
    }

    fn scan(
        &self,
        _: i64,
        _: i64,
        _: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), RecordsError> {
        Ok(())
    }

    fn kv_at(&self, _: &[u8], _: i64) -> Result<Option<Bytes>, RecordsError> {
        Ok(None)
    }
}

fn key(number: usize) -> Bytes {
    format!("key-{number:028}").into()
}

fn record(key: &Bytes, main: i64) -> (Revision, Record) {
    let kv = KeyValue {
        key: key.clone(),
        value: vec![b'v'; 256].into(),
        create_revision: 2,
        mod_revision: main,
        version: main,
        lease: 0,
    };
    (Revision { main, sub: 0 }, Record { tombstone: false, bytes: kv.encode_to_vec().into() })
}

/// `watchers` on `streams` streams, the n-th of them on `key(n % keys)`; `revisions` writes of the keys
/// in turn, in batches of `batch`.
fn measure(
    name: &str,
    (streams, watchers, keys): (usize, usize, usize),
    revisions: i64,
    batch: i64,
) {
    let (hub, _catch_up) = Hub::new(1, 0);
    let limits = Limits { outbox_bytes: 64 << 20, fragment_bytes: 2 << 20, group: 0 };
    let streams: Vec<Stream> = (0..streams).map(|_| hub.open_stream(limits)).collect();
    for watcher in 0..watchers {
        let request = WatchCreateRequest { key: key(watcher % keys), ..Default::default() };
        streams[watcher % streams.len()].create(&request).expect("created");
    }
    let cx = Context::from_waker(Waker::noop());
    let mut replies = Vec::new();
    let drain = |replies: &mut Vec<_>| {
        for stream in &streams {
            let header = ResponseHeader::default();
            while stream.poll_replies(&cx, &header, 1 << 20, replies).is_ready() {}
        }
        black_box(replies.drain(..).map(|reply| reply.events.len()).sum::<usize>())
    };
    drain(&mut replies);
    let (mut notifying, mut draining) = (Duration::ZERO, Duration::ZERO);
    let mut delivered = 0;
    for first in (2..2 + revisions).step_by(batch as usize) {
        let records: Vec<_> =
            (first..first + batch).map(|main| record(&key(main as usize % keys), main)).collect();
        let begin = Instant::now();
        hub.notify(&records, &NoPast).expect("nothing is read").wake_all();
        let notified = Instant::now();
        delivered += drain(&mut replies);
        draining += notified.elapsed();
        notifying += notified - begin;
    }
    let per = |time: Duration, count: f64| time.as_nanos() as f64 / count;
    println!(
        "{name}: {delivered} deliveries; notify {:.0} ns a revision, {:.0} ns a delivery; taking replies {:.0} ns a delivery",
        per(notifying, revisions as f64),
        per(notifying, delivered as f64),
        per(draining, delivered as f64),
    );
}

fn main() {
    measure("1 key, 1000 watchers, 100 streams, batches of 1", (100, 1_000, 1), 2_000, 1);
    measure("1 key, 1000 watchers, 100 streams, batches of 10", (100, 1_000, 1), 2_000, 10);
    measure(
        "10000 keys, 10000 watchers, 100 streams, batches of 100",
        (100, 10_000, 10_000),
        100_000,
        100,
    );
    measure("10000 keys, nobody watches, batches of 100", (1, 0, 10_000), 200_000, 100);
}
