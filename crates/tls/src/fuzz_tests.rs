//! Certificates that clients show, and files, with anything in them.

use std::sync::Arc;

use etched_fuzz::{Target, outcome, shape};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;
use time::{Duration, OffsetDateTime};

use crate::revoked::Revoked;
use crate::roots::Roots;
use crate::verifier::{Revocation, Verifier};
use crate::{Identity, files, reason};

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

struct Chain {
    root: rcgen::Certificate,
    intermediate: rcgen::Certificate,
    leaf: rcgen::Certificate,
    key: KeyPair,
    /// A CRL.
    revoked: Vec<u8>,
}

fn chain() -> Chain {
    let params = |name: &str, authority: bool| {
        let names = vec!["a.example".to_owned(), "127.0.0.1".to_owned(), "*.b".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if authority {
            params.subject_alt_names.clear();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::CrlSign, KeyUsagePurpose::KeyCertSign];
        }
        params
    };
    let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
    let [root_key, intermediate_key, key] = keys;
    let (root_params, intermediate_params) = (params("root", true), params("between", true));
    let root = root_params.self_signed(&root_key).unwrap();
    let issuer = Issuer::from_params(&root_params, &root_key);
    let intermediate = intermediate_params.signed_by(&intermediate_key, &issuer).unwrap();
    let issuer = Issuer::from_params(&intermediate_params, &intermediate_key);
    let leaf = params("alice", false).signed_by(&key, &issuer).unwrap();
    let revoked = revoked_by(&issuer);
    Chain { root, intermediate, leaf, key, revoked }
}

fn revoked_by(issuer: &Issuer<'_, &KeyPair>) -> Vec<u8> {
    let now = OffsetDateTime::now_utc();
    let revoked = [1_u64, 200, u64::MAX].map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(serial),
        revocation_time: now,
        reason_code: None,
        invalidity_date: None,
    });
    let list = CertificateRevocationListParams {
        this_update: now,
        next_update: now + Duration::days(1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.to_vec(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).unwrap().der().to_vec()
}

/// What a client sends before anybody knows who it is: a leaf behind two bytes of length, and an intermediate.
#[test]
fn fuzzed_chains_of_clients_are_good_or_refused() {
    let made = chain();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, made.root.pem()).unwrap();
    let verifier = Verifier {
        roots: Arc::new(Roots::load(&path).unwrap()),
        revocation: Revocation::Listed(Arc::new(Revoked::default())),
        allowed_cn: Vec::new(),
        allowed_hostname: vec!["x.b".to_owned()],
        algorithms: aws_lc_rs::default_provider().signature_verification_algorithms,
    };
    let seed = |leaf: &[u8], between: &[u8]| {
        [&(leaf.len() as u16).to_be_bytes()[..], leaf, between].concat()
    };
    let (leaf, between, root) = (made.leaf.der(), made.intermediate.der(), made.root.der());
    let seeds = [seed(leaf, between), seed(root, between), seed(between, root)];
    let mut taken = 0;
    Target::new(FOLDER, "chains").seeds(seeds).memory(256 << 10, 64).run(|input| {
        let Some((length, rest)) = input.split_first_chunk::<2>() else { return 0 };
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (sent, next) = rest.split_at(length);
        let (sent, next) = (CertificateDer::from(sent), CertificateDer::from(next));
        let identity = Identity::of(&sent);
        match verifier.verify_client_cert(&sent, std::slice::from_ref(&next), UnixTime::now()) {
            Ok(_) => {
                taken += 1;
                assert_eq!(
                    identity.ok().map(|identity| identity.common_name),
                    Some("alice".to_owned())
                );
                assert_eq!(
                    (&sent, next.as_ref()),
                    (leaf, between.as_ref()),
                    "a signed one was changed"
                );
                1
            }
            Err(error) => outcome(&reason(&error)) ^ shape(&[usize::from(identity.is_ok())]),
        }
    });
    assert!(taken > 0);
}

/// The first byte says which file the rest is.
#[test]
fn fuzzed_files_are_read_or_refused() {
    let made = chain();
    let folder = tempfile::tempdir().unwrap();
    let (path, cert) = (folder.path().join("file"), folder.path().join("cert.pem"));
    std::fs::write(&cert, made.leaf.pem()).unwrap();
    let provider = aws_lc_rs::default_provider();
    let seeds = [
        [&[0][..], made.root.pem().as_bytes(), made.leaf.pem().as_bytes()].concat(),
        [&[1][..], &made.revoked].concat(),
        [&[2][..], made.key.serialize_pem().as_bytes()].concat(),
    ];
    let words =
        ["-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n", "-----BEGIN ", "\n", "="];
    Target::new(FOLDER, "files").seeds(seeds).words(&words).memory(256 << 10, 64).run(|input| {
        let Some((which, content)) = input.split_first() else { return 0 };
        std::fs::write(&path, content).unwrap();
        let result = match which % 3 {
            0 => Roots::load(&path).map(|roots| roots.subjects().len()),
            1 => Revoked::load(&path).map(|list| usize::from(list.contains(&[1]))),
            _ => files::pair(&cert, &path, &provider).map(|_| 2),
        };
        match result {
            Ok(count) => shape(&[1, usize::from(*which % 3), count]),
            Err(error) => outcome(error.to_string().rsplit(": ").next().unwrap_or_default()),
        }
    });
}
