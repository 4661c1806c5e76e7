//! What is counted of each gRPC method: plain atomics, because every request touches them.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tonic::Code;

use crate::grpc::{METHODS, Method};

const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Upper bounds of the buckets of handling times, in milliseconds: those of the Prometheus libraries.
const HANDLING_MS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// Counters of one method.
#[derive(Default)]
struct Counters {
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    handled: [AtomicU64; CODES.len()],
    /// Calls by the first bucket that they fit into; the last one takes the rest.
    handling: [AtomicU64; HANDLING_MS.len() + 1],
    handling_ns: AtomicU64,
}

/// Counters of all methods.
pub(super) struct Methods(Vec<Counters>);

impl Methods {
    pub(super) fn new() -> Self {
        Self(METHODS.iter().map(|_| Counters::default()).collect())
    }

    fn of(&self, method: Method) -> &Counters {
        &self.0[method as usize]
    }

    pub(super) fn started(&self, method: Method) {
        self.of(method).started.fetch_add(1, Ordering::Relaxed);
    }

    /// A call ended; how long it took is known with `--metrics=extensive`.
    pub(super) fn handled(&self, method: Method, code: Code, took: Option<Duration>) {
        let counters = self.of(method);
        counters.handled[code as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(took) = took {
            let fits = |bound: &u64| took <= Duration::from_millis(*bound);
            let bucket = HANDLING_MS.iter().position(fits).unwrap_or(HANDLING_MS.len());
            counters.handling[bucket].fetch_add(1, Ordering::Relaxed);
            counters.handling_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn received(&self, method: Method) {
        self.of(method).received.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, method: Method, messages: u64) {
        self.of(method).sent.fetch_add(messages, Ordering::Relaxed);
    }

    /// All families; handling times only when they are wanted.
    pub(super) fn render(&self, text: &mut String, extensive: bool) {
        self.family(text, "started_total", "Total number of RPCs started on the server.", |c| {
            &c.started
        });
        self.family(
            text,
            "msg_received_total",
            "Total number of RPC stream messages received on the server.",
            |c| &c.received,
        );
        self.family(
            text,
            "msg_sent_total",
            "Total number of gRPC stream messages sent by the server.",
            |c| &c.sent,
        );
        head(
            text,
            "handled_total",
            "Total number of RPCs completed on the server, regardless of success or failure.",
            "counter",
        );
        for (counters, labels) in self.labelled() {
            for (code, count) in CODES.iter().zip(&counters.handled) {
                let count = count.load(Ordering::Relaxed);
                line(text, format_args!("handled_total{{grpc_code=\"{code}\",{labels}}} {count}"));
            }
        }
        if extensive {
            self.render_handling(text);
        }
    }

    fn family(&self, text: &mut String, name: &str, help: &str, pick: fn(&Counters) -> &AtomicU64) {
        head(text, name, help, "counter");
        for (counters, labels) in self.labelled() {
            let count = pick(counters).load(Ordering::Relaxed);
            line(text, format_args!("{name}{{{labels}}} {count}"));
        }
    }

    fn render_handling(&self, text: &mut String) {
        head(
            text,
            "handling_seconds",
            "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
            "histogram",
        );
        for (counters, labels) in self.labelled() {
            let mut count = 0;
            for (place, bucket) in counters.handling.iter().enumerate() {
                count += bucket.load(Ordering::Relaxed);
                let bound = HANDLING_MS.get(place).map(|bound| *bound as f64 / 1000.0);
                let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| bound.to_string());
                line(
                    text,
                    format_args!("handling_seconds_bucket{{{labels},le=\"{bound}\"}} {count}"),
                );
            }
            let sum = counters.handling_ns.load(Ordering::Relaxed) as f64 / 1e9;
            line(text, format_args!("handling_seconds_sum{{{labels}}} {sum}"));
            line(text, format_args!("handling_seconds_count{{{labels}}} {count}"));
        }
    }

    fn labelled(&self) -> impl Iterator<Item = (&Counters, String)> {
        self.0.iter().zip(METHODS).map(|(counters, (_, service, method, kind))| {
            let kind = kind.label();
            let labels =
                format!("grpc_method=\"{method}\",grpc_service=\"{service}\",grpc_type=\"{kind}\"");
            (counters, labels)
        })
    }
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(text, "# HELP grpc_server_{name} {help}\n# TYPE grpc_server_{name} {kind}");
}

fn line(text: &mut String, rest: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "grpc_server_{rest}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_in_every_bucket_that_it_fits_into() {
        let methods = Methods::new();
        methods.handled(Method::Put, Code::Ok, Some(Duration::from_millis(25)));
        methods.handled(Method::Put, Code::Ok, Some(Duration::from_secs(11)));
        let mut text = String::new();
        methods.render(&mut text, true);
        let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
        for (bound, count) in [("0.01", 0), ("0.025", 1), ("10", 1), ("+Inf", 2)] {
            let line =
                format!("grpc_server_handling_seconds_bucket{{{labels},le=\"{bound}\"}} {count}\n");
            assert!(text.contains(&line), "{line}");
        }
        assert!(text.contains(&format!("grpc_server_handling_seconds_sum{{{labels}}} 11.025\n")));
    }

    #[test]
    fn handling_times_are_left_out_unless_wanted() {
        let mut text = String::new();
        Methods::new().render(&mut text, false);
        assert!(text.contains("grpc_server_started_total{") && !text.contains("handling"));
    }
}
