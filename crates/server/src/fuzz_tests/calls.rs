//! Whole calls: any bytes as the requests of any methods, one after the other, on a member that has just begun. All that
//! a failure needs stands in its input.

use bytes::{BufMut, Bytes, BytesMut};
use etched_fuzz::{Target, shape};
use etched_proto::etcdserverpb as pb;
use etched_proto::schema::Schema;
use prost::Message as _;

use super::{FOLDER, transaction};
use crate::work_tests::live::Live;

/// Calls of one input at most.
const CALLS_MAX: usize = 8;
/// Bytes before a call's message: the method, how it is framed, its length.
const CALL_HEAD: usize = 4;
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
    let call = |(name, body): &(&str, Vec<u8>)| {
        let place = methods.iter().position(|path| path.ends_with(name)).expect("a method");
        let [low, high] = (body.len() as u16).to_le_bytes();
        [vec![place as u8, 0, low, high], body.clone()].concat()
    };
    let alone = seeds.iter().map(call);
    // Something is there then for those that come later.
    let together = seeds.iter().map(|seed| [call(&seeds[1]), call(seed), call(&seeds[2])].concat());
    alone.chain(together).collect()
}

/// The next call of an input and what stands behind it.
fn split(input: &[u8]) -> Option<(u8, bool, &[u8], &[u8])> {
    let ([method, framing, low, high], rest) = input.split_first_chunk::<CALL_HEAD>()?;
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    let (body, rest) = rest.split_at(length.min(rest.len()));
    Some((*method, framing & 1 == 1, body, rest))
}

/// A call's first byte chooses the method; the second, when it is odd, leaves the framing to the input too; two say how
/// long its message is.
#[test]
fn fuzzed_calls_are_answered_by_a_member_that_goes_on() {
    let methods = methods();
    let target = Target::new(FOLDER, "calls").seeds(seeds(&methods)).bytes_max(2048);
    target.memory(256 << 20, 1024).run(|input| {
        let (mut live, mut outcome, mut rest) = (Live::start(), 0_u64, input);
        for _ in 0..CALLS_MAX {
            let Some((method, is_framed, body, behind)) = split(rest) else { break };
            rest = behind;
            let place = usize::from(method) % methods.len();
            let framed = if is_framed { Bytes::copy_from_slice(body) } else { framed(body) };
            let status = live.call(&format!("/{}", methods[place]), framed);
            let last = shape(&[1 << place]) ^ status.map_or(u64::MAX, |code| code as u64);
            outcome = last ^ outcome.rotate_left(1);
        }
        outcome
    });
}
