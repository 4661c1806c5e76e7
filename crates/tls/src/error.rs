//! What is wrong with certificates and rules, in etcd's words where etcd has any.

use std::io;
use std::path::PathBuf;

/// A TLS configuration that does not work, or a certificate that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate without a key, or the other way round.
    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")]
    HalfPair {
        /// Path of the key; may be empty.
        key: String,
        /// Path of the certificate; may be empty.
        cert: String,
    },
    /// The same for the pair that is used when dialing. The odd bracket is etcd's.
    #[error(
        "ClientKeyFile and ClientCertFile must both be present or both absent: key: {key}, cert: {cert}]"
    )]
    HalfClientPair {
        /// Path of the key; may be empty.
        key: String,
        /// Path of the certificate; may be empty.
        cert: String,
    },
    /// Common names and host names at once.
    #[error(
        "AllowedCNs and AllowedHostnames are mutually exclusive (cns={cns:?}, hostnames={hostnames:?})"
    )]
    AllowedTwice {
        /// Allowed common names.
        cns: Vec<String>,
        /// Allowed host names.
        hostnames: Vec<String>,
    },
    /// No cipher suite at all.
    #[error("unexpected TLS cipher suite {0:?}")]
    UnknownSuite(String),
    /// A cipher suite of Go's that there is not here.
    #[error("TLS cipher suite {name:?} is not supported by etched; it has: {known}")]
    SuiteNotHere {
        /// The suite asked for.
        name: String,
        /// Those there are.
        known: String,
    },
    /// A file cannot be read or written.
    #[error("open {}: {}", path.display(), reason(source))]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no usable certificate, key or CRL. The reason never holds what the file says.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The certificate and the key do not belong together, or the key is of no kind that can be used.
    #[error("tls: {reason} (certificate {}, key {})", cert.display(), key.display())]
    Pair {
        /// Path of the certificate.
        cert: PathBuf,
        /// Path of the key.
        key: PathBuf,
        /// Why.
        reason: String,
    },
    /// rustls refuses the rules.
    #[error("{0}")]
    Rules(#[from] rustls::Error),
    /// A certificate of zero years.
    #[error("selfSignedCertValidity is invalid,it should be greater than 0")]
    ValidityZero,
    /// A certificate cannot be made.
    #[error("cannot generate a certificate: {0}")]
    Generate(String),
    /// The certificate of a client is unreadable.
    #[error("x509: malformed certificate")]
    Malformed,
    /// A certificate's names are not those of the address it came from.
    #[error("{0}")]
    Remote(String),
}

/// What went wrong with a file, in the words of Go: `no such file or directory`.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}
