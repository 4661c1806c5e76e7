//! From values of single flags to settings, with etcd's defaults and minimums filled in.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;

use tracing::info;

use super::token;
use super::{
    Allowed, Auth, AutoCompaction, ClusterState, Clustering, Discovery, Features, Logging, Member,
    Monitoring, Refused, Security, Settings, Tls, TlsVersion, Tracing, UnsafeFeatures,
};
use crate::go_values::GoDuration;
use crate::logging::{Format, Level, Output, Rotation};
use crate::urls::{Url, join};
use crate::values::{Source, Values};

const QUOTA_DEFAULT_BYTES: u64 = 2 << 30;
const WATCH_PROGRESS_DEFAULT: Duration = Duration::from_secs(600);
const WATCH_PROGRESS_MIN: Duration = Duration::from_millis(100);
const RAFT_TIMEOUT_MIN: Duration = Duration::from_secs(5);

/// What the log is to be like; needed before anything else is checked and reported.
///
/// # Errors
/// [`Refused`] when the logging flags do not go together.
pub fn logging(values: &Values) -> Result<Logging, Refused> {
    // etcd looks at this before it has a log.
    if values.text("discovery-fallback") == "proxy" {
        return Err(Refused::FallbackProxy);
    }
    let logger = values.text("logger");
    if logger != "zap" {
        return Err(Refused::Logger(logger.to_owned()));
    }
    let outputs = Output::parse_list(values.texts("log-outputs")).map_err(Refused::LogOutput)?;
    let rotation = rotation(values, &outputs)?;
    let level = values.text("log-level");
    let level = Level::parse(level).ok_or_else(|| Refused::LogLevel(level.to_owned()))?;
    let format = match values.text("log-format") {
        _ if !values.is_set("log-format") => None,
        "json" | "" => Some(Format::Json),
        "console" => Some(Format::Console),
        other => return Err(Refused::LogFormat(other.to_owned())),
    };
    Ok(Logging { outputs, level, format, rotation })
}

fn rotation(values: &Values, outputs: &[Output]) -> Result<Option<Rotation>, Refused> {
    if !values.bool("enable-log-rotation") {
        return Ok(None);
    }
    if outputs.iter().filter(|output| matches!(output, Output::File(_))).count() != 1 {
        return Err(Refused::RotationWithoutFile);
    }
    let json = values.text("log-rotation-config-json");
    Rotation::parse(json).map(Some).map_err(Refused::Rotation)
}

/// The settings that the values mean. Nothing is checked yet: what has no meaning gets a default
/// here and is refused by `validate`, which goes in etcd's order.
pub(super) fn settings(values: &Values, logging: Logging) -> Settings {
    let member = member(values);
    Settings {
        clustering: clustering(values, &member),
        member,
        security: security(values),
        auth: Auth {
            token: token::parse(values.text("auth-token")),
            bcrypt_cost: values.unsigned("bcrypt-cost"),
            token_ttl: Duration::from_secs(values.unsigned("auth-token-ttl")),
        },
        logging,
        monitoring: Monitoring {
            // As etcd: whoever looks for a fault wants to see this too.
            enable_pprof: values.bool("enable-pprof") || values.text("log-level") == "debug",
            extensive_metrics: values.text("metrics") == "extensive",
            listen_metrics_urls: values.urls("listen-metrics-urls").to_vec(),
        },
        tracing: tracing_settings(values),
        features: features(values),
        unsafe_features: UnsafeFeatures {
            force_new_cluster: values.bool("force-new-cluster"),
            no_fsync: values.bool("unsafe-no-fsync"),
        },
    }
}

