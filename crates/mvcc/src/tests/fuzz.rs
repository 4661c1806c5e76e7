//! Records with anything in them, as a file that was damaged or that others wrote may hold.

use etched_fuzz::{Target, shape};
use etched_proto::mvccpb::KeyValue;
use prost::Message;

use crate::kv::Kv;

/// The store's own reader takes fewer forms than protobuf has: what it takes, it reads as prost does.
#[test]
fn fuzzed_records_are_read_as_prost_reads_them() {
    let long = [7; 300];
    let put = Kv {
        key: b"key",
        create_revision: 2,
        mod_revision: 300,
        version: 3,
        value: b"v",
        lease: -1,
    };
    let seeds = [
        put.encode(),
        Kv { value: &long, ..put }.encode(),
        Kv { key: b"k", ..Kv::default() }.encode(),
    ];
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "records");
    target.seeds(seeds.map(|bytes| bytes.to_vec())).run(|input| {
        let Some(kv) = Kv::decode(input) else { return 0 };
        assert_eq!(Kv::decode(&kv.encode()), Some(kv), "encoded and decoded again");
        let prost = KeyValue::decode(input);
        if let Ok(whole) = &prost {
            let revisions = (whole.create_revision, whole.mod_revision, whole.version, whole.lease);
            assert_eq!((&whole.key[..], &whole.value[..]), (kv.key, kv.value));
            assert_eq!(revisions, (kv.create_revision, kv.mod_revision, kv.version, kv.lease));
        }
        shape(&[kv.key.len(), kv.value.len(), usize::from(prost.is_ok())])
    });
}
