//! `cargo xtask bench`: etched beside etcd, in one run on one machine.
//!
//! ```text
//! bench [--rounds N] [--requests N] [--keys N] [--json FILE] [SCENARIO...]
//!
//! build etcd, benchmark (Go module) and etched ──> for each scenario, for each round:
//!     etched, etcd or etcd, etched (alternating) ──> figures ──> table, JSON
//! ```
//! Both servers run with their defaults, fsync on, on loopback, one at a time, each time on an empty
//! folder under the target folder. Nothing is compared across runs: a ratio is of one run.

mod load;
mod scenarios;
mod server;
mod table;

use std::path::PathBuf;
use std::time::Instant;

use crate::tools;
use scenarios::{SCENARIOS, Scenario, Setup};
use table::{SERVERS, Table};

/// What the command line chooses.
struct Options {
    rounds: u64,
    requests: u64,
    keys: u64,
    json: PathBuf,
    scenarios: Vec<String>,
}

/// Runs the scenarios named, or all of them, and prints the table.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let options = parse(arguments)?;
    tools::require(&[&tools::GO])?;
    let binaries = build()?;
    let mut table = Table::default();
    let chosen = SCENARIOS.iter().filter(|scenario| {
        options.scenarios.is_empty() || options.scenarios.iter().any(|name| name == scenario.name)
    });
    for scenario in chosen {
        eprintln!("{}: {}", scenario.name, scenario.what);
        for round in 0..options.rounds {
            // who goes first changes, so that neither always finds the warmer machine
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for server in order {
                measure(scenario, server, round, &binaries, &options, &mut table)?;
            }
        }
    }
    println!("{} rounds, {} requests, {} keys", options.rounds, options.requests, options.keys);
    println!("{}", table.text());
    let text = format!("{:#}\n", table.json());
    std::fs::write(&options.json, text)
        .map_err(|error| format!("{}: {error}", options.json.display()))?;
    println!("each round's figures: {}", options.json.display());
    Ok(())
}

/// One round of one scenario on one server.
fn measure(
    scenario: &Scenario,
    server: usize,
    round: u64,
    binaries: &[PathBuf; 4],
    options: &Options,
    table: &mut Table,
) -> Result<(), String> {
    let folder = tools::target().join("bench").join(format!("run-{}", std::process::id()));
    let fail = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(&folder).map_err(fail)?;
    let began = Instant::now();
    let setup = Setup {
        binary: binaries[server].clone(),
        benchmark: binaries[2].clone(),
        etcdctl: binaries[3].clone(),
        folder: folder.clone(),
        requests: options.requests,
        keys: options.keys,
    };
    let figures = (scenario.run)(&setup);
    std::fs::remove_dir_all(&folder).map_err(fail)?;
    let figures =
        figures.map_err(|error| format!("{} on {}: {error}", scenario.name, SERVERS[server]))?;
    let first = figures
        .first()
        .map(|figure| format!("{} {:.1} {}", figure.name, figure.value, figure.unit));
    eprintln!(
        "  round {}: {:6} {} ({:.1} s)",
        round + 1,
        SERVERS[server],
        first.unwrap_or_default(),
        began.elapsed().as_secs_f64()
    );
    table.add(scenario.name, server, figures);
    Ok(())
}

/// Builds all that runs: etched, etcd, benchmark, etcdctl.
fn build() -> Result<[PathBuf; 4], String> {
    if std::env::var_os("ETCHED_BIN").is_none() {
        tools::run(tools::cargo(&["build", "--release", "--package", "etched"]))?;
    }
    let programs = [
        ("etcd", "go.etcd.io/etcd/server/v3"),
        ("benchmark", "go.etcd.io/etcd/v3/tools/benchmark"),
        ("etcdctl", "go.etcd.io/etcd/etcdctl/v3"),
    ];
    for (name, package) in programs {
        tools::run(tools::go_build(package, &tools::etcd_folder().join(name)))?;
    }
    let [etcd, benchmark, etcdctl] = programs.map(|(name, _)| tools::etcd_folder().join(name));
    Ok([tools::etched(), etcd, benchmark, etcdctl])
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        rounds: 3,
        requests: 200_000,
        keys: 1_000_000,
        json: tools::target().join("bench.json"),
        scenarios: Vec::new(),
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().and_then(|value| value.parse::<u64>().ok());
            value.filter(|value| *value > 0).ok_or_else(|| format!("{word} wants a number above 0"))
        };
        match word.as_str() {
            "--rounds" => options.rounds = number()?,
            "--requests" => options.requests = number()?,
            "--keys" => options.keys = number()?,
            "--json" => options.json = words.next().ok_or("--json wants a file")?.into(),
            name if SCENARIOS.iter().any(|scenario| scenario.name == name) => {
                options.scenarios.push(name.to_owned());
            }
            _ => {
                let known = SCENARIOS.map(|scenario| scenario.name).join(", ");
                return Err(format!("{word:?} is no option and no scenario; there are {known}"));
            }
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn scenarios_and_numbers_are_chosen_by_name() {
        let options = parse(&words("keys --keys 5 --rounds 4")).unwrap();
        assert_eq!((options.rounds, options.keys), (4, 5));
        assert_eq!(options.scenarios, ["keys"]);
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_known_ones() {
        assert!(parse(&words("--kesy 5")).err().unwrap().contains("put-100"));
        assert!(parse(&words("--keys none")).is_err());
    }
}