fn member(values: &Values) -> Member {
    let name = values.text("name").to_owned();
    let keep = |flag| Some(values.unsigned(flag)).filter(|count| *count > 0);
    Member {
        data_dir: data_dir(values, &name),
        wal_dir: path(values, "wal-dir"),
        snapshot_count: non_zero_or(values.unsigned("snapshot-count"), 10_000),
        heartbeat_interval: Duration::from_millis(values.unsigned("heartbeat-interval")),
        election_timeout: Duration::from_millis(values.unsigned("election-timeout")),
        initial_election_tick_advance: values.bool("initial-election-tick-advance"),
        listen_peer_urls: values.urls("listen-peer-urls").to_vec(),
        listen_client_urls: values.urls("listen-client-urls").to_vec(),
        listen_client_http_urls: values.urls("listen-client-http-urls").to_vec(),
        max_wals: keep("max-wals"),
        max_snapshots: keep("max-snapshots"),
        memory_mlock: values.bool("memory-mlock"),
        quota_backend_bytes: match values.signed("quota-backend-bytes") {
            0 => Some(QUOTA_DEFAULT_BYTES),
            bytes => u64::try_from(bytes).ok(),
        },
        max_txn_ops: values.unsigned("max-txn-ops"),
        max_request_bytes: values.unsigned("max-request-bytes"),
        max_concurrent_streams: u32::try_from(values.unsigned("max-concurrent-streams"))
            .expect("a number of 32 bits by its kind"),
        grpc_keepalive_min_time: span(values, "grpc-keepalive-min-time"),
        grpc_keepalive_interval: span(values, "grpc-keepalive-interval"),
        grpc_keepalive_timeout: span(values, "grpc-keepalive-timeout"),
        socket_reuse_port: values.bool("socket-reuse-port"),
        socket_reuse_address: values.bool("socket-reuse-address"),
        enable_grpc_gateway: values.bool("enable-grpc-gateway"),
        raft_read_timeout: raft_timeout(values, "raft-read-timeout"),
        raft_write_timeout: raft_timeout(values, "raft-write-timeout"),
        feature_gates: values.gates(),
        name,
    }
}

fn data_dir(values: &Values, name: &str) -> PathBuf {
    path(values, "data-dir").unwrap_or_else(|| PathBuf::from(format!("{name}.etcd")))
}

fn raft_timeout(values: &Values, flag: &'static str) -> Duration {
    let timeout = span(values, flag);
    if timeout < RAFT_TIMEOUT_MIN {
        info!("{flag} increased to minimum value: 5s");
    }
    timeout.max(RAFT_TIMEOUT_MIN)
}

fn clustering(values: &Values, member: &Member) -> Clustering {
    let mut peers = values.urls("initial-advertise-peer-urls").to_vec();
    let mut clients = values.urls("advertise-client-urls").to_vec();
    // On the command line, own client URLs need own advertised ones; a file keeps the default.
    let given = values.source("listen-client-urls") == Source::Given;
    if given && !values.is_set("advertise-client-urls") {
        clients.clear();
    }
    if let Some(host) = default_host(&member.listen_peer_urls, &peers, "http://localhost:2380") {
        peers = vec![host];
    }
    let initial_cluster = initial_cluster(values, member, &peers);
    if let Some(host) = default_host(&member.listen_client_urls, &clients, "http://localhost:2379")
    {
        clients = vec![host];
    }
    Clustering {
        initial_advertise_peer_urls: peers,
        advertise_client_urls: clients,
        initial_cluster,
        initial_cluster_state: match values.text("initial-cluster-state") {
            "existing" => ClusterState::Existing,
            _ => ClusterState::New,
        },
        initial_cluster_token: values.text("initial-cluster-token").to_owned(),
        strict_reconfig_check: values.bool("strict-reconfig-check"),
        pre_vote: values.bool("pre-vote"),
        auto_compaction: auto_compaction(values).unwrap_or(AutoCompaction::Off),
        discovery: Discovery {
            endpoints: values.texts("discovery-endpoints").to_vec(),
            token: values.text("discovery-token").to_owned(),
            srv: values.text("discovery-srv").to_owned(),
            srv_name: values.text("discovery-srv-name").to_owned(),
        },
    }
}

