//! Damage is refused, a torn end is cut off, and nothing else is ever read as it was not written.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use etched_proto::raftpb::ConfState;
use etched_sim::{Loss, SimDisk};
use etched_wal::disk::Disk as _;
use etched_wal::{
    Contents, Damage, Entry, EntryKind, Error, HardState, Options, SnapshotMark, Wal,
};

const DIR: &str = "/data/wal";

fn options() -> Options {
    Options { segment_bytes: 4 << 10, ..Options::default() }
}

fn entry(index: u64, data: &[u8]) -> Entry {
    Entry { term: 2, index, data: Bytes::copy_from_slice(data), ..Entry::default() }
}

fn state(commit: u64) -> HardState {
    HardState { term: 2, vote: 1, commit }
}

fn new_log(disk: &SimDisk) -> Wal<SimDisk> {
    disk.create_dir(Path::new("/data")).unwrap();
    // Ids with every byte in use, as real ones.
    let metadata =
        b"\x08\xc0\xc0\xca\xaf\xc1\xba\x96\x89\x2e\x10\x87\xd5\xed\xba\x8f\xd5\x9d\xc1\x04";
    Wal::create(disk.clone(), Path::new(DIR), metadata, &options()).unwrap()
}

fn open(disk: &SimDisk) -> Result<Contents, Error> {
    let at = SnapshotMark::default();
    Wal::open(disk.clone(), Path::new(DIR), &at, &options()).map(|(_, contents)| contents)
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let names = disk.list(Path::new(DIR)).unwrap();
    let wal = names.iter().filter(|name| name.ends_with(".wal"));
    wal.map(|name| Path::new(DIR).join(name)).collect()
}

/// A log with a record of each kind, in two segments. The second write but the last ends at the
/// offset that is answered.
fn small_log(disk: &SimDisk) -> Contents {
    let mut wal = new_log(disk);
    let change = Entry { kind: EntryKind::ConfChange, ..entry(1, b"\x10\0\x18\x05") };
    wal.save(Some(&state(1)), &[change], false).unwrap();
    // A new leader's empty entry, and small numbers: what is easiest to mistake for something else.
    wal.save(Some(&state(1)), &[entry(2, b"")], false).unwrap();
    wal.save(Some(&state(2)), &[entry(3, &[7; 900]), entry(4, &[8; 900])], false).unwrap();
    wal.save(Some(&state(4)), &[entry(5, &[9; 2100])], false).unwrap();
    assert_eq!(segments(disk).len(), 2, "the log is to have a second segment");
    wal.save(Some(&state(5)), &[entry(6, b"six"), entry(7, b"seven")], false).unwrap();
    let conf_state = ConfState { voters: vec![5], ..ConfState::default() };
    wal.save_snapshot(&SnapshotMark { index: 5, term: 2, conf_state: Some(conf_state) }).unwrap();
    wal.save(Some(&state(7)), &[entry(8, &[0; 600])], false).unwrap();
    wal.save(Some(&state(8)), &[entry(9, b"nine")], false).unwrap();
    drop(wal);
    open(disk).unwrap()
}

/// Bytes of a segment up to the zeros at its end.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| (last + 8) / 8 * 8)
}

#[test]
fn no_flipped_bit_is_ever_read_as_data() {
    let disk = SimDisk::new();
    let whole = small_log(&disk);
    let paths = segments(&disk);
    let originals: Vec<_> = paths.iter().map(|path| disk.read(path).unwrap()).collect();
    let (mut refused, mut repaired, mut unharmed) = (0, 0, 0);
    for (path, original) in paths.iter().zip(&originals) {
        for at in 0..used(original) {
            for flip in (0..8).map(|bit| 1 << bit).chain([0xff, original[at]]) {
                if flip == 0 {
                    continue;
                }
                let mut bytes = original.clone();
                bytes[at] ^= flip;
                disk.put(path, &bytes).unwrap();
                let case = format!("{} byte {at} flip {flip:#04x}", path.display());
                match open(&disk) {
                    Err(error) => {
                        assert!(error.to_string().contains(".wal"), "{case}: {error}");
                        refused += 1;
                    }
                    Ok(contents) if contents == whole => unharmed += 1,
                    Ok(contents) => {
                        // Only from the damage on, only in the last segment, never the write before
                        // the last one: that was synced, and what follows it tells.
                        let kept = contents.entries.len();
                        assert_eq!(contents.entries, whole.entries[..kept], "{case}");
                        assert!(kept >= 7 && *path == paths[1], "{case}: {contents:?}");
                        repaired += 1;
                    }
                }
                for (path, original) in paths.iter().zip(&originals) {
                    disk.put(path, original).unwrap();
                }
            }
        }
    }
    assert_eq!(unharmed, 0, "a flipped bit went unnoticed");
    assert!(repaired > 0 && refused > 50 * repaired, "{refused} refused, {repaired} repaired");
}

