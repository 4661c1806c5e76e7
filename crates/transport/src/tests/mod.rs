//! Members with real sockets between them.

pub(crate) mod member;
mod refusals;
mod secured;
mod snapshots;
mod streams;
