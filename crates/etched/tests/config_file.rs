//! Settings from a file, with etcd's keys and kinds of values.

use std::time::Duration;

use etched::Settings;
use etched::config_file::{ConfigFileError, load, read};
use etched::settings::{Allowed, AutoCompaction, Refused, logging};
use etched::urls::join;

fn try_settings(text: &str) -> Result<Settings, Refused> {
    let values = read(text).expect("a file that can be read");
    Settings::new(&values, logging(&values)?)
}

fn refused(text: &str) -> String {
    read(text).expect_err("a file that is refused").to_string()
}

#[test]
fn the_keys_of_etcd_are_understood() {
    let settings = try_settings(
        "\
name: s1
data-dir: /var/lib/etched
listen-client-urls: http://127.0.0.1:2379,http://127.0.0.1:4001
listen-metrics-urls: http://127.0.0.1:2381
heartbeat-interval: 200
election-timeout: 2000
quota-backend-bytes: 8589934592
auto-compaction-mode: revision
auto-compaction-retention: \"1000\"
watch-progress-notify-interval: 5000000000
socket-options:
  reuse-port: yes
host-whitelist: a,b
cors: http://a:1
log-outputs: [stderr]
log-level: warn
client-transport-security:
  client-cert-auth: false
unsafe-no-fsync: true
initial-cluster-token: token
",
    )
    .unwrap();
    assert_eq!(settings.member.name, "s1");
    assert_eq!(
        join(&settings.member.listen_client_urls),
        "http://127.0.0.1:2379,http://127.0.0.1:4001"
    );
    assert_eq!(join(&settings.monitoring.listen_metrics_urls), "http://127.0.0.1:2381");
    assert_eq!(settings.member.heartbeat_interval, Duration::from_millis(200));
    assert_eq!(settings.member.quota_backend_bytes, Some(8 << 30));
    assert_eq!(settings.clustering.auto_compaction, AutoCompaction::Revision(1000));
    assert_eq!(settings.features.watch_progress_notify_interval, Duration::from_secs(5));
    assert!(settings.member.socket_reuse_port);
    assert!(settings.security.host_whitelist.allows("a"));
    assert_ne!(settings.security.cors, Allowed::Any);
    assert!(settings.unsafe_features.no_fsync);
    assert_eq!(settings.clustering.initial_cluster, "s1=http://localhost:2380");
    assert_eq!(
        join(&settings.clustering.advertise_client_urls),
        "http://localhost:2379",
        "unlike on the command line, advertised URLs keep their default"
    );
}

#[test]
fn json_null_and_empty_files_are_files() {
    assert_eq!(try_settings(r#"{"name": "j", "data-dir": null}"#).unwrap().member.name, "j");
    assert_eq!(try_settings("").unwrap().member.name, "default");
    assert_eq!(try_settings("# nothing\n").unwrap().member.name, "default");
}

#[test]
fn empty_texts_leave_lists_and_choices_at_their_default() {
    let settings = try_settings(
        "listen-client-urls: ''\ncors: ''\nhost-whitelist: ''\ninitial-cluster-state: ''\n",
    )
    .unwrap();
    assert_eq!(join(&settings.member.listen_client_urls), "http://localhost:2379");
    assert_eq!(settings.security.cors, Allowed::Any);
}

#[test]
fn values_of_the_wrong_kind_are_refused_with_what_would_be_right() {
    for (text, words) in [
        (
            "watch-progress-notify-interval: 10m",
            "config file: watch-progress-notify-interval takes a whole number of nanoseconds \
             (600000000000 for ten minutes), not the text \"10m\"",
        ),
        (
            "auto-compaction-retention: 5",
            "config file: auto-compaction-retention takes text (in quotes when it looks like \
             something else), not 5",
        ),
        ("pre-vote: \"yes\"", "config file: pre-vote takes true or false, not the text \"yes\""),
        ("max-wals: -1", "config file: max-wals takes a number from 0 on, not -1"),
        ("max-wals: 1.5", "config file: max-wals takes a number from 0 on, not 1.5"),
        ("max-wals: \"5\"", "config file: max-wals takes a number from 0 on, not the text \"5\""),
        (
            "log-outputs: stderr",
            "config file: log-outputs takes a list of texts, not the text \"stderr\"",
        ),
        ("socket-options: 3", "config file: socket-options takes a map, not 3"),
        (
            "socket-options: {reuse-port: 3}",
            "config file: socket-options.reuse-port takes true or false, not 3",
        ),
        (
            "max-concurrent-streams: 4294967296",
            "config file: max-concurrent-streams takes a number from 0 to 4294967295, not \
             4294967296",
        ),
        (
            "listen-client-urls: foo",
            "unexpected error setting up listen-client-urls: URL scheme must be http, https, \
             unix, or unixs: foo",
        ),
        ("feature-gates: Foo=true", "unrecognized feature gate: Foo"),
        ("initial-cluster-state: foo", "unexpected clusterState \"foo\""),
    ] {
        assert_eq!(refused(text), words, "{text}");
    }
}

#[test]
fn what_is_no_map_is_no_config_file() {
    assert!(refused("- a\n").contains("a list instead of settings"));
    assert!(refused("a: [\n").contains("is not YAML"));
    assert!(matches!(load("no/such/file"), Err(ConfigFileError::Read { .. })));
}

#[test]
fn what_is_still_to_come_is_refused_from_a_file_too() {
    let refused = try_settings("enable-distributed-tracing: true").unwrap_err();
    assert!(refused.to_string().starts_with("--enable-distributed-tracing=true is refused: "));
}

#[test]
fn no_text_makes_the_reader_panic() {
    for text in
        ["\u{0}", "&a *a", "? - a\n: b", "a: *b", "!!binary x", "%YAML 9.9\n---\n", "{", "\t"]
    {
        // Whatever comes out, it comes out.
        let _ = read(text);
    }
}
