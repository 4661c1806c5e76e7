//! The receiving half of a stream: dials the peer, reads what it sends, and dials again when that ends.

use std::sync::Arc;
use std::time::Duration;

use etched_proto::raftpb::Message;
use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost::Message as _;
use tokio::time::Instant;

use crate::codec::{Decoder, Kind, is_link_heartbeat};
use crate::connect::drive;
use crate::local::Hex;
use crate::peer::Link;
use crate::url::PeerUrl;
use crate::{Error, Refused, wire};

/// Time from one attempt to dial to the next, at least; etcd's.
const RETRY: Duration = Duration::from_millis(100);

/// Reads a stream for as long as the task lives.
pub(crate) async fn run(link: Arc<Link>, kind: Kind) {
    loop {
        let began = Instant::now();
        let url = link.picker.pick();
        if let Err(error) = once(&link, kind, &url).await {
            link.failed(&url, kind.name(), "dial", &error);
        }
        tokio::time::sleep_until(began + RETRY).await;
    }
}

/// One connection. An error means that there was no stream.
async fn once(link: &Link, kind: Kind, url: &PeerUrl) -> Result<(), Error> {
    let local = &link.local;
    let (mut sender, connection) = local.config.dialer.dial(url, local.config.read_timeout).await?;
    let path = format!("/raft/stream/{}/{:x}", kind.path(), local.config.id);
    let request = wire::get(local, url, &path, link.id);
    drive(connection, async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(wire::refusal(local, link.id, response).await);
        }
        link.status.activate();
        let named = (kind.name(), Hex(local.config.id), Hex(link.id));
        tracing::info!(
            "stream-reader-type" = named.0,
            "local-member-id" = %named.1,
            "remote-peer-id" = %named.2,
            "established TCP streaming connection with remote peer"
        );
        let ended = read(link, kind, response.into_body()).await;
        let error = ended.as_ref().map_or_else(ToString::to_string, |()| "EOF".to_owned());
        tracing::warn!(
            "stream-reader-type" = named.0,
            "local-member-id" = %named.1,
            "remote-peer-id" = %named.2,
            error,
            "lost TCP streaming connection with remote peer"
        );
        if let Err(error) = ended {
            link.status.deactivate(kind.name(), "read", &error);
        }
        Ok(())
    })
    .await
}

/// Reads until the peer ends the stream.
async fn read(link: &Link, kind: Kind, mut body: Incoming) -> Result<(), Error> {
    let mut decoder = Decoder::new(kind, link.local.config.id, link.id);
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame?.into_data() else { continue };
        decoder.extend(&bytes);
        while let Some(message) = decoder.decode()? {
            take(link, message);
        }
    }
    Ok(())
}

/// Hands over one message. What is not taken is lost, as on a network.
fn take(link: &Link, message: Message) {
    let from = message.from.unwrap_or_default();
    let size = message.encoded_len();
    match from == link.id {
        true => link.metrics.received_bytes.add(size),
        false => link.local.metrics.peer(from).received_bytes.add(size),
    }
    if is_link_heartbeat(&message) {
        return;
    }
    let kind = wire::kind(&message);
    let Err(refused) = link.local.process(message) else { return };
    if refused == Refused::Full {
        link.local.metrics.peer(from).received_failures.add(1);
    }
    tracing::warn!(
        "message-type" = wire::kind_name(kind),
        "local-member-id" = %Hex(link.local.config.id),
        from = %Hex(from),
        error = %refused,
        "failed to process Raft message"
    );
}
