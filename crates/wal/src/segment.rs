//! Names of segments, and reading one.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::record::{self, Frame, HEADER_BYTES};
use crate::{Damage, Entry, Error, HardState, SnapshotMark};

/// Read at once. Entries share the memory of their chunk, so it is also what one entry that is kept
/// long keeps alive.
const CHUNK_BYTES: usize = 256 << 10;

/// Smallest unit that a disk writes whole: etcd's measure for a torn write.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// What a segment's name tells: `<seq>-<index>.wal`, 16 hexadecimal digits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    /// Number of the segment in the log, from 0.
    pub(crate) seq: u64,
    /// First index that can be in it: one above the last saved when it was made.
    pub(crate) index: u64,
}

impl Name {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (seq, index) = name.strip_suffix(".wal")?.split_once('-')?;
        let number = |text: &str| {
            let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
        };
        Some(Self { seq: number(seq)?, index: number(index)? })
    }

    pub(crate) fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:016x}-{:016x}.wal", self.seq, self.index))
    }
}

/// Segments in `dir`, oldest first. Anything else there is not ours to judge.
pub(crate) fn list<D: Disk>(disk: &D, dir: &Path) -> Result<Vec<Name>, Error> {
    let names = disk.list(dir).map_err(|error| Error::io("list", dir, error))?;
    let mut segments: Vec<Name> = names.iter().filter_map(|name| Name::parse(name)).collect();
    segments.sort_unstable();
    Ok(segments)
}

/// What a segment holds behind its checksum record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Metadata(Bytes),
    Entry(Entry),
    State(HardState),
    Snapshot(SnapshotMark),
}

/// What comes next in a segment.
#[derive(Debug)]
pub(crate) enum Step {
    Record {
        /// Where its frame starts.
        offset: u64,
        record: Record,
    },
    /// End of the file or of its used part.
    End,
    /// No whole record, though not zeros either.
    Bad {
        damage: Damage,
        /// Whether a write that a power cut interrupted looks like this, by etcd's rule. Only
        /// believed in the last segment.
        torn: bool,
    },
}

/// Reads one segment from its beginning.
///
/// Invariant: `chunk[at..]` are the file's bytes from `offset` on.
pub(crate) struct Reader<'a, F> {
    file: &'a F,
    size: u64,
    chunk: Bytes,
    at: usize,
    /// Where the next frame starts: all before is whole.
    pub(crate) offset: u64,
    /// Checksum after the last record; before the first one, what it must be if that is known.
    pub(crate) crc: Option<u32>,
    records: u64,
}

impl<'a, F: DiskFile> Reader<'a, F> {
    /// `crc` is the checksum at the end of the segment before, if that was read.
    pub(crate) fn new(file: &'a F, crc: Option<u32>) -> io::Result<Self> {
        let size = file.size()?;
        Ok(Self { file, size, chunk: Bytes::new(), at: 0, offset: 0, crc, records: 0 })
    }

    /// The next record but the checksum record, which is verified here.
    pub(crate) fn next(&mut self) -> io::Result<Step> {
        loop {
            let frame = match self.frame()? {
                Ok(frame) => frame,
                Err(step) => return Ok(step),
            };
            let whole = HEADER_BYTES + frame.body() as usize;
            self.fill(whole)?;
            match self.decode(frame, self.at + HEADER_BYTES..self.at + whole) {
                Ok((crc, record)) => {
                    let offset = self.offset;
                    self.crc = Some(crc);
                    self.at += whole;
                    self.offset += whole as u64;
                    self.records += 1;
                    if let Some(record) = record {
                        return Ok(Step::Record { offset, record });
                    }
                }
                Err((damage, torn)) => return Ok(Step::Bad { damage, torn }),
            }
        }
    }

