//! Corruption checks: the store's hash at the start, now and then, and at compactions.
//!
//! ```text
//! --corrupt-check-time ──> hash, read index, hash again ──> they contradict each other ──> alarm CORRUPT
//! gate InitialCorruptCheck ──> hash before anybody is served ──> none to be had: no start
//! gate CompactHashCheck ──> the hashes kept of compactions
//! ```
//! With other members each hash is held against theirs; a lone member has only its own, at two moments. It
//! reads every record for that, so bytes that are damaged on the disk are found too, by their checksums.

use std::sync::Arc;
use std::time::Instant;

use etched_mvcc::KvHash;
use etched_proto::etcdserverpb::AlarmType;
use tokio::sync::{oneshot, watch};

use crate::StartError;
use crate::shared::Shared;

/// Gate of the check before a start.
const INITIAL: &str = "InitialCorruptCheck";
/// Gate of the check of compactions.
const COMPACTIONS: &str = "CompactHashCheck";

/// Hashes the store before it is served, when that is asked for.
///
/// # Errors
/// [`StartError::NoHash`]: the store cannot be read.
pub(crate) fn initial_check(shared: &Shared) -> Result<(), StartError> {
    if !shared.config.is_on(INITIAL) {
        return Ok(());
    }
    let own = format!("{:x}", shared.member_id);
    let timeout = shared.config.request_timeout();
    tracing::info!("local-member-id" = own, ?timeout, "starting initial corruption check");
    hash_now(shared).map_err(|reason| StartError::NoHash { member: own.clone(), reason })?;
    tracing::info!("local-member-id" = own, "initial corruption checking passed; no corruption");
    Ok(())
}

/// Checks every `--corrupt-check-time`, until the server ends.
pub(crate) async fn watch_store(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let interval = shared.config.corrupt_check_time;
    if interval.is_zero() {
        return;
    }
    let own = format!("{:x}", shared.member_id);
    tracing::info!("local-member-id" = own, ?interval, "enabled corruption checking");
    while crate::versions::goes_on(interval, &mut stop).await {
        if shared.is_leader()
            && let Err(reason) = check(&shared).await
        {
            tracing::warn!(error = reason, "failed to check hash KV");
        }
    }
}

/// Looks at the hashes of compactions every `--compact-hash-check-time`, until the server ends.
pub(crate) async fn watch_compactions(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    if !shared.config.is_on(COMPACTIONS) {
        return;
    }
    let (own, timeout) = (format!("{:x}", shared.member_id), shared.config.request_timeout());
    while crate::versions::goes_on(shared.config.compact_hash_check_time, &mut stop).await {
        if !shared.is_leader() {
            continue;
        }
        tracing::info!("local-member-id" = own, ?timeout, "starting compact hash check");
        // There is no other member yet to hold them against.
        let hashes = shared.reader.compaction_hashes().len();
        tracing::info!("number-of-hashes-checked" = hashes, "finished compaction hash check");
    }
}

async fn check(shared: &Arc<Shared>) -> Result<(), String> {
    let first = hash_beside(shared).await?;
    shared.read_index().await.map_err(|error| error.status().1.to_owned())?;
    let second = hash_beside(shared).await?;
    if contradict(&first, &second) {
        tracing::warn!(
            "revision-1" = first.revision,
            "compact-revision-1" = first.compact_revision,
            "hash-1" = first.hash,
            "revision-2" = second.revision,
            "compact-revision-2" = second.compact_revision,
            "hash-2" = second.hash,
            "found hash mismatch"
        );
        shared.raise(AlarmType::Corrupt);
    }
    tracing::info!("number-of-peers-checked" = 0, "finished peer corruption check");
    Ok(())
}

/// Whether one of the two must be wrong: the same keys and history cannot have two hashes.
fn contradict(first: &KvHash, second: &KvHash) -> bool {
    let same_history =
        first.revision == second.revision && first.compact_revision == second.compact_revision;
    same_history && first.hash != second.hash
}

/// Hashes on a thread of its own, which steps back: it may read for long.
async fn hash_beside(shared: &Arc<Shared>) -> Result<KvHash, String> {
    let (done, hash) = oneshot::channel();
    let shared = Arc::clone(shared);
    let work = move || {
        crate::background::step_back();
        // Who has stopped waiting needs no answer.
        let _ = done.send(hash_now(&shared));
    };
    let thread = std::thread::Builder::new().name("corrupt-check".to_owned()).spawn(work);
    thread.map_err(|error| error.to_string())?;
    hash.await.map_err(|error| error.to_string())?
}

fn hash_now(shared: &Shared) -> Result<KvHash, String> {
    let started = Instant::now();
    let (hash, _) = shared.reader.hash_kv(0).map_err(|error| error.to_string())?;
    shared.metrics.hash_rev.observe(started.elapsed().as_secs_f64());
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hashes_of_one_history_that_differ_are_a_contradiction() {
        let hash = KvHash { hash: 1, compact_revision: 5, revision: 9 };
        assert!(contradict(&hash, &KvHash { hash: 2, ..hash }));
        assert!(!contradict(&hash, &hash));
        assert!(!contradict(&hash, &KvHash { hash: 2, revision: 10, ..hash }), "a write between");
        let compacted = KvHash { hash: 2, compact_revision: 6, ..hash };
        assert!(!contradict(&hash, &compacted), "a compaction between");
    }
}
