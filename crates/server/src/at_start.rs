//! What is done before anything is served: limits that are out of the ordinary are warned of, `--memory-mlock` and
//! `--bootstrap-defrag-threshold-megabytes` do what they say.

use etched_storage::Storage;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::StartError;
use crate::config::Config;

/// Largest request that etcd recommends.
const REQUEST_BYTES_RECOMMENDED: usize = 10 << 20;
/// Largest quota that etcd recommends.
const QUOTA_BYTES_RECOMMENDED: u64 = 8 << 30;

/// Warns where etcd does.
pub(crate) fn warn_of_limits(config: &Config) {
    if config.max_request_bytes > REQUEST_BYTES_RECOMMENDED {
        tracing::warn!(
            "max-request-bytes" = config.max_request_bytes,
            "recommended-request-bytes" = REQUEST_BYTES_RECOMMENDED,
            "exceeded recommended request limit"
        );
    }
    match config.quota_bytes {
        None => tracing::info!("disabled backend quota"),
        Some(quota) if quota > QUOTA_BYTES_RECOMMENDED => tracing::warn!(
            "quota-size-bytes" = quota,
            "quota-maximum-size-bytes" = QUOTA_BYTES_RECOMMENDED,
            "quota exceeds the maximum value"
        ),
        Some(quota) => tracing::info!("quota-size-bytes" = quota, "enabled backend quota"),
    }
}

/// Keeps the memory of the process from being swapped out, each page from its first use on. Pages that are only
/// reserved, as most of a thread's stack, take no memory for it.
///
/// # Errors
/// [`StartError::MemoryLock`]: the system forbids it, or would run into its limit later and then end the process.
pub(crate) fn lock_memory(config: &Config) -> Result<(), StartError> {
    if !config.memory_lock {
        return Ok(());
    }
    let failed = |reason: String| StartError::MemoryLock { reason };
    // Without the capability every byte that is ever mapped counts, and at the limit no more can be.
    let limit = getrlimit(Resource::Memlock).current;
    let capable =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if let Some(limit) = limit.filter(|_| !capable) {
        return Err(failed(format!(
            "cannot allocate memory: no more than {limit} bytes may be locked; give the process \
             CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK"
        )));
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .map_err(|error| failed(error.to_string()))?;
    tracing::info!("locked the memory of the process");
    Ok(())
}

/// Gives free pages of the store's file back to the disk when there are enough of them.
///
/// # Errors
/// [`StartError::Storage`].
pub(crate) fn defragment(config: &Config, storage: &Storage) -> Result<(), StartError> {
    let threshold = config.defragment_at_start_bytes;
    if threshold == 0 {
        return Ok(());
    }
    let sizes = storage.sizes()?;
    let free = sizes.file_bytes.saturating_sub(sizes.live_bytes);
    if free < threshold {
        tracing::info!(
            "current-db-size-bytes" = sizes.file_bytes,
            "current-db-size-in-use-bytes" = sizes.live_bytes,
            "bootstrap-defrag-threshold-bytes" = threshold,
            "Skipping defragmentation"
        );
        return Ok(());
    }
    tracing::info!("starting to defragment");
    // The file stands at its last checkpoint, for which the log has its commit index already.
    storage.defragment()?;
    let after = storage.sizes()?.file_bytes;
    tracing::info!(
        "current-db-size-bytes-diff" = after as i64 - sizes.file_bytes as i64,
        "current-db-size-bytes" = after,
        "finished defragmenting directory"
    );
    Ok(())
}
