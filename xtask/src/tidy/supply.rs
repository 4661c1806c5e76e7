//! Where packages come from, and under which licence.
//!
//! A light form of `cargo deny check bans licenses sources`, which takes minutes to install: the allowed
//! licences, the registry and the banned packages are read from `deny.toml`, so both always agree.
//! Duplicates and advisories are cargo-deny's alone.

/// Sentences about packages that must not come in.
pub(super) fn check() -> Result<Vec<String>, String> {
    let read = |name: &str| {
        std::fs::read_to_string(crate::root().join(name))
            .map_err(|error| format!("{name}: {error}"))
    };
    let deny = read("deny.toml")?;
    let mut failures = foreign_sources(&read("Cargo.lock")?, &quoted(&deny, "allow-registry"));
    let licences = quoted(&deny, "allow");
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = super::metadata(&["--all-features", "--filter-platform", &platform])?;
    for package in super::list_of(&metadata, "packages") {
        let licence = super::text_of(package, "license");
        if !allowed(licence, &licences) {
            let name = super::text_of(package, "name");
            failures.push(format!("{name} has the licence {licence:?}, not allowed by deny.toml"));
        }
    }
    failures.extend(banned(&bans(&deny), &edges(&metadata)));
    Ok(failures)
}

/// A package that only `wrappers` may depend on.
struct Ban {
    package: String,
    wrappers: Vec<String>,
}

/// The lines `{ crate = "..", wrappers = ["..", ".."], .. }`.
fn bans(toml: &str) -> Vec<Ban> {
    let words = |text: &str| text.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    let ban = |line: &str| {
        let rest = line.trim().strip_prefix("{ crate = \"")?;
        let (package, rest) = rest.split_once('"')?;
        let wrappers = rest.split_once("wrappers = [").and_then(|(_, list)| list.split_once(']'));
        let wrappers = wrappers.map(|(list, _)| words(list)).unwrap_or_default();
        Some(Ban { package: package.to_owned(), wrappers })
    };
    toml.lines().filter_map(ban).collect()
}

/// Which package depends directly on which, by their names.
fn edges(metadata: &serde_json::Value) -> Vec<(String, String)> {
    let packages = super::list_of(metadata, "packages");
    let name = |id: &str| {
        let package = packages.iter().find(|package| super::text_of(package, "id") == id);
        package.map_or("", |package| super::text_of(package, "name")).to_owned()
    };
    let mut edges = Vec::new();
    for node in super::list_of(&metadata["resolve"], "nodes") {
        let from = name(super::text_of(node, "id"));
        let to = super::list_of(node, "dependencies").iter().filter_map(|id| id.as_str());
        edges.extend(to.map(|id| (from.clone(), name(id))));
    }
    edges
}

fn banned(bans: &[Ban], edges: &[(String, String)]) -> Vec<String> {
    let mut failures = Vec::new();
    for Ban { package, wrappers } in bans {
        let wrong = edges.iter().filter(|(from, to)| to == package && !wrappers.contains(from));
        failures.extend(
            wrong.map(|(from, _)| format!("{from} depends on {package}, banned by deny.toml")),
        );
    }
    failures
}

/// The quoted words of the line `key = ["..", ".."]`.
fn quoted(toml: &str, key: &str) -> Vec<String> {
    let line = toml.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix('='));
    line.unwrap_or_default().split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn foreign_sources(lock: &str, registries: &[String]) -> Vec<String> {
    let sources = lock.lines().filter_map(|line| line.strip_prefix("source = "));
    let foreign = sources.map(|source| source.trim_matches('"')).filter(|source| {
        !source
            .strip_prefix("registry+")
            .is_some_and(|registry| registries.iter().any(|allowed| allowed == registry))
    });
    foreign.map(|source| format!("Cargo.lock takes a package from {source}")).collect()
}

/// Whether an SPDX expression can be met by the licences alone. An alternative is enough for `OR` (also
/// written `/`); every part is needed for `AND`, which binds the groups that packages use.
fn allowed(expression: &str, licences: &[String]) -> bool {
    expression.split(" AND ").all(|part| {
        let part = part.trim_matches(['(', ')', ' ']);
        part.replace('/', " OR ")
            .split(" OR ")
            .any(|licence| licences.iter().any(|known| known == licence.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::nothing_in;
    use super::*;

    #[test]
    fn packages_come_from_where_and_under_what_deny_toml_allows() {
        nothing_in(&check().unwrap());
    }

    #[test]
    fn an_expression_is_met_by_one_alternative_and_by_all_its_parts() {
        let licences = ["MIT".to_owned(), "Unicode-3.0".to_owned()];
        for met in ["MIT", "Apache-2.0/MIT", "MPL-2.0 OR MIT", "(MIT OR Zlib) AND Unicode-3.0"] {
            assert!(allowed(met, &licences), "{met}");
        }
        for not_met in ["", "MPL-2.0", "MIT AND GPL-3.0", "Apache-2.0 WITH LLVM-exception"] {
            assert!(!allowed(not_met, &licences), "{not_met}");
        }
    }

    #[test]
    fn a_banned_package_may_be_used_by_its_wrappers_only() {
        let bans = bans(
            "deny = [\n    { crate = \"a\", wrappers = [\"b\", \"c\"], reason = \"r\" },\n    { crate = \"d\", reason = \"r\" },\n]\n",
        );
        let edges = [("b", "a"), ("x", "a"), ("b", "d"), ("b", "e")];
        let edges = edges.map(|(from, to)| (from.to_owned(), to.to_owned()));
        let said = ["x depends on a, banned by deny.toml", "b depends on d, banned by deny.toml"];
        assert_eq!(banned(&bans, &edges), said);
    }

    #[test]
    fn a_package_from_git_or_another_registry_is_found() {
        let lock = "source = \"registry+https://a\"\nsource = \"git+https://b\"\n\
                    source = \"registry+https://c\"\n";
        assert_eq!(foreign_sources(lock, &["https://a".to_owned()]).len(), 2);
    }
}
