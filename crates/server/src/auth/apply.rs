//! What an entry about users and roles does, and what of any entry is authorized in apply.

use std::time::Duration;

use etched_auth::{Asked, ROOT, Row, Store};
use etched_proto::authpb::Permission;

use super::{Auth, Tokens};
use crate::error::Error;
use crate::request::{AuthRequest, Request};

/// What an entry about users and roles gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AuthAnswer {
    /// Whether authentication is on, and the revision.
    Status { enabled: bool, revision: u64 },
    /// A simple token, or what a signed one has to say: the revision.
    Token { assigned: String, revision: u64 },
    /// Names of users or roles.
    Names(Vec<String>),
    /// Permissions of a role.
    Permissions(Vec<Permission>),
    /// Done, and there is no more to say.
    Done,
}

/// What apply asks the auth store before it does `request`; none for what anybody's entry may do.
pub(crate) fn asked(request: &Request) -> Option<Asked<'_>> {
    Some(match request {
        Request::Put(request) => Asked::Put(request),
        Request::DeleteRange(request) => Asked::DeleteRange(request),
        Request::Txn(request) => Asked::Txn(request),
        Request::LeaseRevoke(request) => Asked::WriteLease(request.id),
        Request::Auth(request) => match &**request {
            AuthRequest::Authenticate(_) | AuthRequest::AuthStatus(_) => return None,
            AuthRequest::AuthUserGet(request) => Asked::UserGet(&request.name),
            AuthRequest::AuthRoleGet(request) => Asked::RoleGet(&request.role),
            _ => Asked::Admin,
        },
        // Whoever proposed these was asked before.
        Request::Compaction(_)
        | Request::LeaseGrant(_)
        | Request::Alarm(_)
        | Request::LeaseCheckpoint(_)
        | Request::ClusterVersionSet(_)
        | Request::ClusterMemberAttrSet(_)
        | Request::DowngradeInfoSet(_) => return None,
    })
}

impl Auth {
    /// Does what the entry at `index` asks for; its rows are added to `rows`. `now` is this member's time, for
    /// tokens, which are not replicated.
    ///
    /// # Errors
    /// Why nothing was done.
    pub(crate) fn apply(
        &self,
        request: AuthRequest,
        index: u64,
        now: Duration,
        rows: &mut Vec<Row>,
    ) -> Result<AuthAnswer, Error> {
        let changed = match &request {
            AuthRequest::AuthStatus(_)
            | AuthRequest::AuthUserGet(_)
            | AuthRequest::AuthUserList(_)
            | AuthRequest::AuthRoleList(_)
            | AuthRequest::AuthRoleGet(_) => return self.look(&request),
            AuthRequest::Authenticate(request) => {
                return self.log_in(&request.name, &request.simple_token, index, now);
            }
            _ => self.change(|store| make(store, &request))?,
        };
        self.end_tokens(&request, !changed.is_empty());
        log(&request, changed.is_empty());
        rows.extend(changed);
        Ok(AuthAnswer::Done)
    }

    /// Entries that change nothing.
    fn look(&self, request: &AuthRequest) -> Result<AuthAnswer, Error> {
        let store = self.store.read();
        Ok(match request {
            AuthRequest::AuthUserGet(request) => {
                AuthAnswer::Names(store.user_roles(&request.name)?)
            }
            AuthRequest::AuthUserList(_) => AuthAnswer::Names(store.user_names()),
            AuthRequest::AuthRoleList(_) => AuthAnswer::Names(store.role_names()),
            AuthRequest::AuthRoleGet(request) => {
                AuthAnswer::Permissions(store.role_permissions(&request.role)?)
            }
            _ => AuthAnswer::Status { enabled: store.is_enabled(), revision: store.revision() },
        })
    }

    fn log_in(
        &self,
        username: &str,
        letters: &str,
        index: u64,
        now: Duration,
    ) -> Result<AuthAnswer, Error> {
        let store = self.store.read();
        store.authenticate(username)?;
        let mut assigned = String::new();
        if let Tokens::Simple(tokens) = &self.tokens {
            assigned = format!("{letters}.{index}");
            tokens.lock().assign(assigned.clone(), username, now);
        }
        Ok(AuthAnswer::Token { assigned, revision: store.revision() })
    }

