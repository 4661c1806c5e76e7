//! What operations cost in work that can be counted, held against a record: allocations of the network thread and
//! of the raft thread, bytes written to the log and syncs of it.
//!
//! ```text
//! Client ──socket──> listen::serve ──> lane ──> Inbox ──> Engine::round ──> CountedDisk
//! nobody's           network thread's                     raft thread's     log
//! ```
//! No clock decides: a busy machine gives the same numbers as a quiet one. The parts of a member, which have threads
//! of their own in a server, take turns on the test's thread; each test has a member of its own, warmed up until
//! its tables have the size that they keep. `work_tests/record.txt` holds the numbers per operation of the dev profile,
//! of the versions in `Cargo.lock`: another version of a library may cost more, and then that should be known.
//! More than recorded is a regression; less is good news that has to be recorded, or it could be lost again unseen:
//!
//! ```text
//! ETCHED_RECORD_WORK=1 cargo test -p etched-server work_tests
//! ```

mod account;
pub(crate) mod client;
mod disk;
pub(crate) mod live;
pub(crate) mod member;
mod record;

use std::time::Duration;

use etched_proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request as Op;

use account::{Account, allocated, logged};
use client::{Call, Client};
use member::{Member, rest, with_member};
use record::{Work, check};

use crate::request::Field;

/// Keys that are overwritten in turn.
const KEYS: usize = 100;
/// Requests under way at once before anything is measured: more than any workload has.
const AT_ONCE_MAX: usize = 200;
/// Rounds of a workload before it is measured.
const ROUNDS_BEFORE: usize = 20;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

fn key(number: usize) -> Vec<u8> {
    format!("key{number:08}").into_bytes()
}

fn put(number: usize) -> pb::PutRequest {
    pb::PutRequest {
        key: key(number % KEYS).into(),
        value: vec![b'v'; 64].into(),
        ..pb::PutRequest::default()
    }
}

/// As Kubernetes writes, with a condition that holds.
fn compare_and_put(number: usize) -> pb::TxnRequest {
    let op = |request| pb::RequestOp { request: Some(request) };
    let put = put(number);
    let get = pb::RangeRequest { key: put.key.clone(), ..pb::RangeRequest::default() };
    let compare = pb::Compare {
        result: CompareResult::Greater as i32,
        target: CompareTarget::Mod as i32,
        key: put.key.clone(),
        target_union: Some(TargetUnion::ModRevision(0)),
        ..pb::Compare::default()
    };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Op::RequestPut(put))],
        failure: vec![op(Op::RequestRange(get))],
    }
}

/// A batch of puts, all under way at once.
async fn puts(member: &mut Member, client: &mut Client, count: usize) {
    let mut calls = Vec::new();
    for number in 0..count {
        calls.push(client.ask(PUT, &put(number)).await);
    }
    member.replicate(count).await;
    for call in calls {
        call.answer::<pb::PutResponse>().await;
    }
}

async fn transactions(member: &mut Member, client: &mut Client, count: usize) {
    let mut calls = Vec::new();
    for number in 0..count {
        calls.push(client.ask(TXN, &compare_and_put(number)).await);
    }
    member.replicate(count).await;
    for call in calls {
        assert!(call.answer::<pb::TxnResponse>().await.succeeded);
    }
}

/// What `rounds` of `round` cost, by operation. Everything is in the file before, so that what grows between two
/// commits begins anew.
async fn measure(
    member: &mut Member,
    client: &mut Client,
    rounds: usize,
    operations: usize,
    round: impl AsyncFn(&mut Member, &mut Client),
) -> Work {
    for _ in 0..ROUNDS_BEFORE {
        round(member, client).await;
    }
    member.flush();
    rest().await;
    let so_far = || (allocated(Account::Network), allocated(Account::Raft), logged());
    let before = so_far();
    for _ in 0..rounds {
        round(member, client).await;
    }
    rest().await;
    Work::between(before, so_far(), rounds * operations)
}

/// The tables of requests under way get the size that they keep.
async fn warm_up(member: &mut Member, client: &mut Client) {
    for _ in 0..4 {
        puts(member, client, AT_ONCE_MAX).await;
    }
    transactions(member, client, AT_ONCE_MAX).await;
}

