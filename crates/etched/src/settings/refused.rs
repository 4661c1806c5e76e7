//! Why settings were refused, in etcd's words where etcd has any.

use crate::go_values::{GoDuration, ValueError, quote};
use crate::logging::OutputError;
use crate::urls::{Url, join};

/// A combination of settings that no server starts with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `--discovery-fallback=proxy`.
    #[error("v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"")]
    FallbackProxy,
    /// `--logger` is not `zap`.
    #[error("{}", logger(.0))]
    Logger(String),
    /// `--log-level` is no level.
    #[error("unrecognized level: {}", quote(.0))]
    LogLevel(String),
    /// `--log-format` is neither json nor console.
    #[error("unknown log format: {0}, supported values json, console")]
    LogFormat(String),
    /// `--log-outputs` cannot be opened, or do not go together.
    #[error("{0}")]
    LogOutput(OutputError),
    /// Rotation without exactly one file. The misspelt flag is etcd's.
    #[error("--log-outputs requires a single file path when --log-rotate-config-json is defined")]
    RotationWithoutFile,
    /// `--log-rotation-config-json` is no good.
    #[error("{0}")]
    Rotation(String),
    /// A URL to listen on names a host.
    #[error("expected IP in URL for binding ({0})")]
    BindHost(Url),
    /// A URL to listen on has a port above 65535.
    #[error("listen tcp: address {0}: invalid port")]
    BindPort(Url),
    /// A URL to advertise to members has no host: all of them, and that one.
    #[error(
        "--initial-advertise-peer-urls {} must be \"host:port\" (unexpected empty host ({url}))",
        quote(&join(.0)), url = .1
    )]
    AdvertisePeerHost(Vec<Url>, Url),
    /// A URL to advertise to clients has no host: all of them, and that one.
    #[error(
        "--advertise-client-urls {} must be in the format \"host:port\", \"unix:/path/to/socket\" \
         or \"unixs:/path/to/socket\" (unexpected empty host ({url}))",
        quote(&join(.0)), url = .1
    )]
    AdvertiseClientHost(Vec<Url>, Url),
    /// More than one way to find the cluster.
    #[error(
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
         \"discovery-endpoints\" or \"discovery-srv\""
    )]
    ConflictingBootstrap,
    /// A discovery token without endpoints, or the other way round.
    #[error("both --discovery-token and --discovery-endpoints must be set")]
    DiscoveryHalf,
    /// An empty discovery endpoint.
    #[error("--discovery-endpoints must not contain empty endpoints")]
    DiscoveryEndpoint,
    /// No heartbeat.
    #[error("--heartbeat-interval must be >0 (set to 0ms)")]
    HeartbeatZero,
    /// No election timeout.
    #[error("--election-timeout must be >0 (set to 0ms)")]
    ElectionZero,
    /// An election timeout of fewer than five heartbeats, in milliseconds.
    #[error(
        "--election-timeout[{election}ms] should be at least as 5 times as \
         --heartbeat-interval[{heartbeat}ms]"
    )]
    ElectionShort {
        /// Election timeout.
        election: u64,
        /// Heartbeat interval.
        heartbeat: u64,
    },
    /// An election timeout of more than 50 s, in milliseconds.
    #[error("--election-timeout[{0}ms] is too long, and should be set less than 50000ms")]
    ElectionLong(u64),
    /// URLs to listen on were given, but none to advertise.
    #[error("--advertise-client-urls is required when --listen-client-urls is set explicitly")]
    AdvertiseClientMissing,
    /// `--auto-compaction-mode` is empty.
    #[error("undefined auto-compaction-mode")]
    CompactionModeEmpty,
    /// `--auto-compaction-mode` is unknown.
    #[error("unknown auto-compaction-mode {}", quote(.0))]
    CompactionMode(String),
    /// `--auto-compaction-retention` is no time.
    #[error("error parsing CompactionRetention: {0}")]
    CompactionRetention(ValueError),
    /// `--auto-compaction-retention` is negative.
    #[error("--auto-compaction-retention must not be negative (set to {0})")]
    CompactionRetentionNegative(String),
    /// `--distributed-tracing-sampling-rate` is below 0 or above a million. The misspelt word is
    /// etcd's.
    #[error(
        "distributed tracing configurition is not valid: (tracing sampling rate must be {})",
        if *.0 < 0 { "positive" } else { "less than 1000000" }
    )]
    SamplingRate(i64),
    /// Gate LeaseCheckpointPersist without LeaseCheckpoint.
    #[error(
        "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
         LeaseCheckpoint"
    )]
    CheckpointPersist,
    /// `--compact-hash-check-time` is not positive.
    #[error("--compact-hash-check-time must be >0 (set to {0})")]
    CompactHashCheckTime(GoDuration),
    /// A TLS version that etcd does not know.
    #[error("unexpected TLS version {} (must be one of: TLS1.2, TLS1.3)", quote(.0))]
    TlsVersion(String),
    /// The smallest TLS version is above the largest.
    #[error("min version ({min}) is greater than max version ({max})")]
    TlsVersions {
        /// `--tls-min-version`.
        min: String,
        /// `--tls-max-version`.
        max: String,
    },
    /// Cipher suites when all of TLS is 1.3.
    #[error("cipher suites cannot be configured when only TLS1.3 is enabled")]
    CipherSuites,
    /// TLS for clients, but no certificate.
    #[error(
        "TLS key/cert (--cert-file, --key-file) must be provided for client url {0} with HTTPS scheme"
    )]
    ClientCertificate(Url),
    /// TLS for metrics, but no certificate.
    #[error(
        "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
    )]
    MetricsCertificate,
    /// The same URL for all clients and for HTTP alone.
    #[error(
        "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {0}"
    )]
    SameUrl(Url),
    /// `--auth-token` cannot be read.
    #[error("auth: invalid auth options")]
    AuthToken,
    /// Settings whose effect is still to come.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Later(Vec<Later>),
}

/// A setting whose effect is still to come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is refused: this version of etched does not support {what} yet{}", in_brackets(.instead))]
pub struct Later {
    /// The setting as one would write it.
    pub setting: String,
    /// What is to come.
    pub what: &'static str,
    /// What to do instead; may be empty.
    pub instead: String,
}

fn logger(name: &str) -> String {
    match name {
        "capnslog" => "--logger=capnslog is removed in v3.5".into(),
        other => format!("unknown logger option {}", quote(other)),
    }
}

fn in_brackets(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}
