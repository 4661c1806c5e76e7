//! A member as the transport sees one: a listener, and a raft that writes down what it is told.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etched_proto::raftpb::{Entry, Message, MessageType, Snapshot, SnapshotMetadata};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::{Config, Dialer, Idle, Raft, Refused, SnapshotBody, SnapshotRefused, Transport};

pub(crate) const CLUSTER: u64 = 0xc1;
/// No test waits for as long as this, unless it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a member was told.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    Message(Box<Message>),
    Unreachable(u64),
    Sent(u64, bool),
    Removed,
    /// Bytes of a database and their sum, and whether it ended well.
    Database {
        index: u64,
        bytes: u64,
        sum: u64,
        whole: bool,
    },
    /// A request was answered.
    Answered(String, u16),
}

pub(crate) struct Fake {
    events: mpsc::UnboundedSender<Event>,
    pub(crate) removed: Mutex<HashSet<u64>>,
    /// Why messages are refused.
    pub(crate) refuse: Mutex<Option<Refused>>,
}

impl Fake {
    fn tell(&self, event: Event) {
        // A test that has ended hears nothing.
        let _ = self.events.send(event);
    }
}

impl Raft for Fake {
    fn process(&self, message: Message) -> Result<(), Refused> {
        if let Some(refused) = self.refuse.lock().clone() {
            return Err(refused);
        }
        self.tell(Event::Message(Box::new(message)));
        Ok(())
    }

    fn is_id_removed(&self, id: u64) -> bool {
        self.removed.lock().contains(&id)
    }

    fn report_unreachable(&self, id: u64) {
        self.tell(Event::Unreachable(id));
    }

    fn report_snapshot(&self, id: u64, sent: bool) {
        self.tell(Event::Sent(id, sent));
    }

    fn removed(&self) {
        self.tell(Event::Removed);
    }

    fn receive_snapshot(
        &self,
        message: Message,
        mut database: SnapshotBody,
    ) -> Pin<Box<dyn Future<Output = Result<(), SnapshotRefused>> + Send + '_>> {
        Box::pin(async move {
            let (mut bytes, mut sum, mut failed) = (0, 0_u64, None);
            loop {
                match database.chunk().await {
                    Ok(Some(chunk)) => {
                        bytes += chunk.len() as u64;
                        sum =
                            chunk.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            let index = crate::snapshot::snapshot_index(&message).unwrap_or_default();
            self.tell(Event::Database { index, bytes, sum, whole: failed.is_none() });
            failed.map_or(Ok(()), |error| Err(SnapshotRefused::Save(error.to_string())))
        })
    }
}

/// A member with an address.
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) transport: Arc<Transport>,
    pub(crate) raft: Arc<Fake>,
    pub(crate) address: SocketAddr,
    events: mpsc::UnboundedReceiver<Event>,
    connections: Arc<Mutex<JoinSet<()>>>,
    _listening: JoinSet<()>,
}

impl Member {
    pub(crate) async fn start(id: u64) -> Self {
        Self::start_with(id, |_| {}).await
    }

