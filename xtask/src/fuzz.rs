//! `cargo xtask fuzz [--minutes N] [TARGET]`: the tests that feed decoders with damaged input, for longer than the
//! gate does.
//!
//! ```text
//! cargo xtask fuzz                        each target for a minute
//! cargo xtask fuzz --minutes 30 segments  those with `segments` in their name, half an hour each
//! ```
//! A target is any test whose name begins with `fuzzed_`; what drives it is `crates/fuzz`. Everything is the ordinary
//! test build, so that overflows and debug assertions count too. What fails is written below `target/fuzz`: mend it,
//! and move the input into the `corpus` of its crate.

use std::process::Stdio;

use crate::tools;

/// How names of targets begin.
const PREFIX: &str = "fuzzed_";

/// Runs the targets.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let Plan { minutes, filter } = plan(arguments)?;
    require_target(&filter)?;
    println!("each target for {minutes} minutes; a failure names its seed and its input");
    let mut command = tools::cargo(&["test", "--workspace", "--no-fail-fast", &filter]);
    command.args(["--", "--nocapture"]).env("ETCHED_FUZZ_SECONDS", (minutes * 60).to_string());
    let status = command.status().map_err(|error| format!("cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err("a target failed".to_owned()) }
}

/// The harness runs nothing for a filter that fits nothing, and calls that a success.
fn require_target(filter: &str) -> Result<(), String> {
    let mut command = tools::cargo(&["test", "--workspace", filter, "--", "--list"]);
    let listed = command.stderr(Stdio::inherit()).output();
    let listed = listed.map_err(|error| format!("cargo: {error}"))?;
    if !listed.status.success() {
        return Err("the targets cannot be listed".to_owned());
    }
    let is_there = names_a_target(&String::from_utf8_lossy(&listed.stdout));
    is_there.then_some(()).ok_or(format!("no target has {filter} in its name"))
}

/// Whether the harnesses' lists have a test.
fn names_a_target(listed: &str) -> bool {
    listed.lines().any(|line| line.ends_with(": test"))
}

#[derive(Debug, PartialEq, Eq)]
struct Plan {
    minutes: u64,
    /// What the test harness is to look for.
    filter: String,
}

fn plan(arguments: &[String]) -> Result<Plan, String> {
    let mut plan = Plan { minutes: 1, filter: PREFIX.to_owned() };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--minutes" {
            let number =
                words.next().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
            plan.minutes = number.ok_or("--minutes takes a number from 1 on")?;
        } else if word.starts_with('-') || plan.filter != PREFIX {
            return Err("usage: cargo xtask fuzz [--minutes N] [TARGET]".to_owned());
        } else {
            plan.filter = format!("{PREFIX}{}", word.trim_start_matches(PREFIX));
        }
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(words: &[&str]) -> Result<(u64, String), String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        plan(&words).map(|plan| (plan.minutes, plan.filter))
    }

    #[test]
    fn minutes_and_a_target_may_be_said_and_nothing_else() {
        assert_eq!(planned(&[]), Ok((1, "fuzzed_".to_owned())));
        assert_eq!(planned(&["json", "--minutes", "5"]), Ok((5, "fuzzed_json".to_owned())));
        assert_eq!(planned(&["fuzzed_json"]), Ok((1, "fuzzed_json".to_owned())));
        for bad in [&["--minutes"][..], &["--minutes", "0"], &["a", "b"], &["--hours", "1"]] {
            assert!(planned(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_list_without_tests_is_told_from_one_with_a_target() {
        assert!(!names_a_target("0 tests, 0 benchmarks\n\n0 tests, 0 benchmarks\n"));
        assert!(names_a_target("0 tests, 0 benchmarks\n\nfuzz::fuzzed_json: test\n\n1 test\n"));
    }
}