/// The flag's text; this member alone when it was not touched, or nothing when discovery tells.
fn initial_cluster(values: &Values, member: &Member, peers: &[Url]) -> String {
    let given = values.text("initial-cluster");
    let default = crate::flags::find("initial-cluster").expect("a flag of the table").default;
    let discovers = !values.text("discovery-srv").is_empty()
        || !values.text("discovery-srv-name").is_empty()
        || !values.texts("discovery-endpoints").is_empty();
    if given != default {
        return given.to_owned();
    }
    if discovers && values.source("initial-cluster") != Source::Given {
        return String::new();
    }
    if member.name == "default" {
        return given.to_owned();
    }
    let name = if member.name.is_empty() { "default" } else { &member.name };
    peers.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
}

/// The machine's own address, to be advertised when all are listened on and nobody named one.
fn default_host(listen: &[Url], advertise: &[Url], untouched: &str) -> Option<Url> {
    let first = listen.first()?;
    if first.host() != "0.0.0.0" || join(advertise) != untouched {
        return None;
    }
    // Binds and connects a datagram socket: that asks the routing table and sends nothing.
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    let host = socket.connect(("192.0.2.1", 9)).and_then(|()| socket.local_addr());
    match host {
        Ok(address) => {
            let host = address.ip().to_string();
            info!(host, "detected default host for advertise");
            Url::parse(&format!("http://{host}:{}", first.port())).ok()
        }
        Err(error) => {
            info!(%error, "failed to detect default host");
            None
        }
    }
}

/// How much history stays; needs a known mode.
pub(super) fn auto_compaction(values: &Values) -> Result<AutoCompaction, Refused> {
    let retention = values.text("auto-compaction-retention");
    let mode = values.text("auto-compaction-mode");
    let count: Option<i64> = retention.parse().ok().filter(|count| *count >= 0);
    let nanos = match (mode, count) {
        ("revision", Some(count)) => count,
        (_, Some(hours)) => hours.saturating_mul(3600 * 1_000_000_000),
        (_, None) => GoDuration::parse(retention).map_err(Refused::CompactionRetention)?.0,
    };
    if nanos < 0 {
        return Err(Refused::CompactionRetentionNegative(retention.to_owned()));
    }
    match (mode, nanos) {
        ("revision", 1..) => Ok(AutoCompaction::Revision(nanos)),
        ("periodic", 1..) => Ok(AutoCompaction::Periodic(GoDuration(nanos).saturating())),
        _ => Ok(AutoCompaction::Off),
    }
}

/// The TLS version that a flag names; none when it is empty.
pub(super) fn tls_version(values: &Values, flag: &str) -> Result<Option<TlsVersion>, Refused> {
    match values.text(flag) {
        "TLS1.2" => Ok(Some(TlsVersion::Tls12)),
        "TLS1.3" => Ok(Some(TlsVersion::Tls13)),
        "" => Ok(None),
        other => Err(Refused::TlsVersion(other.to_owned())),
    }
}

fn security(values: &Values) -> Security {
    let version = |flag| tls_version(values, flag).unwrap_or_default();
    Security {
        client: client_tls(values),
        peer: peer_tls(values),
        cipher_suites: values.texts("cipher-suites").to_vec(),
        tls_min_version: version("tls-min-version").unwrap_or(TlsVersion::Tls12),
        tls_max_version: version("tls-max-version"),
        self_signed_cert_validity_years: non_zero_or(
            values.unsigned("self-signed-cert-validity"),
            1,
        ),
        cors: values.origins("cors").clone(),
        host_whitelist: match values.texts("host-whitelist") {
            [] => Allowed::Any,
            names if names.iter().any(|name| name == "*") => Allowed::Any,
            [name] if name.is_empty() => Allowed::Any,
            names => Allowed::Only(names.iter().cloned().collect()),
        },
    }
}

