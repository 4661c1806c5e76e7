//! What is written is read again, whatever its sizes are.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

mod common;

use common::{Contents, Rng, contents, contents_of, file_of};
use etched_bolt::{Builder, Database, Error};

#[test]
fn every_contents_come_back_as_they_were() {
    let mut rng = Rng::new("every_contents_come_back_as_they_were");
    for _ in 0..12 {
        let (buckets, pairs) = (rng.below(12), [5, 60, 2000][rng.below(3)]);
        let written = contents(&mut rng, buckets, pairs);
        let database = Database::open(file_of(&written)).unwrap();
        database.check().unwrap();
        assert_eq!(contents_of(&database).unwrap(), written);
        for (name, pairs) in &written {
            let bucket = database.root().bucket(name).unwrap().expect("it was written");
            for (key, value) in pairs.iter().step_by(7) {
                assert_eq!(bucket.get(key).unwrap().as_ref(), Some(value));
            }
            let other = rng.bytes(8);
            assert_eq!(bucket.get(&other).unwrap().as_ref(), pairs.get(&other));
        }
    }
}

#[test]
fn branches_over_branches_are_read_in_order() {
    let pairs = (0..60_000_u64).map(|n| (n.to_be_bytes().to_vec(), vec![7; 8])).collect();
    let written = Contents::from([(b"key".to_vec(), pairs)]);
    let database = Database::open(file_of(&written)).unwrap();
    database.check().unwrap();
    assert!(contents_of(&database).unwrap() == written);
    let bucket = database.root().bucket(b"key").unwrap().unwrap();
    assert_eq!(bucket.get(&47_777_u64.to_be_bytes()).unwrap(), Some(vec![7; 8]));
    assert_eq!(bucket.get(&60_000_u64.to_be_bytes()).unwrap(), None);
}

#[test]
fn keys_out_of_order_are_refused() {
    let mut builder = Builder::measure();
    assert!(matches!(builder.put(b"a", b""), Err(Error::Unwritable(_))), "no bucket");
    builder.bucket(b"b").unwrap();
    builder.put(b"b", b"").unwrap();
    for key in [&b"b"[..], b"a", b"", &[b'c'; 32769]] {
        assert!(matches!(builder.put(key, b""), Err(Error::Unwritable(_))));
    }
    assert!(matches!(builder.bucket(b"b"), Err(Error::Unwritable(_))));
}

#[test]
fn other_contents_than_were_measured_are_an_error() {
    let (layout, _) = Builder::measure().finish().unwrap();
    let mut builder = Builder::write(layout, Vec::new()).unwrap();
    builder.bucket(b"key").unwrap();
    for n in 0..1000_u32 {
        builder.put(&n.to_be_bytes(), b"some value").unwrap();
    }
    assert!(matches!(builder.finish(), Err(Error::Changed)));
}
