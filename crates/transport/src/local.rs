//! This member, as its connections to all peers need it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::runtime::Handle;

use crate::connect::Dialer;
use crate::metrics::Metrics;
use crate::url::PeerUrl;
use crate::wire::Version;
use crate::{Error, Raft, Refused};

use etched_proto::raftpb::Message;

/// Who this member is and how it treats its peers.
pub struct Config {
    /// This member.
    pub id: u64,
    /// Its cluster.
    pub cluster_id: u64,
    /// Its own peer URLs, for members that do not know it yet.
    pub urls: Vec<String>,
    /// Its version, `major.minor.patch`.
    pub version: &'static str,
    /// How peers are dialed.
    pub dialer: Dialer,
    /// `--raft-read-timeout`: silence after which a stream is given up. Heartbeats go out three times as often, and
    /// peers are probed a second sooner.
    pub read_timeout: Duration,
    /// `--raft-write-timeout`: how long a message on a connection of its own may make no progress.
    pub write_timeout: Duration,
    /// Where connections to peers are driven; time and I/O enabled.
    pub runtime: Handle,
}

/// What etcd has for both timeouts, and the least that its flags take.
pub const IO_TIMEOUT: Duration = Duration::from_secs(5);

/// [`Config`], checked, and what belongs to all peers.
pub(crate) struct Local {
    pub(crate) config: Config,
    pub(crate) version: Version,
    pub(crate) headers: Headers,
    pub(crate) raft: Arc<dyn Raft>,
    pub(crate) metrics: Metrics,
}

/// Values of headers that never change.
pub(crate) struct Headers {
    pub(crate) id: HeaderValue,
    pub(crate) cluster_id: HeaderValue,
    pub(crate) version: HeaderValue,
    /// None: no URLs are known, as in tests.
    pub(crate) urls: Option<HeaderValue>,
}

impl Local {
    /// # Errors
    /// [`Error::Url`]: one of its own URLs is none.
    pub(crate) fn new(config: Config, raft: Arc<dyn Raft>) -> Result<Self, Error> {
        let urls = match config.urls.is_empty() {
            true => None,
            false => {
                let parsed = PeerUrl::parse_all(&config.urls)?;
                let texts: Vec<String> = parsed.iter().map(ToString::to_string).collect();
                Some(HeaderValue::from_str(&texts.join(",")).expect("URLs that were parsed"))
            }
        };
        let headers = Headers {
            id: hex(config.id),
            cluster_id: hex(config.cluster_id),
            version: HeaderValue::from_static(config.version),
            urls,
        };
        let version = Version::parse(config.version).expect("the version of this program");
        Ok(Self { config, version, headers, raft, metrics: Metrics::default() })
    }

    /// Hands raft a message that came in, if it is for this member and from one that may speak.
    pub(crate) fn process(&self, message: Message) -> Result<(), Refused> {
        self.check(&message)?;
        self.raft.process(message)
    }

    /// What etcd looks at before raft sees a message.
    pub(crate) fn check(&self, message: &Message) -> Result<(), Refused> {
        let (from, to) = (message.from.unwrap_or_default(), message.to.unwrap_or_default());
        if self.raft.is_id_removed(from) {
            tracing::warn!(
                "local-member-id" = %Hex(self.config.id),
                "removed-member-id" = %Hex(from),
                "rejected Raft message from removed member"
            );
            return Err(Refused::Removed);
        }
        if to != self.config.id {
            tracing::warn!(
                "local-member-id" = %Hex(self.config.id),
                "mismatch-member-id" = %Hex(to),
                "rejected Raft message to mismatch member"
            );
            return Err(Refused::Mismatch);
        }
        Ok(())
    }
}

/// An id as etcd writes it.
pub(crate) struct Hex(pub(crate) u64);

impl fmt::Display for Hex {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:x}", self.0)
    }
}

/// An id as a header.
pub(crate) fn hex(id: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("{id:x}")).expect("hex digits")
}
