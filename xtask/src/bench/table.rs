//! Figures of all rounds, as a table with ratios and targets, and as JSON.

use serde_json::{Value, json};

use super::load::Sample;
use super::scenarios::{Figure, Scenario};
use super::target::{Target, Verdict};

/// The two servers, in the order of the table's columns.
pub(super) const SERVERS: [&str; 2] = ["etched", "etcd"];

/// All rounds of one figure of one scenario.
pub(super) struct Row {
    pub(super) scenario: &'static str,
    pub(super) figure: String,
    unit: &'static str,
    pub(super) target: Option<Target>,
    /// One number a round for each of [`SERVERS`].
    rounds: [Vec<f64>; 2],
}

/// A curve that a scenario told, of one of [`SERVERS`].
pub(super) struct Curve {
    pub(super) server: usize,
    pub(super) samples: Vec<Sample>,
}

/// What was measured so far.
#[derive(Default)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    pub(super) curves: Vec<Curve>,
    failures: Vec<String>,
    /// Whether the store of many keys has as many as the absolute targets speak of.
    pub(super) full: bool,
}

impl Table {
    pub(super) fn new(full: bool) -> Self {
        Self { full, ..Self::default() }
    }

    /// Adds one round of one scenario on one server, given by its place in [`SERVERS`].
    pub(super) fn add(&mut self, scenario: &Scenario, server: usize, figures: Vec<Figure>) {
        for Figure { name, unit, value } in figures {
            let known = self
                .rows
                .iter()
                .position(|row| row.scenario == scenario.name && row.figure == name);
            let row = known.unwrap_or_else(|| {
                let target = scenario.targets.iter().find(|target| target.figure == name);
                self.rows.push(Row {
                    scenario: scenario.name,
                    figure: name,
                    unit,
                    target: target.copied(),
                    rounds: [Vec::new(), Vec::new()],
                });
                self.rows.len() - 1
            });
            self.rows[row].rounds[server].push(value);
        }
    }

    pub(super) fn add_curve(&mut self, server: usize, samples: Vec<Sample>) {
        self.curves.push(Curve { server, samples });
    }

    /// A scenario failed on one server: its line in the table says so, and the run goes on.
    pub(super) fn fail(&mut self, scenario: &str, server: usize, error: &str) {
        self.failures.push(format!("{scenario} on {}: {error}", SERVERS[server]));
    }

    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Medians, their ratio (etched to etcd), the smallest and largest ratio of a round, and the
    /// target; after all rows the failures and a count of the targets.
    pub(super) fn text(&self) -> String {
        let mut lines = vec![format!(
            "{:16} {:44} {:>10} {:>10} {:>7}  {:16} {:15}",
            "", "", SERVERS[0], SERVERS[1], "ratio", "of single rounds", "target"
        )];
        lines.extend(self.rows.iter().map(|row| row.text(self.full)));
        lines.extend(self.failures.iter().map(|failure| format!("FAILED {failure}")));
        let count = |verdict| {
            self.rows.iter().filter(|row| row.verdict(self.full) == Some(verdict)).count()
        };
        let [met, missed, unknown] = [Verdict::Met, Verdict::Missed, Verdict::Unknown].map(count);
        lines.push(format!(
            "targets: {met} met, {missed} missed, {unknown} not judged (size, or no figure)"
        ));
        lines.join("\n")
    }

