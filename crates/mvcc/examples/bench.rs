//! What the store costs, without network, log and disk: `cargo run --release -p etched-mvcc --example bench`.
//!
//! Keys of 32 bytes, values of 256, a million of them (or the number given); a second argument,
//! `kubernetes`, gives keys that begin alike. Times are CPU times of this
//! thread, or of the process where it says so, as the kernel counts them: what else runs on the machine
//! does not count. Memory is what is resident.

#![allow(clippy::disallowed_methods, reason = "a measurement has a clock")]

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etched_mvcc::{
    Answer, CompactState, Leases, Reader, Record, Records, RecordsError, Revision, Store,
};
use etched_proto::etcdserverpb::{PutRequest, RangeRequest};
use etched_proto::mvccpb::KeyValue;
use prost::Message;

struct NoLeases;

impl Leases for NoLeases {
    fn exists(&self, _: i64) -> bool {
        false
    }

    fn lease_of(&self, _: &[u8]) -> i64 {
        0
    }

    fn attach(&mut self, _: &Bytes, _: i64) {}

    fn detach(&mut self, _: &[u8], _: i64) {}
}

/// Records in revision order, one for each main revision from 2 on.
#[derive(Default)]
struct Flat(parking_lot::RwLock<Vec<Record>>);

impl Records for Flat {
    fn get(&self, revision: Revision) -> Result<Option<Record>, RecordsError> {
        Ok(self.0.read().get(revision.main as usize - 2).cloned())
    }

