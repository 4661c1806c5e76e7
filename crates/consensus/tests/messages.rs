//! What peers may send, and what is refused before raft-rs sees it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

mod support;

use bytes::Bytes;
use etched_consensus::Refused;
use etched_proto::raftpb::{
    ConfState, Entry, EntryType, Message, MessageType, Snapshot, SnapshotMetadata,
};
use support::Group;

/// A message from 2 to 1 in `term`.
fn message(kind: MessageType, term: u64) -> Message {
    Message {
        r#type: Some(kind.into()),
        to: Some(1),
        from: Some(2),
        term: Some(term),
        ..Message::default()
    }
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { index: Some(index), term: Some(term), ..Entry::default() }
}

fn append(entries: Vec<Entry>) -> Message {
    Message { index: Some(1), log_term: Some(1), entries, ..message(MessageType::MsgApp, 5) }
}

fn snapshot(index: u64, term: u64, voters: &[u64]) -> Message {
    let conf_state = ConfState { voters: voters.to_vec(), ..ConfState::default() };
    let metadata =
        SnapshotMetadata { conf_state: Some(conf_state), index: Some(index), term: Some(term) };
    Message {
        snapshot: Some(Snapshot { data: None, metadata: Some(metadata) }),
        ..message(MessageType::MsgSnap, 5)
    }
}

/// What a follower of a group of three says to a message.
fn follower_says(message: Message) -> Result<(), Refused> {
    let mut group = Group::led_by(2, &[1, 2, 3]);
    let said = group.at(1).node.step(message);
    group.run();
    said
}

