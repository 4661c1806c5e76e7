//! What an embedder tells the server. The command line fills it from etcd's flags.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use etched_tls::TlsInfo;

/// Most bytes the store may take when nothing else is said, as in etcd.
pub(crate) const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;

/// One address to serve on. The same place may be there twice, with TLS and without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// What is bound.
    pub place: Place,
    /// TLS, by the certificates of the side it is for.
    pub secure: bool,
}

/// What is bound for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `host:port`.
    Tcp(String),
    /// Path of a unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// `host:port` without TLS.
    pub fn plain(address: &str) -> Self {
        Self { place: Place::Tcp(address.to_owned()), secure: false }
    }

    /// The host, for a generated certificate.
    pub(crate) fn host(&self) -> Option<String> {
        let Place::Tcp(address) = &self.place else { return None };
        let (host, _) = address.rsplit_once(':')?;
        Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => out.write_str(address),
            Self::Unix(path) => write!(out, "{}", path.display()),
        }
    }
}

/// TLS of one side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Certificates and rules.
    pub info: TlsInfo,
    /// Make a certificate, valid for so many years, when `info` has none.
    pub auto_years: Option<u64>,
}

/// A member of a cluster that is still to be made or joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialMember {
    /// Its name.
    pub name: String,
    /// Its peer URLs.
    pub peer_urls: Vec<String>,
}

/// Whether a member without data makes a cluster or joins one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClusterState {
    /// Make it.
    #[default]
    New,
    /// Join it.
    Existing,
}

/// How much history stays when nobody compacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoCompaction {
    /// All of it.
    #[default]
    Off,
    /// So much time of it.
    Periodic(Duration),
    /// So many revisions of it.
    Revision(i64),
}

/// A feature gate, as the metrics tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// Its stage: beta, else alpha.
    pub beta: bool,
    /// Whether it is on.
    pub enabled: bool,
}

/// What tokens are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TokenKind {
    /// There are none: nobody logs in with a password.
    Off,
    /// Random letters that the members remember.
    #[default]
    Simple,
    /// Signed, checked by their signature.
    Jwt(JwtOptions),
}

/// How tokens are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtOptions {
    /// Method by its name in a token's head, such as `RS256`.
    pub sign_method: String,
    /// File of the public key, in PEM.
    pub public_key: Option<PathBuf>,
    /// File of the private key, in PEM; for `HS...` of the secret itself.
    pub private_key: Option<PathBuf>,
    /// How long a token is good.
    pub ttl: Duration,
}

/// Authentication, once it is switched on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// What tokens are.
    pub token: TokenKind,
    /// How long a simple token lives after its last use.
    pub token_ttl: Duration,
    /// Cost of hashing a password, 4 to 31.
    pub bcrypt_cost: u64,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self { token: TokenKind::Simple, token_ttl: etched_auth::SIMPLE_TOKEN_TTL, bcrypt_cost: 10 }
    }
}

