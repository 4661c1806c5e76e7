//! Snapshot files: a database and, behind it, the SHA-256 of its bytes.
//!
//! ```text
//! database, a multiple of 512 bytes | 32 bytes of hash
//! ```
//! A file copied from a data directory has no hash.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read, Write};

use etched_proto::mvccpb::KeyValue;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::etcd::{self, Revision};
use crate::source::Source;

/// Bytes of the hash at the end.
pub const HASH_BYTES: usize = 32;
/// What a database's length is a multiple of, so that a hash behind it shows.
const SECTOR: u64 = 512;
/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// What stands in a snapshot, as `etcdutl snapshot status` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// CRC-32C over all buckets: name, keys and values.
    pub hash: u32,
    /// Main revision of the last change.
    pub revision: i64,
    /// Keys that exist there.
    pub total_key: u64,
    /// Bytes of the database.
    pub total_size: u64,
    /// Version of the schema; empty before 3.6.
    pub version: String,
}

/// Whether a file of that length ends with a hash.
pub const fn has_hash(length: u64) -> bool {
    length % SECTOR == HASH_BYTES as u64
}

/// Passes bytes on and hashes them.
#[derive(Debug)]
pub struct Hashed<W> {
    out: W,
    hash: Sha256,
}

impl<W> Hashed<W> {
    /// A hash of nothing yet.
    pub fn new(out: W) -> Self {
        Self { out, hash: Sha256::new() }
    }

    /// The hash of all bytes that went through, to be written behind them.
    pub fn finish(self) -> (W, [u8; HASH_BYTES]) {
        (self.out, self.hash.finalize().into())
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.out.write(bytes)?;
        self.hash.update(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Compares the hash at the end of a snapshot with its bytes; the length of the database in it.
///
/// # Errors
/// [`Error::MissingHash`], [`Error::OtherHash`], [`Error::Io`].
pub fn verify(file: &impl Source) -> Result<u64> {
    let length = file.length()?;
    if !has_hash(length) {
        return Err(Error::MissingHash);
    }
    let database = length - HASH_BYTES as u64;
    let mut expected = [0; HASH_BYTES];
    file.read_at(&mut expected, database)?;
    let mut hashed = Hashed::new(io::sink());
    io::copy(&mut Reader { file, offset: 0, end: database }, &mut hashed)?;
    let (_, found) = hashed.finish();
    if found != expected {
        return Err(Error::OtherHash { expected, found });
    }
    Ok(database)
}

struct Reader<'f, S> {
    file: &'f S,
    offset: u64,
    end: u64,
}

impl<S: Source> Read for Reader<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let take = buffer.len().min(left).min(CHUNK_BYTES);
        self.file.read_at(&mut buffer[..take], self.offset)?;
        self.offset += take as u64;
        Ok(take)
    }
}

/// Checks a database and says what stands in it.
///
/// In memory are 16 bytes for each key that exists.
///
/// # Errors
/// [`Error::Integrity`], [`Error::Row`], [`Error::Io`].
pub fn status<S: Source>(database: &Database<S>) -> Result<Status> {
    database.check().map_err(|error| match error {
        Error::Io(error) => Error::Io(error),
        error => Error::Integrity(Box::new(error)),
    })?;
    let mut status = Status {
        hash: 0,
        revision: 0,
        total_key: 0,
        total_size: database.size(),
        version: version(database)?,
    };
    let mut keys = LiveKeys::default();
    let mut buckets = database.root().entries()?;
    while let Some(bucket) = buckets.next()? {
        let name = String::from_utf8_lossy(bucket.key).into_owned();
        status.hash = crc32c::crc32c_append(status.hash, bucket.key);
        let Some(bucket) = buckets.bucket()? else {
            return Err(Error::Row { bucket: name, what: "nil bucket".to_owned() });
        };
        let mut entries = bucket.entries()?;
        while let Some(entry) = entries.next()? {
            status.hash = crc32c::crc32c_append(status.hash, entry.key);
            if entry.is_bucket {
                continue;
            }
            status.hash = crc32c::crc32c_append(status.hash, entry.value);
            if name == etcd::KEY {
                status.revision = keys.change(entry.key, entry.value)?;
            }
        }
    }
    status.total_key = keys.seen.len() as u64;
    Ok(status)
}

fn version<S: Source>(database: &Database<S>) -> Result<String> {
    let Some(meta) = database.root().bucket(etcd::META.as_bytes())? else {
        return Ok(String::new());
    };
    let version = meta.get(etcd::meta::STORAGE_VERSION.as_bytes())?;
    Ok(version.map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default())
}

/// Keys that exist, by 128 bits of a hash that nobody can foresee.
#[derive(Default)]
struct LiveKeys {
    hashers: [RandomState; 2],
    seen: HashSet<[u64; 2]>,
}

impl LiveKeys {
    /// Takes a change in; its main revision.
    fn change(&mut self, key: &[u8], value: &[u8]) -> Result<i64> {
        let row = |what: String| Error::Row { bucket: etcd::KEY.to_owned(), what };
        let revision = Revision::read(key)
            .ok_or_else(|| row(format!("cannot parse revision key: \"{}\"", key.escape_ascii())))?;
        let record = KeyValue::decode(value).map_err(|error| {
            row(format!("cannot unmarshal value, key: \"{}\" err: {error}", key.escape_ascii()))
        })?;
        let hash = [0, 1].map(|nth: usize| self.hashers[nth].hash_one(&record.key));
        if revision.tombstone {
            self.seen.remove(&hash)
        } else {
            self.seen.insert(hash)
        };
        Ok(revision.main)
    }
}
