//! Members with real sockets between them.

mod member;
mod refusals;
mod secured;
mod snapshots;
mod streams;
