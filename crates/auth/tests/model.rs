//! Authorization against a model that is too simple to be wrong: a request is taken apart into the single keys that it
//! reads and writes, and each of them is looked for among all permissions of all roles of the user.
//!
//! Each seed makes its own users, roles, changes and requests. A failure names its seed; `run(seed)` replays it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use etched_auth::{Asked, Caller, Error, LeaseKeys, ROOT, Store};
use etched_proto::authpb::{Permission, permission::Type};
use etched_proto::etcdserverpb as pb;
use pb::request_op::Request as Op;

const SEEDS: u64 = 200;
/// Changes of one seed, each followed by requests.
const CHANGES: usize = 40;
const REQUESTS: usize = 25;
/// Levels of transactions inside each other.
const DEPTH_MAX: u32 = 4;

/// Keys that permissions and requests name.
const KEYS: [&str; 13] =
    ["a", "a\0", "b", "b\0", "c", "c\0", "d", "d\0", "e", "e\0", "f", "f\0", "z"];
/// The others: between each two of [`KEYS`], where only a range reaches, and behind them.
const BETWEEN: [&str; 7] = ["a\x01", "b\x01", "c\x01", "d\x01", "e\x01", "f\x01", "z\x01"];
const ENDS: [&str; 9] = ["", "", "", "\0", "a", "c", "d", "f", "g"];
const USERS: [&str; 4] = ["root", "alice", "bob", "carol"];
const ROLES: [&str; 4] = ["root", "r1", "r2", "r3"];

#[test]
fn a_whole_request_is_allowed_when_each_key_it_touches_is() {
    let mut seen = BTreeMap::<String, u32>::new();
    for seed in 0..SEEDS {
        for (verdict, count) in run(seed) {
            *seen.entry(verdict).or_default() += count;
        }
    }
    // The seeds reach what they are meant to reach.
    for verdict in ["Ok", "UserEmpty", "OldRevision", "PermissionDenied", "UserNotFound"] {
        assert!(seen.get(verdict).is_some_and(|count| *count > 500), "{verdict}: {seen:?}");
    }
}

/// A generator of numbers that is the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn key(&mut self) -> Bytes {
        self.pick(&KEYS).into()
    }

    fn end(&mut self) -> Bytes {
        self.pick(&ENDS).into()
    }
}

/// Which keys a range has, in the sense of a request.
fn keys_in(key: &[u8], end: &[u8]) -> Vec<&'static str> {
    let inside = |other: &&str| match end {
        b"" => other.as_bytes() == key,
        b"\0" => other.as_bytes() >= key,
        _ => other.as_bytes() >= key && other.as_bytes() < end,
    };
    KEYS.into_iter().chain(BETWEEN).filter(inside).collect()
}

#[derive(Default)]
struct Model {
    enabled: bool,
    revision: u64,
    roles_of: BTreeMap<&'static str, BTreeSet<&'static str>>,
    permissions: BTreeMap<&'static str, Vec<Permission>>,
    leases: Leases,
}

#[derive(Default, Clone)]
struct Leases(BTreeMap<i64, Vec<Bytes>>);

impl LeaseKeys for Leases {
    fn each_key(
        &self,
        lease: i64,
        check: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.0.get(&lease).into_iter().flatten().try_for_each(|key| check(key))
    }
}

type Touched = Vec<(Type, Bytes, Bytes)>;

impl Model {
    fn admin(&self, caller: &Caller) -> Result<(), Error> {
        if caller.username.is_empty() {
            return Err(Error::UserEmpty);
        }
        let roles = self.roles_of.get(&caller.username[..]).ok_or(Error::UserNotFound)?;
        if roles.contains(ROOT) { Ok(()) } else { Err(Error::PermissionDenied) }
    }

