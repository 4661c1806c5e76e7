//! Why settings were refused, in etcd's words where etcd has any.

use std::fmt;

use crate::go_values::{GoDuration, ValueError, quote};
use crate::logging::OutputError;
use crate::urls::{Url, join};

/// A combination of settings that no server starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// `--discovery-fallback=proxy`.
    FallbackProxy,
    /// `--logger` is not `zap`.
    Logger(String),
    /// `--log-level` is no level.
    LogLevel(String),
    /// `--log-format` is neither json nor console.
    LogFormat(String),
    /// `--log-outputs` cannot be opened, or do not go together.
    LogOutput(OutputError),
    /// Rotation without exactly one file.
    RotationWithoutFile,
    /// `--log-rotation-config-json` is no good.
    Rotation(String),
    /// A URL to listen on names a host.
    BindHost(Url),
    /// A URL to listen on has a port above 65535.
    BindPort(Url),
    /// A URL to advertise has no host.
    AdvertisePeerHost(Vec<Url>, Url),
    /// A URL to advertise has no host.
    AdvertiseClientHost(Vec<Url>, Url),
    /// More than one way to find the cluster.
    ConflictingBootstrap,
    /// A discovery token without endpoints, or the other way round.
    DiscoveryHalf,
    /// An empty discovery endpoint.
    DiscoveryEndpoint,
    /// No heartbeat.
    HeartbeatZero,
    /// No election timeout.
    ElectionZero,
    /// An election timeout of fewer than five heartbeats, in milliseconds.
    ElectionShort {
        /// Election timeout.
        election: u64,
        /// Heartbeat interval.
        heartbeat: u64,
    },
    /// An election timeout of more than 50 s, in milliseconds.
    ElectionLong(u64),
    /// URLs to listen on were given, but none to advertise.
    AdvertiseClientMissing,
    /// `--auto-compaction-mode` is empty.
    CompactionModeEmpty,
    /// `--auto-compaction-mode` is unknown.
    CompactionMode(String),
    /// `--auto-compaction-retention` is no time.
    CompactionRetention(ValueError),
    /// `--auto-compaction-retention` is negative.
    CompactionRetentionNegative(String),
    /// `--distributed-tracing-sampling-rate` is below 0 or above a million.
    SamplingRate(i64),
    /// Gate LeaseCheckpointPersist without LeaseCheckpoint.
    CheckpointPersist,
    /// `--compact-hash-check-time` is not positive.
    CompactHashCheckTime(GoDuration),
    /// A TLS version that etcd does not know.
    TlsVersion(String),
    /// The smallest TLS version is above the largest.
    TlsVersions {
        /// `--tls-min-version`.
        min: String,
        /// `--tls-max-version`.
        max: String,
    },
    /// Cipher suites when all of TLS is 1.3.
    CipherSuites,
    /// The same URL for all clients and for HTTP alone.
    SameUrl(Url),
    /// Settings whose effect is still to come: flag, value, what is to come, default.
    Later(Vec<Later>),
}

/// A setting whose effect is still to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Later {
    /// The setting as one would write it.
    pub setting: String,
    /// What is to come.
    pub what: &'static str,
    /// What to write instead.
    pub instead: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FallbackProxy => out.write_str(
                "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
            ),
            Self::Logger(name) if name == "capnslog" => {
                out.write_str("--logger=capnslog is removed in v3.5")
            }
            Self::Logger(name) => write!(out, "unknown logger option {}", quote(name)),
            Self::LogLevel(name) => write!(out, "unrecognized level: {}", quote(name)),
            Self::LogFormat(name) => {
                write!(out, "unknown log format: {name}, supported values json, console")
            }
            Self::LogOutput(error) => write!(out, "{error}"),
            Self::RotationWithoutFile => out.write_str(
                "--log-outputs requires a single file path when --log-rotate-config-json is \
                 defined",
            ),
            Self::Rotation(reason) => out.write_str(reason),
            Self::BindHost(url) => write!(out, "expected IP in URL for binding ({url})"),
            Self::BindPort(url) => write!(out, "listen tcp: address {url}: invalid port"),
            Self::AdvertisePeerHost(urls, url) => {
                let urls = quote(&join(urls));
                write!(out, "--initial-advertise-peer-urls {urls} must be \"host:port\" ")?;
                write!(out, "(unexpected empty host ({url}))")
            }
            Self::AdvertiseClientHost(urls, url) => {
                let urls = quote(&join(urls));
                write!(
                    out,
                    "--advertise-client-urls {urls} must be in the format \"host:port\", "
                )?;
                write!(out, "\"unix:/path/to/socket\" or \"unixs:/path/to/socket\" ")?;
                write!(out, "(unexpected empty host ({url}))")
            }
            other => other.describe_values(out),
        }
    }
}

