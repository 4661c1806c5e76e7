//! The fake disk itself: faults, locks, handles.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use etched_wal::disk::{Disk, DiskFile, Open};

use crate::Rng;
use crate::file::{Contents, SECTOR_BYTES};
use crate::tree::{Id, Tree};

// Linux's numbers, so that a message reads as it does in earnest.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// What [`SimDisk::restart`] takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The process was killed, the system lived on: nothing is lost, and nothing more is durable.
    Process,
    /// The power failed and nothing that was not synced had reached the disk.
    Unsynced,
    /// The power failed; the seed decides which unsynced sectors and names had reached the disk.
    Torn(u64),
}

/// A disk in memory. Clones are the same disk; a handle opened before [`Self::restart`] is dead.
#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    unlocked: Condvar,
}

#[derive(Debug, Default)]
struct State {
    tree: Tree,
    /// Handles that hold a lock, by file.
    locks: BTreeMap<Id, u64>,
    handles: u64,
    /// Counts restarts: handles of an earlier boot are dead.
    boot: u64,
    operations: u64,
    crash_at: Option<u64>,
    crashed: bool,
    capacity: Option<u64>,
    read_only: bool,
    /// Syncs that still succeed, if one is to fail.
    good_syncs: Option<u64>,
}

impl SimDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changing operations so far (writes, syncs, names; not reads).
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The changing operation after the next `operations` ones is begun and not finished, then
    /// every operation fails until [`Self::restart`].
    pub fn crash_after(&self, operations: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.operations + operations);
    }

    /// Whether the crash has come.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    /// Ends whatever runs on the disk, takes away what `loss` says, and starts again without a crash
    /// planned. Locks are free, open handles are dead.
    pub fn restart(&self, loss: Loss) {
        let mut state = self.state();
        state.boot += 1;
        state.crashed = false;
        state.crash_at = None;
        state.locks.clear();
        match loss {
            Loss::Process => {}
            Loss::Unsynced => state.tree.lose(None),
            Loss::Torn(seed) => state.tree.lose(Some(Rng::new(seed))),
        }
        drop(state);
        self.0.unlocked.notify_all();
    }

    /// From now on files may take that many bytes together; more is `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes that files take now.
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        self.state().tree.reserved_bytes()
    }

    /// From now on every change is refused, or no longer.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().read_only = read_only;
    }

    /// The sync of a file after the next `syncs` ones fails (EIO), and what it was to make durable is
    /// lost at the next power cut even if a later sync succeeds.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.state().good_syncs = Some(syncs);
    }

    /// The contents of a file.
    ///
    /// # Errors
    /// The file is not there.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        let id = state.tree.find_file(path)?;
        Ok(state.tree.file(id).bytes.clone())
    }

    /// Puts a file there, or changes it under everybody's feet; durable.
    ///
    /// # Errors
    /// The directory is not there.
    pub fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let id = match state.tree.find_file(path) {
            Ok(id) => id,
            Err(_) => state.tree.create_file(path)?,
        };
        let file = state.tree.file(id);
        file.set_len(0);
        file.write(0, bytes);
        file.sync();
        path.parent().map_or(Ok(()), |dir| state.tree.sync_dir(dir))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of a test thread leaves the state whole: no step panics in between.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A changing operation: runs `step` unless a fault stops it.
    fn change<T>(&self, step: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        state.check_alive(state.boot)?;
        state.begin()?;
        let done = step(&mut state)?;
        state.end()?;
        Ok(done)
    }
}

impl State {
    fn check_alive(&self, boot: u64) -> io::Result<()> {
        let alive = !self.crashed && boot == self.boot;
        if alive { Ok(()) } else { Err(io::Error::other("the simulated machine crashed")) }
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.read_only {
            return Err(io::Error::from_raw_os_error(EROFS));
        }
        self.operations += 1;
        Ok(())
    }

    /// The caller of the operation in which the crash comes never learns how it ended.
    fn end(&mut self) -> io::Result<()> {
        self.crashed = self.crash_is_now();
        self.check_alive(self.boot)
    }

    fn crash_is_now(&self) -> bool {
        self.crash_at.is_some_and(|at| self.operations > at)
    }

