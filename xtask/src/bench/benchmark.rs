//! etcd's own `benchmark` tool, beside our generator as a check of it, and what it prints.

use std::path::Path;
use std::process::{Command, Stdio};

use super::server::ended_children_cpu_seconds;

/// What one run of the tool says.
#[derive(Debug)]
pub(super) struct Summary {
    /// Requests answered in a second.
    pub(super) per_second: f64,
    /// Latency that half of the requests stayed below, in milliseconds.
    pub(super) p50_milliseconds: f64,
    /// Latency that 99 of 100 stayed below, in milliseconds.
    pub(super) p99_milliseconds: f64,
}

/// Runs the tool against an endpoint to its end; beside its summary, the processor time that it
/// took itself, in seconds.
pub(super) fn generate(
    benchmark: &Path,
    endpoint: &str,
    arguments: &[String],
) -> Result<(Summary, f64), String> {
    let before = ended_children_cpu_seconds()?;
    let output = Command::new(benchmark)
        .arg(format!("--endpoints={endpoint}"))
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", benchmark.display()))?;
    let spent = ended_children_cpu_seconds()? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("benchmark {arguments:?}: {}", output.status));
    }
    Ok((parse(&text)?, spent))
}

/// Arguments for its `put` with the project's usual sizes.
pub(super) fn put(clients: u64, connections: u64, total: u64, keys: u64) -> Vec<String> {
    vec![
        format!("--clients={clients}"),
        format!("--conns={connections}"),
        "put".to_owned(),
        "--key-size=32".to_owned(),
        "--val-size=256".to_owned(),
        "--sequential-keys".to_owned(),
        format!("--key-space-size={keys}"),
        format!("--total={total}"),
    ]
}

/// Reads the tool's report. Requests that failed are an error: their figures would flatter.
fn parse(report: &str) -> Result<Summary, String> {
    if let Some((_, errors)) = report.split_once("Error distribution:") {
        return Err(format!("requests failed: {}", errors.trim()));
    }
    let number = |label: &str| {
        let rest = report.lines().find_map(|line| line.trim().strip_prefix(label));
        let word = rest.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        word.ok_or_else(|| format!("the report has no {label:?}:\n{report}"))
    };
    Ok(Summary {
        per_second: number("Requests/sec:")?,
        p50_milliseconds: number("50% in")? * 1e3,
        p99_milliseconds: number("99% in")? * 1e3,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\nSummary:\n  Total:\t0.5507 secs.\n  Average:\t0.0022 secs.\n  \
        Requests/sec:\t9079.7611\n\nResponse time histogram:\n  0.0012 [460]\t|\n\n\
        Latency distribution:\n  10% in 0.0012 secs.\n  50% in 0.0019 secs.\n  99% in 0.0069 secs.\n  \
        99.9% in 0.0080 secs.\n";

    #[test]
    fn throughput_and_latencies_are_read_from_the_report() {
        let summary = parse(REPORT).unwrap();
        let got = [summary.per_second, summary.p50_milliseconds, summary.p99_milliseconds];
        for (got, want) in got.into_iter().zip([9079.7611, 1.9, 6.9]) {
            assert!((got - want).abs() < 1e-9, "{got}, want {want}");
        }
    }

    #[test]
    fn a_report_with_failed_requests_is_an_error() {
        let report =
            format!("{REPORT}\nError distribution:\n  [3]\tetcdserver: too many requests\n");
        assert!(parse(&report).unwrap_err().contains("too many requests"));
    }

    #[test]
    fn a_report_that_lacks_a_figure_is_an_error() {
        assert!(parse("Requests/sec:\t1.0\n").is_err());
    }
}
