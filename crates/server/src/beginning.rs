//! How a member without data begins: the cluster that it makes with others, or the one that it joins.
//!
//! ```text
//! new:      --initial-cluster ──> ids from URLs and token ──> one log entry a member, the same on each of them
//! existing: --initial-cluster ──> members of the cluster, asked for at their peer URLs ──> ids from there, no entry
//! ```
//! A member that has data finds its cluster there and comes by here only when its first start was cut short.

use crate::StartError;
use crate::cluster::Member;
use crate::config::{ClusterState, Config};
use crate::id;

/// What a first start writes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Beginning {
    pub(crate) member_id: u64,
    pub(crate) cluster_id: u64,
    /// Those that the log's first entries add, by their ids; none when a cluster is joined: its log has them.
    pub(crate) first: Vec<Member>,
    /// Members of the cluster that is joined, until the log tells of them.
    pub(crate) remotes: Vec<Member>,
}

/// What another member says of its cluster.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Joined {
    pub(crate) cluster_id: u64,
    pub(crate) members: Vec<Member>,
}

impl Beginning {
    /// A new cluster as the configuration has it.
    ///
    /// # Errors
    /// [`StartError::Bootstrap`].
    pub(crate) fn of_new(config: &Config) -> Result<Self, StartError> {
        let first = by_configuration(config)?;
        let member_id = own(config, &first)?.id;
        let ids: Vec<u64> = first.iter().map(|member| member.id).collect();
        Ok(Self { member_id, cluster_id: id::cluster_id(&ids), first, remotes: Vec::new() })
    }

    /// The cluster that is there; which of its members this one is, its URLs say.
    ///
    /// # Errors
    /// [`StartError::Bootstrap`] in etcd's words.
    pub(crate) fn of_existing(config: &Config, there: Joined) -> Result<Self, StartError> {
        let mut here = by_configuration(config)?;
        match_by_urls(&mut here, &there.members).map_err(|reason| {
            let there = shown(&there);
            StartError::Bootstrap(format!("error validating peerURLs {there}: {reason}"))
        })?;
        let learners = there.members.iter().filter(|member| member.is_learner).count();
        if learners > config.max_learners {
            let text = "membership: too many learner members in cluster";
            return Err(StartError::Bootstrap(text.to_owned()));
        }
        Ok(Self {
            member_id: own(config, &here)?.id,
            cluster_id: there.cluster_id,
            first: Vec::new(),
            remotes: there.members,
        })
    }

    /// For a restart: what a first start that was cut short would have gone on with.
    pub(crate) fn again(config: &Config) -> Option<Self> {
        match config.initial_cluster_state {
            ClusterState::New => Self::of_new(config).ok(),
            ClusterState::Existing => None,
        }
    }
}

/// Peer URLs of all but this member, in order: whom to ask for the cluster.
pub(crate) fn urls_of_others(config: &Config) -> Vec<String> {
    let others = config.first_members().into_iter().filter(|member| member.name != config.name);
    let mut urls: Vec<String> = others.flat_map(|member| member.peer_urls).collect();
    urls.sort();
    urls
}

fn by_configuration(config: &Config) -> Result<Vec<Member>, StartError> {
    let mut members = Vec::new();
    for initial in config.first_members() {
        let id = id::member_id(&initial.peer_urls, &config.initial_cluster_token);
        if members.iter().any(|member: &Member| member.id == id) {
            let text = format!("member exists with identical ID {id:x}");
            return Err(StartError::Bootstrap(text));
        }
        let (name, peer_urls) = (initial.name, initial.peer_urls);
        members.push(Member { id, name, peer_urls, ..Member::default() });
    }
    members.sort_by_key(|member| member.id);
    Ok(members)
}

fn own<'m>(config: &Config, members: &'m [Member]) -> Result<&'m Member, StartError> {
    let name = &config.name;
    members.iter().find(|member| member.name == *name).ok_or_else(|| {
        let text =
            format!("couldn't find local name {name:?} in the initial cluster configuration");
        StartError::Bootstrap(text)
    })
}

/// Gives those here the ids of those there that have the same URLs.
fn match_by_urls(here: &mut [Member], there: &[Member]) -> Result<(), String> {
    if here.len() != there.len() {
        return Err("member count is unequal".to_owned());
    }
    let mut matched = vec![false; here.len()];
    for member in there {
        let urls = sorted(&member.peer_urls);
        let place =
            here.iter().position(|own| sorted(&own.peer_urls) == urls).ok_or_else(|| {
                let (id, urls) = (member.id, member.peer_urls.join(" "));
                format!("PeerURLs: no match found for existing member ({id:x}, [{urls}])")
            })?;
        here[place].id = member.id;
        matched[place] = true;
    }
    if matched.contains(&false) {
        return Err("two members have the same peer URLs".to_owned());
    }
    Ok(())
}

fn sorted(urls: &[String]) -> Vec<String> {
    let mut urls: Vec<String> = urls.iter().map(|url| same_host(url)).collect();
    urls.sort();
    urls
}

