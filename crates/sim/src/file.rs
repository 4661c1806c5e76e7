//! Contents of one file, and how they were when they were last durable.

use std::collections::BTreeMap;

use crate::Rng;

/// Written whole or not at all.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// Invariant: `bytes` with the sectors of `unsynced` and `lost` put back, cut or extended to
/// `durable_len`, is what the disk holds for sure.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) bytes: Vec<u8>,
    /// Space taken, from the start of the file.
    pub(crate) reserved: u64,
    durable_len: u64,
    /// Sectors changed since the last sync, as they were then.
    unsynced: BTreeMap<u64, Vec<u8>>,
    /// Sectors whose sync failed: the system forgot that they were changed.
    lost: BTreeMap<u64, Vec<u8>>,
}

impl Contents {
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        self.remember(offset, end);
        if self.bytes.len() < end as usize {
            self.bytes.resize(end as usize, 0);
        }
        self.bytes[offset as usize..end as usize].copy_from_slice(bytes);
        self.reserved = self.reserved.max(end);
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        self.remember(len, self.bytes.len() as u64);
        self.bytes.resize(len as usize, 0);
        self.reserved = self.reserved.min(len);
    }

    pub(crate) fn allocate(&mut self, len: u64, reserved: u64) {
        if (self.bytes.len() as u64) < len {
            self.set_len(len);
        }
        self.reserved = self.reserved.max(len).max(reserved);
    }

    pub(crate) fn sync(&mut self) {
        self.unsynced.clear();
        self.durable_len = self.bytes.len() as u64;
    }

    pub(crate) fn fail_sync(&mut self) {
        self.lost.append(&mut self.unsynced);
    }

    /// What is left after a power cut: of what was not synced nothing, or by `torn` some sectors.
    pub(crate) fn lose(&mut self, mut torn: Option<&mut Rng>) {
        // Some cuts leave nearly all, some nearly nothing: each finds other bugs than an even coin.
        let percent = torn.as_mut().map_or(0, |rng| [0, 10, 50, 90, 100][rng.below(5) as usize]);
        let mut kept = || torn.as_mut().is_some_and(|rng| rng.chance(percent));
        let len = if kept() { self.bytes.len() as u64 } else { self.durable_len };
        let unsynced = std::mem::take(&mut self.unsynced);
        let reverted = unsynced.into_iter().filter(|_| !kept());
        let reverted: Vec<_> = reverted.chain(std::mem::take(&mut self.lost)).collect();
        self.bytes.resize(self.bytes.len().max(len as usize), 0);
        for (sector, old) in reverted {
            let start = (sector * SECTOR_BYTES) as usize;
            let end = (start + SECTOR_BYTES as usize).min(self.bytes.len());
            for (position, byte) in self.bytes.iter_mut().enumerate().take(end).skip(start) {
                *byte = old.get(position - start).copied().unwrap_or(0);
            }
        }
        self.bytes.truncate(len as usize);
        self.durable_len = len;
        self.reserved = self.reserved.max(len);
    }

    /// Keeps the durable version of the sectors that hold bytes `from..until`.
    fn remember(&mut self, from: u64, until: u64) {
        if from >= until {
            return;
        }
        for sector in from / SECTOR_BYTES..=(until - 1) / SECTOR_BYTES {
            if let Some(old) = self.lost.remove(&sector) {
                self.unsynced.insert(sector, old);
            }
            let bytes = &self.bytes;
            self.unsynced.entry(sector).or_insert_with(|| {
                let start = ((sector * SECTOR_BYTES) as usize).min(bytes.len());
                let end = (start + SECTOR_BYTES as usize).min(bytes.len());
                bytes[start..end].to_vec()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsynced_bytes_and_lengths_go_with_the_power() {
        let mut file = Contents::default();
        file.write(0, b"durable");
        file.sync();
        file.write(3, b"xyz and more");
        file.lose(None);
        assert_eq!(file.bytes, b"durable");
        file.set_len(2);
        file.lose(None);
        assert_eq!(file.bytes, b"durable");
        file.set_len(2);
        file.sync();
        file.lose(None);
        assert_eq!(file.bytes, b"du");
    }

    #[test]
    fn a_failed_sync_loses_data_that_a_later_success_does_not_bring_back() {
        let mut file = Contents::default();
        file.write(0, &[1; 1024]);
        file.sync();
        file.write(0, &[2; 512]);
        file.fail_sync();
        file.write(512, &[3; 512]);
        file.sync();
        file.lose(None);
        assert_eq!(file.bytes, [[1; 512], [3; 512]].concat());
    }

    #[test]
    fn a_torn_write_keeps_whole_sectors_in_any_order() {
        let mut first_lost_second_kept = false;
        for seed in 0..100 {
            let mut file = Contents::default();
            file.write(0, &[1; 1024]);
            file.sync();
            file.write(0, &[2; 1024]);
            file.lose(Some(&mut Rng::new(seed)));
            let sectors: Vec<_> = file.bytes.chunks(512).collect();
            assert!(sectors.iter().all(|sector| sector.iter().all(|&byte| byte == sector[0])));
            first_lost_second_kept |= sectors[0][0] == 1 && sectors[1][0] == 2;
        }
        assert!(first_lost_second_kept);
    }
}
