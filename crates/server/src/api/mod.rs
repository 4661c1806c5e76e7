//! The gRPC services, one file each, and how a request finds its own.

mod answers;
mod auth;
mod cluster;
mod concurrency;
mod health;
mod kv;
mod large;
mod leader;
mod lease;
mod maintenance;
mod snapshot;
mod watch;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etched_auth::Asked;
use etched_proto::as_go::{self, Malformed};
use etched_proto::raw::Wire;
use etched_proto::schema::Schema;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{Request, Response};
use prost::Message;
use tokio::sync::watch as watch_channel;
use tokio::time::Instant as Deadline;
use tonic::{Code, Status};

use crate::auth::{Asking, Nobody, Who};
use crate::deadline;
use crate::error::Error;
use crate::grpc::{
    self, Body, Encoding, Framed, Head, Incoming, MessageReader, Method, Permit, frame,
};
use crate::shared::Shared;

use concurrency::{election, lock};

pub(crate) use concurrency::Places;
pub(crate) use large::LargeAnswers;
pub(crate) use leader::watch_leader;
pub(crate) use lease::renew_here;
pub(crate) use snapshot::SNAPSHOTS_MAX;

/// An answer on its way. Boxed at its real size: a future as large as the largest method's would be moved
/// about several times for each request.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Response<Body>>>>;

/// Answers one gRPC request. What its head says is looked at before the future is made, so that only its body
/// is kept. `common_name` is that of the certificate, where clients have to show one.
pub(crate) fn serve(
    shared: Arc<Shared>,
    stopping: Stopping,
    common_name: Option<&str>,
    request: Request<Incoming>,
) -> Answering {
    let head = Head::new(&request);
    if let Some(refused) = head.refusal() {
        return at_once(refused);
    }
    let method = match Method::at(full_path(&request)) {
        Ok(method) => method,
        Err(status) => return at_once(grpc::error(&status)),
    };
    shared.metrics.started(method);
    let begun = begin(&shared, method, &head);
    let began = shared.metrics.stopwatch();
    let ending = Ending { shared: Arc::clone(&shared), method, code: Code::Cancelled, began };
    match begun {
        Ok((encoding, deadline)) => {
            let bound = head.wants_leader.then(|| Arc::clone(&shared));
            let call = Call { shared, stopping, method, encoding, deadline, ending };
            let (answer_type, who) = (head.answer_type(), head.who(common_name));
            let answering = if who.is_silent() {
                dispatch(call, request, Nobody)
            } else if call.shared.is_ahead(&who) {
                Box::pin(async move {
                    call.shared.catch_up_with(&who).await;
                    dispatch(call, request, who).await
                })
            } else {
                dispatch(call, request, who)
            };
            let answering: Answering = match bound {
                None => answering,
                Some(shared) => Box::pin(async move { leader::bind(&shared, answering.await) }),
            };
            match answer_type {
                None => answering,
                Some(answer_type) => Box::pin(async {
                    let mut response = answering.await;
                    response.headers_mut().insert(CONTENT_TYPE, answer_type);
                    response
                }),
            }
        }
        Err(status) => {
            ending.with(status.code());
            at_once(grpc::error(&status))
        }
    }
}

fn at_once(response: Response<Body>) -> Answering {
    Box::pin(std::future::ready(response))
}

/// Turns true when the server ends.
pub(crate) type Stopping = Rc<watch_channel::Receiver<bool>>;

/// Waits for the end of the server.
async fn stopped(stopping: Stopping) {
    let mut own = watch_channel::Receiver::clone(&stopping);
    // An error says that the server is gone altogether.
    let _ = own.wait_for(|stop| *stop).await;
}

/// Counts the end of a call, once: a call that is dropped on its way was cancelled by the client.
struct Ending {
    shared: Arc<Shared>,
    method: Method,
    code: Code,
    /// Only where handling times are kept.
    began: Option<Instant>,
}

impl Ending {
    fn with(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.metrics.handled(self.method, self.code, self.began);
    }
}

/// The name of the method that is asked for: a query is part of it, as in etcd.
fn full_path(request: &Request<Incoming>) -> &str {
    request.uri().path_and_query().map_or("", PathAndQuery::as_str)
}

