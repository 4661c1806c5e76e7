//! `/metrics` in the Prometheus text format 0.0.4, with etcd's names, labels and buckets.
//!
//! Counters and histograms are bumped where things happen; what is a state (revisions, sizes, leader)
//! is read when somebody scrapes.

mod make;
mod methods;
pub(crate) mod peers;

use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use etched_proto::etcdserverpb::AlarmType;
use parking_lot::Mutex;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, Registry,
    TextEncoder,
};
use tonic::Code;

use crate::config::Feature;
use crate::grpc::{Kind, Method};
use crate::request::Field;
use make::{counter, counters, gauge, gauges, histogram, histograms, label_gauge};
use methods::Methods;

/// Content type of the text, as etcd gives it.
pub(crate) const CONTENT_TYPE: &str =
    "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Operations of apply, as its histogram's label names them; see `apply::operation`.
/// Others are looked up by their names.
pub(crate) const OPERATIONS: [&str; 11] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseCheckpoint",
    "Alarm",
    "ClusterVersionSet",
    "ClusterMemberAttrSet",
    "DowngradeInfoSet",
];
const SUCCESS: [&str; 2] = ["false", "true"];

/// What request times are taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timed {
    Range,
    ReadonlyTxn,
    /// From its proposal to its answer.
    Proposal(Field),
}

impl Timed {
    /// How many there are.
    const COUNT: usize = 2 + Field::NAMES.len();

    fn place(self) -> usize {
        match self {
            Self::Range => 0,
            Self::ReadonlyTxn => 1,
            Self::Proposal(field) => 2 + field.place(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Range => "Range",
            Self::ReadonlyTxn => "ReadonlyTxn",
            Self::Proposal(field) => Field::NAMES[field.place()],
        }
    }
}

/// What metrics say of the member for all its time.
pub(crate) struct About<'a> {
    pub(crate) member_id: u64,
    pub(crate) server_version: &'a str,
    pub(crate) features: &'a [Feature],
    /// `--metrics=extensive`.
    pub(crate) extensive: bool,
}

/// What was applied.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation {
    /// The one at this place of [`OPERATIONS`].
    Usual(usize),
    /// One that is rare.
    Named(&'static str),
}

/// Client versions whose counters are kept at hand: those of clients that name none, and of etcd's own.
const USUAL_VERSIONS: [&str; 2] = ["unknown", crate::API_VERSION];
/// Client versions that are counted by name; more than there will ever be releases in use at once.
const CLIENT_VERSIONS_MAX: usize = 200;
/// Longest client version that is counted by name.
const CLIENT_VERSION_BYTES_MAX: usize = 64;

