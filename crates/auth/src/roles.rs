//! Roles: added, deleted, given and taken permissions.

use bytes::Bytes;
use etched_proto::authpb;
use etched_proto::authpb::permission::Type;
use etched_proto::etcdserverpb as pb;

use crate::users::text;
use crate::{Error, ROOT, Row, Store, Table};

impl Store {
    /// Adds a role without permissions.
    ///
    /// # Errors
    /// [`Error::RoleEmpty`], [`Error::RoleAlreadyExists`].
    pub fn add_role(&mut self, request: &pb::AuthRoleAddRequest) -> Result<Vec<Row>, Error> {
        if request.name.is_empty() {
            return Err(Error::RoleEmpty);
        }
        if self.role(&request.name).is_some() {
            return Err(Error::RoleAlreadyExists);
        }
        let name = Bytes::copy_from_slice(request.name.as_bytes());
        Ok(self.put_role(authpb::Role { name, key_permission: Vec::new() }))
    }

    /// Deletes a role, and takes it from all users.
    ///
    /// # Errors
    /// [`Error::InvalidManagement`] for root while authentication is on, [`Error::RoleNotFound`].
    pub fn delete_role(&mut self, name: &str) -> Result<Vec<Row>, Error> {
        if self.is_enabled() && name == ROOT {
            return Err(Error::InvalidManagement);
        }
        self.roles.remove(name.as_bytes()).ok_or(Error::RoleNotFound)?;
        let mut rows = vec![Row::deleted(Table::Roles, name)];
        for mut user in self.holders(name) {
            user.roles.retain(|own| own != name);
            rows.push(self.put_user(user));
        }
        rows.push(self.next_revision());
        Ok(rows)
    }

    /// Gives a role a permission, or changes what one on the same range allows.
    ///
    /// Which of several permissions on one first key is looked at is etcd's choice: the first one. So a permission
    /// that is not that one is added again.
    ///
    /// # Errors
    /// [`Error::PermissionNotGiven`], [`Error::InvalidManagement`] for a range without keys,
    /// [`Error::RoleNotFound`].
    pub fn grant_permission(
        &mut self,
        request: &pb::AuthRoleGrantPermissionRequest,
    ) -> Result<Vec<Row>, Error> {
        let permission = request.perm.as_ref().ok_or(Error::PermissionNotGiven)?;
        if !has_keys(permission) {
            return Err(Error::InvalidManagement);
        }
        let mut role = self.role(&request.name).ok_or(Error::RoleNotFound)?.clone();
        let own = &mut role.key_permission;
        let first = own.partition_point(|own| own.key < permission.key);
        match own.get_mut(first) {
            Some(found)
                if found.key == permission.key && found.range_end == permission.range_end =>
            {
                found.perm_type = permission.perm_type;
            }
            _ => {
                let behind = own.partition_point(|own| own.key <= permission.key);
                own.insert(behind, permission.clone());
            }
        }
        Ok(self.put_role(role))
    }

    /// Takes a permission from a role.
    ///
    /// # Errors
    /// [`Error::RoleNotFound`], [`Error::PermissionNotGranted`].
    pub fn revoke_permission(
        &mut self,
        request: &pb::AuthRoleRevokePermissionRequest,
    ) -> Result<Vec<Row>, Error> {
        let mut role = self.role(&request.role).ok_or(Error::RoleNotFound)?.clone();
        let before = role.key_permission.len();
        role.key_permission
            .retain(|own| own.key != request.key || own.range_end != request.range_end);
        if role.key_permission.len() == before {
            return Err(Error::PermissionNotGranted);
        }
        Ok(self.put_role(role))
    }

    /// The permissions of a role, in the order of their keys; the role root has one on everything.
    ///
    /// # Errors
    /// [`Error::RoleNotFound`].
    pub fn role_permissions(&self, name: &str) -> Result<Vec<authpb::Permission>, Error> {
        let role = self.role(name).ok_or(Error::RoleNotFound)?;
        if name == ROOT {
            return Ok(vec![authpb::Permission {
                perm_type: Type::Readwrite as i32,
                key: Bytes::new(),
                range_end: Bytes::from_static(b"\0"),
            }]);
        }
        Ok(role.key_permission.clone())
    }

    /// The names of all roles, in byte order.
    pub fn role_names(&self) -> Vec<String> {
        self.roles.keys().map(|name| text(name)).collect()
    }

    /// Stores a role; who has it may now do what it allows.
    fn put_role(&mut self, role: authpb::Role) -> Vec<Row> {
        let row = Row::role(&role);
        let name = text(&role.name);
        self.roles.insert(role.name.clone(), role);
        for user in self.holders(&name) {
            self.put_user(user);
        }
        vec![row, self.next_revision()]
    }

    fn holders(&self, role: &str) -> Vec<authpb::User> {
        let holders = self.users.values().filter(|user| user.has_role(role));
        holders.map(|user| user.stored.clone()).collect()
    }
}

