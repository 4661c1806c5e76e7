//! Messages at the border: etcd's outside, raft-rs's inside.
//!
//! Fields that raft-rs added (commit term, priority, a snapshot that is asked for) stay inside: two of them have the
//! numbers of etcd fields that mean something else. What etcd added (`vote`, `responses`) never crosses the wire.

use etched_proto::raftpb;
use raft::eraftpb;

use etched_wal::{Entry, EntryKind};

use crate::convert::{entry_from_raft, entry_to_raft, mark_from_raft, mark_to_raft};

/// The entry as it travels.
pub(crate) fn entry_to_wire(entry: Entry) -> raftpb::Entry {
    raftpb::Entry {
        r#type: (entry.kind != EntryKind::Normal).then_some(entry.kind as i32),
        term: Some(entry.term),
        index: Some(entry.index),
        data: (!entry.data.is_empty()).then_some(entry.data),
    }
}

/// The entry that came; nothing if its kind is none.
pub(crate) fn entry_from_wire(entry: raftpb::Entry) -> Option<Entry> {
    let kind = match entry.r#type.unwrap_or_default() {
        0 => EntryKind::Normal,
        1 => EntryKind::ConfChange,
        2 => EntryKind::ConfChangeV2,
        _ => return None,
    };
    Some(Entry {
        term: entry.term.unwrap_or_default(),
        index: entry.index.unwrap_or_default(),
        kind,
        data: entry.data.unwrap_or_default(),
    })
}

/// What raft-rs says, in etcd's words.
pub(crate) fn to_wire(mut message: eraftpb::Message) -> raftpb::Message {
    let entries = message.take_entries();
    let some = |number: u64| (number != 0).then_some(number);
    // A vote's commit index is raft-rs's own and useless without its term.
    let votes = matches!(
        message.get_msg_type(),
        eraftpb::MessageType::MsgRequestVote
            | eraftpb::MessageType::MsgRequestVoteResponse
            | eraftpb::MessageType::MsgRequestPreVote
            | eraftpb::MessageType::MsgRequestPreVoteResponse
    );
    let snapshot = message.has_snapshot().then(|| {
        let mark = mark_from_raft(message.get_snapshot().get_metadata());
        raftpb::Snapshot {
            data: None,
            metadata: Some(raftpb::SnapshotMetadata {
                conf_state: mark.conf_state,
                index: Some(mark.index),
                term: Some(mark.term),
            }),
        }
    });
    raftpb::Message {
        r#type: Some(message.get_msg_type() as i32),
        to: Some(message.to),
        from: Some(message.from),
        term: Some(message.term),
        log_term: some(message.log_term),
        index: some(message.index),
        entries: entries.iter().map(|entry| entry_to_wire(entry_from_raft(entry))).collect(),
        commit: some(if votes { 0 } else { message.commit }),
        snapshot,
        reject: message.reject.then_some(true),
        reject_hint: some(message.reject_hint),
        context: (!message.context.is_empty()).then_some(message.context),
        vote: None,
        responses: Vec::new(),
    }
}

/// A message that the validator has let through, for raft-rs; nothing if it has not.
pub(crate) fn from_wire(message: raftpb::Message) -> Option<eraftpb::Message> {
    use eraftpb::MessageType as Type;
    let kind = match message.r#type() {
        raftpb::MessageType::MsgProp => Type::MsgPropose,
        raftpb::MessageType::MsgApp => Type::MsgAppend,
        raftpb::MessageType::MsgAppResp => Type::MsgAppendResponse,
        raftpb::MessageType::MsgVote => Type::MsgRequestVote,
        raftpb::MessageType::MsgVoteResp => Type::MsgRequestVoteResponse,
        raftpb::MessageType::MsgSnap => Type::MsgSnapshot,
        raftpb::MessageType::MsgHeartbeat => Type::MsgHeartbeat,
        raftpb::MessageType::MsgHeartbeatResp => Type::MsgHeartbeatResponse,
        raftpb::MessageType::MsgTransferLeader => Type::MsgTransferLeader,
        raftpb::MessageType::MsgTimeoutNow => Type::MsgTimeoutNow,
        raftpb::MessageType::MsgReadIndex => Type::MsgReadIndex,
        raftpb::MessageType::MsgReadIndexResp => Type::MsgReadIndexResp,
        raftpb::MessageType::MsgPreVote => Type::MsgRequestPreVote,
        raftpb::MessageType::MsgPreVoteResp => Type::MsgRequestPreVoteResponse,
        _ => return None,
    };
    let mut out = eraftpb::Message::default();
    out.set_msg_type(kind);
    out.to = message.to();
    out.from = message.from();
    out.term = message.term();
    out.log_term = message.log_term();
    out.index = message.index();
    out.commit = message.commit();
    out.reject = message.reject();
    out.reject_hint = message.reject_hint();
    if let Some(metadata) = message.snapshot.as_ref().and_then(|snap| snap.metadata.as_ref()) {
        out.set_snapshot(mark_to_raft(&etched_wal::SnapshotMark {
            index: metadata.index(),
            term: metadata.term(),
            conf_state: metadata.conf_state.clone(),
        }));
    }
    out.context = message.context.unwrap_or_default();
    let entries = message.entries.into_iter();
    let entries: Option<Vec<_>> =
        entries.map(|entry| entry_from_wire(entry).map(entry_to_raft)).collect();
    out.set_entries(entries?.into());
    Some(out)
}
