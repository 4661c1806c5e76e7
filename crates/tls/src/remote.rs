//! Whether a certificate's names are those of the address that its holder comes from.
//!
//! etcd's rule for members: a certificate without names may come from anywhere; one with addresses must have the
//! remote one, or else a DNS name that the remote address has, by reverse look-up or by look-up of the name.

use std::net::IpAddr;

use crate::{Error, Identity};

/// DNS and the hosts file, as far as they are needed.
pub trait Lookup {
    /// Names of an address.
    ///
    /// # Errors
    /// Why there are none.
    fn names(&self, address: IpAddr) -> std::io::Result<Vec<String>>;

    /// Addresses of a name.
    ///
    /// # Errors
    /// Why there are none.
    fn addresses(&self, name: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// Whether the holder of this certificate may come from `remote`; may wait for DNS.
///
/// # Errors
/// [`Error::Remote`] in etcd's words.
pub fn check_remote(
    identity: &Identity,
    remote: IpAddr,
    lookup: &impl Lookup,
) -> Result<(), Error> {
    let remote = remote.to_canonical();
    if identity.dns_names.is_empty() && identity.ip_addresses.is_empty() {
        return Ok(());
    }
    if identity.is_for(&remote.to_string()) {
        return Ok(());
    }
    if identity.dns_names.is_empty() {
        let have: Vec<_> = identity.ip_addresses.iter().map(ToString::to_string).collect();
        let have = have.join(", ");
        return Err(Error::Remote(format!("x509: certificate is valid for {have}, not {remote}")));
    }
    let mut failure = None;
    if by_reverse(identity, remote, lookup, &mut failure)
        || by_name(identity, remote, lookup, &mut failure)
    {
        return Ok(());
    }
    let why = failure.map(|error| format!(" ({error})")).unwrap_or_default();
    let names = identity.dns_names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>();
    let (remote, names) = (remote.to_string(), names.join(" "));
    Err(Error::Remote(format!("tls: {remote:?} does not match any of DNSNames [{names}]{why}")))
}

/// A name of the address is one of the certificate's, or ends as one of its wildcards does, in any depth.
fn by_reverse(
    identity: &Identity,
    remote: IpAddr,
    lookup: &impl Lookup,
    failure: &mut Option<std::io::Error>,
) -> bool {
    let names = lookup.names(remote).unwrap_or_else(|error| {
        *failure = Some(error);
        Vec::new()
    });
    names.iter().any(|name| {
        let name = name.strip_suffix('.').unwrap_or(name);
        identity.dns_names.iter().any(|have| match have.strip_prefix('*') {
            Some(end) if end.starts_with('.') => name.ends_with(end),
            _ => have == name,
        })
    })
}

/// One of the certificate's names has the address.
fn by_name(
    identity: &Identity,
    remote: IpAddr,
    lookup: &impl Lookup,
    failure: &mut Option<std::io::Error>,
) -> bool {
    let names = identity.dns_names.iter().filter(|name| !name.starts_with("*."));
    for name in names {
        match lookup.addresses(name) {
            Ok(have) if have.iter().any(|have| have.to_canonical() == remote) => return true,
            Ok(_) => {}
            Err(error) => *failure = Some(error),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "10.0.0.1";

    /// 10.0.0.1 is `a.b.example`, and `a.b.example` and `alias.example` are 10.0.0.1.
    struct Book;

    impl Lookup for Book {
        fn names(&self, address: IpAddr) -> std::io::Result<Vec<String>> {
            if address.to_string() == HERE {
                Ok(vec!["a.b.example.".into()])
            } else {
                Err(std::io::Error::other("no such address"))
            }
        }

        fn addresses(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
            match name {
                "a.b.example" | "alias.example" => Ok(vec![HERE.parse().unwrap()]),
                _ => Err(std::io::Error::other("no such host")),
            }
        }
    }

    fn check(names: &[&str], remote: &str) -> Result<(), String> {
        let mut identity = Identity::default();
        for name in names {
            match name.parse() {
                Ok(address) => identity.ip_addresses.push(address),
                Err(_) => identity.dns_names.push((*name).to_owned()),
            }
        }
        let remote = remote.parse().unwrap();
        check_remote(&identity, remote, &Book).map_err(|error| error.to_string())
    }

    #[test]
    fn a_certificate_without_names_may_come_from_anywhere() {
        assert_eq!(check(&[], "192.0.2.9"), Ok(()));
    }

    #[test]
    fn an_address_must_be_the_remote_one() {
        assert_eq!(check(&[HERE], HERE), Ok(()));
        assert_eq!(check(&[HERE], "::ffff:10.0.0.1"), Ok(()));
        assert_eq!(
            check(&["10.0.0.2"], HERE),
            Err("x509: certificate is valid for 10.0.0.2, not 10.0.0.1".into())
        );
    }

    #[test]
    fn a_name_counts_by_reverse_look_up_or_by_its_addresses() {
        assert_eq!(check(&["a.b.example"], HERE), Ok(()));
        assert_eq!(check(&["alias.example"], HERE), Ok(()));
        assert_eq!(check(&["10.0.0.2", "alias.example"], HERE), Ok(()));
        assert_eq!(
            check(&["c.example"], HERE),
            Err("tls: \"10.0.0.1\" does not match any of DNSNames [\"c.example\"] (no such host)"
                .into())
        );
    }

    #[test]
    fn a_wildcard_counts_in_any_depth_by_reverse_look_up_only() {
        assert_eq!(check(&["*.example"], HERE), Ok(()));
        assert!(check(&["*.other"], HERE).is_err());
        assert!(check(&["*.example"], "192.0.2.9").is_err());
    }
}
