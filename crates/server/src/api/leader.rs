//! Streams whose clients want a leader: without one for long enough they end, so that the client goes elsewhere.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use tokio::sync::watch;
use tonic::Status;

use crate::error::Error;
use crate::grpc::{Body, Source};
use crate::shared::Shared;

/// Election timeouts without a leader after which streams end; etcd's.
const PATIENCE: u32 = 3;

/// Notes when there has been no leader for too long, until the server ends.
pub(crate) async fn watch_leader(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut without = 0;
    while crate::versions::goes_on(shared.config.election_timeout, &mut stop).await {
        without = if shared.leader() == 0 { without + 1 } else { 0 };
        let leaderless = without >= PATIENCE;
        shared
            .leaderless
            .send_if_modified(|before| std::mem::replace(before, leaderless) != leaderless);
    }
}

/// The same answer, which ends when there has been no leader for too long.
pub(super) fn bind(shared: &Shared, response: Response<Body>) -> Response<Body> {
    let mut leaderless = shared.leaderless.subscribe();
    response.map(|body| match body {
        Body::Stream(source) => {
            let lost = Box::pin(async move {
                // An error says that the server is gone: the stream hears that by itself.
                if leaderless.wait_for(|leaderless| *leaderless).await.is_err() {
                    std::future::pending::<()>().await;
                }
            });
            Body::Stream(Box::pin(Bound { source, lost, ended: false }))
        }
        other => other,
    })
}

struct Bound {
    source: Pin<Box<dyn Source>>,
    lost: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
}

impl Source for Bound {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.lost.as_mut().poll(cx).is_ready() {
            self.ended = true;
            return Poll::Ready(Some(Err(Error::NoLeader.into())));
        }
        self.source.as_mut().poll_chunk(cx)
    }
}