    /// Whether file `id` can grow to `end` bytes.
    fn check_space(&mut self, id: Id, end: u64) -> io::Result<()> {
        let grown = end.saturating_sub(self.tree.file(id).reserved);
        let full = self
            .capacity
            .is_some_and(|capacity| grown > 0 && self.tree.reserved_bytes() + grown > capacity);
        if full { Err(io::Error::from_raw_os_error(ENOSPC)) } else { Ok(()) }
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn open(&self, path: &Path, mode: Open) -> io::Result<SimFile> {
        let existing = self.state().tree.find_file(path);
        let id = match (mode, existing) {
            (Open::CreateNew, Ok(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Open::Create | Open::CreateNew, Err(error))
                if error.kind() == io::ErrorKind::NotFound =>
            {
                self.change(|state| state.tree.create_file(path))?
            }
            (Open::Create, Ok(id)) => self.change(|state| {
                state.tree.file(id).set_len(0);
                Ok(id)
            })?,
            (_, existing) => existing?,
        };
        let mut state = self.state();
        state.check_alive(state.boot)?;
        state.handles += 1;
        let (handle, boot) = (state.handles, state.boot);
        Ok(SimFile { disk: self.clone(), id, handle, boot })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| state.tree.rename(from, to))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state().tree.find_file(from)?;
        self.change(|state| state.tree.link(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().tree.find_file(path)?;
        self.change(|state| state.tree.remove(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.check_alive(state.boot)?;
        state.tree.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|state| state.tree.create_dir(dir))
    }

    fn create_new_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|state| match state.tree.list(dir) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => state.tree.create_dir(dir),
        })
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        match self.change(|state| state.tree.remove(dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|state| {
            // A sync that the crash interrupts has done nothing for sure.
            if state.crash_is_now() { Ok(()) } else { state.tree.sync_dir(dir) }
        })
    }
}

/// An open file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    id: Id,
    handle: u64,
    boot: u64,
}

impl SimFile {
    fn with<T>(&self, read: impl FnOnce(&Contents) -> T) -> io::Result<T> {
        let mut state = self.disk.state();
        state.check_alive(self.boot)?;
        Ok(read(state.tree.file(self.id)))
    }

    fn change(&self, step: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        // A dead handle is no operation of the boot that runs.
        self.disk.state().check_alive(self.boot)?;
        self.disk.change(|state| {
            state.check_alive(self.boot)?;
            step(state)
        })
    }

    /// Whether a directory names the file.
    ///
    /// # Errors
    /// The crash.
    pub fn has_a_name(&self) -> io::Result<bool> {
        let state = self.disk.state();
        state.check_alive(self.boot)?;
        Ok(state.tree.is_named(self.id))
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.with(|file| {
            let start = (offset as usize).min(file.bytes.len());
            let len = buf.len().min(file.bytes.len() - start);
            buf[..len].copy_from_slice(&file.bytes[start..start + len]);
            len
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(|state| {
            state.check_space(self.id, offset + bytes.len() as u64)?;
            state.tree.file(self.id).write(offset, bytes);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|state| {
            let fails = state.good_syncs == Some(0);
            state.good_syncs = state.good_syncs.and_then(|left| left.checked_sub(1));
            let crash = state.crash_is_now();
            let file = state.tree.file(self.id);
            if fails {
                file.fail_sync();
                return Err(io::Error::from_raw_os_error(EIO));
            }
            if !crash {
                file.sync();
            }
            Ok(())
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.change(|state| {
            state.tree.file(self.id).set_len(bytes);
            Ok(())
        })
    }

    fn allocate(&self, len: u64, reserved: u64) -> io::Result<()> {
        self.change(|state| {
            state.check_space(self.id, reserved.max(len))?;
            state.tree.file(self.id).allocate(len, reserved);
            Ok(())
        })
    }

    fn size(&self) -> io::Result<u64> {
        self.with(|file| file.bytes.len() as u64)
    }

    fn next_data(&self, offset: u64) -> io::Result<u64> {
        self.with(|file| {
            let start = (offset as usize).min(file.bytes.len());
            let data = file.bytes[start..].iter().position(|&byte| byte != 0);
            // As coarse as a real disk.
            let found = data.map_or(file.bytes.len(), |at| start + at) as u64;
            offset.max(found / SECTOR_BYTES * SECTOR_BYTES)
        })
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut state = self.disk.state();
        state.check_alive(self.boot)?;
        Ok(*state.locks.entry(self.id).or_insert(self.handle) == self.handle)
    }

    fn lock(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        loop {
            state.check_alive(self.boot)?;
            if *state.locks.entry(self.id).or_insert(self.handle) == self.handle {
                return Ok(());
            }
            let waited = self.disk.0.unlocked.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.boot == self.boot && state.locks.get(&self.id) == Some(&self.handle) {
            state.locks.remove(&self.id);
            drop(state);
            self.disk.0.unlocked.notify_all();
        }
    }
}
