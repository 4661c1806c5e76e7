//! How much goes to a follower that does not answer.

#![allow(clippy::unwrap_used, reason = "helpers of tests are outside the lint's own exception")]

mod support;

use bytes::Bytes;
use etched_proto::raftpb::{Message, MessageType};
use support::{Group, of_type};

const LARGE: usize = 1 << 20;

/// What the leader sends follower 2 when it is proposed so many large entries one by one.
fn sent_to_2(group: &mut Group, entries: usize) -> Vec<Message> {
    let data = Bytes::from(vec![7; LARGE]);
    let mut sent = Vec::new();
    for _ in 0..entries {
        assert!(group.at(1).node.propose([data.clone()]).unwrap());
        sent.extend(group.at(1).drain());
    }
    sent.retain(|message| message.to() == 2);
    sent
}

fn bytes(messages: &[Message]) -> usize {
    let entries = messages.iter().flat_map(|message| &message.entries);
    entries.map(|entry| entry.data().len()).sum()
}

#[test]
fn a_follower_that_does_not_answer_has_a_bounded_number_of_bytes_under_way() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    let sent = sent_to_2(&mut group, 100);
    assert_eq!(bytes(&sent), 64 * LARGE);

    // What it answers for makes room for as much again.
    for message in of_type(&sent, MessageType::MsgApp).into_iter().take(10) {
        let _ = group.at(2).node.step(message);
    }
    for answer in group.at(2).drain() {
        group.at(1).node.step(answer).unwrap();
    }
    let mut more = group.at(1).drain();
    more.retain(|message| message.to() == 2);
    assert!((10 * LARGE..=11 * LARGE).contains(&bytes(&more)), "{}", bytes(&more) / LARGE);
}

#[test]
fn a_follower_that_lost_what_was_under_way_catches_up() {
    let mut group = Group::led_by(1, &[1, 2, 3]);
    sent_to_2(&mut group, 80);
    for _ in 0..12 {
        group.tick(1);
        group.run();
    }
    let last = group.at(1).node.last_index();
    assert_eq!((last, group.at(2).node.last_index()), (81, 81));
    assert_eq!(group.at(1).node.commit(), last);
    assert_eq!(bytes(&sent_to_2(&mut group, 70)), 64 * LARGE, "all was answered for");
}
