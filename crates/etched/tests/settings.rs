//! What values of flags come to mean as settings.

use std::path::PathBuf;
use std::time::Duration;

use etched::Settings;
use etched::bootstrap::InitialCluster;
use etched::flags;
use etched::logging::{Format, Level, Output};
use etched::settings::{Allowed, AutoCompaction, ClusterState, Refused, logging};
use etched::urls::join;
use etched::values::Values;

fn try_settings(arguments: &[&str]) -> Result<Settings, Refused> {
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let mut values = Values::default();
    flags::parse(&arguments, &mut values).expect("arguments that can be read");
    Settings::new(&values, logging(&values)?)
}

fn settings(arguments: &[&str]) -> Settings {
    try_settings(arguments).expect("settings that are accepted")
}

#[test]
fn without_flags_everything_is_as_in_etcd() {
    let Settings {
        member,
        clustering,
        security,
        monitoring,
        features,
        unsafe_features,
        logging,
        ..
    } = settings(&[]);
    assert_eq!(member.name, "default");
    assert_eq!(member.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(member.effective_wal_dir(), PathBuf::from("default.etcd/member/wal"));
    assert_eq!(join(&member.listen_client_urls), "http://localhost:2379");
    assert_eq!(join(&member.listen_peer_urls), "http://localhost:2380");
    assert_eq!(member.election_ticks(), 10);
    assert_eq!(member.quota_backend_bytes, Some(2 << 30));
    assert_eq!(member.max_request_bytes, 3 << 19);
    assert_eq!(member.max_concurrent_streams, u32::MAX);
    assert_eq!(member.grpc_keepalive_interval, Duration::from_secs(7200));
    assert_eq!(join(&clustering.advertise_client_urls), "http://localhost:2379");
    assert_eq!(clustering.initial_cluster, "default=http://localhost:2380");
    assert_eq!(clustering.initial_cluster_state, ClusterState::New);
    assert_eq!(clustering.auto_compaction, AutoCompaction::Off);
    assert_eq!((security.cors, security.host_whitelist), (Allowed::Any, Allowed::Any));
    assert!(!monitoring.extensive_metrics);
    assert_eq!(features.compaction_batch_limit, 1000);
    assert_eq!(features.compaction_sleep_interval, Duration::from_millis(10));
    assert_eq!(features.watch_progress_notify_interval, Duration::from_secs(600));
    assert_eq!(features.warning_unary_request_duration, Duration::from_millis(300));
    assert!(!unsafe_features.no_fsync);
    assert_eq!((logging.level, logging.format), (Level::Info, None));
    assert_eq!(logging.outputs, [Output::Stderr]);
}

#[test]
fn the_name_alone_moves_data_dir_and_cluster() {
    let settings = settings(&["--name=a", "--initial-advertise-peer-urls=http://h:2,http://h:1"]);
    assert_eq!(settings.member.data_dir, PathBuf::from("a.etcd"));
    assert_eq!(settings.clustering.initial_cluster, "a=http://h:1,a=http://h:2");
    assert!(InitialCluster::of(&settings).is_ok());
}

#[test]
fn zero_and_negative_values_mean_what_they_mean_to_etcd() {
    let quota = |value: &str| {
        settings(&[&format!("--quota-backend-bytes={value}")]).member.quota_backend_bytes
    };
    assert_eq!((quota("0"), quota("-1"), quota("0x10")), (Some(2 << 30), None, Some(16)));
    let progress = |value: &str| {
        let flag = format!("--watch-progress-notify-interval={value}");
        settings(&[&flag]).features.watch_progress_notify_interval
    };
    assert_eq!(progress("0"), Duration::from_secs(600));
    assert_eq!(progress("5ms"), Duration::from_millis(100));
    assert_eq!(progress("-1s"), Duration::from_millis(100));
    let batch = |value: &str| {
        settings(&[&format!("--compaction-batch-limit={value}")]).features.compaction_batch_limit
    };
    assert_eq!((batch("0"), batch("7")), (1000, 7));
    let pause = settings(&["--compaction-sleep-interval=7ms"]).features.compaction_sleep_interval;
    assert_eq!(pause, Duration::from_millis(7));
    assert_eq!(settings(&["--raft-read-timeout=1s"]).member.raft_read_timeout.as_secs(), 5);
    assert_eq!(
        settings(&["--grpc-keepalive-interval=-1s"]).member.grpc_keepalive_interval,
        Duration::ZERO
    );
}

#[test]
fn retention_is_hours_a_span_or_revisions() {
    let compaction = |mode: &str, retention: &str| {
        let mode = format!("--auto-compaction-mode={mode}");
        let retention = format!("--auto-compaction-retention={retention}");
        settings(&[&mode, &retention]).clustering.auto_compaction
    };
    let minutes = |count: u64| AutoCompaction::Periodic(Duration::from_secs(count * 60));
    assert_eq!(compaction("periodic", "1"), minutes(60));
    assert_eq!(compaction("periodic", "5m"), minutes(5));
    assert_eq!(compaction("revision", "1000"), AutoCompaction::Revision(1000));
    assert_eq!(compaction("revision", "0"), AutoCompaction::Off);
    assert_eq!(compaction("periodic", "0"), AutoCompaction::Off);
}

#[test]
fn an_empty_list_of_urls_leaves_what_is_there() {
    let settings = settings(&["--listen-client-urls=", "--advertise-client-urls=http://a:1"]);
    assert_eq!(join(&settings.member.listen_client_urls), "http://localhost:2379");
    assert_eq!(join(&settings.clustering.advertise_client_urls), "http://a:1");
}

#[test]
fn names_are_any_name_or_only_those_given() {
    let security = |arguments: &[&str]| settings(arguments).security;
    assert_eq!(security(&["--host-whitelist="]).host_whitelist, Allowed::Any);
    let only = security(&["--host-whitelist=a,b", "--cors=http://a:1"]);
    assert!(only.host_whitelist.allows("b") && !only.host_whitelist.allows("c"));
    assert!(only.cors.allows("http://a:1") && !only.cors.allows("http://b:1"));
}

#[test]
fn what_has_no_effect_is_accepted() {
    let settings = settings(&[
        "--snapshot-count=5",
        "--max-wals=0",
        "--max-snapshots=1",
        "--backend-batch-interval=1s",
        "--backend-batch-limit=5",
        "--backend-bbolt-freelist-type=array",
        "--v2-deprecation=gone",
        "--force=x",
        "-vv",
    ]);
    assert_eq!((settings.member.snapshot_count, settings.member.max_wals), (5, None));
}

#[test]
fn a_setting_at_its_default_is_never_refused() {
    let at_default: Vec<String> = flags::all()
        .filter(|flag| flag.group != flags::Group::General && !flag.default.is_empty())
        .map(|flag| format!("--{}={}", flag.name, flag.default))
        .collect();
    assert!(at_default.len() > 60);
    let arguments: Vec<&str> = at_default.iter().map(String::as_str).collect();
    assert!(try_settings(&arguments).is_ok());
}

#[test]
fn logs_go_where_they_are_sent() {
    let logging = |arguments: &[&str]| settings(arguments).logging;
    let outputs = logging(&["--log-outputs=b.log,stdout,b.log,stderr"]).outputs;
    assert_eq!(outputs, [Output::Stderr, Output::Stdout, Output::File("b.log".into())]);
    assert_eq!(logging(&["--log-outputs=stdout,/dev/null"]).outputs, []);
    assert_eq!(logging(&["--log-level=WARNING"]).level, Level::Warn);
    assert_eq!(logging(&["--log-format=console"]).format, Some(Format::Console));
}

#[test]
fn an_initial_cluster_is_checked_in_the_words_of_etcd() {
    let refused = |arguments: &[&str]| {
        InitialCluster::of(&settings(arguments)).expect_err("no cluster").to_string()
    };
    assert_eq!(
        refused(&["--initial-cluster=a=http://localhost:2380"]),
        "couldn't find local name \"default\" in the initial cluster configuration"
    );
    assert_eq!(
        refused(&["--initial-cluster="]),
        "couldn't find local name \"default\" in the initial cluster configuration"
    );
    assert_eq!(
        refused(&["--initial-cluster=default"]),
        "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: "
    );
    assert_eq!(
        refused(&["--initial-cluster=default=http://localhost:2381"]),
        "--initial-cluster has default=http://localhost:2381 but missing from \
         --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \
         \"http://localhost:2380\" != \"http://localhost:2381\")"
    );
    assert_eq!(
        refused(&["--name=x", "--initial-cluster=x=http://localhost:2380,y=http://localhost:2380"]),
        "initial cluster x=http://localhost:2380,y=http://localhost:2380 has duplicate url"
    );
    let several = "--initial-cluster=default=http://localhost:2380,b=http://b:1";
    let of = |arguments: &[&str]| InitialCluster::of(&settings(arguments));
    assert_eq!(of(&[several]).expect("two members").members.len(), 2);
    // Who joins has told the cluster of its URLs already; only that they are no one else's is looked at.
    let joins = "--initial-cluster-state=existing";
    assert!(of(&[joins, "--initial-cluster=default=http://localhost:1,b=http://b:1"]).is_ok());
    assert!(refused(&[joins, "--initial-cluster=b=http://b:1"]).starts_with("couldn't find"));
    assert!(
        refused(&[joins, "--initial-cluster=default=http://b:1,b=http://b:1"])
            .ends_with("has duplicate url")
    );
    let same = settings(&["--initial-cluster=default=http://127.0.0.1:2380"]);
    assert!(InitialCluster::of(&same).is_ok(), "localhost is 127.0.0.1");
}

#[test]
fn the_banner_says_where_to_connect_and_where_data_lies() {
    let plain = etched::banner::text(&settings(&[]));
    assert!(plain.contains("http://localhost:2379"));
    assert!(
        plain.contains(&format!(
            "{}",
            std::env::current_dir().unwrap().join("default.etcd").display()
        ))
    );
    let url = "http://127.0.0.1:23790";
    let elsewhere = settings(&[
        &format!("--listen-client-urls={url}"),
        &format!("--advertise-client-urls={url}"),
        "--unsafe-no-fsync",
    ]);
    let elsewhere = etched::banner::text(&elsewhere);
    assert!(elsewhere.contains("etcdctl --endpoints=http://127.0.0.1:23790 put"));
    assert!(elsewhere.contains("UNSAFE"));
}
