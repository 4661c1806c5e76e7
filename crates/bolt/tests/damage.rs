//! Bytes that are not what they should be: an error or other contents, never a panic, a walk without end or more
//! memory than the file is worth.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

mod common;

use std::time::{Duration, Instant};

use common::{Contents, Rng, contents, contents_of, file_of};
use etched_bolt::{Database, snapshot};

/// How long random damage is tried.
const TIME: Duration = Duration::from_secs(3);

fn fixtures() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("fixtures/etcd-3.7.1.snapshot").to_vec(),
        include_bytes!("fixtures/pages-1024.db").to_vec(),
        include_bytes!("fixtures/pages-4096.db").to_vec(),
        include_bytes!("fixtures/pages-16384.db").to_vec(),
    ]
}

/// Reads all there is, in every way.
fn read(file: &Vec<u8>) {
    let _ = snapshot::verify(file);
    let Ok(database) = Database::open(file) else { return };
    let checked = database.check();
    let read = contents_of(&database);
    assert!(checked.is_err() || read.is_ok(), "what passes the check can be read: {read:?}");
    let _ = snapshot::status(&database);
    if let Ok(Some(bucket)) = database.root().bucket(b"key") {
        let _ = bucket.get(b"anything");
    }
}

fn damage(file: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(file.len());
        match rng.below(5) {
            0 => file[at] ^= 1 << rng.below(8),
            1 => file[at] = rng.next() as u8,
            2 => {
                // Numbers that are nearly right, where headers and elements lie.
                let page = at / 1024 * 1024;
                let at = (page + rng.below(64)).min(file.len() - 1);
                file[at] = [0, 1, 2, 3, 0x10, 0x7f, 0x80, 0xff][rng.below(8)];
            }
            3 => {
                // One page over another.
                let (from, to) = (at / 1024 * 1024, rng.below(file.len()) / 1024 * 1024);
                let length = 1024.min(file.len() - from.max(to));
                file.copy_within(from..from + length, to);
            }
            _ if rng.below(8) == 0 => file.truncate(at.max(1)),
            _ => {}
        }
    }
}

#[test]
fn random_damage_is_survived() {
    let mut rng = Rng::new("random_damage_is_survived");
    let mut files = fixtures();
    files.push(file_of(&contents(&mut rng, 6, 500)));
    let (began, mut tries) = (Instant::now(), 0);
    while began.elapsed() < TIME {
        let mut file = files[rng.below(files.len())].clone();
        damage(&mut file, &mut rng);
        let one = Instant::now();
        read(&file);
        assert!(one.elapsed() < Duration::from_secs(20), "a read that does not end");
        tries += 1;
    }
    println!("{tries} damaged files read");
}

#[test]
fn every_shorter_file_is_refused() {
    for file in fixtures() {
        for length in (0..file.len() - snapshot::HASH_BYTES).step_by(509) {
            let shorter = file[..length].to_vec();
            assert!(Database::open(&shorter).is_err(), "{length} of {} bytes", file.len());
            assert!(snapshot::verify(&shorter).is_err());
        }
    }
}

#[test]
fn every_turned_bit_of_a_snapshot_is_found() {
    let file = fixtures().swap_remove(0);
    let mut rng = Rng::new("every_turned_bit_of_a_snapshot_is_found");
    for _ in 0..300 {
        let mut damaged = file.clone();
        let bit = rng.below(file.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(snapshot::verify(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn a_page_that_leads_back_to_itself_ends_the_walk() {
    // Not random: another page's keys could happen to fit.
    let pairs = |start: u64| (start..start + 20_000).map(|n| (n.to_be_bytes().to_vec(), vec![7]));
    let bucket = |name: &[u8], start| (name.to_vec(), pairs(start).collect());
    let file = file_of(&Contents::from([bucket(b"a", 0), bucket(b"b", 1 << 20)]));
    let pages = file.len() / 4096;
    for page in (2..pages).filter(|&page| file[page * 4096 + 8] == 1) {
        let child = page * 4096 + 24..page * 4096 + 32;
        for target in [page, pages - 1, 2, 0, 1, pages, usize::MAX] {
            let mut damaged = file.clone();
            damaged[child.clone()].copy_from_slice(&(target as u64).to_le_bytes());
            if damaged == file {
                continue;
            }
            let database = Database::open(damaged).unwrap();
            assert!(database.check().is_err(), "page {page} to {target}");
            assert!(contents_of(&database).is_err(), "page {page} to {target}");
        }
    }
}

#[test]
fn an_empty_file_and_one_of_something_else_are_named() {
    for bytes in [vec![], vec![0; 100], vec![7; 100_000]] {
        assert_eq!(Database::open(bytes).unwrap_err().to_string(), "invalid database");
    }
}
