//! The lessor against a model that is too simple to be wrong: lists that are searched and sorted.

use std::time::Duration;

use bytes::Bytes;
use etched_lease::{EXPIRED_RETRY_INTERVAL, Error, Lessor, Options, RenewError};
use proptest::prelude::*;

const MIN_TTL: i64 = 2;

#[derive(Debug, Clone)]
enum Op {
    Grant { id: i64, ttl: i64 },
    Revoke { id: i64 },
    Attach { key: u8, id: i64 },
    Detach { key: u8, id: i64 },
    Renew { id: i64 },
    Expired { max: usize },
    Pass { millis: u64 },
    Promote { extend_millis: u64 },
    Demote,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let id = || prop_oneof![9 => -2..6i64, 1 => Just(i64::MAX)];
    let key = || 0..8u8;
    prop_oneof![
        4 => (id(), -1..9i64).prop_map(|(id, ttl)| Op::Grant { id, ttl }),
        2 => id().prop_map(|id| Op::Revoke { id }),
        6 => (key(), id()).prop_map(|(key, id)| Op::Attach { key, id }),
        3 => (key(), id()).prop_map(|(key, id)| Op::Detach { key, id }),
        3 => id().prop_map(|id| Op::Renew { id }),
        4 => (0..4usize).prop_map(|max| Op::Expired { max }),
        6 => (0..4000u64).prop_map(|millis| Op::Pass { millis }),
        2 => (0..2000u64).prop_map(|extend_millis| Op::Promote { extend_millis }),
        1 => Just(Op::Demote),
        1 => Just(Op::Restart),
    ]
}

#[derive(Debug, Clone)]
struct ModelLease {
    id: i64,
    ttl: i64,
    expiry: Duration,
    offer_at: Duration,
    keys: Vec<Bytes>,
}

#[derive(Debug, Default)]
struct Model {
    leases: Vec<ModelLease>,
    primary: bool,
    now: Duration,
}

impl Model {
    fn find(&mut self, id: i64) -> Option<&mut ModelLease> {
        self.leases.iter_mut().find(|lease| lease.id == id)
    }

    fn lease_of(&self, key: &Bytes) -> i64 {
        self.leases.iter().find(|lease| lease.keys.contains(key)).map_or(0, |lease| lease.id)
    }

    fn grant(&mut self, id: i64, ttl: i64) -> Result<i64, Error> {
        if id == 0 {
            return Err(Error::LeaseNotFound);
        }
        if self.find(id).is_some() {
            return Err(Error::LeaseExists);
        }
        let ttl = ttl.max(MIN_TTL);
        let expiry = self.now + Duration::from_secs(ttl as u64);
        self.leases.push(ModelLease { id, ttl, expiry, offer_at: expiry, keys: vec![] });
        Ok(ttl)
    }

    fn attach(&mut self, key: &Bytes, id: i64) -> Result<(), Error> {
        if self.find(id).is_none() {
            return Err(Error::LeaseNotFound);
        }
        self.leases.iter_mut().for_each(|lease| lease.keys.retain(|other| other != key));
        self.find(id).expect("found above").keys.push(key.clone());
        Ok(())
    }

    fn revoke(&mut self, id: i64) -> Result<Vec<Bytes>, Error> {
        let at = self.leases.iter().position(|lease| lease.id == id);
        let mut keys = self.leases.remove(at.ok_or(Error::LeaseNotFound)?).keys;
        keys.sort();
        Ok(keys)
    }

    fn renew(&mut self, id: i64) -> Result<i64, RenewError> {
        let (now, primary) = (self.now, self.primary);
        let lease = match self.find(id) {
            _ if !primary => return Err(RenewError::NotPrimary),
            None => return Err(RenewError::LeaseNotFound),
            Some(lease) if lease.expiry <= now => return Err(RenewError::Expired),
            Some(lease) => lease,
        };
        lease.expiry = now + Duration::from_secs(lease.ttl as u64);
        lease.offer_at = lease.expiry;
        Ok(lease.ttl)
    }

    fn expired(&mut self, max: usize) -> Vec<i64> {
        let now = self.now;
        let mut due: Vec<&mut ModelLease> =
            self.leases.iter_mut().filter(|lease| lease.offer_at <= now).collect();
        due.sort_by_key(|lease| (lease.offer_at, lease.id));
        let offer = due.into_iter().take(if self.primary { max } else { 0 });
        offer
            .map(|lease| {
                lease.offer_at = now + EXPIRED_RETRY_INTERVAL;
                lease.id
            })
            .collect()
    }

