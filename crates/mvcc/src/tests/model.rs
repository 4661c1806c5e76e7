//! What etcd does, written down naively: a map for every revision, and every record ever made.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use etched_proto::etcdserverpb::request_op::Request;
use etched_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
    compare::TargetUnion, response_op::Response,
};
use etched_proto::mvccpb::KeyValue;
use prost::Message;

use crate::{Error, KvHash, Revision};

pub(super) type State = BTreeMap<Vec<u8>, KeyValue>;

#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) revision: Revision,
    pub(super) key: Vec<u8>,
    pub(super) tombstone: bool,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Model {
    /// By main revision; 0 and 1 are empty.
    pub(super) states: Vec<State>,
    pub(super) made: Vec<Made>,
    /// What an etcd whose compactions are complete has in its database.
    stored: Vec<Made>,
    pub(super) floor: i64,
    pub(super) hashes: Vec<KvHash>,
    pub(super) granted: BTreeSet<i64>,
}

/// A revision being made.
struct Run<'m> {
    model: &'m Model,
    state: State,
    made: Vec<Made>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            states: vec![State::new(), State::new()],
            made: Vec::new(),
            stored: Vec::new(),
            floor: -1,
            hashes: Vec::new(),
            granted: BTreeSet::new(),
        }
    }

    pub(super) fn current(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    pub(super) fn now(&self) -> &State {
        &self.states[self.states.len() - 1]
    }

    fn run(&self) -> Run<'_> {
        Run { model: self, state: self.now().clone(), made: Vec::new() }
    }

    fn commit(&mut self, state: State, made: Vec<Made>) {
        if !made.is_empty() {
            self.states.push(state);
            self.stored.extend(made.iter().cloned());
            self.made.extend(made);
        }
    }

    pub(super) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Error> {
        self.check_put(request)?;
        let mut run = self.run();
        let reply = run.put(request)?;
        let (state, made) = (run.state, run.made);
        self.commit(state, made);
        Ok(PutResponse { header: None, ..reply })
    }

    pub(super) fn delete_range(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let mut run = self.run();
        let reply = run.delete_range(request);
        let (state, made) = (run.state, run.made);
        self.commit(state, made);
        DeleteRangeResponse { header: None, ..reply }
    }

    pub(super) fn revoke(&mut self, lease: i64) {
        let keys = self.now().values().filter(|kv| kv.lease == lease).map(|kv| kv.key.clone());
        let keys: Vec<_> = keys.collect();
        let mut run = self.run();
        for key in keys {
            run.delete_range(&DeleteRangeRequest { key, ..DeleteRangeRequest::default() });
        }
        let (state, made) = (run.state, run.made);
        self.commit(state, made);
        self.granted.remove(&lease);
    }

    pub(super) fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        self.check_txn(request)?;
        self.check_panics(request)?;
        let mut run = self.run();
        let reply = run.txn(request)?;
        let (state, made) = (run.state, run.made);
        self.commit(state, made);
        Ok(TxnResponse { header: None, ..reply })
    }

    fn branch<'r>(&self, request: &'r TxnRequest) -> (bool, &'r [RequestOp]) {
        let holds = request.compare.iter().all(|compare| self.compare(compare));
        (holds, if holds { &request.success } else { &request.failure })
    }

    fn check_txn(&self, request: &TxnRequest) -> Result<(), Error> {
        for op in self.branch(request).1 {
            match &op.request {
                Some(Request::RequestRange(range)) => {
                    if range.revision > self.current() {
                        return Err(Error::FutureRevision);
                    }
                    if range.revision != 0 && range.revision < self.floor {
                        return Err(Error::Compacted);
                    }
                }
                Some(Request::RequestPut(put)) => self.check_put(put)?,
                Some(Request::RequestTxn(txn)) => self.check_txn(txn)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn check_panics(&self, request: &TxnRequest) -> Result<(), Error> {
        for op in self.branch(request).1 {
            match &op.request {
                None => return Err(Error::EmptyOperation),
                Some(Request::RequestRange(range)) if !(0..5).contains(&range.sort_target) => {
                    return Err(Error::UnknownSortTarget);
                }
                Some(Request::RequestTxn(txn)) => self.check_panics(txn)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn check_put(&self, put: &PutRequest) -> Result<(), Error> {
        if put.lease != 0 && !self.granted.contains(&put.lease) {
            return Err(Error::LeaseNotFound);
        }
        let keeps = put.ignore_value || put.ignore_lease;
        if keeps && !self.now().contains_key(&put.key[..]) {
            return Err(Error::KeyNotFound);
        }
        Ok(())
    }

    fn compare(&self, compare: &Compare) -> bool {
        let kvs = select(self.now(), &compare.key, &compare.range_end);
        if kvs.is_empty() {
            return compare.target != 3 && compare_kv(compare, &KeyValue::default());
        }
        kvs.iter().all(|kv| compare_kv(compare, kv))
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        if request.revision > self.current() {
            return Err(Error::FutureRevision);
        }
        if request.revision > 0 && request.revision < self.floor {
            return Err(Error::Compacted);
        }
        if !(0..5).contains(&request.sort_target) {
            return Err(Error::UnknownSortTarget);
        }
        Ok(range_in(self.now(), &self.states, request))
    }

    pub(super) fn compact(&mut self, revision: i64) -> Result<KvHash, Error> {
        if revision <= self.floor {
            return Err(Error::Compacted);
        }
        if revision > self.current() {
            return Err(Error::FutureRevision);
        }
        let keep = self.keep(revision, true);
        let hash = self.hash(revision, self.floor, &keep);
        self.stored.retain(|made| made.revision.main > revision || keep.contains(&made.revision));
        self.floor = revision;
        Ok(hash)
    }

    pub(super) fn stored_revisions(&self) -> Vec<Revision> {
        self.stored.iter().map(|made| made.revision).collect()
    }

    pub(super) fn keep_hash(&mut self, hash: KvHash) {
        self.hashes.push(hash);
        self.hashes.sort_by_key(|hash| hash.revision);
        if self.hashes.len() > 10 {
            self.hashes.remove(0);
        }
    }

    pub(super) fn hash_kv(&self, revision: i64) -> Result<KvHash, Error> {
        if let Some(hash) = self.hashes.iter().find(|hash| hash.revision == revision) {
            return Ok(*hash);
        }
        if revision > 0 && revision < self.floor {
            return Err(Error::Compacted);
        }
        if revision > self.current() {
            return Err(Error::FutureRevision);
        }
        let revision = if revision == 0 { self.current() } else { revision };
        Ok(self.hash(revision, self.floor, &self.keep(revision, false)))
    }

    /// The newest stored change of each key up to the revision: a tombstone only at that very revision,
    /// and only when asked for.
    fn keep(&self, revision: i64, tombstones: bool) -> BTreeSet<Revision> {
        let mut newest: BTreeMap<&[u8], &Made> = BTreeMap::new();
        for made in self.stored.iter().filter(|made| made.revision.main <= revision) {
            newest.insert(&made.key, made);
        }
        let kept = newest
            .values()
            .filter(|made| !made.tombstone || (tombstones && made.revision.main == revision));
        kept.map(|made| made.revision).collect()
    }

    fn hash(&self, revision: i64, compacted: i64, keep: &BTreeSet<Revision>) -> KvHash {
        let mut hashed = b"key".to_vec();
        for made in &self.stored {
            let Revision { main, sub } = made.revision;
            let skip = main > revision
                || (main <= compacted && !keep.is_empty() && !keep.contains(&made.revision))
                || (main == compacted && made.tombstone);
            if skip {
                continue;
            }
            hashed.extend(main.to_be_bytes());
            hashed.push(b'_');
            hashed.extend(sub.to_be_bytes());
            hashed.extend(made.tombstone.then_some(b't'));
            hashed.extend(&made.bytes);
        }
        KvHash { hash: crc32c::crc32c(&hashed), compact_revision: compacted, revision }
    }
}

impl Run<'_> {
    fn seen(&self) -> i64 {
        self.model.current() + i64::from(!self.made.is_empty())
    }

    fn make(&mut self, kv: &KeyValue, tombstone: bool) {
        let revision = Revision { main: self.model.current() + 1, sub: self.made.len() as i64 };
        let (key, bytes) = (kv.key.to_vec(), kv.encode_to_vec());
        self.made.push(Made { revision, key, tombstone, bytes });
    }

    fn put(&mut self, put: &PutRequest) -> Result<PutResponse, Error> {
        let prev = self.state.get(&put.key[..]).cloned();
        let kept = match &prev {
            Some(prev) => prev.clone(),
            None if put.ignore_value || put.ignore_lease => return Err(Error::KeptKeyDeleted),
            None => KeyValue::default(),
        };
        let main = self.model.current() + 1;
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: prev.as_ref().map_or(main, |prev| prev.create_revision),
            mod_revision: main,
            version: prev.as_ref().map_or(0, |prev| prev.version) + 1,
            value: if put.ignore_value { kept.value } else { put.value.clone() },
            lease: if put.ignore_lease { kept.lease } else { put.lease },
        };
        self.make(&kv, false);
        self.state.insert(put.key.to_vec(), kv);
        Ok(PutResponse { header: header(main), prev_kv: prev.filter(|_| put.prev_kv) })
    }

    fn delete_range(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let gone = select(&self.state, &delete.key, &delete.range_end);
        for kv in &gone {
            self.make(&KeyValue { key: kv.key.clone(), ..KeyValue::default() }, true);
            self.state.remove(&kv.key[..]);
        }
        DeleteRangeResponse {
            header: header(self.seen()),
            deleted: gone.len() as i64,
            prev_kvs: if delete.prev_kv { gone } else { Vec::new() },
        }
    }

    fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Error> {
        let (succeeded, ops) = self.model.branch(request);
        let mut responses = Vec::new();
        for op in ops {
            let response = match op.request.as_ref().expect("checked") {
                Request::RequestRange(range) => {
                    let reply = range_in(&self.state, &self.model.states, range);
                    let header = header(self.seen());
                    Response::ResponseRange(RangeResponse { header, ..reply })
                }
                Request::RequestPut(put) => Response::ResponsePut(self.put(put)?),
                Request::RequestDeleteRange(delete) => {
                    Response::ResponseDeleteRange(self.delete_range(delete))
                }
                Request::RequestTxn(txn) => Response::ResponseTxn(self.txn(txn)?),
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        Ok(TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses })
    }
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

pub(super) fn select(state: &State, key: &[u8], range_end: &[u8]) -> Vec<KeyValue> {
    let from = Bound::Included(key);
    let until = match range_end {
        [] => return state.get(key).cloned().into_iter().collect(),
        [0] => Bound::Unbounded,
        end if end <= key => return Vec::new(),
        end => Bound::Excluded(end),
    };
    state.range::<[u8], _>((from, until)).map(|(_, kv)| kv.clone()).collect()
}

fn compare_kv(compare: &Compare, kv: &KeyValue) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let number = match compare.target_union {
        Some(TargetUnion::Version(number)) if compare.target == 0 => number,
        Some(TargetUnion::CreateRevision(number)) if compare.target == 1 => number,
        Some(TargetUnion::ModRevision(number)) if compare.target == 2 => number,
        Some(TargetUnion::Lease(number)) if compare.target == 4 => number,
        _ => 0,
    };
    let ordering = match compare.target {
        0 => kv.version.cmp(&number),
        1 => kv.create_revision.cmp(&number),
        2 => kv.mod_revision.cmp(&number),
        3 => match &compare.target_union {
            Some(TargetUnion::Value(value)) => kv.value.cmp(value),
            _ => kv.value.cmp(&bytes::Bytes::new()),
        },
        4 => kv.lease.cmp(&number),
        _ => Equal,
    };
    match compare.result {
        0 => ordering == Equal,
        1 => ordering == Greater,
        2 => ordering == Less,
        3 => ordering != Equal,
        _ => true,
    }
}

/// A range whose revision has been checked; `now` may be inside a transaction.
fn range_in(now: &State, states: &[State], request: &RangeRequest) -> RangeResponse {
    let at = usize::try_from(request.revision).ok().filter(|revision| *revision > 0);
    let state = at.map_or(now, |revision| &states[revision]);
    let mut kvs = select(state, &request.key, &request.range_end);
    let count = kvs.len() as i64;
    if request.count_only {
        return RangeResponse { count, ..RangeResponse::default() };
    }
    let filtered = request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0;
    let by_key = request.sort_order == 0 || (request.sort_order == 1 && request.sort_target == 0);
    if by_key && !filtered && request.limit > 0 {
        kvs.truncate((request.limit as usize).saturating_add(1));
    }
    let above = |bound: i64, revision: i64| bound != 0 && revision > bound;
    let below = |bound: i64, revision: i64| bound != 0 && revision < bound;
    kvs.retain(|kv| {
        !above(request.max_mod_revision, kv.mod_revision)
            && !below(request.min_mod_revision, kv.mod_revision)
            && !above(request.max_create_revision, kv.create_revision)
            && !below(request.min_create_revision, kv.create_revision)
    });
    let order =
        if request.sort_target != 0 { request.sort_order.max(1) } else { request.sort_order };
    if order == 1 || order == 2 {
        kvs.sort_by(|a, b| {
            let ordering = match request.sort_target {
                0 => a.key.cmp(&b.key),
                1 => a.version.cmp(&b.version),
                2 => a.create_revision.cmp(&b.create_revision),
                3 => a.mod_revision.cmp(&b.mod_revision),
                _ => a.value.cmp(&b.value),
            };
            if order == 2 { ordering.reverse() } else { ordering }
        });
    }
    let more = request.limit > 0 && kvs.len() as i64 > request.limit;
    if more {
        kvs.truncate(request.limit as usize);
    }
    if request.keys_only {
        for kv in &mut kvs {
            kv.value.clear();
            if request.sort_target != 4 {
                kv.lease = 0;
            }
        }
    }
    RangeResponse { header: None, kvs, more, count }
}
