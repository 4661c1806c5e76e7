//! The seam between the log and the disk.
//!
//! [`Disk`] is the name space, [`DiskFile`] an open file; [`RealDisk`] implements both on the
//! operating system, the simulator implements them in memory and loses what was not synced.
//! Nothing here buffers: after [`DiskFile::write_at`] returns, every reader of the file sees the bytes,
//! and only [`DiskFile::sync_data`] makes them survive a power cut. Names survive one only after
//! [`Disk::sync_dir`] on their directory.

mod real;

use std::io;
use std::path::Path;

pub use real::{RealDisk, RealFile};

/// How [`Disk::open`] treats what stands under the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// An existing file, to read only.
    Read,
    /// An existing file, to read and write.
    Write,
    /// A new file; one of that name is emptied. Mode 0600.
    Create,
    /// A new file; one of that name is an error (`AlreadyExists`). Mode 0600.
    CreateNew,
}

/// A file system, as far as the server needs one.
///
/// Every method fails with the operating system's error, unchanged; callers add the path.
pub trait Disk: Clone + Send + Sync + 'static {
    /// An open file; closing is dropping it, which also gives up its lock.
    type File: DiskFile;

    /// Opens the file at `path`.
    fn open(&self, path: &Path, mode: Open) -> io::Result<Self::File>;
    /// Gives `from` the name `to`; a file of that name is replaced in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives the file `from` a second name, `to`, in the same directory; one of that name is an error
    /// (`AlreadyExists`).
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Names (not paths) in a directory, in byte order; names that are not UTF-8 are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes a directory and its missing parents, mode 0700, all of them durable at once; one that
    /// exists is fine.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a directory in one that is there, mode 0700, durable at once; one of that name is an error
    /// (`AlreadyExists`).
    fn create_new_dir(&self, dir: &Path) -> io::Result<()>;
    /// Removes a directory and all in it; one that does not exist is fine.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable: files made, renamed, removed before this call.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file with access at any offset. Methods take `&self`: a handle may be shared.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads into `buf` from `offset`; less than `buf.len()` bytes only at the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`, as one call to the system where it takes it so.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the contents and the length durable. After an error nothing is known about what was
    /// written since the last success, and asking again proves nothing.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file, or extends it by zeros without reserving space.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Reserves space for the first `reserved` bytes, also behind the end; a file shorter than `len`
    /// is extended by zeros to it.
    fn allocate(&self, len: u64, reserved: u64) -> io::Result<()>;
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// First offset from `offset` on that may hold anything but zeros, or one behind the end. A file
    /// that does not know its holes answers `offset`.
    fn next_data(&self, offset: u64) -> io::Result<u64>;
    /// Takes the file's exclusive lock; `false` if somebody else holds it.
    fn try_lock(&self) -> io::Result<bool>;
    /// Takes the file's exclusive lock, waiting as long as it takes.
    fn lock(&self) -> io::Result<()>;
}