#[test]
fn a_record_torn_at_a_sector_is_cut_off_and_the_segment_kept_aside() {
    let disk = SimDisk::new();
    let mut wal = new_log(&disk);
    wal.save(Some(&state(0)), &[entry(1, b"kept")], false).unwrap();
    let end = wal.appended_bytes();
    wal.save(Some(&state(1)), &[entry(2, &[1; 2000])], false).unwrap();
    drop(wal);
    let path = segments(&disk)[0].clone();
    let mut bytes = disk.read(&path).unwrap();
    bytes[1024..1536].fill(0);
    disk.put(&path, &bytes).unwrap();
    let contents = open(&disk).unwrap();
    let repair = contents.repair.expect("the end was torn");
    assert_eq!(contents.entries, [entry(1, b"kept")]);
    assert_eq!((repair.offset, &repair.path), (end, &path));
    assert_eq!(disk.read(&repair.broken).unwrap(), bytes);
    assert_eq!(open(&disk).unwrap().repair, None);
}

#[test]
fn a_lost_sector_in_front_of_synced_records_is_damage_and_not_a_torn_end() {
    let disk = SimDisk::new();
    let mut wal = new_log(&disk);
    wal.save(Some(&state(0)), &[entry(1, &[1; 1500])], false).unwrap();
    wal.save(Some(&state(1)), &[entry(2, b"acknowledged")], false).unwrap();
    wal.save(Some(&state(2)), &[entry(3, b"acknowledged")], false).unwrap();
    drop(wal);
    let path = segments(&disk)[0].clone();
    let whole = disk.read(&path).unwrap();
    // Once in the middle of the record, once all of its beginning.
    for lost in [512..1024, 80..1024] {
        let mut bytes = whole.clone();
        bytes[lost].fill(0);
        disk.put(&path, &bytes).unwrap();
        let error = open(&disk).unwrap_err();
        assert!(
            matches!(&error, Error::Damaged { damage: Damage::BeforeSynced { .. }, .. }),
            "{error}"
        );
        assert_eq!(disk.read(&path).unwrap(), bytes, "a damaged log is left as it is");
    }
}

#[test]
fn garbage_behind_the_end_is_cut_off() {
    let disk = SimDisk::new();
    let mut wal = new_log(&disk);
    wal.save(Some(&state(0)), &[entry(1, b"kept")], false).unwrap();
    let end = wal.appended_bytes() as usize;
    drop(wal);
    let path = segments(&disk)[0].clone();
    for (start, garbage) in [(end, 0xa5), (end, 0x01), (end + 8, 0xff), (4000, 0x33)] {
        let mut bytes = disk.read(&path).unwrap();
        bytes[start..start + 60].fill(garbage);
        disk.put(&path, &bytes).unwrap();
        match open(&disk) {
            Ok(contents) => assert_eq!(contents.entries, [entry(1, b"kept")]),
            Err(error) => panic!("{start} {garbage:#x}: {error}"),
        }
        assert_eq!(used(&disk.read(&path).unwrap()), end);
    }
}

#[test]
fn a_file_that_ends_inside_a_record_is_repaired() {
    let disk = SimDisk::new();
    let mut wal = new_log(&disk);
    wal.save(Some(&state(0)), &[entry(1, b"kept")], false).unwrap();
    let kept = wal.appended_bytes() as usize;
    wal.save(None, &[entry(2, b"torn")], false).unwrap();
    let end = wal.appended_bytes() as usize;
    drop(wal);
    let path = segments(&disk)[0].clone();
    let whole = disk.read(&path).unwrap();
    for len in kept + 1..end {
        disk.put(&path, &whole[..len]).unwrap();
        let contents = open(&disk).unwrap();
        assert_eq!(contents.entries, [entry(1, b"kept")], "cut to {len}");
        assert_eq!(contents.repair.map(|repair| repair.offset), Some(kept as u64), "cut to {len}");
    }
}

