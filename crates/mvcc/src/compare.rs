//! The compares of a transaction, against the state before it.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use etched_proto::etcdserverpb::Compare;
use etched_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

use crate::error::Error;
use crate::index::{Entry, Keys};
use crate::kv::Kv;
use crate::limit;
use crate::record::Revision;
use crate::shared::{Core, Snapshot};

/// Records looked at together: a compare over a range holds no more in memory.
const BATCH: usize = limit(256, 2);

/// Whether the compare holds for every key it names; for one all-zero key when there is none.
///
/// A value never compares to a key that does not exist: an absent value cannot be told from an empty one.
pub(crate) fn holds(core: &Core, snapshot: &Snapshot, compare: &Compare) -> Result<bool, Error> {
    let keys = Keys::new(&compare.key, &compare.range_end);
    let target = CompareTarget::try_from(compare.target);
    if matches!(target, Ok(CompareTarget::Value | CompareTarget::Lease)) {
        return records_hold(core, snapshot, keys, compare);
    }
    let (mut any, mut all) = (false, true);
    snapshot.tree.visit(keys, snapshot.current, |_, entry| {
        any = true;
        all = kv_holds(compare, &of_entry(entry));
        if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    Ok(if any { all } else { kv_holds(compare, &Kv::default()) })
}

fn records_hold(
    core: &Core,
    snapshot: &Snapshot,
    keys: Keys<'_>,
    compare: &Compare,
) -> Result<bool, Error> {
    let mut revisions: Vec<Revision> = Vec::new();
    snapshot.tree.visit(keys, snapshot.current, |_, entry| {
        revisions.push(entry.revision());
        ControlFlow::Continue(())
    });
    if revisions.is_empty() {
        let is_value = compare.target == CompareTarget::Value as i32;
        return Ok(!is_value && kv_holds(compare, &Kv::default()));
    }
    for batch in revisions.chunks(BATCH) {
        for (revision, record) in batch.iter().zip(core.fetch(batch)?) {
            if !kv_holds(compare, &Kv::of(*revision, &record.bytes)?) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn of_entry(entry: Entry) -> Kv<'static> {
    Kv {
        create_revision: entry.created(),
        mod_revision: entry.main(),
        version: entry.version(),
        ..Kv::default()
    }
}

/// An operand of another kind than the target counts as zero or empty, an unknown target as equal, an
/// unknown result as true.
fn kv_holds(compare: &Compare, kv: &Kv<'_>) -> bool {
    let operand = compare.target_union.as_ref();
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => kv.version.cmp(&match operand {
            Some(TargetUnion::Version(version)) => *version,
            _ => 0,
        }),
        Ok(CompareTarget::Create) => kv.create_revision.cmp(&match operand {
            Some(TargetUnion::CreateRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Mod) => kv.mod_revision.cmp(&match operand {
            Some(TargetUnion::ModRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Value) => kv.value.cmp(match operand {
            Some(TargetUnion::Value(value)) => value,
            _ => &[],
        }),
        Ok(CompareTarget::Lease) => kv.lease.cmp(&match operand {
            Some(TargetUnion::Lease(lease)) => *lease,
            _ => 0,
        }),
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}
