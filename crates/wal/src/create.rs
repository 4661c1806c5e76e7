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

/// Name of a log's first segment.
const FIRST: Name = Name { seq: 0, index: 0 };

/// Makes the first segment with `head` in it, in a directory that gets its name when all is there. After an error
/// nothing of it is left, if the disk still lets it be removed.
pub(crate) fn first_segment<D: Disk>(
    disk: &D,
    dir: &Path,
    head: &[u8],
    options: &Options,
) -> Result<Segment<D::File>, Error> {
    // However the path is spelled: nothing is renamed to `wal/.`, and `wal/.tmp` is not beside it.
    let dir = &dir.components().collect::<PathBuf>();
    let building = dir.with_added_extension("tmp");
    clear(disk, &building)?;
    let made =
        |path: &Path, done: io::Result<()>| done.map_err(|error| Error::io("create", path, error));
    made(parent(dir), disk.create_dir(parent(dir)))?;
    // Who makes it owns it.
    made(&building, disk.create_new_dir(&building))?;
    let file = fill(disk, &building, head, options).and_then(|file| {
        // Fails if something stands in the directory: nothing is ever removed to make room.
        let named = disk.rename(&building, dir);
        named.map_err(|error| Error::io("rename", &building, error)).map(|()| file)
    });
    let file = file.inspect_err(|_| drop(disk.remove_dir(&building)))?;
    sync_dir(disk, parent(dir), options).inspect_err(|_| drop(disk.remove_dir(dir)))?;
    Ok(Segment { name: FIRST, path: FIRST.path(dir), file: Some(file) })
}

/// The first segment, synced under its name in `building`.
fn fill<D: Disk>(
    disk: &D,
    building: &Path,
    head: &[u8],
    options: &Options,
) -> Result<D::File, Error> {
    let path = FIRST.path(building);
    let file = reserve(disk, &path, Open::CreateNew, options)?;
    write_synced(&file, head, options).map_err(|error| Error::io("write", &path, error))?;
    sync_dir(disk, building, options)?;
    Ok(file)
}

fn sync_dir<D: Disk>(disk: &D, dir: &Path, options: &Options) -> Result<(), Error> {
    let synced = if options.sync { disk.sync_dir(dir) } else { Ok(()) };
    synced.map_err(|error| Error::io("sync", dir, error))
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
