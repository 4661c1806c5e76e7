//! bbolt files and snapshots with anything in them. Damage of whole pages is `damage.rs`'s.

mod common;

use common::contents_of;
use etched_bolt::etcd::Revision;
use etched_bolt::{Database, snapshot};
use etched_fuzz::{Target, outcome, shape};

#[test]
fn fuzzed_files_are_read_or_refused() {
    let seeds = [
        include_bytes!("fixtures/pages-1024.db").to_vec(),
        include_bytes!("fixtures/pages-4096.db").to_vec(),
        include_bytes!("fixtures/etcd-3.7.1.snapshot").to_vec(),
    ];
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "files").seeds(seeds);
    target.bytes_max(1 << 20).memory(1 << 20, 64).run(|input| {
        let file = input.to_vec();
        let verified = snapshot::verify(&file).is_ok();
        let database = match Database::open(&file) {
            Ok(database) => database,
            Err(error) => return outcome(&error.to_string()),
        };
        let checked = database.check();
        let read = contents_of(&database);
        assert!(checked.is_err() || read.is_ok(), "what passes the check can be read: {read:?}");
        let status = snapshot::status(&database).is_ok();
        match read {
            Ok(contents) => shape(&[contents.len(), usize::from(verified), usize::from(status)]),
            Err(error) => outcome(&error.to_string()),
        }
    });
}

#[test]
fn fuzzed_keys_of_records_read_back() {
    let seeds =
        [&b"\0\0\0\0\0\0\0\x07_\0\0\0\0\0\0\0\x01"[..], b"\0\0\0\0\0\0\0\x07_\0\0\0\0\0\0\0\x01t"];
    Target::new(env!("CARGO_MANIFEST_DIR"), "keys").seeds(seeds).bytes_max(32).run(|input| {
        let Some(revision) = Revision::read(input) else { return 0 };
        assert_eq!(revision.bytes(&mut [0; Revision::BYTES_MAX]), input);
        1 + u64::from(revision.tombstone)
    });
}
