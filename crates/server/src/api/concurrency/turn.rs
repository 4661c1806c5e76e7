//! A key's place among those of its name.
//!
//! ```text
//! Claim ──put_or_find──> Place ──> the call ──keep()──> it stays
//!   └── see_through <──dropped: the first deletion── an error, or the client has gone
//!           └── deletes again until a deletion is applied
//! ```
//! Calls with one lease share the place: it is given up with the last of them ([`super::places`]).
//!
//! A deletion may be refused in apply although it is the server's own, because users or roles changed on its way, or
//! it may find no leader. A key left behind would keep everybody out until its lease ends.

use std::time::Duration;

use bytes::Bytes;
use etched_proto::etcdserverpb as pb;
use etched_proto::mvccpb::KeyValue;
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op;
use prost::Message as _;
use tokio::sync::oneshot;
use tonic::Status;

use super::watching::{Change, Watching};
use super::{Client, created_at, deletion, first_of, key_of, look, op, transact, under};
use crate::error::Error;
use crate::lane;
use crate::request::{self, Field};
use crate::shared::{Event, Outcome, Waiter};

/// Pause before a deletion is repeated; it doubles each time.
const REPEAT_PAUSE: Duration = Duration::from_millis(10);
/// Longest pause. Repeats are never more at once than places that were given up and whose deletion is not applied; a
/// call that wants such a place waits and adds none.
const REPEAT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// A deletion, and what its first attempt gave.
struct Withdrawal {
    deletion: pb::TxnRequest,
    first: Attempt,
}

/// A deletion on its way.
type Attempt = oneshot::Receiver<Outcome>;

/// A call that counts on a key, from before it puts it. With the last one of a key that nobody keeps, the key goes.
struct Claim {
    shared: Client,
    key: Bytes,
    /// Who sees to it that the key goes.
    guard: Option<oneshot::Sender<Withdrawal>>,
}

/// A place that is given up when it is dropped before [`Place::keep`]: by an error, or because the client has gone.
pub(super) struct Place {
    claim: Claim,
    prefix: Bytes,
    pub(super) key: Bytes,
    /// Revision that created the key.
    pub(super) created: i64,
    /// Revision at which the place was taken, or found.
    pub(super) taken: i64,
    /// The key's value when the lease had the place before.
    pub(super) found: Option<Bytes>,
}

