//! TLS of accepted connections: the handshake, how long and how many at once, and who the client is.
//!
//! ```text
//! socket ──(first byte, where plain and TLS share an address)──> first message ──turn──> handshake ──> names
//! ```
//! A handshake costs more than most requests and comes before anybody is known, so it is bounded: see
//! [`HANDSHAKE_TIMEOUT`], [`SILENT_MAX`], [`FIRST_MESSAGE_BYTES_MAX`] and [`HANDSHAKES_MAX`]. A client has no turn before its first message is
//! there as a whole: who only connects keeps nobody out.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use etched_tls::Identity;
use etched_transport::Dialer;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::StartError;
use crate::ask::Dial;
use crate::config::{Config, Listen, Tls};
use crate::http::Surface;
use crate::listen::Service;
use crate::names::Lookups;

/// How long a client may take until it is known, its wait for a turn included; etcd's. On an address for plain
/// connections too, also until its first byte.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once on one side (clients, members). Further ones wait for their turn without costing more than
/// their socket and their first message, and are dropped when their time is over.
const HANDSHAKES_MAX: usize = 1024;
/// Connections of one side that have no turn yet: their first message is not there, or all turns are taken. With one
/// more, that which has waited for longest is dropped: a client that means it sends its first message at once.
const SILENT_MAX: usize = 8192;
/// Bytes of a first message; a client that has sent more of it than this is dropped. The largest that clients send,
/// with keys for what quantum computers cannot break, have two thousand.
const FIRST_MESSAGE_BYTES_MAX: usize = 16 << 10;
/// First byte of a TLS connection: a record of the handshake. No HTTP begins with it.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Certificates and rules of one side, and how many are being let in.
pub(crate) struct Secured {
    side: Arc<Side>,
    /// Compare a client's names with its address, as etcd does for members and on metrics addresses.
    compare_names: bool,
}

struct Side {
    tls: etched_tls::Server,
    silent: Silent,
    turns: Semaphore,
    lookups: Lookups,
    /// How the log calls it.
    endpoint: &'static str,
    /// Its certificate was made here.
    is_generated: bool,
}

/// Both sides, as far as they have certificates.
#[derive(Clone, Default)]
pub(crate) struct Sides {
    client: Option<Arc<Side>>,
    peer: Option<Arc<Side>>,
}

/// An accepted client.
pub(crate) struct Known<S> {
    pub(crate) stream: TlsStream<S>,
    /// Common name of the certificate, when `client_cert_auth` made the client show one: with a CA file alone a
    /// certificate is asked for too, but names nobody, as in etcd.
    pub(crate) common_name: Option<String>,
}

impl Sides {
    /// Reads, or makes, what the configuration names.
    ///
    /// # Errors
    /// [`StartError::Tls`].
    pub(crate) fn new(config: &Config) -> Result<Self, StartError> {
        let hosts = |addresses: &[&[Listen]]| {
            addresses.iter().flat_map(|some| some.iter()).filter_map(Listen::host).collect()
        };
        let peer_hosts = hosts(&[&config.peer]);
        let client_hosts = hosts(&[&config.client, &config.client_http]);
        let folder = config.data_dir.join("fixtures");
        let peer = side(&config.peer_tls, "peer", &folder.join("peer"), peer_hosts)?;
        let client = side(&config.client_tls, "client", &folder.join("client"), client_hosts)?;
        Ok(Self { client, peer })
    }

    /// How other members are dialed.
    ///
    /// # Errors
    /// [`StartError::Tls`].
    pub(crate) fn dialing(&self, config: &Config) -> Result<Dial, StartError> {
        let client = match &self.peer {
            Some(side) => etched_tls::Client::new(side.tls.info(), side.is_generated),
            None => etched_tls::Client::new(&config.peer_tls.info, false),
        }?;
        let tls = move || client.config().map_err(io::Error::other);
        let timeout = config.election_timeout + Duration::from_secs(1);
        Ok(Dial(Dialer { timeout, tls: Some(Arc::new(tls)) }))
    }

    /// What the addresses of a service use; None without a certificate.
    pub(crate) fn secured(&self, service: Service) -> Option<Secured> {
        let (side, compare_names) = match service {
            Service::Http(Surface::Peer) => (&self.peer, true),
            Service::Http(Surface::Metrics) => (&self.client, true),
            Service::Http(Surface::Client) | Service::Everything | Service::Grpc => {
                (&self.client, false)
            }
        };
        let side = Arc::clone(side.as_ref()?);
        let skip = side.tls.info().skip_client_san_verification;
        Some(Secured { side, compare_names: compare_names && !skip })
    }
}

