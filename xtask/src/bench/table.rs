//! Figures of all rounds, as a table with ratios and as JSON.

use serde_json::{Value, json};

use super::scenarios::Figure;

/// The two servers, in the order of the table's columns.
pub(super) const SERVERS: [&str; 2] = ["etched", "etcd"];

/// All rounds of one figure of one scenario.
struct Row {
    scenario: &'static str,
    figure: &'static str,
    unit: &'static str,
    /// One number a round for each of [`SERVERS`].
    rounds: [Vec<f64>; 2],
}

/// What was measured so far.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds one round of one scenario on one server, given by its place in [`SERVERS`].
    pub(super) fn add(&mut self, scenario: &'static str, server: usize, figures: Vec<Figure>) {
        for Figure { name, unit, value } in figures {
            let known =
                self.rows.iter().position(|row| row.scenario == scenario && row.figure == name);
            let row = known.unwrap_or_else(|| {
                let rounds = [Vec::new(), Vec::new()];
                self.rows.push(Row { scenario, figure: name, unit, rounds });
                self.rows.len() - 1
            });
            self.rows[row].rounds[server].push(value);
        }
    }

    /// Medians, their ratio (etched to etcd), and the smallest and largest ratio of a round.
    pub(super) fn text(&self) -> String {
        let mut lines = vec![format!(
            "{:8} {:34} {:>12} {:>12}  {:>6}  {}",
            "", "", SERVERS[0], SERVERS[1], "ratio", "of single rounds"
        )];
        for row in &self.rows {
            let [ours, theirs] = [median(&row.rounds[0]), median(&row.rounds[1])];
            let ratios = row.ratios();
            let spread = match (ratios.first(), ratios.last()) {
                (Some(least), Some(most)) => format!("{least:.2} to {most:.2}"),
                _ => String::new(),
            };
            lines.push(format!(
                "{:8} {:34} {:>12} {:>12}  {:>6}  {spread}",
                row.scenario,
                format!("{}, {}", row.figure, row.unit),
                shown(ours),
                shown(theirs),
                format!("{:.2}", ours / theirs),
            ));
        }
        lines.join("\n")
    }

    /// Everything, with each round's number.
    pub(super) fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let [ours, theirs] = &row.rounds;
                json!({
                    "scenario": row.scenario, "figure": row.figure, "unit": row.unit,
                    SERVERS[0]: ours, SERVERS[1]: theirs,
                    "median_ratio": median(ours) / median(theirs), "ratios": row.ratios(),
                })
            })
            .collect();
        json!({ "figures": rows })
    }
}

impl Row {
    /// etched to etcd, round by round, in ascending order.
    fn ratios(&self) -> Vec<f64> {
        let [ours, theirs] = &self.rounds;
        let mut ratios: Vec<f64> =
            ours.iter().zip(theirs).map(|(our, their)| our / their).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
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
fn shown(number: f64) -> String {
    match number {
        large if large >= 100.0 => format!("{large:.0}"),
        medium if medium >= 10.0 => format!("{medium:.1}"),
        small => format!("{small:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ours: &[f64], theirs: &[f64]) -> Table {
        let mut table = Table::default();
        for (server, numbers) in [ours, theirs].into_iter().enumerate() {
            for value in numbers {
                let figure = Figure { name: "p99", unit: "ms", value: *value };
                table.add("put", server, vec![figure]);
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
        assert!(row.ends_with("0.25 to 0.75"), "{row}");
        assert_eq!(table.json()["figures"][0]["median_ratio"], 0.5);
    }

    #[test]
    fn the_median_of_two_is_their_mean() {
        assert_eq!(median(&[4.0, 1.0]).to_bits(), 2.5_f64.to_bits());
    }
}