/// Checks that every call passes before its message is read.
fn begin(
    shared: &Shared,
    method: Method,
    head: &Head<'_>,
) -> Result<(Encoding, Option<Deadline>), Status> {
    if shared.progress.is_learner.load(Ordering::Relaxed) && !method.is_for_learners() {
        return Err(Error::NotSupportedForLearner.into());
    }
    let timeout = head.timeout_of_call();
    if timeout == Some(Duration::ZERO) {
        return Err(grpc::deadline_exceeded());
    }
    let encoding = head.encoding()?;
    let version = match head.client_version {
        None => "unknown",
        Some(value) => {
            std::str::from_utf8(value.as_bytes()).map_err(|_| Error::InvalidClientApiVersion)?
        }
    };
    shared.metrics.client_request(method, version);
    if head.wants_leader && shared.leader() == 0 {
        return Err(Error::NoLeader.into());
    }
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    Ok((encoding, deadline.map(Deadline::from_std)))
}

/// One call on its way through a service.
pub(crate) struct Call {
    shared: Arc<Shared>,
    stopping: Stopping,
    method: Method,
    encoding: Encoding,
    /// When the client gives up.
    deadline: Option<Deadline>,
    ending: Ending,
}

fn dispatch<W>(call: Call, request: Request<Incoming>, who: W) -> Answering
where
    W: Asking + Into<Who> + 'static,
{
    match call.method {
        Method::Range => call.unary(request, |shared, m, _| kv::range(shared, m, who)),
        Method::RangeStream => Box::pin(kv::range_stream(call, request, who.into())),
        Method::Put => call.unary(request, |shared, m, body| kv::put(shared, &m, body, who)),
        Method::DeleteRange => {
            call.unary(request, |shared, m, body| kv::delete_range(shared, m, body, who))
        }
        Method::Txn => call.unary_bytes(request, |shared, body| kv::txn(shared, body, who)),
        Method::Watch => at_once(watch::watch(call, request, who.into())),
        Method::LeaseKeepAlive => at_once(lease::keep_alive(call, request, who.into())),
        _ => dispatch_rare(call, request, who.into()),
    }
}

/// The methods for which a few bytes more or less do not count.
fn dispatch_rare(call: Call, request: Request<Incoming>, who: Who) -> Answering {
    match call.method {
        Method::Compact => call.for_root(request, who, kv::compact),
        Method::LeaseGrant => call.for_all(request, who, lease::grant),
        Method::LeaseRevoke => call.for_user(request, who, lease::revoke),
        Method::LeaseTimeToLive => call.for_user(request, who, lease::time_to_live),
        Method::LeaseLeases => call.for_all(request, who, lease::leases),
        Method::MemberList => call.for_user(request, who, cluster::member_list),
        Method::Alarm => call.for_all(request, who, maintenance::alarm),
        Method::Status => call.for_user(request, who, maintenance::status),
        Method::Defragment => call.for_root(request, who, maintenance::defragment),
        Method::Hash => call.for_root(request, who, maintenance::hash),
        Method::HashKv => call.for_root(request, who, maintenance::hash_kv),
        Method::MoveLeader => call.for_root(request, who, maintenance::move_leader),
        Method::Lock => call.for_all(request, who, lock::lock),
        Method::Unlock => call.for_all(request, who, lock::unlock),
        Method::Campaign => call.for_all(request, who, election::campaign),
        Method::Proclaim => call.for_all(request, who, election::proclaim),
        Method::Leader => call.for_all(request, who, election::leader),
        Method::Observe => Box::pin(election::observe(call, request, who)),
        Method::Resign => call.for_all(request, who, election::resign),
        Method::AuthEnable => call.for_all(request, who, auth::enable),
        Method::AuthDisable => call.for_all(request, who, auth::disable),
        Method::AuthStatus => call.for_all(request, who, auth::status),
        Method::Authenticate => call.for_all(request, who, auth::authenticate),
        Method::UserAdd => call.for_all(request, who, auth::user_add),
        Method::UserGet => call.for_all(request, who, auth::user_get),
        Method::UserList => call.for_all(request, who, auth::user_list),
        Method::UserDelete => call.for_all(request, who, auth::user_delete),
        Method::UserChangePassword => call.for_all(request, who, auth::user_change_password),
        Method::UserGrantRole => call.for_all(request, who, auth::user_grant_role),
        Method::UserRevokeRole => call.for_all(request, who, auth::user_revoke_role),
        Method::RoleAdd => call.for_all(request, who, auth::role_add),
        Method::RoleGet => call.for_all(request, who, auth::role_get),
        Method::RoleList => call.for_all(request, who, auth::role_list),
        Method::RoleDelete => call.for_all(request, who, auth::role_delete),
        Method::RoleGrantPermission => call.for_all(request, who, auth::role_grant_permission),
        Method::RoleRevokePermission => call.for_all(request, who, auth::role_revoke_permission),
        Method::HealthCheck => call.unary(request, health::check),
        Method::HealthList => call.unary(request, health::list),
        Method::HealthWatch => Box::pin(health::watch(call, request)),
        Method::MemberAdd => call.for_all(request, who, cluster::member_add),
        Method::MemberRemove => call.for_root(request, who, cluster::member_remove),
        Method::MemberUpdate => call.for_root(request, who, cluster::member_update),
        Method::MemberPromote => call.for_root(request, who, cluster::member_promote),
        Method::Snapshot => Box::pin(snapshot::snapshot(call, request, who)),
        Method::Downgrade => call.for_root(request, who, maintenance::downgrade),
        Method::Range
        | Method::RangeStream
        | Method::Put
        | Method::DeleteRange
        | Method::Txn
        | Method::Watch
        | Method::LeaseKeepAlive => dispatch(call, request, who),
    }
}

