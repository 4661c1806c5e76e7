//! Who asks, and may they: the auth store as the threads of a member share it.
//!
//! ```text
//! head of a call ──> Who ──caller()──> Caller ──> header of its entry ──> apply: authorize again, then do it
//!                           tokens       └──────> authorize at once: reads, watches, what concerns this member
//! Authenticate, UserAdd by root ──> Passwords (threads beside) ──> proposal without the password
//! ```
//! As in etcd, what changes keys is authorized in apply, in log order and with the revision that its caller was
//! authenticated at; everything else where it is served.
//!
//! Invariants: the two atomics mirror the store, which only apply changes; while authentication is off a request costs
//! one look at one of them. No password, hash or token gets into the log of the server or into that of raft in clear.

mod apply;
mod caller;
mod der;
mod jwt;
mod key;
mod passwords;
mod workers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use bytes::Bytes;
use etched_auth::{Asked, Caller, LeaseKeys, Password, SimpleTokens, Store};
use etched_storage::Table;
use parking_lot::{Mutex, RwLock};

use crate::StartError;
use crate::config::{AuthConfig, TokenKind};
use crate::error::Error;
use crate::shared::Shared;

pub(crate) use apply::{AuthAnswer, asked};
pub(crate) use caller::{Asking, Nobody, Who};
use jwt::Jwt;
pub(crate) use passwords::Passwords;
use workers::Workers;

/// Random bytes that make the letters of a token; nearly always enough for them.
const TOKEN_RANDOM_BYTES: usize = 64;

/// Authentication and authorization of one member.
pub(crate) struct Auth {
    enabled: AtomicBool,
    revision: AtomicU64,
    store: RwLock<Store>,
    tokens: Tokens,
    pub(crate) passwords: Passwords,
    /// Signs tokens.
    signing: Workers,
}

/// What tokens are.
pub(crate) enum Tokens {
    /// There are none.
    Off,
    /// Known by the members that saw the login.
    Simple(Mutex<SimpleTokens>),
    /// Signed.
    Jwt(Arc<Jwt>),
}

impl Tokens {
    /// As configured. To be made before a start changes anything on disk: keys may be wrong.
    ///
    /// # Errors
    /// [`StartError::AuthToken`]: tokens cannot be signed or checked as configured.
    pub(crate) fn new(config: &AuthConfig) -> Result<Self, StartError> {
        Ok(match &config.token {
            TokenKind::Off => Self::Off,
            TokenKind::Simple => {
                tracing::warn!("simple token is not cryptographically signed");
                Self::Simple(Mutex::new(SimpleTokens::new(config.token_ttl)))
            }
            TokenKind::Jwt(options) => {
                let jwt = Jwt::new(options.clone()).map_err(StartError::AuthToken)?;
                Self::Jwt(Arc::new(jwt))
            }
        })
    }
}

impl Auth {
    /// As `store` was found at the start.
    pub(crate) fn new(tokens: Tokens, config: &AuthConfig, store: Store) -> Self {
        Self {
            enabled: AtomicBool::new(store.is_enabled()),
            revision: AtomicU64::new(store.revision()),
            store: RwLock::new(store),
            tokens,
            passwords: Passwords::new(config.bcrypt_cost),
            signing: Workers::new("tokens", 1),
        }
    }

    /// The auth store of a file.
    ///
    /// # Errors
    /// [`StartError`]: a row does not read.
    pub(crate) fn restore_store(
        rows: impl Fn(Table) -> etched_storage::Result<Vec<(Bytes, Bytes)>>,
    ) -> Result<Store, StartError> {
        let (auth, users, roles) =
            (rows(Table::Auth)?, rows(Table::AuthUsers)?, rows(Table::AuthRoles)?);
        Ok(Store::restore(auth, users, roles)?)
    }

