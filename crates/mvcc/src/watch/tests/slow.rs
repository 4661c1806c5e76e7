//! Streams that do not keep up, compaction and snapshots under them, fairness, wake-ups.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use bytes::Bytes;
use etched_proto::etcdserverpb::WatchCreateRequest;
use parking_lot::Mutex;

use super::*;
use crate::record::{Record, RecordsError, Revision};
use crate::watch::History;

fn event_revisions(answers: &[WatchResponse]) -> Vec<i64> {
    let events = answers.iter().flat_map(|answer| &answer.events);
    events.map(|event| event.kv.as_ref().expect("kv").mod_revision).collect()
}

/// Drains and catches up until neither gives anything.
fn settle(server: &mut Server, streams: &[&Stream], budget: &Budget) -> Vec<Vec<WatchResponse>> {
    let mut answers = vec![Vec::new(); streams.len()];
    loop {
        server.catch_up_with(budget);
        let before: usize = answers.iter().map(Vec::len).sum();
        for (stream, answers) in streams.iter().zip(&mut answers) {
            answers.extend(drain(stream));
        }
        if answers.iter().map(Vec::len).sum::<usize>() == before {
            return answers;
        }
    }
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// etcd issue 17529.
#[test]
fn a_stream_that_is_not_read_holds_bounded_memory_and_loses_nothing() {
    let mut server = Server::new();
    let stream = server.open_with(2_000);
    stream.create(&watch_key("a")).expect("created");
    let last = (0..1_000).map(|value| server.put("a", &value.to_string())).max();
    let counters = server.hub.counters();
    assert!(counters.pending_events < 20, "{counters:?}");
    assert_eq!(counters.slow_watchers, 1);
    server.catch_up();
    assert!(server.hub.counters().pending_events < 20, "catching up waits for room");
    let answers = settle(&mut server, &[&stream], &Budget::default()).remove(0);
    assert_eq!(event_revisions(&answers), (2..=1_001).collect::<Vec<i64>>());
    assert_eq!(last, Some(1_001));
    assert_eq!(server.hub.counters().slow_watchers, 0);
}

#[test]
fn values_before_a_change_count_as_memory_too() {
    let mut server = Server::new();
    let big = "x".repeat(10_000);
    for _ in 0..50 {
        server.put("a", &big);
        server.delete("a");
    }
    let stream = server.open_with(50_000);
    let deletes = WatchCreateRequest { filters: vec![0], prev_kv: true, ..watch_key("a") };
    stream.create(&from(2, deletes)).expect("created");
    server.catch_up();
    assert_eq!(server.hub.counters().pending_events, 5);
    let answers = settle(&mut server, &[&stream], &Budget::default()).remove(0);
    assert_eq!(event_revisions(&answers), (3..=101).step_by(2).collect::<Vec<i64>>());
}

#[test]
fn an_answer_larger_than_the_limit_still_gets_through() {
    let mut server = Server::new();
    let stream = server.open_with(10);
    let big = "x".repeat(10_000);
    stream.create(&watch_key("a")).expect("created");
    drain(&stream);
    server.put("a", &big);
    server.put("a", &big);
    assert_eq!(event_revisions(&drain(&stream)), [2]);
    server.catch_up();
    assert_eq!(event_revisions(&drain(&stream)), [3]);
}

#[test]
fn watchers_of_other_streams_stay_in_sync_beside_a_slow_one() {
    let server = Server::new();
    let (slow, quick) = (server.open_with(1), server.open());
    slow.create(&watch_key("a")).expect("created");
    quick.create(&watch_key("a")).expect("created");
    for value in ["2", "3", "4"] {
        server.put("a", value);
    }
    assert_eq!(event_revisions(&drain(&quick)), [2, 3, 4]);
    assert_eq!(event_revisions(&drain(&slow)), [] as [i64; 0], "the created answer took the room");
}

#[test]
fn what_is_notified_while_a_round_reads_is_neither_lost_nor_doubled() {
    let mut server = Server::new();
    for value in ["2", "3"] {
        server.put("a", value);
    }
    let stream = server.open();
    stream.create(&from(2, watch_key("a"))).expect("created");
    let during = During::new(&server, |apply| {
        apply.put("a", "4");
        apply.put("b", "5");
        apply.put("a", "6");
    });
    server.catch_up.run(&during, &Budget::default()).expect("readable").wakes.wake_all();
    server.put("a", "7");
    stream.progress();
    let expected =
        ["0@3 created", "0@3 +a=2:2 +a=3:3", "0@4 +a=4:4", "0@6 +a=6:6", "0@7 +a=7:7", "-1@7"];
    assert_eq!(lines(&stream), expected);
}

#[test]
fn a_compaction_while_a_round_reads_cancels_instead_of_leaving_a_gap() {
    let mut server = Server::new();
    for value in ["2", "3", "4"] {
        server.put("a", value);
    }
    let (below, at) = (server.open(), server.open());
    below.create(&from(2, watch_key("a"))).expect("created");
    at.create(&from(3, watch_key("a"))).expect("created");
    // The hub hears of it only after the round: the history itself shows it.
    let during = During::new(&server, |apply| apply.past.compact(3));
    server.catch_up.run(&during, &Budget::default()).expect("readable").wakes.wake_all();
    assert_eq!(lines(&below), ["0@4 created", "0@0 canceled compacted=3"]);
    assert_eq!(lines(&at), ["0@4 created", "0@4 +a=3:3 +a=4:4"]);
}

#[test]
fn a_compaction_cancels_slow_watchers_that_are_below_it_and_no_others() {
    let mut server = Server::new();
    let stream = server.open_with(1);
    for key in ["a", "b", "c"] {
        stream.create(&watch_key(key)).expect("created");
    }
    for key in ["a", "b", "a"] {
        server.put(key, "x");
    }
    server.compact(3);
    let answers = settle(&mut server, &[&stream], &Budget::default()).remove(0);
    let seen: Vec<String> = answers.iter().map(line).collect();
    let created = ["0@1 created", "1@1 created", "2@1 created"];
    assert_eq!(seen[..3], created);
    assert_eq!(seen[3..], ["0@0 canceled compacted=3", "1@4 +b=x:3"]);
}

#[test]
fn a_watcher_canceled_or_dropped_while_a_round_reads_gets_nothing_more() {
    let mut server = Server::new();
    server.put("a", "2");
    let (kept, dropped) = (server.open(), Some(server.open()));
    kept.create(&from(2, watch_key("a"))).expect("created");
    dropped.as_ref().expect("open").create(&from(2, watch_key("a"))).expect("created");
    let ended = Mutex::new(dropped);
    let during = During::new(&server, |apply| {
        kept.cancel(0);
        kept.create(&WatchCreateRequest { watch_id: 4, ..watch_key("a") }).expect("created");
        drop(ended.lock().take());
        apply.put("a", "3");
    });
    server.catch_up.run(&during, &Budget::default()).expect("readable").wakes.wake_all();
    assert_eq!(lines(&kept), ["0@2 created", "0@2 canceled", "4@2 created", "4@3 +a=3:3"]);
    assert_eq!(server.hub.counters().watchers, 1);
}

/// etcd issue 16839, and 17529: one stream's load takes no turn from another's, nor one watcher's from
/// another of the same stream.
#[test]
fn every_watcher_moves_on_while_others_never_catch_up() {
    let mut server = Server::new();
    for value in 0..500 {
        server.put("busy", &value.to_string());
    }
    let rare = server.put("rare", "x");
    let stream = server.open_with(200);
    for _ in 0..5 {
        stream.create(&from(2, watch_key("busy"))).expect("created");
    }
    stream.create(&from(2, watch_key("rare"))).expect("created");
    let other = server.open_with(200);
    other.create(&from(2, watch_key("busy"))).expect("created");
    let budget = Budget { watchers: 2, records: 10, bytes: 1 << 20, sent: 1 << 20 };
    let mut rounds = 0;
    let mut rare_seen = false;
    while !rare_seen {
        rounds += 1;
        assert!(rounds < 1_000, "the watcher of the rare key starves");
        server.put("busy", "more");
        server.round(&budget).wakes.wake_all();
        drain(&other);
        let answers = drain(&stream);
        rare_seen =
            answers.iter().any(|answer| event_revisions(std::slice::from_ref(answer)) == [rare]);
    }
}

#[test]
fn a_watcher_of_a_rare_key_does_not_wait_for_the_backlog_of_its_neighbour() {
    let mut server = Server::new();
    for value in 0..500 {
        server.put("busy", &value.to_string());
    }
    let rare = server.put("rare", "x");
    let stream = server.open_with(300);
    stream.create(&from(2, watch_key("busy"))).expect("created");
    stream.create(&from(2, watch_key("rare"))).expect("created");
    drain(&stream);
    let mut seen = Vec::new();
    for _ in 0..5 {
        server.round(&Budget::default()).wakes.wake_all();
        seen.extend(event_revisions(&drain(&stream)));
    }
    assert!(seen.contains(&rare), "{seen:?}");
}

/// A watcher in sync may fill the stream again and again before a round begins.
#[test]
fn a_turn_brings_something_even_if_the_stream_has_filled_up_again() {
    let mut server = Server::new();
    server.put("a", "2");
    let stream = server.open_with(500);
    stream.create(&watch_key("b")).expect("created");
    stream.create(&from(2, watch_key("a"))).expect("created");
    for value in ["3", "4", "5"] {
        server.put("b", value);
    }
    assert_eq!(server.hub.counters().slow_watchers, 2, "the stream is full");
    server.round(&Budget::default()).wakes.wake_all();
    assert_eq!(event_revisions(&drain(&stream)), [3, 4, 2]);
}

#[test]
fn watchers_at_nearby_revisions_share_one_scan() {
    let mut server = Server::new();
    for value in 0..50 {
        server.put("a", &value.to_string());
    }
    let stream = server.open();
    for start in 2..42 {
        stream.create(&from(start, watch_key("a"))).expect("created");
    }
    let round = server.round(&Budget::default());
    assert!(round.worked && !round.more && server.hub.counters().slow_watchers == 0);
    assert_eq!(
        event_revisions(&drain(&stream)).len(),
        (2..42).map(|start| 52 - start).sum::<i64>() as usize
    );
}

#[test]
fn a_round_keeps_to_its_budget_at_whole_revisions() {
    let mut server = Server::new();
    for value in 0..10 {
        let op = |key: &str| Op::Put(key.into(), value.to_string());
        server.write(&[op("a"), op("b"), op("c")]);
    }
    let stream = server.open();
    stream.create(&from(2, watch_range("a", "z"))).expect("created");
    drain(&stream);
    let budget = Budget { watchers: 1, records: 4, bytes: 1 << 20, sent: 1 << 20 };
    let mut sizes = Vec::new();
    while server.round(&budget).worked {
        sizes.push(drain(&stream).iter().map(|answer| answer.events.len()).sum::<usize>());
    }
    assert_eq!(sizes, [6, 6, 6, 6, 6]);
}

/// etcd issue 15271.
#[test]
fn after_a_snapshot_no_watcher_goes_back_and_none_misses_what_lies_between() {
    let mut server = Server::new();
    server.put("a", "2");
    let stream = server.open();
    stream.create(&watch_key("a")).expect("created");
    stream.create(&from(4, watch_key("a"))).expect("created");
    stream.create(&from(9, watch_key("a"))).expect("created");
    drain(&stream);
    for value in ["3", "4", "5"] {
        server.past.commit(&[Op::Put("a".into(), value.into())]);
    }
    server.hub.restored(5, 0).wake_all();
    stream.progress();
    server.catch_up();
    let mut seen = lines(&stream);
    seen.sort();
    assert_eq!(seen, ["0@5 +a=3:3 +a=4:4 +a=5:5", "1@5 +a=4:4 +a=5:5"]);
    for value in ["6", "7", "8", "9"] {
        server.put("a", value);
    }
    let answers = drain(&stream);
    let of = |id| answers.iter().filter(move |answer| answer.watch_id == id).count();
    assert_eq!([of(0), of(1), of(2)], [4, 4, 1]);
}

#[test]
fn a_snapshot_that_cannot_show_what_lies_between_cancels() {
    let mut server = Server::new();
    server.put("a", "2");
    let stream = server.open();
    stream.create(&watch_key("a")).expect("created");
    stream.create(&from(6, watch_key("a"))).expect("created");
    drain(&stream);
    for value in ["3", "4", "5"] {
        server.past.commit(&[Op::Put("a".into(), value.into())]);
    }
    server.past.compact(5);
    server.hub.restored(5, 5).wake_all();
    server.catch_up();
    server.put("a", "6");
    assert_eq!(lines(&stream), ["0@0 canceled compacted=5", "1@6 +a=6:6"]);
}

#[test]
fn a_snapshot_while_a_round_reads_leaves_no_gap() {
    let mut server = Server::new();
    server.put("a", "2");
    let stream = server.open();
    stream.create(&from(2, watch_key("a"))).expect("created");
    let during = During::new(&server, |apply| {
        apply.put("a", "3");
        for value in ["4", "5"] {
            apply.past.commit(&[Op::Put("a".into(), value.into())]);
        }
        apply.hub.restored(5, 0).wake_all();
        apply.put("a", "6");
    });
    server.catch_up.run(&during, &Budget::default()).expect("readable").wakes.wake_all();
    server.catch_up();
    assert_eq!(event_revisions(&drain(&stream)), [2, 3, 4, 5, 6]);
}

#[test]
fn a_batch_wakes_each_waiting_stream_once() {
    let server = Server::new();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let cx = Context::from_waker(&waker);
    let mut replies = Vec::new();
    let streams = [1, 2].map(|group| {
        let limits = Limits { outbox_bytes: 1 << 20, fragment_bytes: 1 << 20, group };
        let stream = server.hub.open_stream(limits);
        for _ in 0..3 {
            stream.create(&watch_key("a")).expect("created");
        }
        assert!(stream.poll_replies(&cx, &HEADER, usize::MAX, &mut replies).is_ready());
        assert!(stream.poll_replies(&cx, &HEADER, usize::MAX, &mut replies).is_pending());
        stream
    });
    let mut batch = server.past.commit(&[Op::Put("a".into(), "2".into())]);
    batch.extend(server.past.commit(&[Op::Put("a".into(), "3".into())]));
    let wakes = server.hub.notify(&batch, &*server.past).expect("readable");
    assert_eq!(count.0.load(Ordering::Relaxed), 0, "the caller chooses when and where to wake");
    let mut groups: Vec<usize> = wakes.into_iter().map(|(group, _)| group).collect();
    groups.sort_unstable();
    assert_eq!(groups, [1, 2]);
    assert!(streams.iter().all(|stream| drain(stream).len() == 6));
}

#[test]
#[should_panic(expected = "revision 2 notified after 2")]
fn a_revision_notified_twice_stops_the_process() {
    let server = Server::new();
    let records = server.past.commit(&[Op::Put("a".into(), "2".into())]);
    for _ in 0..2 {
        server.hub.notify(&records, &*server.past).expect("readable").wake_all();
    }
}

#[test]
fn nobody_is_woken_by_keys_that_nobody_watches() {
    let server = Server::new();
    let stream = server.open();
    stream.create(&watch_range("a", "c")).expect("created");
    drain(&stream);
    let batch = server.past.commit(&[Op::Put("c".into(), "2".into())]);
    assert!(server.hub.notify(&batch, &*server.past).expect("readable").is_empty());
}

#[test]
fn requests_wait_while_the_outbox_is_full() {
    let server = Server::new();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let cx = Context::from_waker(&waker);
    let stream = server.open_with(300);
    assert!(stream.poll_room(&cx).is_ready());
    for _ in 0..3 {
        stream.create(&watch_key("a")).expect("created");
    }
    assert!(stream.poll_room(&cx).is_pending());
    drain(&stream);
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert!(stream.poll_room(&cx).is_ready());
}

#[test]
fn closing_the_hub_ends_the_streams_and_the_catch_up() {
    let server = Server::new();
    let stream = server.open();
    stream.create(&watch_key("a")).expect("created");
    server.hub.close();
    let cx = Context::from_waker(Waker::noop());
    let mut replies = Vec::new();
    let mut poll = || stream.poll_replies(&cx, &HEADER, usize::MAX, &mut replies);
    assert_eq!([poll(), poll()], [Poll::Ready(true), Poll::Ready(false)]);
    assert!(!server.catch_up.wait());
    assert_eq!(
        server.open().poll_replies(&cx, &HEADER, usize::MAX, &mut Vec::new()),
        Poll::Ready(false)
    );
}

#[test]
fn a_store_that_cannot_be_read_leaves_the_watchers_where_they_were() {
    struct Broken;
    impl History for Broken {
        fn compact_revision(&self) -> i64 {
            0
        }
        fn scan(
            &self,
            _: i64,
            _: i64,
            _: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
        ) -> Result<(), RecordsError> {
            Err(RecordsError("the disk is gone".into()))
        }
        fn kv_at(&self, _: &[u8], _: i64) -> Result<Option<Bytes>, RecordsError> {
            Err(RecordsError("the disk is gone".into()))
        }
    }
    let mut server = Server::new();
    server.put("a", "2");
    let stream = server.open();
    stream.create(&from(2, watch_key("a"))).expect("created");
    let error = server.catch_up.run(&Broken, &Budget::default()).expect_err("broken");
    assert_eq!(error.to_string(), "the disk is gone");
    server.catch_up();
    assert_eq!(lines(&stream), ["0@2 created", "0@2 +a=2:2"]);
}

#[test]
fn the_record_that_a_restore_leaves_at_a_raised_revision_is_no_event() {
    struct Raised(Apply);
    impl History for Raised {
        fn compact_revision(&self) -> i64 {
            1
        }
        fn scan(
            &self,
            from: i64,
            until: i64,
            visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
        ) -> Result<(), RecordsError> {
            let mark = Record { tombstone: false, bytes: Bytes::new() };
            if from <= 1 && visit(Revision::start_of(1), mark).is_break() {
                return Ok(());
            }
            self.0.past.scan(from, until, visit)
        }
        fn kv_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, RecordsError> {
            self.0.past.kv_at(key, revision)
        }
    }
    let mut server = Server::new();
    server.put("a", "2");
    let stream = server.open();
    stream.create(&from(1, watch_range("\0", "\0"))).expect("created");
    let raised = Raised(server.apply.clone());
    server.catch_up.run(&raised, &Budget::default()).expect("it is read");
    assert_eq!(lines(&stream), ["0@2 created", "0@2 +a=2:2"]);
}

/// A past in which something else happens between the begin of a round and its reading.
struct During<F> {
    apply: Apply,
    act: Mutex<Option<F>>,
}

impl<F: FnOnce(&Apply)> During<F> {
    fn new(apply: &Apply, act: F) -> Self {
        Self { apply: apply.clone(), act: Mutex::new(Some(act)) }
    }
}

impl<F: FnOnce(&Apply) + Send> History for During<F> {
    fn compact_revision(&self) -> i64 {
        self.apply.past.compact_revision()
    }

    fn scan(
        &self,
        from: i64,
        until: i64,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), RecordsError> {
        if let Some(act) = self.act.lock().take() {
            act(&self.apply);
        }
        self.apply.past.scan(from, until, visit)
    }

    fn kv_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, RecordsError> {
        self.apply.past.kv_at(key, revision)
    }
}

/// What a round makes goes through threads that requests need too.
#[test]
fn a_round_gives_all_streams_together_no_more_than_its_share() {
    let mut server = Server::new();
    let value = "x".repeat(1000);
    let last = 41;
    while server.put("a", &value) < last {}
    let streams: Vec<Stream> = (0..4).map(|_| server.open()).collect();
    for (start, stream) in (2..).zip(&streams) {
        stream.create(&from(start, watch_key("a"))).expect("created");
        drain(stream);
    }
    let budget = Budget { sent: 40_000, ..Budget::default() };
    let mut seen = vec![Vec::new(); streams.len()];
    let mut rounds = 0;
    while server.round(&budget).worked {
        rounds += 1;
        for (stream, seen) in streams.iter().zip(&mut seen) {
            let new = event_revisions(&drain(stream));
            assert!(!new.is_empty() && new.len() <= 10, "{} events in one round", new.len());
            seen.extend(new);
        }
    }
    assert_eq!(rounds, 4);
    for (start, seen) in (2..).zip(seen) {
        assert_eq!(seen, (start..=last).collect::<Vec<_>>());
    }
}
