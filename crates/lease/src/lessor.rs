//! The table of leases and what happens to it.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use etched_proto::leasepb;

use crate::attached::{Attached, Chain};
use crate::listing::Listing;
use crate::queue::DueQueue;
use crate::row::{self, RestoreError, Row};
use crate::{CHECKPOINT_INTERVAL, EXPIRED_RETRY_INTERVAL, NO_LEASE, TTL_MAX};

/// The time that never comes: expiry of every lease while this lessor is not primary.
const FOREVER: u64 = u64::MAX;

/// From this many leases on, a new leader spreads their expiries: etcd's revokes per second.
const SPREAD_FROM: usize = 1000;

/// After spreading at most so many leases expire within one second; the rest of the revoke rate
/// stays free for leases that expire on their own.
const SPREAD_PER_SECOND: usize = SPREAD_FROM * 3 / 4;

/// What a lessor is told when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Smaller TTLs are raised to this many seconds, see [`crate::min_ttl`]. Must be equal on all
    /// members, as in etcd: it decides what apply stores.
    pub min_ttl: i64,
    /// Feature gate LeaseCheckpoint: [`Lessor::due_checkpoints`] answers something.
    pub checkpoints: bool,
}

/// A command on a lease failed; nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A lease with this id exists already.
    #[error("lease already exists")]
    LeaseExists,
    /// There is no lease with this id, or the id is 0.
    #[error("lease not found")]
    LeaseNotFound,
    /// The TTL is above [`TTL_MAX`].
    #[error("too large lease TTL")]
    TtlTooLarge,
}

/// A renewal failed; nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// This lessor is not the leader's.
    #[error("not a primary lessor")]
    NotPrimary,
    /// There is no such lease.
    #[error("lease not found")]
    LeaseNotFound,
    /// The lease has run out and waits for its revoke. The caller waits for that revoke (answer:
    /// not found) or for a demotion (answer: ask the new leader); it must not answer before,
    /// because the revoke may still fail.
    #[error("lease has expired and waits for its revoke")]
    Expired,
}

/// A lease was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The TTL in seconds that the lease really has.
    pub ttl: i64,
    /// What storage must write.
    pub row: Row,
}

/// A lease is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The keys that hung on it, sorted bytewise; they are to be deleted in one revision.
    pub keys: Vec<Bytes>,
    /// What storage must write.
    pub row: Row,
}

/// A lease lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// The granted TTL in seconds, which now starts anew.
    pub ttl: i64,
    /// A checkpointed remaining TTL is stored: before answering, the leader proposes a checkpoint
    /// of 0 for this lease, and renews again once that is applied. Nothing was renewed yet.
    pub clear_checkpoint: bool,
}

/// What a client learns about a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeToLive {
    /// The granted TTL in seconds.
    pub granted: i64,
    /// Whole seconds left, rounded down; 0 while an expired lease waits for its revoke. None when
    /// this lessor is not primary: only the leader knows.
    pub remaining: Option<i64>,
    /// The attached keys, sorted bytewise; empty unless asked for.
    pub keys: Vec<Bytes>,
}

/// A remaining TTL that the leader wants on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The lease.
    pub id: i64,
    /// Seconds left, rounded up.
    pub remaining_ttl: i64,
}

#[derive(Debug)]
struct Lease {
    ttl: i64,
    /// Seconds left at the last checkpoint; 0 when there is none. Invariant: it becomes the
    /// expiry only at promotion.
    remaining_ttl: i64,
    /// Nanoseconds; `FOREVER` unless this lessor is primary.
    expiry: u64,
    /// Under which time the expiry queue holds this lease: its expiry, or the next offer.
    offer_at: u64,
    /// Under which time the checkpoint queue holds it; `FOREVER` when it does not.
    checkpoint_at: u64,
    keys: Chain,
}

/// All leases of one member.
#[derive(Debug)]
pub struct Lessor {
    options: Options,
    leases: HashMap<i64, Lease>,
    attached: Attached,
    /// Empty unless primary; then every lease once.
    expiring: DueQueue,
    /// Empty unless primary and checkpoints are on.
    checkpointing: DueQueue,
    primary: bool,
}