    /// Whether authentication is on.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Acquire)
    }

    /// Revision of the auth store.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Whether `caller` may do what is `asked`, as the store stands now.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn authorize(
        &self,
        caller: &Caller,
        asked: Asked<'_>,
        leases: &impl LeaseKeys,
    ) -> Result<(), Error> {
        Ok(self.store.read().authorize(caller, asked, leases)?)
    }

    /// What a user's password is checked against.
    ///
    /// # Errors
    /// [`Error::AuthNotEnabled`], [`Error::NoPasswordUser`].
    pub(crate) fn password(&self, username: &str) -> Result<Password, Error> {
        Ok(self.store.read().password(username)?)
    }

    /// Letters for a token that is about to be proposed; none unless tokens are simple.
    pub(crate) fn draw_letters(&self) -> String {
        if !matches!(self.tokens, Tokens::Simple(_)) {
            return String::new();
        }
        loop {
            let mut random = [0; TOKEN_RANDOM_BYTES];
            SystemRandom::new().fill(&mut random).expect("the system has random numbers");
            if let Some(letters) = etched_auth::letters(&random) {
                return letters;
            }
        }
    }

    /// The token of a user whose login is applied: the one `assigned` there if it is a simple one, else one that is
    /// signed now. Not on the threads for passwords, whose queue is long: a signature takes a hundredth of their time, so
    /// that one thread keeps up with what they let through. Nor on those of large reads, which wait for each other.
    ///
    /// # Errors
    /// [`Error::VerifyOnly`], [`Error::TooManyRequests`], [`Error::Stopped`]; [`Error::AuthFailed`] where there are no tokens.
    pub(crate) async fn token(
        &self,
        username: String,
        assigned: String,
        revision: u64,
    ) -> Result<String, Error> {
        match &self.tokens {
            Tokens::Off => Err(Error::AuthFailed),
            Tokens::Simple(_) => Ok(assigned),
            Tokens::Jwt(jwt) => {
                let jwt = Arc::clone(jwt);
                self.signing.run(move || jwt.sign(&username, revision)).await?
            }
        }
    }

    /// Forgets the tokens that a replay of the log has made known: when they were last used is not in it.
    pub(crate) fn forget_tokens(&self) {
        if let Tokens::Simple(tokens) = &self.tokens {
            tokens.lock().forget_all();
        }
    }

    fn simple_tokens(&self, change: impl FnOnce(&mut SimpleTokens)) {
        if let Tokens::Simple(tokens) = &self.tokens {
            change(&mut tokens.lock());
        }
    }

    /// Changes the store, in apply, and gives the rows for its tables.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store.write();
        let result = change(&mut store);
        self.revision.store(store.revision(), Ordering::Release);
        self.enabled.store(store.is_enabled(), Ordering::Release);
        result
    }
}

/// Keys of a lease that are looked at in one go: the raft thread may wait for that.
const KEYS_PART: usize = 1000;

/// The keys of leases, for authorization.
impl LeaseKeys for Shared {
    fn each_key(
        &self,
        lease: i64,
        check: &mut dyn FnMut(&[u8]) -> Result<(), etched_auth::Error>,
    ) -> Result<(), etched_auth::Error> {
        let mut last = each_of_part(self.lessor.lock().keys_of(lease), check)?;
        while let Some(key) = last {
            let lessor = self.lessor.lock();
            last = match lessor.keys_after(lease, &key) {
                Some(keys) => each_of_part(keys, check)?,
                // It was taken off meanwhile, which in apply nobody does: all of them once more, without a break.
                None => return lessor.keys_of(lease).try_for_each(|key| check(key)),
            };
        }
        Ok(())
    }
}

/// Looks at the first keys; the last of them when there may be more.
fn each_of_part<'k>(
    keys: impl Iterator<Item = &'k Bytes>,
    check: &mut dyn FnMut(&[u8]) -> Result<(), etched_auth::Error>,
) -> Result<Option<Bytes>, etched_auth::Error> {
    let (mut count, mut last) = (0, None);
    for key in keys.take(KEYS_PART) {
        check(key)?;
        (count, last) = (count + 1, Some(key));
    }
    Ok(last.filter(|_| count == KEYS_PART).cloned())
}

