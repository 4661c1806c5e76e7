//! Snapshots that a leader sends, from the wire to a store of ours.
//!
//! ```text
//! Transport ──bytes──> thread ──> snap/<index>.snap.db, synced ──> raft ──> mark in the log ──> the member starts anew
//! start: the log's newest mark is above the store, and its file is there ──> store beside ──rename──> store
//! ```
//! A member that gets one has stood still for long, and what it serves is out of date; so it starts anew on it, within
//! the same process, rather than change everything under its readers
//! (`docs/decisions/0034-a-received-snapshot-is-a-start.md`). A crash at any step starts with the old store, or with the
//! step that was not done.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use etched_bolt::Database;
use etched_storage::{Applied, Durability};
use etched_transport::SnapshotBody;
use etched_wal::SnapshotMark;
use etched_wal::disk::{Disk, Open};
use tokio::sync::{mpsc, oneshot};

use crate::StartError;
use crate::background::Threads;
use crate::boot::Paths;
use crate::filling::{FillError, Filling, Members};
use crate::run::OpenStore;
use crate::takeover::OnDisk;

/// End of a received database's name, as in etcd.
const SUFFIX: &str = ".snap.db";
/// Beginning of the name of one that is not whole.
const UNFINISHED: &str = "tmp";
/// Name of the store that is being made of one.
const BUILDING: &str = "db.received";
/// Pieces that wait for the disk.
const PIECES: usize = 8;

/// Keeps a database as that of `index`, whole and synced; blocks nobody.
///
/// # Errors
/// Why it is not kept.
pub(crate) async fn keep(
    threads: &Threads,
    folder: PathBuf,
    index: u64,
    mut database: SnapshotBody,
) -> io::Result<()> {
    let (pieces, taken) = mpsc::channel(PIECES);
    let (done, kept) = oneshot::channel();
    let work = move || {
        // Who has hung up needs no answer.
        let _ = done.send(write(&folder, index, taken));
    };
    threads.spawn("received", work)?;
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    while let Some(piece) = database.chunk().await? {
        if pieces.send(Some(piece)).await.is_err() {
            break;
        }
    }
    // Without it the thread takes what came for a part.
    let _ = pieces.send(None).await;
    kept.await.map_err(|_| gone())?
}

fn write(folder: &Path, index: u64, pieces: mpsc::Receiver<Option<Bytes>>) -> io::Result<()> {
    // Two may come in at once: a leader that sends one again has given the first up, not so who takes it.
    static RECEIPTS: AtomicU64 = AtomicU64::new(0);
    let receipt = RECEIPTS.fetch_add(1, Ordering::Relaxed);
    let unfinished = folder.join(format!("{UNFINISHED}{index:016x}.{receipt}"));
    let written = write_whole(&unfinished, pieces);
    if written.is_err() {
        let _ = std::fs::remove_file(&unfinished);
        return written;
    }
    std::fs::rename(&unfinished, folder.join(format!("{index:016x}{SUFFIX}")))?;
    File::open(folder)?.sync_all()
}

fn write_whole(path: &Path, mut pieces: mpsc::Receiver<Option<Bytes>>) -> io::Result<()> {
    let mut file = File::create(path)?;
    loop {
        match pieces.blocking_recv() {
            Some(Some(piece)) => file.write_all(&piece)?,
            Some(None) => return file.sync_all(),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Makes the store of a snapshot that the log has a mark of, if the one there is older; true if it did. Whatever else was
/// received goes.
///
/// # Errors
/// [`StartError`]: nothing is lost, and the next start tries again.
pub(crate) fn install<D: Disk>(
    disk: &D,
    paths: &Paths,
    cache_bytes: usize,
    applied: Applied,
    open: &OpenStore<'_>,
) -> Result<bool, StartError> {
    let folder = paths.store.parent().unwrap_or(&paths.member);
    let failed = |action: &'static str| {
        let action = format!("{action} {}", folder.display());
        move |source| StartError::Io { action, source }
    };
    let names = disk.list(folder).map_err(failed("list"))?;
    let left = |name: &&String| {
        name.ends_with(SUFFIX) || name.starts_with(UNFINISHED) || *name == BUILDING
    };
    let found: Vec<&String> = names.iter().filter(left).collect();
    if found.is_empty() || !etched_wal::exists(disk, &paths.wal)? {
        return Ok(false);
    }
    let marks = etched_wal::valid_snapshots(disk, &paths.wal)?;
    let newest = marks.into_iter().max_by_key(|mark| mark.index);
    let wanted = newest.filter(|mark| {
        let name = format!("{:016x}{SUFFIX}", mark.index);
        mark.index > applied.index && found.iter().any(|found| **found == name)
    });
    if disk.remove(&folder.join(BUILDING)).is_ok() {
        tracing::debug!("removed a store that was not whole");
    }
    if let Some(mark) = &wanted {
        let received = folder.join(format!("{:016x}{SUFFIX}", mark.index));
        let building = folder.join(BUILDING);
        build(disk, &received, &building, mark, cache_bytes, open)?;
        // The store must not survive a power cut that its mark in the log does not.
        etched_wal::make_durable(disk, &paths.wal)?;
        disk.rename(&building, &paths.store).map_err(failed("rename in"))?;
        disk.sync_dir(folder).map_err(failed("sync"))?;
    }
    for name in found.iter().filter(|name| **name != BUILDING) {
        // What stays takes room and is looked at again at the next start.
        let _ = disk.remove(&folder.join(name));
    }
    Ok(wanted.is_some())
}

fn build<D: Disk>(
    disk: &D,
    received: &Path,
    building: &Path,
    mark: &SnapshotMark,
    cache_bytes: usize,
    open: &OpenStore<'_>,
) -> Result<(), StartError> {
    let began = Instant::now();
    let bad = |error: FillError| StartError::Received {
        path: received.to_owned(),
        reason: error.to_string(),
    };
    let read = |source| StartError::Io { action: format!("open {}", received.display()), source };
    let file = OnDisk(disk.open(received, Open::Read).map_err(read)?);
    let database = Database::open(&file).map_err(|error| bad(error.into()))?;
    let options = etched_storage::Options { cache_bytes, create: true };
    let (storage, _) = open(building, options)?;
    let mut ignored = |_| ();
    let mut filling = Filling::new(Some(&storage), Members::Kept, &mut ignored);
    filling.take(&database).map_err(bad)?;
    filling.commit.applied = Applied { index: mark.index, term: mark.term };
    filling.commit.conf_state.clone_from(&mark.conf_state);
    filling.commit(Durability::Checkpoint).map_err(bad)?;
    tracing::info!(
        "snapshot-index" = mark.index,
        took = ?began.elapsed(),
        "made the store of a received snapshot"
    );
    Ok(())
}
