//! Keys that sign and check tokens, for the methods that etcd takes.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding,
    RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};

use super::der::{self, BIT_STRING, INTEGER, OBJECT, SEQUENCE, Sequence};

/// A method, by its name in a token's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

pub(super) const METHODS: [(&str, Method); 13] = [
    ("HS256", Method::Hs256),
    ("HS384", Method::Hs384),
    ("HS512", Method::Hs512),
    ("RS256", Method::Rs256),
    ("RS384", Method::Rs384),
    ("RS512", Method::Rs512),
    ("PS256", Method::Ps256),
    ("PS384", Method::Ps384),
    ("PS512", Method::Ps512),
    ("ES256", Method::Es256),
    ("ES384", Method::Es384),
    ("ES512", Method::Es512),
    ("EdDSA", Method::EdDsa),
];

impl Method {
    pub(super) fn of_name(name: &str) -> Option<Self> {
        METHODS.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
    }

    pub(super) fn name(self) -> &'static str {
        METHODS.iter().find(|(_, method)| *method == self).map_or("", |(name, _)| name)
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            // Not asked for: these check by computing anew.
            Self::Hs256 | Self::Hs384 | Self::Hs512 | Self::Rs256 => {
                &signature::RSA_PKCS1_2048_8192_SHA256
            }
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::Es512 => &signature::ECDSA_P521_SHA512_FIXED,
            Self::EdDsa => &signature::ED25519,
        }
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        match self {
            Self::Hs256 => Some(hmac::HMAC_SHA256),
            Self::Hs384 => Some(hmac::HMAC_SHA384),
            Self::Hs512 => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }

    fn rsa(self) -> &'static dyn RsaEncoding {
        match self {
            Self::Rs384 => &signature::RSA_PKCS1_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_SHA512,
            Self::Ps256 => &signature::RSA_PSS_SHA256,
            Self::Ps384 => &signature::RSA_PSS_SHA384,
            Self::Ps512 => &signature::RSA_PSS_SHA512,
            _ => &signature::RSA_PKCS1_SHA256,
        }
    }

    fn ecdsa(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::Es384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            Self::Es512 => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
            _ => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        }
    }
}

/// A key pair, or only its public half.
pub(super) struct Key {
    method: Method,
    signs: Option<Signing>,
    public: Vec<u8>,
}

enum Signing {
    Hmac(Box<hmac::Key>),
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Key {
    /// The key in the contents of the files; for HS the private one is the secret itself.
    ///
    /// # Errors
    /// One line that says what is wrong, in etcd's words where it has any.
    pub(super) fn new(
        method: Method,
        private: Option<&[u8]>,
        public: Option<&[u8]>,
    ) -> Result<Self, String> {
        let private = private.filter(|bytes| !bytes.is_empty());
        let public = public.filter(|bytes| !bytes.is_empty());
        let signs = match (private, method.hmac()) {
            (Some(secret), Some(algorithm)) => {
                Some(Signing::Hmac(Box::new(hmac::Key::new(algorithm, secret))))
            }
            (None, Some(_)) => return Err("auth: missing key data".to_owned()),
            (Some(file), None) => Some(signing(method, file)?),
            (None, None) => None,
        };
        let given = match (public, method.hmac()) {
            (Some(file), None) => Some(
                public_key(method, file)
                    .ok_or("the public key file holds no key for this method")?,
            ),
            _ => None,
        };
        let own = signs.as_ref().and_then(Signing::public);
        let public = match (own, given) {
            (Some(own), Some(given)) if own != given => {
                return Err("auth: public and private keys don't match".to_owned());
            }
            (own, given) => own.or(given).unwrap_or_default(),
        };
        if signs.is_none() && public.is_empty() {
            return Err("auth: missing key data".to_owned());
        }
        Ok(Self { method, signs, public })
    }

    /// A signature; none with a public key alone.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self.signs.as_ref()? {
            Signing::Hmac(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
            Signing::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(self.method.rsa(), &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Signing::Ecdsa(pair) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
            Signing::Ed25519(pair) => Some(pair.sign(message).as_ref().to_vec()),
        }
    }

    /// Whether this key made the signature.
    pub(super) fn made(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.signs {
            Some(Signing::Hmac(key)) => hmac::verify(key, message, signature).is_ok(),
            _ => UnparsedPublicKey::new(self.method.verification(), &self.public)
                .verify(message, signature)
                .is_ok(),
        }
    }
}

impl Signing {
    fn public(&self) -> Option<Vec<u8>> {
        match self {
            Self::Hmac(_) => None,
            Self::Rsa(pair) => Some(pair.public_key().as_ref().to_vec()),
            Self::Ecdsa(pair) => Some(pair.public_key().as_ref().to_vec()),
            Self::Ed25519(pair) => Some(pair.public_key().as_ref().to_vec()),
        }
    }
}

fn signing(method: Method, file: &[u8]) -> Result<Signing, String> {
    let (label, der) = der::pem(file).ok_or("the private key file is no PEM file")?;
    let refused =
        |reason: aws_lc_rs::error::KeyRejected| format!("the private key is refused: {reason}");
    match (method, &label[..]) {
        (Method::EdDsa, "PRIVATE KEY") => {
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map(Signing::Ed25519).map_err(refused)
        }
        (Method::Es256 | Method::Es384 | Method::Es512, "PRIVATE KEY" | "EC PRIVATE KEY") => {
            EcdsaKeyPair::from_private_key_der(method.ecdsa(), &der)
                .map(Signing::Ecdsa)
                .map_err(refused)
        }
        (Method::EdDsa | Method::Es256 | Method::Es384 | Method::Es512, _) => {
            Err(format!("the private key file holds a {label}, which is no key for this method"))
        }
        (_, "PRIVATE KEY") => RsaKeyPair::from_pkcs8(&der).map(Signing::Rsa).map_err(refused),
        (_, "RSA PRIVATE KEY") => RsaKeyPair::from_der(&der).map(Signing::Rsa).map_err(refused),
        _ => Err(format!("the private key file holds a {label}, which is no key for this method")),
    }
}

/// A public key as the check of a signature takes it: of RSA the sequence of its two numbers, of a curve the point.
fn public_key(method: Method, file: &[u8]) -> Option<Vec<u8>> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    let (label, der) = der::pem(file)?;
    let object = match method {
        Method::Es256 | Method::Es384 | Method::Es512 => EC,
        Method::EdDsa => ED25519,
        _ => RSA,
    };
    let mut info = match &label[..] {
        "RSA PUBLIC KEY" if object == RSA => return Some(der),
        "PUBLIC KEY" => Sequence::of(&der)?,
        "CERTIFICATE" => key_info(&der)?,
        _ => return None,
    };
    let mut algorithm = info.sequence()?;
    if algorithm.next(OBJECT)? != object {
        return None;
    }
    Some(der::bits(info.next(BIT_STRING)?)?.to_vec())
}

/// The public key in a certificate: behind version, serial number, method, issuer, validity and subject.
fn key_info(der: &[u8]) -> Option<Sequence<'_>> {
    const VERSION: u8 = 0xa0;
    let mut certificate = Sequence::of(der)?.sequence()?;
    // A certificate of version 1 does not say so.
    let _ = certificate.next(VERSION);
    certificate.next(INTEGER)?;
    for _ in 0..4 {
        certificate.next(SEQUENCE)?;
    }
    certificate.sequence()
}
