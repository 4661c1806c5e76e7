//! Keys under one name, and who of those that wait for each other is taken out again.

use std::time::Duration;

use etched_proto::etcdserverpb as pb;
use etched_proto::v3lockpb::{LockRequest, LockResponse};

use super::{key_of, under};
use crate::request::Field;
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
        let again = tokio::time::timeout(AGAIN_WITHIN, member.replicate(1));
        again.await.expect("it is tried again");
        assert_eq!(keys(member), ["n/1"]);
    });
}
