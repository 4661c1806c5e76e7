//! `etcdserverpb.KV`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use etched_auth::Asked;
use etched_mvcc::{Chunk, RangeAnswer, RangeStream, check};
use etched_proto::as_go::Malformed;
use etched_proto::etcdserverpb as pb;
use etched_proto::raw::{RangeReply, Wire};
use etched_proto::txn;
use http::{Request, Response};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tokio::task::JoinHandle;
use tonic::Status;

use super::{Call, Ending, as_etcd_reads, large, malformed, reply};
use crate::auth::{Asking, Who};
use crate::error::Error;
use crate::grpc::{self, Body, Framed, Incoming, Method, Source, push_frame};
use crate::metrics::Timed;
use crate::quota;
use crate::request::Field;
use crate::shared::{Answer, Outcome, Shared};

/// Ranges of up to this many keys are answered on the network thread; larger ones beside it, so that other
/// requests of the thread do not wait for them.
const INLINE_KEYS_MAX: i64 = 500;

pub(super) async fn range(
    shared: Arc<Shared>,
    request: pb::RangeRequest,
    who: impl Asking,
) -> Result<Framed, Status> {
    if !request.serializable && shared.is_learner() {
        return Err(Error::NotSupportedForLearner.into());
    }
    check::range(&request).map_err(status)?;
    if !request.serializable {
        shared.read_index().await?;
    }
    // In a box of its own: the future of a small read should be small.
    let allowed = match shared.auth.is_enabled() {
        true => shared.require(who.who(), Asked::Range(&request))?,
        false => 0,
    };
    shared.metrics.mvcc_range.inc();
    let started = Instant::now();
    let metrics = Arc::clone(&shared);
    let result = if is_small(&request)
        && let Some(small) = range_at_once(&shared, &request).transpose()
    {
        small
    } else {
        // In a box of its own: the future of a small read should be small.
        Box::pin(range_beside(shared, request)).await
    };
    let still = metrics.still_allowed(allowed);
    let took = started.elapsed();
    let result = match still {
        Ok(()) => result,
        Err(error) => Err(error.into()),
    };
    let metrics = &metrics.metrics;
    metrics.range[usize::from(result.is_ok())].observe(took.as_secs_f64());
    metrics.requested(Timed::Range, result.is_ok(), took);
    result
}

fn is_small(request: &pb::RangeRequest) -> bool {
    let sorted = request.sort_order != 0 || request.sort_target != 0;
    request.range_end.is_empty()
        || (request.count_only && request.revision == 0)
        || (!sorted
            && request.limit > 0
            && request.limit <= INLINE_KEYS_MAX
            && request.revision == 0)
}

/// A range that takes long, or may be large.
async fn range_beside(shared: Arc<Shared>, request: pb::RangeRequest) -> Result<Framed, Status> {
    let reading = Arc::clone(&shared);
    let (request, answer, revision) = beside(move || {
        let (answer, revision) = reading
            .reader
            .answer(&request, large::LARGE_BYTES)
            .map_err(|error| reading.failed(&error))?;
        Ok((request, answer, revision))
    })
    .await?;
    match answer {
        RangeAnswer::Reply(mut answer) => {
            answer.header = Some(shared.header(revision));
            reply(&answer)
        }
        RangeAnswer::Large(range) => large::by_windows(shared, range, revision).await,
        RangeAnswer::Heavy => {
            let make = move |shared: &Shared| range_now(shared, &request).map(Framed::into_bytes);
            large::as_a_whole(shared, make).await
        }
    }
}

fn range_at_once(shared: &Shared, request: &pb::RangeRequest) -> Result<Option<Framed>, Status> {
    let answer = shared.reader.range_at_once(request, large::LARGE_BYTES);
    let Some((mut answer, revision)) = answer.map_err(|error| shared.failed(&error))? else {
        return Ok(None);
    };
    answer.header = Some(shared.header(revision));
    reply(&answer).map(Some)
}

fn range_now(shared: &Shared, request: &pb::RangeRequest) -> Result<Framed, Status> {
    let (mut answer, revision) =
        shared.reader.range(request).map_err(|error| shared.failed(&error))?;
    answer.header = Some(shared.header(revision));
    reply(&answer)
}

/// Runs a read that takes long off the network thread.
pub(super) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    match Beside(tokio::task::spawn_blocking(work)).await {
        Ok(result) => result,
        Err(_) => Err(Error::Stopped.into()),
    }
}

/// Work on another thread that nobody waits for any more is not begun: it would only delay what others wait for.
struct Beside<T>(JoinHandle<T>);

impl<T> Future for Beside<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for Beside<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The decoded message is looked at before the future is made, which then need not keep it.
pub(super) fn put<W: Asking>(
    shared: Arc<Shared>,
    request: &pb::PutRequest,
    body: Bytes,
    who: W,
) -> impl Future<Output = Result<Framed, Status>> + use<W> {
    let checked = check::put(request).map_err(status);
    let admitted = checked.and_then(|()| Ok(shared.admit(quota::put_cost(request))?));
    async move {
        admitted?;
        let outcome = shared.propose(who, Field::Put, &body).await?;
        let Answer::Put(mut answer) = shared.answer(outcome.result)? else { return mismatch() };
        answer.header = Some(shared.header(outcome.revision));
        reply(&answer)
    }
}

