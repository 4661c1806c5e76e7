//! One validated value for everything that etcd's flags say.
//!
//! ```text
//! flags, environment or config file --> Values --> build --> validate --> scope --> Settings
//! ```
//!
//! What stands here is *effective*: a default that etcd fills in at start (a data dir, 2 GiB of
//! quota, ten minutes between progress notifications) is filled in already, and a value that etcd
//! raises to a minimum is raised. Groups and names are those of etcd's help.

mod build;
mod refused;
mod token;
mod validate;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::feature_gates::FeatureGates;
use crate::logging::{Format, Level, Output, Rotation};
use crate::urls::Url;
use crate::values::Values;

pub use build::logging;
pub use refused::{Later, Refused};

/// Everything a server is told at its start.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// This member: where it keeps its data and what it listens on.
    pub member: Member,
    /// How it finds and forms its cluster.
    pub clustering: Clustering,
    /// Certificates and who may connect.
    pub security: Security,
    /// Users and tokens.
    pub auth: Auth,
    /// Where the log goes and how it looks.
    pub logging: Logging,
    /// Metrics and profiles.
    pub monitoring: Monitoring,
    /// OpenTelemetry spans.
    pub tracing: Tracing,
    /// Periods, limits and warnings of the store.
    pub features: Features,
    /// What gives up guarantees.
    pub unsafe_features: UnsafeFeatures,
}

/// Flags of etcd's group "Member".
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Name of this member; a key of [`Clustering::initial_cluster`]. Default `default`.
    pub name: String,
    /// Root of all that is kept on disk. Default `<name>.etcd` in the working directory.
    pub data_dir: PathBuf,
    /// Where the write-ahead log lies when not in `<data-dir>/member/wal`.
    pub wal_dir: Option<PathBuf>,
    /// Applied entries between two raft snapshots, at least 1. Default 10,000. Without effect here
    /// so far: checkpoints go by bytes.
    pub snapshot_count: u64,
    /// One raft tick. 1 ms or more; default 100 ms.
    pub heartbeat_interval: Duration,
    /// At least five heartbeats and at most 50 s. Default 1 s.
    pub election_timeout: Duration,
    /// Skip most of the first election timeout. Default true.
    pub initial_election_tick_advance: bool,
    /// Bound for member-to-member traffic; sorted, without duplicates. Default
    /// `http://localhost:2380`.
    pub listen_peer_urls: Vec<Url>,
    /// Bound for clients: gRPC, and HTTP unless [`Self::listen_client_http_urls`] is set. Sorted,
    /// without duplicates. Default `http://localhost:2379`.
    pub listen_client_urls: Vec<Url>,
    /// Bound for HTTP only; when not empty, the other client URLs serve gRPC only.
    pub listen_client_http_urls: Vec<Url>,
    /// WAL segments to keep; none = all. Default 5. Without effect here: checkpoints release them.
    pub max_wals: Option<u64>,
    /// `*.snap` files to keep; none = all. Default 5. Deprecated in etcd.
    pub max_snapshots: Option<u64>,
    /// Lock the process memory. Default false.
    pub memory_mlock: bool,
    /// Bytes of the backend above which NOSPACE is raised; none = no limit. Default 2 GiB.
    pub quota_backend_bytes: Option<u64>,
    /// Most entries in any one branch of a transaction. Default 128.
    pub max_txn_ops: u64,
    /// Most bytes of one proposal; gRPC receives 512 KiB more. Default 1.5 MiB.
    pub max_request_bytes: u64,
    /// HTTP/2 streams per client connection. Default 2^32 - 1.
    pub max_concurrent_streams: u32,
    /// Clients that ping more often are closed by etcd. Default 5 s. Without effect here.
    pub grpc_keepalive_min_time: Duration,
    /// Period of server pings; zero = never. Default 2 h.
    pub grpc_keepalive_interval: Duration,
    /// Wait for a ping's answer; zero = no pings at all. Default 20 s.
    pub grpc_keepalive_timeout: Duration,
    /// SO_REUSEPORT on listeners. Default false.
    pub socket_reuse_port: bool,
    /// SO_REUSEADDR on listeners. Default false.
    pub socket_reuse_address: bool,
    /// Serve the JSON gateway under `/v3/`. Default true.
    pub enable_grpc_gateway: bool,
    /// Read timeout of a peer connection, at least 5 s. Default 5 s.
    pub raft_read_timeout: Duration,
    /// Write timeout of a peer connection, at least 5 s. Default 5 s.
    pub raft_write_timeout: Duration,
    /// Switches of single features.
    pub feature_gates: FeatureGates,
}