impl Lessor {
    /// A lessor without leases; not primary.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            leases: HashMap::new(),
            attached: Attached::default(),
            expiring: DueQueue::default(),
            checkpointing: DueQueue::default(),
            primary: false,
        }
    }

    /// The lessor whose rows storage holds; not primary.
    ///
    /// Keys are not in the rows: the caller attaches every live key that carries a lease.
    ///
    /// # Errors
    /// [`RestoreError`] when a row is not a lease.
    pub fn restore<K, V>(
        options: Options,
        rows: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, RestoreError>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let mut lessor = Self::new(options);
        for (key, value) in rows {
            let stored = row::decode(key.as_ref(), value.as_ref())?;
            let mut lease = Lease::new(stored.ttl.max(options.min_ttl));
            lease.remaining_ttl = stored.remaining_ttl;
            lessor.leases.insert(stored.id, lease);
        }
        Ok(lessor)
    }

    /// Makes lease `id` with `ttl` seconds, raised to the minimum. `now` counts only on the leader.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`] for id 0 (who proposes picks an id first), [`Error::TtlTooLarge`],
    /// [`Error::LeaseExists`].
    pub fn grant(&mut self, id: i64, ttl: i64, now: Duration) -> Result<Granted, Error> {
        if id == NO_LEASE {
            return Err(Error::LeaseNotFound);
        }
        if ttl > TTL_MAX {
            return Err(Error::TtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(Error::LeaseExists);
        }
        let lease = Lease::new(ttl.max(self.options.min_ttl));
        let (ttl, row) = (lease.ttl, lease.row(id));
        self.leases.insert(id, lease);
        if self.primary {
            let now = nanos(now);
            self.expire_at(id, after_seconds(now, ttl));
            self.schedule_checkpoint(id, now);
        }
        Ok(Granted { ttl, row })
    }

    /// Removes lease `id` and takes its keys off it.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`].
    pub fn revoke(&mut self, id: i64) -> Result<Revoked, Error> {
        let lease = self.leases.remove(&id).ok_or(Error::LeaseNotFound)?;
        self.expiring.remove(lease.offer_at, id);
        self.checkpointing.remove(lease.checkpoint_at, id);
        Ok(Revoked { keys: self.attached.remove_all(lease.keys), row: Row::delete(id) })
    }

    /// Hangs `key` on lease `id`, and takes it off any other lease.
    ///
    /// Holds on to the very `Bytes` given: hand in one that does not keep a large buffer alive.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`]; the key then hangs where it hung before.
    pub fn attach(&mut self, key: &Bytes, id: i64) -> Result<(), Error> {
        if !self.leases.contains_key(&id) {
            return Err(Error::LeaseNotFound);
        }
        match self.lease_of(key) {
            current if current == id => return Ok(()),
            NO_LEASE => {}
            other => self.detach(key, other),
        }
        let lease = self.leases.get_mut(&id).expect("looked up above");
        self.attached.insert(&mut lease.keys, key.clone(), id);
        Ok(())
    }

    /// Takes `key` off lease `id`; nothing happens when it does not hang there.
    pub fn detach(&mut self, key: &[u8], id: i64) {
        if self.attached.lease_of(key) == Some(id) {
            let lease = self.leases.get_mut(&id).expect("a key hangs only on a lease that exists");
            self.attached.remove(&mut lease.keys, key);
        }
    }

    /// Records that lease `id` has `remaining_ttl` seconds left, or 0 for the full TTL.
    ///
    /// It counts at the next promotion only. The row to write when `persist` is set (gate
    /// LeaseCheckpointPersist, or a cluster version of at least 3.6); none for an unknown lease,
    /// which is no error: the lease may have been revoked meanwhile.
    pub fn checkpoint(
        &mut self,
        id: i64,
        remaining_ttl: i64,
        persist: bool,
        now: Duration,
    ) -> Option<Row> {
        let lease = self.leases.get_mut(&id)?;
        lease.remaining_ttl = remaining_ttl;
        let row = persist.then(|| lease.row(id));
        if self.primary {
            self.schedule_checkpoint(id, nanos(now));
        }
        row
    }

    /// Starts the TTL of lease `id` anew.
    ///
    /// # Errors
    /// [`RenewError`], each variant with what the caller does then.
    pub fn renew(&mut self, id: i64, now: Duration) -> Result<Renewed, RenewError> {
        if !self.primary {
            return Err(RenewError::NotPrimary);
        }
        let now = nanos(now);
        let lease = self.leases.get(&id).ok_or(RenewError::LeaseNotFound)?;
        if lease.expiry <= now {
            return Err(RenewError::Expired);
        }
        let ttl = lease.ttl;
        let clear_checkpoint = self.options.checkpoints && lease.remaining_ttl > 0;
        if !clear_checkpoint {
            // The full TTL, as the answer says. etcd without the gate goes by a remaining TTL left
            // over from a time with it, and the lease dies before the client expects it.
            self.expire_at(id, after_seconds(now, ttl));
        }
        Ok(Renewed { ttl, clear_checkpoint })
    }

    /// This member became leader: every lease starts anew with its full (or checkpointed) TTL.
    ///
    /// `extend` is added to each: one election timeout, in which nobody could renew. With many
    /// leases, expiries that would fall into the same second are spread.
    pub fn promote(&mut self, now: Duration, extend: Duration) {
        self.demote();
        self.primary = true;
        let now = nanos(now);
        let start = now.saturating_add(nanos(extend));
        let expiry = |lease: &Lease| after_seconds(start, lease.ttl_at_promotion());
        let mut expiries: Vec<(u64, i64)> =
            self.leases.iter().map(|(id, lease)| (expiry(lease), *id)).collect();
        expiries.sort_unstable();
        if expiries.len() >= SPREAD_FROM {
            spread(&mut expiries);
        }
        for (expiry, id) in expiries {
            self.expire_at(id, expiry);
            self.schedule_checkpoint(id, now);
        }
    }

    /// This member is not the leader (any more): nothing expires here.
    pub fn demote(&mut self) {
        self.primary = false;
        self.expiring.clear();
        self.checkpointing.clear();
        for lease in self.leases.values_mut() {
            lease.expiry = FOREVER;
            lease.offer_at = FOREVER;
            lease.checkpoint_at = FOREVER;
        }
    }

    /// At most `max` leases that have run out, earliest first, for the leader to propose revokes.
    ///
    /// A lease is offered once; when it still exists after [`EXPIRED_RETRY_INTERVAL`], again.
    /// Called every [`crate::EXPIRY_PASS_INTERVAL`] with [`crate::EXPIRED_PER_PASS`], after a full
    /// answer already after [`crate::FULL_PASS_INTERVAL`]. Costs O(answer x log n); empty unless primary.
    pub fn expired(&mut self, now: Duration, max: usize) -> Vec<i64> {
        let now = nanos(now);
        let retry_at = now.saturating_add(nanos(EXPIRED_RETRY_INTERVAL));
        let mut ids = Vec::new();
        while ids.len() < max {
            let Some(id) = self.expiring.pop_due(now) else { break };
            let lease = self.leases.get_mut(&id).expect("a queued lease exists");
            lease.offer_at = retry_at;
            self.expiring.insert(retry_at, id);
            ids.push(id);
        }
        ids
    }

    /// The earliest time at which [`Self::expired`] will have something to offer.
    pub fn next_expiry(&self) -> Option<Duration> {
        self.expiring.next().map(Duration::from_nanos)
    }

    /// At most `max` checkpoints that are due, for the leader to propose.
    ///
    /// Each lease longer than [`CHECKPOINT_INTERVAL`] comes once per interval. A lease that was
    /// renewed just now needs none and waits for its next turn (etcd forgets it from then on).
    pub fn due_checkpoints(&mut self, now: Duration, max: usize) -> Vec<Checkpoint> {
        let now = nanos(now);
        let mut due = Vec::new();
        while due.len() < max {
            let Some(id) = self.checkpointing.pop_due(now) else { break };
            let lease = self.leases.get_mut(&id).expect("a queued lease exists");
            lease.checkpoint_at = FOREVER;
            let left = lease.expiry.saturating_sub(now);
            let remaining_ttl = to_seconds(left.div_ceil(NANOS_PER_SECOND));
            if remaining_ttl >= lease.ttl {
                self.schedule_checkpoint(id, now);
            } else if left > 0 {
                due.push(Checkpoint { id, remaining_ttl });
            }
        }
        due
    }

    /// Whether lease `id` exists; it may have run out and wait for its revoke.
    pub fn exists(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// The lease that `key` hangs on, or [`NO_LEASE`].
    pub fn lease_of(&self, key: &[u8]) -> i64 {
        self.attached.lease_of(key).unwrap_or(NO_LEASE)
    }

    /// What a client learns about lease `id`; none when there is no such lease.
    pub fn time_to_live(&self, id: i64, now: Duration, with_keys: bool) -> Option<TimeToLive> {
        let lease = self.leases.get(&id)?;
        let remaining = self
            .primary
            .then(|| to_seconds(lease.expiry.saturating_sub(nanos(now)) / NANOS_PER_SECOND));
        let keys = if with_keys { self.attached.keys(lease.keys) } else { Vec::new() };
        Some(TimeToLive { granted: lease.ttl, remaining, keys })
    }

    /// The keys that hang on lease `id`, in no order; none when there is no such lease.
    pub fn keys_of(&self, id: i64) -> impl Iterator<Item = &Bytes> {
        let chain = self.leases.get(&id).map_or(Chain::EMPTY, |lease| lease.keys);
        self.attached.chained(chain)
    }

    /// Those that come after `key` in that order: for whoever looks at them in parts. A key that is attached between
    /// two parts comes before all others, so it may be missed; none of the others is. None when `key` does not
    /// hang on the lease any more: the next part is not to be found then.
    pub fn keys_after(&self, id: i64, key: &[u8]) -> Option<impl Iterator<Item = &Bytes>> {
        self.attached.chained_after(key, id)
    }

    /// The ids of all leases, as [`Listing::ids`] orders them.
    pub fn leases(&self) -> Vec<i64> {
        self.listing().ids()
    }

    /// All leases at this moment. To be put in order by who asks, not under a lock that others wait for.
    pub fn listing(&self) -> Listing {
        Listing::new(self.leases.iter().map(|(id, lease)| (lease.expiry, *id)))
    }

    /// The granted TTLs in seconds of all leases, in no order; for figures about the store.
    pub fn granted_ttls(&self) -> impl Iterator<Item = i64> + '_ {
        self.leases.values().map(|lease| lease.ttl)
    }

    /// How many leases there are.
    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }

    /// How many keys hang on a lease.
    pub fn attached_count(&self) -> usize {
        self.attached.len()
    }

    /// Whether this is the leader's lessor.
    pub fn is_primary(&self) -> bool {
        self.primary
    }

    fn expire_at(&mut self, id: i64, expiry: u64) {
        let lease = self.leases.get_mut(&id).expect("the caller looked it up");
        self.expiring.remove(lease.offer_at, id);
        lease.expiry = expiry;
        lease.offer_at = expiry;
        self.expiring.insert(expiry, id);
    }

    fn schedule_checkpoint(&mut self, id: i64, now: u64) {
        if !self.options.checkpoints {
            return;
        }
        let lease = self.leases.get_mut(&id).expect("the caller looked it up");
        self.checkpointing.remove(lease.checkpoint_at, id);
        lease.checkpoint_at = FOREVER;
        if after_seconds(0, lease.ttl_at_promotion()) > nanos(CHECKPOINT_INTERVAL) {
            lease.checkpoint_at = now.saturating_add(nanos(CHECKPOINT_INTERVAL));
            self.checkpointing.insert(lease.checkpoint_at, id);
        }
    }
}

