//! Transactions: compares choose a branch, checks refuse it as a whole, then it is carried out.
//!
//! ```text
//! request ──compares──> Branch ──checks──> prefetch ──> run (under the lock, memory only) ──> Part ──> reply
//!           state before the txn           kept values   index and memory table change        records fetched
//! ```
//! While the branch runs it names revisions; their records are looked up afterwards, since a record never
//! changes. Only a put that keeps a value or a lease needs an old record while it runs: those are
//! fetched before.

use etched_proto::etcdserverpb::request_op::Request;
use etched_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest,
};
use etched_proto::raw::{DeleteRangeReply, OpReply, PutReply, RangeReply, TxnReply};

use crate::compare;
use crate::error::Error;
use crate::index::{Keys, Tree};
use crate::intervals::Intervals;
use crate::leases::Leases;
use crate::range::{self, Selection};
use crate::record::Revision;
use crate::shared::{Core, Snapshot};

/// The operations that run, after all compares, also those of nested transactions.
#[derive(Debug)]
pub(crate) struct Branch<'a> {
    pub(crate) succeeded: bool,
    pub(crate) ops: Vec<Op<'a>>,
}

#[derive(Debug)]
pub(crate) enum Op<'a> {
    Range(&'a RangeRequest),
    Put(&'a PutRequest),
    Delete(&'a DeleteRangeRequest),
    Txn(Branch<'a>),
    /// Without content.
    Empty,
}

/// The answer to an operation, before its records are there. `revision` is that of its header.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    Range { request: &'a RangeRequest, keys: Pending, revision: i64 },
    Put { prev: Option<Revision>, revision: i64 },
    Delete { deleted: i64, prev: Vec<Revision>, revision: i64 },
    Txn { succeeded: bool, parts: Vec<Self> },
}

/// The keys of a range inside a transaction.
#[derive(Debug)]
pub(crate) enum Pending {
    Selected(Selection),
    /// Too many to be selected under the lock: from this tree, as of this revision.
    Later(Tree, i64),
}

impl<'a> Branch<'a> {
    /// Compares, against the state before the transaction, and takes the branches.
    pub(crate) fn choose(
        core: &Core,
        snapshot: &Snapshot,
        request: &'a TxnRequest,
    ) -> Result<Self, Error> {
        let mut succeeded = true;
        for compare in &request.compare {
            succeeded = compare::holds(core, snapshot, compare)?;
            if !succeeded {
                break;
            }
        }
        let ops = if succeeded { &request.success } else { &request.failure };
        let op = |op: &'a RequestOp| {
            Ok(match &op.request {
                Some(Request::RequestRange(request)) => Op::Range(request),
                Some(Request::RequestPut(request)) => Op::Put(request),
                Some(Request::RequestDeleteRange(request)) => Op::Delete(request),
                Some(Request::RequestTxn(request)) => {
                    Op::Txn(Self::choose(core, snapshot, request)?)
                }
                None => Op::Empty,
            })
        };
        Ok(Self { succeeded, ops: ops.iter().map(op).collect::<Result<_, Error>>()? })
    }

    /// Calls `visit` for each operation in the order in which they run.
    pub(crate) fn try_for_each(
        &self,
        visit: &mut impl FnMut(&Op<'a>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.ops.iter().try_for_each(|op| match op {
            Op::Txn(branch) => branch.try_for_each(visit),
            op => visit(op),
        })
    }

    /// Refuses the branch as etcd does, against the state before the transaction, and then where etcd
    /// panics.
    pub(crate) fn check(&self, snapshot: &Snapshot, leases: &dyn Leases) -> Result<(), Error> {
        self.try_for_each(&mut |op| match op {
            Op::Range(request) => check_revision(snapshot, request.revision),
            Op::Put(request) => check_put(&snapshot.tree, request, leases),
            _ => Ok(()),
        })?;
        self.try_for_each(&mut |op| match op {
            Op::Range(request) => range::check_target(request),
            Op::Empty => Err(Error::EmptyOperation),
            _ => Ok(()),
        })?;
        self.check_kept()
    }

    /// Refuses a put that keeps value or lease of a key that this branch deletes before.
    fn check_kept(&self) -> Result<(), Error> {
        let mut deleted = Intervals::default();
        self.try_for_each(&mut |op| {
            match op {
                Op::Delete(request) => match Keys::new(&request.key, &request.range_end) {
                    Keys::One(key) => deleted.insert_key(key),
                    Keys::Range { from, until } => deleted.insert(from, until),
                },
                Op::Put(request) if keeps(request) && deleted.contains(&request.key) => {
                    return Err(Error::KeptKeyDeleted);
                }
                Op::Put(request) => deleted.remove_key(&request.key),
                _ => {}
            }
            Ok(())
        })
    }
}

