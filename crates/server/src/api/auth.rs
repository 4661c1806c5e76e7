//! `etcdserverpb.Auth`.
//!
//! Every call goes through the log, also one that only looks: so it is linearizable, and whether its caller may is
//! decided in apply. Passwords do not go there: they are hashed or checked before.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use etched_auth::Asked;
use etched_proto::etcdserverpb as pb;
use prost::Message;
use tonic::Status;

use super::reply;
use crate::auth::{Asking, AuthAnswer, Nobody, Passwords, Who};
use crate::error::Error;
use crate::grpc::Framed;
use crate::request::Field;
use crate::shared::{Answer, Shared};

/// Bytes of the longest name of a user or role: that of a key in a bbolt file, in which snapshots have to put it.
const NAME_BYTES_MAX: usize = 32_768;

fn check_name(name: &str) -> Result<(), Error> {
    if name.len() > NAME_BYTES_MAX { Err(Error::RequestTooLarge) } else { Ok(()) }
}

/// Replicates a request and gives its answer.
async fn ask(
    shared: &Shared,
    who: impl Asking,
    field: Field,
    body: &[u8],
) -> Result<(pb::ResponseHeader, AuthAnswer), Status> {
    let outcome = shared.propose(who, field, body).await?;
    match shared.answer(outcome.result)? {
        Answer::Auth(answer) => Ok((shared.header(outcome.revision), *answer)),
        _ => Err(mismatch()),
    }
}

fn mismatch() -> Status {
    debug_assert!(false, "apply answered another request");
    Status::internal("etched: the answer does not belong to the request")
}

/// Methods that change something and answer that it is done.
macro_rules! changes {
    ($($name:ident: $request:ident => $field:ident, $response:ident;)*) => {
        $(pub(super) async fn $name(
            shared: Arc<Shared>,
            _: pb::$request,
            body: Bytes,
            who: Who,
        ) -> Result<Framed, Status> {
            let (header, _) = ask(&shared, &who, Field::$field, &body).await?;
            reply(&pb::$response { header: Some(header) })
        })*
    };
}

changes! {
    enable: AuthEnableRequest => AuthEnable, AuthEnableResponse;
    disable: AuthDisableRequest => AuthDisable, AuthDisableResponse;
    user_delete: AuthUserDeleteRequest => AuthUserDelete, AuthUserDeleteResponse;
    user_grant_role: AuthUserGrantRoleRequest => AuthUserGrantRole, AuthUserGrantRoleResponse;
    user_revoke_role: AuthUserRevokeRoleRequest => AuthUserRevokeRole, AuthUserRevokeRoleResponse;
    role_delete: AuthRoleDeleteRequest => AuthRoleDelete, AuthRoleDeleteResponse;
    role_grant_permission: AuthRoleGrantPermissionRequest =>
        AuthRoleGrantPermission, AuthRoleGrantPermissionResponse;
    role_revoke_permission: AuthRoleRevokePermissionRequest =>
        AuthRoleRevokePermission, AuthRoleRevokePermissionResponse;
}

pub(super) async fn role_add(
    shared: Arc<Shared>,
    request: pb::AuthRoleAddRequest,
    body: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    check_name(&request.name)?;
    let (header, _) = ask(&shared, &who, Field::AuthRoleAdd, &body).await?;
    reply(&pb::AuthRoleAddResponse { header: Some(header) })
}

pub(super) async fn status(
    shared: Arc<Shared>,
    _: pb::AuthStatusRequest,
    body: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    match ask(&shared, &who, Field::AuthStatus, &body).await? {
        (header, AuthAnswer::Status { enabled, revision }) => reply(&pb::AuthStatusResponse {
            header: Some(header),
            enabled,
            auth_revision: revision,
        }),
        _ => Err(mismatch()),
    }
}

