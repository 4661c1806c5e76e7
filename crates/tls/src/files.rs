//! Certificates and keys out of PEM files.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as RustlsError, InconsistentKeys};

use crate::Error;

/// Bytes of a certificate, key, CA or CRL file; a larger one is refused before it is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        let reason = format!("has more than {FILE_BYTES_MAX} bytes");
        return Err(Error::Content { path: path.to_owned(), reason });
    }
    std::fs::read(path).map_err(failed)
}

/// The certificates of a PEM file, in its order; other blocks are passed over.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(path)?;
    CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Error::Content { path: path.to_owned(), reason: "malformed PEM".into() })
}

/// A chain with its key, checked to belong together.
pub(crate) fn pair(
    cert: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, Error> {
    let refused = |reason: &str| Error::Pair {
        cert: cert.to_owned(),
        key: key.to_owned(),
        reason: reason.to_owned(),
    };
    let chain = certificates(cert)?;
    if chain.is_empty() {
        return Err(refused("failed to find any PEM data in certificate input"));
    }
    // What is wrong inside a key is not told: nothing of it may reach a log.
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| refused("failed to find any PEM data in key input"))?;
    match CertifiedKey::from_der(chain, secret, provider) {
        Ok(pair) => Ok(Arc::new(pair)),
        Err(RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(refused("private key does not match public key"))
        }
        Err(RustlsError::InvalidCertificate(reason)) => {
            Err(refused(&format!("unusable certificate: {reason:?}")))
        }
        Err(_) => Err(refused("unsupported or malformed private key")),
    }
}
