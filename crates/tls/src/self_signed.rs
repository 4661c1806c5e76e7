//! Certificates that the server makes for itself (`--auto-tls`, `--peer-auto-tls`).
//!
//! Names, places and contents are etcd's; the key is of P-256 where etcd takes P-521, because not every client
//! knows that one. What etcd itself left in the folder is used as it is, and so is what was made before, while it
//! is valid. etcd goes on with an expired one.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{Error, TlsInfo, files};

/// Days of a year of validity.
const YEAR_DAYS: i64 = 365;
/// Longest validity in years; beyond, the end would not fit a certificate's time.
const YEARS_MAX: u64 = 1000;

/// The certificate in `folder`, for these hosts; made when there is none that is valid.
///
/// # Errors
/// [`Error::ValidityZero`], or what stands in the way of making it.
pub fn self_signed(folder: &Path, hosts: &[String], years: u64) -> Result<TlsInfo, Error> {
    if years == 0 {
        return Err(Error::ValidityZero);
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| Error::File { path: folder.to_owned(), source })?;
    let folder = std::path::absolute(folder)
        .map_err(|source| Error::File { path: folder.to_owned(), source })?;
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    if !(is_valid(&cert)? && key.exists()) {
        generate(&cert, &key, hosts, years.min(YEARS_MAX))?;
    }
    Ok(TlsInfo {
        cert_file: Some(cert.clone()),
        key_file: Some(key.clone()),
        client_cert_file: Some(cert),
        client_key_file: Some(key),
        ..TlsInfo::default()
    })
}

/// Whether there is a certificate that has not expired. One that cannot be read is for the operator to judge.
fn is_valid(cert: &Path) -> Result<bool, Error> {
    if !cert.exists() {
        return Ok(false);
    }
    let chain = files::certificates(cert)?;
    let parsed = chain.first().and_then(|der| X509Certificate::from_der(der).ok());
    let Some((_, parsed)) = parsed else {
        let reason = Error::Malformed.to_string();
        return Err(Error::Content { path: cert.to_owned(), reason });
    };
    let end = parsed.validity().not_after.timestamp();
    if end > OffsetDateTime::now_utc().unix_timestamp() {
        return Ok(true);
    }
    tracing::warn!(path = %cert.display(), "the generated certificate has expired; making a new one");
    Ok(false)
}

fn generate(cert: &Path, key: &Path, hosts: &[String], years: u64) -> Result<(), Error> {
    let failed = |error: rcgen::Error| Error::Generate(error.to_string());
    let now = OffsetDateTime::now_utc();
    let end = now + Duration::days(YEAR_DAYS * i64::try_from(years).unwrap_or(1));
    tracing::warn!(
        "certificate-validity-bound-not-after" = %end,
        "automatically generate certificates"
    );
    let pair = KeyPair::generate().map_err(failed)?;
    let certificate = parameters(hosts, now, end)?.self_signed(&pair).map_err(failed)?;
    // The key first: a certificate without its key would be taken for a whole pair never finished.
    write(key, 0o600, &pair.serialize_pem())?;
    write(cert, 0o644, &certificate.pem())?;
    tracing::info!(path = %cert.display(), "created cert file");
    tracing::info!(path = %key.display(), "created key file");
    Ok(())
}

fn parameters(
    hosts: &[String],
    now: OffsetDateTime,
    end: OffsetDateTime,
) -> Result<CertificateParams, Error> {
    let mut parameters = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "etcd");
    parameters.distinguished_name = name;
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial)
        .map_err(|_| Error::Generate("no randomness for a serial number".into()))?;
    // Serial numbers are positive and their first digit counts.
    serial[0] = serial[0] & 0x7f | 0x40;
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    (parameters.not_before, parameters.not_after) = (now, end);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::CrlSign,
    ];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for host in hosts.iter().filter(|host| !host.is_empty()) {
        parameters.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => {
                let name = host.as_str().try_into();
                SanType::DnsName(
                    name.map_err(|error: rcgen::Error| Error::Generate(error.to_string()))?,
                )
            }
        });
    }
    Ok(parameters)
}

/// Writes beside and renames, so that a crash leaves no half of a file.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let beside = PathBuf::from(format!("{}.tmp", path.display()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&beside)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}
