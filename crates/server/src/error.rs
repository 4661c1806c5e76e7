//! One table from what can go wrong to what a client of etcd is told.

use tonic::Code;

use crate::membership::Refusal;

macro_rules! errors {
    ($($(#[$doc:meta])* $variant:ident => $code:ident, $text:literal;)*) => {
        /// Everything a request can end in beside success.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Error {
            $($(#[$doc])* $variant),*
        }

        impl Error {
            /// gRPC code and the exact text of etcd.
            pub(crate) fn status(self) -> (Code, &'static str) {
                match self {
                    $(Self::$variant => (Code::$code, $text)),*
                }
            }
        }
    };
}

errors! {
    /// A key is empty.
    EmptyKey => InvalidArgument, "etcdserver: key is not provided";
    /// ignore_value or ignore_lease on a key that is not there.
    KeyNotFound => InvalidArgument, "etcdserver: key not found";
    /// ignore_value with a value.
    ValueProvided => InvalidArgument, "etcdserver: value is provided";
    /// ignore_lease with a lease.
    LeaseProvided => InvalidArgument, "etcdserver: lease is provided";
    /// Above `--max-txn-ops`.
    TooManyOps => InvalidArgument, "etcdserver: too many operations in txn request";
    /// Two writes of one key in one branch.
    DuplicateKey => InvalidArgument, "etcdserver: duplicate key given in txn request";
    /// The metadata names a version that is no text.
    InvalidClientApiVersion => InvalidArgument, "etcdserver: invalid client api version";
    /// Unknown sort order or target.
    InvalidSortOption => InvalidArgument, "etcdserver: invalid sort option";
    /// Below the compaction floor.
    Compacted => OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    /// Above the current revision.
    FutureRevision => OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    /// The quota is used up.
    NoSpace => ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    /// No such lease.
    LeaseNotFound => NotFound, "etcdserver: requested lease not found";
    /// The id is taken.
    LeaseExists => FailedPrecondition, "etcdserver: lease already exists";
    /// Above 9,000,000,000 seconds.
    LeaseTtlTooLarge => OutOfRange, "etcdserver: too large lease TTL";
    /// Above `--max-request-bytes`.
    RequestTooLarge => InvalidArgument, "etcdserver: request is too large";
    /// Nobody leads.
    NoLeader => Unavailable, "etcdserver: no leader";
    /// Another member leads.
    NotLeader => FailedPrecondition, "etcdserver: not leader";
    /// Another member has begun to lead meanwhile.
    LeaderChanged => Unavailable, "etcdserver: leader changed";
    /// The server is going down.
    Stopped => Unavailable, "etcdserver: server stopped";
    /// The request was not done in time.
    Timeout => Unavailable, "etcdserver: request timed out";
    /// The same; the leader was lost meanwhile.
    TimeoutLeaderFail => Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
    /// The same; this member has no connection to a quorum, or to the leader.
    TimeoutConnectionLost => Unavailable, "etcdserver: request timed out, possibly due to connection lost";
    /// The other member did not begin to lead in time. etcd has no code for it.
    TimeoutLeaderTransfer => Unknown, "etcdserver: request timed out, leader transfer took too long";
    /// Nobody led all the time.
    DeadlineExceeded => DeadlineExceeded, "context deadline exceeded";
    /// A learner serves little.
    NotSupportedForLearner => FailedPrecondition, "etcdserver: rpc not supported for learner";
    /// An alarm says that the data is damaged.
    Corrupt => DataLoss, "etcdserver: corrupt cluster";
    /// Leadership cannot go to that member.
    BadLeaderTransferee => FailedPrecondition, "etcdserver: bad leader transferee";
    /// A member's URLs are none.
    MemberBadUrls => InvalidArgument, "etcdserver: given member URLs are invalid";
    /// No such member, or no more.
    MemberNotFound => NotFound, "etcdserver: member not found";
    /// The id is taken.
    MemberExists => FailedPrecondition, "etcdserver: member ID already exist";
    /// Another member has one of the URLs.
    PeerUrlExists => FailedPrecondition, "etcdserver: Peer URLs already exists";
    /// Too few members would be left that have ever started. etcd defines another code, but answers with this one.
    NotEnoughStarted => Unknown, "etcdserver: re-configuration failed due to not enough started members";
    /// It votes already.
    MemberNotLearner => FailedPrecondition, "etcdserver: can only promote a learner member";
    /// The learner has too little of the log.
    LearnerNotReady => FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    /// Above `--max-learners`.
    TooManyLearners => FailedPrecondition, "etcdserver: too many learner members in cluster";
    /// Too few members have been connected for long enough.
    Unhealthy => Unavailable, "etcdserver: unhealthy cluster";
    /// The target of a downgrade is no version.
    WrongDowngradeVersionFormat => InvalidArgument, "etcdserver: wrong downgrade target version format";
    /// The target of a downgrade is not the version before the cluster's.
    InvalidDowngradeTarget => InvalidArgument, "etcdserver: invalid downgrade target version";
    /// The cluster has no version yet.
    ClusterVersionUnavailable => FailedPrecondition, "etcdserver: cluster version not found during downgrade";
    /// A downgrade was asked for already.
    DowngradeInProcess => FailedPrecondition, "etcdserver: cluster has a downgrade job in progress";
    /// There is no downgrade to cancel.
    NoInflightDowngrade => FailedPrecondition, "etcdserver: no inflight downgrade job";
    /// RangeStream takes no order but the keys'.
    StreamSort => Unimplemented, "RangeStream does not support custom sort orders";
    /// RangeStream takes no revision filters.
    StreamFilter => Unimplemented, "RangeStream does not support revision filters";
    /// A method or an action that does not exist.
    UnknownMethod => Unknown, "etcdserver: unknown method";
    /// More passwords wait to be hashed than may. etcd defines another code, but answers with this one.
    TooManyRequests => Unknown, "etcdserver: too many requests";
    /// Authentication cannot be switched on without a user root.
    RootUserNotExist => FailedPrecondition, "etcdserver: root user does not exist";
    /// Nor when it does not have the role root.
    RootRoleNotExist => FailedPrecondition, "etcdserver: root user does not have root role";
    /// The name is taken.
    UserAlreadyExists => FailedPrecondition, "etcdserver: user name already exists";
    /// A user without a name, or nobody where somebody has to ask.
    UserEmpty => InvalidArgument, "etcdserver: user name is empty";
    /// No such user.
    UserNotFound => FailedPrecondition, "etcdserver: user name not found";
    /// The name is taken.
    RoleAlreadyExists => FailedPrecondition, "etcdserver: role name already exists";
    /// No such role.
    RoleNotFound => FailedPrecondition, "etcdserver: role name not found";
    /// A role without a name.
    RoleEmpty => InvalidArgument, "etcdserver: role name is empty";
    /// Wrong user or password.
    AuthFailed => InvalidArgument, "etcdserver: authentication failed, invalid user ID or password";
    /// A user who has no password, or whose new one is not encoded as it has to be.
    NoPasswordUser => Unknown, "auth: authentication failed, password was given for no password user";
    /// A grant without a permission.
    PermissionNotGiven => InvalidArgument, "etcdserver: permission not given";
    /// The user may not do this.
    PermissionDenied => PermissionDenied, "etcdserver: permission denied";
    /// The user does not have the role.
    RoleNotGranted => FailedPrecondition, "etcdserver: role is not granted to the user";
    /// The role does not have the permission.
    PermissionNotGranted => FailedPrecondition, "etcdserver: permission is not granted to the role";
    /// Nobody can log in.
    AuthNotEnabled => FailedPrecondition, "etcdserver: authentication is not enabled";
    /// The token is unknown, has ended, or is none.
    InvalidAuthToken => Unauthenticated, "etcdserver: invalid auth token";
    /// A change that would lock everybody out, or a range without keys.
    InvalidAuthManagement => InvalidArgument, "etcdserver: invalid auth management";
    /// Users or roles have changed since the token was given.
    AuthOldRevision => InvalidArgument, "etcdserver: revision of auth store is old";
    /// Longer than bcrypt looks at.
    PasswordTooLong => Unknown, "bcrypt: password length exceeds 72 bytes";
    /// This member has only the public key of its tokens.
    VerifyOnly => Unknown, "auth: token signing attempted with verify-only key";
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let (code, text) = error.status();
        Self::new(code, text)
    }
}

impl Error {
    /// What another member hears of it.
    pub(crate) fn peer_text(self) -> &'static str {
        match self {
            Self::MemberNotFound => "membership: ID not found",
            Self::MemberNotLearner => "membership: can only promote a learner member",
            other => other.status().1,
        }
    }

    /// What a client hears of the store's refusal; None when the store itself failed.
    pub(crate) fn from_mvcc(error: &etched_mvcc::Error) -> Option<Self> {
        use etched_mvcc::Error as E;
        Some(match error {
            E::Compacted => Self::Compacted,
            E::FutureRevision => Self::FutureRevision,
            // etcd's API refuses the last three with this text; only a foreign entry gets as far as apply.
            E::KeyNotFound | E::EmptyOperation | E::UnknownSortTarget | E::KeptKeyDeleted => {
                Self::KeyNotFound
            }
            E::LeaseNotFound => Self::LeaseNotFound,
            E::EmptyKey => Self::EmptyKey,
            E::ValueProvided => Self::ValueProvided,
            E::LeaseProvided => Self::LeaseProvided,
            E::InvalidSortOption => Self::InvalidSortOption,
            E::TooManyOperations => Self::TooManyOps,
            E::DuplicateKey => Self::DuplicateKey,
            E::StreamSorted => Self::StreamSort,
            E::StreamFiltered => Self::StreamFilter,
            E::Records(_) => return None,
        })
    }
}

impl From<etched_auth::Error> for Error {
    fn from(error: etched_auth::Error) -> Self {
        use etched_auth::Error as E;
        match error {
            E::RootUserNotExist => Self::RootUserNotExist,
            E::RootRoleNotExist => Self::RootRoleNotExist,
            E::UserAlreadyExists => Self::UserAlreadyExists,
            E::UserEmpty => Self::UserEmpty,
            E::UserNotFound => Self::UserNotFound,
            E::RoleAlreadyExists => Self::RoleAlreadyExists,
            E::RoleNotFound => Self::RoleNotFound,
            E::RoleEmpty => Self::RoleEmpty,
            E::PermissionNotGiven => Self::PermissionNotGiven,
            E::Failed => Self::AuthFailed,
            E::NoPasswordUser => Self::NoPasswordUser,
            E::PermissionDenied => Self::PermissionDenied,
            E::RoleNotGranted => Self::RoleNotGranted,
            E::PermissionNotGranted => Self::PermissionNotGranted,
            E::NotEnabled => Self::AuthNotEnabled,
            E::OldRevision => Self::AuthOldRevision,
            E::InvalidManagement => Self::InvalidAuthManagement,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::IdRemoved | Refusal::IdNotFound => Self::MemberNotFound,
            Refusal::IdExists => Self::MemberExists,
            Refusal::PeerUrlExists => Self::PeerUrlExists,
            Refusal::NotLearner => Self::MemberNotLearner,
            Refusal::TooManyLearners => Self::TooManyLearners,
        }
    }
}

impl From<etched_lease::Error> for Error {
    fn from(error: etched_lease::Error) -> Self {
        match error {
            etched_lease::Error::LeaseExists => Self::LeaseExists,
            etched_lease::Error::LeaseNotFound => Self::LeaseNotFound,
            etched_lease::Error::TtlTooLarge => Self::LeaseTtlTooLarge,
        }
    }
}
