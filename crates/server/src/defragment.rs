//! Maintenance.Defragment: a copy of the store's file is made while the member serves.
//!
//! ```text
//! Defragment ──> thread: step, rest, step, rest ... ──> finish (commits of the flusher wait) ──> answer
//!                                                                        └─> the old file shrinks in steps
//! ```
//! One copy at a time; others wait, as in etcd, until the copy serves: not for the room of the old file. It goes on when the client has gone, and is given up when the
//! member stops: the next start removes what there is of the copy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etched_storage::Retired;
use tokio::sync::oneshot;
use tonic::Status;

use crate::background::Pace;
use crate::error::Error;
use crate::shared::Shared;

/// Bytes of records that go over at once: some milliseconds of work.
const STEP_BYTES: usize = 1 << 20;
/// The copy rests until it has taken so many times the steps that the file was worth when it began: a load that
/// writes as fast as a rested copy must not keep it from its end.
const RESTED_PARTS: u64 = 2;

/// Bytes of the replaced file that are given back at once: a few milliseconds of the disk.
const SHRINK_BYTES: u64 = 8 << 20;
/// How long readers of the replaced file are waited for; then its room comes back in one piece with the last of them.
const READERS_MAX: Duration = Duration::from_secs(10);
/// How often it is asked whether they have gone.
const READERS_PAUSE: Duration = Duration::from_millis(20);

/// Gate that makes the health service tell clients to go elsewhere meanwhile. Requests that come all the same are
/// answered as ever: here they need not wait.
const STOP_SERVING: &str = "StopGRPCServiceOnDefrag";

/// Defragments the store's file.
///
/// # Errors
/// What the store's file says; [`Error::Stopped`].
pub(crate) async fn run(shared: Arc<Shared>) -> Result<(), Status> {
    let turn = Arc::clone(shared.flush.defragmenting()).lock_owned().await;
    let (done, wait) = oneshot::channel();
    let member = Arc::clone(&shared);
    let work = move || {
        let (result, old) = match copy(&member) {
            Ok(old) => (Ok(()), Some(old)),
            Err(status) => (Err(status), None),
        };
        // The copy serves: who is next has only to wait for that.
        drop(turn);
        // Nobody to tell is no reason to have stopped.
        let _ = done.send(result);
        if let Some(old) = old {
            shrink(&member, old);
        }
    };
    let spawned = shared.threads.spawn("defragment", work);
    spawned.map_err(|error| Status::unknown(error.to_string()))?;
    wait.await.map_err(|_| Error::Stopped)?
}

fn copy(shared: &Shared) -> Result<Retired, Status> {
    let started = Instant::now();
    let stops_serving = shared.config.is_on(STOP_SERVING);
    tracing::info!("starting to defragment");
    shared.metrics.defrag_inflight.set(1.0);
    if stops_serving {
        tracing::warn!(
            service = "",
            status = "NOT_SERVING",
            reason = "defrag is active",
            "grpc service status changed"
        );
        shared.serving.send_replace(false);
    }
    let result = copy_in_steps(shared);
    if stops_serving {
        tracing::info!(service = "", status = "SERVING", "grpc service status changed");
        shared.serving.send_replace(true);
    }
    shared.metrics.defrag_inflight.set(0.0);
    shared.metrics.defrag.observe(started.elapsed().as_secs_f64());
    let old = result?;
    tracing::info!(took = ?started.elapsed(), "finished defragmenting directory");
    Ok(old)
}

fn copy_in_steps(shared: &Shared) -> Result<Retired, Status> {
    let failed = |error: etched_storage::Error| Status::unknown(error.to_string());
    let mut copy = shared.storage.begin_defragment().map_err(failed)?;
    let live_bytes = shared.storage.sizes().map_err(failed)?.live_bytes;
    let mut rested = RESTED_PARTS * live_bytes.div_ceil(STEP_BYTES as u64);
    let mut pace = Pace::new(shared);
    while copy.step(STEP_BYTES).map_err(failed)? {
        if shared.flush.is_stopping() {
            return Err(Error::Stopped.into());
        }
        let rest = pace.rest(shared);
        if !rest.is_zero() && rested > 0 {
            rested -= 1;
            std::thread::sleep(rest);
        }
        pace.go_on();
    }
    copy.finish(|| shared.sync_commit()).map_err(failed)
}