/// Everything that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    methods: Methods,
    /// Handling times are kept: `--metrics=extensive`.
    extensive: bool,
    /// Bytes of gRPC messages from clients.
    pub(crate) received_bytes: IntCounter,
    /// Bytes of gRPC messages to clients.
    pub(crate) sent_bytes: IntCounter,
    /// Requests by kind and the client's version.
    client_requests: IntCounterVec,
    /// Some of them, unary ones before streams: looking a label up costs more than counting.
    usual_requests: [[OnceLock<IntCounter>; USUAL_VERSIONS.len()]; 2],
    /// Versions that have a label value of their own.
    client_versions: Mutex<HashSet<String>>,
    /// Proposals that ended without an answer.
    pub(crate) proposals_failed: IntCounter,
    /// Leaders seen.
    pub(crate) leader_changes: IntCounter,
    /// Time of one write to the write-ahead log, and of one sync.
    pub(crate) wal_write: Histogram,
    pub(crate) wal_fsync: Histogram,
    /// Time of one commit of the store.
    pub(crate) backend_commit: Histogram,
    /// Time of making and sending a snapshot.
    pub(crate) backend_snapshot: Histogram,
    /// Time of a defragmentation.
    pub(crate) defrag: Histogram,
    /// 1 while a defragmentation runs.
    pub(crate) defrag_inflight: Gauge,
    /// Time of applying an entry, by operation.
    apply: HistogramVec,
    /// Some of them, failures before successes: looking a label up costs more than counting.
    usual_apply: [[Histogram; 2]; OPERATIONS.len()],
    /// Applies slower than `--warning-apply-duration`.
    pub(crate) slow_apply: IntCounter,
    /// Times of requests by kind; failures before successes. A series begins with its first request.
    requests: [[OnceLock<Histogram>; 2]; Timed::COUNT],
    request_family: HistogramVec,
    /// Time of each pause of a compaction for requests, and of a whole compaction, in milliseconds.
    pub(crate) compaction_pause: Histogram,
    pub(crate) compaction_total: Histogram,
    /// Time that apply stands still for a compaction of the index, in milliseconds.
    pub(crate) index_pause: Histogram,
    /// Times of preparing answers of watches.
    pub(crate) watch_control: Histogram,
    pub(crate) watch_progress: Histogram,
    pub(crate) watch_events: Histogram,
    pub(crate) watch_per_event: Histogram,
    /// Streams that ended by an error of the connection.
    stream_failures: IntCounterVec,
    /// Reads that could not be made linearizable.
    pub(crate) read_indexes_failed: IntCounter,
    /// Scrapes: under way, and done with this one's status.
    scrapes_in_flight: Gauge,
    scrapes: IntCounterVec,
    /// Time of a range; failures before successes.
    pub(crate) range: [Histogram; 2],
    /// Time of HashKV.
    pub(crate) hash_rev: Histogram,
    /// Time of Hash.
    pub(crate) hash: Histogram,
    /// Puts, deletes, ranges, transactions.
    pub(crate) mvcc_put: IntCounter,
    pub(crate) mvcc_delete: IntCounter,
    pub(crate) mvcc_range: IntCounter,
    pub(crate) mvcc_txn: IntCounter,
    /// Revisions removed by compaction.
    pub(crate) compaction_keys: IntCounter,
    /// Leases, as counted by apply.
    pub(crate) lease_granted: IntCounter,
    pub(crate) lease_revoked: IntCounter,
    pub(crate) lease_renewed: IntCounter,
    pub(crate) lease_expired: IntCounter,
    pub(crate) lease_ttl: Histogram,
    /// `/health` answers.
    pub(crate) health_success: IntCounter,
    pub(crate) health_failures: IntCounter,
    /// Results and runs of the single checks of `/livez` and `/readyz`.
    pub(crate) healthcheck: GaugeVec,
    pub(crate) healthchecks: IntCounterVec,
    /// Alarms raised (+1) and cleared (-1).
    pub(crate) alarms: GaugeVec,
    /// 1 for the cluster's version, 0 for those it had.
    cluster_version: GaugeVec,
    states: States,
}

macro_rules! states {
    ($($field:ident = $name:literal, $help:literal;)*) => {
        /// Gauges that are set when somebody scrapes.
        struct States { $($field: Gauge),* }
        /// Their values.
        #[derive(Debug, Default, Clone)]
        pub(crate) struct StateValues { $(pub(crate) $field: f64),* }

        impl States {
            fn new(registry: &Registry) -> Self {
                Self { $($field: gauge(registry, $name, $help)),* }
            }

            fn set(&self, values: &StateValues) {
                $(self.$field.set(values.$field);)*
            }
        }
    };
}