fn side(
    tls: &Tls,
    endpoint: &'static str,
    folder: &std::path::Path,
    hosts: Vec<String>,
) -> Result<Option<Arc<Side>>, StartError> {
    etched_tls::check_cipher_suites(&tls.info.cipher_suites)?;
    let (mut info, mut is_generated) = (tls.info.clone(), false);
    if let Some(years) = tls.auto_years {
        if info.is_empty() {
            // As in etcd what else was said of certificates is forgotten then.
            let given =
                std::mem::replace(&mut info, etched_tls::self_signed(folder, &hosts, years)?);
            is_generated = true;
            info.cipher_suites = given.cipher_suites;
            (info.min_version, info.max_version) = (given.min_version, given.max_version);
        } else {
            tracing::warn!("ignoring {endpoint} auto TLS since certs given");
        }
    }
    if info.is_empty() {
        return Ok(None);
    }
    tracing::info!(
        "tls-info" = %info,
        "cipher-suites" = info.cipher_suites.join(","),
        "starting with {endpoint} TLS"
    );
    let tls = etched_tls::Server::new(info)?;
    Ok(Some(Arc::new(Side {
        tls,
        silent: Silent::default(),
        turns: Semaphore::new(HANDSHAKES_MAX),
        lookups: Lookups::default(),
        endpoint,
        is_generated,
    })))
}

impl Secured {
    /// Whether a client on an address for plain connections too begins with a handshake; none when it says nothing for
    /// as long as a handshake may take, or when too many others are silent for less long.
    pub(crate) async fn begins_secure(&self, stream: &impl Peek) -> io::Result<Option<bool>> {
        let first = self.side.silent.wait_for(stream.begins_secure());
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, first).await {
            Ok(Ok(begins)) => begins.map(Some),
            Ok(Err(_)) | Err(_) => Ok(None),
        }
    }

    /// Lets a client in, or says in the log why not.
    pub(crate) async fn accept<S>(&self, stream: S, remote: Option<SocketAddr>) -> Option<Known<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut server_name = String::new();
        let letting_in = self.let_in(stream, remote, &mut server_name);
        let error = match tokio::time::timeout(HANDSHAKE_TIMEOUT, letting_in).await {
            Ok(Ok(known)) => return Some(known),
            Ok(Err(error)) => error,
            Err(_) => Refusal::Because("the handshake took too long".to_owned()),
        };
        self.report(&error, remote, &server_name);
        None
    }

    async fn let_in<S>(
        &self,
        stream: S,
        remote: Option<SocketAddr>,
        server_name: &mut String,
    ) -> Result<Known<S>, Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let first = async {
            let opening = Opening { stream, left: FIRST_MESSAGE_BYTES_MAX };
            let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), opening);
            let started = acceptor.await?;
            // Never closed: an error cannot be.
            Ok::<_, io::Error>((started, self.side.turns.acquire().await))
        };
        let (started, turn) = self.side.silent.wait_for(first).await??;
        let started = StartHandshake::from_parts(started.accepted, started.io.stream);
        if let Some(name) = started.client_hello().server_name() {
            name.clone_into(server_name);
        }
        let stream = started.into_stream(self.side.tls.config()).await?;
        // What is left costs no more computing, and lasts as long as the name servers like.
        drop(turn);
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let common_name = match leaf {
            None => None,
            Some(leaf) => Some(self.identify(leaf, remote).await?),
        };
        let names_users = self.side.tls.info().client_cert_auth;
        Ok(Known { stream, common_name: common_name.filter(|_| names_users) })
    }

    /// The common name of a client whose certificate is good already.
    async fn identify(
        &self,
        leaf: &CertificateDer<'_>,
        remote: Option<SocketAddr>,
    ) -> Result<String, Refusal> {
        let identity = Identity::of(leaf).map_err(|error| Refusal::Because(error.to_string()))?;
        let common_name = identity.common_name.clone();
        if let Some(remote) = remote.filter(|_| self.compare_names) {
            let checked = self.side.lookups.check(identity, remote.ip()).await;
            checked.map_err(Refusal::Because)?;
        }
        Ok(common_name)
    }

    fn report(&self, refusal: &Refusal, remote: Option<SocketAddr>, server_name: &str) {
        let remote = remote.map(|remote| remote.to_string()).unwrap_or_default();
        let message = format!("rejected connection on {} endpoint", self.side.endpoint);
        match refusal {
            // As in etcd: whoever only looks whether the port is open must not fill the log.
            Refusal::Gone => {
                tracing::debug!("remote-addr" = remote, error = "EOF", "{message}");
            }
            Refusal::Because(error) => tracing::warn!(
                "remote-addr" = remote,
                "server-name" = server_name,
                error,
                "{message}"
            ),
        }
    }
}

