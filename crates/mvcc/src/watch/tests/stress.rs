//! Real threads: one applies and compacts, one catches up, some read their streams.

use std::task::Wake;
use std::thread::{self, Thread};

use etched_proto::etcdserverpb::WatchCreateRequest;

use super::*;
use crate::watch::History;

const REVISIONS: i64 = 3_000;
const READERS: usize = 4;
const WATCHERS: usize = 5;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Each revision writes the key that all watch, so a watcher sees every number or has missed one.
#[test]
fn readers_see_every_revision_while_apply_compaction_and_catch_up_run() {
    let Server { apply, mut catch_up } = Server::new();
    thread::scope(|scope| {
        let past = Arc::clone(&apply.past);
        scope.spawn(move || {
            while catch_up.wait() {
                let budget = Budget { watchers: 3, records: 50, bytes: 2_000, sent: 20_000 };
                let mut more = true;
                while more {
                    let round = catch_up.run(&*past, &budget).expect("readable");
                    round.wakes.wake_all();
                    more = round.more;
                }
            }
        });
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let apply = apply.clone();
                scope.spawn(move || read(&apply, 300 + 1_000 * reader))
            })
            .collect();
        for revision in 2..=REVISIONS {
            apply.put("a", &revision.to_string());
            if revision % 500 == 0 {
                apply.compact(revision - 100);
            }
        }
        for reader in readers {
            reader.join().expect("a reader that saw everything");
        }
        apply.hub.close();
    });
    let counters = apply.hub.counters();
    assert_eq!((counters.streams, counters.watchers), (0, 0));
}

/// Reads until all watchers of a stream have seen the last revision.
fn read(apply: &Apply, outbox_bytes: usize) {
    let stream = apply.open_with(outbox_bytes);
    let mut next = [0; WATCHERS];
    let create = |watch_id: usize, start: i64| {
        let prev_kv = watch_id.is_multiple_of(2);
        let watch_id = watch_id as i64 + 1;
        let request = WatchCreateRequest { watch_id, prev_kv, ..watch_range("a", "b") };
        stream.create(&from(start, request)).expect("created");
    };
    for (watch_id, next) in next.iter_mut().enumerate() {
        *next = 2.max(apply.past.compact_revision());
        create(watch_id, *next);
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let cx = Context::from_waker(&waker);
    while next.iter().any(|next| *next <= REVISIONS) {
        let mut replies = Vec::new();
        if stream.poll_replies(&cx, &HEADER, 400, &mut replies).is_pending() {
            thread::park();
        }
        for reply in &replies {
            let watcher = reply.head.watch_id as usize - 1;
            if reply.head.compact_revision != 0 {
                assert!(next[watcher] < reply.head.compact_revision);
                next[watcher] = reply.head.compact_revision;
                stream.cancel(reply.head.watch_id);
                create(watcher, next[watcher]);
            }
            for event in &reply.events {
                let event = mvccpb::Event::decode(event.clone()).expect("an event");
                assert_eq!(event.kv.expect("kv").mod_revision, next[watcher]);
                next[watcher] += 1;
            }
        }
    }
}
