//! The dialing side: whom this member takes for another one, with files as they are now.
//!
//! ```text
//! certificate of the server ──> webpki: path to a CA of ours, for servers, name in the URL ──> taken
//!         └── the very certificate in the CA file: valid for the name ─────────────────────────^
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore,
    SignatureScheme, SupportedProtocolVersion,
};

use crate::roots::Roots;
use crate::server::{Pair, load_pair};
use crate::watched::Watched;
use crate::{Error, Identity, TlsInfo, suites};

/// Where systems keep the CAs that they trust; Go's list, as far as it is of files.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What is shown to servers, and which of them are taken.
#[derive(Debug)]
pub struct Client {
    /// Certificate and key to show, if any.
    own: Option<(PathBuf, PathBuf)>,
    /// CAs; None takes every server.
    trusted: Option<PathBuf>,
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    current: Mutex<Current>,
}

/// What the files say now.
struct Current {
    pair: Option<Watched<Pair>>,
    roots: Option<Watched<Arc<Roots>>>,
    config: Arc<ClientConfig>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Current")
    }
}

impl Client {
    /// Reads all files. With `takes_all` every server is taken: members with generated certificates have no way to
    /// know each other's, in etcd neither.
    ///
    /// # Errors
    /// [`Error`]: the first file that cannot be used.
    pub fn new(info: &TlsInfo, takes_all: bool) -> Result<Self, Error> {
        let provider = suites::provider(info)?;
        let own = match info.client_pair()? {
            Some(pair) => Some(pair),
            None if info.is_empty() => None,
            None => Some(info.pair()?),
        };
        let system = || {
            let there = |path: &&&str| Path::new(path).exists();
            SYSTEM_ROOTS.iter().find(there).map(PathBuf::from)
        };
        let trusted = info.trusted_ca_file.clone().or_else(system).filter(|_| !takes_all);
        let versions = suites::versions(info);
        let pair = match own {
            Some((cert, key)) => {
                Some(Watched::new(&[cert, key], || load_pair(cert, key, &provider))?)
            }
            None => None,
        };
        let roots = match &trusted {
            Some(path) => Some(Watched::new(&[path], || Roots::load(path).map(Arc::new))?),
            None if takes_all => None,
            None => Some(Watched::starting_with(Arc::default(), &[])),
        };
        let config = build(&provider, &versions, pair.as_ref(), roots.as_ref())?;
        let own = own.map(|(cert, key)| (cert.to_owned(), key.to_owned()));
        let current = Mutex::new(Current { pair, roots, config });
        Ok(Self { own, trusted, provider, versions, current })
    }

    /// The rules for a connection that begins now.
    ///
    /// # Errors
    /// Files have changed and make no rules.
    pub fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        // A panic while it is held cannot leave it half changed: what is replaced is replaced whole.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = false;
        if let (Some((cert, key)), Some(pair)) = (&self.own, &mut current.pair) {
            changed |= pair.refresh(|| load_pair(cert, key, &self.provider));
        }
        if let (Some(path), Some(roots)) = (&self.trusted, &mut current.roots) {
            changed |= roots.refresh(|| Roots::load(path).map(Arc::new));
        }
        if changed {
            let (pair, roots) = (current.pair.as_ref(), current.roots.as_ref());
            current.config = build(&self.provider, &self.versions, pair, roots)?;
        }
        Ok(Arc::clone(&current.config))
    }
}

fn build(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    pair: Option<&Watched<Pair>>,
    roots: Option<&Watched<Arc<Roots>>>,
) -> Result<Arc<ClientConfig>, Error> {
    let verifier = ServerVerifier::new(provider, roots.map(|roots| Arc::clone(roots.value())))?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match pair {
        Some(pair) => {
            let own = SingleCertAndKey::from(Arc::clone(&pair.value().0));
            builder.with_client_cert_resolver(Arc::new(own))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would skip the CA of today.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct ServerVerifier {
    /// None takes every server.
    roots: Option<Arc<Roots>>,
    /// None: there is nobody to trust.
    paths: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    fn new(provider: &Arc<CryptoProvider>, roots: Option<Arc<Roots>>) -> Result<Self, Error> {
        let mut store = RootCertStore::empty();
        if let Some(roots) = &roots {
            store.add_parsable_certificates(roots.certificates().cloned());
        }
        let paths = match store.is_empty() {
            true => None,
            false => {
                let provider = Arc::clone(provider);
                let builder = WebPkiServerVerifier::builder_with_provider(store.into(), provider);
                Some(builder.build().map_err(|error| RustlsError::General(error.to_string()))?)
            }
        };
        Ok(Self { roots, paths, provider: Arc::clone(provider) })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        if roots.contains(end_entity) {
            let malformed = |_| RustlsError::InvalidCertificate(CertificateError::BadEncoding);
            let is_for = Identity::of(end_entity).map_err(malformed)?.is_for(&server_name.to_str());
            return match (roots.is_valid(end_entity, now), is_for) {
                (true, true) => Ok(ServerCertVerified::assertion()),
                (false, _) => Err(RustlsError::InvalidCertificate(CertificateError::Expired)),
                (true, false) => {
                    Err(RustlsError::InvalidCertificate(CertificateError::NotValidForName))
                }
            };
        }
        let unknown = RustlsError::InvalidCertificate(CertificateError::UnknownIssuer);
        let paths = self.paths.as_ref().ok_or(unknown)?;
        paths.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