    fn end_tokens(&self, request: &AuthRequest, changed: bool) {
        match request {
            AuthRequest::AuthUserDelete(request) => {
                self.simple_tokens(|tokens| tokens.forget_user(&request.name));
            }
            AuthRequest::AuthUserChangePassword(request) => {
                self.simple_tokens(|tokens| tokens.forget_user(&request.name));
            }
            AuthRequest::AuthDisable(_) if changed => {
                self.simple_tokens(etched_auth::SimpleTokens::forget_all);
            }
            _ => {}
        }
    }
}

/// The change that a request is.
fn make(store: &mut Store, request: &AuthRequest) -> Result<Vec<Row>, Error> {
    Ok(match request {
        AuthRequest::AuthEnable(_) => store.enable()?,
        AuthRequest::AuthDisable(_) => store.disable(),
        AuthRequest::AuthUserAdd(request) => store.add_user(request)?,
        AuthRequest::AuthUserDelete(request) => store.delete_user(&request.name)?,
        AuthRequest::AuthUserChangePassword(request) => store.change_password(request)?,
        AuthRequest::AuthUserGrantRole(request) => {
            store.grant_role(&request.user, &request.role)?
        }
        AuthRequest::AuthUserRevokeRole(request) => {
            store.revoke_role(&request.name, &request.role)?
        }
        AuthRequest::AuthRoleAdd(request) => store.add_role(request)?,
        AuthRequest::AuthRoleDelete(request) => store.delete_role(&request.role)?,
        AuthRequest::AuthRoleGrantPermission(request) => store.grant_permission(request)?,
        AuthRequest::AuthRoleRevokePermission(request) => store.revoke_permission(request)?,
        AuthRequest::Authenticate(_)
        | AuthRequest::AuthStatus(_)
        | AuthRequest::AuthUserGet(_)
        | AuthRequest::AuthUserList(_)
        | AuthRequest::AuthRoleList(_)
        | AuthRequest::AuthRoleGet(_) => Vec::new(),
    })
}

/// Says what was changed, in etcd's words; names only, never a password or its hash.
fn log(request: &AuthRequest, unchanged: bool) {
    match request {
        AuthRequest::AuthEnable(_) if unchanged => {
            tracing::info!("authentication is already enabled; ignored auth enable request");
        }
        AuthRequest::AuthEnable(_) => tracing::info!("enabled authentication"),
        AuthRequest::AuthDisable(_) if unchanged => {}
        AuthRequest::AuthDisable(_) => tracing::info!("disabled authentication"),
        AuthRequest::AuthUserAdd(request) => {
            tracing::info!("user-name" = request.name, "added a user");
        }
        AuthRequest::AuthUserDelete(request) => {
            tracing::info!("user-name" = request.name, "deleted a user");
        }
        AuthRequest::AuthUserChangePassword(request) => {
            tracing::info!("user-name" = request.name, "changed a password of a user");
        }
        AuthRequest::AuthUserGrantRole(request) => {
            let (name, role) = (&request.user, &request.role);
            tracing::info!(
                "user-name" = name,
                "added-role-name" = role,
                "granted a role to a user"
            );
        }
        AuthRequest::AuthUserRevokeRole(request) => {
            let (name, role) = (&request.name, &request.role);
            tracing::info!(
                "user-name" = name,
                "revoked-role-name" = role,
                "revoked a role from a user"
            );
        }
        AuthRequest::AuthRoleAdd(request) => {
            tracing::info!("role-name" = request.name, "created a role");
        }
        AuthRequest::AuthRoleDelete(request) => {
            tracing::info!("role-name" = request.role, "deleted a role");
        }
        AuthRequest::AuthRoleGrantPermission(request) => {
            tracing::info!("user-name" = request.name, "granted/updated a permission to a user");
        }
        AuthRequest::AuthRoleRevokePermission(request) => {
            tracing::info!("role-name" = request.role, "revoked a permission on range");
        }
        _ => {}
    }
}

impl Auth {
    /// Who this member is when it asks for something by itself, such as the end of a lease that has run out: root, or
    /// nobody while authentication is off.
    pub(crate) fn own_caller(&self) -> etched_auth::Caller {
        if !self.is_enabled() {
            return etched_auth::Caller::default();
        }
        etched_auth::Caller { username: ROOT.to_owned(), revision: self.revision() }
    }
}
