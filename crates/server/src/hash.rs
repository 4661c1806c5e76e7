//! Maintenance.Hash: one checksum over everything, as etcd computes it over its file.

use etched_bolt::etcd;
use etched_storage::Error;
use tonic::Status;

use crate::buckets::{self, Sink};
use crate::shared::Shared;

/// What etcd leaves out of bucket `meta`: it differs from member to member.
const LEFT_OUT: [&str; 3] =
    [etcd::meta::CONSISTENT_INDEX, etcd::meta::TERM, etcd::meta::STORAGE_VERSION];

/// CRC-32C over names, keys and values.
#[derive(Default)]
struct Crc {
    sum: u32,
    in_meta: bool,
}

impl Sink for Crc {
    type Error = Error;

    fn bucket(&mut self, name: &'static str) -> Result<(), Error> {
        self.sum = crc32c::crc32c_append(self.sum, name.as_bytes());
        self.in_meta = name == etcd::META;
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if self.in_meta && LEFT_OUT.iter().any(|name| name.as_bytes() == key) {
            return Ok(());
        }
        self.sum = crc32c::crc32c_append(self.sum, key);
        self.sum = crc32c::crc32c_append(self.sum, value);
        Ok(())
    }
}

/// CRC-32C over all tables, and the revision at which it was taken. The file must stand at what is to be hashed.
///
/// # Errors
/// What the store's file says.
pub(crate) fn whole_store(shared: &Shared) -> Result<(u32, i64), Status> {
    let revision = shared.reader.current_revision();
    let mut crc = Crc::default();
    buckets::give(&shared.storage.view(), &mut crc)
        .map_err(|error| Status::unknown(error.to_string()))?;
    Ok((crc.sum, revision))
}
