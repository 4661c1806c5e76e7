//! Numbers from a seed, and files made from them.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

use std::collections::BTreeMap;

use etched_bolt::{Builder, Database, Layout, Result, Source};

/// Buckets with their pairs.
pub type Contents = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

/// splitmix64.
pub struct Rng(u64);

impl Rng {
    /// Of the seed in `ETCHED_SEED`, or a new one; printed, so that a failure can be had again.
    pub fn new(test: &str) -> Self {
        let given = std::env::var("ETCHED_SEED").ok().map(|text| text.parse().unwrap());
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let seed = given.unwrap_or(now);
        println!("{test}: ETCHED_SEED={seed}");
        Self(seed)
    }

    /// Of this seed.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// Pairs of all sizes that matter: small, about a page, over several.
pub fn contents(rng: &mut Rng, buckets: usize, pairs: usize) -> Contents {
    let mut made = Contents::new();
    for _ in 0..buckets {
        let mut bucket = BTreeMap::new();
        let long_keys = rng.below(4) == 0;
        for _ in 0..rng.below(pairs + 1) {
            let length = 1 + if long_keys { rng.below(3000) } else { rng.below(40) };
            let key = rng.bytes(length);
            let length = match rng.below(100) {
                0 => rng.below(20_000),
                1..=5 => 3900 + rng.below(300),
                _ => rng.below(200),
            };
            bucket.insert(key, rng.bytes(length));
        }
        let length = 1 + rng.below(12);
        made.insert(rng.bytes(length), bucket);
    }
    made
}

fn fill<W: std::io::Write>(contents: &Contents, mut builder: Builder<W>) -> Result<(Layout, W)> {
    for (name, pairs) in contents {
        builder.bucket(name)?;
        for (key, value) in pairs {
            builder.put(key, value)?;
        }
    }
    builder.finish()
}

/// The file of these buckets.
pub fn file_of(contents: &Contents) -> Vec<u8> {
    let (layout, _) = fill(contents, Builder::measure()).unwrap();
    let (_, file) = fill(contents, Builder::write(layout, Vec::new()).unwrap()).unwrap();
    assert_eq!(file.len() as u64, layout.size());
    file
}

/// Everything in a file whose buckets have no buckets in them.
pub fn contents_of<S: Source>(database: &Database<S>) -> Result<Contents> {
    let mut found = Contents::new();
    let mut buckets = database.root().entries()?;
    while let Some(bucket) = buckets.next()? {
        let name = bucket.key.to_vec();
        let mut pairs = BTreeMap::new();
        if let Some(bucket) = buckets.bucket()? {
            let mut entries = bucket.entries()?;
            while let Some(entry) = entries.next()? {
                pairs.insert(entry.key.to_vec(), entry.value.to_vec());
            }
        }
        found.insert(name, pairs);
    }
    Ok(found)
}