    fn allows(&self, user: &str, kind: Type, key: &str) -> bool {
        let roles = self.roles_of.get(user).into_iter().flatten();
        let mut granted = roles.filter_map(|role| self.permissions.get(role)).flatten();
        granted.any(|own| {
            let kinds = [kind as i32, Type::Readwrite as i32];
            kinds.contains(&own.perm_type) && keys_in(&own.key, &own.range_end).contains(&key)
        })
    }

    /// A lease's keys count as if each were named; root needs none of them.
    fn lease(&self, caller: &Caller, kind: Type, lease: i64, touched: &mut Touched) {
        if self.admin(caller).is_err() {
            let keys = self.leases.0.get(&lease).into_iter().flatten();
            touched.extend(keys.map(|key| (kind, key.clone(), Bytes::new())));
        }
    }

    fn put(&self, caller: &Caller, put: &pb::PutRequest, touched: &mut Touched) {
        touched.push((Type::Write, put.key.clone(), Bytes::new()));
        self.lease(caller, Type::Write, put.lease, touched);
        if put.prev_kv {
            touched.push((Type::Read, put.key.clone(), Bytes::new()));
        }
    }

    fn txn(&self, caller: &Caller, txn: &pb::TxnRequest, touched: &mut Touched) {
        let mut open = vec![txn.clone()];
        while let Some(txn) = open.pop() {
            for compare in txn.compare {
                touched.push((Type::Read, compare.key, compare.range_end));
            }
            for op in txn.success.into_iter().chain(txn.failure) {
                match op.request.expect("the generator sets it") {
                    Op::RequestRange(range) => {
                        touched.push((Type::Read, range.key, range.range_end));
                    }
                    Op::RequestPut(put) => self.put(caller, &put, touched),
                    Op::RequestDeleteRange(delete) => delete_range(&delete, touched),
                    Op::RequestTxn(txn) => open.push(txn),
                }
            }
        }
    }

    fn judge(&self, caller: &Caller, touched: &Touched) -> Result<(), Error> {
        if touched.is_empty() {
            return Ok(());
        }
        if caller.revision == 0 {
            return Err(Error::UserEmpty);
        }
        if caller.revision < self.revision {
            return Err(Error::OldRevision);
        }
        let user = &caller.username[..];
        let roles = self.roles_of.get(user).ok_or(Error::PermissionDenied)?;
        if roles.contains(ROOT) {
            return Ok(());
        }
        for (kind, key, end) in touched {
            // A range without keys counts as its first one.
            let mut keys = keys_in(key, end);
            if keys.is_empty() {
                keys = keys_in(key, b"");
            }
            if !keys.iter().all(|key| self.allows(user, *kind, key)) {
                return Err(Error::PermissionDenied);
            }
        }
        Ok(())
    }

    fn authorize(&self, caller: &Caller, asked: &Asking) -> Result<(), Error> {
        if !self.enabled {
            return Ok(());
        }
        let mut touched = Vec::new();
        match asked {
            Asking::Range(range) => {
                touched.push((Type::Read, range.key.clone(), range.range_end.clone()));
            }
            Asking::Put(put) => self.put(caller, put, &mut touched),
            Asking::Delete(delete) => delete_range(delete, &mut touched),
            Asking::Txn(txn) => self.txn(caller, txn, &mut touched),
            Asking::Watch(watch) => {
                touched.push((Type::Read, watch.key.clone(), watch.range_end.clone()));
            }
            Asking::Lease(kind, lease) => self.lease(caller, *kind, *lease, &mut touched),
            Asking::SignedIn if *caller == Caller::default() => return Err(Error::UserEmpty),
            Asking::SignedIn => {}
            Asking::User(name) if **name == caller.username => {}
            Asking::Role(name)
                if self
                    .roles_of
                    .get(&caller.username[..])
                    .is_some_and(|own| own.contains(name)) => {}
            Asking::User(_) | Asking::Role(_) | Asking::Admin => return self.admin(caller),
        }
        self.judge(caller, &touched)
    }
}