/// `localhost` and its address are the same; other names are not looked up.
fn same_host(url: &str) -> String {
    url.replacen("://localhost:", "://127.0.0.1:", 1)
}

fn shown(there: &Joined) -> String {
    let members: Vec<String> = there
        .members
        .iter()
        .map(|member| format!("{:x}:{}", member.id, member.peer_urls.join(",")))
        .collect();
    format!("{{ClusterID:{:x} Members:[{}]}}", there.cluster_id, members.join(" "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use etched_sim::SimDisk;

    use super::*;
    use crate::config::InitialMember;
    use crate::crash_tests;

    fn config(name: &str) -> Config {
        let member = |name: &str, url: &str| InitialMember {
            name: name.to_owned(),
            peer_urls: vec![url.to_owned()],
        };
        Config {
            name: name.to_owned(),
            initial_cluster: vec![
                member("a", "http://127.0.0.1:12380"),
                member("b", "http://127.0.0.1:22380"),
                member("c", "http://127.0.0.1:32380"),
            ],
            ..Config::default()
        }
    }

    fn there(urls: &[(u64, &str)]) -> Joined {
        let member = |&(id, url): &(u64, &str)| Member {
            id,
            peer_urls: vec![url.to_owned()],
            ..Member::default()
        };
        Joined { cluster_id: 9, members: urls.iter().map(member).collect() }
    }

    #[test]
    fn all_members_of_a_new_cluster_begin_with_the_same_entries() {
        let (a, b) = (Beginning::of_new(&config("a")), Beginning::of_new(&config("b")));
        let (a, b) = (a.expect("a cluster"), b.expect("a cluster"));
        assert_eq!((&a.first, a.cluster_id), (&b.first, b.cluster_id));
        assert_ne!(a.member_id, b.member_id);
        assert!(a.first.is_sorted_by_key(|member| member.id));
        // As etcd 3.7.1 computes them for these URLs and the default token.
        assert_eq!(format!("{:x}", a.cluster_id), CLUSTER);
        let ids: Vec<String> = a.first.iter().map(|member| format!("{:x}", member.id)).collect();
        assert_eq!(ids, MEMBERS);
    }

    const CLUSTER: &str = "73841b4a9097c907";
    const MEMBERS: [&str; 3] = ["628170c800dbcee", "9e737febb6b99eee", "ddd67b312462fd7b"];

    #[test]
    fn a_member_that_joins_has_the_id_that_it_was_added_with() {
        let here = config("b");
        let known = [
            (7, "http://localhost:22380"),
            (3, "http://127.0.0.1:12380"),
            (5, "http://127.0.0.1:32380"),
        ];
        let begins = Beginning::of_existing(&here, there(&known)).expect("all are there");
        assert_eq!((begins.member_id, begins.cluster_id), (7, 9));
        assert!(begins.first.is_empty());
        assert_eq!(begins.remotes.len(), 3);
    }

    #[test]
    fn who_is_not_in_the_cluster_does_not_join_it() {
        let refused = |known: &[(u64, &str)]| {
            Beginning::of_existing(&config("b"), there(known)).expect_err("not there").to_string()
        };
        let two = [(3, "http://127.0.0.1:12380"), (5, "http://127.0.0.1:32380")];
        assert!(refused(&two).ends_with("member count is unequal"));
        let other = [two[0], two[1], (7, "http://127.0.0.1:9")];
        let text = refused(&other);
        assert!(text.starts_with("error validating peerURLs {ClusterID:9 Members:["), "{text}");
        assert!(
            text.contains("no match found for existing member (7, [http://127.0.0.1:9])"),
            "{text}"
        );
        assert!(refused(&[two[0], two[1], two[1]]).contains("same peer URLs"));
    }

    #[test]
    fn a_name_that_is_in_no_cluster_is_refused() {
        let refused = Beginning::of_new(&config("d")).expect_err("no d").to_string();
        assert_eq!(refused, "couldn't find local name \"d\" in the initial cluster configuration");
    }

    #[test]
    fn a_forced_new_cluster_has_this_member_alone_and_all_that_was_committed() {
        let disk = SimDisk::new();
        let with_others = Config { data_dir: "/data".into(), ..config("b") };
        let booted = crash_tests::start_as(&disk, with_others.clone()).expect("a first start");
        assert_eq!(booted.shared.cluster.read().members.len(), 3);
        assert!(!*booted.shared.published.borrow(), "without the others there is no leader");
        let own = booted.shared.member_id;
        drop(booted);
        // What --force-new-cluster says.
        let forced = Config { force_new_cluster: true, ..with_others };
        let booted = crash_tests::start_as(&disk, forced.clone()).expect("a forced start");
        let shared = Arc::clone(&booted.shared);
        let members: Vec<u64> = shared.cluster.read().members.keys().copied().collect();
        assert_eq!((members, shared.cluster.read().removed.len()), (vec![own], 2));
        assert!(*shared.published.borrow() && shared.is_leader());
        drop((booted, shared));
        let again = crash_tests::start_as(&disk, forced).expect("it may be asked for again");
        assert_eq!(again.shared.cluster.read().members.len(), 1);
    }
}
