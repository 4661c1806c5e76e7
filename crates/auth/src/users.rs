//! Users: added, deleted, given and taken roles.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use etched_proto::authpb;
use etched_proto::etcdserverpb as pb;

use crate::{Error, ROOT, Row, Store, Table};

impl Store {
    /// Adds a user without roles.
    ///
    /// # Errors
    /// [`Error::UserEmpty`], [`Error::UserAlreadyExists`]; [`Error::NoPasswordUser`] when the hashed password is no
    /// base64.
    pub fn add_user(&mut self, request: &pb::AuthUserAddRequest) -> Result<Vec<Row>, Error> {
        if request.name.is_empty() {
            return Err(Error::UserEmpty);
        }
        if self.user(&request.name).is_some() {
            return Err(Error::UserAlreadyExists);
        }
        let options = request.options.unwrap_or_default();
        let password = if options.no_password {
            Bytes::new()
        } else {
            hashed(&request.password, &request.hashed_password)?
        };
        let user = authpb::User {
            name: Bytes::copy_from_slice(request.name.as_bytes()),
            password,
            roles: Vec::new(),
            options: Some(options),
        };
        Ok(vec![self.put_user(user), self.next_revision()])
    }

    /// Deletes a user.
    ///
    /// # Errors
    /// [`Error::InvalidManagement`] for root while authentication is on, [`Error::UserNotFound`].
    pub fn delete_user(&mut self, name: &str) -> Result<Vec<Row>, Error> {
        if self.is_enabled() && name == ROOT {
            return Err(Error::InvalidManagement);
        }
        self.users.remove(name.as_bytes()).ok_or(Error::UserNotFound)?;
        Ok(vec![Row::deleted(Table::Users, name), self.next_revision()])
    }

    /// Changes a password; a user without one keeps none.
    ///
    /// # Errors
    /// [`Error::UserNotFound`]; [`Error::NoPasswordUser`] when the hashed password is no base64.
    pub fn change_password(
        &mut self,
        request: &pb::AuthUserChangePasswordRequest,
    ) -> Result<Vec<Row>, Error> {
        let user = self.user(&request.name).ok_or(Error::UserNotFound)?;
        let password = if user.has_password() {
            hashed(&request.password, &request.hashed_password)?
        } else {
            Bytes::new()
        };
        let user = authpb::User { password, ..user.stored.clone() };
        Ok(vec![self.put_user(user), self.next_revision()])
    }

    /// Gives a user a role; a role it has changes nothing. The role root need not exist.
    ///
    /// # Errors
    /// [`Error::UserNotFound`], [`Error::RoleNotFound`].
    pub fn grant_role(&mut self, name: &str, role: &str) -> Result<Vec<Row>, Error> {
        let user = self.user(name).ok_or(Error::UserNotFound)?;
        if role != ROOT && self.role(role).is_none() {
            return Err(Error::RoleNotFound);
        }
        let Err(place) = user.stored.roles.binary_search_by(|own| own.as_str().cmp(role)) else {
            return Ok(Vec::new());
        };
        let mut user = user.stored.clone();
        user.roles.insert(place, role.to_owned());
        Ok(vec![self.put_user(user), self.next_revision()])
    }

    /// Takes a role from a user.
    ///
    /// # Errors
    /// [`Error::InvalidManagement`] for root's role root while authentication is on, [`Error::UserNotFound`],
    /// [`Error::RoleNotGranted`].
    pub fn revoke_role(&mut self, name: &str, role: &str) -> Result<Vec<Row>, Error> {
        if self.is_enabled() && name == ROOT && role == ROOT {
            return Err(Error::InvalidManagement);
        }
        let user = self.user(name).ok_or(Error::UserNotFound)?;
        if !user.has_role(role) {
            return Err(Error::RoleNotGranted);
        }
        let mut user = user.stored.clone();
        user.roles.retain(|own| own != role);
        Ok(vec![self.put_user(user), self.next_revision()])
    }

    /// The roles of a user.
    ///
    /// # Errors
    /// [`Error::UserNotFound`].
    pub fn user_roles(&self, name: &str) -> Result<Vec<String>, Error> {
        Ok(self.user(name).ok_or(Error::UserNotFound)?.stored.roles.clone())
    }

    /// The names of all users, in byte order.
    pub fn user_names(&self) -> Vec<String> {
        self.users.keys().map(|name| text(name)).collect()
    }
}

