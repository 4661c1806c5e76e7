//! Maintenance.Defragment: a copy of the store's file is made while the member serves.
//!
//! ```text
//! Defragment ──> thread: step, rest, step, rest ... ──> finish (commits of the flusher wait) ──> answer
//!                                                                        └─> the old file shrinks in steps
//! ```
//! One at a time; others wait, as in etcd. It goes on when the client has gone, and is given up when the
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

/// Defragments the store's file.
///
/// # Errors
/// What the store's file says; [`Error::Stopped`].
pub(crate) async fn run(shared: Arc<Shared>) -> Result<(), Status> {
    let turn = Arc::clone(shared.flush.defragmenting()).lock_owned().await;
    let (done, wait) = oneshot::channel();
    let work = move || {
        let _turn = turn;
        let (result, old) = match copy(&shared) {
            Ok(old) => (Ok(()), Some(old)),
            Err(status) => (Err(status), None),
        };
        // Nobody to tell is no reason to have stopped.
        let _ = done.send(result);
        if let Some(old) = old {
            shrink(&shared, old);
        }
    };
    let thread = std::thread::Builder::new().name("defragment".to_owned());
    thread.spawn(work).map_err(|error| Status::unknown(error.to_string()))?;
    wait.await.map_err(|_| Error::Stopped)?
}

fn copy(shared: &Shared) -> Result<Retired, Status> {
    let started = Instant::now();
    tracing::info!("starting to defragment");
    shared.metrics.defrag_inflight.set(1.0);
    let result = copy_in_steps(shared);
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

/// Gives the room of the replaced file back, with rests; a reader of it is waited for only so long.
fn shrink(shared: &Shared, mut old: Retired) {
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
