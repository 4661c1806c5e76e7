//! The memory table: the records that storage does not show yet.
//!
//! ```text
//! apply ──push──> [chunk][chunk]..[chunk being filled] ──flushed(upto)──> dropped from the front
//! ```
//! Revisions only grow, so the table is a queue that is searched by halving. Chunks are shared with
//! readers that scan them; one that is still filled is copied when a reader holds it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::limit;
use crate::record::{Record, Revision};

/// Records of a chunk.
const CHUNK_RECORDS: usize = limit(256, 3);
/// What a record takes beside its own bytes: its place in the chunk and the allocation's head.
const RECORD_OVERHEAD: usize = size_of::<(Revision, Record)>() + 32;

/// Records in order, the newest last.
pub(crate) type Chunk = Arc<Vec<(Revision, Record)>>;

#[derive(Debug, Default)]
pub(crate) struct MemoryTable {
    /// None is empty.
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

/// Records that have left memory. Dropping it frees them, which takes a while when there are many: a
/// thread that nobody waits for does it best.
#[derive(Debug, Default)]
pub struct Flushed(#[expect(dead_code, reason = "only held, to be dropped")] Vec<Chunk>);

impl MemoryTable {
    /// Adds the newest record.
    pub(crate) fn push(&mut self, revision: Revision, record: Record) {
        self.bytes += cost(&record);
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK_RECORDS => {
                Arc::make_mut(chunk).push((revision, record));
            }
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK_RECORDS);
                chunk.push((revision, record));
                self.chunks.push_back(Arc::new(chunk));
            }
        }
    }

    pub(crate) fn get(&self, revision: Revision) -> Option<&Record> {
        let after = self.chunks.partition_point(|chunk| chunk[0].0 <= revision);
        let chunk = self.chunks.get(after.checked_sub(1)?)?;
        let place = chunk.binary_search_by_key(&revision, |(revision, _)| *revision).ok()?;
        Some(&chunk[place].1)
    }

    /// The oldest revision here: storage shows everything before it.
    pub(crate) fn first(&self) -> Option<Revision> {
        self.chunks.front().map(|chunk| chunk[0].0)
    }

    /// The chunks that may hold revisions from `from` on.
    pub(crate) fn chunks_from(&self, from: Revision) -> Vec<Chunk> {
        let after = self.chunks.partition_point(|chunk| chunk[0].0 <= from);
        self.chunks.range(after.saturating_sub(1)..).cloned().collect()
    }

    /// Takes the records up to and including `upto` out.
    pub(crate) fn take_until(&mut self, upto: Revision) -> Flushed {
        let mut taken = Vec::new();
        while let Some(chunk) = self.chunks.front_mut() {
            let gone = chunk.partition_point(|(revision, _)| *revision <= upto);
            self.bytes -= chunk[..gone].iter().map(|(_, record)| cost(record)).sum::<usize>();
            if gone < chunk.len() {
                if gone > 0 {
                    let rest = Arc::new(chunk[gone..].to_vec());
                    taken.push(std::mem::replace(chunk, rest));
                }
                break;
            }
            taken.extend(self.chunks.pop_front());
        }
        Flushed(taken)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn cost(record: &Record) -> usize {
    record.bytes.len() + RECORD_OVERHEAD
}
