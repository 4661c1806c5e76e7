//! Requests to other members that are no raft traffic: one connection each, over HTTP/1.
//!
//! They are few: a start, a keep-alive of a lease that another member leads, the version every few seconds.

use std::time::Duration;

use bytes::Bytes;
use etched_transport::{Dialer, Error};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode};

/// How other members are reached.
#[derive(Clone)]
pub(crate) struct Dial(pub(crate) Dialer);

impl Default for Dial {
    /// Without TLS, and as patient as with etcd's default for elections.
    fn default() -> Self {
        Self(Dialer { timeout: Duration::from_secs(2), tls: None })
    }
}

/// What is asked, of whoever.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) body: Bytes,
}

impl Question {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            headers: HeaderMap::new(),
            content_type: None,
            body: Bytes::new(),
        }
    }

    pub(crate) fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, body: body.into(), ..Self::get(path) }
    }
}

/// What another member answered.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Dial {
    /// Asks the member that has `url`; it has `wait` for its answer.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn ask(
        &self,
        url: &str,
        question: Question,
        wait: Duration,
    ) -> Result<Told, Error> {
        let mut request = Request::new(question.body);
        *request.method_mut() = question.method;
        *request.uri_mut() = question.path.try_into().map_err(std::io::Error::other)?;
        *request.headers_mut() = question.headers;
        if let Some(content_type) = question.content_type {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let (head, body) = self.0.ask(url, request, wait).await?.into_parts();
        Ok(Told { status: head.status, headers: head.headers, body })
    }

    /// The first answer of any of `urls`, in their order; None when there is none.
    pub(crate) async fn ask_any(
        &self,
        urls: &[String],
        question: &Question,
        wait: Duration,
    ) -> Option<Told> {
        for url in urls {
            match self.ask(url, question.clone(), wait).await {
                Ok(told) => return Some(told),
                Err(error) => {
                    tracing::warn!(address = url, error = %error, "failed to reach the peer URL");
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Longer than any answer here takes.
    const WAIT: Duration = Duration::from_secs(10);

    fn run<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work)
    }

    #[test]
    fn a_question_is_answered_by_the_first_member_that_is_there() {
        run(async {
            let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let nobody = format!("http://{}", gone.local_addr().expect("bound"));
            drop(gone);
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let somebody = format!("http://{}", listener.local_addr().expect("bound"));
            let serve = async {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let (mut head, mut read) = (vec![0; 4096], 0);
                while !head[..read].ends_with(b"body") {
                    read += stream.read(&mut head[read..]).await.expect("a request");
                }
                let answer = b"HTTP/1.1 412 No\r\nX-A: b\r\nContent-Length: 2\r\n\r\nno";
                stream.write_all(answer).await.expect("taken");
                String::from_utf8_lossy(&head[..read]).into_owned()
            };
            let dial = Dial::default();
            let mut question = Question::post("/leases", Bytes::from_static(b"body"));
            question.content_type = Some("application/protobuf");
            let urls = [nobody, somebody];
            let (asked, told) = tokio::join!(serve, dial.ask_any(&urls, &question, WAIT));
            let told = told.expect("an answer");
            assert_eq!((told.status.as_u16(), &told.body[..]), (412, &b"no"[..]));
            assert_eq!(told.headers["x-a"], "b");
            assert!(asked.starts_with("POST /leases HTTP/1.1\r\n"), "{asked}");
            assert!(asked.contains("content-type: application/protobuf\r\n"), "{asked}");
        });
    }

    #[test]
    fn who_cannot_be_asked_is_an_error() {
        run(async {
            let dial = Dial::default();
            for url in ["", "http:/x", "ftp://127.0.0.1:1", "http://127.0.0.1"] {
                assert!(dial.ask(url, Question::get("/version"), WAIT).await.is_err(), "{url}");
            }
            assert!(dial.ask_any(&[], &Question::get("/version"), WAIT).await.is_none());
        });
    }
}
