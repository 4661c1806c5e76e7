//! The store as a file of etcd's, made while it is sent.
//!
//! ```text
//! View (one index, fixed) ──measure──> size ──write──> parts of 32 KiB ──> whoever takes them
//! ```
//! The view is read twice, and nothing is kept: neither on the disk nor, beyond a page of each level, in memory. Writes
//! go on meanwhile; the pages that the view sees are not used again before it is dropped.

use std::io;

use etched_bolt::snapshot::{HASH_BYTES, Hashed};
use etched_bolt::{Builder, Layout};
use etched_storage::View;

use crate::buckets::{self, Sink};

/// Bytes of a part, as etcd sends them.
const PART_BYTES: usize = 32 << 10;

/// Why a snapshot does not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The store's file.
    #[error(transparent)]
    Storage(#[from] etched_storage::Error),
    /// Whoever takes the parts takes no more, or the contents cannot be written.
    #[error(transparent)]
    Bolt(#[from] etched_bolt::Error),
}

/// One part of the file.
pub(crate) struct Part {
    /// Bytes of the database that come after it.
    pub(crate) remaining: u64,
    /// Its bytes; of the last part the hash.
    pub(crate) bytes: Vec<u8>,
}

/// Gives the database at the index of `view` to `send`, part by part, then its SHA-256. Answers its size.
///
/// # Errors
/// [`Error`]; when `send` fails, as it did.
pub(crate) fn write(
    view: &View,
    mut send: impl FnMut(Part) -> io::Result<()>,
) -> Result<u64, Error> {
    let (layout, _) = filled(view, Builder::measure())?;
    let parts = Parts { remaining: layout.size(), bytes: Vec::new(), send: &mut send };
    let (_, hashed) = filled(view, Builder::write(layout, Hashed::new(parts))?)?;
    let (mut parts, hash): (_, [u8; HASH_BYTES]) = hashed.finish();
    parts.hand_over().map_err(etched_bolt::Error::Io)?;
    send(Part { remaining: 0, bytes: hash.to_vec() }).map_err(etched_bolt::Error::Io)?;
    Ok(layout.size())
}

/// Gives the database at the index of `view`, part by part and without a hash, to what `begin` makes of its size.
///
/// # Errors
/// As [`write`].
pub(crate) fn database<F: FnMut(Vec<u8>) -> io::Result<()>>(
    view: &View,
    begin: impl FnOnce(u64) -> F,
) -> Result<(), Error> {
    let (layout, _) = filled(view, Builder::measure())?;
    let mut send = begin(layout.size());
    let mut part = |part: Part| send(part.bytes);
    let parts = Parts { remaining: layout.size(), bytes: Vec::new(), send: &mut part };
    let (_, mut parts) = filled(view, Builder::write(layout, parts)?)?;
    Ok(parts.hand_over().map_err(etched_bolt::Error::Io)?)
}

fn filled<W: io::Write>(view: &View, builder: Builder<W>) -> Result<(Layout, W), Error> {
    let mut filling = Filling(builder);
    buckets::give(view, &mut filling)?;
    Ok(filling.0.finish()?)
}

struct Filling<W>(Builder<W>);

impl<W: io::Write> Sink for Filling<W> {
    type Error = Error;

    fn bucket(&mut self, name: &'static str) -> Result<(), Error> {
        Ok(self.0.bucket(name.as_bytes())?)
    }

    fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        Ok(self.0.put(key, value)?)
    }
}

/// Cuts what is written into parts.
struct Parts<'s, F> {
    /// Bytes of the database that are not sent.
    remaining: u64,
    bytes: Vec<u8>,
    send: &'s mut F,
}

impl<F: FnMut(Part) -> io::Result<()>> Parts<'_, F> {
    fn hand_over(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.bytes);
        self.remaining -= bytes.len() as u64;
        (self.send)(Part { remaining: self.remaining, bytes })
    }
}

impl<F: FnMut(Part) -> io::Result<()>> io::Write for Parts<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PART_BYTES - self.bytes.len());
        if (self.bytes.len() + taken) as u64 > self.remaining {
            return Err(io::Error::other(etched_bolt::Error::Changed));
        }
        if self.bytes.is_empty() {
            self.bytes.reserve_exact(PART_BYTES);
        }
        self.bytes.extend_from_slice(&bytes[..taken]);
        if self.bytes.len() == PART_BYTES {
            self.hand_over()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
