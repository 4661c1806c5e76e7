//! A peer's addresses, and which of them is used.

use std::fmt;

use http::HeaderValue;
use parking_lot::Mutex;

use crate::Error;

/// Addresses of one peer. More are refused.
const URLS_MAX: usize = 64;

/// An address of a peer: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerUrl {
    text: String,
    pub(crate) secure: bool,
    pub(crate) place: Place,
    /// `host:port` as the URL has it, for the Host header.
    pub(crate) authority: HeaderValue,
}

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// An address without brackets, or a name.
    Tcp { host: String, port: u16 },
    /// What stands where host and port stand in other URLs is a path.
    Unix(String),
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl PeerUrl {
    /// # Errors
    /// [`Error::Url`] in etcd's words.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let refuse = |reason: &str| Error::Url(format!("{reason}: {text}"));
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let (secure, unix) = match scheme {
            "http" => (false, false),
            "https" => (true, false),
            "unix" => (false, true),
            "unixs" => (true, true),
            _ => return Err(refuse("URL scheme must be http, https, unix, or unixs")),
        };
        let authority = HeaderValue::from_str(rest).map_err(|_| refuse("URL is no URL"))?;
        let place = if unix {
            Place::Unix(rest.to_owned())
        } else if rest.contains(['/', '?', '#', '@']) {
            return Err(refuse("URL must not contain a path"));
        } else {
            let (host, port) = host_and_port(rest)
                .ok_or_else(|| refuse(r#"URL address does not have the form "host:port""#))?;
            Place::Tcp { host: host.to_owned(), port }
        };
        Ok(Self { text: text.to_owned(), secure, place, authority })
    }

    /// All of a member's addresses, in order.
    ///
    /// # Errors
    /// [`Error::Url`]: one of them is none, or there are none, or too many.
    pub(crate) fn parse_all<S: AsRef<str>>(urls: &[S]) -> Result<Vec<Self>, Error> {
        if urls.is_empty() || urls.len() > URLS_MAX {
            return Err(Error::Url("no valid URLs given".to_owned()));
        }
        let mut parsed: Vec<Self> =
            urls.iter().map(|url| Self::parse(url.as_ref())).collect::<Result<_, _>>()?;
        parsed.sort_by(|one, other| one.text.cmp(&other.text));
        Ok(parsed)
    }

    /// The name that a certificate must be for.
    pub(crate) fn host(&self) -> &str {
        match &self.place {
            Place::Tcp { host, .. } => host,
            Place::Unix(path) => path.split(':').next().unwrap_or_default(),
        }
    }
}

/// Takes brackets off an IPv6 address.
fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    match host.strip_prefix('[') {
        Some(rest) => Some((rest.strip_suffix(']')?, port)),
        None if host.is_empty() || host.contains(':') => None,
        None => Some((host, port)),
    }
}

/// Picks one of a peer's addresses, the same until it fails; then the next.
pub(crate) struct Picker(Mutex<Picked>);

struct Picked {
    urls: Vec<PeerUrl>,
    at: usize,
}

impl Picker {
    /// Of at least one address.
    pub(crate) fn new(urls: Vec<PeerUrl>) -> Self {
        Self(Mutex::new(Picked { urls, at: 0 }))
    }

    pub(crate) fn update(&self, urls: Vec<PeerUrl>) {
        *self.0.lock() = Picked { urls, at: 0 };
    }

    pub(crate) fn pick(&self) -> PeerUrl {
        let picked = self.0.lock();
        picked.urls[picked.at].clone()
    }

    /// Goes on to the next address, unless somebody else already did.
    pub(crate) fn unreachable(&self, url: &PeerUrl) {
        let mut picked = self.0.lock();
        if picked.urls[picked.at] == *url {
            picked.at = (picked.at + 1) % picked.urls.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart_and_others_refused_in_etcds_words() {
        let tcp = |host: &str, port| Place::Tcp { host: host.to_owned(), port };
        for (text, secure, place) in [
            ("http://127.0.0.1:2380", false, tcp("127.0.0.1", 2380)),
            ("https://[::1]:2380", true, tcp("::1", 2380)),
            (" http://a.example:1 ", false, tcp("a.example", 1)),
            ("unix://localhost:m1", false, Place::Unix("localhost:m1".to_owned())),
            ("unixs://m1", true, Place::Unix("m1".to_owned())),
        ] {
            let url = PeerUrl::parse(text).unwrap();
            assert_eq!((url.secure, url.place), (secure, place), "{text}");
        }
        for (text, reason) in [
            ("127.0.0.1:2380", "URL scheme must be http, https, unix, or unixs"),
            ("ftp://127.0.0.1:2380", "URL scheme must be http, https, unix, or unixs"),
            ("http://127.0.0.1", r#"URL address does not have the form "host:port""#),
            ("http://::1:1", r#"URL address does not have the form "host:port""#),
            ("http://[::1:1", r#"URL address does not have the form "host:port""#),
            ("http://:1", r#"URL address does not have the form "host:port""#),
            ("http://a:70000", r#"URL address does not have the form "host:port""#),
            ("http://a:1/", "URL must not contain a path"),
            ("http://a:1\n", ""),
        ] {
            match PeerUrl::parse(text) {
                Ok(_) => assert!(reason.is_empty(), "{text}"),
                Err(error) => assert_eq!(error.to_string(), format!("{reason}: {text}")),
            }
        }
    }

    #[test]
    fn a_failed_address_is_left_for_the_next_once() {
        let urls = PeerUrl::parse_all(&["http://a:1", "http://b:1"]).unwrap();
        let picker = Picker::new(urls.clone());
        picker.unreachable(&urls[0]);
        picker.unreachable(&urls[0]);
        assert_eq!(picker.pick(), urls[1]);
        picker.unreachable(&urls[1]);
        assert_eq!(picker.pick(), urls[0]);
        picker.update(urls[1..].to_vec());
        assert_eq!(picker.pick(), urls[1]);
    }
}
