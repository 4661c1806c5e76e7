//! Tells the cluster this member's name and client URLs.
//!
//! Clients are served when that is done: by then there was a leader and a quorum.

use std::sync::Arc;

use etched_proto::membershippb::{Attributes, ClusterMemberAttrSetRequest};
use prost::Message;
use tokio::sync::watch;

use crate::auth::Nobody;
use crate::error::Error;
use crate::request::Field;
use crate::shared::Shared;

/// What this member says of itself.
pub(crate) fn attributes(shared: &Shared) -> ClusterMemberAttrSetRequest {
    ClusterMemberAttrSetRequest {
        member_id: shared.member_id,
        member_attributes: Some(Attributes {
            name: shared.config.name.clone(),
            client_urls: shared.config.advertise_client_urls.clone(),
        }),
    }
}

/// Tries until it is done, or the server ends.
pub(crate) async fn run(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let request = attributes(&shared).encode_to_vec();
    loop {
        let published = tokio::select! {
            outcome = shared.propose(Nobody, Field::ClusterMemberAttrSet, &request) => outcome,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        match published.and_then(|outcome| outcome.result) {
            Ok(_) => {
                shared.published.send_replace(true);
                return;
            }
            Err(Error::Stopped) => return,
            Err(error) => tracing::warn!(
                "local-member-id" = %format!("{:x}", shared.member_id),
                "publish-timeout" = ?shared.config.request_timeout(),
                error = error.status().1,
                "failed to publish local member to cluster through raft"
            ),
        }
    }
}
