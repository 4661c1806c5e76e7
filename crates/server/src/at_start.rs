//! What is done before anything is served: limits that are out of the ordinary are warned of, `--memory-mlock` and
//! `--bootstrap-defrag-threshold-megabytes` do what they say, as far as the system lets them.

use std::hint::black_box;

use etched_storage::Storage;
use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};

use crate::StartError;
use crate::config::Config;

/// Largest request that etcd recommends.
const REQUEST_BYTES_RECOMMENDED: usize = 10 << 20;
/// Largest quota that etcd recommends.
const QUOTA_BYTES_RECOMMENDED: u64 = 8 << 30;
/// As etcd's log names the quota.
const QUOTA_NAME: &str = "v3-applier";

/// Says of limits what etcd says.
pub(crate) fn warn_of_limits(config: &Config) {
    if config.max_request_bytes > REQUEST_BYTES_RECOMMENDED {
        tracing::warn!(
            "max-request-bytes" = config.max_request_bytes,
            "recommended-request-bytes" = REQUEST_BYTES_RECOMMENDED,
            "exceeded recommended request limit"
        );
    }
    let name = QUOTA_NAME;
    let Some(quota) = config.quota_bytes else {
        tracing::info!("quota-name" = name, "quota-size-bytes" = -1, "disabled backend quota");
        return;
    };
    if quota > QUOTA_BYTES_RECOMMENDED {
        tracing::warn!(
            "quota-name" = name,
            "quota-size-bytes" = quota,
            "quota-maximum-size-bytes" = QUOTA_BYTES_RECOMMENDED,
            "quota exceeds the maximum value"
        );
    }
    if quota == crate::config::QUOTA_BYTES_DEFAULT {
        tracing::info!(
            "quota-name" = name,
            "quota-size-bytes" = quota,
            "enabled backend quota with default value"
        );
    } else {
        tracing::info!("quota-name" = name, "quota-size-bytes" = quota, "enabled backend quota");
    }
}

/// Keeps the memory of the process from being swapped out, each page from its first use on. Pages that are only
/// reserved, as most of a thread's stack, take no memory for it.
///
/// # Errors
/// [`StartError::MemoryLock`]: the system forbids even what is there now.
pub(crate) fn lock_memory(config: &Config) -> Result<(), StartError> {
    if !config.memory_lock {
        return Ok(());
    }
    let limit = getrlimit(Resource::Memlock).current;
    match lock(limit, &|flags| mlockall(flags)) {
        Ok(Locked::Everything) => tracing::info!("locked the memory of the process"),
        Ok(Locked::Present { limit_bytes }) => tracing::warn!(
            "limit-bytes" = limit_bytes,
            "locked the memory the process has now, not what it will get: that would fail at the limit; \
             give it CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK"
        ),
        Err(error) => {
            let what = match error {
                Errno::NOMEM => "cannot allocate memory".to_owned(),
                Errno::PERM => "operation not permitted".to_owned(),
                other => other.to_string(),
            };
            let reason = limit.map_or_else(
                || what.clone(),
                |limit| {
                    format!(
                        "{what}: no more than {limit} bytes may be locked; give the process \
                         CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK"
                    )
                },
            );
            return Err(StartError::MemoryLock { reason });
        }
    }
    Ok(())
}

/// What is kept from being swapped out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Locked {
    /// All that the process has and will have.
    Everything,
    /// What it has now.
    Present {
        /// In force for it.
        limit_bytes: u64,
    },
}

/// Locks all that may be locked without running into the limit later: there no memory is to be had, and the process
/// ends. Whether the limit counts is found out by trying: the capability that lifts it does so only outside of user
/// namespaces.
fn lock(
    limit: Option<u64>,
    lock_all: &dyn Fn(MlockAllFlags) -> Result<(), Errno>,
) -> Result<Locked, Errno> {
    let present = MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT;
    let Some(limit_bytes) = limit else {
        lock_all(present | MlockAllFlags::FUTURE)?;
        return Ok(Locked::Everything);
    };
    // Addresses, not memory: with them the process has more than the limit, so that it is told whether that counts.
    let mut beyond: Vec<u8> = Vec::new();
    let bytes = usize::try_from(limit_bytes);
    if bytes.is_ok_and(|bytes| beyond.try_reserve_exact(bytes).is_ok()) {
        black_box(&mut beyond);
        if lock_all(present | MlockAllFlags::FUTURE).is_ok() {
            return Ok(Locked::Everything);
        }
    }
    drop(beyond);
    lock_all(present)?;
    Ok(Locked::Present { limit_bytes })
}

