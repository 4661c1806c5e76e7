//! How keys, records, rows and the state of the file become bytes. The tables of
//! `docs/STORAGE_FORMAT.md` describe the same.
//!
//! Every value starts with a CRC-32C over what it belongs to and what it says, so that a value that
//! turns up under a foreign key is as wrong as a flipped bit.

use std::cmp::Ordering;

use bytes::Bytes;
use etched_mvcc::Revision;
use etched_proto::raftpb::ConfState;
use prost::Message;
use redb::{Key, TypeName, Value};

use crate::types::{Applied, Counts, Table};

/// Bytes of a revision key: main and sub, both big endian.
pub(crate) const REVISION_BYTES: usize = 16;
/// CRC before the value of a row.
const ROW_HEAD: usize = 4;
const FLAG_TOMBSTONE: u8 = 1;

/// The table of etched's own two rows, beside those named after etcd's buckets.
pub(crate) const OWN_TABLE: &str = "etched";
/// Key of the format version in [`OWN_TABLE`].
pub(crate) const FORMAT_KEY: &[u8] = b"format";
/// Key of [`State`] in [`OWN_TABLE`].
pub(crate) const STATE_KEY: &[u8] = b"state";

/// redb's view of a [`Revision`] as a key. Revisions are never negative.
#[derive(Debug)]
pub(crate) struct RevisionKey;

impl Value for RevisionKey {
    type SelfType<'a> = Revision;
    type AsBytes<'a> = [u8; REVISION_BYTES];

    fn fixed_width() -> Option<usize> {
        Some(REVISION_BYTES)
    }

    fn from_bytes<'a>(data: &'a [u8]) -> Revision
    where
        Self: 'a,
    {
        let (main, sub) = data.split_at(8);
        let number = |bytes: &[u8]| i64::from_be_bytes(bytes.try_into().expect("8 of 16 bytes"));
        Revision { main: number(main), sub: number(sub) }
    }

    fn as_bytes<'a, 'b: 'a>(revision: &'a Revision) -> [u8; REVISION_BYTES]
    where
        Self: 'b,
    {
        revision_bytes(*revision)
    }

    fn type_name() -> TypeName {
        TypeName::new("etched::Revision")
    }
}

impl Key for RevisionKey {
    fn compare(left: &[u8], right: &[u8]) -> Ordering {
        left.cmp(right)
    }
}

/// A revision as the key of its record; a negative part of a bound counts as 0.
pub(crate) fn revision_bytes(revision: Revision) -> [u8; REVISION_BYTES] {
    let main = u128::from(revision.main.max(0).unsigned_abs());
    let sub = u128::from(revision.sub.max(0).unsigned_abs());
    (main << 64 | sub).to_be_bytes()
}

/// The checksum of a record.
pub(crate) fn record_crc(revision: Revision, flags_and_bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&revision_bytes(revision)), flags_and_bytes)
}

