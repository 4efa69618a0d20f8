//! The cluster's own certificate authority, the server's certificate and the administrator's.
//!
//! All lie in one directory, readable by their owner only. The authority is made once. It is made again where it is not
//! valid now, which a clock that was wrong when it was made can cause; certificates also when they are about to end, are
//! damaged, or do not name all the names the server has now.

mod issue;
mod request;
mod serving;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::auth::MASTERS;

pub use issue::USAGES;
pub use request::{CertificateRequest, Signer};
use serving::Serving;

/// The name of the cluster, the user's context and the user in kubeconfigs.
pub const CONTEXT: &str = "yado";
/// The common name of the certificate with which requests are handed on to aggregated API servers.
pub const FRONT_PROXY_NAME: &str = "front-proxy-client";
/// Years that the authority lasts: as long as a cluster can be expected to.
const AUTHORITY_YEARS: i16 = 20;
/// Years that certificates last; those that end soon are renewed at each start and while the server runs.
const CERTIFICATE_YEARS: i16 = 2;
/// A certificate that ends within so many days is made again.
const RENEW_DAYS: i64 = 90;

/// Why certificates cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file of the directory.
    #[error("cannot use {}: {source}; check that it may be read and written", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file that holds something else.
    #[error("{} is damaged: {reason}; remove the whole directory to make new certificates (and kubeconfigs)", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Description of the mistake.
        reason: String,
    },
    /// A certificate cannot be made.
    #[error("cannot make the certificate of {subject}: {reason}; check the names the server is given")]
    Make {
        /// Whose.
        subject: String,
        /// The error of the certificate library.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}; remove the directory of the certificates to make new ones")]
    Tls(String),
}

type Result<T, E = PkiError> = std::result::Result<T, E>;

/// A certificate with its key, both in PEM.
#[derive(Clone, PartialEq, Eq)]
struct Pair {
    certificate: String,
    key: String,
}

/// Everything that TLS needs.
#[derive(Clone)]
pub struct Pki {
    authority: String,
    issuer: Arc<Issuer<'static, KeyPair>>,
    server: Pair,
    admin: Pair,
    serving: Arc<Serving>,
    directory: PathBuf,
    names: ServerNames,
}

/// The certificate with which requests are handed on to aggregated API servers, and the authorities that they know it and
/// their other clients by. All are PEM.
#[derive(Clone)]
pub struct FrontProxy {
    /// The authority of the certificate.
    pub authority: String,
    /// The certificate; its common name is [`FRONT_PROXY_NAME`].
    pub certificate: String,
    /// The certificate's key.
    pub key: String,
    /// The authority of the cluster's own client certificates.
    pub client_authority: String,
}

impl std::fmt::Debug for FrontProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrontProxy").finish_non_exhaustive()
    }
}

/// Names and addresses under which the server is reached.
#[derive(Clone, Debug, Default)]
pub struct ServerNames {
    /// Besides localhost and the names of the `kubernetes` Service: the machine's host name, for one.
    pub names: Vec<String>,
    /// Besides 127.0.0.1 and ::1: the address of the `kubernetes` Service, the machine's own.
    pub addresses: Vec<IpAddr>,
}

impl ServerNames {
    fn all(&self) -> BTreeSet<String> {
        let service = ["", ".default", ".default.svc", ".default.svc.cluster.local"];
        let fixed = service.map(|s| format!("kubernetes{s}")).into_iter().chain(["localhost".to_owned()]);
        let loopback = ["127.0.0.1", "::1"].map(str::to_owned);
        let given =
            self.names.iter().map(|n| n.to_lowercase()).chain(self.addresses.iter().map(IpAddr::to_string));
        fixed.chain(loopback).chain(given).filter(|n| !n.is_empty()).collect()
    }
}

