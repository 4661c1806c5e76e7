//! A gRPC client as plain as can be, on the other end of a socket; its work is nobody's.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use prost::Message;

/// One connection.
pub(crate) struct Client(pub(crate) SendRequest<Bytes>);

/// A call that has begun.
pub(crate) struct Call {
    requests: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    answers: Option<RecvStream>,
    received: BytesMut,
}

impl Client {
    /// Sends a request that is the only one of its call.
    pub(crate) async fn ask(&mut self, path: &str, message: &impl Message) -> Call {
        let mut call = self.open(path).await;
        call.requests.send_data(framed(message), true).expect("the stream is open");
        call
    }

    /// Sends a whole body, framing included.
    pub(super) async fn send(&mut self, path: &str, body: Bytes) -> Call {
        let mut call = self.open(path).await;
        call.requests.send_data(body, true).expect("the stream is open");
        call
    }

    /// Begins a call.
    pub(crate) async fn open(&mut self, path: &str) -> Call {
        let mut sender = self.0.clone().ready().await.expect("the connection is open");
        let request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "work-tests")
            .body(())
            .expect("a request");
        let (response, requests) = sender.send_request(request, false).expect("a stream");
        Call { requests, response: Some(response), answers: None, received: BytesMut::new() }
    }
}

impl Call {
    /// Sends one of many requests.
    pub(crate) fn send(&mut self, message: &impl Message) {
        self.requests.send_data(framed(message), false).expect("the stream is open");
    }

    /// Waits for that many answers.
    pub(crate) async fn skip(&mut self, messages: usize) {
        for _ in 0..messages {
            self.next_message().await.expect("the stream goes on");
        }
    }

    /// The one answer of a call that went well.
    pub(crate) async fn answer<M: Message + Default>(mut self) -> M {
        let message = self.next_message().await.expect("an answer");
        assert!(self.next_message().await.is_none(), "one answer");
        let answers = self.answers.as_mut().expect("it has begun");
        let trailers = answers.trailers().await.expect("an open stream").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        M::decode(message).expect("a message")
    }

    /// The code of a call that is refused at once.
    pub(crate) async fn refusal(mut self) -> String {
        let response = self.response.take().expect("nobody took it").await.expect("a response");
        response.headers()["grpc-status"].to_str().expect("digits").to_owned()
    }

    /// Reads the call to its end: its status, or none when the server reset it.
    pub(super) async fn status(mut self) -> Option<i32> {
        let (head, mut body) = self.response.take()?.await.ok()?.into_parts();
        let number = |headers: &HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data.ok()?.len()).ok()?;
        }
        let trailers = body.trailers().await.ok()?;
        trailers.as_ref().and_then(number).or_else(|| number(&head.headers))
    }

    async fn next_message(&mut self) -> Option<Bytes> {
        loop {
            if let Some(mut head) = self.received.get(..5) {
                head.advance(1);
                let length = head.get_u32() as usize;
                if self.received.len() >= 5 + length {
                    self.received.advance(5);
                    return Some(self.received.split_to(length).freeze());
                }
            }
            if let Some(response) = self.response.take() {
                self.answers = Some(response.await.expect("a response").into_body());
            }
            let answers = self.answers.as_mut().expect("set above");
            let data = answers.data().await?.expect("an open stream");
            answers.flow_control().release_capacity(data.len()).expect("what has been received");
            self.received.extend_from_slice(&data);
        }
    }
}

fn framed(message: &impl Message) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(message.encoded_len() as u32);
    message.encode(&mut out).expect("there is room");
    out.freeze()
}