states! {
    has_leader = "etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.";
    is_leader = "etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.";
    is_learner = "etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.";
    committed = "etcd_server_proposals_committed_total", "Index of the last committed proposal.";
    applied = "etcd_server_proposals_applied_total", "Index of the last applied proposal.";
    pending = "etcd_server_proposals_pending", "Proposals that wait for their answer.";
    quota = "etcd_server_quota_backend_bytes", "Quota in force, in bytes.";
    db_size = "etcd_mvcc_db_total_size_in_bytes", "Size of the store's file in bytes.";
    db_in_use = "etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of the store's file that hold data.";
    open_reads = "etcd_mvcc_db_open_read_transactions", "Readers that pin a revision.";
    keys = "etcd_debugging_mvcc_keys_total", "Keys in the index.";
    auth_revision = "etcd_debugging_auth_revision", "The current revision of auth store.";
    revision = "etcd_debugging_mvcc_current_revision", "Current revision of the store.";
    compact_revision = "etcd_debugging_mvcc_compact_revision", "Last compacted revision.";
    compaction_last = "etcd_debugging_mvcc_db_compaction_last", "Unix time of the last compaction.";
    put_bytes = "etcd_debugging_mvcc_total_put_size_in_bytes", "Bytes of keys and values put.";
    watch_streams = "etcd_debugging_mvcc_watch_stream_total", "Open watch streams.";
    watchers = "etcd_debugging_mvcc_watcher_total", "Open watchers.";
    slow_watchers = "etcd_debugging_mvcc_slow_watcher_total", "Watchers that are not in step.";
    pending_events = "etcd_debugging_mvcc_pending_events_total", "Events that wait in streams.";
    wal_bytes = "etcd_disk_wal_write_bytes_total", "Bytes written to the write-ahead log.";
    resident = "process_resident_memory_bytes", "Resident memory size in bytes.";
    virtual_memory = "process_virtual_memory_bytes", "Virtual memory size in bytes.";
    virtual_memory_max = "process_virtual_memory_max_bytes", "Maximum amount of virtual memory available in bytes.";
    open_fds = "process_open_fds", "Number of open file descriptors.";
    max_fds = "process_max_fds", "Maximum number of open file descriptors.";
    fd_used = "os_fd_used", "The number of used file descriptors.";
    fd_limit = "os_fd_limit", "The file descriptor limit.";
    start_time = "process_start_time_seconds", "Start time of the process since unix epoch in seconds.";
}

/// Counters whose totals other rooms keep.
#[derive(Debug, Default, Clone)]
pub(crate) struct Totals {
    /// Events put into watch streams.
    pub(crate) events: u64,
    /// CPU seconds of the process.
    pub(crate) cpu_seconds: f64,
    /// Bytes of all of the process's network namespace, as etcd's library gives them.
    pub(crate) network_received: u64,
    pub(crate) network_sent: u64,
}