/// Flags of etcd's group "Clustering".
#[derive(Debug, Clone, PartialEq)]
pub struct Clustering {
    /// Peer URLs told to the others; sorted. Default `http://localhost:2380`.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// Client URLs published in the member list; sorted. Default `http://localhost:2379`.
    pub advertise_client_urls: Vec<Url>,
    /// The text of `initial-cluster`; [`crate::bootstrap`] reads and checks it, because it counts
    /// only while there is no data yet. Default: this name with its advertised peer URLs.
    pub initial_cluster: String,
    /// What a member does that has no data yet. Default new.
    pub initial_cluster_state: ClusterState,
    /// Goes into cluster and member ids. Default `etcd-cluster`.
    pub initial_cluster_token: String,
    /// Refuse membership changes that would lose quorum. Default true.
    pub strict_reconfig_check: bool,
    /// Raft's pre-vote. Default true.
    pub pre_vote: bool,
    /// What history is compacted away by itself. Default off.
    pub auto_compaction: AutoCompaction,
    /// Another cluster that tells the members.
    pub discovery: Discovery,
}

/// Whether a member without data makes a cluster or joins one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// Make it.
    New,
    /// Join it.
    Existing,
}

/// How much history stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    /// All of it.
    Off,
    /// So much time of it.
    Periodic(Duration),
    /// So many revisions of it.
    Revision(i64),
}

/// Discovery by another etcd cluster or by DNS; none of it has an effect yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovery {
    /// gRPC endpoints of the discovery service.
    pub endpoints: Vec<String>,
    /// Token of the cluster to be made.
    pub token: String,
    /// DNS domain with SRV records.
    pub srv: String,
    /// Suffix of the SRV service names.
    pub srv_name: String,
}

/// Flags of etcd's group "Security".
#[derive(Debug, Clone, PartialEq)]
pub struct Security {
    /// TLS towards clients.
    pub client: Tls,
    /// TLS between members.
    pub peer: Tls,
    /// Go names of cipher suites; empty = all.
    pub cipher_suites: Vec<String>,
    /// Smallest TLS version.
    pub tls_min_version: TlsVersion,
    /// Largest TLS version; none = the largest there is.
    pub tls_max_version: Option<TlsVersion>,
    /// Years a generated certificate is valid. Default 1.
    pub self_signed_cert_validity_years: u64,
    /// Origins of browsers. Default any.
    pub cors: Allowed,
    /// Host headers on HTTP without TLS. Default any.
    pub host_whitelist: Allowed,
}

/// Certificates of one side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Server certificate.
    pub cert_file: Option<PathBuf>,
    /// Key of it.
    pub key_file: Option<PathBuf>,
    /// Certificate when dialing, else the server's.
    pub client_cert_file: Option<PathBuf>,
    /// Key of that.
    pub client_key_file: Option<PathBuf>,
    /// Ask for certificates signed by the trusted CA.
    pub client_cert_auth: bool,
    /// CA bundle.
    pub trusted_ca_file: Option<PathBuf>,
    /// Revoked certificates.
    pub crl_file: Option<PathBuf>,
    /// Common names, one of which a certificate must carry; empty = any.
    pub allowed_cn: Vec<String>,
    /// SAN host names, one of which a certificate must carry; empty = any.
    pub allowed_hostname: Vec<String>,
    /// Make a certificate when none is given.
    pub auto: bool,
    /// Do not compare the SAN with the remote address.
    pub skip_client_san_verification: bool,
}

/// A TLS version that etcd knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// A list of names, or all names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// Every name.
    Any,
    /// Only these.
    Only(BTreeSet<String>),
}

/// Flags of etcd's group "Auth".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Token kind with its options. Default `simple`.
    pub token: Token,
    /// Cost of stored passwords. 4 to 31; default 10.
    pub bcrypt_cost: u64,
    /// How long a simple token lives after its last use. Default 300 s.
    pub token_ttl: Duration,
}

