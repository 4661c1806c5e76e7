//! Files that the real ones wrote: bbolt 1.5 (`compat-tests/bolt`), etcd 3.5.35, 3.6.16 and 3.7.1.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

mod common;

use std::collections::BTreeMap;

use common::contents_of;
use etched_bolt::etcd::{self, Revision};
use etched_bolt::{Database, snapshot};
use etched_proto::mvccpb::KeyValue;
use prost::Message as _;

const SNAPSHOT: &[u8] = include_bytes!("fixtures/etcd-3.7.1.snapshot");

fn check_pages(page_size: u32, file: &[u8]) {
    let database = Database::open(file.to_vec()).unwrap();
    assert_eq!(database.page_size(), page_size);
    database.check().unwrap();
    let found = contents_of(&database).unwrap();
    let text = |text: String| text.into_bytes();
    let many: BTreeMap<_, _> = (0..700)
        .filter(|n| n % 2 == 1 || *n >= 600)
        .map(|n| (text(format!("key {n:05}")), text(format!("value {n}"))))
        .collect();
    assert_eq!(found[&b"many"[..]], many);
    assert!(found[&b"empty"[..]].is_empty());
    let large = &found[&b"large"[..]];
    assert_eq!(large[&b"key 00002"[..]], [b'c'; 5002]);
    let few = database.root().bucket(b"few").unwrap().unwrap();
    assert_eq!(few.get(b"nested").unwrap(), None, "a bucket has no value");
    let nested = few.bucket(b"nested").unwrap().unwrap();
    assert_eq!(nested.get(b"inner").unwrap(), Some(b"value".to_vec()));
    assert!(database.root().bucket(b"none").unwrap().is_none());
}

#[test]
fn files_of_all_page_sizes_are_read() {
    check_pages(1024, include_bytes!("fixtures/pages-1024.db"));
    check_pages(4096, include_bytes!("fixtures/pages-4096.db"));
    check_pages(16384, include_bytes!("fixtures/pages-16384.db"));
}

#[test]
fn the_older_meta_page_counts_when_the_newer_one_is_damaged() {
    let file = include_bytes!("fixtures/pages-1024.db");
    for page in 0..2 {
        let mut damaged = file.to_vec();
        damaged[page * 1024 + 40] ^= 1;
        Database::open(damaged.clone()).unwrap().check().unwrap();
        damaged[(1 - page) * 1024 + 40] ^= 1;
        assert_eq!(Database::open(damaged).unwrap_err().to_string(), "checksum error");
    }
}

#[test]
fn the_status_of_a_snapshot_is_that_of_etcdutl() {
    let of_3_5 = include_bytes!("fixtures/etcd-3.5.35.snapshot");
    let of_3_6 = include_bytes!("fixtures/etcd-3.6.16.snapshot");
    for (file, hash, revision, version) in [
        (SNAPSHOT, 3_541_664_026, 14, "3.7.0"),
        (of_3_6, 1_549_245_662, 10, "3.6.0"),
        (of_3_5, 2_444_253_029, 10, ""),
    ] {
        let file = file.to_vec();
        let total_size = file.len() as u64 - 32;
        assert_eq!(snapshot::verify(&file).unwrap(), total_size);
        let status = snapshot::status(&Database::open(file).unwrap()).unwrap();
        let version = version.to_owned();
        let expected = snapshot::Status { hash, revision, total_key: 6, total_size, version };
        assert_eq!(status, expected);
    }
}

#[test]
fn the_buckets_of_a_snapshot_hold_what_their_names_promise() {
    let contents = contents_of(&Database::open(SNAPSHOT.to_vec()).unwrap()).unwrap();
    assert!(contents.keys().map(Vec::as_slice).eq(etcd::BUCKETS.map(str::as_bytes)));
    let bucket = |name: &str| &contents[name.as_bytes()];
    let mut tombstones = 0;
    for (key, value) in bucket(etcd::KEY) {
        let revision = Revision::read(key).unwrap();
        let record = KeyValue::decode(&**value).unwrap();
        assert_eq!(record.mod_revision, if revision.tombstone { 0 } else { revision.main });
        tombstones += usize::from(revision.tombstone);
    }
    assert!(tombstones > 1);
    let meta = |key: &str| bucket(etcd::META)[key.as_bytes()].as_slice();
    assert_eq!(meta(etcd::meta::TERM), 2_u64.to_be_bytes());
    assert_eq!(meta(etcd::meta::CONSISTENT_INDEX).len(), 8);
    assert_eq!(meta(etcd::meta::STORAGE_VERSION), b"3.7.0");
    assert!(meta(etcd::meta::CONF_STATE).starts_with(b"{\"voters\":["));
    let compacted = Revision { main: 6, sub: 0, tombstone: false };
    for name in [etcd::meta::SCHEDULED_COMPACT_REV, etcd::meta::FINISHED_COMPACT_REV] {
        assert_eq!(Revision::read(meta(name)), Some(compacted));
    }
    let counts = [etcd::AUTH_USERS, etcd::AUTH_ROLES, etcd::LEASE, etcd::MEMBERS]
        .map(|name| bucket(name).len());
    assert_eq!(counts, [2, 1, 1, 1]);
    assert_eq!(bucket(etcd::CLUSTER)[&b"clusterVersion"[..]], b"3.7.0");
    assert_eq!(bucket(etcd::AUTH)[&b"authRevision"[..]].len(), 8);
}
