//! Which crate may know which.
//!
//! `docs/ARCHITECTURE.md` says why. Direct dependencies on our own crates come from `cargo metadata`;
//! what a crate must not know even through others comes from `cargo tree`, which resolves features for
//! that crate alone.

/// What one crate may and must not know.
struct Room {
    name: &'static str,
    /// Our own crates it may depend on.
    may_use: &'static [&'static str],
    /// Packages that must not be anywhere in its dependency tree.
    must_not_reach: &'static [&'static str],
}

const NET: [&str; 5] = ["tokio", "hyper", "h2", "tonic", "http"];
const NET_AND_RAFT: [&str; 6] = ["tokio", "hyper", "h2", "tonic", "http", "raft"];
const PURE: [&str; 10] =
    ["tokio", "hyper", "h2", "tonic", "http", "raft", "redb", "rand", "getrandom", "rustix"];

const ROOMS: [Room; 16] = [
    Room { name: "etched-proto", may_use: &[], must_not_reach: &NET_AND_RAFT },
    Room { name: "etched-bolt", may_use: &["etched-proto"], must_not_reach: &NET_AND_RAFT },
    Room { name: "etched-mvcc", may_use: &["etched-proto"], must_not_reach: &PURE },
    Room { name: "etched-lease", may_use: &["etched-proto"], must_not_reach: &PURE },
    Room { name: "etched-auth", may_use: &["etched-proto"], must_not_reach: &PURE },
    Room { name: "etched-wal", may_use: &["etched-proto"], must_not_reach: &NET_AND_RAFT },
    Room {
        name: "etched-storage",
        may_use: &["etched-proto", "etched-mvcc"],
        must_not_reach: &NET_AND_RAFT,
    },
    Room {
        name: "etched-consensus",
        may_use: &["etched-proto", "etched-wal"],
        must_not_reach: &NET,
    },
    Room { name: "etched-tls", may_use: &[], must_not_reach: &NET_AND_RAFT },
    Room {
        name: "etched-transport",
        may_use: &["etched-proto"],
        must_not_reach: &["raft", "redb", "h2", "tonic"],
    },
    Room {
        name: "etched-server",
        may_use: &[
            "etched-bolt",
            "etched-proto",
            "etched-mvcc",
            "etched-lease",
            "etched-auth",
            "etched-wal",
            "etched-storage",
            "etched-consensus",
            "etched-tls",
            "etched-transport",
        ],
        must_not_reach: &[],
    },
    Room { name: "etched", may_use: &["etched-server"], must_not_reach: &[] },
    Room {
        name: "etchedutl",
        may_use: &["etched", "etched-bolt", "etched-server"],
        must_not_reach: &[],
    },
    Room {
        name: "etched-sim",
        may_use: &[
            "etched-proto",
            "etched-mvcc",
            "etched-lease",
            "etched-auth",
            "etched-wal",
            "etched-storage",
            "etched-consensus",
            "etched-server",
        ],
        must_not_reach: &[],
    },
    Room { name: "etched-fuzz", may_use: &[], must_not_reach: &PURE },
    Room { name: "xtask", may_use: &[], must_not_reach: &["etched-proto"] },
];

/// A package that only some crates may name in their own `Cargo.toml`, tests included.
const OWNED: [(&str, &[&str]); 5] = [
    ("raft", &["etched-consensus"]),
    ("redb", &["etched-storage", "etched-sim"]),
    ("hyper", &["etched-server", "etched-transport"]),
    ("h2", &["etched-server"]),
    ("prometheus", &["etched-server"]),
];

/// The fakes, and what drives decoders with damaged input: any crate's tests may use them, no crate may ship them.
const FAKES: [&str; 2] = ["etched-sim", "etched-fuzz"];

/// One dependency line of a crate.
struct Edge {
    from: String,
    to: String,
    only_in_tests: bool,
}

/// Sentences about edges that must not be.
pub(super) fn check() -> Result<Vec<String>, String> {
    let metadata = super::metadata(&["--no-deps"])?;
    let packages = super::list_of(&metadata, "packages");
    let names: Vec<&str> = packages.iter().map(|package| super::text_of(package, "name")).collect();
    let mut failures = without_room(&names);
    failures.extend(packages.iter().flat_map(edges).filter_map(|edge| refuse(&edge)));
    for room in &ROOMS {
        failures.extend(reached(room, &tree(room.name)?));
    }
    Ok(failures)
}

