//! What is measured. A scenario runs on one server and gives its figures; it knows nothing of rounds,
//! of the other server or of the table. A new one is a function and a line in [`SCENARIOS`].

use std::path::{Path, PathBuf};

use super::load::{count_keys, generate};
use super::server::{Memory, Server, bytes_on_disk};

/// One measured number.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    /// What it is, the same for both servers.
    pub(super) name: &'static str,
    /// Its unit, for the table.
    pub(super) unit: &'static str,
    /// The number in that unit.
    pub(super) value: f64,
}

/// Something both servers do.
pub(super) struct Scenario {
    /// Its name on the command line and in the JSON.
    pub(super) name: &'static str,
    /// One line for the table.
    pub(super) what: &'static str,
    /// Runs it on one server.
    pub(super) run: fn(&Setup) -> Result<Vec<Figure>, String>,
}

/// The surroundings of one run.
pub(super) struct Setup {
    /// The server to measure.
    pub(super) binary: PathBuf,
    /// etcd's load generator.
    pub(super) benchmark: PathBuf,
    /// etcd's command-line client.
    pub(super) etcdctl: PathBuf,
    /// An empty folder for this run.
    pub(super) folder: PathBuf,
    /// Requests of a load scenario.
    pub(super) requests: u64,
    /// Keys of a scenario about size.
    pub(super) keys: u64,
}

/// All scenarios, in the order they run.
pub(super) const SCENARIOS: [Scenario; 3] = [
    Scenario { name: "start", what: "first start on an empty folder", run: first_start },
    Scenario {
        name: "put-100",
        what: "Put, 32-byte keys, 256-byte values, 100 clients on 10 connections",
        run: put_100,
    },
    Scenario {
        name: "keys",
        what: "that many keys of 32 and values of 256 bytes: memory, disk, restart",
        run: many_keys,
    },
];

const MEBIBYTE: f64 = 1024.0 * 1024.0;

fn figure(name: &'static str, unit: &'static str, value: f64) -> Figure {
    Figure { name, unit, value }
}

impl Setup {
    fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn start(&self) -> Result<Server, String> {
        Server::start(&self.binary, &self.data_dir())
    }

    /// A figure of a server that lost or never got its keys would flatter.
    fn holds_all(&self, server: &Server) -> Result<(), String> {
        let count = count_keys(&self.etcdctl, &server.endpoint)?;
        if count == self.keys { Ok(()) } else { Err(format!("{count} keys of {}", self.keys)) }
    }
}

fn first_start(setup: &Setup) -> Result<Vec<Figure>, String> {
    let server = setup.start()?;
    let memory = server.memory(Memory::Now)?;
    let ready = server.ready_after;
    let stopping = server.stop()?;
    Ok(vec![
        figure("ready after", "ms", ready.as_secs_f64() * 1e3),
        figure("resident memory", "MiB", memory / MEBIBYTE),
        figure("SIGTERM to exit", "ms", stopping.as_secs_f64() * 1e3),
    ])
}

/// Arguments for `benchmark put` with the project's usual sizes.
fn put(clients: u64, connections: u64, total: u64, keys: u64) -> Vec<String> {
    vec![
        format!("--clients={clients}"),
        format!("--conns={connections}"),
        "put".to_owned(),
        "--key-size=32".to_owned(),
        "--val-size=256".to_owned(),
        "--sequential-keys".to_owned(),
        format!("--key-space-size={keys}"),
        format!("--total={total}"),
    ]
}

fn put_100(setup: &Setup) -> Result<Vec<Figure>, String> {
    let server = setup.start()?;
    let warm = put(100, 10, setup.requests / 10, 100_000);
    generate(&setup.benchmark, &server.endpoint, &warm)?;
    let before = server.cpu_seconds()?;
    let measured = put(100, 10, setup.requests, 100_000);
    let (summary, load_cpu) = generate(&setup.benchmark, &server.endpoint, &measured)?;
    let cpu = server.cpu_seconds()? - before;
    let requests = setup.requests as f64;
    let figures = vec![
        figure("throughput", "1/s", summary.per_second),
        figure("p50", "ms", summary.p50_milliseconds),
        figure("p99", "ms", summary.p99_milliseconds),
        figure("server CPU per op", "us", cpu / requests * 1e6),
        figure("load CPU per op", "us", load_cpu / requests * 1e6),
        figure("peak memory", "MiB", server.memory(Memory::Peak)? / MEBIBYTE),
    ];
    server.stop()?;
    Ok(figures)
}

fn many_keys(setup: &Setup) -> Result<Vec<Figure>, String> {
    let server = setup.start()?;
    let load = put(1000, 100, setup.keys, setup.keys);
    generate(&setup.benchmark, &server.endpoint, &load)?;
    let mut figures = vec![
        figure("memory when loaded", "MiB", server.memory(Memory::Now)? / MEBIBYTE),
        figure("peak memory", "MiB", server.memory(Memory::Peak)? / MEBIBYTE),
        figure("on disk", "MiB", bytes_on_disk(&setup.data_dir())? / MEBIBYTE),
    ];
    setup.holds_all(&server)?;
    server.stop()?;
    figures.extend(restarted(&RESTART_TERM, setup)?);
    figures.extend(restarted(&RESTART_KILL, setup)?);
    Ok(figures)
}

/// Names of a restart's figures, and how the server is ended after them.
struct Restart {
    figures: [&'static str; 3],
    end: fn(Server) -> Result<std::time::Duration, String>,
}

/// The start after a SIGTERM; it ends by `kill -9`, for the next.
const RESTART_TERM: Restart = Restart {
    figures: ["SIGTERM, start to ready", "CPU of that start", "memory after that start"],
    end: Server::kill,
};

/// The start after a `kill -9` that followed some writes.
const RESTART_KILL: Restart = Restart {
    figures: [
        "kill -9, start to ready",
        "CPU of the start after kill",
        "memory after kill and start",
    ],
    end: Server::stop,
};

fn restarted(names: &Restart, setup: &Setup) -> Result<Vec<Figure>, String> {
    let server = setup.start()?;
    let [ready, cpu, memory] = names.figures;
    let figures = vec![
        figure(ready, "s", server.ready_after.as_secs_f64()),
        figure(cpu, "s", server.cpu_seconds()?),
        figure(memory, "MiB", server.memory(Memory::Now)? / MEBIBYTE),
    ];
    setup.holds_all(&server)?;
    overwrite_some(&setup.benchmark, &server, setup.keys)?;
    (names.end)(server)?;
    Ok(figures)
}

/// Writes on, so that a `kill -9` finds a log that is ahead of the store.
fn overwrite_some(benchmark: &Path, server: &Server, keys: u64) -> Result<(), String> {
    generate(benchmark, &server.endpoint, &put(100, 10, (keys / 50).max(1), keys)).map(drop)
}