/// Writes the stored form of a record into `out`, which is emptied first.
pub(crate) fn put_record(out: &mut Vec<u8>, revision: Revision, tombstone: bool, bytes: &[u8]) {
    out.clear();
    out.extend_from_slice(&[0; 4]);
    out.push(if tombstone { FLAG_TOMBSTONE } else { 0 });
    out.extend_from_slice(bytes);
    let crc = record_crc(revision, &out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Takes a stored record apart.
///
/// # Errors
/// What is wrong with it, when its CRC or its flags are.
pub(crate) fn record_of(revision: Revision, stored: &[u8]) -> Result<(bool, &[u8]), String> {
    let bad = |what: &str| format!("{what} of record {}.{}", revision.main, revision.sub);
    let Some((crc, rest)) = stored.split_first_chunk::<4>() else {
        return Err(bad("missing checksum"));
    };
    if u32::from_le_bytes(*crc) != record_crc(revision, rest) {
        return Err(bad("checksum mismatch"));
    }
    match rest.split_first() {
        Some((0, bytes)) => Ok((false, bytes)),
        Some((&FLAG_TOMBSTONE, bytes)) => Ok((true, bytes)),
        _ => Err(bad("unknown flags")),
    }
}

/// The length is part of it, so that no byte can move between key and value unseen.
fn row_crc(table: &str, key: &[u8], value: &[u8]) -> u32 {
    let crc = crc32c::crc32c(table.as_bytes());
    let crc = crc32c::crc32c_append(crc, &(key.len() as u64).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
}

/// The stored form of a row's value.
pub(crate) fn row_value(table: &str, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ROW_HEAD + value.len());
    out.extend_from_slice(&row_crc(table, key, value).to_le_bytes());
    out.extend_from_slice(value);
    out
}

/// The value inside a stored row.
///
/// # Errors
/// What is wrong with it, when its CRC is.
pub(crate) fn row_of<'a>(table: &str, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], String> {
    match stored.split_first_chunk::<ROW_HEAD>() {
        Some((crc, value)) if u32::from_le_bytes(*crc) == row_crc(table, key, value) => Ok(value),
        _ => Err(format!("checksum mismatch in table {table}, key {}", key.escape_ascii())),
    }
}

/// What the file says of itself at one commit; the row [`STATE_KEY`].
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct State {
    pub(crate) applied: Applied,
    pub(crate) conf_state: Option<ConfState>,
    pub(crate) counts: Counts,
    /// Key and value bytes of all records as stored.
    pub(crate) record_bytes: u64,
    /// The same for all other tables together.
    pub(crate) row_bytes: u64,
}

impl State {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let mut put = |number: u64| out.extend_from_slice(&number.to_le_bytes());
        put(self.applied.index);
        put(self.applied.term);
        put(self.record_bytes);
        put(self.row_bytes);
        put(self.counts.records);
        self.counts.rows.iter().for_each(|count| put(*count));
        match &self.conf_state {
            None => out.push(0),
            Some(conf_state) => {
                out.push(1);
                out.extend_from_slice(&conf_state.encode_to_vec());
            }
        }
        out
    }

    /// The state that `bytes` (checksum already verified) spells, or none.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut take = || {
            let (head, rest) = bytes.split_first_chunk::<8>()?;
            bytes = rest;
            Some(u64::from_le_bytes(*head))
        };
        let applied = Applied { index: take()?, term: take()? };
        let (record_bytes, row_bytes) = (take()?, take()?);
        let mut counts = Counts { records: take()?, ..Counts::default() };
        for count in &mut counts.rows {
            *count = take()?;
        }
        let conf_state = match bytes.split_first()? {
            (0, []) => None,
            (1, rest) => Some(ConfState::decode(rest).ok()?),
            _ => return None,
        };
        Some(Self { applied, conf_state, counts, record_bytes, row_bytes })
    }
}

/// The row of a table as read: key and value.
pub(crate) fn checked_row(
    table: Table,
    key: &[u8],
    stored: &[u8],
) -> Result<(Bytes, Bytes), String> {
    let value = row_of(table.name(), key, stored)?;
    Ok((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_revisions_do() {
        let revisions = [(0, 0), (1, 0), (1, 1), (1, 256), (2, 0), (256, 0), (i64::MAX, i64::MAX)];
        for pair in revisions.windows(2) {
            let [low, high] =
                [pair[0], pair[1]].map(|(main, sub)| revision_bytes(Revision { main, sub }));
            assert_eq!(RevisionKey::compare(&low, &high), Ordering::Less);
        }
    }

    #[test]
    fn a_record_is_bound_to_its_revision_and_its_flags() {
        let (here, there) = (Revision { main: 7, sub: 0 }, Revision { main: 7, sub: 1 });
        let mut stored = Vec::new();
        put_record(&mut stored, here, true, b"abc");
        assert_eq!(record_of(here, &stored), Ok((true, &b"abc"[..])));
        assert!(record_of(there, &stored).is_err());
        stored[4] = 0;
        assert!(record_of(here, &stored).is_err());
        assert!(record_of(here, &[]).is_err());
    }

    #[test]
    fn a_row_is_bound_to_its_table_and_the_border_of_its_key() {
        let stored = row_value("lease", b"ab", b"c");
        assert_eq!(row_of("lease", b"ab", &stored), Ok(&b"c"[..]));
        assert!(row_of("alarm", b"ab", &stored).is_err());
        let moved = [&stored[..4], b"bc"].concat();
        assert!(row_of("lease", b"a", &moved).is_err());
    }

    #[test]
    fn a_state_reads_back_and_a_cut_one_does_not() {
        let mut state = State {
            applied: Applied { index: 9, term: 2 },
            conf_state: Some(ConfState { voters: vec![1, 2], ..ConfState::default() }),
            record_bytes: 5,
            row_bytes: 6,
            ..State::default()
        };
        state.counts.rows[8] = 3;
        let bytes = state.encode();
        assert_eq!(State::decode(&bytes), Some(state));
        assert_eq!(State::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(State::decode(&State::default().encode()), Some(State::default()));
    }
}
