//! A store that keeps every change, and shows what compaction would leave of them.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use rustc_hash::FxHashSet;

use etched_proto::mvccpb::KeyValue;

use crate::record::{Record, RecordsError, Revision};
use crate::watch::History;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Put(String, String),
    Delete(String),
}

/// One change with what came before it.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) revision: Revision,
    pub(super) key: String,
    pub(super) kv: Option<KeyValue>,
    /// The key's value one main revision earlier.
    pub(super) prev: Option<KeyValue>,
    /// A compaction removed it.
    pub(super) pruned: bool,
}

pub(super) struct Past {
    log: Mutex<Log>,
}

struct Log {
    changes: Vec<Arc<Change>>,
    current: i64,
    compacted: i64,
}

impl Past {
    pub(super) fn new() -> Self {
        Self { log: Mutex::new(Log { changes: Vec::new(), current: 1, compacted: 0 }) }
    }

    /// One transaction. Deletes of absent keys change nothing; a transaction without changes is none.
    pub(super) fn commit(&self, ops: &[Op]) -> Vec<(Revision, Record)> {
        let mut log = self.log.lock();
        let main = log.current + 1;
        let begin = log.changes.len();
        for op in ops {
            let sub = (log.changes.len() - begin) as i64;
            let (key, kv) = match op {
                Op::Put(key, value) => (key, Some(log.put(main, key, value))),
                Op::Delete(key) if log.at(key, i64::MAX).is_some() => (key, None),
                Op::Delete(_) => continue,
            };
            let prev = log.at(key, main - 1);
            let revision = Revision { main, sub };
            let change = Change { revision, key: key.clone(), kv, prev, pruned: false };
            log.changes.push(Arc::new(change));
        }
        if log.changes.len() > begin {
            log.current = main;
        }
        log.changes[begin..].iter().map(|change| (change.revision, change.record())).collect()
    }

    /// Moves the floor and removes what is superseded at it; deletions at the very floor stay.
    pub(super) fn compact(&self, revision: i64) {
        let mut log = self.log.lock();
        log.compacted = revision;
        let Log { changes, .. } = &mut *log;
        let mut newest = FxHashSet::default();
        for change in changes.iter_mut().rev().filter(|change| change.revision.main <= revision) {
            let kept = change.kv.is_some() || change.revision.main == revision;
            if !(newest.insert(change.key.clone()) && kept) {
                Arc::make_mut(change).pruned = true;
            }
        }
    }

    pub(super) fn current(&self) -> i64 {
        self.log.lock().current
    }

    pub(super) fn changes(&self) -> Vec<Arc<Change>> {
        self.log.lock().changes.clone()
    }
}

impl Change {
    fn record(&self) -> Record {
        let bare = || KeyValue { key: self.key.clone().into(), ..KeyValue::default() };
        let kv = self.kv.clone().unwrap_or_else(bare);
        Record { tombstone: self.kv.is_none(), bytes: kv.encode_to_vec().into() }
    }
}

impl Log {
    fn at(&self, key: &str, revision: i64) -> Option<KeyValue> {
        let of_key = |change: &&Arc<Change>| change.key == key && change.revision.main <= revision;
        self.changes.iter().rev().find(of_key)?.kv.clone()
    }

    fn put(&self, main: i64, key: &str, value: &str) -> KeyValue {
        let before = self.at(key, i64::MAX);
        KeyValue {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            create_revision: before.as_ref().map_or(main, |kv| kv.create_revision),
            mod_revision: main,
            version: before.map_or(0, |kv| kv.version) + 1,
            lease: 0,
        }
    }
}

impl History for Past {
    fn compact_revision(&self) -> i64 {
        self.log.lock().compacted
    }

    fn scan(
        &self,
        from: i64,
        until: i64,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), RecordsError> {
        let log = self.log.lock();
        let begin = log.changes.partition_point(|change| change.revision.main < from);
        for change in log.changes[begin..].iter().filter(|change| !change.pruned) {
            if change.revision.main >= until || visit(change.revision, change.record()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn kv_at(&self, key: &[u8], revision: i64) -> Result<Option<Bytes>, RecordsError> {
        let log = self.log.lock();
        let key = std::str::from_utf8(key).expect("test keys are text");
        let kv = if revision < log.compacted { None } else { log.at(key, revision) };
        Ok(kv.map(|kv| kv.encode_to_vec().into()))
    }
}
