//! The log on real files: names, sizes, locks, and a log of real etcd.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use etched_proto::raftpb::ConfState;
use etched_wal::disk::{Disk as _, DiskFile as _, Open, RealDisk};
use etched_wal::{Entry, Error, HardState, Options, SnapshotMark, Wal, read, valid_snapshots};
use tempfile::TempDir;

const METADATA: &[u8] = b"\x08\x01\x10\x02";
const SMALL: u64 = 16 << 10;

fn options() -> Options {
    Options { segment_bytes: SMALL, ..Options::default() }
}

fn new_log() -> (TempDir, PathBuf, Wal) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("member/wal");
    RealDisk.create_dir(dir.parent().unwrap()).unwrap();
    let wal = Wal::create(RealDisk, &dir, METADATA, &options()).unwrap();
    (temp, dir, wal)
}

fn entry(index: u64, bytes: usize) -> Entry {
    Entry { term: 1, index, data: Bytes::from(vec![index as u8 | 1; bytes]), ..Entry::default() }
}

fn state(commit: u64) -> HardState {
    HardState { term: 1, vote: 7, commit }
}

fn mark(index: u64) -> SnapshotMark {
    let conf_state = ConfState { voters: vec![7], ..ConfState::default() };
    SnapshotMark { index, term: 1, conf_state: Some(conf_state) }
}

fn open(dir: &Path, at: &SnapshotMark) -> Result<(Wal, etched_wal::Contents), Error> {
    Wal::open(RealDisk, dir, at, &options())
}

fn names(dir: &Path) -> Vec<String> {
    RealDisk.list(dir).unwrap()
}

/// Entries 1..=40 of 1000 bytes, each with a state that commits it: three segments.
fn three_segments(wal: &mut Wal) {
    for index in 1..=40 {
        wal.save(Some(&state(index)), &[entry(index, 1000)], false).unwrap();
    }
}

#[test]
fn a_new_log_has_its_full_size_and_the_next_one_reserved() {
    let (_temp, dir, wal) = new_log();
    assert_eq!(names(&dir), ["0.tmp", "0000000000000000-0000000000000000.wal"]);
    let size = |name: &str| std::fs::metadata(dir.join(name)).unwrap().len();
    assert_eq!((size("0.tmp"), size("0000000000000000-0000000000000000.wal")), (SMALL, SMALL));
    assert!(!dir.with_extension("tmp").exists());
    assert!(wal.next_is_reserved());
    wal.close().unwrap();
    assert_eq!(names(&dir), ["0000000000000000-0000000000000000.wal"]);
    assert!(matches!(Wal::create(RealDisk, &dir, METADATA, &options()), Err(Error::Exists { .. })));
}

#[test]
fn a_segment_is_cut_at_its_used_length_and_the_next_is_named_after_what_follows() {
    let (_temp, dir, mut wal) = new_log();
    three_segments(&mut wal);
    drop(wal);
    let segments: Vec<_> = names(&dir).into_iter().filter(|name| name.ends_with(".wal")).collect();
    assert_eq!(
        segments,
        [
            "0000000000000000-0000000000000000.wal",
            "0000000000000001-0000000000000011.wal",
            "0000000000000002-0000000000000021.wal",
        ]
    );
    let first = std::fs::metadata(dir.join(&segments[0])).unwrap().len();
    assert!((SMALL..SMALL + 1100).contains(&first), "{first}");
    let (wal, contents) = open(&dir, &SnapshotMark::default()).unwrap();
    assert_eq!(contents.entries, (1..=40).map(|index| entry(index, 1000)).collect::<Vec<_>>());
    assert_eq!(contents.hard_state, state(40));
    assert_eq!((wal.last_index(), wal.metadata().as_ref()), (40, METADATA));
}

#[test]
fn release_keeps_what_the_newest_usable_mark_needs() {
    let (_temp, dir, mut wal) = new_log();
    three_segments(&mut wal);
    assert!(wal.release_to(40).unwrap().is_empty());
    wal.save_snapshot(&mark(35)).unwrap();
    assert!(wal.release_to(34).unwrap().is_empty());
    let removed = wal.release_to(36).unwrap();
    assert_eq!(
        removed,
        [
            dir.join("0000000000000000-0000000000000000.wal"),
            dir.join("0000000000000001-0000000000000011.wal")
        ]
    );
    drop(wal);
    assert_eq!(valid_snapshots(&RealDisk, &dir).unwrap(), [mark(35)]);
    let (_, contents) = open(&dir, &mark(35)).unwrap();
    assert_eq!(contents.entries.first().map(|entry| entry.index), Some(36));
    assert!(matches!(
        open(&dir, &SnapshotMark::default()),
        Err(Error::NoSegmentFor { index: 0, .. })
    ));
}

