//! Ids as etcd computes them (bytes: `docs/STORAGE_FORMAT.md`).

use std::sync::atomic::{AtomicU64, Ordering};

use sha1::{Digest, Sha1};

/// Makes ids of requests, leases and configuration changes that no other member makes.
///
/// Bits 63..48 are the member's, 47..8 the milliseconds of the start, 7..0 a counter; each call adds 1
/// to the low 48 bits, so the counter runs into the time part and stays unique across restarts.
#[derive(Debug)]
pub(crate) struct IdGenerator {
    prefix: u64,
    suffix: AtomicU64,
}

const SUFFIX_MASK: u64 = (1 << 48) - 1;

impl IdGenerator {
    /// `unix_millis` is the time of the start.
    pub(crate) fn new(member_id: u64, unix_millis: u64) -> Self {
        let suffix = (unix_millis & ((1 << 40) - 1)) << 8;
        Self { prefix: member_id << 48, suffix: AtomicU64::new(suffix) }
    }

    pub(crate) fn next(&self) -> u64 {
        let suffix = self.suffix.fetch_add(1, Ordering::Relaxed) + 1;
        self.prefix | (suffix & SUFFIX_MASK)
    }

    /// An id for a lease whose owner gave none: positive and never 0.
    pub(crate) fn next_lease(&self) -> i64 {
        loop {
            let id = (self.next() & (i64::MAX as u64)) as i64;
            if id != 0 {
                return id;
            }
        }
    }
}

/// Id of a member of the initial cluster: from its peer URLs and the cluster's token.
pub(crate) fn member_id(peer_urls: &[String], token: &str) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(token);
    leading_u64(hash)
}

/// Id of a cluster: from the ids of its initial members.
pub(crate) fn cluster_id(members: &[u64]) -> u64 {
    let mut members = members.to_vec();
    members.sort_unstable();
    let mut hash = Sha1::new();
    for id in members {
        hash.update(id.to_be_bytes());
    }
    leading_u64(hash)
}

fn leading_u64(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("a SHA-1 digest has 20 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_id_is_the_start_time_plus_one() {
        // Seen on etcd 3.7.1: member 58659dda25405e42, started at ms ..a2060ccb6f.
        let ids = IdGenerator::new(0x5865_9dda_2540_5e42, 0x01a2_060c_cb6f);
        assert_eq!(ids.next(), 0x5e42_a206_0ccb_6f01);
        assert_eq!(ids.next(), 0x5e42_a206_0ccb_6f02);
    }

    #[test]
    fn a_lease_id_is_positive() {
        let ids = IdGenerator::new(u64::MAX, 1);
        assert!(ids.next_lease() > 0);
    }

    #[test]
    fn default_ids_are_those_of_etcd() {
        let member = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster");
        assert_eq!(format!("{member:x}"), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id(&[member])), "cdf818194e3a8c32");
    }
}
