//! The format, held against bytes that etcd wrote.

use std::path::Path;

use bytes::Bytes;
use etched_proto::raftpb::ConfState;

use crate::disk::{Disk as _, Open, RealDisk};
use crate::record::{Encoder, decode_entry, decode_snapshot, decode_state};
use crate::segment::{Reader, Record, Step};
use crate::{Entry, EntryKind, HardState, SnapshotMark};

/// The used part of the first segment of a one-member etcd 3.7.1 that took puts, a delete and a lease,
/// made snapshots, and was killed and started again.
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/etcd-3.7.1.wal");

fn encoded(encode: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encode(&mut encoder);
    encoder.buf
}

/// The data of a record that was encoded alone, found by its known length.
fn data(frame: &[u8], len: usize) -> Bytes {
    let header = u64::from_le_bytes(*frame.first_chunk().unwrap());
    let end = 8 + (header & 0xff) as usize;
    Bytes::copy_from_slice(&frame[end - len..end])
}

#[test]
fn a_log_begins_with_a_checksum_record_of_value_zero() {
    let bytes = encoded(|encoder| encoder.segment_head(b"\x08\x01\x10\x02"));
    assert_eq!(bytes[..16], *b"\x04\0\0\0\0\0\0\x84\x08\x04\x10\0\0\0\0\0");
    // Metadata: length 14 (type, checksum of five bytes, data), two bytes of padding.
    assert_eq!(bytes[16..27], *b"\x0e\0\0\0\0\0\0\x82\x08\x01\x10");
    assert_eq!(bytes.len(), 40);
}

#[test]
fn a_normal_entry_has_no_type_and_an_empty_one_no_data() {
    let normal =
        Entry { term: 2, index: 300, data: Bytes::from_static(b"abc"), ..Entry::default() };
    let bytes = encoded(|encoder| encoder.entry(&normal));
    assert_eq!(data(&bytes, 10), b"\x10\x02\x18\xac\x02\x22\x03abc".as_slice());
    let empty = Entry { term: 2, index: 3, ..Entry::default() };
    assert_eq!(data(&encoded(|encoder| encoder.entry(&empty)), 4), b"\x10\x02\x18\x03".as_slice());
    let change = Entry { kind: EntryKind::ConfChange, data: Bytes::from_static(b"x"), ..empty };
    let bytes = encoded(|encoder| encoder.entry(&change));
    assert_eq!(data(&bytes, 9), b"\x08\x01\x10\x02\x18\x03\x22\x01x".as_slice());
}

#[test]
fn states_and_snapshots_keep_their_zeros() {
    let state = HardState { term: 1, vote: 0, commit: 1 };
    let bytes = encoded(|encoder| encoder.state(&state));
    assert_eq!(data(&bytes, 6), b"\x08\x01\x10\0\x18\x01".as_slice());
    let bytes = encoded(|encoder| encoder.snapshot(&SnapshotMark::default()));
    assert_eq!(data(&bytes, 4), b"\x08\0\x10\0".as_slice());
    let conf_state = ConfState { voters: vec![5], auto_leave: Some(false), ..ConfState::default() };
    let mark = SnapshotMark { index: 9, term: 2, conf_state: Some(conf_state) };
    let bytes = encoded(|encoder| encoder.snapshot(&mark));
    assert_eq!(data(&bytes, 10), b"\x08\x09\x10\x02\x1a\x04\x08\x05\x28\0".as_slice());
}

#[test]
fn what_etcd_wrote_before_3_7_is_read_too() {
    let entry = |bytes: &'static [u8]| decode_entry(&Bytes::from_static(bytes));
    let expected = Entry { term: 2, index: 3, data: Bytes::from_static(b"x"), ..Entry::default() };
    assert_eq!(entry(b"\x08\0\x10\x02\x18\x03\x22\x01x"), Ok(expected.clone()));
    assert_eq!(entry(b"\x10\x02\x18\x03\x22\x01x"), Ok(expected.clone()));
    assert_eq!(entry(b"\x08\0\x10\x02\x18\x03"), Ok(Entry { data: Bytes::new(), ..expected }));
}

#[test]
fn a_message_of_another_kind_or_with_a_field_too_many_does_not_decode() {
    let entry = |bytes: &'static [u8]| decode_entry(&Bytes::from_static(bytes)).is_err();
    let state = |bytes: &'static [u8]| decode_state(&Bytes::from_static(bytes)).is_err();
    let snapshot = |bytes: &'static [u8]| decode_snapshot(&Bytes::from_static(bytes)).is_err();
    let a_state = b"\x08\x02\x10\x07\x18\x09";
    assert!(entry(a_state) && snapshot(a_state) && !state(a_state));
    for an_entry in [
        &b"\x10\x02\x18\x03"[..],
        b"\x10\x02\x18\x03\x22\x01x",
        b"\x08\x01\x10\x02\x18\x03\x22\x01x",
        b"\x08\0\x10\x02\x18\x03\x22\x01x",
        b"\x08\0\x10\x02\x18\x03",
    ] {
        assert!(state(an_entry) && snapshot(an_entry) && !entry(an_entry), "{an_entry:02x?}");
    }
    assert!(entry(b"\x10\x02\x18\x03\x22\x01x\x28\x01") && entry(b"\x10\x02\x18\x03\x22\x02x"));
    assert!(entry(b"\x10\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02\x18\x03"));
}

/// All records of a segment, and where it ends.
fn read_all(path: &Path) -> (Vec<Record>, u64) {
    let file = RealDisk.open(path, Open::Read).unwrap();
    let mut reader = Reader::new(&file, None).unwrap();
    let mut records = Vec::new();
    loop {
        match reader.next().unwrap() {
            Step::Record { record, .. } => records.push(record),
            Step::End => return (records, reader.offset),
            Step::Bad { damage, .. } => panic!("{damage} at {}", reader.offset),
        }
    }
}

#[test]
fn records_of_etcd_encode_to_the_same_bytes_again() {
    let written = std::fs::read(FIXTURE).unwrap();
    let (records, end) = read_all(Path::new(FIXTURE));
    assert_eq!(end, written.len() as u64);
    let mut kinds = [0; 4];
    let again = encoded(|encoder| {
        for record in &records {
            match record {
                Record::Metadata(metadata) => encoder.segment_head(metadata),
                Record::Entry(entry) => encoder.entry(entry),
                Record::State(state) => encoder.state(state),
                Record::Snapshot(mark) => encoder.snapshot(mark),
            }
            kinds[match record {
                Record::Metadata(_) => 0,
                Record::Entry(_) => 1,
                Record::State(_) => 2,
                Record::Snapshot(_) => 3,
            }] += 1;
        }
    });
    assert_eq!(again, written);
    assert_eq!(kinds[0], 1);
    assert!(kinds[1..].iter().all(|&count| count > 2), "the fixture holds too little: {kinds:?}");
}
