//! The simulated disk under the log: what is written and synced is counted, what it allocates is nobody's.

use std::io;
use std::path::Path;

use etched_sim::{SimDisk, SimFile};
use etched_wal::disk::{Disk, DiskFile, Open};

use super::account::{self, Account, charge};

#[derive(Debug, Clone)]
pub(super) struct CountedDisk(pub(super) SimDisk);

#[derive(Debug)]
pub(super) struct CountedFile(SimFile);

fn apart<T>(work: impl FnOnce() -> T) -> T {
    charge(Account::Nobody, work)
}

impl Disk for CountedDisk {
    type File = CountedFile;

    fn open(&self, path: &Path, mode: Open) -> io::Result<CountedFile> {
        apart(|| self.0.open(path, mode).map(CountedFile))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        apart(|| self.0.rename(from, to))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        apart(|| self.0.link(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        apart(|| self.0.remove(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        apart(|| self.0.list(dir))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        apart(|| self.0.create_dir(dir))
    }

    fn create_new_dir(&self, dir: &Path) -> io::Result<()> {
        apart(|| self.0.create_new_dir(dir))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        apart(|| self.0.remove_dir(dir))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        apart(|| self.0.sync_dir(dir))
    }
}

impl DiskFile for CountedFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        apart(|| self.0.read_at(offset, buf))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        account::log(bytes.len() as u64, 0);
        apart(|| self.0.write_at(offset, bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        account::log(0, 1);
        apart(|| self.0.sync_data())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        apart(|| self.0.set_len(bytes))
    }

    fn allocate(&self, len: u64, reserved: u64) -> io::Result<()> {
        apart(|| self.0.allocate(len, reserved))
    }

    fn size(&self) -> io::Result<u64> {
        apart(|| self.0.size())
    }

    fn next_data(&self, offset: u64) -> io::Result<u64> {
        apart(|| self.0.next_data(offset))
    }

    fn try_lock(&self) -> io::Result<bool> {
        apart(|| self.0.try_lock())
    }

    fn lock(&self) -> io::Result<()> {
        apart(|| self.0.lock())
    }
}
