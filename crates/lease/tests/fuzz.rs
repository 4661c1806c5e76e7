//! Rows of the lease table with anything in them.

use std::time::Duration;

use etched_fuzz::{Target, outcome, shape};
use etched_lease::{Lessor, Options};

/// The first eight bytes are the row's key.
#[test]
fn fuzzed_rows_become_leases_or_an_error() {
    let row = |id: i64, value: &[u8]| [&id.to_be_bytes()[..], value].concat();
    let seeds = [row(7, b"\x08\x07\x10\x3c"), row(7, b"\x08\x07\x10\x3c\x18\x05"), row(1, b"")];
    Target::new(env!("CARGO_MANIFEST_DIR"), "rows").seeds(seeds).bytes_max(256).run(|input| {
        let (key, value) = input.split_at(input.len().min(8));
        match Lessor::restore(Options { min_ttl: 2, checkpoints: true }, [(key, value)]) {
            Ok(mut lessor) => {
                lessor.promote(Duration::from_secs(5), Duration::ZERO);
                shape(&[lessor.leases().len()])
            }
            Err(error) => outcome(&format!("{error:?}")),
        }
    });
}
