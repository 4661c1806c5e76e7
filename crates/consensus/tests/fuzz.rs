//! Configuration changes and messages with anything in them: they come from the log, and from other members.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

mod support;

use bytes::Bytes;
use etched_consensus::{ConfChange, ConfChangeKind};
use etched_fuzz::{Target, outcome, shape};
use etched_proto::raftpb::{
    ConfState, Entry, EntryType, Message, MessageType, Snapshot, SnapshotMetadata,
};
use etched_proto::schema::Schema;
use prost::Message as _;
use support::{Group, Member};

#[test]
fn fuzzed_changes_of_members_read_back() {
    let change = ConfChange {
        id: 7,
        kind: ConfChangeKind::UpdateNode,
        node_id: u64::MAX,
        context: Bytes::from_static(b"{\"id\":7}"),
    };
    let seeds = [change.encode(), Bytes::from_static(b"\x10\x00\x18\x05")];
    // Read when the first change is not of the usual form, and no input's fault.
    Schema::get();
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "changes");
    target.seeds(seeds.map(|bytes| bytes.to_vec())).run(|input| {
        match ConfChange::decode(Bytes::copy_from_slice(input)) {
            Ok(change) => {
                let again = ConfChange::decode(change.encode());
                assert_eq!(again.as_ref(), Ok(&change));
                shape(&[1, change.kind as usize, change.context.len()])
            }
            Err(error) => outcome(&error),
        }
    });
}

/// Member 1 in a part that the first byte says, in a group whose other members never answer.
fn member(part: u8) -> Member {
    let mut group = match part % 6 {
        // A follower with a few entries, some of them not on disk.
        0 | 1 => {
            let mut group = Group::led_by(2, &[1, 2, 3]);
            group.propose(2, "a");
            group.run();
            group.at(1).disk_works = part.is_multiple_of(2);
            group.propose(2, "b");
            group.run();
            group
        }
        2 => {
            let mut group = Group::led_by(1, &[1, 2, 3]);
            group.propose(1, "a");
            group.run();
            group
        }
        // One that asks for votes, or for what others would say to that.
        3 | 4 => {
            let mut group = Group::new(&[1, 2, 3]);
            group.at(1).node.campaign().unwrap();
            if part % 6 == 4 {
                group.run_holding(|message| message.r#type() == MessageType::MsgVoteResp);
            }
            group
        }
        // Nobody yet.
        _ => {
            let mut group = Group::default();
            group.members.insert(1, Member::new(1, &[], &[]));
            group
        }
    };
    group.members.remove(&1).unwrap()
}

/// One message of each type, such as members 2 and 3 would send.
fn messages() -> Vec<Message> {
    let message = |kind: MessageType, term: u64| Message {
        r#type: Some(kind.into()),
        to: Some(1),
        from: Some(2),
        term: (term != 0).then_some(term),
        ..Message::default()
    };
    let entry = |index: u64, term: u64, data: &'static [u8]| Entry {
        index: Some(index),
        term: Some(term),
        data: Some(Bytes::from_static(data)),
        ..Entry::default()
    };
    let change = Entry {
        r#type: Some(EntryType::EntryConfChange.into()),
        ..entry(3, 2, b"\x10\x03\x18\x04")
    };
    let metadata = SnapshotMetadata {
        conf_state: Some(ConfState { voters: vec![1, 2, 3], ..ConfState::default() }),
        index: Some(9),
        term: Some(2),
    };
    let mut all: Vec<Message> = [
        MessageType::MsgAppResp,
        MessageType::MsgVote,
        MessageType::MsgVoteResp,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResp,
        MessageType::MsgTransferLeader,
        MessageType::MsgTimeoutNow,
        MessageType::MsgPreVote,
        MessageType::MsgPreVoteResp,
    ]
    .into_iter()
    .flat_map(|kind| [message(kind, 1), message(kind, 2)])
    .collect();
    let app = |entries| Message {
        index: Some(1),
        log_term: Some(1),
        commit: Some(2),
        entries,
        ..message(MessageType::MsgApp, 2)
    };
    all.extend([
        app(vec![]),
        app(vec![entry(2, 1, b"a"), change]),
        Message { entries: vec![entry(0, 0, b"p")], ..message(MessageType::MsgProp, 0) },
        Message { entries: vec![entry(0, 0, b"ctx")], ..message(MessageType::MsgReadIndex, 0) },
        Message { entries: vec![entry(0, 0, b"ctx")], ..message(MessageType::MsgReadIndexResp, 1) },
        Message {
            snapshot: Some(Snapshot { data: None, metadata: Some(metadata) }),
            ..message(MessageType::MsgSnap, 2)
        },
        Message { reject: Some(true), reject_hint: Some(1), ..message(MessageType::MsgAppResp, 1) },
    ]);
    all
}

/// The first byte says which part the member has, and what it does between messages; then come messages, each behind its
/// length. Whatever they are, the member lives, and takes ticks and proposals afterwards.
#[test]
fn fuzzed_messages_consensus_step_never_end_the_process() {
    let all: Vec<Vec<u8>> =
        messages().iter().map(|one| one.encode_length_delimited_to_vec()).collect();
    let seeds = (0..12_u8).flat_map(|part| {
        let each = all.iter().map(move |one| [&[part][..], one].concat());
        each.chain([[&[part][..], &all.concat()].concat()]).collect::<Vec<_>>()
    });
    let seeds: Vec<Vec<u8>> = seeds.collect();
    Target::new(env!("CARGO_MANIFEST_DIR"), "consensus-step")
        .seeds(seeds)
        .memory(1 << 20, 4096)
        .run(|input| {
            let Some((part, mut rest)) = input.split_first() else { return 0 };
            let mut member = member(*part);
            let mut said = Vec::new();
            while !rest.is_empty() {
                let Ok(message) = Message::decode_length_delimited(&mut rest) else { break };
                said.push(match member.node.step(message) {
                    Ok(()) => 0,
                    Err(refused) => outcome(&refused.to_string()),
                });
                if part & 64 == 0 {
                    member.drain();
                }
            }
            for _ in 0..12 {
                member.node.tick(std::time::Duration::ZERO);
                member.drain();
            }
            let _ = member.node.propose([Bytes::from_static(b"after")]);
            let _ = member.node.read_index();
            member.persist();
            member.drain();
            let last = outcome(&format!("{:?}", member.soft_states.last()));
            said.iter().fold(last, |sum, one| sum.rotate_left(1) ^ one)
        });
}
