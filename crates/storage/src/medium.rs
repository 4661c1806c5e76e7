//! Where the file lies: the seam between this crate and a disk, or a test's memory.
//!
//! ```text
//! create_copy -> fill -> sync -> install_copy        (first start and defragmentation alike)
//!                                     |
//!                                  open_main: always whole, never a half-made file
//! ```

use std::{
    fmt::Debug,
    fs::{File, Metadata, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use redb::{StorageBackend, backends::FileBackend};

/// How much a medium has left, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Free for new data.
    pub available: u64,
    /// What the main file takes now.
    pub taken: u64,
    /// Size of the whole medium.
    pub total: u64,
}

/// A main file that was replaced, open while its room is given back; see [`Medium::hold_main`].
pub trait Held: Debug + Send {
    /// Takes the lock that who opens a main file takes; false when somebody has it.
    ///
    /// # Errors
    /// The operating system's.
    fn try_lock(&self) -> io::Result<bool>;

    /// Whether a name is left: a hard link that somebody made, for a backup perhaps.
    ///
    /// # Errors
    /// The operating system's.
    fn has_a_name(&self) -> io::Result<bool>;

    /// Its length in bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn length(&self) -> io::Result<u64>;

    /// Makes it shorter.
    ///
    /// # Errors
    /// The operating system's.
    fn cut(&self, length: u64) -> io::Result<()>;
}

impl Held for File {
    fn try_lock(&self) -> io::Result<bool> {
        match Self::try_lock(self) {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn has_a_name(&self) -> io::Result<bool> {
        Ok(self.metadata()?.nlink() > 0)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// Where the file lies.
pub trait Medium: Debug + Send + Sync + 'static {
    /// The path of the main file for messages.
    fn name(&self) -> String;

    /// Opens the main file, or `None` when there is none. Its name is durable when this returns: who put it
    /// there may have been killed on the way, and the next power cut must not bring the file before it back.
    ///
    /// # Errors
    /// The operating system's.
    fn open_main(&self) -> io::Result<Option<Box<dyn StorageBackend>>>;

    /// Whether what [`open_main`](Self::open_main) opened last is the main file still. Asked once it is locked:
    /// whoever had the lock before may have put another file in its place while it was waited for.
    ///
    /// # Errors
    /// The operating system's.
    fn is_main(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// Makes an empty copy; one that a crash left behind goes.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another process is making one; else the system's.
    fn create_copy(&self) -> io::Result<Box<dyn StorageBackend>>;

    /// Removes a copy when there is one.
    ///
    /// # Errors
    /// The operating system's.
    fn discard_copy(&self) -> io::Result<()>;

    /// The main file, open for writing: its room stays taken until the answer is dropped too, whatever becomes of
    /// its name. None where room costs nothing to give back.
    ///
    /// # Errors
    /// The operating system's.
    fn hold_main(&self) -> io::Result<Option<Box<dyn Held>>> {
        Ok(None)
    }

    /// Puts the synced copy in the place of the main file, in one durable step.
    ///
    /// # Errors
    /// The operating system's.
    fn install_copy(&self) -> io::Result<()>;

    /// How much room is left.
    ///
    /// # Errors
    /// The operating system's.
    fn room(&self) -> io::Result<Room>;
}

/// A file in a folder of the real file system; the copy is `<name>.new` beside it.
#[derive(Debug)]
pub(crate) struct FileMedium {
    main: PathBuf,
    copy: PathBuf,
    /// Device and number of the file opened last.
    opened: Mutex<Option<(u64, u64)>>,
}

impl FileMedium {
    pub(crate) fn new(main: &Path) -> Self {
        let mut copy = main.as_os_str().to_owned();
        copy.push(".new");
        Self { main: main.to_owned(), copy: copy.into(), opened: Mutex::default() }
    }

    fn folder(&self) -> &Path {
        match self.main.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(self.folder())?.sync_all()
    }
}

fn if_present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

fn backend(file: File) -> io::Result<Box<dyn StorageBackend>> {
    let backend = FileBackend::new(file).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Box::new(backend))
}

impl Medium for FileMedium {
    fn name(&self) -> String {
        self.main.display().to_string()
    }

    fn open_main(&self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        let opened = OpenOptions::new().read(true).write(true).open(&self.main);
        let Some(file) = if_present(opened)? else { return Ok(None) };
        self.sync_folder()?;
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(identity(&file.metadata()?));
        backend(file).map(Some)
    }

    fn is_main(&self) -> io::Result<bool> {
        let opened = *self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let main = if_present(std::fs::metadata(&self.main))?;
        Ok(main.map(|main| identity(&main)) == opened)
    }

    fn create_copy(&self) -> io::Result<Box<dyn StorageBackend>> {
        // Only a left-over may go, not the file that another process is just making.
        if let Some(stale) = if_present(File::open(&self.copy))? {
            match stale.try_lock() {
                Ok(()) => if_present(std::fs::remove_file(&self.copy))?,
                Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(TryLockError::Error(error)) => return Err(error),
            };
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        backend(options.open(&self.copy)?)
    }

    fn discard_copy(&self) -> io::Result<()> {
        if_present(std::fs::remove_file(&self.copy)).map(|_| ())
    }

    fn hold_main(&self) -> io::Result<Option<Box<dyn Held>>> {
        let opened = if_present(OpenOptions::new().write(true).open(&self.main))?;
        Ok(opened.map(|file| Box::new(file) as _))
    }

    fn install_copy(&self) -> io::Result<()> {
        std::fs::rename(&self.copy, &self.main)?;
        self.sync_folder()
    }

    fn room(&self) -> io::Result<Room> {
        let disk = rustix::fs::statvfs(self.folder())?;
        let taken =
            if_present(std::fs::metadata(&self.main))?.map_or(0, |file| file.blocks() * 512);
        Ok(Room {
            available: disk.f_bavail * disk.f_frsize,
            taken,
            total: disk.f_blocks * disk.f_frsize,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_replaced_while_it_was_opened_is_not_the_main_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let medium = FileMedium::new(&folder.path().join("db"));
        drop(medium.create_copy().expect("a copy"));
        medium.install_copy().expect("in its place");
        let opened = medium.open_main().expect("readable").expect("there");
        assert!(medium.is_main().expect("there"));
        drop(medium.create_copy().expect("another copy"));
        medium.install_copy().expect("in its place");
        assert!(!medium.is_main().expect("there"));
        drop(opened);
    }
}
