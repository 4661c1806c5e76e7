//! Cipher suites by Go's names, and the cryptography that goes with them.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion, version};

use crate::{Error, TlsInfo, Version};

/// Suites of Go that are not here: no forward secrecy, or modes with known attacks.
const ONLY_IN_GO: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// Name, suite.
const SUITES: [(&str, CipherSuite); 9] = [
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Whether all of these suites are there.
///
/// # Errors
/// [`Error::UnknownSuite`] or [`Error::SuiteNotHere`] for the first that is not.
pub fn check_names(names: &[String]) -> Result<(), Error> {
    names.iter().try_for_each(|name| find(name).map(|_| ()))
}

fn find(name: &str) -> Result<CipherSuite, Error> {
    // etcd takes the names that Go had at first, too.
    let full = match name {
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => {
            format!("{name}_SHA256")
        }
        _ => name.to_owned(),
    };
    match SUITES.iter().find(|(known, _)| *known == full) {
        Some((_, suite)) => Ok(*suite),
        None if ONLY_IN_GO.contains(&name) => {
            let known: Vec<_> = SUITES.iter().map(|(known, _)| *known).collect();
            Err(Error::SuiteNotHere { name: name.to_owned(), known: known.join(", ") })
        }
        None => Err(Error::UnknownSuite(name.to_owned())),
    }
}

/// The cryptography with the suites that the rules allow.
pub(crate) fn provider(info: &TlsInfo) -> Result<Arc<CryptoProvider>, Error> {
    let mut provider = aws_lc_rs::default_provider();
    if !info.cipher_suites.is_empty() {
        let wanted: Vec<_> =
            info.cipher_suites.iter().map(|name| find(name)).collect::<Result<_, _>>()?;
        // Go lets nobody choose among those of TLS 1.3.
        provider.cipher_suites.retain(|suite| {
            matches!(suite, SupportedCipherSuite::Tls13(_)) || wanted.contains(&suite.suite())
        });
    }
    Ok(Arc::new(provider))
}

/// The versions that the rules allow; a smallest version above the largest leaves none.
pub(crate) fn versions(info: &TlsInfo) -> Vec<&'static SupportedProtocolVersion> {
    let min = info.min_version.unwrap_or(Version::Tls12);
    let max = info.max_version.unwrap_or(Version::Tls13);
    [(Version::Tls13, &version::TLS13), (Version::Tls12, &version::TLS12)]
        .into_iter()
        .filter(|(version, _)| (min..=max).contains(version))
        .map(|(_, version)| version)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_suite_with_a_name_is_in_the_cryptography() {
        let provider = aws_lc_rs::default_provider();
        for (name, suite) in SUITES {
            assert!(provider.cipher_suites.iter().any(|have| have.suite() == suite), "{name}");
        }
        assert_eq!(provider.cipher_suites.len(), SUITES.len());
    }

    #[test]
    fn a_name_that_is_no_suite_is_refused_in_the_words_of_etcd() {
        let error =
            check_names(&names(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "X"])).unwrap_err();
        assert_eq!(error.to_string(), "unexpected TLS cipher suite \"X\"");
    }

    #[test]
    fn a_suite_of_go_that_is_not_here_names_those_that_are() {
        let error = check_names(&names(&["TLS_RSA_WITH_AES_128_CBC_SHA"])).unwrap_err().to_string();
        assert!(error.contains("TLS_RSA_WITH_AES_128_CBC_SHA"), "{error}");
        assert!(error.contains("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"), "{error}");
    }

    #[test]
    fn suites_of_tls_13_stay_when_others_are_chosen() {
        let info = TlsInfo {
            cipher_suites: names(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]),
            ..TlsInfo::default()
        };
        assert_eq!(provider(&info).unwrap().cipher_suites.len(), 4);
    }

    #[test]
    fn versions_lie_between_the_smallest_and_the_largest() {
        let count = |min, max| {
            versions(&TlsInfo { min_version: min, max_version: max, ..TlsInfo::default() }).len()
        };
        assert_eq!(count(None, None), 2);
        assert_eq!(count(Some(Version::Tls13), None), 1);
        assert_eq!(count(None, Some(Version::Tls12)), 1);
        assert_eq!(count(Some(Version::Tls13), Some(Version::Tls12)), 0);
    }
}