/// What `--auth-token` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// Nothing: there are no tokens.
    Off,
    /// `simple`.
    Simple,
    /// `jwt` with its options.
    Jwt {
        /// `sign-method`; may be empty or unknown, which the keys then do not fit.
        sign_method: String,
        /// `pub-key`.
        public_key: Option<PathBuf>,
        /// `priv-key`.
        private_key: Option<PathBuf>,
        /// `ttl`. Default 5 min.
        ttl: Duration,
    },
    /// None of these, or options that cannot be read; refused.
    Invalid,
}

/// Flags of etcd's group "Logging".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// Where lines go. Default stderr.
    pub outputs: Vec<Output>,
    /// Least level that is written. Default info.
    pub level: Level,
    /// How a line looks; none when nobody said, then stderr decides (a terminal gets console).
    pub format: Option<Format>,
    /// Rotation of the one file among the outputs.
    pub rotation: Option<Rotation>,
}

/// Flags of etcd's group "Profiling and Monitoring".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitoring {
    /// Serve `/debug/pprof/`; log level debug does so too. Default false.
    pub enable_pprof: bool,
    /// Histogram of gRPC handling times too. Default false (`basic`).
    pub extensive_metrics: bool,
    /// Bound for `/metrics` and health only; sorted, without duplicates.
    pub listen_metrics_urls: Vec<Url>,
}

/// Flags of etcd's group "Distributed tracing"; without effect yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    /// Send spans.
    pub enabled: bool,
    /// Collector, `host:port`.
    pub address: String,
    /// Service name in spans.
    pub service_name: String,
    /// Instance id in spans.
    pub instance_id: String,
    /// Samples per million, 0 to 1,000,000.
    pub sampling_rate_per_million: u32,
}

/// Flags of etcd's group "Features".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    /// Period of the comparison with all members; zero = never.
    pub corrupt_check_time: Duration,
    /// Period of the comparison of compaction hashes. Default 1 min.
    pub compact_hash_check_time: Duration,
    /// Revisions per compaction batch. Default 1,000.
    pub compaction_batch_limit: u64,
    /// Pause between compaction batches. Default 10 ms.
    pub compaction_sleep_interval: Duration,
    /// Period of progress notifications, at least 100 ms. Default 10 min.
    pub watch_progress_notify_interval: Duration,
    /// Period of the check whether a downgrade finished; zero = never. Default 5 s.
    pub downgrade_check_time: Duration,
    /// Applying or reading for longer is logged. Default 100 ms.
    pub warning_apply_duration: Duration,
    /// A unary request that takes longer is logged. Default 300 ms.
    pub warning_unary_request_duration: Duration,
    /// Defragment at start when that frees at least so many MB; zero = never.
    pub bootstrap_defrag_threshold_megabytes: u64,
    /// Learners at one time. Default 1.
    pub max_learners: i64,
    /// Entries kept in memory behind a snapshot. Default 5,000. Without effect.
    pub snapshot_catchup_entries: u64,
}

/// Flags of etcd's group "Unsafe feature".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsafeFeatures {
    /// Start as a cluster of one from existing data.
    pub force_new_cluster: bool,
    /// Never sync files: loses acknowledged writes when the machine fails.
    pub no_fsync: bool,
}

impl Settings {
    /// The settings that the values of the flags mean, with the log as [`logging`] gave it.
    ///
    /// # Errors
    /// [`Refused`] for what etcd refuses, and for what has an effect only in a later version.
    pub fn new(values: &Values, logging: Logging) -> Result<Self, Refused> {
        let settings = build::settings(values, logging);
        validate::combinations(values, &settings)?;
        validate::scope(values, &settings)?;
        Ok(settings)
    }
}

impl Member {
    /// Where the write-ahead log lies.
    pub fn effective_wal_dir(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.data_dir.join("member").join("wal"))
    }

    /// Raft ticks in an election timeout.
    pub fn election_ticks(&self) -> u64 {
        let ticks = self.election_timeout.as_millis() / self.heartbeat_interval.as_millis().max(1);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

impl Allowed {
    /// Whether `name` is among them.
    pub fn allows(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.contains(name),
        }
    }
}
