//! Metrics by name: made once, registered at once.

use prometheus::core::{AtomicF64, GenericGauge};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts,
    Registry, exponential_buckets,
};

const NAMED_ONCE: &str = "every metric is registered once, under a valid name";

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> GenericGauge<AtomicF64> {
    let metric = Gauge::new(name, help).expect(NAMED_ONCE);
    registry.register(Box::new(metric.clone())).expect(NAMED_ONCE);
    metric
}

pub(super) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    let metric = GaugeVec::new(Opts::new(name, help), labels).expect(NAMED_ONCE);
    registry.register(Box::new(metric.clone())).expect(NAMED_ONCE);
    metric
}

pub(super) fn label_gauge(registry: &Registry, name: &str, help: &str, label: &str, value: &str) {
    gauges(registry, name, help, &[label]).with_label_values(&[value]).set(1.0);
}

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let metric = IntCounter::new(name, help).expect(NAMED_ONCE);
    registry.register(Box::new(metric.clone())).expect(NAMED_ONCE);
    metric
}

pub(super) fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> IntCounterVec {
    let metric = IntCounterVec::new(Opts::new(name, help), labels).expect(NAMED_ONCE);
    registry.register(Box::new(metric.clone())).expect(NAMED_ONCE);
    metric
}

fn buckets(name: &str, help: &str, first: f64, count: usize) -> HistogramOpts {
    let buckets = exponential_buckets(first, 2.0, count).expect("positive start and count");
    HistogramOpts::new(name, help).buckets(buckets)
}

pub(super) fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    first: f64,
    count: usize,
) -> Histogram {
    let metric = Histogram::with_opts(buckets(name, help, first, count)).expect(NAMED_ONCE);
    registry.register(Box::new(metric.clone())).expect(NAMED_ONCE);
    metric
}

pub(super) fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    first: f64,
    count: usize,
) -> HistogramVec {
    let metric = HistogramVec::new(buckets(name, help, first, count), labels).expect(NAMED_ONCE);
    registry.register(Box::new(metric.clone())).expect(NAMED_ONCE);
    metric
}
