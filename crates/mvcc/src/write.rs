//! Carrying out writes: the index changes, records are made, leases attached.
//!
//! Runs on memory alone: whatever old record a write needs is handed in.

use bytes::Bytes;
use etched_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};
use rustc_hash::FxHashMap;

use crate::error::Error;
use crate::index::{Entry, Keys, NOW, Tree};
use crate::kv::{Kv, tail_len, tombstone};
use crate::leases::Leases;
use crate::range;
use crate::record::{Record, Revision};
use crate::shared::Core;
use crate::txn::{Branch, Op, Part, Pending, positive};

/// What a put keeps of the record before it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    value: Bytes,
    lease: i64,
}

/// What puts keep of records from before the write, by their revision.
pub(crate) type KeptRecords = FxHashMap<Revision, Kept>;

/// One revision being made.
pub(crate) struct Write<'a> {
    pub(crate) tree: &'a mut Tree,
    pub(crate) leases: &'a mut dyn Leases,
    pub(crate) kept: KeptRecords,
    /// The revision before it.
    pub(crate) begin: i64,
    /// The records made so far, in order.
    pub(crate) made: Vec<(Revision, Record)>,
}

impl Kept {
    pub(crate) fn of(revision: Revision, record: &Record) -> Result<Self, Error> {
        let kv = Kv::of(revision, &record.bytes)?;
        Ok(Self { value: record.bytes.slice_ref(kv.value), lease: kv.lease })
    }
}

/// Fetches what the puts keep of the records that their keys have now.
pub(crate) fn prefetch<'a>(
    core: &Core,
    tree: &Tree,
    puts: impl Iterator<Item = &'a PutRequest>,
) -> Result<KeptRecords, Error> {
    let revisions: Vec<Revision> =
        puts.filter_map(|put| tree.at(&put.key, NOW)).map(Entry::revision).collect();
    let records = core.fetch(&revisions)?;
    revisions.iter().zip(&records).map(|(at, record)| Ok((*at, Kept::of(*at, record)?))).collect()
}

impl<'a> Write<'a> {
    /// The revision that reads see: the new one as soon as there is a change.
    fn seen(&self) -> i64 {
        self.begin + i64::from(!self.made.is_empty())
    }

    fn next(&self) -> Revision {
        Revision { main: self.begin + 1, sub: self.made.len() as i64 }
    }

    /// Runs the operations of a branch in order. With `answer`, what is needed to answer them.
    pub(crate) fn branch<'r>(&mut self, branch: &Branch<'r>, answer: bool) -> Vec<Part<'r>> {
        let mut parts = Vec::new();
        for op in &branch.ops {
            let part = match op {
                Op::Range(_) if !answer => continue,
                Op::Range(request) => self.range(request),
                Op::Put(request) => {
                    let prev = self.put(request).filter(|_| request.prev_kv);
                    Part::Put { prev: prev.map(Entry::revision), revision: self.begin + 1 }
                }
                Op::Delete(request) => {
                    let gone = self.delete(Keys::new(&request.key, &request.range_end));
                    Part::delete(request, gone, self.seen())
                }
                Op::Txn(branch) => {
                    let parts = self.branch(branch, answer);
                    Part::Txn { succeeded: branch.succeeded, parts }
                }
                Op::Empty => unreachable!("refused before the branch runs"),
            };
            if answer {
                parts.push(part);
            }
        }
        parts
    }

    fn range<'r>(&self, request: &'r RangeRequest) -> Part<'r> {
        let revision = self.seen();
        let at = positive(request.revision, revision);
        let keys = if range::is_small(self.tree, request, at, revision) {
            Pending::Selected(range::select(self.tree, request, at, true))
        } else {
            Pending::Later(self.tree.clone(), at)
        };
        Part::Range { request, keys, revision }
    }

    /// Puts a key; its change before, when it existed.
    pub(crate) fn put(&mut self, request: &PutRequest) -> Option<Entry> {
        let kept = self.kept_by(request);
        let value = if request.ignore_value { &kept.value } else { &request.value };
        let lease = if request.ignore_lease { kept.lease } else { request.lease };
        let revision = self.next();
        let tail = tail_len(value, lease);
        let before = self.tree.write(&request.key, revision, Some(tail)).filter(|e| e.is_live());
        let kv = Kv {
            key: &request.key,
            create_revision: before.map_or(revision.main, Entry::created),
            mod_revision: revision.main,
            version: before.map_or(0, Entry::version) + 1,
            value,
            lease,
        };
        self.made.push((revision, Record { tombstone: false, bytes: kv.encode() }));
        self.move_lease(&request.key, before.is_some(), lease);
        before
    }

    fn kept_by(&self, request: &PutRequest) -> Kept {
        if !crate::txn::keeps(request) {
            return Kept::default();
        }
        let entry = self.tree.at(&request.key, NOW).expect("a put that keeps has been checked");
        let revision = entry.revision();
        if revision.main > self.begin {
            let (_, record) = &self.made[revision.sub as usize];
            return Kept::of(revision, record).expect("a record made just now");
        }
        self.kept.get(&revision).expect("fetched before the write").clone()
    }

    /// Attaches a key that was put to its lease. A key that did not exist hangs on none.
    fn move_lease(&mut self, key: &[u8], existed: bool, lease: i64) {
        let old = if existed { self.leases.lease_of(key) } else { 0 };
        if old == lease {
            return;
        }
        if old != 0 {
            self.leases.detach(key, old);
        }
        if lease != 0 {
            self.leases.attach(&Bytes::copy_from_slice(key), lease);
        }
    }

    /// Deletes the keys; the changes that they had.
    pub(crate) fn delete(&mut self, keys: Keys<'_>) -> Vec<Entry> {
        let mut found: Vec<(Bytes, Entry)> = Vec::new();
        self.tree.visit(keys, NOW, |key, entry| {
            found.push((Bytes::copy_from_slice(key), entry));
            std::ops::ControlFlow::Continue(())
        });
        for (key, _) in &found {
            let revision = self.next();
            self.tree.write(key, revision, None);
            self.made.push((revision, tombstone(key)));
            let lease = self.leases.lease_of(key);
            if lease != 0 {
                self.leases.detach(key, lease);
            }
        }
        found.into_iter().map(|(_, entry)| entry).collect()
    }
}

impl Part<'_> {
    fn delete(request: &DeleteRangeRequest, gone: Vec<Entry>, revision: i64) -> Self {
        let prev = if request.prev_kv { &gone[..] } else { &[] };
        let prev = prev.iter().map(|entry| entry.revision()).collect();
        Self::Delete { deleted: gone.len() as i64, prev, revision }
    }
}