fn delete_range(delete: &pb::DeleteRangeRequest, touched: &mut Touched) {
    touched.push((Type::Write, delete.key.clone(), delete.range_end.clone()));
    if delete.prev_kv {
        touched.push((Type::Read, delete.key.clone(), delete.range_end.clone()));
    }
}

#[derive(Debug)]
enum Asking {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Watch(pb::WatchCreateRequest),
    Lease(Type, i64),
    User(&'static str),
    Role(&'static str),
    SignedIn,
    Admin,
}

impl Asking {
    fn asked(&self) -> Asked<'_> {
        match self {
            Self::Range(request) => Asked::Range(request),
            Self::Put(request) => Asked::Put(request),
            Self::Delete(request) => Asked::DeleteRange(request),
            Self::Txn(request) => Asked::Txn(request),
            Self::Watch(request) => Asked::Watch(request),
            Self::Lease(Type::Write, lease) => Asked::WriteLease(*lease),
            Self::Lease(_, lease) => Asked::ReadLease(*lease),
            Self::User(name) => Asked::UserGet(name),
            Self::Role(name) => Asked::RoleGet(name),
            Self::SignedIn => Asked::SignedIn,
            Self::Admin => Asked::Admin,
        }
    }
}

impl Random {
    fn range(&mut self) -> pb::RangeRequest {
        pb::RangeRequest { key: self.key(), range_end: self.end(), ..Default::default() }
    }

    fn put(&mut self) -> pb::PutRequest {
        let lease = if self.one_in(3) { self.below(4) as i64 } else { 0 };
        pb::PutRequest { key: self.key(), lease, prev_kv: self.one_in(3), ..Default::default() }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) = (self.key(), self.end());
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.one_in(3) }
    }

    fn txn(&mut self, depth: u32) -> pb::TxnRequest {
        let compare = (0..self.below(2))
            .map(|_| pb::Compare { key: self.key(), range_end: self.end(), ..Default::default() })
            .collect();
        let success = (0..self.below(3)).map(|_| self.op(depth)).collect();
        let failure = (0..self.below(2)).map(|_| self.op(depth)).collect();
        pb::TxnRequest { compare, success, failure }
    }

    fn op(&mut self, depth: u32) -> pb::RequestOp {
        let request = match self.below(if depth < DEPTH_MAX { 5 } else { 3 }) {
            0 => Op::RequestRange(self.range()),
            1 => Op::RequestPut(self.put()),
            2 => Op::RequestDeleteRange(self.delete()),
            _ => Op::RequestTxn(self.txn(depth + 1)),
        };
        pb::RequestOp { request: Some(request) }
    }

    fn asking(&mut self) -> Asking {
        match self.below(14) {
            0..3 => Asking::Range(self.range()),
            3 | 4 => Asking::Put(self.put()),
            5 | 6 => Asking::Delete(self.delete()),
            7 | 8 => Asking::Txn(self.txn(1)),
            9 => Asking::Watch(pb::WatchCreateRequest {
                key: self.key(),
                range_end: self.end(),
                ..Default::default()
            }),
            10 => Asking::Lease(self.pick(&[Type::Read, Type::Write]), self.below(4) as i64),
            11 => Asking::User(self.pick(&USERS)),
            12 => Asking::Role(self.pick(&ROLES)),
            _ => {
                if self.one_in(2) {
                    Asking::SignedIn
                } else {
                    Asking::Admin
                }
            }
        }
    }

    fn caller(&mut self, revision: u64) -> Caller {
        match self.below(12) {
            0 => Caller::default(),
            1 => Caller { username: "stranger".to_owned(), revision },
            2 => {
                let username = self.pick(&USERS).to_owned();
                Caller { username, revision: revision.saturating_sub(1) }
            }
            _ => Caller { username: self.pick(&USERS).to_owned(), revision },
        }
    }
}