fn edges(package: &serde_json::Value) -> Vec<Edge> {
    let dependencies = super::list_of(package, "dependencies").iter();
    dependencies
        .map(|dependency| Edge {
            from: super::text_of(package, "name").to_owned(),
            to: super::text_of(dependency, "name").to_owned(),
            only_in_tests: super::text_of(dependency, "kind") == "dev",
        })
        .collect()
}

fn without_room(names: &[&str]) -> Vec<String> {
    let known = |name: &str| ROOMS.iter().any(|room| room.name == name);
    let new = names.iter().filter(|name| !known(name));
    let gone = ROOMS.iter().filter(|room| !names.contains(&room.name));
    new.map(|name| format!("crate {name} has no row in tidy's table of rooms"))
        .chain(gone.map(|room| format!("tidy's table of rooms names {}: no such crate", room.name)))
        .collect()
}

fn refuse(edge: &Edge) -> Option<String> {
    let Edge { from, to, only_in_tests } = edge;
    let owners = OWNED.iter().find(|(package, _)| package == to).map(|(_, owners)| owners);
    if let Some(owners) = owners.filter(|owners| !owners.contains(&from.as_str())) {
        return Some(format!("{from} names {to}, which belongs to {}", owners.join(" and ")));
    }
    let ours = ROOMS.iter().any(|room| room.name == to);
    let room = ROOMS.iter().find(|room| room.name == from)?;
    let allowed =
        room.may_use.contains(&to.as_str()) || (*only_in_tests && FAKES.contains(&to.as_str()));
    (ours && !allowed)
        .then(|| format!("{from} depends on {to}, against the direction of the rooms"))
}

/// Names of all packages that a crate is built with, tests left out.
fn tree(name: &str) -> Result<Vec<String>, String> {
    let arguments = ["tree", "-p", name, "-e", "normal", "--prefix", "none", "--format", "{p}"];
    let listing = super::output("cargo", &arguments)?;
    Ok(listing.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

fn reached(room: &Room, tree: &[String]) -> Vec<String> {
    let banned = room.must_not_reach.iter().filter(|name| tree.iter().any(|have| have == *name));
    banned
        .map(|name| format!("{} is built with {name}, which it must not know", room.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::nothing_in;
    use super::*;

    fn edge(from: &str, to: &str, only_in_tests: bool) -> Edge {
        Edge { from: from.to_owned(), to: to.to_owned(), only_in_tests }
    }

    #[test]
    fn crates_depend_on_each_other_in_one_direction() {
        nothing_in(&check().unwrap());
    }

    #[test]
    fn an_edge_against_the_direction_is_refused() {
        assert!(refuse(&edge("etched-mvcc", "etched-storage", false)).is_some());
        assert!(refuse(&edge("etched-server", "etched", true)).is_some());
        assert!(refuse(&edge("etched-storage", "etched-mvcc", false)).is_none());
    }

    #[test]
    fn the_fakes_are_for_tests_only() {
        for fake in FAKES {
            assert!(refuse(&edge("etched-wal", fake, false)).is_some());
            assert!(refuse(&edge("etched-wal", fake, true)).is_none());
        }
    }

    #[test]
    fn raft_and_redb_stay_inside_their_crates() {
        assert!(refuse(&edge("etched-server", "raft", false)).is_some());
        assert!(refuse(&edge("etched-mvcc", "redb", true)).is_some());
        assert!(refuse(&edge("etched-consensus", "raft", false)).is_none());
    }

    #[test]
    fn a_crate_without_a_row_and_a_row_without_a_crate_are_named() {
        let mut names: Vec<&str> = ROOMS.iter().map(|room| room.name).collect();
        assert!(without_room(&names).is_empty());
        names[0] = "etched-new";
        assert_eq!(without_room(&names).len(), 2);
    }

    #[test]
    fn a_banned_package_deep_in_the_tree_is_found() {
        let tree = ["etched-mvcc", "bytes", "tokio"].map(str::to_owned);
        let room = ROOMS.iter().find(|room| room.name == "etched-mvcc").unwrap();
        assert_eq!(reached(room, &tree).len(), 1);
    }
}
