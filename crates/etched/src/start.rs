//! From settings to a running server.

use std::process::ExitCode;
use std::time::Duration;

use etched_server::{
    AuthConfig, AutoCompaction, ClusterState, Config, Feature, InitialMember, JwtOptions, Listen,
    Place, Tls, TlsInfo, TlsVersion, TokenKind,
};
use tracing::error;

use crate::bootstrap::InitialCluster;
use crate::settings::{self, Allowed, Security, Settings};
use crate::urls::Url;

/// Runs a server with these settings until it ends; what keeps it from starting or goes wrong later is one
/// line of the log and exit code 1.
pub fn start(settings: Settings) -> ExitCode {
    // A member that has data finds its cluster there; then these settings are not even looked at.
    if !settings.member.effective_wal_dir().exists()
        && let Err(reason) = InitialCluster::of(&settings)
    {
        error!(level = "fatal", error = %reason, "discovery failed");
        return ExitCode::FAILURE;
    }
    etched_server::report_damage_on_panic();
    match etched_server::run(config(settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            error!(level = "fatal", error = reason, "the server cannot go on");
            ExitCode::FAILURE
        }
    }
}

/// What the server is told. Values that the settings refuse, or warn of, are not looked at here.
fn config(settings: Settings) -> Config {
    let Settings {
        member, clustering, security, auth, monitoring, features, unsafe_features, ..
    } = settings;
    Config {
        name: member.name,
        data_dir: member.data_dir,
        wal_dir: member.wal_dir,
        client: listen(&member.listen_client_urls),
        client_http: listen(&member.listen_client_http_urls),
        // As in etcd the unix sockets of these two never have TLS.
        metrics: without_unixs(listen(&monitoring.listen_metrics_urls)),
        peer: without_unixs(listen(&member.listen_peer_urls)),
        client_tls: tls(&security, &security.client),
        peer_tls: tls(&security, &security.peer),
        advertise_client_urls: texts(&clustering.advertise_client_urls),
        advertise_peer_urls: texts(&clustering.initial_advertise_peer_urls),
        initial_cluster: initial_cluster(&clustering.initial_cluster),
        initial_cluster_state: match clustering.initial_cluster_state {
            settings::ClusterState::New => ClusterState::New,
            settings::ClusterState::Existing => ClusterState::Existing,
        },
        initial_cluster_token: clustering.initial_cluster_token,
        strict_reconfig_check: clustering.strict_reconfig_check,
        max_learners: usize::try_from(features.max_learners).unwrap_or(0),
        force_new_cluster: unsafe_features.force_new_cluster,
        initial_election_tick_advance: member.initial_election_tick_advance,
        heartbeat_interval: member.heartbeat_interval,
        election_timeout: member.election_timeout,
        raft_read_timeout: member.raft_read_timeout,
        raft_write_timeout: member.raft_write_timeout,
        snapshot_catch_up_entries: size(features.snapshot_catchup_entries),
        pre_vote: clustering.pre_vote,
        max_request_bytes: size(member.max_request_bytes),
        max_txn_ops: size(member.max_txn_ops),
        max_concurrent_streams: member.max_concurrent_streams,
        keepalive_interval: (member.grpc_keepalive_interval != Duration::ZERO
            && member.grpc_keepalive_timeout != Duration::ZERO)
            .then_some(member.grpc_keepalive_interval),
        keepalive_timeout: member.grpc_keepalive_timeout,
        quota_bytes: member.quota_backend_bytes,
        compaction_batch: size(features.compaction_batch_limit),
        compaction_pause: features.compaction_sleep_interval,
        auto_compaction: match clustering.auto_compaction {
            settings::AutoCompaction::Off => AutoCompaction::Off,
            settings::AutoCompaction::Periodic(period) => AutoCompaction::Periodic(period),
            settings::AutoCompaction::Revision(keep) => AutoCompaction::Revision(keep),
        },
        watch_progress_interval: features.watch_progress_notify_interval,
        memory_lock: member.memory_mlock,
        defragment_at_start_bytes: features
            .bootstrap_defrag_threshold_megabytes
            .saturating_mul(1 << 20),
        downgrade_check_time: features.downgrade_check_time,
        corrupt_check_time: features.corrupt_check_time,
        compact_hash_check_time: features.compact_hash_check_time,
        warning_apply: features.warning_apply_duration,
        warning_request: features.warning_unary_request_duration,
        features: member
            .feature_gates
            .all()
            .map(|(name, beta, enabled)| Feature { name, beta, enabled })
            .collect(),
        extensive_metrics: monitoring.extensive_metrics,
        unsafe_no_fsync: unsafe_features.no_fsync,
        reuse_port: member.socket_reuse_port,
        grpc_gateway: member.enable_grpc_gateway,
        pprof: monitoring.enable_pprof,
        cors: only(security.cors),
        host_whitelist: only(security.host_whitelist),
        auth: AuthConfig {
            token: token(auth.token),
            token_ttl: ttl(auth.token_ttl),
            bcrypt_cost: auth.bcrypt_cost,
        },
        ..Config::default()
    }
}

