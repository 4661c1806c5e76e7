//! Single behaviours that a random history says too little about.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use etched_proto::etcdserverpb::request_op::Request;
use etched_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest,
};
use etched_proto::mvccpb::KeyValue;
use etched_proto::raw::Wire;
use prost::Message as _;

use super::fake::Rig;
use super::replay::decoded;
use crate::{
    Answer, CompactState, Error, KvHash, RangeAnswer, Reader, Record, RecordsError, Revision, Store,
};

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

fn everything() -> RangeRequest {
    let (key, range_end) = (Bytes::from_static(&[0]), Bytes::from_static(&[0]));
    RangeRequest { key, range_end, ..RangeRequest::default() }
}

fn range(reader: &Reader, request: &RangeRequest) -> Vec<KeyValue> {
    decoded::<RangeResponse>(&reader.range(request).unwrap().0).kvs
}

impl Rig {
    fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.store.put(&put(key, value), &mut self.leases, Answer::Wanted).unwrap();
    }

    fn delete(&mut self, key: &'static str) {
        let request = DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() };
        self.store.delete_range(&request, &mut self.leases, Answer::Wanted).unwrap();
    }

    /// Compacts with all that follows.
    fn compact(&mut self, revision: i64) {
        self.store.compact(revision).unwrap().run(&|| true).unwrap();
        while self.sweep(3).is_some() {}
        self.remove(usize::MAX);
    }

    fn txn(&mut self, requests: Vec<Request>) -> Result<(), Error> {
        let success =
            requests.into_iter().map(|request| RequestOp { request: Some(request) }).collect();
        let request = TxnRequest { success, ..TxnRequest::default() };
        self.store.txn(&request, &mut self.leases, Answer::Wanted).map(|_| ())
    }
}

#[test]
fn readers_see_whole_transactions_while_the_writer_goes_on() {
    let mut rig = Rig::new();
    let (reader, done) = (rig.store.reader(), AtomicBool::new(false));
    let keys: Vec<String> = (0..20).map(|nth| format!("{nth:02}")).collect();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut newest = 0;
                    while !done.load(Ordering::Acquire) || newest == 0 {
                        let kvs = range(&reader, &everything());
                        let revisions: Vec<i64> = kvs.iter().map(|kv| kv.mod_revision).collect();
                        assert!(revisions.windows(2).all(|pair| pair[0] == pair[1]));
                        assert!(revisions.is_empty() || revisions.len() == keys.len());
                        let seen = revisions.first().copied().unwrap_or(0);
                        assert!(seen >= newest, "a reader does not go back");
                        newest = seen;
                    }
                })
            })
            .collect();
        for round in 0..300 {
            let puts = keys.iter().map(|key| put(key.clone(), format!("{round}")));
            rig.txn(puts.map(Request::RequestPut).collect()).unwrap();
            rig.flush(round % 9);
            if round % 50 == 0 {
                let job = rig.store.compact(rig.store.current_revision() - 1);
                drop(job);
            }
            if let Some(sweep) = rig.sweep(7) {
                assert!(sweep.finished.is_some() || !sweep.dropped.is_empty());
            }
            rig.remove(usize::MAX);
        }
        done.store(true, Ordering::Release);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
