//! What storage keeps: etcd's buckets `auth`, `authUsers` and `authRoles`.

use bytes::Bytes;
use etched_proto::authpb;
use prost::Message;

/// Key of the row that says whether authentication is on; absent before it was for the first time.
pub(crate) const ENABLED: &[u8] = b"authEnabled";
/// Key of the row with the revision.
pub(crate) const REVISION: &[u8] = b"authRevision";

/// A table of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `auth`: `authEnabled`, one byte 0 or 1; `authRevision`, u64 BE.
    Auth,
    /// `authUsers`: name, `authpb.User`.
    Users,
    /// `authRoles`: name, `authpb.Role`.
    Roles,
}

/// One change of a table: write `value` under `key`, or delete `key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The table.
    pub table: Table,
    /// The row's key.
    pub key: Bytes,
    /// Its new value; none deletes it.
    pub value: Option<Bytes>,
}

impl Row {
    pub(crate) fn enabled(enabled: bool) -> Self {
        let value: &'static [u8] = if enabled { &[1] } else { &[0] };
        Self {
            table: Table::Auth,
            key: Bytes::from_static(ENABLED),
            value: Some(Bytes::from_static(value)),
        }
    }

    pub(crate) fn revision(revision: u64) -> Self {
        let value = Some(Bytes::copy_from_slice(&revision.to_be_bytes()));
        Self { table: Table::Auth, key: Bytes::from_static(REVISION), value }
    }

    pub(crate) fn user(user: &authpb::User) -> Self {
        let value = Some(user.encode_to_vec().into());
        Self { table: Table::Users, key: user.name.clone(), value }
    }

    pub(crate) fn role(role: &authpb::Role) -> Self {
        let value = Some(role.encode_to_vec().into());
        Self { table: Table::Roles, key: role.name.clone(), value }
    }

    pub(crate) fn deleted(table: Table, name: &str) -> Self {
        Self { table, key: Bytes::copy_from_slice(name.as_bytes()), value: None }
    }
}

/// A stored row is not what its table holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The revision is not eight bytes long.
    #[error("the row authRevision of table auth has {0} bytes instead of 8")]
    Revision(usize),
    /// A user does not decode.
    #[error("the row of user {name} does not decode: {reason}")]
    User {
        /// The row's key.
        name: String,
        /// What the decoder said.
        reason: String,
    },
    /// A role does not decode.
    #[error("the row of role {name} does not decode: {reason}")]
    Role {
        /// The row's key.
        name: String,
        /// What the decoder said.
        reason: String,
    },
}