fn client_tls(values: &Values) -> Tls {
    Tls {
        cert_file: path(values, "cert-file"),
        key_file: path(values, "key-file"),
        client_cert_file: path(values, "client-cert-file"),
        client_key_file: path(values, "client-key-file"),
        client_cert_auth: values.bool("client-cert-auth"),
        trusted_ca_file: path(values, "trusted-ca-file"),
        crl_file: path(values, "client-crl-file"),
        allowed_cn: Vec::new(),
        allowed_hostname: values.texts("client-cert-allowed-hostname").to_vec(),
        auto: values.bool("auto-tls"),
        skip_client_san_verification: false,
    }
}

fn peer_tls(values: &Values) -> Tls {
    Tls {
        cert_file: path(values, "peer-cert-file"),
        key_file: path(values, "peer-key-file"),
        client_cert_file: path(values, "peer-client-cert-file"),
        client_key_file: path(values, "peer-client-key-file"),
        client_cert_auth: values.bool("peer-client-cert-auth"),
        trusted_ca_file: path(values, "peer-trusted-ca-file"),
        crl_file: path(values, "peer-crl-file"),
        allowed_cn: values.texts("peer-cert-allowed-cn").to_vec(),
        allowed_hostname: values.texts("peer-cert-allowed-hostname").to_vec(),
        auto: values.bool("peer-auto-tls"),
        skip_client_san_verification: values.bool("peer-skip-client-san-verification"),
    }
}

fn tracing_settings(values: &Values) -> Tracing {
    let rate = values.signed("distributed-tracing-sampling-rate");
    Tracing {
        enabled: values.bool("enable-distributed-tracing"),
        address: values.text("distributed-tracing-address").to_owned(),
        service_name: values.text("distributed-tracing-service-name").to_owned(),
        instance_id: values.text("distributed-tracing-instance-id").to_owned(),
        sampling_rate_per_million: u32::try_from(rate).unwrap_or_default(),
    }
}

fn features(values: &Values) -> Features {
    let or_default = |flag, default| match values.duration(flag).0 {
        0 => default,
        _ => span(values, flag),
    };
    Features {
        // A negative one ends etcd at the start, in Go's ticker; here nothing is checked, as with zero.
        corrupt_check_time: span(values, "corrupt-check-time"),
        compact_hash_check_time: span(values, "compact-hash-check-time"),
        compaction_batch_limit: u64::try_from(values.signed("compaction-batch-limit"))
            .ok()
            .filter(|limit| *limit > 0)
            .unwrap_or(1_000),
        compaction_sleep_interval: or_default(
            "compaction-sleep-interval",
            Duration::from_millis(10),
        ),
        watch_progress_notify_interval: or_default(
            "watch-progress-notify-interval",
            WATCH_PROGRESS_DEFAULT,
        )
        .max(WATCH_PROGRESS_MIN),
        downgrade_check_time: span(values, "downgrade-check-time"),
        warning_apply_duration: span(values, "warning-apply-duration"),
        warning_unary_request_duration: or_default(
            "warning-unary-request-duration",
            Duration::from_millis(300),
        ),
        bootstrap_defrag_threshold_megabytes: values
            .unsigned("bootstrap-defrag-threshold-megabytes"),
        max_learners: values.signed("max-learners"),
        snapshot_catchup_entries: non_zero_or(values.unsigned("snapshot-catchup-entries"), 5_000),
    }
}

/// A span of time; a negative one is none.
fn span(values: &Values, flag: &str) -> Duration {
    values.duration(flag).saturating()
}

fn path(values: &Values, flag: &str) -> Option<PathBuf> {
    Some(values.text(flag)).filter(|text| !text.is_empty()).map(PathBuf::from)
}

fn non_zero_or(number: u64, default: u64) -> u64 {
    if number == 0 { default } else { number }
}