impl Lease {
    fn new(ttl: i64) -> Self {
        Self {
            ttl,
            remaining_ttl: 0,
            expiry: FOREVER,
            offer_at: FOREVER,
            checkpoint_at: FOREVER,
            keys: Chain::EMPTY,
        }
    }

    /// Seconds that the lease lives from a promotion on.
    fn ttl_at_promotion(&self) -> i64 {
        if self.remaining_ttl > 0 { self.remaining_ttl } else { self.ttl }
    }

    fn row(&self, id: i64) -> Row {
        Row::put(&leasepb::Lease { id, ttl: self.ttl, remaining_ttl: self.remaining_ttl })
    }
}

/// Pushes sorted expiries apart until no second holds more than `SPREAD_PER_SECOND` of them.
fn spread(expiries: &mut [(u64, i64)]) {
    for index in SPREAD_PER_SECOND..expiries.len() {
        let earliest = expiries[index - SPREAD_PER_SECOND].0.saturating_add(NANOS_PER_SECOND);
        expiries[index].0 = expiries[index].0.max(earliest);
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Nanoseconds since the caller's start; 584 years fit, the largest TTL is 285.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(FOREVER)
}

fn after_seconds(start: u64, seconds: i64) -> u64 {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    // One below FOREVER: a primary's lease always has an expiry.
    start.saturating_add(seconds.saturating_mul(NANOS_PER_SECOND)).min(FOREVER - 1)
}

fn to_seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
