//! Flags of the groups that are about operation: auth, logs, metrics, spans, limits, risks.

use super::{Flag, Group, Kind};

pub(super) const AUTH: &[Flag] = &[
    Flag::new(
        Group::Auth,
        "auth-token",
        Kind::Text,
        "simple",
        "Kind of token and its options: simple or jwt.",
    )
    .yaml("auth-token"),
    Flag::new(
        Group::Auth,
        "bcrypt-cost",
        Kind::Unsigned,
        "10",
        "Cost of storing a password, 4 to 31.",
    )
    .yaml("bcrypt-cost"),
    Flag::new(
        Group::Auth,
        "auth-token-ttl",
        Kind::Unsigned,
        "300",
        "Seconds a simple token lives after its last use.",
    )
    .yaml("auth-token-ttl"),
];

pub(super) const MONITORING: &[Flag] = &[
    Flag::new(
        Group::Monitoring,
        "enable-pprof",
        Kind::Bool,
        "false",
        "Serve profiles under /debug/pprof/ on the client URLs.",
    )
    .yaml("enable-pprof"),
    Flag::new(
        Group::Monitoring,
        "metrics",
        Kind::Text,
        "basic",
        "basic or extensive (with histograms of gRPC handling times).",
    )
    .yaml("metrics"),
    Flag::new(
        Group::Monitoring,
        "listen-metrics-urls",
        Kind::Urls,
        "",
        "URLs to listen on for /metrics and health alone.",
    )
    .yaml("listen-metrics-urls"),
];

pub(super) const LOGGING: &[Flag] = &[
    Flag::new(Group::Logging, "logger", Kind::Text, "zap", "Kind of log; only zap.").yaml("logger"),
    Flag::new(Group::Logging, "log-outputs", Kind::TextSet, "default", "Comma-separated places for the log: default (stderr), stderr, stdout or files.").yaml("log-outputs"),
    Flag::new(Group::Logging, "log-level", Kind::Text, "info", "Least level that is logged: debug, info, warn, error, panic or fatal.").yaml("log-level"),
    Flag::new(Group::Logging, "log-format", Kind::Text, "json", "json or console. When not given, a terminal gets console.").yaml("log-format"),
    Flag::new(Group::Logging, "enable-log-rotation", Kind::Bool, "false", "Begin a new log file when the one in log-outputs has grown.").yaml("enable-log-rotation"),
    Flag::new(Group::Logging, "log-rotation-config-json", Kind::Text, "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}", "When that happens and what is kept: maxsize (MB), maxage (days), maxbackups.").yaml("log-rotation-config-json"),
];

pub(super) const TRACING: &[Flag] = &[
    Flag::new(
        Group::Tracing,
        "enable-distributed-tracing",
        Kind::Bool,
        "false",
        "Send spans to a collector.",
    )
    .yaml("enable-distributed-tracing")
    .later("distributed tracing"),
    Flag::new(
        Group::Tracing,
        "distributed-tracing-address",
        Kind::Text,
        "localhost:4317",
        "Address of the collector.",
    )
    .yaml("distributed-tracing-address")
    .later("distributed tracing"),
    Flag::new(
        Group::Tracing,
        "distributed-tracing-service-name",
        Kind::Text,
        "etcd",
        "Name of the service in spans.",
    )
    .yaml("distributed-tracing-service-name")
    .later("distributed tracing"),
    Flag::new(
        Group::Tracing,
        "distributed-tracing-instance-id",
        Kind::Text,
        "",
        "Id of this member in spans.",
    )
    .yaml("distributed-tracing-instance-id")
    .later("distributed tracing"),
    Flag::new(
        Group::Tracing,
        "distributed-tracing-sampling-rate",
        Kind::Signed,
        "0",
        "Spans to send of each million.",
    )
    .yaml("distributed-tracing-sampling-rate")
    .later("distributed tracing"),
];

pub(super) const FEATURES: &[Flag] = &[
    Flag::new(
        Group::Features,
        "corrupt-check-time",
        Kind::Duration,
        "0s",
        "Period of the check of the store's hash, with all members, 0 for never.",
    )
    .yaml("corrupt-check-time"),
    Flag::new(
        Group::Features,
        "compact-hash-check-time",
        Kind::Duration,
        "1m0s",
        "Period of the comparison of compaction hashes.",
    )
    .yaml("compact-hash-check-time"),
    Flag::new(
        Group::Features,
        "compaction-batch-limit",
        Kind::Signed,
        "0",
        "Revisions removed in one batch of a compaction, 0 for 1000.",
    )
    .yaml("compaction-batch-limit"),
    Flag::new(
        Group::Features,
        "compaction-sleep-interval",
        Kind::Duration,
        "0s",
        "Pause between the batches of a compaction, 0 for 10ms.",
    )
    .yaml("compaction-sleep-interval"),
    Flag::new(
        Group::Features,
        "watch-progress-notify-interval",
        Kind::Duration,
        "0s",
        "Period of progress notifications to watchers, 0 for 10m.",
    )
    .yaml("watch-progress-notify-interval"),
    Flag::new(
        Group::Features,
        "downgrade-check-time",
        Kind::Duration,
        "5s",
        "Period of the check whether a downgrade is done, 0 for never.",
    )
    .yaml("downgrade-check-time"),
    Flag::new(
        Group::Features,
        "warning-apply-duration",
        Kind::Duration,
        "100ms",
        "Log a warning when applying a request takes longer.",
    )
    .yaml("warning-apply-duration"),
    Flag::new(
        Group::Features,
        "warning-unary-request-duration",
        Kind::Duration,
        "300ms",
        "Log a warning when answering a request takes longer, 0 for 300ms.",
    )
    .yaml("warning-unary-request-duration"),
    Flag::new(
        Group::Features,
        "bootstrap-defrag-threshold-megabytes",
        Kind::Unsigned,
        "0",
        "Defragment at start when that frees at least so much, 0 for never.",
    )
    .yaml("bootstrap-defrag-threshold-megabytes"),
    Flag::new(Group::Features, "max-learners", Kind::Signed, "1", "Most learners at one time.")
        .yaml("max-learners"),
    Flag::new(
        Group::Features,
        "snapshot-catchup-entries",
        Kind::Unsigned,
        "5000",
        "Log entries kept for slow followers behind a snapshot.",
    )
    .yaml("snapshot-catchup-entries"),
];

pub(super) const UNSAFE: &[Flag] = &[
    Flag::new(
        Group::Unsafe,
        "force-new-cluster",
        Kind::Bool,
        "false",
        "Make a cluster of one member from existing data.",
    )
    .yaml("force-new-cluster"),
    Flag::new(
        Group::Unsafe,
        "unsafe-no-fsync",
        Kind::Bool,
        "false",
        "Never wait for the disk. A power failure then loses acknowledged writes.",
    )
    .yaml("unsafe-no-fsync"),
];
