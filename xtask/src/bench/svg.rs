//! The plot for the documents: how each figure with a target is to etcd's, and the curve of the churn.
//!
//! ```text
//! put-100  server CPU per op    ░░░░░░░░▓▓▓▓▓▓▓▓|    bar from 1 to the median ratio, on a log scale;
//!                                   ╎           1    a line over the rounds, a mark at the target
//! ```

use std::fmt::Write;

use super::load::Sample;
use super::table::{Row, SERVERS, Table, shown};
use super::target::Verdict;

const WIDTH: f64 = 960.0;
/// Where the bars begin and end; left of them the names, right the numbers.
const LEFT: f64 = 360.0;
const RIGHT: f64 = 880.0;
const LINE: f64 = 20.0;
const HEAD: f64 = 60.0;
const CURVE_HEIGHT: f64 = 180.0;
/// The scale is this wide at least, in powers of ten, to either side of 1.
const DECADES_MIN: f64 = 1.0;

const INK: &str = "#24292f";
const FAINT: &str = "#b0b7bf";
const MET: &str = "#2f855a";
const MISSED: &str = "#c05621";
const UNJUDGED: &str = "#6b7280";
/// Colours of [`SERVERS`].
const COLOURS: [&str; 2] = ["#2b6cb0", "#b7791f"];

/// What a curve shows of its points.
type Reading = fn(&Sample) -> f64;

/// Draws the table's targets and curves.
pub(super) fn draw(table: &Table) -> String {
    let has_bound = |row: &&Row| row.target.and_then(|target| target.want.ratio()).is_some();
    let drawn = |row: &&Row| row.ratio().is_finite() && row.ratio() > 0.0;
    let rows: Vec<&Row> = table.rows.iter().filter(has_bound).filter(drawn).collect();
    let bars = HEAD + rows.len() as f64 * LINE + LINE;
    let curves = if table.curves.is_empty() { 0.0 } else { 2.0 * (CURVE_HEIGHT + 2.0 * LINE) };
    let height = bars + curves;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"{INK}\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let scale = Scale::around(&rows);
    let heading = "etched to etcd, median of the rounds: bar (green: target met, orange: missed); \
                   single rounds: line; target: mark";
    text(&mut svg, 10.0, 20.0, "start", heading);
    grid(&mut svg, &scale, bars - LINE);
    for (at, row) in rows.iter().enumerate() {
        bar(&mut svg, row, &scale, HEAD + at as f64 * LINE, table.full);
    }
    let charts: [(&str, Reading); 2] =
        [("churn: resident memory, MiB", |at| at.memory), ("churn: disk, MiB", |at| at.disk)];
    if !table.curves.is_empty() {
        for (at, (title, of)) in charts.into_iter().enumerate() {
            chart(&mut svg, table, title, of, bars + at as f64 * (CURVE_HEIGHT + 2.0 * LINE));
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// A logarithmic scale of ratios between [`LEFT`] and [`RIGHT`].
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// Whole powers of ten that hold all ratios and targets.
    fn around(rows: &[&Row]) -> Self {
        let mut scale = Self { low: -DECADES_MIN, high: DECADES_MIN };
        for row in rows {
            let bound = row.target.and_then(|target| target.want.ratio());
            let all = row.ratios().into_iter().chain(bound).filter(|ratio| *ratio > 0.0);
            for exponent in all.map(f64::log10).filter(|exponent| exponent.is_finite()) {
                scale.low = scale.low.min(exponent.floor());
                scale.high = scale.high.max(exponent.ceil());
            }
        }
        scale
    }

    fn x(&self, ratio: f64) -> f64 {
        let exponent = ratio.log10().clamp(self.low, self.high);
        LEFT + (exponent - self.low) / (self.high - self.low) * (RIGHT - LEFT)
    }
}

fn grid(svg: &mut String, scale: &Scale, bottom: f64) {
    let mut exponent = scale.low;
    while exponent <= scale.high {
        let ratio = 10_f64.powf(exponent);
        let (x, colour) = (scale.x(ratio), if exponent == 0.0 { INK } else { FAINT });
        line(svg, [x, HEAD - 8.0, x, bottom], colour, 1.0);
        text(svg, x, HEAD - 14.0, "middle", &format!("{ratio}"));
        exponent += 1.0;
    }
}

fn bar(svg: &mut String, row: &Row, scale: &Scale, top: f64, full: bool) {
    let middle = top + LINE / 2.0;
    let colour = match row.verdict(full) {
        Some(Verdict::Met) => MET,
        Some(Verdict::Missed) => MISSED,
        _ => UNJUDGED,
    };
    let ends = [scale.x(row.ratio()), scale.x(1.0)];
    let (x, width) = (ends[0].min(ends[1]), (ends[0] - ends[1]).abs().max(1.0));
    text(svg, LEFT - 10.0, middle + 4.0, "end", &format!("{}: {}", row.scenario, row.figure));
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
        top + 4.0,
        LINE - 8.0
    );
    let ratios = row.ratios();
    if let (Some(least), Some(most)) = (ratios.first(), ratios.last()) {
        line(svg, [scale.x(*least), middle, scale.x(*most), middle], INK, 1.0);
    }
    if let Some(bound) = row.target.and_then(|target| target.want.ratio()) {
        let x = scale.x(bound);
        line(svg, [x, top + 1.0, x, top + LINE - 1.0], INK, 2.5);
    }
    text(svg, RIGHT + 10.0, middle + 4.0, "start", &shown(row.ratio()));
}

/// One curve for each server over the requests answered.
fn chart(svg: &mut String, table: &Table, title: &str, of: Reading, top: f64) {
    const MEBIBYTE: f64 = 1024.0 * 1024.0;
    let all = || table.curves.iter().flat_map(|curve| &curve.samples);
    let highest = |of: &dyn Fn(&Sample) -> f64| all().map(of).fold(1.0, f64::max);
    let (most, end) = (highest(&of), highest(&|at| at.operations));
    let (left, base) = (70.0, top + LINE + CURVE_HEIGHT);
    text(svg, 10.0, top + 12.0, "start", title);
    line(svg, [left, base, RIGHT, base], INK, 1.0);
    line(svg, [left, top + LINE, left, base], INK, 1.0);
    text(svg, left - 6.0, top + LINE + 10.0, "end", &shown(most / MEBIBYTE));
    text(svg, left - 6.0, base, "end", "0");
    text(svg, RIGHT, base + 14.0, "end", &format!("{end:.0} puts"));
    for curve in &table.curves {
        let points = curve.samples.iter().map(|at| {
            let x = left + at.operations / end * (RIGHT - left);
            format!("{x:.1},{:.1}", base - of(at) / most * CURVE_HEIGHT)
        });
        let points = points.collect::<Vec<_>>().join(" ");
        let colour = COLOURS[curve.server];
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
        );
        let last = curve.samples.last().map_or(base, |at| base - of(at) / most * CURVE_HEIGHT);
        text(svg, RIGHT + 10.0, last + 4.0, "start", SERVERS[curve.server]);
    }
}