    pub(crate) async fn start_with(id: u64, change: impl FnOnce(&mut Config)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut config = Config {
            id,
            cluster_id: CLUSTER,
            urls: vec![format!("http://{address}")],
            version: "3.7.1",
            dialer: Dialer { timeout: Duration::from_secs(10), tls: None },
            read_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(5),
            runtime: tokio::runtime::Handle::current(),
        };
        change(&mut config);
        let (told, events) = mpsc::unbounded_channel();
        let raft =
            Arc::new(Fake { events: told, removed: Mutex::default(), refuse: Mutex::default() });
        let transport = Arc::new(Transport::new(config, Arc::clone(&raft) as _).unwrap());
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let mut listening = JoinSet::new();
        listening.spawn(accept(
            listener,
            Arc::clone(&transport),
            Arc::clone(&raft),
            Arc::clone(&connections),
        ));
        Self { id, transport, raft, address, events, connections, _listening: listening }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks everything that others have open to this member.
    pub(crate) async fn kill_connections(&self) {
        let mut connections = std::mem::take(&mut *self.connections.lock());
        connections.shutdown().await;
    }

    pub(crate) fn add(&self, other: &Self) {
        self.transport.add_peer(other.id, &[other.url()]).unwrap();
    }

    /// The first event for which there is an answer; others are passed over.
    pub(crate) async fn wait<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let picked = async {
            loop {
                let event = self.events.recv().await.expect("the transport holds the other end");
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
        };
        tokio::time::timeout(PATIENCE, picked).await.expect("an event")
    }

    pub(crate) async fn wait_for(&mut self, expected: &Event) {
        self.wait(|event| (event == *expected).then_some(())).await;
    }

    pub(crate) async fn message(&mut self) -> Message {
        self.wait(|event| match event {
            Event::Message(message) => Some(*message),
            _ => None,
        })
        .await
    }

    /// Waits until others have asked for both their streams.
    pub(crate) async fn asked_by(&mut self, others: impl IntoIterator<Item = u64>) {
        let mut paths = HashSet::new();
        for other in others {
            paths.insert(format!("/raft/stream/msgapp/{other:x}"));
            paths.insert(format!("/raft/stream/message/{other:x}"));
        }
        self.wait(|event| {
            if let Event::Answered(path, 200) = event {
                paths.remove(&path);
            }
            paths.is_empty().then_some(())
        })
        .await;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.transport.stop();
    }
}

async fn accept(
    listener: TcpListener,
    transport: Arc<Transport>,
    raft: Arc<Fake>,
    connections: Arc<Mutex<JoinSet<()>>>,
) {
    loop {
        let (stream, remote) = listener.accept().await.unwrap();
        let (transport, raft) = (Arc::clone(&transport), Arc::clone(&raft));
        connections.lock().spawn(async move {
            let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async {
                let path = request.uri().path().to_owned();
                let answer = transport.serve(&remote.to_string(), request).await;
                raft.tell(Event::Answered(path, answer.status().as_u16()));
                Ok::<_, Infallible>(answer)
            });
            let io = TokioIo::new(Idle::for_writes(stream, Duration::from_secs(5)));
            let http = hyper::server::conn::http1::Builder::new();
            // How it ends shows at the other side.
            let _ = http.serve_connection(io, service).await;
        });
    }
}

/// Members that know each other, with all streams open.
pub(crate) async fn cluster<const N: usize>() -> [Member; N] {
    let mut members = Vec::new();
    for id in 1..=N as u64 {
        members.push(Member::start(id).await);
    }
    for member in &members {
        members.iter().filter(|other| other.id != member.id).for_each(|other| member.add(other));
    }
    for member in &mut members {
        let id = member.id;
        member.asked_by((1..=N as u64).filter(|other| *other != id)).await;
    }
    members.try_into().unwrap_or_else(|_| unreachable!("N members"))
}

pub(crate) fn message(kind: MessageType, from: u64, to: u64) -> Message {
    Message {
        r#type: Some(kind as i32),
        from: Some(from),
        to: Some(to),
        term: Some(3),
        ..Message::default()
    }
}

/// An append of one entry behind `index`.
pub(crate) fn append(from: u64, to: u64, index: u64, data: impl Into<Bytes>) -> Message {
    let entry =
        Entry { term: Some(3), index: Some(index + 1), data: Some(data.into()), r#type: None };
    Message {
        log_term: Some(3),
        index: Some(index),
        commit: Some(index),
        entries: vec![entry],
        ..message(MessageType::MsgApp, from, to)
    }
}

pub(crate) fn snapshot(from: u64, to: u64, index: u64) -> Message {
    let metadata = SnapshotMetadata { index: Some(index), term: Some(3), conf_state: None };
    let data = Some(Bytes::from_static(b"{}"));
    Message {
        snapshot: Some(Snapshot { data, metadata: Some(metadata) }),
        ..message(MessageType::MsgSnap, from, to)
    }
}

/// Sends a request as it stands; the whole answer.
pub(crate) async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}
