//! A gRPC answer as JSON.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use etched_proto::json::{Encoder, Escape, Malformed};
use etched_proto::schema::MessageId;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body as _;
use tonic::Status;

use super::error;
use crate::grpc::{Body, PREFIX, Source};

/// The answer of a unary method.
///
/// # Errors
/// The status that the method ended with.
pub(super) async fn object(
    answer: Response<Body>,
    message: MessageId,
) -> Result<Response<Body>, Status> {
    let mut messages = Messages::new(answer);
    let first = std::future::poll_fn(|cx| messages.poll_data(cx)).await?;
    let mut first = first.ok_or_else(|| Status::internal("etched: an answer without a message"))?;
    if first.len() < PREFIX {
        return Err(malformed(Malformed));
    }
    let left = announced(&first).checked_sub(first.len() - PREFIX);
    let left = left.ok_or_else(|| malformed(Malformed))?;
    first.advance(PREFIX);
    let mut encoder = Encoder::new(message, Escape::Plain);
    let mut out = Vec::new();
    encoder.push(&first, &mut out).map_err(malformed)?;
    let body = if left == 0 {
        encoder.finish(&mut out).map_err(malformed)?;
        Body::text(out)
    } else {
        let begun = Some(Bytes::from(out));
        Body::Chunks(Box::pin(Pieces { messages, begun, encoder: Some(encoder), left }))
    };
    Ok(found(body))
}

/// The answer of a method that streams its own: it begins when there is a first line or an end.
pub(super) async fn lines(answer: Response<Body>, message: MessageId) -> Response<Body> {
    let mut lines = Lines { messages: Messages::new(answer), rest: BytesMut::new(), message };
    match std::future::poll_fn(|cx| lines.poll_lines(cx)).await {
        Ok(Some(first)) => {
            found(Body::Chunks(Box::pin(After { first: Some(first), lines: Some(lines) })))
        }
        Ok(None) => Response::new(chunked(Bytes::new())),
        Err(status) => {
            let mut response = Response::new(chunked(error_line(&status)));
            *response.status_mut() = error::http_code(status.code());
            set_type(response.headers_mut());
            response
        }
    }
}

/// A success with a message.
fn found(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    set_type(response.headers_mut());
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("grpc-metadata-content-type", grpc);
    response
}

fn set_type(headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
}

/// A body that does not say its length, as all of a stream.
fn chunked(line: Bytes) -> Body {
    let first = (!line.is_empty()).then_some(line);
    Body::Chunks(Box::pin(After { first, lines: None }))
}

fn error_line(status: &Status) -> Bytes {
    [b"{\"error\":", &error::object(status, Escape::Html)[..], b"}\n"].concat().into()
}

fn malformed(_: Malformed) -> Status {
    Status::internal("etched: the answer is no message of its type")
}

/// Bytes of the message that begins with this prefix.
fn announced(first: &[u8]) -> usize {
    (&first[1..PREFIX]).get_u32() as usize
}

/// The data of a gRPC answer, and its status.
struct Messages {
    body: Body,
    /// A status that the head said already.
    early: Option<Status>,
}

impl Messages {
    fn new(answer: Response<Body>) -> Self {
        let early = Status::from_header_map(answer.headers());
        Self { body: answer.into_body(), early }
    }

    /// The next bytes; None at the good end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        if let Some(status) = self.early.take() {
            return Poll::Ready(ended(status));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame.and_then(Result::ok).map(http_body::Frame::into_data) {
            None => Ok(None),
            Some(Ok(data)) => Ok(Some(data)),
            Some(Err(frame)) => {
                let status = frame.trailers_ref().and_then(Status::from_header_map);
                ended(
                    status.unwrap_or_else(|| Status::unknown("etched: an answer without a status")),
                )
            }
        })
    }
}

fn ended(status: Status) -> Result<Option<Bytes>, Status> {
    if status.code() == tonic::Code::Ok { Ok(None) } else { Err(status) }
}

/// The object of a large answer: the message comes in pieces.
struct Pieces {
    messages: Messages,
    begun: Option<Bytes>,
    /// None when all is written.
    encoder: Option<Encoder>,
    /// Bytes of the message that are to come.
    left: usize,
}

impl Source for Pieces {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        if let Some(begun) = self.begun.take() {
            return Poll::Ready(Some(Ok(begun)));
        }
        let Some(mut encoder) = self.encoder.take() else { return Poll::Ready(None) };
        let Poll::Ready(data) = self.messages.poll_data(cx) else {
            self.encoder = Some(encoder);
            return Poll::Pending;
        };
        let data = match data {
            Ok(Some(data)) if data.len() <= self.left => data,
            Ok(_) => return Poll::Ready(Some(Err(malformed(Malformed)))),
            Err(status) => return Poll::Ready(Some(Err(status))),
        };
        let mut out = Vec::new();
        let pushed = encoder.push(&data, &mut out);
        self.left -= data.len();
        let done = match (pushed, self.left) {
            (Ok(()), 0) => encoder.finish(&mut out),
            (Ok(()), _) => {
                self.encoder = Some(encoder);
                Ok(())
            }
            (error, _) => error,
        };
        Poll::Ready(Some(done.map(|()| out.into()).map_err(malformed)))
    }
}

/// A streaming answer, line by line.
struct Lines {
    messages: Messages,
    /// The beginning of a message.
    rest: BytesMut,
    message: MessageId,
}

