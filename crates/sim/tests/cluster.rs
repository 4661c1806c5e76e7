//! Clusters under faults, by seed.
//!
//! `cargo xtask sim [--minutes N]` runs the second test for longer and optimised; `ETCHED_SEED` makes it run that
//! seed alone.

use std::time::{Duration, Instant};

use etched_sim::cluster::{Outcome, run};

/// Seeds that each run of the tests goes through.
const FIXED_SEEDS: u64 = 200;
/// How long new seeds are tried unless `ETCHED_SIM_SECONDS` says otherwise.
const TIME: Duration = Duration::from_secs(2);

fn sum(all: &mut Outcome, one: Outcome) {
    all.writes += one.writes;
    all.reads += one.reads;
    all.leaders += one.leaders;
    all.crashes += one.crashes;
    all.snapshots += one.snapshots;
    all.changes += one.changes;
    all.stalls += one.stalls;
    all.refused += one.refused;
}

#[test]
fn clusters_lose_nothing_and_get_on_again_whatever_breaks() {
    let mut all = Outcome::default();
    (1..=FIXED_SEEDS).for_each(|seed| sum(&mut all, run(seed)));
    println!("{FIXED_SEEDS} seeds: {all:?}");
    let Outcome { writes, reads, leaders, crashes, snapshots, changes, stalls, .. } = all;
    for (count, least) in [
        (writes, 5000),
        (reads, 2000),
        (leaders, 500),
        (crashes, 300),
        (snapshots, 20),
        (changes, 300),
        (stalls, 3),
    ] {
        assert!(count >= least, "the faults do little: {all:?}");
    }
}

#[test]
fn simulated_clusters_of_new_seeds_lose_nothing() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("ETCHED_SEED") {
        println!("{:?}", run(seed));
        return;
    }
    let time = number("ETCHED_SIM_SECONDS").map_or(TIME, Duration::from_secs);
    let began = Instant::now();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let first = now.as_nanos() as u64;
    let (mut all, mut seeds) = (Outcome::default(), 0);
    while began.elapsed() < time {
        sum(&mut all, run(first + seeds));
        seeds += 1;
    }
    println!("{seeds} seeds from {first} on: {all:?}");
}

#[test]
fn one_seed_of_a_cluster_gives_one_run() {
    for seed in [3, 4, 5] {
        assert_eq!(run(seed), run(seed));
    }
}