#[test]
fn segments_come_and_go_on_threads_beside_as_they_do_without() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let options = Options { beside: true, ..options() };
    let mut wal = Wal::create(RealDisk, &dir, METADATA, &options).unwrap();
    three_segments(&mut wal);
    while !wal.next_is_reserved() {
        wal.reserve_next().unwrap();
    }
    wal.save_snapshot(&mark(35)).unwrap();
    assert_eq!(wal.release_to(36).unwrap().len(), 2);
    wal.close().unwrap();
    assert_eq!(names(&dir), ["0000000000000002-0000000000000021.wal"]);
    let (wal, contents) = Wal::open(RealDisk, &dir, &mark(35), &options).unwrap();
    assert_eq!(contents.entries.len(), 5);
    // Whoever lets go of a log has let go of its folder.
    drop(wal);
    temp.close().unwrap();
}

#[test]
fn a_log_that_is_only_read_stays_as_it_is_torn_end_included() {
    let (_temp, dir, mut wal) = new_log();
    three_segments(&mut wal);
    wal.save_snapshot(&mark(20)).unwrap();
    assert!(matches!(read(&RealDisk, &dir, &mark(20), 0), Err(Error::Locked { .. })));
    drop(wal);
    let last = dir.join(names(&dir).pop().unwrap());
    let whole = std::fs::read(&last).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let torn = [&whole[..used + 8 - used % 8], &[0x50, 0, 0, 0, 0, 0, 0, 0, 7]].concat();
    std::fs::write(&last, &torn).unwrap();
    let listed = names(&dir);
    let said = read(&RealDisk, &dir, &mark(20), 0).unwrap();
    assert_eq!((names(&dir), std::fs::read(&last).unwrap()), (listed, torn));
    assert_eq!(said.entries.first().map(|entry| entry.index), Some(21));
    let (_wal, opened) = open(&dir, &mark(20)).unwrap();
    assert!(opened.repair.is_some());
    assert_eq!(said, etched_wal::Contents { repair: None, ..opened });
}

#[test]
fn a_mark_above_the_commit_index_is_not_valid_and_releases_nothing() {
    let (_temp, dir, mut wal) = new_log();
    three_segments(&mut wal);
    wal.save_snapshot(&mark(50)).unwrap();
    assert!(wal.release_to(50).unwrap().is_empty());
    assert_eq!(valid_snapshots(&RealDisk, &dir).unwrap(), [SnapshotMark::default()]);
    wal.save(Some(&state(50)), &[], true).unwrap();
    assert_eq!(wal.release_to(50).unwrap().len(), 2);
}

#[test]
fn entries_that_were_replaced_from_below_the_mark_are_not_read() {
    let (_temp, dir, mut wal) = new_log();
    let old: Vec<_> = (1..=9).map(|index| entry(index, 5)).collect();
    wal.save(Some(&state(3)), &old, false).unwrap();
    let new: Vec<_> = (5..=6).map(|index| Entry { term: 2, ..entry(index, 5) }).collect();
    wal.save(Some(&HardState { term: 2, vote: 0, commit: 6 }), &new, false).unwrap();
    let at = SnapshotMark { term: 2, ..mark(6) };
    wal.save_snapshot(&at).unwrap();
    drop(wal);
    let (wal, contents) = open(&dir, &at).unwrap();
    assert_eq!((contents.entries, wal.last_index()), (vec![], 6));
}

#[test]
fn a_mark_from_the_leader_replaces_the_log() {
    let (_temp, dir, mut wal) = new_log();
    wal.save(Some(&state(3)), &(1..=9).map(|index| entry(index, 5)).collect::<Vec<_>>(), false)
        .unwrap();
    let received = SnapshotMark { term: 4, ..mark(6) };
    wal.save_snapshot(&received).unwrap();
    wal.save(Some(&HardState { term: 4, vote: 0, commit: 6 }), &[], false).unwrap();
    drop(wal);
    let (_, contents) = open(&dir, &received).unwrap();
    assert_eq!(contents.entries, []);
    let mismatch = open(&dir, &mark(6)).unwrap_err();
    assert!(
        matches!(mismatch, Error::SnapshotMismatch { expected: 1, found: 4, .. }),
        "{mismatch}"
    );
    assert!(matches!(open(&dir, &mark(5)), Err(Error::SnapshotNotFound { index: 5, .. })));
}