    fn scan(
        &self,
        from: Revision,
        until: Revision,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), RecordsError> {
        for (at, record) in self.0.read().iter().enumerate() {
            let revision = Revision::start_of(at as i64 + 2);
            let inside = (from..until).contains(&revision);
            if inside && visit(revision, record.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Flat {
    /// As a store that put these keys would have left it.
    fn of(keys: &[Bytes], value: &Bytes) -> Self {
        let record = |(nth, key): (usize, &Bytes)| {
            let revision = nth as i64 + 2;
            let kv = KeyValue {
                key: key.clone(),
                create_revision: revision,
                mod_revision: revision,
                version: 1,
                value: value.clone(),
                lease: 0,
            };
            Record { tombstone: false, bytes: kv.encode_to_vec().into() }
        };
        Self(parking_lot::RwLock::new(keys.iter().enumerate().map(record).collect()))
    }
}

/// xorshift: the same keys in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// CPU time of this thread so far.
#[derive(Clone, Copy)]
struct Clock(Duration);

impl Clock {
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a Linux kernel");
        let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
        Self(Duration::from_nanos(nanoseconds.expect("the time on a CPU")))
    }

    fn elapsed(self) -> Duration {
        Self::now().0 - self.0
    }
}

/// CPU time of all threads in milliseconds, in steps of 10.
fn process_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("a Linux kernel");
    let fields = text.rsplit(") ").next().expect("fields after the name");
    let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse().unwrap_or(0));
    10 * ticks.sum::<u64>()
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("a Linux kernel");
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("resident pages") * 4096
}

fn key(shape: &str, random: &mut Random) -> Bytes {
    let (a, b) = (random.next(), random.next());
    match shape {
        "random" => [a.to_be_bytes(), b.to_be_bytes(), [0; 8], [0; 8]].concat().into(),
        _ => format!("/registry/pods/ns-{:04}/{:09x}", a % 1000, b & 0xf_ffff_ffff).into(),
    }
}

fn each(name: &str, count: usize, took: Duration) {
    println!("{name:<58} {:>9.0} ns", took.as_nanos() as f64 / count as f64);
}

fn put(key: &Bytes, value: &Bytes) -> PutRequest {
    PutRequest { key: key.clone(), value: value.clone(), ..PutRequest::default() }
}

fn write(store: &mut Store, request: &PutRequest) {
    store.put(request, &mut NoLeases, Answer::Wanted).expect("a put");
}

/// Hands everything over to storage, as the flusher does.
fn flush(store: &mut Store, records: &Flat) {
    store.take_events();
    let changes = store.take_changes();
    let last = changes.records.last().map(|(revision, _)| *revision);
    records.0.write().extend(changes.records.into_iter().map(|(_, record)| record));
    if let Some(last) = last {
        store.flushed(last);
    }
}

fn fill(store: &mut Store, records: &Flat, keys: &[Bytes], value: &Bytes) -> Duration {
    let mut took = Duration::ZERO;
    for batch in keys.chunks(10_000) {
        let start = Clock::now();
        batch.iter().for_each(|key| write(store, &put(key, value)));
        took += start.elapsed();
        flush(store, records);
    }
    took
}

fn page(key: &Bytes, limit: i64, revision: i64) -> RangeRequest {
    let range_end = Bytes::from_static(&[0]);
    RangeRequest { key: key.clone(), range_end, limit, revision, ..RangeRequest::default() }
}

fn read(reader: &Reader, keys: &[Bytes], random: &mut Random) {
    let any = |random: &mut Random| &keys[(random.next() % keys.len() as u64) as usize];
    let time = |name: &str,
                rounds: usize,
                random: &mut Random,
                request: &dyn Fn(&Bytes) -> RangeRequest| {
        let requests: Vec<_> = (0..rounds).map(|_| request(any(random))).collect();
        let start = Clock::now();
        for request in &requests {
            black_box(reader.range(request).expect("a range"));
        }
        each(name, rounds, start.elapsed());
    };
    let all = Bytes::from_static(&[0]);
    time("get of one key", 300_000, random, &|key| RangeRequest {
        key: key.clone(),
        ..RangeRequest::default()
    });
    time("page of 500 with the count of all", 2_000, random, &|_| page(&all, 500, 0));
    time("page of 500 from a random key with its count", 2_000, random, &|key| page(key, 500, 0));
    let old = reader.current_revision() - keys.len() as i64 / 10;
    if old >= reader.compact_revision() {
        time("page of 500 with the count, 10 % of writes back", 200, random, &|_| {
            page(&all, 500, old)
        });
    }
    time("count of all", 100_000, random, &|_| RangeRequest {
        count_only: true,
        ..page(&all, 0, 0)
    });
    time("all keys, keys only", 3, random, &|_| RangeRequest {
        keys_only: true,
        ..page(&all, 0, 0)
    });
    time("all keys with their values", 3, random, &|_| page(&all, 0, 0));
    let start = Clock::now();
    black_box(reader.hash_kv(0).expect("a hash"));
    each("HashKV of all", 1, start.elapsed());
}

fn overwrite(store: &mut Store, records: &Flat, keys: &[Bytes], random: &mut Random) {
    let value = Bytes::from(vec![b'w'; 256]);
    let any = |random: &mut Random| keys[(random.next() % keys.len() as u64) as usize].clone();
    let overwrites: Vec<Bytes> = (0..100_000).map(|_| any(random)).collect();
    each(
        "put of a random existing key",
        overwrites.len(),
        fill(store, records, &overwrites, &value),
    );
    let start = Clock::now();
    let reader = store.reader();
    let mut held = Vec::new();
    for key in &overwrites[..10_000] {
        // A long scan that holds a snapshot: the next write copies its path.
        let mut stream = reader.range_stream(&page(key, 0, 0), 1 << 20).expect("a stream");
        held.push(stream.next_chunk().expect("a chunk"));
        write(store, &put(key, &value));
        held.clear();
    }
    each("put, and a chunk of 10 keys by a stream", 10_000, start.elapsed());
    flush(store, records);
    let job = store.compact(store.current_revision()).expect("a compaction");
    let start = Clock::now();
    black_box(job.run(&|| true).expect("a hash"));
    each("hash of the compaction", 1, start.elapsed());
    let (mut slices, mut dropped, mut longest) = (0, 0, Duration::ZERO);
    let start = Clock::now();
    loop {
        let slice = Instant::now();
        let Some(sweep) = store.sweep(1000) else { break };
        longest = longest.max(slice.elapsed());
        slices += 1;
        dropped += sweep.dropped.len();
    }
    each("pruning, for each revision dropped", dropped.max(1), start.elapsed());
    println!("  {slices} slices, the longest {longest:?}");
}

fn run(shape: &str, count: usize) {
    println!("--- {count} keys, {shape}");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let keys: Vec<Bytes> = (0..count).map(|_| key(shape, &mut random)).collect();
    let value = Bytes::from(vec![b'v'; 256]);
    let records = Arc::new(Flat::of(&keys, &value));
    let open = || Store::open(Arc::clone(&records) as _, CompactState::default()).expect("opens").0;
    let (before, cpu, start) = (resident_bytes(), process_ms(), Instant::now());
    let mut store = open();
    let took = start.elapsed().as_secs_f64() * 1e3;
    println!("{:<58} {took:>9.0} ms", "start from all records, wall time");
    println!("{:<58} {:>9} ms", "start from all records, all threads", process_ms() - cpu);
    let index = resident_bytes().saturating_sub(before) as f64;
    println!("{:<58} {:>9.1} bytes", "index after start, for each key", index / count as f64);

    read(&store.reader(), &keys, &mut random);
    let new: Vec<Bytes> = (0..100_000).map(|_| key(shape, &mut random)).collect();
    each("put of a random new key", new.len(), fill(&mut store, &records, &new, &value));
    overwrite(&mut store, &records, &keys, &mut random);
    read(&store.reader(), &keys, &mut random);
    drop(store);

    let records = Arc::new(Flat::default());
    let (mut store, _) =
        Store::open(Arc::clone(&records) as _, CompactState::default()).expect("opens");
    let took = fill(&mut store, &records, &keys, &value);
    each("put of a new key, average from none on", count, took);
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next().map_or(1_000_000, |count| count.parse().expect("a number"));
    run(&arguments.next().unwrap_or_else(|| "random".to_owned()), count);
}
