//! Making segments.

use std::io;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::disk::{Disk, DiskFile, Open};
use crate::segment::{self, Name};
use crate::wal::{Options, Segment};

/// Space behind a segment's length for the write that fills it. Without it, a full disk would end the
/// log there although the next segment is reserved.
const LAST_WRITE_BYTES: u64 = 1 << 20;

/// Makes the first segment with `head` in it, in a directory that gets its name when all is there.
pub(crate) fn first_segment<D: Disk>(
    disk: &D,
    dir: &Path,
    head: &[u8],
    options: &Options,
) -> Result<Segment<D::File>, Error> {
    let building = building(dir);
    clear(disk, &building)?;
    disk.create_dir(&building).map_err(|error| Error::io("create", &building, error))?;
    let name = Name { seq: 0, index: 0 };
    let path = name.path(&building);
    let file = reserve(disk, &path, Open::CreateNew, options)?;
    write_synced(&file, head, options).map_err(|error| Error::io("write", &path, error))?;
    let sync_dir = |dir: &Path| {
        let synced = if options.sync { disk.sync_dir(dir) } else { Ok(()) };
        synced.map_err(|error| Error::io("sync", dir, error))
    };
    sync_dir(&building)?;
    // Fails if something stands in the directory: nothing is ever removed to make room.
    disk.rename(&building, dir).map_err(|error| Error::io("rename", &building, error))?;
    sync_dir(parent(dir))?;
    Ok(Segment { name, path: name.path(dir), file: Some(file) })
}

/// Where the log of `dir` is built.
fn building(dir: &Path) -> PathBuf {
    let mut building = dir.as_os_str().to_owned();
    building.push(".tmp");
    building.into()
}

/// The directory that holds the name of `dir`.
pub(crate) fn parent(dir: &Path) -> &Path {
    dir.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes what a creation left that did not end, unless it is still under way.
fn clear<D: Disk>(disk: &D, building: &Path) -> Result<(), Error> {
    let names = match segment::list(disk, building) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for name in names {
        let path = name.path(building);
        let file = disk.open(&path, Open::Write);
        let free = file.and_then(|file| file.try_lock());
        if !free.map_err(|error| Error::io("lock", &path, error))? {
            return Err(Error::Locked { path });
        }
    }
    disk.remove_dir(building).map_err(|error| Error::io("remove", building, error))
}

/// Removes what a creation of the log in `dir` left beside it, and nothing that is not of one.
pub(crate) fn clear_left_over<D: Disk>(disk: &D, dir: &Path) -> Result<(), Error> {
    let building = building(dir);
    let names = disk.list(&building).map_err(|error| Error::io("list", &building, error))?;
    if names.iter().all(|name| Name::parse(name).is_some()) {
        clear(disk, &building)?;
    }
    Ok(())
}

/// A locked file of a segment's length, its space reserved.
pub(crate) fn reserve<D: Disk>(
    disk: &D,
    path: &Path,
    mode: Open,
    options: &Options,
) -> Result<D::File, Error> {
    let file = disk.open(path, mode).map_err(|error| Error::io("create", path, error))?;
    if !file.try_lock().map_err(|error| Error::io("lock", path, error))? {
        return Err(Error::Locked { path: path.into() });
    }
    let reserved = allocate(&file, options);
    reserved.map_err(|error| Error::io("reserve space for", path, error))?;
    Ok(file)
}

/// Gives a segment its length, and space for that and for a last write beyond it.
pub(crate) fn allocate(file: &impl DiskFile, options: &Options) -> io::Result<()> {
    file.allocate(options.segment_bytes, options.segment_bytes + LAST_WRITE_BYTES)
}

/// Writes the head of a segment.
pub(crate) fn write_synced(file: &impl DiskFile, head: &[u8], options: &Options) -> io::Result<()> {
    file.write_at(0, head)?;
    if options.sync { file.sync_data() } else { Ok(()) }
}
