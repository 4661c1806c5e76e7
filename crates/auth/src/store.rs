//! The replicated state, and what concerns it as a whole.

use std::collections::BTreeMap;

use bytes::Bytes;
use etched_proto::authpb;
use prost::Message;

use crate::permissions::Permissions;
use crate::row::{ENABLED, REVISION};
use crate::{Error, ROOT, RestoreError, Row};

/// Users, roles, and whether they count.
///
/// A method that changes something returns the rows that storage has to write; nothing has changed when it returns
/// an error or no rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Store {
    enabled: bool,
    /// At least 1 once [`Store::begin`] has run.
    revision: u64,
    pub(crate) users: BTreeMap<Bytes, User>,
    pub(crate) roles: BTreeMap<Bytes, authpb::Role>,
}

/// A user with what its roles allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) stored: authpb::User,
    pub(crate) permissions: Permissions,
}

impl User {
    pub(crate) fn has_role(&self, role: &str) -> bool {
        self.stored.roles.iter().any(|own| own == role)
    }

    pub(crate) fn is_root(&self) -> bool {
        self.has_role(ROOT)
    }

    pub(crate) fn has_password(&self) -> bool {
        !self.stored.options.is_some_and(|options| options.no_password)
    }
}

/// What a password is checked against.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    /// The bcrypt hash as text; none when there is no such user.
    pub hash: Option<Bytes>,
    /// Revision at which the hash is the user's.
    pub revision: u64,
}

impl Store {
    /// A store from its rows, by table.
    ///
    /// # Errors
    /// [`RestoreError`] of the first row that does not read.
    pub fn restore<K: AsRef<[u8]>>(
        auth: impl IntoIterator<Item = (K, Bytes)>,
        users: impl IntoIterator<Item = (K, Bytes)>,
        roles: impl IntoIterator<Item = (K, Bytes)>,
    ) -> Result<Self, RestoreError> {
        let mut store = Self::default();
        for (key, value) in auth {
            match key.as_ref() {
                ENABLED => store.enabled = value[..] == [1],
                REVISION => {
                    let bytes = <[u8; 8]>::try_from(&value[..])
                        .map_err(|_| RestoreError::Revision(value.len()))?;
                    store.revision = u64::from_be_bytes(bytes);
                }
                _ => {}
            }
        }
        for (key, value) in roles {
            let role = authpb::Role::decode(value).map_err(|error| RestoreError::Role {
                name: name_of(key.as_ref()),
                reason: error.to_string(),
            })?;
            store.roles.insert(Bytes::copy_from_slice(key.as_ref()), role);
        }
        for (key, value) in users {
            let stored = authpb::User::decode(value).map_err(|error| RestoreError::User {
                name: name_of(key.as_ref()),
                reason: error.to_string(),
            })?;
            let user = User { permissions: store.merged(&stored), stored };
            store.users.insert(Bytes::copy_from_slice(key.as_ref()), user);
        }
        Ok(store)
    }

    /// Gives a new store its first revision; one that has a revision is left as it is.
    pub fn begin(&mut self) -> Vec<Row> {
        if self.revision == 0 { vec![self.next_revision()] } else { Vec::new() }
    }

    /// Whether authentication is on.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The revision: 1 at first, one more with each change of users and roles.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Switches authentication on. The revision stays.
    ///
    /// # Errors
    /// [`Error::RootUserNotExist`], [`Error::RootRoleNotExist`].
    pub fn enable(&mut self) -> Result<Vec<Row>, Error> {
        if self.enabled {
            return Ok(Vec::new());
        }
        let root = self.user(ROOT).ok_or(Error::RootUserNotExist)?;
        if !root.is_root() {
            return Err(Error::RootRoleNotExist);
        }
        self.enabled = true;
        Ok(vec![Row::enabled(true)])
    }

    /// Switches authentication off.
    pub fn disable(&mut self) -> Vec<Row> {
        if !self.enabled {
            return Vec::new();
        }
        self.enabled = false;
        vec![Row::enabled(false), self.next_revision()]
    }

    /// What `username`'s password is checked against before a token is given.
    ///
    /// # Errors
    /// [`Error::NotEnabled`]; [`Error::NoPasswordUser`] for a user who signs in by certificate only.
    pub fn password(&self, username: &str) -> Result<Password, Error> {
        if !self.enabled {
            return Err(Error::NotEnabled);
        }
        let hash = match self.user(username) {
            Some(user) if !user.has_password() => return Err(Error::NoPasswordUser),
            Some(user) => Some(user.stored.password.clone()),
            None => None,
        };
        Ok(Password { hash, revision: self.revision })
    }

    /// Whether `username`, whose password was right when it was checked, may have a token now.
    ///
    /// # Errors
    /// [`Error::NotEnabled`]; [`Error::Failed`] for one who is gone or has no password any more.
    pub fn authenticate(&self, username: &str) -> Result<(), Error> {
        if !self.enabled {
            return Err(Error::NotEnabled);
        }
        let user = self.user(username).ok_or(Error::Failed)?;
        if user.has_password() { Ok(()) } else { Err(Error::Failed) }
    }

    pub(crate) fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name.as_bytes())
    }

    pub(crate) fn role(&self, name: &str) -> Option<&authpb::Role> {
        self.roles.get(name.as_bytes())
    }

    /// Moves the revision on; the row belongs to the change that does it.
    pub(crate) fn next_revision(&mut self) -> Row {
        self.revision += 1;
        Row::revision(self.revision)
    }

    /// Puts a user into the store, with what its roles allow.
    pub(crate) fn put_user(&mut self, stored: authpb::User) -> Row {
        let row = Row::user(&stored);
        let user = User { permissions: self.merged(&stored), stored };
        self.users.insert(row.key.clone(), user);
        row
    }

    /// What a user's roles allow; a role that does not exist allows nothing.
    pub(crate) fn merged(&self, user: &authpb::User) -> Permissions {
        let roles = user.roles.iter().filter_map(|role| self.role(role));
        Permissions::merge(roles.flat_map(|role| &role.key_permission))
    }
}

fn name_of(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
