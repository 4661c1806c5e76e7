//! What storage keeps of a lease: etcd's `lease` bucket.

use bytes::Bytes;
use etched_proto::leasepb;
use prost::Message;

/// One change of the lease table: write `value` under `key`, or delete `key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The lease id as eight bytes, big endian (negative ids in two's complement).
    pub key: Bytes,
    /// An encoded `leasepb.Lease`, or none to delete the row.
    pub value: Option<Bytes>,
}

/// A stored row is not a lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The key is not eight bytes long.
    #[error("a row of the lease table has a key of {0} bytes instead of 8")]
    KeyLength(usize),
    /// The value is not a `leasepb.Lease`.
    #[error("the row of lease {id:x} does not decode: {reason}")]
    Value {
        /// The lease id from the key.
        id: i64,
        /// What the decoder said.
        reason: String,
    },
    /// The value belongs to another lease than the key.
    #[error("the row of lease {key:x} holds lease {value:x}")]
    Mismatch {
        /// The lease id from the key.
        key: i64,
        /// The lease id from the value.
        value: i64,
    },
}

impl Row {
    /// The row that stores a lease.
    pub(crate) fn put(lease: &leasepb::Lease) -> Self {
        Self { key: key_of(lease.id), value: Some(lease.encode_to_vec().into()) }
    }

    /// The row that deletes a lease.
    pub(crate) fn delete(id: i64) -> Self {
        Self { key: key_of(id), value: None }
    }
}

/// The lease that a stored row holds.
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<leasepb::Lease, RestoreError> {
    let id = <[u8; 8]>::try_from(key).map_err(|_| RestoreError::KeyLength(key.len()))?;
    let id = i64::from_be_bytes(id);
    let lease = leasepb::Lease::decode(value)
        .map_err(|error| RestoreError::Value { id, reason: error.to_string() })?;
    if lease.id != id {
        return Err(RestoreError::Mismatch { key: id, value: lease.id });
    }
    Ok(lease)
}

fn key_of(id: i64) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}
