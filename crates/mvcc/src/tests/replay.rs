//! Random histories on the store and on the model: every answer is the same.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use etched_proto::etcdserverpb::{DeleteRangeResponse, RangeRequest, RangeResponse};
use etched_proto::raw::{RangeReply, Wire};
use proptest::prelude::*;
use prost::Message;

use super::fake::Rig;
use super::model::Model;
use super::requests::{Step, all, beginning, settle, settle_txn, step};
use crate::{Answer, Error, HashJob, KvHash, RangeAnswer, Reader, check};

/// What a reply of ours says, as the generated message.
pub(super) fn decoded<M: Message + Default>(reply: &impl Wire) -> M {
    let mut out = BytesMut::new();
    reply.write(&mut out);
    M::decode(out).expect("a reply is a message")
}

struct Replay {
    rig: Rig,
    model: Model,
    jobs: VecDeque<(HashJob, KvHash, bool)>,
}

impl Replay {
    fn new() -> Self {
        Self { rig: Rig::new(), model: Model::new(), jobs: VecDeque::new() }
    }

    fn step(&mut self, step: &Step) {
        let mut step = step.clone();
        match &mut step {
            Step::Range(range) | Step::Stream(range, _) => settle(range, self.model.current()),
            Step::Txn(txn) => settle_txn(txn, self.model.current()),
            _ => {}
        }
        let (rig, model) = (&mut self.rig, &mut self.model);
        match &step {
            Step::Put(put) => {
                let reply = rig.store.put(put, &mut rig.leases, Answer::Wanted);
                assert_eq!(reply.map(|reply| decoded(&reply)), model.put(put));
            }
            Step::Delete(delete) => {
                let reply = rig.store.delete_range(delete, &mut rig.leases, Answer::Wanted);
                let reply: DeleteRangeResponse = decoded(&reply.unwrap());
                assert_eq!(reply, model.delete_range(delete));
            }
            Step::Txn(txn) => {
                let reader = rig.store.reader();
                let read_only = check::is_read_only(txn).then(|| reader.txn_read_only(txn));
                let reply = rig.store.txn(txn, &mut rig.leases, Answer::Wanted);
                let reply = reply.map(|reply| decoded(&reply));
                assert_eq!(reply, model.txn(txn));
                if let Some(read_only) = read_only {
                    assert_eq!(read_only.map(|(reply, _)| decoded(&reply)), reply);
                }
            }
            Step::Grant(lease) => {
                model.granted.insert(*lease);
                rig.leases.granted.insert(*lease);
            }
            Step::Revoke(lease) => {
                let keys = rig.leases.attached.iter().filter(|(_, id)| *id == lease);
                let mut keys: Vec<Bytes> = keys.map(|(key, _)| key.clone().into()).collect();
                keys.reverse();
                let gone = rig.store.delete_keys(&keys, &mut rig.leases);
                assert_eq!(gone, keys.len() as i64);
                rig.leases.granted.remove(lease);
                model.revoke(*lease);
            }
            Step::Compact(below) => self.compact(*below),
            Step::Hash => self.run_job(),
            Step::Sweep(budget) => {
                rig.sweep(*budget);
            }
            Step::Remove(count) => rig.remove(*count),
            Step::Flush(part) => rig.flush(*part),
            Step::Reopen => {
                self.jobs.clear();
                rig.reopen();
                model.hashes.clear();
            }
            Step::Range(range) => {
                let reply = rig.store.reader().range(range);
                let reply = reply.map(|(reply, current)| {
                    assert_eq!(current, model.current());
                    by_windows(&rig.store.reader(), range, &reply);
                    decoded(&reply)
                });
                assert_eq!(reply, model.range(range));
            }
            Step::Stream(range, bytes) => self.stream(range, *bytes),
            Step::HashKv(below) => {
                let revision = if *below == 39 { 0 } else { model.current() - below };
                let hash = rig.store.reader().hash_kv(revision).map(|(hash, _)| hash);
                assert_eq!(hash, model.hash_kv(revision), "hash at {revision}");
            }
            Step::Events(from, until) => self.events(*from, *until),
        }
    }

    fn compact(&mut self, below: i64) {
        let revision = self.model.current() - below;
        let kept = self.rig.compact;
        let complete = self.rig.store.compaction_is_complete();
        match self.rig.store.compact(revision) {
            Ok(job) => {
                let hash = self.model.compact(revision).expect("the store compacted");
                self.jobs.push_back((job, hash, complete));
            }
            Err(error) => assert_eq!(Err(error), self.model.compact(revision), "{kept:?}"),
        }
    }

    fn run_job(&mut self) {
        if let Some((job, hash, wanted)) = self.jobs.pop_front() {
            assert_eq!(job.run(&|| true).unwrap(), wanted.then_some(hash));
            if wanted {
                self.model.keep_hash(hash);
            }
        }
    }