impl Metrics {
    /// All metrics at 0.
    pub(crate) fn new(about: &About<'_>) -> Self {
        let r = &Registry::new();
        describe(r, about);
        let scrapes = counters(
            r,
            "promhttp_metric_handler_requests_total",
            "Total number of scrapes by HTTP status code.",
            &["code"],
        );
        for code in ["200", "500", "503"] {
            scrapes.with_label_values(&[code]);
        }
        let watch = |name: &str, help: &str| {
            let name = format!("etcd_debugging_server_watch_send_loop_{name}_seconds");
            histogram(r, &name, help, 0.001, 14)
        };
        let apply = histograms(
            r,
            "etcd_server_apply_duration_seconds",
            "The latency distributions of v2 apply called by backend.",
            &["version", "op", "success"],
            0.0001,
            20,
        );
        let range = histograms(
            r,
            "etcd_server_range_duration_seconds",
            "The latency distributions of txn.Range",
            &["success"],
            0.0001,
            20,
        );
        Self {
            client_versions: Mutex::default(),
            methods: Methods::new(),
            extensive: about.extensive,
            received_bytes: counter(
                r,
                "etcd_network_client_grpc_received_bytes_total",
                "The total number of bytes received from grpc clients.",
            ),
            sent_bytes: counter(
                r,
                "etcd_network_client_grpc_sent_bytes_total",
                "The total number of bytes sent to grpc clients.",
            ),
            requests: Default::default(),
            request_family: histograms(
                r,
                "etcd_server_request_duration_seconds",
                "Response latency distribution in seconds for each type.",
                &["success", "type"],
                0.001,
                14,
            ),
            compaction_pause: histogram(
                r,
                "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
                "Bucketed histogram of db compaction pause duration.",
                1.0,
                13,
            ),
            compaction_total: histogram(
                r,
                "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
                "Bucketed histogram of db compaction total duration.",
                100.0,
                14,
            ),
            index_pause: histogram(
                r,
                "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
                "Bucketed histogram of index compaction pause duration.",
                0.5,
                14,
            ),
            watch_control: watch(
                "control_stream_duration",
                "The total duration in seconds of running through the send loop control stream response.",
            ),
            watch_progress: watch(
                "progress_duration",
                "The total duration in seconds of running through the progress loop control stream response.",
            ),
            watch_events: watch(
                "watch_stream_duration",
                "The total duration in seconds of running through the send loop watch stream response all events.",
            ),
            watch_per_event: watch(
                "watch_stream_duration_per_event",
                "The average duration in seconds of running through the send loop watch stream response, per event.",
            ),
            stream_failures: counters(
                r,
                "etcd_network_server_stream_failures_total",
                "The total number of stream failures from the local server.",
                &["Type", "API"],
            ),
            read_indexes_failed: counter(
                r,
                "etcd_server_read_indexes_failed_total",
                "The total number of failed read indexes seen.",
            ),
            scrapes_in_flight: gauge(
                r,
                "promhttp_metric_handler_requests_in_flight",
                "Current number of scrapes being served.",
            ),
            scrapes,
            usual_requests: Default::default(),
            client_requests: counters(
                r,
                "etcd_server_client_requests_total",
                "The total number of client requests per client version.",
                &["type", "client_api_version"],
            ),
            proposals_failed: counter(
                r,
                "etcd_server_proposals_failed_total",
                "The total number of failed proposals seen.",
            ),
            leader_changes: counter(
                r,
                "etcd_server_leader_changes_seen_total",
                "The number of leader changes seen.",
            ),
            wal_write: histogram(
                r,
                "etcd_disk_wal_write_duration_seconds",
                "The latency distributions of write called by WAL.",
                0.001,
                14,
            ),
            wal_fsync: histogram(
                r,
                "etcd_disk_wal_fsync_duration_seconds",
                "The latency distributions of fsync called by WAL.",
                0.001,
                14,
            ),
            backend_commit: histogram(
                r,
                "etcd_disk_backend_commit_duration_seconds",
                "The latency distributions of commit called by backend.",
                0.001,
                14,
            ),
            backend_snapshot: histogram(
                r,
                "etcd_disk_backend_snapshot_duration_seconds",
                "The latency distribution of backend snapshots.",
                0.01,
                17,
            ),
            defrag: histogram(
                r,
                "etcd_disk_backend_defrag_duration_seconds",
                "The latency distribution of backend defragmentation.",
                0.1,
                13,
            ),
            defrag_inflight: gauge(
                r,
                "etcd_disk_defrag_inflight",
                "Whether or not defrag is active on the member. 1 means active, 0 means not.",
            ),
            usual_apply: OPERATIONS.map(|operation| {
                SUCCESS.map(|success| apply.with_label_values(&["v3", operation, success]))
            }),
            apply,
            slow_apply: counter(
                r,
                "etcd_server_slow_apply_total",
                "The total number of slow apply requests (likely overloaded from slow disk).",
            ),
            range: SUCCESS.map(|success| range.with_label_values(&[success])),
            hash_rev: histogram(
                r,
                "etcd_mvcc_hash_rev_duration_seconds",
                "The latency distribution of storage hash by revision operation.",
                0.01,
                15,
            ),
            hash: histogram(
                r,
                "etcd_mvcc_hash_duration_seconds",
                "The latency distribution of storage hash operation.",
                0.01,
                15,
            ),
            mvcc_put: counter(
                r,
                "etcd_mvcc_put_total",
                "Total number of puts seen by this member.",
            ),
            mvcc_delete: counter(
                r,
                "etcd_mvcc_delete_total",
                "Total number of deletes seen by this member.",
            ),
            mvcc_range: counter(
                r,
                "etcd_mvcc_range_total",
                "Total number of ranges seen by this member.",
            ),
            mvcc_txn: counter(
                r,
                "etcd_mvcc_txn_total",
                "Total number of txns seen by this member.",
            ),
            compaction_keys: counter(
                r,
                "etcd_debugging_mvcc_db_compaction_keys_total",
                "Total number of db keys compacted.",
            ),
            lease_granted: counter(
                r,
                "etcd_debugging_lease_granted_total",
                "The total number of granted leases.",
            ),
            lease_revoked: counter(
                r,
                "etcd_debugging_lease_revoked_total",
                "The total number of revoked leases.",
            ),
            lease_renewed: counter(
                r,
                "etcd_debugging_lease_renewed_total",
                "The number of renewed leases seen by the leader.",
            ),
            lease_expired: counter(
                r,
                "etcd_debugging_server_lease_expired_total",
                "The total number of expired leases.",
            ),
            lease_ttl: histogram(
                r,
                "etcd_debugging_lease_ttl_total",
                "Bucketed histogram of lease TTLs.",
                1.0,
                24,
            ),
            health_success: counter(
                r,
                "etcd_server_health_success",
                "The total number of successful health checks",
            ),
            health_failures: counter(
                r,
                "etcd_server_health_failures",
                "The total number of failed health checks",
            ),
            healthcheck: gauges(
                r,
                "etcd_server_healthcheck",
                "The result of each kind of healthcheck.",
                &["type", "name"],
            ),
            healthchecks: counters(
                r,
                "etcd_server_healthchecks_total",
                "The total number of each kind of healthcheck.",
                &["type", "name", "status"],
            ),
            alarms: gauges(
                r,
                "etcd_debugging_server_alarms",
                "Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for 'alarm_type' label with type of this alarm",
                &["server_id", "alarm_type"],
            ),
            cluster_version: gauges(
                r,
                "etcd_cluster_version",
                "Which version is running. 1 for 'cluster_version' label with current cluster version",
                &["cluster_version"],
            ),
            states: States::new(r),
            registry: r.clone(),
        }
    }