fn sweeping_waits_for_a_reader_below_the_floor_and_for_the_hash() {
    let mut rig = Rig::new();
    for value in ["1", "2", "3"] {
        rig.put("k", value);
    }
    let reader = rig.store.reader();
    let mut seen = 0;
    let job = rig.store.compact(4).unwrap();
    assert_eq!(rig.store.sweep(100), None, "the hash is still to be computed");
    assert!(job.run(&|| true).unwrap().is_some());
    reader
        .events(4, 5, &mut |_, _| {
            seen += 1;
            let sweep = rig.store.sweep(100).expect("a reader at the floor needs nothing below");
            assert_eq!(sweep.dropped, [Revision::start_of(2), Revision::start_of(3)]);
            ControlFlow::Continue(())
        })
        .unwrap();
    rig.put("k", "4");
    reader
        .events(4, 6, &mut |_, _| {
            if seen == 1 {
                drop(rig.store.compact(5).unwrap());
            }
            seen += 1;
            assert_eq!(rig.store.sweep(100), None, "the scan may still need revision 4");
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, 3);
    assert_eq!(rig.store.sweep(100).unwrap().dropped, [Revision::start_of(4)]);
}

#[test]
fn every_prefix_of_what_is_dropped_leaves_the_same_keys() {
    let mut rig = Rig::new();
    for round in 0..3 {
        for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            rig.put(key, format!("{round}"));
        }
    }
    for key in ["a", "c", "h"] {
        rig.delete(key);
    }
    rig.put("a", "again");
    drop(rig.store.compact(rig.store.current_revision()).unwrap());
    let expected = range(&rig.store.reader(), &everything());
    rig.flush(8);
    while rig.sweep(1).is_some() {}
    let compact = CompactState { scheduled: Some(rig.store.compact_revision()), finished: None };
    for removed in 0.. {
        let records = Arc::clone(&rig.records) as _;
        let (store, _) = Store::open(records, compact).unwrap();
        assert_eq!(range(&store.reader(), &everything()), expected, "{removed} removed");
        let rows = rig.records.rows.lock().len();
        rig.remove(1);
        if rig.records.rows.lock().len() == rows {
            assert!(removed > 10);
            break;
        }
    }
}

#[test]
fn a_raised_revision_is_hashed_and_seen_by_nobody() {
    let mut rig = Rig::new();
    rig.put("a", "1");
    rig.put("a", "2");
    rig.flush(8);
    let raised = Record { tombstone: false, bytes: Bytes::new() };
    rig.records.rows.lock().insert(Revision::start_of(103), raised);
    rig.compact = CompactState { scheduled: Some(103), finished: None };
    rig.reopen();
    let reader = rig.store.reader();
    assert_eq!((rig.store.current_revision(), rig.store.compact_revision()), (103, 103));
    assert_eq!(range(&reader, &everything()).len(), 1);
    let before = reader.hash_kv(0).unwrap();
    while rig.sweep(3).is_some() {}
    rig.remove(usize::MAX);
    assert_eq!(reader.hash_kv(0).unwrap(), before);
    assert!(rig.records.rows.lock().contains_key(&Revision::start_of(103)));
    rig.put("b", "3");
    assert_eq!(rig.store.current_revision(), 104);
    assert_eq!(range(&reader, &everything()).len(), 2);
}

#[test]
fn key_deleted_and_put_again_in_the_compacted_revision_stays() {
    // etcd takes the deletion for the end of the key, removes the put, and exits at the next read of it.
    let mut rig = Rig::new();
    rig.put("a", "1");
    let delete = DeleteRangeRequest { key: "a".into(), range_end: vec![0].into(), prev_kv: false };
    rig.txn(vec![Request::RequestDeleteRange(delete), Request::RequestPut(put("a", "2"))]).unwrap();
    drop(rig.store.compact(3).unwrap());
    while rig.sweep(10).is_some() {}
    rig.remove(usize::MAX);
    rig.reopen();
    let kvs = range(&rig.store.reader(), &everything());
    assert_eq!((kvs.len(), &kvs[0].value[..]), (1, &b"2"[..]));
}

#[test]
fn write_that_nobody_waits_for_reads_no_old_record() {
    let mut rig = Rig::new();
    rig.put("k", "1");
    rig.flush(8);
    *rig.records.broken.lock() = true;
    let request = PutRequest { prev_kv: true, ..put("k", "2") };
    let unwanted = rig.store.put(&request, &mut rig.leases, Answer::Unwanted);
    assert_eq!(unwanted.unwrap().prev_kv, None);
    rig.flush(8);
    let wanted = rig.store.put(&request, &mut rig.leases, Answer::Wanted);
    assert_eq!(wanted, Err(Error::Records(RecordsError("broken".to_owned()))));
}

#[test]
fn storage_that_cannot_be_read_is_an_error_and_no_shorter_answer() {
    let mut rig = Rig::new();
    rig.put("a", "1");
    rig.flush(8);
    rig.put("b", "2");
    *rig.records.broken.lock() = true;
    let reader = rig.store.reader();
    let broken = Error::Records(RecordsError("broken".to_owned()));
    assert_eq!(reader.range(&everything()), Err(broken.clone()));
    assert_eq!(reader.hash_kv(0), Err(broken.clone()));
    assert_eq!(reader.events(0, 9, &mut |_, _| ControlFlow::Continue(())), Err(broken.clone()));
    let records = Arc::clone(&rig.records) as _;
    assert_eq!(Store::open(records, CompactState::default()).err(), Some(broken));
    let keys_only = RangeRequest { keys_only: true, ..everything() };
    assert_eq!(range(&reader, &keys_only).len(), 2, "the index alone answers this");
}