    fn stream(&mut self, range: &RangeRequest, bytes: usize) {
        if check::range_stream(range).is_err() {
            return;
        }
        let expected = self.model.range(&RangeRequest {
            sort_target: if range.keys_only && range.sort_target == 4 { 4 } else { 0 },
            ..range.clone()
        });
        let ordered = !(range.keys_only && range.sort_target == 4);
        let mut stream = match self.rig.store.reader().range_stream(range, bytes) {
            Ok(stream) => stream,
            Err(error) => return assert_eq!(Err(error), expected),
        };
        let mut sent = RangeResponse::default();
        let mut ended = None;
        while let Some(chunk) = stream.next_chunk().unwrap() {
            assert_eq!(ended, None, "nothing follows the last chunk");
            let reply: RangeResponse = decoded(&chunk.reply);
            assert!(chunk.last.is_some() || (reply.count == 0 && !reply.more));
            assert!(chunk.last.is_some() || !reply.kvs.is_empty(), "progress");
            sent.kvs.extend(reply.kvs);
            (sent.count, sent.more, ended) = (reply.count, reply.more, chunk.last);
        }
        assert_eq!(ended, Some(self.model.current()));
        let mut expected = expected.expect("the stream began");
        if !ordered {
            // The model sorts by value where the stream keeps key order: the same keys when not cut.
            if expected.more {
                return;
            }
            expected.kvs.sort_by(|a, b| a.key.cmp(&b.key));
        }
        assert_eq!(sent, expected);
    }

    fn events(&mut self, from: i64, until: i64) {
        let mut seen = Vec::new();
        let reply = self.rig.store.reader().events(from, until, &mut |revision, record| {
            seen.push((revision, record.tombstone, record.bytes.to_vec()));
            ControlFlow::Continue(())
        });
        if from < self.model.floor {
            return assert_eq!(reply, Err(Error::Compacted));
        }
        reply.unwrap();
        let made =
            self.model.made.iter().filter(|made| (from..until).contains(&made.revision.main));
        let mut made: Vec<_> =
            made.map(|made| (made.revision, made.tombstone, made.bytes.clone())).collect();
        // At the floor itself only each key's last change is kept.
        let floor = self.model.floor;
        let at_floor = seen.iter().filter(|(revision, ..)| revision.main == floor).count();
        if at_floor < made.iter().filter(|(revision, ..)| revision.main == floor).count() {
            made.retain(|(revision, ..)| {
                revision.main != floor || seen.iter().any(|(seen, ..)| seen == revision)
            });
        }
        assert_eq!(seen, made);
    }

    fn check_invariants(&self) {
        let (store, model) = (&self.rig.store, &self.model);
        let reader = store.reader();
        assert_eq!(store.current_revision(), model.current());
        assert_eq!(reader.compact_revision(), model.floor);
        assert_eq!(reader.keys(), model.now().len());
        let leases = model.now().values().filter(|kv| kv.lease != 0);
        let leases = leases.map(|kv| (kv.key.to_vec(), kv.lease)).collect();
        assert_eq!(self.rig.leases.attached, leases);
        for (key, kv) in model.now() {
            let record = reader.kv_at(key, model.current()).unwrap();
            assert_eq!(record, Some(Bytes::from(kv.encode_to_vec())));
        }
    }

    /// Completes the compaction: what storage then holds is exactly what the rule keeps.
    fn settle(&mut self) {
        while !self.jobs.is_empty() {
            self.run_job();
        }
        while self.rig.sweep(2).is_some() {}
        self.rig.remove(usize::MAX);
        assert_eq!(self.rig.compact.scheduled, self.rig.compact.finished);
        let rows: Vec<_> = self.rig.records.rows.lock().keys().copied().collect();
        assert_eq!(rows, self.model.stored_revisions());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn store_answers_as_the_model_that_keeps_every_revision(
        steps in prop::collection::vec(step(), 1..90)
    ) {
        let mut replay = Replay::new();
        for step in beginning().iter().chain(&steps) {
            replay.step(step);
        }
        replay.check_invariants();
        replay.settle();
        replay.check_invariants();
        replay.rig.reopen();
        replay.model.hashes.clear();
        replay.check_invariants();
        for revision in replay.model.floor.max(1)..=replay.model.current() {
            let (key, range_end) = all();
            let range = RangeRequest { key, range_end, revision, ..RangeRequest::default() };
            let reply = replay.rig.store.reader().range(&range).map(|(reply, _)| decoded(&reply));
            prop_assert_eq!(reply, replay.model.range(&range));
            replay.step(&Step::HashKv(replay.model.current() - revision));
        }
    }
}

/// However an answer in key order is cut into windows, it is the plain one to the byte.
fn by_windows(reader: &Reader, request: &RangeRequest, plain: &RangeReply) {
    let mut range = match reader.answer(request, 0).unwrap().0 {
        RangeAnswer::Reply(reply) => return assert_eq!(&reply, plain),
        RangeAnswer::Heavy => return,
        RangeAnswer::Large(range) => range,
    };
    let mut sent = BytesMut::new();
    for bytes_max in [1, 30, 500].into_iter().cycle() {
        if range.is_done() {
            break;
        }
        let window = range.window(bytes_max, true).unwrap().unwrap();
        let again = range.window(bytes_max, false).unwrap();
        assert!(again.is_none_or(|again| again == window), "a window is the same each time");
        window.blocks.iter().for_each(|block| sent.extend_from_slice(block));
        range.pass(&window);
    }
    assert_eq!(sent.len(), range.bytes(), "the length was known before");
    range.head().write(&mut sent);
    let mut expected = BytesMut::new();
    plain.write(&mut expected);
    assert_eq!(sent, expected);
}
