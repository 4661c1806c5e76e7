//! Followers that the log does not reach back for.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

mod support;

use bytes::Bytes;
use etched_consensus::{ConfChange, ConfChangeKind, Refused};
use etched_proto::raftpb::{Message, MessageType};
use etched_wal::SnapshotMark;
use support::{ELECTION_TICKS, Group, of_type};

/// A group whose follower 3 lags by more than the log keeps, and the leader has been asked for a snapshot.
fn lagging() -> Group {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    group.cut.insert(3);
    for round in 0..20 {
        group.propose(1, &format!("{round}"));
        group.run();
    }
    group.cut.clear();
    for _ in 0..3 {
        group.tick(1);
        group.run();
    }
    assert_eq!(group.at(1).wanted.first(), Some(&3));
    group
}

/// The leader's state as it is now; the message that says so.
fn offered(group: &mut Group) -> Message {
    let leader = group.at(1);
    let last = leader.applied.last().unwrap();
    let mark = SnapshotMark {
        index: last.index,
        term: last.term,
        conf_state: Some(leader.node.conf_state()),
    };
    leader.node.offer_snapshot(3, &mark);
    let sent = of_type(&leader.drain(), MessageType::MsgSnap);
    assert_eq!(sent.len(), 1);
    let snapshot = sent[0].snapshot.as_ref().unwrap();
    assert_eq!(snapshot.metadata.as_ref().unwrap().index(), mark.index);
    assert_eq!(snapshot.data, None, "the contents are the transport's");
    sent[0].clone()
}

#[test]
fn a_snapshot_is_asked_for_made_sent_and_installed() {
    let mut group = lagging();
    let message = offered(&mut group);
    assert_eq!(group.at(1).node.peers()[2].pending_snapshot, 21);
    group.at(3).disk_works = false;
    group.at(3).node.step(message).unwrap();
    assert!(group.at(3).drain().is_empty());
    assert_eq!(group.at(3).installed, [], "its place is not in the log yet");
    let append = &group.at(3).appends[0];
    let mark = append.snapshot.as_ref().unwrap();
    assert_eq!((mark.index, append.hard_state.commit), (21, 21));
    assert_eq!(mark.conf_state.as_ref().unwrap().voters.len(), 3);
    group.at(3).disk_works = true;
    group.at(3).persist();
    group.run();
    assert_eq!(group.at(3).installed, [21]);
    group.at(1).node.report_snapshot(3, true);
    group.propose(1, "after");
    group.run();
    group.tick(1);
    group.run();
    assert_eq!(group.at(3).texts(), ["after"]);
}

/// etcd issue 18055.
#[test]
fn a_second_snapshot_before_the_first_is_installed_is_refused() {
    let mut group = lagging();
    let message = offered(&mut group);
    group.at(3).holds_install = true;
    group.at(3).node.step(message.clone()).unwrap();
    assert_eq!(group.at(3).node.step(message.clone()), Err(Refused::Busy));
    group.at(3).drain();
    assert_eq!(group.at(3).installed, [21]);
    assert_eq!(group.at(3).node.step(message.clone()), Err(Refused::Busy));
    group.at(3).node.applied(21);
    assert_eq!(group.at(3).node.step(message), Ok(()), "it is told that it has it");
    group.run();
    assert_eq!(group.at(3).installed, [21]);
}

/// raft-rs would look for entries that the snapshot has taken away.
#[test]
fn nobody_campaigns_while_a_snapshot_is_installed() {
    let mut group = lagging();
    let message = offered(&mut group);
    group.at(3).holds_install = true;
    group.at(3).node.step(message.clone()).unwrap();
    group.at(3).drain();
    for _ in 0..4 * ELECTION_TICKS {
        group.tick(3);
    }
    let hurry =
        Message { r#type: Some(MessageType::MsgTimeoutNow.into()), snapshot: None, ..message };
    group.at(3).node.step(hurry).unwrap();
    group.at(3).node.campaign().unwrap();
    let sent = group.at(3).drain();
    assert_eq!(of_type(&sent, MessageType::MsgVote), []);
    assert_eq!(of_type(&sent, MessageType::MsgPreVote), []);
}

#[test]
fn a_snapshot_that_did_not_arrive_is_asked_for_again() {
    let mut group = lagging();
    offered(&mut group);
    group.at(1).wanted.clear();
    group.at(1).node.report_snapshot(3, false);
    for _ in 0..3 {
        group.tick(1);
        group.run();
    }
    assert_eq!(group.at(1).wanted.first(), Some(&3));
}

#[test]
fn a_snapshot_that_the_log_has_moved_away_from_is_not_sent() {
    let mut group = lagging();
    let mark = SnapshotMark { index: 3, term: 1, conf_state: Some(Default::default()) };
    group.at(1).node.offer_snapshot(3, &mark);
    assert_eq!(of_type(&group.at(1).drain(), MessageType::MsgSnap), []);
}

#[test]
fn entries_behind_a_snapshot_stay_for_a_member_that_takes_it_in_and_for_no_other() {
    let behind = |arrived: Option<bool>, is_removed: bool| {
        let mut group = lagging();
        offered(&mut group);
        group.cut.insert(3);
        if let Some(arrived) = arrived {
            group.at(1).node.report_snapshot(3, arrived);
        }
        if is_removed {
            let kind = ConfChangeKind::RemoveNode;
            let change = ConfChange { id: 0, kind, node_id: 3, context: Bytes::new() };
            group.at(1).node.apply_conf_change(&change).unwrap();
        }
        for round in 0..20 {
            group.propose(1, &format!("behind {round}"));
            group.run();
        }
        assert_eq!(group.at(1).node.commit(), 41);
        group.at(1).node.term_of(22).is_some()
    };
    assert!(behind(None, false), "it is under way");
    assert!(behind(Some(true), false), "it has arrived and is being taken in");
    assert!(!behind(Some(false), false), "it did not arrive");
    assert!(!behind(Some(true), true), "the member has left");
}
