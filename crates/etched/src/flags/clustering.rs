//! Flags of the group "Clustering".

use super::{Flag, Group, Kind};

pub(super) const CLUSTERING: &[Flag] = &[
    Flag::new(Group::Clustering, "initial-advertise-peer-urls", Kind::Urls, "http://localhost:2380", "URLs under which other members reach this one.").yaml("initial-advertise-peer-urls"),
    Flag::new(Group::Clustering, "advertise-client-urls", Kind::Urls, "http://localhost:2379", "URLs under which clients reach this member.").yaml("advertise-client-urls"),
    Flag::new(Group::Clustering, "discovery-endpoints", Kind::TextSet, "", "Discovery: endpoints of the etcd cluster that knows the members.").yaml("discovery-config.client.endpoints").later("discovery"),
    Flag::new(Group::Clustering, "discovery-token", Kind::Text, "", "Discovery: token of the cluster to be formed.").yaml("discovery-config.token").later("discovery"),
    Flag::new(Group::Clustering, "discovery-dial-timeout", Kind::Duration, "2s", "Discovery: longest wait for a connection.").yaml("discovery-config.client.dial-timeout").later("discovery"),
    Flag::new(Group::Clustering, "discovery-request-timeout", Kind::Duration, "5s", "Discovery: longest wait for an answer.").yaml("discovery-config.client.request-timeout").later("discovery"),
    Flag::new(Group::Clustering, "discovery-keepalive-time", Kind::Duration, "2s", "Discovery: period of pings.").yaml("discovery-config.client.keepalive-time").later("discovery"),
    Flag::new(Group::Clustering, "discovery-keepalive-timeout", Kind::Duration, "6s", "Discovery: longest wait for the answer to a ping.").yaml("discovery-config.client.keepalive-timeout").later("discovery"),
    Flag::new(Group::Clustering, "discovery-insecure-transport", Kind::Bool, "true", "Discovery: connect without TLS.").yaml("discovery-config.client.secure.insecure-transport").later("discovery"),
    Flag::new(Group::Clustering, "discovery-insecure-skip-tls-verify", Kind::Bool, "false", "Discovery: take any server certificate (for tests only).").yaml("discovery-config.client.secure.insecure-skip-tls-verify").later("discovery"),
    Flag::new(Group::Clustering, "discovery-cert", Kind::Text, "", "Discovery: client certificate file.").yaml("discovery-config.client.secure.cert").later("discovery"),
    Flag::new(Group::Clustering, "discovery-key", Kind::Text, "", "Discovery: file with its key.").yaml("discovery-config.client.secure.key").later("discovery"),
    Flag::new(Group::Clustering, "discovery-cacert", Kind::Text, "", "Discovery: file with the CA certificates.").yaml("discovery-config.client.secure.cacert").later("discovery"),
    Flag::new(Group::Clustering, "discovery-user", Kind::Text, "", "Discovery: user name, or user:password.").yaml("discovery-config.client.auth.username").later("discovery"),
    Flag::new(Group::Clustering, "discovery-password", Kind::Text, "", "Discovery: password.").yaml("discovery-config.client.auth.password").later("discovery"),
    Flag::new(Group::Clustering, "discovery-srv", Kind::Text, "", "DNS domain whose SRV records name the members.").yaml("discovery-srv").later("discovery"),
    Flag::new(Group::Clustering, "discovery-srv-name", Kind::Text, "", "Suffix of the SRV service names.").yaml("discovery-srv-name").later("discovery"),
    Flag::new(Group::Clustering, "initial-cluster", Kind::Text, "default=http://localhost:2380", "The members of a new cluster: comma-separated name=peer-URL.").yaml("initial-cluster"),
    Flag::new(Group::Clustering, "initial-cluster-token", Kind::Text, "etcd-cluster", "Keeps clusters apart that were made from the same URLs.").yaml("initial-cluster-token"),
    Flag::new(Group::Clustering, "strict-reconfig-check", Kind::Bool, "true", "Refuse membership changes that would lose quorum.").yaml("strict-reconfig-check"),
    Flag::new(Group::Clustering, "pre-vote", Kind::Bool, "true", "Ask for votes only when an election can be won (raft's pre-vote).").yaml("pre-vote"),
    Flag::new(Group::Clustering, "auto-compaction-retention", Kind::Text, "0", "History to keep: hours or a duration (periodic), or a number of revisions (revision); 0 for all.").yaml("auto-compaction-retention"),
    Flag::new(Group::Clustering, "auto-compaction-mode", Kind::Text, "periodic", "How auto-compaction-retention is meant: periodic or revision.").yaml("auto-compaction-mode"),
    Flag::new(Group::Clustering, "discovery-fallback", Kind::Choice(&["exit", "proxy"]), "exit", "What to do when discovery fails; only exit."),
    Flag::new(Group::Clustering, "initial-cluster-state", Kind::Choice(&["new", "existing"]), "new", "new to make a cluster, existing to join one; ignored once there is data.").yaml("initial-cluster-state"),
    Flag::new(Group::Clustering, "v2-deprecation", Kind::V2Deprecation, "write-only", "Has no effect any more. Deprecated in etcd.").yaml("v2-deprecation"),
];
