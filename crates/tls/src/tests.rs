//! Handshakes with generated certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose as Eku, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use time::{Duration, OffsetDateTime};

use crate::{Server, TlsInfo, self_signed};

/// A certificate with what is needed to sign with it.
struct Made {
    params: CertificateParams,
    der: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.subject_alt_names.clear();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn root(params: CertificateParams) -> Made {
    let key = KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    Made { der: made.der().clone(), pem: made.pem(), params, key }
}

impl Made {
    fn signs(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let made = params.signed_by(&key, &issuer).unwrap();
        Self { der: made.der().clone(), pem: made.pem(), params, key }
    }

    fn revokes(&self, serials: &[u64]) -> Vec<u8> {
        let now = OffsetDateTime::now_utc();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Duration::days(1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let mut params = self.params.clone();
        params.key_usages = vec![KeyUsagePurpose::CrlSign, KeyUsagePurpose::KeyCertSign];
        let issuer = Issuer::from_params(&params, &self.key);
        list.signed_by(&issuer).unwrap().der().to_vec()
    }

    fn secret(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

/// Files of a server, its CA, and the CA of its clients.
struct Room {
    folder: tempfile::TempDir,
    server_ca: Made,
    client_ca: Made,
}

impl Room {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let room = Self {
            folder,
            server_ca: root(authority("server ca")),
            client_ca: root(authority("ca")),
        };
        room.serve(&room.server_ca.signs(params("server")));
        room.write("ca.pem", &room.client_ca.pem);
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn serve(&self, made: &Made) {
        self.write("cert.pem", &made.pem);
        self.write("key.pem", made.key.serialize_pem());
    }

    fn info(&self) -> TlsInfo {
        TlsInfo {
            cert_file: Some(self.path("cert.pem")),
            key_file: Some(self.path("key.pem")),
            trusted_ca_file: Some(self.path("ca.pem")),
            client_cert_auth: true,
            ..TlsInfo::default()
        }
    }

    fn server(&self) -> Server {
        Server::new(self.info()).unwrap()
    }

    /// Connects with these certificates; the server's view of it.
    fn connect(&self, server: &Server, chain: &[&Made]) -> Result<ServerConnection, String> {
        connect(server, &self.server_ca.der, chain)
    }

    fn takes(&self, server: &Server, chain: &[&Made]) -> bool {
        self.connect(server, chain).is_ok()
    }

    /// Whether a client with such a certificate of the right CA is taken.
    fn takes_leaf(&self, params: CertificateParams) -> bool {
        self.takes(&self.server(), &[&self.client_ca.signs(params)])
    }
}

fn connect(
    server: &Server,
    trusted: &CertificateDer<'static>,
    chain: &[&Made],
) -> Result<ServerConnection, String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match chain {
        [] => builder.with_no_client_auth(),
        [leaf, ..] => {
            let ders = chain.iter().map(|made| made.der.clone()).collect();
            builder.with_client_auth_cert(ders, leaf.secret()).unwrap()
        }
    };
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut server = ServerConnection::new(server.config()).unwrap();
    loop {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().map_err(|error| crate::reason(&error))?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().map_err(|error| format!("client: {error}"))?;
        if !server.is_handshaking() && !client.is_handshaking() && !client.wants_write() {
            return Ok(server);
        }
    }
}

fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = params(name);
    change(&mut params);
    params
}

#[test]
fn a_client_shows_a_certificate_of_the_ca_or_is_refused() {
    let room = Room::new();
    let server = room.server();
    let known = room.client_ca.signs(params("alice"));
    let connection = room.connect(&server, &[&known]).unwrap();
    let leaf = &connection.peer_certificates().unwrap()[0];
    assert_eq!(crate::Identity::of(leaf).unwrap().common_name, "alice");
    assert!(room.connect(&server, &[]).is_err());
    assert!(!room.takes(&server, &[&root(authority("ca")).signs(params("mallory"))]));
}

#[test]
fn without_a_ca_nobody_is_asked() {
    let room = Room::new();
    let info = TlsInfo { trusted_ca_file: None, client_cert_auth: false, ..room.info() };
    let connection = room.connect(&Server::new(info).unwrap(), &[]).unwrap();
    assert!(connection.peer_certificates().is_none());
}

#[test]
fn certificates_asked_for_without_a_ca_are_all_refused() {
    let room = Room::new();
    let info = TlsInfo { trusted_ca_file: None, ..room.info() };
    let known = room.client_ca.signs(params("alice"));
    assert!(!room.takes(&Server::new(info).unwrap(), &[&known]));
}

#[test]
fn an_extended_key_usage_must_be_for_clients_or_for_anything() {
    let room = Room::new();
    let takes = |usages: &[Eku]| {
        room.takes_leaf(with("a", |params| params.extended_key_usages = usages.to_vec()))
    };
    assert!(takes(&[]));
    assert!(takes(&[Eku::ClientAuth]));
    assert!(takes(&[Eku::ServerAuth, Eku::ClientAuth]));
    assert!(takes(&[Eku::Any]));
    assert!(!takes(&[Eku::ServerAuth]));
    assert!(!takes(&[Eku::CodeSigning]));
}

#[test]
fn a_certificate_counts_within_its_time_only() {
    let room = Room::new();
    let now = OffsetDateTime::now_utc();
    let takes = |from, to| {
        room.takes_leaf(with("a", |params| {
            (params.not_before, params.not_after) = (now + from, now + to);
        }))
    };
    assert!(takes(Duration::days(-1), Duration::days(1)));
    assert!(!takes(Duration::days(-2), Duration::days(-1)));
    assert!(!takes(Duration::days(1), Duration::days(2)));
}

#[test]
fn an_intermediate_must_be_sent_and_be_allowed_to_sign() {
    let room = Room::new();
    let server = room.server();
    let middle = room.client_ca.signs(authority("middle"));
    let leaf = middle.signs(params("a"));
    assert!(room.takes(&server, &[&leaf, &middle]));
    assert!(!room.takes(&server, &[&leaf]));
    let mut no_signer = authority("middle");
    no_signer.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let no_signer = room.client_ca.signs(no_signer);
    assert!(!room.takes(&server, &[&no_signer.signs(params("a")), &no_signer]));
    let no_authority = room.client_ca.signs(params("middle"));
    assert!(!room.takes(&server, &[&no_authority.signs(params("a")), &no_authority]));
    let mut for_servers = authority("middle");
    for_servers.extended_key_usages = vec![Eku::ServerAuth];
    let for_servers = room.client_ca.signs(for_servers);
    assert!(!room.takes(&server, &[&for_servers.signs(params("a")), &for_servers]));
}

#[test]
fn a_root_counts_as_long_as_it_is_valid_and_may_sign() {
    let room = Room::new();
    let takes_under = |change: fn(&mut CertificateParams)| {
        let mut params = authority("root");
        change(&mut params);
        let root = root(params);
        room.write("ca.pem", &root.pem);
        room.takes(&room.server(), &[&root.signs(self::params("a"))])
    };
    assert!(takes_under(|_| {}));
    assert!(!takes_under(|root| {
        root.not_before = OffsetDateTime::now_utc() - Duration::days(2);
        root.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    }));
    assert!(!takes_under(|root| root.key_usages = vec![KeyUsagePurpose::DigitalSignature]));
    assert!(!takes_under(|root| root.is_ca = IsCa::ExplicitNoCa));
    assert!(!takes_under(|root| root.extended_key_usages = vec![Eku::ServerAuth]));
}

#[test]
fn a_root_says_how_many_issuers_may_stand_below_it() {
    let room = Room::new();
    let server = |roots: &[&Made]| {
        room.write("ca.pem", roots.iter().map(|root| root.pem.as_str()).collect::<String>());
        room.server()
    };
    let limited = |length| {
        let mut params = authority("root");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(length));
        root(params)
    };
    for length in [0, 1] {
        let root = limited(length);
        let server = server(&[&root]);
        let first = root.signs(authority("first"));
        let second = first.signs(authority("second"));
        assert!(room.takes(&server, &[&root.signs(params("a"))]), "{length}");
        assert_eq!(room.takes(&server, &[&first.signs(params("a")), &first]), length >= 1);
        assert!(!room.takes(&server, &[&second.signs(params("a")), &second, &first]), "{length}");
    }
    // Of several certificates with one name and key, one is enough.
    let narrow = limited(0);
    let mut params = authority("root");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    let made = params.self_signed(&narrow.key).unwrap();
    let pem = [narrow.pem.as_str(), &made.pem()].concat();
    room.write("ca.pem", pem);
    let first = narrow.signs(authority("first"));
    assert!(room.takes(&room.server(), &[&first.signs(self::params("a")), &first]));
}

#[test]
fn a_certificate_in_the_ca_file_itself_is_trusted() {
    let room = Room::new();
    let takes = |params: CertificateParams| {
        let own = root(params);
        room.write("ca.pem", &own.pem);
        room.takes(&room.server(), &[&own])
    };
    assert!(takes(params("a")));
    assert!(takes(authority("a")));
    assert!(!takes(with("a", |params| params.extended_key_usages = vec![Eku::ServerAuth])));
    assert!(!takes(with("a", |params| {
        params.not_before = OffsetDateTime::now_utc() - Duration::days(2);
        params.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    })));
}

#[test]
fn only_allowed_names_come_in() {
    let room = Room::new();
    let (alice, bob) = (room.client_ca.signs(params("alice")), room.client_ca.signs(params("bob")));
    let info = TlsInfo { allowed_cn: vec!["carol".into(), "alice".into()], ..room.info() };
    let server = Server::new(info).unwrap();
    assert!(room.takes(&server, &[&alice]));
    let refused = room.connect(&server, &[&bob]).err().unwrap();
    assert!(refused.contains("client certificate authentication failed"), "{refused}");
    for (host, taken) in [("localhost", true), ("alice", false)] {
        let info = TlsInfo { allowed_hostname: vec![host.into()], ..room.info() };
        assert_eq!(room.takes(&Server::new(info).unwrap(), &[&alice]), taken, "{host}");
    }
}

#[test]
fn a_revoked_serial_is_refused_as_soon_as_the_list_says_so() {
    let room = Room::new();
    let numbered = |serial: u64| {
        let number = SerialNumber::from(serial);
        room.client_ca.signs(with("a", |params| params.serial_number = Some(number)))
    };
    let (first, second) = (numbered(0x81), numbered(0x0102));
    let info = TlsInfo { crl_file: Some(room.path("crl")), ..room.info() };
    let server = Server::new(info).unwrap();
    assert!(!room.takes(&server, &[&first]), "a list that was never read refuses everybody");
    room.write("crl", room.client_ca.revokes(&[0x81]));
    let refused = room.connect(&server, &[&first]).err().unwrap();
    assert!(refused.contains("transport: certificate serial 81 revoked"), "{refused}");
    assert!(room.takes(&server, &[&second]));
    room.write("crl", "broken");
    assert!(!room.takes(&server, &[&first]), "a broken list leaves the old one in force");
    assert!(room.takes(&server, &[&second]));
    room.write("crl", room.client_ca.revokes(&[0x0102]));
    assert!(room.takes(&server, &[&first]));
    assert!(!room.takes(&server, &[&second]));
}

#[test]
fn certificate_and_ca_are_picked_up_while_a_broken_file_is_not() {
    let room = Room::new();
    let server = room.server();
    let client = room.client_ca.signs(params("a"));
    let other = root(authority("other"));
    room.serve(&other.signs(params("server")));
    assert!(connect(&server, &other.der, &[&client]).is_ok());
    room.write("cert.pem", "broken");
    assert!(connect(&server, &other.der, &[&client]).is_ok());
    room.write("ca.pem", &other.pem);
    assert!(connect(&server, &other.der, &[&client]).is_err());
    assert!(connect(&server, &other.der, &[&other.signs(params("a"))]).is_ok());
    room.write("key.pem", root(params("x")).key.serialize_pem());
    room.write("cert.pem", &other.pem);
    assert!(connect(&server, &other.der, &[&other.signs(params("a"))]).is_ok());
}

#[test]
fn what_does_not_fit_together_is_told_in_the_words_of_etcd() {
    let room = Room::new();
    let refused = |info: TlsInfo| Server::new(info).unwrap_err().to_string();
    let cert = room.path("cert.pem");
    assert_eq!(
        refused(TlsInfo { key_file: None, ..room.info() }),
        format!("KeyFile and CertFile must both be present[key: , cert: {}]", cert.display())
    );
    assert!(
        refused(TlsInfo { client_cert_file: Some(cert), ..room.info() })
            .starts_with("ClientKeyFile and ClientCertFile must both be present or both absent")
    );
    assert_eq!(
        refused(TlsInfo {
            allowed_cn: vec!["a".into()],
            allowed_hostname: vec!["b".into()],
            ..room.info()
        }),
        "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\"], hostnames=[\"b\"])"
    );
    let strange = KeyPair::generate().unwrap();
    room.write("key.pem", strange.serialize_pem());
    let mismatch = refused(room.info());
    assert!(mismatch.contains("private key does not match public key"), "{mismatch}");
}

#[test]
fn no_error_tells_what_is_in_a_key() {
    let room = Room::new();
    let secret = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
    room.write("key.pem", secret);
    let told = Server::new(room.info()).unwrap_err();
    assert!(!format!("{told} {told:?}").contains("ecret"), "{told:?}");
}

#[test]
fn a_generated_certificate_serves_and_is_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("fixtures").join("client");
    let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned(), String::new()];
    let info = self_signed(&place, &hosts, 1).unwrap();
    let server = Server::new(info.clone()).unwrap();
    let read = |name: &str| std::fs::read(place.join(name)).unwrap();
    let made = crate::files::certificates(&place.join("cert.pem")).unwrap().remove(0);
    let identity = crate::Identity::of(&made).unwrap();
    assert_eq!(identity.dns_names, ["localhost"]);
    assert!(identity.is_for("127.0.0.1"));
    assert!(server.config().alpn_protocols.contains(&b"h2".to_vec()));
    assert_eq!(mode(&place.join("key.pem")), 0o600);
    let before = (read("cert.pem"), read("key.pem"));
    assert_eq!(self_signed(&place, &hosts, 1).unwrap(), info);
    assert_eq!((read("cert.pem"), read("key.pem")), before);
    assert!(self_signed(&place, &hosts, 0).is_err());
}

#[test]
fn an_expired_generated_certificate_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let old = root(with("old", |params| {
        params.not_before = OffsetDateTime::now_utc() - Duration::days(9);
        params.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    }));
    std::fs::write(folder.path().join("cert.pem"), &old.pem).unwrap();
    std::fs::write(folder.path().join("key.pem"), old.key.serialize_pem()).unwrap();
    let info = self_signed(folder.path(), &["localhost".to_owned()], 1).unwrap();
    let made = crate::files::certificates(&info.cert_file.unwrap()).unwrap();
    assert_ne!(made[0], old.der);
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