    /// The rows as a table for the documents.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!(
            "| scenario | figure | {} | {} | ratio | rounds | target | |\n{}|\n",
            SERVERS[0],
            SERVERS[1],
            "| --- ".repeat(8)
        );
        for row in &self.rows {
            let cells = row.cells(self.full);
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        text
    }

    /// Everything, with each round's number.
    pub(super) fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|row| row.json(self.full)).collect();
        let curves: Vec<Value> = self
            .curves
            .iter()
            .map(|curve| {
                let points =
                    curve.samples.iter().map(|at| json!([at.operations, at.memory, at.disk]));
                json!({
                    "server": SERVERS[curve.server],
                    "operations_memory_disk": points.collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({ "figures": rows, "curves": curves, "failures": self.failures })
    }
}

impl Row {
    pub(super) fn medians(&self) -> [f64; 2] {
        [median(&self.rounds[0]), median(&self.rounds[1])]
    }

    /// The medians' ratio; not a number when a server has no figure.
    pub(super) fn ratio(&self) -> f64 {
        let [ours, theirs] = self.medians();
        ours / theirs
    }

    /// etched to etcd, round by round, in ascending order.
    pub(super) fn ratios(&self) -> Vec<f64> {
        let [ours, theirs] = &self.rounds;
        let mut ratios: Vec<f64> =
            ours.iter().zip(theirs).map(|(our, their)| our / their).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }

    pub(super) fn verdict(&self, full: bool) -> Option<Verdict> {
        let target = self.target?;
        Some(target.want.judge(self.medians()[0], self.ratio(), full))
    }

    /// Scenario, figure, the two medians, their ratio, its spread, target and verdict.
    fn cells(&self, full: bool) -> [String; 8] {
        let [ours, theirs] = self.medians();
        let ratios = self.ratios();
        let spread = match (ratios.first(), ratios.last()) {
            (Some(least), Some(most)) if ratios.len() > 1 => {
                format!("{} to {}", shown(*least), shown(*most))
            }
            _ => String::new(),
        };
        let unit = if self.unit.is_empty() { "" } else { ", " };
        [
            self.scenario.to_owned(),
            format!("{}{unit}{}", self.figure, self.unit),
            shown(ours),
            shown(theirs),
            shown(self.ratio()),
            spread,
            self.target.map(|target| target.want.text()).unwrap_or_default(),
            self.verdict(full).map(Verdict::word).unwrap_or_default().to_owned(),
        ]
    }

    fn text(&self, full: bool) -> String {
        let [scenario, figure, ours, theirs, ratio, spread, target, verdict] = self.cells(full);
        let line = format!(
            "{scenario:16} {figure:44} {ours:>10} {theirs:>10} {ratio:>7}  {spread:16} \
             {target:15} {verdict}"
        );
        line.trim_end().to_owned()
    }

    fn json(&self, full: bool) -> Value {
        let [ours, theirs] = &self.rounds;
        json!({
            "scenario": self.scenario, "figure": self.figure, "unit": self.unit,
            SERVERS[0]: ours, SERVERS[1]: theirs,
            "median_ratio": self.ratio(), "ratios": self.ratios(),
            "target": self.target.map(|target| target.want.text()),
            "verdict": self.verdict(full).map(Verdict::word),
        })
    }
}

/// The middle one; of an even count the mean of the two in the middle.
fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(sorted[half - 1], sorted[half]),
        _ => sorted[half],
    }
}

/// Three significant digits or so, whatever the unit.
pub(super) fn shown(number: f64) -> String {
    match number {
        none if !none.is_finite() => "-".to_owned(),
        large if large >= 100.0 => format!("{large:.0}"),
        medium if medium >= 10.0 => format!("{medium:.1}"),
        tiny if tiny > 0.0 && tiny < 0.05 => format!("{tiny:.4}"),
        small => format!("{small:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::Want;
    use super::*;

    const SCENARIO: Scenario = Scenario {
        name: "put",
        what: "",
        rounds: 3,
        targets: &[Target { figure: "p99", want: Want::RatioAtMost(0.5) }],
        run: |_| Ok(()),
    };

    fn table(ours: &[f64], theirs: &[f64]) -> Table {
        let mut table = Table::default();
        for (server, numbers) in [ours, theirs].into_iter().enumerate() {
            for value in numbers {
                let figure = Figure { name: "p99".to_owned(), unit: "ms", value: *value };
                table.add(&SCENARIO, server, vec![figure]);
            }
        }
        table
    }

    #[test]
    fn a_ratio_is_of_medians_and_the_spread_of_rounds() {
        let table = table(&[1.0, 3.0, 2.0], &[4.0, 4.0, 8.0]);
        let text = table.text();
        let row = text.lines().nth(1).unwrap();
        assert!(row.contains("p99, ms") && row.contains("0.50"), "{row}");
        assert!(row.contains("0.25 to 0.75") && row.ends_with("met"), "{row}");
        assert_eq!(table.json()["figures"][0]["median_ratio"], 0.5);
    }

    #[test]
    fn a_server_without_a_figure_leaves_the_other_ones_and_judges_nothing() {
        let mut table = table(&[1.0], &[]);
        table.fail("put", 1, "gone");
        let text = table.text();
        assert!(text.contains("1.00") && text.contains("FAILED put on etcd: gone"), "{text}");
        assert_eq!(table.rows[0].verdict(true), Some(Verdict::Unknown));
        assert!(table.json()["figures"][0]["median_ratio"].is_null());
    }

    #[test]
    fn the_document_has_a_line_of_eight_cells_for_each_row() {
        let text = table(&[1.0, 1.0], &[4.0, 2.0]).markdown();
        let last = text.lines().last().unwrap();
        assert_eq!(
            last,
            "| put | p99, ms | 1.00 | 3.00 | 0.33 | 0.25 to 0.50 | ratio <= 0.5 | met |"
        );
        assert!(text.lines().all(|line| line.matches('|').count() == 9), "{text}");
    }

    #[test]
    fn targets_are_counted() {
        let text = table(&[3.0], &[4.0]).text();
        assert!(
            text.ends_with("targets: 0 met, 1 missed, 0 not judged (size, or no figure)"),
            "{text}"
        );
    }

    #[test]
    fn the_median_of_two_is_their_mean() {
        assert_eq!(median(&[4.0, 1.0]).to_bits(), 2.5_f64.to_bits());
    }
}
