//! Our own load generator, `compat-tests/load`: how it is called and what it tells.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::server::Server;

/// One measured stretch of a load.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) operations: f64,
    pub(super) per_second: f64,
    pub(super) p50_milliseconds: f64,
    pub(super) p99_milliseconds: f64,
    pub(super) p999_milliseconds: f64,
    /// User and system time of the server, and of the generator.
    pub(super) server_cpu_seconds: f64,
    pub(super) load_cpu_seconds: f64,
    /// Resident memory of the server: when the part began, and at most in it.
    pub(super) memory_before: f64,
    pub(super) memory_peak: f64,
}

/// A point of a curve over a long load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// Requests answered so far.
    pub(super) operations: f64,
    /// Resident bytes of the server.
    pub(super) memory: f64,
    /// Bytes of its folder.
    pub(super) disk: f64,
}

/// All that one call of the generator tells.
#[derive(Debug, Default)]
pub(super) struct Report {
    parts: Vec<Part>,
    values: BTreeMap<String, f64>,
    pub(super) curve: Vec<Sample>,
}

impl Report {
    /// The part of that name.
    pub(super) fn part(&self, name: &str) -> Result<&Part, String> {
        let part = self.parts.iter().find(|part| part.name == name);
        part.ok_or_else(|| format!("the load generator told no part {name:?}"))
    }

    /// The only part, or the last one.
    pub(super) fn last(&self) -> Result<&Part, String> {
        self.parts.last().ok_or_else(|| "the load generator told no part".to_owned())
    }

    pub(super) fn value(&self, name: &str) -> Result<f64, String> {
        let value = self.values.get(name).copied();
        value.ok_or_else(|| format!("the load generator told no {name:?}"))
    }
}

/// Runs a command of the generator to its end. A request that failed is an error, and so is a wrong
/// answer: their figures would flatter.
pub(super) fn run(program: &Path, server: &Server, arguments: &[String]) -> Result<Report, String> {
    let (command, flags) = arguments.split_first().ok_or("no command for the load generator")?;
    let output = Command::new(program)
        .arg(command)
        .arg(format!("-endpoint={}", server.endpoint))
        .arg(format!("-pid={}", server.pid()))
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("load {}: {}", arguments.join(" "), said.trim()));
    }
    parse(&output.stdout).ok_or_else(|| format!("load {}: no report", arguments.join(" ")))
}

fn parse(report: &[u8]) -> Option<Report> {
    let report: Value = serde_json::from_slice(report).ok()?;
    let parts = report["parts"].as_array()?.iter().map(part).collect::<Option<Vec<_>>>()?;
    let values = report["values"].as_object().into_iter().flatten();
    let values = values.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
    let curve = report["curve"].as_array().into_iter().flatten();
    let curve = curve.map(sample).collect::<Option<Vec<_>>>()?;
    Some(Report { parts, values, curve })
}

fn part(part: &Value) -> Option<Part> {
    let number = |name: &str| part[name].as_f64();
    Some(Part {
        name: part["name"].as_str()?.to_owned(),
        operations: number("operations")?,
        per_second: number("per_second")?,
        p50_milliseconds: number("p50_ms")?,
        p99_milliseconds: number("p99_ms")?,
        p999_milliseconds: number("p999_ms")?,
        server_cpu_seconds: number("server_cpu_seconds")?,
        load_cpu_seconds: number("load_cpu_seconds")?,
        memory_before: number("memory_before_bytes")?,
        memory_peak: number("memory_peak_bytes")?,
    })
}

fn sample(sample: &Value) -> Option<Sample> {
    Some(Sample {
        operations: sample["operations"].as_f64()?,
        memory: sample["memory_bytes"].as_f64()?,
        disk: sample["disk_bytes"].as_f64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"command":"churn","parts":[{"name":"puts","operations":200,"errors":0,
        "seconds":2,"per_second":100,"p50_ms":1,"p99_ms":2,"p999_ms":3,"max_ms":4,
        "server_cpu_seconds":0.5,"load_cpu_seconds":0.25,"memory_before_bytes":10,
        "memory_peak_bytes":30}],"values":{"compactions":2},
        "curve":[{"seconds":1,"operations":5,"memory_bytes":6,"disk_bytes":7}]}"#;

    #[test]
    fn parts_values_and_curve_are_read() {
        let report = parse(REPORT.as_bytes()).unwrap();
        let part = report.part("puts").unwrap();
        let bits = |number: f64| number.to_bits();
        assert_eq!(bits(part.p999_milliseconds), bits(3.0));
        assert_eq!(bits(part.memory_peak - part.memory_before), bits(20.0));
        assert_eq!(bits(report.value("compactions").unwrap()), bits(2.0));
        assert_eq!(report.curve, [Sample { operations: 5.0, memory: 6.0, disk: 7.0 }]);
    }

    #[test]
    fn a_part_that_lacks_a_figure_makes_no_report() {
        assert!(parse(REPORT.replace("p99_ms", "p98_ms").as_bytes()).is_none());
        assert!(parse(b"").is_none());
    }

    #[test]
    fn what_was_not_told_is_an_error_that_names_it() {
        let report = parse(REPORT.as_bytes()).unwrap();
        assert!(report.part("during").unwrap_err().contains("during"));
        assert!(report.value("leases").unwrap_err().contains("leases"));
    }
}
