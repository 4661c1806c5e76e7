//! Linearizable reads, and the ways in which they were wrong elsewhere.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

mod support;

use etched_proto::raftpb::{Message, MessageType};
use support::Group;

#[test]
fn a_leader_and_a_follower_answer_with_what_is_committed() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    group.propose(1, "a");
    group.run();
    let commit = group.at(1).node.commit();
    for id in [1, 2] {
        let read = group.at(id).node.read_index().unwrap();
        group.run();
        let states = std::mem::take(&mut group.at(id).reads);
        assert_eq!(
            states.iter().map(|state| (state.id, state.index)).collect::<Vec<_>>(),
            [(read, commit)]
        );
    }
}

#[test]
fn without_a_leader_no_read_begins() {
    let mut group = Group::new(&[1, 2, 3]);
    assert_eq!(group.at(1).node.read_index(), None);
}

#[test]
fn a_leader_alone_in_its_partition_answers_no_read() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    group.cut.insert(1);
    assert!(group.at(1).node.read_index().is_some());
    group.run();
    assert_eq!(group.at(1).reads, []);
}

/// etcd issue 20418: pending reads and their acknowledgements meet by context alone. A leader that was deposed while its
/// process was paused gets a request that was sent twice, and an acknowledgement from before it was deposed.
#[test]
fn a_paused_leader_does_not_answer_a_new_read_with_an_old_acknowledgement() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    group.at(2).node.read_index().unwrap();
    let asked = group.at(2).drain();
    let twice = asked[0].clone();
    assert_eq!(twice.r#type(), MessageType::MsgReadIndex);
    group.wire.extend(asked);
    group.run_holding(|message| {
        message.r#type() == MessageType::MsgHeartbeatResp
            && message.from() == 3
            && message.context.is_some()
    });
    assert_eq!((group.at(2).reads.len(), group.held.len()), (1, 1));

    group.cut.insert(1);
    let leader = group.elect(&[2, 3]);
    group.propose(leader, "newer");
    group.run();
    assert!(group.members[&leader].node.commit() > group.members[&1].node.commit());
    assert!(group.at(1).node.is_leader(), "it has not noticed");

    group.at(1).node.read_index().unwrap();
    let _ = group.at(1).drain();
    let _ = group.at(1).node.step(twice);
    let _ = group.at(1).drain();
    for late in std::mem::take(&mut group.held) {
        let _ = group.at(1).node.step(late);
    }
    let sent = group.at(1).drain();
    assert_eq!(group.at(1).reads, [], "a stale read");
    assert!(support::of_type(&sent, MessageType::MsgReadIndexResp).is_empty());
}

#[test]
fn no_two_attempts_and_no_two_lives_have_the_same_context() {
    let mut contexts = std::collections::BTreeSet::new();
    for boot in [1, 2] {
        let mut group = Group::new(&[1, 2, 3]);
        let config = etched_consensus::Config { boot, ..support::config(2) };
        let start = etched_consensus::Start {
            hard_state: Default::default(),
            mark: (0, 0),
            entries: Vec::new(),
            conf_state: group.at(1).node.conf_state(),
            applied: 0,
        };
        group.at(2).node = etched_consensus::Node::new(&config, start).unwrap();
        group.at(1).node.campaign().unwrap();
        group.run();
        for _ in 0..3 {
            group.at(2).node.read_index().unwrap();
            for message in group.at(2).drain() {
                assert!(contexts.insert(message.entries[0].data().to_vec()), "seen before");
            }
        }
    }
    assert_eq!(contexts.len(), 6);
}

#[test]
fn a_new_leader_answers_reads_only_after_its_first_entry_is_committed() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    for id in [1, 2, 3] {
        group.propose(1, &format!("entry {id}"));
    }
    group.run();
    group.cut.insert(1);
    // Nobody hears that the other has the new term's first entry.
    let holds =
        |message: &Message| message.r#type() == MessageType::MsgAppResp && message.term() > 1;
    let leader = loop {
        for id in [2, 3] {
            group.tick(id);
        }
        group.run_holding(holds);
        if let Some(id) = [2, 3].into_iter().find(|id| group.members[id].node.is_leader()) {
            break id;
        }
    };
    let other = 5 - leader;
    assert!(!group.at(leader).node.committed_in_term());
    let own = group.at(leader).node.read_index().unwrap();
    let of_peer = group.at(other).node.read_index().unwrap();
    group.run_holding(holds);
    assert_eq!((group.at(2).reads.len(), group.at(3).reads.len()), (0, 0));
    group.wire = std::mem::take(&mut group.held).into();
    group.run();
    let index = group.at(leader).node.commit();
    for (id, read) in [(leader, own), (other, of_peer)] {
        let state = etched_consensus::ReadState { id: read, index };
        assert_eq!(group.at(id).reads, [state], "member {id}");
    }
}