    /// A call of `method` begins.
    pub(crate) fn started(&self, method: Method) {
        self.methods.started(method);
    }

    /// A call of `method` comes from a client of `version`; what clients can choose must not grow without
    /// end.
    pub(crate) fn client_request(&self, method: Method, version: &str) {
        let kind = usize::from(method.kind() != Kind::Unary);
        match USUAL_VERSIONS.iter().position(|usual| *usual == version) {
            Some(place) => self.usual_requests[kind][place]
                .get_or_init(|| self.requests_of(kind, version))
                .inc(),
            None => self.requests_of(kind, self.bounded(version)).inc(),
        }
    }

    fn requests_of(&self, kind: usize, version: &str) -> IntCounter {
        self.client_requests.with_label_values(&[["unary", "stream"][kind], version])
    }

    /// The label value for a version: itself while there are few.
    fn bounded<'a>(&self, version: &'a str) -> &'a str {
        let mut versions = self.client_versions.lock();
        let known = versions.contains(version)
            || (version.len() <= CLIENT_VERSION_BYTES_MAX
                && versions.len() < CLIENT_VERSIONS_MAX
                && versions.insert(version.to_owned()));
        if known { version } else { "other" }
    }

    /// A moment from which a call's time is taken, if such times are kept.
    pub(crate) fn stopwatch(&self) -> Option<Instant> {
        self.extensive.then(Instant::now)
    }

    /// A call of `method` ended.
    pub(crate) fn handled(&self, method: Method, code: Code, began: Option<Instant>) {
        self.methods.handled(method, code, began.map(|began| began.elapsed()));
    }

    /// A request was answered, or a proposal of this member was.
    pub(crate) fn requested(&self, what: Timed, success: bool, took: Duration) {
        let success = usize::from(success);
        let name = what.name();
        self.requests[what.place()][success]
            .get_or_init(|| self.request_family.with_label_values(&[SUCCESS[success], name]))
            .observe(took.as_secs_f64());
    }

    /// A message of `bytes` came in.
    pub(crate) fn received(&self, method: Method, bytes: usize) {
        self.methods.received(method);
        self.received_bytes.inc_by(bytes as u64);
    }

    /// `messages` of `bytes` in total went out.
    pub(crate) fn sent(&self, method: Method, messages: u64, bytes: usize) {
        self.methods.sent(method, messages);
        self.sent_bytes.inc_by(bytes as u64);
    }

    /// A stream of `api` ended because the client could not be heard (`receive`) or reached (`send`).
    pub(crate) fn stream_failed(&self, kind: &str, api: &str) {
        self.stream_failures.with_label_values(&[kind, api]).inc();
    }

    /// An entry was applied.
    pub(crate) fn applied(&self, operation: Operation, success: bool, took: Duration) {
        let (success, took) = (usize::from(success), took.as_secs_f64());
        match operation {
            Operation::Usual(place) => self.usual_apply[place][success].observe(took),
            Operation::Named(name) => {
                self.apply.with_label_values(&["v3", name, SUCCESS[success]]).observe(took);
            }
        }
    }

    /// An alarm was raised (+1) or cleared (-1).
    pub(crate) fn count_alarm(&self, member_id: u64, kind: i32, change: f64) {
        let kind = AlarmType::try_from(kind).map_or("UNKNOWN", |kind| kind.as_str_name());
        self.alarms.with_label_values(&[&format!("{member_id:x}"), kind]).add(change);
    }

    /// The cluster's version is `now`, major and minor.
    pub(crate) fn cluster_version(&self, before: Option<&str>, now: &str) {
        if let Some(before) = before {
            self.cluster_version.with_label_values(&[before]).set(0.0);
        }
        self.cluster_version.with_label_values(&[now]).set(1.0);
    }

    /// The whole text.
    pub(crate) fn render(&self, values: &StateValues, totals: &Totals) -> Vec<u8> {
        self.states.set(values);
        self.scrapes_in_flight.inc();
        let mut out = Vec::with_capacity(64 << 10);
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut out)
            .expect("a vector takes all, and the families are well formed");
        let mut text = String::new();
        self.methods.render(&mut text, self.extensive);
        let line = |text: &mut String, name: &str, help: &str, kind: &str, value: String| {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{value}\n"));
        };
        line(
            &mut text,
            "etcd_debugging_mvcc_events_total",
            "Total number of events sent by this member.",
            "counter",
            format!("etcd_debugging_mvcc_events_total {}", totals.events),
        );
        for (name, help, value) in [
            ("receive", "received", totals.network_received),
            ("transmit", "sent", totals.network_sent),
        ] {
            let name = format!("process_network_{name}_bytes_total");
            let help = format!("Number of bytes {help} by the process over the network.");
            line(&mut text, &name, &help, "counter", format!("{name} {value}"));
        }
        line(
            &mut text,
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            "counter",
            format!("process_cpu_seconds_total {}", totals.cpu_seconds),
        );
        out.extend_from_slice(text.as_bytes());
        self.scrapes_in_flight.dec();
        self.scrapes.with_label_values(&["200"]).inc();
        out
    }
}

