//! What stands in a log entry: `etcdserverpb.InternalRaftRequest`.
//!
//! An entry carries the request exactly as the client encoded it, behind one tag, followed by a header
//! with the id that the answer is found by. Decoding looks for the one request that is set instead of
//! filling a struct of thirty optional messages. An entry of another shape is read a second time, by the rules of Go's
//! decoder, which etcd's members go by.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use etched_auth::Caller;
use etched_proto::as_go::{self, Malformed};
use etched_proto::etcdserverpb as pb;
use etched_proto::schema::Schema;
use etched_proto::{membershippb, txn};
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint,
    encoded_len_varint, key_len, skip_field,
};
use prost::{DecodeError, Message};

/// Field number of the header.
const HEADER: u32 = 100;
/// Field number of the old id, written by nobody since 3.0 but still read by etcd.
const OLD_ID: u32 = 1;
/// Field of a request of the old API; in an entry that is one itself, its method: see `old_request`.
pub(crate) const OLD_REQUEST: u32 = 2;
/// The only method there is.
const OLD_METHOD: &[u8] = b"PUT";
/// Requests that change nothing replicated and are not applied here: Range, DowngradeVersionTest.
pub(crate) const WITHOUT_EFFECT: [u32; 2] = [3, 9900];
/// Of several requests in one entry etcd applies the first of these.
pub(crate) const ETCDS_ORDER: [u32; 30] = [
    1300, 1301, 1302, 9900, 3, 4, 5, 6, 7, 8, 9, 11, 10, 1012, 1000, 1011, 1013, 1100, 1101, 1103,
    1104, 1102, 1105, 1200, 1203, 1202, 1204, 1201, 1106, 1107,
];

