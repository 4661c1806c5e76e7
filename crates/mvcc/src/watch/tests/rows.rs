//! etcd's behaviour, one spec for each fact.

use etched_proto::etcdserverpb::WatchCreateRequest;

use super::*;

fn ops(text: &str) -> Vec<Op> {
    let op = |word: &str| match word.split_once('=') {
        Some((key, value)) => Op::Put(key.into(), value.into()),
        None => Op::Delete(word.into()),
    };
    text.split(' ').map(op).collect()
}

#[test]
fn the_created_answer_comes_first_with_the_current_revision() {
    let mut server = Server::new();
    server.put("a", "1");
    let stream = server.open();
    assert_eq!(stream.create(&from(2, watch_key("a"))), Ok(0));
    server.catch_up();
    assert_eq!(lines(&stream), ["0@2 created", "0@2 +a=1:2"]);
}

#[test]
fn watch_id_0_takes_the_lowest_unused_id_and_never_one_again() {
    let server = Server::new();
    let stream = server.open();
    let with_id = |watch_id| WatchCreateRequest { watch_id, ..watch_key("a") };
    let create = |watch_id| stream.create(&with_id(watch_id));
    assert_eq!(create(1), Ok(1));
    assert_eq!([create(0), create(0), create(0)], [Ok(0), Ok(2), Ok(3)]);
    assert!(stream.cancel(2));
    assert_eq!([create(0), create(-7), create(2), create(0)], [Ok(4), Ok(-7), Ok(2), Ok(5)]);
    assert_eq!(server.open().create(&with_id(0)), Ok(0), "ids belong to their stream");
}

#[test]
fn a_refused_creation_gets_one_answer_and_the_stream_lives_on() {
    let server = Server::new();
    let stream = server.open();
    let same = WatchCreateRequest { watch_id: 5, ..watch_key("a") };
    assert_eq!(stream.create(&same), Ok(5));
    assert_eq!(stream.create(&same), Err(Refusal::DuplicateId));
    assert_eq!(stream.create(&watch_range("b", "b")), Err(Refusal::EmptyRange));
    assert_eq!(stream.create(&watch_range("b", "a")), Err(Refusal::EmptyRange));
    assert_eq!(stream.create(&from(-1, watch_key("a"))), Err(Refusal::Compacted));
    stream.refuse("rpc error: code = PermissionDenied desc = etcdserver: permission denied");
    server.put("a", "1");
    assert_eq!(
        lines(&stream),
        [
            "5@1 created",
            "-1@1 created canceled 'mvcc: duplicate watch ID provided on the WatchStream'",
            "-1@1 created canceled 'mvcc: watcher range is empty'",
            "-1@1 created canceled 'mvcc: watcher range is empty'",
            "-1@1 created canceled 'etcdserver: mvcc: required revision has been compacted'",
            "-1@1 created canceled 'rpc error: code = PermissionDenied desc = etcdserver: permission denied'",
            "5@2 +a=1:2",
        ]
    );
}

#[test]
fn an_empty_key_is_the_key_of_one_zero_byte_and_a_zero_end_is_open() {
    let server = Server::new();
    let check = |key: &str, end: &str, expected: &[&str]| {
        let stream = server.open();
        stream.create(&watch_range(key, end)).expect("created");
        let records = server.past.commit(&ops("\0=0 a=1 b=2 c=3"));
        server.hub.notify(&records, &*server.past).expect("readable").wake_all();
        let seen = drain(&stream).pop().expect("an answer").events;
        let keys: Vec<_> = seen.iter().map(|event| event.kv.clone().expect("kv").key).collect();
        assert_eq!(keys, expected, "{key:?} to {end:?}");
    };
    check("", "", &["\0"]);
    check("", "\0", &["\0", "a", "b", "c"]);
    check("\0", "\0", &["\0", "a", "b", "c"]);
    check("b", "\0", &["b", "c"]);
    check("", "b", &["\0", "a"]);
    check("a", "c", &["a", "b"]);
    check("b", "", &["b"]);
}

