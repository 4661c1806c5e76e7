//! What must fit together, in the order in which etcd looks at it, and what is still to come.

use std::collections::BTreeSet;

use tracing::warn;

use super::build::{auto_compaction, tls_version};
use super::refused::{Later, Refused};
use super::{Security, Settings, Tls, TlsVersion, Token};
use crate::flags::Scope;
use crate::urls::{Scheme, Url};
use crate::values::{Value, Values, default_of};

const ELECTION_TIMEOUT_MAX_MS: u64 = 50_000;

/// Checks what etcd checks.
pub(super) fn combinations(values: &Values, settings: &Settings) -> Result<(), Refused> {
    check_urls(settings)?;
    check_bootstrap(settings)?;
    check_timing(values)?;
    if settings.clustering.advertise_client_urls.is_empty() {
        return Err(Refused::AdvertiseClientMissing);
    }
    match values.text("auto-compaction-mode") {
        "periodic" | "revision" => {}
        "" => return Err(Refused::CompactionModeEmpty),
        other => return Err(Refused::CompactionMode(other.to_owned())),
    }
    let rate = values.signed("distributed-tracing-sampling-rate");
    if settings.tracing.enabled && !(0..=1_000_000).contains(&rate) {
        return Err(Refused::SamplingRate(rate));
    }
    let gates = settings.member.feature_gates;
    if gates.is_on("LeaseCheckpointPersist") && !gates.is_on("LeaseCheckpoint") {
        return Err(Refused::CheckpointPersist);
    }
    let check_time = values.duration("compact-hash-check-time");
    if check_time.0 <= 0 {
        return Err(Refused::CompactHashCheckTime(check_time));
    }
    if settings.member.name == "default" {
        warn!(
            name = settings.member.name,
            "it isn't recommended to use default name, please set a value for --name. Note that \
             etcd might run into issue when multiple members have the same default name"
        );
    }
    if settings.auth.token == Token::Invalid {
        return Err(Refused::AuthToken);
    }
    check_tls(values, settings)?;
    check_same_url(settings)?;
    check_certificates(settings)?;
    auto_compaction(values).map(|_| ())
}

/// Warns about settings without effect and refuses those whose effect is still to come.
pub(super) fn scope(values: &Values, settings: &Settings) -> Result<(), Refused> {
    let mut later = Vec::new();
    for (flag, value) in values.changed() {
        match flag.scope {
            Scope::Effective => {}
            Scope::NoEffect(reason) => {
                warn!(flag = flag.name, reason, "a setting has no effect in etched");
            }
            Scope::Later(_) if raised_to_default(flag.name, value) => {}
            Scope::Later(what) => {
                let shown = if flag.is_secret() { "***".into() } else { shown(value) };
                later.push(Later {
                    setting: format!("--{}={shown}", flag.name),
                    what,
                    instead: match flag.default {
                        "" => "leave it out".into(),
                        default => format!("leave it at {default}"),
                    },
                });
            }
        }
    }
    for (gate, on) in settings.member.feature_gates.changed() {
        match gate.scope {
            Scope::Effective => {}
            Scope::NoEffect(reason) => {
                warn!("feature-gate" = gate.name, reason, "a setting has no effect in etched");
            }
            Scope::Later(what) => {
                let setting = format!("feature gate {}={on}", gate.name);
                later.push(Later { setting, what, instead: String::new() });
            }
        }
    }
    if later.is_empty() { Ok(()) } else { Err(Refused::Later(later)) }
}

/// Timeouts of raft connections below the default are raised to it, and so change nothing.
fn raised_to_default(name: &str, value: &Value) -> bool {
    let default = crate::flags::find(name).map(default_of);
    match (name, value, default) {
        (
            "raft-read-timeout" | "raft-write-timeout",
            Value::Duration(given),
            Some(Value::Duration(default)),
        ) => *given < default,
        _ => false,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Unsigned(number) => number.to_string(),
        Value::Signed(number) => number.to_string(),
        Value::Duration(duration) => duration.to_string(),
        Value::Urls(urls) => crate::urls::join(urls),
        Value::Texts(texts) => texts.join(","),
        Value::Gates(gates) => gates.to_string(),
        Value::Origins(_) | Value::Nothing => String::new(),
    }
}

fn listened(settings: &Settings) -> impl Iterator<Item = &Url> {
    let member = &settings.member;
    member
        .listen_peer_urls
        .iter()
        .chain(&member.listen_client_urls)
        .chain(&member.listen_client_http_urls)
        .chain(&settings.monitoring.listen_metrics_urls)
}

