//! The lessor: which leases exist, which keys hang on them, and which of them have run out.
//!
//! ```text
//! apply   -- grant, revoke, attach, detach, checkpoint --> Lessor --> rows for storage, keys to delete
//! leader  -- renew, expired, due_checkpoints(now) ------->   |   --> ids to propose revokes for
//! readers -- time_to_live, leases, lease_of ------------->   |
//! start   -- restore(rows), then attach for every key that carries a lease
//! ```
//!
//! Two kinds of state live here and must not be mixed. **Replicated**: id, granted TTL, checkpointed
//! remaining TTL and attached keys; every member computes the same from the same log. **Local to the
//! leader** (the *primary* lessor): when each lease runs out. Expiry never changes replicated state
//! by itself: the leader proposes a revoke, and apply executes that.
//!
//! Invariants:
//! - a key hangs on at most one lease, and only on one that exists;
//! - a lease is in the expiry queue exactly once while this lessor is primary, else never;
//! - no iteration over a hash table reaches a caller, so equal logs give equal answers.
//!
//! It reads no clock (`now` is an argument: time since some fixed start, from a clock that does not
//! jump), writes no disk, deletes no keys from the store and picks no ids.

mod attached;
mod lessor;
mod listing;
mod queue;
mod row;

use std::time::Duration;

pub use lessor::{
    Checkpoint, Error, Granted, Lessor, Options, RenewError, Renewed, Revoked, TimeToLive,
};
pub use listing::Listing;
pub use row::{RestoreError, Row};

/// The id that means "no lease".
pub const NO_LEASE: i64 = 0;

/// Largest TTL that can be granted, in seconds.
pub const TTL_MAX: i64 = 9_000_000_000;

/// How often the leader asks for expired leases.
pub const EXPIRY_PASS_INTERVAL: Duration = Duration::from_millis(500);

/// How soon the leader asks again when a pass was full: what is left has run out already.
pub const FULL_PASS_INTERVAL: Duration = Duration::from_millis(5);

/// How many leases one pass offers at most. With [`FULL_PASS_INTERVAL`] that makes 50,000 revokes a second
/// (etcd's limit is 1000), of which none holds up a put for more than the time that one pass takes to apply.
pub const EXPIRED_PER_PASS: usize = 250;

/// After this long an expired lease that is still here is offered again: its revoke got lost.
pub const EXPIRED_RETRY_INTERVAL: Duration = Duration::from_secs(3);

/// Time between two checkpoints of one lease; shorter leases are never checkpointed.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// How many checkpoints fit into one proposal.
pub const CHECKPOINTS_PER_PROPOSAL: usize = 1000;

/// The smallest TTL that is granted, in seconds, from the raft timing of this member.
///
/// One and a half election timeouts (counted in whole ticks), rounded up, so that a change of
/// leader does not outlast a lease. 2 with etcd's defaults of 100 ms and 1000 ms.
///
/// # Panics
/// When `heartbeat` is zero; the configuration refuses that.
pub fn min_ttl(heartbeat: Duration, election_timeout: Duration) -> i64 {
    assert!(!heartbeat.is_zero(), "the heartbeat interval was validated");
    let election_ticks = election_timeout.as_millis() / heartbeat.as_millis().max(1);
    let ticks = u32::try_from(3 * election_ticks / 2).unwrap_or(u32::MAX);
    let min = heartbeat.saturating_mul(ticks);
    i64::try_from(min.as_millis().div_ceil(1000)).unwrap_or(TTL_MAX)
}