#[test]
fn without_a_start_revision_a_watch_begins_now() {
    let mut server = Server::new();
    server.put("a", "old");
    let stream = server.open();
    stream.create(&watch_key("a")).expect("created");
    server.catch_up();
    server.put("b", "other");
    server.put("a", "new");
    assert_eq!(lines(&stream), ["0@2 created", "0@4 +a=new:4"]);
}

/// etcd issue 20221.
#[test]
fn a_watch_of_the_future_is_silent_until_its_revision() {
    let mut server = Server::new();
    let stream = server.open();
    let request = WatchCreateRequest { progress_notify: true, ..watch_key("a") };
    stream.create(&from(4, request)).expect("created");
    for value in ["2", "3"] {
        server.put("a", value);
        stream.progress();
        stream.progress_tick();
        server.catch_up();
    }
    assert_eq!(lines(&stream), ["0@1 created"]);
    server.put("a", "4");
    server.put("a", "5");
    assert_eq!(lines(&stream), ["0@4 +a=4:4", "0@5 +a=5:5"]);
}

#[test]
fn the_next_revision_is_the_future_until_any_key_makes_it() {
    let server = Server::new();
    let stream = server.open();
    let request = WatchCreateRequest { progress_notify: true, ..watch_key("a") };
    stream.create(&from(2, request)).expect("created");
    stream.progress();
    stream.progress_tick();
    assert_eq!(lines(&stream), ["0@1 created"]);
    server.put("b", "1");
    stream.progress();
    stream.progress_tick();
    assert_eq!(lines(&stream), ["-1@2", "0@2"]);
}

#[test]
fn a_watch_below_the_compacted_revision_is_created_then_canceled_and_keeps_its_id() {
    let server = Server::new();
    for value in ["2", "3", "4"] {
        server.put("a", value);
    }
    server.compact(3);
    let stream = server.open();
    let request = WatchCreateRequest { watch_id: 9, ..from(2, watch_key("a")) };
    assert_eq!(stream.create(&request), Ok(9));
    assert_eq!(stream.create(&request), Err(Refusal::DuplicateId));
    stream.progress();
    assert!(stream.cancel(9));
    assert!(!stream.cancel(9));
    assert_eq!(stream.create(&from(4, request)), Ok(9));
    assert_eq!(
        lines(&stream),
        [
            "9@4 created",
            "9@0 canceled compacted=3",
            "-1@4 created canceled 'mvcc: duplicate watch ID provided on the WatchStream'",
            "9@4 canceled",
            "9@4 created",
        ]
    );
}

#[test]
fn a_watch_from_exactly_the_compacted_revision_works() {
    let mut server = Server::new();
    for value in ["2", "3", "4"] {
        server.put("a", value);
    }
    server.compact(3);
    let stream = server.open();
    stream.create(&from(3, watch_key("a"))).expect("created");
    server.catch_up();
    assert_eq!(lines(&stream), ["0@4 created", "0@4 +a=3:3 +a=4:4"]);
}

/// etcd issues 18089 and 19179.
#[test]
fn a_delete_at_the_very_revision_of_the_compaction_is_delivered() {
    let mut server = Server::new();
    server.put("a", "2");
    let late = server.open();
    late.create(&from(3, watch_key("a"))).expect("created");
    let slow = server.open_with(1);
    slow.create(&watch_key("a")).expect("created");
    let deleted = server.delete("a");
    server.compact(deleted);
    let new = server.open();
    new.create(&from(deleted, watch_range("a", "b"))).expect("created");
    server.catch_up();
    assert_eq!(lines(&late), ["0@2 created", "0@3 -a:3"]);
    assert_eq!(lines(&slow), ["0@2 created"]);
    server.catch_up();
    assert_eq!(lines(&slow), ["0@3 -a:3"]);
    assert_eq!(lines(&new), ["0@3 created", "0@3 -a:3"]);
}