impl Pki {
    /// Reads the certificates in `directory`, making what is missing.
    ///
    /// # Errors
    /// Where files cannot be read or written, or hold something else.
    pub fn load_or_create(directory: &Path, names: &ServerNames, now: Timestamp) -> Result<Self> {
        make_directory(directory)?;
        let path = |name: &str| directory.join(name);
        let authority = authority(&path("ca"), &path("ca-before"), now)?;
        let issuer = issuer(&authority, &path("ca"))?;
        let all = names.all();
        let server = match read(&path("server"))? {
            Some(pair) if serves(&pair, &authority, now) && names_of(&pair).is_superset(&all) => pair,
            _ => write(&path("server"), make_server(&issuer, &all, now)?)?,
        };
        let admin = match read(&path("admin"))? {
            Some(pair) if serves(&pair, &authority, now) => pair,
            _ => write(&path("admin"), make_client(&issuer, "kubernetes-admin", Some(MASTERS), now)?)?,
        };
        Ok(Self {
            authority: authority.certificate,
            issuer: Arc::new(issuer),
            serving: Serving::new(&server)?,
            server,
            admin,
            directory: directory.to_owned(),
            names: names.clone(),
        })
    }

    /// Makes certificates anew that end soon, and shows the server's on connections from now on. `None` where none was due.
    ///
    /// # Errors
    /// Where files cannot be read or written, or hold something else.
    pub fn renew(&self, now: Timestamp) -> Result<Option<Self>> {
        let made = Self::load_or_create(&self.directory, &self.names, now)?;
        if made.server == self.server && made.admin == self.admin {
            return Ok(None);
        }
        self.serving.replace(&made.server)?;
        Ok(Some(Self { serving: self.serving.clone(), ..made }))
    }

    /// The authority's certificate in PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// A certificate, in PEM, for a request that its signer has checked ([`Signer::check`]): for these usages and so many
    /// seconds, a year at most.
    ///
    /// # Errors
    /// Where a usage is unknown, or the key is of a kind that cannot be certified.
    pub fn issue(
        &self,
        request: &CertificateRequest,
        usages: &[String],
        seconds: Option<i64>,
        now: Timestamp,
    ) -> std::result::Result<String, String> {
        let end = read_certificate(&self.authority, |authority| authority.validity().not_after.timestamp());
        let end = end.and_then(|end| Timestamp::from_second(end).ok()).unwrap_or(now);
        issue::issue(&self.issuer, end, &issue::Order { request, usages, seconds, now })
    }

    /// TLS for [`crate::ApiServer::serve`]: clients may show a certificate of this authority, and need not.
    ///
    /// # Errors
    /// Where the certificates do not fit together.
    pub fn server_config(&self) -> Result<Arc<rustls::ServerConfig>> {
        let tls = |e: &dyn std::fmt::Display| PkiError::Tls(e.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority.as_bytes()).map_err(|e| tls(&e))?;
        roots.add(authority).map_err(|e| tls(&e))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| tls(&e))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| tls(&e))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(self.serving.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// A kubeconfig for the administrator, with everything in it; `server` is a URL such as `https://127.0.0.1:6443`.
    pub fn kubeconfig(&self, server: &str) -> String {
        let data = |pem: &str| STANDARD.encode(pem);
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {CONTEXT}\npreferences: {{}}\nclusters:\n- name: {CONTEXT}\n  \
             cluster:\n    server: {server}\n    certificate-authority-data: {}\ncontexts:\n- name: {CONTEXT}\n  context:\n    \
             cluster: {CONTEXT}\n    user: {CONTEXT}\nusers:\n- name: {CONTEXT}\n  user:\n    client-certificate-data: {}\n    \
             client-key-data: {}\n",
            data(&self.authority),
            data(&self.admin.certificate),
            data(&self.admin.key),
        )
    }
}

