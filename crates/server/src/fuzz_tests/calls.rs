//! Whole calls: any bytes as the request of any method, on a member that runs.

use bytes::{BufMut, Bytes, BytesMut};
use etched_fuzz::{Target, shape};
use etched_proto::etcdserverpb as pb;
use etched_proto::schema::Schema;
use prost::Message as _;

use super::{FOLDER, transaction};
use crate::work_tests::live::Live;

/// Calls of one member: an alarm or a compaction stays, and would make all that follows the same.
const CALLS_OF_A_MEMBER: usize = 500;
/// Calls that take real time: they hash passwords or copy the file.
const SLOW: [&str; 6] = [
    "etcdserverpb.Auth/UserAdd",
    "etcdserverpb.Auth/UserChangePassword",
    "etcdserverpb.Auth/Authenticate",
    "etcdserverpb.Maintenance/Defragment",
    "etcdserverpb.Maintenance/Snapshot",
    "etcdserverpb.Maintenance/Hash",
];

fn methods() -> Vec<&'static str> {
    Schema::get().methods().filter(|path| !SLOW.contains(path)).collect()
}

fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + message.len());
    out.put_u8(0);
    out.put_u32(message.len() as u32);
    out.put_slice(message);
    out.freeze()
}

fn seeds(methods: &[&str]) -> Vec<Vec<u8>> {
    use pb::watch_request::RequestUnion;
    let watch = pb::WatchCreateRequest { key: "k".into(), prev_kv: true, ..Default::default() };
    let watch = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(watch)) };
    let range = pb::RangeRequest { key: "a".into(), range_end: "z".into(), ..Default::default() };
    let put = pb::PutRequest { key: "key".into(), value: "v".into(), ..Default::default() };
    let seeds = [
        ("KV/Txn", transaction().encode_to_vec()),
        ("KV/Put", put.encode_to_vec()),
        ("KV/Range", range.encode_to_vec()),
        ("KV/RangeStream", range.encode_to_vec()),
        ("KV/DeleteRange", range.encode_to_vec()),
        ("KV/Compact", pb::CompactionRequest { revision: 2, physical: true }.encode_to_vec()),
        ("Lease/LeaseGrant", pb::LeaseGrantRequest { ttl: 60, id: 7 }.encode_to_vec()),
        ("Lease/LeaseRevoke", pb::LeaseRevokeRequest { id: 7 }.encode_to_vec()),
        ("Maintenance/HashKV", pb::HashKvRequest { revision: 2 }.encode_to_vec()),
        ("Auth/RoleAdd", pb::AuthRoleAddRequest { name: "r".to_owned() }.encode_to_vec()),
        ("Watch/Watch", watch.encode_to_vec()),
    ];
    let seed = |(name, body): (&str, Vec<u8>)| {
        let place = methods.iter().position(|path| path.ends_with(name)).expect("a method");
        [vec![place as u8, 0], body].concat()
    };
    seeds.into_iter().map(seed).collect()
}

/// The first byte chooses the method; the second, when it is odd, leaves the framing to the input too.
#[test]
fn fuzzed_calls_are_answered_by_a_member_that_goes_on() {
    let methods = methods();
    let (mut live, mut calls) = (Live::start(), 0);
    let target = Target::new(FOLDER, "calls").seeds(seeds(&methods)).bytes_max(2048);
    target.memory(256 << 20, 1024).run(|input| {
        let Some(([method, framing], body)) = input.split_first_chunk::<2>() else { return 0 };
        calls += 1;
        if calls % CALLS_OF_A_MEMBER == 0 {
            live = Live::start();
        }
        let place = usize::from(*method) % methods.len();
        let framed = if framing & 1 == 1 { Bytes::copy_from_slice(body) } else { framed(body) };
        let path = format!("/{}", methods[place]);
        let status = live.call(&path, framed);
        shape(&[1 << place]) ^ status.map_or(u64::MAX, |code| code as u64)
    });
}
