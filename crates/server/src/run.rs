//! Start-up, the threads, shutdown.
//!
//! ```text
//! bind ──> lock, open, replay ──> raft, flusher, watch threads ──> publish ──> serve
//! stop: no new connections ──> streams end ──> requests drain ──> last checkpoint ──> log closed
//! ```

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use etched_mvcc::watch::CatchUp;
use etched_storage::Storage;
use etched_wal::disk::{Disk, RealDisk};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::StartError;
use crate::at_start;
use crate::auth::Tokens;
use crate::beginning::Beginning;
use crate::boot::{self, Booted, Paths};
use crate::compactor;
use crate::config::Config;
use crate::corruption;
use crate::http::Surface;
use crate::joining;
use crate::lane;
use crate::listen::{self, Bound, Connections, Endpoint, Service, Socket, Stream};
use crate::notify;
use crate::publish;
use crate::received;
use crate::secure::Sides;
use crate::shared::{Event, Shared};
use crate::takeover::{self, Held};
use crate::versions;

/// Threads that answer large reads, per network thread.
const READ_THREADS: usize = 4;
/// Room for transactions nested as deep as they are decoded; only what is used takes memory.
const STACK_BYTES: usize = 8 << 20;
/// Why a member ends that was removed; etcd's words.
const REMOVED: &str = "the member has been permanently removed from the cluster";
/// How long a member that was removed still serves; etcd's.
const REMOVED_DELAY: Duration = Duration::from_secs(1);
/// How long a network thread waits for its connections at the end.
const CONNECTIONS_TIMEOUT: Duration = Duration::from_secs(2);

/// A running member.
pub struct Handle {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    failed: watch::Receiver<Option<String>>,
    network: Vec<JoinHandle<()>>,
    peers: JoinHandle<()>,
    /// Ends `peers`, which the others need to the last.
    stop_peers: watch::Sender<bool>,
    catch_up: JoinHandle<()>,
    flusher: JoinHandle<()>,
    engine: JoinHandle<()>,
    addresses: Vec<String>,
}

/// A store's file and what it said of itself.
type Opened = (Storage, etched_storage::Boot);

/// A store, and etcd's database that it was made of just now.
type WithEtcds<F> = (Opened, Option<Held<F>>);

/// [`Storage::open`] on some disk.
pub(crate) type OpenStore<'o> =
    dyn Fn(&Path, etched_storage::Options) -> etched_storage::Result<Opened> + 'o;

