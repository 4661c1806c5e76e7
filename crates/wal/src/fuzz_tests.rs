//! Records with anything in them.

use bytes::Bytes;
use etched_fuzz::{Target, outcome, shape};

use crate::record::{
    CRC, ENTRY, Encoder, Frame, HEADER_BYTES, SNAPSHOT, STATE, decode_entry, decode_snapshot,
    decode_state, parse_envelope,
};
use crate::{Entry, EntryKind, HardState, SnapshotMark};

fn frame_of(encode: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut encoder = Encoder::default();
    encode(&mut encoder);
    encoder.buf
}

/// The data of the one record in a frame.
fn data_of(frame: &[u8]) -> Bytes {
    let (header, body) = frame.split_first_chunk::<HEADER_BYTES>().expect("a frame");
    let envelope =
        parse_envelope(Frame::parse(u64::from_le_bytes(*header)), body).expect("a record");
    Bytes::copy_from_slice(&body[envelope.data])
}

#[test]
fn fuzzed_records_decode_to_what_encodes_to_the_same() {
    let normal =
        Entry { term: 2, index: 300, data: Bytes::from_static(b"abc"), ..Entry::default() };
    let change = Entry { kind: EntryKind::ConfChange, ..normal.clone() };
    let mark = SnapshotMark { index: 9, term: 2, conf_state: None };
    let seeds = [
        frame_of(|encoder| encoder.entry(&normal)),
        frame_of(|encoder| encoder.entry(&change)),
        frame_of(|encoder| encoder.state(&HardState { term: 3, vote: 1, commit: 7 })),
        frame_of(|encoder| encoder.snapshot(&mark)),
        frame_of(|encoder| encoder.segment_head(b"\x08\x01\x10\x02"))[..16].to_vec(),
    ];
    Target::new(env!("CARGO_MANIFEST_DIR"), "records").seeds(seeds).run(|input| {
        let Some((header, body)) = input.split_first_chunk::<HEADER_BYTES>() else { return 0 };
        let frame = Frame::parse(u64::from_le_bytes(*header));
        if !frame.is_possible() || frame.body() != body.len() as u64 {
            return 1;
        }
        let envelope = match parse_envelope(frame, body) {
            Ok(envelope) => envelope,
            Err(damage) => return outcome(&damage.to_string()),
        };
        let data = Bytes::copy_from_slice(&body[envelope.data.clone()]);
        let decoded = match envelope.kind {
            ENTRY => decode_entry(&data).map(|entry| {
                let again = data_of(&frame_of(|encoder| encoder.entry(&entry)));
                assert_eq!(decode_entry(&again), Ok(entry));
            }),
            STATE => decode_state(&data).map(|state| {
                let again = data_of(&frame_of(|encoder| encoder.state(&state)));
                assert_eq!(decode_state(&again), Ok(state));
            }),
            SNAPSHOT => decode_snapshot(&data).map(|mark| {
                let again = data_of(&frame_of(|encoder| encoder.snapshot(&mark)));
                assert_eq!(decode_snapshot(&again), Ok(mark));
            }),
            CRC => Ok(()),
            _ => return 2,
        };
        match decoded {
            Ok(()) => shape(&[envelope.kind as usize, data.len()]),
            Err(damage) => outcome(&damage.to_string()),
        }
    });
}
