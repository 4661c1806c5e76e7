//! Listeners, connections and what they speak.
//!
//! A connection stays on one network thread for its life. On a port for everything the first bytes decide, as
//! in etcd: the HTTP/2 preface is gRPC, all else is HTTP/1.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::sync::watch;

use crate::config::{Config, Listen};
use crate::gather;
use crate::grpc::{self, Body};
use crate::http::Surface;
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
    pub(crate) service: Service,
    pub(crate) socket: Socket,
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
/// [`StartError::Io`] names the address.
pub(crate) fn bind_all(config: &Config) -> Result<Vec<Bound>, StartError> {
    let client = if config.client_http.is_empty() { Service::Everything } else { Service::Grpc };
    let groups = [
        (&config.client, client),
        (&config.client_http, Service::Http(Surface::Client)),
        (&config.metrics, Service::Http(Surface::Metrics)),
        (&config.peer, Service::Http(Surface::Peer)),
    ];
    let mut bound = Vec::new();
    for (addresses, service) in groups {
        for address in addresses {
            bound.push(Bound { service, socket: bind(address, config.reuse_port)? });
        }
    }
    Ok(bound)
}

fn bind(address: &Listen, reuse_port: bool) -> Result<Socket, StartError> {
    let failed = |source: io::Error| {
        let name = match address {
            Listen::Tcp(name) => name.clone(),
            Listen::Unix(path) => path.display().to_string(),
        };
        StartError::Io { action: format!("listen on {name}"), source }
    };
    match address {
        Listen::Tcp(name) => bind_tcp(name, reuse_port).map(Socket::Tcp).map_err(failed),
        Listen::Unix(path) => {
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
    hand_over: impl Fn(Service, Stream),
) -> io::Result<()> {
    let service = bound.service;
    let accepting = async {
        match bound.socket {
            Socket::Tcp(listener) => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            if let Ok(stream) = stream.into_std() {
                                hand_over(service, Stream::Tcp(stream));
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
                                hand_over(service, Stream::Unix(stream));
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
    service: Service,
    stream: Stream,
    stop: watch::Receiver<bool>,
) {
    let result = match stream {
        Stream::Tcp(stream) => match TcpStream::from_std(stream) {
            Ok(stream) => {
                // Without it small answers wait for acknowledgements; a socket that refuses still works.
                let _ = stream.set_nodelay(true);
                converse(shared, service, stream, stop).await
            }
            Err(error) => Err(error.into()),
        },
        Stream::Unix(stream) => match UnixStream::from_std(stream) {
            Ok(stream) => converse(shared, service, stream, stop).await,
            Err(error) => Err(error.into()),
        },
    };
    if let Err(error) = result {
        tracing::debug!(error, "connection ended");
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn converse<S>(
    shared: Arc<Shared>,
    service: Service,
    stream: S,
    stop: watch::Receiver<bool>,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let builder = builder(&shared.config, service);
    let stopping = Rc::new(stop.clone());
    let answer = service_fn(move |request| {
        answer(Arc::clone(&shared), service, Rc::clone(&stopping), request)
    });
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

fn builder(config: &Config, service: Service) -> auto::Builder<LocalExecutor> {
    let mut builder = auto::Builder::new(LocalExecutor);
    match service {
        Service::Everything => {}
        Service::Grpc => builder = builder.http2_only(),
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
    service: Service,
    stopping: api::Stopping,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Body>, std::convert::Infallible>> {
    let surface = match service {
        Service::Http(surface) => surface,
        Service::Everything | Service::Grpc => Surface::Client,
    };
    let answering = if request.version() == Version::HTTP_2 {
        api::serve(shared, stopping, request.map(grpc::Incoming::Connection))
    } else {
        Box::pin(crate::http::serve(shared, stopping, surface, request))
    };
    async { Ok(answering.await) }
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