impl FrontProxy {
    /// Reads the certificates in `directory`, that of a [`Pki`], making what is missing. The front proxy has an authority of
    /// its own: whoever has a certificate of that one may act as anybody towards aggregated API servers.
    ///
    /// # Errors
    /// Where files cannot be read or written, or hold something else.
    pub fn load_or_create(directory: &Path, now: Timestamp) -> Result<Self> {
        make_directory(directory)?;
        let path = |name: &str| directory.join(name);
        let clients = authority(&path("ca"), &path("ca-before"), now)?;
        let authority = authority(&path("front-proxy-ca"), &path("front-proxy-ca-before"), now)?;
        let issuer = issuer(&authority, &path("front-proxy-ca"))?;
        let client = match read(&path("front-proxy"))? {
            Some(pair) if serves(&pair, &authority, now) => pair,
            _ => write(&path("front-proxy"), make_client(&issuer, FRONT_PROXY_NAME, None, now)?)?,
        };
        Ok(Self {
            authority: authority.certificate,
            certificate: client.certificate,
            key: client.key,
            client_authority: clients.certificate,
        })
    }
}

fn make_directory(directory: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| PkiError::File { path: directory.to_owned(), source })
}

fn read(stem: &Path) -> Result<Option<Pair>> {
    let file = |ending: &str| {
        let path = stem.with_extension(ending);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(PkiError::File { path, source }),
        }
    };
    Ok(file("crt")?.zip(file("key")?).map(|(certificate, key)| Pair { certificate, key }))
}

/// The authority at `stem`, made where none is valid at `now`. One that is not is kept at `before` and comes back once the
/// clock is right again: kubeconfigs that were copied elsewhere trust it.
fn authority(stem: &Path, before: &Path, now: Timestamp) -> Result<Pair> {
    let known = read(stem)?;
    if let Some(pair) = &known {
        issuer(pair, stem)?;
    }
    match (known, read(before)?) {
        (Some(pair), _) if is_valid(&pair, now) => Ok(pair),
        (_, Some(pair)) if is_valid(&pair, now) && issuer(&pair, before).is_ok() => {
            let pair = write(stem, pair)?;
            for ending in ["crt", "key"] {
                let path = before.with_extension(ending);
                fs::remove_file(&path).map_err(|source| PkiError::File { path, source })?;
            }
            Ok(pair)
        }
        (known, _) => {
            known.map(|pair| write(before, pair)).transpose()?;
            write(stem, make_authority(now)?)
        }
    }
}

/// Writes the key first, so that a certificate that is there has its key.
fn write(stem: &Path, pair: Pair) -> Result<Pair> {
    for (ending, text) in [("key", &pair.key), ("crt", &pair.certificate)] {
        let path = stem.with_extension(ending);
        write_private(&path, text).map_err(|source| PkiError::File { path, source })?;
    }
    Ok(pair)
}

/// Replaces a file as a whole, readable by its owner only. What is there already is left alone, so that a start
/// needs no room on the disk for it.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|there| there == text)
        && fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o077 == 0)
    {
        return Ok(());
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let written =
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // What failed is the news; a left-over is overwritten next time.
        let _ = fs::remove_file(&new);
    }
    written
}

fn parameters(subject: &str, group: Option<&str>, now: Timestamp, years: i16) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, subject);
    if let Some(group) = group {
        parameters.distinguished_name.push(DnType::OrganizationName, group);
    }
    let date = |at: Timestamp, years: i16| {
        let date = at.to_zoned(TimeZone::UTC).date();
        // No later than the 28th, which every month has.
        date_time_ymd(i32::from(date.year() + years), date.month() as u8, (date.day() as u8).min(28))
    };
    // From some days ago, for clocks that are behind.
    parameters.not_before = date(now - SignedDuration::from_hours(24 * 4), 0);
    parameters.not_after = date(now, years);
    parameters
}

fn make(parameters: &CertificateParams, subject: &str, issuer: Option<&Issuer<'_, KeyPair>>) -> Result<Pair> {
    let failed = |e: rcgen::Error| PkiError::Make { subject: subject.to_owned(), reason: e.to_string() };
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = match issuer {
        Some(issuer) => parameters.signed_by(&key, issuer),
        None => parameters.self_signed(&key),
    };
    Ok(Pair { certificate: certificate.map_err(failed)?.pem(), key: key.serialize_pem() })
}