/// A connection before its handshake, from which only so much is read.
struct Opening<S> {
    stream: S,
    left: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other("the first message is too long")));
        }
        let mut part = vec![0; into.remaining().min(self.left)];
        let mut read = ReadBuf::new(&mut part);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        self.left -= read.filled().len();
        into.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Connections that have no turn yet, by age.
#[derive(Default)]
struct Silent(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// Dropping one ends its wait.
    places: BTreeMap<u64, oneshot::Sender<()>>,
    next: u64,
}

impl Silent {
    /// Waits for the first message and the turn of a connection, unless too many others wait and it has waited for longest.
    async fn wait_for<T>(&self, first: impl Future<Output = T>) -> Result<T, Refusal> {
        let (place, dropped) = self.enter();
        let waited = tokio::select! {
            biased;
            first = first => Ok(first),
            _ = dropped => {
                let reason = "too many connections wait for their handshake";
                Err(Refusal::Because(reason.to_owned()))
            }
        };
        drop(place);
        waited
    }

    fn enter(&self) -> (SilentPlace<'_>, oneshot::Receiver<()>) {
        let (sender, dropped) = oneshot::channel();
        let mut waiting = self.0.lock();
        if waiting.places.len() >= SILENT_MAX {
            waiting.places.pop_first();
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.places.insert(number, sender);
        (SilentPlace { silent: self, number }, dropped)
    }
}

/// A place among the silent, given up when this is dropped.
struct SilentPlace<'a> {
    silent: &'a Silent,
    number: u64,
}

impl Drop for SilentPlace<'_> {
    fn drop(&mut self) {
        self.silent.0.lock().places.remove(&self.number);
    }
}

/// Why a client was not let in.
#[derive(Debug)]
enum Refusal {
    /// It hung up.
    Gone,
    Because(String),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Gone;
        }
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        Self::Because(tls.map_or_else(|| error.to_string(), etched_tls::reason))
    }
}

/// A socket whose first byte can be looked at without taking it.
pub(crate) trait Peek {
    /// Whether the client begins with a handshake; waits for its first byte.
    async fn begins_secure(&self) -> io::Result<bool>;
}

impl Peek for TcpStream {
    async fn begins_secure(&self) -> io::Result<bool> {
        self.async_io(Interest::READABLE, || first_byte_is_handshake(self)).await
    }
}

impl Peek for UnixStream {
    async fn begins_secure(&self) -> io::Result<bool> {
        self.async_io(Interest::READABLE, || first_byte_is_handshake(self)).await
    }
}

