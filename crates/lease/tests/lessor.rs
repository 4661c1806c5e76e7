//! What the lessor does, one behaviour a test.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use etched_lease::{
    CHECKPOINT_INTERVAL, Checkpoint, EXPIRED_PER_PASS, EXPIRED_RETRY_INTERVAL, Error,
    FULL_PASS_INTERVAL, Lessor, NO_LEASE, Options, RenewError, RestoreError, TTL_MAX, min_ttl,
};

const START: Duration = Duration::from_secs(1_000_000);
const OPTIONS: Options = Options { min_ttl: 2, checkpoints: false };
const WITH_CHECKPOINTS: Options = Options { min_ttl: 2, checkpoints: true };

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn key(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

fn follower() -> Lessor {
    Lessor::new(OPTIONS)
}

fn leader(options: Options) -> Lessor {
    let mut lessor = Lessor::new(options);
    lessor.promote(START, Duration::ZERO);
    lessor
}

fn with_leases(count: i64, ttl: i64) -> Lessor {
    let mut lessor = leader(OPTIONS);
    for id in 1..=count {
        lessor.grant(id, ttl, START).expect("a fresh id");
    }
    lessor
}

#[test]
fn the_smallest_ttl_is_one_and_a_half_election_timeouts_rounded_up() {
    let of = |heartbeat, election| {
        min_ttl(Duration::from_millis(heartbeat), Duration::from_millis(election))
    };
    assert_eq!(of(100, 1000), 2);
    assert_eq!(of(500, 5000), 8);
    assert_eq!(of(10, 100), 1);
    assert_eq!(of(300, 1000), 2, "the election timeout is counted in whole ticks: 3 x 300 ms");
    assert_eq!(of(1, 50_000), 75);
}

#[test]
fn small_zero_and_negative_ttls_are_raised_to_the_minimum() {
    let mut lessor = follower();
    for (id, asked) in [(1, 1), (2, 0), (3, -5), (4, i64::MIN)] {
        assert_eq!(lessor.grant(id, asked, START).unwrap().ttl, 2);
    }
    assert_eq!(lessor.grant(5, 3, START).unwrap().ttl, 3);
}

#[test]
fn the_largest_ttl_is_granted_and_one_more_is_refused() {
    let mut lessor = leader(OPTIONS);
    assert_eq!(lessor.grant(1, TTL_MAX + 1, START), Err(Error::TtlTooLarge));
    assert_eq!(lessor.grant(1, TTL_MAX, START).unwrap().ttl, TTL_MAX);
    assert_eq!(lessor.time_to_live(1, START, false).unwrap().remaining, Some(TTL_MAX));
}

#[test]
fn an_id_is_given_once() {
    let mut lessor = follower();
    lessor.grant(7, 10, START).unwrap();
    assert_eq!(lessor.grant(7, 20, START), Err(Error::LeaseExists));
    assert_eq!(lessor.time_to_live(7, START, false).unwrap().granted, 10);
}

#[test]
fn id_zero_is_never_a_lease() {
    let mut lessor = leader(OPTIONS);
    assert_eq!(lessor.grant(NO_LEASE, 10, START), Err(Error::LeaseNotFound));
    assert_eq!(lessor.revoke(NO_LEASE), Err(Error::LeaseNotFound));
    assert_eq!(lessor.renew(NO_LEASE, START), Err(RenewError::LeaseNotFound));
}

#[test]
fn errors_are_told_in_the_order_etcd_checks() {
    let mut lessor = follower();
    lessor.grant(7, 10, START).unwrap();
    assert_eq!(lessor.grant(NO_LEASE, TTL_MAX + 1, START), Err(Error::LeaseNotFound));
    assert_eq!(lessor.grant(7, TTL_MAX + 1, START), Err(Error::TtlTooLarge));
}

#[test]
fn a_grant_is_stored_as_etcd_stores_it() {
    let mut lessor = follower();
    let row = lessor.grant(-2, 1, START).unwrap().row;
    assert_eq!(row.key.as_ref(), [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
    let id_of_minus_two = [0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let value = row.value.unwrap();
    assert_eq!(value[..11], id_of_minus_two);
    assert_eq!(value[11..], [0x10, 2], "the TTL that was granted, not the one asked for");
}

#[test]
fn revoke_gives_the_keys_in_byte_order_and_deletes_the_row() {
    let mut lessor = follower();
    lessor.grant(7, 10, START).unwrap();
    for name in ["b", "a\u{0}", "a", "\u{ff}", "B"] {
        lessor.attach(&key(name), 7).unwrap();
    }
    let revoked = lessor.revoke(7).unwrap();
    assert_eq!(revoked.keys, ["B", "a", "a\u{0}", "b", "\u{ff}"].map(key));
    assert_eq!(revoked.row.key.as_ref(), 7i64.to_be_bytes());
    assert_eq!(revoked.row.value, None);
    assert!(!lessor.exists(7));
    assert_eq!(lessor.lease_of(b"a"), NO_LEASE);
    assert_eq!(lessor.revoke(7), Err(Error::LeaseNotFound));
}

#[test]
fn a_key_hangs_on_the_lease_it_was_attached_to_last() {
    let mut lessor = follower();
    lessor.grant(1, 10, START).unwrap();
    lessor.grant(2, 10, START).unwrap();
    lessor.attach(&key("k"), 1).unwrap();
    lessor.attach(&key("k"), 2).unwrap();
    assert_eq!(lessor.lease_of(b"k"), 2);
    assert!(lessor.revoke(1).unwrap().keys.is_empty());
    assert_eq!(lessor.revoke(2).unwrap().keys, [key("k")]);
}

#[test]
fn the_keys_of_a_lease_can_be_looked_at_one_by_one() {
    let mut lessor = with_leases(2, 60);
    for (name, id) in [("b", 1), ("a", 1), ("c", 2), ("d", 1)] {
        lessor.attach(&key(name), id).expect("a lease");
    }
    lessor.detach(b"b", 1);
    let keys = |id| lessor.keys_of(id).cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(1), BTreeSet::from([key("a"), key("d")]));
    assert_eq!(keys(2), BTreeSet::from([key("c")]));
    assert_eq!(keys(3), BTreeSet::new());
}

#[test]
fn the_keys_of_a_lease_can_be_looked_at_in_parts_while_they_change() {
    let mut lessor = with_leases(2, 60);
    for name in ["a", "b", "c", "d", "e"] {
        lessor.attach(&key(name), 1).expect("a lease");
    }
    let all: Vec<_> = lessor.keys_of(1).cloned().collect();
    let after = |lessor: &Lessor, name: &Bytes| {
        lessor.keys_after(1, name).map(|keys| keys.cloned().collect::<Vec<_>>())
    };
    assert_eq!(after(&lessor, &all[1]).as_deref(), Some(&all[2..]));
    lessor.attach(&key("new"), 1).expect("a lease");
    lessor.attach(&all[1], 1).expect("a lease");
    lessor.detach(&all[2], 1);
    assert_eq!(after(&lessor, &all[1]).as_deref(), Some(&all[3..]));
    assert_eq!(after(&lessor, &all[2]), None, "it hangs nowhere");
    lessor.attach(&all[1], 2).expect("a lease");
    assert_eq!(after(&lessor, &all[1]), None, "it hangs on another");
    assert_eq!(after(&lessor, &all[4]), Some(Vec::new()));
}

#[test]
fn attaching_twice_counts_once() {
    let mut lessor = follower();
    lessor.grant(1, 10, START).unwrap();
    lessor.attach(&key("k"), 1).unwrap();
    lessor.attach(&key("k"), 1).unwrap();
    assert_eq!(lessor.attached_count(), 1);
    assert_eq!(lessor.revoke(1).unwrap().keys, [key("k")]);
}

#[test]
fn attaching_to_an_unknown_lease_leaves_the_key_where_it_was() {
    let mut lessor = follower();
    lessor.grant(1, 10, START).unwrap();
    lessor.attach(&key("k"), 1).unwrap();
    assert_eq!(lessor.attach(&key("k"), 2), Err(Error::LeaseNotFound));
    assert_eq!(lessor.lease_of(b"k"), 1);
}

#[test]
fn detach_touches_only_the_named_lease() {
    let mut lessor = follower();
    lessor.grant(1, 10, START).unwrap();
    lessor.attach(&key("k"), 1).unwrap();
    lessor.detach(b"k", 2);
    lessor.detach(b"other", 1);
    assert_eq!(lessor.lease_of(b"k"), 1);
    lessor.detach(b"k", 1);
    assert_eq!(lessor.lease_of(b"k"), NO_LEASE);
    assert!(lessor.revoke(1).unwrap().keys.is_empty());
}

#[test]
fn an_attached_key_shares_the_bytes_it_was_given() {
    let mut lessor = follower();
    lessor.grant(1, 10, START).unwrap();
    let given = Bytes::from(b"some key".to_vec());
    lessor.attach(&given, 1).unwrap();
    let kept = lessor.time_to_live(1, START, true).unwrap().keys.remove(0);
    assert_eq!(kept.as_ptr(), given.as_ptr());
}

#[test]
fn time_to_live_rounds_down_and_stops_at_zero() {
    let mut lessor = leader(OPTIONS);
    lessor.grant(1, 60, START).unwrap();
    let remaining = |millis| {
        lessor.time_to_live(1, START + Duration::from_millis(millis), false).unwrap().remaining
    };
    assert_eq!(remaining(0), Some(60));
    assert_eq!(remaining(1), Some(59));
    assert_eq!(remaining(59_500), Some(0));
    assert_eq!(remaining(70_000), Some(0), "expired, not yet revoked");
    assert_eq!(lessor.time_to_live(2, START, false), None);
}

#[test]
fn time_to_live_shows_keys_only_when_asked() {
    let mut lessor = leader(OPTIONS);
    lessor.grant(1, 60, START).unwrap();
    lessor.attach(&key("b"), 1).unwrap();
    lessor.attach(&key("a"), 1).unwrap();
    assert!(lessor.time_to_live(1, START, false).unwrap().keys.is_empty());
    assert_eq!(lessor.time_to_live(1, START, true).unwrap().keys, ["a", "b"].map(key));
}

#[test]
fn only_the_leader_knows_what_remains() {
    let mut lessor = follower();
    lessor.grant(1, 60, START).unwrap();
    let seen = lessor.time_to_live(1, START, false).unwrap();
    assert_eq!((seen.granted, seen.remaining), (60, None));
}

#[test]
fn a_renewed_lease_gets_its_whole_ttl_again() {
    let mut lessor = leader(OPTIONS);
    lessor.grant(1, 10, START).unwrap();
    let renewed = lessor.renew(1, START + secs(9)).unwrap();
    assert_eq!((renewed.ttl, renewed.clear_checkpoint), (10, false));
    assert!(lessor.expired(START + secs(18), 10).is_empty());
    assert_eq!(lessor.expired(START + secs(19), 10), [1]);
}

#[test]
fn renewing_tells_why_it_cannot() {
    let mut lessor = follower();
    lessor.grant(1, 10, START).unwrap();
    assert_eq!(lessor.renew(1, START), Err(RenewError::NotPrimary));
    lessor.promote(START, Duration::ZERO);
    assert_eq!(lessor.renew(2, START), Err(RenewError::LeaseNotFound));
    assert_eq!(lessor.renew(1, START + secs(10)), Err(RenewError::Expired));
    lessor.revoke(1).unwrap();
    assert_eq!(lessor.renew(1, START + secs(10)), Err(RenewError::LeaseNotFound));
}

#[test]
fn a_lease_expires_exactly_when_its_ttl_is_over() {
    let mut lessor = leader(OPTIONS);
    lessor.grant(1, 10, START).unwrap();
    assert_eq!(lessor.next_expiry(), Some(START + secs(10)));
    assert!(lessor.expired(START + Duration::from_nanos(9_999_999_999), 10).is_empty());
    assert_eq!(lessor.expired(START + secs(10), 10), [1]);
}

#[test]
fn expiry_alone_changes_nothing() {
    let mut lessor = leader(OPTIONS);
    lessor.grant(1, 10, START).unwrap();
    lessor.attach(&key("k"), 1).unwrap();
    assert_eq!(lessor.expired(START + secs(20), 10), [1]);
    assert!(lessor.exists(1));
    assert_eq!(lessor.lease_of(b"k"), 1);
    assert_eq!(lessor.leases(), [1]);
}

#[test]
fn an_expired_lease_is_offered_once_and_again_when_its_revoke_got_lost() {
    let mut lessor = leader(OPTIONS);
    lessor.grant(1, 10, START).unwrap();
    let offered = START + secs(10);
    assert_eq!(lessor.expired(offered, 10), [1]);
    assert!(lessor.expired(offered, 10).is_empty());
    let just_before = offered + EXPIRED_RETRY_INTERVAL - Duration::from_nanos(1);
    assert!(lessor.expired(just_before, 10).is_empty());
    assert_eq!(lessor.expired(offered + EXPIRED_RETRY_INTERVAL, 10), [1]);
    lessor.revoke(1).unwrap();
    assert!(lessor.expired(offered + 2 * EXPIRED_RETRY_INTERVAL, 10).is_empty());
    assert_eq!(lessor.next_expiry(), None);
}

#[test]
fn a_pass_offers_at_most_what_was_asked_for_and_the_earliest_first() {
    let mut lessor = leader(OPTIONS);
    for (id, ttl) in [(1, 30), (2, 10), (3, 20)] {
        lessor.grant(id, ttl, START).unwrap();
    }
    assert_eq!(lessor.expired(START + secs(60), 2), [2, 3]);
    assert_eq!(lessor.expired(START + secs(60), 2), [1]);
}

#[test]
fn a_hundred_thousand_leases_expire_within_two_seconds_of_full_passes() {
    let mut lessor = with_leases(100_000, 10);
    let mut seen = 0;
    let mut passes = 0;
    loop {
        let ids = lessor.expired(START + secs(10), EXPIRED_PER_PASS);
        for id in &ids {
            lessor.revoke(*id).unwrap();
        }
        seen += ids.len();
        if ids.is_empty() {
            break;
        }
        passes += 1;
    }
    assert_eq!((seen, lessor.lease_count()), (100_000, 0));
    assert!(FULL_PASS_INTERVAL * passes <= Duration::from_secs(2));
}

#[test]
fn a_follower_offers_nothing() {
    let mut lessor = follower();
    lessor.grant(1, 10, START).unwrap();
    assert!(lessor.expired(START + secs(100), 10).is_empty());
    assert_eq!(lessor.next_expiry(), None);
}

#[test]
fn a_demoted_leader_offers_nothing() {
    let mut lessor = with_leases(3, 10);
    lessor.demote();
    assert!(!lessor.is_primary());
    assert!(lessor.expired(START + secs(100), 10).is_empty());
    lessor.revoke(1).unwrap();
    lessor.grant(4, 10, START).unwrap();
    assert_eq!(lessor.leases(), [2, 3, 4]);
}

#[test]
fn a_new_leader_gives_every_lease_its_whole_ttl_and_the_extension() {
    let mut lessor = with_leases(1, 30);
    lessor.demote();
    let elected = START + secs(25);
    lessor.promote(elected, secs(1));
    assert_eq!(lessor.time_to_live(1, elected, false).unwrap().remaining, Some(31));
    assert!(lessor.expired(elected + secs(30), 10).is_empty());
    assert_eq!(lessor.expired(elected + secs(31), 10), [1]);
}

#[test]
fn promotion_spreads_a_pile_of_leases_below_the_revoke_rate() {
    let mut lessor = with_leases(3000, 10);
    lessor.demote();
    lessor.promote(START, Duration::ZERO);
    let counts = [9_999, 10_000, 10_999, 11_000, 12_000, 13_000]
        .map(Duration::from_millis)
        .map(|after| lessor.expired(START + after, usize::MAX))
        .map(|ids| ids.into_iter().collect::<BTreeSet<_>>().len());
    assert_eq!(counts, [0, 750, 0, 750, 750, 750 + 750], "the last 750 and the first, once more");
}

#[test]
fn promotion_does_not_spread_few_leases() {
    let mut lessor = with_leases(999, 10);
    lessor.promote(START, Duration::ZERO);
    assert_eq!(lessor.expired(START + secs(10), usize::MAX).len(), 999);
}

#[test]
fn leases_are_listed_by_expiry() {
    let mut lessor = leader(OPTIONS);
    for (id, ttl) in [(5, 30), (-1, 10), (9, 20), (3, 20)] {
        lessor.grant(id, ttl, START).unwrap();
    }
    assert_eq!(lessor.leases(), [-1, 3, 9, 5]);
    lessor.renew(-1, START + secs(9)).unwrap();
    assert_eq!(lessor.leases(), [-1, 3, 9, 5], "19 s is still the earliest");
    lessor.renew(3, START + secs(15)).unwrap();
    assert_eq!(lessor.leases(), [-1, 9, 5, 3]);
}

#[test]
fn a_restart_restores_the_leases_but_not_their_age() {
    let mut before = leader(OPTIONS);
    let rows: Vec<_> = [(1, 100), (-7, 50)]
        .map(|(id, ttl)| before.grant(id, ttl, START).unwrap().row)
        .map(|row| (row.key, row.value.unwrap()))
        .to_vec();
    let mut after = Lessor::restore(OPTIONS, rows).unwrap();
    assert!(!after.is_primary());
    after.promote(START, secs(1));
    assert_eq!(after.time_to_live(1, START, false).unwrap().remaining, Some(101));
    assert_eq!(after.leases(), [-7, 1]);
}

#[test]
fn a_restored_ttl_below_the_minimum_is_raised() {
    let row = follower().grant(1, 2, START).unwrap().row;
    let slower = Options { min_ttl: 8, checkpoints: false };
    let lessor = Lessor::restore(slower, [(row.key, row.value.unwrap())]).unwrap();
    assert_eq!(lessor.time_to_live(1, START, false).unwrap().granted, 8);
}

#[test]
fn a_damaged_row_is_told_apart() {
    let restore = |key: &[u8], value: &[u8]| {
        Lessor::restore(OPTIONS, [(key.to_vec(), value.to_vec())]).map(|_| ()).unwrap_err()
    };
    assert_eq!(restore(b"short", b""), RestoreError::KeyLength(5));
    assert_eq!(
        restore(&3i64.to_be_bytes(), &[0x08, 4]),
        RestoreError::Mismatch { key: 3, value: 4 }
    );
    assert!(matches!(restore(&3i64.to_be_bytes(), &[0x08]), RestoreError::Value { id: 3, .. }));
}

#[test]
fn a_checkpoint_counts_at_the_next_promotion() {
    let mut lessor = leader(WITH_CHECKPOINTS);
    lessor.grant(1, 600, START).unwrap();
    assert!(lessor.checkpoint(1, 100, true, START).unwrap().value.is_some());
    assert_eq!(lessor.time_to_live(1, START, false).unwrap().remaining, Some(600));
    lessor.demote();
    lessor.promote(START, Duration::ZERO);
    assert_eq!(lessor.time_to_live(1, START, false).unwrap().remaining, Some(100));
}

#[test]
fn a_checkpoint_survives_a_restart_when_it_was_persisted() {
    let mut lessor = leader(WITH_CHECKPOINTS);
    lessor.grant(1, 600, START).unwrap();
    assert_eq!(lessor.checkpoint(1, 100, false, START), None);
    assert_eq!(lessor.checkpoint(2, 100, true, START), None, "unknown lease: no error, no row");
    let row = lessor.checkpoint(1, 100, true, START).unwrap();
    let mut after = Lessor::restore(WITH_CHECKPOINTS, [(row.key, row.value.unwrap())]).unwrap();
    after.promote(START, Duration::ZERO);
    assert_eq!(after.time_to_live(1, START, false).unwrap().remaining, Some(100));
    assert_eq!(after.time_to_live(1, START, false).unwrap().granted, 600);
}

#[test]
fn renewing_asks_first_to_clear_a_checkpoint() {
    let mut lessor = leader(WITH_CHECKPOINTS);
    lessor.grant(1, 600, START).unwrap();
    lessor.checkpoint(1, 100, true, START);
    let later = START + secs(300);
    assert!(lessor.renew(1, later).unwrap().clear_checkpoint);
    assert_eq!(lessor.time_to_live(1, later, false).unwrap().remaining, Some(300));
    lessor.checkpoint(1, 0, true, later);
    assert!(!lessor.renew(1, later).unwrap().clear_checkpoint);
    assert_eq!(lessor.time_to_live(1, later, false).unwrap().remaining, Some(600));
}

#[test]
fn long_leases_come_up_for_a_checkpoint_every_five_minutes() {
    let mut lessor = leader(WITH_CHECKPOINTS);
    lessor.grant(1, 1000, START).unwrap();
    lessor.grant(2, 300, START).unwrap();
    let due = START + CHECKPOINT_INTERVAL;
    assert!(lessor.due_checkpoints(due - Duration::from_nanos(1), 10).is_empty());
    assert_eq!(lessor.due_checkpoints(due, 10), [Checkpoint { id: 1, remaining_ttl: 700 }]);
    assert!(lessor.due_checkpoints(due + secs(1), 10).is_empty(), "not before it was applied");
    lessor.checkpoint(1, 700, true, due);
    let next = due + CHECKPOINT_INTERVAL;
    assert_eq!(lessor.due_checkpoints(next, 10), [Checkpoint { id: 1, remaining_ttl: 400 }]);
}

#[test]
fn a_lease_renewed_just_now_waits_for_its_next_checkpoint() {
    let mut lessor = leader(WITH_CHECKPOINTS);
    lessor.grant(1, 1000, START).unwrap();
    let due = START + CHECKPOINT_INTERVAL;
    lessor.renew(1, due).unwrap();
    assert!(lessor.due_checkpoints(due, 10).is_empty());
    let next = due + CHECKPOINT_INTERVAL;
    assert_eq!(lessor.due_checkpoints(next, 10), [Checkpoint { id: 1, remaining_ttl: 700 }]);
}

#[test]
fn checkpoints_stop_with_the_lease_with_the_leadership_and_without_the_gate() {
    let due = START + CHECKPOINT_INTERVAL;
    let granted = |options| {
        let mut lessor = leader(options);
        lessor.grant(1, 1000, START).unwrap();
        lessor
    };
    let mut revoked = granted(WITH_CHECKPOINTS);
    revoked.revoke(1).unwrap();
    let mut demoted = granted(WITH_CHECKPOINTS);
    demoted.demote();
    let gate_off = granted(OPTIONS);
    for mut lessor in [revoked, demoted, gate_off] {
        assert!(lessor.due_checkpoints(due, 10).is_empty());
    }
}

#[test]
fn without_the_gate_an_old_checkpoint_does_not_shorten_a_renewal() {
    let mut lessor = leader(OPTIONS);
    lessor.grant(1, 600, START).unwrap();
    lessor.checkpoint(1, 100, true, START);
    assert!(!lessor.renew(1, START).unwrap().clear_checkpoint);
    assert_eq!(lessor.time_to_live(1, START, false).unwrap().remaining, Some(600));
}
