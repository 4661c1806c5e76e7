//! Who is a member after which entry, as the log alone tells it.

use etched_proto::raftpb::ConfState;
use etched_wal::{Entry, EntryKind};

use crate::{ConfChange, ConfChangeKind, Error};

/// The members after the membership changes among `entries`, which follow the state `start`. Ascending.
///
/// What a server refuses when such an entry is applied counts as done here: whoever compares must know that.
///
/// # Errors
/// [`Error::BadConfChange`]; also for a change of several members at once, which no etcd proposes.
pub fn conf_state_after<'e>(
    start: &ConfState,
    entries: impl IntoIterator<Item = &'e Entry>,
) -> Result<ConfState, Error> {
    let mut state = start.clone();
    for entry in entries {
        match entry.kind {
            EntryKind::Normal => continue,
            EntryKind::ConfChange => {}
            EntryKind::ConfChangeV2 => {
                let reason = "it changes several members at once".to_owned();
                return Err(Error::BadConfChange { index: entry.index, reason });
            }
        }
        let change = ConfChange::decode(entry.data.clone())
            .map_err(|reason| Error::BadConfChange { index: entry.index, reason })?;
        apply(&mut state, &change);
    }
    state.voters.sort_unstable();
    state.learners.sort_unstable();
    Ok(state)
}

fn apply(state: &mut ConfState, change: &ConfChange) {
    if change.kind == ConfChangeKind::UpdateNode {
        return;
    }
    for members in [&mut state.voters, &mut state.learners] {
        members.retain(|id| *id != change.node_id);
    }
    match change.kind {
        ConfChangeKind::AddNode => state.voters.push(change.node_id),
        ConfChangeKind::AddLearnerNode => state.learners.push(change.node_id),
        ConfChangeKind::RemoveNode | ConfChangeKind::UpdateNode => {}
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn change(index: u64, kind: ConfChangeKind, node_id: u64) -> Entry {
        let change = ConfChange { id: 0, kind, node_id, context: Bytes::new() };
        Entry { term: 1, index, kind: EntryKind::ConfChange, data: change.encode() }
    }

    fn members(entries: &[Entry]) -> (Vec<u64>, Vec<u64>) {
        let start = ConfState { voters: vec![9], ..ConfState::default() };
        let state = conf_state_after(&start, entries).expect("changes that decode");
        (state.voters, state.learners)
    }

    #[test]
    fn members_come_are_promoted_and_go() {
        use ConfChangeKind::{AddLearnerNode, AddNode, RemoveNode, UpdateNode};
        let mut entries = vec![change(1, AddLearnerNode, 4), Entry::default()];
        assert_eq!(members(&entries), (vec![9], vec![4]));
        entries.extend([change(3, AddNode, 4), change(4, UpdateNode, 4), change(5, AddNode, 4)]);
        assert_eq!(members(&entries), (vec![4, 9], vec![]));
        entries.push(change(6, RemoveNode, 9));
        assert_eq!(members(&entries), (vec![4], vec![]));
    }

    #[test]
    fn what_does_not_decode_names_its_entry() {
        let data = Bytes::from_static(b"\xff");
        for kind in [EntryKind::ConfChange, EntryKind::ConfChangeV2] {
            let entry = Entry { term: 1, index: 7, kind, data: data.clone() };
            let error = conf_state_after(&ConfState::default(), [&entry]).expect_err("no change");
            assert!(error.to_string().contains("entry 7"), "{error}");
        }
    }
}