impl Call {
    /// Runs a unary method: reads the one message, calls the handler, answers.
    fn unary<M, F>(
        self,
        request: Request<Incoming>,
        handler: impl FnOnce(Arc<Shared>, M, Bytes) -> F + 'static,
    ) -> Answering
    where
        M: Message + Default + 'static,
        F: Future<Output = Result<Framed, Status>> + 'static,
    {
        let method = self.method;
        self.unary_bytes(request, move |shared, body| async move {
            let (message, body) = decode(method, body)?;
            handler(shared, message, body).await
        })
    }

    /// The same, and tells the handler who asks: it, or apply, finds out whether they may.
    fn for_all<M, F>(
        self,
        request: Request<Incoming>,
        who: Who,
        handler: impl FnOnce(Arc<Shared>, M, Bytes, Who) -> F + 'static,
    ) -> Answering
    where
        M: Message + Default + 'static,
        F: Future<Output = Result<Framed, Status>> + 'static,
    {
        self.unary(request, |shared, message, body| handler(shared, message, body, who))
    }

    /// The same for a method that any user may call.
    fn for_user<M, F>(
        self,
        request: Request<Incoming>,
        who: Who,
        handler: impl FnOnce(Arc<Shared>, M, Bytes, Who) -> F + 'static,
    ) -> Answering
    where
        M: Message + Default + 'static,
        F: Future<Output = Result<Framed, Status>> + 'static,
    {
        self.unary(request, |shared, message, body| async {
            shared.require(&who, Asked::SignedIn)?;
            handler(shared, message, body, who).await
        })
    }

    /// The same for a method that only root may call.
    fn for_root<M, F>(
        self,
        request: Request<Incoming>,
        who: Who,
        handler: impl FnOnce(Arc<Shared>, M, Bytes, Who) -> F + 'static,
    ) -> Answering
    where
        M: Message + Default + 'static,
        F: Future<Output = Result<Framed, Status>> + 'static,
    {
        self.unary(request, |shared, message, body| async {
            shared.require(&who, Asked::Admin)?;
            handler(shared, message, body, who).await
        })
    }

    /// The same for a handler that decodes by itself.
    fn unary_bytes<F>(
        self,
        request: Request<Incoming>,
        handler: impl FnOnce(Arc<Shared>, Bytes) -> F + 'static,
    ) -> Answering
    where
        F: Future<Output = Result<Framed, Status>> + 'static,
    {
        let reader = self.reader(request);
        Box::pin(async move {
            let result = self.in_time(self.answer_one(reader, handler)).await;
            self.finish(result)
        })
    }

    async fn answer_one<F>(
        &self,
        reader: MessageReader,
        handler: impl FnOnce(Arc<Shared>, Bytes) -> F,
    ) -> Result<Framed, Status>
    where
        F: Future<Output = Result<Framed, Status>>,
    {
        // What the message takes counts until it is answered: it waits for the raft thread meanwhile.
        let (body, _permit) = self.only_body(reader).await?;
        let started = Instant::now();
        let result = handler(Arc::clone(&self.shared), body).await;
        let took = started.elapsed();
        if took > self.shared.config.warning_request {
            tracing::warn!(took = ?took, method = ?self.method, "request stats");
        }
        match (result?, self.encoding) {
            (message, Encoding::Identity) => Ok(message),
            (message, Encoding::Gzip) if message.is_large() => Box::pin(large::gzip(message)).await,
            (message, Encoding::Gzip) if message.len() <= GZIP_INLINE_BYTES => message.gzip(),
            (message, Encoding::Gzip) => kv::beside(move || message.gzip()).await,
        }
    }