impl Refused {
    /// The second half of the texts.
    fn describe_values(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConflictingBootstrap => out.write_str(
                "multiple discovery or bootstrap flags are set. Choose one of \
                 \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
            ),
            Self::DiscoveryHalf => {
                out.write_str("both --discovery-token and --discovery-endpoints must be set")
            }
            Self::DiscoveryEndpoint => {
                out.write_str("--discovery-endpoints must not contain empty endpoints")
            }
            Self::HeartbeatZero => out.write_str("--heartbeat-interval must be >0 (set to 0ms)"),
            Self::ElectionZero => out.write_str("--election-timeout must be >0 (set to 0ms)"),
            Self::ElectionShort { election, heartbeat } => {
                write!(out, "--election-timeout[{election}ms] should be at least as 5 times as ")?;
                write!(out, "--heartbeat-interval[{heartbeat}ms]")
            }
            Self::ElectionLong(election) => {
                write!(out, "--election-timeout[{election}ms] is too long, ")?;
                out.write_str("and should be set less than 50000ms")
            }
            Self::AdvertiseClientMissing => out.write_str(
                "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            ),
            Self::CompactionModeEmpty => out.write_str("undefined auto-compaction-mode"),
            Self::CompactionMode(mode) => {
                write!(out, "unknown auto-compaction-mode {}", quote(mode))
            }
            Self::CompactionRetention(reason) => {
                write!(out, "error parsing CompactionRetention: {reason}")
            }
            Self::CompactionRetentionNegative(text) => {
                write!(out, "--auto-compaction-retention must not be negative (set to {text})")
            }
            other => other.describe_security(out),
        }
    }

    /// The last third of the texts.
    fn describe_security(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SamplingRate(rate) => {
                let bound = if *rate < 0 { "positive" } else { "less than 1000000" };
                out.write_str("distributed tracing configurition is not valid: ")?;
                write!(out, "(tracing sampling rate must be {bound})")
            }
            Self::CheckpointPersist => out.write_str(
                "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
                 LeaseCheckpoint",
            ),
            Self::CompactHashCheckTime(time) => {
                write!(out, "--compact-hash-check-time must be >0 (set to {time})")
            }
            Self::TlsVersion(name) => {
                let name = quote(name);
                write!(out, "unexpected TLS version {name} (must be one of: TLS1.2, TLS1.3)")
            }
            Self::TlsVersions { min, max } => {
                write!(out, "min version ({min}) is greater than max version ({max})")
            }
            Self::CipherSuites => {
                out.write_str("cipher suites cannot be configured when only TLS1.3 is enabled")
            }
            Self::SameUrl(url) => {
                out.write_str("cannot bind both --listen-client-urls and ")?;
                write!(out, "--listen-client-http-urls on the same url {url}")
            }
            Self::Later(settings) => {
                let sentences: Vec<_> = settings.iter().map(ToString::to_string).collect();
                out.write_str(&sentences.join("; "))
            }
            _ => unreachable!("the first two thirds take every other variant"),
        }
    }
}

impl fmt::Display for Later {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, what, instead } = self;
        write!(out, "{setting} is refused: this version of etched does not support {what} yet")?;
        if instead.is_empty() { Ok(()) } else { write!(out, " ({instead})") }
    }
}

impl std::error::Error for Refused {}