/// Serves a member until SIGTERM or SIGINT.
///
/// # Errors
/// What stood in the way of the start, or what the server had to stop for; one line each.
pub fn run(config: Config) -> Result<(), String> {
    let exit_by_signal = config.exit_by_signal;
    let runtime = runtime().map_err(|error| error.to_string())?;
    let signals = {
        let _inside = runtime.enter();
        Signals::new().map_err(|error| format!("cannot listen for signals: {error}"))?
    };
    let mut signals = signals;
    let mut handle = start(config.clone()).map_err(|error| error.to_string())?;
    // Done: members that have come since are not to be forced out again.
    let config = Config { force_new_cluster: false, ..config };
    let end = loop {
        match runtime.block_on(end_of(&handle, &mut signals)) {
            End::Anew => {
                tracing::info!("a leader sent a snapshot; starting anew on it");
                handle.stop();
                handle = start(config.clone()).map_err(|error| error.to_string())?;
            }
            end => break end,
        }
    };
    match end {
        End::Anew => Ok(()),
        End::Signal(signal) => {
            tracing::info!(signal = signal_name(signal), "received signal; shutting down");
            handle.stop();
            tracing::info!("closed etcd server");
            if exit_by_signal && std::process::id() != 1 {
                // As etcd: whoever waits for the process sees that the signal ended it.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
            Ok(())
        }
        End::Removed => {
            tracing::warn!(error = REMOVED, "server error");
            tracing::warn!("data-dir used by this member must be removed");
            handle.stop();
            Ok(())
        }
        End::Failure(failure) => Err(failure),
    }
}

/// What a server ends by.
enum End {
    Signal(i32),
    /// The cluster goes on without this member.
    Removed,
    /// A snapshot is there that the store is to be made of.
    Anew,
    Failure(String),
}

/// Waits for the end, and tells whoever started the server when it serves.
async fn end_of(handle: &Handle, signals: &mut Signals) -> End {
    let shared = &handle.shared;
    let (mut failed, mut published) = (handle.failed.clone(), shared.published.subscribe());
    let (mut removed, mut anew) = (shared.removed.subscribe(), shared.anew.subscribe());
    let mut signal = std::pin::pin!(signals.next());
    let mut is_ready = false;
    loop {
        tokio::select! {
            signal = &mut signal => return End::Signal(signal),
            failure = failed.wait_for(Option::is_some) => return End::Failure(match failure {
                Ok(failure) => failure.clone().unwrap_or_default(),
                Err(_) => "the server's threads ended".to_owned(),
            }),
            _ = removed.wait_for(|removed| *removed) => {
                // Whoever asked for it should still hear that it is done.
                tokio::time::sleep(REMOVED_DELAY).await;
                return if is_ready { End::Removed } else { End::Failure(REMOVED.to_owned()) };
            }
            _ = anew.wait_for(|anew| *anew) => return End::Anew,
            _ = published.wait_for(|published| *published), if !is_ready => {
                is_ready = true;
                notify::ready();
            }
        }
    }
}

/// Makes a panic that comes out of a damaged store's file the one line that says so, and exit code 1.
///
/// The release build aborts on a panic; without this the operator would see only where in a library.
pub fn report_damage_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| match etched_storage::panic_line(panic) {
        Some(line) => {
            tracing::error!(level = "fatal", error = line, "the server cannot go on");
            std::process::exit(1);
        }
        None => default(panic),
    }));
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => signal_hook::consts::SIGTERM,
            _ = self.interrupt.recv() => signal_hook::consts::SIGINT,
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    if signal == signal_hook::consts::SIGTERM { "terminated" } else { "interrupt" }
}

/// Starts a member; returns when it serves or, if it has to find its cluster first, when it looks for it.
///
/// # Errors
/// [`StartError`]: one line that says what stands in the way.
pub fn start(config: Config) -> Result<Handle, StartError> {
    let io = |action: &str| {
        let action = action.to_owned();
        move |source| StartError::Io { action, source }
    };
    at_start::warn_of_limits(&config);
    at_start::lock_memory(&config)?;
    let first = runtime().map_err(io("start a runtime"))?;
    let sides = Sides::new(&config)?;
    let dial = sides.dialing(&config)?;
    let bound = {
        let _inside = first.enter();
        listen::bind_all(&config, &sides)?
    };
    let threads = network_threads(&config);
    let tokens = Tokens::new(&config.auth)?;
    let disk = RealDisk;
    let (storage, etcds) = open_storage(&config, &disk, &Storage::open)?;
    at_start::defragment(&config, &storage.0)?;
    // As in etcd, a member that begins has nothing to be checked.
    let initialized = etched_wal::exists(&disk, &Paths::of(&config).wal)?;
    let begins = match initialized {
        true => Beginning::again(&config),
        false => Some(first.block_on(joining::begin(&config, &dial))?),
    };
    // One lane more than network threads: members are served on a thread of their own.
    let mut booted = boot::boot(config, begins.as_ref(), dial, disk, storage, tokens, threads + 1)?;
    // The log is locked now.
    drop(etcds);
    let (failed_sender, failed) = watch::channel(None);
    let shared = Arc::clone(&booted.shared);
    if initialized {
        corruption::initial_check(&shared)?;
    }
    let peers = runtime().map_err(io("start a runtime"))?;
    let remotes = begins.map(|begins| begins.remotes).unwrap_or_default();
    crate::peers::connect(&shared, &remotes, peers.handle().clone())?;
    let flusher = spawn_flusher(&mut booted, &failed_sender);
    booted.engine.start()?;
    let Booted { engine, catch_up, .. } = booted;
    let catch_up = spawn_catch_up(catch_up, Arc::clone(&shared), failed_sender.clone());
    let engine = spawn_engine(engine, failed_sender);
    let (stop, stopped) = watch::channel(false);
    let (stop_peers, peers_stopped) = watch::channel(false);
    let addresses = bound.iter().map(address).collect();
    let is_peers = |bound: &Bound| bound.endpoint.service == Service::Http(Surface::Peer);
    let (for_peers, bound) = bound.into_iter().partition(is_peers);
    let peers = spawn_peers(&shared, peers, for_peers, threads, peers_stopped);
    let network = spawn_network(&shared, first, bound, threads, &stopped)
        .map_err(io("start the network threads"))?;
    Ok(Handle {
        shared,
        stop,
        failed,
        network,
        peers,
        stop_peers,
        catch_up,
        flusher,
        engine,
        addresses,
    })
}

