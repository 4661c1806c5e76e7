//! A store of many keys: what it takes, how it restarts, and reads of many keys at a time.

use super::super::server::{Memory, bytes_on_disk, drop_page_cache};
use super::super::target::Target;
use super::super::target::Want::{AtMost, AtMostWhenFull, RatioAtMost, RatioAtMostWhenFull};
use super::{Group, MEBIBYTE, Run, scenario, target};

pub(super) const GROUP: Group = Group {
    name: "large",
    prepare,
    scenarios: &[
        scenario("keys", "many keys, 32 B / 256 B: memory, disk, restart", KEYS, keys),
        scenario("page", "a page of 500 with the count, linearizable, 4 clients", PAGE, page),
        scenario("pages", "pages of 500 at one revision beside 1,000 Puts/s", PAGES, |run| {
            pages(run, 0)
        }),
        scenario("all", "all keys in one Range", ALL, all),
        scenario("all-five", "all keys in one Range, five at once", ALL_FIVE, all_five),
        scenario("stream", "all keys by RangeStream", STREAM, stream),
        scenario("keys-only", "all keys in one Range, keys only", KEYS_ONLY, |run| {
            run.load_once(&command(run, "keysonly -clients=1 -conns=1 -total=5")).map(drop)
        }),
        scenario("count-only", "count of all keys", COUNT_ONLY, |run| {
            let seconds = run.scale.seconds;
            let words = format!("countonly -clients=1 -conns=1 -seconds={seconds}");
            run.load_once(&command(run, &words)).map(drop)
        }),
        scenario("cold", "Txn comparing old values after a restart, cold cache", COLD, cold),
        scenario("pages-created", "pages at one revision, as many keys made since", PAGES, |run| {
            pages_created(run)
        }),
    ],
};

const KEYS: &[Target] = &[
    target("memory when loaded", AtMostWhenFull(250.0)),
    target("on disk", RatioAtMost(1.0)),
    target("SIGTERM, start to ready", AtMostWhenFull(0.5)),
    target("memory after SIGTERM and start", AtMostWhenFull(250.0)),
    target("kill -9, start to ready", AtMostWhenFull(1.5)),
    target("memory after kill and start", AtMostWhenFull(250.0)),
];
const PAGE: &[Target] = &[target("server CPU per op", RatioAtMostWhenFull(0.01))];
const PAGES: &[Target] = &[target("server CPU per op", RatioAtMostWhenFull(0.02))];
const ALL: &[Target] = &[
    target("server CPU per op", RatioAtMost(1.0 / 3.0)),
    target("memory growth, in answers", AtMostWhenFull(1.0)),
];
const ALL_FIVE: &[Target] = &[
    target("server CPU per op", RatioAtMost(1.0 / 3.0)),
    target("memory growth less 64 MiB, in answers", AtMostWhenFull(1.0)),
];
const STREAM: &[Target] = &[target("memory growth", AtMost(32.0))];
const KEYS_ONLY: &[Target] = &[target("server CPU per op", RatioAtMost(0.2))];
const COUNT_ONLY: &[Target] = &[target("server CPU per op", RatioAtMostWhenFull(0.001))];
const COLD: &[Target] = &[target("p99", RatioAtMost(1.0))];

/// Bytes of an answer for each of its keys: key, value, and the numbers and tags around them.
const ANSWER_BYTES_A_KEY: f64 = 306.0;
/// A walk reads about so many pages, evenly spread, since etcd takes long for each.
const PAGES_OF_A_WALK: u64 = 100;
const PAGE_KEYS: u64 = 500;

fn prepare(run: &mut Run) -> Result<(), String> {
    run.store.start()?;
    run.load(&command(run, "fill -clients=1000 -conns=100")).map(drop)
}

/// A command of the load generator on the keys of this store.
fn command(run: &Run, words: &str) -> String {
    format!("{words} -keys={}", run.scale.keys)
}

