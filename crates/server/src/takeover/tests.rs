//! Taking over on a disk that loses every unsynced byte, and directories that are better left alone.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use etched_consensus::{ConfChange, ConfChangeKind};
use etched_proto::etcdserverpb as pb;
use etched_proto::membershippb::ClusterVersionSetRequest;
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

fn open(disk: &SimDisk, path: &Path) -> Result<(Storage, Boot), StorageError> {
    let options = etched_storage::Options { cache_bytes: 1 << 20, ..Default::default() };
    Storage::open_on(Arc::new(SimMedium::at(disk, path)), options)
}

fn start(disk: &SimDisk) -> Result<Booted<SimDisk>, String> {
    start_as(disk, config())
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
    let mut unsure = 0;
    for loss in [Loss::Process, Loss::Unsynced, Loss::Torn(1), Loss::Torn(2)] {
        for crash_at in 0.. {
            let case = format!("crash after {crash_at}, {loss:?}");
            let disk = etcds.lay();
            disk.crash_after(crash_at);
            let error = start(&disk).err();
            let whole = error.is_none() && !disk.has_crashed();
            disk.restart(loss);
            if names(&disk).iter().all(|name| name != "db") {
                panic!("{case}: there is no store");
            }
            let store = disk.read(Path::new(MAIN)).expect("there");
            let (error, is_ours) = (error.unwrap_or_default(), store.starts_with(b"redb"));
            // Of a rename that a crash ends, nobody hears whether it was done.
            let is_sure = loss == Loss::Process && !error.contains("cannot rename");
            if is_sure && error.contains("take over the etcd") {
                assert!(!is_ours, "{case}: {error}");
            } else if is_sure && error.contains("took the etcd") {
                assert!(is_ours, "{case}: {error}");
                unsure += 1;
            }
            if !is_ours {
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
    assert_eq!(unsure, 1, "the sync behind the rename is one step");
}

/// A disk on which nothing gets another name.
#[derive(Debug, Clone)]
struct NoRename(SimDisk);

impl Disk for NoRename {
    type File = etched_sim::SimFile;

    fn open(&self, path: &Path, mode: Open) -> io::Result<Self::File> {
        self.0.open(path, mode)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }

    fn create_new_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_new_dir(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
}

#[test]
fn a_switch_that_fails_leaves_no_second_name() {
    let etcds = Etcds::new();
    let disk = etcds.lay();
    let paths = Paths::of(&config());
    let taken = take_over(&NoRename(disk.clone()), &paths, |path| open(&disk, path));
    let error = taken.expect_err("no rename").to_string();
    assert!(error.contains("cannot take over") && error.contains("rename"), "{error}");
    assert_eq!(names(&disk), ["db"]);
    // A name of another time stays.
    disk.put(Path::new(KEPT), &etcds.database).expect("a working disk");
    let taken = take_over(&NoRename(disk.clone()), &paths, |path| open(&disk, path));
    assert!(taken.is_err());
    assert_eq!(names(&disk), ["db", "db.etcd-3.7"]);
    start(&disk).expect("a whole directory");
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

/// Writes the log anew, from its newest mark on, with what `change` makes of its hard state and entries.
fn rewrite(disk: &SimDisk, change: impl FnOnce(&mut HardState, &mut Vec<Entry>)) {
    let dir = Path::new(LOG);
    let marks = etched_wal::valid_snapshots(disk, dir).expect("a log");
    let mark: SnapshotMark = marks.last().cloned().expect("a mark");
    let mut log = etched_wal::read(disk, dir, &mark, 0).expect("a log");
    change(&mut log.hard_state, &mut log.entries);
    disk.remove_dir(dir).expect("a working disk");
    let options = etched_wal::Options { segment_bytes: 16 << 10, ..Default::default() };
    let mut wal = Wal::create(disk.clone(), dir, &log.metadata, &options).expect("a log");
    wal.save_snapshot(&mark).expect("a log");
    wal.save(Some(&log.hard_state), &log.entries, true).expect("a log");
    wal.close().expect("a log");
}

/// One more entry at the end.
fn push(entries: &mut Vec<Entry>, kind: EntryKind, data: Bytes) {
    let last = entries.last().expect("an entry");
    entries.push(Entry { term: last.term, index: last.index + 1, kind, data });
}

/// Goes on behind the log with an entry that is committed.
fn append(disk: &SimDisk, kind: EntryKind, data: Bytes) {
    rewrite(disk, |hard_state, entries| {
        push(entries, kind, data);
        hard_state.commit = entries.last().expect("one entry at least").index;
    });
}

fn conf_change(kind: ConfChangeKind, node_id: u64, context: &str) -> Bytes {
    let context = Bytes::copy_from_slice(context.as_bytes());
    ConfChange { id: 1, kind, node_id, context }.encode()
}

const OWN: u64 = 0x8e9e_05c5_2164_694d;
/// Another one with the only member's URL, which no server lets in.
const DOUBLE: &str = r#"{"id":2748,"peerURLs":["http://localhost:2380"],"name":""}"#;

#[test]
fn a_member_of_a_cluster_is_taken_over_and_waits_for_the_others() {
    let etcds = Etcds::new();
    let disk = etcds.lay();
    let other = r#"{"id":2748,"peerURLs":["http://b"],"name":""}"#;
    let change = conf_change(ConfChangeKind::AddNode, 0xabc, other);
    append(&disk, EntryKind::ConfChange, change);
    let booted = start(&disk).expect("a member");
    assert_eq!(booted.shared.cluster.read().members.keys().collect::<Vec<_>>(), [&0xabc, &OWN]);
    assert_eq!(state(&booted.shared), etcds.state);
    assert!(!booted.shared.is_leader() && !*booted.shared.published.borrow());
}

#[test]
fn a_change_of_members_that_etcd_refused_is_none() {
    let etcds = Etcds::new();
    let disk = etcds.lay();
    let refused = [
        conf_change(ConfChangeKind::AddNode, 0xabc, DOUBLE),
        conf_change(ConfChangeKind::RemoveNode, 0xabc, ""),
        conf_change(ConfChangeKind::AddNode, OWN, r#"{"id":10276657743932975437,"name":"x"}"#),
        conf_change(
            ConfChangeKind::AddNode,
            OWN,
            r#"{"id":10276657743932975437,"isPromote":true}"#,
        ),
    ];
    rewrite(&disk, |hard_state, entries| {
        // The first one is in the database already.
        entries[0].kind = EntryKind::ConfChange;
        entries[0].data = refused[0].clone();
        for change in &refused {
            push(entries, EntryKind::ConfChange, change.clone());
        }
        hard_state.commit = entries.last().expect("one entry at least").index;
    });
    let booted = start(&disk).expect("a lone member");
    let before = booted.shared.cluster.read().clone();
    assert_eq!(before.members.keys().collect::<Vec<_>>(), [&OWN]);
    assert!(before.removed.is_empty());
    assert_eq!(state(&booted.shared), etcds.state);
    let last = with_member(booted, async |shared, _| {
        put(&shared, 1).await;
        state(&shared)
    });
    disk.restart(Loss::Unsynced);
    let again = start(&disk).expect("ours by now");
    assert_eq!(state(&again.shared), last);
    assert_eq!(*again.shared.cluster.read(), before);
}

#[test]
fn a_member_whose_removal_waits_is_refused() {
    let disk = Etcds::new().lay();
    let removal = conf_change(ConfChangeKind::RemoveNode, OWN, "");
    append(&disk, EntryKind::ConfChange, removal);
    refused(&disk, "is none of its cluster (members: none)");
}

#[test]
fn a_change_of_members_that_does_not_read_is_found_before_anything_is_changed() {
    let etcds = Etcds::new();
    let disk = etcds.lay();
    let change = conf_change(ConfChangeKind::AddNode, 0xabc, "{");
    append(&disk, EntryKind::ConfChange, change);
    refused(&disk, "its member does not read");
    let disk = etcds.lay();
    append(&disk, EntryKind::ConfChangeV2, Bytes::from_static(b"\x0a\x02\x18\x05"));
    refused(&disk, "several members at once");
}

#[test]
fn a_log_that_lost_what_it_calls_committed_is_refused() {
    let disk = Etcds::new().lay();
    rewrite(&disk, |hard_state, _| hard_state.commit += 1);
    refused(&disk, "it has lost its end");
}

#[test]
fn the_commit_of_a_log_may_be_behind_its_database() {
    let etcds = Etcds::new();
    let disk = etcds.lay();
    let marks = etched_wal::valid_snapshots(&disk, Path::new(LOG)).expect("a log");
    let mark = marks.last().expect("a mark").index;
    rewrite(&disk, |hard_state, _| hard_state.commit = mark);
    let booted = start(&disk).expect("a whole directory");
    assert_eq!(state(&booted.shared), etcds.state);
}

#[test]
fn a_directory_of_a_newer_cluster_is_refused() {
    let mut etcds = Etcds::new();
    let newer = "server version is lower than determined cluster version";
    let disk = etcds.lay();
    let set = |ver: &str| {
        let request = ClusterVersionSetRequest { ver: ver.to_owned() };
        crate::request::encode_message(1, Field::ClusterVersionSet, &request)
    };
    append(&disk, EntryKind::Normal, set("3.8.0"));
    refused(&disk, newer);
    let disk = etcds.lay();
    append(&disk, EntryKind::Normal, set("x"));
    refused(&disk, "cluster version \"x\" is none");
    let row = b"clusterVersion3.7.0";
    for at in 0..etcds.database.len() - row.len() {
        if etcds.database[at..].starts_with(row) {
            etcds.database[at + row.len() - 3] = b'8';
        }
    }
    refused(&etcds.lay(), newer);
}

#[test]
fn what_a_lease_has_left_is_heeded_where_only_the_end_of_the_log_says_it() {
    let disk = Etcds::new().lay();
    let checkpoints = vec![pb::LeaseCheckpoint { id: 7, remaining_ttl: 5 }];
    let request = pb::LeaseCheckpointRequest { checkpoints };
    let entry = crate::request::encode_message(1, Field::LeaseCheckpoint, &request);
    rewrite(&disk, |hard_state, entries| {
        hard_state.commit = entries.last().expect("an entry").index;
        push(entries, EntryKind::Normal, entry);
    });
    let shared = start(&disk).expect("a whole directory").shared;
    let lease = shared.lessor.lock().time_to_live(7, shared.now(), false).expect("it is there");
    let remaining = lease.remaining.expect("this member leads");
    assert!((1..=6).contains(&remaining), "{remaining} of {}", lease.granted);
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