/// Gives a token for a password.
pub(super) async fn authenticate(
    shared: Arc<Shared>,
    request: pb::AuthenticateRequest,
    _: Bytes,
    _: Who,
) -> Result<Framed, Status> {
    shared.read_index().await?;
    loop {
        let checked = match check_password(&shared, &request).await {
            Ok(revision) => revision,
            Err(error) => {
                if error != Error::AuthNotEnabled {
                    let (user, error) = (&request.name, error.status().1);
                    tracing::warn!(user, error, "invalid authentication was requested");
                }
                return Err(error.into());
            }
        };
        let internal = pb::InternalAuthenticateRequest {
            name: request.name.clone(),
            password: String::new(),
            simple_token: shared.auth.draw_letters(),
        };
        let body = internal.encode_to_vec();
        let answer = ask(&shared, Nobody, Field::Authenticate, &body).await?;
        let (header, AuthAnswer::Token { assigned, revision }) = answer else {
            return Err(mismatch());
        };
        // The password may have been changed between its check and the token.
        if checked != shared.auth.revision() {
            tracing::info!("revision when password checked became stale; retrying");
            continue;
        }
        let token = shared.auth.token(request.name, assigned, revision).await?;
        return reply(&pb::AuthenticateResponse { header: Some(header), token });
    }
}

/// The revision at which the password was the user's.
async fn check_password(shared: &Shared, request: &pb::AuthenticateRequest) -> Result<u64, Error> {
    let password = shared.auth.password(&request.name)?;
    if shared.auth.passwords.check(request.password.clone(), password.hash).await? {
        return Ok(password.revision);
    }
    Err(Error::AuthFailed)
}

/// A password as it may stand in the log. Who may not change users is told so before a core works on it; apply
/// decides all the same.
async fn hashed(shared: &Shared, who: &Who, password: String) -> Result<String, Error> {
    Passwords::check_length(&password)?;
    if shared.auth.is_enabled() {
        shared.read_index().await?;
        shared.require(who, Asked::Admin)?;
    }
    Ok(STANDARD.encode(shared.auth.passwords.hash(password).await?))
}

pub(super) async fn user_add(
    shared: Arc<Shared>,
    mut request: pb::AuthUserAddRequest,
    _: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    check_name(&request.name)?;
    let password = std::mem::take(&mut request.password);
    if !request.options.is_some_and(|options| options.no_password) {
        request.hashed_password = hashed(&shared, &who, password).await?;
    }
    let body = request.encode_to_vec();
    let (header, _) = ask(&shared, &who, Field::AuthUserAdd, &body).await?;
    reply(&pb::AuthUserAddResponse { header: Some(header) })
}

pub(super) async fn user_change_password(
    shared: Arc<Shared>,
    mut request: pb::AuthUserChangePasswordRequest,
    _: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let password = std::mem::take(&mut request.password);
    if !password.is_empty() {
        request.hashed_password = hashed(&shared, &who, password).await?;
    }
    let body = request.encode_to_vec();
    let (header, _) = ask(&shared, &who, Field::AuthUserChangePassword, &body).await?;
    reply(&pb::AuthUserChangePasswordResponse { header: Some(header) })
}

pub(super) async fn user_get(
    shared: Arc<Shared>,
    _: pb::AuthUserGetRequest,
    body: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let (header, roles) = names(&shared, &who, Field::AuthUserGet, &body).await?;
    reply(&pb::AuthUserGetResponse { header: Some(header), roles })
}

pub(super) async fn user_list(
    shared: Arc<Shared>,
    _: pb::AuthUserListRequest,
    body: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let (header, users) = names(&shared, &who, Field::AuthUserList, &body).await?;
    reply(&pb::AuthUserListResponse { header: Some(header), users })
}

pub(super) async fn role_list(
    shared: Arc<Shared>,
    _: pb::AuthRoleListRequest,
    body: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    let (header, roles) = names(&shared, &who, Field::AuthRoleList, &body).await?;
    reply(&pb::AuthRoleListResponse { header: Some(header), roles })
}

async fn names(
    shared: &Shared,
    who: &Who,
    field: Field,
    body: &[u8],
) -> Result<(pb::ResponseHeader, Vec<String>), Status> {
    match ask(shared, who, field, body).await? {
        (header, AuthAnswer::Names(names)) => Ok((header, names)),
        _ => Err(mismatch()),
    }
}

pub(super) async fn role_get(
    shared: Arc<Shared>,
    _: pb::AuthRoleGetRequest,
    body: Bytes,
    who: Who,
) -> Result<Framed, Status> {
    match ask(&shared, &who, Field::AuthRoleGet, &body).await? {
        (header, AuthAnswer::Permissions(perm)) => {
            reply(&pb::AuthRoleGetResponse { header: Some(header), perm })
        }
        _ => Err(mismatch()),
    }
}
