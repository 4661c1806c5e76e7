//! The CRL: serial numbers that are refused.
//!
//! As in etcd only the numbers count: neither who signed the list, nor for which CA, nor until when it is valid.

use std::collections::HashSet;
use std::path::Path;

use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use crate::{Error, files};

/// Serial numbers without leading zeros.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Revoked(HashSet<Box<[u8]>>);

impl Revoked {
    /// The serial numbers in a DER file.
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        let bytes = files::read(path)?;
        let refused =
            |reason: &str| Error::Content { path: path.to_owned(), reason: reason.into() };
        let (rest, list) = CertificateRevocationList::from_der(&bytes)
            .map_err(|_| refused("x509: malformed crl (it must be in DER)"))?;
        if !rest.is_empty() {
            return Err(refused("x509: trailing data after crl"));
        }
        let serials = list.iter_revoked_certificates();
        Ok(Self(serials.map(|entry| trimmed(entry.raw_serial()).into()).collect()))
    }

    pub(crate) fn contains(&self, serial: &[u8]) -> bool {
        self.0.contains(trimmed(serial))
    }
}

/// A serial number without leading zeros.
pub(crate) fn trimmed(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}
