//! From what a call says of its caller to who that is.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use etched_auth::{Asked, Caller, token_index};
use http::header::HeaderValue;

use super::Tokens;
use crate::error::Error;
use crate::shared::Shared;

/// Bytes of a token's hash that the log shows.
const FINGERPRINT_BYTES: usize = 6;

/// Pause before it is looked again whether a token's index is applied: followers are some milliseconds behind.
const AHEAD_PAUSE: Duration = Duration::from_millis(5);

/// What a call says of its caller. It is looked at when it is needed, and again for each message of a stream: a token
/// that was good may have ended.
#[derive(Default)]
pub(crate) struct Who(Option<Box<Said>>);

struct Said {
    token: Option<HeaderValue>,
    common_name: Option<String>,
    through_gateway: bool,
}

static NOBODY: Who = Who(None);

/// Somebody who asks. Most calls while authentication is off have nothing to say of it: their futures then have no
/// room for it either.
pub(crate) trait Asking {
    /// What is said of the caller.
    fn who(&self) -> &Who;
}

/// This member itself, and callers that say nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nobody;

impl Asking for Nobody {
    fn who(&self) -> &Who {
        &NOBODY
    }
}

impl Asking for Who {
    fn who(&self) -> &Who {
        self
    }
}

impl Asking for &Who {
    fn who(&self) -> &Who {
        self
    }
}

impl From<Nobody> for Who {
    fn from(_: Nobody) -> Self {
        Self(None)
    }
}

impl Who {
    /// Whether nothing is said.
    pub(crate) fn is_silent(&self) -> bool {
        self.0.is_none()
    }

    /// The token, to be passed on to another member.
    pub(crate) fn into_token(self) -> Option<HeaderValue> {
        self.0.and_then(|said| said.token)
    }

    /// A caller with the token that stands in the call's metadata, which counts before the common name of its
    /// certificate. `common_name` is one of a connection whose clients have to show a certificate.
    pub(crate) fn new(
        token: Option<&HeaderValue>,
        common_name: Option<&str>,
        through_gateway: bool,
    ) -> Self {
        if token.is_none() && common_name.is_none() {
            return Self(None);
        }
        let common_name = common_name.map(str::to_owned);
        Self(Some(Box::new(Said { token: token.cloned(), common_name, through_gateway })))
    }
}

impl Shared {
    /// Who asks; nobody while authentication is off.
    ///
    /// # Errors
    /// [`Error::InvalidAuthToken`]: a bad token is not forgiven, even beside a good certificate.
    pub(crate) fn caller(&self, who: &Who) -> Result<Caller, Error> {
        let Some(said) = who.0.as_ref().filter(|_| self.auth.is_enabled()) else {
            return Ok(Caller::default());
        };
        let revision = self.auth.revision();
        let Some(token) = &said.token else {
            let name = said.common_name.as_deref();
            let caller =
                name.and_then(|name| Caller::of_certificate(name, said.through_gateway, revision));
            return Ok(caller.unwrap_or_default());
        };
        let found = match std::str::from_utf8(token.as_bytes()) {
            Ok(text) => {
                self.caller_of_token(text.strip_prefix("Bearer ").unwrap_or(text), revision)
            }
            Err(_) => None,
        };
        found.ok_or_else(|| {
            let fingerprint = fingerprint(token.as_bytes());
            tracing::warn!("token-fingerprint" = fingerprint, "invalid auth token");
            Error::InvalidAuthToken
        })
    }

    /// Whether a caller's token was given by another member at an index that is not applied here yet: then it is not
    /// known to be good or bad. Alone, nobody else can have given it.
    pub(crate) fn is_ahead(&self, who: &Who) -> bool {
        let progress = &self.progress;
        if !self.auth.is_enabled() || progress.sole_leader.load(Ordering::Acquire) {
            return false;
        }
        let token = who.0.as_ref().and_then(|said| said.token.as_ref());
        let text = token.and_then(|token| token.to_str().ok()).unwrap_or_default();
        let index = token_index(text.strip_prefix("Bearer ").unwrap_or(text));
        let applied = progress.applied.load(Ordering::Acquire);
        matches!(self.auth.tokens, Tokens::Simple(_)) && index.is_some_and(|index| index > applied)
    }

    /// Waits until that is over, but no longer than a request may take.
    pub(crate) async fn catch_up_with(&self, who: &Who) {
        let deadline = Instant::now() + self.config.request_timeout();
        while self.is_ahead(who) && Instant::now() < deadline {
            tokio::time::sleep(AHEAD_PAUSE).await;
        }
    }

    fn caller_of_token(&self, token: &str, revision: u64) -> Option<Caller> {
        match &self.auth.tokens {
            Tokens::Off => None,
            Tokens::Simple(tokens) => {
                // A token is handed out when its entry is applied: none of this member's is ahead of it.
                if token_index(token)? > self.progress.applied.load(Ordering::Acquire) {
                    return None;
                }
                let username = tokens.lock().user_of(token, self.now())?;
                Some(Caller { username, revision })
            }
            Tokens::Jwt(jwt) => jwt.caller(token),
        }
    }

    /// Whether who asks may do what is `asked` of this member. Gives the revision of the auth store that this is
    /// true at; 0 while authentication is off.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn require(&self, who: &Who, asked: Asked<'_>) -> Result<u64, Error> {
        let caller = self.caller(who)?;
        self.auth.authorize(&caller, asked, self)?;
        Ok(caller.revision)
    }

    /// The same for what etcd serves also to a token of an earlier revision, as long as it is not refused for it: the
    /// revision is then that of the store before it was asked, not that of the token.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn require_of_store(&self, who: &Who, asked: Asked<'_>) -> Result<u64, Error> {
        let revision = if self.auth.is_enabled() { self.auth.revision() } else { 0 };
        self.require(who, asked)?;
        Ok(revision)
    }

    /// Whether an answer may go out that was read after [`Self::require`] gave `revision`: not when users or roles
    /// have changed meanwhile.
    ///
    /// # Errors
    /// [`Error::AuthOldRevision`].
    pub(crate) fn still_allowed(&self, revision: u64) -> Result<(), Error> {
        if revision != 0 && revision != self.auth.revision() {
            return Err(Error::AuthOldRevision);
        }
        Ok(())
    }
}

/// What the log may show of a token: enough to tell two apart, nothing to use.
pub(super) fn fingerprint(token: &[u8]) -> String {
    let hash = digest(&SHA256, token);
    hash.as_ref()[..FINGERPRINT_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}
