//! Changes of members, with etcd's bytes outside and nothing of them in raft-rs.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

mod support;

use bytes::Bytes;
use etched_consensus::{ConfChange, ConfChangeKind, EntryKind};
use etched_proto::raftpb::{EntryType, MessageType};
use support::{Group, Member, of_type};

fn change(kind: ConfChangeKind, node_id: u64) -> ConfChange {
    ConfChange { id: 77, kind, node_id, context: Bytes::from_static(b"{\"id\":4}") }
}

#[test]
fn all_four_changes_travel_in_etcds_bytes_from_a_leader_and_from_a_follower() {
    use ConfChangeKind::{AddLearnerNode, AddNode, RemoveNode, UpdateNode};
    for proposer in [1, 2] {
        let mut group = Group::led_by(1, &[1, 2, 3]);
        for (kind, voters, learners) in [
            (UpdateNode, &[1, 2, 3][..], &[][..]),
            (AddLearnerNode, &[1, 2, 3], &[4]),
            (AddNode, &[1, 2, 3, 4], &[]),
            (UpdateNode, &[1, 2, 3, 4], &[]),
            (RemoveNode, &[1, 2, 3], &[]),
        ] {
            let change = change(kind, 4);
            assert!(group.at(proposer).node.propose_conf_change(&change).unwrap());
            let sent = group.at(proposer).drain();
            let carrying = if proposer == 1 { MessageType::MsgApp } else { MessageType::MsgProp };
            let carried = &of_type(&sent, carrying)[0].entries[0];
            assert_eq!(carried.data, Some(change.encode()), "{kind:?} of {proposer}");
            assert_eq!(carried.r#type, Some(EntryType::EntryConfChange.into()));
            group.wire.extend(sent);
            group.run();
            // Followers hear of the commit with the next message.
            group.tick(1);
            group.run();
            for id in [1, 2, 3] {
                let member = group.at(id);
                let last = member.applied.last().unwrap();
                assert_eq!((last.kind, &last.data), (EntryKind::ConfChange, &change.encode()));
                let mut state = member.node.conf_state();
                state.voters.sort_unstable();
                assert_eq!((&state.voters[..], &state.learners[..]), (voters, learners));
            }
        }
    }
}

#[test]
fn what_is_to_be_written_has_etcds_bytes_too() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    group.at(1).disk_works = false;
    let change = change(ConfChangeKind::AddLearnerNode, 4);
    group.at(1).node.propose_conf_change(&change).unwrap();
    group.at(1).drain();
    assert_eq!(group.at(1).appends[0].entries[0].data, change.encode());
}

#[test]
fn a_second_change_before_the_first_is_applied_becomes_an_empty_entry() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    for kind in [ConfChangeKind::AddLearnerNode, ConfChangeKind::RemoveNode] {
        assert!(group.at(1).node.propose_conf_change(&change(kind, 4)).unwrap());
    }
    group.run();
    let last = group.at(1).applied.last().unwrap();
    assert_eq!((last.kind, last.data.len()), (EntryKind::Normal, 0));
    assert_eq!(group.at(1).node.conf_state().learners, [4]);
}

#[test]
fn a_leader_that_is_removed_follows_at_once() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    group.at(1).node.propose_conf_change(&change(ConfChangeKind::RemoveNode, 1)).unwrap();
    group.run();
    assert!(!group.at(1).node.is_leader());
    assert!(!group.propose(1, "no"), "it has no leader to forward to");
    let next = group.elect(&[2, 3]);
    assert!(group.propose(next, "yes"));
}

#[test]
fn a_member_that_joins_with_nothing_takes_the_log_and_its_members() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    group.members.insert(4, Member::new(4, &[], &[]));
    // As etcd has it, the log says who the first members were.
    for id in [1, 2, 3] {
        group.at(1).node.propose_conf_change(&change(ConfChangeKind::AddNode, id)).unwrap();
        group.run();
    }
    group.at(1).node.propose_conf_change(&change(ConfChangeKind::AddLearnerNode, 4)).unwrap();
    group.run();
    let state = group.at(4).node.conf_state();
    assert_eq!((state.voters.len(), &state.learners[..]), (3, &[4][..]));
    let peers = group.at(1).node.peers();
    let learner = peers.iter().find(|peer| peer.id == 4).unwrap();
    assert!(learner.is_learner && learner.recent_active);
    assert_eq!(learner.matched, group.at(1).node.last_index());
    assert_eq!(group.at(2).node.peers(), []);
}

#[test]
fn leadership_is_handed_to_whom_the_leader_or_a_follower_says() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    group.at(1).node.transfer_leader(2);
    group.run();
    assert!(group.at(2).node.is_leader());
    group.at(1).node.transfer_leader(3);
    group.run();
    assert!(group.at(3).node.is_leader());
}

#[test]
fn followers_forward_what_is_proposed_to_them() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    assert!(group.propose(2, "by way of the leader"));
    group.run();
    group.tick(1);
    group.run();
    for id in [1, 2, 3] {
        assert_eq!(group.at(id).texts(), ["by way of the leader"]);
    }
    let mut lost = Group::new(&[1, 2, 3]);
    assert!(!lost.propose(2, "nobody leads"));
}
