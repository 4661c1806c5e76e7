//! The listening side: rules for each handshake, with files as they are now.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, SupportedProtocolVersion};

use crate::revoked::Revoked;
use crate::roots::Roots;
use crate::verifier::{Revocation, Verifier};
use crate::watched::Watched;
use crate::{Error, TlsInfo, files, suites};

/// One side's certificate and rules.
#[derive(Debug)]
pub struct Server {
    info: TlsInfo,
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    current: Mutex<Current>,
}

/// What the files say now.
struct Current {
    pair: Watched<Pair>,
    roots: Option<Watched<Arc<Roots>>>,
    revoked: Option<Watched<Option<Arc<Revoked>>>>,
    config: Arc<ServerConfig>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Current")
    }
}

/// A chain with its key; the chain tells it from another.
#[derive(Clone)]
pub(crate) struct Pair(pub(crate) Arc<CertifiedKey>);

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

impl Server {
    /// Reads all files.
    ///
    /// # Errors
    /// [`Error`]: what does not fit together, or the first file that cannot be used. A CRL that cannot be read is
    /// none: every certificate is refused until it can be, as in etcd.
    pub fn new(info: TlsInfo) -> Result<Self, Error> {
        let (cert, key) = info.pair()?;
        let provider = suites::provider(&info)?;
        if let Some((cert, key)) = info.client_pair()? {
            files::pair(cert, key, &provider)?;
        }
        if !info.allowed_cn.is_empty() && !info.allowed_hostname.is_empty() {
            let (cns, hostnames) = (info.allowed_cn.clone(), info.allowed_hostname.clone());
            return Err(Error::AllowedTwice { cns, hostnames });
        }
        if info.client_cert_auth && info.trusted_ca_file.is_none() {
            tracing::warn!(
                "client certificates are asked for, but there is no CA file: none is taken"
            );
        }
        let versions = suites::versions(&info);
        let pair = Watched::new(&[cert, key], || load_pair(cert, key, &provider))?;
        let roots = match &info.trusted_ca_file {
            Some(path) => Some(Watched::new(&[path], || Roots::load(path).map(Arc::new))?),
            None => None,
        };
        let revoked = info.crl_file.as_deref().map(first_list);
        let config = build(&info, &provider, &versions, (&pair, roots.as_ref(), revoked.as_ref()))?;
        let current = Mutex::new(Current { pair, roots, revoked, config });
        Ok(Self { info, provider, versions, current })
    }

    /// The rules for a handshake that begins now. Costs a look at the files' times, and building the rules anew
    /// when one of them changed.
    pub fn config(&self) -> Arc<ServerConfig> {
        // A panic while it is held cannot leave it half changed: what is replaced is replaced whole.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if self.refresh(&mut current) {
            let parts = (&current.pair, current.roots.as_ref(), current.revoked.as_ref());
            match build(&self.info, &self.provider, &self.versions, parts) {
                Ok(config) => current.config = config,
                Err(error) => tracing::error!(%error, "failed to use reloaded TLS files"),
            }
        }
        Arc::clone(&current.config)
    }

    /// The rules it was made with.
    pub fn info(&self) -> &TlsInfo {
        &self.info
    }

    fn refresh(&self, current: &mut Current) -> bool {
        let mut changed = false;
        if let Ok((cert, key)) = self.info.pair() {
            changed |= current.pair.refresh(|| load_pair(cert, key, &self.provider));
        }
        if let (Some(path), Some(roots)) = (&self.info.trusted_ca_file, &mut current.roots) {
            changed |= roots.refresh(|| Roots::load(path).map(Arc::new));
        }
        if let (Some(path), Some(revoked)) = (&self.info.crl_file, &mut current.revoked) {
            changed |= revoked.refresh(|| load_list(path));
        }
        changed
    }
}

pub(crate) fn load_pair(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<Pair, Error> {
    files::pair(cert, key, provider).map(Pair)
}

/// A list that cannot be read at the start does not keep the server from starting.
fn first_list(path: &Path) -> Watched<Option<Arc<Revoked>>> {
    Watched::new(&[path], || load_list(path)).unwrap_or_else(|error| {
        tracing::error!(%error, "no CRL: every client certificate is refused until it is there");
        Watched::starting_with(None, &[path])
    })
}

fn load_list(path: &Path) -> Result<Option<Arc<Revoked>>, Error> {
    Ok(Some(Arc::new(Revoked::load(path)?)))
}

type Parts<'a> =
    (&'a Watched<Pair>, Option<&'a Watched<Arc<Roots>>>, Option<&'a Watched<Option<Arc<Revoked>>>>);

fn build(
    info: &TlsInfo,
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    (pair, roots, revoked): Parts<'_>,
) -> Result<Arc<ServerConfig>, Error> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)?;
    let verifier: Arc<dyn rustls::server::danger::ClientCertVerifier> = if info.asks_clients() {
        Arc::new(Verifier {
            roots: roots.map(|roots| Arc::clone(roots.value())).unwrap_or_default(),
            revocation: match revoked.map(Watched::value) {
                None => Revocation::Unchecked,
                Some(None) => Revocation::Unknown,
                Some(Some(list)) => Revocation::Listed(Arc::clone(list)),
            },
            allowed_cn: info.allowed_cn.clone(),
            allowed_hostname: info.allowed_hostname.clone(),
            algorithms: provider.signature_verification_algorithms,
        })
    } else {
        WebPkiClientVerifier::no_client_auth()
    };
    let resolver: Arc<dyn ResolvesServerCert> =
        Arc::new(SingleCertAndKey::from(Arc::clone(&pair.value().0)));
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would skip the CA and the CRL of today.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