impl Handle {
    /// Addresses that are listened on, with the ports the system chose; clients' first.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Waits until clients are served.
    pub async fn ready(&self) {
        let mut published = self.shared.published.subscribe();
        // An error says that the server is gone.
        let _ = published.wait_for(|published| *published).await;
    }

    /// Ends the member: another one leads in its place, open streams are told, requests drain, everything is on disk in
    /// the end.
    pub fn stop(self) {
        self.hand_over();
        let _ = self.stop.send(true);
        self.shared.hub.close();
        for thread in self.network {
            join(thread);
        }
        join(self.catch_up);
        // The flusher's last checkpoint needs the raft thread, so that one ends after it.
        self.shared.flush.stop();
        join(self.flusher);
        self.shared.inbox.push(Event::Stop);
        join(self.engine);
        if let Some(transport) = self.shared.transport.get() {
            transport.stop();
        }
        // A snapshot that is coming in ends with the connection it comes over.
        let _ = self.stop_peers.send(true);
        join(self.peers);
        self.shared.threads.join();
    }

    /// Lets another member lead, if this one does and there is one that could.
    fn hand_over(&self) {
        let shared = &self.shared;
        if !shared.is_leader() || *shared.removed.borrow() || *shared.anew.borrow() {
            return;
        }
        let Some(to) = crate::peers::longest_connected(shared) else { return };
        let deadline = Instant::now() + shared.config.request_timeout();
        shared.inbox.push(Event::Transfer(to));
        while shared.leader() != to {
            if Instant::now() >= deadline {
                tracing::warn!("leadership transfer failed");
                return;
            }
            std::thread::sleep(shared.config.heartbeat_interval / 10);
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the server panicked");
    }
}

/// Half of the cores: the raft thread, the flusher and the kernel want the rest.
fn network_threads(config: &Config) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    config.network_threads.unwrap_or(cores / 2).max(1)
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(READ_THREADS)
        .build()
}

/// Opens or makes the store, unless something stands in the way of a start; `open` is [`Storage::open`] on `disk`.
///
/// # Errors
/// [`StartError`]; nothing has been made in place of what is missing.
pub(crate) fn open_storage<D: Disk>(
    config: &Config,
    disk: &D,
    open: &OpenStore<'_>,
) -> Result<WithEtcds<D::File>, StartError> {
    let paths = Paths::of(config);
    crate::restore::refuse_unfinished(disk, &config.data_dir)?;
    let folder = paths.store.parent().unwrap_or(&paths.member);
    let io_error = |action: &str| {
        let action = format!("{action} the folder {}", folder.display());
        |source| StartError::Io { action, source }
    };
    disk.create_dir(folder).map_err(io_error("make"))?;
    let cache_bytes = config.cache_bytes;
    let etcds = takeover::take_over(disk, &paths, |path| {
        open(path, etched_storage::Options { cache_bytes, create: true })
    })?;
    let names = disk.list(folder).map_err(io_error("list"))?;
    let is_there = names.iter().any(|name| paths.store.ends_with(name));
    // A mark above 0 says that the store was on disk: the log, which may have lost its beginning or never have had
    // one, could not bring back all that was in it. The whole log is read for that, so only where it matters.
    let create = !is_there
        && (!etched_wal::exists(disk, &paths.wal)? || {
            let marks = etched_wal::valid_snapshots(disk, &paths.wal)?;
            !marks.is_empty() && marks.iter().all(|mark| mark.index == 0)
        });
    let options = etched_storage::Options { cache_bytes, create };
    let mut opened = wait_for_storage(&paths, &options, open)?;
    if received::install(disk, &paths, cache_bytes, opened.1.applied, open)? {
        drop(opened);
        opened = wait_for_storage(&paths, &options, open)?;
    }
    Ok((opened, etcds))
}