    /// Ends `work` when the client gives up.
    fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, Status>>,
    ) -> impl Future<Output = Result<T, Status>> {
        let within = deadline::within(self.deadline, work);
        async { within.await.unwrap_or_else(|_| Err(grpc::deadline_exceeded())) }
    }

    /// The message of a call that takes one and streams its answer.
    async fn only_message<M: Message + Default>(
        &self,
        request: Request<Incoming>,
    ) -> Result<M, Status> {
        let mut reader = self.reader(request);
        let body = reader.next().await?.ok_or_else(|| Status::internal("unexpected EOF"))?;
        self.shared.metrics.received(self.method, body.len());
        let message = decode_streamed(self.method, body)?;
        if reader.next().await?.is_some() {
            return Err(Status::internal(
                "cardinality violation: received multiple request messages for \
                 non-client-streaming RPC",
            ));
        }
        Ok(message)
    }

    async fn only_body(&self, mut reader: MessageReader) -> Result<(Bytes, Permit), Status> {
        let body = match reader.next().await {
            Ok(Some(body)) => body,
            // etcd's library gives these two to a unary call as they are, without a code of their own.
            Ok(None) => return Err(Status::unknown("EOF")),
            Err(_) if reader.is_cut_short() => return Err(Status::unknown("unexpected EOF")),
            Err(status) => return Err(status),
        };
        self.shared.metrics.received(self.method, body.len());
        Ok((body, reader.into_permit()))
    }

    fn reader(&self, request: Request<Incoming>) -> MessageReader {
        let limit = self.shared.config.message_limit();
        let threads = self.shared.lanes.len();
        MessageReader::new(request.into_body(), self.encoding, limit, threads)
    }

    fn finish(self, result: Result<Framed, Status>) -> Response<Body> {
        match result {
            Ok(message) => {
                self.shared.metrics.sent(self.method, 1, message.len());
                self.ending.with(Code::Ok);
                grpc::unary(message, self.encoding, self.deadline)
            }
            Err(status) => {
                self.ending.with(status.code());
                grpc::error(&status)
            }
        }
    }
}

/// Decodes a message; gives back the bytes that it was decoded from, which members of both kinds read alike.
fn decode<M: Message + Default>(method: Method, body: Bytes) -> Result<(M, Bytes), Status> {
    match M::decode(body.clone()) {
        Ok(message) => Ok((message, body)),
        Err(_) => {
            let body = as_etcd_reads(method, &body).map_err(malformed)?;
            let message = M::decode(body.clone()).map_err(|_| malformed(Malformed::Wire))?;
            Ok((message, body))
        }
    }
}

/// The same for a message of a stream. What is kept of it, perhaps for long, is copied: it would keep the whole
/// of what was read with it from the connection.
fn decode_streamed<M: Message + Default>(method: Method, body: Bytes) -> Result<M, Status> {
    M::decode(&*body).or_else(|_| {
        let decoded = as_etcd_reads(method, &body)
            .and_then(|body| M::decode(&*body).map_err(|_| Malformed::Wire));
        decoded.map_err(|error| {
            Status::internal(format!("grpc: failed to unmarshal the received message: {error}"))
        })
    })
}

/// A message that prost refuses, so that prost reads in it what etcd's decoder does.
fn as_etcd_reads(method: Method, body: &[u8]) -> Result<Bytes, Malformed> {
    // The health service is not etcd's, and none of its messages are in the schema.
    let known = Schema::get().method(method.path()).ok_or(Malformed::Wire)?;
    as_go::rewrite(known.input, body)
}

/// The text is that of etcd's gRPC library.
fn malformed(error: Malformed) -> Status {
    Status::internal(format!("grpc: error unmarshalling request: {error}"))
}

/// Answers up to this size are compressed on the network thread.
const GZIP_INLINE_BYTES: usize = 64 << 10;
/// Largest message that etcd sends.
const ANSWER_BYTES_MAX: usize = i32::MAX as usize;

/// The usual end of a handler.
fn reply(message: &impl Wire) -> Result<Framed, Status> {
    check_length(message.wire_len())?;
    Ok(frame(message))
}

fn check_length(length: usize) -> Result<(), Status> {
    if length > ANSWER_BYTES_MAX {
        return Err(Status::resource_exhausted(format!(
            "grpc: trying to send message larger than max ({length} vs. {ANSWER_BYTES_MAX})"
        )));
    }
    Ok(())
}