/// Everything [`crate::run`] needs; [`Config::default`] is etcd's default, served on loopback only.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of this member.
    pub name: String,
    /// Folder of all persistent state; made when missing.
    pub data_dir: PathBuf,
    /// Folder of the write-ahead log; None is `<data_dir>/member/wal`.
    pub wal_dir: Option<PathBuf>,
    /// Addresses for clients: gRPC, and HTTP unless `client_http` has one.
    pub client: Vec<Listen>,
    /// Addresses for HTTP only.
    pub client_http: Vec<Listen>,
    /// Addresses that serve `/metrics`, `/health`, `/livez` and `/readyz` only.
    pub metrics: Vec<Listen>,
    /// Addresses for other members.
    pub peer: Vec<Listen>,
    /// Certificates for `client`, `client_http` and `metrics`.
    pub client_tls: Tls,
    /// Certificates for `peer`.
    pub peer_tls: Tls,
    /// Client URLs told to clients by MemberList.
    pub advertise_client_urls: Vec<String>,
    /// Peer URLs told to other members; with the token they make the member's id.
    pub advertise_peer_urls: Vec<String>,
    /// The members that a new cluster begins with, or all that are in the one to be joined; used at the first start
    /// only. Empty is this member alone, with its name and its `advertise_peer_urls`.
    pub initial_cluster: Vec<InitialMember>,
    /// What a member does that has no data.
    pub initial_cluster_state: ClusterState,
    /// Salt of the ids, used at the first start only.
    pub initial_cluster_token: String,
    /// Refuse membership changes that would lose the quorum.
    pub strict_reconfig_check: bool,
    /// Learners that there may be at one time.
    pub max_learners: usize,
    /// Make a cluster of this member alone out of the data that is there.
    pub force_new_cluster: bool,
    /// A member that starts with others waits less for its first election.
    pub initial_election_tick_advance: bool,
    /// Time between two heartbeats, one raft tick.
    pub heartbeat_interval: Duration,
    /// Time without a leader before an election; at least five heartbeats.
    pub election_timeout: Duration,
    /// Silence of another member after which a connection to it is given up.
    pub raft_read_timeout: Duration,
    /// How long a message to another member may make no progress.
    pub raft_write_timeout: Duration,
    /// Entries of the log that are kept for members that lag, within a bound of bytes.
    pub snapshot_catch_up_entries: usize,
    /// Pre-vote phase.
    pub pre_vote: bool,
    /// Largest proposal in bytes; a message may be 512 KiB larger.
    pub max_request_bytes: usize,
    /// Most operations in one part of a transaction.
    pub max_txn_ops: usize,
    /// HTTP/2 streams per connection.
    pub max_concurrent_streams: u32,
    /// Time after which an idle connection is pinged; None never.
    pub keepalive_interval: Option<Duration>,
    /// How long the answer to a ping may take.
    pub keepalive_timeout: Duration,
    /// Most bytes the store may take; None is no limit.
    pub quota_bytes: Option<u64>,
    /// Keys and revisions that one slice of a compaction looks at.
    pub compaction_batch: usize,
    /// Pause between those slices.
    pub compaction_pause: Duration,
    /// What is compacted away by itself.
    pub auto_compaction: AutoCompaction,
    /// How often idle watchers that asked for it hear of the current revision.
    pub watch_progress_interval: Duration,
    /// Keep the memory of the process from being swapped out.
    pub memory_lock: bool,
    /// Free bytes of the store's file from which on it is defragmented at the start; 0 is never.
    pub defragment_at_start_bytes: u64,
    /// How often is looked whether a downgrade is complete; zero is never.
    pub downgrade_check_time: Duration,
    /// How often the store's hash is checked; zero is never.
    pub corrupt_check_time: Duration,
    /// How often the hashes of compactions are, with the gate CompactHashCheck.
    pub compact_hash_check_time: Duration,
    /// Applying an entry that takes longer is logged.
    pub warning_apply: Duration,
    /// A unary request that takes longer is logged.
    pub warning_request: Duration,
    /// Feature gates: those that have an effect are looked up here, and the metrics tell of all.
    pub features: Vec<Feature>,
    /// Keep the handling times of calls too.
    pub extensive_metrics: bool,
    /// Never wait for the disk. Loses data; for experiments only.
    pub unsafe_no_fsync: bool,
    /// Threads that serve connections; None is half of the cores.
    pub network_threads: Option<usize>,
    /// Bytes of the store that are cached in memory.
    pub cache_bytes: usize,
    /// Size of one file of the log.
    pub log_segment_bytes: u64,
    /// Bytes of log after which the store's file is made durable and the log shortened.
    pub checkpoint_log_bytes: u64,
    /// Bytes of records that are moved to the store's file at once.
    pub commit_bytes: usize,
    /// `SO_REUSEPORT` on listeners.
    pub reuse_port: bool,
    /// Serve JSON under `/v3/`.
    pub grpc_gateway: bool,
    /// Serve `/debug/pprof/`.
    pub pprof: bool,
    /// Origins allowed by CORS; None is any.
    pub cors: Option<Vec<String>>,
    /// Host names accepted on plain HTTP; None is any.
    pub host_whitelist: Option<Vec<String>>,
    /// Users, passwords and tokens.
    pub auth: AuthConfig,
    /// Answer a termination signal by ending with the same signal, as etcd does.
    pub exit_by_signal: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            data_dir: PathBuf::from("default.etcd"),
            wal_dir: None,
            client: vec![Listen::plain("localhost:2379")],
            client_http: Vec::new(),
            metrics: Vec::new(),
            peer: vec![Listen::plain("localhost:2380")],
            client_tls: Tls::default(),
            peer_tls: Tls::default(),
            advertise_client_urls: vec!["http://localhost:2379".to_owned()],
            advertise_peer_urls: vec!["http://localhost:2380".to_owned()],
            initial_cluster: Vec::new(),
            initial_cluster_state: ClusterState::New,
            initial_cluster_token: "etcd-cluster".to_owned(),
            strict_reconfig_check: true,
            max_learners: 1,
            force_new_cluster: false,
            initial_election_tick_advance: true,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_millis(1000),
            raft_read_timeout: etched_transport::IO_TIMEOUT,
            raft_write_timeout: etched_transport::IO_TIMEOUT,
            snapshot_catch_up_entries: 5000,
            pre_vote: true,
            max_request_bytes: 1_572_864,
            max_txn_ops: 128,
            max_concurrent_streams: u32::MAX,
            keepalive_interval: Some(Duration::from_secs(7200)),
            keepalive_timeout: Duration::from_secs(20),
            quota_bytes: Some(QUOTA_BYTES_DEFAULT),
            compaction_batch: 1000,
            compaction_pause: Duration::from_millis(10),
            auto_compaction: AutoCompaction::Off,
            watch_progress_interval: Duration::from_secs(600),
            memory_lock: false,
            defragment_at_start_bytes: 0,
            downgrade_check_time: Duration::from_secs(5),
            corrupt_check_time: Duration::ZERO,
            compact_hash_check_time: Duration::from_secs(60),
            warning_apply: Duration::from_millis(100),
            warning_request: Duration::from_millis(300),
            features: Vec::new(),
            extensive_metrics: false,
            unsafe_no_fsync: false,
            network_threads: None,
            cache_bytes: 32 << 20,
            log_segment_bytes: etched_wal::SEGMENT_BYTES,
            checkpoint_log_bytes: 64 << 20,
            commit_bytes: 1 << 20,
            reuse_port: false,
            grpc_gateway: true,
            pprof: false,
            cors: None,
            host_whitelist: None,
            auth: AuthConfig::default(),
            exit_by_signal: true,
        }
    }
}

impl Config {
    /// How long a request may take: 5 s for the disk and the queue, and two elections.
    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }

    /// The members to begin with: never empty.
    pub(crate) fn first_members(&self) -> Vec<InitialMember> {
        if !self.initial_cluster.is_empty() {
            return self.initial_cluster.clone();
        }
        vec![InitialMember { name: self.name.clone(), peer_urls: self.advertise_peer_urls.clone() }]
    }

    /// Whether a feature gate is on; one that is not listed is off.
    pub(crate) fn is_on(&self, gate: &str) -> bool {
        self.features.iter().any(|feature| feature.name == gate && feature.enabled)
    }

    /// Largest gRPC message.
    pub(crate) fn message_limit(&self) -> usize {
        self.max_request_bytes + 512 * 1024
    }

    /// Election timeout in raft ticks.
    pub(crate) fn election_ticks(&self) -> u64 {
        let heartbeat = self.heartbeat_interval.as_millis().max(1);
        (self.election_timeout.as_millis() / heartbeat) as u64
    }
}