impl Place {
    /// Puts the key of `lease` under `name`, or finds it there. Waits, for the time of a request, while an earlier
    /// key of that name and lease is being deleted.
    ///
    /// # Errors
    /// Those of a transaction.
    pub(super) async fn take(
        shared: &Client,
        name: &[u8],
        lease: i64,
        value: Bytes,
    ) -> Result<Self, Status> {
        let (key, prefix) = key_of(name, lease);
        let put = pb::PutRequest { key: key.clone(), value, lease, ..Default::default() };
        let get = pb::RangeRequest { key: key.clone(), ..Default::default() };
        let txn = pb::TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![op(request_op::Request::RequestPut(put))],
            failure: vec![op(request_op::Request::RequestRange(get))],
        };
        let entering = shared.places.enter(&key);
        if tokio::time::timeout(shared.config.request_timeout(), entering).await.is_err() {
            return Err(Error::Timeout.into());
        }
        let (guard, withdrawal) = oneshot::channel();
        let claim = Claim { shared: shared.clone(), key: key.clone(), guard: Some(guard) };
        let (sender, receiver) = oneshot::channel();
        let shared = shared.clone();
        // On its own: when the client goes before the answer is known, there is somebody to give the place up.
        tokio::task::spawn_local(async move {
            let _ = sender.send(put_or_find(claim, prefix, txn).await);
            if let Ok(withdrawal) = withdrawal.await {
                see_through(&shared, withdrawal).await;
                shared.places.withdrawn(&key);
            }
        });
        receiver.await.unwrap_or_else(|_| Err(Error::Stopped.into()))
    }

    /// Waits until no older key has the name; the revision of the read that showed it. None: none had it from
    /// the start.
    ///
    /// # Errors
    /// `lost` when the key has gone meanwhile, with its lease or otherwise: its turn will not come.
    pub(super) async fn wait(&self, lost: &str) -> Result<Option<i64>, Status> {
        let mut waited = None;
        loop {
            let own =
                pb::RangeRequest { key: self.key.clone(), keys_only: true, ..Default::default() };
            let (found, revision) = look(&self.claim.shared, vec![own, self.older()]).await?;
            let [own, older] = <[Option<KeyValue>; 2]>::try_from(found).unwrap_or_default();
            if own.is_none_or(|own| own.create_revision != self.created) {
                return Err(Status::unknown(lost));
            }
            let Some(older) = older else { return Ok(waited.map(|()| revision)) };
            waited = Some(());
            self.wait_for_end(older.key, revision).await?;
        }
    }

    /// The youngest of the older keys.
    fn older(&self) -> pb::RangeRequest {
        pb::RangeRequest {
            limit: 1,
            keys_only: true,
            sort_order: SortOrder::Descend as i32,
            sort_target: SortTarget::Create as i32,
            max_create_revision: self.created - 1,
            ..under(&self.prefix)
        }
    }

    /// Waits until the key before this one, or this one, is deleted, or may have been.
    async fn wait_for_end(&self, older: Bytes, revision: i64) -> Result<(), Status> {
        let of = |key| pb::RangeRequest { key, ..Default::default() };
        let watched = [of(older), of(self.key.clone())];
        let mut watching =
            Watching::open(&self.claim.shared, &watched, revision + 1, Change::Delete).await?;
        // Also when a compaction ended the watch: the caller looks again.
        watching.next().await.map(|_| ())
    }

    /// The place outlives the call.
    pub(super) fn keep(self) {
        self.claim.shared.places.keep(&self.key, self.created);
    }
}

async fn put_or_find(claim: Claim, prefix: Bytes, txn: pb::TxnRequest) -> Result<Place, Status> {
    let (reply, taken) = transact(&claim.shared, &txn).await?;
    let key = claim.key.clone();
    let found = match reply.responses.first() {
        Some(response) if !reply.succeeded => first_of(response)?,
        _ => {
            claim.shared.places.put(&key, taken);
            None
        }
    };
    let created = found.as_ref().map_or(taken, |kv| kv.create_revision);
    let found = found.map(|kv| kv.value);
    Ok(Place { claim, prefix, key, created, taken, found })
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Some(created) = self.shared.places.leave(&self.key) else { return };
        let deletion = deletion(&self.key, created);
        // At once, not by the guard: when the server is stopping its task may not run any more.
        let first = attempt(&self.shared, &deletion);
        if let Some(guard) = self.guard.take() {
            let _ = guard.send(Withdrawal { deletion, first });
        }
    }
}

/// Proposes a deletion. The server takes back what it has put itself, also when its caller no more may.
fn attempt(shared: &Client, deletion: &pb::TxnRequest) -> Attempt {
    let id = shared.ids.next();
    let data =
        request::encode_for(id, &shared.auth.own_caller(), Field::Txn, &deletion.encode_to_vec());
    let (sender, outcome) = oneshot::channel();
    let waiter = Some(Waiter { lane: lane::current(), sender });
    shared.inbox.push(Event::Propose { id, data, waiter });
    outcome
}

/// Repeats a deletion until one is applied, or the server ends.
async fn see_through(shared: &Client, withdrawal: Withdrawal) {
    let Withdrawal { deletion, first: mut outcome } = withdrawal;
    let mut pause = REPEAT_PAUSE;
    loop {
        match tokio::time::timeout(shared.config.request_timeout(), outcome).await {
            Ok(Ok(outcome)) if outcome.result.is_ok() => return,
            // The raft thread has ended.
            Ok(Err(_)) => return,
            Ok(Ok(_)) | Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(REPEAT_PAUSE_MAX);
        outcome = attempt(shared, &deletion);
    }
}
