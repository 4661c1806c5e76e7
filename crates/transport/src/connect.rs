//! Connections to peers: TCP or a Unix socket, with TLS or without, and HTTP/1.1 on them.
//!
//! Each stream, message and snapshot has a connection of its own, as with etcd's streams: there is no pool whose
//! connections could turn out to be dead, and so no reason to send anything twice.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use crate::Error;
use crate::idle::Idle;
use crate::local::IO_TIMEOUT;
use crate::url::{PeerUrl, Place};

/// The rules of TLS for a connection that is about to be made, so that files which have changed count.
pub type ClientTls = Arc<dyn Fn() -> io::Result<Arc<rustls::ClientConfig>> + Send + Sync>;

/// Bytes of an answer to [`Dialer::ask`]. The largest is a list of members.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Anything that bytes go through.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

type Boxed = Box<dyn Socket>;
pub(crate) type Connection = http1::Connection<TokioIo<Idle<Boxed>>, RequestBody>;

/// How connections to members are made.
#[derive(Clone)]
pub struct Dialer {
    /// How long one may take to be made, TLS included. etcd: one second more than the election timeout.
    pub timeout: Duration,
    /// How an https URL is dialed; without it members with one cannot be reached.
    pub tls: Option<ClientTls>,
}

impl Dialer {
    /// Connects to a member; `idle` is how long the connection may then stand still.
    pub(crate) async fn dial(
        &self,
        url: &PeerUrl,
        idle: Duration,
    ) -> Result<(SendRequest<RequestBody>, Connection), Error> {
        let socket = tokio::time::timeout(self.timeout, self.socket(url)).await;
        let socket = socket.map_err(|_| Error::Timeout("dial"))??;
        Ok(http1::handshake(TokioIo::new(Idle::new(socket, idle))).await?)
    }

    async fn socket(&self, url: &PeerUrl) -> io::Result<Boxed> {
        match &url.place {
            Place::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                self.secured(url, stream).await
            }
            Place::Unix(path) => self.secured(url, UnixStream::connect(path).await?).await,
        }
    }

    async fn secured(&self, url: &PeerUrl, stream: impl Socket + 'static) -> io::Result<Boxed> {
        if !url.secure {
            return Ok(Box::new(stream));
        }
        let without = || io::Error::other("there are no certificates for peers with https URLs");
        let config = self.tls.as_ref().ok_or_else(without)?()?;
        let name = ServerName::try_from(url.host().to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(TlsConnector::from(config).connect(name, stream).await?))
    }

    /// Asks a member once for something that its peer port serves beside raft (`/members`, `/version`, `/leases`
    /// ...), on a connection of its own. The request's URI is a path; Host is added.
    ///
    /// # Errors
    /// There is no whole answer of at most [`ANSWER_BYTES_MAX`] bytes within `timeout`. The member may have done
    /// what it was asked nevertheless.
    pub async fn ask(
        &self,
        url: &str,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Error> {
        let url = PeerUrl::parse(url)?;
        let mut request = request.map(|body| RequestBody::Full(Some(body)));
        request.headers_mut().insert(HOST, url.authority.clone());
        let asking = async {
            // The time for all of it ends first.
            let (mut sender, connection) = self.dial(&url, timeout + IO_TIMEOUT).await?;
            drive(connection, async {
                let (head, body) = sender.send_request(request).await?.into_parts();
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
                let body = body.map_err(|error| Error::Io(io::Error::other(error)))?;
                Ok(Response::from_parts(head, body.to_bytes()))
            })
            .await
        };
        tokio::time::timeout(timeout, asking).await.map_err(|_| Error::Timeout("request"))?
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "dialer {}", if self.tls.is_some() { "with TLS" } else { "without TLS" })
    }
}

/// Does `work` on a connection. The connection ends with it, so that dropping the future ends both.
pub(crate) async fn drive<T>(connection: Connection, work: impl Future<Output = T>) -> T {
    let (mut connection, mut work) = (pin!(connection), pin!(work));
    tokio::select! {
        biased;
        done = work.as_mut() => return done,
        // Whatever it ended with reaches the work too.
        _ = connection.as_mut() => {}
    }
    work.await
}

/// What requests carry.
pub(crate) enum RequestBody {
    Empty,
    Full(Option<Bytes>),
    Snapshot(Snapshot),
}

/// A message and the database behind it.
pub(crate) struct Snapshot {
    /// The message, until it is sent.
    pub(crate) head: Option<Bytes>,
    pub(crate) chunks: mpsc::Receiver<io::Result<Bytes>>,
    /// Bytes of the database that are still to come.
    pub(crate) left: u64,
}

impl Snapshot {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(Ok(head)));
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let chunk = match ready!(self.chunks.poll_recv(cx)) {
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(Some(Err(Error::Size))),
        };
        match self.left.checked_sub(chunk.len() as u64) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Some(Err(Error::Size))),
        }
        Poll::Ready(Some(Ok(chunk)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let chunk = match self.get_mut() {
            Self::Empty => None,
            Self::Full(bytes) => bytes.take().map(Ok),
            Self::Snapshot(snapshot) => ready!(snapshot.poll_chunk(cx)),
        };
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Full(None) => true,
            Self::Full(Some(_)) => false,
            Self::Snapshot(snapshot) => snapshot.head.is_none() && snapshot.left == 0,
        }
    }

    /// Known always: so a body that was cut short is never taken for whole.
    fn size_hint(&self) -> SizeHint {
        let whole = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        SizeHint::with_exact(match self {
            Self::Empty => 0,
            Self::Full(bytes) => whole(bytes),
            Self::Snapshot(snapshot) => whole(&snapshot.head) + snapshot.left,
        })
    }
}