#[test]
#[should_panic(
    expected = "record 2/0 is named by the key index but neither in memory nor in storage"
)]
fn record_that_is_lost_stops_the_process() {
    let mut rig = Rig::new();
    rig.put("k", "v");
    rig.flush(8);
    rig.records.rows.lock().clear();
    let _ = rig.store.reader().range(&everything());
}

#[test]
fn bytes_that_are_no_record_are_told_at_start() {
    let rig = Rig::new();
    let record = Record { tombstone: false, bytes: Bytes::from_static(b"\xff\xff") };
    rig.records.rows.lock().insert(Revision::start_of(2), record);
    let error = Store::open(Arc::clone(&rig.records) as _, CompactState::default()).err();
    let text = "record 2/0 is not an encoded mvccpb.KeyValue".to_owned();
    assert_eq!(error, Some(Error::Records(RecordsError(text))));
}

/// What a start says of a store with one record.
fn said_of(revision: Revision, kv: &KeyValue) -> String {
    let rig = Rig::new();
    let record = Record { tombstone: false, bytes: kv.encode_to_vec().into() };
    rig.records.rows.lock().insert(revision, record);
    match Store::open(Arc::clone(&rig.records) as _, CompactState::default()) {
        Ok((store, _)) => format!("opened at {}", store.current_revision()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn records_that_no_write_makes_are_told_at_start() {
    let put = |create_revision, mod_revision, version| KeyValue {
        key: "k".into(),
        create_revision,
        mod_revision,
        version,
        ..KeyValue::default()
    };
    let five = Revision::start_of(5);
    assert_eq!(said_of(five, &put(3, 5, 2)), "opened at 5");
    assert_eq!(said_of(five, &put(3, 5, 0)), "record 5/0 is a put without a version");
    assert_eq!(said_of(five, &put(3, 5, -1)), "record 5/0 is a put without a version");
    assert_eq!(said_of(five, &put(3, 6, 1)), "record 5/0 says it is of revision 6");
    for (created, version) in [(0, 1), (-1, 1), (6, 1), (3, i64::MAX)] {
        let text = format!("began at revision {created} and has version {version}");
        assert!(said_of(five, &put(created, 5, version)).ends_with(&text));
    }
    let last = Revision { main: Revision::MAIN_MAX, sub: Revision::SUB_MAX };
    let reached = format!("opened at {}", last.main);
    assert_eq!(said_of(last, &put(1, last.main, Revision::MAIN_MAX)), reached);
    for beyond in [
        Revision { main: last.main, sub: last.sub + 1 },
        Revision { main: 2, sub: i64::MAX - 1 },
        Revision { main: last.main + 1, sub: 0 },
        Revision { main: i64::MAX - 1, sub: 0 },
    ] {
        let said = said_of(beyond, &put(1, beyond.main, 1));
        assert!(said.ends_with("has a revision that no store reaches"), "{beyond:?}: {said}");
    }
}

#[test]
fn a_compaction_at_a_revision_that_no_store_reaches_is_told_at_start() {
    for floor in [Revision::MAIN_MAX + 1, i64::MAX] {
        for (scheduled, finished) in [(Some(floor), None), (Some(3), Some(floor))] {
            let compact = CompactState { scheduled, finished };
            let error = Store::open(Arc::clone(&Rig::new().records) as _, compact).err();
            let error = error.expect("it is refused").to_string();
            assert!(error.contains(&floor.to_string()), "{error}");
        }
    }
}

#[test]
fn revision_is_never_below_a_compaction_that_was_scheduled() {
    // Every record up to it may be gone: the last write was a deletion that is compacted.
    let rig = Rig::new();
    let compact = CompactState { scheduled: Some(9), finished: Some(4) };
    let (mut store, _) = Store::open(Arc::clone(&rig.records) as _, compact).unwrap();
    assert_eq!((store.current_revision(), store.compact_revision()), (9, 9));
    assert_eq!(store.sweep(10).unwrap().finished, Some(9), "it is taken up again");
    assert_eq!(store.sweep(10), None);
}

#[test]
fn stream_sizes_its_chunks_as_etcd() {
    let mut rig = Rig::new();
    for nth in 0..100 {
        rig.put(format!("{nth:03}"), vec![b'v'; 100]);
    }
    let sizes = |target: usize| {
        let mut stream = rig.store.reader().range_stream(&everything(), target).unwrap();
        let mut sizes = Vec::new();
        while let Some(chunk) = stream.next_chunk().unwrap() {
            sizes.push((chunk.reply.kvs.len(), chunk.reply.wire_len()));
        }
        sizes.into_iter().map(|(keys, _)| keys).collect::<Vec<_>>()
    };
    // A record takes about 120 bytes.
    assert_eq!(sizes(1 << 20), [10, 20, 40, 30], "doubled while below half of it");
    assert_eq!(sizes(1200), [10; 10], "kept while near");
    assert_eq!(sizes(500)[..3], [10, 5, 5], "halved above twice of it");
    assert!(sizes(0).iter().skip(1).all(|keys| *keys <= 2), "never without a key");
}

#[test]
fn stream_ends_when_its_revision_is_compacted() {
    let mut rig = Rig::new();
    for nth in 0..30 {
        rig.put(format!("{nth:02}"), "v");
    }
    let mut stream = rig.store.reader().range_stream(&everything(), 1 << 20).unwrap();
    assert_eq!(stream.next_chunk().unwrap().unwrap().reply.kvs.len(), 10);
    rig.put("a later write", "is not part of it");
    drop(rig.store.compact(31).unwrap());
    assert_eq!(stream.next_chunk().unwrap().unwrap().reply.kvs.len(), 20);
    let mut stream = rig.store.reader().range_stream(&everything(), 1 << 20).unwrap();
    assert!(stream.next_chunk().unwrap().is_some());
    rig.put("k", "v");
    drop(rig.store.compact(33).unwrap());
    assert_eq!(stream.next_chunk(), Err(Error::Compacted));
}

#[test]
fn refused_transaction_changes_nothing() {
    let mut rig = Rig::new();
    rig.leases.granted.insert(1);
    rig.store
        .put(&PutRequest { lease: 1, ..put("k", "v") }, &mut rig.leases, Answer::Wanted)
        .unwrap();
    let kept = PutRequest { ignore_value: true, ..put("k", "") };
    let delete = DeleteRangeRequest { key: "k".into(), ..DeleteRangeRequest::default() };
    let reply = rig.txn(vec![
        Request::RequestPut(put("before", "x")),
        Request::RequestDeleteRange(delete),
        Request::RequestPut(kept),
    ]);
    assert_eq!(reply, Err(Error::KeptKeyDeleted));
    assert_eq!(rig.store.current_revision(), 2);
    assert_eq!(rig.leases.attached.len(), 1);
    assert_eq!(range(&rig.store.reader(), &everything()).len(), 1);
}

#[test]
fn changes_and_events_are_handed_out_once_and_in_order() {
    let mut rig = Rig::new();
    rig.put("a", "1");
    rig.put("b", "2");
    let named = |records: &[(Revision, Record)]| -> Vec<i64> {
        records.iter().map(|(revision, _)| revision.main).collect()
    };
    assert_eq!(named(&rig.store.take_events()), [2, 3]);
    rig.put("c", "3");
    assert_eq!(named(&rig.store.take_changes().records), [2, 3, 4]);
    assert_eq!(named(&rig.store.take_events()), [4]);
    drop(rig.store.compact(3).unwrap());
    let changes = rig.store.take_changes();
    assert_eq!((changes.records.len(), changes.scheduled), (0, Some(3)));
    assert_eq!(rig.store.take_changes().scheduled, None);
    let bytes = rig.store.memory_bytes();
    rig.store.flushed(Revision::start_of(3));
    assert!(rig.store.memory_bytes() < bytes);
    rig.store.flushed(Revision::start_of(4));
    assert_eq!(rig.store.memory_bytes(), 0);
}

#[test]
fn hashes_around_odd_compactions_are_those_of_etcd() {
    // Asked of an etcd 3.7.1, step by step.
    let hash = |rig: &Rig, revision| rig.store.reader().hash_kv(revision).unwrap().0;
    let expect = |hash, compact_revision, revision| KvHash { hash, compact_revision, revision };
    let mut rig = Rig::new();
    rig.compact(0);
    assert_eq!(hash(&rig, 0), expect(1_084_519_789, -1, 0), "the one kept of compaction 0");
    rig.put("a", "1");
    assert_eq!(hash(&rig, 0), expect(1_084_519_789, -1, 0), "not that of the current revision");
    assert_eq!(hash(&rig, 2), expect(2_587_454_935, 0, 2));
    let now = rig.store.reader().hash_now(&|| true);
    assert_eq!(now, Ok(Some(expect(2_587_454_935, 0, 2))), "no check compares what is kept");
    rig.compact(2);
    assert_eq!(hash(&rig, 2), expect(2_587_454_935, 0, 2));
    rig.delete("a");
    assert_eq!(
        hash(&rig, 3),
        expect(3_520_211_144, 2, 3),
        "nothing exists, so nothing is filtered"
    );
    rig.compact(3);
    assert_eq!(hash(&rig, 3), expect(3_681_333_679, 2, 3), "the deletion counts as kept");
    assert_eq!(hash(&rig, 2), expect(2_587_454_935, 0, 2), "kept, although compacted");
    assert_eq!(hash(&rig, -5), expect(1_084_519_789, 3, -5));
    assert_eq!(rig.store.reader().hash_kv(1).err(), Some(Error::Compacted));
    assert_eq!(rig.store.reader().hash_kv(4).err(), Some(Error::FutureRevision));
}

#[test]
fn hash_of_a_compaction_is_not_kept_when_the_one_before_was_interrupted() {
    let mut rig = Rig::new();
    for value in ["1", "2", "3"] {
        rig.put("k", value);
    }
    let first = rig.store.compact(2).unwrap();
    let second = rig.store.compact(3).unwrap();
    assert_eq!(second.run(&|| true), Ok(None));
    assert!(first.run(&|| true).unwrap().is_some(), "nothing before it was left undone");
    let kept = rig.store.reader().compaction_hashes();
    assert_eq!(kept.iter().map(|hash| hash.revision).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_hash_that_is_given_up_is_neither_answered_nor_kept() {
    let mut rig = Rig::new();
    rig.txn((0..3000).map(|nth| Request::RequestPut(put(format!("{nth}"), "v"))).collect())
        .unwrap();
    let reader = rig.store.reader();
    let asked = AtomicUsize::new(0);
    let twice = || asked.fetch_add(1, Ordering::Relaxed) < 2;
    assert_eq!(reader.hash_now(&twice), Ok(None));
    assert_eq!(rig.store.compact(2).unwrap().run(&|| false), Ok(None));
    assert_eq!(reader.compaction_hashes(), []);
    assert!(rig.sweep(1).is_some(), "who was given up is not waited for");
}

#[test]
fn hashes_of_the_ten_newest_compactions_are_kept() {
    let mut rig = Rig::new();
    for revision in 2..20 {
        rig.put("k", "v");
        rig.compact(revision);
    }
    let kept = rig.store.reader().compaction_hashes();
    assert_eq!(
        kept.iter().map(|hash| hash.revision).collect::<Vec<_>>(),
        (10..20).collect::<Vec<_>>()
    );
    assert_eq!(rig.store.reader().hash_kv(9).err(), Some(Error::Compacted));
}

#[test]
fn a_large_answer_keeps_its_revision_readable_until_it_is_unpinned() {
    let mut rig = Rig::new();
    for nth in 0..20 {
        rig.put(format!("k{nth:02}"), "old");
    }
    let at = rig.store.current_revision();
    let (RangeAnswer::Large(mut range), _) = rig.store.reader().answer(&everything(), 0).unwrap()
    else {
        panic!("above no bytes at all")
    };
    for nth in 0..20 {
        rig.put(format!("k{nth:02}"), "new");
    }
    rig.flush(8);
    let whole = range.window(1 << 20, true).unwrap();
    rig.store.compact(at + 20).unwrap().run(&|| true).unwrap();
    assert_eq!(rig.store.sweep(1000), None, "somebody reads below the floor");
    assert_eq!(range.window(1 << 20, true).unwrap(), whole);
    range.unpin();
    assert_eq!(range.window(1 << 20, true), Err(Error::Compacted));
    assert!(rig.store.sweep(1000).is_some());
}