#[test]
fn a_put_alone_and_in_a_batch_costs_what_is_recorded() {
    with_member(async |member, client| {
        warm_up(member, client).await;
        let alone = measure(member, client, 200, 1, async |member, client| {
            puts(member, client, 1).await;
        });
        check("put", &alone.await);
        let many = measure(member, client, 20, 50, async |member, client| {
            puts(member, client, 50).await;
        });
        check("put in a batch of 50", &many.await);
    });
}

#[test]
fn a_compare_and_put_alone_and_in_a_batch_costs_what_is_recorded() {
    with_member(async |member, client| {
        warm_up(member, client).await;
        let alone = measure(member, client, 200, 1, async |member, client| {
            transactions(member, client, 1).await;
        });
        check("compare and put", &alone.await);
        let many = measure(member, client, 20, 50, async |member, client| {
            transactions(member, client, 50).await;
        });
        check("compare and put in a batch of 50", &many.await);
    });
}

/// 100,000 keys, in the store's file.
fn load_keys(member: &mut Member) {
    for part in 0..5 {
        let keys = (0..20_000).map(|number| pb::PutRequest {
            key: key(part * 20_000 + number).into(),
            value: vec![b'v'; 64].into(),
            ..pb::PutRequest::default()
        });
        member.load(Field::Put, keys);
        member.flush();
    }
    assert_eq!(member.shared.reader.keys(), 100_000);
}

#[test]
fn reads_of_a_key_a_page_and_a_count_of_100_000_keys_cost_what_is_recorded() {
    let one = pb::RangeRequest { key: key(50_000).into(), ..pb::RangeRequest::default() };
    let all = pb::RangeRequest { key: "key".into(), range_end: "kez".into(), ..Default::default() };
    let page = pb::RangeRequest { limit: 500, ..all.clone() };
    let count = pb::RangeRequest { count_only: true, ..all.clone() };
    with_member(async |member, client| {
        warm_up(member, client).await;
        load_keys(member);
        let reads = [
            ("read of one key", one, 1),
            ("page of 500 of 100,000 keys with their count", page, 100_000),
            ("count of 100,000 keys", count, 100_000),
        ];
        for (name, request, found) in reads {
            let work = measure(member, client, 100, 1, async |_, client| {
                let answer: pb::RangeResponse = client.ask(RANGE, &request).await.answer().await;
                assert_eq!(answer.count, found);
            });
            check(name, &work.await);
        }
    });
}

#[test]
fn an_event_for_100_watchers_on_10_streams_costs_what_is_recorded() {
    with_member(async |member, client| {
        warm_up(member, client).await;
        let mut streams: Vec<Call> = Vec::new();
        for _ in 0..10 {
            let mut stream = client.open(WATCH).await;
            for _ in 0..10 {
                let create = pb::WatchCreateRequest { key: key(0).into(), ..Default::default() };
                let create = pb::watch_request::RequestUnion::CreateRequest(create);
                stream.send(&pb::WatchRequest { request_union: Some(create) });
            }
            stream.skip(10).await;
            streams.push(stream);
        }
        let streams = tokio::sync::Mutex::new(streams);
        let work = measure(member, client, 50, 1, async |member, _| {
            member.load(Field::Put, [put(0)]);
            for stream in &mut *streams.lock().await {
                stream.skip(10).await;
            }
        });
        check("put that 100 watchers on 10 streams see", &work.await);
    });
}

#[test]
fn a_lease_keepalive_costs_what_is_recorded() {
    with_member(async |member, client| {
        warm_up(member, client).await;
        let ttl = Duration::from_secs(3600 * 24).as_secs() as i64;
        member.load(Field::LeaseGrant, [pb::LeaseGrantRequest { id: 7, ttl }]);
        let stream = tokio::sync::Mutex::new(client.open(KEEP_ALIVE).await);
        let work = measure(member, client, 200, 1, async |_, _| {
            let mut stream = stream.lock().await;
            stream.send(&pb::LeaseKeepAliveRequest { id: 7 });
            stream.skip(1).await;
        });
        check("lease keepalive", &work.await);
    });
}
