//! Listeners, connections and what they speak.
//!
//! A connection stays on one network thread for its life. On a port for everything the first bytes decide, as
//! in etcd: a TLS handshake is TLS where the address has it, the HTTP/2 preface is gRPC, all else is HTTP/1. Over
//! TLS HTTP/2 carries both, and the content type decides.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use etched_transport::Idle;
use http::header::CONTENT_TYPE;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::sync::watch;

use crate::config::{Config, Listen, Place};
use crate::gather;
use crate::grpc::{self, Body};
use crate::http::{Over, Surface};
use crate::secure::{Known, Peek, Secured, Sides};
use crate::shared::Shared;
use crate::{StartError, api};

/// Connections the kernel keeps while the accept loop is busy.
const BACKLOG: u32 = 4096;
/// Bytes a client may send on one stream before it must wait.
const STREAM_WINDOW: u32 = 1 << 20;
/// Bytes a client may send on all streams of a connection before it must wait.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Bytes of headers of one request.
const HEADERS_BYTES_MAX: u32 = 1 << 20;
/// Streams of one connection that the client has reset and that are not forgotten yet.
const RESET_STREAMS_MAX: usize = 100_000;
/// Bytes of answers that wait in one stream for the wire.
const SEND_BUFFER: usize = 256 << 10;
/// How long the head of an HTTP/1 request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);
/// How long open requests may go on when the server ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// What the content type of a gRPC request holds.
const GRPC_TYPE: &[u8] = b"application/grpc";

/// What an address serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// gRPC and HTTP, told apart by the first bytes.
    Everything,
    /// gRPC only.
    Grpc,
    /// HTTP/1 only.
    Http(Surface),
}

/// A bound address.
pub(crate) struct Bound {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) socket: Socket,
}

/// What is spoken at an address, and how.
pub(crate) struct Endpoint {
    pub(crate) service: Service,
    /// Without TLS.
    pub(crate) plain: bool,
    /// With TLS.
    pub(crate) secured: Option<Secured>,
}

/// A listening socket.
pub(crate) enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// An accepted connection on its way to its thread.
pub(crate) enum Stream {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// Binds every address of the configuration. To be called inside a runtime.
///
/// # Errors
/// [`StartError::Io`] names the address; [`StartError::Tls`], [`StartError::NoCertificate`].
pub(crate) fn bind_all(config: &Config, sides: &Sides) -> Result<Vec<Bound>, StartError> {
    let client = if config.client_http.is_empty() { Service::Everything } else { Service::Grpc };
    let groups: [(&[Listen], Service); 4] = [
        (&config.client, client),
        (&config.client_http, Service::Http(Surface::Client)),
        (&config.metrics, Service::Http(Surface::Metrics)),
        (&config.peer, Service::Http(Surface::Peer)),
    ];
    let mut bound = Vec::new();
    for (addresses, service) in groups {
        for (at, address) in addresses.iter().enumerate() {
            // One address may be there with TLS and without.
            let same = |other: &&Listen| other.place == address.place;
            if addresses[..at].iter().find(same).is_some() {
                continue;
            }
            let secured = match addresses.iter().filter(same).any(|listen| listen.secure) {
                true => Some(sides.secured(service).ok_or_else(|| StartError::NoCertificate {
                    address: address.place.to_string(),
                })?),
                false => None,
            };
            let plain = addresses.iter().filter(same).any(|listen| !listen.secure);
            let endpoint = Arc::new(Endpoint { service, plain, secured });
            bound.push(Bound { endpoint, socket: bind(&address.place, config.reuse_port)? });
        }
    }
    Ok(bound)
}

fn bind(place: &Place, reuse_port: bool) -> Result<Socket, StartError> {
    let failed =
        |source: io::Error| StartError::Io { action: format!("listen on {place}"), source };
    match place {
        Place::Tcp(name) => bind_tcp(name, reuse_port).map(Socket::Tcp).map_err(failed),
        Place::Unix(path) => {
            if let Err(error) = std::fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(failed(error));
            }
            let listener = std::os::unix::net::UnixListener::bind(path).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            Ok(Socket::Unix(listener))
        }
    }
}