fn check_urls(settings: &Settings) -> Result<(), Refused> {
    for url in listened(settings).filter(|url| !url.scheme().is_unix()) {
        let host = url.host();
        if host != "localhost" && host.parse::<std::net::IpAddr>().is_err() {
            return Err(Refused::BindHost(url.clone()));
        }
        if url.bind_address().is_none() {
            return Err(Refused::BindPort(url.clone()));
        }
    }
    if settings.member.listen_client_http_urls.is_empty() {
        warn!(
            "Running http and grpc server on single port. This is not recommended for production."
        );
    }
    let no_host = |urls: &[Url]| {
        urls.iter().find(|url| !url.scheme().is_unix() && url.host().is_empty()).cloned()
    };
    let peers = &settings.clustering.initial_advertise_peer_urls;
    if let Some(url) = no_host(peers) {
        return Err(Refused::AdvertisePeerHost(peers.clone(), url));
    }
    let clients = &settings.clustering.advertise_client_urls;
    match no_host(clients) {
        Some(url) => Err(Refused::AdvertiseClientHost(clients.clone(), url)),
        None => Ok(()),
    }
}

fn check_bootstrap(settings: &Settings) -> Result<(), Refused> {
    let discovery = &settings.clustering.discovery;
    let ways = [
        !settings.clustering.initial_cluster.is_empty(),
        !discovery.srv.is_empty(),
        !discovery.endpoints.is_empty(),
    ];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        return Err(Refused::ConflictingBootstrap);
    }
    if discovery.token.is_empty() != discovery.endpoints.is_empty() {
        return Err(Refused::DiscoveryHalf);
    }
    if discovery.endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return Err(Refused::DiscoveryEndpoint);
    }
    Ok(())
}

fn check_timing(values: &Values) -> Result<(), Refused> {
    let heartbeat = values.unsigned("heartbeat-interval");
    let election = values.unsigned("election-timeout");
    match (heartbeat, election) {
        (0, _) => Err(Refused::HeartbeatZero),
        (_, 0) => Err(Refused::ElectionZero),
        _ if heartbeat.saturating_mul(5) > election => {
            Err(Refused::ElectionShort { election, heartbeat })
        }
        (_, ELECTION_TIMEOUT_MAX_MS..) if election > ELECTION_TIMEOUT_MAX_MS => {
            Err(Refused::ElectionLong(election))
        }
        _ => Ok(()),
    }
}

fn check_tls(values: &Values, settings: &Settings) -> Result<(), Refused> {
    let min = tls_version(values, "tls-min-version")?;
    let max = tls_version(values, "tls-max-version")?;
    if max.is_some() && min > max {
        let text = |flag| values.text(flag).to_owned();
        let (min, max) = (text("tls-min-version"), text("tls-max-version"));
        return Err(Refused::TlsVersions { min, max });
    }
    if min == Some(TlsVersion::Tls13) && !settings.security.cipher_suites.is_empty() {
        return Err(Refused::CipherSuites);
    }
    Ok(())
}

/// What listens with TLS has a certificate; what listens without is told of one that it does not use.
fn check_certificates(settings: &Settings) -> Result<(), Refused> {
    let Security { client, peer, .. } = &settings.security;
    let has = |tls: &Tls| tls.auto || tls.cert_file.is_some() || tls.key_file.is_some();
    // A generated certificate takes the place of all that was said, as in etcd.
    let asks = |tls: &Tls| {
        tls.client_cert_auth && (tls.cert_file.is_some() || tls.key_file.is_some() || !tls.auto)
    };
    let member = &settings.member;
    for url in &member.listen_peer_urls {
        if url.scheme() == Scheme::Http && has(peer) {
            warn!(
                "peer-url" = %url,
                "scheme is HTTP while key and cert files are present; ignoring key and cert files"
            );
        }
        if url.scheme() == Scheme::Http && asks(peer) {
            warn!(
                "peer-url" = %url,
                "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client cert auth \
                 for this URL"
            );
        }
    }
    for url in member.listen_client_urls.iter().chain(&member.listen_client_http_urls) {
        if url.scheme().is_tls() && !has(client) {
            return Err(Refused::ClientCertificate(url.clone()));
        }
        if !url.scheme().is_tls() && has(client) {
            warn!(
                "client-url" = %url,
                "scheme is http or unix while key and cert files are present; ignoring key and cert \
                 files"
            );
        }
        if !url.scheme().is_tls() && asks(client) {
            warn!(
                "client-url" = %url,
                "scheme is http or unix while --client-cert-auth is enabled; ignoring client cert \
                 auth for this URL"
            );
        }
    }
    let metrics = &settings.monitoring.listen_metrics_urls;
    if metrics.iter().any(|url| url.scheme().is_tls()) && !has(client) {
        return Err(Refused::MetricsCertificate);
    }
    Ok(())
}

fn check_same_url(settings: &Settings) -> Result<(), Refused> {
    let place = |url: &Url| (url.authority().to_owned(), url.socket_path());
    let grpc: BTreeSet<_> = settings.member.listen_client_urls.iter().map(place).collect();
    let http = &settings.member.listen_client_http_urls;
    match http.iter().find(|url| grpc.contains(&place(url))) {
        Some(url) => Err(Refused::SameUrl(url.clone())),
        None => Ok(()),
    }
}
