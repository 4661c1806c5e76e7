//! `--auth-token`: a kind, then options as `name=value`, all with commas between.

use std::path::PathBuf;
use std::time::Duration;

use tracing::warn;

use super::Token;
use crate::go_values::GoDuration;

/// How long a signed token is good when nobody says.
const TTL_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// What the flag's value means.
pub(super) fn parse(text: &str) -> Token {
    let mut parts = text.split(',');
    let kind = parts.next().unwrap_or_default();
    let mut options = Vec::new();
    for part in parts {
        let Some((name, value)) = part.split_once('=') else { return Token::Invalid };
        if value.contains('=') || options.iter().any(|(known, _)| *known == name) {
            return Token::Invalid;
        }
        options.push((name, value));
    }
    match kind {
        "" => Token::Off,
        "simple" => Token::Simple,
        "jwt" => jwt(&options),
        _ => Token::Invalid,
    }
}

fn jwt(options: &[(&str, &str)]) -> Token {
    let option = |name| {
        let found = options.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value).filter(|value| !value.is_empty())
    };
    let known = ["sign-method", "pub-key", "priv-key", "ttl"];
    let unknown: Vec<&str> =
        options.iter().map(|(name, _)| *name).filter(|name| !known.contains(name)).collect();
    if !unknown.is_empty() {
        warn!(keys = ?unknown, "unknown JWT options");
    }
    let ttl = match option("ttl").map(GoDuration::parse) {
        None => TTL_DEFAULT,
        Some(Ok(ttl)) => ttl.saturating(),
        Some(Err(_)) => return Token::Invalid,
    };
    Token::Jwt {
        sign_method: option("sign-method").unwrap_or_default().to_owned(),
        public_key: option("pub-key").map(PathBuf::from),
        private_key: option("priv-key").map(PathBuf::from),
        ttl,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_options_are_read_as_etcd_reads_them() {
        assert_eq!(parse(""), Token::Off);
        assert_eq!(parse("simple"), Token::Simple);
        assert_eq!(parse("simple,x=y"), Token::Simple);
        let all = "jwt,pub-key=/a,priv-key=/b,sign-method=RS256,ttl=1h30m";
        let expected = Token::Jwt {
            sign_method: "RS256".to_owned(),
            public_key: Some("/a".into()),
            private_key: Some("/b".into()),
            ttl: Duration::from_secs(5400),
        };
        assert_eq!(parse(all), expected);
        let Token::Jwt { ttl, public_key, .. } = parse("jwt,sign-method=HS256,pub-key=,ttl=")
        else {
            panic!("no jwt")
        };
        assert_eq!((ttl, public_key), (TTL_DEFAULT, None));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in [
            "paseto",
            "simple,x",
            "jwt,sign-method=a=b",
            "jwt,ttl=1m,ttl=2m",
            "jwt,ttl=soon",
            "jwt,",
            " simple",
        ] {
            assert_eq!(parse(text), Token::Invalid, "{text:?}");
        }
    }
}