macro_rules! requests {
    (
        { $($(#[$doc:meta])* $variant:ident($message:ty) = $tag:literal),* $(,)? }
        { $($(#[$auth_doc:meta])* $auth:ident($auth_message:ty) = $auth_tag:literal),* $(,)? }
    ) => {
        /// A replicated request, by the field it stands in.
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) enum Request {
            $($(#[$doc])* $variant($message),)*
            /// One about users and roles.
            Auth(Box<AuthRequest>),
        }

        /// A replicated request about users and roles.
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) enum AuthRequest {
            $($(#[$auth_doc])* $auth($auth_message)),*
        }

        /// Field numbers of the requests.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(dead_code, reason = "some are only read so far, from logs of other members")]
        #[repr(u32)]
        pub(crate) enum Field {
            $($(#[$doc])* $variant = $tag,)*
            $($(#[$auth_doc])* $auth = $auth_tag),*
        }

        impl AuthRequest {
            /// Its name in the metrics.
            pub(crate) fn name(&self) -> &'static str {
                match self {
                    $(Self::$auth(_) => stringify!($auth)),*
                }
            }
        }

        impl Field {
            /// Names, by [`Field::place`].
            pub(crate) const NAMES: &[&str] =
                &[$(stringify!($variant),)* $(stringify!($auth)),*];

            /// The place among all fields.
            pub(crate) fn place(self) -> usize {
                const ALL: &[Field] = &[$(Field::$variant,)* $(Field::$auth),*];
                ALL.iter().position(|field| *field == self).unwrap_or_default()
            }
        }

        impl Request {
            fn decode(
                tag: u32,
                body: Bytes,
                txn: fn(Bytes) -> Result<pb::TxnRequest, DecodeError>,
            ) -> Result<Option<Self>, DecodeError> {
                Ok(Some(match tag {
                    _ if tag == Field::Txn as u32 => Self::Txn(txn(body)?),
                    $($tag => Self::$variant(<$message>::decode(body)?),)*
                    $($auth_tag => {
                        let request = AuthRequest::$auth(<$auth_message>::decode(body)?);
                        Self::Auth(Box::new(request))
                    })*
                    _ => return Ok(None),
                }))
            }

            /// Its field and its bytes.
            #[cfg(test)]
            pub(crate) fn encoded(&self) -> (u32, Vec<u8>) {
                match self {
                    $(Self::$variant(request) => ($tag, request.encode_to_vec()),)*
                    Self::Auth(request) => match &**request {
                        $(AuthRequest::$auth(request) => ($auth_tag, request.encode_to_vec()),)*
                    },
                }
            }
        }
    };
}

requests! {
    {
    /// A put.
    Put(pb::PutRequest) = 4,
    /// A deletion.
    DeleteRange(pb::DeleteRangeRequest) = 5,
    /// A transaction.
    Txn(pb::TxnRequest) = 6,
    /// A compaction.
    Compaction(pb::CompactionRequest) = 7,
    /// A new lease.
    LeaseGrant(pb::LeaseGrantRequest) = 8,
    /// The end of a lease, asked for or by expiry.
    LeaseRevoke(pb::LeaseRevokeRequest) = 9,
    /// An alarm's state.
    Alarm(pb::AlarmRequest) = 10,
    /// Remaining times of leases.
    LeaseCheckpoint(pb::LeaseCheckpointRequest) = 11,
    /// The cluster's version.
    ClusterVersionSet(membershippb::ClusterVersionSetRequest) = 1300,
    /// A member's name and client URLs.
    ClusterMemberAttrSet(membershippb::ClusterMemberAttrSetRequest) = 1301,
    /// State of a downgrade.
    DowngradeInfoSet(membershippb::DowngradeInfoSetRequest) = 1302,
    }
    {
    /// Authentication on.
    AuthEnable(pb::AuthEnableRequest) = 1000,
    /// Authentication off.
    AuthDisable(pb::AuthDisableRequest) = 1011,
    /// A token for a user whose password was right.
    Authenticate(pb::InternalAuthenticateRequest) = 1012,
    /// Whether authentication is on; changes nothing.
    AuthStatus(pb::AuthStatusRequest) = 1013,
    /// A new user.
    AuthUserAdd(pb::AuthUserAddRequest) = 1100,
    /// A user's end.
    AuthUserDelete(pb::AuthUserDeleteRequest) = 1101,
    /// A user's roles; changes nothing.
    AuthUserGet(pb::AuthUserGetRequest) = 1102,
    /// A user's new password.
    AuthUserChangePassword(pb::AuthUserChangePasswordRequest) = 1103,
    /// A role for a user.
    AuthUserGrantRole(pb::AuthUserGrantRoleRequest) = 1104,
    /// A role taken from a user.
    AuthUserRevokeRole(pb::AuthUserRevokeRoleRequest) = 1105,
    /// All users; changes nothing.
    AuthUserList(pb::AuthUserListRequest) = 1106,
    /// All roles; changes nothing.
    AuthRoleList(pb::AuthRoleListRequest) = 1107,
    /// A new role.
    AuthRoleAdd(pb::AuthRoleAddRequest) = 1200,
    /// A role's end.
    AuthRoleDelete(pb::AuthRoleDeleteRequest) = 1201,
    /// A role's permissions; changes nothing.
    AuthRoleGet(pb::AuthRoleGetRequest) = 1202,
    /// A permission for a role.
    AuthRoleGrantPermission(pb::AuthRoleGrantPermissionRequest) = 1203,
    /// A permission taken from a role.
    AuthRoleRevokePermission(pb::AuthRoleRevokePermissionRequest) = 1204,
    }
}

/// A decoded log entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decoded {
    /// Id that the proposer waits for; 0 when nobody does.
    pub(crate) id: u64,
    /// Who asked for it.
    pub(crate) caller: Caller,
    /// None for an entry that changes nothing, and for one of which `unknown` says more.
    pub(crate) request: Option<Request>,
    /// Field number of a request that changes something and that this version does not know.
    pub(crate) unknown: Option<u32>,
}

/// Bytes of an entry for the request `body`, which nobody in particular asks for, found again by `id`.
pub(crate) fn encode(id: u64, field: Field, body: &[u8]) -> Bytes {
    encode_for(id, &Caller::default(), field, body)
}

/// Bytes of an entry for `caller`'s request `body`, found again by `id`.
pub(crate) fn encode_for(id: u64, caller: &Caller, field: Field, body: &[u8]) -> Bytes {
    let tag = field as u32;
    let header_len = header_len(id, caller);
    let length = key_len(tag)
        + encoded_len_varint(body.len() as u64)
        + body.len()
        + key_len(HEADER)
        + encoded_len_varint(header_len as u64)
        + header_len;
    let mut out = BytesMut::with_capacity(length);
    encode_key(tag, WireType::LengthDelimited, &mut out);
    encode_varint(body.len() as u64, &mut out);
    out.put_slice(body);
    encode_key(HEADER, WireType::LengthDelimited, &mut out);
    encode_varint(header_len as u64, &mut out);
    encode_key(1, WireType::Varint, &mut out);
    encode_varint(id, &mut out);
    if !caller.username.is_empty() {
        encode_key(2, WireType::LengthDelimited, &mut out);
        encode_varint(caller.username.len() as u64, &mut out);
        out.put_slice(caller.username.as_bytes());
    }
    if caller.revision != 0 {
        encode_key(3, WireType::Varint, &mut out);
        encode_varint(caller.revision, &mut out);
    }
    debug_assert_eq!(out.len(), length);
    out.freeze()
}

/// Bytes of a header; what is empty in it takes none.
fn header_len(id: u64, caller: &Caller) -> usize {
    let name = caller.username.len();
    let name_len = match name {
        0 => 0,
        _ => key_len(2) + encoded_len_varint(name as u64) + name,
    };
    let revision_len = match caller.revision {
        0 => 0,
        revision => key_len(3) + encoded_len_varint(revision),
    };
    key_len(1) + encoded_len_varint(id) + name_len + revision_len
}

/// Whether an entry made by [`encode`] may add much to what waits in memory for the store's file. A deletion adds
/// no more than its keys, once, and has to work on a full disk.
pub(crate) fn grows(mut data: &[u8]) -> bool {
    let growing = [Field::Put, Field::Txn, Field::LeaseGrant];
    decode_key(&mut data).is_ok_and(|(tag, _)| growing.iter().any(|field| *field as u32 == tag))
}

/// The same for a message that is not encoded yet.
pub(crate) fn encode_message(id: u64, field: Field, message: &impl Message) -> Bytes {
    encode(id, field, &message.encode_to_vec())
}

/// Reads an entry of the shape that entries have: one request, all fields of their own wire types.
///
/// # Errors
/// It has another shape, which is for [`decode_as_etcd`].
pub(crate) fn decode(mut data: Bytes) -> Result<Decoded, DecodeError> {
    let (mut old_id, mut request, mut unknown, mut seen) = (0, None, None, false);
    let mut header = pb::RequestHeader::default();
    while data.has_remaining() {
        let (tag, wire) = decode_key(&mut data)?;
        match (tag, wire) {
            (OLD_ID, WireType::Varint) => old_id = decode_varint(&mut data)?,
            // One that comes twice is merged, as protobuf has it.
            (HEADER, WireType::LengthDelimited) => header.merge(take_body(&mut data)?)?,
            // A second one, or the id in a form that is not its own.
            (tag, WireType::LengthDelimited) if seen || tag == OLD_ID => return Err(odd()),
            (OLD_REQUEST, WireType::LengthDelimited) => {
                (unknown, seen) = (Some(tag), true);
                // The rest is no request of today's.
                if take_body(&mut data)? == OLD_METHOD {
                    break;
                }
            }
            (_, WireType::LengthDelimited) => {
                seen = true;
                match Request::decode(tag, take_body(&mut data)?, txn::decode)? {
                    None if WITHOUT_EFFECT.contains(&tag) => {}
                    None => unknown = Some(tag),
                    found => request = found,
                }
            }
            _ => skip_field(wire, tag, &mut data, DecodeContext::default())?,
        }
    }
    Ok(decoded(old_id, header, request, unknown))
}

/// Reads an entry that [`decode`] did not, as etcd's members do: what they pass over is passed over, of a request that
/// comes twice all fields count, of several requests the one that they would apply. Transactions may nest as deep as
/// theirs, which takes room on the stack.
///
/// # Errors
/// etcd's members could not read it either: they panic.
pub(crate) fn decode_as_etcd(data: &[u8]) -> Result<Decoded, Malformed> {
    let message = Schema::get().find("etcdserverpb.InternalRaftRequest");
    let mut data = as_go::rewrite(message.expect("it is in the schema"), data)?;
    let mut bodies: BTreeMap<u32, BytesMut> = BTreeMap::new();
    let read = || {
        let mut old_id = 0;
        while data.has_remaining() {
            match decode_key(&mut data)? {
                (OLD_ID, WireType::Varint) => old_id = decode_varint(&mut data)?,
                // Of messages one behind the other protobuf makes the one of all their fields.
                (tag, WireType::LengthDelimited) => {
                    bodies.entry(tag).or_default().extend_from_slice(&take_body(&mut data)?);
                }
                (tag, wire) => skip_field(wire, tag, &mut data, DecodeContext::default())?,
            }
        }
        let header = bodies.remove(&HEADER).unwrap_or_default();
        let header = pb::RequestHeader::decode(header.freeze())?;
        let first = ETCDS_ORDER.iter().find_map(|tag| Some((*tag, bodies.remove(tag)?)));
        let Some((tag, body)) = first else {
            return Ok(decoded(old_id, header, None, bodies.into_keys().next()));
        };
        let request = Request::decode(tag, body.freeze(), txn::decode_any)?;
        Ok(decoded(old_id, header, request, None))
    };
    // What is left to prost's judgement has been judged.
    read().map_err(|_: DecodeError| Malformed::Wire)
}

fn decoded(
    old_id: u64,
    header: pb::RequestHeader,
    request: Option<Request>,
    unknown: Option<u32>,
) -> Decoded {
    let id = if header.id == 0 { old_id } else { header.id };
    let caller = Caller { username: header.username, revision: header.auth_revision };
    Decoded { id, caller, request, unknown }
}

/// prost makes its errors itself: this is the one of a varint that is not there.
fn odd() -> DecodeError {
    decode_varint(&mut Bytes::new()).expect_err("nothing holds no varint")
}

pub(crate) fn take_body(data: &mut Bytes) -> Result<Bytes, DecodeError> {
    let length = decode_varint(data)?;
    if length > data.len() as u64 {
        return Err(odd());
    }
    Ok(data.split_to(length as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back_and_is_what_the_generated_message_reads() {
        let put = pb::PutRequest {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"v"),
            lease: -3,
            ..Default::default()
        };
        let bytes = encode_message(77, Field::Put, &put);
        let whole = pb::InternalRaftRequest::decode(bytes.clone()).expect("an InternalRaftRequest");
        assert_eq!(whole.put.as_ref(), Some(&put));
        assert_eq!(whole.header.as_ref().map(|header| header.id), Some(77));
        let decoded = decode(bytes).expect("an entry");
        let expected = Decoded {
            id: 77,
            caller: Caller::default(),
            request: Some(Request::Put(put)),
            unknown: None,
        };
        assert_eq!(decoded, expected);
    }

    #[test]
    fn the_header_says_who_asks_and_nothing_of_nobody() {
        let header = |caller: &Caller| {
            let bytes = encode_for(77, caller, Field::DeleteRange, b"");
            assert_eq!(decode(bytes.clone()).expect("an entry").caller, *caller);
            let whole = pb::InternalRaftRequest::decode(bytes).expect("an InternalRaftRequest");
            whole.header.expect("a header")
        };
        let root = header(&Caller { username: "root".to_owned(), revision: 300 });
        assert_eq!((&root.username[..], root.auth_revision, root.id), ("root", 300, 77));
        let nobody = header(&Caller::default());
        assert_eq!(nobody, pb::RequestHeader { id: 77, ..Default::default() });
        let nameless = header(&Caller { username: String::new(), revision: 1 });
        assert_eq!(nameless.auth_revision, 1);
    }

    #[test]
    fn a_request_of_a_newer_version_is_told_from_one_without_effect() {
        let unknown = |message: pb::InternalRaftRequest| {
            decode(message.encode_to_vec().into()).expect("an entry").unknown
        };
        let newer = Bytes::from_static(b"\xc2\x57\x00");
        assert_eq!(decode(newer).expect("an entry").unknown, Some(1400));
        let range = pb::InternalRaftRequest {
            range: Some(pb::RangeRequest::default()),
            ..Default::default()
        };
        assert_eq!(unknown(range), None);
    }

    #[test]
    fn every_field_number_is_that_of_the_generated_message() {
        let entry = |field| encode(1, field, &[]);
        let whole =
            |field| pb::InternalRaftRequest::decode(entry(field)).expect("an InternalRaftRequest");
        assert!(whole(Field::Txn).txn.is_some());
        assert!(whole(Field::Compaction).compaction.is_some());
        assert!(whole(Field::LeaseGrant).lease_grant.is_some());
        assert!(whole(Field::LeaseRevoke).lease_revoke.is_some());
        assert!(whole(Field::LeaseCheckpoint).lease_checkpoint.is_some());
        assert!(whole(Field::DeleteRange).delete_range.is_some());
        assert!(whole(Field::Alarm).alarm.is_some());
        assert!(whole(Field::ClusterVersionSet).cluster_version_set.is_some());
        assert!(whole(Field::ClusterMemberAttrSet).cluster_member_attr_set.is_some());
        assert!(whole(Field::DowngradeInfoSet).downgrade_info_set.is_some());
    }

    #[test]
    fn what_makes_room_or_says_so_is_not_taken_for_what_grows() {
        for field in [Field::Put, Field::Txn, Field::LeaseGrant] {
            assert!(grows(&encode(1, field, &[])), "{field:?}");
        }
        for field in [Field::DeleteRange, Field::Compaction, Field::Alarm, Field::LeaseRevoke] {
            assert!(!grows(&encode(1, field, &[])), "{field:?}");
        }
    }

    #[test]
    fn an_entry_that_ends_early_is_an_error() {
        let bytes = encode(1, Field::Put, b"\x0a\x01k");
        for end in [1, 2, 3, 4, bytes.len() - 1] {
            assert!(decode(bytes.slice(..end)).is_err(), "cut at {end}");
            assert!(decode_as_etcd(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    fn as_etcd(bytes: &[&[u8]]) -> Decoded {
        let bytes = bytes.concat();
        assert!(decode(Bytes::copy_from_slice(&bytes)).is_err(), "it is of the usual shape");
        decode_as_etcd(&bytes).expect("etcd reads it")
    }

    fn put(key: &'static str, value: &'static str) -> pb::PutRequest {
        pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
    }

    #[test]
    fn fields_that_etcd_passes_over_are_passed_over() {
        let bytes = encode(7, Field::Put, b"\x08\x05\x0a\x01k\x1a\x01x");
        let found = as_etcd(&[b"\x0a\x01x\x20\x01\x2b\x2c", &bytes]);
        assert_eq!((found.id, found.request), (7, Some(Request::Put(put("k", "")))));
        assert_eq!(found.unknown, None);
    }

    #[test]
    fn transactions_nest_as_deep_in_the_log_as_etcd_takes_them() {
        /// Behind these etcd's decoder ends: each is two messages, in the one of the entry.
        const DEEPEST: usize = 5000;
        let entry = |depth: usize| {
            let wrap = |tag: u8, body: &[u8]| {
                let mut outer = vec![tag];
                encode_varint(body.len() as u64, &mut outer);
                [&outer[..], body].concat()
            };
            let txn = (1..depth).fold(Vec::new(), |txn, _| wrap(0x12, &wrap(0x22, &txn)));
            let data = encode(7, Field::Txn, &txn);
            etched_wal::Entry { data, ..Default::default() }
        };
        let depth = |decoded: Option<Decoded>| {
            let Some(Request::Txn(mut txn)) = decoded.expect("an entry").request else {
                panic!("a transaction")
            };
            let mut depth = 1;
            while let Some(op) = txn.success.pop() {
                let Some(pb::request_op::Request::RequestTxn(inner)) = op.request else { break };
                (txn, depth) = (inner, depth + 1);
            }
            Ok(depth)
        };
        for deep in [txn::DEPTH_MAX, txn::DEPTH_MAX + 1, DEEPEST] {
            let found = crate::apply::Applier::with_decoded(&entry(deep), depth);
            assert_eq!(found.expect("etcd reads it"), deep);
        }
        let found = crate::apply::Applier::with_decoded(&entry(DEEPEST), |decoded| {
            drop(decoded);
            Ok(())
        });
        found.expect("there is room to let go of it");
        let error = crate::apply::Applier::with_decoded(&entry(DEEPEST + 1), depth);
        let error = error.expect_err("etcd does not read it").to_string();
        assert!(error.ends_with("proto: exceeded maximum recursion depth"), "{error}");
    }

    #[test]
    fn of_a_request_that_comes_twice_all_fields_count() {
        let (one, two) = (put("k", ""), put("", "v"));
        let [one, two] = [one, two].map(|put| encode_message(7, Field::Put, &put));
        assert_eq!(as_etcd(&[&one, &two]).request, Some(Request::Put(put("k", "v"))));
    }

    #[test]
    fn of_several_requests_the_one_counts_that_etcd_would_apply() {
        let put = encode_message(7, Field::Put, &put("k", "v"));
        let version = encode(7, Field::ClusterVersionSet, b"");
        for entry in [[&put, &version], [&version, &put]] {
            let found = as_etcd(&[entry[0], entry[1]]);
            assert!(matches!(found.request, Some(Request::ClusterVersionSet(_))), "{found:?}");
        }
        let range = b"\x1a\x00";
        assert_eq!(as_etcd(&[&put, range]).request, None);
        let newer = b"\xc2\x57\x00";
        let found = as_etcd(&[newer, &put]);
        assert!(found.request.is_some() && found.unknown.is_none(), "{found:?}");
        assert_eq!(as_etcd(&[newer, newer]).unknown, Some(1400));
    }
}
