//! Streams with anything in them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::BytesMut;
use etched_fuzz::{Target, outcome, shape};
use etched_proto::raftpb::{Entry, Message, MessageType};
use prost::Message as _;

use crate::codec::{Decoder, Encoder, Kind, link_heartbeat};

/// What an entry takes beside its bytes, and a growing list of them half of that again: two bytes of input can ask
/// for an entry.
const MEMORY: (u64, u64) = (64 << 10, 256);

fn messages() -> Vec<Message> {
    let entry = |index| Entry { term: Some(2), index: Some(index), ..Entry::default() };
    let append = |index| Message {
        r#type: Some(MessageType::MsgApp as i32),
        from: Some(1),
        to: Some(2),
        term: Some(2),
        log_term: Some(2),
        index: Some(index),
        commit: Some(index),
        entries: vec![entry(index + 1), entry(index + 2)],
        ..Message::default()
    };
    vec![append(5), append(7), link_heartbeat(), append(9), append(5)]
}

fn seed(kind: Kind) -> Vec<u8> {
    let (mut encoder, mut bytes) = (Encoder::new(kind), BytesMut::new());
    messages().iter().for_each(|message| encoder.encode(message, &mut bytes));
    bytes.to_vec()
}

/// What became of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Decoded {
    messages: usize,
    /// Over all of them.
    digest: u64,
    /// An encoder keeps all that they say.
    plain: bool,
    /// They again.
    encoded: BytesMut,
    error: String,
}

/// Decodes a stream that comes in pieces of `piece` bytes. No message is kept.
fn decode(kind: Kind, input: &[u8], piece: usize) -> Decoded {
    let (mut decoder, mut encoder) = (Decoder::new(kind, 2, 1), Encoder::new(kind));
    let (mut decoded, mut digest) =
        (Decoded { plain: true, ..Decoded::default() }, DefaultHasher::new());
    'pieces: for bytes in input.chunks(piece) {
        decoder.extend(bytes);
        loop {
            match decoder.decode() {
                Ok(Some(message)) => {
                    decoded.messages += 1;
                    message.encode_to_vec().hash(&mut digest);
                    decoded.plain &= kind == Kind::Message || is_plain(&message);
                    encoder.encode(&message, &mut decoded.encoded);
                }
                Ok(None) => break,
                Err(error) => {
                    decoded.error = error.to_string();
                    break 'pieces;
                }
            }
        }
    }
    decoded.digest = digest.finish();
    decoded
}

/// Whether an encoder of appends keeps all of a message: it is for appends only.
fn is_plain(message: &Message) -> bool {
    let fields = (message.term, message.log_term, message.index, message.commit);
    let plain = Message {
        r#type: Some(MessageType::MsgApp as i32),
        from: Some(1),
        to: Some(2),
        term: Some(fields.0.unwrap_or_default()),
        log_term: Some(fields.1.unwrap_or_default()),
        index: Some(fields.2.unwrap_or_default()),
        commit: Some(fields.3.unwrap_or_default()),
        entries: message.entries.clone(),
        ..Message::default()
    };
    *message == plain || *message == link_heartbeat()
}

fn fuzz(kind: Kind, name: &'static str) {
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), name).seeds([seed(kind)]);
    target.words(&[1_u64.to_be_bytes(), u64::MAX.to_be_bytes()]).memory(MEMORY.0, MEMORY.1).run(
        |input| {
            let whole = decode(kind, input, input.len().max(1));
            assert_eq!(whole, decode(kind, input, 3), "it depends on the pieces");
            if whole.plain {
                let again = decode(kind, &whole.encoded, 1 << 20);
                assert_eq!((again.digest, again.error.as_str()), (whole.digest, ""));
            }
            match whole.error.as_str() {
                "" => shape(&[whole.messages, usize::from(whole.plain)]),
                error => outcome(error),
            }
        },
    );
}

#[test]
fn fuzzed_msgapp_streams_decode_to_what_encodes_to_the_same() {
    fuzz(Kind::MsgApp, "msgapp");
}

#[test]
fn fuzzed_message_streams_decode_to_what_encodes_to_the_same() {
    fuzz(Kind::Message, "message");
}
