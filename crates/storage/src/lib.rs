//! The redb file behind the log.
//!
//! The log is the durability; this file is filled behind it and lets the log be shortened.
mod error;
mod types;

pub use error::{Error, Result};
pub use types::{Applied, Boot, Commit, Counts, Durability, FORMAT_VERSION, Options, Sizes, Table};
