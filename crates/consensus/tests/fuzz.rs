//! Configuration changes with anything in them: they come from the log, and from other members.

use bytes::Bytes;
use etched_consensus::{ConfChange, ConfChangeKind};
use etched_fuzz::{Target, outcome, shape};

#[test]
fn fuzzed_changes_of_members_read_back() {
    let change = ConfChange {
        id: 7,
        kind: ConfChangeKind::UpdateNode,
        node_id: u64::MAX,
        context: Bytes::from_static(b"{\"id\":7}"),
    };
    let seeds = [change.encode(), Bytes::from_static(b"\x10\x00\x18\x05")];
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
