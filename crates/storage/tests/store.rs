//! What a commit, a read, a reopen and a defragmentation do, on real files and in memory.

mod common;

use std::{
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use bytes::Bytes;
use common::{MemMedium, Workload, scan, scanned};
use etched_mvcc::{RawRecord, Record, Records, Revision, VisitPart};
use etched_storage::{Applied, Commit, Durability, Error, FORMAT_VERSION, Options, Storage, Table};
use redb::TableDefinition;

fn open(path: &Path) -> (Storage, etched_storage::Boot) {
    Storage::open(path, Options::default()).expect("the folder is there")
}

fn record(text: &'static str) -> Record {
    Record { tombstone: false, bytes: Bytes::from_static(text.as_bytes()) }
}

fn at(index: u64) -> Commit {
    Commit { applied: Applied { index, term: 1 }, ..Commit::default() }
}

#[test]
fn a_new_file_says_so_and_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let (storage, boot) = open(&path);
    assert!(boot.created);
    assert_eq!(
        (boot.applied, boot.conf_state, boot.format),
        (Applied::default(), None, FORMAT_VERSION)
    );
    assert_eq!(boot.counts, Default::default());
    assert_eq!(storage.rows(Table::Lease).unwrap(), []);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(storage);
    assert!(!open(&path).1.created);
}

#[test]
fn a_missing_file_is_not_made_when_the_log_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { create: false, ..Options::default() };
    let error = Storage::open(&folder.path().join("db"), options).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn everything_committed_comes_back_after_a_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let mut workload = Workload::new(21);
    for _ in 0..3 {
        let (storage, boot) = open(&path);
        assert_eq!(boot.applied, workload.model.applied);
        assert_eq!(boot.conf_state, workload.model.conf_state);
        assert_eq!(boot.counts.records, workload.model.records.len() as u64);
        workload.model.expect(&storage);
        workload.fill(&storage, 3, 40);
        workload.model.expect(&storage);
    }
}

