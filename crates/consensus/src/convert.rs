//! Between raft-rs's types and ours; etcd's numbers are the ones that reach the disk.

use bytes::Bytes;
use etched_proto::schema::Schema;
use etched_proto::{as_go, raftpb};
use etched_wal::{Entry, EntryKind, HardState, SnapshotMark};
use prost::Message as _;
use raft::eraftpb;

/// A decoded configuration change of one member.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfChange {
    /// Request id that the proposer waits for; 0 for the entries of a bootstrap.
    pub id: u64,
    /// What happens to the member.
    pub kind: ConfChangeKind,
    /// The member's id.
    pub node_id: u64,
    /// The member as JSON, as etcd writes it; empty for a removal.
    pub context: Bytes,
}

/// etcd's numbers (raft-rs has 2 for the learner and no update).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfChangeKind {
    /// 0
    AddNode,
    /// 1
    RemoveNode,
    /// 2
    UpdateNode,
    /// 3
    AddLearnerNode,
}

impl ConfChange {
    /// The bytes etcd writes: the type stands there even when it is 0.
    pub fn encode(&self) -> Bytes {
        let kind = match self.kind {
            ConfChangeKind::AddNode => raftpb::ConfChangeType::ConfChangeAddNode,
            ConfChangeKind::RemoveNode => raftpb::ConfChangeType::ConfChangeRemoveNode,
            ConfChangeKind::UpdateNode => raftpb::ConfChangeType::ConfChangeUpdateNode,
            ConfChangeKind::AddLearnerNode => raftpb::ConfChangeType::ConfChangeAddLearnerNode,
        };
        let message = raftpb::ConfChange {
            id: (self.id != 0).then_some(self.id),
            r#type: Some(kind.into()),
            node_id: Some(self.node_id),
            context: (!self.context.is_empty()).then(|| self.context.clone()),
        };
        message.encode_to_vec().into()
    }

    /// Reads what [`Self::encode`] or etcd wrote.
    ///
    /// # Errors
    /// Says what does not decode.
    pub fn decode(data: Bytes) -> Result<Self, String> {
        let message = raftpb::ConfChange::decode(data.clone())
            .or_else(|error| Self::decode_as_etcd(&data).ok_or(error))
            .map_err(|error| error.to_string())?;
        let kind = match message.r#type.unwrap_or_default() {
            0 => ConfChangeKind::AddNode,
            1 => ConfChangeKind::RemoveNode,
            2 => ConfChangeKind::UpdateNode,
            3 => ConfChangeKind::AddLearnerNode,
            other => return Err(format!("unknown type {other}")),
        };
        Ok(Self {
            id: message.id.unwrap_or_default(),
            kind,
            node_id: message.node_id.unwrap_or_default(),
            context: message.context.unwrap_or_default(),
        })
    }

    /// As etcd's members read what prost refuses: an entry has to be the same for all.
    fn decode_as_etcd(data: &[u8]) -> Option<raftpb::ConfChange> {
        let message = Schema::get().find("raftpb.ConfChange").expect("it is in the schema");
        raftpb::ConfChange::decode(as_go::rewrite(message, data).ok()?).ok()
    }

    /// What raft-rs must be told, or nothing for an update.
    pub(crate) fn for_raft(&self) -> Option<eraftpb::ConfChange> {
        let mut change = eraftpb::ConfChange::default();
        change.set_change_type(match self.kind {
            ConfChangeKind::AddNode => eraftpb::ConfChangeType::AddNode,
            ConfChangeKind::RemoveNode => eraftpb::ConfChangeType::RemoveNode,
            ConfChangeKind::AddLearnerNode => eraftpb::ConfChangeType::AddLearnerNode,
            ConfChangeKind::UpdateNode => return None,
        });
        change.node_id = self.node_id;
        Some(change)
    }
}

/// Inside raft-rs, which decodes a change when it is proposed and has other numbers for its types, an entry that changes
/// a member has no data, which decodes as a change of nobody, and etcd's bytes lie in its context.
pub(crate) fn entry_to_raft(entry: Entry) -> eraftpb::Entry {
    let Entry { term, index, kind, data } = entry;
    let mut out = eraftpb::Entry { term, index, ..eraftpb::Entry::default() };
    match kind {
        EntryKind::Normal => out.data = data,
        EntryKind::ConfChange => {
            out.set_entry_type(eraftpb::EntryType::EntryConfChange);
            out.context = data;
        }
        EntryKind::ConfChangeV2 => {
            out.set_entry_type(eraftpb::EntryType::EntryConfChangeV2);
            out.data = data;
        }
    }
    out
}

