//! Which changes of the membership count: etcd's rules, the same on every member.
//!
//! ```text
//! entry of the log ──decode──> ConfChange ──validate──> Change ──> raft, Cluster
//!                                             └──> Refused: raft and the rows stay as they are
//! ```
//! Whoever proposed a change looked at the members of that moment, a lone etcd hardly at all; so each is judged again
//! when it is applied, from nothing but the change and the members there. That a change is in the log says only that
//! it was asked for: whoever counts members by the log goes through here too.
//!
//! Order matters, because an entry may break several rules and an unreadable one stops the server: what is refused
//! before a member is read from the entry stays refused whatever stands there.

use std::collections::{BTreeMap, BTreeSet};

use etched_consensus::{ConfChange, ConfChangeKind, Entry, EntryKind};

use crate::cluster::{Cluster, Member};

/// What a change that counts does to the members.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// There is one more, a voter or a learner.
    Add(Member),
    /// A learner becomes a voter.
    Promote(u64),
    /// A member leaves, and its id never comes back.
    Remove(u64),
    /// A member has other peer URLs.
    PeerUrls(u64, Vec<String>),
}

/// Why a committed change does nothing; in etcd's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The id was a member's that left.
    #[error("membership: ID removed")]
    IdRemoved,
    /// To be added, but it is there.
    #[error("membership: ID exists")]
    IdExists,
    /// To be changed, but it is not there.
    #[error("membership: ID not found")]
    IdNotFound,
    /// Another member has one of the URLs.
    #[error("membership: peerURL exists")]
    PeerUrlExists,
    /// To be promoted, but it votes already.
    #[error("membership: can only promote a learner member")]
    NotLearner,
    /// There are as many learners as there may be.
    #[error("membership: too many learner members in cluster")]
    TooManyLearners,
}

/// Why a committed change is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// The same on every member: the log goes on.
    Refused(Refusal),
    /// It cannot be read, which stops an etcd as well: to skip it would be to differ from those that can.
    Malformed(String),
}