#[test]
fn a_log_that_is_held_is_refused_at_once_or_waited_for() {
    let (_temp, dir, mut wal) = new_log();
    wal.save(Some(&state(0)), &[entry(1, 9)], false).unwrap();
    assert!(matches!(open(&dir, &SnapshotMark::default()), Err(Error::Locked { .. })));
    let waiting = std::thread::spawn({
        let dir = dir.clone();
        move || {
            let options = Options { wait_for_lock: true, ..options() };
            Wal::open(RealDisk, &dir, &SnapshotMark::default(), &options).map(|(_, read)| read)
        }
    });
    // Written while the other may wait already: it must read it all the same.
    wal.save(Some(&state(1)), &[entry(2, 9)], false).unwrap();
    drop(wal);
    let contents = waiting.join().unwrap().unwrap();
    assert_eq!((contents.entries.len(), contents.hard_state), (2, state(1)));
}

#[test]
fn a_creation_that_was_interrupted_starts_over_and_one_under_way_is_respected() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let building = temp.path().join("wal.tmp");
    RealDisk.create_dir(&building).unwrap();
    let left = building.join("0000000000000000-0000000000000000.wal");
    let file = RealDisk.open(&left, Open::CreateNew).unwrap();
    assert!(file.try_lock().unwrap());
    let refused = Wal::create(RealDisk, &dir, METADATA, &options()).unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }), "{refused}");
    drop(file);
    Wal::create(RealDisk, &dir, METADATA, &options()).unwrap();
    assert!(!building.exists());
}

#[test]
fn opening_a_log_removes_nothing_beside_it() {
    let (_temp, dir, wal) = new_log();
    drop(wal);
    // As `cp -a wal wal.tmp` makes it: somebody's copy.
    let copy = dir.with_extension("tmp");
    let segment = copy.join("0000000000000000-0000000000000000.wal");
    std::fs::create_dir(&copy).unwrap();
    std::fs::write(&segment, [0; 100]).unwrap();
    drop(open(&dir, &SnapshotMark::default()).unwrap());
    assert!(segment.exists());
}

#[test]
fn a_log_is_made_beside_its_name_however_that_is_spelled() {
    let temp = tempfile::tempdir().unwrap();
    for spelled in ["a/wal/", "b//wal//", "c/wal/.", "./d/wal"] {
        let dir = temp.path().join(spelled);
        Wal::create(RealDisk, &dir, METADATA, &options()).unwrap().close().unwrap();
        assert_eq!(names(dir.parent().unwrap()), ["wal"], "{spelled}");
        open(&dir, &SnapshotMark::default()).unwrap();
    }
}

#[test]
fn a_creation_that_fails_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("notes"), "of somebody").unwrap();
    let refused = Wal::create(RealDisk, &dir, METADATA, &options()).unwrap_err();
    assert!(matches!(refused, Error::Io { action: "rename", .. }), "{refused}");
    assert_eq!((names(temp.path()), names(&dir)), (vec!["wal".into()], vec!["notes".into()]));
}

#[test]
fn a_hole_in_the_sequence_is_refused() {
    let (_temp, dir, mut wal) = new_log();
    three_segments(&mut wal);
    drop(wal);
    std::fs::remove_file(dir.join("0000000000000001-0000000000000011.wal")).unwrap();
    let error = open(&dir, &SnapshotMark::default()).unwrap_err();
    assert!(matches!(error, Error::MissingSegment { missing: 1, .. }), "{error}");
}

#[test]
fn a_missing_directory_gives_one_line_with_the_path() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("nowhere");
    let error = open(&dir, &SnapshotMark::default()).unwrap_err().to_string();
    assert!(error.starts_with("wal: cannot list ") && error.contains("nowhere"), "{error}");
    assert!(!error.contains('\n'));
}

#[test]
fn a_log_of_real_etcd_is_read_and_continued() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    std::fs::create_dir(&dir).unwrap();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/etcd-3.7.1.wal");
    std::fs::copy(fixture, dir.join("0000000000000000-0000000000000000.wal")).unwrap();
    let marks = valid_snapshots(&RealDisk, &dir).unwrap();
    assert_eq!(marks.iter().map(|mark| mark.index).collect::<Vec<_>>(), [0, 7, 14]);
    let (mut wal, contents) = open(&dir, &marks[2]).unwrap();
    assert_eq!(contents.hard_state.commit, 20);
    assert_eq!(
        contents.entries.iter().map(|e| e.index).collect::<Vec<_>>(),
        [15, 16, 17, 18, 19, 20]
    );
    assert_eq!(contents.repair, None);
    let next = Entry { term: 3, ..entry(21, 10) };
    wal.save(None, std::slice::from_ref(&next), false).unwrap();
    drop(wal);
    let (_, contents) = open(&dir, &marks[2]).unwrap();
    assert_eq!(contents.entries.last(), Some(&next));
}
