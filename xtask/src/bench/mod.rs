//! `cargo xtask bench`: etched beside etcd, in one run on one machine.
//!
//! ```text
//! bench [--short] [--rounds N] [--requests N] [--keys N] [--seconds N]
//!       [--json FILE] [--svg FILE] [--markdown FILE] [--before COMMAND] [--strace]
//!       [SCENARIO or GROUP...]
//!
//! build etcd, benchmark and load (Go module) and etched
//!   └─> each round, each group, etcd then etched (the next round etched then etcd):
//!         load the store ──> each scenario: figures ──> table, JSON, SVG
//! ```
//! Both servers run with their defaults, fsync on, on loopback, one at a time, each group on an empty
//! folder under the target folder. Nothing is compared across runs: a ratio is of one run. A scenario
//! that fails is told and the others go on; the command then fails at its end.

mod benchmark;
mod load;
mod options;
mod rates;
mod scenarios;
mod server;
mod store;
mod strace;
mod svg;
mod table;
mod target;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::tools;
use options::Options;
use rates::Rates;
use scenarios::{GROUPS, Group, Run, Scenario};
use store::{Programs, Store};
use table::{SERVERS, Table};

/// etcd's place in [`SERVERS`].
const ETCD: usize = 1;

/// Runs the scenarios named, or all of them, and prints the table.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let options = Options::parse(arguments)?;
    tools::require(&[&tools::GO])?;
    let mut bench = Bench {
        programs: build()?,
        rates: Rates::default(),
        table: Table::new(options.scale.is_full()),
        began: Instant::now(),
        command: format!("cargo xtask bench {}", arguments.join(" ")),
        options,
    };
    bench.rounds()?;
    bench.report()
}

/// A whole run.
struct Bench {
    options: Options,
    programs: Programs,
    rates: Rates,
    table: Table,
    began: Instant,
    /// What was called, kept beside the figures.
    command: String,
}

impl Bench {
    fn rounds(&mut self) -> Result<(), String> {
        for round in 0..self.options.scale.rounds {
            // etcd is first at first, since its maximum sets the rates of both; then who goes first
            // changes, so that neither always finds the warmer machine
            let order = if round % 2 == 0 { [1, 0] } else { [0, 1] };
            for group in &GROUPS {
                let chosen = self.options.chosen(group, round);
                for server in order.into_iter().filter(|_| !chosen.is_empty()) {
                    self.wait()?;
                    self.group(group, &chosen, server, round);
                    // an hour of figures is not lost with the run
                    self.save()?;
                }
            }
        }
        Ok(())
    }

    /// Runs what is to run before each server's turn, such as a wait for the machine to be quiet.
    fn wait(&self) -> Result<(), String> {
        let before = self.options.before.as_ref();
        before.map_or(Ok(()), |command| tools::run(Command::new(command)))
    }

    /// The chosen scenarios of a group on one server. The store is loaded for the first, and again
    /// after one that failed.
    fn group(&mut self, group: &Group, chosen: &[&Scenario], server: usize, round: u64) {
        let mut store = None;
        for scenario in chosen {
            self.say(&format!("round {} {:6} {} ...", round + 1, SERVERS[server], scenario.name));
            let began = Instant::now();
            let prepared = store.take().map_or_else(|| self.prepared(group, server), Ok);
            let outcome = prepared.and_then(|mut store| {
                let said = self.scenario(scenario, server, &mut store)?;
                Ok((store, said))
            });
            match outcome {
                Ok((left, said)) => {
                    self.say(&format!("    {said} ({:.1} s)", began.elapsed().as_secs_f64()));
                    store = Some(left);
                }
                Err(error) => {
                    self.say(&format!("    FAILED: {error}"));
                    self.table.fail(scenario.name, server, &error);
                }
            }
        }
    }

    /// One scenario; gives its first figures in words.
    fn scenario(
        &mut self,
        scenario: &Scenario,
        server: usize,
        store: &mut Store,
    ) -> Result<String, String> {
        let mut run = self.run(store, scenario.name, server);
        let outcome = (scenario.run)(&mut run);
        let (figures, curve) = (run.figures, run.curve);
        let said: Vec<String> = figures.iter().take(4).map(said).collect();
        self.table.add(scenario, server, figures);
        if !curve.is_empty() {
            self.table.add_curve(server, curve);
        }
        outcome.map(|()| said.join(", "))
    }

    fn run<'a>(
        &'a mut self,
        store: &'a mut Store,
        scenario: &'static str,
        server: usize,
    ) -> Run<'a> {
        Run {
            programs: &self.programs,
            scale: &self.options.scale,
            scenario,
            is_etcd: server == ETCD,
            rates: &mut self.rates,
            store,
            figures: Vec::new(),
            curve: Vec::new(),
        }
    }

    fn prepared(&mut self, group: &Group, server: usize) -> Result<Store, String> {
        let folder = tools::target().join("bench").join(format!("run-{}", std::process::id()));
        let mut store = Store::new(&self.programs.servers[server], folder)?;
        let mut run = self.run(&mut store, group.name, server);
        (group.prepare)(&mut run).map_err(|error| format!("loading the store: {error}"))?;
        Ok(store)
    }

    /// Progress, with the time since the start.
    fn say(&self, what: &str) {
        let seconds = self.began.elapsed().as_secs();
        eprintln!("{:3}:{:02} {what}", seconds / 60, seconds % 60);
    }

    /// Writes what there is so far to the files that were asked for.
    fn save(&self) -> Result<(), String> {
        let mut json = self.table.json();
        json["command"] = self.command.as_str().into();
        json["scale"] = format!("{:?}", self.options.scale).into();
        write(&self.options.json, &format!("{json:#}\n"))?;
        if let Some(file) = &self.options.svg {
            write(file, &svg::draw(&self.table))?;
        }
        let markdown = self.options.markdown.as_ref();
        markdown.map_or(Ok(()), |file| write(file, &self.table.markdown()))
    }

    fn report(&self) -> Result<(), String> {
        println!("{:?}", self.options.scale);
        println!("{}", self.table.text());
        println!("each round's figures: {}", self.options.json.display());
        match self.table.failures().len() {
            0 => Ok(()),
            failures => Err(format!("{failures} scenarios failed")),
        }
    }
}

fn said(figure: &scenarios::Figure) -> String {
    format!("{} {} {}", figure.name, table::shown(figure.value), figure.unit)
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Builds all that runs: etched, etcd, benchmark, the load generator.
fn build() -> Result<Programs, String> {
    if std::env::var_os("ETCHED_BIN").is_none() {
        tools::run(tools::cargo(&["build", "--release", "--package", "etched"]))?;
    }
    let load = tools::target().join("compat").join("load");
    let [etcd, benchmark] = ["etcd", "benchmark"].map(|name| tools::etcd_folder().join(name));
    let programs = [
        (&etcd, "go.etcd.io/etcd/server/v3"),
        (&benchmark, "go.etcd.io/etcd/v3/tools/benchmark"),
        (&load, "./load"),
    ];
    for (to, package) in programs {
        tools::run(tools::go_build(package, to))?;
    }
    Ok(Programs { servers: [tools::etched(), etcd], load, benchmark })
}