    fn promote(&mut self, extend: Duration) {
        self.primary = true;
        for lease in &mut self.leases {
            lease.expiry = self.now + extend + Duration::from_secs(lease.ttl as u64);
            lease.offer_at = lease.expiry;
        }
    }

    fn listed(&self) -> Vec<i64> {
        let mut order: Vec<_> = self.leases.iter().collect();
        order.sort_by_key(|lease| (if self.primary { lease.expiry } else { self.now }, lease.id));
        order.into_iter().map(|lease| lease.id).collect()
    }
}

fn name(key: u8) -> Bytes {
    Bytes::from(vec![b'k', key])
}

struct Pair {
    lessor: Lessor,
    model: Model,
    /// What storage would hold: rows by key.
    rows: std::collections::BTreeMap<Bytes, Bytes>,
}

const OPTIONS: Options = Options { min_ttl: MIN_TTL, checkpoints: false };

impl Pair {
    fn step(&mut self, op: Op) -> Result<(), TestCaseError> {
        let now = self.model.now;
        match op {
            Op::Grant { id, ttl } => {
                let got = self.lessor.grant(id, ttl, now);
                if let Ok(granted) = &got {
                    let row = granted.row.clone();
                    self.rows.insert(row.key, row.value.expect("a grant writes"));
                }
                prop_assert_eq!(got.map(|granted| granted.ttl), self.model.grant(id, ttl));
            }
            Op::Revoke { id } => {
                let got = self.lessor.revoke(id);
                if let Ok(revoked) = &got {
                    prop_assert!(self.rows.remove(&revoked.row.key).is_some());
                }
                prop_assert_eq!(got.map(|revoked| revoked.keys), self.model.revoke(id));
            }
            Op::Attach { key, id } => {
                let key = name(key);
                prop_assert_eq!(self.lessor.attach(&key, id), self.model.attach(&key, id));
            }
            Op::Detach { key, id } => {
                self.lessor.detach(&name(key), id);
                if let Some(lease) = self.model.find(id) {
                    lease.keys.retain(|other| *other != name(key));
                }
            }
            Op::Renew { id } => {
                let got = self.lessor.renew(id, now).map(|renewed| renewed.ttl);
                prop_assert_eq!(got, self.model.renew(id));
            }
            Op::Expired { max } => {
                prop_assert_eq!(self.lessor.expired(now, max), self.model.expired(max));
            }
            Op::Pass { millis } => self.model.now += Duration::from_millis(millis),
            Op::Promote { extend_millis } => {
                let extend = Duration::from_millis(extend_millis);
                self.lessor.promote(now, extend);
                self.model.promote(extend);
            }
            Op::Demote => {
                self.lessor.demote();
                self.model.primary = false;
            }
            Op::Restart => self.restart(),
        }
        Ok(())
    }

    fn restart(&mut self) {
        self.lessor = Lessor::restore(OPTIONS, &self.rows).expect("rows it wrote");
        self.model.primary = false;
        for lease in &self.model.leases {
            for key in &lease.keys {
                self.lessor.attach(key, lease.id).expect("restored");
            }
        }
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        let (lessor, model) = (&self.lessor, &self.model);
        prop_assert_eq!(lessor.leases(), model.listed());
        for key in (0..8).map(name) {
            prop_assert_eq!(lessor.lease_of(&key), model.lease_of(&key));
        }
        let attached: usize = model.leases.iter().map(|lease| lease.keys.len()).sum();
        prop_assert_eq!(lessor.attached_count(), attached);
        for lease in &model.leases {
            let seen = lessor.time_to_live(lease.id, model.now, true).expect("the model has it");
            let left = lease.expiry.saturating_sub(model.now).as_secs() as i64;
            prop_assert_eq!(seen.granted, lease.ttl);
            prop_assert_eq!(seen.remaining, model.primary.then_some(left));
            let mut keys = lease.keys.clone();
            keys.sort();
            prop_assert_eq!(seen.keys, keys);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_lessor_does_what_the_model_does(ops in prop::collection::vec(op(), 1..120)) {
        let mut pair = Pair {
            lessor: Lessor::new(OPTIONS),
            model: Model { now: Duration::from_secs(1), ..Model::default() },
            rows: std::collections::BTreeMap::new(),
        };
        for op in ops {
            pair.step(op)?;
            pair.compare()?;
        }
    }
}