impl From<Refusal> for Invalid {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The JSON beside a new member or a promotion.
#[derive(serde::Deserialize)]
struct Context {
    #[serde(flatten)]
    member: Member,
    #[serde(rename = "isPromote", default)]
    is_promote: bool,
}

/// What `change` does to `members`, when `removed` have left and there may be `learners_max` learners.
///
/// # Errors
/// [`Invalid`].
pub(crate) fn validate(
    change: &ConfChange,
    members: &BTreeMap<u64, Member>,
    removed: &BTreeSet<u64>,
    learners_max: usize,
) -> Result<Change, Invalid> {
    let id = change.node_id;
    if removed.contains(&id) {
        return Err(Refusal::IdRemoved.into());
    }
    let known = members.get(&id);
    match change.kind {
        ConfChangeKind::AddNode | ConfChangeKind::AddLearnerNode => {
            let Context { member, is_promote } = read(change)?;
            if is_promote {
                match known {
                    None => return Err(Refusal::IdNotFound.into()),
                    Some(known) if !known.is_learner => return Err(Refusal::NotLearner.into()),
                    Some(_) => {}
                }
                return same_id(id, &member).map(|()| Change::Promote(id));
            }
            if known.is_some() {
                return Err(Refusal::IdExists.into());
            }
            urls_are_free(&member.peer_urls, members.values())?;
            // A voter whose JSON says learner is not counted, whatever it means.
            let learns = change.kind == ConfChangeKind::AddLearnerNode && member.is_learner;
            let learners = members.values().filter(|member| member.is_learner).count();
            if learns && learners >= learners_max {
                return Err(Refusal::TooManyLearners.into());
            }
            same_id(id, &member).map(|()| Change::Add(member))
        }
        ConfChangeKind::RemoveNode if known.is_none() => Err(Refusal::IdNotFound.into()),
        ConfChangeKind::RemoveNode => Ok(Change::Remove(id)),
        ConfChangeKind::UpdateNode if known.is_none() => Err(Refusal::IdNotFound.into()),
        ConfChangeKind::UpdateNode => {
            let member: Member = read(change)?;
            urls_are_free(&member.peer_urls, members.values().filter(|other| other.id != id))?;
            same_id(id, &member).map(|()| Change::PeerUrls(id, member.peer_urls))
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(change: &ConfChange) -> Result<T, Invalid> {
    serde_json::from_slice(&change.context)
        .map_err(|error| Invalid::Malformed(format!("its member does not read: {error}")))
}

fn same_id(id: u64, member: &Member) -> Result<(), Invalid> {
    if member.id == id {
        return Ok(());
    }
    let reason = format!("it is of member {id:x}, but what stands beside is of {:x}", member.id);
    Err(Invalid::Malformed(reason))
}

fn urls_are_free<'m>(
    urls: &[String],
    mut others: impl Iterator<Item = &'m Member>,
) -> Result<(), Refusal> {
    let taken = others.any(|other| urls.iter().any(|url| other.peer_urls.contains(url)));
    if taken { Err(Refusal::PeerUrlExists) } else { Ok(()) }
}

/// The change in an entry that is no normal one.
///
/// # Errors
/// [`etched_consensus::Error::BadConfChange`]; also for one of several members at once, which no etcd proposes.
pub(crate) fn decode(entry: &Entry) -> Result<ConfChange, etched_consensus::Error> {
    let change = match entry.kind {
        EntryKind::ConfChangeV2 => Err("it changes several members at once".to_owned()),
        EntryKind::Normal | EntryKind::ConfChange => ConfChange::decode(entry.data.clone()),
    };
    change.map_err(|reason| bad(entry, reason))
}

/// An entry that stops the server.
pub(crate) fn bad(entry: &Entry, reason: String) -> etched_consensus::Error {
    etched_consensus::Error::BadConfChange { index: entry.index, reason }
}

/// Brings the members of `cluster` to where they are behind `entries`.
///
/// # Errors
/// [`etched_consensus::Error::BadConfChange`].
pub(crate) fn follow<'e>(
    cluster: &mut Cluster,
    entries: impl IntoIterator<Item = &'e Entry>,
    learners_max: usize,
) -> Result<(), etched_consensus::Error> {
    for entry in entries.into_iter().filter(|entry| entry.kind != EntryKind::Normal) {
        match cluster.validate(&decode(entry)?, learners_max) {
            Ok(change) => drop(cluster.change_members(change)),
            Err(Invalid::Refused(_)) => {}
            Err(Invalid::Malformed(reason)) => return Err(bad(entry, reason)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    use ConfChangeKind::{AddLearnerNode, AddNode, RemoveNode, UpdateNode};

    /// A voter 1, a learner 2, and 3 that left.
    fn cluster() -> Cluster {
        let member = |id: u64, is_learner| Member {
            id,
            peer_urls: vec![format!("http://{id}")],
            is_learner,
            ..Member::default()
        };
        let mut cluster = Cluster::default();
        for member in [member(1, false), member(2, true)] {
            cluster.members.insert(member.id, member);
        }
        cluster.removed.insert(3);
        cluster
    }

    fn change(kind: ConfChangeKind, node_id: u64, context: &str) -> ConfChange {
        ConfChange { id: 1, kind, node_id, context: Bytes::copy_from_slice(context.as_bytes()) }
    }

    /// What etcd 3.7.1 says of each of these, in its order.
    #[test]
    fn a_change_counts_by_etcds_rules_in_etcds_order() {
        use Refusal::{
            IdExists, IdNotFound, IdRemoved, NotLearner, PeerUrlExists, TooManyLearners,
        };
        let free = r#"{"id":4,"peerURLs":["http://4"],"name":""}"#;
        let learner = r#"{"id":4,"peerURLs":["http://4"],"isLearner":true}"#;
        let taken = r#"{"id":4,"peerURLs":["http://5","http://2"]}"#;
        let taken_learner = r#"{"id":4,"peerURLs":["http://1"],"isLearner":true}"#;
        let promote = |id| format!(r#"{{"id":{id},"peerURLs":null,"isPromote":true}}"#);
        let own = r#"{"id":1,"peerURLs":["http://1"]}"#;
        let refused: [(ConfChangeKind, u64, &str, Refusal); 18] = [
            (AddNode, 3, free, IdRemoved),
            (AddLearnerNode, 3, "no JSON", IdRemoved),
            (AddNode, 3, &promote(3), IdRemoved),
            (RemoveNode, 3, "", IdRemoved),
            (UpdateNode, 3, own, IdRemoved),
            (AddNode, 1, own, IdExists),
            // An id that is there goes before its URLs, and both before what the entry says of the id.
            (AddNode, 2, taken, IdExists),
            (AddNode, 4, taken, PeerUrlExists),
            (AddNode, 9, taken, PeerUrlExists),
            (AddLearnerNode, 4, taken_learner, PeerUrlExists),
            (AddLearnerNode, 4, learner, TooManyLearners),
            (AddNode, 4, &promote(4), IdNotFound),
            (AddNode, 1, &promote(1), NotLearner),
            (RemoveNode, 4, "", IdNotFound),
            (UpdateNode, 4, free, IdNotFound),
            (UpdateNode, 4, "no JSON", IdNotFound),
            (UpdateNode, 1, r#"{"id":1,"peerURLs":["http://2"]}"#, PeerUrlExists),
            (UpdateNode, 2, r#"{"id":9,"peerURLs":["http://1"]}"#, PeerUrlExists),
        ];
        for (kind, id, context, refusal) in refused {
            let found = cluster().validate(&change(kind, id, context), 1);
            assert_eq!(found, Err(Invalid::Refused(refusal)), "{kind:?} {id} {context}");
        }
        let four = |is_learner| Member {
            id: 4,
            peer_urls: vec!["http://4".to_owned()],
            is_learner,
            ..Member::default()
        };
        let done: [(ConfChangeKind, u64, &str, Change); 8] = [
            (AddNode, 4, free, Change::Add(four(false))),
            // The number of learners counts only for one that raft is told to be one as well.
            (AddNode, 4, learner, Change::Add(four(true))),
            (AddLearnerNode, 4, free, Change::Add(four(false))),
            (AddNode, 2, &promote(2), Change::Promote(2)),
            (RemoveNode, 2, "no JSON", Change::Remove(2)),
            (RemoveNode, 1, "", Change::Remove(1)),
            (UpdateNode, 1, own, Change::PeerUrls(1, vec!["http://1".to_owned()])),
            (UpdateNode, 2, r#"{"id":2,"peerURLs":null}"#, Change::PeerUrls(2, vec![])),
        ];
        for (kind, id, context, expected) in done {
            let found = cluster().validate(&change(kind, id, context), 1);
            assert_eq!(found, Ok(expected), "{kind:?} {id} {context}");
        }
    }

    #[test]
    fn what_stops_an_etcd_is_no_refusal() {
        for (kind, id, context) in [
            (AddNode, 4, ""),
            (AddNode, 4, "no JSON"),
            (AddNode, 4, r#"{"id":5,"peerURLs":["http://4"]}"#),
            (AddNode, 4, r#"{"peerURLs":["http://4"]}"#),
            (AddNode, 2, r#"{"id":1,"isPromote":true}"#),
            (UpdateNode, 1, ""),
            (UpdateNode, 1, r#"{"id":2,"peerURLs":["http://9"]}"#),
        ] {
            let found = cluster().validate(&change(kind, id, context), 1);
            assert!(matches!(found, Err(Invalid::Malformed(_))), "{kind:?} {context}: {found:?}");
        }
    }

    #[test]
    fn the_first_learner_is_not_one_too_many() {
        let mut cluster = cluster();
        cluster.members.remove(&2);
        let learner = change(AddLearnerNode, 4, r#"{"id":4,"peerURLs":null,"isLearner":true}"#);
        assert!(matches!(cluster.validate(&learner, 1), Ok(Change::Add(_))));
    }

    #[test]
    fn members_are_followed_through_a_log_and_what_was_refused_there_is_passed() {
        let entry = |index, change: ConfChange| Entry {
            term: 1,
            index,
            kind: EntryKind::ConfChange,
            data: change.encode(),
        };
        let mut entries = vec![
            entry(7, change(RemoveNode, 4, "")),
            Entry { term: 1, index: 8, ..Entry::default() },
            entry(9, change(AddNode, 2, r#"{"id":2,"isPromote":true}"#)),
            entry(10, change(UpdateNode, 2, r#"{"id":2,"peerURLs":["http://5"]}"#)),
            entry(11, change(RemoveNode, 1, "")),
            entry(12, change(AddNode, 1, r#"{"id":1,"peerURLs":["http://1"]}"#)),
        ];
        let mut behind = cluster();
        follow(&mut behind, &entries, 1).expect("changes that read");
        let urls: Vec<_> = behind.members.values().map(|member| &member.peer_urls[0]).collect();
        assert_eq!(urls, ["http://5"]);
        assert_eq!(behind.removed, BTreeSet::from([1, 3]));
        entries.push(entry(13, change(AddNode, 4, "")));
        let error = follow(&mut behind, &entries[6..], 1).expect_err("no member");
        assert!(error.to_string().contains("entry 13"), "{error}");
        entries[6].kind = EntryKind::ConfChangeV2;
        let error = follow(&mut behind, &entries[6..], 1).expect_err("several at once");
        assert!(error.to_string().contains("entry 13"), "{error}");
    }
}