impl Lines {
    /// The next lines; None at the good end.
    fn poll_lines(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            let Some(data) = ready!(self.messages.poll_data(cx))? else {
                return Poll::Ready(Ok(None));
            };
            self.rest.extend_from_slice(&data);
            let mut out = Vec::new();
            while self.rest.len() >= PREFIX {
                let length = announced(&self.rest);
                if self.rest.len() - PREFIX < length {
                    break;
                }
                self.rest.advance(PREFIX);
                self.line(length, &mut out).map_err(malformed)?;
            }
            if !out.is_empty() {
                return Poll::Ready(Ok(Some(out.into())));
            }
        }
    }

    fn line(&mut self, length: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let message = self.rest.split_to(length);
        out.extend_from_slice(b"{\"result\":");
        let mut encoder = Encoder::new(self.message, Escape::Html);
        encoder.push(&message, out)?;
        encoder.finish(out)?;
        out.extend_from_slice(b"}\n");
        Ok(())
    }
}

/// Lines that are there, then those to come, and the line of an error at the end.
struct After {
    first: Option<Bytes>,
    lines: Option<Lines>,
}

impl Source for After {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(lines) = &mut self.lines else { return Poll::Ready(None) };
        Poll::Ready(match ready!(lines.poll_lines(cx)) {
            Ok(Some(more)) => Some(Ok(more)),
            Ok(None) => None,
            Err(status) => {
                self.lines = None;
                Some(Ok(error_line(&status)))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use etched_proto::etcdserverpb::{PutResponse, RangeResponse, ResponseHeader};
    use etched_proto::mvccpb::KeyValue;
    use etched_proto::schema::Schema;

    use super::*;
    use crate::grpc;

    type Chunk = Result<Bytes, Status>;

    /// An answer whose chunks are given.
    struct Given(VecDeque<Chunk>);

    impl Source for Given {
        fn poll_chunk(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Chunk>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    fn answer(chunks: impl IntoIterator<Item = Chunk>) -> Response<Body> {
        grpc::stream(Given(chunks.into_iter().collect()), grpc::Encoding::Identity, None)
    }

    fn id(name: &str) -> MessageId {
        Schema::get().find(name).expect("a message of etcd")
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
    }

    /// The whole body, or what of it came before it was cut short.
    async fn text(mut body: Body) -> Result<String, String> {
        let mut all = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
        {
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => all.extend_from_slice(&data),
                _ => return Err(String::from_utf8(all).expect("JSON is text")),
            }
        }
        Ok(String::from_utf8(all).expect("JSON is text"))
    }

    fn put(revision: i64) -> Bytes {
        let header = Some(ResponseHeader { revision, ..Default::default() });
        grpc::frame(&PutResponse { header, prev_kv: None }).into_bytes()
    }

    fn range() -> (Bytes, String) {
        let kv = KeyValue { key: "k".into(), value: vec![b'v'; 300].into(), ..Default::default() };
        let range = RangeResponse { kvs: vec![kv; 3], count: 3, ..Default::default() };
        let kv = format!(r#"{{"key":"aw==","value":"{}"}}"#, "dnZ2".repeat(100));
        let json = format!(r#"{{"kvs":[{kv},{kv},{kv}],"count":"3"}}"#);
        (grpc::frame(&range).into_bytes(), json)
    }

    #[test]
    fn every_message_of_a_stream_is_a_line_however_it_is_cut() {
        let wire = [put(1), put(2), put(3)].concat();
        let line =
            |revision| format!("{{\"result\":{{\"header\":{{\"revision\":\"{revision}\"}}}}}}\n");
        for size in [1, 4, 7, wire.len()] {
            let chunks = wire.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk)));
            let found = run(async {
                text(lines(answer(chunks), id("etcdserverpb.PutResponse")).await.into_body()).await
            });
            assert_eq!(found, Ok([line(1), line(2), line(3)].concat()), "pieces of {size}");
        }
    }

    #[test]
    fn the_end_of_a_stream_is_a_line_when_it_is_an_error() {
        let gone = || Err(Status::unavailable("<gone>"));
        let message = id("etcdserverpb.PutResponse");
        let error = "{\"error\":{\"code\":14,\"message\":\"\\u003cgone\\u003e\"}}\n";
        let before = run(lines(answer([gone()]), message));
        assert_eq!(before.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(run(text(before.into_body())), Ok(error.to_owned()));
        let after = run(lines(answer([Ok(put(1)), gone()]), message));
        assert_eq!(after.status(), StatusCode::OK);
        assert!(run(text(after.into_body())).is_ok_and(|text| text.ends_with(error)));
        let empty = run(lines(answer([]), message));
        assert_eq!((empty.status(), empty.headers().len()), (StatusCode::OK, 0));
        assert_eq!(run(text(empty.into_body())), Ok(String::new()));
    }

    #[test]
    fn a_large_answer_is_written_as_it_comes_and_cut_short_when_it_cannot_go_on() {
        let (wire, json) = range();
        let message = id("etcdserverpb.RangeResponse");
        for size in [10, 100, 999, wire.len()] {
            let chunks = wire.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk)));
            let response = run(object(answer(chunks), message)).expect("an answer");
            assert_eq!(run(text(response.into_body())).as_ref(), Ok(&json), "pieces of {size}");
        }
        let half = || Ok(wire.slice(..700));
        let failed = Err(Status::out_of_range("compacted"));
        for end in [vec![half(), failed], vec![half()], vec![half(), Ok(wire.clone())]] {
            let response = run(object(answer(end), message)).expect("a beginning");
            let cut = run(text(response.into_body())).expect_err("no whole answer");
            assert!(json.starts_with(&cut) && cut.len() > 300, "{cut}");
        }
    }

    #[test]
    fn the_status_of_a_unary_method_is_its_answer() {
        let failed = grpc::error(&Status::not_found("100% gone"));
        let status = run(object(failed, id("etcdserverpb.PutResponse"))).err().expect("a status");
        assert_eq!((status.code(), status.message()), (tonic::Code::NotFound, "100% gone"));
    }
}