/// `localhost` is its IPv4 address, as Go's listener takes it.
fn bind_tcp(name: &str, reuse_port: bool) -> io::Result<std::net::TcpListener> {
    let mut addresses: Vec<SocketAddr> = name.to_socket_addrs()?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let address = *addresses.first().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(reuse_port)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Accepts until the server ends; `hand_over` sends each connection to a thread.
pub(crate) async fn accept(
    bound: Bound,
    mut stop: watch::Receiver<bool>,
    hand_over: impl Fn(Arc<Endpoint>, Stream),
) -> io::Result<()> {
    let endpoint = bound.endpoint;
    let accepting = async {
        match bound.socket {
            Socket::Tcp(listener) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            if let Ok(stream) = stream.into_std() {
                                hand_over(Arc::clone(&endpoint), Stream::Tcp(stream));
                            }
                        }
                        Err(error) => pause_after(&error).await,
                    }
                }
            }
            Socket::Unix(listener) => {
                let listener = tokio::net::UnixListener::from_std(listener)?;
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            if let Ok(stream) = stream.into_std() {
                                hand_over(Arc::clone(&endpoint), Stream::Unix(stream));
                            }
                        }
                        Err(error) => pause_after(&error).await,
                    }
                }
            }
        }
    };
    tokio::select! {
        result = accepting => result,
        _ = stop.wait_for(|stop| *stop) => Ok(()),
    }
}

