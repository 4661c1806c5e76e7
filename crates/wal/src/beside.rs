//! What the log does to its directory while it is written: the next segment is made, old ones are removed.
//!
//! Both take a disk as long as it likes: a file system that is busy with somebody else's sync lets them wait
//! for it, and with them every write behind them. So they have a thread each time, unless
//! [`Options::beside`](crate::Options::beside) is off.
//!
//! Invariant: at most one thread reserves and at most one removes, so that segments go oldest first and what is
//! left is without a hole whenever this ends.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::thread::JoinHandle;

use crate::Error;
use crate::create;
use crate::disk::{Disk, Open};
use crate::wal::{Options, Segment};

/// A thread and what it is to bring. Who lets go of it waits for its end: it must not touch a directory that
/// somebody else may have opened by then.
#[derive(Debug)]
pub(crate) struct Work<T>(Option<JoinHandle<Result<T, Error>>>);

impl<T: Send + 'static> Work<T> {
    /// None when the system gives no thread.
    fn begin(name: &str, work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Option<Self> {
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(work).ok().map(|thread| Self(Some(thread)))
    }

    fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn join(mut self) -> Result<T, Error> {
        let thread = self.0.take().expect("it is taken once, here");
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl<T> Drop for Work<T> {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // Nobody is left to hear of it.
            let _ = thread.join();
        }
    }
}

/// The segment behind the one that is written.
#[derive(Debug, Default)]
pub(crate) enum Next<F> {
    /// There is none; what stood in the way was reported.
    #[default]
    Missing,
    /// A thread reserves its space.
    Coming(Work<F>),
    /// Its space is reserved.
    Ready(F),
}

impl<F: Send + 'static> Next<F> {
    /// Begins to reserve it, if that has not been done, at `path`.
    pub(crate) fn begin<D: Disk<File = F>>(&mut self, disk: &D, path: PathBuf, options: &Options) {
        if !matches!(self, Self::Missing) {
            return;
        }
        if !options.beside {
            // The failure comes back when the segment is needed, or when it is asked for.
            let _ = self.reserve(disk, path, options);
            return;
        }
        let (disk, options) = (disk.clone(), *options);
        if let Some(work) = Work::begin("log-reserve", move || reserved(&disk, path, &options)) {
            *self = Self::Coming(work);
        }
    }

    /// Takes note of a thread that has ended, or reserves it here when there is none.
    pub(crate) fn reserve<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        path: PathBuf,
        options: &Options,
    ) -> Result<(), Error> {
        match self {
            Self::Coming(work) if !work.is_finished() => Ok(()),
            Self::Coming(_) => self.wait(),
            Self::Ready(_) => Ok(()),
            Self::Missing => {
                *self = Self::Ready(reserved(disk, path, options)?);
                Ok(())
            }
        }
    }

    /// Waits for the thread that makes it.
    pub(crate) fn wait(&mut self) -> Result<(), Error> {
        match std::mem::take(self) {
            Self::Coming(work) => *self = Self::Ready(work.join()?),
            other => *self = other,
        }
        Ok(())
    }

    /// The reserved file.
    pub(crate) fn take(&mut self) -> Option<F> {
        match std::mem::take(self) {
            Self::Ready(file) => Some(file),
            other => {
                *self = other;
                None
            }
        }
    }

    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self, Self::Ready(_))
    }
}

fn reserved<D: Disk>(disk: &D, path: PathBuf, options: &Options) -> Result<D::File, Error> {
    let reserved = create::reserve(disk, &path, Open::Create, options);
    if reserved.is_err() {
        // What was reserved of it is of use to others; the error tells more than this one.
        let _ = disk.remove(&path);
    }
    reserved
}

/// The thread that removes segments.
#[derive(Debug, Default)]
pub(crate) struct Removal(Option<Work<()>>);

impl Removal {
    /// Whether segments may be handed over; the failure of those before, once.
    pub(crate) fn is_free(&mut self) -> Result<bool, Error> {
        if self.0.as_ref().is_some_and(|work| !work.is_finished()) {
            return Ok(false);
        }
        self.wait().map(|()| true)
    }

    /// Removes `segments`, the oldest first.
    pub(crate) fn begin<D: Disk>(
        &mut self,
        disk: &D,
        dir: PathBuf,
        segments: Vec<Segment<D::File>>,
        options: &Options,
    ) -> Result<(), Error> {
        if !options.beside {
            return remove(disk, dir, segments, options);
        }
        let (disk, options) = (disk.clone(), *options);
        // Without a thread they stay until the log is opened again behind them: that costs room only.
        self.0 = Work::begin("log-remove", move || remove(&disk, dir, segments, &options));
        Ok(())
    }

    pub(crate) fn wait(&mut self) -> Result<(), Error> {
        self.0.take().map_or(Ok(()), Work::join)
    }
}

fn remove<D: Disk>(
    disk: &D,
    dir: PathBuf,
    segments: Vec<Segment<D::File>>,
    options: &Options,
) -> Result<(), Error> {
    for Segment { path, file, .. } in segments {
        disk.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
        drop(file);
    }
    let synced = if options.sync { disk.sync_dir(&dir) } else { Ok(()) };
    synced.map_err(|error| Error::io("sync", &dir, error))
}