/// Whether the put needs the record that its key has now.
pub(crate) fn keeps(request: &PutRequest) -> bool {
    request.ignore_value || request.ignore_lease
}

/// The checks of a put: its lease exists, and the key whose value or lease it keeps.
pub(crate) fn check_put(
    tree: &Tree,
    request: &PutRequest,
    leases: &dyn Leases,
) -> Result<(), Error> {
    check_lease(request, leases)?;
    if keeps(request) && tree.at(&request.key, crate::index::NOW).is_none() {
        return Err(Error::KeyNotFound);
    }
    Ok(())
}

/// The lease that a put names exists.
pub(crate) fn check_lease(request: &PutRequest, leases: &dyn Leases) -> Result<(), Error> {
    let known = request.lease == 0 || leases.exists(request.lease);
    if known { Ok(()) } else { Err(Error::LeaseNotFound) }
}

/// Not the rule of a plain range: here a negative revision is below the floor, save -1 before any
/// compaction.
fn check_revision(snapshot: &Snapshot, revision: i64) -> Result<(), Error> {
    match revision {
        0 => Ok(()),
        revision if revision > snapshot.current => Err(Error::FutureRevision),
        revision if revision < snapshot.floor => Err(Error::Compacted),
        _ => Ok(()),
    }
}

/// Answers a transaction that only reads.
pub(crate) fn read_only(
    core: &Core,
    snapshot: &Snapshot,
    request: &TxnRequest,
) -> Result<TxnReply, Error> {
    let branch = Branch::choose(core, snapshot, request)?;
    branch.try_for_each(&mut |op| match op {
        Op::Range(request) => check_revision(snapshot, request.revision),
        _ => Err(Error::EmptyOperation),
    })?;
    answer_read_only(core, snapshot, &branch)
}

fn answer_read_only(
    core: &Core,
    snapshot: &Snapshot,
    branch: &Branch<'_>,
) -> Result<TxnReply, Error> {
    let answer = |op: &Op<'_>| match op {
        Op::Range(request) => {
            range::check_target(request)?;
            let revision = positive(request.revision, snapshot.current);
            let selection = range::select(&snapshot.tree, request, revision, true);
            let reply = core.answer(request, selection)?;
            Ok(OpReply::Range(RangeReply { header: header(snapshot.current), ..reply }))
        }
        Op::Txn(branch) => nested(answer_read_only(core, snapshot, branch)?),
        _ => Err(Error::EmptyOperation),
    };
    let responses = branch.ops.iter().map(answer).collect::<Result<_, Error>>()?;
    Ok(TxnReply { header: None, succeeded: branch.succeeded, responses })
}

/// The replies of a branch that has run.
pub(crate) fn answer(core: &Core, parts: Vec<Part<'_>>) -> Result<Vec<OpReply>, Error> {
    parts.into_iter().map(|part| answer_part(core, part)).collect()
}

fn answer_part(core: &Core, part: Part<'_>) -> Result<OpReply, Error> {
    let records = |revisions: &[Revision]| -> Result<Vec<_>, Error> {
        Ok(core.fetch(revisions)?.into_iter().map(|record| record.bytes).collect())
    };
    match part {
        Part::Range { request, keys, revision } => {
            let selection = match keys {
                Pending::Selected(selection) => selection,
                Pending::Later(tree, at) => range::select(&tree, request, at, true),
            };
            let reply = core.answer(request, selection)?;
            Ok(OpReply::Range(RangeReply { header: header(revision), ..reply }))
        }
        Part::Put { prev, revision } => {
            let prev_kv = records(prev.as_slice())?.pop();
            Ok(OpReply::Put(PutReply { header: header(revision), prev_kv }))
        }
        Part::Delete { deleted, prev, revision } => {
            let prev_kvs = records(&prev)?;
            let reply = DeleteRangeReply { header: header(revision), deleted, prev_kvs };
            Ok(OpReply::DeleteRange(reply))
        }
        Part::Txn { succeeded, parts } => {
            nested(TxnReply { header: None, succeeded, responses: answer(core, parts)? })
        }
    }
}

/// A nested transaction is answered with an empty header.
fn nested(reply: TxnReply) -> Result<OpReply, Error> {
    Ok(OpReply::Txn(TxnReply { header: Some(ResponseHeader::default()), ..reply }))
}

/// The header of a sub-response holds only a revision.
#[expect(clippy::unnecessary_wraps, reason = "the field is optional")]
fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

/// The revision that a range inside a transaction reads at, after its check.
pub(crate) fn positive(requested: i64, current: i64) -> i64 {
    if requested > 0 { requested } else { current }
}
