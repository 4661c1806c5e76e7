//! Answers too large to be held: their length is known at once, their records come window by window.
//!
//! ```text
//! index ──measure──> bytes, count, more                       (no record is read)
//! index ──plan──> places of a window ──by revision──> memory table, storage ──copy──> blocks in key order
//! ```
//! Storage is ordered by revision, an answer by key. Where keys were written in about their order, the records
//! of a small window lie together; where they were not, each window meets most of the pages again, so that few
//! and large ones are cheaper. A window says which it is, and its reader decides.
//!
//! All windows are of one revision, and a window asked for twice is the same to the byte.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use etched_proto::etcdserverpb::RangeRequest;
use etched_proto::raw::RangeReply;

use crate::error::Error;
use crate::index::{Entry, Tree};
use crate::kv::varint_len;
use crate::limit;
use crate::pins::Pin;
use crate::range::{self, Measure};
use crate::record::{RecordsError, Revision};
use crate::shared::{Core, lost, resolve};

/// Bytes of a block.
const BLOCK: usize = limit(256 << 10, 7);
/// Records that are looked for in one go.
const BATCH: usize = limit(32 << 10, 3);
/// Places looked up under one hold of the lock.
const HOLD: usize = limit(512, 2);
/// A gap of more revisions than this costs what a look-up does, however large it is.
const GAP_MAX: i64 = 20;
/// Records walked past for each one wanted, beyond which a window is scattered.
const WASTE_MAX: i64 = 4;
/// Tag of `RangeResponse.kvs`.
const KVS: u8 = 2 << 3 | 2;

/// How a range is to be answered, see [`Reader::answer`](crate::Reader::answer).
#[derive(Debug)]
pub enum RangeAnswer {
    /// With this.
    Reply(RangeReply),
    /// Window by window.
    Large(LargeRange),
    /// By [`Reader::range`](crate::Reader::range), which will hold all of it, and as much again: an order other
    /// than that of the keys.
    Heavy,
}

/// An answer in key order that is read window by window.
#[derive(Debug)]
pub struct LargeRange {
    core: Arc<Core>,
    /// `key` is where the next window begins.
    request: RangeRequest,
    revision: i64,
    /// Keys still to come.
    left: usize,
    measure: Measure,
    pin: Option<Pin>,
}

/// Part of a [`LargeRange`].
#[derive(Debug, PartialEq)]
pub struct Window {
    /// Encoded fields `kvs` of `RangeResponse`, one after the other. A block may end inside a record.
    pub blocks: Vec<Bytes>,
    keys: usize,
    /// The key after the last one.
    next: Bytes,
}

/// Where a record goes.
#[derive(Clone, Copy)]
#[repr(Rust, packed(4))]
struct Place {
    main: i64,
    sub: u32,
    at: u32,
    len: u32,
}

impl LargeRange {
    pub(crate) fn new(
        core: Arc<Core>,
        request: RangeRequest,
        revision: i64,
        measure: Measure,
        pin: Pin,
    ) -> Self {
        Self { core, request, revision, left: measure.keys, measure, pin: Some(pin) }
    }

    /// The answer without its keys; `header` is left to the server.
    pub fn head(&self) -> RangeReply {
        let Measure { more, count, .. } = self.measure;
        RangeReply { more, count: count as i64, ..RangeReply::default() }
    }

    /// Bytes of all windows together.
    pub fn bytes(&self) -> usize {
        self.measure.bytes
    }

    /// Whether all windows have been passed.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// From now on a compaction beyond the answer's revision ends it with [`Error::Compacted`] instead of
    /// waiting for it.
    pub fn unpin(&mut self) {
        self.pin = None;
    }

    /// The next window: about `bytes_max` bytes, at least one record. None when its records are `scattered` in
    /// storage and that was not asked for.
    ///
    /// # Errors
    /// [`Error::Compacted`] after [`LargeRange::unpin`]; [`Error::Records`].
    pub fn window(&self, bytes_max: usize, scattered: bool) -> Result<Option<Window>, Error> {
        let (tree, _pin) = self.open()?;
        if self.request.keys_only {
            return Ok(Some(self.keys(&tree, bytes_max)));
        }
        let mut places = Vec::new();
        let mut end = 0;
        let (keys, next) = self.visit(&tree, bytes_max, |_, entry, len| {
            let Revision { main, sub } = entry.revision();
            let at = u32::try_from(end).expect("a window is far below 4 GiB");
            places.push(Place { main, sub: sub as u32, at, len: len as u32 });
            end += field_len(len);
        });
        drop(tree);
        places.sort_unstable_by_key(|place| ({ place.main }, { place.sub }));
        if !scattered && is_scattered(&places) {
            return Ok(None);
        }
        let mut blocks = empty_blocks(end);
        for batch in places.chunks(BATCH) {
            self.fill(batch, &mut blocks)?;
        }
        let blocks = blocks.into_iter().map(BytesMut::freeze).collect();
        Ok(Some(Window { blocks, keys, next }))
    }

    /// Goes on behind a window.
    pub fn pass(&mut self, window: &Window) {
        self.left -= window.keys;
        self.request.key = window.next.clone();
    }