#[test]
fn messages_of_the_own_node_do_not_come_from_outside() {
    for kind in [
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgUnreachable,
        MessageType::MsgSnapStatus,
        MessageType::MsgCheckQuorum,
        MessageType::MsgStorageAppend,
        MessageType::MsgStorageApplyResp,
        MessageType::MsgForgetLeader,
    ] {
        assert_eq!(follower_says(message(kind, 1)), Err(Refused::Type(kind.into())));
    }
    let unknown = Message { r#type: Some(99), ..message(MessageType::MsgApp, 1) };
    assert_eq!(follower_says(unknown), Err(Refused::Type(99)));
}

#[test]
fn senders_and_receivers_must_be_right() {
    let heartbeat = message(MessageType::MsgHeartbeat, 5);
    for from in [0, 1] {
        let wrong = Message { from: Some(from), ..heartbeat.clone() };
        assert_eq!(follower_says(wrong), Err(Refused::Sender(from)));
    }
    let wrong = Message { to: Some(3), ..heartbeat.clone() };
    assert_eq!(follower_says(wrong), Err(Refused::NotForMe(3)));
    let stranger = Message { from: Some(9), ..message(MessageType::MsgAppResp, 5) };
    assert_eq!(follower_says(stranger), Err(Refused::UnknownPeer(9)));
    // As in etcd a leader need not be known: who joins knows nobody.
    let stranger = Message { from: Some(9), ..heartbeat };
    assert_eq!(follower_says(stranger), Ok(()));
}

#[test]
fn an_empty_proposal_is_refused() {
    let empty = Message { term: None, ..message(MessageType::MsgProp, 0) };
    assert_eq!(follower_says(empty), Err(Refused::EntryCount(0)));
}

#[test]
fn what_is_forwarded_has_no_term() {
    let proposal = Message { entries: vec![entry(0, 0)], ..message(MessageType::MsgProp, 5) };
    assert_eq!(follower_says(proposal), Err(Refused::Term(5)));
    let read = Message { entries: vec![entry(0, 0)], ..message(MessageType::MsgReadIndex, 5) };
    assert_eq!(follower_says(read), Err(Refused::Term(5)));
    let transfer = message(MessageType::MsgTransferLeader, 5);
    assert_eq!(follower_says(transfer), Err(Refused::NotLeader));
}

#[test]
fn terms_and_indexes_that_cannot_be_are_refused() {
    let heartbeat = message(MessageType::MsgHeartbeat, 5);
    for term in [0, 1 << 62, u64::MAX] {
        let wrong = Message { term: Some(term), ..heartbeat.clone() };
        assert_eq!(follower_says(wrong), Err(Refused::Term(term)));
    }
    let beyond = Message { index: Some(u64::MAX), ..heartbeat };
    assert_eq!(follower_says(beyond), Err(Refused::Index(u64::MAX)));
}

#[test]
fn a_commit_index_beyond_the_log_is_refused_with_what_it_means() {
    let beyond = Message { commit: Some(7), ..message(MessageType::MsgHeartbeat, 5) };
    let said = follower_says(beyond).unwrap_err();
    assert_eq!(said, Refused::CommitBeyondLog { commit: 7, last: 1 });
    assert!(said.to_string().contains("lose its tail"));
    // In an append it counts only as far as the entries go.
    let ahead = Message { commit: Some(7), ..append(vec![entry(2, 5)]) };
    assert_eq!(follower_says(ahead), Ok(()));
}

#[test]
fn an_append_far_beyond_the_log_without_a_term_does_not_match() {
    let beyond = Message { index: Some(1000), log_term: None, ..append(vec![entry(1001, 5)]) };
    assert_eq!(follower_says(beyond), Err(Refused::Term(0)));
    let rejected = Message { index: Some(1000), ..append(vec![entry(1001, 5)]) };
    assert_eq!(follower_says(rejected), Ok(()));
}

#[test]
fn entries_follow_each_other() {
    let refused = |entries: Vec<Entry>, at: u64| match follower_says(append(entries)) {
        Err(Refused::Entry { index, .. }) => assert_eq!(index, at),
        other => panic!("{other:?}"),
    };
    refused(vec![entry(3, 5)], 3);
    refused(vec![entry(2, 5), entry(4, 5)], 4);
    refused(vec![entry(2, 5), entry(3, 4)], 3);
    refused(vec![entry(2, 0)], 2);
    refused(vec![entry(2, 6)], 2);
    let of = |kind: EntryType, data: &'static [u8]| Entry {
        r#type: Some(kind.into()),
        data: Some(Bytes::from_static(data)),
        ..entry(2, 5)
    };
    refused(vec![of(EntryType::EntryConfChangeV2, b"\x10\0")], 2);
    refused(vec![of(EntryType::EntryConfChange, b"")], 2);
    refused(vec![of(EntryType::EntryConfChange, b"\xff")], 2);
    refused(vec![Entry { r#type: Some(9), ..entry(2, 5) }], 2);
    assert_eq!(follower_says(append(vec![of(EntryType::EntryConfChange, b"\x10\x02")])), Ok(()));
}

#[test]
fn an_answer_beyond_the_log_is_refused() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    let term = group.at(1).node.term();
    let beyond = Message { index: Some(9), ..message(MessageType::MsgAppResp, term) };
    let said = group.at(1).node.step(beyond);
    assert_eq!(said, Err(Refused::AnswerBeyondLog { index: 9, last: 1 }));
}

#[test]
fn a_read_has_one_context_of_bounded_length() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    let read = |entries| Message { entries, term: None, ..message(MessageType::MsgReadIndex, 0) };
    for (entries, said) in [
        (vec![], Refused::EntryCount(0)),
        (vec![entry(0, 0); 2], Refused::EntryCount(2)),
        (vec![Entry { data: Some(vec![0; 5000].into()), ..entry(0, 0) }], Refused::TooLong(5000)),
    ] {
        assert_eq!(group.at(1).node.step(read(entries)), Err(said));
    }
}

#[test]
fn snapshots_without_a_place_or_with_impossible_members_are_refused() {
    for wrong in [
        message(MessageType::MsgSnap, 5),
        snapshot(0, 1, &[1, 2]),
        snapshot(9, 0, &[1, 2]),
        snapshot(9, 6, &[1, 2]),
        snapshot(9, 5, &[]),
        snapshot(9, 5, &[1, 1]),
        snapshot(9, 5, &[0, 1]),
        // Another entry than the one that is committed there.
        snapshot(1, 5, &[1, 2]),
    ] {
        assert!(matches!(follower_says(wrong), Err(Refused::Snapshot(_))));
    }
    assert_eq!(follower_says(snapshot(9, 5, &[1, 2])), Ok(()));
}

#[test]
fn fields_for_the_own_disk_and_strange_parts_are_refused() {
    let heartbeat = message(MessageType::MsgHeartbeat, 5);
    for wrong in [
        Message { vote: Some(1), ..heartbeat.clone() },
        Message { responses: vec![heartbeat.clone()], ..heartbeat.clone() },
        Message { entries: vec![entry(1, 1)], ..heartbeat.clone() },
        Message { snapshot: snapshot(9, 5, &[1]).snapshot, ..heartbeat },
    ] {
        assert!(matches!(follower_says(wrong), Err(Refused::Foreign(_))));
    }
}

#[test]
fn a_vote_that_nobody_asked_for_makes_no_leader() {
    let mut group = Group::new(&[1, 2, 3]);
    group.at(1).disk_works = false;
    group.at(1).node.campaign().unwrap();
    group.at(1).drain();
    group.at(1).node.step(message(MessageType::MsgPreVoteResp, 1)).unwrap();
    assert_eq!(group.at(1).drain(), [], "its own vote is not on disk yet");
    let granted = message(MessageType::MsgVoteResp, 1);
    assert_eq!(group.at(1).node.step(granted), Err(Refused::Unasked));
    assert!(!group.at(1).node.is_leader());
}
