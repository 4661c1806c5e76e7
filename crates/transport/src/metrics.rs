//! What is counted, by peer; the server gives it etcd's names (`etcd_network_...`).
//!
//! A series of etcd's exists from its first sample on: a counter of zero and a gauge of None have none yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Ids that are counted apart: those of members, and those that senders only claim to have. What further ones do is
/// counted together and shown nowhere.
const IDS_MAX: usize = 256;
/// Addresses whose bad requests are counted apart; those of further ones are not counted.
const ADDRESSES_MAX: usize = 256;

/// Upper bounds in seconds of [`PeerMetrics::round_trips`]: 16 from 0.1 ms on, each twice the one before.
pub const ROUND_TRIP_BUCKETS: [f64; 16] = doubled(0.0001);
/// Upper bounds in seconds of [`Snapshots::seconds`]: 10 from 0.1 s on, each twice the one before.
pub const SNAPSHOT_BUCKETS: [f64; 10] = doubled(0.1);

const fn doubled<const N: usize>(first: f64) -> [f64; N] {
    let mut bounds = [first; N];
    let mut at = 1;
    while at < N {
        bounds[at] = bounds[at - 1] * 2.0;
        at += 1;
    }
    bounds
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    peers: Mutex<BTreeMap<u64, Arc<PeerMetrics>>>,
    others: Arc<PeerMetrics>,
    bad_requests: Mutex<BTreeMap<String, u64>>,
    /// Snapshots that were refused before their sender was known: `snapshot_receive_failures` of
    /// `UNKNOWN_SNAPSHOT_SENDER`.
    pub unknown_snapshots: Counter,
}

impl Metrics {
    /// Of one id. Link heartbeats count as received from 0.
    pub fn peer(&self, id: u64) -> Arc<PeerMetrics> {
        let mut peers = self.peers.lock();
        if peers.len() >= IDS_MAX && !peers.contains_key(&id) {
            return Arc::clone(&self.others);
        }
        Arc::clone(peers.entry(id).or_default())
    }

    /// All that were counted apart, by id.
    pub fn peers(&self) -> Vec<(u64, Arc<PeerMetrics>)> {
        self.peers.lock().iter().map(|(id, peer)| (*id, Arc::clone(peer))).collect()
    }

    /// Bad requests by the address they came from: `peer_received_failures_total`.
    pub fn bad_requests(&self) -> Vec<(String, u64)> {
        let counted = self.bad_requests.lock();
        counted.iter().map(|(address, count)| (address.clone(), *count)).collect()
    }

    pub(crate) fn count_bad_request(&self, address: &str) {
        let mut counted = self.bad_requests.lock();
        if let Some(count) = counted.get_mut(address) {
            *count += 1;
        } else if counted.len() < ADDRESSES_MAX {
            counted.insert(address.to_owned(), 1);
        }
    }
}

/// What is counted of one peer.
#[derive(Debug, Default)]
pub struct PeerMetrics {
    /// `peer_sent_bytes_total`.
    pub sent_bytes: Counter,
    /// `peer_sent_failures_total`.
    pub sent_failures: Counter,
    /// `peer_received_bytes_total`.
    pub received_bytes: Counter,
    /// `peer_received_failures_total`: messages that were dropped.
    pub received_failures: Counter,
    /// `active_peers`, with this member as `Local`.
    pub active: Gauge,
    /// `disconnected_peers_total`.
    pub disconnected: Counter,
    /// `peer_round_trip_time_seconds`, smoothed before it is observed, as in etcd.
    pub round_trips: Histogram<16>,
    /// `snapshot_send_...`.
    pub snapshot_send: Snapshots,
    /// `snapshot_receive_...`.
    pub snapshot_receive: Snapshots,
}

impl PeerMetrics {
    pub(crate) fn new_round_trip(&self, time: Duration) {
        self.round_trips.observe(time, &ROUND_TRIP_BUCKETS);
    }
}

