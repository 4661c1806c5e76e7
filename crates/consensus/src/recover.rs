//! One member goes on alone from what it has: `--force-new-cluster`.

use bytes::Bytes;
use etched_wal::{Entry, EntryKind, HardState};

use crate::convert::{ConfChange, ConfChangeKind};

/// What `log` needs so that member `id` is the only one: uncommitted entries are to be dropped, and those that this
/// gives take their place, all of them committed. `members` are the members as of the last committed entry;
/// `context` is what [`ConfChange::context`] says of the member itself, for the case that it is none of them.
///
/// Returns the entries to append and the hard state to save behind them.
pub fn force_new_cluster(
    id: u64,
    members: &[u64],
    context: Bytes,
    hard_state: HardState,
) -> (Vec<Entry>, HardState) {
    let change = |kind, node_id, context| ConfChange { id: 0, kind, node_id, context };
    let others = members.iter().filter(|member| **member != id);
    let mut changes: Vec<ConfChange> =
        others.map(|member| change(ConfChangeKind::RemoveNode, *member, Bytes::new())).collect();
    if !members.contains(&id) {
        // First, so that there is a voter at all times.
        changes.insert(0, change(ConfChangeKind::AddNode, id, context));
    }
    let term = hard_state.term.max(1);
    let first = hard_state.commit + 1;
    let entries = changes.iter().zip(first..).map(|(change, index)| Entry {
        term,
        index,
        kind: EntryKind::ConfChange,
        data: change.encode(),
    });
    let entries: Vec<Entry> = entries.collect();
    let commit = hard_state.commit + entries.len() as u64;
    (entries, HardState { term, commit, ..hard_state })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(id: u64, members: &[u64]) -> Vec<(ConfChangeKind, u64)> {
        let state = HardState { term: 3, vote: 2, commit: 10 };
        let (entries, after) = force_new_cluster(id, members, Bytes::new(), state);
        assert_eq!(after, HardState { commit: 10 + entries.len() as u64, ..state });
        assert!(entries.iter().zip(11..).all(|(entry, index)| entry.index == index));
        let read = |entry: Entry| ConfChange::decode(entry.data).expect("just encoded");
        entries.into_iter().map(read).map(|change| (change.kind, change.node_id)).collect()
    }

    #[test]
    fn the_others_are_removed_and_the_member_itself_is_there() {
        use ConfChangeKind::{AddNode, RemoveNode};
        assert_eq!(changes(2, &[1, 2, 3]), [(RemoveNode, 1), (RemoveNode, 3)]);
        assert_eq!(changes(7, &[1, 2]), [(AddNode, 7), (RemoveNode, 1), (RemoveNode, 2)]);
        assert_eq!(changes(1, &[1]), []);
    }
}
