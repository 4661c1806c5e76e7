//! The formats byte by byte: made by hand, and as real etcd members sent them.

use std::path::PathBuf;

use super::*;
use etched_proto::raftpb::Entry;

fn encoded(kind: Kind, messages: &[Message]) -> Vec<u8> {
    let (mut encoder, mut bytes) = (Encoder::new(kind), BytesMut::new());
    messages.iter().for_each(|message| encoder.encode(message, &mut bytes));
    bytes.to_vec()
}

fn decoded(mut decoder: Decoder, bytes: &[u8]) -> Result<Vec<Message>, DecodeError> {
    let mut messages = Vec::new();
    decoder.extend(bytes);
    while let Some(message) = decoder.decode()? {
        messages.push(message);
    }
    Ok(messages)
}

fn append(index: u64, entries: u64) -> Message {
    let entry = |index| Entry { term: Some(2), index: Some(index), ..Entry::default() };
    Message {
        r#type: Some(MessageType::MsgApp as i32),
        from: Some(1),
        to: Some(2),
        term: Some(2),
        log_term: Some(2),
        index: Some(index),
        entries: (index + 1..=index + entries).map(entry).collect(),
        commit: Some(4),
        ..Message::default()
    }
}

#[test]
fn a_link_heartbeat_is_one_byte_or_an_empty_heartbeat() {
    assert_eq!(encoded(Kind::MsgApp, &[link_heartbeat()]), [0]);
    assert_eq!(encoded(Kind::Message, &[link_heartbeat()]), [0, 0, 0, 0, 0, 0, 0, 2, 8, 8]);
}

#[test]
fn an_append_that_follows_says_only_what_is_new() {
    let messages = [append(4, 1), append(5, 2), append(7, 0), link_heartbeat(), append(9, 1)];
    let mut expected = Vec::new();
    let whole = |message: &Message, to: &mut Vec<u8>| {
        to.push(2);
        to.extend((message.encoded_len() as u64).to_be_bytes());
        to.extend(message.encode_to_vec());
    };
    whole(&messages[0], &mut expected);
    expected.push(1);
    expected.extend(2_u64.to_be_bytes());
    for index in [6, 7] {
        expected.extend([0, 0, 0, 0, 0, 0, 0, 4, 0x10, 2, 0x18, index]);
    }
    expected.extend(4_u64.to_be_bytes());
    expected.push(1);
    expected.extend(0_u64.to_be_bytes());
    expected.extend(4_u64.to_be_bytes());
    expected.push(0);
    whole(&messages[4], &mut expected);
    let bytes = encoded(Kind::MsgApp, &messages);
    assert_eq!(bytes, expected);
    assert_eq!(decoded(Decoder::new(Kind::MsgApp, 2, 1), &bytes).unwrap(), messages);
}

#[test]
fn a_new_leaders_append_is_sent_as_a_whole() {
    let newer = Message { term: Some(3), ..append(5, 0) };
    let bytes = encoded(Kind::MsgApp, &[append(4, 1), newer.clone()]);
    let first = encoded(Kind::MsgApp, &[append(4, 1)]).len();
    assert_eq!(bytes[first], 2, "it goes on at the same place, but in another term");
    assert_eq!(decoded(Decoder::new(Kind::MsgApp, 2, 1), &bytes).unwrap()[1], newer);
}

#[test]
fn what_claims_too_much_is_refused_before_it_comes() {
    let too_long = (MESSAGE_BYTES_MAX + 1).to_be_bytes();
    let refused = |kind, bytes: &[u8]| decoded(Decoder::new(kind, 2, 1), bytes).unwrap_err();
    assert!(matches!(refused(Kind::Message, &too_long), DecodeError::TooLarge));
    let app = [&[2][..], &too_long].concat();
    assert!(matches!(refused(Kind::MsgApp, &app), DecodeError::TooLarge));
    let count = [&[1][..], &(ENTRIES_MAX + 1).to_be_bytes()].concat();
    assert!(matches!(refused(Kind::MsgApp, &count), DecodeError::TooManyEntries));
    let entry = [&[1][..], &1_u64.to_be_bytes(), &too_long].concat();
    assert!(matches!(refused(Kind::MsgApp, &entry), DecodeError::TooLarge));
    assert!(matches!(refused(Kind::MsgApp, &[3]), DecodeError::Type(3)));
    let limited = Decoder::Message(MessageDecoder::new(10));
    assert!(matches!(decoded(limited, &11_u64.to_be_bytes()), Err(DecodeError::TooLarge)));
}

#[test]
fn messages_inside_messages_and_too_many_entries_are_refused() {
    let inside = Message { responses: vec![link_heartbeat()], ..append(1, 0) };
    assert!(matches!(parse_message(inside.encode_to_vec().into()), Err(DecodeError::Local)));
    let many = usize::try_from(ENTRIES_MAX).unwrap();
    let entries = |count: usize| Bytes::from([0x3a, 0].repeat(count));
    assert_eq!(parse_message(entries(many)).unwrap().entries.len(), many);
    assert!(matches!(parse_message(entries(many + 1)), Err(DecodeError::TooManyEntries)));
}

#[test]
fn an_append_beyond_the_last_index_is_refused() {
    let mut bytes = encoded(Kind::MsgApp, &[Message { index: Some(u64::MAX), ..append(0, 0) }]);
    bytes.push(1);
    bytes.extend(1_u64.to_be_bytes());
    bytes.extend(0_u64.to_be_bytes());
    bytes.extend(0_u64.to_be_bytes());
    let refused = decoded(Decoder::new(Kind::MsgApp, 2, 1), &bytes);
    assert!(matches!(refused, Err(DecodeError::Index)));
}

/// Streams between three members of etcd 3.7.1, as they went over the wire.
fn recorded() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let mut streams = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        streams.push((name, std::fs::read(path).unwrap()));
    }
    streams.sort();
    streams
}

#[test]
fn streams_of_etcd_decode_and_encode_to_the_same_bytes() {
    let (mut appends, mut kinds) = (0, std::collections::BTreeSet::new());
    for (name, bytes) in recorded() {
        let parts: Vec<&str> = name.split('-').collect();
        let id = |text| u64::from_str_radix(text, 16).unwrap();
        let (kind, from, to) = match parts[..] {
            ["msgapp", from, to] => (Kind::MsgApp, id(from), id(to)),
            ["message", from, to] => (Kind::Message, id(from), id(to)),
            _ => panic!("{name}"),
        };
        let messages = decoded(Decoder::new(kind, to, from), &bytes).unwrap();
        assert!(encoded(kind, &messages) == bytes, "{name}");
        for message in messages.iter().filter(|message| !is_link_heartbeat(message)) {
            assert_eq!((message.from, message.to), (Some(from), Some(to)), "{name}");
            appends += usize::from(kind == Kind::MsgApp);
            kinds.insert(message.r#type.unwrap());
        }
    }
    assert!(appends > 20, "{appends}");
    for kind in [
        MessageType::MsgProp,
        MessageType::MsgApp,
        MessageType::MsgAppResp,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResp,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
        MessageType::MsgTimeoutNow,
    ] {
        assert!(kinds.contains(&(kind as i32)), "{kind:?} is not among {kinds:?}");
    }
}