/// What stays as it is: who this is, and what happens only between members.
fn describe(r: &Registry, about: &About<'_>) {
    let id = format!("{:x}", about.member_id);
    label_gauge(
        r,
        "etcd_server_id",
        "Server or member ID in hexadecimal format.",
        "server_id",
        &id,
    );
    label_gauge(
        r,
        "etcd_server_version",
        "Which version is running. 1 for 'server_version' label with current version.",
        "server_version",
        about.server_version,
    );
    let peers = gauges(
        r,
        "etcd_network_known_peers",
        "The current number of known peers.",
        &["Local", "Remote"],
    );
    peers.with_label_values(&[&id, &id]).set(1.0);
    let features = gauges(
        r,
        "etcd_server_feature_enabled",
        "Whether or not a feature is enabled. 1 is enabled, 0 is not.",
        &["name", "stage"],
    );
    for feature in about.features {
        let stage = if feature.beta { "BETA" } else { "ALPHA" };
        features.with_label_values(&[feature.name, stage]).set(f64::from(feature.enabled));
    }
    for (name, help) in [
        (
            "etcd_server_heartbeat_send_failures_total",
            "The total number of leader heartbeat send failures (likely overloaded from slow disk).",
        ),
        (
            "etcd_server_learner_promote_successes",
            "The total number of successful learner promotions while this member is leader.",
        ),
        (
            "etcd_server_slow_read_indexes_total",
            "The total number of pending read indexes not in sync with leader's or timed out read index requests.",
        ),
    ] {
        counter(r, name, help);
    }
    gauge(
        r,
        "etcd_server_snapshot_apply_in_progress_total",
        "1 if the server is applying the incoming snapshot. 0 if none.",
    );
}