/// The hash that is stored. A password in clear text stands only in entries that releases before 3.5 wrote; what
/// they made of it was different on each member, so it is refused.
fn hashed(password: &str, hashed: &str) -> Result<Bytes, Error> {
    if !password.is_empty() && hashed.is_empty() {
        return Err(Error::NoPasswordUser);
    }
    decoded(hashed).map(Bytes::from).ok_or(Error::NoPasswordUser)
}

/// Base64 as Go's standard decoder reads it: with padding, line ends anywhere, and without a look at the bits that the
/// last letter has too many.
fn decoded(text: &str) -> Option<Vec<u8>> {
    const GO: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let letters: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    GO.decode(letters).ok()
}

pub(crate) fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_that_go_decodes_is_decoded() {
        let decoded = |text| decoded(text).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(decoded(""), Some(String::new()));
        assert_eq!(decoded("Zg=="), Some("f".to_owned()));
        assert_eq!(decoded("Zm8="), Some("fo".to_owned()));
        assert_eq!(decoded("Zm9v"), Some("foo".to_owned()));
        assert_eq!(decoded("Zm\r\n9v\n"), Some("foo".to_owned()));
        assert_eq!(decoded("Zg=\n="), Some("f".to_owned()));
        assert_eq!(decoded("Zh=="), Some("f".to_owned()), "bits too many in the last letter");
        assert_eq!(super::decoded("+/+/"), Some(vec![0xfb, 0xff, 0xbf]));
    }

    #[test]
    fn a_hash_that_go_refuses_is_refused() {
        for text in ["Z", "Zg", "Zg=", "Zg==Zg==", "=", "====", "Z===", "Zm9v Zm9v", "Zm9-", "é==="]
        {
            assert_eq!(decoded(text), None, "{text:?}");
        }
    }

    /// "hash" in base64.
    const HASH: &str = "aGFzaA==";

    fn user(name: &str) -> pb::AuthUserAddRequest {
        pb::AuthUserAddRequest {
            name: name.to_owned(),
            hashed_password: HASH.to_owned(),
            ..Default::default()
        }
    }

    fn without_password(name: &str) -> pb::AuthUserAddRequest {
        let options = Some(authpb::UserAddOptions { no_password: true });
        pb::AuthUserAddRequest { options, ..user(name) }
    }

    fn change(name: &str, hashed: &str) -> pb::AuthUserChangePasswordRequest {
        pb::AuthUserChangePasswordRequest {
            name: name.to_owned(),
            password: String::new(),
            hashed_password: hashed.to_owned(),
        }
    }

    fn role(name: &str) -> pb::AuthRoleAddRequest {
        pb::AuthRoleAddRequest { name: name.to_owned() }
    }

    fn store() -> Store {
        let mut store = Store::default();
        store.begin();
        store
    }

    fn enabled() -> Store {
        let mut store = store();
        store.add_user(&user(ROOT)).unwrap();
        store.grant_role(ROOT, ROOT).unwrap();
        store.enable().unwrap();
        store
    }

    #[test]
    fn every_change_is_one_revision_and_what_changes_nothing_is_none() {
        let mut store = store();
        let mut revisions = vec![store.revision()];
        store.add_user(&user("a")).unwrap();
        revisions.push(store.revision());
        store.add_role(&role("r")).unwrap();
        store.grant_role("a", "r").unwrap();
        revisions.push(store.revision());
        assert_eq!(store.grant_role("a", "r"), Ok(Vec::new()));
        revisions.push(store.revision());
        store.change_password(&change("a", HASH)).unwrap();
        store.revoke_role("a", "r").unwrap();
        store.delete_user("a").unwrap();
        revisions.push(store.revision());
        assert_eq!(revisions, [1, 2, 4, 4, 7]);
        assert_eq!(store.begin(), Vec::new());
    }

    #[test]
    fn names_are_checked() {
        let mut store = store();
        assert_eq!(store.add_user(&user("")), Err(Error::UserEmpty));
        store.add_user(&user("a")).unwrap();
        assert_eq!(store.add_user(&user("a")), Err(Error::UserAlreadyExists));
        assert_eq!(store.delete_user("b"), Err(Error::UserNotFound));
        assert_eq!(store.grant_role("b", "r"), Err(Error::UserNotFound));
        assert_eq!(store.grant_role("a", "r"), Err(Error::RoleNotFound));
        assert_eq!(store.revoke_role("a", "r"), Err(Error::RoleNotGranted));
        assert_eq!(store.change_password(&change("b", HASH)), Err(Error::UserNotFound));
        assert_eq!(store.user_roles("b"), Err(Error::UserNotFound));
    }

    #[test]
    fn roles_of_a_user_are_in_order_and_root_need_not_exist() {
        let mut store = store();
        store.add_user(&user("a")).unwrap();
        for name in ["z", "b"] {
            store.add_role(&role(name)).unwrap();
        }
        for name in ["z", ROOT, "b"] {
            store.grant_role("a", name).unwrap();
        }
        assert_eq!(store.user_roles("a"), Ok(vec!["b".into(), "root".into(), "z".into()]));
        assert_eq!(store.role_permissions(ROOT), Err(Error::RoleNotFound));
    }

    #[test]
    fn authentication_needs_root_and_keeps_it() {
        let mut store = store();
        assert_eq!(store.enable(), Err(Error::RootUserNotExist));
        store.add_user(&user(ROOT)).unwrap();
        assert_eq!(store.enable(), Err(Error::RootRoleNotExist));
        store.grant_role(ROOT, ROOT).unwrap();
        let revision = store.revision();
        assert_eq!(store.enable(), Ok(vec![Row::enabled(true)]));
        assert_eq!(store.enable(), Ok(Vec::new()));
        assert_eq!(store.revision(), revision, "switching on is no change of users");
        assert_eq!(store.delete_user(ROOT), Err(Error::InvalidManagement));
        assert_eq!(store.revoke_role(ROOT, ROOT), Err(Error::InvalidManagement));
        assert_eq!(store.delete_role(ROOT), Err(Error::InvalidManagement));
        store.disable();
        assert_eq!(store.revision(), revision + 1);
        assert_eq!(store.disable(), Vec::new());
        store.revoke_role(ROOT, ROOT).unwrap();
        store.delete_user(ROOT).unwrap();
    }

    #[test]
    fn a_password_is_stored_as_its_hash_and_never_for_a_user_without() {
        let mut store = enabled();
        store.add_user(&user("a")).unwrap();
        store.add_user(&without_password("c")).unwrap();
        let hash = |store: &Store, name| store.password(name).map(|password| password.hash);
        assert_eq!(hash(&store, "a"), Ok(Some("hash".into())));
        assert_eq!(hash(&store, "nobody"), Ok(None));
        assert_eq!(hash(&store, "c"), Err(Error::NoPasswordUser));
        store.change_password(&change("a", "")).unwrap();
        assert_eq!(hash(&store, "a"), Ok(Some(Bytes::new())));
        store.change_password(&change("c", HASH)).unwrap();
        assert!(store.users[&b"c"[..]].stored.password.is_empty());
        assert_eq!(store.authenticate("c"), Err(Error::Failed));
        assert_eq!(store.authenticate("nobody"), Err(Error::Failed));
        assert_eq!(store.authenticate("a"), Ok(()));
        store.disable();
        assert_eq!(store.authenticate("a"), Err(Error::NotEnabled));
        assert_eq!(hash(&store, "a"), Err(Error::NotEnabled));
    }

    #[test]
    fn a_hash_that_is_no_base64_and_a_clear_password_change_nothing() {
        let mut store = store();
        let bad = pb::AuthUserAddRequest { hashed_password: "!".to_owned(), ..user("a") };
        assert_eq!(store.add_user(&bad), Err(Error::NoPasswordUser));
        let clear = pb::AuthUserAddRequest {
            password: "secret".to_owned(),
            hashed_password: String::new(),
            ..user("a")
        };
        assert_eq!(store.add_user(&clear), Err(Error::NoPasswordUser));
        assert_eq!((store.revision(), store.user_names()), (1, Vec::new()));
    }

    #[test]
    fn a_store_reads_back_from_its_rows() {
        let mut store = enabled();
        store.add_role(&role("r")).unwrap();
        store.add_user(&without_password("c")).unwrap();
        let permission = authpb::Permission { key: "k".into(), ..Default::default() };
        let grant =
            pb::AuthRoleGrantPermissionRequest { name: "r".to_owned(), perm: Some(permission) };
        store.grant_permission(&grant).unwrap();
        store.grant_role("c", "r").unwrap();
        let auth = [Row::enabled(true), Row::revision(store.revision())];
        let rows = |rows: Vec<Row>| rows.into_iter().map(|row| (row.key, row.value.unwrap()));
        let users = store.users.values().map(|user| Row::user(&user.stored)).collect();
        let roles = store.roles.values().map(Row::role).collect();
        let again = Store::restore(rows(auth.to_vec()), rows(users), rows(roles));
        assert_eq!(again, Ok(store));
    }
}