pub(super) async fn delete_range(
    shared: Arc<Shared>,
    request: pb::DeleteRangeRequest,
    body: Bytes,
    who: impl Asking,
) -> Result<Framed, Status> {
    check::delete_range(&request).map_err(status)?;
    let outcome = shared.propose(who, Field::DeleteRange, &body).await?;
    let Answer::DeleteRange(mut answer) = shared.answer(outcome.result)? else {
        return mismatch();
    };
    answer.header = Some(shared.header(outcome.revision));
    reply(&answer)
}

/// Decodes a transaction; one that is nested too deep is refused as etcd refuses it: each level uses up at least
/// one operation. In `body` is then what members of both kinds read alike.
fn decode_txn(body: &mut Bytes, max_ops: usize) -> Result<pb::TxnRequest, Status> {
    if txn::depth(body) > txn::DEPTH_MAX.min(max_ops.saturating_add(1)) {
        as_etcd_reads(Method::Txn, body).map_err(malformed)?;
        return Err(Error::TooManyOps.into());
    }
    txn::decode(body.clone()).or_else(|_| {
        *body = as_etcd_reads(Method::Txn, body).map_err(malformed)?;
        txn::decode(body.clone()).map_err(|_| malformed(Malformed::Wire))
    })
}

/// The message is decoded and looked at before the future is made, which then need not keep it.
pub(super) fn txn<W: Asking>(
    shared: Arc<Shared>,
    mut body: Bytes,
    who: W,
) -> impl Future<Output = Result<Framed, Status>> + use<W> {
    let checked = check_txn(&shared, &mut body);
    async move {
        if let Some(request) = checked? {
            return Box::pin(read_only_txn(shared, request, who)).await;
        }
        let outcome = shared.propose(who, Field::Txn, &body).await?;
        let Answer::Txn(mut answer) = shared.answer(outcome.result)? else { return mismatch() };
        answer.header = Some(shared.header(outcome.revision));
        reply(&answer)
    }
}

/// Checks a transaction, and admits it; one that only reads comes back.
fn check_txn(shared: &Shared, body: &mut Bytes) -> Result<Option<Box<pb::TxnRequest>>, Status> {
    let request = decode_txn(body, shared.config.max_txn_ops)?;
    check::txn(&request, shared.config.max_txn_ops).map_err(status)?;
    if check::is_read_only(&request) {
        return Ok(Some(Box::new(request)));
    }
    shared.admit(quota::txn_cost(&request))?;
    Ok(None)
}

async fn read_only_txn(
    shared: Arc<Shared>,
    request: Box<pb::TxnRequest>,
    who: impl Asking,
) -> Result<Framed, Status> {
    if !check::is_serializable(&request) {
        shared.read_index().await?;
    }
    let allowed = shared.require(who.who(), Asked::Txn(&request))?;
    let (started, metrics) = (Instant::now(), Arc::clone(&shared));
    let result = beside(move || {
        let (mut answer, revision) =
            shared.reader.txn_read_only(&request).map_err(|error| shared.failed(&error))?;
        shared.still_allowed(allowed)?;
        answer.header = Some(shared.header(revision));
        reply(&answer)
    })
    .await;
    metrics.metrics.requested(Timed::ReadonlyTxn, result.is_ok(), started.elapsed());
    result
}

pub(super) async fn compact(
    shared: Arc<Shared>,
    _: pb::CompactionRequest,
    body: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let Outcome { result, revision } = shared.propose(&who, Field::Compaction, &body).await?;
    shared.answer(result)?;
    reply(&pb::CompactionResponse { header: Some(shared.header(revision)) })
}

/// Streams a range: the next chunk is read while the one before is sent.
pub(super) async fn range_stream(
    call: Call,
    request: Request<Incoming>,
    who: Who,
) -> Response<Body> {
    let open = async {
        let message: pb::RangeRequest = call.only_message(request).await?;
        check::range_stream(&message).map_err(status)?;
        if !message.serializable {
            call.shared.read_index().await?;
        }
        let allowed = call.shared.require(&who, Asked::Range(&message))?;
        call.shared.metrics.mvcc_range.inc();
        let reading = if message.sort_target == 0 {
            let limit = call.shared.config.max_request_bytes;
            let stream = call.shared.reader.range_stream(&message, limit);
            stream.map(Reading::Idle).map_err(|error| call.shared.failed(&error))?
        } else {
            sorted(Arc::clone(&call.shared), message).await?
        };
        // From here on it reads one revision, at which this was allowed.
        call.shared.still_allowed(allowed)?;
        Ok(reading)
    };
    match call.in_time(open).await {
        Ok(state) => {
            let Call { shared, encoding, deadline, ending, .. } = call;
            grpc::stream(Chunks { shared, state, ending }, encoding, deadline)
        }
        Err(status) => call.finish(Err(status)),
    }
}

