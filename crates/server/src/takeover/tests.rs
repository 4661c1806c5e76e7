//! Taking over on a disk that loses every unsynced byte, and directories that are better left alone.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use etched_consensus::{ConfChange, ConfChangeKind};
use etched_proto::etcdserverpb as pb;
use etched_sim::{Loss, SimDisk};
use etched_storage::Storage;
use etched_wal::disk::{Disk, DiskFile, Open};
use etched_wal::{Entry, EntryKind, HardState, SnapshotMark, Wal};

use prost::Message as _;

use super::*;
use crate::auth::Nobody;
use crate::boot::Booted;
use crate::config::Config;
use crate::crash_tests::{MAIN, SimMedium, config, propose, start_as, with_member};
use crate::request::Field;
use crate::shared::Shared;

const KEPT: &str = "/data/member/snap/db.etcd-3.7";
const LOG: &str = "/data/member/wal";

/// A directory as a killed etcd leaves it: a database, and a log that goes on behind it.
struct Etcds {
    database: Vec<u8>,
    segments: Vec<(String, Vec<u8>)>,
    state: State,
}

/// Hash, revision and keys of a store.
type State = (u32, i64, usize);

fn state(shared: &Shared) -> State {
    let (hash, revision) = shared.reader.hash_kv(0).expect("the current revision");
    (hash.hash, revision, shared.reader.keys())
}

async fn put(shared: &Shared, number: u32) {
    let (key, value) = (format!("key{}", number % 17).into(), vec![b'v'; 150].into());
    let put = pb::PutRequest { key, value, ..Default::default() };
    propose(shared, Field::Put, &put).await.expect("a working disk");
}

/// The bytes of etcd's database that the store makes of itself.
fn database_of(shared: &Shared) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = crate::snapshot::write(&shared.storage.view(), |part| {
        bytes.extend_from_slice(&part.bytes);
        Ok(())
    });
    bytes.truncate(written.expect("a whole store") as usize);
    bytes
}

impl Etcds {
    fn new() -> Self {
        let disk = SimDisk::new();
        // With a mark in the log and its beginning gone.
        with_member(start_as(&disk, config()).expect("a fresh member"), async |shared, _| {
            for number in 0..120 {
                put(&shared, number).await;
            }
            let request = pb::CompactionRequest { revision: 60, physical: true };
            propose(&shared, Field::Compaction, &request).await.expect("a working disk");
        });
        disk.restart(Loss::Process);
        let config = Config { checkpoint_log_bytes: u64::MAX, ..config() };
        let mut found = None;
        with_member(start_as(&disk, config).expect("a clean end"), async |shared, _| {
            for number in 0..20 {
                put(&shared, number).await;
            }
            let grant = pb::LeaseGrantRequest { id: 7, ttl: 600 };
            let granted = shared.propose(Nobody, Field::LeaseGrant, &grant.encode_to_vec()).await;
            granted.expect("a working disk").result.expect("it is granted");
            let role = pb::AuthRoleAddRequest { name: "role".to_owned() };
            propose(&shared, Field::AuthRoleAdd, &role).await.expect("a working disk");
            shared.flush.commit_now().await.expect("the flusher writes all");
            let database = database_of(&shared);
            for number in 0..10 {
                put(&shared, number).await;
            }
            found = Some((database, state(&shared)));
            disk.crash_after(0);
        });
        disk.restart(Loss::Process);
        let (database, state) = found.expect("it ran");
        Self { database, segments: log_of(&disk), state }
    }

    fn lay(&self) -> SimDisk {
        let disk = SimDisk::new();
        for folder in [Path::new(MAIN).parent().expect("a folder"), Path::new(LOG)] {
            disk.create_dir(folder).expect("a working disk");
        }
        disk.put(Path::new(MAIN), &self.database).expect("a working disk");
        for (name, bytes) in &self.segments {
            disk.put(&Path::new(LOG).join(name), bytes).expect("a working disk");
        }
        disk
    }

