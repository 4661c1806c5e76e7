//! The same keys overwritten again and again with a compaction each time around: what hours of a busy
//! cluster do, in minutes. Memory and disk must come to a plateau.

use super::super::load::Sample;
use super::super::target::Want::AtMostWhenFull;
use super::{Group, MEBIBYTE, Run, Scenario, target};

pub(super) const GROUP: Group = Group {
    name: "churn",
    prepare: |run| {
        run.store.start()?;
        run.load(&format!("fill -keys={}", run.scale.few_keys)).map(drop)
    },
    scenarios: &[Scenario {
        name: "churn",
        what: "all keys overwritten many times, compacted each time around",
        rounds: 1,
        targets: &[
            target("memory, last quarter / second", AtMostWhenFull(1.1)),
            target("disk, last quarter / second", AtMostWhenFull(1.1)),
        ],
        run: churn,
    }],
};

fn churn(run: &mut Run) -> Result<(), String> {
    let (keys, total) = (run.scale.few_keys, run.scale.few_keys * run.scale.overwrites);
    let folder = run.store.data_dir();
    // Five million Puts are more than etcd does in the ten minutes that a load may take.
    let words =
        format!("churn -deadline=40m -keys={keys} -total={total} -data-dir={}", folder.display());
    let report = run.load(&words)?;
    run.add_part(report.part("puts")?, "");
    let last = report.curve.last().ok_or("the load generator told no curve")?;
    run.add("memory at the end", "MiB", last.memory / MEBIBYTE);
    run.add("disk at the end", "MiB", last.disk / MEBIBYTE);
    let growth = |of: fn(&Sample) -> f64| plateau(&report.curve, of);
    run.add("memory, last quarter / second", "", growth(|sample| sample.memory));
    run.add("disk, last quarter / second", "", growth(|sample| sample.disk));
    run.curve = report.curve;
    Ok(())
}

/// The highest point of the last quarter of a curve to that of the second quarter: the first one fills
/// what is then reused.
fn plateau(curve: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    let end = curve.last().map_or(0.0, |sample| sample.operations);
    let highest = |from: f64, to: f64| {
        let within = curve.iter().filter(|sample| (from..=to).contains(&(sample.operations / end)));
        within.map(of).fold(f64::NAN, f64::max)
    };
    highest(0.75, 1.0) / highest(0.25, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(memory: &[f64]) -> Vec<Sample> {
        let points = memory.iter().zip(1_u8..);
        points
            .map(|(memory, at)| Sample { operations: f64::from(at), memory: *memory, disk: 0.0 })
            .collect()
    }

    #[test]
    fn a_curve_that_goes_on_growing_has_no_plateau() {
        let growth = plateau(&curve(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), |s| s.memory);
        assert_eq!(growth.to_bits(), 2.0_f64.to_bits());
    }

    #[test]
    fn one_that_goes_up_and_down_has() {
        let growth = plateau(&curve(&[1.0, 5.0, 9.0, 5.0, 9.0, 5.0, 9.0, 5.0]), |s| s.memory);
        assert_eq!(growth.to_bits(), 1.0_f64.to_bits());
    }

    #[test]
    fn without_points_nothing_is_said() {
        assert!(plateau(&[], |s| s.memory).is_nan());
    }
}
