//! What the file costs: time of commits, reads, scans, checkpoints, opens and removals, and bytes.
//!
//! `cargo run --release -p etched-storage --example measure -- <folder> [records] [records a commit]
//! [megabytes of cache]`

use std::{
    ops::ControlFlow,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use etched_mvcc::{Record, Revision};
use etched_storage::{Applied, Commit, Durability, Options, Storage};

/// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Set for the child that dies without a close.
const DIES: &str = "ETCHED_MEASURE_DIES";

const CHECKPOINT_EVERY_BYTES: usize = 64_000_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("the folder to work in is the first argument");
    let mut number = |default: usize| {
        arguments.next().map_or(default, |text| text.parse().expect("arguments are numbers"))
    };
    let (records, each) = (number(1_000_000), number(10_000));
    let cache_bytes = number(16) << 20;
    let file = Path::new(&folder).join("db");
    let options = Options { cache_bytes, ..Options::default() };
    if std::env::var_os(DIES).is_some() {
        die(&file, options, records, each);
    }
    let (storage, _) = timed("open a new file", || Storage::open(&file, options.clone()));
    fill(&storage, records, each);
    report(&storage, "filled");
    timed("checkpoint with nothing new", || checkpoint(&storage, records));
    gets(&storage, records);
    scans(&storage);
    timed("clean close", || {
        drop(storage);
        Ok(())
    });
    let (storage, _) = timed("open after a clean end", || Storage::open(&file, options.clone()));
    timed("full scan after open", || scan(&storage, 1));
    println!("resident: {} MB", resident_bytes() >> 20);
    drop(storage);
    let killed = Command::new(std::env::current_exe().expect("it runs"))
        .args([&folder, &records.to_string(), &each.to_string()])
        .arg((cache_bytes >> 20).to_string())
        .env(DIES, "1")
        .status();
    assert!(killed.is_ok_and(|status| !status.success()));
    let (storage, boot) = timed("open after a kill", || Storage::open(&file, options.clone()));
    assert_eq!(boot.applied, applied(records));
    println!("resident: {} MB", resident_bytes() >> 20);
    removals(&storage, records);
    timed("defragment", || storage.defragment());
    report(&storage, "defragmented");
}

/// What the child does.
fn die(file: &Path, options: Options, records: usize, each: usize) -> ! {
    let (storage, _) = Storage::open(file, options).expect("it is whole");
    println!("in a fresh process before the scan: {} MB", resident_bytes() >> 20);
    timed("full scan in a fresh process", || scan(&storage, 2));
    println!("and after it: {} MB", resident_bytes() >> 20);
    checkpoint_then_buffered(&storage, records, each);
    std::process::abort();
}

fn timed<T>(what: &str, call: impl FnOnce() -> etched_storage::Result<T>) -> T {
    let (begun, cpu) = (Instant::now(), cpu());
    let value = call().unwrap_or_else(|error| panic!("{what}: {error}"));
    println!("{what}: {:?}, CPU {:?}", begun.elapsed(), self::cpu() - cpu);
    value
}

/// An encoded `mvccpb.KeyValue` has this size with a key of 32 and a value of 256 bytes.
fn record(main: usize) -> Record {
    let mut bytes = vec![0; 303];
    let mut seed = main as u64 + 1;
    for chunk in bytes.chunks_mut(8) {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&seed.to_le_bytes()[..chunk.len()]);
    }
    Record { tombstone: false, bytes: Bytes::from(bytes) }
}

fn revision(place: usize) -> Revision {
    Revision::start_of(place as i64 + 2)
}

fn applied(index: usize) -> Applied {
    Applied { index: index as u64, term: 1 }
}

fn fill(storage: &Storage, records: usize, each: usize) {
    let (mut cpu_spent, mut checkpoints) = (Duration::ZERO, Vec::new());
    let (mut since, mut at) = (0, 0);
    let begun = Instant::now();
    while at < records {
        let end = (at + each).min(records);
        let rows = (at..end).map(|place| (revision(place), record(place))).collect();
        let commit = Commit { applied: applied(end), records: rows, ..Commit::default() };
        let (start, before) = (Instant::now(), cpu());
        since += (end - at) * 320;
        let durable = since >= CHECKPOINT_EVERY_BYTES;
        let durability = if durable { Durability::Checkpoint } else { Durability::Buffered };
        storage.commit(&commit, durability).expect("the folder has room");
        cpu_spent += cpu() - before;
        if durable {
            checkpoints.push(start.elapsed());
            since = 0;
        }
        at = end;
    }
    println!(
        "{records} inserts in commits of {each}: {:?}, CPU a record {:.2} us, checkpoints {checkpoints:?}",
        begun.elapsed(),
        cpu_spent.as_secs_f64() * 1e6 / records as f64,
    );
}