    /// With another log: `entries` behind index 0, all committed.
    fn with_log(&self, entries: &[Entry]) -> SimDisk {
        let disk = self.lay();
        disk.remove_dir(Path::new(LOG)).expect("a working disk");
        let metadata = b"\x08\x01\x10\x02";
        let options = etched_wal::Options::default();
        let mut wal = Wal::create(disk.clone(), Path::new(LOG), metadata, &options).expect("a log");
        let commit = entries.len() as u64;
        let term = entries.last().expect("an entry").term;
        wal.save(Some(&HardState { term, vote: 1, commit }), entries, true).expect("a log");
        wal.close().expect("a log");
        disk
    }
}

fn log_of(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list(Path::new(LOG)).expect("a log").into_iter();
    let names = names.filter(|name| name.ends_with(".wal"));
    names
        .map(|name| (name.clone(), disk.read(&Path::new(LOG).join(name)).expect("there")))
        .collect()
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list(Path::new(MAIN).parent().expect("a folder")).expect("a folder")
}

/// As a server starts.
fn start(disk: &SimDisk) -> Result<Booted<SimDisk>, String> {
    let options = etched_storage::Options { cache_bytes: 1 << 20, ..Default::default() };
    let open = |path: &Path| Storage::open_on(Arc::new(SimMedium::at(disk, path)), options);
    let held = take_over(disk, &Paths::of(&config()), open).map_err(|error| error.to_string())?;
    let booted = start_as(disk, config());
    drop(held);
    booted
}

/// Refused with one line that has these words, and nothing was changed.
fn refused(disk: &SimDisk, words: &str) {
    let before = (disk.read(Path::new(MAIN)).expect("there"), names(disk));
    let Err(error) = start(disk) else { panic!("taken over, though: {words}") };
    assert!(error.contains(words) && error.lines().count() == 1, "{error}");
    assert!((disk.read(Path::new(MAIN)).expect("there"), names(disk)) == before, "{error}");
}

#[test]
fn a_directory_is_taken_over_with_what_its_log_has_behind_the_database() {
    let etcds = Etcds::new();
    let disk = etcds.lay();
    let booted = start(&disk).expect("a whole directory");
    assert_eq!(state(&booted.shared), etcds.state);
    assert!(booted.shared.lessor.lock().exists(7));
    assert_eq!(booted.shared.auth.revision(), 2);
    assert_eq!(disk.read(Path::new(KEPT)).expect("kept"), etcds.database);
    assert_eq!(names(&disk), ["db", "db.etcd-3.7"]);
    let last = with_member(booted, async |shared, _| {
        put(&shared, 1).await;
        state(&shared)
    });
    disk.restart(Loss::Unsynced);
    let again = start(&disk).expect("ours by now");
    assert_eq!(state(&again.shared), last);
}

#[test]
fn a_crash_at_any_step_leaves_a_directory_of_etcds_or_one_of_ours() {
    let etcds = Etcds::new();
    for loss in [Loss::Process, Loss::Unsynced, Loss::Torn(1), Loss::Torn(2)] {
        for crash_at in 0.. {
            let case = format!("crash after {crash_at}, {loss:?}");
            let disk = etcds.lay();
            disk.crash_after(crash_at);
            let whole = start(&disk).is_ok() && !disk.has_crashed();
            disk.restart(loss);
            if names(&disk).iter().all(|name| name != "db") {
                panic!("{case}: there is no store");
            }
            let store = disk.read(Path::new(MAIN)).expect("there");
            if !store.starts_with(b"redb") {
                assert!(store == etcds.database, "{case}: etcd's database was changed");
                assert!(log_of(&disk) == etcds.segments, "{case}: its log was changed");
            }
            let booted = start(&disk).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(state(&booted.shared), etcds.state, "{case}");
            assert_eq!(names(&disk), ["db", "db.etcd-3.7"], "{case}");
            assert!(disk.read(Path::new(KEPT)).expect("kept") == etcds.database, "{case}");
            if whole {
                break;
            }
        }
    }
}

#[test]
fn a_name_that_another_database_has_is_left_to_it() {
    let etcds = Etcds::new();
    let disk = etcds.lay();
    disk.put(Path::new(KEPT), b"of an earlier time").expect("a working disk");
    start(&disk).expect("a whole directory");
    assert_eq!(names(&disk), ["db", "db.etcd-3.7", "db.etcd-3.7-2"]);
    assert_eq!(disk.read(Path::new(KEPT)).expect("kept"), b"of an earlier time");
}