#[test]
fn a_scan_gives_exactly_its_range_and_stops_when_told() {
    let medium = MemMedium::default();
    let (storage, _) = medium.open().unwrap();
    let mut workload = Workload::new(8);
    workload.fill(&storage, 2, 50);
    let (from, until) = (Revision { main: 10, sub: 1 }, Revision { main: 60, sub: 1 });
    let expected = workload.model.records.range(from..until);
    let expected: Vec<_> = expected.map(|(at, record)| (*at, record.clone())).collect();
    assert_eq!(scan(&storage, from, until).unwrap(), expected);
    assert_eq!(scan(&storage, until, from).unwrap(), []);
    let mut seen = 0;
    let stop = &mut |_, _| {
        seen += 1;
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    Records::scan(&storage, from, until, stop).unwrap();
    assert_eq!(seen, 3);
    let nothing = Records::get(&storage, Revision { main: i64::MAX, sub: 0 });
    assert_eq!(nothing.unwrap(), None);
}

#[test]
fn threads_get_every_record_once_however_many_they_are() {
    fn check<const THREADS: usize>(storage: &Storage, commit: &Commit) {
        let parts = scanned::<THREADS>(&storage.view()).unwrap();
        let mut found: Vec<_> = parts.into_iter().flatten().map(|(at, _)| at).collect();
        found.sort_unstable();
        assert!(found.iter().copied().eq(commit.records.iter().map(|(at, _)| *at)));
    }
    let medium = MemMedium::default();
    let (storage, _) = medium.open().unwrap();
    let mut commit = at(1);
    check::<2>(&storage, &commit);
    // A gap, as compaction leaves them, and more than one thread claims at a time.
    let mains = (2..12_000).chain(900_000..910_000);
    commit.records.extend(mains.map(|main| (Revision::start_of(main), record("x"))));
    let many = (0..5000).map(|sub| (Revision { main: 910_000, sub }, record("x")));
    commit.records.extend(many);
    storage.commit(&commit, Durability::Checkpoint).unwrap();
    check::<1>(&storage, &commit);
    check::<2>(&storage, &commit);
    check::<5>(&storage, &commit);
}

#[test]
fn a_scan_of_all_ends_when_one_of_its_threads_has_enough() {
    let medium = MemMedium::default();
    let (storage, _) = medium.open().unwrap();
    let mut commit = at(1);
    commit.records.extend((2..100_000).map(|main| (Revision::start_of(main), record("x"))));
    storage.commit(&commit, Durability::Checkpoint).unwrap();
    let seen = AtomicUsize::new(0);
    let mut visits = [(); 2].map(|()| {
        |_: Revision, _: RawRecord<'_>| match seen.fetch_add(1, Ordering::Relaxed) {
            0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    let parts = &mut visits.each_mut().map(|visit| visit as &mut VisitPart<'_>);
    storage.view().scan_all(parts).unwrap();
    assert!(seen.into_inner() < commit.records.len());
}

#[test]
fn a_view_stays_what_it_was_while_commits_go_on() {
    let medium = MemMedium::default();
    let (storage, _) = medium.open().unwrap();
    let mut workload = Workload::new(4);
    workload.fill(&storage, 2, 30);
    let view = storage.view();
    let before = workload.model.clone();
    for _ in 0..5 {
        workload.fill(&storage, 2, 30);
    }
    for (revision, record) in &before.records {
        assert_eq!(view.get(*revision).unwrap().as_ref(), Some(record));
    }
    assert_eq!(view.applied(), before.applied);
    workload.model.expect(&storage);
}

#[test]
fn many_readers_see_whole_commits_while_one_writes() {
    let medium = MemMedium::default();
    let (storage, _) = medium.open().unwrap();
    let (storage, done) = (Arc::new(storage), Arc::new(AtomicBool::new(false)));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (storage, done) = (Arc::clone(&storage), Arc::clone(&done));
            thread::spawn(move || {
                while !done.load(Ordering::Acquire) {
                    let view = storage.view();
                    // Each commit adds one record of two parts and one row.
                    let index = view.applied().index;
                    assert_eq!(view.counts().records, index * 2);
                    assert_eq!(view.rows(Table::Cluster).unwrap().len() as u64, index.min(1));
                    if index > 0 {
                        let newest = Revision { main: index as i64, sub: 1 };
                        assert!(view.get(newest).unwrap().is_some());
                    }
                }
            })
        })
        .collect();
    for index in 1..=200 {
        let mut commit = at(index);
        let main = index as i64;
        commit.records = vec![
            (Revision { main, sub: 0 }, record("a")),
            (Revision { main, sub: 1 }, record("b")),
        ];
        commit.rows = vec![(Table::Cluster, "v".into(), Some("3.7.0".into()))];
        let durable = index % 20 == 0;
        storage
            .commit(&commit, if durable { Durability::Checkpoint } else { Durability::Buffered })
            .unwrap();
    }
    done.store(true, Ordering::Release);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

#[test]
fn what_goes_against_the_order_of_the_log_is_refused_and_changes_nothing() {
    let medium = MemMedium::default();
    let (storage, _) = medium.open().unwrap();
    let mut workload = Workload::new(2);
    workload.fill(&storage, 2, 10);
    let last = *workload.model.records.keys().last().unwrap();
    let applied = workload.model.applied;
    let back =
        Commit { applied: Applied { index: applied.index - 1, ..applied }, ..Commit::default() };
    let twice = Commit { applied, records: vec![(last, record("x"))], ..Commit::default() };
    let next = Revision { main: last.main + 1, sub: 0 };
    let equal = Commit {
        applied,
        records: vec![(next, record("x")), (next, record("y"))],
        ..Commit::default()
    };
    for wrong in [back, twice, equal] {
        let error = storage.commit(&wrong, Durability::Buffered).unwrap_err();
        assert!(matches!(error, Error::OutOfOrder { .. }), "{error}");
    }
    workload.model.expect(&storage);
    // Also when compaction took the highest one away.
    storage.remove_records(&[last]).unwrap();
    let again = Commit { applied, records: vec![(last, record("x"))], ..Commit::default() };
    assert!(storage.commit(&again, Durability::Buffered).is_err());
}

#[test]
fn removed_records_are_gone_and_absent_ones_are_skipped() {
    let medium = MemMedium::default();
    let (storage, _) = medium.open().unwrap();
    let mut workload = Workload::new(6);
    workload.fill(&storage, 3, 60);
    let before = storage.sizes().unwrap().live_bytes;
    let mut revisions: Vec<_> = workload.model.records.keys().copied().step_by(2).collect();
    revisions.push(Revision::start_of(1 << 40));
    storage.remove_records(&revisions).unwrap();
    workload.model.records.retain(|revision, _| !revisions.contains(revision));
    workload.model.expect(&storage);
    assert!(storage.sizes().unwrap().live_bytes < before);
}

#[test]
fn a_second_open_is_refused_until_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let first = open(&path).0;
    let error = Storage::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    drop(first);
    open(&path);
}

#[test]
fn a_copy_another_process_is_making_is_left_alone_and_a_stale_one_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("db"), folder.path().join("db.new"));
    std::fs::write(&copy, "half").unwrap();
    let held = std::fs::File::open(&copy).unwrap();
    held.try_lock().unwrap();
    let error = Storage::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    drop(held);
    drop(open(&path));
    std::fs::write(&copy, "half").unwrap();
    open(&path);
    assert!(!copy.exists());
}