/// Out of descriptors: others must end first; trying again at once would only burn the processor.
async fn pause_after(error: &io::Error) {
    tracing::warn!(error = %error, "failed to accept a connection");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Serves one connection on this thread until it or the server ends.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    stream: Stream,
    stop: watch::Receiver<bool>,
) {
    let result = match stream {
        Stream::Tcp(stream) => match TcpStream::from_std(stream) {
            Ok(stream) => {
                // Without it small answers wait for acknowledgements; a socket that refuses still works.
                let _ = stream.set_nodelay(true);
                let remote = stream.peer_addr().ok();
                enter(shared, endpoint, stream, remote, stop).await
            }
            Err(error) => Err(error.into()),
        },
        Stream::Unix(stream) => match UnixStream::from_std(stream) {
            Ok(stream) => enter(shared, endpoint, stream, None, stop).await,
            Err(error) => Err(error.into()),
        },
    };
    if let Err(error) = result {
        tracing::debug!(error, "connection ended");
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is known of a connection before its first request.
struct Connection {
    service: Service,
    stopping: api::Stopping,
    /// Over TLS.
    secure: bool,
    /// Of the certificate, where clients have to show one: the name of a user.
    common_name: Option<String>,
    remote: Option<SocketAddr>,
}

impl Connection {
    /// Whether it is another member's.
    fn is_peers(&self) -> bool {
        self.service == Service::Http(Surface::Peer)
    }
}

/// Goes through the handshake where there is one.
async fn enter<S>(
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    stream: S,
    remote: Option<SocketAddr>,
    stop: watch::Receiver<bool>,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Peek + 'static,
{
    let stopping = Rc::new(stop.clone());
    let connection = |secure, common_name| Connection {
        service: endpoint.service,
        stopping,
        secure,
        common_name,
        remote,
    };
    let Some(secured) = &endpoint.secured else {
        return converse(shared, connection(false, None), stream, stop).await;
    };
    // In a box of its own: plain connections should not carry room for it.
    let entering = Box::pin(async {
        if endpoint.plain {
            match secured.begins_secure(&stream).await? {
                Some(true) => {}
                Some(false) => return Ok(Entered::Plain(stream)),
                None => return Ok(Entered::Refused),
            }
        }
        Ok::<_, io::Error>(match secured.accept(stream, remote).await {
            Some(known) => Entered::Secure(Box::new(known)),
            None => Entered::Refused,
        })
    });
    let entered = tokio::select! {
        entered = entering => entered,
        () = wait_for_stop(stop.clone()) => return Ok(()),
    };
    match entered? {
        Entered::Plain(stream) => converse(shared, connection(false, None), stream, stop).await,
        Entered::Secure(known) => {
            let connection = connection(true, known.common_name);
            Box::pin(converse(shared, connection, known.stream, stop)).await
        }
        Entered::Refused => Ok(()),
    }
}

/// How a client came in.
enum Entered<S> {
    Plain(S),
    Secure(Box<Known<S>>),
    Refused,
}

/// A member that takes nothing any more is given up.
async fn converse<S>(
    shared: Arc<Shared>,
    connection: Connection,
    stream: S,
    stop: watch::Receiver<bool>,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    if connection.is_peers() {
        let stream = Idle::for_writes(stream, shared.config.raft_write_timeout);
        return Box::pin(talk(shared, connection, stream, stop)).await;
    }
    talk(shared, connection, stream, stop).await
}

async fn talk<S>(
    shared: Arc<Shared>,
    connection: Connection,
    stream: S,
    stop: watch::Receiver<bool>,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let builder = builder(&shared.config, &connection);
    let answer = service_fn(move |request| answer(Arc::clone(&shared), &connection, request));
    let socket = gather::Socket::new(stream);
    let connection = builder.serve_connection(TokioIo::new(socket.handle()), answer);
    let mut connection = pin!(connection);
    let stopped = wait_for_stop(stop);
    tokio::select! {
        result = gather::turns(&socket, connection.as_mut()) => return result,
        () = stopped => connection.as_mut().graceful_shutdown(),
    }
    match tokio::time::timeout(DRAIN_TIMEOUT, gather::turns(&socket, connection)).await {
        Ok(result) => result,
        Err(_) => Ok(()),
    }
}

async fn wait_for_stop(mut stop: watch::Receiver<bool>) {
    // An error says that the server is gone altogether.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn builder(config: &Config, connection: &Connection) -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    match connection.service {
        Service::Everything => {}
        Service::Grpc => builder = builder.http2_only(),
        // Go's server speaks HTTP/2 over TLS, but not without.
        Service::Http(_) if connection.secure => {}
        Service::Http(_) => builder = builder.http1_only(),
    }
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        // as etcd, whose answers carry no date
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(config.max_concurrent_streams)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(RESET_STREAMS_MAX)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout);
    builder
}

/// Answers a request in whatever HTTP it came.
fn answer(
    shared: Arc<Shared>,
    connection: &Connection,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Body>, std::convert::Infallible>> + use<> {
    let surface = match connection.service {
        Service::Http(surface) => surface,
        Service::Everything | Service::Grpc => Surface::Client,
    };
    let stopping = Rc::clone(&connection.stopping);
    let answering = if is_grpc(connection, &request) {
        let name = connection.common_name.as_deref();
        api::serve(shared, stopping, name, request.map(grpc::Incoming::Connection))
    } else {
        let over = match &connection.common_name {
            _ if !connection.secure => Over::Plain,
            Some(name) if !name.is_empty() => Over::TlsByName,
            _ => Over::Tls,
        };
        let remote = connection.remote;
        Box::pin(crate::http::serve(shared, stopping, surface, over, remote, request))
    };
    async { Ok(answering.await) }
}

fn is_grpc(connection: &Connection, request: &Request<Incoming>) -> bool {
    if request.version() != Version::HTTP_2 {
        return false;
    }
    match connection.service {
        Service::Http(_) => false,
        Service::Grpc => true,
        // Over TLS one HTTP/2 server has both, and tells them apart as etcd's does.
        Service::Everything if connection.secure => {
            let content_type = request.headers().get(CONTENT_TYPE);
            let bytes = content_type.map(http::HeaderValue::as_bytes).unwrap_or_default();
            bytes.windows(GRPC_TYPE.len()).any(|window| window == GRPC_TYPE)
        }
        Service::Everything => true,
    }
}

/// Runs hyper's tasks on the connection's own thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Keeps a network thread's connections together until they have ended.
#[derive(Clone, Default)]
pub(crate) struct Connections(Rc<()>);

impl Connections {
    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        Rc::strong_count(&self.0) - 1
    }
}