/// Gives free pages of the store's file back to the disk when there are enough of them. What stands in its way costs
/// only the room: the member starts with the file as it is.
///
/// # Errors
/// [`StartError::Storage`]: the file cannot be read, or is not to be written any more.
pub(crate) fn defragment(config: &Config, storage: &Storage) -> Result<(), StartError> {
    let threshold = config.defragment_at_start_bytes;
    if threshold == 0 {
        return Ok(());
    }
    let file_bytes = storage.sizes()?.file_bytes;
    let in_use = bytes_in_use(storage, threshold)?;
    if file_bytes.saturating_sub(in_use) < threshold {
        tracing::info!(
            "current-db-size-bytes" = file_bytes,
            "current-db-size-in-use-bytes" = in_use,
            "bootstrap-defrag-threshold-bytes" = threshold,
            "Skipping defragmentation"
        );
        return Ok(());
    }
    tracing::info!("starting to defragment");
    // The file stands at its last checkpoint, for which the log has its commit index already.
    match storage.defragment() {
        Ok(()) => {}
        Err(error @ etched_storage::Error::NoSpace { usable: true, .. }) => {
            tracing::warn!(error = %error, "no room to defragment; starting with the file as it is");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    let after = storage.sizes()?.file_bytes;
    tracing::info!(
        "current-db-size-bytes-diff" = after as i64 - file_bytes as i64,
        "current-db-size-bytes" = after,
        "finished defragmenting directory"
    );
    Ok(())
}

/// Bytes of the file that a copy would take too. An estimate when that alone says there is too little to free:
/// counting pages walks the file. Records larger than a page take up to twice their bytes, so that the estimate
/// alone would have such a file copied at each start.
fn bytes_in_use(storage: &Storage, threshold: u64) -> Result<u64, StartError> {
    let sizes = storage.sizes()?;
    if sizes.file_bytes.saturating_sub(sizes.live_bytes) < threshold {
        return Ok(sizes.live_bytes);
    }
    Ok(storage.allocated_bytes()?)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Arc;

    use etched_mvcc::{Record, Revision};
    use etched_sim::SimDisk;
    use etched_storage::{Applied, Commit, Durability, Options};
    use etched_wal::disk::Disk as _;

    use super::*;
    use crate::crash_tests::SimMedium;

    fn commit(storage: &Storage, index: u64, values: std::ops::Range<i64>, removed: &[Revision]) {
        let bytes = bytes::Bytes::from(vec![7; 9 << 10]);
        let record =
            |main| (Revision { main, sub: 0 }, Record { tombstone: false, bytes: bytes.clone() });
        let commit = Commit {
            applied: Applied { index, term: 1 },
            records: values.map(record).collect(),
            removed: removed.to_vec(),
            ..Commit::default()
        };
        storage.commit(&commit, Durability::Checkpoint).expect("there is room");
    }

    fn inode(path: &std::path::Path) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(path).expect("the store's file").ino()
    }

    #[test]
    fn a_start_copies_a_file_with_free_pages_once_and_one_without_never() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("db");
        let config = Config { defragment_at_start_bytes: 1 << 20, ..Config::default() };
        let open = || Storage::open(&path, Options::default()).expect("a sound file").0;
        let storage = open();
        for part in 0..4 {
            commit(&storage, part as u64 + 1, part * 100 + 1..part * 100 + 101, &[]);
        }
        drop(storage);

        let copied = |storage: Storage| {
            let before = inode(&path);
            defragment(&config, &storage).expect("there is room");
            drop(storage);
            inode(&path) != before
        };
        assert!(!copied(open()), "nothing was removed");

        let storage = open();
        let removed: Vec<_> = (1..=200).map(|main| Revision { main, sub: 0 }).collect();
        commit(&storage, 5, 0..0, &removed);
        // Pages come free with the second checkpoint.
        for index in 6..9 {
            commit(&storage, index, 0..0, &[]);
        }
        drop(storage);
        assert!(copied(open()), "half of it is free");
        assert!(!copied(open()), "nothing is free any more");
    }

    #[test]
    fn a_copy_that_does_not_fit_costs_no_start() {
        let disk = SimDisk::new();
        disk.create_dir("/data/member/snap".as_ref()).expect("a working disk");
        let open = || Storage::open_on(Arc::new(SimMedium::new(&disk)), Options::default());
        let storage = open().expect("a working disk").0;
        commit(&storage, 1, 1..101, &[]);
        disk.set_capacity(Some(disk.reserved_bytes()));
        let config = Config { defragment_at_start_bytes: 1 << 20, ..Config::default() };
        defragment(&config, &storage).expect("a start all the same");
        drop(storage);
        disk.set_capacity(None);
        let (storage, boot) = open().expect("the file as it was");
        assert_eq!(boot.counts.records, 100);
        commit(&storage, 2, 101..102, &[]);
    }

    /// Locks with a system that refuses what `refused` says; the flags that were asked for.
    fn tried(
        limit: Option<u64>,
        refused: fn(MlockAllFlags) -> bool,
    ) -> (Result<Locked, Errno>, Vec<bool>) {
        let asked = RefCell::new(Vec::new());
        let locked = lock(limit, &|flags| {
            asked.borrow_mut().push(flags.contains(MlockAllFlags::FUTURE));
            if refused(flags) { Err(Errno::NOMEM) } else { Ok(()) }
        });
        (locked, asked.into_inner())
    }

    #[test]
    fn memory_to_come_is_locked_only_where_no_limit_counts() {
        let nothing = |_: MlockAllFlags| false;
        let future = |flags: MlockAllFlags| flags.contains(MlockAllFlags::FUTURE);
        let all = |_: MlockAllFlags| true;
        let limit_bytes = 1 << 20;
        assert_eq!(tried(None, nothing), (Ok(Locked::Everything), vec![true]));
        assert_eq!(tried(None, all), (Err(Errno::NOMEM), vec![true]));
        // The capability: what is beyond the limit is locked too.
        assert_eq!(tried(Some(limit_bytes), nothing), (Ok(Locked::Everything), vec![true]));
        let present = Ok(Locked::Present { limit_bytes });
        assert_eq!(tried(Some(limit_bytes), future), (present, vec![true, false]));
        assert_eq!(tried(Some(limit_bytes), all), (Err(Errno::NOMEM), vec![true, false]));
        // As many addresses are not to be had, so nothing proves the capability.
        let present = Ok(Locked::Present { limit_bytes: u64::MAX - 1 });
        assert_eq!(tried(Some(u64::MAX - 1), nothing), (present, vec![false]));
    }
}