/// A row of the auth store as storage takes it.
pub(crate) fn storage_row(row: etched_auth::Row) -> crate::cluster::Row {
    let table = match row.table {
        etched_auth::Table::Auth => Table::Auth,
        etched_auth::Table::Users => Table::AuthUsers,
        etched_auth::Table::Roles => Table::AuthRoles,
    };
    (table, row.key, row.value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use etched_proto::etcdserverpb as pb;

    use super::*;
    use crate::config::JwtOptions;
    use crate::request::Field;
    use crate::work_tests::member::with_member;

    #[test]
    fn each_key_of_a_lease_is_looked_at_once_however_many_there_are() {
        let disk = etched_sim::SimDisk::new();
        let booted = crate::crash_tests::start_with_log(&disk, None).expect("a fresh member");
        let shared = booted.shared;
        for (lease, count) in [(1, 0), (2, KEYS_PART), (3, 2 * KEYS_PART + 1)] {
            let mut lessor = shared.lessor.lock();
            lessor.grant(lease, 60, Duration::ZERO).expect("a new lease");
            for nth in 0..count {
                lessor.attach(&format!("{lease}/{nth}").into(), lease).expect("a lease");
            }
            drop(lessor);
            let (mut seen, mut calls) = (std::collections::BTreeSet::new(), 0);
            let all = shared.each_key(lease, &mut |key| {
                calls += 1;
                seen.insert(key.to_vec());
                Ok(())
            });
            assert_eq!((all, seen.len(), calls), (Ok(()), count, count));
            let mut left = KEYS_PART + 1;
            let refused = shared.each_key(lease, &mut |_| {
                left -= 1;
                if left == 0 { Err(etched_auth::Error::PermissionDenied) } else { Ok(()) }
            });
            assert_eq!(refused.is_err(), count > KEYS_PART, "a later part is looked at too");
        }
    }

    #[test]
    fn no_password_is_hashed_for_those_who_may_not_change_users() {
        const INVALID_ARGUMENT: &str = "3";
        with_member(async |member, client| {
            member.add_root();
            member.load(Field::AuthEnable, [pb::AuthEnableRequest {}]);
            let (name, password) = ("root".to_owned(), "secret".to_owned());
            let add = pb::AuthUserAddRequest {
                name: name.clone(),
                password: password.clone(),
                ..Default::default()
            };
            let added = client.ask("/etcdserverpb.Auth/UserAdd", &add).await;
            assert_eq!(added.refusal().await, INVALID_ARGUMENT);
            let hashed_password = String::new();
            let change = pb::AuthUserChangePasswordRequest { name, password, hashed_password };
            let changed = client.ask("/etcdserverpb.Auth/UserChangePassword", &change).await;
            assert_eq!(changed.refusal().await, INVALID_ARGUMENT);
            assert!(member.shared.auth.passwords.are_unused());
        });
    }

    #[test]
    fn a_token_is_signed_while_all_threads_for_passwords_and_reads_are_busy() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
        runtime.expect("a runtime").block_on(signed_beside_others());
    }

    async fn signed_beside_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("key");
        std::fs::write(&key, "secret").expect("written");
        let options = JwtOptions {
            sign_method: "HS256".to_owned(),
            private_key: Some(key),
            public_key: None,
            ttl: Duration::from_secs(60),
        };
        let config = AuthConfig { token: TokenKind::Jwt(options), ..AuthConfig::default() };
        let auth = Auth::new(Tokens::new(&config).expect("a key"), &config, Store::default());
        let busy = auth.passwords.occupy().await;
        let (gate, opened) = std::sync::mpsc::channel::<()>();
        let reading = tokio::task::spawn_blocking(move || opened.recv());
        let token = auth.token("alice".to_owned(), String::new(), 7).await;
        assert!(token.is_ok_and(|token| token.split('.').count() == 3));
        drop((busy, gate));
        assert!(reading.await.is_ok());
    }
}
