//! Paths and rules of one side, as etcd's flags give them.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::Error;

/// A TLS version that etcd knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Certificates and rules of one side; the default has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsInfo {
    /// Certificate chain that the server shows, PEM.
    pub cert_file: Option<PathBuf>,
    /// Key of it, PEM in PKCS #1, PKCS #8 or SEC 1.
    pub key_file: Option<PathBuf>,
    /// Chain that is shown when dialing; None is the server's.
    pub client_cert_file: Option<PathBuf>,
    /// Key of that.
    pub client_key_file: Option<PathBuf>,
    /// Certificates whose holders sign for clients, PEM. When there is one, a client must show a certificate,
    /// whatever `client_cert_auth` says.
    pub trusted_ca_file: Option<PathBuf>,
    /// Clients must show a certificate; its common name may be a user's name.
    pub client_cert_auth: bool,
    /// Revoked serial numbers, DER; whose they are is not looked at, as in etcd.
    pub crl_file: Option<PathBuf>,
    /// Common names, one of which a client's certificate must have; empty is any.
    pub allowed_cn: Vec<String>,
    /// Host names, one of which a client's certificate must be for; empty is any.
    pub allowed_hostname: Vec<String>,
    /// Go's names of TLS 1.2 cipher suites; empty is all. Those of TLS 1.3 are always on.
    pub cipher_suites: Vec<String>,
    /// Smallest version; None is TLS 1.2.
    pub min_version: Option<Version>,
    /// Largest version; None is the largest there is.
    pub max_version: Option<Version>,
    /// Do not compare a client's certificate with its address.
    pub skip_client_san_verification: bool,
}

impl TlsInfo {
    /// Neither certificate nor key.
    pub fn is_empty(&self) -> bool {
        self.cert_file.is_none() && self.key_file.is_none()
    }

    /// The server's certificate and key.
    pub(crate) fn pair(&self) -> Result<(&Path, &Path), Error> {
        match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => Ok((cert, key)),
            (cert, key) => Err(Error::HalfPair { key: shown(key), cert: shown(cert) }),
        }
    }

    /// The pair for dialing, when there is one of its own.
    pub(crate) fn client_pair(&self) -> Result<Option<(&Path, &Path)>, Error> {
        match (&self.client_cert_file, &self.client_key_file) {
            (Some(cert), Some(key)) => Ok(Some((cert, key))),
            (None, None) => Ok(None),
            (cert, key) => Err(Error::HalfClientPair { key: shown(key), cert: shown(cert) }),
        }
    }

    /// Whether clients must show a certificate.
    pub(crate) fn asks_clients(&self) -> bool {
        self.client_cert_auth || self.trusted_ca_file.is_some()
    }
}

impl fmt::Display for TlsInfo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cert, key) = (shown(&self.cert_file), shown(&self.key_file));
        write!(out, "cert = {cert}, key = {key}, client-cert={}, ", shown(&self.client_cert_file))?;
        write!(out, "client-key={}, ", shown(&self.client_key_file))?;
        write!(out, "trusted-ca = {}, ", shown(&self.trusted_ca_file))?;
        write!(out, "client-cert-auth = {}, ", self.client_cert_auth)?;
        write!(out, "crl-file = {}", shown(&self.crl_file))
    }
}

fn shown(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
}