fn checkpoint(storage: &Storage, index: usize) -> etched_storage::Result<()> {
    let commit = Commit { applied: applied(index), ..Commit::default() };
    storage.commit(&commit, Durability::Checkpoint)
}

fn checkpoint_then_buffered(storage: &Storage, records: usize, each: usize) {
    checkpoint(storage, records).expect("the folder has room");
    let rows = (records..records + each).map(|place| (revision(place), record(place))).collect();
    let commit = Commit { applied: applied(records + each), records: rows, ..Commit::default() };
    storage.commit(&commit, Durability::Buffered).expect("the folder has room");
}

fn gets(storage: &Storage, records: usize) {
    let mut seed = 1_usize;
    for what in ["cold", "again"] {
        let count = 200_000;
        let begun = Instant::now();
        for _ in 0..count {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let found = etched_mvcc::Records::get(storage, revision((seed >> 20) % records));
            assert!(found.expect("the file is whole").is_some());
        }
        println!(
            "get, random, {what}: {:.2} us",
            begun.elapsed().as_secs_f64() * 1e6 / count as f64
        );
    }
    let begun = Instant::now();
    for round in 0..200_000 {
        let found = etched_mvcc::Records::get(storage, revision(records - 1 - round % 1000));
        assert!(found.expect("the file is whole").is_some());
    }
    println!("get, cached: {:.2} us", begun.elapsed().as_secs_f64() * 1e6 / 200_000.0);
}

fn scans(storage: &Storage) {
    timed("full scan, copying", || {
        let end = Revision { main: i64::MAX, sub: 0 };
        let visit = &mut |_, _| ControlFlow::Continue(());
        etched_mvcc::Records::scan(storage, Revision::default(), end, visit).expect("it is whole");
        Ok(())
    });
    for workers in [1, 2, 3] {
        timed(&format!("full scan, {workers} workers"), || scan(storage, workers));
    }
}

fn scan(storage: &Storage, workers: usize) -> etched_storage::Result<()> {
    let mut totals = vec![0; workers];
    let mut visits: Vec<_> = totals
        .iter_mut()
        .map(|total| {
            move |_: Revision, raw: etched_mvcc::RawRecord<'_>| {
                *total += raw.bytes.len();
                ControlFlow::Continue(())
            }
        })
        .collect();
    let mut parts: Vec<_> =
        visits.iter_mut().map(|visit| visit as &mut etched_mvcc::VisitPart<'_>).collect();
    storage.view().scan_all(&mut parts)
}

/// Every second record goes, in batches, with a checkpoint every tenth.
fn removals(storage: &Storage, records: usize) {
    let revisions: Vec<_> = (0..records).step_by(2).map(revision).collect();
    let (begun, before) = (Instant::now(), cpu());
    let mut longest = Duration::ZERO;
    for (round, batch) in revisions.chunks(1000).enumerate() {
        let start = Instant::now();
        storage.remove_records(batch).expect("the folder has room");
        longest = longest.max(start.elapsed());
        if round % 50 == 49 {
            checkpoint(storage, storage.applied().index as usize).expect("the folder has room");
        }
    }
    let each = (cpu() - before).as_secs_f64() * 1e6 / revisions.len() as f64;
    println!(
        "removals: {:?}, CPU a record {each:.2} us, longest batch {longest:?}",
        begun.elapsed()
    );
    report(storage, "every second one removed");
}

fn report(storage: &Storage, what: &str) {
    let sizes = storage.sizes().expect("the folder is there");
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "{what}: file {:.1} MB, live {:.1} MB, resident {} MB",
        megabytes(sizes.file_bytes),
        megabytes(sizes.live_bytes),
        resident_bytes() >> 20
    );
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = text.split(' ').nth(1).and_then(|field| field.parse::<u64>().ok());
    pages.expect("its second field is a number") * 4096
}

/// CPU time of this process, user and system.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").expect("Linux has it");
    let field = text.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(field.expect("its first field is a number"))
}