/// One change, made to both; what is refused changes neither.
fn change(random: &mut Random, store: &mut Store, model: &mut Model) {
    let (user, role) = (random.pick(&USERS), random.pick(&ROLES));
    match random.below(12) {
        0 => {
            let request = pb::AuthUserAddRequest { name: user.to_owned(), ..Default::default() };
            if store.add_user(&request).is_ok() {
                model.roles_of.insert(user, BTreeSet::new());
            }
        }
        1 if random.one_in(3) => {
            if store.delete_user(user).is_ok() {
                model.roles_of.remove(user);
            }
        }
        2 => {
            let request = pb::AuthRoleAddRequest { name: role.to_owned() };
            if store.add_role(&request).is_ok() {
                model.permissions.insert(role, Vec::new());
            }
        }
        3 if random.one_in(3) => {
            if store.delete_role(role).is_ok() {
                model.permissions.remove(role);
                model.roles_of.values_mut().for_each(|roles| {
                    roles.remove(role);
                });
            }
        }
        4 => {
            if store.revoke_role(user, role).is_ok() {
                model.roles_of.entry(user).and_modify(|roles| {
                    roles.remove(role);
                });
            }
        }
        5 if random.one_in(4) => drop(store.disable()),
        6 => drop(store.enable()),
        7 | 8 => {
            let role = if role == ROOT && !random.one_in(4) { "r1" } else { role };
            if store.grant_role(user, role).is_ok() {
                model.roles_of.entry(user).and_modify(|roles| {
                    roles.insert(role);
                });
            }
        }
        _ => grant(random, role, store, model),
    }
    model.enabled = store.is_enabled();
    model.revision = store.revision();
}

fn grant(random: &mut Random, role: &'static str, store: &mut Store, model: &mut Model) {
    let kind = random.pick(&[Type::Read, Type::Write, Type::Readwrite]) as i32;
    let perm = Permission { perm_type: kind, key: random.key(), range_end: random.end() };
    let name = role.to_owned();
    let request = pb::AuthRoleGrantPermissionRequest { name, perm: Some(perm.clone()) };
    if store.grant_permission(&request).is_err() {
        return;
    }
    let own = model.permissions.get_mut(role).expect("the store has the role");
    let at = own.iter().position(|other| other.key >= perm.key).unwrap_or(own.len());
    match own.get_mut(at) {
        Some(first) if first.key == perm.key && first.range_end == perm.range_end => *first = perm,
        _ => {
            own.push(perm);
            own.sort_by(|a, b| a.key.cmp(&b.key));
        }
    }
}

/// Replays one seed; returns how often each verdict came.
fn run(seed: u64) -> BTreeMap<String, u32> {
    let mut random = Random(seed);
    let (mut store, mut model) = (Store::default(), Model::default());
    store.begin();
    let mut seen = BTreeMap::new();
    for number in 1..4 {
        let keys = (0..random.below(3)).map(|_| random.key()).collect();
        model.leases.0.insert(number, keys);
    }
    for user in USERS {
        let request = pb::AuthUserAddRequest { name: user.to_owned(), ..Default::default() };
        store.add_user(&request).expect("a new user");
        model.roles_of.insert(user, BTreeSet::new());
    }
    store.grant_role(ROOT, ROOT).expect("a user");
    model.roles_of.insert(ROOT, BTreeSet::from([ROOT]));
    store.enable().expect("root is there");
    for _ in 0..CHANGES {
        change(&mut random, &mut store, &mut model);
        for _ in 0..REQUESTS {
            let (caller, asking) = (random.caller(store.revision()), random.asking());
            let got = store.authorize(&caller, asking.asked(), &model.leases);
            let expected = model.authorize(&caller, &asking);
            assert_eq!(got, expected, "seed {seed}: {caller:?} asks for {asking:?}\n{store:#?}");
            let verdict = got.map_or_else(|error| format!("{error:?}"), |()| "Ok".to_owned());
            *seen.entry(verdict).or_default() += 1;
        }
    }
    seen
}