pub(crate) fn entry_from_raft(entry: &eraftpb::Entry) -> Entry {
    let (kind, data) = match entry.get_entry_type() {
        eraftpb::EntryType::EntryNormal => (EntryKind::Normal, &entry.data),
        eraftpb::EntryType::EntryConfChange => (EntryKind::ConfChange, &entry.context),
        eraftpb::EntryType::EntryConfChangeV2 => (EntryKind::ConfChangeV2, &entry.data),
    };
    Entry { term: entry.term, index: entry.index, kind, data: data.clone() }
}

pub(crate) fn hard_state_to_raft(state: &HardState) -> eraftpb::HardState {
    eraftpb::HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
        ..eraftpb::HardState::default()
    }
}

pub(crate) fn hard_state_from_raft(state: &eraftpb::HardState) -> HardState {
    HardState { term: state.term, vote: state.vote, commit: state.commit }
}

pub(crate) fn conf_state_to_raft(state: &raftpb::ConfState) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: state.auto_leave(),
        ..eraftpb::ConfState::default()
    }
}

pub(crate) fn conf_state_from_raft(state: &eraftpb::ConfState) -> raftpb::ConfState {
    raftpb::ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: Some(state.auto_leave),
    }
}

pub(crate) fn mark_from_raft(metadata: &eraftpb::SnapshotMetadata) -> SnapshotMark {
    SnapshotMark {
        index: metadata.index,
        term: metadata.term,
        conf_state: Some(conf_state_from_raft(metadata.get_conf_state())),
    }
}

pub(crate) fn mark_to_raft(mark: &SnapshotMark) -> eraftpb::Snapshot {
    let mut snapshot = eraftpb::Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = mark.index;
    metadata.term = mark.term;
    metadata.set_conf_state(conf_state_to_raft(&mark.conf_state.clone().unwrap_or_default()));
    snapshot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raft_never_sees_the_bytes_of_a_change_and_gives_them_back_unchanged() {
        for kind in [
            ConfChangeKind::AddNode,
            ConfChangeKind::RemoveNode,
            ConfChangeKind::UpdateNode,
            ConfChangeKind::AddLearnerNode,
        ] {
            let data =
                ConfChange { id: 9, kind, node_id: 3, context: Bytes::from_static(b"{}") }.encode();
            let entry = Entry { term: 2, index: 7, kind: EntryKind::ConfChange, data };
            let inside = entry_to_raft(entry.clone());
            assert!(inside.data.is_empty());
            assert_eq!(entry_from_raft(&inside), entry);
        }
    }

    #[test]
    fn a_conf_change_keeps_its_type_on_the_wire_even_when_it_is_zero() {
        let change = ConfChange {
            id: 0,
            kind: ConfChangeKind::AddNode,
            node_id: 5,
            context: Bytes::from_static(b"{}"),
        };
        let bytes = change.encode();
        assert_eq!(bytes.as_ref(), b"\x10\x00\x18\x05\x22\x02{}");
        assert_eq!(ConfChange::decode(bytes), Ok(change));
    }

    #[test]
    fn a_field_that_etcd_passes_over_does_not_make_a_change_unreadable() {
        let change = ConfChange::decode(Bytes::from_static(b"\x0a\x01x\x18\x05\x20\x07"));
        let change = change.expect("etcd reads it");
        assert_eq!((change.id, change.node_id, change.context.len()), (0, 5, 0));
        assert!(ConfChange::decode(Bytes::from_static(b"\x0a\x05x")).is_err());
    }

    #[test]
    fn an_update_is_kept_from_raft_and_a_learner_gets_its_other_number() {
        let change =
            |kind| ConfChange { id: 1, kind, node_id: 2, context: Bytes::new() }.for_raft();
        assert!(change(ConfChangeKind::UpdateNode).is_none());
        let learner = change(ConfChangeKind::AddLearnerNode).expect("raft is told of learners");
        assert_eq!(learner.get_change_type(), eraftpb::ConfChangeType::AddLearnerNode);
    }
}