/// Another server may have the store: that is said at once, and then waited for, as etcd does.
fn wait_for_storage(
    paths: &Paths,
    options: &etched_storage::Options,
    open: &OpenStore<'_>,
) -> Result<Opened, etched_storage::Error> {
    let mut said = false;
    loop {
        match open(&paths.store, options.clone()) {
            Err(error @ etched_storage::Error::InUse { .. }) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(
                        "{error}; waiting for it to end (db file is flocked by another process, or taking too long)"
                    );
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            opened => return opened,
        }
    }
}

fn spawn_flusher<D: Disk>(
    booted: &mut Booted<D>,
    failed: &watch::Sender<Option<String>>,
) -> JoinHandle<()> {
    let (flusher, failed) = (booted.flusher.take().expect("taken once"), failed.clone());
    spawn("flusher", move || {
        if let Err(error) = flusher.run() {
            let _ = failed.send(Some(error.to_string()));
        }
    })
}

fn spawn_engine<D: Disk>(
    engine: crate::engine::Engine<D>,
    failed: watch::Sender<Option<String>>,
) -> JoinHandle<()> {
    spawn("raft", move || {
        if let Err(error) = engine.run() {
            let _ = failed.send(Some(error.to_string()));
        }
    })
}

fn spawn_catch_up(
    catch_up: CatchUp,
    shared: Arc<Shared>,
    failed: watch::Sender<Option<String>>,
) -> JoinHandle<()> {
    spawn("watch-catch-up", move || {
        if let Err(failure) = crate::catch_up::run(catch_up, &shared) {
            let _ = failed.send(Some(failure));
        }
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(work)
        .expect("the system starts the few threads a server needs")
}

fn address(bound: &Bound) -> String {
    match &bound.socket {
        Socket::Tcp(listener) => {
            listener.local_addr().map_or_else(|_| String::new(), |address| address.to_string())
        }
        Socket::Unix(listener) => listener
            .local_addr()
            .ok()
            .and_then(|address| address.as_pathname().map(|path| path.display().to_string()))
            .unwrap_or_default(),
    }
}

fn announce(shared: &Shared, bound: &[Bound]) {
    tracing::info!(
        "local-member-id" = %format!("{:x}", shared.member_id),
        "cluster-id" = %format!("{:x}", shared.cluster_id),
        "published local member to cluster through raft"
    );
    tracing::info!("ready to serve client requests");
    for bound in bound {
        let traffic = match bound.endpoint.service {
            Service::Everything => "grpc+http",
            Service::Grpc => "grpc",
            Service::Http(Surface::Client) => "http",
            Service::Http(_) => continue,
        };
        let address = address(bound);
        if bound.endpoint.plain {
            tracing::info!(
                traffic,
                address,
                "serving client traffic insecurely; this is strongly discouraged!"
            );
        }
        if bound.endpoint.secured.is_some() {
            tracing::info!(traffic, address, "serving client traffic securely");
        }
    }
}

/// The thread that serves other members, and on which all that goes to them does.
fn spawn_peers(
    shared: &Arc<Shared>,
    runtime: Runtime,
    bound: Vec<Bound>,
    number: usize,
    stopped: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    spawn("peers", move || {
        let local = LocalSet::new();
        lane::set_up(&local, &shared, number);
        let (sender, receiver) = mpsc::unbounded_channel();
        spawn_accept(&local, bound, &[sender], &stopped);
        if !*shared.published.borrow() {
            local.spawn_local(publish::run(Arc::clone(&shared), stopped.clone()));
        }
        local.block_on(&runtime, serve_connections(shared, receiver, stopped));
        runtime.shutdown_timeout(CONNECTIONS_TIMEOUT);
    })
}

/// One thread accepts (and serves); connections go round over all of them.
fn spawn_network(
    shared: &Arc<Shared>,
    first: Runtime,
    bound: Vec<Bound>,
    threads: usize,
    stopped: &watch::Receiver<bool>,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let mut runtimes = vec![first];
    for _ in 1..threads {
        runtimes.push(runtime()?);
    }
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..threads).map(|_| mpsc::unbounded_channel()).unzip();
    let mut bound = Some((bound, senders));
    let mut handles = Vec::new();
    for (number, (runtime, receiver)) in runtimes.into_iter().zip(receivers).enumerate() {
        let (shared, stopped) = (Arc::clone(shared), stopped.clone());
        let accepting = bound.take();
        handles.push(spawn(&format!("network-{number}"), move || {
            let local = LocalSet::new();
            lane::set_up(&local, &shared, number);
            if let Some((bound, senders)) = accepting {
                let (published, stopped_too) = (Arc::clone(&shared), stopped.clone());
                local.spawn_local(async move {
                    accept_published(&published, bound, &senders, stopped_too).await;
                });
                local.spawn_local(compactor::run(Arc::clone(&shared), stopped.clone()));
                local.spawn_local(corruption::watch_store(Arc::clone(&shared), stopped.clone()));
                local.spawn_local(corruption::watch_compactions(
                    Arc::clone(&shared),
                    stopped.clone(),
                ));
                local.spawn_local(crate::api::watch_leader(Arc::clone(&shared), stopped.clone()));
                local.spawn_local(versions::watch_version(Arc::clone(&shared), stopped.clone()));
                local.spawn_local(versions::watch_downgrade(Arc::clone(&shared), stopped.clone()));
            }
            local.block_on(&runtime, serve_connections(shared, receiver, stopped));
            runtime.shutdown_timeout(CONNECTIONS_TIMEOUT);
        }));
    }
    Ok(handles)
}

type Handed = (Arc<Endpoint>, Stream);

/// Lets clients in when the cluster knows this member.
async fn accept_published(
    shared: &Shared,
    bound: Vec<Bound>,
    senders: &[mpsc::UnboundedSender<Handed>],
    mut stopped: watch::Receiver<bool>,
) {
    let mut published = shared.published.subscribe();
    tokio::select! {
        _ = published.wait_for(|published| *published) => {}
        _ = stopped.wait_for(|stop| *stop) => return,
    }
    announce(shared, &bound);
    let local = LocalSet::new();
    spawn_accept(&local, bound, senders, &stopped);
    local.await;
}

fn spawn_accept(
    local: &LocalSet,
    bound: Vec<Bound>,
    senders: &[mpsc::UnboundedSender<Handed>],
    stopped: &watch::Receiver<bool>,
) {
    let next = std::rc::Rc::new(std::cell::Cell::new(0));
    for bound in bound {
        let (senders, stopped, next) = (senders.to_vec(), stopped.clone(), next.clone());
        local.spawn_local(async move {
            let hand_over = |endpoint, stream| {
                let number = next.replace(next.get() + 1) % senders.len();
                // A thread that has ended takes nothing: the server is stopping.
                let _ = senders[number].send((endpoint, stream));
            };
            if let Err(error) = listen::accept(bound, stopped, hand_over).await {
                tracing::error!(error = %error, "a listener failed");
            }
        });
    }
}

async fn serve_connections(
    shared: Arc<Shared>,
    mut connections: mpsc::UnboundedReceiver<Handed>,
    mut stopped: watch::Receiver<bool>,
) {
    let open = Connections::default();
    loop {
        let (endpoint, stream) = tokio::select! {
            Some(handed) = connections.recv() => handed,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let (shared, stopped, guard) = (Arc::clone(&shared), stopped.clone(), open.clone());
        tokio::task::spawn_local(async move {
            listen::serve(shared, endpoint, stream, stopped).await;
            drop(guard);
        });
    }
    let deadline = Instant::now() + CONNECTIONS_TIMEOUT;
    while open.open() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