#[test]
fn a_full_disk_gives_one_line_and_the_reserved_segments_are_still_used() {
    let disk = SimDisk::new();
    let mut wal = new_log(&disk);
    disk.set_capacity(Some(disk.reserved_bytes()));
    let (mut index, mut failed) = (0, None);
    while failed.is_none() {
        index += 1;
        failed = wal.save(Some(&state(index - 1)), &[entry(index, &[5; 100])], false).err();
    }
    let error = failed.unwrap();
    assert!(error.is_disk_full(), "{error}");
    assert!(error.to_string().contains("No space left on device"), "{error}");
    assert!(index * 100 > 4 << 10, "the reserved segment was not used: {index} entries");
    assert!(matches!(wal.save(None, &[], true), Err(Error::Poisoned { .. })));
    drop(wal);
    // Nothing that was said to be durable is gone, and with space the log goes on.
    disk.restart(Loss::Unsynced);
    disk.set_capacity(None);
    assert!(open(&disk).unwrap().entries.len() as u64 >= index - 1);
}

#[test]
fn after_a_failed_sync_nothing_more_is_written() {
    let disk = SimDisk::new();
    let mut wal = new_log(&disk);
    wal.save(Some(&state(0)), &[entry(1, b"durable")], false).unwrap();
    disk.fail_sync_after(0);
    let error = wal.save(Some(&state(1)), &[entry(2, b"lost")], false).unwrap_err().to_string();
    assert!(error.starts_with("wal: cannot sync /data/wal/"), "{error}");
    assert!(error.contains("Input/output error") && !error.contains('\n'), "{error}");
    let operations = disk.operations();
    for _ in 0..2 {
        let again = wal.save(Some(&state(1)), &[entry(3, b"refused")], false);
        assert!(matches!(again, Err(Error::Poisoned { .. })));
    }
    assert!(matches!(wal.save_snapshot(&SnapshotMark::default()), Err(Error::Poisoned { .. })));
    assert_eq!(disk.operations(), operations);
    drop(wal);
    disk.restart(Loss::Unsynced);
    assert_eq!(open(&disk).unwrap().entries, [entry(1, b"durable")]);
}

#[test]
fn a_read_only_disk_gives_one_line_with_the_path() {
    let disk = SimDisk::new();
    drop(new_log(&disk));
    disk.set_read_only(true);
    let error = open(&disk).unwrap_err().to_string();
    assert!(error.contains("/data/wal/0000000000000000-0000000000000000.wal"), "{error}");
    assert!(error.contains("read-only") && !error.contains('\n'), "{error}");
    let created = Wal::create(disk, Path::new("/data/other"), b"", &options()).unwrap_err();
    assert!(created.to_string().contains("read-only"), "{created}");
}

#[test]
fn a_state_that_moves_only_the_commit_index_costs_no_operation() {
    let disk = SimDisk::new();
    let mut wal = new_log(&disk);
    wal.save(Some(&state(0)), &[entry(1, b"one")], false).unwrap();
    let operations = disk.operations();
    wal.save(Some(&state(1)), &[], false).unwrap();
    assert_eq!(disk.operations(), operations);
    wal.save(Some(&state(1)), &[entry(2, b"two"), entry(3, b"three")], false).unwrap();
    assert_eq!(disk.operations(), operations + 2, "one write and one sync");
    wal.save(Some(&state(3)), &[], false).unwrap();
    wal.close().unwrap();
    assert_eq!(open(&disk).unwrap().hard_state, state(3));
}

#[test]
#[should_panic(expected = "replaces a committed one")]
fn an_entry_that_is_committed_cannot_be_replaced() {
    let mut wal = new_log(&SimDisk::new());
    wal.save(Some(&state(2)), &[entry(1, b"one"), entry(2, b"two")], false).unwrap();
    let _ = wal.save(None, &[entry(2, b"other")], false);
}
