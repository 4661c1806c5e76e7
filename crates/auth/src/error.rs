//! Why something was refused.

/// A refusal; what a client is told of it stands in the server's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Error {
    /// Authentication cannot be switched on: there is no user root.
    #[error("root user does not exist")]
    RootUserNotExist,
    /// Authentication cannot be switched on: the user root has no role root.
    #[error("root user does not have root role")]
    RootRoleNotExist,
    /// The name is taken.
    #[error("user already exists")]
    UserAlreadyExists,
    /// A user without a name, or nobody asked where somebody has to.
    #[error("user name is empty")]
    UserEmpty,
    /// No such user.
    #[error("user not found")]
    UserNotFound,
    /// The name is taken.
    #[error("role already exists")]
    RoleAlreadyExists,
    /// No such role.
    #[error("role not found")]
    RoleNotFound,
    /// A role without a name.
    #[error("role name is empty")]
    RoleEmpty,
    /// A grant without a permission.
    #[error("permission not given")]
    PermissionNotGiven,
    /// Wrong user or password.
    #[error("authentication failed, invalid user ID or password")]
    Failed,
    /// A password for a user who has none, or one whose hash is no base64.
    #[error("authentication failed, password was given for no password user")]
    NoPasswordUser,
    /// The user may not do this.
    #[error("permission denied")]
    PermissionDenied,
    /// The user does not have the role.
    #[error("role is not granted to the user")]
    RoleNotGranted,
    /// The role does not have the permission.
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    /// Nobody can log in: authentication is off.
    #[error("authentication is not enabled")]
    NotEnabled,
    /// Users or roles have changed since the caller was authenticated.
    #[error("revision in header is old")]
    OldRevision,
    /// A change that would lock everybody out, or a range without keys.
    #[error("invalid auth management")]
    InvalidManagement,
}