#[test]
fn cancel_is_answered_without_a_reason_and_an_unknown_id_not_at_all() {
    let server = Server::new();
    let stream = server.open();
    stream.create(&watch_key("a")).expect("created");
    server.put("a", "1");
    assert!(!stream.cancel(1));
    assert!(stream.cancel(0));
    server.put("a", "2");
    assert_eq!(lines(&stream), ["0@1 created", "0@2 +a=1:2", "0@2 canceled"]);
    assert_eq!(server.hub.counters().watchers, 0);
}

#[test]
fn prev_kv_is_the_value_one_revision_earlier_and_absent_on_create() {
    let mut server = Server::new();
    let live = server.open();
    let request = WatchCreateRequest { prev_kv: true, ..watch_range("a", "b") };
    live.create(&request).expect("created");
    server.put("a", "2");
    server.put("a", "3");
    server.write(&ops("a=4 a"));
    server.put("a", "5");
    server.write(&ops("a a=6"));
    let late = server.open();
    late.create(&from(2, request)).expect("created");
    server.catch_up();
    let events = ["+a=2:2", "+a=3:3<2", "+a=4:4<3 -a:4<3", "+a=5:5", "-a:6<5 +a=6:6"];
    let live_lines: Vec<String> = lines(&live).split_off(1);
    let expected: Vec<String> =
        events.iter().zip(2..).map(|(text, revision)| format!("0@{revision} {text}")).collect();
    assert_eq!(live_lines, expected);
    assert_eq!(lines(&late), ["0@6 created".to_owned(), format!("0@6 {}", events.join(" "))]);
}

#[test]
fn prev_kv_is_silently_absent_when_compacted() {
    let mut server = Server::new();
    server.put("a", "2");
    server.put("a", "3");
    server.compact(3);
    let stream = server.open();
    stream
        .create(&WatchCreateRequest { prev_kv: true, ..from(3, watch_key("a")) })
        .expect("created");
    server.catch_up();
    assert_eq!(lines(&stream), ["0@3 created", "0@3 +a=3:3"]);
}

