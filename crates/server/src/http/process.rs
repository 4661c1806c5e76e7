//! What the kernel says of this process, for `/metrics` and `/debug/vars`.

use crate::metrics::{StateValues, Totals};

/// Clock ticks of `/proc/<pid>/stat` in a second; fixed by the kernel's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// Fills in the process's part; what cannot be read stays 0.
pub(super) fn observe(values: &mut StateValues, totals: &mut Totals) {
    let stat = read("/proc/self/stat");
    // The command name may hold spaces: fields are counted behind its closing bracket.
    let fields: Vec<f64> = stat
        .rsplit_once(") ")
        .map(|(_, rest)| rest.split(' ').map(|field| field.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
    totals.cpu_seconds = (field(14) + field(15)) / TICKS_PER_SECOND;
    values.virtual_memory = field(23);
    values.resident = field(24) * 4096.0;
    values.start_time = boot_time() + field(22) / TICKS_PER_SECOND;
    values.open_fds =
        std::fs::read_dir("/proc/self/fd").map_or(0.0, |entries| entries.count() as f64);
    values.fd_used = values.open_fds;
    values.max_fds = limit("Max open files");
    values.virtual_memory_max = limit("Max address space");
    (totals.network_received, totals.network_sent) = network();
    values.fd_limit = values.max_fds;
}

/// The body of `/debug/vars`: Go's expvar layout, one key a line.
pub(super) fn vars() -> String {
    let command: Vec<String> = std::env::args().collect();
    let command = serde_json::to_string(&command).expect("strings always serialize");
    let mut values = StateValues::default();
    observe(&mut values, &mut Totals::default());
    format!(
        "{{\n\"cmdline\": {command},\n\"file_descriptor_limit\": {},\n\"memstats\": {{\"Sys\":{}}}\n}}\n",
        values.max_fds, values.resident
    )
}

fn boot_time() -> f64 {
    read("/proc/stat")
        .lines()
        .find_map(|line| line.strip_prefix("btime "))
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or_default()
}

/// A soft limit; none is said as the largest number, as etcd's library says it.
fn limit(name: &str) -> f64 {
    let limits = read("/proc/self/limits");
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next());
    match soft {
        Some("unlimited") => u64::MAX as f64,
        soft => soft.and_then(|soft| soft.parse().ok()).unwrap_or_default(),
    }
}

/// Bytes received and sent over IP: a line of names, then one of values.
fn network() -> (u64, u64) {
    let text = read("/proc/self/net/netstat");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let value = |wanted: &str| {
        let mut both = names.split(' ').zip(values.split(' '));
        both.find(|(name, _)| *name == wanted)
            .and_then(|(_, value)| value.parse().ok())
            .unwrap_or(0)
    };
    (value("InOctets"), value("OutOctets"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_files_and_a_start() {
        let (mut values, mut totals) = (StateValues::default(), Totals::default());
        observe(&mut values, &mut totals);
        assert!(values.resident > 100_000.0);
        assert!(values.open_fds >= 1.0 && values.max_fds >= values.open_fds);
        assert!(values.start_time > 1_000_000_000.0);
        assert!(values.virtual_memory_max > values.resident);
    }
}
