//! Whether a request may be done: the whole of it, by one function, before it is proposed and again in apply.

use etched_proto::etcdserverpb as pb;
use pb::request_op::Request as Op;

use crate::permissions::Access;
use crate::store::User;
use crate::{Caller, Error, Store};

/// What the lessor knows of the keys that hang on a lease.
pub trait LeaseKeys {
    /// Looks at them, in any order, up to the first one that is refused; none for a lease that does not exist.
    ///
    /// There may be very many: they are not to be copied for this.
    ///
    /// # Errors
    /// What `check` gives.
    fn each_key(
        &self,
        lease: i64,
        check: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error>;
}

/// Something that a caller asks for.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// To read keys.
    Range(&'a pb::RangeRequest),
    /// To write a key.
    Put(&'a pb::PutRequest),
    /// To delete keys.
    DeleteRange(&'a pb::DeleteRangeRequest),
    /// All that stands in a transaction, whichever branch will be taken.
    Txn(&'a pb::TxnRequest),
    /// To hear of changes of keys.
    Watch(&'a pb::WatchCreateRequest),
    /// To revoke or renew a lease: that writes its keys.
    WriteLease(i64),
    /// To see the keys of a lease.
    ReadLease(i64),
    /// To see a user's roles.
    UserGet(&'a str),
    /// To see a role's permissions.
    RoleGet(&'a str),
    /// What any user may do.
    SignedIn,
    /// What only root may do.
    Admin,
}

impl Store {
    /// Whether `caller` may do what is `asked`. While authentication is off, everybody may do everything.
    ///
    /// # Errors
    /// [`Error::UserEmpty`] when nobody asks, [`Error::OldRevision`] when users or roles have changed since the
    /// caller was authenticated, [`Error::PermissionDenied`], [`Error::UserNotFound`] where root is needed.
    pub fn authorize(
        &self,
        caller: &Caller,
        asked: Asked<'_>,
        leases: &impl LeaseKeys,
    ) -> Result<(), Error> {
        if !self.is_enabled() {
            return Ok(());
        }
        let check = Check { store: self, caller, leases };
        match asked {
            Asked::Range(request) => check.read(&request.key, &request.range_end),
            Asked::Put(request) => check.put(request),
            Asked::DeleteRange(request) => check.delete_range(request),
            Asked::Txn(request) => check.txn(request),
            Asked::Watch(request) => check.watch(request),
            Asked::WriteLease(lease) => check.lease(Access::Write, lease),
            Asked::ReadLease(lease) => check.lease(Access::Read, lease),
            Asked::UserGet(name) if name == caller.username => Ok(()),
            Asked::RoleGet(name) if check.has_role(name) => Ok(()),
            Asked::SignedIn if caller.is_nobody() => Err(Error::UserEmpty),
            Asked::SignedIn => Ok(()),
            Asked::UserGet(_) | Asked::RoleGet(_) | Asked::Admin => check.admin(),
        }
    }
}

/// One request's check.
struct Check<'a, L> {
    store: &'a Store,
    caller: &'a Caller,
    leases: &'a L,
}

impl<L: LeaseKeys> Check<'_, L> {
    fn user(&self) -> Option<&User> {
        self.store.user(&self.caller.username)
    }

    fn has_role(&self, role: &str) -> bool {
        self.user().is_some_and(|user| user.has_role(role))
    }

    /// An old revision does not count here: who has been root is asked about, not which keys it was for.
    fn admin(&self) -> Result<(), Error> {
        if self.caller.username.is_empty() {
            return Err(Error::UserEmpty);
        }
        match self.user() {
            None => Err(Error::UserNotFound),
            Some(user) if user.is_root() => Ok(()),
            Some(_) => Err(Error::PermissionDenied),
        }
    }

    fn keys(&self, access: Access, key: &[u8], range_end: &[u8]) -> Result<(), Error> {
        if self.caller.revision == 0 {
            return Err(Error::UserEmpty);
        }
        if self.caller.revision < self.store.revision() {
            return Err(Error::OldRevision);
        }
        let user = self.user().ok_or(Error::PermissionDenied)?;
        if user.is_root() || user.permissions.allow(access, key, range_end) {
            return Ok(());
        }
        Err(Error::PermissionDenied)
    }

    fn read(&self, key: &[u8], range_end: &[u8]) -> Result<(), Error> {
        self.keys(Access::Read, key, range_end)
    }

    fn write(&self, key: &[u8], range_end: &[u8]) -> Result<(), Error> {
        self.keys(Access::Write, key, range_end)
    }

    fn put(&self, request: &pb::PutRequest) -> Result<(), Error> {
        self.write(&request.key, b"")?;
        // A key that hangs on a lease is deleted with it, so who attaches one must be able to revoke the lease.
        self.lease(Access::Write, request.lease)?;
        if request.prev_kv { self.read(&request.key, b"") } else { Ok(()) }
    }

    fn delete_range(&self, request: &pb::DeleteRangeRequest) -> Result<(), Error> {
        self.write(&request.key, &request.range_end)?;
        if request.prev_kv { self.read(&request.key, &request.range_end) } else { Ok(()) }
    }

    fn watch(&self, request: &pb::WatchCreateRequest) -> Result<(), Error> {
        let key: &[u8] = if request.key.is_empty() { b"\0" } else { &request.key };
        self.read(key, &request.range_end)
    }

    fn txn(&self, request: &pb::TxnRequest) -> Result<(), Error> {
        for compare in &request.compare {
            self.read(&compare.key, &compare.range_end)?;
        }
        for op in request.success.iter().chain(&request.failure) {
            match &op.request {
                Some(Op::RequestRange(range)) => self.read(&range.key, &range.range_end)?,
                Some(Op::RequestPut(put)) => self.put(put)?,
                Some(Op::RequestDeleteRange(delete)) => self.delete_range(delete)?,
                Some(Op::RequestTxn(txn)) => self.txn(txn)?,
                None => {}
            }
        }
        Ok(())
    }

    fn lease(&self, access: Access, lease: i64) -> Result<(), Error> {
        if lease == 0 || self.admin().is_ok() {
            return Ok(());
        }
        // Which key is refused first does not matter: the reason is the same for each.
        self.leases.each_key(lease, &mut |key| self.keys(access, key, b""))
    }
}