#[test]
fn the_events_of_one_revision_come_in_one_answer_in_the_order_of_execution() {
    let server = Server::new();
    let stream = server.open();
    for request in [watch_range("a", "c"), watch_key("b"), watch_range("b", "z")] {
        stream.create(&request).expect("created");
    }
    drain(&stream);
    server.write(&ops("b=1 c=2 a=3 x=4 b"));
    server.write(&ops("a=5"));
    let mut seen = lines(&stream);
    seen.sort();
    let expected = [
        "0@2 +b=1:2 +a=3:2 -b:2",
        "0@3 +a=5:3",
        "1@2 +b=1:2 -b:2",
        "2@2 +b=1:2 +c=2:2 +x=4:2 -b:2",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_batch_of_revisions_gives_one_live_answer_each() {
    let server = Server::new();
    let stream = server.open();
    stream.create(&watch_key("a")).expect("created");
    let mut batch = server.past.commit(&ops("a=2"));
    batch.extend(server.past.commit(&ops("a=3 b=3")));
    batch.extend(server.past.commit(&ops("a")));
    server.hub.notify(&batch, &*server.past).expect("readable").wake_all();
    assert_eq!(lines(&stream), ["0@1 created", "0@2 +a=2:2", "0@3 +a=3:3", "0@4 -a:4"]);
}

#[test]
fn catching_up_gives_a_thousand_revisions_an_answer_at_the_current_revision() {
    let mut server = Server::new();
    for value in 0..1500 {
        server.write(&ops(&format!("a={value} b={value}")));
    }
    let stream = server.open();
    stream.create(&from(2, watch_range("a", "c"))).expect("created");
    server.catch_up();
    let answers = drain(&stream);
    let sizes: Vec<usize> = answers.iter().map(|answer| answer.events.len()).collect();
    assert_eq!(sizes, [0, 2000, 1000]);
    let revisions = answers.iter().map(|answer| answer.header.expect("header").revision);
    assert!(revisions.eq([1501, 1501, 1501]));
}

#[test]
fn filters_hide_their_kind_of_event_and_an_unknown_one_nothing() {
    let mut server = Server::new();
    let check = |server: &mut Server, filters: &[i32], expected: &[&str]| {
        let request = WatchCreateRequest { filters: filters.to_vec(), ..watch_key("a") };
        let (live, late) = (server.open(), server.open());
        live.create(&request).expect("created");
        let first = server.put("a", "x");
        let second = server.write(&ops("a=y a"));
        late.create(&from(first, request)).expect("created");
        server.catch_up();
        for stream in [live, late] {
            let events = drain(&stream).into_iter().flat_map(|answer| answer.events);
            let name = |revision| if revision == first { "first" } else { "second" };
            let seen: Vec<String> = events
                .map(|event| {
                    let kind = if event.r#type == 0 { "put" } else { "delete" };
                    format!("{kind} {}", name(event.kv.expect("kv").mod_revision))
                })
                .collect();
            assert_eq!(seen, expected, "{filters:?}");
        }
        assert_eq!(second, first + 1);
    };
    check(&mut server, &[], &["put first", "put second", "delete second"]);
    check(&mut server, &[0], &["delete second"]);
    check(&mut server, &[1], &["put first", "put second"]);
    check(&mut server, &[0, 1], &[]);
    check(&mut server, &[7], &["put first", "put second", "delete second"]);
}

#[test]
fn fragments_are_below_the_limit_and_all_but_the_last_say_that_more_follows() {
    let server = Server::new();
    let limits = Limits { outbox_bytes: 1 << 20, fragment_bytes: 70, group: 0 };
    let (whole, cut) = (server.hub.open_stream(limits), server.hub.open_stream(limits));
    let request = watch_range("a", "z");
    whole.create(&request).expect("created");
    cut.create(&WatchCreateRequest { fragment: true, ..request }).expect("created");
    server.write(&ops(&format!("a=1 b={} c=3 d=4 e=5 f=6", "long".repeat(50))));
    server.put("a", &"long".repeat(50));
    let whole: Vec<_> = drain(&whole).split_off(1);
    let cut: Vec<_> = drain(&cut).split_off(1);
    assert_eq!(whole.len(), 2, "without the wish for fragments an answer has any size");
    let sizes: Vec<usize> = cut.iter().map(|answer| answer.events.len()).collect();
    assert_eq!(sizes, [1, 1, 3, 1, 1], "a single event is never cut");
    assert!(cut.iter().all(|answer| answer.events.len() == 1 || answer.encoded_len() < 70));
    let flags: Vec<bool> = cut.iter().map(|answer| answer.fragment).collect();
    assert_eq!(flags, [true, true, true, false, false]);
    let events = |answers: Vec<WatchResponse>| -> Vec<mvccpb::Event> {
        answers.into_iter().flat_map(|answer| answer.events).collect()
    };
    assert_eq!(events(cut), events(whole));
}

#[test]
fn a_progress_tick_tells_watchers_that_asked_and_skips_one_after_an_event() {
    let server = Server::new();
    let stream = server.open();
    let asks = WatchCreateRequest { progress_notify: true, ..watch_key("a") };
    stream.create(&asks).expect("created");
    stream.create(&watch_key("a")).expect("created");
    stream.create(&WatchCreateRequest { key: "b".into(), ..asks }).expect("created");
    drain(&stream);
    stream.progress_tick();
    assert_eq!(lines(&stream), ["0@1", "2@1"]);
    server.put("a", "1");
    drain(&stream);
    stream.progress_tick();
    assert_eq!(lines(&stream), ["2@2"]);
    stream.progress_tick();
    assert_eq!(lines(&stream), ["0@2", "2@2"]);
}

#[test]
fn a_progress_tick_leaves_out_watchers_that_are_not_in_sync() {
    let mut server = Server::new();
    server.put("a", "2");
    let stream = server.open();
    let asks = WatchCreateRequest { progress_notify: true, ..watch_key("b") };
    stream.create(&from(2, asks)).expect("created");
    drain(&stream);
    stream.progress_tick();
    assert!(lines(&stream).is_empty());
    server.catch_up();
    stream.progress_tick();
    assert_eq!(lines(&stream), ["0@2"]);
}

#[test]
fn a_progress_request_is_answered_once_if_all_watchers_are_in_sync() {
    let mut server = Server::new();
    let stream = server.open();
    stream.progress();
    assert!(lines(&stream).is_empty(), "no watcher, no answer");
    stream.create(&watch_key("a")).expect("created");
    stream.create(&watch_key("b")).expect("created");
    stream.progress();
    assert_eq!(lines(&stream), ["0@1 created", "1@1 created", "-1@1"]);
    server.put("c", "2");
    stream.create(&from(2, watch_key("c"))).expect("created");
    stream.progress();
    assert_eq!(lines(&stream), ["2@2 created"], "one is not in sync");
    server.catch_up();
    stream.progress();
    assert_eq!(lines(&stream), ["2@2 +c=2:2", "-1@2"]);
    stream.create(&from(9, watch_key("d"))).expect("created");
    stream.progress();
    assert_eq!(lines(&stream), ["3@2 created"], "one waits for the future");
    stream.cancel(3);
    stream.progress();
    assert_eq!(lines(&stream), ["3@2 canceled", "-1@2"]);
}

/// As etcd does: the id that a compaction canceled stays among the stream's watchers.
#[test]
fn a_progress_request_is_not_answered_while_an_id_canceled_by_compaction_is_taken() {
    let server = Server::new();
    server.put("a", "2");
    server.put("a", "3");
    server.compact(3);
    let stream = server.open();
    stream.create(&watch_key("a")).expect("created");
    stream.create(&from(2, watch_key("a"))).expect("created");
    drain(&stream);
    stream.progress();
    assert!(lines(&stream).is_empty());
    stream.cancel(1);
    stream.progress();
    assert_eq!(lines(&stream), ["1@3 canceled", "-1@3"]);
}

/// etcd issue 15220.
#[test]
fn progress_stands_behind_the_events_it_vouches_for() {
    let server = Server::new();
    let stream = server.open();
    stream
        .create(&WatchCreateRequest { progress_notify: true, ..watch_key("a") })
        .expect("created");
    stream.create(&watch_key("b")).expect("created");
    server.put("a", "2");
    stream.progress();
    server.put("b", "3");
    stream.progress_tick();
    stream.progress_tick();
    let seen = lines(&stream).split_off(2);
    assert_eq!(seen, ["0@2 +a=2:2", "-1@2", "1@3 +b=3:3", "0@3"]);
}

#[test]
fn the_counters_follow_streams_watchers_and_events() {
    let mut server = Server::new();
    let stream = server.open();
    stream.create(&watch_key("a")).expect("created");
    stream.create(&watch_key("a")).expect("created");
    server.put("a", "2");
    stream.create(&from(2, watch_key("a"))).expect("created");
    let counters = server.hub.counters();
    assert_eq!((counters.streams, counters.watchers, counters.slow_watchers), (1, 3, 1));
    assert_eq!((counters.pending_events, counters.events_total), (2, 0));
    let cx = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        assert!(stream.poll_replies(&cx, &HEADER, 1, &mut Vec::new()).is_ready());
    }
    let counters = server.hub.counters();
    assert_eq!((counters.pending_events, counters.events_total), (1, 1), "two created, one event");
    server.catch_up();
    drain(&stream);
    let counters = server.hub.counters();
    assert_eq!((counters.slow_watchers, counters.pending_events, counters.events_total), (0, 0, 3));
    drop(stream);
    let counters = server.hub.counters();
    assert_eq!((counters.streams, counters.watchers, counters.events_total), (0, 0, 3));
}
