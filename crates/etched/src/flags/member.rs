//! Flags of the groups "General" and "Member".

use super::{Flag, Group, Kind};

pub(super) const GENERAL: &[Flag] = &[
    Flag::new(
        Group::General,
        "config-file",
        Kind::Text,
        "",
        "YAML or JSON file with all settings; every other flag and ETCD_ variable is then ignored. Durations in it are integers, in nanoseconds.",
    ),
    Flag::new(Group::General, "version", Kind::Bool, "false", "Print the version and exit."),
];

pub(super) const MEMBER: &[Flag] = &[
    Flag::new(Group::Member, "name", Kind::Text, "default", "Name of this member.").yaml("name"),
    Flag::new(Group::Member, "data-dir", Kind::Text, "", "Folder for everything that is kept.").yaml("data-dir"),
    Flag::new(Group::Member, "wal-dir", Kind::Text, "", "Folder for the write-ahead log, when it is not to lie in the data dir.").yaml("wal-dir"),
    Flag::new(Group::Member, "snapshot-count", Kind::Unsigned, "10000", "Applied entries between two raft snapshots.").yaml("snapshot-count").no_effect("checkpoints go by the size of the write-ahead log, not by entries"),
    Flag::new(Group::Member, "heartbeat-interval", Kind::Unsigned, "100", "Period of heartbeats, in milliseconds.").yaml("heartbeat-interval"),
    Flag::new(Group::Member, "election-timeout", Kind::Unsigned, "1000", "Time without a leader after which an election starts, in milliseconds.").yaml("election-timeout"),
    Flag::new(Group::Member, "initial-election-tick-advance", Kind::Bool, "true", "Skip most of the first election timeout.").yaml("initial-election-tick-advance"),
    Flag::new(Group::Member, "listen-peer-urls", Kind::Urls, "http://localhost:2380", "URLs to listen on for other members.").yaml("listen-peer-urls"),
    Flag::new(Group::Member, "listen-client-urls", Kind::Urls, "http://localhost:2379", "URLs to listen on for clients: gRPC, and HTTP unless listen-client-http-urls is set.").yaml("listen-client-urls"),
    Flag::new(Group::Member, "listen-client-http-urls", Kind::Urls, "", "URLs to listen on for HTTP alone; the other client URLs then serve gRPC alone.").yaml("listen-client-http-urls"),
    Flag::new(Group::Member, "max-snapshots", Kind::Unsigned, "5", "Snapshot files to keep, 0 for all. Deprecated in etcd 3.6.").yaml("max-snapshots").no_effect("there are no snapshot files to keep"),
    Flag::new(Group::Member, "max-wals", Kind::Unsigned, "5", "Segments of the write-ahead log to keep, 0 for all.").yaml("max-wals").no_effect("segments of the write-ahead log go as soon as a checkpoint covers them"),
    Flag::new(Group::Member, "memory-mlock", Kind::Bool, "false", "Keep the memory of the process in RAM.").yaml("memory-mlock"),
    Flag::new(Group::Member, "quota-backend-bytes", Kind::Signed, "0", "Size of the store above which it only takes reads and deletes; 0 for 2 GiB, negative for no limit.").yaml("quota-backend-bytes"),
    Flag::new(Group::Member, "backend-bbolt-freelist-type", Kind::Text, "", "Kind of free list in the bbolt file (array or map).").yaml("backend-bbolt-freelist-type").no_effect("the store is no bbolt file"),
    Flag::new(Group::Member, "backend-batch-interval", Kind::Duration, "0s", "Longest wait before the bbolt transaction is committed.").yaml("backend-batch-interval").no_effect("the store is no bbolt file"),
    Flag::new(Group::Member, "backend-batch-limit", Kind::Signed, "0", "Operations after which the bbolt transaction is committed.").yaml("backend-batch-limit").no_effect("the store is no bbolt file"),
    Flag::new(Group::Member, "max-txn-ops", Kind::Unsigned, "128", "Most operations in one branch of a transaction.").yaml("max-txn-ops"),
    Flag::new(Group::Member, "max-request-bytes", Kind::Unsigned, "1572864", "Largest request, in bytes.").yaml("max-request-bytes"),
    Flag::new(Group::Member, "max-concurrent-streams", Kind::Unsigned32, "4294967295", "Most streams at one time on one client connection.").yaml("max-concurrent-streams"),
    Flag::new(Group::Member, "grpc-keepalive-min-time", Kind::Duration, "5s", "Clients that ping more often than this are disconnected.").yaml("grpc-keepalive-min-time").no_effect("clients may ping as often as they like: nobody is disconnected for it"),
    Flag::new(Group::Member, "grpc-keepalive-interval", Kind::Duration, "2h0m0s", "Period of pings from the server, 0 for none.").yaml("grpc-keepalive-interval"),
    Flag::new(Group::Member, "grpc-keepalive-timeout", Kind::Duration, "20s", "How long to wait for the answer to a ping, 0 for no pings.").yaml("grpc-keepalive-timeout"),
    Flag::new(Group::Member, "socket-reuse-port", Kind::Bool, "false", "Set SO_REUSEPORT on listeners.").yaml("socket-options.reuse-port"),
    Flag::new(Group::Member, "socket-reuse-address", Kind::Bool, "false", "Set SO_REUSEADDR on listeners.").yaml("socket-options.reuse-address"),
    Flag::new(Group::Member, "enable-grpc-gateway", Kind::Bool, "true", "Serve JSON under /v3/.").yaml("enable-grpc-gateway"),
    Flag::new(Group::Member, "raft-read-timeout", Kind::Duration, "5s", "Read timeout of connections between members."),
    Flag::new(Group::Member, "raft-write-timeout", Kind::Duration, "5s", "Write timeout of connections between members."),
    Flag::new(Group::Member, "feature-gates", Kind::Gates, "", "Comma-separated Gate=true or Gate=false. Gates:").yaml("feature-gates"),
];
