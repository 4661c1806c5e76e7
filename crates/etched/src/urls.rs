//! Lists of URLs as etcd's flags take them, with Go's words for what is wrong with one.
//!
//! Only what etcd accepts parses: `http` and `https` with host and port and no path, `unix` and
//! `unixs` with a path. The texts of errors are Go's, because operators search for them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::go_values::quote;

/// A URL that a server can listen on or advertise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    /// As Go prints it; first, because lists are sorted by it.
    text: String,
    scheme: Scheme,
    authority: String,
    path: String,
}

/// How to talk to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS over TCP.
    Https,
    /// Plain unix socket.
    Unix,
    /// TLS over a unix socket.
    Unixs,
}

/// What is wrong with a URL, in etcd's or Go's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlError(String);

impl fmt::Display for UrlError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for UrlError {}

impl Url {
    /// The URL in `text`, without spaces around it.
    ///
    /// # Errors
    /// [`UrlError`] when etcd would not take it.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let parts =
            split(text).map_err(|reason| UrlError(format!("parse {}: {reason}", quote(text))))?;
        let scheme = match parts.scheme.as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => {
                let known = "URL scheme must be http, https, unix, or unixs";
                return Err(UrlError(format!("{known}: {text}")));
            }
        };
        if !scheme.is_unix() {
            if split_host_port(&parts.authority).is_none() {
                let form = "URL address does not have the form \"host:port\"";
                return Err(UrlError(format!("{form}: {text}")));
            }
            if !parts.path.is_empty() {
                return Err(UrlError(format!("URL must not contain a path: {text}")));
            }
        }
        let normal = format!("{}:{}", parts.scheme, parts.after_scheme);
        Ok(Self { text: normal, scheme, authority: parts.authority, path: parts.path })
    }

    /// The URLs of a comma-separated list, sorted by their text, without duplicates.
    ///
    /// # Errors
    /// [`UrlError`] of the first that is none.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, UrlError> {
        let mut urls = text.split(',').map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    /// The URL as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// `host:port`, or what stands between `//` and the path of a unix URL.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host without brackets; for unix URLs whatever stands there.
    pub fn host(&self) -> &str {
        split_host_port(&self.authority).map_or(&self.authority, |(host, _)| host)
    }

    /// The port as written; may be empty.
    pub fn port(&self) -> &str {
        split_host_port(&self.authority).map_or("", |(_, port)| port)
    }

    /// The socket file of a unix URL: an absolute path, or a name in the working directory.
    pub fn socket_path(&self) -> Option<PathBuf> {
        self.scheme.is_unix().then(|| PathBuf::from(format!("{}{}", self.authority, self.path)))
    }

    /// What to bind for an http or https URL whose host is an address or `localhost`.
    ///
    /// `localhost` is 127.0.0.1, as etcd binds it; an empty port lets the system choose.
    pub fn bind_address(&self) -> Option<SocketAddr> {
        if self.scheme.is_unix() {
            return None;
        }
        let ip = match self.host() {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host.parse().ok()?,
        };
        let port = if self.port().is_empty() { 0 } else { self.port().parse().ok()? };
        Some(SocketAddr::new(ip, port))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Scheme {
    /// A unix socket.
    pub fn is_unix(self) -> bool {
        matches!(self, Self::Unix | Self::Unixs)
    }

    /// TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Unixs)
    }
}

/// The URLs with commas between them.
pub fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}

/// Host and port of `host:port` or `[host]:port`; none when there is no port or it is ambiguous.
pub fn split_host_port(authority: &str) -> Option<(&str, &str)> {
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        let port = rest.strip_prefix(':')?;
        return (!port.contains([':', '[', ']'])).then_some((host, port));
    }
    let (host, port) = authority.rsplit_once(':')?;
    (!host.contains([':', '[', ']']) && !port.contains(['[', ']'])).then_some((host, port))
}

struct Parts {
    scheme: String,
    after_scheme: String,
    authority: String,
    path: String,
}

/// The generic part of a URL, in the order in which Go looks at it.
fn split(text: &str) -> Result<Parts, String> {
    if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err("net/url: invalid control character in URL".into());
    }
    let (scheme, rest) = split_scheme(text)?;
    let after_scheme = rest.to_owned();
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    if !rest.starts_with('/') && scheme.is_empty() {
        let segment = rest.split('/').next().unwrap_or_default();
        if segment.contains(':') {
            return Err("first path segment in URL cannot contain colon".into());
        }
    }
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        // `unix:name` has neither: Go calls it opaque.
        None if !rest.starts_with('/') && !scheme.is_empty() => ("", ""),
        None => ("", rest),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    check_host(host)?;
    check_escapes(path, |_| true)?;
    Ok(Parts { scheme, after_scheme, authority: host.to_owned(), path: path.to_owned() })
}