fn line(svg: &mut String, [x1, y1, x2, y2]: [f64; 4], colour: &str, width: f64) {
    // Writing to a String cannot fail, here and above.
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" \
         stroke-width=\"{width}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ =
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

#[cfg(test)]
mod tests {
    use super::super::scenarios::{Figure, Scenario};
    use super::super::target::{Target, Want};
    use super::*;

    const SCENARIO: Scenario = Scenario {
        name: "put",
        what: "",
        rounds: 3,
        targets: &[Target { figure: "p99", want: Want::RatioAtMost(0.5) }],
        run: |_| Ok(()),
    };

    fn table(ratio: f64) -> Table {
        let mut table = Table::default();
        for (server, value) in [ratio, 1.0].into_iter().enumerate() {
            let figures =
                ["p99", "p50"].map(|name| Figure { name: name.to_owned(), unit: "ms", value });
            table.add(&SCENARIO, server, figures.to_vec());
        }
        table
    }

    #[test]
    fn figures_with_a_bound_on_the_ratio_have_a_bar_in_the_colour_of_the_verdict() {
        for (ratio, colour) in [(0.25, MET), (0.75, MISSED)] {
            let svg = draw(&table(ratio));
            assert_eq!(svg.matches(&format!("fill=\"{colour}\"")).count(), 1, "{svg}");
            assert!(svg.contains("put: p99") && !svg.contains("put: p50"), "{svg}");
        }
    }

    #[test]
    fn the_scale_is_logarithmic_and_holds_what_it_is_given() {
        let table = table(0.0005);
        let rows: Vec<&Row> = table.rows.iter().take(1).collect();
        let scale = Scale::around(&rows);
        assert!((scale.x(10.0) - RIGHT).abs() < 1e-9 && (scale.x(1e-4) - LEFT).abs() < 1e-9);
        let step = scale.x(0.1) - scale.x(0.01);
        assert!((scale.x(1.0) - scale.x(0.1) - step).abs() < 1e-9);
    }

    #[test]
    fn a_curve_is_drawn_for_each_server_that_has_one() {
        let mut table = table(0.5);
        let sample = |operations| Sample { operations, memory: 5.0, disk: 9.0 };
        table.add_curve(0, vec![sample(0.0), sample(10.0)]);
        table.add_curve(1, vec![sample(0.0), sample(10.0)]);
        assert_eq!(draw(&table).matches("<polyline").count(), 4);
    }

    #[test]
    fn an_empty_table_is_still_a_picture() {
        assert!(draw(&Table::default()).trim_end().ends_with("</svg>"));
    }
}
