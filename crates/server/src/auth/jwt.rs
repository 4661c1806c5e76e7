//! Tokens that say who they are for, signed: JSON Web Tokens as etcd makes and reads them.
//!
//! A token names its user, the revision of the auth store it was given at, and when it ends. Whoever has the public
//! key can check it, so every member does without having seen it before. The key files are read again when they have
//! changed; while new ones are no good, the old keys stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use etched_auth::Caller;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};

use super::key::{Key, Method};
use crate::config::JwtOptions;
use crate::error::Error;

/// Time between two looks at the key files.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Signs and checks tokens.
pub(crate) struct Jwt {
    method: Method,
    options: JwtOptions,
    key: RwLock<Key>,
    looked: Mutex<Looked>,
}

/// The key files as they were last looked at.
struct Looked {
    at: Instant,
    files: [Option<Stamp>; 2],
    /// Why the last look failed: said once, tried again at each look.
    failure: Option<String>,
}

/// Tells a file from one that was written later.
type Stamp = (SystemTime, u64);

impl Jwt {
    /// # Errors
    /// One line that says what is wrong with the options or with the keys.
    pub(super) fn new(options: JwtOptions) -> Result<Self, String> {
        let method = Method::of_name(&options.sign_method).ok_or_else(|| {
            format!("auth: invalid auth options: sign method {:?}", options.sign_method)
        })?;
        let files = stamps(&options);
        let key = read_key(method, &options)?;
        Ok(Self {
            method,
            options,
            key: RwLock::new(key),
            looked: Mutex::new(Looked { at: Instant::now(), files, failure: None }),
        })
    }

    /// A token for a user.
    ///
    /// # Errors
    /// [`Error::VerifyOnly`].
    pub(super) fn sign(&self, username: &str, revision: u64) -> Result<String, Error> {
        self.look(Instant::now());
        let ends = unix_seconds() + self.options.ttl.as_secs() as i64;
        self.token(&json!({ "exp": ends, "revision": revision, "username": username }))
            .ok_or(Error::VerifyOnly)
    }