#[test]
fn a_folder_that_is_missing_or_a_folder_at_the_place_of_the_file_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("none/db"), folder.path().to_owned()] {
        let line = Storage::open(&path, Options::default()).unwrap_err().to_string();
        assert!(line.contains(path.to_str().unwrap()) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn a_newer_format_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    drop(open(&path));
    let own: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("etched");
    let db = redb::Database::open(&path).unwrap();
    let writing = db.begin_write().unwrap();
    let version = (FORMAT_VERSION + 1).to_le_bytes();
    let crc = crc32c::crc32c(b"etched");
    let crc = crc32c::crc32c_append(crc, &6_u64.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, b"format"), &version);
    let value = [&crc.to_le_bytes()[..], &version].concat();
    writing.open_table(own).unwrap().insert(b"format".as_slice(), value.as_slice()).unwrap();
    writing.commit().unwrap();
    drop(db);
    let error = Storage::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, Error::TooNew { found: 2, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("start a newer etched"));
}

#[test]
fn a_row_lost_behind_our_back_is_found_at_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let (storage, _) = open(&path);
    let mut commit = at(1);
    commit.rows.push((Table::Auth, "authEnabled".into(), Some("1".into())));
    storage.commit(&commit, Durability::Checkpoint).unwrap();
    drop(storage);
    let db = redb::Database::open(&path).unwrap();
    let writing = db.begin_write().unwrap();
    let auth: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("auth");
    writing.open_table(auth).unwrap().remove(b"authEnabled".as_slice()).unwrap();
    writing.commit().unwrap();
    drop(db);
    let error = Storage::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("row counts"), "{error}");
}

#[test]
fn defragmentation_shrinks_the_file_and_keeps_everything_also_for_readers_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let (storage, _) = open(&path);
    let mut workload = Workload::new(31);
    workload.fill(&storage, 10, 300);
    let revisions: Vec<_> = workload.model.records.keys().copied().collect();
    let (gone, kept) = revisions.split_at(revisions.len() * 9 / 10);
    storage.remove_records(gone).unwrap();
    workload.model.records.retain(|revision, _| kept.contains(revision));
    let (before, view) = (storage.sizes().unwrap(), storage.view());
    storage.defragment().unwrap();
    let after = storage.sizes().unwrap();
    assert!(after.file_bytes < before.file_bytes / 2, "{before:?} {after:?}");
    assert!(view.get(kept[0]).unwrap().is_some());
    workload.model.expect(&storage);
    workload.fill(&storage, 1, 10);
    drop((view, storage));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    workload.model.expect(&open(&path).0);
}

#[test]
fn a_copy_follows_every_commit_made_while_it_grows() {
    for seed in 100..120 {
        println!("seed {seed}");
        let medium = MemMedium::default();
        let (storage, _) = medium.open().unwrap();
        let mut workload = Workload::new(seed);
        workload.fill(&storage, 3, 40);
        let mut copy = storage.begin_defragment().unwrap();
        let mut steps = 0;
        // Commits of a few hundred bytes a record, so that the copy gains on them.
        while copy.step(12_000).unwrap() {
            if workload.seed.below(3) > 0 {
                let durable = workload.seed.below(4) == 0;
                let durability =
                    if durable { Durability::Checkpoint } else { Durability::Buffered };
                storage.commit(&workload.commit(6), durability).unwrap();
                workload.model.expect(&storage);
            }
            steps += 1;
        }
        assert!(steps > 2, "{steps} steps show nothing");
        storage.commit(&workload.commit(5), Durability::Buffered).unwrap();
        copy.finish(|| true).unwrap();
        workload.model.expect(&storage);
        storage.commit(&workload.commit(5), Durability::Buffered).unwrap();
        workload.model.expect(&storage);
        workload.fill(&storage, 1, 5);
        drop(storage);
        workload.model.expect(&medium.open().unwrap().0);
    }
}

