//! Which certificates of clients are taken.
//!
//! ```text
//! leaf in the CA file itself? ──yes──> valid now, for clients ─────────┐
//!        └─no──> webpki: path, signatures, constraints, EKU, names     ├─> allowed names ─> CRL
//!                  + key usage of each issuer, what the root allows ──┘
//! ```
//! Go's rules are etcd's. Where webpki is stricter (no CA as a client, RSA from 2048 bits, version 3 only) it
//! stays so and COMPAT.md says it; where Go is stricter, what webpki leaves out is looked at here.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as RustlsError, OtherError,
    SignatureScheme,
};
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage,
    RequiredEkuNotFoundContext, VerifiedPath,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::Identity;
use crate::revoked::{self, Revoked};
use crate::roots::{self, Roots};

/// `clientAuth` and `anyExtendedKeyUsage`, as the content of their OIDs.
const CLIENT_AUTH: [usize; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 2];
const ANY_USAGE: [usize; 5] = [2, 5, 29, 37, 0];

/// Takes what the rules at the time of its making say.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) roots: Arc<Roots>,
    pub(crate) revocation: Revocation,
    pub(crate) allowed_cn: Vec<String>,
    pub(crate) allowed_hostname: Vec<String>,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

/// What is known of revoked certificates.
#[derive(Debug, Clone)]
pub(crate) enum Revocation {
    /// Nobody asked.
    Unchecked,
    /// These.
    Listed(Arc<Revoked>),
    /// There is a CRL, but it was never readable: who is revoked is unknown.
    Unknown,
}

/// A client whose certificate is good, but who is not allowed; etcd's words.
#[derive(Debug, thiserror::Error)]
enum NotAllowed {
    #[error("client certificate authentication failed")]
    Name,
    #[error("transport: certificate serial {0} revoked")]
    Revoked(String),
    #[error("the certificate revocation list cannot be read")]
    NoList,
    #[error("x509: certificate specifies an incompatible key usage")]
    Usage,
}

impl From<NotAllowed> for RustlsError {
    fn from(reason: NotAllowed) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
    }
}

impl Verifier {
    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &X509Certificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), RustlsError> {
        if self.roots.contains(leaf) {
            return verify_trusted_leaf(parsed, now);
        }
        let certificate = EndEntityCert::try_from(leaf).map_err(error_of)?;
        let anchors = self.roots.anchors(now);
        let issuers = |path: &VerifiedPath<'_>| {
            check_issuers(path)?;
            let between = path.intermediate_certificates().count();
            match self.roots.allow_issuers(path.anchor(), between, now) {
                true => Ok(()),
                false => Err(webpki::Error::PathLenConstraintViolated),
            }
        };
        certificate
            .verify_for_usage(
                self.algorithms.all,
                &anchors,
                intermediates,
                now,
                ClientUsage,
                None,
                Some(&issuers),
            )
            .map(|_| ())
            .map_err(error_of)
    }

    fn check_names(&self, identity: &Identity) -> Result<(), NotAllowed> {
        let named = self.allowed_cn.is_empty() || self.allowed_cn.contains(&identity.common_name);
        let hosted = self.allowed_hostname.is_empty()
            || self.allowed_hostname.iter().any(|host| identity.is_for(host));
        if named && hosted { Ok(()) } else { Err(NotAllowed::Name) }
    }

    /// Every certificate that the client sent is looked up, as in etcd.
    fn check_revoked(&self, sent: &[&CertificateDer<'_>]) -> Result<(), NotAllowed> {
        let list = match &self.revocation {
            Revocation::Unchecked => return Ok(()),
            Revocation::Unknown => return Err(NotAllowed::NoList),
            Revocation::Listed(list) => list,
        };
        for der in sent {
            // One that cannot be read cannot be known not to be revoked.
            let (_, parsed) = X509Certificate::from_der(der).map_err(|_| NotAllowed::NoList)?;
            if list.contains(parsed.raw_serial()) {
                let serial = revoked::trimmed(parsed.raw_serial());
                let digits = serial.iter().map(|byte| format!("{byte:02x}"));
                return Err(NotAllowed::Revoked(digits.collect()));
            }
        }
        Ok(())
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.roots.subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, RustlsError> {
        let encoding = || RustlsError::InvalidCertificate(CertificateError::BadEncoding);
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| encoding())?;
        self.verify_chain(leaf, &parsed, intermediates, now)?;
        self.check_names(&Identity::in_parsed(&parsed).map_err(|_| encoding())?)?;
        let sent: Vec<_> = std::iter::once(leaf).chain(intermediates).collect();
        self.check_revoked(&sent)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A certificate that the CA file names needs no signature, only to be valid and for clients.
fn verify_trusted_leaf(parsed: &X509Certificate<'_>, now: UnixTime) -> Result<(), RustlsError> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    let unknown = |extension: &x509_parser::extensions::ParsedExtension<'_>| {
        use x509_parser::extensions::ParsedExtension as Parsed;
        matches!(extension, Parsed::UnsupportedExtension { .. } | Parsed::ParseError { .. })
    };
    let extensions = parsed.extensions();
    if extensions.iter().any(|have| have.critical && unknown(have.parsed_extension())) {
        return Err(CertificateError::UnhandledCriticalExtension.into());
    }
    if roots::may_issue_for_clients(parsed) { Ok(()) } else { Err(NotAllowed::Usage.into()) }
}

/// The key usage of each issuer on the way; the root's was looked at when it was read.
fn check_issuers(path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
    for issuer in path.intermediate_certificates() {
        let der = issuer.der();
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| webpki::Error::BadDer)?;
        if !roots::may_sign_certificates(&parsed) {
            return Err(webpki::Error::EndEntityUsedAsCa);
        }
    }
    Ok(())
}

/// No extended key usage, or one for clients, or for anything, as in Go.
struct ClientUsage;

impl ExtendedKeyUsageValidator for ClientUsage {
    fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut none = true;
        for usage in usages {
            let oid = usage?.to_decoded_oid();
            if oid == CLIENT_AUTH || oid == ANY_USAGE {
                return Ok(());
            }
            none = false;
        }
        if none {
            return Ok(());
        }
        let required = KeyUsage::client_auth();
        let context = RequiredEkuNotFoundContext { required, present: Vec::new() };
        Err(webpki::Error::RequiredEkuNotFoundContext(context))
    }
}

/// webpki's reason as the one that rustls makes an alert of.
fn error_of(error: webpki::Error) -> RustlsError {
    use webpki::Error as E;
    let reason = match error {
        E::CertExpired { .. } => CertificateError::Expired,
        E::CertNotValidYet { .. } => CertificateError::NotValidYet,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    RustlsError::InvalidCertificate(reason)
}

/// Why a handshake failed, as a sentence for the log: for certificates in Go's words where there are any.
pub fn reason(error: &RustlsError) -> String {
    let certificate = match error {
        RustlsError::NoCertificatesPresented => {
            return "tls: client didn't provide a certificate".to_owned();
        }
        RustlsError::InvalidCertificate(certificate) => certificate,
        other => return format!("tls: {other}"),
    };
    let reason = match certificate {
        CertificateError::Other(OtherError(reason)) => return reason.to_string(),
        CertificateError::Expired | CertificateError::NotValidYet => {
            "x509: certificate has expired or is not yet valid"
        }
        CertificateError::UnknownIssuer => "x509: certificate signed by unknown authority",
        CertificateError::InvalidPurpose => "x509: certificate specifies an incompatible key usage",
        other => return format!("tls: failed to verify certificate: {other:?}"),
    };
    format!("tls: failed to verify certificate: {reason}")
}
