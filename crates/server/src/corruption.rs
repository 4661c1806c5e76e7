//! Corruption checks: the store's hash at the start, now and then, and at compactions.
//!
//! ```text
//! --corrupt-check-time ──> hash, read index, hash again ──> they contradict each other ──> alarm CORRUPT
//! gate InitialCorruptCheck ──> hash before anybody is served ──> none to be had: no start
//! gate CompactHashCheck ──> the hashes kept of compactions
//! ```
//! With other members each hash is held against theirs; a lone member has only its own, at two moments. It
//! reads every record for that, so bytes that are damaged on the disk are found too, by their checksums: that ends
//! the member, as it does at a start.

use std::sync::Arc;
use std::time::Instant;

use etched_mvcc::KvHash;
use etched_proto::etcdserverpb::AlarmType;
use tokio::sync::{oneshot, watch};

use crate::StartError;
use crate::shared::{Event, Shared};

/// Gate of the check before a start.
const INITIAL: &str = "InitialCorruptCheck";
/// Gate of the check of compactions.
const COMPACTIONS: &str = "CompactHashCheck";

/// Why a check found nothing out.
#[derive(Debug, PartialEq, Eq)]
enum Missed {
    /// The member ends.
    Stopping,
    /// It may come to its end next time.
    ForNow(String),
    /// The store cannot be read as a whole.
    Unreadable(String),
}

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
    hash_now(shared).map_err(|missed| StartError::NoHash {
        member: own.clone(),
        reason: match missed {
            Missed::ForNow(reason) | Missed::Unreadable(reason) => reason,
            Missed::Stopping => "the member ends".to_owned(),
        },
    })?;
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
        if !shared.is_leader() {
            continue;
        }
        match check(&shared).await {
            Ok(()) | Err(Missed::Stopping) => {}
            Err(Missed::ForNow(reason)) => {
                tracing::warn!(error = reason, "failed to check hash KV");
            }
            // Nothing that was acknowledged needs this file: the log has it, or it is lost already. What is answered
            // from it from now on may be wrong.
            Err(Missed::Unreadable(reason)) => {
                return shared.inbox.push(Event::Unreadable(reason));
            }
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

async fn check(shared: &Arc<Shared>) -> Result<(), Missed> {
    let first = hash_beside(shared).await?;
    let read = shared.read_index().await;
    read.map_err(|error| Missed::ForNow(error.status().1.to_owned()))?;
    let second = hash_beside(shared).await?;
    compare(shared, &first, &second);
    tracing::info!("number-of-peers-checked" = 0, "finished peer corruption check");
    Ok(())
}

/// Raises the alarm when one of the two must be wrong.
fn compare(shared: &Shared, first: &KvHash, second: &KvHash) {
    if !contradict(first, second) {
        return;
    }
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

/// Whether one of the two must be wrong: the same keys and history cannot have two hashes.
fn contradict(first: &KvHash, second: &KvHash) -> bool {
    let same_history =
        first.revision == second.revision && first.compact_revision == second.compact_revision;
    same_history && first.hash != second.hash
}

/// Hashes on a thread of its own, which steps back: it may read for long.
async fn hash_beside(shared: &Arc<Shared>) -> Result<KvHash, Missed> {
    let (done, hash) = oneshot::channel();
    let member = Arc::clone(shared);
    let work = move || {
        crate::background::step_back();
        // Who has stopped waiting needs no answer.
        let _ = done.send(hash_now(&member));
    };
    let spawned = shared.threads.spawn("corrupt-check", work);
    spawned.map_err(|error| Missed::ForNow(error.to_string()))?;
    hash.await.map_err(|error| Missed::ForNow(error.to_string()))?
}

fn hash_now(shared: &Shared) -> Result<KvHash, Missed> {
    let started = Instant::now();
    let hash = shared.reader.hash_now(&|| !shared.flush.is_stopping());
    let hash = hash.map_err(|error| Missed::Unreadable(error.to_string()))?;
    shared.metrics.hash_rev.observe(started.elapsed().as_secs_f64());
    hash.ok_or(Missed::Stopping)
}

#[cfg(test)]
mod tests {
    use etched_proto::etcdserverpb as pb;
    use etched_sim::SimDisk;
    use prost::Message as _;

    use super::*;
    use crate::auth::Nobody;
    use crate::config::Config;
    use crate::crash_tests;
    use crate::error::Error;
    use crate::request::Field;

    async fn put(shared: &Shared, key: &str, value: &[u8]) -> Result<(), Error> {
        let (key, value) = (key.to_owned().into(), value.to_vec().into());
        let put = pb::PutRequest { key, value, ..Default::default() };
        let outcome = shared.propose(Nobody, Field::Put, &put.encode_to_vec()).await;
        outcome.and_then(|outcome| outcome.result).map(drop)
    }

    #[test]
    fn hashes_that_contradict_each_other_raise_corrupt_and_then_nobody_writes() {
        let disk = SimDisk::new();
        let booted = crash_tests::start_with_log(&disk, None).expect("a fresh member");
        crash_tests::with_member(booted, async |shared, _| {
            put(&shared, "k", b"v").await.expect("no alarm");
            check(&shared).await.expect("a sound store");
            let hash = hash_now(&shared).expect("a sound store");
            put(&shared, "k", b"v").await.expect("no alarm");
            compare(&shared, &hash, &KvHash { hash: !hash.hash, ..hash });
            // It is replicated ahead of this.
            let refused = put(&shared, "k", b"v").await;
            assert!(matches!(refused, Err(Error::Corrupt)), "{refused:?}");
            let alarm = (shared.member_id, AlarmType::Corrupt as i32);
            assert!(shared.cluster.read().alarms.contains(&alarm));
        });
        let shared = crash_tests::start_with_log(&disk, None).expect("a member").shared;
        assert_eq!(shared.cluster.read().alarms.len(), 1, "it is there after a start");
    }

    #[test]
    fn a_check_that_meets_damage_ends_the_member_at_once() {
        const DB: &str = "/data/member/snap/db";
        let disk = SimDisk::new();
        let config = Config {
            corrupt_check_time: std::time::Duration::from_millis(1),
            // Else the file would be written to, which finds out as well.
            commit_bytes: usize::MAX,
            checkpoint_log_bytes: u64::MAX,
            ..crash_tests::config()
        };
        let member = || crash_tests::start_as(&disk, config.clone()).expect("a member");
        crash_tests::with_member(member(), async |shared, _| {
            for key in 0..40 {
                let value = vec![b'0' + key; 100_000];
                put(&shared, &key.to_string(), &value).await.expect("no alarm");
            }
        });
        let booted = member();
        let mut bytes = disk.read(DB.as_ref()).expect("the store's file");
        for key in 0..40 {
            // More than the cache holds, so that some of them are read again.
            let value = vec![b'0' + key; 5_000];
            let at = bytes.windows(value.len()).position(|window| window == value);
            bytes[at.expect("its value") + 2_000] ^= 1;
        }
        disk.put(DB.as_ref(), &bytes).expect("a working disk");
        crash_tests::with_member(booted, async |shared, mut end| {
            let (_stop, stopped) = watch::channel(false);
            watch_store(Arc::clone(&shared), stopped).await;
            end.wait_for(|ended| *ended).await.expect("the raft thread says so");
            let missed = hash_now(&shared);
            assert!(
                matches!(&missed, Err(Missed::Unreadable(line)) if line.contains(DB)),
                "{missed:?}"
            );
        });
    }

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
