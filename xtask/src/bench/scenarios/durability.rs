//! Durability is checked, not believed: the system calls of a server under a small load of puts.

use std::process::Command;

use super::super::strace::{Trace, judge};
use super::super::target::Want::{AtMost, RatioAtMost};
use super::{Group, Run, Scenario, target};

pub(super) const GROUP: Group = Group {
    name: "durability",
    prepare: |_| Ok(()),
    scenarios: &[Scenario {
        name: "durability",
        what: "strace: a completed fdatasync of the log before each answer, 20 clients",
        rounds: 1,
        targets: &[
            target("answers without an fdatasync", AtMost(0.0)),
            target("fdatasyncs of the log per op", RatioAtMost(1.0)),
        ],
        run: durability,
    }],
};

/// Each client has a connection of its own, so that on a connection a request, its fdatasync and its
/// answer follow one another; batches form across connections.
const CLIENTS: u64 = 20;
const PUTS: u64 = 1000;
const SYSTEM_CALLS: &str =
    "trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,fdatasync,fsync";

fn durability(run: &mut Run) -> Result<(), String> {
    let probe = Command::new("strace").arg("--version").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return Err("strace is not there, which shows the system calls (Debian: strace)".to_owned());
    }
    let file = run.store.folder().join("trace");
    let output = format!("--output={}", file.display());
    // as a grandchild, so that the server is the process that was started
    let words =
        ["strace", "--daemonize=grandchild", "-f", "-yy", "-s", "0", "-e", SYSTEM_CALLS, &output];
    run.store.start_under(&words.map(str::to_owned))?;
    run.load(&format!("put -clients={CLIENTS} -conns={CLIENTS} -total={PUTS} -keys=1000"))?;
    let endpoint = run.store.server()?.endpoint.clone();
    run.store.stop()?;
    let text = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let trace = Trace::parse(&String::from_utf8_lossy(&text));
    let verdict = judge(&trace, &endpoint);
    if verdict.answers < PUTS {
        return Err(format!("the trace shows {} answers of {PUTS}", verdict.answers));
    }
    let answers = verdict.answers as f64;
    run.add("answers", "", answers);
    run.add("answers without an fdatasync", "", verdict.unsafe_answers as f64);
    run.add("fdatasyncs of the log per op", "", verdict.log_syncs as f64 / answers);
    run.add("all fdatasyncs and fsyncs per op", "", verdict.all_syncs as f64 / answers);
    Ok(())
}