    fn token(&self, claims: &Value) -> Option<String> {
        let head = json!({ "alg": self.method.name(), "typ": "JWT" });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&head), encode(claims));
        let signature = self.key.read().sign(text.as_bytes())?;
        Some(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Who a token is for; none when it is no good.
    pub(super) fn caller(&self, token: &str) -> Option<Caller> {
        self.look(Instant::now());
        let (text, signature) = token.rsplit_once('.')?;
        let (head, claims) = text.split_once('.')?;
        if decode(head)?.get("alg")?.as_str()? != self.method.name() {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if !self.key.read().made(text.as_bytes(), &signature) {
            return None;
        }
        let claims = decode(claims)?;
        let now = unix_seconds() as f64;
        let moment = |name| match claims.get(name) {
            None => Some(None),
            Some(moment) => moment.as_f64().map(Some),
        };
        if moment("exp")?.is_some_and(|ends| now >= ends) {
            return None;
        }
        if moment("nbf")?.is_some_and(|begins| now < begins) {
            return None;
        }
        let username = claims.get("username")?.as_str()?.to_owned();
        Some(Caller { username, revision: claims.get("revision")?.as_f64()? as u64 })
    }

    /// Reads the keys again when their files have changed.
    fn look(&self, now: Instant) {
        let mut looked = self.looked.lock();
        if now.saturating_duration_since(looked.at) < LOOK_INTERVAL {
            return;
        }
        looked.at = now;
        let files = stamps(&self.options);
        if files == looked.files {
            return;
        }
        match read_key(self.method, &self.options) {
            Ok(key) => {
                *self.key.write() = key;
                looked.files = files;
                looked.failure = None;
                tracing::info!("read the changed keys of auth tokens");
            }
            Err(reason) => {
                if looked.failure.as_ref() != Some(&reason) {
                    tracing::error!(
                        reason,
                        "the changed keys of auth tokens are no good; the old ones stay"
                    );
                }
                looked.failure = Some(reason);
            }
        }
    }
}

fn decode(part: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn unix_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64
}

fn stamps(options: &JwtOptions) -> [Option<Stamp>; 2] {
    [&options.private_key, &options.public_key].map(|path| {
        let file = fs::metadata(path.as_ref()?).ok()?;
        Some((file.modified().ok()?, file.len()))
    })
}

fn read_key(method: Method, options: &JwtOptions) -> Result<Key, String> {
    let read = |path: &Option<PathBuf>| path.as_deref().map(read_file).transpose();
    let (private, public) = (read(&options.private_key)?, read(&options.public_key)?);
    Key::new(method, private.as_deref(), public.as_deref())
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path)
        .map_err(|error| format!("auth: invalid auth options: open {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(method: &str, private: Option<&str>, public: Option<&str>) -> JwtOptions {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/auth/test_keys");
        let path = |name: &str| folder.join(name);
        JwtOptions {
            sign_method: method.to_owned(),
            private_key: private.map(path),
            public_key: public.map(path),
            ttl: Duration::from_secs(60),
        }
    }

    fn jwt(method: &str, private: Option<&str>, public: Option<&str>) -> Jwt {
        Jwt::new(options(method, private, public))
            .unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn refused(method: &str, private: Option<&str>, public: Option<&str>) -> String {
        Jwt::new(options(method, private, public)).err().expect("refused")
    }

    #[test]
    fn every_method_and_form_of_a_key_signs_and_checks() {
        let rows = [
            ("HS256", "rsa.pem", None),
            ("HS384", "rsa.pem", None),
            ("HS512", "rsa.pem", None),
            ("RS256", "rsa.pem", Some("rsa.pub.pem")),
            ("RS384", "rsa.pkcs8.pem", Some("rsa.cert.pem")),
            ("RS512", "rsa.pem", Some("rsa.pkcs1.pub.pem")),
            ("PS256", "rsa.pem", Some("rsa.pub.pem")),
            ("PS384", "rsa.pem", Some("rsa.pub.pem")),
            ("PS512", "rsa.pem", Some("rsa.pub.pem")),
            ("ES256", "ec.pem", Some("ec.pub.pem")),
            ("ES256", "ec.pkcs8.pem", Some("ec.pub.pem")),
            ("ES384", "ec384.pem", None),
            ("ES512", "ec521.pem", None),
            ("EdDSA", "ed.pem", Some("ed.pub.pem")),
        ];
        for (method, private, public) in rows {
            let signing = jwt(method, Some(private), public);
            let token = signing.sign("alice", 7).expect("a token");
            let alice = Some(Caller { username: "alice".to_owned(), revision: 7 });
            assert_eq!(signing.caller(&token), alice, "{method} with {private}");
            if public.is_some() {
                let checking = jwt(method, None, public);
                assert_eq!(checking.caller(&token), alice, "{method} with {public:?}");
                assert_eq!(checking.sign("alice", 7), Err(Error::VerifyOnly));
            }
        }
    }

    #[test]
    fn a_token_that_was_changed_or_that_another_key_made_is_no_good() {
        let own = jwt("RS256", Some("rsa.pem"), None);
        let token = own.sign("alice", 7).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let claims = URL_SAFE_NO_PAD.encode(r#"{"revision":7,"username":"root"}"#);
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let hmac = jwt("HS256", Some("rsa.pub.pem"), None).sign("root", 7).unwrap();
        let other = jwt("RS256", Some("other.pem"), None).sign("root", 7).unwrap();
        let pss = jwt("PS256", Some("rsa.pem"), None).sign("root", 7).unwrap();
        for bad in [
            format!("{}.{claims}.{}", parts[0], parts[2]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{none}.{claims}."),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{token}="),
            format!("x.{token}"),
            hmac,
            other,
            pss,
            String::new(),
            "..".to_owned(),
        ] {
            assert_eq!(own.caller(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_is_good_between_its_moments_and_says_all_that_it_has_to() {
        let jwt = jwt("HS256", Some("ec.pem"), None);
        let read = |claims: Value| jwt.caller(&jwt.token(&claims).unwrap());
        let (past, future) = (unix_seconds() - 5, unix_seconds() + 60);
        let root = Some(Caller { username: "root".to_owned(), revision: 3 });
        assert_eq!(read(json!({"username": "root", "revision": 3, "exp": future})), root);
        assert_eq!(read(json!({"username": "root", "revision": 3.0})), root, "no end is allowed");
        for claims in [
            json!({"username": "root", "revision": 3, "exp": past}),
            json!({"username": "root", "revision": 3, "nbf": future}),
            json!({"username": "root", "revision": 3, "exp": "soon"}),
            json!({"username": "root", "revision": "3"}),
            json!({"username": 1, "revision": 3}),
            json!({"username": "root"}),
            json!({"revision": 3}),
            json!(["root", 3]),
        ] {
            assert_eq!(read(claims.clone()), None, "{claims}");
        }
    }

    #[test]
    fn keys_that_cannot_be_used_are_refused_at_the_start() {
        let missing = "auth: missing key data";
        assert_eq!(refused("RS256", None, None), missing);
        assert_eq!(refused("HS256", None, Some("rsa.pub.pem")), missing);
        assert!(refused("ES257", Some("ec.pem"), None).starts_with("auth: invalid auth options"));
        assert!(refused("none", None, None).starts_with("auth: invalid auth options"));
        let file = refused("RS256", Some("gone.pem"), None);
        assert!(file.starts_with("auth: invalid auth options: open "), "{file}");
        let mismatch = "auth: public and private keys don't match";
        assert_eq!(refused("RS256", Some("other.pem"), Some("rsa.pub.pem")), mismatch);
        for (method, private) in [("RS256", "ec.pem"), ("ES256", "rsa.pem"), ("ES256", "ec384.pem")]
        {
            assert!(!refused(method, Some(private), None).is_empty());
        }
        assert!(refused("ES256", None, Some("rsa.pub.pem")).contains("no key for this method"));
        assert!(refused("RS256", None, Some("ed.pub.pem")).contains("no key for this method"));
    }

    #[test]
    fn changed_keys_are_read_again_and_bad_ones_are_not_taken() {
        let folder = std::env::temp_dir().join(format!("etched-jwt-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("key");
        fs::write(&path, "first").unwrap();
        let options = JwtOptions {
            sign_method: "HS256".to_owned(),
            private_key: Some(path.clone()),
            public_key: None,
            ttl: Duration::from_secs(60),
        };
        let jwt = Jwt::new(options).unwrap();
        let token = jwt.sign("alice", 7).unwrap();
        fs::write(&path, "another").unwrap();
        jwt.look(Instant::now() + LOOK_INTERVAL);
        assert_eq!(jwt.caller(&token), None);
        let token = jwt.sign("alice", 7).unwrap();
        fs::write(&path, "").unwrap();
        jwt.look(Instant::now() + 2 * LOOK_INTERVAL);
        assert!(jwt.caller(&token).is_some(), "the old key stays");
        fs::remove_dir_all(&folder).unwrap();
    }

    /// Everybody may send a token. The same parts are signed too, so that what stands behind the signature is reached.
    #[test]
    fn fuzzed_tokens_are_nobodys_unless_signed() {
        let jwt = jwt("HS256", Some("ec.pem"), None);
        let good = jwt.sign("alice", 7).unwrap();
        let claims = good.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let seeds = [good.clone().into_bytes(), claims.unwrap()];
        let words =
            ["\"exp\":", "\"nbf\":", "\"revision\":", "\"username\":", "1e400", "-1", "null", "."];
        let target = etched_fuzz::Target::new(env!("CARGO_MANIFEST_DIR"), "jwt");
        target.seeds(seeds).words(&words).bytes_max(1024).memory(64 << 10, 64).run(|input| {
            let token = String::from_utf8_lossy(input);
            assert_eq!(jwt.caller(&token).is_some(), token == *good, "{token}");
            let head = URL_SAFE_NO_PAD.encode(json!({ "alg": "HS256" }).to_string());
            let text = format!("{head}.{}", URL_SAFE_NO_PAD.encode(input));
            let signature = jwt.key.read().sign(text.as_bytes()).unwrap();
            let signed = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
            jwt.caller(&signed)
                .map_or(0, |caller| etched_fuzz::shape(&[1, caller.revision as usize]))
        });
    }

    /// The first byte chooses the method and which of the two files the rest is.
    #[test]
    fn fuzzed_key_files_hold_a_key_or_are_refused() {
        let files =
            ["rsa.pem", "rsa.pub.pem", "rsa.cert.pem", "rsa.pkcs8.pem", "rsa.pkcs1.pub.pem"];
        let files = files.iter().zip([3, 131, 131, 3, 131]);
        let small = ["ec.pem", "ec.pub.pem", "ec.pkcs8.pem", "ed.pem", "ed.pub.pem"];
        let small = small.iter().zip([9, 137, 9, 12, 140]);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/auth/test_keys");
        let seeds = files
            .chain(small)
            .map(|(name, how)| [vec![how], fs::read(folder.join(name)).unwrap()].concat());
        let target = etched_fuzz::Target::new(env!("CARGO_MANIFEST_DIR"), "key-files");
        target.seeds(seeds).memory(64 << 10, 64).run(|input| {
            let Some((how, file)) = input.split_first() else { return 0 };
            let method = super::super::key::METHODS[usize::from(how & 0x7f) % 13].1;
            let (private, public) =
                if how & 0x80 == 0 { (Some(file), None) } else { (None, Some(file)) };
            match Key::new(method, private, public) {
                Ok(key) => {
                    let made =
                        key.sign(b"text").is_none_or(|signature| key.made(b"text", &signature));
                    assert!(made, "what a key signs it also checks");
                    etched_fuzz::shape(&[1, usize::from(how % 13)])
                }
                Err(reason) => etched_fuzz::outcome(&reason),
            }
        });
    }
}
