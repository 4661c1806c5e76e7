//! The methods this server has, by their paths.

use tonic::Status;

/// Whether messages stream, as the metrics' `grpc_type` label says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One message each way.
    Unary,
    /// One message in, many out.
    ServerStream,
    /// Many each way.
    BidiStream,
}

impl Kind {
    /// The label's value.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

impl Method {
    /// Whether a learner serves it; of ranges only those that are not linearizable.
    pub(crate) fn is_for_learners(self) -> bool {
        matches!(self, Self::Status | Self::Snapshot | Self::Range)
    }
}

macro_rules! methods {
    ($($service:literal { $($variant:ident = $name:literal $kind:ident),* $(,)? })*) => {
        /// A method of a service.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each is the method of that name")]
        pub(crate) enum Method { $($($variant),*),* }

        /// Every method with service, name and kind, in the order of the enum.
        pub(crate) const METHODS: &[(Method, &str, &str, Kind)] =
            &[$($((Method::$variant, $service, $name, Kind::$kind)),*),*];

        impl Method {
            /// The method at `path`.
            ///
            /// # Errors
            /// gRPC's status for a service or a method that does not exist.
            pub(crate) fn at(path: &str) -> Result<Self, Status> {
                match path {
                    $($(concat!("/", $service, "/", $name) => Ok(Self::$variant),)*)*
                    _ => Err(unknown(path)),
                }
            }

            /// Service and method, as the schema has it.
            pub(crate) fn path(self) -> &'static str {
                match self {
                    $($(Self::$variant => concat!($service, "/", $name),)*)*
                }
            }
        }
    };
}

methods! {
    "etcdserverpb.KV" {
        Range = "Range" Unary,
        RangeStream = "RangeStream" ServerStream,
        Put = "Put" Unary,
        DeleteRange = "DeleteRange" Unary,
        Txn = "Txn" Unary,
        Compact = "Compact" Unary,
    }
    "etcdserverpb.Watch" {
        Watch = "Watch" BidiStream,
    }
    "etcdserverpb.Lease" {
        LeaseGrant = "LeaseGrant" Unary,
        LeaseRevoke = "LeaseRevoke" Unary,
        LeaseKeepAlive = "LeaseKeepAlive" BidiStream,
        LeaseTimeToLive = "LeaseTimeToLive" Unary,
        LeaseLeases = "LeaseLeases" Unary,
    }
    "etcdserverpb.Cluster" {
        MemberAdd = "MemberAdd" Unary,
        MemberRemove = "MemberRemove" Unary,
        MemberUpdate = "MemberUpdate" Unary,
        MemberList = "MemberList" Unary,
        MemberPromote = "MemberPromote" Unary,
    }
    "etcdserverpb.Maintenance" {
        Alarm = "Alarm" Unary,
        Status = "Status" Unary,
        Defragment = "Defragment" Unary,
        Hash = "Hash" Unary,
        HashKv = "HashKV" Unary,
        Snapshot = "Snapshot" ServerStream,
        MoveLeader = "MoveLeader" Unary,
        Downgrade = "Downgrade" Unary,
    }
    "v3lockpb.Lock" {
        Lock = "Lock" Unary,
        Unlock = "Unlock" Unary,
    }
    "v3electionpb.Election" {
        Campaign = "Campaign" Unary,
        Proclaim = "Proclaim" Unary,
        Leader = "Leader" Unary,
        Observe = "Observe" ServerStream,
        Resign = "Resign" Unary,
    }
    "etcdserverpb.Auth" {
        AuthEnable = "AuthEnable" Unary,
        AuthDisable = "AuthDisable" Unary,
        AuthStatus = "AuthStatus" Unary,
        Authenticate = "Authenticate" Unary,
        UserAdd = "UserAdd" Unary,
        UserGet = "UserGet" Unary,
        UserList = "UserList" Unary,
        UserDelete = "UserDelete" Unary,
        UserChangePassword = "UserChangePassword" Unary,
        UserGrantRole = "UserGrantRole" Unary,
        UserRevokeRole = "UserRevokeRole" Unary,
        RoleAdd = "RoleAdd" Unary,
        RoleGet = "RoleGet" Unary,
        RoleList = "RoleList" Unary,
        RoleDelete = "RoleDelete" Unary,
        RoleGrantPermission = "RoleGrantPermission" Unary,
        RoleRevokePermission = "RoleRevokePermission" Unary,
    }
    "grpc.health.v1.Health" {
        HealthCheck = "Check" Unary,
        HealthList = "List" Unary,
        HealthWatch = "Watch" ServerStream,
    }
}

impl Method {
    /// Whether messages stream.
    pub(crate) fn kind(self) -> Kind {
        METHODS[self as usize].3
    }
}

/// Services that etcd has and this part of etched does not.
const LATER: &[&str] = &[];

fn unknown(path: &str) -> Status {
    let name = path.strip_prefix('/').unwrap_or(path);
    let Some((service, method)) = name.rsplit_once('/') else {
        return Status::unimplemented(format!("malformed method name: {path:?}"));
    };
    if LATER.contains(&service) {
        return Status::unimplemented(format!("etched: service {service} is not there yet"));
    }
    if METHODS.iter().any(|(_, known, ..)| *known == service) {
        return Status::unimplemented(format!("unknown method {method} for service {service}"));
    }
    Status::unimplemented(format!("unknown service {service}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_finds_its_method() {
        for (method, service, name, _) in METHODS {
            let found = Method::at(&format!("/{service}/{name}")).expect("a known path");
            assert_eq!(found, *method);
            assert_eq!(METHODS[*method as usize].0, *method);
        }
    }

    #[test]
    fn unknown_paths_are_told_apart() {
        let message = |path| Method::at(path).expect_err("unknown").message().to_owned();
        assert_eq!(
            message("/etcdserverpb.KV/Nope"),
            "unknown method Nope for service etcdserverpb.KV"
        );
        assert_eq!(message("/a.B/Nope"), "unknown service a.B");
        assert_eq!(message("//"), "unknown service ");
        assert_eq!(message("/Range"), "malformed method name: \"/Range\"");
        assert_eq!(
            message("/etcdserverpb.KV/Range?x=1"),
            "unknown method Range?x=1 for service etcdserverpb.KV"
        );
    }
}
