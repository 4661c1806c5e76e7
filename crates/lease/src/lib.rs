//! the lessor: grant, revoke, renew, attach, expiry.