    fn open(&self) -> Result<(Tree, Pin), Error> {
        let shared = self.core.shared.read();
        let floor = if self.pin.is_some() { -1 } else { shared.floor };
        resolve(self.revision, shared.current, floor)?;
        Ok((shared.tree.clone(), self.core.pins.pin(self.revision)))
    }

    /// Calls `take` with the keys of the window and the length of their records; how many they are, and the
    /// key after them.
    fn visit<'a>(
        &self,
        tree: &'a Tree,
        bytes_max: usize,
        mut take: impl FnMut(&'a [u8], Entry, usize),
    ) -> (usize, Bytes) {
        let (mut keys, mut bytes, mut last): (_, _, &[u8]) = (0, 0, &[]);
        tree.visit(range::keys(&self.request), self.revision, |key, entry| {
            if !range::passes(&self.request, entry) {
                return ControlFlow::Continue(());
            }
            let len = range::kv_len(&self.request, key, entry);
            if keys == self.left || (keys > 0 && bytes + field_len(len) > bytes_max) {
                return ControlFlow::Break(());
            }
            keys += 1;
            bytes += field_len(len);
            last = key;
            take(key, entry, len);
            ControlFlow::Continue(())
        });
        assert!(keys > 0, "the index has as many keys at a revision as were measured there");
        (keys, [last, &[0]].concat().into())
    }

    fn keys(&self, tree: &Tree, bytes_max: usize) -> Window {
        let (mut blocks, mut block) = (Vec::new(), BytesMut::new());
        let (keys, next) = self.visit(tree, bytes_max, |key, entry, len| {
            if block.len() + field_len(len) > block.capacity() {
                let full =
                    std::mem::replace(&mut block, BytesMut::with_capacity(BLOCK.max(64 + len)));
                blocks.extend(Some(full.freeze()).filter(|full| !full.is_empty()));
            }
            block.put_slice(&field_head(len).0[..field_head(len).1]);
            range::key_only(key, entry).encode_into(&mut block);
        });
        blocks.push(block.freeze());
        Window { blocks, keys, next }
    }

    /// Copies the records of places in the order of their revisions to where they belong.
    fn fill(&self, places: &[Place], blocks: &mut [BytesMut]) -> Result<(), Error> {
        let mut missing: Vec<Place> = Vec::new();
        for batch in places.chunks(HOLD) {
            let shared = self.core.shared.read();
            for place in batch {
                match shared.memory.get(place.revision()) {
                    Some(record) => place.put(&record.bytes, blocks)?,
                    None => missing.push(*place),
                }
            }
        }
        let revisions: Vec<Revision> = missing.iter().map(|place| place.revision()).collect();
        let (mut seen, mut failed) = (0, None);
        self.core.records.visit_sorted(&revisions, &mut |nth, bytes| {
            if nth != seen {
                lost(revisions[seen]);
            }
            seen += 1;
            failed = missing[nth].put(bytes, blocks).err().or(failed.take());
        })?;
        match failed {
            Some(error) => Err(error.into()),
            None if seen < revisions.len() => lost(revisions[seen]),
            None => Ok(()),
        }
    }
}

impl Place {
    fn revision(&self) -> Revision {
        Revision { main: self.main, sub: i64::from(self.sub) }
    }

    fn put(&self, record: &[u8], blocks: &mut [BytesMut]) -> Result<(), RecordsError> {
        if record.len() != self.len as usize {
            let Revision { main, sub } = self.revision();
            return Err(RecordsError(format!(
                "record {main}/{sub} has {} bytes, the key index says {}",
                record.len(),
                { self.len }
            )));
        }
        let (head, head_len) = field_head(record.len());
        let at = self.at as usize;
        put_at(blocks, at, &head[..head_len]);
        put_at(blocks, at + head_len, record);
        Ok(())
    }
}

fn put_at(blocks: &mut [BytesMut], at: usize, mut bytes: &[u8]) {
    let (mut block, mut offset) = (at / BLOCK, at % BLOCK);
    while !bytes.is_empty() {
        let room = &mut blocks[block][offset..];
        let (now, rest) = bytes.split_at(bytes.len().min(room.len()));
        room[..now.len()].copy_from_slice(now);
        (bytes, block, offset) = (rest, block + 1, 0);
    }
}

fn empty_blocks(bytes: usize) -> Vec<BytesMut> {
    let starts = (0..bytes).step_by(BLOCK);
    starts.map(|start| BytesMut::zeroed(BLOCK.min(bytes - start))).collect()
}

/// Whether reading them would walk past many records for each one that is wanted.
fn is_scattered(places: &[Place]) -> bool {
    let gap = |pair: &[Place]| (pair[1].main - pair[0].main).min(GAP_MAX);
    places.windows(2).map(gap).sum::<i64>() > WASTE_MAX * places.len() as i64
}

/// Bytes of a field `kvs` with a body of `len`.
pub(crate) fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// What stands before such a body, and its length.
fn field_head(len: usize) -> ([u8; 11], usize) {
    let (mut head, mut at, mut rest) = ([0; 11], 1, len);
    head[0] = KVS;
    while rest >= 0x80 {
        head[at] = rest as u8 | 0x80;
        (at, rest) = (at + 1, rest >> 7);
    }
    head[at] = rest as u8;
    (head, at + 1)
}