fn split_scheme(text: &str) -> Result<(String, &str), String> {
    for (at, character) in text.char_indices() {
        match character {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme".into()),
            ':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    Ok((String::new(), text))
}

fn check_host(host: &str) -> Result<(), String> {
    let port = if host.starts_with('[') {
        let end = host.rfind(']').ok_or("missing ']' in host")?;
        &host[end + 1..]
    } else {
        host.find(':').map_or("", |at| &host[at..])
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let valid = port.is_empty() || port.starts_with(':');
    if !valid || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("invalid port {} after host", quote(port)));
    }
    // Only bytes outside ASCII may be escaped in a host.
    check_escapes(host, |byte| byte >= 0x80)?;
    let allowed = |character: char| {
        !character.is_ascii()
            || character.is_ascii_alphanumeric()
            || "-_.~!$&'()*+,;=:[]<>\"%".contains(character)
    };
    match host.chars().find(|character| !allowed(*character)) {
        Some(bad) => Err(format!("invalid character {} in host name", quote(&bad.to_string()))),
        None => Ok(()),
    }
}

fn check_escapes(text: &str, allowed: impl Fn(u8) -> bool) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let digits = text.get(at + 1..at + 3);
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if !byte.is_some_and(&allowed) {
            let end = (at..=at + 3).rev().find(|end| text.is_char_boundary(*end));
            let escape = &text[at..end.unwrap_or(at).min(text.len())];
            return Err(format!("invalid URL escape {}", quote(escape)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Url::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_told_in_the_words_of_etcd() {
        for (text, words) in [
            ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            ("localhost:2379", "URL scheme must be http, https, unix, or unixs: localhost:2379"),
            ("http://foo", "URL address does not have the form \"host:port\": http://foo"),
            ("http://foo:1/x", "URL must not contain a path: http://foo:1/x"),
            (":2379", "parse \":2379\": missing protocol scheme"),
            (
                "127.0.0.1:2379",
                "parse \"127.0.0.1:2379\": first path segment in URL cannot contain colon",
            ),
            ("http://a b:1", "parse \"http://a b:1\": invalid character \" \" in host name"),
            ("http://a:b", "parse \"http://a:b\": invalid port \":b\" after host"),
            ("http://[::1", "parse \"http://[::1\": missing ']' in host"),
            ("http://%zz:1", "parse \"http://%zz:1\": invalid URL escape \"%zz\""),
            ("http://::1:2379", "parse \"http://::1:2379\": invalid port \"::1:2379\" after host"),
            ("http://a:1%", "parse \"http://a:1%\": invalid port \":1%\" after host"),
        ] {
            assert_eq!(refused(text), words, "{text}");
        }
    }

    #[test]
    fn host_and_port_come_apart() {
        let url = Url::parse(" HTTP://[::1]:2379 ").unwrap();
        assert_eq!((url.host(), url.port(), url.as_str()), ("::1", "2379", "http://[::1]:2379"));
        assert_eq!(url.bind_address(), Some("[::1]:2379".parse().unwrap()));
        let local = Url::parse("http://localhost:2379").unwrap();
        assert_eq!(local.bind_address(), Some("127.0.0.1:2379".parse().unwrap()));
        assert_eq!(Url::parse("http://example.com:1").unwrap().bind_address(), None);
    }

    #[test]
    fn a_unix_url_names_a_file() {
        let path = |text: &str| Url::parse(text).unwrap().socket_path();
        assert_eq!(path("unix:///run/etcd.sock"), Some(PathBuf::from("/run/etcd.sock")));
        assert_eq!(path("unix://localhost:2379"), Some(PathBuf::from("localhost:2379")));
        assert_eq!(path("http://localhost:2379"), None);
    }

    #[test]
    fn a_list_is_sorted_and_names_each_once() {
        let urls = Url::parse_list("http://b:1, http://a:1,http://b:1").unwrap();
        assert_eq!(join(&urls), "http://a:1,http://b:1");
        assert_eq!(
            Url::parse_list("http://a:1,").unwrap_err().to_string(),
            "URL scheme must be http, https, unix, or unixs: "
        );
    }
}
