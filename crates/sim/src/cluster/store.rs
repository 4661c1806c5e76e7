//! The state machine that is replicated: a small map, and a sum over all that was applied.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use etched_consensus::{ConfChange, ConfChangeKind, Entry, EntryKind};
use etched_proto::raftpb::ConfState;
use etched_wal::SnapshotMark;

/// What a client writes: `id` at `key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) id: u64,
    pub(crate) key: u8,
}

impl Write {
    /// With some ballast, so that logs have segments of several sizes.
    pub(crate) fn encode(self) -> Bytes {
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.push(self.key);
        bytes.resize(9 + (self.id % 61) as usize * 7, self.key);
        bytes.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk::<8>()?;
        Some(Self { id: u64::from_be_bytes(*id), key: *rest.first()? })
    }
}

/// The state at one index. Invariant: equal in all members at equal index.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) conf_state: ConfState,
    /// So many first entries add those that are members from the start.
    pub(crate) founders: u64,
    /// Number of updates of members, which raft must not see.
    pub(crate) updates: u64,
    /// Who was a member once.
    pub(crate) removed: BTreeSet<u64>,
    pub(crate) map: BTreeMap<u8, u64>,
    /// Sum over all entries so far.
    pub(crate) sum: u64,
}

/// What an entry did.
#[derive(Debug)]
pub(crate) enum Applied {
    Nothing,
    Write(u64),
    /// raft is to hear of it, and gives the members afterwards.
    Change(ConfChange),
}

impl Store {
    pub(crate) fn mark(&self) -> SnapshotMark {
        SnapshotMark {
            index: self.index,
            term: self.term,
            conf_state: Some(self.conf_state.clone()),
        }
    }

    pub(crate) fn apply(&mut self, entry: &Entry) -> Applied {
        assert_eq!(entry.index, self.index + 1, "entries come in order, each once");
        self.index = entry.index;
        self.term = entry.term;
        let mut hasher = DefaultHasher::new();
        (self.sum, entry).hash(&mut hasher);
        self.sum = hasher.finish();
        match entry.kind {
            EntryKind::Normal => match Write::decode(&entry.data) {
                Some(Write { id, key }) => {
                    self.map.insert(key, id);
                    Applied::Write(id)
                }
                None => Applied::Nothing,
            },
            EntryKind::ConfChange => {
                let change =
                    ConfChange::decode(entry.data.clone()).expect("only such are proposed");
                self.change(change)
            }
            EntryKind::ConfChangeV2 => panic!("nobody proposes a change of several members"),
        }
    }

    /// As the server's apply does: what makes no sense is not passed on to raft, in no member.
    fn change(&mut self, change: ConfChange) -> Applied {
        let ConfState { voters, learners, .. } = &self.conf_state;
        let (votes, learns) =
            (voters.contains(&change.node_id), learners.contains(&change.node_id));
        let valid = match change.kind {
            ConfChangeKind::AddNode => !votes && !self.removed.contains(&change.node_id),
            ConfChangeKind::AddLearnerNode => {
                !votes && !learns && !self.removed.contains(&change.node_id)
            }
            ConfChangeKind::RemoveNode => {
                // Of two none is removed here. As in etcd, members change when an entry is applied: until then the one
                // that stays needs the vote of the other, whose log may be longer and who cannot lead any more.
                let valid = learns || (votes && voters.len() > 2);
                if valid {
                    self.removed.insert(change.node_id);
                }
                valid
            }
            ConfChangeKind::UpdateNode => {
                self.updates += 1;
                votes || learns
            }
        };
        if valid || self.index <= self.founders {
            Applied::Change(change)
        } else {
            Applied::Nothing
        }
    }

    pub(crate) fn is_member(&self, id: u64) -> bool {
        self.conf_state.voters.contains(&id) || self.conf_state.learners.contains(&id)
    }
}
