//! the redb file behind the log.
