//! What the transport counted, under etcd's names. A family is there from its first sample on, as in etcd.

use std::fmt::Write as _;

use etched_transport::metrics::{
    Histogram, Metrics, PeerMetrics, ROUND_TRIP_BUCKETS, SNAPSHOT_BUCKETS, Snapshots,
};

/// Who sent a snapshot that was refused before that was known.
const UNKNOWN: &str = "UNKNOWN_SNAPSHOT_SENDER";

/// Lines of one family.
struct Family<'t> {
    text: &'t mut String,
    name: &'static str,
    head: String,
}

impl<'t> Family<'t> {
    fn new(text: &'t mut String, name: &'static str, kind: &str, help: &str) -> Self {
        let head =
            format!("# HELP etcd_network_{name} {help}\n# TYPE etcd_network_{name} {kind}\n");
        Self { text, name, head }
    }

    fn line(&mut self, suffix: &str, labels: &str, value: impl std::fmt::Display) {
        self.text.push_str(&std::mem::take(&mut self.head));
        let _ = writeln!(self.text, "etcd_network_{}{suffix}{{{labels}}} {value}", self.name);
    }

    fn count(&mut self, labels: &str, value: u64) {
        if value > 0 {
            self.line("", labels, value);
        }
    }

    fn histogram<const N: usize>(&mut self, label: &str, of: &Histogram<N>, bounds: &[f64; N]) {
        let observed = of.observed();
        if observed.count == 0 {
            return;
        }
        for (bound, count) in bounds.iter().zip(observed.cumulative) {
            self.line("_bucket", &format!("{label},le=\"{bound}\""), count);
        }
        self.line("_bucket", &format!("{label},le=\"+Inf\""), observed.count);
        self.line("_sum", label, observed.sum);
        self.line("_count", label, observed.count);
    }
}

/// All families of other members; `own` is this one.
pub(crate) fn render(text: &mut String, own: u64, metrics: &Metrics) {
    let peers = metrics.peers();
    let between = |id: u64| format!("Local=\"{own:x}\",Remote=\"{id:x}\"");
    let (to, from) = (|id: u64| format!("To=\"{id:x}\""), |id: u64| format!("From=\"{id:x}\""));
    let help = "The current number of active peer connections.";
    let mut family = Family::new(text, "active_peers", "gauge", help);
    for (id, peer) in &peers {
        if let Some(active) = peer.active.value() {
            family.line("", &between(*id), active);
        }
    }
    let help = "The total number of disconnected peers.";
    let mut family = Family::new(text, "disconnected_peers_total", "counter", help);
    for (id, peer) in &peers {
        family.count(&between(*id), peer.disconnected.value());
    }
    type Pick = fn(&PeerMetrics) -> u64;
    let counters: [(&str, &str, bool, Pick); 3] = [
        ("peer_sent_bytes_total", "The total number of bytes sent to peers.", true, |peer| {
            peer.sent_bytes.value()
        }),
        (
            "peer_received_bytes_total",
            "The total number of bytes received from peers.",
            false,
            |peer| peer.received_bytes.value(),
        ),
        (
            "peer_sent_failures_total",
            "The total number of send failures from peers.",
            true,
            |peer| peer.sent_failures.value(),
        ),
    ];
    for (name, help, sent, pick) in counters {
        let mut family = Family::new(text, name, "counter", help);
        for (id, peer) in &peers {
            family.count(&if sent { to(*id) } else { from(*id) }, pick(peer));
        }
    }
    let help = "The total number of receive failures from peers.";
    let mut family = Family::new(text, "peer_received_failures_total", "counter", help);
    for (id, peer) in &peers {
        family.count(&from(*id), peer.received_failures.value());
    }
    for (address, count) in metrics.bad_requests() {
        family.count(&format!("From=\"{address}\""), count);
    }
    let help = "Round-Trip-Time histogram between peers";
    let mut family = Family::new(text, "peer_round_trip_time_seconds", "histogram", help);
    for (id, peer) in &peers {
        family.histogram(&to(*id), &peer.round_trips, &ROUND_TRIP_BUCKETS);
    }
    let sends: Vec<_> = peers.iter().map(|(id, peer)| (to(*id), &peer.snapshot_send)).collect();
    render_snapshots(text, &SENT, &sends, None);
    let receives: Vec<_> =
        peers.iter().map(|(id, peer)| (from(*id), &peer.snapshot_receive)).collect();
    let unknown = (format!("From=\"{UNKNOWN}\""), metrics.unknown_snapshots.value());
    render_snapshots(text, &RECEIVED, &receives, Some(&unknown));
}

/// Names and helps: success, failures, in flight, seconds.
type Names = [(&'static str, &'static str); 4];

const SENT: Names = [
    ("snapshot_send_success", "Total number of successful snapshot sends"),
    ("snapshot_send_failures", "Total number of snapshot send failures"),
    ("snapshot_send_inflights_total", "Total number of inflight snapshot sends"),
    ("snapshot_send_total_duration_seconds", "Total latency distributions of v3 snapshot sends"),
];

const RECEIVED: Names = [
    ("snapshot_receive_success", "Total number of successful snapshot receives"),
    ("snapshot_receive_failures", "Total number of snapshot receive failures"),
    ("snapshot_receive_inflights_total", "Total number of inflight snapshot receives"),
    (
        "snapshot_receive_total_duration_seconds",
        "Total latency distributions of v3 snapshot receives",
    ),
];

fn render_snapshots(
    text: &mut String,
    names: &Names,
    of: &[(String, &Snapshots)],
    unknown: Option<&(String, u64)>,
) {
    let [success, failures, inflight, seconds] = names;
    let mut family = Family::new(text, success.0, "counter", success.1);
    for (label, snapshots) in of {
        family.count(label, snapshots.success.value());
    }
    let mut family = Family::new(text, failures.0, "counter", failures.1);
    for (label, snapshots) in of {
        family.count(label, snapshots.failures.value());
    }
    if let Some((label, count)) = unknown {
        family.count(label, *count);
    }
    let mut family = Family::new(text, inflight.0, "gauge", inflight.1);
    for (label, snapshots) in of {
        if let Some(count) = snapshots.inflight.value() {
            family.line("", label, count);
        }
    }
    let mut family = Family::new(text, seconds.0, "histogram", seconds.1);
    for (label, snapshots) in of {
        family.histogram(label, &snapshots.seconds, &SNAPSHOT_BUCKETS);
    }
}