    /// The next frame's header, if a frame of that length can be here.
    fn frame(&mut self) -> io::Result<Result<Frame, Step>> {
        let headless = self.records < HEAD_RECORDS;
        self.fill(HEADER_BYTES)?;
        let past_end = Step::Bad { damage: Damage::PastEnd, torn: !headless };
        let Some(header) = self.chunk[self.at..].first_chunk::<HEADER_BYTES>() else {
            let end = self.at == self.chunk.len() && !headless;
            return Ok(Err(if end { Step::End } else { past_end }));
        };
        let frame = Frame::parse(u64::from_le_bytes(*header));
        if frame.header == 0 {
            let no_header = Step::Bad { damage: Damage::NoHeader, torn: false };
            return Ok(Err(if headless { no_header } else { Step::End }));
        }
        let left = self.size - self.offset - HEADER_BYTES as u64;
        Ok(if frame.body() > left { Err(past_end) } else { Ok(frame) })
    }

    /// Checks the frame whose body lies at `body` in the chunk. Answers the checksum behind it, or
    /// what is wrong and whether it looks torn.
    fn decode(
        &self,
        frame: Frame,
        body: Range<usize>,
    ) -> Result<(u32, Option<Record>), (Damage, bool)> {
        let bytes = &self.chunk[body.clone()];
        let torn = |damage| {
            // A new segment gets its name after its head is synced: no crash tears that.
            let behind_head = self.records >= HEAD_RECORDS;
            (damage, behind_head && has_zero_sector(self.offset + HEADER_BYTES as u64, bytes))
        };
        if !frame.is_possible() {
            return Err(torn(Damage::Frame { header: frame.header }));
        }
        let envelope = record::parse_envelope(frame, bytes).map_err(torn)?;
        let (stored, kind) = (envelope.crc, envelope.kind);
        if self.records == 0 {
            return match self.crc {
                _ if kind != record::CRC || !envelope.data.is_empty() => {
                    Err((Damage::OutOfPlace { kind }, false))
                }
                Some(computed) if computed != stored => {
                    Err((Damage::Crc { stored, computed }, false))
                }
                _ => Ok((stored, None)),
            };
        }
        let data =
            self.chunk.slice(body.start + envelope.data.start..body.start + envelope.data.end);
        let computed = crc32c::crc32c_append(self.crc.unwrap_or_default(), &data);
        if computed != stored && kind != record::CRC {
            return Err(torn(Damage::Crc { stored, computed }));
        }
        let record = match (kind, self.records) {
            (record::METADATA, 1) => Record::Metadata(data),
            (record::ENTRY, 2..) => Record::Entry(record::decode_entry(&data).map_err(hard)?),
            (record::STATE, 2..) => Record::State(record::decode_state(&data).map_err(hard)?),
            (record::SNAPSHOT, 2..) => {
                Record::Snapshot(record::decode_snapshot(&data).map_err(hard)?)
            }
            _ => return Err((Damage::OutOfPlace { kind }, false)),
        };
        Ok((computed, Some(record)))
    }

    /// Makes `chunk[at..]` at least `need` bytes long, or all there is.
    fn fill(&mut self, need: usize) -> io::Result<()> {
        let have = self.chunk.len() - self.at;
        if have >= need {
            return Ok(());
        }
        let left = usize::try_from(self.size - self.offset).unwrap_or(usize::MAX);
        let mut chunk = vec![0; left.min(need.max(CHUNK_BYTES))];
        chunk[..have].copy_from_slice(&self.chunk[self.at..]);
        let read = self.file.read_at(self.offset + have as u64, &mut chunk[have..])?;
        chunk.truncate(have + read);
        self.chunk = chunk.into();
        self.at = 0;
        Ok(())
    }
}

/// Records at the head of each segment: checksum and metadata.
const HEAD_RECORDS: u64 = 2;

/// The checksum is right, so no torn write: the bytes were written like that, or the type is wrong.
fn hard(damage: Damage) -> (Damage, bool) {
    (damage, false)
}

/// etcd's sign of a torn write: one sector's part of the record (whose body starts at `offset` of
/// the file) is all zeros, as the preallocated file was before.
fn has_zero_sector(offset: u64, mut body: &[u8]) -> bool {
    let mut in_sector = (SECTOR_BYTES - offset % SECTOR_BYTES) as usize;
    while !body.is_empty() {
        let (sector, rest) = body.split_at(in_sector.min(body.len()));
        if sector.iter().all(|&byte| byte == 0) {
            return true;
        }
        body = rest;
        in_sector = SECTOR_BYTES as usize;
    }
    false
}