fn first_byte_is_handshake(socket: impl std::os::fd::AsFd) -> io::Result<bool> {
    let mut first = [0; 1];
    let (count, _) = rustix::net::recv(socket, &mut first, rustix::net::RecvFlags::PEEK)?;
    Ok(count == 1 && first[0] == HANDSHAKE_RECORD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    fn secured() -> (tempfile::TempDir, Secured) {
        let folder = tempfile::tempdir().expect("a folder");
        let config = Config {
            data_dir: folder.path().to_owned(),
            client_tls: Tls { auto_years: Some(1), ..Tls::default() },
            ..Config::default()
        };
        let secured = Sides::new(&config).expect("a certificate").secured(Service::Grpc);
        (folder, secured.expect("a side with a certificate"))
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_client_that_says_nothing_is_dropped_at_the_deadline() {
        let (_folder, secured) = secured();
        let (_client, stream) = tokio::io::duplex(1 << 10);
        let began = tokio::time::Instant::now();
        assert!(secured.accept(stream, None).await.is_none());
        assert_eq!(began.elapsed().as_secs(), HANDSHAKE_TIMEOUT.as_secs());
    }

    /// The first message of a client.
    fn first_message() -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = "localhost".try_into().expect("a name");
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("written");
        bytes
    }

    /// Lets others run.
    async fn rest() {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }

    /// A socket from which nothing comes.
    struct Mute;

    impl Peek for Mute {
        async fn begins_secure(&self) -> io::Result<bool> {
            std::future::pending().await
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn where_plain_and_secure_share_an_address_the_first_byte_has_that_time_too() {
        let (_folder, secured) = secured();
        let began = tokio::time::Instant::now();
        assert_eq!(secured.begins_secure(&Mute).await.ok(), Some(None));
        assert_eq!(began.elapsed().as_secs(), HANDSHAKE_TIMEOUT.as_secs());
        let mut waiting = Box::pin(secured.begins_secure(&Mute));
        tokio::select! {
            biased;
            _ = waiting.as_mut() => unreachable!("nothing comes"),
            () = rest() => {}
        }
        let others: Vec<_> = (0..SILENT_MAX).map(|_| secured.side.silent.enter()).collect();
        let began = tokio::time::Instant::now();
        assert_eq!(waiting.await.ok(), Some(None), "the oldest of too many");
        assert_eq!(began.elapsed(), Duration::ZERO);
        drop(others);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn who_waits_for_a_turn_is_dropped_at_the_deadline_too() {
        let (_folder, secured) = secured();
        let turns = u32::try_from(HANDSHAKES_MAX).expect("few");
        let _all = secured.side.turns.acquire_many(turns).await.expect("never closed");
        let (mut client, stream) = tokio::io::duplex(1 << 12);
        client.write_all(&first_message()).await.expect("sent");
        let began = tokio::time::Instant::now();
        assert!(secured.accept(stream, None).await.is_none());
        assert_eq!(began.elapsed().as_secs(), HANDSHAKE_TIMEOUT.as_secs());
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn only_a_whole_first_message_takes_a_turn() {
        let (_folder, secured) = secured();
        let (mut client, stream) = tokio::io::duplex(1 << 12);
        let accepting = secured.accept(stream, None);
        let message = first_message();
        let client = async {
            rest().await;
            assert_eq!(secured.side.turns.available_permits(), HANDSHAKES_MAX, "silent");
            client.write_all(&message[..message.len() - 1]).await.expect("sent");
            rest().await;
            assert_eq!(secured.side.turns.available_permits(), HANDSHAKES_MAX, "half of it");
            client.write_all(&message[message.len() - 1..]).await.expect("sent");
            rest().await;
            assert_eq!(secured.side.turns.available_permits(), HANDSHAKES_MAX - 1);
            drop(client);
        };
        let (accepted, ()) = tokio::join!(accepting, client);
        assert!(accepted.is_none());
        assert_eq!(secured.side.turns.available_permits(), HANDSHAKES_MAX);
        assert_eq!(secured.side.silent.0.lock().places.len(), 0);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn of_too_many_silent_connections_the_oldest_is_dropped() {
        let silent = Silent::default();
        let mut oldest = std::pin::pin!(silent.wait_for(std::future::pending::<()>()));
        tokio::select! {
            biased;
            _ = oldest.as_mut() => unreachable!("there is room"),
            () = rest() => {}
        }
        let mut others: Vec<_> = (1..SILENT_MAX).map(|_| silent.enter()).collect();
        tokio::select! {
            biased;
            _ = oldest.as_mut() => unreachable!("there is room"),
            () = rest() => {}
        }
        others.push(silent.enter());
        assert!(oldest.await.is_err());
        assert!(others.iter_mut().all(|(_, dropped)| {
            dropped.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty)
        }));
        drop(others);
        assert_eq!(silent.0.lock().places.len(), 0);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn who_waits_for_a_turn_counts_among_those_that_are_bounded() {
        let (_folder, secured) = secured();
        let turns = u32::try_from(HANDSHAKES_MAX).expect("few");
        let _all = secured.side.turns.acquire_many(turns).await.expect("never closed");
        let (mut client, stream) = tokio::io::duplex(1 << 12);
        client.write_all(&first_message()).await.expect("sent");
        let mut accepting = std::pin::pin!(secured.accept(stream, None));
        tokio::select! {
            biased;
            _ = accepting.as_mut() => unreachable!("there is no turn"),
            () = rest() => {}
        }
        assert_eq!(secured.side.silent.0.lock().places.len(), 1);
        let others: Vec<_> = (0..SILENT_MAX).map(|_| secured.side.silent.enter()).collect();
        let began = tokio::time::Instant::now();
        assert!(accepting.await.is_none());
        assert_eq!(began.elapsed(), Duration::ZERO);
        drop(others);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_first_message_without_end_is_not_read_for_ever() {
        let (_folder, secured) = secured();
        let (mut client, stream) = tokio::io::duplex(1 << 16);
        // Records of a handshake whose message says that it is longer than all of them.
        let mut record = vec![HANDSHAKE_RECORD, 3, 1, 0x10, 0];
        record.resize(5 + 0x1000, 0);
        let mut first = record.clone();
        first[5..9].copy_from_slice(&[1, 0, 0xff, 0xff]);
        client.write_all(&first).await.expect("sent");
        for _ in 0..4 {
            client.write_all(&record).await.expect("sent");
        }
        let began = tokio::time::Instant::now();
        assert!(secured.accept(stream, None).await.is_none());
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn what_is_no_handshake_is_dropped_at_once() {
        let (_folder, secured) = secured();
        let (mut client, stream) = tokio::io::duplex(1 << 10);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
        let began = tokio::time::Instant::now();
        assert!(secured.accept(stream, None).await.is_none());
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(secured.side.turns.available_permits(), HANDSHAKES_MAX);
    }
}