/// What is counted of snapshots in one direction.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// `..._success`.
    pub success: Counter,
    /// `..._failures`.
    pub failures: Counter,
    /// `..._inflights_total`.
    pub inflight: Gauge,
    /// `..._total_duration_seconds`.
    pub seconds: Histogram<10>,
}

impl Snapshots {
    pub(crate) fn succeeded(&self, time: Duration) {
        self.success.add(1);
        self.seconds.observe(time, &SNAPSHOT_BUCKETS);
    }
}

/// A sum.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A state.
#[derive(Debug)]
pub struct Gauge(AtomicI64);

/// Of a gauge that was never set.
const NEVER: i64 = i64::MIN;

impl Default for Gauge {
    fn default() -> Self {
        Self(AtomicI64::new(NEVER))
    }
}

impl Gauge {
    pub(crate) fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// One more until the answer is dropped.
    pub(crate) fn one_more(&self) -> impl Drop + use<'_> {
        let _ = self.0.compare_exchange(NEVER, 0, Ordering::Relaxed, Ordering::Relaxed);
        self.0.fetch_add(1, Ordering::Relaxed);
        OneMore(self)
    }

    /// The state; None before there was one.
    pub fn value(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|value| *value != NEVER)
    }
}

struct OneMore<'a>(&'a Gauge);

impl Drop for OneMore<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many observations lie below each of `N` bounds.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    /// By the first bound that is not below the observation.
    counts: [AtomicU64; N],
    above: AtomicU64,
    nanoseconds: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Self { counts, above: AtomicU64::new(0), nanoseconds: AtomicU64::new(0) }
    }
}

/// What a histogram says at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed<const N: usize> {
    /// Observations at or below each bound.
    pub cumulative: [u64; N],
    /// All of them.
    pub count: u64,
    /// Their sum in seconds.
    pub sum: f64,
}

impl<const N: usize> Histogram<N> {
    fn observe(&self, time: Duration, bounds: &[f64; N]) {
        let seconds = time.as_secs_f64();
        let place = bounds.iter().position(|bound| seconds <= *bound);
        let count = place.map_or(&self.above, |place| &self.counts[place]);
        count.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// What was observed so far.
    pub fn observed(&self) -> Observed<N> {
        let mut sum = 0;
        let cumulative = std::array::from_fn(|place| {
            sum += self.counts[place].load(Ordering::Relaxed);
            sum
        });
        Observed {
            cumulative,
            count: sum + self.above.load(Ordering::Relaxed),
            sum: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_what_is_at_or_below_each_bound() {
        let peer = PeerMetrics::default();
        for microseconds in [50, 100, 150, 4_000_000] {
            peer.new_round_trip(Duration::from_micros(microseconds));
        }
        let observed = peer.round_trips.observed();
        assert_eq!(observed.cumulative[..3], [2, 3, 3]);
        assert_eq!((observed.cumulative[15], observed.count), (3, 4));
        assert!((observed.sum - 4.0003).abs() < 1e-9);
        assert!((ROUND_TRIP_BUCKETS[15] - 3.2768).abs() < 1e-9);
    }

    #[test]
    fn ids_and_addresses_that_are_made_up_cost_bounded_memory() {
        let metrics = Metrics::default();
        for number in 0..1000 {
            metrics.peer(number).sent_bytes.add(1);
            metrics.count_bad_request(&number.to_string());
        }
        assert_eq!((metrics.peers().len(), metrics.bad_requests().len()), (IDS_MAX, ADDRESSES_MAX));
        assert_eq!(metrics.peer(0).sent_bytes.value(), 1);
    }

    #[test]
    fn a_gauge_is_there_from_its_first_value_on() {
        let gauge = Gauge::default();
        assert_eq!(gauge.value(), None);
        let one = gauge.one_more();
        assert_eq!(gauge.value(), Some(1));
        drop(one);
        assert_eq!(gauge.value(), Some(0));
    }
}
