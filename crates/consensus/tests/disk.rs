//! Who waits for the disk, and who must not.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

mod support;

use etched_consensus::{DISK_STALL_MAX, Role};
use etched_proto::raftpb::MessageType;
use support::{ELECTION_TICKS, Group, Member, of_type};

#[test]
fn a_leader_sends_before_its_own_sync_and_applies_after_it() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    group.at(1).disk_works = false;
    group.propose(1, "a");
    group.run();
    let commit = group.at(1).node.commit();
    assert_eq!(commit, 2, "two followers are a quorum");
    assert_eq!(group.at(1).texts(), [] as [&str; 0], "not on this disk yet");
    assert_eq!(group.at(2).texts(), ["a"]);
    group.at(1).persist();
    group.run();
    assert_eq!(group.at(1).texts(), ["a"]);
}

#[test]
fn batches_form_while_the_disk_works_and_one_answer_covers_them() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    group.at(1).disk_works = false;
    for text in ["a", "b", "c"] {
        group.propose(1, text);
        group.run();
    }
    assert_eq!(group.at(1).appends.len(), 3);
    let mut joined = group.at(1).appends[0].clone();
    for next in &group.at(1).appends[1..] {
        joined.join(next.clone()).unwrap();
    }
    assert_eq!(joined.entries.iter().map(|entry| entry.index).collect::<Vec<_>>(), [2, 3, 4]);
    group.at(1).persist();
    group.run();
    assert_eq!(group.at(1).texts(), ["a", "b", "c"]);
}

#[test]
fn answers_to_appends_and_votes_wait_for_the_disk() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    group.at(2).disk_works = false;
    group.propose(1, "a");
    group.run();
    let matched = |group: &Group| group.members[&1].node.peers()[1].matched;
    assert_eq!(matched(&group), 1);
    group.at(2).persist();
    group.run();
    assert_eq!(matched(&group), 2);

    let mut group = Group::new(&[1, 2, 3]);
    group.at(2).disk_works = false;
    group.cut.insert(3);
    group.at(1).node.campaign().unwrap();
    group.run();
    assert!(!group.at(1).node.is_leader(), "the vote is on no disk");
    group.at(2).persist();
    group.run();
    assert!(group.at(1).node.is_leader());
}

#[test]
fn heartbeats_are_answered_while_entries_wait_for_the_disk() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    group.at(2).disk_works = false;
    group.propose(1, "a");
    group.run();
    assert_eq!(group.at(2).appends.len(), 1);
    group.tick(1);
    let beats = group.at(1).drain();
    for beat in of_type(&beats, MessageType::MsgHeartbeat) {
        if beat.to() == 2 {
            group.at(2).node.step(beat).unwrap();
        }
    }
    let answers = group.at(2).drain();
    assert_eq!(of_type(&answers, MessageType::MsgHeartbeatResp).len(), 1);
}

#[test]
fn heartbeats_are_not_answered_while_a_term_waits_for_the_disk() {
    let mut group = Group::new(&[1, 2, 3]);
    group.cut.insert(2);
    group.at(1).node.campaign().unwrap();
    group.run();
    assert!(group.at(1).node.is_leader());
    group.cut.clear();
    group.at(2).disk_works = false;
    group.tick(1);
    let beats = group.at(1).drain();
    for beat in beats.into_iter().filter(|beat| beat.to() == 2) {
        group.at(2).node.step(beat).unwrap();
    }
    assert_eq!(group.at(2).drain(), [], "a term that a crash could take back");
    group.at(2).persist();
    assert_eq!(of_type(&group.at(2).drain(), MessageType::MsgHeartbeatResp).len(), 1);
}

/// A crash would let it lead the same term a second time.
#[test]
fn a_sole_voter_with_a_learner_says_nothing_in_a_term_that_is_not_on_disk() {
    let mut group = Group::default();
    for id in [1, 2] {
        group.members.insert(id, Member::new(id, &[1], &[2]));
    }
    group.at(1).disk_works = false;
    group.at(1).node.campaign().unwrap();
    assert_eq!(group.at(1).drain(), []);
    group.at(1).persist();
    assert!(!group.at(1).drain().is_empty());
}

/// raft-rs asserts that a leader has everything on disk when it begins.
#[test]
fn a_member_that_becomes_the_sole_voter_leads_only_when_all_is_on_disk() {
    let mut group = Group::led_by(1, &[1, 2]);
    let remove = etched_consensus::ConfChange {
        id: 1,
        kind: etched_consensus::ConfChangeKind::RemoveNode,
        node_id: 1,
        context: bytes::Bytes::new(),
    };
    assert!(group.at(1).node.propose_conf_change(&remove).unwrap());
    // One more entry, behind the removal, that follower 2 does not get onto its disk.
    group.propose(1, "late");
    let sent = of_type(&group.at(1).drain(), MessageType::MsgApp);
    assert_eq!(sent.len(), 2);
    group.at(2).node.step(sent[0].clone()).unwrap();
    let answers = group.at(2).drain();
    group.at(2).disk_works = false;
    group.at(2).node.step(sent[1].clone()).unwrap();
    group.at(2).drain();
    for answer in answers {
        group.at(1).node.step(answer).unwrap();
    }
    for commit in group.at(1).drain() {
        group.at(2).node.step(commit).unwrap();
    }
    let _ = group.at(2).drain();
    assert_eq!(group.at(2).node.conf_state().voters, [2]);
    assert!(!group.at(2).appends.is_empty());
    group.cut.insert(1);
    for _ in 0..4 * ELECTION_TICKS {
        group.tick(2);
        let _ = group.at(2).drain();
    }
    assert!(!group.at(2).node.is_leader());
    group.at(2).disk_works = true;
    assert_eq!(group.elect(&[2]), 2);
    assert_eq!(group.at(2).texts(), ["late"]);
}

#[test]
fn a_leader_whose_disk_hangs_hands_over() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    group.at(1).disk_works = false;
    group.propose(1, "a");
    group.run();
    let began = group.now;
    while group.now - began < DISK_STALL_MAX {
        assert!(group.at(1).node.is_leader(), "after {:?}", group.now - began);
        for id in [1, 2, 3] {
            group.tick(id);
        }
        group.run();
    }
    for _ in 0..3 {
        for id in [1, 2, 3] {
            group.tick(id);
        }
        group.run();
    }
    assert!(!group.at(1).node.is_leader());
    assert!(group.at(2).node.is_leader() || group.at(3).node.is_leader());
}

#[test]
fn a_leader_whose_disk_hangs_and_whom_nobody_relieves_stops_its_heartbeats_and_follows() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    group.at(1).disk_works = false;
    group.propose(1, "a");
    group.run();
    for _ in 0..49 {
        group.tick(1);
        group.run();
    }
    // Who is asked does not hear it.
    for beats in 0..=ELECTION_TICKS {
        assert!(group.at(1).node.is_leader(), "{beats}");
        group.tick(1);
        let sent = group.at(1).drain();
        assert_eq!(of_type(&sent, MessageType::MsgHeartbeat), []);
    }
    let last = group.at(1).soft_states.last().unwrap();
    assert_eq!((last.role, last.leader), (Role::Follower, 0));
}