/// Whether a permission's range may hold keys: a single key, an open end, or an end behind its beginning.
fn has_keys(permission: &authpb::Permission) -> bool {
    let (key, end) = (&permission.key[..], &permission.range_end[..]);
    !key.is_empty() && (end.is_empty() || end == b"\0" || key < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        let mut store = Store::default();
        store.begin();
        store.add_role(&pb::AuthRoleAddRequest { name: "r".to_owned() }).unwrap();
        store
    }

    fn grant(
        kind: i32,
        key: &'static str,
        end: &'static str,
    ) -> pb::AuthRoleGrantPermissionRequest {
        let permission =
            authpb::Permission { perm_type: kind, key: key.into(), range_end: end.into() };
        pb::AuthRoleGrantPermissionRequest { name: "r".to_owned(), perm: Some(permission) }
    }

    fn permissions(store: &Store) -> Vec<(i32, String, String)> {
        let own = store.role_permissions("r").unwrap().into_iter();
        own.map(|own| (own.perm_type, text(&own.key), text(&own.range_end))).collect()
    }

    fn permission(kind: i32, key: &str, end: &str) -> (i32, String, String) {
        (kind, key.to_owned(), end.to_owned())
    }

    #[test]
    fn a_permission_on_the_same_range_is_replaced_and_counts_as_a_change() {
        let mut store = store();
        store.grant_permission(&grant(0, "b", "c")).unwrap();
        store.grant_permission(&grant(2, "a", "")).unwrap();
        store.grant_permission(&grant(1, "b", "c")).unwrap();
        assert_eq!(permissions(&store), [permission(2, "a", ""), permission(1, "b", "c")]);
        let revision = store.revision();
        store.grant_permission(&grant(1, "b", "c")).unwrap();
        assert_eq!(store.revision(), revision + 1);
        store.grant_permission(&grant(77, "b", "c")).unwrap();
        assert_eq!(permissions(&store)[1].0, 77, "an unknown type is kept");
    }

    #[test]
    fn of_permissions_on_one_first_key_only_the_first_is_replaced() {
        let mut store = store();
        for end in ["c", "d", "d"] {
            store.grant_permission(&grant(0, "b", end)).unwrap();
        }
        let ends: Vec<String> = permissions(&store).into_iter().map(|own| own.2).collect();
        assert_eq!(ends, ["c", "d", "d"]);
        let revoke = pb::AuthRoleRevokePermissionRequest {
            role: "r".to_owned(),
            key: "b".into(),
            range_end: "d".into(),
        };
        store.revoke_permission(&revoke).unwrap();
        assert_eq!(permissions(&store), [permission(0, "b", "c")]);
        assert_eq!(store.revoke_permission(&revoke), Err(Error::PermissionNotGranted));
    }

    #[test]
    fn a_range_without_keys_and_no_permission_at_all_are_refused() {
        let mut store = store();
        for (key, end) in [("", ""), ("", "b"), ("b", "a"), ("b", "b")] {
            let refused = store.grant_permission(&grant(0, key, end));
            assert_eq!(refused, Err(Error::InvalidManagement), "{key:?} {end:?}");
        }
        store.grant_permission(&grant(0, "b", "\0")).unwrap();
        let none = pb::AuthRoleGrantPermissionRequest { perm: None, ..grant(0, "b", "") };
        assert_eq!(store.grant_permission(&none), Err(Error::PermissionNotGiven));
        let missing = pb::AuthRoleGrantPermissionRequest { name: "x".into(), ..grant(0, "b", "") };
        assert_eq!(store.grant_permission(&missing), Err(Error::RoleNotFound));
    }

    #[test]
    fn a_deleted_role_is_taken_from_its_users() {
        let mut store = store();
        let user = pb::AuthUserAddRequest { name: "u".to_owned(), ..Default::default() };
        store.add_user(&user).unwrap();
        store.grant_role("u", "r").unwrap();
        let rows = store.delete_role("r").unwrap();
        assert_eq!(rows.len(), 3, "{rows:?}");
        assert_eq!(store.user_roles("u"), Ok(Vec::new()));
        assert_eq!(store.delete_role("r"), Err(Error::RoleNotFound));
        assert_eq!(store.role_names(), Vec::<String>::new());
    }

    #[test]
    fn names_of_roles_are_checked_and_root_shows_everything() {
        let mut store = store();
        let add = |name: &str| pb::AuthRoleAddRequest { name: name.to_owned() };
        assert_eq!(store.add_role(&add("")), Err(Error::RoleEmpty));
        assert_eq!(store.add_role(&add("r")), Err(Error::RoleAlreadyExists));
        store.add_role(&add(ROOT)).unwrap();
        let everything = store.role_permissions(ROOT).unwrap();
        assert_eq!((&everything[0].key[..], &everything[0].range_end[..]), (&b""[..], &b"\0"[..]));
    }
}
