//! One key a request, on a store of few keys: puts, reads, transactions, leases, events.

use super::super::benchmark;
use super::super::server::bytes_on_disk;
use super::super::target::Target;
use super::super::target::Want::{AtMost, RatioAtLeast, RatioAtMost};
use super::{Group, MEBIBYTE, Run, Scenario, scenario, target};

pub(super) const GROUP: Group = Group {
    name: "small",
    prepare,
    scenarios: &[
        scenario("put-100", "Put 32 B / 256 B, 100 clients on 10 connections", PUT, put_100),
        scenario("put-1000", "Put, 1,000 clients on 100 connections", PUT, put_1000),
        scenario("put-1", "Put, 1 client", PUT_ALONE, put_1),
        scenario(
            "benchmark",
            "put-100 at saturation by etcd's own benchmark: a cross-check of our generator",
            &[],
            by_benchmark,
        ),
        scenario("get", "linearizable Get of one key, 100 clients", GET, |run| {
            run.load_at_both_rates(&command(run, "get"), run.scale.requests)
        }),
        scenario("get-serializable", "serializable Get, 100 clients", GET_SERIALIZABLE, |run| {
            run.load_at_both_rates(&command(run, "get -serializable"), run.scale.requests)
        }),
        scenario("txn", "Txn: if mod_revision = x then Put else Get, 100 clients", TXN, |run| {
            run.load_at_both_rates(&command(run, "txn"), run.scale.requests)
        }),
        scenario("keepalive", "lease keepalive, 100 clients", KEEPALIVE, |run| {
            run.load_at_both_rates("keepalive", run.scale.requests)
        }),
        scenario("watch-one", "1 writer, 1,000 watchers of its key on 100 streams", WATCH, |run| {
            watch(run, "-clients=1 -conns=10 -watchers=1000 -streams=100 -rate=20")
        }),
        scenario("watch-many", "10,000 watchers of different keys on 100 streams", WATCH, |run| {
            watch(run, "-clients=10 -watchers=10000 -streams=100 -distinct -rate=1000")
        }),
        Scenario {
            name: "expire",
            what: "leases that all end in one second, beside 1,000 Puts/s",
            // etcd takes minutes for as many
            rounds: 1,
            targets: &[
                target("last end to all gone", AtMost(2.0)),
                target("p99 during / before", AtMost(2.0)),
            ],
            run: expire,
        },
    ],
};

const THIRD: f64 = 1.0 / 3.0;
const PUT: &[Target] = &[
    target("throughput", RatioAtLeast(1.5)),
    target("server CPU per op", RatioAtMost(THIRD)),
    target("p99", RatioAtMost(0.5)),
    target("server CPU per op at 70 %", RatioAtMost(THIRD)),
    target("p99 at 70 %", RatioAtMost(0.5)),
];
const PUT_ALONE: &[Target] = &[
    target("server CPU per op", RatioAtMost(0.25)),
    target("p50", RatioAtMost(0.9)),
    target("server CPU per op at 70 %", RatioAtMost(0.25)),
    target("p50 at 70 %", RatioAtMost(0.9)),
];
const GET: &[Target] = &[
    target("throughput", RatioAtLeast(1.3)),
    target("server CPU per op", RatioAtMost(0.5)),
    target("server CPU per op at 70 %", RatioAtMost(0.5)),
];
const GET_SERIALIZABLE: &[Target] = &[
    target("server CPU per op", RatioAtMost(0.5)),
    target("server CPU per op at 70 %", RatioAtMost(0.5)),
];
const TXN: &[Target] = &[
    target("server CPU per op", RatioAtMost(THIRD)),
    target("server CPU per op at 70 %", RatioAtMost(THIRD)),
];
const KEEPALIVE: &[Target] = &[
    target("server CPU per op", RatioAtMost(2.0 / 3.0)),
    target("server CPU per op at 70 %", RatioAtMost(2.0 / 3.0)),
];
const WATCH: &[Target] =
    &[target("server CPU per op", RatioAtMost(0.25)), target("p99", RatioAtMost(0.5))];

fn prepare(run: &mut Run) -> Result<(), String> {
    run.store.start()?;
    run.load(&command(run, "fill")).map(drop)
}

/// A command of the load generator on the keys of this store.
fn command(run: &Run, words: &str) -> String {
    format!("{words} -keys={}", run.scale.few_keys)
}

fn put_100(run: &mut Run) -> Result<(), String> {
    put(run, "-clients=100 -conns=10", run.scale.requests)
}

fn put_1000(run: &mut Run) -> Result<(), String> {
    put(run, "-clients=1000 -conns=100", run.scale.requests)
}

fn put_1(run: &mut Run) -> Result<(), String> {
    // one client waits for the disk each time, so fewer take as long
    put(run, "-clients=1 -conns=1", run.scale.requests / 20)
}

fn put(run: &mut Run, clients: &str, total: u64) -> Result<(), String> {
    let outcome = run.load_at_both_rates(&command(run, &format!("put {clients}")), total);
    let disk = bytes_on_disk(&run.store.data_dir())?;
    run.add("on disk", "MiB", disk / MEBIBYTE);
    outcome
}

fn by_benchmark(run: &mut Run) -> Result<(), String> {
    let requests = run.scale.requests;
    let server = run.store.server()?;
    let before = server.cpu_seconds()?;
    let arguments = benchmark::put(100, 10, requests, run.scale.few_keys);
    let (summary, load_cpu) =
        benchmark::generate(&run.programs.benchmark, &server.endpoint, &arguments)?;
    let cpu = server.cpu_seconds()? - before;
    let each = |seconds: f64| seconds / requests as f64 * 1e6;
    run.add("throughput", "1/s", summary.per_second);
    run.add("p50", "ms", summary.p50_milliseconds);
    run.add("p99", "ms", summary.p99_milliseconds);
    run.add("server CPU per op", "us", each(cpu));
    run.add("load CPU per op", "us", each(load_cpu));
    Ok(())
}

/// An operation is a delivered event here, and its latency from when the write was due.
fn watch(run: &mut Run, flags: &str) -> Result<(), String> {
    run.load_once(&format!("watch {flags} -seconds={}", run.scale.seconds)).map(drop)
}

fn expire(run: &mut Run) -> Result<(), String> {
    let (leases, seconds) = (run.scale.leases, run.scale.seconds);
    // room to grant them at a rate that both servers reach, then for the puts without
    let at = leases / GRANTS_A_SECOND + seconds + 5;
    let report =
        run.load(&format!("expire -keys={leases} -at={at} -rate=1000 -seconds={seconds}"))?;
    run.add_before_and_during(&report)?;
    run.add("last end to all gone", "s", report.value("seconds from the last end until all gone")?);
    Ok(())
}

const GRANTS_A_SECOND: u64 = 6000;
