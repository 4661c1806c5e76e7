//! What is measured. A scenario runs on one server and gives its figures; it knows nothing of rounds,
//! of the other server or of the table.
//!
//! ```text
//! group: what its scenarios find in the store, loaded once      start, small, large, history, churn
//!   └─ scenario: a function and its targets, run in this order; the next finds what it leaves
//! ```
//! A new one is a function and an entry in its group. A scenario that fails ends the server and its
//! data; the group is then loaded again for the next.

mod churn;
mod durability;
mod history;
mod large;
mod small;
mod start;

use super::load::{self, Part, Report, Sample};
use super::rates::Rates;
use super::store::{Programs, Store};
use super::target::{Target, Want};

/// One measured number.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    /// What it is, the same for both servers.
    pub(super) name: String,
    /// Its unit, for the table.
    pub(super) unit: &'static str,
    /// The number in that unit.
    pub(super) value: f64,
}

/// Something both servers do.
pub(super) struct Scenario {
    /// Its name on the command line and in the JSON.
    pub(super) name: &'static str,
    /// One line for the table.
    pub(super) what: &'static str,
    /// At most so many rounds, where one takes minutes.
    pub(super) rounds: u64,
    pub(super) targets: &'static [Target],
    /// Runs it on one server. What it added before it failed is kept.
    pub(super) run: fn(&mut Run) -> Result<(), String>,
}

/// Scenarios on one store.
pub(super) struct Group {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// Starts the server, if the scenarios do not, and loads what they expect.
    pub(super) prepare: fn(&mut Run) -> Result<(), String>,
    pub(super) scenarios: &'static [Scenario],
}

/// All scenarios, in the order they run.
pub(super) const GROUPS: [Group; 6] =
    [start::GROUP, durability::GROUP, small::GROUP, large::GROUP, history::GROUP, churn::GROUP];

/// A scenario that runs in each round.
const fn scenario(
    name: &'static str,
    what: &'static str,
    targets: &'static [Target],
    run: fn(&mut Run) -> Result<(), String>,
) -> Scenario {
    Scenario { name, what, rounds: u64::MAX, targets, run }
}

/// How much of everything.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    pub(super) rounds: u64,
    /// Requests of a scenario at saturation.
    pub(super) requests: u64,
    /// Keys of the large store.
    pub(super) keys: u64,
    /// Keys of the others.
    pub(super) few_keys: u64,
    /// What a stretch at a fixed rate takes.
    pub(super) seconds: u64,
    /// Versions that a compaction finds.
    pub(super) old_versions: u64,
    /// Revisions that resumed watchers are behind.
    pub(super) behind: u64,
    /// Leases that end in one second.
    pub(super) leases: u64,
    /// How often the churn overwrites its keys.
    pub(super) overwrites: u64,
}

/// Bounds of absolute size hold for this many keys.
const FULL_KEYS: u64 = 1_000_000;

impl Scale {
    pub(super) const FULL: Self = Self {
        rounds: 3,
        requests: 150_000,
        keys: FULL_KEYS,
        few_keys: 100_000,
        seconds: 6,
        old_versions: 1_000_000,
        behind: 100_000,
        leases: 100_000,
        overwrites: 50,
    };
    /// Ends within three minutes; shows that all works, and where to look.
    pub(super) const SHORT: Self = Self {
        rounds: 1,
        requests: 20_000,
        keys: 50_000,
        few_keys: 10_000,
        seconds: 2,
        old_versions: 30_000,
        behind: 5_000,
        leases: 2_000,
        overwrites: 8,
    };

    pub(super) fn is_full(&self) -> bool {
        self.keys >= FULL_KEYS
    }
}

/// The surroundings of one scenario on one server, and what it has found so far.
pub(super) struct Run<'a> {
    pub(super) programs: &'a Programs,
    pub(super) scale: &'a Scale,
    pub(super) scenario: &'static str,
    pub(super) is_etcd: bool,
    pub(super) rates: &'a mut Rates,
    pub(super) store: &'a mut Store,
    pub(super) figures: Vec<Figure>,
    pub(super) curve: Vec<Sample>,
}

pub(super) const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// What follows the names of figures that were taken at the offered rate.
const AT_RATE: &str = " at 70 %";

impl Run<'_> {
    fn add(&mut self, name: impl Into<String>, unit: &'static str, value: f64) {
        self.figures.push(Figure { name: name.into(), unit, value });
    }

    /// Runs our load generator; the words are its command and flags.
    fn load(&self, words: &str) -> Result<Report, String> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        load::run(&self.programs.load, self.store.server()?, &words)
    }

    /// The figures that every load has, with a suffix for their names.
    fn add_part(&mut self, part: &Part, suffix: &str) {
        let each = |seconds: f64| seconds / part.operations.max(1.0) * 1e6;
        let figures = [
            ("throughput", "1/s", part.per_second),
            ("p50", "ms", part.p50_milliseconds),
            ("p99", "ms", part.p99_milliseconds),
            ("p99.9", "ms", part.p999_milliseconds),
            ("server CPU per op", "us", each(part.server_cpu_seconds)),
            ("load CPU per op", "us", each(part.load_cpu_seconds)),
            ("peak memory", "MiB", part.memory_peak / MEBIBYTE),
        ];
        for (name, unit, value) in figures {
            self.add(format!("{name}{suffix}"), unit, value);
        }
    }

    /// One load, whose last part is the figure.
    fn load_once(&mut self, words: &str) -> Result<Part, String> {
        let part = self.load(words)?.last()?.clone();
        self.add_part(&part, "");
        Ok(part)
    }

    /// A load as fast as it goes, then at the rate that both servers share.
    fn load_at_both_rates(&mut self, words: &str, total: u64) -> Result<(), String> {
        let maximum = self.load_once(&format!("{words} -total={total}"))?.per_second;
        let rate = self.rates.rate(self.scenario, self.is_etcd, maximum)?;
        let seconds = self.scale.seconds;
        let report = self.load(&format!("{words} -rate={rate:.0} -seconds={seconds}"))?;
        self.add_part(report.last()?, AT_RATE);
        Ok(())
    }

    /// What a load beside something else has: the figures of both stretches, and how the second's
    /// p99 is to the first's.
    fn add_before_and_during(&mut self, report: &Report) -> Result<(), String> {
        let (before, during) = (report.part("before")?, report.part("during")?);
        self.add_part(before, " before");
        self.add_part(during, " during");
        let ratio = during.p99_milliseconds / before.p99_milliseconds;
        self.add("p99 during / before", "", ratio);
        Ok(())
    }

    /// Fails unless the server counts the keys of the large store: one that lost or never got them
    /// would be flattered.
    fn holds_all(&self) -> Result<(), String> {
        self.load(&format!("countonly -clients=1 -conns=1 -total=1 -keys={}", self.scale.keys))
            .map(drop)
    }
}

/// Shorthand for the tables of targets.
const fn target(figure: &'static str, want: Want) -> Target {
    Target { figure, want }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static Scenario> {
        GROUPS.iter().flat_map(|group| group.scenarios)
    }

    #[test]
    fn names_of_scenarios_and_groups_are_unique_but_for_a_group_of_one() {
        let mut names: Vec<&str> = all().map(|scenario| scenario.name).collect();
        let groups = GROUPS.iter().filter(|group| group.scenarios.len() > 1);
        names.extend(groups.map(|group| group.name));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_scenario_has_a_target_or_is_a_cross_check() {
        for scenario in all().filter(|scenario| scenario.targets.is_empty()) {
            assert_eq!(scenario.name, "benchmark");
        }
    }
}