fn make_authority(now: Timestamp) -> Result<Pair> {
    // Told from other clusters' authorities by the moment of its making.
    let subject = format!("yado-ca@{}", now.as_second());
    let mut parameters = parameters(&subject, None, now, AUTHORITY_YEARS);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    make(&parameters, &subject, None)
}

fn make_server(issuer: &Issuer<'_, KeyPair>, names: &BTreeSet<String>, now: Timestamp) -> Result<Pair> {
    const SUBJECT: &str = "kube-apiserver";
    let mut parameters = parameters(SUBJECT, None, now, CERTIFICATE_YEARS);
    for name in names {
        parameters.subject_alt_names.push(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(|e: rcgen::Error| {
                PkiError::Make { subject: name.clone(), reason: e.to_string() }
            })?),
        });
    }
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    make(&parameters, SUBJECT, Some(issuer))
}

fn make_client(
    issuer: &Issuer<'_, KeyPair>,
    user: &str,
    group: Option<&str>,
    now: Timestamp,
) -> Result<Pair> {
    let mut parameters = parameters(user, group, now, CERTIFICATE_YEARS);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    parameters.use_authority_key_identifier_extension = true;
    make(&parameters, user, Some(issuer))
}

fn issuer(authority: &Pair, stem: &Path) -> Result<Issuer<'static, KeyPair>> {
    let damaged = |ending: &str| {
        let path = stem.with_extension(ending);
        move |e: rcgen::Error| PkiError::Damaged { path, reason: e.to_string() }
    };
    let key = KeyPair::from_pem(&authority.key).map_err(damaged("key"))?;
    if read_certificate(&authority.certificate, |c| c.public_key().raw != key.subject_public_key_info())
        == Some(true)
    {
        let (path, reason) = (stem.with_extension("key"), "it is not the key of ca.crt".to_owned());
        return Err(PkiError::Damaged { path, reason });
    }
    Issuer::from_ca_cert_pem(&authority.certificate, key).map_err(damaged("crt"))
}

/// Whether a certificate is of this authority, has its key and lasts a while. One that cannot be read does not.
fn serves(pair: &Pair, authority: &Pair, now: Timestamp) -> bool {
    let Ok(key) = KeyPair::from_pem(&pair.key) else { return false };
    let issuer = read_certificate(&authority.certificate, |c| c.subject().as_raw().to_vec());
    is_valid(pair, now)
        && read_certificate(&pair.certificate, |certificate| {
            certificate.public_key().raw == key.subject_public_key_info()
                && issuer.as_deref() == Some(certificate.issuer().as_raw())
        })
        .unwrap_or(false)
}

/// Whether a certificate is valid at `now` and for [`RENEW_DAYS`] after it.
fn is_valid(pair: &Pair, now: Timestamp) -> bool {
    let valid = read_certificate(&pair.certificate, |certificate| {
        let validity = certificate.validity();
        validity.not_before.timestamp() <= now.as_second()
            && validity.not_after.timestamp() > now.as_second() + RENEW_DAYS * 86_400
    });
    valid.unwrap_or(false)
}

/// Looks into a certificate; `None` where it is none.
fn read_certificate<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Some(look(&certificate))
}