#[test]
fn a_copy_that_is_given_up_or_may_not_be_durable_leaves_the_file_as_it_was() {
    let medium = MemMedium::default();
    let (storage, _) = medium.open().unwrap();
    let mut workload = Workload::new(37);
    workload.fill(&storage, 3, 30);
    let mut copy = storage.begin_defragment().unwrap();
    copy.step(1000).unwrap();
    assert!(medium.disk().copy.is_some());
    drop(copy);
    assert_eq!(medium.disk().copy, None);
    let mut copy = storage.begin_defragment().unwrap();
    while copy.step(5000).unwrap() {}
    storage.commit(&workload.commit(5), Durability::Buffered).unwrap();
    let error = copy.finish(|| false).unwrap_err();
    assert!(matches!(error, Error::Stopped { .. }), "{error}");
    assert_eq!(medium.disk().copy, None);
    assert_eq!(medium.disk().main, Some(0));
    workload.model.expect(&storage);
    workload.fill(&storage, 1, 5);
    storage.defragment().unwrap();
    workload.model.expect(&storage);
}

#[test]
fn a_disk_that_fills_up_under_a_copy_costs_the_copy_only() {
    let medium = MemMedium::default();
    let (storage, _) = medium.open().unwrap();
    let mut workload = Workload::new(39);
    workload.fill(&storage, 3, 300);
    let mut copy = storage.begin_defragment().unwrap();
    copy.step(10_000).unwrap();
    medium.disk().available = Some(1000);
    let error = copy.step(10_000).unwrap_err();
    assert!(matches!(error, Error::NoSpace { usable: true, .. }), "{error}");
    // Now the disk says so only when it is written to.
    medium.disk().room_lies = true;
    let error = loop {
        match copy.step(1 << 20) {
            Ok(true) => {}
            Ok(false) => break copy.finish(|| true).unwrap_err(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::NoSpace { usable: true, .. }), "{error}");
    medium.disk().available = None;
    medium.disk().room_lies = false;
    workload.fill(&storage, 1, 5);
    workload.model.expect(&storage);
}

#[test]
fn a_full_disk_refuses_a_commit_and_takes_the_next_one_after_room_was_made() {
    let medium = MemMedium::default();
    let (storage, _) = medium.open().unwrap();
    let mut workload = Workload::new(41);
    workload.fill(&storage, 3, 30);
    let model = workload.model.clone();
    let commit = workload.commit(30);
    medium.disk().available = Some(1000);
    let error = storage.commit(&commit, Durability::Buffered).unwrap_err();
    assert!(matches!(error, Error::NoSpace { usable: true, .. }), "{error}");
    model.expect(&storage);
    let error = storage.defragment().unwrap_err();
    assert!(matches!(error, Error::NoSpace { usable: true, .. }), "{error}");
    medium.disk().available = None;
    storage.commit(&commit, Durability::Checkpoint).unwrap();
    workload.model.expect(&storage);
}

#[test]
fn a_disk_that_fills_up_in_the_middle_says_that_the_handle_is_of_no_more_use() {
    let medium = MemMedium::default();
    let (storage, _) = medium.open().unwrap();
    let mut workload = Workload::new(43);
    workload.fill(&storage, 3, 30);
    let model = workload.model.clone();
    let commit = workload.commit(30);
    let full = |medium: &MemMedium| {
        let mut disk = medium.disk();
        (disk.available, disk.room_lies) = (Some(0), true);
    };
    full(&medium);
    let error = storage.commit(&commit, Durability::Checkpoint).unwrap_err();
    assert!(matches!(error, Error::NoSpace { usable: false, .. }), "{error}");
    let error = storage.commit(&commit, Durability::Buffered).unwrap_err();
    assert!(matches!(error, Error::Stopped { .. }), "{error}");
    drop(storage);
    medium.disk().available = None;
    let (storage, boot) = medium.open().unwrap();
    assert_eq!(boot.applied, model.applied);
    model.expect(&storage);
    storage.commit(&commit, Durability::Checkpoint).unwrap();
}
