//! A store with a long history: watchers that resume, compaction, defragmentation, each beside puts.

use super::super::target::Want::{AtMost, RatioAtMost};
use super::{Group, MEBIBYTE, Run, Scenario, target};

pub(super) const GROUP: Group = Group {
    name: "history",
    prepare,
    scenarios: &[
        Scenario {
            name: "resume",
            what: "100 watchers resume far back, beside 1,000 Puts/s",
            rounds: u64::MAX,
            targets: &[
                target("p99 during / before", AtMost(2.0)),
                target("until all caught up", RatioAtMost(1.0 / 3.0)),
            ],
            run: resume,
        },
        Scenario {
            name: "compact",
            what: "compaction of all old versions beside 5,000 Puts/s",
            rounds: u64::MAX,
            targets: &[target("p99 during / before", AtMost(1.5))],
            run: compact,
        },
        Scenario {
            name: "defrag",
            what: "defragmentation after it beside 5,000 Puts/s",
            rounds: u64::MAX,
            targets: &[
                target("p99 during / before", AtMost(2.0)),
                target("file after / live data", AtMost(1.2)),
            ],
            run: defragment,
        },
    ],
};

fn prepare(run: &mut Run) -> Result<(), String> {
    run.store.start()?;
    run.load(&command(run, "fill"))?;
    let versions = run.scale.old_versions;
    run.load(&command(run, &format!("put -clients=1000 -conns=100 -total={versions}"))).map(drop)
}

/// A command of the load generator on the keys of this store.
fn command(run: &Run, words: &str) -> String {
    format!("{words} -keys={}", run.scale.few_keys)
}

fn resume(run: &mut Run) -> Result<(), String> {
    let (behind, seconds) = (run.scale.behind, run.scale.seconds);
    let words = format!("resume -watchers=100 -history={behind} -rate=1000 -seconds={seconds}");
    let report = run.load(&command(run, &words))?;
    run.add_before_and_during(&report)?;
    run.add("until all caught up", "s", report.value("seconds until all caught up")?);
    Ok(())
}

fn compact(run: &mut Run) -> Result<(), String> {
    let words = format!("compact -rate=5000 -seconds={}", run.scale.seconds);
    let report = run.load(&command(run, &words))?;
    run.add_before_and_during(&report)?;
    run.add("compaction takes", "s", report.value("seconds to compact")?);
    Ok(())
}

fn defragment(run: &mut Run) -> Result<(), String> {
    let words = format!("defrag -rate=5000 -seconds={}", run.scale.seconds);
    let report = run.load(&command(run, &words))?;
    run.add_before_and_during(&report)?;
    run.add("defragmentation takes", "s", report.value("seconds to defragment")?);
    let after = report.value("file after, bytes")?;
    run.add("file before", "MiB", report.value("file before, bytes")? / MEBIBYTE);
    run.add("file after", "MiB", after / MEBIBYTE);
    run.add("file after / live data", "", after / report.value("live keys and values, bytes")?);
    Ok(())
}
