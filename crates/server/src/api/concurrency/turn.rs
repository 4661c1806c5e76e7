//! A key's place among those of its name.

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
use crate::request::{self, Field};
use crate::shared::Event;

/// A place that is given up when it is dropped before [`Place::keep`]: by an error, or because the client has gone.
pub(super) struct Place {
    shared: Client,
    prefix: Bytes,
    pub(super) key: Bytes,
    /// Revision that created the key.
    pub(super) created: i64,
    /// Revision at which the place was taken, or found.
    pub(super) taken: i64,
    /// The key's value when the lease had the place before; that place belongs to another call and stays.
    pub(super) found: Option<Bytes>,
    kept: bool,
}

impl Place {
    /// Puts the key of `lease` under `name`, or finds it there.
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
        let (sender, receiver) = oneshot::channel();
        let shared = shared.clone();
        // On its own: when the client goes before the answer is known, there is somebody to give the place up.
        tokio::task::spawn_local(async move {
            let place = put_or_find(shared, prefix, key, txn).await;
            let _ = sender.send(place);
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
            let (found, revision) = look(&self.shared, vec![own, self.older()]).await?;
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
            Watching::open(&self.shared, &watched, revision + 1, Change::Delete).await?;
        // Also when a compaction ended the watch: the caller looks again.
        watching.next().await.map(|_| ())
    }

    /// The place outlives the call.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

async fn put_or_find(
    shared: Client,
    prefix: Bytes,
    key: Bytes,
    txn: pb::TxnRequest,
) -> Result<Place, Status> {
    let (reply, taken) = transact(&shared, &txn).await?;
    let found = match reply.responses.first() {
        Some(response) if !reply.succeeded => first_of(response)?,
        _ => None,
    };
    let created = found.as_ref().map_or(taken, |kv| kv.create_revision);
    let found = found.map(|kv| kv.value);
    Ok(Place { shared, prefix, key, created, taken, found, kept: false })
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept || self.found.is_some() {
            return;
        }
        let id = self.shared.ids.next();
        let txn = deletion(&self.key, self.created);
        // The server takes back what it has put itself, also when its caller no more may.
        let caller = self.shared.auth.own_caller();
        let data = request::encode_for(id, &caller, Field::Txn, &txn.encode_to_vec());
        self.shared.inbox.push(Event::Propose { id, data, waiter: None });
    }
}