#[test]
fn a_database_in_use_is_left_alone_until_it_is_free() {
    let etcds = Etcds::new();
    let disk = etcds.lay();
    let etcd = disk.open(Path::new(MAIN), Open::Write).expect("there");
    assert!(etcd.try_lock().expect("a working disk"));
    refused(&disk, "in use");
    drop(etcd);
    start(&disk).expect("a whole directory");
}

#[test]
fn a_full_disk_leaves_it_alone() {
    let etcds = Etcds::new();
    let disk = etcds.lay();
    disk.set_capacity(Some(disk.reserved_bytes() + 8192));
    refused(&disk, "cannot take over");
    disk.set_capacity(None);
    start(&disk).expect("there is room");
}

#[test]
fn a_database_and_a_log_that_do_not_belong_together_are_refused() {
    let etcds = Etcds::new();
    let disk = etcds.lay();
    disk.remove_dir(Path::new(LOG)).expect("a working disk");
    refused(&disk, "is missing");
    let entry = |index| Entry { term: 9, index, ..Entry::default() };
    refused(&etcds.with_log(&[entry(1)]), "the write-ahead log ends at 1");
    let long: Vec<Entry> = (1..400).map(entry).collect();
    refused(&etcds.with_log(&long), "term 9 in the write-ahead log");
}

/// Goes on behind the log with an entry that is committed.
fn append(disk: &SimDisk, kind: EntryKind, data: Bytes) {
    let marks = etched_wal::valid_snapshots(disk, Path::new(LOG)).expect("a log");
    let mark: SnapshotMark = marks.last().cloned().expect("a mark");
    let options = etched_wal::Options { segment_bytes: 16 << 10, ..Default::default() };
    let (mut wal, log) = Wal::open(disk.clone(), Path::new(LOG), &mark, &options).expect("a log");
    let (term, index) = (log.hard_state.term, wal.last_index() + 1);
    let hard_state = HardState { commit: index, ..log.hard_state };
    wal.save(Some(&hard_state), &[Entry { term, index, kind, data }], true).expect("a log");
    wal.close().expect("a log");
}

#[test]
fn a_directory_of_several_members_is_refused() {
    let disk = Etcds::new().lay();
    let (kind, node_id) = (ConfChangeKind::AddNode, 0xabc);
    let change = ConfChange { id: 1, kind, node_id, context: Bytes::from_static(b"{}") };
    append(&disk, EntryKind::ConfChange, change.encode());
    refused(
        &disk,
        "(abc, 8e9e05c52164694d), which this version does not have yet: docs/COMPAT.md, part 5",
    );
}

#[test]
fn a_request_that_nobody_knows_is_found_before_anything_is_changed() {
    let disk = Etcds::new().lay();
    append(&disk, EntryKind::Normal, Bytes::from_static(b"\xc2\x57\x00"));
    refused(&disk, "request 1400");
}

#[test]
fn a_damaged_or_cut_database_is_refused_in_one_line_or_read_all_the_same() {
    let mut etcds = Etcds::new();
    let whole = etcds.database.clone();
    let mut found = 0;
    for at in (0..whole.len()).step_by(101) {
        etcds.database[at] ^= 1 << (at % 8);
        let disk = etcds.lay();
        // bbolt has no checksums: a changed value is what it is.
        if let Err(error) = start(&disk) {
            assert_eq!(error.lines().count(), 1, "{error}");
            assert_eq!(names(&disk), ["db"], "byte {at}: {error}");
            assert!(disk.read(Path::new(MAIN)).expect("there") == etcds.database);
            found += 1;
        }
        etcds.database[at] = whole[at];
    }
    assert!(found > 10, "{found}");
    for length in [0, 10, 1000, 4096, 8192, whole.len() - 4096, whole.len() - 1] {
        etcds.database = whole[..length].to_vec();
        refused(&etcds.lay(), "");
    }
}

#[test]
fn a_damaged_log_is_refused_and_not_repaired() {
    let mut etcds = Etcds::new();
    let (_, first) = &mut etcds.segments[0];
    first[300] ^= 4;
    let disk = etcds.lay();
    refused(&disk, "damaged");
    assert!(log_of(&disk) == etcds.segments);
}
