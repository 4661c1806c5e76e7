//! `cargo xtask sim [--minutes N]`: clusters under faults, seed after seed, for longer than the gate does.
//!
//! The test that the gate runs for a moment, optimised, with debug assertions and overflow checks. A failure names its
//! seed; `ETCHED_SEED=... cargo test -p etched-sim --test cluster simulated` replays it.

use crate::tools;

/// Runs the clusters.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let minutes = minutes(arguments)?;
    println!("new seeds for {minutes} minutes; a failure names its seed");
    let mut command = tools::cargo(&["test", "--profile", "sim", "-p", "etched-sim"]);
    command.args(["--test", "cluster", "simulated_", "--", "--nocapture"]);
    command.env("ETCHED_SIM_SECONDS", (minutes * 60).to_string());
    let status = command.status().map_err(|error| format!("cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err("a cluster failed".to_owned()) }
}

fn minutes(arguments: &[String]) -> Result<u64, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = match *words.as_slice() {
        [] => return Ok(1),
        ["--minutes", number] => number.parse().ok().filter(|number| *number > 0),
        _ => None,
    };
    number.ok_or("usage: cargo xtask sim [--minutes N]".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_minutes_may_be_said() {
        let said = |words: &[&str]| {
            minutes(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!((said(&[]), said(&["--minutes", "5"])), (Ok(1), Ok(5)));
        for bad in [&["--minutes"][..], &["--minutes", "0"], &["7"], &["--minutes", "1", "x"]] {
            assert!(said(bad).is_err(), "{bad:?}");
        }
    }
}