/// Gives the room of the replaced file back, with rests; a reader of it is waited for only so long. While another
/// file is on its way out, this one goes in one piece: calls one after the other must not gather threads.
fn shrink(shared: &Shared, mut old: Retired) {
    let Some(_turn) = shared.flush.shrinking().try_lock() else { return };
    let patience = Instant::now() + READERS_MAX;
    let mut pace = Pace::new(shared);
    while old.shrink(SHRINK_BYTES) {
        if shared.flush.is_stopping() || (old.is_read() && Instant::now() > patience) {
            return;
        }
        let rest = if old.is_read() { READERS_PAUSE } else { pace.rest(shared) };
        std::thread::sleep(rest);
        pace.go_on();
    }
}

#[cfg(test)]
mod tests {
    use etched_sim::{Loss, SimDisk};
    use etched_storage::{Applied, Commit, Durability, Options, Storage, Table};
    use etched_wal::disk::Disk as _;

    use super::*;
    use crate::crash_tests::{self, SimMedium};

    #[test]
    fn a_second_call_waits_for_the_copy_and_not_for_the_room_of_the_old_file() {
        let booted = crash_tests::start_with_log(&SimDisk::new(), None).expect("a fresh member");
        crash_tests::with_member(booted, async |shared, _| {
            let reader = shared.storage.view();
            for _ in 0..3 {
                run(Arc::clone(&shared)).await.expect("there is room");
                // As long as it reads, no room of the file comes back.
                assert!(shared.flush.defragmenting().try_lock().is_ok());
            }
            drop(reader);
        });
    }

    fn store(disk: &SimDisk) -> Storage {
        let options = Options { cache_bytes: 1 << 20, ..Options::default() };
        let opened = Storage::open_on(Arc::new(SimMedium::new(disk)), options);
        opened.unwrap_or_else(|error| panic!("{error}")).0
    }

    fn commit(index: u64, rows: u64) -> Commit {
        let value = bytes::Bytes::from(vec![index as u8; 300]);
        let row = |row: u64| (Table::Lease, row.to_be_bytes().to_vec().into(), Some(value.clone()));
        let rows = (0..rows).map(row).collect();
        Commit { applied: Applied { index, term: 1 }, rows, ..Commit::default() }
    }

    /// Two commits, a copy that the second one comes into, and the room of the old file given back.
    fn defragment(storage: &Storage, second: &Commit) -> etched_storage::Result<()> {
        let mut copy = storage.begin_defragment()?;
        while copy.step(STEP_BYTES)? {}
        storage.commit(second, Durability::Buffered)?;
        let mut old = copy.finish(|| true)?;
        assert!(!old.is_read());
        while old.shrink(300_000) {}
        Ok(())
    }

    #[test]
    fn a_crash_at_any_step_of_a_defragmentation_leaves_the_old_file_or_the_new_one() {
        for loss in [Loss::Process, Loss::Unsynced, Loss::Torn(1), Loss::Torn(2)] {
            for crash_at in 0.. {
                let disk = SimDisk::new();
                disk.create_dir("/data/member/snap".as_ref()).expect("a working disk");
                let storage = store(&disk);
                storage.commit(&commit(1, 100), Durability::Checkpoint).expect("a working disk");
                disk.crash_after(crash_at);
                let done = defragment(&storage, &commit(2, 3));
                let crashed = disk.has_crashed();
                drop(storage);
                disk.restart(loss);
                let case = format!("crash after {crash_at}, {loss:?}");
                let storage = store(&disk);
                let applied = storage.applied().index;
                assert!(applied == 2 || (applied == 1 && done.is_err()), "{case}: at {applied}");
                let rows =
                    storage.rows(Table::Lease).unwrap_or_else(|error| panic!("{case}: {error}"));
                let changed = rows.iter().filter(|(_, value)| value[0] == 2).count();
                assert_eq!(
                    (rows.len(), changed),
                    (100, if applied == 2 { 3 } else { 0 }),
                    "{case}"
                );
                assert_eq!(
                    disk.list("/data/member/snap".as_ref()).expect("a folder"),
                    ["db"],
                    "{case}"
                );
                if !crashed {
                    assert!(crash_at > 20, "only {crash_at} steps");
                    break;
                }
            }
        }
    }
}
