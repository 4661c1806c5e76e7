//! Keys under one name, and who of those that wait for each other is taken out again.

use std::time::Duration;

use etched_proto::etcdserverpb as pb;
use etched_proto::v3lockpb::{LockRequest, LockResponse};

use super::{key_of, under};
use crate::request::{self, Field};
use crate::shared::Event;
use crate::work_tests::client::{Call, Client};
use crate::work_tests::member::{Member, rest, with_member};

/// Longer than any pause between two tries.
const AGAIN_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn a_key_is_named_after_its_lease_in_hexadecimal() {
    let key = |name: &[u8], lease| key_of(name, lease).0;
    assert_eq!(key(b"n", 0x1f), "n/1f");
    assert_eq!(key(b"", i64::MAX), "/7fffffffffffffff");
    assert_eq!(key(b"n/", -1), "n//-1");
    assert_eq!(key(b"n", i64::MIN), "n/-8000000000000000");
}

#[test]
fn keys_under_a_name_are_no_others() {
    let range = under(&key_of(b"n", 1).1);
    assert_eq!((&range.key[..], &range.range_end[..]), (&b"n/"[..], &b"n0"[..]));
}

async fn lock(client: &mut Client, lease: i64) -> Call {
    client.ask("/v3lockpb.Lock/Lock", &LockRequest { name: "n".into(), lease }).await
}

/// The keys of the lock, in order.
fn keys(member: &Member) -> Vec<String> {
    let reader = &member.shared.reader;
    let (found, _) = reader.range(&under(&key_of(b"n", 0).1)).expect("a range");
    let text = |kv: &bytes::Bytes| {
        let kv: etched_proto::mvccpb::KeyValue = prost::Message::decode(kv.clone()).expect("a key");
        String::from_utf8(kv.key.to_vec()).expect("text")
    };
    found.kvs.iter().map(text).collect()
}

#[test]
fn a_waiter_that_goes_leaves_no_key_even_when_users_change_meanwhile() {
    with_member(async |member, client| {
        let grants = [1, 2].map(|id| pb::LeaseGrantRequest { id, ttl: 600 });
        member.load(Field::LeaseGrant, grants);
        member.add_root();
        let holder = lock(client, 1).await;
        member.replicate(1).await;
        holder.answer::<LockResponse>().await;
        let waiter = lock(client, 2).await;
        member.replicate(1).await;
        rest().await;
        assert_eq!(keys(member), ["n/1", "n/2"]);

        drop(waiter);
        let mut withdrawal = member.proposed(1).await;
        // Asked for by nobody, and in front of it comes what lets nobody do anything any more.
        member.load(Field::AuthEnable, [pb::AuthEnableRequest {}]);
        member.round(&mut withdrawal);
        assert_eq!(keys(member), ["n/1", "n/2"], "refused");
        // Another call with that lease comes in between, and must not take what is about to be deleted.
        disable_auth(member);
        let second = lock(client, 2).await;
        rest().await;
        let again = tokio::time::timeout(AGAIN_WITHIN, member.replicate(1));
        again.await.expect("it is tried again");
        assert_eq!(keys(member), ["n/1"]);
        member.replicate(1).await;
        until_waiting(member, 1).await;
        assert_eq!(keys(member), ["n/1", "n/2"], "put anew");
        member.load(Field::DeleteRange, [delete("n/1")]);
        assert_eq!(second.answer::<LockResponse>().await.key, "n/2");
        assert_eq!(keys(member), ["n/2"]);
    });
}

/// As the server's own request: no user could make it.
fn disable_auth(member: &mut Member) {
    let id = member.shared.ids.next();
    let caller = member.shared.auth.own_caller();
    let data = request::encode_for(id, &caller, Field::AuthDisable, &[]);
    member.round(&mut vec![Event::Propose { id, data, waiter: None }]);
    assert!(!member.shared.auth.is_enabled());
}

/// Until so many calls watch for their turn, each its own key and the one before it.
async fn until_waiting(member: &Member, calls: usize) {
    while member.shared.hub.counters().watchers < 2 * calls {
        tokio::task::yield_now().await;
    }
}

fn delete(key: &'static str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.into(), ..Default::default() }
}

#[test]
fn a_key_stays_as_long_as_another_call_with_its_lease_waits_for_it() {
    with_member(async |member, client| {
        let grants = [1, 2].map(|id| pb::LeaseGrantRequest { id, ttl: 600 });
        member.load(Field::LeaseGrant, grants);
        let holder = lock(client, 1).await;
        member.replicate(1).await;
        holder.answer::<LockResponse>().await;
        let first = lock(client, 2).await;
        member.replicate(1).await;
        let second = lock(client, 2).await;
        member.replicate(1).await;
        until_waiting(member, 2).await;

        drop(first);
        rest().await;
        member.load(Field::DeleteRange, [delete("n/1")]);
        assert_eq!(second.answer::<LockResponse>().await.key, "n/2");
        assert_eq!(keys(member), ["n/2"]);
    });
}

#[test]
fn a_key_goes_with_the_last_call_of_its_lease() {
    with_member(async |member, client| {
        let grants = [1, 2].map(|id| pb::LeaseGrantRequest { id, ttl: 600 });
        member.load(Field::LeaseGrant, grants);
        let holder = lock(client, 1).await;
        member.replicate(1).await;
        holder.answer::<LockResponse>().await;
        let first = lock(client, 2).await;
        member.replicate(1).await;
        let second = lock(client, 2).await;
        member.replicate(1).await;
        rest().await;
        drop((first, second));
        member.replicate(1).await;
        assert_eq!(keys(member), ["n/1"]);
    });
}
