//! The first start, and what an idle server takes.

use super::super::server::Memory;
use super::super::target::Want::AtMost;
use super::{Group, MEBIBYTE, Run, Scenario, target};

pub(super) const GROUP: Group = Group {
    name: "start",
    prepare: |_| Ok(()),
    scenarios: &[Scenario {
        name: "start",
        what: "first start on an empty folder, idle",
        rounds: u64::MAX,
        targets: &[target("ready after", AtMost(100.0)), target("resident memory", AtMost(12.0))],
        run: first_start,
    }],
};

fn first_start(run: &mut Run) -> Result<(), String> {
    run.store.start()?;
    let server = run.store.server()?;
    let (memory, ready) = (server.memory(Memory::Now)?, server.ready_after);
    let stopping = run.store.stop()?;
    run.add("ready after", "ms", ready.as_secs_f64() * 1e3);
    run.add("resident memory", "MiB", memory / MEBIBYTE);
    run.add("SIGTERM to exit", "ms", stopping.as_secs_f64() * 1e3);
    Ok(())
}
