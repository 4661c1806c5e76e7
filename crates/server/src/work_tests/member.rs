//! A whole member on one thread: its raft thread and its network thread take turns with the client.

use std::future::poll_fn;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etched_proto::etcdserverpb as pb;
use etched_sim::SimDisk;
use etched_storage::Storage;
use etched_wal::disk::Disk as _;
use prost::Message;
use tokio::sync::watch;
use tokio::task::{LocalSet, yield_now};

use super::account::{Account, charge};
use super::client::Client;
use super::disk::CountedDisk;
use crate::ask::Dial;
use crate::auth::Tokens;
use crate::beginning::Beginning;
use crate::boot::{Booted, boot};
use crate::config::Config;
use crate::crash_tests::SimMedium;
use crate::engine::Engine;
use crate::flush::Flusher;
use crate::listen::{self, Endpoint, Service, Stream};
use crate::request::{self, Field};
use crate::shared::{Event, Shared};

/// Entries that [`Member::load`] replicates as one batch.
const LOAD_BATCH: usize = 1000;
/// Turns in which the network thread ends what it has begun.
const TURNS_TO_REST: usize = 50;

pub(crate) struct Member {
    pub(crate) shared: Arc<Shared>,
    engine: Engine<CountedDisk>,
    flusher: Flusher,
}

fn config() -> Config {
    Config {
        data_dir: "/data".into(),
        // All of a test goes into one file, and nothing is flushed or given up by itself.
        log_segment_bytes: 32 << 20,
        commit_bytes: usize::MAX,
        election_timeout: Duration::from_secs(3600),
        ..Config::default()
    }
}

impl Member {
    pub(super) fn start() -> Self {
        let disk = SimDisk::new();
        disk.create_dir(Path::new("/data/member/snap")).expect("a working disk");
        let options = etched_storage::Options { cache_bytes: 128 << 20, ..Default::default() };
        let medium = Arc::new(SimMedium::new(&disk));
        let storage = Storage::open_on(medium, options).expect("a fresh file");
        let tokens = Tokens::new(&config().auth).expect("no keys");
        let begins = Beginning::again(&config());
        let booted =
            boot(config(), begins.as_ref(), Dial::default(), CountedDisk(disk), storage, tokens, 1);
        let booted = booted.expect("a fresh member");
        let Booted { shared, mut engine, flusher, .. } = booted;
        engine.start().expect("a fresh member");
        Self { shared, engine, flusher: flusher.expect("nobody took it") }
    }

    /// Waits until that many proposals wait for the raft thread, then lets it take them as one batch.
    pub(crate) async fn replicate(&mut self, proposals: usize) {
        let mut events = self.proposed(proposals).await;
        self.round(&mut events);
    }

    /// Waits until that many proposals wait for the raft thread, and takes them instead of it.
    pub(crate) async fn proposed(&mut self, proposals: usize) -> Vec<Event> {
        let (mut events, mut taken) = (Vec::new(), Vec::new());
        while events.len() < proposals {
            self.shared.inbox.take(&mut taken, Some(Instant::now()));
            events.append(&mut taken);
            yield_now().await;
        }
        assert_eq!(events.len(), proposals);
        events
    }

    /// Replicates requests for which nobody waits.
    pub(crate) fn load(&mut self, field: Field, requests: impl IntoIterator<Item = impl Message>) {
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let batch = requests.by_ref().take(LOAD_BATCH).map(|request| {
                let id = self.shared.ids.next();
                let data = request::encode_message(id, field, &request);
                Event::Propose { id, data, waiter: None }
            });
            let mut batch = batch.collect();
            self.round(&mut batch);
        }
    }

    /// Makes all ready for authentication to be switched on: the user root, who has the role root.
    pub(crate) fn add_root(&mut self) {
        let name = || etched_auth::ROOT.to_owned();
        let hashed_password = "aGFzaA==".to_owned();
        let user = pb::AuthUserAddRequest { name: name(), hashed_password, ..Default::default() };
        self.load(Field::AuthUserAdd, [user]);
        let grant = pb::AuthUserGrantRoleRequest { user: name(), role: name() };
        self.load(Field::AuthUserGrantRole, [grant]);
    }

    /// Brings everything into the store's file.
    pub(super) fn flush(&mut self) {
        self.flusher.commit_waiting().expect("a working disk");
        let mut events = Vec::new();
        self.shared.inbox.take(&mut events, Some(Instant::now()));
        self.round(&mut events);
    }

    /// Lets the raft thread take whatever waits for it.
    pub(super) fn turn(&mut self) {
        let mut events = Vec::new();
        self.shared.inbox.take(&mut events, Some(Instant::now()));
        if !events.is_empty() {
            self.round(&mut events);
        }
    }

    pub(crate) fn round(&mut self, events: &mut Vec<Event>) {
        charge(Account::Raft, || self.engine.round(events)).expect("a working disk");
    }
}

/// Lets the network thread end what it has begun.
pub(crate) async fn rest() {
    for _ in 0..TURNS_TO_REST {
        yield_now().await;
    }
}

/// Runs `work` with a fresh member and a client that is connected to it.
pub(crate) fn with_member<T>(work: impl AsyncFnOnce(&mut Member, &mut Client) -> T) -> T {
    let mut member = Member::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let local = LocalSet::new();
    crate::lane::set_up(&local, &member.shared, 0);
    let (own, other) = UnixStream::pair().expect("two sockets");
    for socket in [&own, &other] {
        socket.set_nonblocking(true).expect("a socket");
    }
    let (_stop, stopped) = watch::channel(false);
    let shared = Arc::clone(&member.shared);
    let endpoint = Arc::new(Endpoint { service: Service::Grpc, plain: true, secured: None });
    local.spawn_local(listen::serve(shared, endpoint, Stream::Unix(own), stopped));
    let client = async {
        let socket = tokio::net::UnixStream::from_std(other).expect("a socket");
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(16 << 20).initial_connection_window_size(16 << 20);
        let (requests, connection) = builder.handshake(socket).await.expect("an HTTP/2 server");
        let mut client = Client(requests);
        tokio::select! {
            biased;
            ended = connection => panic!("the connection ended: {ended:?}"),
            result = work(&mut member, &mut client) => result,
        }
    };
    let mut client = pin!(client);
    let client = poll_fn(|cx| charge(Account::Nobody, || client.as_mut().poll(cx)));
    charge(Account::Network, || local.block_on(&runtime, client))
}
