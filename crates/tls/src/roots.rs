//! The CA file: whose signature is enough.
//!
//! webpki takes a trust anchor for a bare name and key. Go looks at the whole certificate of a root as it looks
//! at any other issuer, so what may not sign at the time of a handshake is left out of the anchors there, and a
//! path that has more issuers than its root allows is refused when it is found.

use std::path::Path;

use rustls::DistinguishedName;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{Error, files};

/// Certificates that a CA file trusts.
#[derive(Debug, Default)]
pub(crate) struct Roots {
    roots: Vec<Root>,
    subjects: Vec<DistinguishedName>,
}

#[derive(Debug)]
struct Root {
    der: CertificateDer<'static>,
    anchor: Option<TrustAnchor<'static>>,
    /// Seconds since 1970, both ends included.
    valid: (i64, i64),
    /// Issuers that may stand between it and a client's certificate (`pathLenConstraint`).
    issuers_max: Option<u32>,
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.roots.iter().map(|root| &root.der).eq(other.roots.iter().map(|root| &root.der))
    }
}

impl Roots {
    /// The certificates of a PEM file; one that cannot be parsed refuses all, as in etcd.
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        let mut all = Self::default();
        for der in files::certificates(path)? {
            let root = Root::parse(der, path)?;
            all.subjects.push(root.subject(path)?);
            all.roots.push(root);
        }
        Ok(all)
    }

    /// Subjects, told to clients so that they choose their certificate.
    pub(crate) fn subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    /// All of them.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(|root| &root.der)
    }

    /// Whether this very certificate is one of them and valid at that time.
    pub(crate) fn is_valid(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
        self.valid(now).any(|root| root.der.as_ref() == certificate.as_ref())
    }

    /// Whether this very certificate is trusted.
    pub(crate) fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        self.roots.iter().any(|root| root.der.as_ref() == certificate.as_ref())
    }

    /// Those that may sign at that time.
    pub(crate) fn anchors(&self, now: UnixTime) -> Vec<TrustAnchor<'_>> {
        self.valid(now).filter_map(|root| root.anchor.as_ref()).cloned().collect()
    }

    /// Whether a path to `anchor` may have so many issuers in between at that time: there may be several
    /// certificates with its name and key, and one of them is enough.
    pub(crate) fn allow_issuers(
        &self,
        anchor: &TrustAnchor<'_>,
        issuers: usize,
        now: UnixTime,
    ) -> bool {
        let issuers = u32::try_from(issuers).unwrap_or(u32::MAX);
        self.valid(now)
            .filter(|root| root.anchor.as_ref() == Some(anchor))
            .any(|root| root.issuers_max.is_none_or(|most| issuers <= most))
    }

    fn valid(&self, now: UnixTime) -> impl Iterator<Item = &Root> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.roots.iter().filter(move |root| (root.valid.0..=root.valid.1).contains(&now))
    }
}

impl Root {
    fn parse(der: CertificateDer<'static>, path: &Path) -> Result<Self, Error> {
        let malformed =
            || Error::Content { path: path.to_owned(), reason: Error::Malformed.to_string() };
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| malformed())?;
        let validity = parsed.validity();
        let valid = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let may_sign = is_authority(&parsed) && may_issue_for_clients(&parsed);
        let anchor = may_sign.then(|| webpki::anchor_from_trusted_cert(&der));
        let anchor = match anchor.transpose() {
            Ok(anchor) => anchor.map(|anchor| anchor.to_owned()),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a CA certificate is not usable");
                None
            }
        };
        let issuers_max = issuers_max(&parsed);
        Ok(Self { anchor, valid, issuers_max, der })
    }

    fn subject(&self, path: &Path) -> Result<DistinguishedName, Error> {
        let (_, parsed) = X509Certificate::from_der(&self.der).map_err(|_| Error::Content {
            path: path.to_owned(),
            reason: Error::Malformed.to_string(),
        })?;
        Ok(DistinguishedName::from(parsed.subject().as_raw().to_vec()))
    }
}

fn issuers_max(parsed: &X509Certificate<'_>) -> Option<u32> {
    parsed.basic_constraints().ok().flatten()?.value.path_len_constraint
}

/// A CA by its constraints and its key usage. Certificates of version 1 have neither.
pub(crate) fn is_authority(parsed: &X509Certificate<'_>) -> bool {
    let constrained = match parsed.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.ca,
        Ok(None) => parsed.version().0 < 2,
        Err(_) => false,
    };
    constrained && may_sign_certificates(parsed)
}

/// No key usage, or one that allows signing certificates. webpki does not look at it, Go does.
pub(crate) fn may_sign_certificates(parsed: &X509Certificate<'_>) -> bool {
    match parsed.key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => usage.value.flags == 0 || usage.value.key_cert_sign(),
        Err(_) => false,
    }
}

/// No extended key usage, or one for clients: it narrows all that lies below a CA.
pub(crate) fn may_issue_for_clients(parsed: &X509Certificate<'_>) -> bool {
    match parsed.extended_key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => usage.value.client_auth || usage.value.any,
        Err(_) => false,
    }
}
