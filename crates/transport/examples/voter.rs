//! A member that votes and acknowledges, and in a cluster of two leads when it is told to. It keeps its log in memory
//! only: what the tests put beside real etcd, so that it speaks with the transport in both directions.
//!
//! ```text
//! voter LISTEN_ADDRESS ID CLUSTER_ID PEER_ID=PEER_URL...
//! ```
//! Ids are hexadecimal. Each message that comes in is a line of output: its kind, its index, its number of entries.
//! It does what raft asks for only as far as a healthy cluster needs it. As soon as it leads it sends a snapshot of index 1,
//! which raft passes over because everybody has more, after the receiver has kept its database: ten megabytes of nothing.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etched_proto::raftpb::{Entry, Message, MessageType, Snapshot, SnapshotMetadata};
use etched_transport::{
    Body, Config, Dialer, IO_TIMEOUT, Idle, Raft, Refused, SnapshotBody, SnapshotRefused,
    SnapshotSource, Transport,
};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// How often a leader says that it is there.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// Pieces of the snapshot that a new leader sends, and their bytes.
const PIECES: u64 = 160;
const PIECE_BYTES: usize = 64 << 10;

/// Passes everything on to the task that is the member.
struct Inbox(mpsc::UnboundedSender<Message>);

impl Raft for Inbox {
    fn process(&self, message: Message) -> Result<(), Refused> {
        self.0.send(message).map_err(|_| Refused::Because("it has ended".to_owned()))
    }

    fn is_id_removed(&self, _id: u64) -> bool {
        false
    }

    fn report_unreachable(&self, id: u64) {
        println!("unreachable {id:x}");
    }

    fn report_snapshot(&self, id: u64, sent: bool) {
        println!("snapshot {id:x} {sent}");
    }

    fn removed(&self) {
        println!("removed");
    }

    fn receive_snapshot(
        &self,
        message: Message,
        mut database: SnapshotBody,
    ) -> Pin<Box<dyn Future<Output = Result<(), SnapshotRefused>> + Send + '_>> {
        Box::pin(async move {
            let failed = |error: std::io::Error| SnapshotRefused::Save(error.to_string());
            let mut bytes = 0;
            while let Some(chunk) = database.chunk().await.map_err(failed)? {
                bytes += chunk.len();
            }
            println!("database {bytes}");
            self.process(message).map_err(|error| SnapshotRefused::Process(error.to_string()))
        })
    }
}

/// The member.
#[derive(Default)]
struct Member {
    me: u64,
    /// Who spoke last.
    peer: u64,
    term: u64,
    leads: bool,
    commit: u64,
    /// The entry at index 1, and all behind it.
    log: Vec<Entry>,
    /// Where the peer's next append begins, while this member leads.
    next: u64,
}

