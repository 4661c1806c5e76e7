//! Messages to a peer that has no stream open: each by a POST of its own.
//!
//! Four go at a time, 64 more wait, further ones are lost and reported. None is ever sent twice: a read request that
//! arrived twice could be answered with the state of another time.

use std::sync::Arc;

use bytes::BytesMut;
use etched_proto::raftpb::Message;
use http::StatusCode;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::connect::{RequestBody, drive};
use crate::peer::Link;
use crate::url::PeerUrl;
use crate::{Error, wire};

/// Messages that are on their way at a time; etcd's.
const WORKERS: usize = 4;
/// Messages that wait; etcd's. Further ones are lost and reported.
pub const PIPELINE_QUEUE_MAX: usize = 64;

/// How the log calls it.
const NAME: &str = "pipeline";

/// Sends what comes until the other end of the queue is dropped.
pub(crate) async fn run(link: Arc<Link>, mut queue: mpsc::Receiver<Message>) {
    let mut posts = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = posts.join_next() => {}
            Some(message) = queue.recv(), if posts.len() < WORKERS => {
                posts.spawn(one(Arc::clone(&link), message));
            }
            else => return,
        }
    }
}

async fn one(link: Arc<Link>, message: Message) {
    let url = link.picker.pick();
    let size = message.encoded_len();
    match post(&link, &url, &message).await {
        Ok(()) => {
            link.status.activate();
            link.metrics.sent_bytes.add(size);
        }
        Err(error) => {
            link.failed(&url, NAME, "write", &error);
            link.local.raft.report_unreachable(link.id);
            link.metrics.sent_failures.add(1);
        }
    }
}

async fn post(link: &Link, url: &PeerUrl, message: &Message) -> Result<(), Error> {
    let local = &link.local;
    let (mut sender, connection) =
        local.config.dialer.dial(url, local.config.write_timeout).await?;
    let mut body = BytesMut::with_capacity(message.encoded_len());
    message.encode(&mut body).expect("a BytesMut grows as it must");
    let body = RequestBody::Full(Some(body.freeze()));
    let request = wire::post(local, url, "/raft", "application/protobuf", body);
    drive(connection, async {
        let response = sender.send_request(request).await?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(()),
            _ => Err(wire::refusal(local, link.id, response).await),
        }
    })
    .await
}
