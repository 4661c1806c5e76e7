//! Authentication and authorization: users, roles and permissions, which tokens are good, and whether a request
//! may be done.
//!
//! ```text
//! apply   -- enable, add_user, grant_permission, ... --> Store --> rows for storage
//! apply   -- authorize(caller of the entry, request) -->   |   --> Ok, or why not
//! readers -- authorize(caller of the call, request) --->   |
//! start   -- restore(rows)
//! network threads -- assign, user_of(token, now) --> SimpleTokens
//! ```
//!
//! [`Store`] is replicated: every member computes the same from the same log, and an answer of [`Store::authorize`]
//! in apply is part of that. [`SimpleTokens`] is local to a member and nothing of it is stored.
//!
//! Invariants:
//! - a request is authorized as a whole, by one function: nested transactions, both branches of each, compares,
//!   previous values and the keys of leases that it names;
//! - the roles of a user are in byte order; the merged permissions of each user are those of its roles;
//! - while authentication is on, the user root exists and has the role root;
//! - the revision grows by one with every change that is stored, except when authentication is switched on.
//!
//! It hashes no passwords, signs nothing, reads no clock (`now` is an argument) and draws no random numbers: who
//! proposes a change does that before.

mod authorize;
mod error;
mod permissions;
mod roles;
mod row;
mod store;
mod token;
mod users;

pub use authorize::{Asked, LeaseKeys};
pub use error::Error;
pub use row::{RestoreError, Row, Table};
pub use store::{Password, Store};
pub use token::{SIMPLE_TOKEN_TTL, SimpleTokens, TOKEN_LETTERS, TOKENS_MAX, letters, token_index};

/// The user and the role that may do everything.
pub const ROOT: &str = "root";

/// Who asks for something, as an entry's header says it. The default is nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// Name of the user.
    pub username: String,
    /// Revision of the auth store when the user was authenticated; 0 stands for nobody.
    pub revision: u64,
}

impl Caller {
    /// Whether nobody is named.
    pub fn is_nobody(&self) -> bool {
        self.username.is_empty() && self.revision == 0
    }

    /// The user of a client certificate whose subject has `common_name`, at the store's `revision`.
    ///
    /// None when the request came through the JSON gateway: the certificate is then the gateway's own, whoever
    /// asked it. An empty name is a user that nobody can be, not nobody.
    pub fn of_certificate(common_name: &str, through_gateway: bool, revision: u64) -> Option<Self> {
        (!through_gateway).then(|| Self { username: common_name.to_owned(), revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_its_user_but_not_that_of_the_gateway() {
        let alice = Caller { username: "alice".to_owned(), revision: 7 };
        assert_eq!(Caller::of_certificate("alice", false, 7), Some(alice));
        assert_eq!(Caller::of_certificate("alice", true, 7), None);
        let nameless = Caller::of_certificate("", false, 7).unwrap();
        assert!(!nameless.is_nobody());
        assert!(Caller::default().is_nobody());
    }
}
