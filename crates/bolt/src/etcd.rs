//! etcd's buckets and what stands in them; `mvcc`'s revisions, everything else as etcd's own modules write it.
//!
//! | bucket | key | value |
//! | --- | --- | --- |
//! | `key` | revision: 17 bytes, 18 for a tombstone, see [`Revision`] | `mvccpb.KeyValue`; of a tombstone only its key |
//! | `meta` | a name, see [`meta`] | there |
//! | `lease` | lease ID, u64 big endian | `leasepb.Lease` |
//! | `members` | member ID, hexadecimal without leading zeros | JSON of the member |
//! | `members_removed` | the same | `removed` |
//! | `cluster` | `clusterVersion`, `downgrade` | version as text; JSON |
//! | `auth` | `authEnabled`, `authRevision` | one byte; u64 big endian |
//! | `authUsers` | user name | `authpb.User` |
//! | `authRoles` | role name | `authpb.Role` |
//! | `alarm` | `etcdserverpb.AlarmMember` | empty |
//!
//! All ten are there from the first start on.

/// Revisions of keys.
pub const KEY: &str = "key";
/// How far the log is applied, and the compaction.
pub const META: &str = "meta";
/// Leases.
pub const LEASE: &str = "lease";
/// Members of the cluster.
pub const MEMBERS: &str = "members";
/// Those that were removed: their IDs do not come back.
pub const MEMBERS_REMOVED: &str = "members_removed";
/// Version of the cluster.
pub const CLUSTER: &str = "cluster";
/// Key of bucket `cluster`: lowest version of all members.
pub const CLUSTER_VERSION: &str = "clusterVersion";
/// Whether users are asked for.
pub const AUTH: &str = "auth";
/// Users.
pub const AUTH_USERS: &str = "authUsers";
/// Roles.
pub const AUTH_ROLES: &str = "authRoles";
/// Alarms.
pub const ALARM: &str = "alarm";

/// All buckets in the order of their names, which is that of the file.
pub const BUCKETS: [&str; 10] =
    [ALARM, AUTH, AUTH_ROLES, AUTH_USERS, CLUSTER, KEY, LEASE, MEMBERS, MEMBERS_REMOVED, META];

/// Keys of bucket `meta`.
pub mod meta {
    /// u64 big endian: index of the last entry that is applied.
    pub const CONSISTENT_INDEX: &str = "consistent_index";
    /// u64 big endian: its term.
    pub const TERM: &str = "term";
    /// JSON of `raftpb.ConfState`.
    pub const CONF_STATE: &str = "confState";
    /// Version of the schema as text, `3.7.0`; absent before 3.6.
    pub const STORAGE_VERSION: &str = "storageVersion";
    /// 17 bytes as in bucket `key`, sub revision 0: a compaction has begun.
    pub const SCHEDULED_COMPACT_REV: &str = "scheduledCompactRev";
    /// The same: it is complete.
    pub const FINISHED_COMPACT_REV: &str = "finishedCompactRev";
}

/// A key of bucket `key`.
///
/// Eight bytes big endian of the main revision, `_`, eight of the sub revision, and `t` for a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision {
    /// Which write it was.
    pub main: i64,
    /// Which change of that write.
    pub sub: i64,
    /// Whether the key was deleted.
    pub tombstone: bool,
}

impl Revision {
    /// Longest form in bytes.
    pub const BYTES_MAX: usize = 18;

    /// Reads one.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (main, rest) = bytes.split_first_chunk::<8>()?;
        let (sub, rest) = rest.strip_prefix(b"_")?.split_first_chunk::<8>()?;
        if !matches!(rest, b"" | b"t") {
            return None;
        }
        let (main, sub) = (i64::from_be_bytes(*main), i64::from_be_bytes(*sub));
        Some(Self { main, sub, tombstone: !rest.is_empty() })
    }

    /// Its bytes: the first 17 or 18 of the array.
    pub fn bytes(self, buffer: &mut [u8; Self::BYTES_MAX]) -> &[u8] {
        buffer[..8].copy_from_slice(&self.main.to_be_bytes());
        buffer[8] = b'_';
        buffer[9..17].copy_from_slice(&self.sub.to_be_bytes());
        buffer[17] = b't';
        &buffer[..if self.tombstone { 18 } else { 17 }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_stand_in_the_order_of_their_names() {
        assert!(BUCKETS.is_sorted());
    }

    #[test]
    fn a_revision_is_read_as_it_was_written() {
        let mut buffer = [0; Revision::BYTES_MAX];
        for tombstone in [false, true] {
            let revision = Revision { main: 258, sub: 3, tombstone };
            assert_eq!(Revision::read(revision.bytes(&mut buffer)), Some(revision));
        }
        assert_eq!(&buffer[..10], b"\0\0\0\0\0\0\x01\x02_\0");
        for wrong in [&buffer[..16], b"", &[0; 17], &[b'_'; 19]] {
            assert_eq!(Revision::read(wrong), None);
        }
    }
}
