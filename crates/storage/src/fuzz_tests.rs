//! Rows and records of the file with anything in them. Damage of redb's own pages is `tests/damage.rs`'s.

use etched_fuzz::{Target, outcome, shape};
use etched_mvcc::Revision;
use etched_proto::raftpb::ConfState;

use crate::codec::{State, put_record, record_crc, record_of, row_of, row_value};
use crate::types::Applied;

/// Each input as it is, and with a checksum that is good: behind one that is not nothing is looked at.
#[test]
fn fuzzed_records_and_rows_are_what_was_stored_or_refused() {
    let at = Revision { main: 7, sub: 1 };
    let (mut put, mut tombstone) = (Vec::new(), Vec::new());
    put_record(&mut put, at, false, b"abc");
    put_record(&mut tombstone, at, true, b"abc");
    let seeds = [put, tombstone, row_value("lease", b"key", b"value")];
    Target::new(env!("CARGO_MANIFEST_DIR"), "rows").seeds(seeds).run(|input| {
        if let Ok(value) = row_of("lease", b"key", input) {
            assert_eq!(row_value("lease", b"key", value), input);
            return 1;
        }
        let plain = record(at, input);
        let Some((_, rest)) = input.split_first_chunk::<4>() else { return plain };
        assert_eq!(row_of("lease", b"key", &row_value("lease", b"key", rest)).ok(), Some(rest));
        record(at, &[&record_crc(at, rest).to_le_bytes()[..], rest].concat())
    });
}

fn record(at: Revision, stored: &[u8]) -> u64 {
    match record_of(at, stored) {
        Ok((tombstone, bytes)) => {
            let mut again = Vec::new();
            put_record(&mut again, at, tombstone, bytes);
            assert_eq!(again, stored);
            shape(&[2, usize::from(tombstone), bytes.len()])
        }
        Err(what) => outcome(&what),
    }
}

/// The checksum is the row's, so that here anything may come.
#[test]
fn fuzzed_states_read_back() {
    let conf_state = ConfState { voters: vec![1, 2], ..ConfState::default() };
    let state = State {
        applied: Applied { index: 9, term: 2 },
        conf_state: Some(conf_state),
        ..State::default()
    };
    let seeds = [state.encode(), State::default().encode()];
    Target::new(env!("CARGO_MANIFEST_DIR"), "states").seeds(seeds).run(|input| {
        let Some(state) = State::decode(input) else { return 0 };
        assert_eq!(State::decode(&state.encode()), Some(state.clone()));
        shape(&[1, state.conf_state.map_or(0, |conf_state| conf_state.voters.len())])
    });
}