fn keys(run: &mut Run) -> Result<(), String> {
    let server = run.store.server()?;
    let (now, peak) = (server.memory(Memory::Now)?, server.memory(Memory::Peak)?);
    let disk = bytes_on_disk(&run.store.data_dir())?;
    run.add("memory when loaded", "MiB", now / MEBIBYTE);
    run.add("peak memory", "MiB", peak / MEBIBYTE);
    run.add("on disk", "MiB", disk / MEBIBYTE);
    run.holds_all()?;
    run.store.stop()?;
    let names = ["SIGTERM, start to ready", "CPU of that start", "memory after SIGTERM and start"];
    restarted(run, names)?;
    run.store.kill()?;
    let names =
        ["kill -9, start to ready", "CPU of the start after kill", "memory after kill and start"];
    restarted(run, names)
}

fn restarted(run: &mut Run, [ready, cpu, memory]: [&str; 3]) -> Result<(), String> {
    run.store.start()?;
    let server = run.store.server()?;
    let figures = [
        (ready, "s", server.ready_after.as_secs_f64()),
        (cpu, "s", server.cpu_seconds()?),
        (memory, "MiB", server.memory(Memory::Now)? / MEBIBYTE),
    ];
    for (name, unit, value) in figures {
        run.add(name, unit, value);
    }
    run.holds_all()?;
    // so that a `kill -9` finds a log that is ahead of the store
    let some = (run.scale.keys / 50).max(1);
    run.load(&command(run, &format!("put -total={some}"))).map(drop)
}

fn page(run: &mut Run) -> Result<(), String> {
    let seconds = run.scale.seconds;
    run.load_once(&command(run, &format!("page -clients=4 -conns=4 -seconds={seconds}"))).map(drop)
}

fn pages(run: &mut Run, revision: u64) -> Result<(), String> {
    let every = (run.scale.keys / PAGE_KEYS / PAGES_OF_A_WALK).max(1);
    // the seconds are the least; a whole walk is read in any case
    let words = format!("pages -every={every} -rate=1000 -seconds=1 -revision={revision}");
    run.load_once(&command(run, &words)).map(drop)
}

/// Creates as many keys again behind those there are, then reads at the revision before.
fn pages_created(run: &mut Run) -> Result<(), String> {
    let keys = run.scale.keys;
    let now = run.load(&format!("pages -keys={keys} -every={keys} -rate=0 -seconds=0"))?;
    let revision = now.value("revision")? as u64;
    run.load(&format!("fill -first={keys} -keys={keys} -batch=100"))?;
    pages(run, revision)
}

/// A server that has not read all keys before: what it then holds on to would hide its growth.
fn read_by_a_new_process(run: &mut Run, words: &str) -> Result<f64, String> {
    run.store.stop()?;
    run.store.start()?;
    let part = run.load_once(&command(run, words))?;
    let growth = part.memory_peak - part.memory_before;
    run.add("memory growth", "MiB", growth / MEBIBYTE);
    Ok(growth)
}

fn answer_bytes(run: &Run) -> f64 {
    run.scale.keys as f64 * ANSWER_BYTES_A_KEY
}

fn all(run: &mut Run) -> Result<(), String> {
    let growth = read_by_a_new_process(run, "all -clients=1 -conns=1 -total=3")?;
    run.add("memory growth, in answers", "", growth / answer_bytes(run));
    Ok(())
}

fn all_five(run: &mut Run) -> Result<(), String> {
    let growth = read_by_a_new_process(run, "all -clients=5 -conns=5 -total=5")?;
    let beyond = (growth - 64.0 * MEBIBYTE).max(0.0);
    run.add("memory growth less 64 MiB, in answers", "", beyond / answer_bytes(run));
    Ok(())
}

fn stream(run: &mut Run) -> Result<(), String> {
    read_by_a_new_process(run, "stream -clients=1 -conns=1 -total=3").map(drop)
}

fn cold(run: &mut Run) -> Result<(), String> {
    run.store.stop()?;
    drop_page_cache(&run.store.data_dir())?;
    run.store.start()?;
    let seconds = run.scale.seconds;
    run.load_once(&command(run, &format!("compare -rate=2000 -seconds={seconds}"))).map(drop)
}