/// What does not read is refused where it counts, at a first start.
fn initial_cluster(text: &str) -> Vec<InitialMember> {
    let members = InitialCluster::parse(text).map(|cluster| cluster.members).unwrap_or_default();
    members
        .into_iter()
        .map(|(name, urls)| InitialMember { name, peer_urls: texts(&urls) })
        .collect()
}

fn token(token: settings::Token) -> TokenKind {
    match token {
        settings::Token::Off | settings::Token::Invalid => TokenKind::Off,
        settings::Token::Simple => TokenKind::Simple,
        settings::Token::Jwt { sign_method, public_key, private_key, ttl } => {
            TokenKind::Jwt(JwtOptions { sign_method, public_key, private_key, ttl })
        }
    }
}

/// No time at all means the default.
fn ttl(ttl: Duration) -> Duration {
    if ttl.is_zero() { AuthConfig::default().token_ttl } else { ttl }
}

fn listen(urls: &[Url]) -> Vec<Listen> {
    urls.iter()
        .map(|url| Listen {
            place: match url.socket_path() {
                Some(path) => Place::Unix(path),
                None => Place::Tcp(url.authority().to_owned()),
            },
            secure: url.scheme().is_tls(),
        })
        .collect()
}

fn without_unixs(mut addresses: Vec<Listen>) -> Vec<Listen> {
    for address in &mut addresses {
        address.secure &= matches!(address.place, Place::Tcp(_));
    }
    addresses
}

fn tls(security: &Security, side: &settings::Tls) -> Tls {
    let version = |version| match version {
        settings::TlsVersion::Tls12 => TlsVersion::Tls12,
        settings::TlsVersion::Tls13 => TlsVersion::Tls13,
    };
    let side = side.clone();
    Tls {
        auto_years: side.auto.then_some(security.self_signed_cert_validity_years),
        info: TlsInfo {
            cert_file: side.cert_file,
            key_file: side.key_file,
            client_cert_file: side.client_cert_file,
            client_key_file: side.client_key_file,
            trusted_ca_file: side.trusted_ca_file,
            client_cert_auth: side.client_cert_auth,
            crl_file: side.crl_file,
            allowed_cn: side.allowed_cn,
            allowed_hostname: side.allowed_hostname,
            cipher_suites: security.cipher_suites.clone(),
            min_version: Some(version(security.tls_min_version)),
            max_version: security.tls_max_version.map(version),
            skip_client_san_verification: side.skip_client_san_verification,
        },
    }
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.as_str().to_owned()).collect()
}

fn only(allowed: Allowed) -> Option<Vec<String>> {
    match allowed {
        Allowed::Any => None,
        Allowed::Only(names) => Some(names.into_iter().collect()),
    }
}

/// A limit that the machine's memory could never reach is as good as none.
fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
