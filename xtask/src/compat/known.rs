//! What the sources know of etcd's surface: all of it has a row, and every row stands for something.

use std::collections::BTreeSet;

use super::table::Table;
use crate::tidy::TextFile;

/// Services that are in no `.proto` file here.
const FOREIGN: [&str; 1] = ["grpc.health.v1.Health"];

/// Sentences about what has no row, and about rows of nothing.
pub(super) fn without_row(files: &[TextFile], tables: &[Table]) -> Vec<String> {
    let mut failures = Vec::new();
    let mut compare = |table: &str, wanted: BTreeSet<String>| {
        let rows = rows_of(tables, table);
        failures
            .extend(wanted.difference(&rows).map(|name| format!("{name} has no row in {table}")));
        failures.extend(
            rows.difference(&wanted).map(|name| format!("a row in {table}: there is no {name}")),
        );
    };
    compare("calls", calls(files));
    compare("routes", quoted(files, "crates/server/src/gateway/routes.rs", "    (\"/v3/", "/v3/"));
    compare("flags", flags(files, "flag"));
    compare("ignored", flags(files, "flag-ignored"));
    compare("gates", gates(files));
    let rows = rows_of(tables, "metrics");
    let without = metrics(files).into_iter().filter(|name| !rows.contains(name));
    failures.extend(without.map(|name| format!("{name} has no row in metrics")));
    failures
}

/// Names of a table; those of calls with their service.
fn rows_of(tables: &[Table], name: &str) -> BTreeSet<String> {
    let Some(table) = tables.iter().find(|table| table.name == name) else {
        return BTreeSet::new();
    };
    let names = table.rows.iter().flat_map(|row| {
        let service = row.cells[0].rsplit('.').next().unwrap_or_default();
        table.names(row).into_iter().map(move |name| match name {
            _ if FOREIGN.contains(&row.cells[0].as_str()) => String::new(),
            name if table.name == "calls" => format!("{service}.{name}"),
            name => name.to_owned(),
        })
    });
    names.filter(|name| !name.is_empty()).collect()
}

/// The methods of the `.proto` files.
fn calls(files: &[TextFile]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files.iter().filter(|file| file.path.ends_with(".proto")) {
        let mut service = "";
        for line in file.text.lines().map(str::trim) {
            let word = |line: &str| line.split([' ', '(', '{']).next().unwrap_or_default().len();
            if let Some(rest) = line.strip_prefix("service ") {
                service = &rest[..word(rest)];
            } else if let Some(rest) = line.strip_prefix("rpc ") {
                found.insert(format!("{service}.{}", &rest[..word(rest)]));
            }
        }
    }
    found
}

/// What stands in quotes at the beginning of lines that begin so.
fn quoted(files: &[TextFile], path: &str, begin: &str, keep: &str) -> BTreeSet<String> {
    let text = files.iter().find(|file| file.path == path).map_or("", |file| file.text.as_str());
    let rests = text.lines().filter_map(|line| line.strip_prefix(begin)?.split('"').next());
    rests.map(|rest| format!("{keep}{rest}")).collect()
}

/// Flags of that kind, from the facts that a test holds the flags to.
fn flags(files: &[TextFile], kind: &str) -> BTreeSet<String> {
    let path = "crates/etched/tests/flag_facts.tsv";
    let text = files.iter().find(|file| file.path == path).map_or("", |file| file.text.as_str());
    let lines = text.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix('\t'));
    lines.filter_map(|line| line.split('\t').next()).map(str::to_owned).collect()
}

fn gates(files: &[TextFile]) -> BTreeSet<String> {
    let mut gates = quoted(files, "crates/etched/src/feature_gates.rs", "        name: \"", "");
    gates.extend(["AllAlpha", "AllBeta"].map(str::to_owned));
    gates
}

/// Names of metrics in the server's sources. A few are put together there; a test on both servers sees those.
fn metrics(files: &[TextFile]) -> BTreeSet<String> {
    let folders = ["crates/server/src/metrics/", "crates/server/src/http/"];
    let own =
        files.iter().filter(|file| folders.iter().any(|folder| file.path.starts_with(folder)));
    let quoted = own.flat_map(|file| file.text.split('"').skip(1));
    let begins = ["etcd_", "grpc_server_", "process_", "os_fd_", "promhttp_"];
    let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    quoted
        .filter(|text| begins.iter().any(|begin| text.starts_with(begin)) && text.chars().all(part))
        .map(str::to_owned)
        .collect()
}
