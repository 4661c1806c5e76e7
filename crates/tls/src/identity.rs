//! Who a certificate is for: its names, and how a host name is compared with them.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::Error;

/// Names of one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The subject's last common name; empty when there is none.
    pub common_name: String,
    /// DNS names of the SAN.
    pub dns_names: Vec<String>,
    /// Addresses of the SAN.
    pub ip_addresses: Vec<IpAddr>,
}

impl Identity {
    /// The names in a certificate.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| Error::Malformed)?;
        Self::in_parsed(&parsed)
    }

    pub(crate) fn in_parsed(parsed: &X509Certificate<'_>) -> Result<Self, Error> {
        // As in Go, the last one counts, and one that is no text counts as none.
        let common_name = parsed.subject().iter_common_name().last();
        let mut identity = Self {
            common_name: common_name
                .and_then(|name| name.as_str().ok())
                .unwrap_or_default()
                .to_owned(),
            ..Self::default()
        };
        let names = parsed.subject_alternative_name().map_err(|_| Error::Malformed)?;
        for name in names.map(|extension| &extension.value.general_names).into_iter().flatten() {
            match name {
                GeneralName::DNSName(name) => identity.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => identity.ip_addresses.push(address(bytes)?),
                _ => {}
            }
        }
        Ok(identity)
    }

    /// Whether the certificate is for `host`, a name or an address. The common name does not count, as in Go.
    pub fn is_for(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return self
                .ip_addresses
                .iter()
                .any(|have| have.to_canonical() == address.to_canonical());
        }
        let host = host.to_ascii_lowercase();
        self.dns_names.iter().any(|pattern| {
            if is_host_name(&host, false) && is_host_name(pattern, true) {
                matches(&pattern.to_ascii_lowercase(), &host)
            } else {
                // Such names are compared as they are, so that odd private ones still work.
                !host.is_empty() && *pattern.to_ascii_lowercase() == host
            }
        })
    }
}

fn address(bytes: &[u8]) -> Result<IpAddr, Error> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(four.into());
    }
    <[u8; 16]>::try_from(bytes).map(IpAddr::from).map_err(|_| Error::Malformed)
}

/// Label by label; a `*` stands for the whole first label.
fn matches(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    if pattern.is_empty() || host.is_empty() {
        return false;
    }
    let (mut pattern, mut host) = (pattern.split('.'), host.split('.'));
    let mut first = true;
    loop {
        match (pattern.next(), host.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) if first => {}
            (Some(wanted), Some(label)) if wanted == label => {}
            _ => return false,
        }
        first = false;
    }
}

/// Letters, digits, inner hyphens and underscores in non-empty labels; a pattern may begin with `*`, a host may
/// end with a dot.
fn is_host_name(name: &str, pattern: bool) -> bool {
    let name = if pattern { name } else { name.strip_suffix('.').unwrap_or(name) };
    if name.is_empty() || name == "*" {
        return false;
    }
    name.split('.').enumerate().all(|(at, label)| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (pattern && at == 0 && label == "*")
            || (!label.is_empty() && !label.starts_with('-') && label.bytes().all(inner))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_for(names: &[&str], host: &str) -> bool {
        let mut identity = Identity::default();
        for name in names {
            match name.parse() {
                Ok(address) => identity.ip_addresses.push(address),
                Err(_) => identity.dns_names.push((*name).to_owned()),
            }
        }
        identity.is_for(host)
    }

    #[test]
    fn a_host_is_compared_label_by_label_without_case() {
        assert!(is_for(&["A.example"], "a.EXAMPLE"));
        assert!(is_for(&["a.example"], "a.example."));
        assert!(!is_for(&["a.example"], "b.a.example"));
        assert!(!is_for(&["a.example"], ""));
    }

    #[test]
    fn a_wildcard_stands_for_the_first_label_only() {
        assert!(is_for(&["*.example"], "a.example"));
        assert!(!is_for(&["*.example"], "b.a.example"));
        assert!(!is_for(&["*.example"], "example"));
        assert!(!is_for(&["a.*.example"], "a.b.example"));
        assert!(!is_for(&["*"], "example"));
    }

    #[test]
    fn an_address_is_compared_with_addresses_only() {
        assert!(is_for(&["127.0.0.1"], "127.0.0.1"));
        assert!(is_for(&["::1"], "[::1]"));
        assert!(is_for(&["127.0.0.1"], "::ffff:127.0.0.1"));
        assert!(!is_for(&["*.0.0.1"], "127.0.0.1"));
    }
}
