//! Is there room on the disk for a commit? Asked before redb is touched.
//!
//! redb refuses everything after one failed write, so a full disk found in the middle of a commit
//! costs a restart. Asking first keeps the handle usable: the commit is refused as a whole, reads go
//! on, and after room was made the next commit works. Another program that takes the room between
//! question and write is what [`Error::NoSpace`] without `usable` is for.

use crate::{
    error::{Error, Result},
    storage::{Storage, Writer},
    types::{Commit, Durability},
};

/// Left free by commits that add data, so that removals, checkpoints and the log still find room.
const MARGIN_BYTES: u64 = 32 << 20;
/// At most this part of the medium, for small ones.
const MARGIN_PART: u64 = 16;
/// Branch pages, the state row and redb's own tables of one commit.
const FIXED_BYTES: u64 = 1 << 20;
const PAGE_BYTES: u64 = 4096;

/// Refuses a commit that might not fit.
pub(crate) fn check(
    storage: &Storage,
    writer: &Writer,
    commit: &Commit,
    durability: Durability,
) -> Result<()> {
    let room = storage.medium.room().map_err(|error| writer.file.guard.io("stat", error))?;
    let adds = commit.records.iter().map(|(_, record)| record.bytes.len() as u64 + 64).sum::<u64>()
        + commit.rows.iter().map(|(_, key, value)| row_bytes(key, value.as_deref())).sum::<u64>();
    let margin = match adds {
        0 => 0,
        _ => MARGIN_BYTES.min(room.total / MARGIN_PART),
    };
    let need = FIXED_BYTES
        + adds + adds / 4
        + (commit.removed.len() as u64 * PAGE_BYTES).min(writer.state.record_bytes)
        // What earlier commits left in redb's buffer, at most half of its memory.
        + storage.options.cache_bytes as u64 / 2
        // The allocator state that a checkpoint writes: some bits for every page.
        + if durability == Durability::Checkpoint { room.taken / 4096 } else { 0 };
    if room.available >= need + margin {
        return Ok(());
    }
    // Pages inside the file may be free. Counting them walks the tree, so only now.
    let free = room.taken.saturating_sub(writer.file.allocated_bytes()?);
    if room.available + free >= need + margin {
        return Ok(());
    }
    Err(Error::NoSpace { file: writer.file.guard.file(), usable: true })
}

fn row_bytes(key: &[u8], value: Option<&[u8]>) -> u64 {
    PAGE_BYTES.min(64 + 2 * (key.len() + value.map_or(0, <[u8]>::len)) as u64)
        + value.map_or(0, <[u8]>::len) as u64
}