impl Member {
    /// What there is to say about a message.
    fn step(&mut self, message: Message) -> Vec<Message> {
        let kind = MessageType::try_from(message.r#type.unwrap_or_default());
        let term = message.term.unwrap_or_default();
        self.peer = message.from.unwrap_or_default();
        if term > self.term && kind != Ok(MessageType::MsgPreVote) {
            (self.term, self.leads) = (term, false);
        }
        match kind {
            Ok(MessageType::MsgPreVote) => vec![self.granted(MessageType::MsgPreVoteResp, term)],
            Ok(MessageType::MsgVote) => vec![self.granted(MessageType::MsgVoteResp, term)],
            Ok(MessageType::MsgHeartbeat) => {
                let answer = self.message(MessageType::MsgHeartbeatResp);
                vec![Message { context: message.context, ..answer }]
            }
            Ok(MessageType::MsgApp) => vec![self.append(message)],
            Ok(MessageType::MsgSnap) => vec![self.restore(&message)],
            Ok(MessageType::MsgTimeoutNow) => vec![self.campaign()],
            Ok(MessageType::MsgVoteResp) if !message.reject.unwrap_or_default() => {
                (self.leads, self.next) = (true, self.last() + 1);
                self.propose(vec![Entry::default()])
            }
            Ok(MessageType::MsgAppResp) if self.leads => self.acknowledged(&message),
            Ok(MessageType::MsgProp) if self.leads => self.propose(message.entries),
            Ok(MessageType::MsgReadIndex) if self.leads => {
                let answer = self.message(MessageType::MsgReadIndexResp);
                let index = Some(self.commit);
                vec![Message { index, entries: message.entries, ..answer }]
            }
            _ => Vec::new(),
        }
    }

    fn message(&self, kind: MessageType) -> Message {
        Message {
            r#type: Some(kind as i32),
            from: Some(self.me),
            to: Some(self.peer),
            term: Some(self.term),
            ..Message::default()
        }
    }

    fn granted(&self, kind: MessageType, term: u64) -> Message {
        Message { term: Some(term), ..self.message(kind) }
    }

    fn last(&self) -> u64 {
        self.log.len() as u64
    }

    fn term_at(&self, index: u64) -> u64 {
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        let entry = place.checked_sub(1).and_then(|place| self.log.get(place));
        entry.and_then(|entry| entry.term).unwrap_or_default()
    }

    /// A leader's append: taken if the log reaches as far and agrees there.
    fn append(&mut self, message: Message) -> Message {
        let index = message.index.unwrap_or_default();
        let mut answer = self.message(MessageType::MsgAppResp);
        if index > self.last() || self.term_at(index) != message.log_term.unwrap_or_default() {
            let hint = index.min(self.last());
            answer.index = Some(index);
            answer.reject = Some(true);
            answer.reject_hint = Some(hint);
            answer.log_term = Some(self.term_at(hint));
            return answer;
        }
        if !message.entries.is_empty() {
            self.log.truncate(usize::try_from(index).expect("no longer than the log"));
            self.log.extend(message.entries);
        }
        self.commit = message.commit.unwrap_or_default().min(self.last());
        answer.index = Some(self.last());
        answer
    }

    /// What a snapshot covers is from now on there as entries without content.
    fn restore(&mut self, message: &Message) -> Message {
        let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
        let (index, term) =
            metadata.map(|metadata| (metadata.index, metadata.term)).unwrap_or_default();
        let entry = |index| Entry { index: Some(index), term, ..Entry::default() };
        self.log = (1..=index.unwrap_or_default()).map(entry).collect();
        Message { index: Some(self.last()), ..self.message(MessageType::MsgAppResp) }
    }

    fn campaign(&mut self) -> Message {
        self.term += 1;
        Message {
            index: Some(self.last()),
            log_term: Some(self.term_at(self.last())),
            context: Some(Bytes::from_static(b"CampaignTransfer")),
            ..self.message(MessageType::MsgVote)
        }
    }

    fn propose(&mut self, entries: Vec<Entry>) -> Vec<Message> {
        for entry in entries {
            let (term, index) = (Some(self.term), Some(self.last() + 1));
            self.log.push(Entry { term, index, ..entry });
        }
        vec![self.news()]
    }

    fn acknowledged(&mut self, message: &Message) -> Vec<Message> {
        let index = message.index.unwrap_or_default();
        if message.reject.unwrap_or_default() {
            self.next = message.reject_hint.unwrap_or_default() + 1;
            return vec![self.news()];
        }
        if index <= self.commit || self.term_at(index) != self.term {
            return Vec::new();
        }
        self.commit = index;
        vec![self.news()]
    }

    /// What the peer has not been sent yet, and what is committed.
    fn news(&mut self) -> Message {
        let index = self.next - 1;
        let place = usize::try_from(index).expect("no longer than the log");
        self.next = self.last() + 1;
        Message {
            index: Some(index),
            log_term: Some(self.term_at(index)),
            entries: self.log[place..].to_vec(),
            commit: Some(self.commit),
            ..self.message(MessageType::MsgApp)
        }
    }

    fn heartbeat(&self) -> Option<Message> {
        let beat = self.message(MessageType::MsgHeartbeat);
        let commit = Some(self.commit.min(self.next.saturating_sub(1)));
        self.leads.then_some(Message { commit, ..beat })
    }
}

/// What came, and what the member says to it, as long as it lives.
async fn live(
    mut member: Member,
    mut inbox: mpsc::UnboundedReceiver<Message>,
    transport: Arc<Transport>,
) {
    let mut beats = tokio::time::interval(HEARTBEAT);
    loop {
        tokio::select! {
            _ = beats.tick() => transport.send(member.heartbeat()),
            message = inbox.recv() => {
                let Some(message) = message else { return };
                let kind = MessageType::try_from(message.r#type.unwrap_or_default());
                let kind = kind.map_or("unknown", |kind| kind.as_str_name());
                println!("{kind} {} {}", message.index.unwrap_or_default(), message.entries.len());
                let led = member.leads;
                transport.send(member.step(message));
                if member.leads && !led {
                    send_snapshot(&member, &transport);
                }
            }
        }
    }
}

/// Sends what a receiver keeps and raft does not want.
fn send_snapshot(member: &Member, transport: &Transport) {
    let metadata = SnapshotMetadata { index: Some(1), term: Some(1), conf_state: None };
    let snapshot = Snapshot { data: None, metadata: Some(metadata) };
    let message = Message { snapshot: Some(snapshot), ..member.message(MessageType::MsgSnap) };
    let (to, chunks) = mpsc::channel(2);
    tokio::spawn(async move {
        for _ in 0..PIECES {
            if to.send(Ok(Bytes::from(vec![0; PIECE_BYTES]))).await.is_err() {
                return;
            }
        }
    });
    transport.send_snapshot(message, SnapshotSource { size: PIECES * PIECE_BYTES as u64, chunks });
}

async fn answer(transport: &Transport, request: Request<Incoming>) -> Response<Body> {
    let version = br#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#;
    if request.uri().path() == "/version" {
        return Response::new(Body::Full(Some(Bytes::from_static(version))));
    }
    transport.serve("peer", request).await
}

async fn serve(stream: TcpStream, transport: Arc<Transport>) {
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(answer(&transport, request).await) });
    let io = TokioIo::new(Idle::for_writes(stream, IO_TIMEOUT));
    if let Err(error) =
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
    {
        println!("connection: {error}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, id, cluster_id, peers @ ..] = &arguments[..] else {
        return Err("usage: voter LISTEN_ADDRESS ID CLUSTER_ID PEER_ID=PEER_URL...".into());
    };
    let id_of = |text: &str| u64::from_str_radix(text, 16);
    let me = id_of(id)?;
    let listener = TcpListener::bind(listen).await?;
    let config = Config {
        id: me,
        cluster_id: id_of(cluster_id)?,
        urls: vec![format!("http://{listen}")],
        version: "3.7.1",
        dialer: Dialer { timeout: Duration::from_secs(2), tls: None },
        read_timeout: IO_TIMEOUT,
        write_timeout: IO_TIMEOUT,
        runtime: tokio::runtime::Handle::current(),
    };
    let (to, inbox) = mpsc::unbounded_channel();
    let transport = Arc::new(Transport::new(config, Arc::new(Inbox(to)))?);
    for peer in peers {
        let (id, url) = peer.split_once('=').ok_or("a peer is ID=URL")?;
        transport.add_peer(id_of(id)?, &[url])?;
    }
    let member = Member { me, ..Member::default() };
    tokio::spawn(live(member, inbox, Arc::clone(&transport)));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream, Arc::clone(&transport)));
    }
}
