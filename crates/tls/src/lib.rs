//! TLS as etcd has it, without sockets: who shows which certificate, and who may connect.
//!
//! ```text
//! TlsInfo (paths, rules) --> Server --config()--> rustls::ServerConfig, for each handshake
//!                              ^ certificate, CA and CRL files, read again when they change
//!                            verifier: chain (webpki), Go's extra rules, CRL by serial, allowed names
//! TlsInfo --> Client --config()--> rustls::ClientConfig, for each connection to another member
//! Identity of a client's certificate: common name for users, SAN for `check_remote`
//! ```
//!
//! Invariants: a file that cannot be used leaves what was read before in force and is reported once; a CRL that
//! was never readable refuses every certificate; sessions are not resumed, because a ticket would outlive the
//! CA and the CRL it was made under. No key material reaches an error or a log line.
//!
//! It knows no sockets, no HTTP and no gRPC: the server drives rustls with what it gets here.

mod client;
mod error;
mod files;
#[cfg(test)]
mod fuzz_tests;
mod identity;
mod info;
mod remote;
mod revoked;
mod roots;
mod self_signed;
mod server;
mod suites;
mod verifier;
mod watched;

#[cfg(test)]
mod tests;

pub use client::Client;
pub use error::Error;
pub use identity::Identity;
pub use info::{TlsInfo, Version};
pub use remote::{Lookup, check_remote};
pub use self_signed::self_signed;
pub use server::Server;
pub use suites::check_names as check_cipher_suites;
pub use verifier::reason;
