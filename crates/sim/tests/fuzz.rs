//! Segments of the log with anything in them.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

use std::path::Path;

use bytes::Bytes;
use etched_fuzz::{Target, outcome, shape};
use etched_proto::raftpb::ConfState;
use etched_sim::SimDisk;
use etched_wal::disk::Disk as _;
use etched_wal::{Contents, Entry, EntryKind, Error, HardState, Options, SnapshotMark, Wal};

const DIR: &str = "/data/wal";
const FIRST: &str = "/data/wal/0000000000000000-0000000000000000.wal";
const SECOND: &str = "/data/wal/0000000000000001-0000000000000006.wal";

fn options() -> Options {
    Options { segment_bytes: 4 << 10, ..Options::default() }
}

fn open(disk: &SimDisk) -> Result<Contents, Error> {
    let at = SnapshotMark::default();
    Wal::open(disk.clone(), Path::new(DIR), &at, &options()).map(|(_, contents)| contents)
}

/// The two segments of a log with a record of each kind.
fn segments() -> [Vec<u8>; 2] {
    let disk = SimDisk::new();
    disk.create_dir(Path::new("/data")).unwrap();
    let mut wal =
        Wal::create(disk.clone(), Path::new(DIR), b"\x08\x01\x10\x02", &options()).unwrap();
    let state = |commit| HardState { term: 2, vote: 1, commit };
    let entry = |index, data: &[u8]| Entry {
        term: 2,
        index,
        data: Bytes::copy_from_slice(data),
        ..Entry::default()
    };
    let change = Entry { kind: EntryKind::ConfChange, ..entry(1, b"\x10\0\x18\x05") };
    wal.save(Some(&state(1)), &[change], false).unwrap();
    wal.save(Some(&state(2)), &[entry(2, b""), entry(3, &[7; 900]), entry(4, &[8; 900])], false)
        .unwrap();
    wal.save(Some(&state(4)), &[entry(5, &[9; 2100])], false).unwrap();
    wal.save(Some(&state(5)), &[entry(6, b"six"), entry(7, b"seven")], false).unwrap();
    let conf_state = ConfState { voters: vec![5], ..ConfState::default() };
    wal.save_snapshot(&SnapshotMark { index: 5, term: 2, conf_state: Some(conf_state) }).unwrap();
    wal.save(Some(&state(7)), &[entry(8, b"eight")], false).unwrap();
    drop(wal);
    [FIRST, SECOND].map(|path| {
        let bytes = disk.read(Path::new(path)).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 8);
        bytes[..end.min(bytes.len())].to_vec()
    })
}

/// A log that opens is one: it opens again with the same contents, and takes a record that is there afterwards. The
/// first byte says which of the two segments the rest is.
#[test]
fn fuzzed_segments_open_for_good_or_not_at_all() {
    let [first, second] = segments();
    let seeds = [[&[0][..], &first].concat(), [&[1][..], &second].concat()];
    let fixture = include_bytes!("../../wal/testdata/etcd-3.7.1.wal");
    let seeds = seeds.into_iter().chain([[&[0][..], fixture].concat()]);
    // The disk is in memory too, and a torn segment is copied.
    Target::new(env!("CARGO_MANIFEST_DIR"), "segments")
        .seeds(seeds)
        .bytes_max(8192)
        .memory(4 << 20, 64)
        .run(|input| {
            let Some((which, bytes)) = input.split_first() else { return 0 };
            let disk = SimDisk::new();
            for dir in ["/data", DIR] {
                disk.create_dir(Path::new(dir)).unwrap();
            }
            match which % 4 {
                0 => disk.put(Path::new(FIRST), bytes).unwrap(),
                1 => {
                    disk.put(Path::new(FIRST), &first).unwrap();
                    disk.put(Path::new(SECOND), bytes).unwrap();
                }
                _ => {
                    disk.put(Path::new(FIRST), bytes).unwrap();
                    disk.put(Path::new(SECOND), &second).unwrap();
                }
            }
            let _ = etched_wal::valid_snapshots(&disk, Path::new(DIR));
            let told = etched_wal::read(&disk, Path::new(DIR), &SnapshotMark::default(), 0);
            let contents = match open(&disk) {
                Ok(contents) => contents,
                Err(error) => return outcome(&error.to_string()),
            };
            let told = told.expect("what opens can be read without a change");
            assert_eq!((&told.entries, told.hard_state), (&contents.entries, contents.hard_state));
            let again = open(&disk).expect("what opened once opens again");
            assert_eq!(again.repair, None, "repaired once");
            assert_eq!(
                (&again.entries, again.hard_state),
                (&contents.entries, contents.hard_state)
            );
            let at = SnapshotMark::default();
            let (mut wal, _) = Wal::open(disk.clone(), Path::new(DIR), &at, &options()).unwrap();
            let last = contents.entries.last().map_or((0, 1), |entry| (entry.index, entry.term));
            let index = last.0 + 1;
            let term = contents.hard_state.term.max(last.1);
            if index > u64::from(u32::MAX) {
                return 1;
            }
            let next = Entry { term, index, data: Bytes::from_static(b"next"), ..Entry::default() };
            wal.save(None, std::slice::from_ref(&next), false).unwrap();
            drop(wal);
            assert_eq!(open(&disk).unwrap().entries.last(), Some(&next));
            shape(&[contents.entries.len(), usize::from(contents.repair.is_some())])
        });
}
