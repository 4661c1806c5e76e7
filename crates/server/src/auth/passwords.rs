//! Hashing and checking passwords, which takes a core for a twentieth of a second each by intention: on threads of
//! their own, so that no request waits for a login but other logins.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use bcrypt::Version;
use bytes::Bytes;

use super::workers::Workers;
use crate::error::Error;

/// Bytes of a password that bcrypt looks at.
const PASSWORD_BYTES_MAX: usize = 72;
/// Costs that bcrypt has.
const COSTS: std::ops::RangeInclusive<u64> = 4..=31;
const COST_DEFAULT: u32 = 10;
/// A hash that belongs to no password, with the cost that is filled in: what is checked for a user who does not exist,
/// so that it takes as long as for one who does.
const NOBODYS_HASH: &str = "abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01232";

/// Hashes and checks.
pub(crate) struct Passwords {
    cost: u32,
    workers: Workers,
}

impl Passwords {
    /// Passwords will be hashed at `cost`; one that bcrypt does not have is replaced by the default.
    pub(super) fn new(cost: u64) -> Self {
        let cost = match u32::try_from(cost) {
            Ok(fits) if COSTS.contains(&cost) => fits,
            _ => {
                tracing::warn!(
                    "min-cost" = COSTS.start(),
                    "max-cost" = COSTS.end(),
                    "default-cost" = COST_DEFAULT,
                    "given-cost" = cost,
                    "use default bcrypt cost instead of the invalid given cost"
                );
                COST_DEFAULT
            }
        };
        Self { cost, workers: Workers::new("passwords", threads()) }
    }

    /// Whether a password can be hashed; costs nothing.
    ///
    /// # Errors
    /// [`Error::PasswordTooLong`].
    pub(crate) fn check_length(password: &str) -> Result<(), Error> {
        if password.len() > PASSWORD_BYTES_MAX { Err(Error::PasswordTooLong) } else { Ok(()) }
    }

    /// The hash of a password, as text.
    ///
    /// # Errors
    /// [`Error::PasswordTooLong`], [`Error::TooManyRequests`].
    pub(crate) async fn hash(&self, password: String) -> Result<String, Error> {
        Self::check_length(&password)?;
        let cost = self.cost;
        self.workers
            .run(move || {
                let mut salt = [0; 16];
                SystemRandom::new().fill(&mut salt).expect("the system has random numbers");
                let hash =
                    bcrypt::hash_with_salt(password, cost, salt).expect("a cost that bcrypt has");
                hash.format_for_version(Version::TwoA)
            })
            .await
    }

    /// Whether `password` is the one of `hash`; without a hash it never is.
    ///
    /// # Errors
    /// [`Error::TooManyRequests`].
    pub(crate) async fn check(&self, password: String, hash: Option<Bytes>) -> Result<bool, Error> {
        let exists = hash.is_some();
        let hash = hash.unwrap_or_else(|| format!("$2a${:02}${NOBODYS_HASH}", self.cost).into());
        self.workers
            .run(move || {
                // A hash that is none, such as an empty one, is nobody's.
                let hash = std::str::from_utf8(&hash).unwrap_or_default();
                bcrypt::verify(password, hash).unwrap_or(false) && exists
            })
            .await
    }
}

/// Half of the cores: the others go on serving requests.
fn threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 2).max(1)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use super::*;
    use crate::auth::workers::WAITING_MAX;

    fn passwords() -> Passwords {
        Passwords::new(4)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_hash_is_as_etcd_writes_it_and_fits_its_password_only() {
        let passwords = passwords();
        let hash = passwords.hash("secret".to_owned()).await.expect("a hash");
        assert!(hash.starts_with("$2a$04$") && hash.len() == 60, "{hash}");
        let check =
            |password: &str| passwords.check(password.to_owned(), Some(hash.clone().into()));
        assert_eq!(check("secret").await, Ok(true));
        assert_eq!(check("Secret").await, Ok(false));
        assert_ne!(passwords.hash("secret".to_owned()).await.as_deref(), Ok(&hash[..]));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_hash_of_another_program_is_understood() {
        let hash = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
        let checked = passwords().check("U*U".to_owned(), Some(hash.into())).await;
        assert_eq!(checked, Ok(true));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nobody_an_empty_hash_and_a_broken_one_have_no_password() {
        let passwords = passwords();
        for hash in [None, Some(""), Some("$2a$04$x"), Some("plain")] {
            let hash = hash.map(Bytes::from);
            assert_eq!(passwords.check(String::new(), hash.clone()).await, Ok(false), "{hash:?}");
        }
        let nobody = format!("$2a$04${NOBODYS_HASH}");
        assert!(bcrypt::verify("x", &nobody).is_ok(), "it is looked at like any other");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_empty_password_is_one_and_a_long_one_is_refused() {
        let passwords = passwords();
        let hash = passwords.hash(String::new()).await.expect("a hash");
        assert_eq!(passwords.check(String::new(), Some(hash.into())).await, Ok(true));
        assert!(passwords.hash("x".repeat(72)).await.is_ok());
        assert_eq!(passwords.hash("x".repeat(73)).await, Err(Error::PasswordTooLong));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_does_not_fit_into_the_queue_is_refused_and_what_is_given_up_is_not_done() {
        let passwords = passwords();
        let threads = threads();
        // So many are under way, and with the full queue behind them one more is refused.
        let busy = passwords.occupy().await;
        assert!((WAITING_MAX..=WAITING_MAX + threads).contains(&busy.waiting.len()));
        assert_eq!(passwords.hash("one more".to_owned()).await, Err(Error::TooManyRequests));
        drop(busy.gates);
        for job in busy.waiting {
            assert_eq!(job.await, Ok(()));
        }
    }

    async fn futures_poll<T>(future: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Option<T> {
        let mut future = Some(future);
        std::future::poll_fn(move |cx| {
            let polled = future.take().expect("polled once").poll(cx);
            std::task::Poll::Ready(match polled {
                std::task::Poll::Ready(value) => Some(value),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    type Running<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + 'a>>;

    /// Jobs that end when their gates are dropped.
    pub(in crate::auth) struct Busy<'a> {
        gates: Vec<std::sync::mpsc::Sender<()>>,
        waiting: Vec<Running<'a>>,
    }

    impl Passwords {
        /// Whether nobody has asked for anything yet.
        pub(in crate::auth) fn are_unused(&self) -> bool {
            self.workers.are_unused()
        }

        /// Keeps all threads busy, and as many jobs waiting as may.
        pub(in crate::auth) async fn occupy(&self) -> Busy<'_> {
            let mut busy = Busy { gates: Vec::new(), waiting: Vec::new() };
            loop {
                let (gate, opened) = std::sync::mpsc::channel::<()>();
                busy.gates.push(gate);
                let mut job: Running<'_> = Box::pin(self.workers.run(move || {
                    let _ = opened.recv();
                }));
                match futures_poll(job.as_mut()).await {
                    None => busy.waiting.push(job),
                    Some(refused) => {
                        assert_eq!(refused, Err(Error::TooManyRequests));
                        return busy;
                    }
                }
            }
        }
    }

    #[test]
    fn a_cost_that_bcrypt_does_not_have_becomes_the_default() {
        assert_eq!(Passwords::new(3).cost, 10);
        assert_eq!(Passwords::new(4).cost, 4);
        assert_eq!(Passwords::new(31).cost, 31);
        assert_eq!(Passwords::new(32).cost, 10);
        assert_eq!(Passwords::new(u64::MAX).cost, 10);
    }
}