fn names_of(pair: &Pair) -> BTreeSet<String> {
    let Ok(der) = CertificateDer::from_pem_slice(pair.certificate.as_bytes()) else { return BTreeSet::new() };
    let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return BTreeSet::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return BTreeSet::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
            bytes => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string()),
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Identity;

    fn check_valid(pki: &Pki, at: &str) {
        let now = at.parse().expect("a time");
        let authority = Pair { certificate: pki.authority.clone(), key: String::new() };
        for pair in [&pki.server, &pki.admin] {
            assert!(is_valid(&authority, now) && serves(pair, &authority, now), "{at}");
        }
    }

    #[test]
    fn a_wrong_clock_at_the_first_start_is_mended_at_the_next() {
        for wrong in ["2044-01-01T00:00:00Z", "1970-01-02T00:00:00Z"] {
            let directory = tempfile::tempdir().expect("a directory");
            for at in [wrong, "2028-01-01T00:00:00Z"] {
                let now = at.parse().expect("a time");
                let pki = Pki::load_or_create(directory.path(), &ServerNames::default(), now);
                check_valid(&pki.expect("certificates"), at);
            }
        }
    }

    #[test]
    fn certificates_are_kept_until_they_end_or_names_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pki");
        let load = |at: &str, name: &str| {
            let names = ServerNames { names: vec![name.into()], addresses: vec![[10, 96, 0, 1].into()] };
            Pki::load_or_create(&path, &names, at.parse().expect("a time")).expect("certificates")
        };
        let first = load("2026-02-28T00:00:00Z", "a");
        first.server_config().expect("TLS");
        let again = load("2026-03-01T00:00:00Z", "a");
        assert_eq!(first.server.certificate, again.server.certificate);
        assert_eq!(first.admin.certificate, again.admin.certificate);
        let renamed = load("2026-03-01T00:00:00Z", "b");
        assert!(
            first.server.certificate != renamed.server.certificate && first.authority == renamed.authority
        );
        let later = load("2028-01-01T00:00:00Z", "b");
        assert!(renamed.server.certificate != later.server.certificate);
        assert!(renamed.admin.certificate != later.admin.certificate && later.authority == first.authority);
        for entry in fs::read_dir(&path).expect("the directory") {
            let mode = entry.expect("a file").metadata().expect("metadata").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let der = CertificateDer::from_pem_slice(first.admin.certificate.as_bytes()).expect("PEM");
        assert_eq!(Identity::of_certificate(&der), Some(Identity::new("kubernetes-admin", [MASTERS])));
        let key = fs::read_to_string(path.join("server.key")).expect("a key");
        // What the authority signs is made again; the authority itself is not.
        for (file, content) in [("server.key", ""), ("admin.key", &*key), ("admin.crt", "nonsense")] {
            fs::write(path.join(file), content).expect("a file");
            let mended = load("2028-01-01T00:00:00Z", "b");
            mended.server_config().expect("TLS");
            let client = KeyPair::from_pem(&mended.admin.key).expect("a key");
            let fits = |c: &X509Certificate<'_>| c.public_key().raw == client.subject_public_key_info();
            assert_eq!(read_certificate(&mended.admin.certificate, fits), Some(true), "{file}");
        }
        // A clock that is years ahead or behind at one start makes certificates that are of no use at the next.
        for wrong in ["2044-01-01T00:00:00Z", "1970-01-02T00:00:00Z"] {
            assert!(load(wrong, "b").server.certificate != later.server.certificate);
            let mended = load("2028-01-02T00:00:00Z", "b");
            check_valid(&mended, "2028-01-02T00:00:00Z");
            assert_eq!(mended.authority, first.authority, "copied kubeconfigs trust it, {wrong}");
        }
        let later = load("2028-01-02T00:00:00Z", "b");
        fs::remove_file(path.join("ca.crt")).expect("to remove");
        let other = load("2028-01-02T00:00:01Z", "b");
        other.server_config().expect("TLS");
        assert!(other.authority != later.authority && other.server.certificate != later.server.certificate);
        for content in [&*key, "nonsense"] {
            fs::write(path.join("ca.key"), content).expect("a file");
            let names = ServerNames::default();
            let error = Pki::load_or_create(&path, &names, Timestamp::UNIX_EPOCH).err().expect("damaged");
            assert!(error.to_string().contains("ca.key is damaged"), "{error}");
        }
    }
}