/// An order other than the keys' needs the whole answer at once; it is then sent in pieces.
async fn sorted(shared: Arc<Shared>, request: pb::RangeRequest) -> Result<Reading, Status> {
    beside(move || {
        let (reply, revision) =
            shared.reader.range(&request).map_err(|error| shared.failed(&error))?;
        Ok(Reading::Whole { rest: reply, sent: 0, revision })
    })
    .await
}

/// The next piece of a whole answer: keys of about `bytes`, at least one while there are any.
fn next_piece(whole: &RangeReply, sent: usize, bytes: usize) -> RangeReply {
    let mut room = bytes;
    let piece = whole.kvs[sent..].iter().take_while(|kv| {
        let fits = room > 0;
        room = room.saturating_sub(kv.len());
        fits
    });
    let kvs: Vec<Bytes> = piece.cloned().collect();
    let last = sent + kvs.len() == whole.kvs.len();
    let (more, count) = if last { (whole.more, whole.count) } else { (false, 0) };
    RangeReply { header: None, kvs, more, count }
}

struct Chunks {
    shared: Arc<Shared>,
    state: Reading,
    ending: Ending,
}

type ChunkResult = Result<Option<Chunk>, etched_mvcc::Error>;

enum Reading {
    Idle(RangeStream),
    Whole {
        rest: RangeReply,
        sent: usize,
        revision: i64,
    },
    Busy(Beside<(RangeStream, ChunkResult)>),
    /// All is sent, the end is not said.
    Done,
    Ended,
}

impl Chunks {
    fn end(&mut self, status: Option<Status>) -> Poll<Option<Result<Bytes, Status>>> {
        self.state = Reading::Ended;
        self.ending.code = status.as_ref().map_or(tonic::Code::Ok, Status::code);
        Poll::Ready(status.map(Err))
    }
}

impl Source for Chunks {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            match std::mem::replace(&mut self.state, Reading::Ended) {
                Reading::Ended => return Poll::Ready(None),
                Reading::Whole { rest, sent, revision } => {
                    let bytes = self.shared.config.max_request_bytes;
                    let reply = next_piece(&rest, sent, bytes);
                    let sent = sent + reply.kvs.len();
                    let last = sent == rest.kvs.len();
                    self.state =
                        if last { Reading::Done } else { Reading::Whole { rest, sent, revision } };
                    let chunk = self.encode(Chunk { reply, last: last.then_some(revision) });
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Reading::Done => return self.end(None),
                Reading::Idle(mut stream) => {
                    self.state = Reading::Busy(Beside(tokio::task::spawn_blocking(move || {
                        let chunk = stream.next_chunk();
                        (stream, chunk)
                    })));
                }
                Reading::Busy(mut reading) => {
                    let Poll::Ready(read) = Pin::new(&mut reading).poll(cx) else {
                        self.state = Reading::Busy(reading);
                        return Poll::Pending;
                    };
                    let Ok((stream, chunk)) = read else {
                        return self.end(Some(Error::Stopped.into()));
                    };
                    match chunk {
                        Err(error) => {
                            let status = self.shared.failed(&error);
                            return self.end(Some(status));
                        }
                        Ok(None) => return self.end(None),
                        Ok(Some(chunk)) => {
                            self.state = Reading::Idle(stream);
                            let chunk = self.encode(chunk);
                            return Poll::Ready(Some(Ok(chunk)));
                        }
                    }
                }
            }
        }
    }
}

impl Chunks {
    fn encode(&self, chunk: Chunk) -> Bytes {
        let mut reply = chunk.reply;
        reply.header = chunk.last.map(|revision| self.shared.header(revision));
        let mut out = BytesMut::new();
        push_frame(&StreamResponse(reply), &mut out);
        self.shared.metrics.sent(Method::RangeStream, 1, out.len());
        out.freeze()
    }
}

/// `etcdserverpb.RangeStreamResponse`: the answer in field 1.
struct StreamResponse(RangeReply);

impl Wire for StreamResponse {
    fn wire_len(&self) -> usize {
        let body = self.0.wire_len();
        key_len(1) + encoded_len_varint(body as u64) + body
    }

    fn write(&self, out: &mut BytesMut) {
        encode_key(1, WireType::LengthDelimited, out);
        encode_varint(self.0.wire_len() as u64, out);
        self.0.write(out);
    }
}

/// The status of a refusal by the form checks.
fn status(error: etched_mvcc::Error) -> Status {
    Error::from_mvcc(&error).map_or_else(|| Status::unknown(error.to_string()), Status::from)
}

/// An answer of another kind than its request: apply is broken, and nothing can be said of the outcome.
pub(super) fn mismatch() -> Result<Framed, Status> {
    debug_assert!(false, "apply answered another request");
    Err(Status::internal("etched: the answer does not belong to the request"))
}
